"""The plots of a run: throughput, efficiency and latency against load, whole distributions, models side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import log10

from loadbench import text as units
from loadbench.errors import LoadbenchError
from loadbench.report import levels, scaling
from loadbench.report.document import (
    Cell,
    Column,
    Key,
    Panel,
    Plot,
    Sign,
    Table,
    Text,
    Times,
    Trace,
    table,
    without_unknown,
)
from loadbench.report.html import trace
from loadbench.report.levels import Level, Record, Summary
from loadbench.report.scaling import Curve
from loadbench.report.tables import LEVEL, Columns, count, efficiency, figure, per_model, rate, times_of
from loadbench.scenario.bounds import Bound

MOST_LINES = 6
"""Levels in a plot of percentiles: the table beneath has them all."""
_POINTS = 48
"""Of a fitted law."""
_STATISTICS: tuple[tuple[str, str, str, Sign], ...] = (
    ("p50", "@0", "circle", "point"),
    ("p95", "@1", "square", "square"),
    ("p99", "@2", "diamond", "diamond"),
)
_KNEES = {"power": "power", "doubling": "doubling", "corner": "corner", "slo": "SLO"}
_MOST_NAMES = 3
_LINE_SHARE = 0.06
"""Of a plot's height, that of a line of text."""
_LINE_PX, _EDGES_PX = 26, 90
_LONGEST_NAME = 34
"""Of a plot with a model a line."""
_PERCENTILES = {"p50": 2.0, "p90": 10.0, "p95": 20.0, "p99": 100.0, "p999": 1000.0}
"""Where each stands on the axis: one request in so many is slower."""


# -- throughput and efficiency


def throughput(summary: Summary) -> list[Plot]:
    """Tokens per second against load, and per stream; none where nothing was measured at two loads."""
    groups = [(curve, scaling.levels_of(curve, summary)) for curve in scaling.curves(summary)]
    groups = [(curve, rows) for curve, rows in groups if rows]
    if not groups:
        return []
    closed = [(curve, rows) for curve, rows in groups if curve.get("loop") == "closed"]
    every = list(chain.from_iterable(rows for _, rows in groups))
    legend = [Key("measured, with its 95% interval", "point")]
    if any(levels.repeat(level) > 1 for level in every):
        legend.append(Key("measured again", "hollow"))
    if any(curve.get("usl") for curve, _ in groups):
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
    ideal = {row["n"]: row for row in curve["levels"] if row.get("ideal_x_per_s") and row.get("serial_x_per_s")}
    loads = sorted(ideal)
    if curve.get("loop") == "closed" and loads:
        for name, dash, text in (("ideal_x_per_s", "dash", "ideal"), ("serial_x_per_s", "dot", "one by one")):
            traces.append(trace.curve(loads, [ideal[n][name] for n in loads], "@muted", dash=dash, text=text))
    law = curve.get("usl")
    if law:
        traces.append(_law(law, float(curve.get("base_n") or loads[0])))
    # Where a law was fitted, its curve is the line through the points.
    traces.append(trace.line([_tokens(level) for level in first], joined=not law))
    if again:
        traces.append(trace.line([_tokens(level) for level in again], symbol="circle-open", joined=False))
    layout = {"xaxis": trace.load_axis(rows), "yaxis": trace.value_axis("tokens/s", traces)}
    name = str(curve.get("model"))
    ends = f"{_tokens_words(first[0])}, {_tokens_words(first[-1])}"
    return Panel(name, f"Line plot of throughput against load, {name}: {ends}.", traces, layout)


def _tokens_words(level: Level) -> str:
    return f"{units.figure(level.get('output_tokens_per_s'))} tokens/s at {levels.load_words(level)}"


def _tokens(level: Level) -> trace.Point | None:
    return trace.rate(level, "output_tokens_per_s", "tokens/s")


def _law(law: Record, base: float) -> Trace:
    end = float(law.get("measured_to") or base)
    peak, sigma, kappa = law["lambda_per_s"], law["sigma"], law["kappa"]
    xs = [base * (end / base) ** (i / (_POINTS - 1)) for i in range(_POINTS)]
    ys = [peak * n / (1 + sigma * (n - 1) + kappa * n * (n - 1)) for n in xs]
    text = f"law: lambda {units.figure(peak)}, sigma {units.figure(sigma)}, kappa {units.figure(kappa)}, off by "
    return trace.curve(xs, ys, "@1", text=trace.hover(text + units.share(law.get("rms"))))


