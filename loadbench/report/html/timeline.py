"""What happened when: each model's levels one after another, with the machine's samples beneath."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from loadbench import text as units
from loadbench.report import levels
from loadbench.report.html import trace
from loadbench.report.html.section import Figure, Key, Panel, Section
from loadbench.report.levels import Level, Summary
from loadbench.report.tables import Cell, Column, Read, Table, known, level_name, per_model

_ROW_PX, _EDGES_PX = 92, 84
_GAP = 0.05
GB = 1e9

Columns = tuple[list[float | None], list[float | None]]
"""Times in s since the model's first level began, and values; a None ends a line."""


def section(summary: Summary) -> Section | None:
    """None where no level has a timeline."""
    by_model: dict[str, list[Level]] = {}
    for level in summary.get("levels") or []:
        if level.get("timeline"):
            by_model.setdefault(str(level.get("model")), []).append(level)
    panels = [_panel(model, _placed(rows)) for model, rows in by_model.items()]
    if not panels:
        return None
    legend = [Key("a level begins", "dot", "@muted")]
    every = [level for rows in by_model.values() for level in rows]
    if any((level.get("stalls") or {}).get("n") for level in every):
        legend.append(Key("stall: a gap far longer than usual", "triangle", "@bad"))
    if any(any(level["timeline"].get("errors") or ()) for level in every):
        legend.append(Key("failed requests", "bar", "@bad"))
    note = (
        "Each level from its first request to its last, warm-up included; the 12 longest stalls of a level are marked."
    )
    figure = Figure("What happened when", note, panels, legend, _table(summary), wide=True)
    return Section("timeline", "Timeline", [figure])


def _placed(rows: Sequence[Level]) -> list[tuple[float, Level]]:
    """Levels in the order of time, each with its begin in s; one after another where their begins are not told."""
    begins = [_epoch_s(level) for level in rows]
    if all(begin is not None for begin in begins):
        known = sorted(zip(begins, rows, strict=True), key=lambda pair: pair[0] or 0.0)
        return [((begin or 0.0) - (known[0][0] or 0.0), level) for begin, level in known]
    at, found = 0.0, []
    for level in rows:
        found.append((at, level))
        at += float(level.get("duration_s") or 0.0)
    return found


def _epoch_s(level: Level) -> float | None:
    try:
        return datetime.fromisoformat(str(level.get("began"))).timestamp()
    except ValueError:
        return None


def _panel(model: str, placed: Sequence[tuple[float, Level]]) -> Panel:
    rows = [row for row in (_flow(placed), _rate(placed), _errors(placed), *_samples(placed)) if row]
    share = (1 - _GAP * (len(rows) - 1)) / len(rows)
    traces: list[Any] = []
    layout: dict[str, Any] = {"annotations": [], "shapes": [], "bargap": 0}
    for i, (name, row) in enumerate(rows):
        axis = "y" if i == 0 else f"y{i + 1}"
        top = 1 - i * (share + _GAP)
        layout["yaxis" + axis[1:]] = {"domain": [max(top - share, 0), top], "rangemode": "tozero", "nticks": 4}
        traces += [one | {"yaxis": axis} for one in row]
        title = {"xref": "paper", "yref": "paper", "x": 0, "xanchor": "left", "y": top, "yanchor": "bottom"}
        layout["annotations"].append(title | {"text": trace.words(name), "showarrow": False, "font": {"size": 11}})
    if len(rows) > 1:
        layout["xaxis"] = {"anchor": f"y{len(rows)}"}
    layout["xaxis"] = layout.get("xaxis", {}) | {"title": {"text": "seconds"}, "rangemode": "tozero"}
    for begin, _ in placed:
        line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": begin, "x1": begin}
        layout["shapes"].append(line | {"line": {"color": "@muted", "width": 1, "dash": "dot"}})
    layout["annotations"] += _names(placed)
    layout["margin"] = {"t": 44}
    label = f"Timeline of {model}: {', '.join(name for name, _ in rows)}, over {len(placed)} levels."
    return Panel(model, label, traces, layout, height=_EDGES_PX + _ROW_PX * len(rows))


