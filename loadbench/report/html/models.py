"""Models and devices side by side: at the same load, and held against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadbench import text as units
from loadbench.report import devices, levels
from loadbench.report.comparison import of_run
from loadbench.report.html import trace
from loadbench.report.html.markup import tag
from loadbench.report.html.scaling import compared, firsts, rated
from loadbench.report.html.section import Figure, Key, Panel, Section
from loadbench.report.levels import Level, Summary
from loadbench.report.tables import Cell, Column, Table, Times

_LINE_PX, _EDGES_PX = 26, 90
_LONGEST_NAME = 34


def section(summary: Summary) -> Section | None:
    """None where the run has one model on one device."""
    rows = levels.by_model(summary)
    tables = devices.side_by_side(summary)
    if len(rows) < 2 and not tables:
        return None
    body: list[Any] = []
    lines = of_run.sentences(summary)
    if lines:
        body += [
            tag("h3", of_run.TITLE),
            tag("ul", [tag("li", line[:1].upper() + line[1:]) for line in lines], class_="said"),
        ]
        body += [of_run.means(summary)]
    if len(rows) > 1:
        body += [figure for figure in (_at_one_load(summary), _characters(summary)) if figure]
    return Section("models", "Models side by side", [*body, *([table] for table in tables)])


def _common(summary: Summary) -> list[Level]:
    """Each model's first level at the highest load that most models were measured at."""
    found: dict[tuple[bool, float], list[Level]] = {}
    for rows in levels.by_model(summary).values():
        for level in firsts(rows):
            if level.get("completed"):
                found.setdefault((levels.is_open(level), levels.load(level)), []).append(level)
    return max(found.items(), key=lambda item: (len(item[1]), item[0][1]), default=((False, 0.0), []))[1]


def _at_one_load(summary: Summary) -> Figure | None:
    rows = _common(summary)
    if len(rows) < 2:
        return None
    kind, where = levels.lead_name(rows[0]), levels.load_words(rows[0])
    ordered = sorted(rows, key=lambda level: float(level.get("characters_per_s") or 0.0))
    names = [_short(str(level.get("model"))) for level in ordered]
    height = _EDGES_PX + _LINE_PX * len(rows)
    text = [_across(level, trace.rate(level, "characters_per_s", "characters/s"), i) for i, level in enumerate(ordered)]
    times = [
        [
            _across(level, trace.point(level, levels.lead(level), p, kind, "requests"), i)
            for i, level in enumerate(ordered)
        ]
        for p in ("p50", "p95")
    ]
    waits = [
        trace.line(times[0], joined=False, across=True),
        trace.line(times[1], "@1", "square", joined=False, across=True),
    ]
    axis = {"tickvals": list(range(len(names))), "ticktext": [trace.words(name) for name in names], "automargin": True}
    axis |= {"range": [-0.7, len(names) - 0.3]}
    panels = [
        Panel(
            "Characters per second",
            f"Dot plot of characters per second at {where}, a model a line, the fastest on top.",
            [trace.line(text, joined=False, across=True)],
            {"xaxis": {"title": {"text": "characters/s"}, "rangemode": "tozero"}, "yaxis": axis},
            height,
        ),
        Panel(
            f"{kind}, median and p95",
            f"Dot plot of {kind} at {where}, a model a line, in the same order.",
            waits,
            {"xaxis": trace.value_axis(f"{kind}, ms", trace.reached(waits, "x")), "yaxis": axis},
            height,
        ),
    ]
    note = f"At {where}, with 95% intervals. Models cut text into tokens differently: characters compare."
    legend = [Key("characters/s, median", "point"), Key("p95", "square", "@1")]
    return Figure(f"At {where}", note, panels, legend, [_table(rows, where)])


def _across(level: Level, point: trace.Point | None, place: int) -> trace.Point | None:
    """A figure on the line of its model."""
    if point is None:
        return None
    said = f"{trace.said(str(level.get('model')))}\n{point.said}"
    return trace.Point(place, point.y, said, point.interval, point.marked)


def _characters(summary: Summary) -> Figure | None:
    """Characters per second of all models against load."""
    closed = {
        model: [one for one in firsts(rows) if not levels.is_open(one)]
        for model, rows in levels.by_model(summary).items()
    }
    closed = {model: sorted(rows, key=levels.load) for model, rows in closed.items() if len(rows) > 1}
    if len(closed) < 2:
        return None
    lines = {
        model: [trace.rate(level, "characters_per_s", "characters/s") for level in rows]
        for model, rows in closed.items()
    }
    layout = {
        "xaxis": trace.load_axis([level for rows in closed.values() for level in rows]),
        "yaxis": {"title": {"text": "characters/s"}, "rangemode": "tozero"},
    }
    note = "Characters per second of all streams together, with 95% intervals."
    return compared("Characters per second against load", note, lines, layout, _rates(closed))


def _table(rows: Sequence[Level], where: str) -> Table:
    kind = levels.lead_name(rows[0])
    times = Times.of([levels.lead(level) for level in rows])
    cells = tuple(
        (
            Cell(str(level.get("model"))),
            Cell(units.count(level.get("completed"))),
            rated(level, "characters_per_s"),
            rated(level, "output_tokens_per_s"),
            times.cell(levels.lead(level), "p50"),
            times.cell(levels.lead(level), "p95"),
        )
        for level in rows
    )
    columns = (
        Column("model", left=True),
        Column("requests"),
        Column("chars", "/s"),
        Column("tokens", "/s"),
        Column(f"{kind} p50", times.unit),
        Column(f"{kind} p95", times.unit),
    )
    return Table(f"Models at {where}", columns, cells)


def _rates(closed: dict[str, list[Level]]) -> list[Table]:
    columns = (Column("level", left=True), Column("requests"), Column("chars", "/s"))
    return [
        Table("Characters per second", columns, tuple(_row(level) for level in rows), model=model)
        for model, rows in closed.items()
    ]


def _row(level: Level) -> tuple[Cell, ...]:
    counted = Cell(units.count(level.get("completed")))
    return Cell(levels.label(level)), counted, rated(level, "characters_per_s")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