def _throughput_tables(summary: Summary) -> list[Table]:
    """The closed loops' own table, with the number of requests; of open loops throughput alone."""
    rows = levels.levels(summary)
    found = []
    for lines in scaling.lines(summary):
        numbers = {LEVEL[1](level).text: level.get("completed") for level in levels.by_model(summary)[str(lines.model)]}
        columns = (lines.columns[0], Column("requests"), *lines.columns[1:])
        counted = [(row[0], Cell(units.count(numbers[row[0].text])), *row[1:]) for row in lines.rows]
        found.append(replace(lines, columns=columns, rows=tuple(counted)))
    if found:
        return found
    columns_of_open: Columns = [
        LEVEL,
        (Column("requests"), count("completed")),
        (Column("tokens", "/s"), rate("output_tokens_per_s")),
        (Column("done", "/s"), figure("requests_per_s")),
    ]
    return without_unknown(per_model("Throughput", rows, columns_of_open))


def _efficiency(closed: Sequence[tuple[Curve, list[Level]]], summary: Summary) -> Plot:
    lines = {str(curve.get("model")): list(map(_share, levels.firsts(rows))) for curve, rows in closed}
    note = "Tokens/s per stream against the lowest load: 100% is perfect scaling, half of it means that each of twice "
    note += "as many streams gets half."
    layout = {
        "xaxis": trace.load_axis(list(chain.from_iterable(rows for _, rows in closed))),
        "yaxis": trace.rate_axis("efficiency") | {"tickformat": ".0%"},
    }
    columns: Columns = [
        LEVEL,
        (Column("requests"), count("completed")),
        (Column("efficiency"), efficiency),
        (Column("speed-up"), figure("speedup")),
    ]
    tables = without_unknown(per_model("Efficiency", levels.levels(summary), columns))
    return trace.compared("Efficiency", note, lines, layout, tables)


def _share(level: Level) -> trace.Point | None:
    share = level.get("efficiency")
    if share is None:
        return None
    where = f"{level.get('model')}, {levels.load_words(level)}"
    requests = f"{units.count(level.get('completed'))} requests"
    text = trace.hover(where, f"efficiency {units.percent(share)}", requests)
    return trace.Point(levels.load(level), float(share), text)


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
    read: Callable[[Level], Record]
    spectra: tuple[str, ...]
    noun: str
    bound: str
    about: str

    def point(self, level: Level, statistic: str) -> trace.Point | None:
        return trace.percentile(level, self.read(level), statistic, self.name, self.noun)


def _distribution(name: str) -> Callable[[Level], Record]:
    return lambda level: levels.distribution(level, name)


def kinds(summary: Summary) -> list[Kind]:
    """Those that the run has: of whole answers E2E alone."""
    about = "From when a request was due to its end."
    e2e = Kind("E2E", _distribution("e2e_ms"), ("e2e_ms",), "requests", "e2e", about)
    if not levels.is_streamed(summary):
        return [e2e]
    gap = "/".join(reversed(levels.gap_names(summary))) or "ITL"
    spectra = ("ttft_from_due_ms", "ttft_ms")
    ttft = Kind("TTFT", levels.ttft, spectra, "requests", "ttft", "The time to the first token.")
    about = "The gaps between two arrivals of text."
    return [ttft, Kind(gap, _distribution("itl_ms"), ("itl_ms",), "gaps", "itl", about), e2e]


def latency(summary: Summary) -> list[Text | Plot]:
    """Percentiles with their intervals at each load; bounds as lines across, knees as lines down."""
    how = "Bars are 95% intervals; a hollow mark has too few requests for one. Both axes are logarithmic."
    plots = [plot for kind in kinds(summary) if (plot := _against_load(kind, summary))]
    return [Text.of("", [how]), *plots] if plots else []


def distributions(summary: Summary) -> list[Text | Plot]:
    how = (
        "Read a point as: so many per cent took at most so long. To the right each step is a tenth of what is left, "
        "so that the slowest can be told apart; a line ends at the slowest of all. Circles are percentiles with their "
        f"95% intervals, hollow where too few requests hold one. Of more than {MOST_LINES} loads some are drawn; the "
        "tables have all."
    )
    plots = [plot for kind in kinds(summary) if (plot := _spectra(kind, summary))]
    return [Text.of("", [how]), *plots] if plots else []


