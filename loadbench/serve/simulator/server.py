"""The simulator's loop: one thread, one epoll, one heap of due times.

There is no asyncio in here: its timers, and uvloop's, come in whole milliseconds, as does `select.epoll.poll`, and a
callback per token costs more than the send itself. This loop asks the heap what is due, sends it, and waits for the
next due time or a socket. `select.select` takes microseconds, and an epoll object is itself selectable: so the exact
wait is a `select` on that one descriptor, and the sockets cost what epoll costs. Two cares keep its own lag out of the
truth: a request's arrival is the kernel's stamp, and due times follow from it by the law alone.
"""

from __future__ import annotations

import contextlib
import gc
import select
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from heapq import heappop, heapreplace

from loadbench.serve import chat
from loadbench.serve.chat import Admission, Refused
from loadbench.serve.simulator import answer
from loadbench.serve.simulator.connection import SO_TIMESTAMPNS, Connection, Request
from loadbench.serve.simulator.law import MOST_TOKENS, Law
from loadbench.serve.simulator.stream import Service, Stream, Truth

clock = time.perf_counter_ns
_CHAT, _MODELS, _TRUTH = (b"POST", b"/v1/chat/completions"), (b"GET", b"/v1/models"), (b"GET", b"/truth")
_HEALTH = (b"GET", b"/health")
_ROUTES = (_CHAT, _MODELS, _TRUTH, (b"POST", b"/truth/reset"), (b"DELETE", b"/truth"))
BATCH = 64
"""Events sent before sockets are looked at again: 64 take about 0.4 ms."""
NAP_NS = 30_000
"""Where events come thick, a wait is no shorter: several share one wake-up, and the core is not spun away from the
client, which may need it."""


class EpollPoller:
    """Readiness by file descriptor, on Linux. Every socket is watched for reading.

    Attributes:
        wake_ns: So much before a due time a wait had better end: a process wakes up late by up to that.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.write_bit: int = select.EPOLLOUT
        self.wake_ns = 80_000
        # Timers may come 50 us late by default, so that the kernel can batch them.
        with contextlib.suppress(OSError), open("/proc/self/timerslack_ns", "w") as slack:
            slack.write("1000")

    def add(self, sock: socket.socket) -> None:
        self._epoll.register(sock, select.EPOLLIN)

    def remove(self, sock: socket.socket) -> None:
        """Stop watching; before the socket is closed."""
        with contextlib.suppress(OSError):
            self._epoll.unregister(sock)

    def writing(self, sock: socket.socket, wanted: bool) -> None:
        self._epoll.modify(sock, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def wait(self, seconds: float | None) -> Sequence[tuple[int, int]]:
        """Pairs of descriptor and readiness bits: 0 looks only, None waits for ever."""
        if seconds != 0:
            select.select((self._epoll,), (), (), seconds)
        return self._epoll.poll(0, 8)  # few: each may be a request to begin, and tokens are due in between


class SelectorsPoller:
    """Elsewhere: as exact as the platform's wait, some us on macOS and 1 ms on Windows."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.write_bit: int = selectors.EVENT_WRITE
        self.wake_ns = 200_000
        if sys.platform == "win32":
            import ctypes

            self.wake_ns = 2_000_000
            ctypes.windll.winmm.timeBeginPeriod(1)  # waits come in steps of 1 ms, not 15.6

    def add(self, sock: socket.socket) -> None:
        self._selector.register(sock, selectors.EVENT_READ)

    def remove(self, sock: socket.socket) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def writing(self, sock: socket.socket, wanted: bool) -> None:
        self._selector.modify(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0))

    def wait(self, seconds: float | None) -> Sequence[tuple[int, int]]:
        return [(key.fd, bits) for key, bits in self._selector.select(seconds)]


