"""Foundry Local: its lists by generation, its ids, where its service is, and generation 1 as recorded."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loadbench import server as targets
from loadbench.errors import TargetError, UsageError
from loadbench.server import Control, Found, ModelFacts, Target, choose, discover
from loadbench.server.foundry import device_of_id, is_same, placed, registered, short_provider, stem_of_id
from tests.support.finding import found
from tests.support.replay import capture
from tests.support.scripted import Answer, Scripted, scripted

# -- Foundry Local's lists, by generation: 0 scripted from its documentation, 1 as 1.2.4 and 2 as 2.2.1 answer

GENERATION_0_AS_DOCUMENTED: dict[str, Any] = {
    "/v1/models": {
        "data": [
            {
                "maxInputTokens": 114688,
                "maxOutputTokens": 16384,
                "id": "Phi-3.5-mini-instruct-openvino-gpu:1",
                "owned_by": "Microsoft",
                "created": None,
                "HttpStatusCode": 0,
            },
            {"id": "qwen2.5-0.5b-instruct-generic-cpu:4", "owned_by": "Microsoft"},
        ],
        "IsDelta": False,
    },
    "/openai/status": {"Endpoints": ["http://localhost:5273"], "ModelDirPath": "/home/me/.foundry", "PipeName": "x"},
    "/openai/loadedmodels": ["phi-3.5-mini-instruct-openvino-gpu:1"],
    "/openai/models": ["Phi-3.5-mini-instruct-openvino-gpu:1", "qwen2.5-0.5b-instruct-generic-cpu:4"],
    "/foundry/list": {
        "models": [
            {
                "name": "Phi-3.5-mini-instruct-openvino-gpu:1",
                "alias": "phi-3.5-mini",
                "runtime": {"deviceType": "GPU", "executionProvider": "OpenVINOExecutionProvider"},
                "fileSizeMb": 2181,
                "license": "MIT",
                "supportsToolCalling": True,
                "task": "chat-completion",
                "promptTemplate": None,
            },
            {"name": "Phi-4-mini-instruct-cuda-gpu:5", "alias": "phi-4-mini", "runtime": None},
        ]
    },
}
GENERATION_1: dict[str, Any] = {
    "/v1/models": {
        "data": [
            {"id": "tiny-generic-cpu", "owned_by": "", "parent": "tiny-generic-cpu"},
            {"id": "a-cpu:1", "parent": "a"},
        ],
        "object": "list",
    },
    "/status": {"Endpoints": None, "ModelDirPath": "/models"},
    "/models/loaded": ["tiny-generic-cpu:1"],
}
GENERATION_2: dict[str, Any] = {
    "/v1/models": {"data": [{"created": 1795365216, "id": "phi-4-mini-instruct-cuda-gpu:5", "owned_by": "Microsoft"}]},
    "/catalogs/local/v1/models": {"data": [{"id": "mine-generic-cpu:1", "owned_by": "local"}], "object": "list"},
    "/status": {"endpoints": ["http://127.0.0.1:41201"], "modelCachePath": "/cache", "pid": 15495},
    "/models/loaded": [],
    "/catalogs/local/models/loaded": ["mine-generic-cpu:1"],
}


def test_two_registered_models_have_the_aliases_that_the_runtime_gives_them() -> None:
    """`tiny-a` was taken for both, and the other one loaded."""
    rows = {"data": [{"id": "tiny-a-gpu:1"}, {"id": "tiny-a-generic-gpu:1"}]}

    target = found({**GENERATION_2, "/catalogs/local/v1/models": rows, "/v1/models": {"data": []}})

    assert [facts.aliases for facts in target.models] == [("tiny-a-gpu",), ("tiny-a",)]


def ids(target: Target) -> list[str]:
    return [facts.id for facts in target.models]


def test_generation_0_lists_what_is_loaded_and_cached_and_its_catalog_adds_the_rest() -> None:
    target = found(GENERATION_0_AS_DOCUMENTED, server="Kestrel")

    assert target.kind == "foundry0"
    phi, qwen, absent = target.models
    assert (phi.loaded, phi.cached, qwen.loaded, qwen.cached) == (True, True, False, True)
    assert (phi.context, qwen.context) == (131072, None)
    assert (phi.size_bytes, phi.licence, phi.aliases) == (2181 * 2**20, "MIT", ("phi-3.5-mini",))
    assert (phi.device, phi.execution_provider) == ("GPU", "OpenVINOExecutionProvider")
    assert phi.capabilities == ("tools",)
    assert (absent.id, absent.cached, absent.loaded) == ("Phi-4-mini-instruct-cuda-gpu:5", False, False)
    assert (absent.device, absent.execution_provider) == ("GPU", "CUDAExecutionProvider"), "from its id"


def test_a_catalog_of_generation_0_is_left_out_where_nothing_tells_what_is_downloaded() -> None:
    target = found({**GENERATION_0_AS_DOCUMENTED, "/openai/models": {"error": "?"}})

    assert len(target.models) == 2


def test_generation_1_is_known_by_its_model_folder_and_names_a_version_only_in_what_is_loaded() -> None:
    target = found(GENERATION_1)

    assert (target.kind, target.pid) == ("foundry1", None)
    assert [facts.aliases for facts in target.models] == [(), ("a",)]
    assert [(facts.id, facts.loaded) for facts in target.models] == [("tiny-generic-cpu", True), ("a-cpu:1", False)]


def test_generation_2_lists_its_whole_catalog_and_registered_models_with_a_base_url_of_their_own() -> None:
    target = found(GENERATION_2, server="oatpp/1.3.0")

    phi, mine = target.models
    assert (target.kind, target.pid) == ("foundry2", 15495)
    assert (phi.loaded, phi.cached) == (False, None), "nothing is known to be downloaded"
    assert (phi.device, phi.execution_provider) == ("GPU", "CUDAExecutionProvider"), "from its id"
    assert (mine.id, mine.aliases, mine.loaded, mine.cached) == ("mine-generic-cpu:1", ("mine",), True, True)
    assert target.chat_url_of(mine.id) == target.base_url.replace("/v1", "/catalogs/local/v1/chat/completions")
    assert target.chat_url_of(phi.id) == target.chat_url


def test_generation_2s_registered_models_are_listed_alone_under_their_own_prefix() -> None:
    target = found(GENERATION_2, path="/catalogs/local/v1")

    assert target.base_url.endswith("/catalogs/local/v1")
    assert (target.kind, target.pid, ids(target)) == ("foundry2", 15495, ["mine-generic-cpu:1"])
    assert (target.models[0].loaded, target.models[0].base_url) == (True, None)
    assert target.chat_url_of("mine-generic-cpu:1") == target.chat_url


def test_auto_takes_a_registered_model_that_is_not_loaded() -> None:
    target = found({**GENERATION_2, "/catalogs/local/models/loaded": []})

    assert [one.id for one in choose(target, "auto").chosen] == ["mine-generic-cpu:1"]


# -- What a model runs on, by the names of devices and execution providers

IDS = {
    "Phi-4-mini-instruct-cuda-gpu:5": ("GPU", "CUDAExecutionProvider", "Phi-4-mini-instruct"),
    "qwen2.5-0.5b-instruct-generic-cpu:4": ("CPU", "CPUExecutionProvider", "qwen2.5-0.5b-instruct"),
    "qwen2.5-0.5b-instruct-generic-gpu:4": ("GPU", None, "qwen2.5-0.5b-instruct"),  # CUDA or WebGPU, as there is
    "a-openvino-npu:1": ("NPU", "OpenVINOExecutionProvider", "a"),
    "a-qnn-npu": ("NPU", "QNNExecutionProvider", "a"),
    "a-trtrtx-gpu:1": ("GPU", "NvTensorRTRTXExecutionProvider", "a"),
    "a-vitis-npu:1": ("NPU", "VitisAIExecutionProvider", "a"),
    "a-cpu:1": ("CPU", None, "a"),
    "my-own-gpu:1": ("GPU", None, "my-own"),  # no provider of that name
    "smollm2-135m": (None, None, "smollm2-135m"),
    "gpu": (None, None, "gpu"),
    "phi4:14b": (None, None, "phi4"),
}


@pytest.mark.parametrize("model", IDS)
def test_foundrys_ids_tell_device_and_provider(model: str) -> None:
    device, provider, stem = IDS[model]

    assert (*device_of_id(model), stem_of_id(model)) == (device, provider, stem)


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("CUDAExecutionProvider", "cuda"),
        ("WebGpuExecutionProvider", "WebGPU"),
        ("OpenVINOExecutionProvider", "openvino"),
        ("QNNExecutionProvider", "qnn"),
        ("VitisAIExecutionProvider", "vitisai"),
        ("DmlExecutionProvider", "dml"),
        ("NvTensorRTRTXExecutionProvider", "trtrtx"),
        ("NvTensorRTRTXExecutionProvider", "nvtensorrtrtx"),
        ("MIGraphXExecutionProvider", "migraphx"),
        ("CPUExecutionProvider", "cpu"),
    ],
)
def test_short_names_of_providers_are_the_long_ones(long: str, short: str) -> None:
    assert short_provider(long) == short_provider(short)


def test_what_a_server_tells_goes_before_what_the_id_does() -> None:
    facts = placed(ModelFacts("a-cuda-gpu:1", device="CPU"))

    assert (facts.device, facts.execution_provider) == ("CPU", None), "CUDA is no provider of a CPU"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("a:1", "A:1", True), ("a", "a:1", True), ("a:1", "a:2", False), ("a", "b", False)],
)
def test_an_id_without_version_is_that_of_any_version(one: str, other: str, same: bool) -> None:
    assert is_same(one, other) is same
    assert is_same(other, one) is same


def test_the_name_of_a_registered_model_tells_a_device_that_nobody_saw() -> None:
    named = registered(ModelFacts("tiny-a-generic-gpu:1"))
    told = registered(ModelFacts("tiny-a-generic-gpu:1", device="CPU"))

    assert (named.device, named.device_by_name) == ("GPU", True)
    assert (told.device, told.device_by_name) == ("CPU", None)
    assert placed(ModelFacts("phi-4-generic-gpu:1")).device_by_name is None, "a catalogue's names are true"
    assert placed(named).device_by_name


# -- A Foundry Local service is found without an endpoint: by variable, by its file, by its command

needs_shell = pytest.mark.skipif(os.name == "nt", reason="the fake command is a shell script")


@pytest.fixture
def service() -> Iterator[str]:
    """The URL of a port that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def dead() -> str:
    """The URL of a service that was killed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def daemon(home: Path, content: str) -> None:
    (home / ".foundry").mkdir()
    (home / ".foundry" / "daemon.json").write_text(content, encoding="utf-8")


def command(folder: Path, script: str) -> dict[str, str]:
    """An environment with a `foundry` command that does what the script says."""
    path = folder / "foundry"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"PATH": str(folder)}


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert discover({"PATH": str(tmp_path)}, tmp_path) is None


def test_the_variable_wins_and_is_not_tried_and_else_the_file_of_the_service_names_its_port(
    tmp_path: Path, service: str, dead: str
) -> None:
    daemon(tmp_path, json.dumps({"pid": 7, "web_urls": [service], "daemon_version": "0.10.3"}))

    named = discover({"FOUNDRY_LOCAL_ENDPOINT": f" {dead}/v1/ "}, tmp_path)
    assert named == Found(f"{dead}/v1", "FOUNDRY_LOCAL_ENDPOINT")
    assert discover({"FOUNDRY_LOCAL_ENDPOINT": ""}, tmp_path) == Found(f"{service}/v1", "~/.foundry/daemon.json")
    with pytest.raises(UsageError, match=r"^FOUNDRY_LOCAL_ENDPOINT: endpoint '8080'"):
        discover({"FOUNDRY_LOCAL_ENDPOINT": "8080"}, tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"web_urls": null}', '{"web_urls": [7, "ftp://x"]}', "\ufeff{}"])
def test_a_broken_file_finds_nothing(tmp_path: Path, content: str) -> None:
    daemon(tmp_path, content)

    assert discover({"PATH": ""}, tmp_path) is None


@pytest.mark.system
@needs_shell
def test_the_file_of_a_killed_service_gives_way_to_the_command(tmp_path: Path, service: str, dead: str) -> None:
    daemon(tmp_path, json.dumps({"web_urls": [dead]}))
    said = json.dumps({"running": True, "webUrls": [service]})

    found = discover(command(tmp_path, f"[ \"$*\" = 'server status --output json' ] && echo '{said}'"), tmp_path)

    assert found == Found(f"{service}/v1", "`foundry server status`")


@pytest.mark.system
@needs_shell
def test_an_older_command_tells_the_address_in_a_sentence(tmp_path: Path, service: str) -> None:
    says = f"[ \"$1\" = service ] && echo '🟢 Model management service is running on {service}/openai/status'"

    assert discover(command(tmp_path, says), tmp_path) == Found(f"{service}/v1", "`foundry service status`")


@pytest.mark.system
@needs_shell
def test_a_command_that_hangs_or_is_something_else_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadbench.server.foundry._ASK_S", 0.05)

    assert discover(command(tmp_path, f"exec {sys.executable} -c 'import time; time.sleep(30)'"), tmp_path) is None
    assert discover(command(tmp_path, "echo usage; exit 2"), tmp_path) is None


# -- Foundry Local's generation 1 by what its real service (SDK 1.2.4) answered: who it is, what is loaded, loading


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


@asynccontextmanager
async def generation_1(*, loaded: str) -> AsyncIterator[tuple[Scripted, Target, Control]]:
    """Its service, what is found of it, and its control."""
    answers = {
        "/status": recorded("status"),
        "/v1/models": recorded("models"),
        "/models/loaded": recorded(loaded),
        "/models/load/tiny-generic-cpu": recorded("load"),
        "/models/load/nosuch": recorded("load_unknown"),
        "/models/unload/tiny-generic-cpu": recorded("unload"),
    }
    async with scripted(answers) as fake, targets.open_http(fake.url) as http:
        server = await targets.find(fake.url, http=http)
        control = targets.control(server, http)
        assert control is not None
        yield fake, server, control


@pytest.mark.anyio
@pytest.mark.parametrize(("answer", "loaded"), [("loaded_none", False), ("loaded", True)])
async def test_its_service_is_known_by_its_status_and_says_what_is_loaded(answer: str, loaded: bool) -> None:
    async with generation_1(loaded=answer) as (_, server, _):
        assert server.kind == "foundry1"
        # It lists the model without its version and the loaded one with it.
        assert [(model.id, model.loaded) for model in server.models] == [("tiny-generic-cpu", loaded)]


@pytest.mark.anyio
async def test_its_models_are_loaded_and_unloaded_by_id() -> None:
    async with generation_1(loaded="loaded") as (fake, server, control):
        fake.asked.clear()
        await control.load(server.models[0])
        running = await control.running(server.models[0])
        await control.unload(server.models[0])

    assert fake.asked[0] == "/models/load/tiny-generic-cpu"
    assert fake.asked[-1] == "/models/unload/tiny-generic-cpu"
    assert running is not None
    assert (running.id, running.device) == ("tiny-generic-cpu:1", "CPU")


@pytest.mark.anyio
async def test_a_model_that_it_cannot_load_is_one_line() -> None:
    async with generation_1(loaded="loaded_none") as (_, _, control):
        with pytest.raises(TargetError, match="nosuch") as raised:
            await control.load(ModelFacts("nosuch"))

    assert "\n" not in str(raised.value)
