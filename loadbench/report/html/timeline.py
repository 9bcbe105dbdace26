"""What happened when: each model's levels one after another, with the machine's samples beneath."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from loadbench import text as units
from loadbench.report import levels
from loadbench.report.document import Cell, Column, Key, Panel, Plot, Table, Trace, without_unknown
from loadbench.report.html import trace
from loadbench.report.levels import Level, Record, Summary
from loadbench.report.tables import LEVEL, Columns, Read, count, figure, per_model, statistic

_ROW_PX, _EDGES_PX = 92, 84
_GAP = 0.05
GB = 1e9

Placed = Sequence[tuple[float, Level]]
"""Levels, each with its begin in s since the first one's."""
Points = Iterator[tuple[float | None, float | None]]
"""Times in s since the model's first level began, and values; a None ends a line."""


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    traces: list[Trace]


def plots(summary: Summary) -> list[Plot]:
    """None where no level has a timeline."""
    by_model: dict[str, list[Level]] = {}
    for level in summary.get("levels") or []:
        if level.get("timeline"):
            by_model.setdefault(levels.model(level), []).append(level)
    if not by_model:
        return []
    every = list(chain.from_iterable(by_model.values()))
    legend = [Key("a level begins", "dot", "@muted")]
    if any(levels.distribution(level, "stalls").get("n") for level in every):
        legend.append(Key("stall: a gap far longer than usual", "triangle", "@bad"))
    if any(any(level["timeline"].get("errors") or ()) for level in every):
        legend.append(Key("failed requests", "bar", "@bad"))
    note = (
        "Each level from its first request to its last, warm-up included; the 12 longest stalls of a level are marked."
    )
    panels = [_panel(model, _placed(rows)) for model, rows in by_model.items()]
    return [Plot("What happened when", note, panels, legend, _table(summary), wide=True)]


def _placed(rows: Sequence[Level]) -> Placed:
    """Levels in the order of time; one after another where their begins are not told."""
    begins = [_epoch_s(level) for level in rows]
    placed = [(begin, level) for begin, level in zip(begins, rows, strict=True) if begin is not None]
    if len(placed) == len(rows):
        placed.sort(key=lambda pair: pair[0])
        return [(begin - placed[0][0], level) for begin, level in placed]
    at, placed = 0.0, []
    for level in rows:
        placed.append((at, level))
        at += float(level.get("duration_s") or 0.0)
    return placed


def _epoch_s(level: Level) -> float | None:
    try:
        return datetime.fromisoformat(str(level.get("began"))).timestamp()
    except ValueError:
        return None


def _panel(model: str, placed: Placed) -> Panel:
    rows = [Row("in flight", _area(_steps(placed, "in_flight"), "@5", "in flight"))]
    tokens = _area(_steps(placed, "output_tokens_per_s"), "@0", "tokens/s")
    rows.append(Row("tokens/s", tokens + _stalls(placed) if tokens else []))
    rows += [Row("failed", _errors(placed)), *_samples(placed)]
    rows = [row for row in rows if row.traces]
    share = (1 - _GAP * (len(rows) - 1)) / len(rows)
    traces: list[Trace] = []
    notes: list[Trace] = []
    layout: Trace = {"bargap": 0, "margin": {"t": 44}}
    for i, row in enumerate(rows):
        axis = "" if i == 0 else str(i + 1)
        top = 1 - i * (share + _GAP)
        layout[f"yaxis{axis}"] = {"domain": [max(top - share, 0), top], "rangemode": "tozero", "nticks": 4}
        traces += [one | {"yaxis": f"y{axis}"} for one in row.traces]
        notes.append(trace.note(row.name, xref="paper", yref="paper", x=0, xanchor="left", y=top, yanchor="bottom"))
    layout["xaxis"] = trace.rate_axis("seconds")
    if len(rows) > 1:
        layout["xaxis"]["anchor"] = f"y{len(rows)}"
    layout["shapes"] = [trace.upright(begin) for begin, _ in placed]
    layout["annotations"] = notes + _names(placed)
    names = ", ".join(row.name for row in rows)
    label = f"Timeline of {model}: {names}, over {len(placed)} levels."
    return Panel(model, label, traces, layout, height=_EDGES_PX + _ROW_PX * len(rows))


def _names(placed: Placed) -> list[Trace]:
    """The levels' names over their begins, without those that would lie on the one before."""
    begin, last = placed[-1]
    whole = begin + float(last.get("duration_s") or 1.0)
    found, free = [], -1.0
    for begin, level in placed:
        if begin / whole < free:
            continue
        name = levels.label(level) + (" again" if level.get("closing") else "")
        free = begin / whole + 0.012 * (len(name) + 1)
        place = {"x": begin, "xanchor": "left", "yref": "paper", "y": 1, "yshift": 16, "yanchor": "bottom"}
        found.append(trace.note(name, color="@muted", **place))
    return found


# -- rows


def _steps(placed: Placed, name: str) -> Points:
    """A column of the levels' timelines, each stretch at its begin, cut between levels."""
    for begin, level in placed:
        line = level["timeline"]
        values = line.get(name)
        if not values or not line["t_s"]:
            continue
        points = list(zip(line["t_s"], values, strict=False))
        before = None
        for t, value in points:
            # A step is told by where it begins: what stays as it was needs no points of its own.
            if value != before or t == points[-1][0]:
                yield _second(begin + t), value
            before = value
        yield _second(begin + line["t_s"][-1] + line["every_s"]), points[-1][1]
        yield None, None


