"""Fixtures that several test modules share; servers of a slower kind are in servers.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadbench import simulator
from loadbench.simulator import Simulator


@pytest.fixture(scope="session")
def quick() -> Iterator[Simulator]:
    """A simulator that answers as fast as a run can ask: for tests of what is around a measurement."""
    with simulator.start(ttft_ms=1, itl_ms=0.2) as server:
        yield server


KEY = "sesame-4711-do-not-store"


@pytest.fixture(scope="session")
def locked() -> Iterator[Simulator]:
    """A simulator that wants KEY as its bearer token."""
    with simulator.start(ttft_ms=1, itl_ms=0.2, api_key=KEY) as server:
        yield server
