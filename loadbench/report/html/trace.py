"""Plotly's traces and axes, from figures of the summary: points with their n and interval in words."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log2, log10
from typing import Any

from loadbench import text as units
from loadbench.figures import STATISTIC_TITLES
from loadbench.report import levels
from loadbench.report.levels import Level
from loadbench.text import one_line

Trace = dict[str, Any]
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
COLORS = 6
"""Categories that can be told apart; the sixth model is the last with a colour of its own."""
_MOST_TICKS = 7
_MOST_LOADS = 11


@dataclass(frozen=True, slots=True)
class Point:
    """A figure at a place: what hovering says, its interval, and whether too few requests stand behind it."""

    x: float | str
    y: float
    said: str
    interval: tuple[float, float] | None = None
    marked: bool = False


def words(value: object) -> str:
    """Text for plotly, which reads tags and entities in it.

    >>> words("<b>a</b> & b")
    '&lt;b&gt;a&lt;/b&gt; &amp; b'
    """
    return html.escape(one_line(value, 120), quote=False)


def said(*lines: str) -> str:
    """What hovering says, a line each, which the page turns into plotly's; empty ones are left out."""
    return "\n".join(words(line) for line in lines if line)


def short(value: float) -> float:
    """Five significant digits: no eye sees more on a plot, and a page of many models stays small."""
    return float(f"{value:.5g}")


def point(level: Level, metric: Mapping[str, Any] | None, statistic: str, name: str, noun: str) -> Point | None:
    """A percentile of a level, in ms, at the level's load; None where nobody measured it."""
    metric = metric or {}
    if metric.get(statistic) is None:
        return None
    y, bounds = float(metric[statistic]), levels.interval(metric, statistic)
    marked = levels.is_marked(metric, statistic)
    shown = f"{name} {STATISTIC_TITLES[statistic]} {units.span(y)}{between(bounds, units.span)}"
    few = "too few requests for an interval" if marked else ""
    words = said(levels.load_words(level), shown, f"{units.count(metric.get('n'))} {noun}", few)
    return Point(levels.load(level), y, words, bounds, marked)


def rate(level: Level, name: str, unit: str) -> Point | None:
    """A rate of a level's steady window, with its interval."""
    y = level.get(name)
    if y is None:
        return None
    bounds = both(level.get(f"{name}_ci95"))
    counted = f"{units.count(level.get('completed'))} requests"
    text = said(levels.load_words(level), f"{units.figure(y)} {unit}{between(bounds, units.figure)}", counted)
    return Point(levels.load(level), float(y), text, bounds)


def both(bounds: Sequence[float | None] | None) -> tuple[float, float] | None:
    """An interval of which both ends are known."""
    if not bounds or bounds[0] is None or bounds[1] is None:
        return None
    return float(bounds[0]), float(bounds[1])


def between(bounds: tuple[float, float] | None, shown: Any) -> str:
    return f" [{shown(bounds[0])} to {shown(bounds[1])}]" if bounds else ""


def line(
    points: Sequence[Point | None],
    color: str = "@0",
    symbol: str = "circle",
    *,
    dash: str = "solid",
    joined: bool = True,
    across: bool = False,
) -> Trace:
    """Points in a line, with error bars where there are intervals; hollow where too few requests stand behind.

    Args:
        across: The figures lie on the x axis.
    """
    known = [one for one in points if one is not None]
    hollow = any(one.marked for one in known)
    trace: Trace = {
        "type": "scatter",
        "mode": "lines+markers" if joined else "markers",
        "x": [one.y if across else one.x for one in known],
        "y": [one.x if across else one.y for one in known],
        "text": [one.said for one in known],
        "hoverinfo": "text",
        "line": {"color": color, "width": 2, "dash": dash},
        "marker": {
            "color": color,
            "size": 8,
            "symbol": [f"{symbol}-open" if one.marked else symbol for one in known] if hollow else symbol,
            "line": {"width": 2, "color": color} if hollow else {"width": 0},
        },
    }
    if any(one.interval for one in known):
        trace["error_x" if across else "error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [short(one.interval[1] - one.y) if one.interval else 0 for one in known],
            "arrayminus": [short(one.y - one.interval[0]) if one.interval else 0 for one in known],
            "color": color,
            "thickness": 1.5,
            "width": 4,
        }
    return trace


