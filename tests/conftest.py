"""The tiers of the suite, and fixtures that several test modules share; slower servers are in support/servers.py."""

from __future__ import annotations

import fcntl
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from loadbench.engine import process
from loadbench.errors import how_to_install
from loadbench.serve import foundry, simulator
from loadbench.serve.simulator import Simulator
from loadbench.server import lookup
from tests.support.command import KEY, OURS
from tests.support.forks import Forks, forks

settings.register_profile(
    "busy machine",
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "30")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("busy machine")

SERVERS = {"quick", "locked", "llama_server", "browser", "loadbench"}
"""Session-scoped fixtures that start a process: who asks for one is a system test."""

LOCK = "TESTS_LOCK"
"""The variable that names the file of `pytest_configure`."""

_unit_test: str | None = None
"""The unit test that runs in this process now."""


def _refuse_processes(event: str, _: object) -> None:
    if _unit_test is not None and event in ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty"):
        raise AssertionError(f"{_unit_test} starts a process: mark it with @pytest.mark.system")


sys.addaudithook(_refuse_processes)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its tier, and the order: the tier that takes longest first, what needs the machine alone last."""
    for item in items:
        if isinstance(item, pytest.Function) and SERVERS.intersection(item.fixturenames):
            item.add_marker("system")
    items.sort(key=_turn)


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass over the tests themselves, which stay: it would look at each many times."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def _turn(item: pytest.Item) -> int:
    if item.get_closest_marker("alone"):
        return 2
    return 0 if item.get_closest_marker("system") else 1


def pytest_configure() -> None:
    """Make the file that the workers of this session share a lock on."""
    if LOCK not in os.environ:
        file, os.environ[LOCK] = tempfile.mkstemp(prefix="loadbench-tests-")
        os.close(file)


def pytest_unconfigure() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        Path(os.environ.pop(LOCK)).unlink(missing_ok=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test beside others, or alone, with all that its fixtures start."""
    file = os.open(os.environ[LOCK], os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
    try:
        return (yield)
    finally:
        os.close(file)


@pytest.fixture(autouse=True)
def _starts_no_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """A unit test may start no process."""
    global _unit_test
    if not (request.node.get_closest_marker("system") or request.node.get_closest_marker("endurance")):
        _unit_test = request.node.nodeid
    try:
        yield
    finally:
        _unit_test = None


@pytest.fixture(scope="session", autouse=True)
def _collector_left_alone() -> Iterator[None]:
    """A run in this process is one of thousands: what it does to the whole process for speed is left out.

    To collect garbage before each run took longer than most of the runs, with all that the tests before had left.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "hold_collector", lambda: None)
        patch.setattr(process, "share_the_interpreter", lambda: None)
        yield


@pytest.fixture
def anyio_backend() -> str:
    """Records and samples are written in threads; tests of waiting alone have trio's virtual clock instead."""
    return "asyncio"


@pytest.fixture(scope="session")
def quick() -> Iterator[Simulator]:
    """A simulator that answers as fast as a run can ask: for tests of what is around a measurement."""
    with simulator.start(ttft_ms=1, itl_ms=0.2) as server:
        yield server


@pytest.fixture(scope="session")
def locked() -> Iterator[Simulator]:
    """A simulator that wants KEY as its bearer token."""
    with simulator.start(ttft_ms=1, itl_ms=0.2, api_key=KEY) as server:
        yield server


@pytest.fixture(scope="session")
def loadbench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Command lines in processes of their own that start within a few ms: for kills, signals and limits."""
    if sys.platform != "linux":
        pytest.skip("forks")
    with forks(tmp_path_factory.mktemp("forks")) as running:
        yield running


@pytest.fixture(autouse=True)
def no_servers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever listens on this machine is no server that a test finds."""
    monkeypatch.setattr(lookup, "PORTS", {})
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and home, and no settings from this machine's environment."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_foundry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither Foundry Local's SDK nor a command that a search of PATH would find."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(foundry, "available", lambda: f"not installed: {how_to_install('foundry')}")
