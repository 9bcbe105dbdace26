"""A streamed answer on its way: what is sent at which due time."""

from __future__ import annotations

import time
from collections.abc import Callable

from loadbench.serve.simulator import answer
from loadbench.serve.simulator.job import Job

HALF_WAY = frozenset(("stall", "cut", "reset", "error_event", "garbage"))
AT_ONCE = frozenset(("burst", "empty"))
clock = time.perf_counter_ns


class Stream:
    """A stream of events. Event i carries tokens i * k to i * k + k - 1 for k tokens per event.

    Attributes:
        left: Plain text events that the server's hot loop sends before `turn` is called again.
        stop: Number of the event that `turn` sends next; `stop - left` is the next event of all.
        index: Number of the next event's first word.
        middle, sizes, ends: The parts of plain events (answer.Frames).
        send: The socket's own, or the connection's once bytes had to be held back.
        sent_ns: When the last text event was sent; 0 before the first.
    """

    __slots__ = (
        "_chunks",
        "_continuous",
        "_events",
        "_first_word",
        "_half_way",
        "_head_sent",
        "_opening",
        "_per_event",
        "_settled",
        "_usage",
        "connection",
        "ends",
        "index",
        "job",
        "left",
        "middle",
        "send",
        "sent_ns",
        "sizes",
        "stop",
    )

    def __init__(self, job: Job) -> None:
        self.job, self.connection = job, job.connection
        self.send: Callable[[bytes], int] = job.connection.sock.send
        law, ask = job.server.law, job.ask
        self._per_event = law.tokens_per_event
        self._events = -(-job.tokens // self._per_event)
        self._half_way = max(1, self._events // 2)
        self._usage = law.usage != "off" and (ask.include_usage or law.usage == "continuous")
        self._continuous = self._usage and (ask.continuous_usage or law.usage == "continuous")
        self._chunks = answer.Events(job.identity, job.created, ask.model)
        self._first_word = self.index = ask.digest % answer.COUNT
        self._head_sent = False
        self._opening = self.middle = b""
        self.sizes: tuple[bytes, ...] = ()
        self.ends: tuple[bytes, ...] = ()
        self.left = self.stop = self._settled = self.sent_ns = 0

    def start(self, start_ns: int) -> None:
        """Be due with the first event; a burst with the last."""
        job = self.job
        tokens = job.tokens if job.fault == "burst" else min(self._per_event, job.tokens)
        job.server.push(start_ns + job.ttft_ns() + job.tokens_ns(tokens - 1, 0), self)
        if job.fault not in AT_ONCE:
            self._opening = self.head() + self._event(0)  # ready before it is due: encoding takes time

    def head(self) -> bytes:
        """HTTP headers, with the role-only event where the law has one; empty if they have been sent."""
        if self._head_sent:
            return b""
        self._head_sent = True
        head = self.connection.head(200, "text/event-stream; charset=utf-8", None)
        return head if self.job.server.law.role == "none" else head + self._chunks.role()

    def turn(self, due_ns: int) -> None:
        """Send event `stop`, which is due; after the last one, the end."""
        job = self.job
        if self.stop == 0 and job.fault in AT_ONCE and not job.gone:
            self._at_once(due_ns)
        while not job.gone:
            if self.stop == self._half_way and job.fault in HALF_WAY and not self._go_on(due_ns):
                return
            if self.stop == self._events:
                self._end(due_ns)
                return
            self._text(due_ns)
            if self.stop < self._events:
                self._plan(due_ns)
                return

    def gap_ns(self) -> int:
        """From the event before event `stop` to that one, which may be the last and carry less."""
        tokens = min(self._per_event, self.job.tokens - self.stop * self._per_event)
        return self.job.tokens_ns(tokens, self.stop)

    def settle(self) -> None:
        """Count what was sent since the last call."""
        events = self.stop - self.left
        before, after = (min(n * self._per_event, self.job.tokens) for n in (self._settled, events))
        truth = self.job.server.truth
        truth.events += events - self._settled
        truth.tokens += after - before
        truth.characters += answer.characters(self._first_word + before, after - before)
        self._settled = events

    def _plan(self, due_ns: int) -> None:
        """Go on with event `stop`: hand the plain events from it on to the hot loop, up to the next special one."""
        event = self.stop
        field = self._field(event)
        if not self._continuous:
            self.stop = self._events - 1
            if self.job.fault in HALF_WAY and self._half_way >= event:
                self.stop = min(self.stop, self._half_way)
            if field == "reasoning_content":
                self.stop = min(self.stop, -(-self.job.reasoning // self._per_event))
        self.left = self.stop - event
        if self.left:
            self.middle = self._chunks.middle(field)
            frames = answer.frames(len(self.middle), self._per_event)
            self.sizes, self.ends = frames.sizes, frames.ends
            self.job.server.push(due_ns + self.job.tokens_ns(self._per_event, event), self)
        else:
            self.job.server.push(due_ns + self.gap_ns(), self)

    def _field(self, event: int) -> answer.Field:
        return "reasoning_content" if event * self._per_event < self.job.reasoning else "content"

    def _event(self, event: int) -> bytes:
        """The bytes of text event number `event`."""
        start = event * self._per_event
        end = min(start + self._per_event, self.job.tokens)
        role = event == 0 and self.job.server.law.role == "none"
        usage = self.job.usage(end) if self._continuous else None
        return self._chunks.text(self._field(event), self._first_word + start, end - start, role=role, usage=usage)

    def _closing(self) -> bytes:
        """The bytes after the last text event."""
        usage = self.job.usage(self.job.tokens) if self._usage else None
        return self._chunks.closing(self.job.finish, usage, continuous=self._continuous)

    def _text(self, due_ns: int) -> None:
        """Send text event `stop`, record its time, and step on."""
        data = self._event(self.stop) if self.stop else self._opening
        now = clock()
        self.connection.write(data)
        truth, arrival_ns = self.job.server.truth, self.job.arrival_ns
        if self.stop:
            truth.gap[(now - self.sent_ns + 500) // 1000] += 1
        else:
            truth.ttft[(now - arrival_ns + 500) // 1000] += 1
            truth.first_ns = truth.first_ns or now
            self._opening = b""
        if self.stop == self._events - 1:
            truth.e2e[(now - arrival_ns + 500) // 1000] += 1
        truth.late[(now - due_ns) // 1000] += 1
        truth.last_ns = self.sent_ns = now
        self.index = (self.index + self._per_event) % answer.COUNT
        self.stop += 1

    def _end(self, due_ns: int) -> None:
        """Finish event, usage, [DONE]; or what the faults no_end and close make of it."""
        job = self.job
        fault = job.strike()
        self.connection.write(answer.LAST_CHUNK if fault == "no_end" else self._closing())
        job.server.truth.completed += fault != "no_end" and not job.gone
        self._over(due_ns)
        self.connection.done(close=fault == "close")

    def _go_on(self, due_ns: int) -> bool:
        """Let the fault strike half-way; whether the stream goes on at once."""
        job = self.job
        fault = job.strike()
        if fault == "stall":
            job.server.push(due_ns + round(job.server.law.stall_ms * 1e6), self)
        elif fault == "garbage":
            self.connection.write(answer.GARBAGE)
            return True
        elif fault == "error_event":
            error = answer.error(500, "The simulator broke off, as it was asked to.")
            self.connection.write(answer.chunk(b"data: " + error + b"\n\n") + answer.LAST_CHUNK)
            self._over(due_ns)
            self.connection.done()
        else:
            self._over(due_ns)
            self.connection.break_off(reset=fault == "reset")
        return False

    def _at_once(self, due_ns: int) -> None:
        """The faults burst and empty: everything in one write."""
        job = self.job
        if job.strike() == "empty":
            job.tokens = job.reasoning = self._events = 0
        events = [self._event(event) for event in range(self._events)]
        data = b"".join([self.head(), *events, self._closing()])
        now = clock()
        self.connection.write(data)
        if events and not job.gone:
            truth = job.server.truth
            truth.ttft[(now - job.arrival_ns + 500) // 1000] += 1
            truth.e2e[(now - job.arrival_ns + 500) // 1000] += 1
            truth.late[(now - due_ns) // 1000] += 1
            truth.first_ns = truth.first_ns or now
            truth.last_ns = now
            truth.completed += 1
        self.stop = self._events
        self._over(due_ns)
        self.connection.done()

    def _over(self, due_ns: int) -> None:
        self.settle()
        self.left = 0
        self.job.end(due_ns)


class Ping:
    """Comment lines until a stream's first text."""

    __slots__ = ("_every_ns", "_stream", "left")

    def __init__(self, stream: Stream, every_ns: int) -> None:
        self._stream, self._every_ns = stream, every_ns
        self.left = 0

    def turn(self, due_ns: int) -> None:
        """Send one, unless the text has begun."""
        stream = self._stream
        if not stream.job.gone and stream.sent_ns == 0:
            stream.connection.write(answer.PING)
            stream.job.server.push(due_ns + self._every_ns, self)
