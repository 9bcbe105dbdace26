"""The plots of a run: throughput, efficiency and latency against load, whole distributions, models side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import log10
from typing import TYPE_CHECKING

from loadbench import text as units
from loadbench.errors import LoadbenchError
from loadbench.report import document as doc
from loadbench.report import levels, tables
from loadbench.report.document import Block, Cell, Column, Columns, Key, Panel, Plot, Table, Text, Times, Trace
from loadbench.report.html import trace
from loadbench.report.tables import LEVEL, per_model, times_of
from loadbench.scenario.bounds import Bound
from loadbench.store.summary import Curve, Distribution, Law, Level, Spectrum, Summary

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Figure

MOST_LINES = 6
"""Levels in a plot of percentiles: the table beneath has them all."""
_POINTS = 48
"""Of a fitted law."""
_STATISTICS: tuple[tuple[str, str, str, doc.Sign], ...] = (
    ("p50", "@0", "circle", "point"),
    ("p95", "@1", "square", "square"),
    ("p99", "@2", "diamond", "diamond"),
)
_MOST_NAMES = 3
_LINE_SHARE = 0.06
"""Of a plot's height, that of a line of text."""
_LINE_PX, _EDGES_PX = 26, 90
_LONGEST_NAME = 34
"""Of a plot with a model a line."""
_PERCENTILES = {"p50": 2.0, "p90": 10.0, "p95": 20.0, "p99": 100.0, "p999": 1000.0}
"""Where each is on the axis: one request in this many is slower."""


# -- a figure for notebooks


def overview(record: levels.Record) -> Figure:
    """Throughput and median TTFT against load side by side, a colour a model, each with its 95% interval.

    Raises:
        LoadbenchError: If plotly is not installed, or nothing was measured.
    """
    try:
        from plotly.subplots import make_subplots
    except ImportError:
        raise LoadbenchError("plot needs plotly, which is not installed: pip install plotly") from None
    from loadbench.report.html import asset

    summary = levels.read(record)
    rows = [level for level in levels.firsts(levels.by_load(levels.of(summary))) if level.completed]
    if not rows:
        raise LoadbenchError("nothing to plot: no request completed")
    colors = re.findall(r"--c\d: (#\w+)", asset("page.css"))[: trace.COLORS]
    figure = make_subplots(cols=2, subplot_titles=("Throughput", "Time to first token"))
    for i, (model, own) in enumerate(levels.by_model(rows).items()):
        tokens = list(map(trace.tokens, own))
        waits = [trace.percentile(level, levels.ttft(level), "p50", "TTFT") for level in own]
        for col, points in enumerate((tokens, waits), 1):
            line = trace.line(points, colors[i % len(colors)], trace.SYMBOLS[i % len(trace.SYMBOLS)])
            line["text"] = [text.replace("\n", "<br>") for text in line["text"]]
            figure.add_trace(line | {"name": trace.words(model), "showlegend": col == 1}, row=1, col=col)
    ground, faint = "rgba(0,0,0,0)", "rgba(127,127,127,.25)"  # it lies on a light notebook or a dark one
    figure.update_xaxes(trace.load_axis(rows) | {"gridcolor": faint})
    figure.update_yaxes(gridcolor=faint, zerolinecolor=faint, rangemode="tozero")
    figure.update_yaxes(title_text="tokens/s", col=1)
    figure.update_yaxes(title_text="p50, ms", col=2)
    figure.update_layout(paper_bgcolor=ground, plot_bgcolor=ground, font_color="#808a94", height=360)
    if levels.is_simulated(summary):
        figure.update_layout(title_text="SIMULATED")
    return figure


# -- throughput and efficiency