class Server:
    """A listening socket, its connections, and the law they are served by.

    Args:
        models: Ids at /v1/models; a request must name one.
        port: 0 takes a free one.
        api_key: If any, requests must carry it as a bearer token.
        name: For the `Server` header.
    Raises:
        OSError: If the address cannot be listened on.
    """

    def __init__(
        self, law: Law, models: Sequence[str], host: str, port: int, api_key: str | None = None, name: str = "simulator"
    ) -> None:
        self.models, self.name = tuple(models), name
        self._service = Service(law)
        self._poller = EpollPoller() if sys.platform == "linux" else SelectorsPoller()
        self._admission = Admission(host, api_key)
        self._connections: dict[int, Connection] = {}
        self._stopping = False
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        if sys.platform != "win32":  # there it would let two servers share a port
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if SO_TIMESTAMPNS is not None:
            # Accepted sockets inherit it, so that even a request that comes with the handshake has its stamp.
            self._listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._listener.setblocking(False)
        self._listener.bind((host, port))
        self._listener.listen(4096)
        self.port: int = self._listener.getsockname()[1]
        for sock in (self._woken, self._listener):
            self._poller.add(sock)

    # The loop

    def serve(self) -> None:
        """Serve until `stop`."""
        # All that lives long exists now, and nothing made later is cyclic: a collection would only delay a token.
        gc.collect()
        gc.freeze()
        gc.disable()
        heap, connections, write_bit = self._service.heap, self._connections, self._poller.write_bit
        woken, listener = self._woken.fileno(), self._listener.fileno()
        wake_ns, rested = self._poller.wake_ns, False
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
            for descriptor, bits in self._poller.wait(seconds):
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
        service = self._service
        heap, factors, truth = service.heap, service.draws.factors, service.truth
        gaps, lates, step, last = truth.gap, truth.late, service.law.tokens_per_event, answer.COUNT - 1
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
                if truth is not service.truth:
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
            gap = service.itl_ns * step
            if not left:
                gap = stream.gap_ns()
            elif factors:
                gap = gap * factors[(stream.job.offset + stream.stop - left) % len(factors)] >> 16
            heapreplace(heap, (due + gap, number, stream))
        return True

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
            self._poller.add(sock)
            self._service.truth.connections += 1

    def closed(self, connection: Connection) -> None:
        """The connection is at its end, whoever wanted that."""
        if self._connections.pop(connection.sock.fileno(), None) is None:
            return
        self._poller.remove(connection.sock)
        connection.sock.close()
        current, connection.current = connection.current, None
        connection.release()
        if current is not None:
            self._service.truth.disconnected += 1
            current.abandon(clock())

    def watch_writing(self, sock: socket.socket, wanted: bool) -> None:
        """The kernel would not take all at once, or has taken it now."""
        self._service.truth.blocked += wanted
        self._poller.writing(sock, wanted)

    # Requests

    def handle(self, connection: Connection, request: Request) -> None:
        route = (request.method, request.path)
        refused = self.refusal(request)
        if refused is not None:
            self.refuse(connection, refused)
        elif route == _HEALTH:
            connection.reply(200, b'{"status":"ok"}')
        elif route == _CHAT:
            self._chat(connection, request)
        elif route == _MODELS:
            one = {"object": "model", "created": self._service.run, "owned_by": "loadbench"}
            rows = [{"id": model} | one for model in self.models]
            connection.reply(200, chat.encoded({"object": "list", "data": rows}))
        elif route == _TRUTH:
            connection.reply(200, chat.encoded(self._report()))
        else:
            self._report()
            self._service.truth = Truth()
            connection.reply(200, b"{}")

    def refusal(self, request: Request) -> Refused | None:
        route = (request.method, request.path)
        if route == _HEALTH:
            return None
        if route not in _ROUTES:
            method, path = request.method.decode(), request.path[:200].decode(errors="replace")
            return Refused(404, f"There is no {method} {path}.")
        return self._admission.refusal(request.host, request.origin, request.authorization)

    def _report(self) -> dict[str, object]:
        for connection in self._connections.values():
            if connection.current is not None:
                connection.current.settle()
        service = self._service
        return {
            "server": self.name,
            "models": self.models,
            "law": service.law.to_builtins(),
            "clock": "user" if SO_TIMESTAMPNS is None else "kernel",
            "cpu_s": time.process_time(),
            "active": service.active,
            "queued": service.queued,
            **service.truth.report(),
        }

    def refuse(self, connection: Connection, refused: Refused) -> None:
        self._service.truth.rejected += 1
        connection.reply(refused.status, refused.body())

    def _chat(self, connection: Connection, request: Request) -> None:
        try:
            parsed = chat.read(request.body, most_tokens=MOST_TOKENS)
            if parsed.model not in self.models:
                message = f"The model {parsed.model[:200]!r} does not exist; there is {', '.join(self.models)}."
                raise Refused(404, message, "model", "model_not_found")
        except Refused as refused:
            self.refuse(connection, refused)
            return
        service = self._service
        service.truth.requests += 1
        fault = service.draws.fault()
        if fault is None or not (fault.isdecimal() or fault in ("drop", "hang")):
            service.begin(connection, parsed, request.arrival_ns, fault)
            return
        service.truth.faults[fault] += 1
        if fault == "drop":
            connection.close()
        elif fault == "hang":
            connection.hanging = True
        else:
            answered = Refused(int(fault), f"The simulator answers {fault}, as it was asked to.")
            connection.reply(answered.status, answered.body())
