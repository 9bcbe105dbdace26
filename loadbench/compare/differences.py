"""What two runs differ in besides what is compared: gate V8, and V5 and V6 between sides (docs/metrics.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from loadbench.compare.sides import Info, Lap, Side
from loadbench.metrics import models
from loadbench.metrics.machine import mean
from loadbench.store.summary import Severity, rank

LOCAL = ("localhost", "127.0.0.1", "::1")
MOST_LENGTH_RATIO = 1.2
"""Output lengths that differ by more than 20 % make times incomparable (V5)."""
MOST_REASON_SHARE = 0.05
Value = Any
"""What run.json has at a place: None where it says nothing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that the sides differ in, or of which one side does not say.

    Attributes:
        code: The gate: "V5", "V6" or "V8".
        what: In words: "model", "server version", "max_tokens".
        base, new: Both values; None where run.json does not say.
        severity: "red" forbids a verdict, "warn" is a doubt to print, "note" what is compared on purpose.
        text: One sentence.
    """

    code: str
    what: str
    base: Value
    new: Value
    severity: Severity
    text: str


# -- what run.json says


def _at(*path: str) -> Callable[[Info], Value]:
    def read(info: Info) -> Value:
        value: Value = info
        for name in path:
            if not isinstance(value, Mapping):
                return None
            value = value.get(name)
        return value

    return read


def _of_levels(values: Iterable[object]) -> str | None:
    """What the levels of a run or the runs of a side have; None where none of them says it."""
    return ", ".join(sorted({str(value) for value in values if value is not None})) or None


def _ran(field: str) -> Callable[[Info], str | None]:
    """Device or provider by model, as it ran, else as it is listed."""

    def read(info: Info) -> str | None:
        ran = models.what_ran(info)
        found = []
        for level in info.get("levels") or ():
            as_it_ran = getattr(ran.get(str(level.get("model"))), field, None)
            found.append(as_it_ran or level.get(field) or None)
        return _of_levels(found)

    return read


def _extra(info: Info) -> Value:
    body = _at("parameters", "extra_body")(info)
    if body is None:
        return None
    return dict(sorted(body.items()))  # keys in another order are no difference


def _loop(info: Info) -> str | None:
    scenario = info.get("scenario")
    if not scenario:
        return None
    if scenario.get("request_rate") is None:
        return "closed loop"
    return f"open loop, {scenario.get('arrivals')}"


def _is_local(info: Info) -> bool:
    # Telemetry has seen the server's process, or that there is none: an address may be that of a tunnel.
    local = _at("telemetry", "local")(info)
    if local is not None:
        return bool(local)
    try:
        return urlsplit(str(_at("target", "base_url")(info) or "")).hostname in LOCAL
    except ValueError:  # no URL: the file is somebody's
        return False


_FACTS: dict[str, tuple[Callable[[Info], Value], Severity]] = {
    "model": (lambda info: _of_levels(level.get("model") for level in info.get("levels") or ()), "red"),
    "device": (_ran("device"), "red"),
    "execution provider": (_ran("execution_provider"), "red"),
    "server": (_at("target", "kind"), "red"),
    "server version": (_at("target", "version"), "red"),
    # As `3:1`: how many took turns, and their weights.
    "endpoints": (lambda info: ":".join(str(one.get("weight")) for one in info.get("endpoints") or ()) or None, "red"),
    "prompts": (_at("prompts", "sha256"), "red"),
    "max_tokens": (_at("parameters", "max_tokens"), "red"),
    "temperature": (_at("parameters", "temperature"), "red"),
    "extra_body": (_extra, "red"),
    "stream": (_at("parameters", "stream"), "red"),
    "system message": (_at("scenario", "system"), "red"),
    "distinct_prompts": (_at("scenario", "distinct_prompts"), "red"),
    "load": (_loop, "red"),
    "requests": (_at("scenario", "requests"), "warn"),
    "duration": (_at("scenario", "duration"), "warn"),
    "warmup": (_at("scenario", "warmup"), "warn"),
    "slo": (_at("scenario", "slo"), "warn"),
    "processor": (_at("environment", "cpu"), "red"),
    "cores": (_at("environment", "cores"), "red"),
    "power": (_at("environment", "power"), "warn"),
    "clock": (_at("clock"), "warn"),
    "loadbench version": (_at("versions", "loadbench"), "warn"),
}
NAMES = tuple(_FACTS)
MEANT = ("model", "device", "execution provider", "server", "server version")
"""What two targets, or two candidates of a choice, differ in on purpose: it is what they are compared for."""
_MACHINE = ("processor", "cores", "power")
"""Of the client's machine: red only where the server of both sides runs on it too."""
_OPTIONAL = ("endpoints", "system message", "requests", "duration", "warmup")
"""Of these None is a value: the option was not set."""
_OF_LEVEL: dict[str, Callable[[Lap], str | None]] = {
    "model": lambda lap: lap.model or None,
    "device": lambda lap: lap.device or None,
    "execution provider": lambda lap: lap.execution_provider or None,
}
OF_LEVEL = tuple(_OF_LEVEL)
"""Facts that are compared level by level: a run may hold several models."""