def throughput(summary: Summary) -> list[Plot]:
    """Tokens per second against load, and per stream; none where nothing was measured at two loads."""
    groups = []
    for curve in tables.curves(summary):
        ids = {row.id for row in curve.levels}
        rows = levels.by_load(level for level in levels.of(summary) if level.id in ids)
        if rows:
            groups.append((curve, rows))
    if not groups:
        return []
    closed = [(curve, rows) for curve, rows in groups if curve.loop == "closed"]
    every = chain.from_iterable(rows for _, rows in groups)
    legend = [Key("measured, with its 95% interval", "point")]
    if any(levels.repeat(level) > 1 for level in every):
        legend.append(Key("measured again", "hollow"))
    if any(curve.usl for curve, _ in groups):
        legend.append(Key("Universal Scalability Law, fitted", "line", "@1"))
    if closed:
        legend.append(Key("ideal: every stream as fast as the first", "dash", "@muted"))
        legend.append(Key("one by one: all together as fast as the first", "dot", "@muted"))
    note = "Output tokens per second of all streams together, in the steady window. Both axes are logarithmic."
    panels = [_throughput(curve, rows) for curve, rows in groups]
    plots = [Plot("Throughput", note, panels, legend, _throughput_tables(summary))]
    if closed:
        plots.append(_efficiency(closed, summary))
    return plots


def _throughput(curve: Curve, rows: list[Level]) -> Panel:
    first = levels.firsts(rows)
    again = [level for level in rows if level not in first]
    traces = []
    ideal: dict[float, float] = {}
    serial: dict[float, float] = {}
    for row in curve.levels:
        if row.n is not None and row.ideal_x_per_s and row.serial_x_per_s:
            ideal[row.n], serial[row.n] = row.ideal_x_per_s, row.serial_x_per_s
    loads = sorted(ideal)
    if curve.loop == "closed" and loads:
        traces.append(trace.curve(loads, [ideal[n] for n in loads], "@muted", dash="dash", text="ideal"))
        traces.append(trace.curve(loads, [serial[n] for n in loads], "@muted", dash="dot", text="one by one"))
    if curve.usl:
        traces.append(_law(curve.usl, float(curve.base_n or loads[0])))
    # Where a law was fitted, its curve is the line through the points.
    traces.append(trace.line(list(map(trace.tokens, first)), joined=not curve.usl))
    if again:
        traces.append(trace.line(list(map(trace.tokens, again)), symbol="circle-open", joined=False))
    layout = {"xaxis": trace.load_axis(rows), "yaxis": trace.value_axis("tokens/s", traces)}
    label = f"Line plot of throughput against load, {curve.model}: {_tokens(first[0])}, {_tokens(first[-1])}."
    return Panel(curve.model, label, traces, layout)


def _tokens(level: Level) -> str:
    return f"{units.figure(level.output_tokens_per_s)} tokens/s at {levels.load_words(level)}"


def _law(law: Law, base: float) -> Trace:
    end = float(law.measured_to or base)
    slope, sigma, kappa = law.lambda_per_s or 0.0, law.sigma or 0.0, law.kappa or 0.0
    xs = [base * (end / base) ** (i / (_POINTS - 1)) for i in range(_POINTS)]
    ys = [slope * n / (1 + sigma * (n - 1) + kappa * n * (n - 1)) for n in xs]
    text = f"law: lambda {units.figure(slope)}, sigma {units.figure(sigma)}, kappa {units.figure(kappa)}, off by "
    return trace.curve(xs, ys, "@1", text=trace.hover(text + units.share(law.rms)))


def _throughput_tables(summary: Summary) -> list[Table]:
    """The closed loops' own table, with the number of requests; of open loops throughput alone."""
    rows = levels.of(summary)
    counted_tables = []
    for between in tables.scaling(summary):
        own = levels.by_model(rows)[str(between.model)]
        requests = {tables.level_name(level).text: doc.count(level.completed) for level in own}
        counted = tuple((row[0], requests[row[0].text], *row[1:]) for row in between.rows)
        columns = (between.columns[0], Column("requests"), *between.columns[1:])
        counted_tables.append(replace(between, columns=columns, rows=counted))
    columns_of_open: Columns[Level] = [LEVEL, tables.REQUESTS, tables.TOKENS_SURE, tables.DONE_PER_S]
    return counted_tables or doc.without_unknown(per_model("Throughput", rows, columns_of_open))


