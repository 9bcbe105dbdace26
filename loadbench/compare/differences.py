"""What two runs differ in besides what is compared: gate V8, and V5 and V6 between sides (METRICS.md §7)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from loadbench.compare.sides import Lap, Side
from loadbench.metrics import models
from loadbench.store.summary import Severity, worst_first

LOCAL = ("localhost", "127.0.0.1", "::1")
MOST_LENGTH_RATIO = 1.2
"""Output lengths that differ by more than 20 % make times incomparable (V5)."""
MOST_REASON_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that the sides differ in, or of which one side does not say.

    Attributes:
        code: The gate: "V5", "V6" or "V8".
        what: In words: "model", "server version", "max_tokens".
        base, new: Both values; None where unknown.
        severity: "red" forbids a verdict, "warn" is a doubt to print, "note" what is compared on purpose.
        text: One sentence.
    """

    code: str
    what: str
    base: Any
    new: Any
    severity: Severity
    text: str


Info = Mapping[str, Any]
_Read = Callable[[Info], Any]


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
        worst: Severity = "warn" if what in _MACHINE and not both_local else severity
        if (before is None or after is None) and what not in _OPTIONAL:
            worst = "warn"
        if what in meant:
            worst = "note"
        found.append(Difference("V8", what, before, after, worst, _text(what, before, after, worst)))
    return worst_first(found)


def ran(base: Side, new: Side, meant: Collection[str] = ()) -> list[Difference]:
    """Gate V8 of one level: which model it was, on which device. `differences` tells that of whole runs.

    Args:
        base, new: The same level of both sides.
        meant: As of `differences`.
    """
    found = []
    for what, read in _OF_LEVEL.items():
        before, after = (
            ", ".join(sorted({value for lap in side.laps if (value := read(lap))})) for side in (base, new)
        )
        if before == after:
            continue
        severity: Severity = "note" if what in meant else "red" if before and after else "warn"
        sides = (before or None, after or None)
        found.append(Difference("V8", what, *sides, severity, _text(what, *sides, severity)))
    return found


def between(base: Side, new: Side) -> list[Difference]:
    """Gates V5 and V6 between the sides of one level: output lengths, finish reasons, the source of token counts."""
    return [one for one in (_lengths(base, new), _reasons(base, new), _sources(base, new)) if one is not None]


def _text(what: str, base: Any, new: Any, severity: Severity) -> str:
    if what in _OPTIONAL:
        base, new = ("unset" if value is None else value for value in (base, new))
    if base is None or new is None:
        return f"{what} is not known of {'BASE' if base is None else f'NEW, BASE has {base}'}" + (
            f", NEW has {new}" if base is None else ""
        )
    if severity == "note":
        return f"{what} is compared: {base} against {new}"
    says = "the sides are not comparable" if severity == "red" else "mind it"
    return f"{what} differs, {base} against {new}: {says}"


def _at(*path: str) -> _Read:
    def read(info: Info) -> Any:
        value: Any = info
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    return read


def _models(info: Info) -> Any:
    """Models of the levels; None where there are none."""
    names = sorted({str(level.get("model")) for level in info.get("levels") or ()})
    return ", ".join(names) or None


def _ran(field: str) -> _Read:
    """Device or provider by model, as it ran, else as it is listed."""

    def read(info: Info) -> Any:
        ran = models.what_ran(info)
        values = set()
        for level in info.get("levels") or ():
            found = getattr(ran.get(str(level.get("model"))), field, None)
            values.add(str(found or level.get(field) or "?"))
        known = values - {"?"}
        return ", ".join(sorted(known)) or None

    return read


def _extra(info: Info) -> Any:
    body = _at("parameters", "extra_body")(info)
    return body if body is None else dict(sorted(body.items()))


def _loop(info: Info) -> Any:
    scenario = info.get("scenario") or {}
    if not scenario:
        return None
    return "closed loop" if scenario.get("request_rate") is None else f"open loop, {scenario.get('arrivals')}"


def _endpoints(info: Info) -> str | None:
    """As `3:1`: how many took turns, and their weights; None of one."""
    return ":".join(str(one.get("weight")) for one in info.get("endpoints") or ()) or None


_FACTS: dict[str, tuple[_Read, Severity]] = {
    "model": (_models, "red"),
    "device": (_ran("device"), "red"),
    "execution provider": (_ran("execution_provider"), "red"),
    "server": (_at("target", "kind"), "red"),
    "server version": (_at("target", "version"), "red"),
    "endpoints": (_endpoints, "red"),
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
_MACHINE = ("processor", "cores", "power")
"""Of the client's machine: red only where the server of both sides runs on it too."""
_OF_LEVEL: dict[str, Callable[[Lap], str | None]] = {
    "model": lambda lap: lap.model,
    "device": lambda lap: lap.device,
    "execution provider": lambda lap: lap.execution_provider,
}
OF_LEVEL = tuple(_OF_LEVEL)
"""Facts that two levels are asked for one by one: a run may hold several models."""
NAMES = tuple(_FACTS)
_OPTIONAL = ("endpoints", "system message", "requests", "duration", "warmup")
"""Of these None is a value: the option was not given."""


def _is_local(info: Info) -> bool:
    local = _at("telemetry", "local")(info)
    if local is not None:
        return bool(local)
    try:
        return urlsplit(str(_at("target", "base_url")(info) or "")).hostname in LOCAL
    except ValueError:  # no URL: the file is somebody's
        return False


def _lengths(base: Side, new: Side) -> Difference | None:
    before, after = (_mean([lap.output_tokens for lap in side.laps]) for side in (base, new))
    if before is None or after is None or not before > 0 or not after > 0:
        return None
    ratio = max(before, after) / min(before, after)
    if ratio <= MOST_LENGTH_RATIO:
        return None
    text = (
        f"answers have {before:.4g} tokens against {after:.4g}, more than 20 % apart: E2E compares lengths, not speed; "
        "force the length with ignore_eos, or compare TTFT and TPOT"
    )
    return Difference("V5", "output length", round(before, 3), round(after, 3), "red", text)


def _reasons(base: Side, new: Side) -> Difference | None:
    before, after = (_shares(side) for side in (base, new))
    names = sorted({*before, *after})
    if not names or max(abs(before.get(name, 0.0) - after.get(name, 0.0)) for name in names) <= MOST_REASON_SHARE:
        return None
    shown = [", ".join(f"{name} {100 * share:.0f} %" for name, share in one.items()) for one in (before, after)]
    text = f"answers ended differently, {shown[0]} against {shown[1]}: read the answers before their times"
    return Difference("V5", "finish reasons", before, after, "warn", text)


def _sources(base: Side, new: Side) -> Difference | None:
    before, after = (sorted({str(lap.token_source) for lap in side.laps if lap.token_source}) for side in (base, new))
    all_of = {*before, *after}
    if len(all_of) < 2 and "mixed" not in all_of:
        return None
    text = (
        f"tokens come from {' and '.join(before) or 'nowhere'} against {' and '.join(after) or 'nowhere'}: "
        "tokens per second and TPOT mean two units; compare characters per second"
    )
    return Difference("V6", "token source", ", ".join(before) or None, ", ".join(after) or None, "red", text)


def _shares(side: Side) -> dict[str, float]:
    counts: dict[str, int] = {}
    for lap in side.laps:
        for name, n in lap.finish_reasons.items():
            counts[name] = counts.get(name, 0) + n
    total = sum(counts.values())
    return {name: n / total for name, n in sorted(counts.items())} if total else {}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
