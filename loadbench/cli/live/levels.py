"""The live picture's table: a line per model, its levels below it, sparklines beside their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from loadbench.cli.live.course import Course, Row, Search
from loadbench.cli.live.signs import NAME_MOST, Signs, append, short
from loadbench.cli.live.trace import lasting, spark
from loadbench.cli.live.words import pair

_GAP = 2  # between columns
_INDENT = 2  # of levels below their model
_SPARK_LEAST, _SPARK_MOST = 6, 24
_DROPPED = ("done", "times", "speeds", "took", "note", "per_s", "failed")
"""Columns that give way, the first one first, where the terminal is narrow."""


@dataclass(frozen=True, slots=True)
class _Gap:
    """Lines that the screen has no room for."""

    text: str


_Entry = str | Row | _Gap


def body(course: Course, width: int, room: int, signs: Signs) -> list[Text]:
    if room < 2:
        return []
    by_model = course.by_model()
    entries = _within(course, by_model, room - 1)
    rows = [entry for entry in entries if isinstance(entry, Row)]
    table = _Table(rows, course.is_search, width, signs)
    drawn = [table.head()]
    names = max((cell_len(signs.safe(entry)) for entry in entries if isinstance(entry, str)), default=0)
    for entry in entries:
        if isinstance(entry, str):
            drawn.append(_model(course, entry, by_model[entry], min(names, max(8, width // 2)), width, signs))
        elif isinstance(entry, Row):
            drawn.append(table.row(entry))
        else:
            drawn.append(Text(f"    {signs.cut} {entry.text}", style="dim"))
    return drawn


def _within(course: Course, by_model: Mapping[str, list[Row]], room: int) -> list[_Entry]:
    """Models, each with its levels; where there is no room, only those of the present one, and those around it."""
    entries: list[_Entry] = []
    if len(course.rows) + len(course.models) <= room:
        for model, rows in by_model.items():
            entries += [model, *rows]
        return entries
    present = course.present.level if course.present is not None else None
    model = present.model if present is not None else course.models[0] if course.models else ""
    levels = by_model.get(model, [])
    at = next((i for i, row in enumerate(levels) if present is not None and row.level.id == present.id), 0)
    others = len(course.models) - 1
    for_levels = min(len(levels), max(room - 1 - others, min(room - 1, max(3, room // 2))))
    shown = _around(levels, at, for_levels, "levels")
    of_models = _around(course.models, course.models.index(model) if levels else 0, room - len(shown), "models")
    for one in of_models:
        entries += [one, *shown] if one == model else [one]
    return entries


def _around(entries: Sequence[_Entry], at: int, room: int, what: str) -> list[_Entry]:
    """Those around one of them that there is room for; what is left out is counted on a line of its own."""
    if len(entries) <= room:
        return list(entries)
    if room < 3:
        return list(entries[at : at + min(1, max(0, room))])
    inside = room - 2
    first = max(0, min(at - inside // 2, len(entries) - inside))
    if first <= 1:  # a line that says "1 more" may as well be that one
        first, inside = 0, room - 1
    elif first + inside >= len(entries) - 1:
        first, inside = len(entries) - (room - 1), room - 1
    rest = len(entries) - first - inside
    above = [_Gap(f"{first} more {what} above")] if first else []
    below = [_Gap(f"{rest} more {what} below")] if rest else []
    return [*above, *entries[first : first + inside], *below]


def _model(course: Course, model: str, rows: Sequence[Row], names: int, width: int, signs: Signs) -> Text:
    """A model's line: how far it is, and the best of it."""
    going = any(row.state == "present" for row in rows)
    over = [row for row in rows if row.state not in ("to come", "present")]
    failed = sum(row.figures.failed for row in rows if row.figures is not None)
    search = course.searches.get(model)
    bad = any(row.state == "failed" for row in rows) or (bool(rows) and all(row.state == "skipped" for row in rows))
    if going:
        kind = "present"
    elif not over or (len(over) < len(rows) and not course.is_search):
        kind = "to come"
    else:
        kind = "failed" if bad else "complete"
    words = [(_search(search, rows), "dim")] if course.is_search else [(_count(rows, over, going), "dim")]
    words += [(f"{failed} failed", "red")] if failed else []
    words += [(_best(over), "dim")] if not course.is_search else []
    mark, style = signs.marks[kind]
    name = Text(short(signs.safe(model), names, signs.cut), "" if kind == "to come" else "bold")
    name.truncate(names, pad=True)
    line = append(Text.assemble((mark, style), " ", name), [word for word in words if word[0]], width)
    if kind == "to come":
        line.stylize("dim")
    return line


def _count(rows: Sequence[Row], over: Sequence[Row], going: bool) -> str:
    levels = f"{len(rows)} level{'s' if len(rows) != 1 else ''}"
    return f"{len(over)} of {levels}" if going or 0 < len(over) < len(rows) else levels


