"""Plotly's traces and axes, from figures of the summary: points with their n and interval in words."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log2, log10

from loadbench import text as units
from loadbench.figures import STATISTIC_TITLES
from loadbench.report import levels
from loadbench.report.document import Key, Panel, Plot, Sign, Table, Trace
from loadbench.store.summary import Distribution, Interval, Level
from loadbench.text import one_line

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
SIGNS: tuple[Sign, ...] = ("point", "square", "diamond", "triangle", "cross", "x")
"""Of SYMBOLS, in a legend."""
COLORS = 6
"""Categories that a reader can tell apart; the sixth model is the last with a colour of its own."""
_MOST_TICKS = 7
_MOST_LOADS = 11
_TICKS: tuple[Sequence[float], ...] = (
    tuple(i / 10 for i in range(10, 100)),
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9),
    (1, 1.5, 2, 3, 4, 5, 7),
    (1, 2, 5),
    (1,),
)
"""Round numbers of a power of ten, from close to far."""

Points = Sequence["Point | None"]


@dataclass(frozen=True, slots=True)
class Point:
    """A figure at a place: what hovering says, its interval, and whether it rests on too few requests."""

    x: float | str
    y: float
    hover: str
    interval: tuple[float, float] | None = None
    marked: bool = False


# -- words


def words(value: object) -> str:
    """Text for plotly, which reads tags and entities in it.

    >>> words("<b>a</b> & b")
    '&lt;b&gt;a&lt;/b&gt; &amp; b'
    """
    return html.escape(one_line(value, 120), quote=False)


def hover(*lines: str) -> str:
    """What hovering says, a line each, which the page turns into plotly's; empty ones are left out."""
    return "\n".join(words(line) for line in lines if line)


def short(value: float) -> float:
    """Five significant digits: no eye sees more on a plot, and a page of many models stays small."""
    return float(f"{value:.5g}")


def _between(ends: tuple[float, float] | None, shown: Callable[[float | None], str]) -> str:
    return f" [{shown(ends[0])} to {shown(ends[1])}]" if ends else ""


# -- points


def percentile(level: Level, metric: Distribution, statistic: str, name: str, noun: str = "requests") -> Point | None:
    """A percentile of a level, in ms, at the level's load; None where nobody measured it."""
    y, ends = metric.at(statistic), levels.interval(metric, statistic)
    if y is None:
        return None
    marked = levels.is_marked(metric, statistic)
    figure = f"{name} {STATISTIC_TITLES[statistic]} {units.span(y)}{_between(ends, units.span)}"
    few = "too few requests for an interval" if marked else ""
    text = hover(levels.load_words(level), figure, f"{units.count(metric.n)} {noun}", few)
    return Point(levels.load(level), float(y), text, ends, marked)


def both_ends(interval: Interval | None) -> tuple[float, float] | None:
    """Of an interval that has both."""
    low, high = interval or (None, None)
    return None if low is None or high is None else (float(low), float(high))


def characters(level: Level) -> Point | None:
    return _rate(level, level.characters_per_s, level.characters_per_s_ci95, "characters/s")


def tokens(level: Level) -> Point | None:
    return _rate(level, level.output_tokens_per_s, level.output_tokens_per_s_ci95, "tokens/s")


def _rate(level: Level, y: float | None, interval: Interval | None, unit: str) -> Point | None:
    if y is None:
        return None
    ends = both_ends(interval)
    requests = f"{units.count(level.completed)} requests"
    text = hover(levels.load_words(level), f"{units.figure(y)} {unit}{_between(ends, units.figure)}", requests)
    return Point(levels.load(level), float(y), text, ends)


# -- traces


def line(
    points: Points, color: str = "@0", symbol: str = "circle", *, joined: bool = True, across: bool = False
) -> Trace:
    """Points in a line, with error bars where there are intervals; hollow where they rest on too few requests.

    Args:
        across: The figures lie on the x axis.
    """
    known = [point for point in points if point is not None]
    places: list[float | str] = [point.x for point in known]
    values: list[float | str] = [point.y for point in known]
    marker: Trace = {"color": color, "size": 8, "symbol": symbol, "line": {"width": 0}}
    if any(point.marked for point in known):
        marker["symbol"] = [f"{symbol}-open" if point.marked else symbol for point in known]
        marker["line"] = {"width": 2, "color": color}
    trace: Trace = {
        "type": "scatter",
        "mode": "lines+markers" if joined else "markers",
        "x": values if across else places,
        "y": places if across else values,
        "text": [point.hover for point in known],
        "hoverinfo": "text",
        "line": {"color": color, "width": 2, "dash": "solid"},
        "marker": marker,
    }
    if any(point.interval for point in known):
        bars = error_bars([point.y for point in known], [point.interval for point in known], color)
        trace["error_x" if across else "error_y"] = bars
    return trace