def _second(at: float) -> float:
    return round(at, 2)


def _errors(placed: Placed) -> list[Trace]:
    xs, ys, widths, texts = [], [], [], []
    for begin, level in placed:
        line = level["timeline"]
        for t, n in zip(line["t_s"], line.get("errors") or (), strict=False):
            if n:
                x = _second(begin + t + line["every_s"] / 2)
                xs.append(x)
                ys.append(n)
                widths.append(line["every_s"])
                texts.append(trace.hover(f"{units.plural(int(n), 'failed request')} at {x:g} s"))
    bar = {"type": "bar", "x": xs, "y": ys, "width": widths, "marker": {"color": "@bad"}}
    bar |= {"text": texts, "hoverinfo": "text", "textposition": "none"}
    return [bar] if xs else []


def _stalls(placed: Placed) -> list[Trace]:
    """Marks on the ground of the plot, at the ends of the longest stalls."""
    xs, texts = [], []
    for begin, level in placed:
        for stall in _longest(level):
            if stall.get("at_s") is not None:
                x = begin + stall["at_s"]
                xs.append(_second(x))
                where = f"ended at {x:.1f} s, in request {stall.get('request')}"
                texts.append(trace.hover(f"stall of {units.span(stall.get('ms'))}", where))
    marker = {"color": "@bad", "size": 9, "symbol": "triangle-up"}
    marks = {"type": "scatter", "mode": "markers", "x": xs, "y": [0] * len(xs), "marker": marker}
    return [marks | {"text": texts, "hoverinfo": "text", "cliponaxis": False}] if xs else []


def _longest(level: Level) -> Sequence[Record]:
    """The longest stalls; of a summary that knows only the longest, that one."""
    stalls = levels.distribution(level, "stalls")
    alone = {"at_s": stalls.get("at_s"), "ms": stalls.get("longest_ms"), "request": stalls.get("longest_request")}
    return stalls.get("longest") or [alone]


def _samples(placed: Placed) -> Iterator[Row]:
    for name, title, unit, color in (
        ("server_memory_bytes", "server memory, GB", GB, "@2"),
        ("server_cores", "server CPU, cores", 1.0, "@4"),
        ("gpu_utilisation", "GPU busy, %", 0.01, "@3"),
        ("power_w", "power, W", 1.0, "@1"),
    ):
        yield Row(title, _area(_course(placed, name, unit), color, title, steps=False))


def _course(placed: Placed, name: str, unit: float) -> Points:
    for begin, level in placed:
        course = level.get("course") or {}
        if course.get(name):
            for t, y in zip(course["t_s"], course[name], strict=False):
                yield _second(begin + t), None if y is None else trace.short(y / unit)
            yield None, None


def _area(points: Points, color: str, name: str, *, steps: bool = True) -> list[Trace]:
    xs, ys = [], []
    for x, y in points:
        xs.append(x)
        ys.append(y)
    if all(y is None for y in ys):
        return []
    line: Trace = {"color": color, "width": 1.5}
    if steps:
        line["shape"] = "hv"
    hover = f"%{{y:.4~g}} {trace.words(name)} at %{{x:.1f}} s<extra></extra>"
    whole = {"type": "scatter", "mode": "lines", "x": xs, "y": ys, "connectgaps": False}
    return [whole | {"line": line, "hovertemplate": hover}]


# -- the same as a table


def _table(summary: Summary) -> list[Table]:
    columns: Columns = [
        LEVEL,
        (Column("took", "s"), figure("duration_s")),
        (Column("in flight", "most"), _of("timeline", "in_flight", max)),
        (Column("tokens/s", "least"), _of("timeline", "output_tokens_per_s", _inner)),
        (Column("tokens/s", "most"), _of("timeline", "output_tokens_per_s", max)),
        (Column("failed"), count("failed")),
        (Column("stalls"), statistic("stalls", "n", units.count)),
        (Column("longest stall", "ms"), statistic("stalls", "longest_ms")),
        (Column("ended at", "s"), statistic("stalls", "at_s")),
        (Column("memory", "GB, most"), _of("course", "server_memory_bytes", lambda values: max(values) / GB)),
        (Column("CPU", "cores, most"), _of("course", "server_cores", max)),
        (Column("GPU busy", "most"), _of("course", "gpu_utilisation", max, units.share)),
        (Column("power", "W, most"), _of("course", "power_w", max)),
    ]
    notes = ["least tokens/s: of the stretches between the first and the last"]
    return without_unknown(per_model("Timeline", levels.levels(summary), columns, notes))


def _of(
    part: str,
    name: str,
    chosen: Callable[[list[float]], float],
    shown: Callable[[float | None], str] = units.figure,
) -> Read:
    def read(level: Level) -> Cell:
        values = [float(y) for y in levels.distribution(level, part).get(name) or () if y is not None]
        return Cell(shown(chosen(values)) if values else units.ABSENT)

    return read


def _inner(values: list[float]) -> float:
    """The least of the stretches that a level fills."""
    return min(values[1:-1] or values)