def _efficiency(closed: Sequence[tuple[Curve, list[Level]]], summary: Summary) -> Plot:
    lines: dict[str, list[trace.Point | None]] = {}
    for curve, rows in closed:
        points: list[trace.Point | None] = []
        for level in levels.firsts(rows):
            if level.efficiency is not None:
                where = f"{level.model}, {levels.load_words(level)}"
                requests = f"{units.count(level.completed)} requests"
                text = trace.hover(where, f"efficiency {units.percent(level.efficiency)}", requests)
                points.append(trace.Point(levels.load(level), level.efficiency, text))
        lines[curve.model] = points
    note = "Tokens/s per stream against the lowest load: 100% is perfect scaling, half of it means that each of twice "
    note += "as many streams gets half."
    layout = {
        "xaxis": trace.load_axis(list(chain.from_iterable(rows for _, rows in closed))),
        "yaxis": trace.rate_axis("efficiency") | {"tickformat": ".0%"},
    }
    columns: Columns[Level] = [
        LEVEL,
        tables.REQUESTS,
        tables.EFFICIENCY,
        (Column("speed-up"), lambda level: doc.figure(level.speedup)),
    ]
    same = doc.without_unknown(per_model("Efficiency", levels.of(summary), columns))
    return trace.compared("Efficiency", note, lines, layout, same)


# -- latency


@dataclass(frozen=True, slots=True)
class Kind:
    """A time that users wait for.

    Attributes:
        read: Where a level holds it.
        spectra: Where a level holds all its percentiles.
        noun: Of what it is counted.
        bound: Its name in bounds.
    """

    name: str
    read: Callable[[Level], Distribution]
    spectra: tuple[str, ...]
    noun: str
    bound: str
    about: str

    def point(self, level: Level, statistic: str) -> trace.Point | None:
        return trace.percentile(level, self.read(level), statistic, self.name, self.noun)

    def spectrum(self, level: Level) -> Spectrum | None:
        """All percentiles of it at a level."""
        return next(filter(None, ((level.spectra or {}).get(name) for name in self.spectra)), None)


def kinds(summary: Summary) -> list[Kind]:
    """Those that the run has: of whole answers E2E alone."""
    about = "From when a request was due to its end."
    e2e = Kind("E2E", lambda level: level.e2e_ms or levels.NOTHING, ("e2e_ms",), "requests", "e2e", about)
    if not levels.is_streamed(summary):
        return [e2e]
    spectra = ("ttft_from_due_ms", "ttft_ms")
    ttft = Kind("TTFT", levels.ttft, spectra, "requests", "ttft", "The time to the first token.")
    gap = "/".join(reversed(levels.gap_names(summary))) or "ITL"
    about = "The gaps between two arrivals of text."
    return [ttft, Kind(gap, lambda level: level.itl_ms or levels.NOTHING, ("itl_ms",), "gaps", "itl", about), e2e]


def latency(summary: Summary) -> list[Block]:
    """Percentiles with their intervals at each load; bounds as lines across, knees as lines down."""
    how = "Bars are 95% intervals; a hollow mark has too few requests for one. Both axes are logarithmic."
    plots = []
    for kind in kinds(summary):
        panels = []
        for model, rows in _groups(summary):
            loop = "open" if rows[0].is_open else "closed"
            panel = _against_load(kind, model, rows, tables.curve_of(summary, rows[0].model, loop))
            if panel:
                panels.append(panel)
        if not panels:
            continue
        legend = [Key(statistic, sign, color) for statistic, color, _, sign in _STATISTICS]
        if _bounds(kind, levels.of(summary)):
            legend.append(Key("SLO", "dash", "@bad"))
        if kind.bound != "itl" and any(map(tables.knees_of, tables.curves(summary))):
            legend.append(Key("knees, by the rule that names them", "dot", "@muted"))
        same = _table(kind, summary, ("p50", "p95", "p99"))
        plots.append(Plot(f"{kind.name} against load", kind.about, panels, legend, same))
    return [Text.of("", [how]), *plots] if plots else []


def _groups(summary: Summary) -> list[tuple[str, list[Level]]]:
    """Levels that share an axis: of one model and one kind of loop, by load."""
    groups: dict[tuple[str, bool], list[Level]] = {}
    for model, rows in levels.by_model(levels.of(summary)).items():
        for level in levels.by_load(rows):
            groups.setdefault((model, level.is_open), []).append(level)
    both = len({model for model, _ in groups}) < len(groups)
    return [(f"{model}, open loop" if both and opened else model, rows) for (model, opened), rows in groups.items()]