def _best(over: Sequence[Row]) -> str:
    done = [(row.figures.tokens_per_s, row.name) for row in over if row.figures is not None and row.figures.completed]
    if not done:
        return ""
    per_s, name = max(done)
    return f"best {per_s:,.1f} tokens/s at {name}"


def _search(search: Search | None, rows: Sequence[Row]) -> str:
    """As `between 4 and 8 streams`."""
    if search is None:
        return "search begins" if rows else ""
    unit = "requests/s" if rows and rows[0].level.concurrency is None else "streams"
    low, high = search.bracket
    if search.found is not None:
        return f"capacity {_load(search.found, unit)}"
    if low is None:
        return "" if high is None else f"less than {_load(high, unit)}"
    return f"at least {_load(low, unit)}" if high is None else f"from {low:g} to less than {_load(high, unit)}"


def _load(load: float, unit: str) -> str:
    return f"{load:g} {unit.removesuffix('s') if unit == 'streams' and load == 1 else unit}"


# -- the table of levels


class _Table:
    """Columns that are as wide as their cells, and sparklines in what is left."""

    def __init__(self, rows: Sequence[Row], search: bool, width: int, signs: Signs) -> None:
        self._signs = signs
        names = [signs.safe(row.name) for row in rows]
        self._name = min(max([5, *map(cell_len, names)]), NAME_MOST, max(5, width // 4))
        timed = next((row.figures.timed for row in reversed(rows) if row.figures is not None), "TTFT")
        heads = {"speeds": "", "per_s": "tokens/s", "times": "", "took": f"{timed} p50/p95"}
        heads |= {} if search else {"done": "done"}
        heads |= {"failed": "fail"} | ({"note": "SLO"} if search else {})
        self._cells = {id(row): self._of(row) for row in rows}
        wide = {
            name: max([cell_len(head), *(cell_len(cells.get(name, "")) for cells in self._cells.values())])
            for name, head in heads.items()
        }
        wide |= {"speeds": _SPARK_LEAST, "times": _SPARK_LEAST}
        self._lead = _INDENT + 2 + self._name
        for name in _DROPPED:
            if self._lead + sum(wide.values()) + _GAP * len(wide) <= width:
                break
            wide.pop(name, None)
        sparks = [name for name in ("speeds", "times") if name in wide]
        left = width - self._lead - sum(wide.values()) - _GAP * len(wide)
        for name in sparks:
            wide[name] = min(_SPARK_MOST, _SPARK_LEAST + left // len(sparks))
        self._heads, self._wide = heads, wide

    def head(self) -> Text:
        line = Text(set_cell_size("level", self._lead), style="dim")
        for name, wide in self._wide.items():
            line.append(" " * _GAP + _aligned(name, self._heads[name], wide))
        return line

    def row(self, row: Row) -> Text:
        signs = self._signs
        verdict = {"not met": "failed", "undecided": "undecided"}.get(row.note) if row.state == "complete" else None
        mark, style = signs.marks[verdict or row.state]
        name = set_cell_size(short(signs.safe(row.name), self._name, signs.cut), self._name)
        line = Text.assemble(" " * _INDENT, (mark, style), " ", (name, "bold" if row.state == "present" else ""))
        if row.state == "to come":
            line.stylize("dim")
            return line
        if row.figures is None:
            line.append(" " * _GAP + signs.safe(row.note), "yellow")
            return line
        cells = self._cells[id(row)]
        for column, wide in self._wide.items():
            line.append(" " * _GAP)
            if column in ("speeds", "times"):
                line.append(self._spark(row, column, wide), "cyan" if column == "speeds" else "magenta")
            else:
                red = column == "failed" and row.figures.failed
                line.append(_aligned(column, cells.get(column, ""), wide), "bold red" if red else "")
        return line

    def _of(self, row: Row) -> dict[str, str]:
        figures = row.figures
        if figures is None:
            return {}
        speed = figures.tokens_per_s
        return {
            "per_s": f"{speed:,.1f}" if speed < 100 else f"{speed:,.0f}",
            "took": pair(figures.p50_us, figures.p95_us),
            "done": str(figures.completed),
            "failed": str(figures.failed),
            "note": row.note,
        }

    def _spark(self, row: Row, column: str, wide: int) -> str:
        cells = row.trace.cells(wide) if row.trace is not None else ()
        values = (
            [cell.tokens_per_s for cell in cells] if column == "speeds" else lasting([cell.mean_us for cell in cells])
        )
        return spark(values, self._signs.ramp).ljust(wide)


def _aligned(column: str, text: str, wide: int) -> str:
    return text.ljust(wide) if column in ("speeds", "times", "note") else text.rjust(wide)
