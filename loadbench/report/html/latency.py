"""Latency: against load with intervals, bounds and knees, and its whole distribution, the HDR way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log10
from typing import Any

from loadbench import text as units
from loadbench.bounds import Bound
from loadbench.errors import LoadbenchError
from loadbench.figures import PERCENTILES, STATISTIC_TITLES
from loadbench.report import levels
from loadbench.report.html import trace
from loadbench.report.html.markup import tag
from loadbench.report.html.scaling import firsts
from loadbench.report.html.section import Figure, Key, Panel, Section, Sign
from loadbench.report.levels import Level, Summary
from loadbench.report.scaling import curves
from loadbench.report.tables import Cell, Column, Read, Table, Times, known, level_name, per_model, time_of

_STATISTICS = (("p50", "@0", "circle"), ("p95", "@1", "square"), ("p99", "@2", "diamond"))
_SIGNS: dict[str, Sign] = {"circle": "point", "square": "square", "diamond": "diamond"}
_KNEES = {"power": "power", "doubling": "doubling", "corner": "corner", "slo": "SLO"}
Drawn = tuple[Level, Mapping[str, Sequence[float]]]
MOST_LINES = 6
"""Levels in a plot of percentiles: the table beneath has them all."""
_MOST_NAMES = 3
_LINE_SHARE = 0.06
"""Of a plot's height, that of a line of text."""
_AT = {"p50": 2.0, "p90": 10.0, "p95": 20.0, "p99": 100.0, "p999": 1000.0}


@dataclass(frozen=True, slots=True)
class Kind:
    """A time that users wait for: its name, where a level holds it, of what it is counted, its name in bounds."""

    name: str
    metric: Callable[[Level], Any]
    spectrum: tuple[str, ...]
    noun: str
    bounds: tuple[str, ...]
    about: str


def kinds(summary: Summary) -> list[Kind]:
    """Those that the run has: of whole answers E2E alone."""
    e2e = Kind(
        "E2E",
        lambda level: level.get("e2e_ms"),
        ("e2e_ms",),
        "requests",
        ("e2e",),
        "From when a request was due to its end.",
    )
    if not levels.is_streamed(summary):
        return [e2e]
    names = sorted({name for level in levels.levels(summary) if (name := levels.gap_name(level))})
    gap = "/".join(reversed(names)) or "ITL"
    ttft = Kind(
        "TTFT", levels.ttft, ("ttft_from_due_ms", "ttft_ms"), "requests", ("ttft",), "The time to the first token."
    )
    itl = Kind(
        gap, lambda level: level.get("itl_ms"), ("itl_ms",), "gaps", ("itl",), "The gaps between two arrivals of text."
    )
    return [ttft, itl, e2e]


def against_load(summary: Summary) -> Section | None:
    """Percentiles with their intervals at each load; bounds as lines across, knees as lines down."""
    figures = [found for kind in kinds(summary) if (found := _against(kind, summary))]
    how = "Bars are 95% intervals; a hollow mark has too few requests for one. Both axes are logarithmic."
    return Section("latency", "Latency against load", [tag("p", how), *figures]) if figures else None


def distributions(summary: Summary) -> Section | None:
    """Every percentile of each level on one axis."""
    figures = [found for kind in kinds(summary) if (found := _spectra(kind, summary))]
    how = (
        "Read a point as: so many per cent took at most so long. To the right each step is a tenth of what is left, "
        "so that the slowest can be told apart; a line ends at the slowest of all. Circles are percentiles with their "
        f"95% intervals, hollow where too few requests hold one. Of more than {MOST_LINES} loads some are drawn; the "
        "tables have all."
    )
    return Section("spectra", "Latency, all percentiles", [tag("p", how), *figures]) if figures else None


def _against(kind: Kind, summary: Summary) -> Figure | None:
    panels = [
        panel for model, rows in _groups(summary) if (panel := _panel(kind, model, rows, _curve(model, rows, summary)))
    ]
    if not panels:
        return None
    legend = [Key(statistic, _SIGNS[symbol], color) for statistic, color, symbol in _STATISTICS]
    if _bounds(kind, levels.levels(summary)):
        legend.append(Key("bound that was asked for", "dash", "@bad"))
    if kind.name in ("TTFT", "E2E") and any(any((curve.get("knees") or {}).values()) for curve in curves(summary)):
        legend.append(Key("knees, by the rule that names them", "dot", "@muted"))
    return Figure(f"{kind.name} against load", kind.about, panels, legend, _table(kind, summary))


