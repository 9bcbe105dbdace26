"""Tables as HTML: the same cells, marks and notes as on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from loadbench import text as units
from loadbench.report.html.markup import Markup, joined, tag
from loadbench.report.tables import Cell, Column, Table

FEW = "too few requests for a 95% interval"
NARROW = "requests may resemble their neighbours: the 95% interval may be too narrow"


def block(found: Sequence[Table], *, heading: bool = True) -> Markup:
    """One heading over a table a model, then what the tables note, said once."""
    if not found:
        return Markup("")
    several = len(found) > 1
    seen = list(dict.fromkeys(note for one in found for note in one.notes))
    return tag(
        "div",
        tag("h3", found[0].title) if heading else None,
        [table(one, caption=str(one.model) if several or not heading else None) for one in found],
        notes(seen),
        class_="block",
    )


def table(found: Table, caption: str | None = None) -> Markup:
    """One table; it scrolls in itself where it is wider than the page. Its caption is for screen readers if unset."""
    name = f"{found.title}, {found.model}" if found.model else found.title
    shown = caption if caption and caption != "None" else None
    rows = [
        tag("tr", [_cell(cell, column, i) for i, (cell, column) in enumerate(zip(row, found.columns, strict=True))])
        for row in found.rows
    ]
    grid = tag(
        "table",
        tag("caption", shown or name, class_=None if shown else "unseen"),
        tag("thead", tag("tr", [_head(column) for column in found.columns])),
        tag("tbody", rows),
    )
    return tag("div", grid, class_="scroll", role="region", aria_label=name, tabindex="0")


def notes(lines: Sequence[str]) -> Markup:
    return tag("ul", [tag("li", line) for line in lines], class_="notes") if lines else Markup("")


def _head(column: Column) -> Markup:
    if column.unit.startswith("/"):
        return tag("th", column.name + column.unit, scope="col", class_="left" if column.left else None)
    unit = tag("span", column.unit, class_="unit") if column.unit else None
    return tag("th", column.name, " " if unit else None, unit, scope="col", class_="left" if column.left else None)


def _cell(cell: Cell, column: Column, place: int) -> Markup:
    mark = tag("abbr", "*", class_="mark", title=NARROW if cell.doubtful else FEW) if cell.marked else None
    interval = [" ", tag("span", f"[{cell.interval}]", class_="ci")] if cell.interval else None
    words = joined([cell.text, mark, interval])
    if place == 0 and column.left:
        return tag("th", words, scope="row", class_="left")
    kinds = (column.left and "left", cell.text == "NO" and "bad", cell.text == units.ABSENT and "none")
    return tag("td", words, class_=" ".join(kind for kind in kinds if kind) or None)
