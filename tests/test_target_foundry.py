"""Foundry Local's lists, by generation: 0 scripted from its documentation, 1 as 1.2.4 and 2 as 2.2.1 answer."""

from __future__ import annotations

from typing import Any

from loadbench.server import Target, choose
from tests.support.finding import found

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


def test_generation_0_tells_what_is_loaded_and_cached() -> None:
    target = found(GENERATION_0_AS_DOCUMENTED, server="Kestrel")

    assert target.kind == "foundry0"
    phi, qwen, _ = target.models
    assert (phi.loaded, phi.cached, qwen.loaded, qwen.cached) == (True, True, False, True)
    assert (phi.context, qwen.context) == (131072, None)


def test_generation_0_tells_size_licence_device_and_alias_in_its_catalog() -> None:
    phi = found(GENERATION_0_AS_DOCUMENTED).models[0]

    assert (phi.size_bytes, phi.licence, phi.aliases) == (2181 * 2**20, "MIT", ("phi-3.5-mini",))
    assert (phi.device, phi.execution_provider) == ("GPU", "OpenVINOExecutionProvider")
    assert phi.capabilities == ("tools",)


def test_generation_0s_catalog_adds_what_is_not_downloaded() -> None:
    absent = found(GENERATION_0_AS_DOCUMENTED).models[2]

    assert (absent.id, absent.cached, absent.loaded) == ("Phi-4-mini-instruct-cuda-gpu:5", False, False)
    assert (absent.device, absent.execution_provider) == ("GPU", "CUDAExecutionProvider"), "from its id"


def test_a_catalog_of_generation_0_is_left_out_where_nothing_tells_what_is_downloaded() -> None:
    target = found({**GENERATION_0_AS_DOCUMENTED, "/openai/models": {"error": "?"}})

    assert len(target.models) == 2


def test_generation_1_is_known_by_its_model_folder_in_any_casing() -> None:
    target = found(GENERATION_1)

    assert (target.kind, target.pid) == ("foundry1", None)
    assert [facts.aliases for facts in target.models] == [(), ("a",)]


def test_generation_1_names_a_version_only_in_what_is_loaded() -> None:
    target = found(GENERATION_1)

    assert [(facts.id, facts.loaded) for facts in target.models] == [("tiny-generic-cpu", True), ("a-cpu:1", False)]


def test_generation_2_is_known_by_its_cache_path_and_tells_its_process() -> None:
    target = found(GENERATION_2, server="oatpp/1.3.0")

    assert (target.kind, target.pid) == ("foundry2", 15495)


def test_generation_2_lists_its_whole_catalog_so_nothing_is_known_to_be_downloaded() -> None:
    phi = found(GENERATION_2).models[0]

    assert (phi.loaded, phi.cached) == (False, None)
    assert (phi.device, phi.execution_provider) == ("GPU", "CUDAExecutionProvider"), "from its id"


def test_generation_2s_registered_models_are_models_with_a_base_url_of_their_own() -> None:
    target = found(GENERATION_2)

    mine = target.models[1]
    assert (mine.id, mine.aliases, mine.loaded, mine.cached) == ("mine-generic-cpu:1", ("mine",), True, True)
    assert target.chat_url_of(mine.id) == target.base_url.replace("/v1", "/catalogs/local/v1/chat/completions")
    assert target.chat_url_of("phi-4-mini-instruct-cuda-gpu:5") == target.chat_url


def test_generation_2s_registered_models_stand_alone_under_their_own_prefix() -> None:
    target = found(GENERATION_2, path="/catalogs/local/v1")

    assert target.base_url.endswith("/catalogs/local/v1")
    assert (target.kind, target.pid, ids(target)) == ("foundry2", 15495, ["mine-generic-cpu:1"])
    assert (target.models[0].loaded, target.models[0].base_url) == (True, None)
    assert target.chat_url_of("mine-generic-cpu:1") == target.chat_url


def test_auto_takes_a_registered_model_that_is_not_loaded() -> None:
    target = found({**GENERATION_2, "/catalogs/local/models/loaded": []})

    assert [one.id for one in choose(target, "auto").chosen] == ["mine-generic-cpu:1"]