def _groups(summary: Summary) -> list[tuple[str, list[Level]]]:
    """Levels that share an axis: of one model and one kind of loop, by load."""
    found: dict[tuple[str, bool], list[Level]] = {}
    for model, rows in levels.by_model(summary).items():
        for level in rows:
            found.setdefault((model, levels.is_open(level)), []).append(level)
    by_load = {
        key: sorted(rows, key=lambda one: (levels.load(one), one.get("repeat") or 1)) for key, rows in found.items()
    }
    both = len({model for model, _ in found}) < len(found)
    return [(f"{model}, open loop" if both and opened else model, rows) for (model, opened), rows in by_load.items()]


def _curve(model: str, rows: Sequence[Level], summary: Summary) -> Mapping[str, Any]:
    loop = "open" if levels.is_open(rows[0]) else "closed"
    name = rows[0].get("model")
    return next((one for one in curves(summary) if one.get("model") == name and one.get("loop") == loop), {})


def _panel(kind: Kind, model: str, rows: list[Level], curve: Mapping[str, Any]) -> Panel | None:
    traces, told = [], []
    first = firsts(rows)
    for statistic, color, symbol in _STATISTICS:
        points = [trace.point(level, kind.metric(level), statistic, kind.name, kind.noun) for level in first]
        if not any(points):
            continue
        traces.append(trace.line(points, color, symbol))
        again = [
            trace.point(level, kind.metric(level), statistic, kind.name, kind.noun)
            for level in rows
            if level not in first
        ]
        if any(again):
            traces.append(trace.line(again, color, symbol, joined=False))
        ends = [one for one in points if one]
        told.append(f"{statistic} {units.span(ends[0].y)} at the lowest, {units.span(ends[-1].y)} at the highest load")
    if not traces:
        return None
    shapes, notes = [], []
    for text, ms in _bounds(kind, rows).items():
        shape, note = trace.level_line(ms, text)
        shapes.append(shape)
        notes.append(note)
    if kind.name != "ITL" and kind.name != "IET":
        for shape, note in _knees(curve, rows):
            shapes.append(shape)
            notes.append(note)
    layout = {
        "xaxis": trace.load_axis(rows),
        "yaxis": trace.value_axis(f"{kind.name}, ms", [*trace.reached(traces), *_bounds(kind, rows).values()]),
        "shapes": shapes,
        "annotations": _logarithmic(notes),
        "margin": {"t": 40 if len(shapes) > len(_bounds(kind, rows)) else 16},
    }
    return Panel(model, f"Line plot of {kind.name} against load, {model}: {'; '.join(told)}.", traces, layout)


def _bounds(kind: Kind, rows: Sequence[Level]) -> dict[str, float]:
    """Bounds on this time, in ms, by their words."""
    found = {}
    for text in dict.fromkeys(str(bound.get("bound")) for level in rows for bound in level.get("slo") or ()):
        try:
            bound = Bound.parse(text)
        except LoadbenchError:
            continue
        if bound.metric in kind.bounds:
            found[text] = float(bound.value)
    return found


def _knees(curve: Mapping[str, Any], rows: Sequence[Level]) -> list[tuple[trace.Trace, trace.Trace]]:
    """Lines down where a rule says that the curve bends, within what was measured; names of one place in one."""
    highest = max(levels.load(level) for level in rows)
    at: dict[float, list[str]] = {}
    for name, knee in (curve.get("knees") or {}).items():
        if knee and float(knee["n"]) <= highest:
            at.setdefault(float(knee["n"]), []).append(_KNEES.get(name, name))
    found = []
    for i, (n, names) in enumerate(sorted(at.items())):
        shape = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": n, "x1": n}
        shape |= {"line": {"color": "@muted", "width": 1, "dash": "dot"}}
        note = {"yref": "paper", "y": 1, "yshift": 13 * (i % 2), "yanchor": "bottom", "x": n, "xanchor": "center"}
        note |= {"text": trace.words(", ".join(names)), "showarrow": False, "font": {"size": 11, "color": "@muted"}}
        found.append((shape, note))
    return found


def _logarithmic(notes: Sequence[trace.Trace]) -> list[trace.Trace]:
    """Annotations on logarithmic axes stand at the logarithm of their place; shapes at the place itself."""
    placed = []
    for note in notes:
        on = {axis: log10(note[axis]) for axis in ("x", "y") if note.get(f"{axis}ref") != "paper" and note[axis] > 0}
        placed.append(note | on)
    return placed


def _spectra(kind: Kind, summary: Summary) -> Figure | None:
    panels = [panel for model, rows in _groups(summary) if (panel := _spectrum_panel(kind, model, rows))]
    if not panels:
        return None
    legend = [Key("low to high load", "ramp")]
    return Figure(f"{kind.name}, all percentiles", kind.about, panels, legend, _table(kind, summary, whole=True))