def _names(placed: Sequence[tuple[float, Level]]) -> list[dict[str, Any]]:
    """The levels' names over their begins, without those that would lie on the one before."""
    whole = placed[-1][0] + float(placed[-1][1].get("duration_s") or 1.0)
    found, free = [], -1.0
    for begin, level in placed:
        if begin / whole < free:
            continue
        name = f"{levels.label(level)}{' again' if level.get('closing') else ''}"
        free = begin / whole + 0.012 * (len(name) + 1)
        at = {"x": begin, "xanchor": "left", "yref": "paper", "y": 1, "yshift": 16, "yanchor": "bottom"}
        found.append(at | {"text": trace.words(name), "showarrow": False, "font": {"size": 11, "color": "@muted"}})
    return found


Row = tuple[str, list[trace.Trace]]


def _steps(placed: Sequence[tuple[float, Level]], name: str) -> Columns:
    """A column of the levels' timelines, each stretch at its begin, cut between levels."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for begin, level in placed:
        line = level["timeline"]
        values = line.get(name)
        if not values or not line["t_s"]:
            continue
        rows = list(zip((_second(begin + t) for t in line["t_s"]), values, strict=False))
        # A step is told by where it begins: what stays as it was needs no points of its own.
        kept = [row for i, row in enumerate(rows) if i in (0, len(rows) - 1) or row[1] != rows[i - 1][1]]
        xs += [*(x for x, _ in kept), _second(begin + line["t_s"][-1] + line["every_s"]), None]
        ys += [*(y for _, y in kept), kept[-1][1], None]
    return xs, ys


def _second(at: float) -> float:
    return round(at, 2)


def _flow(placed: Sequence[tuple[float, Level]]) -> Row | None:
    xs, ys = _steps(placed, "in_flight")
    return ("in flight", [_area(xs, ys, "@5", "in flight")]) if xs else None


def _rate(placed: Sequence[tuple[float, Level]]) -> Row | None:
    xs, ys = _steps(placed, "output_tokens_per_s")
    if not xs:
        return None
    return "tokens/s", [_area(xs, ys, "@0", "tokens/s"), *_stalls(placed)]


def _errors(placed: Sequence[tuple[float, Level]]) -> Row | None:
    """Failures as bars, where there is one."""
    xs, ys, widths = [], [], []
    for begin, level in placed:
        line = level["timeline"]
        for t, n in zip(line["t_s"], line.get("errors") or (), strict=False):
            if n:
                xs.append(_second(begin + t + line["every_s"] / 2))
                ys.append(n)
                widths.append(line["every_s"])
    if not xs:
        return None
    text = [trace.said(f"{units.plural(int(n), 'failed request')} at {x:g} s") for x, n in zip(xs, ys, strict=True)]
    bar = {"type": "bar", "x": xs, "y": ys, "width": widths, "marker": {"color": "@bad"}}
    return "failed", [bar | {"text": text, "hoverinfo": "text", "textposition": "none"}]


def _stalls(placed: Sequence[tuple[float, Level]]) -> list[trace.Trace]:
    """Marks on the ground of the plot, at the ends of the longest stalls."""
    at = [(begin + one["at_s"], one) for begin, level in placed for one in _told(level) if one.get("at_s") is not None]
    if not at:
        return []
    said = [
        trace.said(f"stall of {units.span(one.get('ms'))}", f"ended at {x:.1f} s, in request {one.get('request')}")
        for x, one in at
    ]
    marker = {"color": "@bad", "size": 9, "symbol": "triangle-up"}
    mark = {"type": "scatter", "mode": "markers", "x": [_second(x) for x, _ in at], "y": [0] * len(at)}
    return [mark | {"marker": marker, "text": said, "hoverinfo": "text", "cliponaxis": False}]


def _told(level: Level) -> Sequence[Mapping[str, Any]]:
    """The longest stalls; of a summary that knows only the longest, that one."""
    stalls = level.get("stalls") or {}
    alone = {"at_s": stalls.get("at_s"), "ms": stalls.get("longest_ms"), "request": stalls.get("longest_request")}
    return stalls.get("longest") or [alone]


def _samples(placed: Sequence[tuple[float, Level]]) -> list[Row]:
    """What the samples tell of the server's machine."""
    wanted: tuple[tuple[str, str, float, str], ...] = (
        ("server_memory_bytes", "server memory, GB", GB, "@2"),
        ("server_cores", "server CPU, cores", 1, "@4"),
        ("gpu_utilisation", "GPU busy, %", 0.01, "@3"),
        ("power_w", "power, W", 1, "@1"),
    )
    found = []
    for name, title, unit, color in wanted:
        xs: list[float | None] = []
        ys: list[float | None] = []
        for begin, level in placed:
            course = level.get("course") or {}
            if course.get(name):
                xs += [*(_second(begin + t) for t in course["t_s"]), None]
                ys += [*(None if y is None else trace.short(y / unit) for y in course[name]), None]
        if any(y is not None for y in ys):
            found.append((title, [_area(xs, ys, color, title, steps=False)]))
    return found