def _groups(summary: Summary) -> list[tuple[str, list[Level]]]:
    """Levels that share an axis: of one model and one kind of loop, by load."""
    groups: dict[tuple[str, bool], list[Level]] = {}
    for model, rows in levels.by_model(summary).items():
        for level in levels.by_load(rows):
            groups.setdefault((model, levels.is_open(level)), []).append(level)
    both = len({model for model, _ in groups}) < len(groups)
    return [(f"{model}, open loop" if both and opened else model, rows) for (model, opened), rows in groups.items()]


def _table(kind: Kind, summary: Summary, statistics: Iterable[str]) -> list[Table]:
    rows = levels.levels(summary)
    columns: Columns = [LEVEL, (Column(kind.noun), lambda level: Cell(units.count(kind.read(level).get("n"))))]
    columns += times_of(kind.name, Times.of(map(kind.read, rows)), kind.read, statistics)
    return without_unknown(
        per_model(f"{kind.name} against load", rows, columns, ["* too few requests for a 95% interval"])
    )


def _against_load(kind: Kind, summary: Summary) -> Plot | None:
    panels = []
    for model, rows in _groups(summary):
        loop = "open" if levels.is_open(rows[0]) else "closed"
        panel = _panel(kind, model, rows, scaling.of_model(summary, levels.model(rows[0]), loop) or {})
        if panel:
            panels.append(panel)
    if not panels:
        return None
    legend = [Key(statistic, sign, color) for statistic, color, _, sign in _STATISTICS]
    if _bounds(kind, levels.levels(summary)):
        legend.append(Key("bound that was asked for", "dash", "@bad"))
    if kind.bound != "itl" and any(map(scaling.knees_of, scaling.curves(summary))):
        legend.append(Key("knees, by the rule that names them", "dot", "@muted"))
    tables = _table(kind, summary, ("p50", "p95", "p99"))
    return Plot(f"{kind.name} against load", kind.about, panels, legend, tables)


def _panel(kind: Kind, model: str, rows: list[Level], curve: Curve) -> Panel | None:
    traces, ends = [], []
    first = levels.firsts(rows)
    for statistic, color, symbol, _ in _STATISTICS:
        points = [kind.point(level, statistic) for level in first]
        known_points = [point for point in points if point]
        if not known_points:
            continue
        traces.append(trace.line(points, color, symbol))
        again = [kind.point(level, statistic) for level in rows if level not in first]
        if any(again):
            traces.append(trace.line(again, color, symbol, joined=False))
        low, high = units.span(known_points[0].y), units.span(known_points[-1].y)
        ends.append(f"{statistic} {low} at the lowest, {high} at the highest load")
    if not traces:
        return None
    bounds = _bounds(kind, rows)
    marks = [trace.level_line(ms, text) for text, ms in bounds.items()]
    knees = _knees(curve, rows) if kind.bound != "itl" else []
    marks += knees
    layout = {
        "xaxis": trace.load_axis(rows),
        "yaxis": trace.value_axis(f"{kind.name}, ms", traces, bounds.values()),
        "shapes": [shape for shape, _ in marks],
        "annotations": _logarithmic([note for _, note in marks]),
        "margin": {"t": 40 if knees else 16},
    }
    return Panel(model, f"Line plot of {kind.name} against load, {model}: {'; '.join(ends)}.", traces, layout)


def _bounds(kind: Kind, rows: Sequence[Level]) -> dict[str, float]:
    """Bounds on this time, in ms, by their words."""
    found = {}
    for text in dict.fromkeys(str(bound.get("bound")) for bound in levels.parts(rows, "slo")):
        try:
            bound = Bound.parse(text)
        except LoadbenchError:
            continue
        if bound.metric == kind.bound:
            found[text] = float(bound.value)
    return found


