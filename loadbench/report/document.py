"""What a report is made of: sections of blocks, composed once for each subject and rendered once for each format.

`run.py`, `comparison.py`, `choice.py` and `listing.py` compose; `text.py`, `markdown.py` and `html/` render.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal, TypeVar

from loadbench import text as units
from loadbench.report import levels
from loadbench.store.summary import Distribution, Interval

Tone = Literal["", "good", "bad", "unsure"]
Sign = Literal["line", "dash", "dot", "point", "square", "diamond", "hollow", "bar", "ramp", "triangle", "cross", "x"]
Row = TypeVar("Row")

SECONDS_FROM_MS = 10_000.0
MILLISECONDS_TO_MS = 100.0
"""A group of times is in s when the largest reaches the first and none is below the second; one unit a group, so that
columns can be scanned."""


# -- tables


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure: its text, its 95% interval ("205–216") or "", and whether it rests on too few requests.

    A cell is doubtful where its mark says that the interval may be too narrow, not that it is missing.
    """

    text: str
    interval: str = ""
    marked: bool = False
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """Text is aligned to the left, figures to the right. A unit that begins with "/" belongs to the name."""

    name: str
    unit: str = ""
    left: bool = False
    short: str = ""
    """The head on a terminal, where that must be shorter."""


Columns = list[tuple[Column, Callable[[Row], Cell]]]
"""Columns, each with what reads its cell off a row."""


@dataclass(frozen=True, slots=True)
class Table:
    """A title, its columns, rows of as many cells, and notes beneath. `model` is None where a column names it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    model: str | None = None

    def with_columns(self, places: Sequence[int]) -> Table:
        rows = []
        for row in self.rows:
            rows.append(tuple(row[i] for i in places))
        return replace(self, columns=tuple(self.columns[i] for i in places), rows=tuple(rows))


def table(
    title: str, columns: Columns[Row], rows: Iterable[Row], notes: Sequence[str] = (), model: str | None = None
) -> Table:
    cells = []
    for row in rows:
        cells.append(tuple(read(row) for _, read in columns))
    return Table(title, tuple(column for column, _ in columns), tuple(cells), tuple(notes), model)


def cells_of(tables: Iterable[Table], place: int) -> list[Cell]:
    """A column of all of them."""
    cells = []
    for one in tables:
        cells += [row[place] for row in one.rows]
    return cells


def notes_of(tables: Iterable[Table]) -> list[str]:
    """Their notes, each once."""
    return list(dict.fromkeys(chain.from_iterable(one.notes for one in tables)))


def without_unknown(tables: Sequence[Table], fixed: int = 1) -> list[Table]:
    """The same tables without the columns of which no cell of any of them is known; none where only names are left.

    Args:
        fixed: Columns from the left that name a row.
    """
    if not tables:
        return []
    kept = list(range(len(tables[0].columns)))
    for place in kept[fixed:]:
        # Of all models at once: their tables stand beneath one another, with the same columns.
        if all(cell.text == units.ABSENT for cell in cells_of(tables, place)):
            kept.remove(place)
    if len(kept) == fixed:
        return []
    return [one.with_columns(kept) for one in tables]


# -- cells


def count(value: float | None) -> Cell:
    return Cell(units.count(value))


def figure(value: float | None, ends: Interval | None = None) -> Cell:
    return Cell(units.figure(value), interval(ends))


def share(value: float | None, ends: Interval | None = None) -> Cell:
    return Cell(units.share(value), interval(ends, units.share))


def interval(ends: Interval | None, shown: Callable[[float | None], str] = units.figure) -> str:
    """The ends of an interval; "" where one of them does not exist.

    >>> interval([205.0, 216.0]), interval([None, 3.0]), interval(None)
    ('205–216', '', '')
    """
    if not ends or None in ends:
        return ""
    return "–".join(map(shown, ends))


@dataclass(frozen=True, slots=True)
class Times:
    """Formats a group of times of one table in one unit."""

    unit: str = "ms"
    scale: float = 1.0

    @classmethod
    def over(cls, values_ms: Iterable[float | None]) -> Times:
        known = [value for value in values_ms if value is not None]
        # Neither 12,345.6 ms nor 0.0012 s: in seconds only where the smallest has digits left there.
        if known and max(known) >= SECONDS_FROM_MS and min(known) >= MILLISECONDS_TO_MS:
            return cls("s", 1000.0)
        return cls()

    @classmethod
    def of(cls, metrics: Iterable[Distribution | None]) -> Times:
        values_ms: list[float | None] = []
        for metric in metrics:
            if metric is not None and metric.p50 is not None:
                values_ms += [metric.p50, metric.p99]
        return cls.over(values_ms)

    def value(self, ms: float | None) -> Cell:
        if ms is None:
            return Cell(units.ABSENT)
        return Cell(units.figure(float(ms) / self.scale))

    def cell(self, metric: Distribution | None, statistic: str) -> Cell:
        """A percentile with its interval; of few requests the lower end may be all that there is of it."""
        if metric is None or (value := metric.at(statistic)) is None:
            return Cell(units.ABSENT)
        low, high = levels.ends(metric, statistic)
        interval = "–".join(units.figure(end / self.scale) for end in (low, high) if end is not None)
        if low is not None and high is None:
            interval = f"≥ {interval}"
        doubtful = levels.is_doubtful(metric, statistic)
        marked = doubtful or levels.is_marked(metric, statistic)
        return replace(self.value(value), interval=interval, marked=marked, doubtful=doubtful)


# -- plots


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend: what a sign means. Colours are named as in traces."""

    text: str
    sign: Sign = "line"
    color: str = "@0"