def _area(xs: Sequence[float | None], ys: Sequence[float | None], color: str, name: str, *, steps: bool = True) -> Any:
    found = {"type": "scatter", "mode": "lines", "x": xs, "y": ys, "connectgaps": False}
    line: dict[str, Any] = {"color": color, "width": 1.5}
    if steps:
        line["shape"] = "hv"
    return found | {"line": line, "hovertemplate": f"%{{y:.4~g}} {trace.words(name)} at %{{x:.1f}} s<extra></extra>"}


def _table(summary: Summary) -> list[Table]:
    """The timelines in a row a level: what the lines ran between, and when it stalled."""
    columns: list[tuple[Column, Read]] = [
        (Column("level", left=True), level_name),
        (Column("took", "s"), lambda level: Cell(units.figure(level.get("duration_s")))),
        (Column("in flight", "most"), _of("timeline", "in_flight", max)),
        (Column("tokens/s", "least"), _of("timeline", "output_tokens_per_s", _inner)),
        (Column("tokens/s", "most"), _of("timeline", "output_tokens_per_s", max)),
        (Column("failed"), lambda level: Cell(units.count(level.get("failed")))),
        (Column("stalls"), lambda level: Cell(units.count((level.get("stalls") or {}).get("n")))),
        (
            Column("longest stall", "ms"),
            lambda level: Cell(units.figure((level.get("stalls") or {}).get("longest_ms"))),
        ),
        (Column("ended at", "s"), lambda level: Cell(units.figure((level.get("stalls") or {}).get("at_s")))),
        (Column("memory", "GB, most"), _of("course", "server_memory_bytes", lambda ys: max(ys) / GB)),
        (Column("CPU", "cores, most"), _of("course", "server_cores", max)),
        (Column("GPU busy", "most"), _of("course", "gpu_utilisation", max, units.share)),
        (Column("power", "W, most"), _of("course", "power_w", max)),
    ]
    notes = ["least tokens/s: of the stretches between the first and the last"]
    return known(per_model("Timeline", summary, columns, notes))


def _of(
    part: str,
    name: str,
    chosen: Callable[[list[float]], float],
    shown: Callable[[float | None], str] = units.figure,
) -> Read:
    def read(level: Level) -> Cell:
        values = [float(y) for y in (level.get(part) or {}).get(name) or () if y is not None]
        return Cell(shown(chosen(values)) if values else units.ABSENT)

    return read


def _inner(values: list[float]) -> float:
    """The least of the stretches that a level fills."""
    return min(values[1:-1] or values)
