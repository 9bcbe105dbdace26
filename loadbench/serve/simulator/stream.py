"""Answers on their way: what is due when, by the law; the slots that requests are served in; and what was really done.

Durations are counted per whole microsecond: exact percentiles at a memory bounded by their spread, not by their number.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from heapq import heappush
from itertools import accumulate
from typing import TypeVar

from loadbench.serve import chat
from loadbench.serve.chat import ChatRequest
from loadbench.serve.simulator import answer
from loadbench.serve.simulator.connection import Connection
from loadbench.serve.simulator.law import Ask, Draws, Law, ask

HALF_WAY = frozenset(("stall", "cut", "reset", "error_event", "garbage"))
AT_ONCE = frozenset(("burst", "empty"))
CACHED_PROMPTS = 100_000
clock = time.perf_counter_ns


PERCENTILES = {"p50": (50, 100), "p90": (90, 100), "p95": (95, 100), "p99": (99, 100), "p999": (999, 1000)}
Key = TypeVar("Key")
Counts = defaultdict[Key, int]


def summary(counts: Mapping[int, int]) -> dict[str, float | int | None]:
    """n, mean, min, percentiles (nearest rank, ceil(p * n)) and max of values counted as {value: times}, None without.

    >>> summary({10: 98, 20: 1, 500: 1})["p99"]
    20
    """
    n = sum(counts.values())
    report: dict[str, float | int | None] = dict.fromkeys(("n", "mean", "min", *PERCENTILES, "max"))
    report["n"] = n
    if n:
        values = sorted(counts)
        ranks = list(accumulate(counts[value] for value in values))
        mean = sum(value * count for value, count in counts.items()) / n
        report |= {"mean": round(mean, 3), "min": values[0], "max": values[-1]}
        for name, (part, of) in PERCENTILES.items():
            # Integers, or 0.999 * 1000 would round up to rank 1,000.
            report[name] = values[bisect_left(ranks, -(-part * n // of))]
    return report


def _counts() -> Counts[Key]:
    return defaultdict(int)


@dataclass(slots=True)
class Truth:
    """Counts since the start or the last reset, as /truth reports them. All durations are {whole microseconds: times}.

    Attributes:
        requests: Chat completions that were understood, faults included.
        completed: Answers delivered in full, with text, finish event and [DONE] (stalls and bursts are).
        rejected: Requests refused as malformed, unauthorised or for an unknown model.
        disconnected: Answers whose client left before their end, in the queue included.
        faults: Faults that really struck, by name.
        tokens, events, characters: Text sent, of broken-off answers too; events that carried it.
        prompt_tokens, cached_tokens: Of the requests that reached a slot.
        connections: Accepted.
        blocked: Writes the kernel would not take at once, since the client read too slowly; their times are too early.
        ttft, ttfat, gap, e2e, queue, late: First text event - arrival; the first that is not reasoning - arrival; text
            event - text event before; last text event - arrival; slot - arrival; text event - its due time. Streams
            only; a burst has no gaps.
    """

    requests: int = 0
    completed: int = 0
    rejected: int = 0
    disconnected: int = 0
    faults: Counts[str] = field(default_factory=_counts)
    tokens: int = 0
    events: int = 0
    characters: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    connections: int = 0
    blocked: int = 0
    most_active: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    ttft: Counts[int] = field(default_factory=_counts)
    ttfat: Counts[int] = field(default_factory=_counts)
    gap: Counts[int] = field(default_factory=_counts)
    e2e: Counts[int] = field(default_factory=_counts)
    queue: Counts[int] = field(default_factory=_counts)
    late: Counts[int] = field(default_factory=_counts)

    def text_event(self, now: int, arrival_ns: int, due_ns: int, *, first: bool, answers: bool, last: bool) -> None:
        """Count a text event that is the first, the first of the answer, the last; the hot loop counts all others."""
        self.late[(now - due_ns) // 1000] += 1
        if first:
            self.ttft[(now - arrival_ns + 500) // 1000] += 1
            self.first_ns = self.first_ns or now
        if answers:
            self.ttfat[(now - arrival_ns + 500) // 1000] += 1
        if last:
            self.e2e[(now - arrival_ns + 500) // 1000] += 1
        self.last_ns = now

    def report(self) -> dict[str, object]:
        report: dict[str, object] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in ("ttft", "ttfat", "gap", "e2e", "queue", "late"):
                report[f"{item.name}_us"] = summary(value)
            elif item.name == "first_ns":
                span_s = None if value is None or self.last_ns is None else (self.last_ns - value) / 1e9
                report["span_s"] = span_s
                report["tokens_per_s"] = self.tokens / span_s if span_s else None
            elif item.name != "last_ns":
                report[item.name] = value
        return report


class Service:
    """What all answers share: the law, the counts, what is due when, who holds a slot and who waits for one.

    Attributes:
        truth: Replaced as a whole when counting starts anew.
        run: When it began, in seconds: part of every answer's id.
        heap: (due time, number, turn), the numbers ascending: of two that are due at once the older comes first. A
            turn with `left` > 0 is a Stream with that many plain text events ahead, which the server's hot loop sends
            itself. With `left` == 0 its `turn` is called: for the first event, the last one, and faults.
        active: Requests that hold a slot; without a limit, all in service.
        itl_ns: Inter-token latency at that batch size, before jitter.
    """

    def __init__(self, law: Law) -> None:
        self.law = law
        self.draws = Draws(law)
        self.truth = Truth()
        self.run = int(time.time()) & 0xFFFFFFFF
        self.heap: list[tuple[int, int, Stream | Whole | Ping]] = []
        self.active = 0
        self.itl_ns = self.draws.itl_ns(0)
        self._pushed = 0
        self._jobs = 0
        self._waiting: deque[Stream | Whole] = deque()
        self._prompts: dict[int, bool] = {}

    @property
    def queued(self) -> int:
        return sum(not waiting.job.gone for waiting in self._waiting)

    def push(self, due_ns: int, turn: Stream | Whole | Ping) -> None:
        self._pushed += 1
        heappush(self.heap, (due_ns, self._pushed, turn))

    def begin(self, connection: Connection, request: ChatRequest, arrival_ns: int, fault: str | None) -> None:
        """Give a request a slot or a place in the queue; send the headers where they come early."""
        law = self.law
        job = Job(self, connection, request, self._jobs, arrival_ns, fault)
        self._jobs += 1
        begun: Stream | Whole = Stream(job) if request.stream else Whole(job)
        connection.current = begun
        if isinstance(begun, Stream) and (law.role == "early" or law.ping_ms is not None):
            connection.write(begun.head())
            if law.ping_ms is not None:
                every_ns = round(law.ping_ms * 1e6)
                self.push(arrival_ns + every_ns, Ping(begun, every_ns))
        if job.gone:
            return
        if law.slots is not None and self.active >= law.slots:
            self._waiting.append(begun)
        else:
            self._admit(begun, arrival_ns)

    def free(self, due_ns: int) -> None:
        """A slot came free at `due_ns`, by the law: the next in the queue starts then, not when the loop got to it."""
        self._occupy(-1)
        while self._waiting:
            begun = self._waiting.popleft()
            if not begun.job.gone:
                self._admit(begun, max(due_ns, begun.job.arrival_ns))
                return

    def _admit(self, begun: Stream | Whole, start_ns: int) -> None:
        job, truth = begun.job, self.truth
        job.running = True
        self._occupy(1)
        truth.most_active = max(truth.most_active, self.active)
        truth.queue[(start_ns - job.arrival_ns) // 1000] += 1
        if self.law.prompt_cache:
            # From now on the cache holds the whole prompt; the youngest comes last.
            is_cached = self._prompts.pop(job.ask.digest, False)
            self._prompts[job.ask.digest] = True
            if len(self._prompts) > CACHED_PROMPTS:
                del self._prompts[next(iter(self._prompts))]
            job.cached_tokens = job.ask.prompt_tokens - 1 if is_cached and job.ask.cache_prompt else 0
        truth.prompt_tokens += job.ask.prompt_tokens
        truth.cached_tokens += job.cached_tokens
        begun.start(start_ns)

    def _occupy(self, change: int) -> None:
        self.active += change
        self.itl_ns = self.draws.itl_ns(self.active)


@dataclass(slots=True, eq=False)
class Job:
    """One request with what the law drew for it: what streams and whole answers have in common.

    Attributes:
        number: From 0.
        arrival_ns: When its last segment reached the kernel.
        fault: The fault that will strike, or None.
        tokens, finish: Length of the answer and why it ends.
        reasoning: How many of the tokens are reasoning.
        cached_tokens: Of the prompt; known when the request gets its slot.
        running: Holds a slot.
        gone: Over, or its client has left; the heap and the queue may still hold it.
        offset: Into the table of jitter, over which it spreads requests.
    """

    service: Service
    connection: Connection
    request: ChatRequest
    number: int
    arrival_ns: int
    fault: str | None
    ask: Ask = field(init=False)
    tokens: int = field(init=False)
    finish: str = field(init=False)
    reasoning: int = field(init=False)
    cached_tokens: int = 0
    running: bool = False
    gone: bool = False
    offset: int = field(init=False)
    identity: str = field(init=False)
    created: int = field(init=False)

    def __post_init__(self) -> None:
        self.ask = ask(self.request)
        self.tokens, self.finish = self.service.draws.length(self.ask)
        self.reasoning = min(self.service.law.reasoning_tokens, self.tokens)
        self.offset = self.number * 2_654_435_761
        self.identity = f"chatcmpl-{self.service.run:08x}{self.number:016x}"
        self.created = int(time.time())

    def ttft_ns(self) -> int:
        return self.service.draws.ttft_ns(self.ask.prompt_tokens - self.cached_tokens, self.offset - 1)

    def tokens_ns(self, tokens: int, draw: int) -> int:
        """Time that `tokens` tokens take in the batch as it is; `draw` is the number of their event."""
        return self.service.draws.jittered_ns(self.service.itl_ns * tokens, self.offset + draw)

    def usage(self, tokens: int) -> dict[str, object]:
        cached = self.cached_tokens if self.service.law.prompt_cache else None
        return answer.usage(self.ask.prompt_tokens, tokens, cached, min(self.reasoning, tokens))

    def strike(self) -> str | None:
        """The fault, which strikes and is counted now, once."""
        fault, self.fault = self.fault, None
        if fault is not None:
            self.service.truth.faults[fault] += 1
        return fault

    def end(self, due_ns: int) -> None:
        """Free the slot, as of `due_ns`."""
        self.gone = True
        if self.running:
            self.running = False
            self.service.free(due_ns)


@dataclass(slots=True, eq=False)
class Stream:
    """A stream of events. Event i carries tokens i * k to i * k + k - 1 for k tokens per event.

    Attributes:
        left: Plain text events that the server's hot loop sends before `turn` is called again.
        stop: Number of the event that `turn` sends next; `stop - left` is the next event of all.
        index: Number of the next event's first word.
        middle, sizes, ends: The parts of plain events (answer.frames).
        send: The socket's own, or the connection's once bytes had to be held back.
        sent_ns: When the last text event was sent; 0 before the first.
    """

    job: Job
    left: int = 0
    stop: int = 0
    index: int = 0
    sent_ns: int = 0
    middle: bytes = b""
    sizes: tuple[bytes, ...] = ()
    ends: tuple[bytes, ...] = ()
    connection: Connection = field(init=False)
    send: Callable[[bytes], int] = field(init=False)
    _per_event: int = field(init=False)
    _events: int = field(init=False)
    _half_way: int = field(init=False)
    _answer: int = field(init=False)  # the first event that is not reasoning
    _usage: bool = field(init=False)
    _continuous: bool = field(init=False)
    _chunks: answer.Events = field(init=False)
    _first_word: int = field(init=False)
    _head_sent: bool = False
    _opening: bytes = b""
    _settled: int = 0

    def __post_init__(self) -> None:
        job, law, request = self.job, self.job.service.law, self.job.request
        self.connection = job.connection
        self.send = job.connection.sock.send
        self._per_event = law.tokens_per_event
        self._events = -(-job.tokens // self._per_event)
        self._half_way = max(1, self._events // 2)
        self._answer = -(-job.reasoning // self._per_event)
        self._usage = law.usage != "off" and (request.include_usage or law.usage == "continuous")
        self._continuous = self._usage and (request.continuous_usage or law.usage == "continuous")
        self._chunks = answer.Events(job.identity, job.created, request.model)
        self._first_word = self.index = job.ask.digest % answer.COUNT

    def start(self, start_ns: int) -> None:
        """Be due with the first event; a burst with the last."""
        job = self.job
        tokens = job.tokens if job.fault == "burst" else min(self._per_event, job.tokens)
        job.service.push(start_ns + job.ttft_ns() + job.tokens_ns(tokens - 1, 0), self)
        if job.fault not in AT_ONCE:
            self._opening = self.head() + self._event(0)  # ready before it is due: encoding takes time

    def head(self) -> bytes:
        """HTTP headers, with the role-only event where the law has one; empty if they have been sent."""
        if self._head_sent:
            return b""
        self._head_sent = True
        head = self.connection.head(200, "text/event-stream; charset=utf-8", None)
        return head if self.job.service.law.role == "none" else head + self._chunks.role()

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
        truth = self.job.service.truth
        truth.events += events - self._settled
        truth.tokens += after - before
        truth.characters += answer.characters(self._first_word + before, after - before)
        self._settled = events

    def abandon(self, now_ns: int) -> None:
        self.settle()
        self.left = 0
        self.job.end(now_ns)

    def _plan(self, due_ns: int) -> None:
        """Go on with event `stop`: hand the plain events from it on to the hot loop, up to the next special one."""
        event = self.stop
        field = self._field(event)
        if not self._continuous:
            self.stop = self._events - 1
            if self.job.fault in HALF_WAY and self._half_way >= event:
                self.stop = min(self.stop, self._half_way)
            if event <= self._answer:
                self.stop = min(self.stop, self._answer)
        self.left = self.stop - event
        if self.left:
            self.middle = self._chunks.middle(field)
            self.sizes, self.ends = answer.frames(len(self.middle), self._per_event)
            self.job.service.push(due_ns + self.job.tokens_ns(self._per_event, event), self)
        else:
            self.job.service.push(due_ns + self.gap_ns(), self)

    def _field(self, event: int) -> answer.Field:
        return "reasoning_content" if event * self._per_event < self.job.reasoning else "content"

    def _event(self, event: int) -> bytes:
        start = event * self._per_event
        end = min(start + self._per_event, self.job.tokens)
        role = event == 0 and self.job.service.law.role == "none"
        usage = self.job.usage(end) if self._continuous else None
        return self._chunks.text(self._field(event), self._first_word + start, end - start, role=role, usage=usage)

    def _closing(self) -> bytes:
        usage = self.job.usage(self.job.tokens) if self._usage else None
        return self._chunks.closing(self.job.finish, usage, continuous=self._continuous)

    def _text(self, due_ns: int) -> None:
        data = self._event(self.stop) if self.stop else self._opening
        now = clock()
        self.connection.write(data)
        truth, answers, is_last = self.job.service.truth, self.stop == self._answer, self.stop == self._events - 1
        if self.stop:
            truth.gap[(now - self.sent_ns + 500) // 1000] += 1
        truth.text_event(now, self.job.arrival_ns, due_ns, first=self.stop == 0, answers=answers, last=is_last)
        self._opening = b""
        self.sent_ns = now
        self.index = (self.index + self._per_event) % answer.COUNT
        self.stop += 1

    def _end(self, due_ns: int) -> None:
        """Finish event, usage, [DONE]; or what the faults no_end and close make of it."""
        job = self.job
        fault = job.strike()
        self.connection.write(answer.LAST_CHUNK if fault == "no_end" else self._closing())
        job.service.truth.completed += fault != "no_end" and not job.gone
        self._over(due_ns)
        self.connection.done(close=fault == "close")

    def _go_on(self, due_ns: int) -> bool:
        """Let the fault strike half-way; whether the stream goes on at once."""
        job = self.job
        fault = job.strike()
        if fault == "stall":
            job.service.push(due_ns + round(job.service.law.stall_ms * 1e6), self)
        elif fault == "garbage":
            self.connection.write(answer.GARBAGE)
            return True
        elif fault == "error_event":
            error = chat.Refused(500, "The simulator broke off, as it was asked to.").body()
            self.connection.write(chat.chunk(b"data: " + error + b"\n\n") + answer.LAST_CHUNK)
            self._over(due_ns)
            self.connection.done()
        else:
            self._over(due_ns)
            self.connection.break_off(reset=fault == "reset")
        return False

    def _at_once(self, due_ns: int) -> None:
        job = self.job
        if job.strike() == "empty":
            job.tokens = job.reasoning = self._events = 0
        events = [self._event(event) for event in range(self._events)]
        data = b"".join([self.head(), *events, self._closing()])
        now = clock()
        self.connection.write(data)
        if events and not job.gone:
            answers = job.tokens > job.reasoning
            job.service.truth.text_event(now, job.arrival_ns, due_ns, first=True, answers=answers, last=True)
            job.service.truth.completed += 1
        self.stop = self._events
        self._over(due_ns)
        self.connection.done()

    def _over(self, due_ns: int) -> None:
        self.settle()
        self.left = 0
        self.job.end(due_ns)


@dataclass(slots=True, eq=False)
class Ping:
    """Comment lines until a stream's first text."""

    stream: Stream
    every_ns: int
    left: int = 0

    def turn(self, due_ns: int) -> None:
        """Send one, unless the text has begun."""
        if not self.stream.job.gone and self.stream.sent_ns == 0:
            self.stream.connection.write(answer.PING)
            self.stream.job.service.push(due_ns + self.every_ns, self)


