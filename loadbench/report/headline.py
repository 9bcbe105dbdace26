"""One sentence a model, for those who read nothing else: only figures that exist, hedged where gates are red."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadbench import text as units
from loadbench.metrics.gates import titled
from loadbench.report import capacity, devices, levels, scaling, tables
from loadbench.report.levels import Level, Summary

STEADY = 1.1
"""A TTFT or E2E that changes by less than this factor between two levels is said to stay."""
MORE_THAN_PLANNED = 1.05
SCALES, WAITS = 0.8, 2.0
"""Least efficiency, and most growth of the median TTFT (of whole answers E2E), of what is said to scale well."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """What a model did, and why that may not be a basis for a verdict ("" when it may)."""

    model: str
    text: str
    doubt: str


def sentences(summary: Summary) -> list[Sentence]:
    models = levels.by_model(summary)
    found = []
    for model, rows in models.items():
        text = _text(rows, scaling.of_model(summary, model), with_characters=len(models) > 1)
        # A search says for itself what the model carries, from more than the levels' shares alone.
        carried = "" if capacity.is_searched(summary, model) else devices.carried(rows)
        found.append(Sentence(model, f"{text}; {carried}" if carried else text, _doubt(rows, summary)))
    return found


def _text(rows: Sequence[Level], curve: Mapping[str, Any] | None, *, with_characters: bool) -> str:
    measured = [level for level in rows if level.get("output_tokens_per_s") is not None]
    # Loops of two kinds share no axis; repeats of a load are told by the first.
    measured = [level for level in measured if levels.is_open(level) == levels.is_open(measured[0])]
    if not measured:
        return _nothing(rows)
    ordered = sorted(measured, key=lambda level: (levels.load(level), level.get("repeat") or 1))
    firsts = [level for level in ordered if (level.get("repeat") or 1) == 1] or ordered
    if curve and curve.get("serial") is True and len(firsts) > 1:
        parts = [_serial(firsts), _throughput(firsts[-1:], ordered, with_characters), _times(firsts)]
    else:
        parts = [_word(firsts, curve) + _throughput(firsts, ordered, with_characters), _times(firsts)]
    failed = sum(int(level.get("failed") or 0) for level in rows)
    if failed:
        attempted = sum(int(level.get("attempted") or 0) for level in rows)
        parts.append(f"{failed:,} of {units.plural(attempted, 'request')} failed")
    dropped = sum(int(level.get("dropped") or 0) for level in rows)
    if dropped:
        offered = sum(int(level.get("offered") or 0) for level in rows)
        parts.append(f"{dropped:,} of {units.plural(offered, 'request')} dropped")
    parts += [f"{levels.label(level)} {level['status']}" for level in rows if levels.is_unfinished(level)]
    return "; ".join(part for part in parts if part)


def _word(firsts: Sequence[Level], curve: Mapping[str, Any] | None) -> str:
    """How it scales, in a word before the figures: by efficiency and TTFT, never by TPOT, which is blind to queues."""
    first, last = firsts[0], firsts[-1]
    if not curve or first is last or levels.is_open(last):
        return ""
    times = (levels.lead(first).get("p50"), levels.lead(last).get("p50"))
    waits = times[1] / times[0] if times[0] and times[1] else None
    if (last.get("efficiency") or 0) >= SCALES and waits is not None and waits <= WAITS:
        return f"scales well to {levels.load_words(last)}: "
    n = curve.get("saturated_n")
    if n is not None and n < levels.load(last):
        return f"saturated from {units.plural(int(n), 'stream')} on: "
    return ""


def _serial(firsts: Sequence[Level]) -> str:
    """What a queue in front of one request at a time does to its users."""
    last = firsts[-1]
    n, stretch = int(last.get("concurrency") or 0), last.get("stretch")
    waits = f", and wait {stretch:.2g} times as long" if stretch else ""
    # Nobody saw the tokens of whole answers: a server that shares itself out looks the same.
    seems = "answers as if" if last.get("streamed") is False else "answers"
    return f"{seems} one request at a time: {n} streams get what one gets{waits}"


def _nothing(rows: Sequence[Level]) -> str:
    attempted = sum(int(level.get("attempted") or 0) for level in rows)
    completed = sum(int(level.get("completed") or 0) for level in rows)
    if not attempted:
        return "not measured"
    kinds: dict[str, int] = {}
    for level in rows:
        for kind, n in (level.get("errors") or {}).items():
            kinds[kind] = kinds.get(kind, 0) + n
    why = f" (failed: {tables.counts(kinds)})" if kinds else ""
    return f"throughput not measured; {completed:,} of {units.plural(attempted, 'request')} completed{why}"


def _throughput(firsts: Sequence[Level], ordered: Sequence[Level], with_characters: bool) -> str:
    last = firsts[-1]
    peak = _peak(firsts)
    if levels.is_open(last):
        done = units.figure(last.get("requests_per_s"))
        planned, completed = last.get("request_rate_per_s"), last.get("requests_per_s")
        # Nothing completes that was not started: a window of few arrivals holds more or fewer than planned.
        above = planned and completed and completed > MORE_THAN_PLANNED * planned
        done += " req/s completed, more than planned by chance" if above else " req/s completed"
        return f"{_rate(last, ordered, with_characters)} at {levels.load_words(last)} planned, {done}"
    said = f"{_rate(peak, ordered, with_characters)} at {levels.load_words(peak)}{_gain(peak, firsts[0])}"
    if peak is last:
        return said
    return f"peaks at {said}, {units.figure(last['output_tokens_per_s'])} at {levels.load_words(last)}"


def _rate(level: Level, ordered: Sequence[Level], with_characters: bool) -> str:
    """Tokens per second, as a range where the load was repeated; characters too where models are compared."""
    rates = [float(other["output_tokens_per_s"]) for other in ordered if levels.load(other) == levels.load(level)]
    lowest, highest = units.figure(min(rates)), units.figure(max(rates))
    estimated = "about " if levels.is_estimated(level) else ""
    rate = f"{estimated}{lowest if lowest == highest else f'{lowest} to {highest}'} tokens/s"
    if with_characters and level.get("characters_per_s") is not None:
        rate += f" and {units.figure(level['characters_per_s'])} characters/s"
    return rate


def _gain(peak: Level, lowest: Level) -> str:
    if peak is lowest:
        return ""
    said = []
    if peak.get("speedup") is not None:
        said.append(f"{peak['speedup']:.1f}x of {levels.load_words(lowest)}")
    if peak.get("efficiency") is not None:
        said.append(f"efficiency {units.percent(peak['efficiency'])}")
    return f" ({', '.join(said)})" if said else ""


def _times(firsts: Sequence[Level]) -> str:
    """How TTFT (of whole answers E2E) changes with load: by p95 where both ends have an interval, else the median."""
    first, last = firsts[0], firsts[-1]
    ends = (levels.lead(first), levels.lead(last))
    kind = levels.lead_name(first)
    statistic, name = "p95", f"{kind} p95"
    if any(end.get("p95") is None or levels.is_marked(end, "p95") for end in ends):
        statistic, name = "p50", f"median {kind}"
    low, high = ends[0].get(statistic), ends[1].get(statistic)
    if high is None or low is None:
        return ""
    if any(levels.is_marked(end, statistic) for end in ends):
        name += " (too few requests for an interval)"
    if first is last:
        return f"{name} {units.span(high)}"
    between = f"from {units.span(low)} at {levels.load_words(first)} to {units.span(high)}"
    if _peak(firsts) is not last:
        between += f" at {levels.load_words(last)}"
    if high > low * STEADY:
        return f"{name} grows {between}"
    if high < low / STEADY:
        return f"{name} falls {between}"
    return f"{name} stays near {units.span(high)}"


def _peak(firsts: Sequence[Level]) -> Level:
    """The level with the most tokens/s; in open loop the highest, which the sentence is about."""
    if levels.is_open(firsts[-1]):
        return firsts[-1]
    return max(firsts, key=lambda level: float(level["output_tokens_per_s"]))


def _doubt(rows: Sequence[Level], summary: Summary) -> str:
    at: dict[str, list[str]] = {}
    for level, warning in levels.warnings(summary):
        if warning.get("severity") == "red" and (level is None or level in rows):
            at.setdefault(str(warning.get("code")), []).append(levels.label(level) if level else "the whole run")
    gates: dict[str, list[str]] = {}
    for code, where in at.items():
        gates.setdefault(levels.joined(where), []).append(code)
    said = "; ".join(f"{levels.joined(map(titled, codes))} red at {where}" for where, codes in gates.items())
    return f"not a basis for a verdict: {said}" if said else ""