def _table(kind: Kind, summary: Summary, statistics: Iterable[str]) -> list[Table]:
    rows = levels.of(summary)
    columns: Columns[Level] = [LEVEL, (Column(kind.noun), lambda level: doc.count(kind.read(level).n))]
    columns += times_of(kind.name, Times.of(map(kind.read, rows)), kind.read, statistics)
    notes = ["* too few requests for a 95% interval"]
    return doc.without_unknown(per_model(f"{kind.name} against load", rows, columns, notes))


def slo_lines(kind: Kind, rows: Sequence[Level]) -> tuple[list[Trace], list[Trace]]:
    """Lines across at the bounds of the SLO on a time, and their names."""
    shapes, notes = [], []
    for text, ms in _bounds(kind, rows).items():
        across: Trace = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": ms, "y1": ms}
        shapes.append(across | {"line": {"color": "@bad", "width": 1.5, "dash": "dash"}})
        notes.append(trace.note(text, color="@bad", xref="paper", x=0, xanchor="left", y=ms, yanchor="bottom"))
    return shapes, notes


def _against_load(kind: Kind, model: str, rows: list[Level], curve: Curve | None) -> Panel | None:
    traces, ends = [], []
    first = levels.firsts(rows)
    for statistic, color, symbol, _ in _STATISTICS:
        points = [kind.point(level, statistic) for level in first]
        known = [point for point in points if point]
        if not known:
            continue
        traces.append(trace.line(points, color, symbol))
        again = [kind.point(level, statistic) for level in rows if level not in first]
        if any(again):
            traces.append(trace.line(again, color, symbol, joined=False))
        low, high = units.span(known[0].y), units.span(known[-1].y)
        ends.append(f"{statistic} {low} at the lowest, {high} at the highest load")
    if not traces:
        return None
    bounds = _bounds(kind, rows)
    shapes, notes = slo_lines(kind, rows)
    # Lines down where a rule says that the curve bends, within what was measured; names of one place in one.
    names: dict[float, list[str]] = {}
    knees = tables.knees_of(curve) if curve and kind.bound != "itl" else {}
    for name, knee in knees.items():
        if knee.n <= max(map(levels.load, rows)):
            names.setdefault(float(knee.n), []).append("SLO" if name == "slo" else name)
    for i, n in enumerate(sorted(names)):
        place = {"yref": "paper", "y": 1, "yshift": 13 * (i % 2), "yanchor": "bottom", "x": n, "xanchor": "center"}
        shapes.append(trace.upright(n))
        notes.append(trace.note(", ".join(names[n]), color="@muted", **place))
    layout = {
        "xaxis": trace.load_axis(rows),
        "yaxis": trace.value_axis(f"{kind.name}, ms", traces, bounds.values()),
        "shapes": shapes,
        "annotations": list(map(_logarithmic, notes)),
        "margin": {"t": 40 if names else 16},
    }
    return Panel(model, f"Line plot of {kind.name} against load, {model}: {'; '.join(ends)}.", traces, layout)


def _bounds(kind: Kind, rows: Sequence[Level]) -> dict[str, float]:
    """Bounds on this time, in ms, by their words."""
    bounds = {}
    for level in rows:
        for objective in level.slo or ():
            try:
                bound = Bound.parse(objective.bound)
            except LoadbenchError:
                continue
            if bound.metric == kind.bound:
                bounds[objective.bound] = float(bound.value)
    return bounds


def _logarithmic(note: Trace) -> Trace:
    """An annotation on logarithmic axes has the logarithm of its place; shapes have the place itself."""
    for axis in ("x", "y"):
        if note.get(f"{axis}ref") != "paper" and note[axis] > 0:
            note = note | {axis: log10(note[axis])}
    return note


# -- all percentiles


Drawn = tuple[Level, Spectrum]
"""A level and its percentiles: one request in `one_in` took longer than `ms`."""


