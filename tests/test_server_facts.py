"""What Ollama, LM Studio and llama.cpp tell of their models; licences; whether a model fits into memory."""

from __future__ import annotations

from typing import Any

import pytest

from loadbench.server import ModelFacts, Target, choose, free_memory_warning
from loadbench.server.facts import licence_name
from loadbench.server.ollama import device_of_row
from tests.support.finding import found

# -- What Ollama, LM Studio and llama.cpp tell of their models, in bodies as they send them, shortened

OLLAMA: dict[str, Any] = {
    "/v1/models": {"object": "list", "data": [{"id": "gemma3:latest", "owned_by": "library"}, {"id": "phi4:14b"}]},
    "/api/version": {"version": "0.12.3"},
    "/api/tags": {
        "models": [
            {
                "name": "gemma3:latest",
                "model": "gemma3:latest",
                "size": 3338801804,
                "details": {"family": "gemma3", "parameter_size": "4.3B", "quantization_level": "Q4_K_M"},
            }
        ]
    },
    "/api/ps": {
        "models": [
            {"name": "gemma3:latest", "size": 6591830464, "size_vram": 5333539264, "context_length": 4096},
        ]
    },
    "/api/show": {
        "license": "Gemma Terms of Use \n\nLast modified: February 21, 2024",
        "details": {"family": "gemma3", "quantization_level": "Q4_K_M"},
        "model_info": {"general.architecture": "gemma3", "gemma3.context_length": 131072, "gemma3.block_count": 34},
        "capabilities": ["completion", "vision"],
    },
}
UNEXPECTED = {"error": "Unexpected endpoint or method. (GET /status)"}  # LM Studio answers that with a 200
LM_STUDIO: dict[str, Any] = {
    "/v1/models": {"data": [{"id": "llama-3.1-8b"}, {"id": "gemma-3-270m-it-qat"}, {"id": "text-embedding-nomic"}]},
    "/api/v0/models": {
        "object": "list",
        "data": [
            {
                "id": "llama-3.1-8b",
                "type": "llm",
                "quantization": "Q4_K_M",
                "state": "loaded",
                "max_context_length": 131072,
                "loaded_context_length": 4096,
                "capabilities": ["tool_use"],
            },
            {"id": "gemma-3-270m-it-qat", "type": "llm", "state": "not-loaded", "max_context_length": 32768},
            {"id": "text-embedding-nomic", "type": "embeddings", "state": "loaded"},
        ],
    },
    **dict.fromkeys(("/status", "/openai/status", "/api/version", "/props", "/version", "/api/v1/models"), UNEXPECTED),
}
LM_STUDIO_0_4: dict[str, Any] = {
    **LM_STUDIO,
    "/api/v1/models": {
        "models": [
            {
                "type": "llm",
                "key": "gemma-3-270m-it-qat",
                "quantization": {"name": "Q4_0", "bits_per_weight": 4},
                "size_bytes": 241410208,
                "loaded_instances": [],
                "max_context_length": 32768,
                "capabilities": {"vision": True, "trained_for_tool_use": False},
            }
        ]
    },
}


def llama(props: dict[str, Any], **row: Any) -> Target:
    answers = {"/v1/models": {"data": [{"id": "m", "owned_by": "llamacpp", **row}]}, "/props": props}
    return found(answers, server="llama.cpp")


def test_ollama_lists_its_models_with_all_that_its_routes_show() -> None:
    sent: list[Any] = []
    target = found(OLLAMA, then=lambda fake: sent.extend(fake.sent))

    assert (target.kind, target.version) == ("ollama", "0.12.3")
    gemma, phi = target.models
    assert (gemma.size_bytes, gemma.quantization, gemma.licence) == (3338801804, "Q4_K_M", "Gemma")
    assert gemma.capabilities == ("completion", "vision")
    assert (gemma.loaded, gemma.cached, phi.loaded, phi.cached) == (True, True, False, True)
    assert (gemma.context, phi.context) == (4096, 131072), "the one really allocated, the one of the model"
    assert (gemma.device, phi.device) == ("GPU+CPU", None), "of what is loaded alone"
    assert sorted(sent, key=lambda one: one[2]["model"]) == [
        ("POST", "/api/show", {"model": name}) for name in ("gemma3:latest", "phi4:14b")
    ]


@pytest.mark.parametrize(
    ("row", "device"),
    [
        ({"size": 10, "size_vram": 10}, "GPU"),
        ({"size": 10, "size_vram": 0}, "CPU"),
        ({"size": 10, "size_vram": 4}, "GPU+CPU"),
        ({"size": 10}, None),  # an older Ollama
        ({"size_vram": 4}, None),
    ],
)
def test_ollamas_memory_tells_the_device(row: dict[str, Any], device: str | None) -> None:
    assert device_of_row(row) == device