def _spectrum_panel(kind: Kind, model: str, rows: Sequence[Level]) -> Panel | None:
    shown = _some([(level, spectrum) for level in firsts(rows) if (spectrum := _spectrum(kind, level))])
    if not shown:
        return None
    traces: list[Any] = []
    ends = []
    for i, (level, spectrum) in enumerate(shown):
        color = f"@ramp{i / (len(shown) - 1) if len(shown) > 1 else 1.0:.2f}"
        xs, ys, n = spectrum["one_in"], spectrum["ms"], (kind.metric(level) or {}).get("n")
        line = trace.curve(xs, ys, color)
        counted = f"{levels.load_words(level)}, {units.count(n)} {kind.noun}"
        line |= {"hovertemplate": f"{trace.words(counted)}\n{kind.name} %{{y:,.4~g}} ms<extra></extra>"}
        traces.append(line)
        points = [_at(trace.point(level, kind.metric(level), p, kind.name, kind.noun), p, n) for p in PERCENTILES]
        traces.append(trace.line(points, color, joined=False))
        traces[-1]["marker"]["size"] = 6
        ends.append({"x": xs[-1], "y": ys[-1], "text": trace.words(levels.label(level)), "showarrow": False})
    axis = trace.value_axis(f"{kind.name}, ms", trace.reached(traces))
    style = {"xanchor": "left", "xshift": 4, "font": {"size": 11, "color": "@muted"}}
    names = [end | style for end in _apart(ends, axis)]
    layout = {
        "xaxis": {
            "title": {"text": f"percentile of {kind.noun}"},
            "type": "log",
            "tickvals": [1, 2, 10, 20, 100, 1000, 10_000, 100_000, 1_000_000],
            "ticktext": ["0", "50", "90", "95", "99", "99.9", "99.99", "99.999", "99.9999"],
        },
        "yaxis": axis,
        "annotations": _logarithmic(names),
        "margin": {"r": 72},
    }
    told = ", ".join(levels.load_words(level) for level, _ in shown)
    return Panel(model, f"Percentiles of {kind.name} from 0 to the maximum, {model}, at {told}.", traces, layout)


def _some(found: Sequence[Drawn]) -> Sequence[Drawn]:
    """The first, the last, and as many between them as can be told apart."""
    if len(found) <= MOST_LINES:
        return found
    return [found[round(i * (len(found) - 1) / (MOST_LINES - 1))] for i in range(MOST_LINES)]


def _apart(ends: Sequence[trace.Trace], axis: Mapping[str, Any]) -> list[trace.Trace]:
    """Names at the lines' ends; those that would lie on each other become one: "c1, c2"."""
    low, high = axis.get("range", (0.0, 0.0))  # none where no value lies above 0
    least = 10 ** (_LINE_SHARE * (high - low))
    groups: list[list[int]] = []
    for i in sorted(range(len(ends)), key=lambda i: -float(ends[i]["y"])):
        if groups and float(ends[i]["y"]) * least >= float(ends[groups[-1][0]]["y"]):
            groups[-1].append(i)
        else:
            groups.append([i])
    found = []
    for group in groups:
        together = [ends[i] for i in sorted(group)]
        names = [str(end["text"]) for end in together]
        text = ", ".join(names) if len(names) <= _MOST_NAMES else f"{names[0]} … {names[-1]}"
        found.append(ends[group[0]] | {"text": text, "x": max(end["x"] for end in together)})
    return found


def _spectrum(kind: Kind, level: Level) -> Mapping[str, Sequence[float]] | None:
    found = level.get("spectra") or {}
    return next((found[name] for name in kind.spectrum if found.get(name)), None)


def _at(point: trace.Point | None, statistic: str, n: float | None) -> trace.Point | None:
    """A percentile's place on the axis, where so many requests reach it."""
    if point is None or not n or n < _AT[statistic]:
        return None
    return trace.Point(_AT[statistic], point.y, point.said, point.interval, point.marked)


def _table(kind: Kind, summary: Summary, *, whole: bool = False) -> list[Table]:
    """Percentiles with their intervals, and of how many they are."""
    rows = levels.levels(summary)
    times = Times.of([kind.metric(level) for level in rows])
    statistics = (*PERCENTILES, "max") if whole else ("p50", "p95", "p99")
    columns: list[tuple[Column, Read]] = [
        (Column("level", left=True), level_name),
        (Column(kind.noun), _n(kind)),
        *(
            (Column(f"{kind.name} {STATISTIC_TITLES[p]}", times.unit), time_of(times, kind.metric, p))
            for p in statistics
        ),
    ]
    return known(per_model(f"{kind.name} against load", summary, columns, ["* too few requests for a 95% interval"]))


def _n(kind: Kind) -> Read:
    return lambda level: Cell(units.count((kind.metric(level) or {}).get("n")))
