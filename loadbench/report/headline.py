"""One sentence a model, for those who read nothing else: only figures that exist, hedged where gates are red."""

from __future__ import annotations

from collections.abc import Sequence

from loadbench import text as units
from loadbench.metrics.checks import titled
from loadbench.report import levels, objectives, scaling, tables
from loadbench.report.document import Line
from loadbench.report.levels import Level, Record, Summary

STEADY = 1.1
"""A TTFT or E2E that changes by less than this factor between two levels is said to stay."""
MORE_THAN_PLANNED = 1.05
SCALES, WAITS = 0.8, 2.0
"""Least efficiency, and most growth of the median TTFT (of whole answers E2E), of what is said to scale well."""


def lines(summary: Summary) -> list[Line]:
    """What each model did, and why that may be no basis for a verdict."""
    models = levels.by_model(summary)
    found = []
    for model, rows in models.items():
        text = _text(rows, scaling.of_model(summary, model), with_characters=len(models) > 1)
        # A search says for itself what the model carries, from more than the levels' shares alone.
        load = "" if objectives.is_searched(summary, model) else carried(rows)
        if load:
            text += f"; {load}"
        found.append(Line(f"{text}.", name=model, doubt=_doubt(rows, summary)))
    return found


def _text(rows: Sequence[Level], curve: Record | None, *, with_characters: bool) -> str:
    measured = [level for level in rows if level.get("output_tokens_per_s") is not None]
    if not measured:
        return _nothing(rows)
    # Loops of two kinds share no axis; repeats of a load are told by the first.
    ordered = levels.by_load(level for level in measured if levels.is_open(level) == levels.is_open(measured[0]))
    firsts = levels.firsts(ordered)
    if curve and curve.get("serial") is True and len(firsts) > 1:
        parts = [_serial(firsts), _throughput(firsts[-1:], ordered, with_characters), _times(firsts)]
    else:
        parts = [_word(firsts, curve) + _throughput(firsts, ordered, with_characters), _times(firsts)]
    failed, dropped = levels.total(rows, "failed"), levels.total(rows, "dropped")
    if failed:
        parts.append(f"{failed:,} of {units.plural(levels.total(rows, 'attempted'), 'request')} failed")
    if dropped:
        parts.append(f"{dropped:,} of {units.plural(levels.total(rows, 'offered'), 'request')} dropped")
    parts += [f"{levels.label(level)} {level['status']}" for level in rows if levels.is_unfinished(level)]
    return "; ".join(part for part in parts if part)


def _word(firsts: Sequence[Level], curve: Record | None) -> str:
    """How it scales, in a word before the figures: by efficiency and TTFT, never by TPOT, which is blind to queues."""
    first, last = firsts[0], firsts[-1]
    if not curve or first is last or levels.is_open(last):
        return ""
    before, after = levels.lead(first).get("p50"), levels.lead(last).get("p50")
    efficient = (last.get("efficiency") or 0) >= SCALES
    if efficient and before and after and after / before <= WAITS:
        return f"scales well to {levels.load_words(last)}: "
    n = curve.get("saturated_n")
    if n is not None and n < levels.load(last):
        return f"saturated from {units.plural(int(n), 'stream')} on: "
    return ""


def _serial(firsts: Sequence[Level]) -> str:
    last = firsts[-1]
    n, stretch = int(last.get("concurrency") or 0), last.get("stretch")
    waits = f", and wait {stretch:.2g} times as long" if stretch else ""
    # Nobody saw the tokens of whole answers: a server that shares itself out looks the same.
    answers = "answers" if levels.is_stream(last) else "answers as if"
    return f"{answers} one request at a time: {n} streams get what one gets{waits}"


def _nothing(rows: Sequence[Level]) -> str:
    attempted, completed = levels.total(rows, "attempted"), levels.total(rows, "completed")
    if not attempted:
        return "not measured"
    kinds: dict[str, int] = {}
    for level in rows:
        for kind, n in (level.get("errors") or {}).items():
            kinds[kind] = kinds.get(kind, 0) + n
    why = f" (failed: {tables.counts(kinds)})" if kinds else ""
    return f"throughput not measured; {completed:,} of {units.plural(attempted, 'request')} completed{why}"


