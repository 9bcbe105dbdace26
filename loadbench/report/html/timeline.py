"""What happened when: each model's levels one after another, with the machine's samples beneath."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime

from loadbench import text as units
from loadbench.report import document as doc
from loadbench.report import levels
from loadbench.report.document import Cell, Column, Columns, Key, Panel, Plot, Table, Trace
from loadbench.report.html import trace
from loadbench.report.tables import LEVEL, per_model
from loadbench.store.summary import Course, Level, Stall, Stalls, Summary, Timeline

_ROW_PX, _EDGES_PX = 92, 84
_GAP = 0.05
GB = 1e9
_NO_STALLS = Stalls()
_NOTHING = Timeline(every_s=0.0, t_s=[], in_flight=[], output_tokens_per_s=None, errors=[])
_NO_SAMPLES = Course(t_s=[], server_memory_bytes=None, server_cores=None, gpu_utilisation=None, power_w=None)

Placed = Sequence[tuple[float, Level, Timeline]]
"""Levels that have a timeline, each with its begin in s since the first one's."""
Points = Iterator[tuple[float | None, float | None]]
"""Times in s since the model's first level began, and values; a None ends a line."""


def plots(summary: Summary) -> list[Plot]:
    """None where no level has a timeline."""
    every = [level for level in summary.levels if level.timeline]
    if not every:
        return []
    legend = [Key("a level begins", "dot", "@muted")]
    if any(level.stalls and level.stalls.n for level in every):
        legend.append(Key("stall: a gap far longer than usual", "triangle", "@bad"))
    if any(level.timeline and any(level.timeline.errors) for level in every):
        legend.append(Key("failed requests", "bar", "@bad"))
    note = (
        "Each level from its first request to its last, warm-up included; the 12 longest stalls of a level are marked."
    )
    panels = [_panel(model, _placed(rows)) for model, rows in levels.by_model(every).items()]
    return [Plot("What happened when", note, panels, legend, _table(summary), wide=True)]


def _placed(rows: Sequence[Level]) -> Placed:
    """Levels in the order of time; one after another where one of their begins is unknown."""
    begins, at = [], 0.0
    for level in rows:
        begins.append(at)
        at += float(level.duration_s or 0.0)
    with suppress(ValueError):
        begins = [datetime.fromisoformat(str(level.began)).timestamp() for level in rows]
    placed = []
    for begin, level in sorted(zip(begins, rows, strict=True), key=lambda pair: pair[0]):
        if level.timeline:
            placed.append((begin - min(begins), level, level.timeline))
    return placed


def _panel(model: str, placed: Placed) -> Panel:
    tokens = _area(_steps(placed, lambda line: line.output_tokens_per_s), "@0", "tokens/s")
    memory = _samples(placed, lambda course: course.server_memory_bytes, GB)
    rows = {
        "in flight": _area(_steps(placed, lambda line: line.in_flight), "@5", "in flight"),
        "tokens/s": tokens + _stalls(placed) if tokens else [],
        "failed": _errors(placed),
        "server memory, GB": _area(memory, "@2", "server memory, GB", steps=False),
    }
    for name, read, unit, color in (
        ("server CPU, cores", lambda course: course.server_cores, 1.0, "@4"),
        ("GPU busy, %", lambda course: course.gpu_utilisation, 0.01, "@3"),
        ("power, W", lambda course: course.power_w, 1.0, "@1"),
    ):
        rows[name] = _area(_samples(placed, read, unit), color, name, steps=False)
    rows = {name: traces for name, traces in rows.items() if traces}
    share = (1 - _GAP * (len(rows) - 1)) / len(rows)
    traces: list[Trace] = []
    notes: list[Trace] = []
    layout: Trace = {"bargap": 0, "margin": {"t": 44}}
    for i, (name, own) in enumerate(rows.items()):
        axis = "" if i == 0 else str(i + 1)
        top = 1 - i * (share + _GAP)
        layout[f"yaxis{axis}"] = {"domain": [max(top - share, 0), top], "rangemode": "tozero", "nticks": 4}
        traces += [one | {"yaxis": f"y{axis}"} for one in own]
        notes.append(trace.note(name, xref="paper", yref="paper", x=0, xanchor="left", y=top, yanchor="bottom"))
    layout["xaxis"] = trace.rate_axis("seconds")
    if len(rows) > 1:
        layout["xaxis"]["anchor"] = f"y{len(rows)}"
    layout["shapes"] = [trace.upright(begin) for begin, _, _ in placed]
    layout["annotations"] = notes + _names(placed)
    label = f"Timeline of {model}: {', '.join(rows)}, over {len(placed)} levels."
    return Panel(model, label, traces, layout, height=_EDGES_PX + _ROW_PX * len(rows))


