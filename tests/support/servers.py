"""Fixtures: servers that several test modules talk to."""

from collections.abc import Iterator

import pytest

from loadbench.serve import llama


@pytest.fixture(scope="session")
def llama_server() -> Iterator[llama.LlamaServer]:
    """The embedded real model, fetched into the user's cache at the first run; 4 slots, one thread."""
    with llama.start(slots=4, threads=1) as server:
        yield server