def curve(xs: Sequence[float], ys: Sequence[float | None], color: str, *, dash: str = "solid", text: str = "") -> Trace:
    """A line without points."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [short(x) for x in xs],
        "y": [None if y is None else short(y) for y in ys],
        "line": {"color": color, "width": 2, "dash": dash},
        **({"text": text, "hoverinfo": "text"} if text else {"hoverinfo": "skip"}),
    }


def backdrop(lines: Sequence[Sequence[Point | None]]) -> Trace:
    """All other models in grey, one trace: a panel's own line is read against them."""
    xs: list[float | str | None] = []
    ys: list[float | None] = []
    for one in lines:
        known = [at for at in one if at is not None]
        xs += [*(at.x for at in known), None]
        ys += [*(at.y for at in known), None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": xs,
        "y": ys,
        "hoverinfo": "skip",
        "line": {"color": "@muted/0.35", "width": 1},
    }


def load_axis(rows: Sequence[Level]) -> Trace:
    """The axis of loads, logarithmic, with the loads that were measured as its ticks."""
    at = sorted({levels.load(level) for level in rows if levels.load(level) > 0})
    title = "requests offered /s" if rows and levels.is_open(rows[0]) else "streams at once"
    if not at:
        return {"title": {"text": title}}
    least = max((at[-1] / at[0]) ** (1 / _MOST_LOADS), 1.2)
    ticks: list[float] = []
    for x in sorted(at, key=lambda x: (not log2(x).is_integer(), x)):  # 1, 2, 4, 8 before what lies between
        if all(max(x / other, other / x) >= least for other in ticks):
            ticks.append(x)
    ticks.sort()
    return {"title": {"text": title}, "type": "log", "tickvals": ticks, "ticktext": [f"{x:g}" for x in ticks]}


def reached(traces: Sequence[Trace], axis: str = "y") -> list[float | None]:
    """Where traces go to on an axis, their intervals included."""
    found: list[float | None] = []
    for one in traces:
        found += one[axis]
        bars = one.get(f"error_{axis}") or {}
        for sign, name in ((1, "array"), (-1, "arrayminus")):
            found += [value + sign * bar for value, bar in zip(one[axis], bars.get(name) or (), strict=False)]
    return found


def value_axis(title: str, values: Sequence[float | None]) -> Trace:
    """A logarithmic axis with round numbers as ticks: 1, 2, 5, 10; closer ones where values lie close together."""
    known = [value for value in values if value is not None and value > 0]
    axis: Trace = {"title": {"text": title}, "type": "log"}
    if not known:
        return axis
    low, high = min(known) / 1.15, max(known) * 1.15
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    ticks: list[float] = []
    for steps in (
        tuple(i / 10 for i in range(10, 100)),
        (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9),
        (1, 1.5, 2, 3, 4, 5, 7),
        (1, 2, 5),
        (1,),
    ):
        ticks = [tick for power in powers for step in steps if low <= (tick := step * 10.0**power) <= high]
        if len(ticks) <= _MOST_TICKS:
            break
    return axis | {"range": [log10(low), log10(high)], "tickvals": ticks, "ticktext": [f"{x:,.10g}" for x in ticks]}


def level_line(y: float, text: str, color: str = "@bad") -> tuple[Trace, Trace]:
    """A horizontal line across a plot and its name, as a shape and an annotation."""
    shape = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y}
    return shape | {"line": {"color": color, "width": 1.5, "dash": "dash"}}, {
        "xref": "paper",
        "x": 0,
        "xanchor": "left",
        "y": y,
        "yanchor": "bottom",
        "text": words(text),
        "showarrow": False,
        "font": {"size": 11, "color": color},
    }
