"""What this machine or its network runs out of, and what a connection meets on its way. Records, never exceptions."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from loadbench.client import Ask
from loadbench.client.recorder import Recorder
from loadbench.prompts import Prompt
from loadbench.store.record import Result
from loadbench.transport import Transport
from loadbench.transport.connection import Connection
from loadbench.transport.wire import KernelWires
from tests.support import faulty_answers
from tests.support.asking import PROMPT, seconds
from tests.support.faults import PATHS, SLOW, asked, client, kept, nothing_left_open, play
from tests.support.replay import HOLD, RECEIVE, serve
from tests.support.wire import WHOLE, plain

pytestmark = pytest.mark.system

linux = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")


def starved(*words: str, alone: bool = False) -> dict[str, Any]:
    """What a starved process tells; `alone` gives it a network of its own."""
    command = [*(["unshare", "-n"] if alone else []), sys.executable, "-m", "tests.support.starved", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def alone() -> None:
    """Skips where no network namespace can be made."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare(1) here")
    done = subprocess.run(["unshare", "-n", "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a network namespace needs root: {done.stderr.strip()}")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of open files")
@pytest.mark.parametrize(("path", "host"), [*((path, "127.0.0.1") for path in PATHS), ("user stamps", "localhost")])
def test_requests_for_which_no_file_is_left_fail_and_do_not_end_the_run(path: str, host: str) -> None:
    with serve(SLOW) as server:
        found = starved("files", path, server.url.replace("127.0.0.1", host))

    failed = set(found["kinds"]) - {"None"}
    # A name is looked up by the system, which without a file may say that it finds none.
    assert failed
    assert failed <= ({"local", "dns"} if host == "localhost" else {"local"}), found
    assert found["kinds"]["None"] >= 8


@linux
@pytest.mark.usefixtures("alone")
def test_requests_for_which_no_local_port_is_left_are_local_failures() -> None:
    found = starved("ports", next(iter(PATHS)), alone=True)

    assert set(found["kinds"]) == {"local", "None"}, found
    assert found["kinds"]["None"] >= 8
    assert found["message"] == "Cannot assign requested address"


@linux
@pytest.mark.usefixtures("alone")
def test_a_connection_to_its_own_port_is_refused() -> None:
    found = starved("oneself", next(iter(PATHS)), alone=True)

    assert set(found["kinds"]) <= {"connect", "local"}, found


class Oddly(asyncio.SelectorEventLoop):
    """Resolves each name to an address of a family that this system has not, before the true one."""

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        found = await super().getaddrinfo(*args, **options)
        return [(12345, socket.SOCK_STREAM, 0, "", ("::1", 0, 0, 0)), *found]


def test_an_address_of_a_family_that_is_not_there_leaves_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PATHS, "oddly", ("user", Oddly))
    with nothing_left_open(), serve([RECEIVE, WHOLE, HOLD]) as server:
        [result] = asked(server.url, "oddly", seconds())

    assert (result.error, result.text) == (None, "AB")


# -- where requests go


def ask_with(url: str, path: str, prompt: Prompt = PROMPT, **headers: str) -> Result:
    """One request, of this prompt and with these headers."""
    results: list[Result] = []
    clock, loop = PATHS[path]

    async def run() -> None:
        transport = Transport(clock=clock)
        ask = Ask("m@c1", 1, 0, "m", prompt, warmup=False, due_ns=0)
        await client(transport, url, seconds(), **headers).chat(ask, 0, results.append)
        await transport.aclose()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())
    [result] = results
    return result


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_no_key_goes_to_another_host(status: int, tmp_path: Path) -> None:
    with nothing_left_open(), serve([RECEIVE, WHOLE, HOLD]) as other:
        location = f"Location: {other.url}/v1/chat/completions\r\n".encode()
        with serve([RECEIVE, plain(f"{status} X", b"", location), HOLD]) as server:
            result = ask_with(server.url, "user stamps", authorization="Bearer sesame-4711")
    kept(tmp_path / "run", [result])

    assert (result.error, result.status) == ("redirect", status)
    assert (server.connections, other.connections) == (1, 0)
    assert b"sesame-4711" in server.requests[0]


REFUSAL = plain("413 X", b'{"error": "too long"}', b"Connection: close\r\n")


@pytest.mark.parametrize("path", PATHS)
def test_a_refusal_of_a_request_that_was_not_read_whole_is_the_failure(path: str, tmp_path: Path) -> None:
    long = Prompt("long", ({"role": "user", "content": "x" * 30_000_000},))
    with nothing_left_open(), socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            with listener.accept()[0] as sock:
                sock.recv(1000)
                sock.sendall(REFUSAL)
                left.wait()  # and closes with a reset, for it has not read all

        left = threading.Event()
        thread = threading.Thread(target=refuse)
        thread.start()
        result = ask_with(f"http://127.0.0.1:{listener.getsockname()[1]}", path, long)
        left.set()
        thread.join()
    kept(tmp_path / "run", [result])

    assert (result.error, result.error_message) == ("http_4xx", "HTTP 413: too long")


class Refused(socket.socket):
    """Its other side answers and is gone in the moment in which something is written."""

    far: socket.socket

    def send(self, data: Any, *flags: int) -> int:
        self.far.sendall(REFUSAL)
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()
        return super().send(data, *flags)


@pytest.mark.skipif("kernel stamps" not in PATHS, reason="event loops drop what came before a failed write")
def test_what_came_before_a_failed_write_is_read() -> None:
    recorder = Recorder()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener, Refused() as near:
            near.connect(listener.getsockname())
            near.far = listener.accept()[0]
            near.setblocking(False)
            wires = KernelWires(loop, time.perf_counter_ns, time.time_ns, [])
            connection = Connection(loop, time.perf_counter_ns)
            wires.open(near, connection)
            await connection.exchange(b"POST / HTTP/1.1\r\n\r\n", recorder, seconds())
            wires.close()

    with nothing_left_open():
        asyncio.run(run())

    assert recorder.status == 413


# -- memory


@pytest.mark.parametrize("name", ["a bomb of gzip", "a bomb of gzip in small pieces"])
def test_a_bomb_of_gzip_takes_no_more_than_a_few_times_what_is_allowed(name: str, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        play(faulty_answers.TABLES[name], next(iter(PATHS)), tmp_path / "run")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 300e6
