"""The reader thread itself, as a hostile caller and a hostile server would have it: bounds, forks, shutdown."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.mutations import SEEDS, damage, examples, pieces

pytest.importorskip("loadbench.transport._reader", reason="no C compiler here, or another system than Linux")

from loadbench.transport._reader import Reader

Pair = tuple[socket.socket, socket.socket]
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"5\r\nhello\r\n"


@pytest.fixture
def reader() -> Iterator[Reader]:
    with contextlib.closing(Reader()) as reader:
        yield reader


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def threads() -> list[Path]:
    """Of readers, in this process."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "comm").read_text() == "loadbench-read\n":
                found.append(task)
    return found


# -- what is asked of it


def test_what_is_not_open_is_refused_and_a_closed_reader_is_closed_again(reader: Reader, pair: Pair) -> None:
    assert reader.open(pair[0].fileno()) == 0
    calls = (reader.look, reader.take, reader.forget, lambda slot: reader.begin(slot, False))
    for call, slot in itertools.product(calls, (1, 63, 64, 2**32, 2**63)):
        with pytest.raises(ValueError, match="no open connection"):
            call(slot)
    reader.close()
    reader.close()
    for call in (reader.open, *calls):
        with pytest.raises(ValueError, match="reader"):
            call(0)

    assert (reader.fileno(), reader.ready(64)) == (-1, [])


MEANWHILE: dict[str, Callable[[Reader, int, int], object]] = {
    "close": lambda reader, slot, fd: reader.close(),
    "forget": lambda reader, slot, fd: reader.forget(slot),
    "reopen": lambda reader, slot, fd: (reader.forget(slot), reader.open(fd)),
    "more": lambda reader, slot, fd: [reader.open(fd) for _ in range(200)],
}


@pytest.mark.parametrize("what", MEANWHILE)
def test_a_finalizer_may_call_the_reader_while_it_hands_over(what: str, reader: Reader, pair: Pair) -> None:
    near, far = pair
    slot = reader.open(near.fileno())
    far.sendall(b"x" * 1000)
    assert reader.look(slot)

    def collected(phase: str, info: object) -> None:
        gc.callbacks.remove(collected)
        MEANWHILE[what](reader, slot, near.fileno())

    gc.callbacks.append(collected)
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    (pieces, *_), ended = reader.take(slot)
    gc.set_threshold(*thresholds)

    assert (pieces, ended) == ([b"x" * 1000], None)


def test_a_slot_that_is_ready_as_it_is_forgotten_and_used_again_is_ready_once(reader: Reader, pair: Pair) -> None:
    for _ in range(100):
        slot = reader.open(pair[0].fileno())
        pair[1].sendall(b"x")
        assert (slot, reader.look(slot)) == (0, True)
        reader.forget(slot)

    assert reader.open(pair[0].fileno()) == 0
    assert reader.ready(64) == [0]


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


def test_a_server_that_floods_waits_at_a_mebibyte_until_python_has_read(reader: Reader, pair: Pair) -> None:
    near, far = pair
    slot = reader.open(near.fileno())
    reader.begin(slot, False)
    far.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += far.send(b"x" * 65536)
            reader.look(slot)
    far.shutdown(socket.SHUT_WR)
    received, ended = [], None
    while ended is None:
        (pieces, *_), ended = reader.take(slot)
        received.append(sum(map(len, pieces)))
        reader.look(slot)

    assert 1 << 20 <= received[0] <= (1 << 20) + 65536
    assert (sum(received), ended) == (sent, 0)


def free_files() -> list[int]:
    """The lowest numbers."""
    free = [os.dup(2) for _ in range(6)]
    for fd in free:
        os.close(fd)
    return free


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_reader_without_files_and_one_that_is_dropped_leave_nothing_behind(left: int, pair: Pair) -> None:
    limits, before = resource.getrlimit(resource.RLIMIT_NOFILE), (free_files(), len(threads()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0][left], limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            Reader()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    while len(threads()) > before[1]:  # a thread that was joined is listed a moment longer
        pass
    assert free_files() == before[0]
    Reader().open(pair[0].fileno())

    while len(threads()) > before[1]:
        pass
    assert free_files() == before[0]


def test_a_thread_whose_files_were_closed_by_others_ends_rather_than_spins(pair: Pair) -> None:
    epoll, tasks = free_files()[0], len(threads())
    reader = Reader()  # its first file is the lowest that is free
    reader.open(pair[0].fileno())
    assert os.readlink(f"/proc/self/fd/{epoll}") == "anon_inode:[eventpoll]"
    os.close(epoll)
    pair[1].sendall(b"x")  # it wakes once more

    while len(threads()) > tasks:  # or until the test's own time is over
        pass
    os.dup2(reader.fileno(), epoll)  # which close() closes
    reader.close()


# -- signals, forks and the end of the process


def test_the_thread_leaves_every_signal_to_python(reader: Reader) -> None:
    [blocked] = re.findall(r"SigBlk:\s*(\w+)", (max(threads(), key=lambda task: int(task.name)) / "status").read_text())
    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD, signal.SIGPROF]

    assert [one for one in signals if not int(blocked, 16) >> (one - 1) & 1] == []