def _names(placed: Placed) -> list[Trace]:
    """The levels' names over their begins, without those that would cover the one before."""
    begin, last, _ = placed[-1]
    whole = begin + float(last.duration_s or 1.0)
    notes, free = [], -1.0
    for begin, level, _ in placed:
        if begin / whole < free:
            continue
        name = levels.label(level) + (" again" if level.closing else "")
        free = begin / whole + 0.012 * (len(name) + 1)
        place = {"x": begin, "xanchor": "left", "yref": "paper", "y": 1, "yshift": 16, "yanchor": "bottom"}
        notes.append(trace.note(name, color="@muted", **place))
    return notes


# -- rows


def _steps(placed: Placed, read: Callable[[Timeline], Sequence[float] | None]) -> Points:
    """A column of the levels' timelines, each stretch at its begin, cut between levels."""
    for begin, _, line in placed:
        values = read(line)
        if not values or not line.t_s:
            continue
        points = list(zip(line.t_s, values, strict=False))
        before = None
        for t, value in points:
            # A step is drawn from where it begins: what stays as it was needs no points of its own.
            if value != before or t == points[-1][0]:
                yield _second(begin + t), value
            before = value
        yield _second(begin + line.t_s[-1] + line.every_s), points[-1][1]
        yield None, None


def _second(at: float) -> float:
    return round(at, 2)


def _errors(placed: Placed) -> list[Trace]:
    xs, ys, widths, texts = [], [], [], []
    for begin, _, line in placed:
        for t, n in zip(line.t_s, line.errors, strict=False):
            if n:
                x = _second(begin + t + line.every_s / 2)
                xs.append(x)
                ys.append(n)
                widths.append(line.every_s)
                texts.append(trace.hover(f"{units.plural(n, 'failed request')} at {x:g} s"))
    bar = {"type": "bar", "x": xs, "y": ys, "width": widths, "marker": {"color": "@bad"}}
    bar |= {"text": texts, "hoverinfo": "text", "textposition": "none"}
    return [bar] if xs else []


def _stalls(placed: Placed) -> list[Trace]:
    """Marks on the ground of the plot, at the ends of the longest stalls."""
    xs, texts = [], []
    for begin, level, _ in placed:
        stalls = level.stalls or _NO_STALLS
        # A summary of before knows only the longest.
        alone = Stall(at_s=stalls.at_s, ms=stalls.longest_ms, request=stalls.longest_request or 0)
        for stall in stalls.longest or [alone]:
            if stall.at_s is not None:
                x = begin + stall.at_s
                xs.append(_second(x))
                where = f"ended at {x:.1f} s, in request {stall.request}"
                texts.append(trace.hover(f"stall of {units.span(stall.ms)}", where))
    marker = {"color": "@bad", "size": 9, "symbol": "triangle-up"}
    marks = {"type": "scatter", "mode": "markers", "x": xs, "y": [0] * len(xs), "marker": marker}
    return [marks | {"text": texts, "hoverinfo": "text", "cliponaxis": False}] if xs else []


def _samples(placed: Placed, read: Callable[[Course], Sequence[float | None] | None], unit: float) -> Points:
    for begin, level, _ in placed:
        values = read(level.course) if level.course else None
        if level.course and values:
            for t, y in zip(level.course.t_s, values, strict=False):
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
    columns: Columns[Level] = [
        LEVEL,
        (Column("took", "s"), lambda level: doc.figure(level.duration_s)),
        (Column("in flight", "most"), lambda level: doc.figure(_most((level.timeline or _NOTHING).in_flight))),
        (Column("tokens/s", "least"), lambda level: doc.figure(_least(level.timeline))),
        (Column("tokens/s", "most"), lambda x: doc.figure(_most((x.timeline or _NOTHING).output_tokens_per_s))),
        (Column("failed"), lambda level: doc.count(level.failed)),
        (Column("stalls"), lambda level: doc.count((level.stalls or _NO_STALLS).n)),
        (Column("longest stall", "ms"), lambda level: doc.figure((level.stalls or _NO_STALLS).longest_ms)),
        (Column("ended at", "s"), lambda level: doc.figure((level.stalls or _NO_STALLS).at_s)),
        (Column("memory", "GB, most"), _memory),
        (Column("CPU", "cores, most"), lambda level: doc.figure(_most((level.course or _NO_SAMPLES).server_cores))),
        (Column("GPU busy", "most"), lambda level: doc.share(_most((level.course or _NO_SAMPLES).gpu_utilisation))),
        (Column("power", "W, most"), lambda level: doc.figure(_most((level.course or _NO_SAMPLES).power_w))),
    ]
    notes = ["least tokens/s: of the stretches between the first and the last"]
    return doc.without_unknown(per_model("Timeline", levels.of(summary), columns, notes))


def _most(values: Iterable[float | None] | None) -> float | None:
    return max((float(y) for y in values or () if y is not None), default=None)


def _memory(level: Level) -> Cell:
    most = _most((level.course or _NO_SAMPLES).server_memory_bytes)
    return doc.figure(None if most is None else most / GB)


def _least(line: Timeline | None) -> float | None:
    """The least tokens/s of the stretches that a level fills."""
    values = [float(y) for y in (line or _NOTHING).output_tokens_per_s or ()]
    return min(values[1:-1] or values, default=None)
