"""Throughput and efficiency against load: what was measured, the law behind it, and the lines it lies between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadbench import text as units
from loadbench.report import levels, scaling
from loadbench.report.html import trace
from loadbench.report.html.section import Figure, Key, Panel, Section, Sign
from loadbench.report.levels import Level, Summary
from loadbench.report.tables import Cell, Column, Table, count, figure, known, level_name, per_model

_POINTS = 48
SIGNS: tuple[Sign, ...] = ("point", "square", "diamond", "triangle", "cross", "x")
"""Of trace.SYMBOLS."""
Curve = Mapping[str, Any]


def section(summary: Summary) -> Section | None:
    """None where nothing was measured at two loads."""
    curves = scaling.curves(summary)
    groups = [(curve, rows) for curve in curves if (rows := _rows(curve, summary))]
    if not groups:
        return None
    single = [table for table in (scaling.knees(summary), scaling.law(summary)) if table]
    body: list[Any] = [_throughput(groups, summary)]
    if any(curve.get("loop") == "closed" for curve, _ in groups):
        body.append(_efficiency(groups, summary))
    return Section("scaling", "Throughput against load", [*body, *([table] for table in single)])


def _rows(curve: Curve, summary: Summary) -> list[Level]:
    """The curve's levels, by load."""
    ids = {row["id"] for row in curve.get("levels") or ()}
    rows = [level for level in levels.levels(summary) if level.get("id") in ids]
    return sorted(rows, key=lambda level: (levels.load(level), level.get("repeat") or 1))


def firsts(rows: Sequence[Level]) -> list[Level]:
    """The levels that a line joins: the first repeat of each load; the others stand beside it as points."""
    return [level for level in rows if (level.get("repeat") or 1) == 1] or list(rows)


def _throughput(groups: Sequence[tuple[Curve, list[Level]]], summary: Summary) -> Figure:
    panels = [_panel(curve, rows) for curve, rows in groups]
    legend = [Key("measured, with its 95% interval", "point")]
    if any((level.get("repeat") or 1) > 1 for _, rows in groups for level in rows):
        legend.append(Key("measured again", "hollow"))
    if any(curve.get("usl") for curve, _ in groups):
        legend.append(Key("Universal Scalability Law, fitted", "line", "@1"))
    if any(curve.get("loop") == "closed" for curve, _ in groups):
        legend.append(Key("ideal: every stream as fast as the first", "dash", "@muted"))
        legend.append(Key("one by one: all together as fast as the first", "dot", "@muted"))
    note = "Output tokens per second of all streams together, in the steady window. Both axes are logarithmic."
    return Figure("Throughput", note, panels, legend, _table(summary))


def _panel(curve: Curve, rows: list[Level]) -> Panel:
    first = firsts(rows)
    again = [level for level in rows if level not in first]
    traces: list[Any] = []
    reference = {row["n"]: row for row in curve["levels"]}
    at = sorted(n for n in reference if reference[n].get("ideal_x_per_s") and reference[n].get("serial_x_per_s"))
    if curve.get("loop") == "closed" and at:
        ideal = [reference[n]["ideal_x_per_s"] for n in at]
        traces.append(trace.curve(at, ideal, "@muted", dash="dash", text="ideal"))
        traces.append(
            trace.curve(at, [reference[n]["serial_x_per_s"] for n in at], "@muted", dash="dot", text="one by one")
        )
    law = curve.get("usl")
    if law:
        traces.append(_law(law, float(curve.get("base_n") or at[0])))
    # Where a law was fitted, its curve is the line through the points.
    traces.append(trace.line([trace.rate(level, "output_tokens_per_s", "tokens/s") for level in first], joined=not law))
    if again:
        points = [trace.rate(level, "output_tokens_per_s", "tokens/s") for level in again]
        traces.append(trace.line(points, symbol="circle-open", joined=False))
    layout = {
        "xaxis": trace.load_axis(rows),
        "yaxis": trace.value_axis("tokens/s", trace.reached(traces)),
    }
    low, high = first[0], first[-1]
    told = ", ".join(
        f"{units.figure(level.get('output_tokens_per_s'))} tokens/s at {levels.load_words(level)}"
        for level in (low, high)
    )
    name = str(curve.get("model"))
    return Panel(name, f"Line plot of throughput against load, {name}: {told}.", traces, layout)