def _knees(curve: Curve, rows: Sequence[Level]) -> list[tuple[Trace, Trace]]:
    """Lines down where a rule says that the curve bends, within what was measured; names of one place in one."""
    highest = max(map(levels.load, rows))
    names: dict[float, list[str]] = {}
    for name, knee in scaling.knees_of(curve).items():
        if float(knee["n"]) <= highest:
            names.setdefault(float(knee["n"]), []).append(_KNEES.get(name, name))
    found = []
    for i, n in enumerate(sorted(names)):
        place = {"yref": "paper", "y": 1, "yshift": 13 * (i % 2), "yanchor": "bottom", "x": n, "xanchor": "center"}
        found.append((trace.upright(n), trace.note(", ".join(names[n]), color="@muted", **place)))
    return found


def _logarithmic(notes: Sequence[Trace]) -> list[Trace]:
    """Annotations on logarithmic axes stand at the logarithm of their place; shapes at the place itself."""
    placed = []
    for note in notes:
        on = {axis: log10(note[axis]) for axis in ("x", "y") if note.get(f"{axis}ref") != "paper" and note[axis] > 0}
        placed.append(note | on)
    return placed


# -- all percentiles


Drawn = tuple[Level, Mapping[str, Sequence[float]]]
"""A level and its percentiles: one request in `one_in` took longer than `ms`."""


def _spectra(kind: Kind, summary: Summary) -> Plot | None:
    panels = []
    for model, rows in _groups(summary):
        found: list[Drawn] = []
        for level in levels.firsts(rows):
            spectra = level.get("spectra") or {}
            spectrum = next((spectra[name] for name in kind.spectra if spectra.get(name)), None)
            if spectrum:
                found.append((level, spectrum))
        if found:
            panels.append(_spectrum(kind, model, _some(found)))
    if not panels:
        return None
    tables = _table(kind, summary, (*_PERCENTILES, "max"))
    return Plot(f"{kind.name}, all percentiles", kind.about, panels, [Key("low to high load", "ramp")], tables)


def _some(found: Sequence[Drawn]) -> Sequence[Drawn]:
    """The first, the last, and as many between them as can be told apart."""
    if len(found) <= MOST_LINES:
        return found
    return [found[round(i * (len(found) - 1) / (MOST_LINES - 1))] for i in range(MOST_LINES)]


