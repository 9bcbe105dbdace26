"""The server's processes: found by their port, added up as a tree, told from others that got their number."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from loadbench.telemetry import find_pid, process
from loadbench.telemetry.process import ProcessTree, Reading

pytestmark = pytest.mark.system

MB = 10**6
KEEP = "import sys; held = b'x' * 50_000_000; print('ready', flush=True); sys.stdin.read()"
FAMILY = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {KEEP!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
end = time.process_time() + 0.2
while time.process_time() < end: pass
print(child.pid, flush=True)
sys.stdin.readline()
child.communicate()
print("alone", flush=True)
sys.stdin.read()
"""
"""A process that burns 0.2 s of CPU and has a child with 50 MB, whose end it awaits when it is told to."""
LAUNCH = """
import subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
)
print(child.pid, child.stdout.readline().strip(), flush=True)
sys.stdin.read()
"""
"""A process that starts another one, and tells its number and what it says."""
LISTEN = """
import socket, subprocess, sys
listener = socket.create_server((sys.argv[1], 0))
listener.set_inheritable(True)
if len(sys.argv) > 2: subprocess.Popen([sys.executable, "-c", sys.argv[2]], pass_fds=[listener.fileno()])
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Starts Python on a script; what still runs after the test is ended, children first."""
    started: list[subprocess.Popen[str]] = []

    def run(script: str, *words: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", script, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(child)
        return child

    yield run
    for child in started:
        if child.poll() is None:
            for each in psutil.Process(child.pid).children(recursive=True):
                each.kill()
            child.kill()
        child.communicate()


def line(child: subprocess.Popen[str], say: str = "") -> str:
    """Say something to a child, and wait for the line it prints."""
    assert child.stdin
    assert child.stdout
    child.stdin.write(say)
    child.stdin.flush()
    return child.stdout.readline().strip()


def test_a_process_and_its_child_are_added_up(start: Callable[..., Any]) -> None:
    parent = start(FAMILY)
    child_pid = int(line(parent))
    tree = ProcessTree(parent.pid)

    sample = tree.sample()

    assert sample is not None
    assert tree.pids == {parent.pid, child_pid}
    assert (sample["processes"], sample["threads"]) == (2, 2)
    assert 60 * MB < sample["memory_bytes"] < 200 * MB
    assert 0.2 <= sample["cpu_s"] < 2


def test_a_child_that_ends_gives_back_its_memory_and_keeps_its_seconds(start: Callable[..., Any]) -> None:
    parent = start(FAMILY)
    line(parent)
    tree = ProcessTree(parent.pid)
    before = tree.sample()
    assert line(parent, "end the child\n") == "alone"

    after = tree.sample()

    assert before is not None
    assert after is not None
    assert (after["processes"], tree.pids) == (1, {parent.pid})
    assert before["memory_bytes"] - after["memory_bytes"] > 50 * MB
    assert before["cpu_s"] <= after["cpu_s"] < before["cpu_s"] + 0.2


def test_a_process_that_ends_is_no_server_any_more_even_before_its_parent_notices(start: Callable[..., Any]) -> None:
    child = start("print('ready', flush=True); input()")
    line(child)
    tree = ProcessTree(child.pid)
    alive = tree.sample()
    child.kill()
    end_s = time.monotonic() + 10
    while tree.sample() is not None and time.monotonic() < end_s:
        time.sleep(0.005)

    assert alive is not None
    assert tree.sample() is None
    assert child.returncode is None, "nobody has waited for it"
    assert tree.pids == frozenset()


def test_a_process_that_never_was_is_no_server() -> None:
    assert ProcessTree(2**22 + 1).sample() is None


def test_a_process_that_has_given_its_memory_back_is_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ending(psutil.Process):
        def memory_info(self) -> Any:
            return SimpleNamespace(rss=0)

        memory_info.cache_activate = memory_info.cache_deactivate = lambda process: None

    before = process.read(os.getpid())
    monkeypatch.setattr(psutil, "Process", Ending)
    after = process.read(os.getpid())

    assert before is not None
    assert after is not None
    assert (before.ended, after.ended) == (False, True)


class Machine:
    """Processes that a test describes by their number."""

    def __init__(self, **processes: Reading) -> None:
        self.processes = {int(pid[1:]): reading for pid, reading in processes.items()}

    def look(self, pid: int) -> Reading | None:
        return self.processes.get(pid)

    def below(self, pids: Any) -> set[int]:
        found = set(pids)
        while more := {pid for pid, reading in self.processes.items() if reading.parent in found} - found:
            found |= more
        return found - set(pids)

    def tree(self, pid: int) -> ProcessTree:
        return ProcessTree(pid, self.look, self.below)

    def change(self, pid: int, **changes: Any) -> None:
        self.processes[pid] = replace(self.processes[pid], **changes)


def reading(name: str, parent: int = 1, cpu_s: float = 1.0, reaped_s: float = 0.0) -> Reading:
    return Reading(name, parent, cpu_s, reaped_s, memory_bytes=10, threads=2, ended=False)


def cpu_s(tree: ProcessTree) -> float:
    sample = tree.sample()
    assert sample is not None
    return float(sample["cpu_s"])


def test_a_number_given_to_another_process_is_not_the_server_and_a_server_that_is_gone_stays_gone() -> None:
    machine = Machine(p7=reading("server"))
    tree = machine.tree(7)
    machine.processes[7] = reading("another")
    assert tree.sample() is None
    machine.processes[7] = reading("server")

    assert tree.sample() is None


def test_a_childs_number_given_to_a_stranger_does_not_bring_the_stranger_in() -> None:
    machine = Machine(p7=reading("server"), p8=reading("child", parent=7))
    tree = machine.tree(7)
    tree.sample()
    machine.processes[8] = reading("stranger", parent=1, cpu_s=500.0)

    sample = tree.sample()

    assert sample is not None
    assert (sample["processes"], sample["cpu_s"]) == (1, 2.0)


@pytest.mark.parametrize(
    ("reaped", "seconds"),
    [
        ([0.0], [4.0]),  # nobody waits for it: its seconds stay in the sum
        ([3.5], [4.5]),  # what it used after the last look comes as its parent takes it over
        ([0.0, 3.5], [4.0, 4.5]),  # a parent that takes over a sample later counts nothing twice
        ([3.0, 5.0], [4.0, 6.0]),  # what was taken off for one child is not taken off for the next
    ],
)
def test_the_seconds_of_a_child_that_ended_are_counted_once(reaped: list[float], seconds: list[float]) -> None:
    machine = Machine(p7=reading("server"), p8=reading("child", parent=7, cpu_s=3.0))
    tree = machine.tree(7)
    assert cpu_s(tree) == 4.0
    del machine.processes[8]
    found = []
    for reaped_s in reaped:
        machine.change(7, reaped_s=reaped_s)
        found.append(cpu_s(tree))

    assert found == seconds


def test_a_child_that_comes_and_goes_between_two_samples_is_counted() -> None:
    machine = Machine(p7=reading("server"))
    tree = machine.tree(7)
    before = cpu_s(tree)
    machine.change(7, reaped_s=2.0)

    assert (before, cpu_s(tree)) == (1.0, 3.0)


def test_an_ended_child_that_nobody_has_waited_for_yet_is_no_process_but_keeps_its_seconds() -> None:
    machine = Machine(p7=reading("server"), p8=reading("child", parent=7, cpu_s=3.0))
    tree = machine.tree(7)
    machine.change(8, ended=True, memory_bytes=0)

    sample = tree.sample()

    assert sample == {"processes": 1, "memory_bytes": 10, "cpu_s": 4.0, "threads": 2}


def test_an_orphan_stays_with_the_server_and_brings_its_own_children() -> None:
    machine = Machine(p7=reading("server"), p8=reading("launcher", 7), p9=reading("worker", 8))
    tree = machine.tree(7)
    tree.sample()
    del machine.processes[8]
    machine.change(9, parent=1)
    machine.processes[10] = reading("thread of work", parent=9)

    tree.sample()

    assert tree.pids == {7, 9, 10}


def test_processes_that_may_not_be_looked_at_are_unknown() -> None:
    machine = Machine(p7=reading("server"))
    refused = False

    def look(pid: int) -> Reading | None:
        if refused:
            raise psutil.AccessDenied(pid)
        return machine.look(pid)

    tree = ProcessTree(7, look, machine.below)
    refused = True
    denied, never = tree.sample(), ProcessTree(7, look).sample()
    refused = False

    assert (denied, never) == (None, None)
    assert tree.sample() is not None


def test_children_and_theirs_are_found_also_where_the_kernel_does_not_list_them(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    launcher = start(LAUNCH, FAMILY)
    family = {int(word) for word in line(launcher).split()}

    listed = process.descendants([launcher.pid, 2**22 + 1])
    looked_up = process.descendants([launcher.pid, 2**22 + 1], proc=tmp_path)

    assert len(family) == 2
    assert listed == looked_up == family


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_server_is_found_by_its_port(start: Callable[..., Any], host: str, address: str) -> None:
    server = start(LISTEN, address)
    port = line(server)

    assert find_pid(f"http://{host}:{port}/v1") == server.pid


def test_of_processes_that_share_a_socket_the_server_is_the_one_that_started_the_others(
    start: Callable[..., Any],
) -> None:
    server = start(LISTEN, "127.0.0.1", "import time; time.sleep(60)")
    port = line(server)
    (worker,) = psutil.Process(server.pid).children()

    assert [each.laddr.port for each in worker.net_connections("tcp")] == [int(port)]
    assert find_pid(f"http://127.0.0.1:{port}") == server.pid


def test_nobody_is_found_where_nobody_listens(start: Callable[..., Any]) -> None:
    server = start(LISTEN, "127.0.0.1")
    port = line(server)
    server.communicate()

    assert find_pid(f"http://127.0.0.1:{port}") is None


def test_a_server_elsewhere_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_listeners", lambda: pytest.fail("looked"))

    assert find_pid("http://gpu-box:8000/v1") is None


@pytest.mark.parametrize(
    ("url", "listeners", "found"),
    [
        ("http://127.0.0.1:8000", [("127.0.0.1", 8000)], True),
        ("http://127.0.0.1:8000", [("127.0.0.1", 8001)], False),
        ("http://127.0.0.1:8000", [("192.168.1.2", 8000)], False),  # another address of this machine
        ("http://127.0.0.1:8000", [("::", 8000)], True),  # both protocols
        ("http://[::1]:8000", [("::1", 8000)], True),
        ("http://[::1]:8000", [("127.0.0.1", 8000)], False),
        ("http://localhost:8000", [("::1", 8000)], True),
        ("http://localhost", [("127.0.0.1", 80)], True),
        ("https://localhost", [("127.0.0.1", 443)], True),
    ],
)
def test_the_listener_at_the_urls_address_and_port_is_the_server(
    url: str, listeners: list[tuple[str, int]], found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_listeners", lambda: [(*listener, os.getpid()) for listener in listeners])

    assert find_pid(url) == (os.getpid() if found else None)


@pytest.mark.parametrize(
    ("listeners", "found"),
    [
        # one at the address wins over one at all addresses
        ([("0.0.0.0", 8000, os.getppid()), ("127.0.0.1", 8000, os.getpid())], os.getpid()),
        ([("127.0.0.1", 8000, None)], None),  # another user's is not known, and nobody is taken for it
    ],
    ids=["its own address first", "another user's"],
)
def test_the_listener_at_the_address_is_found_where_it_is_known(
    listeners: list[Any], found: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_listeners", lambda: listeners)

    assert find_pid("http://127.0.0.1:8000") == found


def test_two_servers_that_share_a_port_are_told_from_each_other_by_nothing(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = [start("input()").pid for _ in range(2)]
    monkeypatch.setattr(process, "_listeners", lambda: [("127.0.0.1", 8000, pid) for pid in pids])

    assert find_pid("http://127.0.0.1:8000") is None


def test_who_only_passes_connections_on_is_not_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_listeners", lambda: [("127.0.0.1", 8000, os.getpid())])
    monkeypatch.setattr(process, "FORWARDERS", {psutil.Process().name().lower()})

    assert find_pid("http://127.0.0.1:8000") is None


@pytest.mark.parametrize(
    ("address", "status", "found"),
    [
        ("::ffff:127.0.0.1", psutil.CONN_LISTEN, True),  # an old address in new clothes
        ("127.0.0.1", psutil.CONN_ESTABLISHED, False),  # a connection to a server is not the server
    ],
)
def test_who_listens_at_the_address_is_the_server(
    address: str, status: str, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = SimpleNamespace(laddr=SimpleNamespace(ip=address, port=8000), status=status, pid=os.getpid())
    monkeypatch.setattr(psutil, "net_connections", lambda kind: [one])

    assert find_pid("http://127.0.0.1:8000") == (os.getpid() if found else None)


def test_where_the_system_shows_no_list_ones_own_processes_are_looked_at(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(kind: str) -> Any:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refuse)
    server = start(LISTEN, "127.0.0.1")
    port = line(server)

    assert find_pid(f"http://127.0.0.1:{port}") == server.pid