def _law(law: Mapping[str, Any], base: float) -> trace.Trace:
    """The fitted curve over what was measured."""
    end = float(law.get("measured_to") or base)
    xs = [base * (end / base) ** (i / (_POINTS - 1)) for i in range(_POINTS)]
    ys = [law["lambda_per_s"] * n / (1 + law["sigma"] * (n - 1) + law["kappa"] * n * (n - 1)) for n in xs]
    text = f"law: lambda {units.figure(law['lambda_per_s'])}, sigma {units.figure(law['sigma'])}, kappa "
    text += f"{units.figure(law['kappa'])}, off by {units.share(law.get('rms'))}"
    return trace.curve(xs, ys, "@1", text=trace.said(text))


def _efficiency(groups: Sequence[tuple[Curve, list[Level]]], summary: Summary) -> Figure:
    """Up to six models on one plot, told apart by colour and sign; more of them one by one, the others in grey."""
    closed = [(curve, rows) for curve, rows in groups if curve.get("loop") == "closed"]
    lines = {str(curve.get("model")): [_share(level) for level in firsts(rows)] for curve, rows in closed}
    every = [level for _, rows in closed for level in rows]
    note = "Tokens/s per stream against the lowest load: 100% is perfect scaling, half of it means that each of twice "
    note += "as many streams gets half."
    return compared(
        "Efficiency",
        note,
        lines,
        {
            "xaxis": trace.load_axis(every),
            "yaxis": {"title": {"text": "efficiency"}, "tickformat": ".0%", "rangemode": "tozero"},
        },
        _efficiency_table(summary),
    )


def compared(
    title: str,
    note: str,
    lines: Mapping[str, Sequence[trace.Point | None]],
    layout: Mapping[str, Any],
    tables: Sequence[Table],
) -> Figure:
    """Lines of several models against the same axes."""
    if len(lines) <= trace.COLORS:
        traces = [trace.line(points, f"@{i}", trace.SYMBOLS[i]) for i, points in enumerate(lines.values())]
        legend = [Key(name, SIGNS[i], f"@{i}") for i, name in enumerate(lines)] if len(lines) > 1 else []
        label = f"Line plot, {title} against load, of {', '.join(lines)}."
        return Figure(title, note, [Panel("", label, traces, layout)], legend, tables)
    grey = trace.backdrop(list(lines.values()))
    panels = [
        Panel(name, f"Line plot, {title} against load, {name}; all models in grey.", [grey, trace.line(points)], layout)
        for name, points in lines.items()
    ]
    return Figure(title, note, panels, [Key("this model"), Key("the other models", "line", "@muted")], tables)


def _share(level: Level) -> trace.Point | None:
    share = level.get("efficiency")
    if share is None:
        return None
    said = trace.said(
        f"{level.get('model')}, {levels.load_words(level)}",
        f"efficiency {units.percent(share)}",
        f"{units.count(level.get('completed'))} requests",
    )
    return trace.Point(levels.load(level), float(share), said)


def _table(summary: Summary) -> list[Table]:
    """The closed loops' own table, with the number of requests; of open loops throughput alone."""
    found = scaling.lines(summary)
    if found:
        return [_counted(table, summary) for table in found]
    columns = [(Column("level", left=True), level_name), (Column("requests"), count("completed"))]
    columns += [(Column("tokens", "/s"), rated), (Column("done", "/s"), figure("requests_per_s"))]
    return known(per_model("Throughput", summary, columns, []))


def _counted(table: Table, summary: Summary) -> Table:
    """The table with the number of requests behind each row."""
    rows = {level_name(level).text: level for level in levels.by_model(summary)[str(table.model)]}
    head, *rest = table.columns
    told = [(row[0], Cell(units.count(rows[row[0].text].get("completed"))), *row[1:]) for row in table.rows]
    return Table(table.title, (head, Column("requests"), *rest), tuple(told), table.notes, table.model)


def rated(level: Level, name: str = "output_tokens_per_s") -> Cell:
    """A rate of the steady window with its interval."""
    bounds = trace.both(level.get(f"{name}_ci95"))
    interval = f"{units.figure(bounds[0])}–{units.figure(bounds[1])}" if bounds else ""
    return Cell(units.figure(level.get(name)), interval)


def _efficiency_table(summary: Summary) -> list[Table]:
    columns = [
        (Column("level", left=True), level_name),
        (Column("requests"), count("completed")),
        (Column("efficiency"), lambda level: Cell(units.percent(level.get("efficiency")))),
        (Column("speed-up"), figure("speedup")),
    ]
    return known(per_model("Efficiency", summary, columns, []))
