"""The reader thread itself, as a hostile caller and a hostile server would have it: bounds, forks, shutdown."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loadbench.transport import reader_built

if TYPE_CHECKING:
    from loadbench.transport._reader import Reader

pytestmark = pytest.mark.skipif(not reader_built(), reason="no C compiler here, or another system than Linux")

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"5\r\nhello\r\n"


@pytest.fixture
def reader() -> Iterator[Reader]:
    from loadbench.transport._reader import Reader

    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Ours, which the reader reads, and the server's."""
    near, far = socket.socketpair()
    with near, far:
        yield near, far


Pair = tuple[socket.socket, socket.socket]


def threads() -> list[Path]:
    """Of readers, in this process."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "comm").read_text() == "loadbench-read\n":
                found.append(task)
    return found


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not what():
        assert time.monotonic() < until
        time.sleep(0.001)


# -- what is asked of it


def test_a_closed_reader_refuses_all_and_is_closed_again(reader: Reader, pair: Pair) -> None:
    slot = reader.open(pair[0].fileno())
    reader.close()
    reader.close()

    assert (reader.fileno(), reader.ready(64)) == (-1, [])
    for call in (reader.look, reader.take, reader.forget, reader.open):
        with pytest.raises(ValueError, match="reader"):
            call(slot)
    with pytest.raises(ValueError, match="reader"):
        reader.begin(slot, False)


@pytest.mark.parametrize("slot", [1, 63, 64, 2**32 - 1, 2**32, 2**63])
def test_a_slot_that_is_not_open_is_refused(slot: int, reader: Reader, pair: Pair) -> None:
    reader.open(pair[0].fileno())

    for call in (reader.look, reader.take, reader.forget):
        with pytest.raises(ValueError, match="no open connection"):
            call(slot)


MEANWHILE: dict[str, Callable[[Reader, int, int], object]] = {
    "close": lambda reader, slot, fd: reader.close(),
    "forget": lambda reader, slot, fd: reader.forget(slot),
    "reopen": lambda reader, slot, fd: (reader.forget(slot), reader.open(fd)),
    "take": lambda reader, slot, fd: reader.take(slot),
    "more": lambda reader, slot, fd: [reader.open(fd) for _ in range(200)],
}


@pytest.mark.parametrize("what", MEANWHILE)
def test_a_finalizer_may_call_the_reader_while_it_hands_over(what: str, reader: Reader, pair: Pair) -> None:
    near, far = pair
    slot = reader.open(near.fileno())
    far.sendall(b"x" * 1000)
    assert reader.look(slot)

    def collected(phase: str, info: object) -> None:
        if collected in gc.callbacks:
            gc.callbacks.remove(collected)
            MEANWHILE[what](reader, slot, near.fileno())

    thresholds = gc.get_threshold()
    gc.callbacks.append(collected)
    gc.set_threshold(1)
    try:
        (pieces, *_), ended = reader.take(slot)
    finally:
        gc.set_threshold(*thresholds)
        if collected in gc.callbacks:
            gc.callbacks.remove(collected)

    assert (pieces, ended) == ([b"x" * 1000], None)


def test_a_slot_that_was_ready_and_is_forgotten_is_not_ready_twice_when_it_is_used_again(reader: Reader) -> None:
    for _ in range(100):
        near, far = socket.socketpair()
        with near, far:
            slot = reader.open(near.fileno())
            far.sendall(b"x")
            reader.look(slot)
            assert slot == 0
            reader.forget(slot)
    with near, far:
        assert reader.ready(64) == []


def test_what_cannot_be_polled_has_ended_and_python_wakes(reader: Reader, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        slot = reader.open(file.fileno())

        assert select.select([reader.fileno()], [], [], 0)[0] == [reader.fileno()]
        assert reader.ready(64) == [slot]
        assert reader.take(slot) == (([], [], [], 0, 0), 1)  # EPERM


def test_bytes_before_the_request_are_the_parsers_and_so_is_all_behind_them(reader: Reader, pair: Pair) -> None:
    near, far = pair
    slot = reader.open(near.fileno())
    far.sendall(b"HTTP/1.1 100 Continue\r\n")
    assert reader.look(slot)
    reader.begin(slot, False)
    for piece in (CHUNKED, CHUNK):
        far.sendall(piece)
        assert reader.look(slot)

    (pieces, _, _, first, last), ended = reader.take(slot)

    assert (b"".join(pieces), first, last) == (b"HTTP/1.1 100 Continue\r\n" + CHUNKED + CHUNK, 3, 3)
    assert ended is None


# -- what it may cost


def flood(reader: Reader, slot: int, far: socket.socket) -> int:
    """Send until neither the reader nor the kernel takes any more; how many bytes."""
    far.setblocking(False)
    sent = 0
    while True:
        try:
            sent += far.send(b"x" * 65536)
        except BlockingIOError:
            before = sent
            reader.look(slot)
            with contextlib.suppress(BlockingIOError):
                sent += far.send(b"x" * 65536)
            if sent == before:
                return sent


def test_a_server_that_floods_waits_at_a_mebibyte_until_python_has_read(reader: Reader, pair: Pair) -> None:
    near, far = pair
    slot = reader.open(near.fileno())
    reader.begin(slot, False)

    sent = flood(reader, slot, far)
    (pieces, *_), _ = reader.take(slot)
    held = sum(map(len, pieces))
    rest = 0
    far.shutdown(socket.SHUT_WR)
    ended = None
    while ended is None:
        reader.look(slot)
        (pieces, *_), ended = reader.take(slot)
        rest += sum(map(len, pieces))

    assert 1 << 20 <= held <= (1 << 20) + 65536
    assert (held + rest, ended) == (sent, 0)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_without_files_there_is_no_reader_and_none_is_left_open(left: int) -> None:
    from loadbench.transport._reader import Reader

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(2) for _ in range(4)]
    for fd in free:
        os.close(fd)
    before = len(threads())
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[left], limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            Reader()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    again = [os.dup(2) for _ in range(4)]
    for fd in again:
        os.close(fd)

    assert again == free
    assert len(threads()) == before


def test_a_reader_that_is_dropped_ends_its_thread_and_closes_its_files(pair: Pair) -> None:
    from loadbench.transport._reader import Reader

    files, tasks = len(os.listdir("/proc/self/fd")), len(threads())
    reader = Reader()
    reader.open(pair[0].fileno())
    pair[1].sendall(b"x")
    assert len(threads()) == tasks + 1
    del reader

    assert (len(os.listdir("/proc/self/fd")), len(threads())) == (files, tasks)


def test_a_thread_whose_files_were_closed_by_others_ends_rather_than_spins(pair: Pair) -> None:
    from loadbench.transport._reader import Reader

    def polled() -> set[int]:
        links = {int(fd.name): fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()}
        return {fd for fd, link in links.items() if str(link) == "anon_inode:[eventpoll]"}

    before, tasks = polled(), len(threads())
    reader = Reader()
    reader.open(pair[0].fileno())
    [epoll] = polled() - before
    os.close(epoll)
    pair[1].sendall(b"x")  # it wakes once more

    wait_for(lambda: len(threads()) == tasks)
    os.dup2(reader.fileno(), epoll)  # which close() closes
    reader.close()


# -- signals, forks and the end of the process


def test_the_thread_leaves_every_signal_to_python(reader: Reader) -> None:
    [blocked] = [
        int(line.split()[1], 16)
        for task in threads()[-1:]
        for line in (task / "status").read_text().splitlines()
        if line.startswith("SigBlk:")
    ]

    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD, signal.SIGPROF):
        assert blocked >> (one - 1) & 1


FORKS = """
import multiprocessing, os, socket, sys
from loadbench.transport._reader import Reader

