"""Waiting for a server, and what is kept of what it says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from loadbench.errors import TargetError
from loadbench.server import find, open_http, wait
from tests.support.scripted import Answer, scripted

HERE = "http://127.0.0.1:9"
MODELS = Answer({"data": [{"id": "m"}]})


@pytest.mark.parametrize(("build", "version"), [("b6000-abc", "b6000-abc"), ("b0-unknown", None)])
def test_a_version_that_says_unknown_is_none(build: str, version: str | None) -> None:
    props = Answer({"default_generation_settings": {"n_ctx": 2048}, "build_info": build})

    async def found() -> str | None:
        async with scripted({"/v1/models": MODELS, "/props": props}) as fake, open_http(fake.url) as http:
            return (await find(fake.url, http=http)).version

    assert asyncio.run(found()) == version


def _raises(error: Exception) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    return answer


def _busy(status: int, message: str, **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(status, json={"error": {"message": message}}, headers=headers)


NOT_READY: dict[str, tuple[Callable[[httpx.Request], httpx.Response], str]] = {
    # a server that is not ready; how the reason ends for one who waits
    "refused": (_raises(httpx.ConnectError("refused")), "with -e URL (`loadbench doctor` lists servers found here)"),
    "unreachable": (_raises(httpx.ConnectTimeout("")), "is the host up and the port open?"),
    "loading": (_busy(503, "Loading model"), "the server is still loading its model (503)"),
    "busy": (_busy(503, "come back"), "answered 503 (come back): the server is busy or starting"),
}


@pytest.mark.parametrize("case", NOT_READY)
def test_who_waits_is_not_told_to_wait(case: str) -> None:
    answer, ending = NOT_READY[case]
    reasons: list[str] = []

    async def waited(wait_s: float) -> None:
        async with open_http(HERE, transport=httpx.MockTransport(answer)) as http:
            await wait(HERE, http=http, wait_s=wait_s, waiting=reasons.append)

    with pytest.raises(TargetError, match=r"^waited 0\.4 s in vain: ") as caught:
        asyncio.run(waited(0.4))
    with pytest.raises(TargetError, match="--wait 60s"):
        asyncio.run(waited(0.0))

    assert [reason[:21] for reason in reasons] == ["waiting up to 0.4 s: "]
    assert reasons[0].endswith(ending)
    assert str(caught.value).endswith(ending)
