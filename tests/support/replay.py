"""A scripted socket server: it plays steps, or a captured exchange, to each connection, byte by byte as it is told.

It runs in a thread of its own, so that tests of any kind can talk to it. A script is a list of steps for one
connection: bytes are sent in one write, and the words below do the rest. At the end of its script the connection is
closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

CAPTURES = Path(__file__).parents[1] / "captures"
CERTIFICATE = Path(__file__).parents[1] / "loopback.pem"

RECEIVE = "receive"  # read one whole request, head and body
HEAR = "hear"  # read a byte, of whatever it is
RESET = "reset"  # close with an RST
HALF_CLOSE = "half-close"  # send a FIN, go on reading
HOLD = "hold"  # keep the connection open, silent, until the client or the server leaves

Step = bytes | float | asyncio.Event | threading.Event | Literal["receive", "hear", "reset", "half-close", "hold"]
"""Bytes to send; seconds of silence; a gate to wait at until `Server.open`; an event to set, which tells the test; a
word from above."""

Cuts = Literal["as recorded", "in one write", "byte by byte"]


@dataclass(frozen=True, slots=True)
class Capture:
    """One exchange of tests/captures.

    Attributes:
        request: What was sent; b"" where it was not kept.
        response: All that came back, framing included.
        offsets: Where in the response each read began.
        closed: Whether the server closed the connection.
    """

    name: str
    request: bytes
    response: bytes
    offsets: tuple[int, ...]
    closed: bool

    def script(self, cuts: Cuts = "as recorded") -> list[Step]:
        """The steps that answer one request with this response, without the real waits."""
        if cuts == "byte by byte":
            edges: Sequence[int] = range(len(self.response) + 1)
        elif cuts == "in one write":
            edges = (0, len(self.response))
        else:
            edges = (*self.offsets, len(self.response))
        pieces = [self.response[a:b] for a, b in pairwise(edges)]
        return [RECEIVE, *pieces] if self.closed else [RECEIVE, *pieces, HOLD]


def names() -> list[str]:
    """All captures, as folder/name."""
    return sorted(str(path.relative_to(CAPTURES)).removesuffix(".resp.bin") for path in CAPTURES.glob("*/*.resp.bin"))


def capture(name: str) -> Capture:
    """Read a capture by folder/name."""
    request, response, reads = (CAPTURES / f"{name}.{kind}" for kind in ("req.bin", "resp.bin", "recv.jsonl"))
    recorded = [json.loads(line) for line in reads.read_text().splitlines()] if reads.exists() else []
    return Capture(
        name=name,
        request=request.read_bytes() if request.exists() else b"",
        response=response.read_bytes(),
        offsets=tuple(read["off"] for read in recorded if read["n"]) or (0,),
        closed=not recorded or recorded[-1]["n"] == 0,
    )


@dataclass(slots=True)
class Server:
    """A server that is playing.

    Attributes:
        url: Its address without a path.
        requests: Each request it received, head and body, in order of arrival.
        written_ns: When each bytes step was handed to the kernel, on perf_counter_ns.
        connections: How many it accepted.
    """

    url: str
    requests: list[bytes] = field(default_factory=list)
    written_ns: list[int] = field(default_factory=list)
    connections: int = 0
    _loop: asyncio.AbstractEventLoop | None = None

    def open(self, gate: asyncio.Event) -> None:
        """Let a script that waits at this gate go on; from any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(gate.set)


@contextlib.contextmanager
def serve(*scripts: Iterable[Step], tls: bool | ssl.SSLContext = False) -> Iterator[Server]:
    """Serve on a free port of 127.0.0.1: the first connection plays the first script, and so on; the last one repeats.

    Args:
        tls: Serve https with `CERTIFICATE`, which is for 127.0.0.1 and localhost, or with a context of one's own.
    Raises:
        ExceptionGroup: On leaving, if a script failed for another reason than the client's leaving.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.new_event_loop()
    server = Server(f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}", _loop=loop)
    failures: list[Exception] = []
    leave = asyncio.Event()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = scripts[min(server.connections, len(scripts) - 1)]
        server.connections += 1
        try:
            await _play(script, reader, writer, server, leave)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client left, which it may
        except Exception as error:
            failures.append(error)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def run() -> None:
        context = tls if isinstance(tls, ssl.SSLContext) else None
        if tls is True:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(CERTIFICATE)
        listening = await asyncio.start_server(
            connection, sock=listener, ssl=context, ssl_shutdown_timeout=1 if tls else None
        )
        await leave.wait()
        listening.close()
        for _ in range(5):  # a connection that was accepted just now has no task yet, and would stay open
            await asyncio.sleep(0)
        playing = asyncio.all_tasks() - {asyncio.current_task()}
        if playing:
            _, late = await asyncio.wait(playing, timeout=5)
            if late:
                failures.append(TimeoutError("a script was not played to its end: the test left too early"))
                for task in late:
                    task.cancel()
                await asyncio.wait(late)

    thread = threading.Thread(target=loop.run_until_complete, args=[run()], name="replay")
    thread.start()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join()
        loop.close()
    if failures:
        raise ExceptionGroup("scripts failed", failures)


async def _play(
    script: Iterable[Step],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    server: Server,
    leave: asyncio.Event,
) -> None:
    for step in script:
        if isinstance(step, bytes):
            writer.write(step)
            server.written_ns.append(time.perf_counter_ns())
            await writer.drain()
        elif isinstance(step, float):
            await asyncio.sleep(step)
        elif isinstance(step, threading.Event):
            step.set()
        elif isinstance(step, asyncio.Event):
            await step.wait()
        elif step == RECEIVE:
            server.requests.append(await _request(reader))
        elif step == HEAR:
            await reader.readexactly(1)
        elif step == RESET:
            # A FIN is what close() sends; without time to linger it is an RST.
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            return
        elif step == HALF_CLOSE:
            writer.write_eof()
        elif step == HOLD:
            waits = [asyncio.create_task(leave.wait()), asyncio.create_task(reader.read())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    return head + await reader.readexactly(int(fields.get(b"content-length", b"0")))


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """The address of a port that refuses connections, held so that no other process takes it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}"


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """The address of a listener that never accepts and whose queue is full: on Linux a connect to it hangs."""
    with socket.socket() as listener, contextlib.ExitStack() as callers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