def _throughput(firsts: Sequence[Level], ordered: Sequence[Level], with_characters: bool) -> str:
    last, peak = firsts[-1], _peak(firsts)
    if levels.is_open(last):
        planned, completed = last.get("request_rate_per_s"), last.get("requests_per_s")
        done = f"{units.figure(completed)} req/s completed"
        # Nothing completes that was not started: a window of few arrivals holds more or fewer than planned.
        if planned and completed and completed > MORE_THAN_PLANNED * planned:
            done += ", more than planned by chance"
        return f"{_rate(last, ordered, with_characters)} at {levels.load_words(last)} planned, {done}"
    text = f"{_rate(peak, ordered, with_characters)} at {levels.load_words(peak)}{_gain(peak, firsts[0])}"
    if peak is last:
        return text
    return f"peaks at {text}, {units.figure(last['output_tokens_per_s'])} at {levels.load_words(last)}"


def _rate(level: Level, ordered: Sequence[Level], with_characters: bool) -> str:
    """Tokens per second, as a range where the load was repeated; characters too where models are compared."""
    rates = [float(other["output_tokens_per_s"]) for other in ordered if levels.load(other) == levels.load(level)]
    lowest, highest = units.figure(min(rates)), units.figure(max(rates))
    rate = lowest if lowest == highest else f"{lowest} to {highest}"
    if levels.is_estimated(level):
        rate = f"about {rate}"
    rate += " tokens/s"
    if with_characters and level.get("characters_per_s") is not None:
        rate += f" and {units.figure(level['characters_per_s'])} characters/s"
    return rate


def _gain(peak: Level, lowest: Level) -> str:
    if peak is lowest:
        return ""
    parts = []
    if peak.get("speedup") is not None:
        parts.append(f"{peak['speedup']:.1f}x of {levels.load_words(lowest)}")
    if peak.get("efficiency") is not None:
        parts.append(f"efficiency {units.percent(peak['efficiency'])}")
    return f" ({', '.join(parts)})" if parts else ""


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
    places: dict[str, list[str]] = {}
    for level, warning in levels.warnings(summary):
        if warning.get("severity") == "red" and (level is None or level in rows):
            where = levels.label(level) if level else "the whole run"
            places.setdefault(str(warning.get("code")), []).append(where)
    gates: dict[str, list[str]] = {}
    for code, where_all in places.items():
        gates.setdefault(levels.joined(where_all), []).append(titled(code))
    red = "; ".join(f"{levels.joined(codes)} red at {where}" for where, codes in gates.items())
    return f"Not a basis for a verdict: {red}." if red else ""


# -- how many users a model carries within its objectives


def carried(rows: Sequence[Level]) -> str:
    """How much load a model carries within the objectives, of the levels that were measured; "" without objectives.

    A load is carried where each of its repeats met every bound, and so did every lower load that was measured.
    """
    judged = [level for level in rows if level.get("slo") and not levels.is_unfinished(level)]
    judged = [level for level in judged if levels.is_open(level) == levels.is_open(judged[0])]
    if not judged:
        return ""
    bounds = levels.joined(str(bound.get("bound")) for bound in levels.parts(judged, "slo"))
    by_load: dict[float, list[Level]] = {}
    for level in sorted(judged, key=levels.load):
        by_load.setdefault(levels.load(level), []).append(level)
    most, failing = None, None
    for load, same in by_load.items():
        met = {bound.get("attained") for bound in levels.parts(same, "slo")}
        if False in met:
            failing = load
            break
        if None in met:
            undecided = [bound for bound in levels.parts(same, "slo") if bound.get("attained") is None]
            names = levels.joined(str(bound["bound"]) for bound in undecided)
            return f"whether it keeps within {names} is not known"
        most = load
    kind, on = _unit(judged[0], most), _device(rows)
    deciding: list[Level] = []
    for decisive in (most, failing):
        if decisive is not None:
            deciding += by_load[decisive]
    hedge = _hedge(levels.parts(deciding, "warnings"))
    if most is None:
        loads = units.listed(f"{load:g}" for load in by_load)
        return f"carries none of the levels measured{on} ({loads} {kind}) within {bounds}{hedge}"
    beyond = ", the most that was measured" if failing is None else f", {failing:g} are too many"
    return f"carries {most:g} {kind}{on} within {bounds}{beyond}{hedge}"


def _unit(level: Level, load: float | None) -> str:
    if levels.is_open(level):
        return "req/s"
    return "user" if load == 1 else "users"


def _device(rows: Sequence[Level]) -> str:
    if any(level.get("device_by_name") for level in rows):
        return ""
    devices = {levels.device(level) or "" for level in rows}
    device = devices.pop()
    return f" on {device}" if device and not devices else ""


def _hedge(gates: Sequence[Record]) -> str:
    red = sorted({titled(str(gate.get("code"))) for gate in gates if gate.get("severity") == "red"})
    if red:
        return f", by figures that are in doubt ({', '.join(red)} red)"
    return ", by few requests" if any(gate.get("code") == "V12" for gate in gates) else ""
