"""Foundry Local's generation 1 by what its real service (SDK 1.2.4) answered: who it is, what is loaded, loading."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadbench import server as targets
from loadbench.errors import TargetError
from loadbench.server import Target
from tests.support.replay import capture
from tests.support.scripted import Answer, Scripted, scripted


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def recorded(name: str) -> Answer:
    """The answer of a captured control call, out of its HTTP framing."""
    head, _, body = capture(f"foundry1/control/{name}").response.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if b"chunked" in head:
        size, _, rest = body.partition(b"\r\n")
        body = rest[: int(size, 16)]
    content: Any = json.loads(body) if body else b""
    return Answer(content, status)


def service(*, loaded: str) -> dict[str, Answer]:
    return {
        "/status": recorded("status"),
        "/v1/models": recorded("models"),
        "/models/loaded": recorded(loaded),
        "/models/load/tiny-generic-cpu": recorded("load"),
        "/models/load/nosuch": recorded("load_unknown"),
        "/models/unload/tiny-generic-cpu": recorded("unload"),
    }


async def found(fake: Scripted) -> Target:
    async with targets.open_http(fake.url) as http:
        return await targets.find(fake.url, http=http)


@pytest.mark.anyio
@pytest.mark.parametrize(("answer", "loaded"), [("loaded_none", False), ("loaded", True)])
async def test_its_service_is_known_by_its_status_and_says_what_is_loaded(answer: str, loaded: bool) -> None:
    async with scripted(service(loaded=answer)) as fake:
        server = await found(fake)

    assert server.kind == "foundry1"
    # It lists the model without its version and the loaded one with it.
    assert [(model.id, model.loaded) for model in server.models] == [("tiny-generic-cpu", loaded)]


@pytest.mark.anyio
async def test_its_models_are_loaded_and_unloaded_by_id() -> None:
    async with scripted(service(loaded="loaded")) as fake, targets.open_http(fake.url) as http:
        server = await targets.find(fake.url, http=http)
        control = targets.control(server, http)
        assert control is not None
        fake.asked.clear()
        await control.load(server.models[0])
        await control.unload(server.models[0])

    assert fake.asked[0] == "/models/load/tiny-generic-cpu"
    assert fake.asked[-1] == "/models/unload/tiny-generic-cpu"


@pytest.mark.anyio
async def test_what_runs_is_told_with_its_version() -> None:
    async with scripted(service(loaded="loaded")) as fake, targets.open_http(fake.url) as http:
        server = await targets.find(fake.url, http=http)
        control = targets.control(server, http)
        assert control is not None
        running = await control.running(server.models[0])

    assert running is not None
    assert (running.id, running.device) == ("tiny-generic-cpu:1", "CPU")


@pytest.mark.anyio
async def test_a_model_that_it_cannot_load_is_one_line() -> None:
    async with scripted(service(loaded="loaded_none")) as fake, targets.open_http(fake.url) as http:
        server = await targets.find(fake.url, http=http)
        control = targets.control(server, http)
        assert control is not None
        with pytest.raises(TargetError, match="nosuch") as raised:
            await control.load(targets.ModelFacts("nosuch"))

    assert "\n" not in str(raised.value)