Trace = dict[str, Any]
"""Plotly's, with colours as names that the page's theme resolves ("@0" to "@5", "@muted", "@bad", "@ramp0.5",
"@0/0.2")."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot. Its title is "" where the figure's title says all; its label is for those who cannot see it.

    `layout` is plotly's, over what the page sets; the height is in pixels.
    """

    title: str
    label: str
    traces: Sequence[Trace]
    layout: Trace
    height: int = 300


@dataclass(frozen=True, slots=True)
class Plot:
    """Plots of one kind side by side, their legend, and the same figures as tables. A page alone draws them."""

    title: str
    note: str
    panels: Sequence[Panel]
    legend: Sequence[Key] = ()
    tables: Sequence[Table] = ()
    wide: bool = False


# -- blocks


@dataclass(frozen=True, slots=True)
class Title:
    """What a document is of: its text, before a name that somebody else made, and where and when it was measured.

    `simulated` is the warning that figures come from the simulator. A terminal leaves out a quiet title, as the first
    line of the report says it.
    """

    text: str
    name: str = ""
    program: str = "loadbench"
    date: str = ""
    about: str = ""
    simulated: str = ""
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence with its full stop, after the name of a model; `doubt` says why it may be no basis for a verdict.

    A strong one leads; one beneath belongs to the line before it.
    """

    text: str
    name: str = ""
    doubt: str = ""
    strong: bool = False
    tone: Tone = ""
    beneath: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """A list of sentences; `sign` is before each on a terminal."""

    title: str
    lines: Sequence[Line]
    sign: str = "●"

    @classmethod
    def of(cls, title: str, lines: Iterable[str], sign: str = "-") -> Text:
        return cls(title, list(map(Line, lines)), sign)


@dataclass(frozen=True, slots=True)
class Small:
    """Words beneath a report: how it was computed."""

    title: str
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and texts; a name that repeats the one above it is printed once on a terminal."""

    title: str
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Tables:
    """Tables of one kind, one a model: one heading above them, and their notes beneath, each once."""

    tables: Sequence[Table]


@dataclass(frozen=True, slots=True)
class Finding:
    """Why not to trust figures, or not wholly: label ("V8 red", or ""), name of the check, texts with their places.

    Its severity is red (no basis for a verdict), warn or note; a place "" is everywhere.
    """

    label: str
    severity: str
    texts: Sequence[tuple[str, str]]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What speaks against figures, the worst first; `none` is what a page says where nothing does."""

    title: str
    findings: Sequence[Finding]
    none: str = ""


@dataclass(frozen=True, slots=True)
class Details:
    """Blocks that unfold on a click, long and not what a reader came for; a terminal shows the hint alone."""

    title: str
    blocks: Sequence[Block]
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Only:
    """Blocks that one format alone shows."""

    format: Literal["text", "markdown"]
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Html:
    """An element of a page, as `html.tag` builds it; the other formats show none of it."""

    markup: str


Block = Title | Text | Small | Facts | Tables | Findings | Plot | Details | Only | Html


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks that belong together; a page alone shows its title, and has it among its contents.

    Attributes:
        id: Of its element, and the address of its heading.
        data: What `script` reads, as JSON: `loadbench.data("<id>")` in the browser.
        script: JavaScript that runs once the page is there. It must build no HTML of data: text goes by `textContent`.
        style: CSS of this section.
        folded: Of one that unfolds on a click, whether it is folded at first; None of one that is always open.
    """

    id: str
    title: str
    blocks: Sequence[Block]
    data: Mapping[str, object] = field(default_factory=dict)
    script: str = ""
    style: str = ""
    folded: bool | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A report, or a part of one that has a title of its own."""

    title: Title | None
    sections: Sequence[Section]
    verdict_again: bool = False
    """Whether a terminal repeats the first sentences at the end: by then the beginning has scrolled away."""

    def blocks(self) -> Iterable[Block]:
        for section in self.sections:
            yield from section.blocks


def tables_of(*groups: Sequence[Table] | Table | None) -> list[Tables]:
    """Blocks of those groups of tables that are not empty."""
    blocks = []
    for group in groups:
        if isinstance(group, Table):
            blocks.append(Tables([group]))
        elif group:
            blocks.append(Tables(group))
    return blocks