@dataclass(slots=True, eq=False)
class Whole:
    """One JSON body, due when its last token would be, at the batch size of its start."""

    job: Job
    left: int = 0

    def start(self, start_ns: int) -> None:
        job = self.job
        stall_ns = round(job.service.law.stall_ms * 1e6) if job.fault == "stall" else 0
        job.service.push(start_ns + job.ttft_ns() + stall_ns + job.tokens_ns(job.tokens - 1, 0), self)

    def settle(self) -> None:
        """Nothing is counted before the answer is sent."""

    def abandon(self, now_ns: int) -> None:
        self.job.end(now_ns)

    def turn(self, due_ns: int) -> None:
        job = self.job
        if job.gone:
            return
        fault = job.strike()
        if fault == "empty":
            job.tokens = job.reasoning = 0
        first = job.ask.digest % answer.COUNT
        thoughts = answer.text(first, job.reasoning)
        words = answer.text(first + job.reasoning, job.tokens - job.reasoning)
        usage = None if job.service.law.usage == "off" else job.usage(job.tokens)
        body = answer.whole(job.identity, job.created, job.request.model, words, thoughts, job.finish, usage)
        head = job.connection.head(200, "application/json", len(body))
        broken = fault in ("cut", "reset")
        job.connection.write(head + (body[: len(body) // 2] if broken else body))
        if not broken and not job.gone:
            truth = job.service.truth
            truth.tokens += job.tokens
            truth.characters += len(thoughts) + len(words)
            truth.completed += job.tokens > 0
        job.end(due_ns)
        if broken:
            job.connection.break_off(reset=fault == "reset")
        else:
            job.connection.done(close=fault == "close")