def differences(base: Info, new: Info, meant: Collection[str] = ()) -> list[Difference]:
    """Gate V8: what two runs were asked to do, and where, that is not the same.

    Args:
        base, new: run.json of each.
        meant: What is compared on purpose, by the names of `NAMES`: a difference in it is a note. A new version of a
            server is compared with meant=["server version"].

    Returns:
        Those that differ or that one side does not say, the red ones first. What neither says is none.
    """
    found = []
    both_local = _is_local(base) and _is_local(new)
    for what, (read, severity) in _FACTS.items():
        before, after = read(base), read(new)
        if before == after:
            continue
        # A run of an older loadbench may not say it: no reason to forbid a verdict.
        one_is_silent = what not in _OPTIONAL and (before is None or after is None)
        if one_is_silent or (what in _MACHINE and not both_local):
            severity = "warn"
        found.append(_differing(what, before, after, severity, meant))
    return sorted(found, key=lambda one: rank(one.severity))


def ran(base: Side, new: Side, meant: Collection[str] = ()) -> list[Difference]:
    """Gate V8 of one level of both sides: which model it was, on which device. `differences` is about whole runs."""
    found = []
    for what, read in _OF_LEVEL.items():
        before, after = _of_levels(map(read, base.laps)), _of_levels(map(read, new.laps))
        severity: Severity = "red"
        if not before or not after:  # a server that names no device may have run on the same
            severity = "warn"
        if before != after:
            found.append(_differing(what, before, after, severity, meant))
    return found


def _differing(what: str, base: Value, new: Value, severity: Severity, meant: Collection[str]) -> Difference:
    if what in meant:
        severity = "note"
    before, after = base, new
    if what in _OPTIONAL:
        before = "unset" if base is None else base
        after = "unset" if new is None else new
    if before is None:
        text = f"{what} is unknown for BASE; NEW has {after}"
    elif after is None:
        text = f"{what} is unknown for NEW; BASE has {before}"
    elif severity == "note":
        text = f"{what} is compared: {before} against {after}"
    elif severity == "red":
        text = f"{what} differs, {before} against {after}: the sides are not comparable"
    else:
        text = f"{what} differs, {before} against {after}: mind it"
    return Difference("V8", what, base, new, severity, text)


def between(base: Side, new: Side) -> list[Difference]:
    """Gates V5 and V6 between the sides of one level: output lengths, finish reasons, the source of token counts."""
    found = []
    before, after = _length(base), _length(new)
    if before and after and max(before, after) / min(before, after) > MOST_LENGTH_RATIO:
        text = (
            f"answers have {before:.4g} tokens against {after:.4g}, more than 20 % apart: E2E compares lengths, not "
            "speed; force the length with ignore_eos, or compare TTFT and TPOT"
        )
        found.append(Difference("V5", "output length", round(before, 3), round(after, 3), "red", text))
    ended, ended_new = _finish_shares(base), _finish_shares(new)
    # Shares, not counts: the sides need not have asked equally often.
    apart = [abs(ended.get(name, 0.0) - ended_new.get(name, 0.0)) for name in ended.keys() | ended_new.keys()]
    if max(apart, default=0.0) > MOST_REASON_SHARE:
        against = f"{_in_words(ended)} against {_in_words(ended_new)}"
        text = f"answers ended differently, {against}: read the answers before their times"
        found.append(Difference("V5", "finish reasons", ended, ended_new, "warn", text))
    sources, sources_new = _sources(base), _sources(new)
    either = sources | sources_new
    if len(either) > 1 or "mixed" in either:
        text = (
            f"tokens come from {' and '.join(sorted(sources)) or 'nowhere'} against "
            f"{' and '.join(sorted(sources_new)) or 'nowhere'}: tokens per second and TPOT mean two units; compare "
            "characters per second"
        )
        found.append(Difference("V6", "token source", _of_levels(sources), _of_levels(sources_new), "red", text))
    return found


def _sources(side: Side) -> set[str]:
    return {lap.token_source for lap in side.laps if lap.token_source}


def _length(side: Side) -> float | None:
    """Output tokens of an answer, the mean over the runs that counted them."""
    return mean([lap.output_tokens for lap in side.laps])


def _finish_shares(side: Side) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for lap in side.laps:
        counts.update(lap.finish_reasons)
    total = counts.total()
    return {name: n / total for name, n in sorted(counts.items())}


def _in_words(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