def distributions(summary: Summary) -> list[Block]:
    how = (
        "Read a point as: y per cent took at most x. To the right each step is a tenth of what is left, "
        "so that the slowest can be told apart; a line ends at the slowest of all. Circles are percentiles with their "
        f"95% intervals, hollow where too few requests hold one. Of more than {MOST_LINES} loads some are drawn; the "
        "tables have all."
    )
    plots = []
    for kind in kinds(summary):
        panels = []
        for model, rows in _groups(summary):
            drawn: list[Drawn] = []
            for level in levels.firsts(rows):
                spectrum = kind.spectrum(level)
                if spectrum:
                    drawn.append((level, spectrum))
            if len(drawn) > MOST_LINES:  # the first, the last, and as many between them as can be told apart
                drawn = [drawn[round(i * (len(drawn) - 1) / (MOST_LINES - 1))] for i in range(MOST_LINES)]
            if drawn:
                panels.append(_spectrum(kind, model, drawn))
        if panels:
            same = _table(kind, summary, (*_PERCENTILES, "max"))
            legend = [Key("low to high load", "ramp")]
            plots.append(Plot(f"{kind.name}, all percentiles", kind.about, panels, legend, same))
    return [Text.of("", [how]), *plots] if plots else []


def _spectrum(kind: Kind, model: str, drawn: Sequence[Drawn]) -> Panel:
    traces, ends = [], []
    for i, (level, spectrum) in enumerate(drawn):
        color = f"@ramp{i / (len(drawn) - 1) if len(drawn) > 1 else 1.0:.2f}"
        n = kind.read(level).n
        line = trace.curve(spectrum.one_in, spectrum.ms, color)
        counted = f"{levels.load_words(level)}, {units.count(n)} {kind.noun}"
        line["hovertemplate"] = f"{trace.words(counted)}\n{kind.name} %{{y:,.4~g}} ms<extra></extra>"
        points = []
        for statistic, place in _PERCENTILES.items():
            point = kind.point(level, statistic)
            if point and n and n >= place:  # enough requests reach it
                points.append(replace(point, x=place))
        circles = trace.line(points, color, joined=False)
        circles["marker"]["size"] = 6
        traces += [line, circles]
        ends.append((spectrum.one_in[-1], spectrum.ms[-1], levels.label(level)))
    axis = trace.value_axis(f"{kind.name}, ms", traces)
    layout = {
        "xaxis": {
            "title": {"text": f"percentile of {kind.noun}"},
            "type": "log",
            "tickvals": [1, 2, 10, 20, 100, 1000, 10_000, 100_000, 1_000_000],
            "ticktext": ["0", "50", "90", "95", "99", "99.9", "99.99", "99.999", "99.9999"],
        },
        "yaxis": axis,
        "annotations": list(map(_logarithmic, _apart(ends, axis))),
        "margin": {"r": 72},
    }
    loads = ", ".join(levels.load_words(level) for level, _ in drawn)
    return Panel(model, f"Percentiles of {kind.name} from 0 to the maximum, {model}, at {loads}.", traces, layout)


def _apart(ends: Sequence[tuple[float, float, str]], axis: Trace) -> list[Trace]:
    """Names at the lines' ends; those that would lie on each other become one: "c1, c2"."""
    low, high = axis.get("range", (0.0, 0.0))  # none where no value lies above 0
    least = 10 ** (_LINE_SHARE * (high - low))
    groups: list[list[int]] = []
    for i in sorted(range(len(ends)), key=lambda i: -ends[i][1]):
        if groups and ends[i][1] * least >= ends[groups[-1][0]][1]:
            groups[-1].append(i)
        else:
            groups.append([i])
    notes = []
    for group in groups:
        names = [ends[i][2] for i in sorted(group)]
        text = ", ".join(names) if len(names) <= _MOST_NAMES else f"{names[0]} … {names[-1]}"
        x, y = max(ends[i][0] for i in group), ends[group[0]][1]
        notes.append(trace.note(text, color="@muted", x=x, y=y, xanchor="left", xshift=4))
    return notes


# -- models side by side