def error_bars(values: Sequence[float], intervals: Sequence[tuple[float, float] | None], color: str) -> Trace:
    """From each value to the ends of its interval; none where it has none."""
    above, below = [], []
    for value, interval in zip(values, intervals, strict=True):
        low, high = interval or (value, value)
        above.append(short(high - value))
        below.append(short(value - low))
    bars = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
    return bars | {"color": color, "thickness": 1.5, "width": 4}


def curve(xs: Sequence[float], ys: Sequence[float], color: str, *, dash: str = "solid", text: str = "") -> Trace:
    trace: Trace = {
        "type": "scatter",
        "mode": "lines",
        "x": [short(x) for x in xs],
        "y": [short(y) for y in ys],
        "line": {"color": color, "width": 2, "dash": dash},
        "hoverinfo": "skip",
    }
    return trace | {"text": text, "hoverinfo": "text"} if text else trace


def compared(title: str, note: str, lines: Mapping[str, Points], layout: Trace, tables: Sequence[Table]) -> Plot:
    """Lines of several models against the same axes: up to six on one plot, told apart by colour and sign; more of them
    one by one, the others in grey."""
    if len(lines) > COLORS:
        # All other models in grey, one trace: a panel's own line is read against them.
        xs: list[float | str | None] = []
        ys: list[float | None] = []
        for points in lines.values():
            known = [point for point in points if point is not None]
            xs += [*(point.x for point in known), None]
            ys += [*(point.y for point in known), None]
        grey: Trace = {"type": "scatter", "mode": "lines", "x": xs, "y": ys}
        grey |= {"hoverinfo": "skip", "line": {"color": "@muted/0.35", "width": 1}}
        panels = []
        for name, points in lines.items():
            label = f"Line plot, {title} against load, {name}; all models in grey."
            panels.append(Panel(name, label, [grey, line(points)], layout))
        return Plot(title, note, panels, [Key("this model"), Key("the other models", "line", "@muted")], tables)
    traces, legend = [], []
    for i, (name, points) in enumerate(lines.items()):
        traces.append(line(points, f"@{i}", SYMBOLS[i]))
        legend.append(Key(name, SIGNS[i], f"@{i}"))
    label = f"Line plot, {title} against load, of {', '.join(lines)}."
    return Plot(title, note, [Panel("", label, traces, layout)], legend if len(lines) > 1 else [], tables)


# -- axes, and what is beside them


def load_axis(rows: Sequence[Level]) -> Trace:
    """The axis of loads, logarithmic, with the loads that were measured as its ticks."""
    at = sorted({levels.load(level) for level in rows if levels.load(level) > 0})
    title = {"text": "requests offered /s" if rows and rows[0].is_open else "concurrency"}
    if not at:
        return {"title": title}
    least = max((at[-1] / at[0]) ** (1 / _MOST_LOADS), 1.2)
    ticks: list[float] = []
    for x in sorted(at, key=lambda x: (not log2(x).is_integer(), x)):  # 1, 2, 4, 8 before what lies between
        if all(max(x / other, other / x) >= least for other in ticks):
            ticks.append(x)
    ticks.sort()
    return {"title": title, "type": "log", "tickvals": ticks, "ticktext": [f"{x:g}" for x in ticks]}


def value_axis(title: str, traces: Sequence[Trace], more: Iterable[float] = (), axis: str = "y") -> Trace:
    """A logarithmic axis with round numbers as ticks: 1, 2, 5, 10; closer ones where values lie close together.

    Args:
        more: Values to reach beside those of the traces, whose intervals are reached too.
    """
    values: list[float | None] = [*more]
    for trace in traces:
        values += trace[axis]
        bars = trace.get(f"error_{axis}") or {"array": [], "arrayminus": []}
        values += [value + bar for value, bar in zip(trace[axis], bars["array"], strict=False)]
        values += [value - bar for value, bar in zip(trace[axis], bars["arrayminus"], strict=False)]
    known = [value for value in values if value is not None and value > 0]
    whole: Trace = {"title": {"text": title}, "type": "log"}
    if not known:
        return whole
    low, high = min(known) / 1.15, max(known) * 1.15
    powers = [10.0**power for power in range(floor(log10(low)), ceil(log10(high)) + 1)]
    ticks: list[float] = []
    for steps in _TICKS:
        ticks = []
        for power in powers:
            ticks += [step * power for step in steps if low <= step * power <= high]
        if len(ticks) <= _MOST_TICKS:
            break
    return whole | {"range": [log10(low), log10(high)], "tickvals": ticks, "ticktext": [f"{x:,.10g}" for x in ticks]}


def rate_axis(title: str) -> Trace:
    return {"title": {"text": title}, "rangemode": "tozero"}


def note(text: str, *, color: str = "", **place: object) -> Trace:
    font: Trace = {"size": 11}
    if color:
        font["color"] = color
    return {**place, "text": words(text), "showarrow": False, "font": font}


def upright(x: float) -> Trace:
    shape: Trace = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x}
    return shape | {"line": {"color": "@muted", "width": 1, "dash": "dot"}}
