"""What the simulator promises: its timing law and its faults, as one frozen record, and the numbers drawn by it.

Times are declared in milliseconds, with fractions; the server keeps nanoseconds. Each field of the law says how it is
written as an option, so that a command line needs no list of its own.

Prompt tokens are counted by rule, so that a test can count them too: 3 for the template, 4 for each message, and 1 for
each word between white space.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from loadbench.serve.chat import ChatRequest

FAULTS = {
    "stall": "the stream pauses half-way for stall_ms, then goes on",
    "cut": "the connection is closed half-way, in the middle of the HTTP body",
    "reset": "the connection is reset half-way (RST)",
    "error_event": 'data: {"error": …} half-way in a 200, then the body ends without [DONE]',
    "garbage": "one event half-way is broken JSON; the stream goes on",
    "no_end": "the body ends well, but without finish event, usage and [DONE]",
    "burst": "the whole answer arrives in one write when its last token is due",
    "empty": "a 200 with a role and a finish event but no text",
    "hang": "no byte ever; the connection stays open",
    "drop": "the connection is closed before the first byte",
    "close": "a good answer, after which the connection is closed although keep-alive was promised",
}
"""Every fault by name; a number from 400 to 599 is a fault too: that HTTP status instead of an answer."""

_PART = re.compile(r"(?<![\d.])(\d+(?:\.\d*)?|\.\d+)\s*(us|µs|ms|s|m)")
_UNITS_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}


def milliseconds(text: str) -> float:
    """Milliseconds of a duration as one writes it; the unit is not optional.

    Raises:
        ValueError: If there is no number, no unit or an unknown one.

    >>> milliseconds("50ms"), milliseconds("0.5s"), milliseconds("200us"), milliseconds("1m 30s")
    (50.0, 500.0, 0.2, 90000.0)
    """
    parts = _PART.findall(text)
    if not parts or "".join(f"{number}{unit}" for number, unit in parts) != "".join(text.split()):
        raise ValueError(f"{text[:60]!r} is no duration: write it like 50ms, 200us, 1.5s or 1m30s")
    return sum(float(number) * _UNITS_MS[unit] for number, unit in parts)


def rates(texts: Sequence[str]) -> dict[str, float]:
    """Faults as one writes them, `NAME=RATE`.

    >>> rates(["429=0.01", "cut=0.5"])
    {'429': 0.01, 'cut': 0.5}
    """
    shares: dict[str, float] = {}
    for text in texts:
        name, equals, rate = text.partition("=")
        try:
            shares[name.strip()] = float(rate) if equals else 1.0
        except ValueError:
            raise ValueError(f"{text!r} is no fault: write NAME=RATE, e.g. cut=0.01") from None
    return shares


def _length(text: str) -> tuple[int, int]:
    low, dots, high = text.partition("..")
    try:
        return int(low), int(high if dots else low)
    except ValueError:
        raise ValueError(f"{text!r} is no length: write 64 or 16..256") from None


JitterShape = Literal["lognormal", "uniform", "exponential"]
Role = Literal["first", "early", "none"]
Usage = Literal["on", "off", "continuous"]


@dataclass(frozen=True, slots=True)
class Option:
    """How a field of the law is written on a command line.

    Attributes:
        metavar: None for a switch, or one of `choices`.
        parse: Of the text; None where there is no more to it than the choices.
    """

    help: str
    metavar: str | None = None
    parse: Callable[[str], object] | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """A server's declared behaviour. Token i (from 0) of an answer is due at

        start + TTFT + the sum of i inter-token latencies,      where start = arrival + wait for a slot
        TTFT = (ttft_ms + ttft_per_prompt_token_ms * uncached prompt tokens) * jitter
        ITL  = (itl_ms + itl_per_stream_ms * (streams in the batch - 1)) * jitter

    and an event is due with the last token it carries. Due times add up, not send times: a late event delays no other.
    `arrival` is when the request's last segment reached the kernel. A whole (not streamed) answer is due when its last
    token would be, at the batch size of its start.

    Attributes:
        ttft_ms: Time to first token without a queue.
        ttft_per_prompt_token_ms: Added per prompt token that no cache held.
        itl_ms: Inter-token latency of a stream that is alone.
        itl_per_stream_ms: Added for every other request that holds a slot.
        slots: Requests served at once; the rest wait first come, first served. None is no limit, 1 a serial server.
        jitter: Spread of the factor on every TTFT and ITL: sigma of a lognormal with median 1, half the width of a
            uniform around 1, or the part that is exponential with mean 1 (at 1 all of it: the service of M/M/1). 0 is
            none.
        jitter_shape: Which of the three.
        length: Tokens of an answer that ends by itself, drawn between two bounds by seed and prompt (the same prompt
            gives the same length, as at temperature 0). None: as many as `max_tokens` allows. `ignore_eos` in a
            request overrides it, as in llama.cpp and vLLM.
        default_max_tokens: Limit where a request names none.
        tokens_per_event: Tokens in each event; the last one takes what is left.
        reasoning_tokens: So many first tokens come as `reasoning_content`.
        role: When the role-only event comes: "first" with the first text, in one write; "early" with the headers at
            once, before any queue; "none": the first text event names the role.
        ping_ms: Until the first token a comment line is sent this often (implies early headers). None is never.
        usage: "on" as requests ask by `stream_options`, "off" never, "continuous" in every event.
        prompt_cache: A prompt seen before counts as cached, all but its last token (unless `cache_prompt` is false).
        stall_ms: How long the fault `stall` lasts.
        faults: Share of requests, 0 to 1, by name of the fault (FAULTS); at most one strikes a request.
        seed: Of jitter, lengths and faults.
    """

    ttft_ms: Annotated[float, Option("time to first token", "TIME", milliseconds)] = 50.0
    ttft_per_prompt_token_ms: Annotated[float, Option("added per uncached prompt token", "TIME", milliseconds)] = 0.0
    itl_ms: Annotated[float, Option("inter-token latency of a lone stream", "TIME", milliseconds)] = 10.0
    itl_per_stream_ms: Annotated[float, Option("added for every other stream in the batch", "TIME", milliseconds)] = 0.0
    slots: Annotated[int | None, Option("requests served at once; others queue", "N", int)] = None
    jitter: Annotated[float, Option("spread of every TTFT and ITL, e.g. 0.1", "SHARE", float)] = 0.0
    jitter_shape: Annotated[JitterShape, Option("shape of that spread", choices=get_args(JitterShape))] = "lognormal"
    length: Annotated[tuple[int, int] | None, Option("tokens of an answer that ends by itself", "A..B", _length)] = None
    default_max_tokens: Annotated[int, Option("limit where a request names none", "N", int)] = 128
    tokens_per_event: Annotated[int, Option("tokens in each event", "N", int)] = 1
    reasoning_tokens: Annotated[int, Option("first tokens that come as reasoning", "N", int)] = 0
    role: Annotated[Role, Option("when the role-only event comes", choices=get_args(Role))] = "first"
    ping_ms: Annotated[
        float | None, Option("comment lines until the first token, this often", "TIME", milliseconds)
    ] = None
    usage: Annotated[Usage, Option("token counts: as asked, never, in every event", choices=get_args(Usage))] = "on"
    prompt_cache: Annotated[bool, Option("count a prompt seen before as cached")] = False
    stall_ms: Annotated[float, Option("how long a stall lasts", "TIME", milliseconds)] = 500.0
    faults: Mapping[str, float] = field(default_factory=dict)
    seed: Annotated[int, Option("of jitter, lengths and faults", "N", int)] = 1

    def __post_init__(self) -> None:
        for name in ("ttft_ms", "ttft_per_prompt_token_ms", "itl_ms", "itl_per_stream_ms", "jitter", "stall_ms"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}: it must be 0 or more")
        for name, least in (("slots", 1), ("default_max_tokens", 1), ("tokens_per_event", 1), ("reasoning_tokens", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}: it must be {least} or more")
        if self.ping_ms is not None and not self.ping_ms > 0:
            raise ValueError(f"ping_ms is {self.ping_ms}: it must be more than 0")
        if self.jitter_shape != "lognormal" and self.jitter > 1:
            article = "a" if self.jitter_shape == "uniform" else "an"
            raise ValueError(f"jitter is {self.jitter}: {article} {self.jitter_shape} one is at most 1")
        if self.length is not None and not 1 <= self.length[0] <= self.length[1]:
            raise ValueError(f"length is {self.length}: its bounds must be 1 or more, and ascend")
        for name, rate in self.faults.items():
            if name not in FAULTS and not (name.isdecimal() and 400 <= int(name) <= 599):
                raise ValueError(f"no fault is named {name!r}: there are {', '.join(FAULTS)}, and 400 to 599")
            if not 0 <= rate <= 1:
                raise ValueError(f"the rate of fault {name} is {rate}: it must lie in 0 to 1")
        if sum(self.faults.values()) > 1 + 1e-9:
            raise ValueError(f"the rates of the faults add up to {sum(self.faults.values())}: at most 1 can strike")

    @classmethod
    def options(cls) -> dict[str, Option]:
        """How its fields are written as options, `faults` apart, which are `--fault NAME=RATE`, repeated."""
        hints = get_type_hints(cls, include_extras=True)
        return {name: hint.__metadata__[0] for name, hint in hints.items() if get_origin(hint) is Annotated}

    @classmethod
    def from_builtins(cls, values: Mapping[str, Any]) -> Law:
        """The law that `to_builtins` wrote, by way of JSON."""
        times = {name: float(value) for name, value in values.items() if name.endswith("_ms") and value is not None}
        length = values["length"]
        return cls(**{**values, **times, "length": None if length is None else tuple(length)})

    def to_builtins(self) -> dict[str, object]:
        return {item.name: getattr(self, item.name) for item in fields(self)} | {"faults": dict(self.faults)}


MOST_TOKENS = 1_000_000
"""Of one answer, which the simulator makes up in its memory."""
TEMPLATE_TOKENS = 3
MESSAGE_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Ask:
    """What the law looks at in a request.

    Attributes:
        ignore_eos: llama.cpp's and vLLM's: do not end before `max_tokens`.
        cache_prompt: llama.cpp's: whether the prompt cache may be used.
        digest: 64-bit hash of all messages.
    """

    max_tokens: int | None
    ignore_eos: bool
    cache_prompt: bool
    prompt_tokens: int
    digest: int


def ask(request: ChatRequest) -> Ask:
    texts = [message["content"] for message in request.messages]
    whole = "\0".join(texts).encode(errors="surrogatepass")
    return Ask(
        max_tokens=request.max_tokens,
        ignore_eos=request.fields.get("ignore_eos") is True,
        cache_prompt=request.fields.get("cache_prompt") is not False,
        prompt_tokens=TEMPLATE_TOKENS + MESSAGE_TOKENS * len(texts) + sum(len(text.split()) for text in texts),
        digest=int.from_bytes(hashlib.blake2b(whole, digest_size=8).digest(), "big"),
    )


SIZE = 8192
"""Factors of jitter in the table: drawing one at every token would cost as much as sending it."""


class Draws:
    """A law's numbers. Jitter follows from the number of the request and of the token, lengths from the prompt, faults
    from the order of requests: so a seed gives the same run twice.

    Attributes:
        factors: Of jitter, in 1/65,536, shape (8,192,); empty without jitter.
    """

    def __init__(self, law: Law) -> None:
        self._law = law
        self._faults = random.Random(f"faults {law.seed}")
        draw = random.Random(f"jitter {law.seed}")
        spread = law.jitter
        self.factors: tuple[int, ...] = ()
        if spread and law.jitter_shape == "uniform":
            self.factors = tuple(round(65536 * draw.uniform(1 - spread, 1 + spread)) for _ in range(SIZE))
        elif spread and law.jitter_shape == "exponential":
            self.factors = tuple(round(65536 * (1 - spread + spread * draw.expovariate(1.0))) for _ in range(SIZE))
        elif spread:
            self.factors = tuple(round(65536 * draw.lognormvariate(0.0, spread)) for _ in range(SIZE))

    def jittered_ns(self, latency_ns: int, draw: int) -> int:
        """A latency times factor number `draw`."""
        return latency_ns * self.factors[draw % SIZE] >> 16 if self.factors else latency_ns

    def ttft_ns(self, prompt_tokens: int, draw: int) -> int:
        """TTFT without queue, for uncached prompt tokens."""
        ttft_ms = self._law.ttft_ms + self._law.ttft_per_prompt_token_ms * prompt_tokens
        return self.jittered_ns(round(ttft_ms * 1e6), draw)

    def itl_ns(self, active: int) -> int:
        """Inter-token latency, before jitter, of each stream in a batch of this size."""
        return round((self._law.itl_ms + self._law.itl_per_stream_ms * max(0, active - 1)) * 1e6)

    def length(self, ask: Ask) -> tuple[int, str]:
        """Tokens of an answer, and why it ends: "length" or "stop"."""
        if self._law.length is None or ask.ignore_eos:
            return ask.max_tokens or self._law.default_max_tokens, "length"
        own = random.Random(f"length {self._law.seed} {ask.digest}").randint(*self._law.length)
        if ask.max_tokens is None or own <= ask.max_tokens:
            return own, "stop"
        return ask.max_tokens, "length"

    def fault(self) -> str | None:
        """The fault that strikes the next request; one draw each, so that a seed strikes the same requests."""
        draw = self._faults.random()
        for name, rate in self._law.faults.items():
            if draw < rate:
                return name
            draw -= rate
        return None
