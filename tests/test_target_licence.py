"""Licences by their names, and whether a model fits into memory."""

from __future__ import annotations

import pytest

from loadbench.server import ModelFacts, free_memory_warning
from loadbench.server.facts import licence_name

# How the texts begin that Ollama shows.
TEXTS = {
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
def test_a_licences_text_tells_its_name(text: str) -> None:
    assert licence_name(text) == TEXTS[text]


@pytest.mark.parametrize("text", [None, "", "  \n "])
def test_no_text_is_no_licence(text: str | None) -> None:
    assert licence_name(text) is None


BIG = ModelFacts("big", size_bytes=10_000_000_000)


def test_a_model_larger_than_the_free_memory_is_warned_of_in_one_line() -> None:
    assert free_memory_warning(BIG, 8_000_000_000) == (
        "big needs about 12.0 GB of memory (10.0 GB of weights and its context), but 8.0 GB are free: "
        "it may swap or fail"
    )


def test_a_model_needs_room_for_its_context_too() -> None:
    assert free_memory_warning(BIG, 11_900_000_000) is not None
    assert free_memory_warning(BIG, 12_000_000_000) is None


@pytest.mark.parametrize(
    ("facts", "available_bytes"),
    [(ModelFacts("a"), 1), (BIG, None), (ModelFacts("a", size_bytes=10, loaded=True), 1)],
)
def test_there_is_no_warning_where_a_size_is_unknown_or_the_model_is_loaded(
    facts: ModelFacts, available_bytes: int | None
) -> None:
    assert free_memory_warning(facts, available_bytes) is None
