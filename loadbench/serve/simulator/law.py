"""What the simulator promises: its timing law and its faults, as one frozen record, and the options that spell it.

Times are declared in milliseconds, with fractions; the server keeps nanoseconds.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

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


def faults(texts: Sequence[str]) -> dict[str, float]:
    """Faults as one writes them, `NAME=RATE`, as a mapping.

    >>> faults(["429=0.01", "cut=0.5"])
    {'429': 0.01, 'cut': 0.5}
    """
    rates: dict[str, float] = {}
    for text in texts:
        name, equals, rate = text.partition("=")
        try:
            rates[name.strip()] = float(rate) if equals else 1.0
        except ValueError:
            raise ValueError(f"{text!r} is no fault: write NAME=RATE, e.g. cut=0.01") from None
    return rates


def _length(text: str) -> tuple[int, int]:
    low, dots, high = text.partition("..")
    try:
        return (int(low), int(high)) if dots else (int(low), int(low))
    except ValueError:
        raise ValueError(f"{text!r} is no length: write 64 or 16..256") from None


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

    ttft_ms: float = 50.0
    ttft_per_prompt_token_ms: float = 0.0
    itl_ms: float = 10.0
    itl_per_stream_ms: float = 0.0
    slots: int | None = None
    jitter: float = 0.0
    jitter_shape: Literal["lognormal", "uniform", "exponential"] = "lognormal"
    length: tuple[int, int] | None = None
    default_max_tokens: int = 128
    tokens_per_event: int = 1
    reasoning_tokens: int = 0
    role: Literal["first", "early", "none"] = "first"
    ping_ms: float | None = None
    usage: Literal["on", "off", "continuous"] = "on"
    prompt_cache: bool = False
    stall_ms: float = 500.0
    faults: Mapping[str, float] = field(default_factory=dict)
    seed: int = 1

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

    def argv(self) -> list[str]:
        """The options that declare this law to `python -m loadbench.serve.simulator`; defaults are left out.

        >>> Law(itl_ms=2.5, slots=1, faults={"cut": 0.5}).argv()
        ['--itl', '2.5ms', '--slots', '1', '--fault', 'cut=0.5']
        """
        words: list[str] = []
        for item, plain in zip(fields(self), fields(Law()), strict=True):
            value = getattr(self, item.name)
            if item.name == "faults":
                words += [word for name, rate in value.items() for word in ("--fault", f"{name}={rate!r}")]
            elif value == plain.default or value is None:
                continue
            elif value is True:
                words.append(_option(item.name))
            elif item.name == "length":
                words += ["--length", f"{value[0]}..{value[1]}"]
            else:
                words += [_option(item.name), f"{value!r}ms" if item.name.endswith("_ms") else str(value)]
        return words

    def to_builtins(self) -> dict[str, Any]:
        """The law as JSON would have it."""
        return {item.name: getattr(self, item.name) for item in fields(self)} | {"faults": dict(self.faults)}


def _option(name: str) -> str:
    return "--" + name.removesuffix("_ms").replace("_", "-")


_HELP: dict[str, tuple[str, str | None, Callable[[str], Any] | tuple[str, ...] | None]] = {
    "ttft_ms": ("time to first token", "TIME", milliseconds),
    "ttft_per_prompt_token_ms": ("added per uncached prompt token", "TIME", milliseconds),
    "itl_ms": ("inter-token latency of a lone stream", "TIME", milliseconds),
    "itl_per_stream_ms": ("added for every other stream in the batch", "TIME", milliseconds),
    "slots": ("requests served at once; others queue", "N", int),
    "jitter": ("spread of every TTFT and ITL, e.g. 0.1", "SHARE", float),
    "jitter_shape": ("shape of that spread", None, ("lognormal", "uniform", "exponential")),
    "length": ("tokens of an answer that ends by itself", "A..B", _length),
    "default_max_tokens": ("limit where a request names none", "N", int),
    "tokens_per_event": ("tokens in each event", "N", int),
    "reasoning_tokens": ("first tokens that come as reasoning", "N", int),
    "role": ("when the role-only event comes", None, ("first", "early", "none")),
    "ping_ms": ("comment lines until the first token, this often", "TIME", milliseconds),
    "usage": ("token counts: as asked, never, in every event", None, ("on", "off", "continuous")),
    "prompt_cache": ("count a prompt seen before as cached", None, None),
    "stall_ms": ("how long a stall lasts", "TIME", milliseconds),
    "seed": ("of jitter, lengths and faults", "N", int),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give `parser` an option for each field of the law; what is not given stays out of the namespace."""
    group = parser.add_argument_group("law", "times are written 200us, 50ms or 1.5s")
    for item in fields(Law()):
        if item.name == "faults":
            continue
        text, metavar, kind = _HELP[item.name]
        unit = "ms" if item.name.endswith("_ms") else ""
        default = "" if item.default is None or item.default is False else f" (default {item.default}{unit})"
        if kind is None:
            group.add_argument(_option(item.name), action="store_true", default=argparse.SUPPRESS, help=text)
            continue
        group.add_argument(
            _option(item.name),
            dest=item.name,
            metavar=metavar,
            default=argparse.SUPPRESS,
            type=_checked(kind) if callable(kind) else str,
            choices=None if callable(kind) else kind,
            help=text + default,
        )
    names = "; ".join(f"{name}: {text}" for name, text in FAULTS.items())
    group.add_argument(
        "--fault",
        metavar="NAME=RATE",
        action="append",
        dest="fault",
        default=[],
        help=f"share of requests that meet it, may be repeated. 400 to 599: that HTTP status; {names}".replace(
            "%", "%%"
        ),
    )


def from_options(options: argparse.Namespace) -> Law:
    """The law that the parsed options declare.

    Raises:
        ValueError: If a value is out of range; the message says which.
    """
    given = {item.name: getattr(options, item.name) for item in fields(Law()) if hasattr(options, item.name)}
    return Law(**given, faults=faults(options.fault))


def _checked(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """`parse` for argparse, which prints the message of its own error class only."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed
