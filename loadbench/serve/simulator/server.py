"""The simulator's loop: one thread, one epoll, one heap of due times.

There is no asyncio in here: its timers, and uvloop's, come in whole milliseconds, and a callback per token costs more
than the send itself. This loop asks the heap what is due, sends it, and waits (poller.py) for the next due time or a
socket. Two cares keep its own lag out of the truth: a request's arrival is the kernel's stamp, and due times follow
from it by the law alone.
"""

from __future__ import annotations

import contextlib
import gc
import socket
import sys
import time
from collections.abc import Sequence
from heapq import heappop, heappush, heapreplace
from typing import Any

from loadbench.serve.admission import Admission
from loadbench.serve.simulator import answer, ask, poller
from loadbench.serve.simulator.connection import SO_TIMESTAMPNS, Connection, Request
from loadbench.serve.simulator.counts import Truth
from loadbench.serve.simulator.draws import Draws
from loadbench.serve.simulator.job import Job, Turn
from loadbench.serve.simulator.law import Law
from loadbench.serve.simulator.slots import Slots
from loadbench.serve.simulator.stream import Stream
from loadbench.serve.simulator.whole import Whole

clock = time.perf_counter_ns
_CHAT, _MODELS, _TRUTH = (b"POST", b"/v1/chat/completions"), (b"GET", b"/v1/models"), (b"GET", b"/truth")
_HEALTH = (b"GET", b"/health")
_ROUTES = (_CHAT, _MODELS, _TRUTH, (b"POST", b"/truth/reset"), (b"DELETE", b"/truth"))
BATCH = 64
"""Events sent before sockets are looked at again: 64 take about 0.4 ms."""
NAP_NS = 30_000
"""Where events come thick, a wait is no shorter: several share one wake-up, and the core is not spun away from the
client, which may need it."""


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
        self.draws = Draws(law)
        self.slots = Slots(self)
        self._admission = Admission(host, api_key)
        self._heap: list[tuple[int, int, Turn]] = []
        self._pushed = 0
        self._numbers = 0
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
        wake_ns, rested = self.poller.wake_ns, False
        while not self._stopping:
            if self._send_due():
                rested = False
            seconds: float | None = None
            if heap:
                ahead = heap[0][0] - clock()
                if ahead > 2 * wake_ns:
                    seconds, rested = (ahead - wake_ns) / 1e9, True
                elif ahead <= 0 or rested:
                    seconds = 0.0  # what is left of the wait, spun for exactness
                else:
                    seconds = max(ahead, NAP_NS) / 1e9
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
            self.closed(connection)
        for sock in (self._listener, self._waker, self._woken):
            sock.close()
        gc.enable()

    @property
    def wake_descriptor(self) -> int:
        """A byte written here ends `serve`: for `signal.set_wakeup_fd`, as a signal may come just before a wait."""
        return self._waker.fileno()

    def stop(self) -> None:
        """End `serve` soon; for other threads."""
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def _send_due(self) -> bool:
        """Send what is due, a batch at most. The hot path: about 1.5 us a token beside the send itself."""
        heap, factors, slots, truth = self._heap, self.draws.factors, self.slots, self.truth
        gaps, lates, step, last = truth.gap, truth.late, self.law.tokens_per_event, answer.COUNT - 1
        for count in range(BATCH):
            if not heap:
                return count > 0
            due, number, stream = heap[0]
            now = clock()
            if due > now:
                return count > 0
            if not stream.left:
                heappop(heap)
                stream.turn(due)
                if truth is not self.truth:
                    return True
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
                self.closed(stream.connection)
                continue
            if sent != len(data):
                stream.connection.hold(data[sent:])
                stream.send = stream.connection.write
            gaps[(now - stream.sent_ns + 500) // 1000] += 1
            late = (now - due) // 1000
            lates[late if late < 100_000 else late // 1000 * 1000] += 1  # few keys even when it cannot keep up
            stream.sent_ns = now
            stream.index = (index + step) & last
            left = stream.left = stream.left - 1
            gap = slots.itl_ns * step
            if not left:
                gap = stream.gap_ns()
            elif factors:
                gap = gap * factors[(stream.job.offset + stream.stop - left) % len(factors)] >> 16
            heapreplace(heap, (due + gap, number, stream))
        return True

    def push(self, due_ns: int, turn: Turn) -> None:
        """Call on `turn` at `due_ns`."""
        self._pushed += 1
        heappush(self._heap, (due_ns, self._pushed, turn))

    # Connections

    def _accept(self) -> None:
        for _ in range(16):
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[sock.fileno()] = Connection(self, sock)
            self.poller.add(sock)
            self.truth.connections += 1

    def closed(self, connection: Connection) -> None:
        """The connection is at its end, whoever wanted that."""
        if self._connections.pop(connection.sock.fileno(), None) is None:
            return
        self.poller.remove(connection.sock)
        connection.sock.close()
        current, connection.current = connection.current, None
        connection.release()
        if current is not None:
            current.settle()
            current.left = 0
            self.truth.disconnected += 1
            current.job.end(clock())

    # Requests

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer one request, or begin to."""
        route = (request.method, request.path)
        refused = self.refusal(request)
        if refused is not None:
            self.refuse(connection, refused)
        elif route == _HEALTH:
            connection.reply(200, b'{"status":"ok"}')
        elif route == _CHAT:
            self._chat(connection, request)
        elif route == _MODELS:
            connection.reply(200, answer.encoded(self._models()))
        elif route == _TRUTH:
            connection.reply(200, answer.encoded(self._report()))
        else:
            self._report()
            self.truth = Truth()
            connection.reply(200, b"{}")

    def refusal(self, request: Request) -> ask.Refused | None:
        """Why a request is not answered, by its head alone; None for one that is."""
        route = (request.method, request.path)
        if route == _HEALTH:
            return None
        if route not in _ROUTES:
            method, path = request.method.decode(), request.path[:200].decode(errors="replace")
            return ask.Refused(404, f"There is no {method} {path}.")
        refusal = self._admission.refusal(request.host, request.origin, request.authorization)
        if refusal is None:
            return None
        status, message, code = refusal
        return ask.Refused(status, message, code=code)

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
            "active": self.slots.active,
            "queued": self.slots.queued,
            **self.truth.report(),
        }

    def refuse(self, connection: Connection, refused: ask.Refused) -> None:
        """Answer with an error."""
        self.truth.rejected += 1
        error = answer.error(refused.status, refused.message, refused.param, refused.code)
        connection.reply(refused.status, error)

    def _chat(self, connection: Connection, request: Request) -> None:
        try:
            asked = ask.read(request.body, self.models)
        except ask.Refused as refused:
            self.refuse(connection, refused)
            return
        truth = self.truth
        truth.requests += 1
        fault = self.draws.fault()
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
            job = Job(self, connection, asked, self._numbers, request.arrival_ns, fault)
            self._numbers += 1
            self.slots.begin(Stream(job) if asked.stream else Whole(job))


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
