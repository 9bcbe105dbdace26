"""Fixtures that several test modules share; servers of a slower kind are in servers.py."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loadbench import simulator
from loadbench.cli import main, nearby
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


def invoke(*words: object, **variables: str) -> Result:
    """`loadbench` in this process. What a run changes in it for speed is undone."""
    kept = sys.getswitchinterval(), gc.get_threshold()
    try:
        return CliRunner(env=variables).invoke(main, [str(word) for word in words], prog_name="loadbench")
    finally:
        sys.setswitchinterval(kept[0])
        gc.set_threshold(*kept[1])
        gc.unfreeze()


def invoked(*words: object, **variables: str) -> Result:
    """The same, where only an exit may end it: what else it raises, is raised here."""
    ended = invoke(*words, **variables)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended


@pytest.fixture(autouse=True)
def no_servers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever listens on this machine is no server that a test finds."""
    monkeypatch.setattr(nearby, "PORTS", {})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and home, and no settings from this machine's environment."""
    for name in [name for name in os.environ if name.startswith(("LOADBENCH_", "BENCH_", "FOUNDRY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path