FORKS = """
import multiprocessing, os, socket, sys, threading, time
from loadbench.transport._reader import Reader

reader = Reader()
near, far = socket.socketpair()
slot = reader.open(near.fileno())

def child():
    for call in (reader.look, reader.take, reader.forget, reader.open):
        try:
            sys.exit(f"{call(slot)} by {call} of the parent's reader")
        except ValueError:
            pass
    assert reader.ready(64) == []
    own, (a, b) = Reader(), socket.socketpair()
    b.sendall(b"mine")
    assert own.look(own.open(a.fileno()))
    reader.close()

process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
assert process.exitcode == 0
for i in range(int(sys.argv[1])):
    far.send(b"x" * 50_000)  # the thread is amid its work as the process forks
    pid = os.fork()
    if not pid:
        child()
        sys.exit(0)  # as a process ends that knows nothing of readers
    assert os.waitpid(pid, 0)[1] == 0
    reader.look(slot)
    assert sum(map(len, reader.take(slot)[0][0])) == 50_000
far.sendall(b"y")
try:
    threading.Timer(0.1, os.kill, (os.getpid(), 2)).start()
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")  # and it ends with an open connection, and a byte that nobody took
"""


@pytest.mark.system
@pytest.mark.parametrize("forks", ["2", pytest.param("400", marks=pytest.mark.endurance)])
def test_a_forked_child_neither_hangs_nor_reads_and_an_interrupt_reaches_python(forks: str) -> None:
    command = [sys.executable, "-P", "-W", "ignore", "-c", FORKS, forks]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)

    assert (done.stdout, done.stderr, done.returncode) == ("interrupted\n", "", 0)


# -- where a response ends


class Parsed:
    """What httptools makes of a response: its bodies as it cuts them, and where it ends."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.bodies: list[bytes] = []
        self.complete = self.broken = False

    def feed(self, data: bytes) -> None:
        if not (self.complete or self.broken):
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserError:
                self.broken = True

    def on_body(self, data: bytes) -> None:
        self.bodies.append(data)

    def on_message_complete(self) -> None:
        self.complete = self.parser.get_status_code() >= 200


@st.composite
def responses(draw: st.DrawFn, *, sound: bool) -> bytes:
    """Whole ones as the thread understands them, or with one oddity."""
    left = -1 if sound else draw(st.integers(0, 7))

    def one(*usual: bytes, odd: Sequence[bytes]) -> bytes:
        nonlocal left
        left -= 1
        return draw(st.sampled_from(odd if left == -1 else usual))

    like_chunks = st.sampled_from([CHUNK, b"0\r\n\r\n", b"1\r\na\r\n" * 4])
    body = draw(st.lists(like_chunks | st.binary(min_size=1, max_size=30), max_size=6))
    length = b"Content-Length: %d\r\n" % len(b"".join(body))
    chunked = b"Transfer-Encoding: chunked\r\n"
    framing = one(chunked, chunked.lower(), length, odd=(length + chunked, length * 2, b"", b"Content-Length: 007\r\n"))
    head = one(b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n", odd=[b"\r\n"])
    head += one(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 500 \r\n", odd=[b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 No\r\n"])
    head += one(b"", b"X: %s\r\n" % (b"y" * 200), odd=(b"Content-Encoding: identity\r\n", b"Content-Type:\r\n a\r\n"))
    head += framing + one(b"\r\n", odd=[b"\n", b" \r\n\r\n"])
    form = one(b"%x\r\n", b"00%X\r\n", odd=(b"%x;a=b\r\n", b"%x \r\n", b"%x\n", b"000000000%x\r\n", b"-%x\r\n"))
    end = one(b"\r\n", odd=(b"\n", b"xx"))
    last = one(b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", odd=(b"0\r\n\r\nmore", b"0\r\n\n"))
    if chunked.lower() not in framing.lower():
        return head + b"".join(body)
    return head + b"".join(form % len(data) + data + end for data in body) + last


@pytest.mark.parametrize("kind", ["sound", "odd", "damaged"])
@examples(300)
@given(data=st.data())
def test_what_is_handed_over_is_as_the_parser_cuts_it_and_its_end_wakes_python(kind: str, data: st.DataObject) -> None:
    response = data.draw(responses(sound=kind == "sound"))
    if kind == "damaged":
        response = damage(Random(data.draw(SEEDS)), response)
    lines, bytewise = response.splitlines(keepends=True), [bytes([c]) for c in response]
    cuts = list(filter(None, data.draw(pieces(response) | st.sampled_from([lines, bytewise]))))
    straight, through = Parsed(), Parsed()
    times = [time.monotonic_ns()]
    reader, (near, far) = Reader(), socket.socketpair()

    def take() -> int | None:
        (found, stamps, lags, first, last), ended = reader.take(slot)
        assert len(found) == len(stamps)
        assert min(lags, default=0) >= 0
        times.extend(stamps)
        for i, piece in enumerate(found):
            (through.on_body if first <= i < last and not through.broken else through.feed)(piece)
        return ended

    with near, far, contextlib.closing(reader):
        slot = reader.open(near.fileno())
        reader.begin(slot, False)
        for piece in cuts:
            far.sendall(piece)
            straight.feed(piece)
            reader.look(slot)
            noticed = slot in reader.ready(64)
            swept = time.monotonic_ns() - times[0] > 190_000_000
            assert noticed == straight.complete or swept or kind != "sound"
            assert noticed or through.complete or not straight.complete
            if noticed or data.draw(st.booleans()):
                take()
        far.shutdown(socket.SHUT_WR)
        reader.look(slot)
        assert take() == 0

    assert times == sorted(times)
    assert (through.bodies, through.complete, through.broken) == (straight.bodies, straight.complete, straight.broken)
