"""The plots of models side by side: at one load, and against load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from loadbench import text as units
from loadbench.report import levels
from loadbench.report.document import Cell, Column, Key, Panel, Plot, Table, Times, table
from loadbench.report.html import trace
from loadbench.report.levels import Level, Summary
from loadbench.report.tables import Columns, count, per_model, rate, times_of

_LINE_PX, _EDGES_PX = 26, 90
_LONGEST_NAME = 34


def plots(summary: Summary) -> list[Plot]:
    """None where the run has one model."""
    if len(levels.by_model(summary)) < 2:
        return []
    return [plot for plot in (_at_one_load(summary), _against_load(summary)) if plot]


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
    return Plot(f"At {where}", note, panels, legend, [_table(rows, where)])


def _on_line(level: Level, point: trace.Point | None, place: int) -> trace.Point | None:
    if point is None:
        return None
    return replace(point, x=place, hover=f"{trace.hover(levels.model(level))}\n{point.hover}")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _table(rows: Sequence[Level], where: str) -> Table:
    columns: Columns = [
        (Column("model", left=True), lambda level: Cell(levels.model(level))),
        (Column("requests"), count("completed")),
        (Column("chars", "/s"), rate("characters_per_s")),
        (Column("tokens", "/s"), rate("output_tokens_per_s")),
        *times_of(levels.lead_name(rows[0]), Times.of(map(levels.lead, rows)), levels.lead, ("p50", "p95")),
    ]
    return table(f"Models at {where}", columns, rows)


def _against_load(summary: Summary) -> Plot | None:
    closed: dict[str, list[Level]] = {}
    for model, rows in levels.by_model(summary).items():
        own = [level for level in levels.by_load(levels.firsts(rows)) if not levels.is_open(level)]
        if len(own) > 1:
            closed[model] = own
    if len(closed) < 2:
        return None
    every = [level for rows in closed.values() for level in rows]
    lines = {model: [_characters(level) for level in rows] for model, rows in closed.items()}
    layout = {"xaxis": trace.load_axis(every), "yaxis": trace.rate_axis("characters/s")}
    columns: Columns = [
        (Column("level", left=True), lambda level: Cell(levels.label(level))),
        (Column("requests"), lambda level: Cell(units.count(level.get("completed")))),
        (Column("chars", "/s"), rate("characters_per_s")),
    ]
    tables = per_model("Characters per second", every, columns)
    note = "Characters per second of all streams together, with 95% intervals."
    return trace.compared("Characters per second against load", note, lines, layout, tables)
