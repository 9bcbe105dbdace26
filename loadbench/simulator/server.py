"""The simulator's loop: one thread, one epoll, one heap of due times.

There is no asyncio in here: its timers, and uvloop's, come in whole milliseconds, and a callback per token costs more
than the send itself. This loop asks the heap what is due, sends it, and waits (poller.py) for the next due time or a
socket. Two cares keep its own lag out of the truth: a request's arrival is the kernel's stamp, and due times follow
from it by the law alone.
"""

from __future__ import annotations

import contextlib
import gc
import random
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush, heapreplace
from typing import Any

from loadbench.simulator import answer, ask, poller
from loadbench.simulator.connection import SO_TIMESTAMPNS, Connection, Request
from loadbench.simulator.law import Law
from loadbench.simulator.stream import Ping, Stream, Turn, Whole
from loadbench.simulator.truth import Truth

clock = time.perf_counter_ns
BATCH = 64
"""Events sent before sockets are looked at again: 64 take about 0.4 ms."""
WAKE_NS = 80_000
"""A wait ends this long before the due time, and the loop spins for the rest: a process wakes up 20 to 80 us late."""
CACHED_PROMPTS = 100_000


class Server:
    """A listening socket, its connections, and the law they are served by.

    Args:
        law: What to promise.
        models: Ids at /v1/models; a request must name one.
        host, port: Where to listen; port 0 takes a free one.
        api_key: If given, requests must carry it as a bearer token.
        name: For the `Server` header.
    Raises:
        OSError: If the address cannot be listened on.
    """

    def __init__(
        self, law: Law, models: Sequence[str], host: str, port: int, api_key: str | None = None, name: str = "simulator"
    ) -> None:
        self.law, self.models, self.name = law, tuple(models), name
        self.truth = Truth()
        self.poller = poller.new()
        self.run = int(time.time()) & 0xFFFFFFFF
        self.gap_ns = round(law.itl_ms * 1e6)
        self._authorization = None if api_key is None else f"Bearer {api_key}".encode()
        self._factors = law.jitter_factors()
        self._fault_draw = random.Random(f"faults {law.seed}")
        self._heap: list[tuple[int, int, Turn]] = []
        self._pushed = 0
        self._numbers = 0
        self._active = 0
        self._waiting: deque[Stream | Whole] = deque()
        self._prompts: dict[int, None] = {}
        self._connections: dict[int, Connection] = {}
        self._stopping = False
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._listener = _listen(host, port)
        self.port: int = self._listener.getsockname()[1]
        for sock in (self._woken, self._listener):
            self.poller.add(sock)

    # The loop

    def serve(self) -> None:
        """Serve until `stop`."""
        # All that lives long exists now, and nothing made later is cyclic: a collection would only delay a token.
        gc.collect()
        gc.freeze()
        gc.disable()
        heap, connections, write_bit = self._heap, self._connections, self.poller.write_bit
        woken, listener = self._woken.fileno(), self._listener.fileno()
        while not self._stopping:
            self._send_due()
            seconds: float | None = None
            if heap:
                ahead = heap[0][0] - clock() - WAKE_NS
                seconds = ahead / 1e9 if ahead > 0 else 0.0
            for descriptor, bits in self.poller.wait(seconds):
                connection = connections.get(descriptor)
                if connection is not None:
                    if bits & write_bit:
                        connection.writable()
                    if bits & ~write_bit:
                        connection.readable()
                elif descriptor == listener:
                    self._accept()
                elif descriptor == woken:
                    self._stopping = True
        for connection in list(connections.values()):
            self.left(connection)
        for sock in (self._listener, self._waker, self._woken):
            sock.close()

    def stop(self) -> None:
        """End `serve` soon; for other threads and for signal handlers."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def _send_due(self) -> None:
        """Send what is due, a batch at most. The hot path: about 1.5 us a token beside the send itself."""
        heap, factors, truth = self._heap, self._factors, self.truth
        gaps, lates, step, last = truth.gap, truth.late, self.law.tokens_per_event, answer.COUNT - 1
        for _ in range(BATCH):
            if not heap:
                return
            due, number, stream = heap[0]
            now = clock()
            if due > now:
                return
            if not stream.left:
                heappop(heap)
                stream.turn(due)
                if truth is not self.truth:
                    return
                continue
            assert isinstance(stream, Stream)
            index = stream.index
            data = stream.sizes[index] + stream.middle + stream.ends[index]
            now = clock()
            try:
                sent = stream.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self.left(stream.connection)
                continue
            if sent != len(data):
                stream.connection.hold(data[sent:])
                stream.send = stream.connection.write
            gaps[(now - stream.sent_ns + 500) // 1000] += 1
            lates[(now - due) // 1000] += 1
            stream.sent_ns = now
            stream.index = (index + step) & last
            left = stream.left = stream.left - 1
            gap = self.gap_ns * step
            if factors:
                gap = gap * factors[(stream.offset - left) % len(factors)] >> 16
            heapreplace(heap, (due + gap, number, stream))

    def push(self, due_ns: int, turn: Turn) -> None:
        """Call on `turn` at `due_ns`."""
        self._pushed += 1
        heappush(self._heap, (due_ns, self._pushed, turn))

    # Connections

    def _accept(self) -> None:
        for _ in range(64):
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[sock.fileno()] = Connection(self, sock)
            self.poller.add(sock)
            self.truth.connections += 1

    def left(self, connection: Connection) -> None:
        """The connection is at its end, whoever wanted that."""
        if self._connections.pop(connection.sock.fileno(), None) is None:
            return
        self.poller.remove(connection.sock)
        connection.sock.close()
        current, connection.current = connection.current, None
        connection.release()
        if current is not None:
            current.abandon()

    # Requests

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer one request, or begin to."""
        route = (request.method, request.path)
        chat = (b"POST", b"/v1/chat/completions")
        if route == chat or route == (b"GET", b"/v1/models"):
            if self._authorization is not None and request.authorization != self._authorization:
                self._refuse(connection, ask.Refused(401, "This server wants an API key.", code="invalid_api_key"))
            elif route == chat:
                self._chat(connection, request)
            else:
                connection.reply(200, answer.encoded(self._models()))
        elif route == (b"GET", b"/truth"):
            connection.reply(200, answer.encoded(self._report()))
        elif route in ((b"POST", b"/truth/reset"), (b"DELETE", b"/truth")):
            self._report()
            self.truth = Truth()
            connection.reply(200, b"{}")
        elif route == (b"GET", b"/health"):
            connection.reply(200, b'{"status":"ok"}')
        else:
            method, path = request.method.decode(), request.path.decode(errors="replace")
            self._refuse(connection, ask.Refused(404, f"There is no {method} {path}."))

    def _models(self) -> dict[str, Any]:
        one = {"object": "model", "created": self.run, "owned_by": "loadbench"}
        return {"object": "list", "data": [{"id": model} | one for model in self.models]}

    def _report(self) -> dict[str, Any]:
        for connection in self._connections.values():
            if connection.current is not None:
                connection.current.settle()
        return {
            "server": self.name,
            "models": self.models,
            "law": self.law.to_builtins(),
            "clock": "user" if SO_TIMESTAMPNS is None else "kernel",
            "cpu_s": time.process_time(),
            "active": self._active,
            "queued": sum(not waiting.gone for waiting in self._waiting),
            **self.truth.report(),
        }

    def _refuse(self, connection: Connection, refused: ask.Refused) -> None:
        self.truth.rejected += 1
        error = answer.error(refused.status, refused.message, refused.param, refused.code)
        connection.reply(refused.status, error)

    def _chat(self, connection: Connection, request: Request) -> None:
        try:
            asked = ask.read(request.body, self.models)
        except ask.Refused as refused:
            self._refuse(connection, refused)
            return
        truth = self.truth
        truth.requests += 1
        fault = self._draw_fault()
        if fault is not None and fault.isdecimal():
            truth.faults[fault] += 1
            error = answer.error(int(fault), f"The simulator answers {fault}, as it was asked to.")
            connection.reply(int(fault), error)
        elif fault == "drop":
            truth.faults[fault] += 1
            connection.close()
        elif fault == "hang":
            truth.faults[fault] += 1
            connection.hanging = True
        else:
            kind = Stream if asked.stream else Whole
            begun = kind(self, connection, asked, self._numbers, request.arrival_ns)
            self._numbers += 1
            begun.fault = fault
            connection.current = begun
            self._begin(begun)

    def _draw_fault(self) -> str | None:
        draw = self._fault_draw.random()  # one for every request, so that a seed strikes the same requests
        for name, rate in self.law.faults.items():
            if draw < rate:
                return name
            draw -= rate
        return None

    # The law

    def _begin(self, begun: Stream | Whole) -> None:
        """Give a slot or a place in the queue; send the headers where they come early."""
        if isinstance(begun, Stream):
            if self.law.role == "early" or self.law.ping_ms is not None:
                begun.connection.write(begun.head())
            if self.law.ping_ms is not None:
                every_ns = round(self.law.ping_ms * 1e6)
                self.push(begun.arrival_ns + every_ns, Ping(begun, every_ns))
        if begun.gone:
            return
        if self.law.slots is not None and self._active >= self.law.slots:
            self._waiting.append(begun)
        else:
            self._admit(begun, begun.arrival_ns)

    def _admit(self, begun: Stream | Whole, start_ns: int) -> None:
        self._occupy(1)
        begun.running = True
        truth, prompt = self.truth, begun.ask
        truth.most_active = max(truth.most_active, self._active)
        truth.queue[max(0, start_ns - begun.arrival_ns) // 1000] += 1
        if self.law.prompt_cache:
            if prompt.digest in self._prompts and prompt.cache_prompt:
                begun.cached_tokens = prompt.prompt_tokens - 1
            self._prompts.pop(prompt.digest, None)
            self._prompts[prompt.digest] = None  # the youngest last
            if len(self._prompts) > CACHED_PROMPTS:
                del self._prompts[next(iter(self._prompts))]
        truth.prompt_tokens += prompt.prompt_tokens
        truth.cached_tokens += begun.cached_tokens
        begun.start(start_ns)

    def free_slot(self, due_ns: int) -> None:
        """A slot came free at `due_ns`, by the law: the next in the queue starts then, not when this loop got to it."""
        self._occupy(-1)
        while self._waiting:
            begun = self._waiting.popleft()
            if not begun.gone:
                self._admit(begun, max(due_ns, begun.arrival_ns))
                return

    def _occupy(self, change: int) -> None:
        self._active += change
        self.gap_ns = round((self.law.itl_ms + self.law.itl_per_stream_ms * max(0, self._active - 1)) * 1e6)

    def jittered(self, latency_ns: int, draw: int) -> int:
        """A latency times the factor number `draw`."""
        factors = self._factors
        return latency_ns * factors[draw % len(factors)] >> 16 if factors else latency_ns

    def ttft_ns(self, prompt_tokens: int, draw: int) -> int:
        """TTFT for so many uncached prompt tokens."""
        return self.jittered(round((self.law.ttft_ms + self.law.ttft_per_prompt_token_ms * prompt_tokens) * 1e6), draw)

    def length(self, asked: ask.Ask) -> tuple[int, str]:
        """Tokens of an answer and why it ends."""
        limit = asked.max_tokens or self.law.default_max_tokens
        if self.law.length is None or asked.ignore_eos:
            return limit, "length"
        own = random.Random(f"{self.law.seed} {asked.digest}").randint(*self.law.length)
        return (own, "stop") if own <= limit else (limit, "length")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":  # there it would let two servers share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if SO_TIMESTAMPNS is not None:
        # Accepted sockets inherit it, so that even a request that comes with the handshake has its stamp.
        listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    listener.setblocking(False)
    listener.bind((host, port))
    listener.listen(4096)
    return listener