def test_of_many_ollama_models_the_loaded_one_is_shown_and_at_most_twenty() -> None:
    names = [f"m{number}:latest" for number in range(30)]
    answers = {
        **OLLAMA,
        "/v1/models": {"data": [{"id": name} for name in names]},
        "/api/ps": {"models": [{"name": names[-1], "size": 1, "size_vram": 1}]},
    }
    sent: list[Any] = []

    found(answers, then=lambda fake: sent.extend(fake.sent))

    shown = [document["model"] for _, _, document in sent]
    assert len(shown) == 20
    assert names[-1] in shown


def test_lm_studio_is_known_although_it_answers_every_path_with_200() -> None:
    target = found(LM_STUDIO)

    llama, gemma, _ = target.models
    assert (target.kind, llama.loaded, llama.quantization) == ("lmstudio", True, "Q4_K_M")
    assert (llama.context, gemma.context) == (4096, 32768), "the one it was loaded with, the most"
    assert (llama.capabilities, llama.cached, gemma.loaded) == (("tool_use",), True, False)
    assert [one.id for one in choose(target, "auto").chosen] == ["llama-3.1-8b"], "an embedding model does not chat"


def test_lm_studios_newer_list_has_sizes_too() -> None:
    _, gemma, _ = found(LM_STUDIO_0_4).models

    assert (gemma.size_bytes, gemma.quantization, gemma.capabilities) == (241410208, "Q4_0", ("vision",))


def test_llama_cpp_tells_how_many_requests_it_takes_at_once() -> None:
    assert llama({"total_slots": 4}).slots == 4


@pytest.mark.parametrize(
    ("path", "quantization"),
    [
        ("/models/SmolLM2-135M-Instruct-Q4_1.gguf", "Q4_1"),
        (r"C:\models\phi-4-q4_k_m.gguf", "Q4_K_M"),
        ("gemma-3-4b-it-IQ4_XS.gguf", "IQ4_XS"),
        ("llama-f16.gguf", "F16"),
        ("Qwen3-4B.gguf", None),  # a family, no quantization
    ],
)
def test_llama_cpps_file_name_tells_the_quantization_where_its_list_does_not(
    path: str, quantization: str | None
) -> None:
    assert llama({"model_path": path}).models[0].quantization == quantization


def test_what_llama_cpp_was_trained_for_is_not_the_context_it_has() -> None:
    assert llama({}, meta={"n_ctx_train": 8192}).models[0].context is None


# -- Licences by their names, and whether a model fits into memory

# How the texts begin that Ollama shows.
TEXTS: dict[str | None, str | None] = {
    **dict.fromkeys((None, "", "  \n ")),
    "                        Apache License\n                  Version 2.0, January 2004": "Apache-2.0",
    "Microsoft.\nCopyright (c) Microsoft Corporation.\n\nMIT License\n\nPermission is hereby granted": "MIT",
    "Copyright (c) 2023\n\nPermission is hereby granted, free of charge, to any person": "MIT",
    "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\nLlama 3.2 Version Release Date: September 25, 2024": "Llama 3.2 Community",
    "META LLAMA 3 COMMUNITY LICENSE AGREEMENT\nMeta Llama 3 Version": "Llama 3 Community",
    "Gemma Terms of Use \n\nLast modified: February 21, 2024": "Gemma",
    "Qwen RESEARCH LICENSE AGREEMENT": "Qwen Research",
    "Tongyi Qianwen LICENSE AGREEMENT": "Qwen",
    "DEEPSEEK LICENSE AGREEMENT\n\nVersion 1.0": "DeepSeek",
    "\n\n  A licence of our own  \nwith terms": "A licence of our own",
    "This is a very long first line of a licence that goes on": "This is a very long first line of a l...",
    "Apache License Version 2.0 ... the LLAMA 3.1 COMMUNITY LICENSE applies to parts": "Apache-2.0",
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_licences_text_tells_its_name(text: str | None) -> None:
    assert licence_name(text) == TEXTS[text]


BIG = ModelFacts("big", size_bytes=10_000_000_000)


WARNING = (
    "big needs about 12.0 GB of memory (10.0 GB of weights and its context), but {} GB are free: it may swap or fail"
)


@pytest.mark.parametrize(
    ("facts", "available_bytes", "warning"),
    [
        (BIG, 8_000_000_000, WARNING.format("8.0")),
        (BIG, 11_900_000_000, WARNING.format("11.9")),  # it needs room for its context too
        (BIG, 12_000_000_000, None),
        (BIG, None, None),
        (ModelFacts("a"), 1, None),
        (ModelFacts("a", size_bytes=10, loaded=True), 1, None),
    ],
)
def test_a_model_larger_than_the_free_memory_is_warned_of(
    facts: ModelFacts, available_bytes: int | None, warning: str | None
) -> None:
    assert free_memory_warning(facts, available_bytes) == warning