reader = Reader()
near, far = socket.socketpair()
slot = reader.open(near.fileno())

def refused():
    for call in (reader.look, reader.take, reader.forget, reader.open):
        try:
            call(slot)
        except ValueError:
            continue
        sys.exit(f"{call} is not refused")
    assert reader.ready(64) == []
    own = Reader()
    a, b = socket.socketpair()
    b.sendall(b"mine")
    assert own.look(own.open(a.fileno()))
    own.close()
    reader.close()
    assert reader.fileno() == -1

child = multiprocessing.get_context("fork").Process(target=refused)
child.start()
child.join()
assert child.exitcode == 0, child.exitcode
for i in range(int(sys.argv[1])):
    for _ in range(50):
        far.send(b"x" * 3000)  # the thread is amid its work as the process forks
    pid = os.fork()
    if not pid:
        if i % 2:
            refused()
            sys.exit(0)  # as a process ends that knows nothing of readers
        del reader
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
    received = 0
    while received < 150_000:
        reader.look(slot)
        received += sum(map(len, reader.take(slot)[0][0]))
far.sendall(b"y")
assert reader.look(slot)
print("sound")  # and it ends with an open connection, and bytes that nobody took
"""


def python(script: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", "-c", script, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.system
@pytest.mark.parametrize("forks", ["4", pytest.param("400", marks=pytest.mark.endurance)])
def test_a_forked_child_neither_hangs_nor_reads_and_both_end_in_order(forks: str) -> None:
    process = python(FORKS, forks)
    said, complaints = process.communicate(timeout=100)

    assert (said, complaints, process.returncode) == ("sound\n", "", 0)


WAITING = """
import socket, threading
from loadbench.transport._reader import Reader

reader = Reader()
near, far = socket.socketpair()
reader.open(near.fileno())
print("ready", flush=True)
threading.Event().wait(60)
"""


@pytest.mark.system
def test_an_interrupt_reaches_python() -> None:
    process = python(WAITING)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=30)

    assert complaints.endswith("KeyboardInterrupt\n")
    assert process.returncode == -signal.SIGINT