def side_by_side(summary: Summary) -> list[Plot]:
    """None where the run has one model."""
    if len(levels.by_model(levels.of(summary))) < 2:
        return []
    return list(filter(None, (_at_one_load(summary), _characters_against_load(summary))))


def _at_one_load(summary: Summary) -> Plot | None:
    """Each model's first level at the highest load that most models were measured at."""
    by_load: dict[tuple[bool, float], list[Level]] = {}
    for own in levels.by_model(levels.of(summary)).values():
        for level in levels.firsts(own):
            if level.completed:
                by_load.setdefault((level.is_open, levels.load(level)), []).append(level)
    rows = max(by_load.items(), key=lambda item: (len(item[1]), item[0][1]))[1] if by_load else []
    if len(rows) < 2:
        return None
    kind, where = levels.lead_name(rows[0]), levels.load_words(rows[0])
    ordered = sorted(rows, key=lambda level: level.characters_per_s or 0.0)
    characters, medians, tails, names = [], [], [], []
    for place, level in enumerate(ordered):
        lead, model = levels.lead(level), str(level.model)
        characters.append(_on_line(model, trace.characters(level), place))
        medians.append(_on_line(model, trace.percentile(level, lead, "p50", kind), place))
        tails.append(_on_line(model, trace.percentile(level, lead, "p95", kind), place))
        names.append(trace.words(model if len(model) <= _LONGEST_NAME else f"{model[: _LONGEST_NAME - 1]}…"))
    waits = [
        trace.line(medians, joined=False, across=True),
        trace.line(tails, "@1", "square", joined=False, across=True),
    ]
    axis = {"tickvals": list(range(len(ordered))), "ticktext": names}
    axis |= {"automargin": True, "range": [-0.7, len(ordered) - 0.3]}
    height = _EDGES_PX + _LINE_PX * len(rows)
    panels = [
        Panel(
            "Characters per second",
            f"Dot plot of characters per second at {where}, a model a line, the fastest on top.",
            [trace.line(characters, joined=False, across=True)],
            {"xaxis": trace.rate_axis("characters/s"), "yaxis": axis},
            height,
        ),
        Panel(
            f"{kind}, median and p95",
            f"Dot plot of {kind} at {where}, a model a line, in the same order.",
            waits,
            {"xaxis": trace.value_axis(f"{kind}, ms", waits, axis="x"), "yaxis": axis},
            height,
        ),
    ]
    columns: Columns[Level] = [
        (Column("model", left=True), lambda level: Cell(str(level.model))),
        tables.REQUESTS,
        tables.CHARS_SURE,
        tables.TOKENS_SURE,
        *times_of(kind, Times.of(map(levels.lead, rows)), levels.lead, ("p50", "p95")),
    ]
    note = f"At {where}, with 95% intervals. Models cut text into tokens differently: characters compare."
    legend = [Key("characters/s, median", "point"), Key("p95", "square", "@1")]
    return Plot(f"At {where}", note, panels, legend, [doc.table(f"Models at {where}", columns, rows)])


def _on_line(model: str, point: trace.Point | None, place: int) -> trace.Point | None:
    return replace(point, x=place, hover=f"{trace.hover(model)}\n{point.hover}") if point else None


def _characters_against_load(summary: Summary) -> Plot | None:
    closed: dict[str, list[Level]] = {}
    for model, rows in levels.by_model(levels.of(summary)).items():
        own = [level for level in levels.by_load(levels.firsts(rows)) if not level.is_open]
        if len(own) > 1:
            closed[model] = own
    if len(closed) < 2:
        return None
    every = list(chain.from_iterable(closed.values()))
    lines = {model: list(map(trace.characters, rows)) for model, rows in closed.items()}
    layout = {"xaxis": trace.load_axis(every), "yaxis": trace.rate_axis("characters/s")}
    columns: Columns[Level] = [
        (Column("level", left=True), lambda level: Cell(levels.label(level))),
        tables.REQUESTS,
        tables.CHARS_SURE,
    ]
    same = per_model("Characters per second", every, columns)
    note = "Characters per second of all streams together, with 95% intervals."
    return trace.compared("Characters per second against load", note, lines, layout, same)