def _spectrum(kind: Kind, model: str, drawn: Sequence[Drawn]) -> Panel:
    traces, ends = [], []
    for i, (level, spectrum) in enumerate(drawn):
        color = f"@ramp{i / (len(drawn) - 1) if len(drawn) > 1 else 1.0:.2f}"
        xs, ys, n = spectrum["one_in"], spectrum["ms"], kind.read(level).get("n")
        line = trace.curve(xs, ys, color)
        counted = f"{levels.load_words(level)}, {units.count(n)} {kind.noun}"
        line["hovertemplate"] = f"{trace.words(counted)}\n{kind.name} %{{y:,.4~g}} ms<extra></extra>"
        points = []
        for statistic, place in _PERCENTILES.items():
            point = kind.point(level, statistic)
            if point and n and n >= place:  # so many requests reach it
                points.append(replace(point, x=place))
        circles = trace.line(points, color, joined=False)
        circles["marker"]["size"] = 6
        traces += [line, circles]
        ends.append((xs[-1], ys[-1], levels.label(level)))
    axis = trace.value_axis(f"{kind.name}, ms", traces)
    layout = {
        "xaxis": {
            "title": {"text": f"percentile of {kind.noun}"},
            "type": "log",
            "tickvals": [1, 2, 10, 20, 100, 1000, 10_000, 100_000, 1_000_000],
            "ticktext": ["0", "50", "90", "95", "99", "99.9", "99.99", "99.999", "99.9999"],
        },
        "yaxis": axis,
        "annotations": _logarithmic(_apart(ends, axis)),
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
    found = []
    for group in groups:
        names = [ends[i][2] for i in sorted(group)]
        text = ", ".join(names) if len(names) <= _MOST_NAMES else f"{names[0]} … {names[-1]}"
        x, y = max(ends[i][0] for i in group), ends[group[0]][1]
        found.append(trace.note(text, color="@muted", x=x, y=y, xanchor="left", xshift=4))
    return found


# -- models side by side


def side_by_side(summary: Summary) -> list[Plot]:
    """None where the run has one model."""
    if len(levels.by_model(summary)) < 2:
        return []
    return [plot for plot in (_at_one_load(summary), _characters_against_load(summary)) if plot]


def _characters(level: Level) -> trace.Point | None:
    return trace.rate(level, "characters_per_s", "characters/s")


def _common(summary: Summary) -> list[Level]:
    """Each model's first level at the highest load that most models were measured at."""
    found: dict[tuple[bool, float], list[Level]] = {}
    for rows in levels.by_model(summary).values():
        for level in levels.firsts(rows):
            if level.get("completed"):
                found.setdefault((levels.is_open(level), levels.load(level)), []).append(level)
    return max(found.items(), key=lambda item: (len(item[1]), item[0][1]), default=((False, 0.0), []))[1]


def _at_one_load(summary: Summary) -> Plot | None:
    rows = _common(summary)
    if len(rows) < 2:
        return None
    kind, where = levels.lead_name(rows[0]), levels.load_words(rows[0])
    ordered = sorted(rows, key=lambda level: float(level.get("characters_per_s") or 0.0))
    characters, medians, tails = [], [], []
    for place, level in enumerate(ordered):
        lead = levels.lead(level)
        characters.append(_on_line(level, _characters(level), place))
        medians.append(_on_line(level, trace.percentile(level, lead, "p50", kind), place))
        tails.append(_on_line(level, trace.percentile(level, lead, "p95", kind), place))
    waits = [
        trace.line(medians, joined=False, across=True),
        trace.line(tails, "@1", "square", joined=False, across=True),
    ]
    names = {
        "tickvals": list(range(len(ordered))),
        "ticktext": [trace.words(_short(levels.model(level))) for level in ordered],
        "automargin": True,
        "range": [-0.7, len(ordered) - 0.3],
    }
    height = _EDGES_PX + _LINE_PX * len(rows)
    panels = [
        Panel(
            "Characters per second",
            f"Dot plot of characters per second at {where}, a model a line, the fastest on top.",
            [trace.line(characters, joined=False, across=True)],
            {"xaxis": trace.rate_axis("characters/s"), "yaxis": names},
            height,
        ),
        Panel(
            f"{kind}, median and p95",
            f"Dot plot of {kind} at {where}, a model a line, in the same order.",
            waits,
            {"xaxis": trace.value_axis(f"{kind}, ms", waits, axis="x"), "yaxis": names},
            height,
        ),
    ]
    note = f"At {where}, with 95% intervals. Models cut text into tokens differently: characters compare."
    legend = [Key("characters/s, median", "point"), Key("p95", "square", "@1")]
    return Plot(f"At {where}", note, panels, legend, [_table_at(rows, where)])


def _on_line(level: Level, point: trace.Point | None, place: int) -> trace.Point | None:
    if point is None:
        return None
    return replace(point, x=place, hover=f"{trace.hover(levels.model(level))}\n{point.hover}")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _table_at(rows: Sequence[Level], where: str) -> Table:
    columns: Columns = [
        (Column("model", left=True), lambda level: Cell(levels.model(level))),
        (Column("requests"), count("completed")),
        (Column("chars", "/s"), rate("characters_per_s")),
        (Column("tokens", "/s"), rate("output_tokens_per_s")),
        *times_of(levels.lead_name(rows[0]), Times.of(map(levels.lead, rows)), levels.lead, ("p50", "p95")),
    ]
    return table(f"Models at {where}", columns, rows)


def _characters_against_load(summary: Summary) -> Plot | None:
    closed: dict[str, list[Level]] = {}
    for model, rows in levels.by_model(summary).items():
        own = [level for level in levels.by_load(levels.firsts(rows)) if not levels.is_open(level)]
        if len(own) > 1:
            closed[model] = own
    if len(closed) < 2:
        return None
    every = list(chain.from_iterable(closed.values()))
    lines = {model: list(map(_characters, rows)) for model, rows in closed.items()}
    layout = {"xaxis": trace.load_axis(every), "yaxis": trace.rate_axis("characters/s")}
    columns: Columns = [
        (Column("level", left=True), lambda level: Cell(levels.label(level))),
        (Column("requests"), lambda level: Cell(units.count(level.get("completed")))),
        (Column("chars", "/s"), rate("characters_per_s")),
    ]
    tables = per_model("Characters per second", every, columns)
    note = "Characters per second of all streams together, with 95% intervals."
    return trace.compared("Characters per second against load", note, lines, layout, tables)
