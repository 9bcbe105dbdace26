"""One answer on its way: what is sent at which due time.

The server's heap holds objects with a due time. An object with `left` > 0 has that many plain text events ahead, which
the server's hot loop sends itself; with `left` == 0 its `turn` is called: the first event, the last one, and faults.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from loadbench.simulator import answer
from loadbench.simulator.ask import Ask
from loadbench.simulator.connection import Connection

if TYPE_CHECKING:
    from loadbench.simulator.server import Server

HALF_WAY = frozenset(("stall", "cut", "reset", "error_event", "garbage"))
clock = time.perf_counter_ns


class Turn(Protocol):
    """What the heap holds."""

    left: int

    def turn(self, due_ns: int) -> None:
        """Act; `due_ns` has come."""


class Answer:
    """What streams and whole answers share: the law's draws for one request, and its end.

    Attributes:
        number: Of the request, from 0; it decides the draws of jitter.
        tokens: Length of the answer.
        fault: The fault that will strike, or None.
        cached_tokens: Of the prompt; known when the request gets its slot.
        gone: Over, or its client has left: the heap may still hold it.
    """

    def __init__(self, server: Server, connection: Connection, ask: Ask, number: int, arrival_ns: int) -> None:
        self.server, self.connection, self.ask = server, connection, ask
        self.number, self.arrival_ns = number, arrival_ns
        self.left = 0
        self.fault: str | None = None
        self.tokens, self.finish = server.length(ask)
        self.reasoning = min(server.law.reasoning_tokens, self.tokens)
        self.cached_tokens = 0
        self.offset = number * 2_654_435_761
        self.gone = self.running = False
        self.identity = f"chatcmpl-{server.run:08x}{number:016x}"
        self.created = int(time.time())

    def latency_ns(self, tokens: int, draw: int) -> int:
        """Time that `tokens` tokens take in the batch as it is now; `draw` numbers the jitter of this request."""
        return self.server.jittered(self.server.gap_ns * tokens, self.offset + draw)

    def counts(self, tokens: int) -> dict[str, object]:
        """Usage after so many tokens."""
        cached = self.cached_tokens if self.server.law.prompt_cache else None
        return answer.usage(self.ask.prompt_tokens, tokens, cached, min(self.reasoning, tokens))

    def strike(self) -> str | None:
        """The fault, counted, for the one time that it strikes."""
        fault, self.fault = self.fault, None
        if fault is not None:
            self.server.truth.faults[fault] += 1
        return fault

    def over(self, due_ns: int) -> None:
        """Free the slot at `due_ns`."""
        self.gone = True
        self.left = 0
        self.settle()
        if self.running:
            self.running = False
            self.server.free_slot(due_ns)

    def settle(self) -> None:
        """Bring the counts of tokens up to date."""

    def abandon(self) -> None:
        """The client has left."""
        if not self.gone:
            self.server.truth.disconnected += 1
            self.over(clock())


class Stream(Answer):
    """A streamed answer.

    Attributes:
        stop: Number of the next event that is not plain; `stop - left` is the next event.
        index: Number of the next event's first word.
        middle, sizes, ends: Parts of plain events (answer.Frames).
        sent_ns: When the last text event was sent.
        send: The socket's own, or the connection's where bytes are held back.
    """

    def __init__(self, server: Server, connection: Connection, ask: Ask, number: int, arrival_ns: int) -> None:
        super().__init__(server, connection, ask, number, arrival_ns)
        self.events = -(-self.tokens // server.law.tokens_per_event)
        self.first_word = self.index = ask.digest % answer.COUNT
        self.send: Callable[[bytes], int] = connection.sock.send
        self.sent_ns = 0
        self.stop = self.settled = 0
        self.head_sent = False
        asked = ask.include_usage or server.law.usage == "continuous"
        self.usage = asked and server.law.usage != "off"
        self.continuous = self.usage and (server.law.usage == "continuous" or ask.continuous_usage)
        self.chunks = answer.Events(self.identity, self.created, ask.model)
        self.middle = self.opening = b""
        self.sizes: tuple[bytes, ...] = ()
        self.ends: tuple[bytes, ...] = ()

    def start(self, start_ns: int) -> None:
        """The slot is free and the clock runs: be due at the first event."""
        tokens = self.tokens if self.fault == "burst" else min(self.server.law.tokens_per_event, self.tokens)
        ttft = self.server.ttft_ns(self.ask.prompt_tokens - self.cached_tokens, self.offset - 1)
        self.server.push(start_ns + ttft + self.latency_ns(tokens - 1, 0), self)
        if self.fault not in ("burst", "empty"):
            self.opening = self._event(0)  # ready when it is due: encoding it then would make it late

    def head(self) -> bytes:
        """HTTP headers, with the role-only event where the law has one; empty if they have been sent."""
        if self.head_sent:
            return b""
        self.head_sent = True
        head = self.connection.head(200, "text/event-stream; charset=utf-8", None)
        return head if self.server.law.role == "none" else head + self.chunks.role()

    def turn(self, due_ns: int) -> None:
        """Send the event that is due; after the last one, the end."""
        if self.gone:
            return
        if self.stop == 0 and self.fault in ("burst", "empty"):
            self._at_once(due_ns)
            return
        while not self.gone:
            event = self.stop
            half_way = max(1, self.events // 2)
            if event == half_way and self.fault in HALF_WAY and not self._fail(due_ns):
                return
            if event == self.events:
                self._end(due_ns)
                return
            self._text(event, due_ns)
            self.stop = event + 1
            if self.stop < self.events:
                self._plan(due_ns)
                return

    def _event(self, event: int) -> bytes:
        """The bytes of text event number `event`, headers before the first."""
        per_event = self.server.law.tokens_per_event
        start = event * per_event
        end = min(start + per_event, self.tokens)
        role = event == 0 and self.server.law.role == "none"
        usage = self.counts(end) if self.continuous else None
        data = self.chunks.text(self._field(start), self.first_word + start, end - start, role=role, usage=usage)
        return self.head() + data if event == 0 else data

    def _text(self, event: int, due_ns: int) -> None:
        """Send text event number `event` and record its time."""
        data = self._event(event) if event else self.opening
        now = clock()
        self.connection.write(data)
        truth = self.server.truth
        if event:
            truth.gap[(now - self.sent_ns + 500) // 1000] += 1
        else:
            truth.ttft[(now - self.arrival_ns + 500) // 1000] += 1
            truth.first_ns = truth.first_ns or now
            self.opening = b""
        if event == self.events - 1:
            truth.e2e[(now - self.arrival_ns + 500) // 1000] += 1
        truth.late[(now - due_ns) // 1000] += 1
        truth.last_ns = self.sent_ns = now
        self.index = (self.index + self.server.law.tokens_per_event) % answer.COUNT

    def _field(self, token: int) -> answer.Field:
        return "reasoning_content" if token < self.reasoning else "content"

    def _plan(self, due_ns: int) -> None:
        """Go on with event `stop`: hand the plain events from it on to the hot loop, up to the next special one."""
        per_event = self.server.law.tokens_per_event
        event = self.stop
        stops = [self.events - 1]
        if not self.continuous:
            if self.fault in HALF_WAY and max(1, self.events // 2) >= event:
                stops.append(max(1, self.events // 2))
            if self.reasoning > event * per_event:
                stops.append(-(-self.reasoning // per_event))
            self.stop = max(event, min(stops))
        self.left = self.stop - event
        if self.left:
            self.middle = self.chunks.middle(self._field(event * per_event))
            frames = answer.frames(len(self.middle), per_event)
            self.sizes, self.ends = frames.sizes, frames.ends
        tokens = min(per_event, self.tokens - event * per_event)
        self.server.push(due_ns + self.latency_ns(tokens, event), self)

    def _fail(self, due_ns: int) -> bool:
        """Let the fault strike half-way; whether the stream goes on at once."""
        match self.strike():
            case "stall":
                self.server.push(due_ns + round(self.server.law.stall_ms * 1e6), self)
                return False
            case "garbage":
                self.connection.write(answer.GARBAGE)
                return True
            case "error_event":
                error = answer.error(500, "The simulator broke off, as it was asked to.")
                self.connection.write(answer.chunk(b"data: " + error + b"\n\n") + answer.LAST_CHUNK)
                self.over(due_ns)
                self.connection.done()
            case fault:
                self.over(due_ns)
                self.connection.current = None
                self.connection.close(reset=fault == "reset")
        return False

    def _at_once(self, due_ns: int) -> None:
        """The faults `burst` and `empty`: everything in one write."""
        fault = self.strike()
        if fault == "empty":
            self.tokens = self.events = self.reasoning = 0
        usage = self.counts(self.tokens) if self.usage else None
        data = [self.head(), *(self._event(event) for event in range(self.events))]
        data.append(self.chunks.closing(self.finish, usage, continuous=self.continuous))
        now = clock()
        self.connection.write(b"".join(data))
        truth = self.server.truth
        if self.tokens:
            truth.ttft[(now - self.arrival_ns + 500) // 1000] += 1
            truth.e2e[(now - self.arrival_ns + 500) // 1000] += 1
            truth.late[(now - due_ns) // 1000] += 1
            truth.first_ns = truth.first_ns or now
            truth.last_ns = now
            truth.completed += 1
        self.stop = self.events
        self.over(due_ns)
        self.connection.done()

    def _end(self, due_ns: int) -> None:
        """Finish event, usage, [DONE]; or what the faults no_end and close make of it."""
        fault = self.strike()
        if fault == "no_end":
            self.connection.write(answer.LAST_CHUNK)
        else:
            usage = self.counts(self.tokens) if self.usage else None
            self.connection.write(self.chunks.closing(self.finish, usage, continuous=self.continuous))
            self.server.truth.completed += not self.gone
        self.over(due_ns)
        self.connection.done(close=fault == "close")

    def settle(self) -> None:
        per_event = self.server.law.tokens_per_event
        events = self.stop - self.left
        before, after = (min(n * per_event, self.tokens) for n in (self.settled, events))
        truth = self.server.truth
        truth.events += events - self.settled
        truth.tokens += after - before
        truth.characters += answer.characters(self.first_word + before, after - before)
        self.settled = events


class Whole(Answer):
    """An answer in one JSON body, due when its last token would be, at the batch size of its start."""

    def start(self, start_ns: int) -> None:
        """The slot is free and the clock runs."""
        ttft = self.server.ttft_ns(self.ask.prompt_tokens - self.cached_tokens, self.offset - 1)
        stall = round(self.server.law.stall_ms * 1e6) if self.fault == "stall" else 0
        self.server.push(start_ns + ttft + stall + self.latency_ns(self.tokens - 1, 0), self)

    def turn(self, due_ns: int) -> None:
        """Send it."""
        if self.gone:
            return
        fault = self.strike()
        if fault == "empty":
            self.tokens = self.reasoning = 0
        first = self.ask.digest % answer.COUNT
        thoughts = answer.text(first, self.reasoning)
        words = answer.text(first + self.reasoning, self.tokens - self.reasoning)
        usage = None if self.server.law.usage == "off" else self.counts(self.tokens)
        body = answer.whole(self.identity, self.created, self.ask.model, words, thoughts, self.finish, usage)
        head = self.connection.head(200, "application/json", len(body))
        broken = fault in ("cut", "reset")
        self.connection.write(head + (body[: len(body) // 2] if broken else body))
        truth = self.server.truth
        if not broken and not self.gone:
            truth.tokens += self.tokens
            truth.characters += len(thoughts) + len(words)
            truth.completed += self.tokens > 0
        self.over(due_ns)
        if broken:
            self.connection.current = None
            self.connection.close(reset=fault == "reset")
        else:
            self.connection.done(close=fault == "close")


class Ping:
    """Comment lines until a stream's first token."""

    def __init__(self, stream: Stream, every_ns: int) -> None:
        self.left = 0
        self.stream, self.every_ns = stream, every_ns

    def turn(self, due_ns: int) -> None:
        """Send one, unless the text has begun."""
        stream = self.stream
        if not stream.gone and stream.sent_ns == 0:
            stream.connection.write(answer.PING)
            stream.server.push(due_ns + self.every_ns, self)
