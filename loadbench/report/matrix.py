"""Several runs in one page: models by levels by devices by hosts, as tables whose cells are shaded, and as plots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import log

from loadbench import text as units
from loadbench.report import document as doc
from loadbench.report import html, levels, page, provenance, run, tables
from loadbench.report.breakdowns import device_words
from loadbench.report.document import Block, Cell, Column, Columns, Document, Plot, Section, interval
from loadbench.report.html import Markup, tag, trace
from loadbench.report.levels import Record
from loadbench.store.schema import EnvironmentFacts
from loadbench.store.summary import Distribution, Interval, Level, Summary
from loadbench.text import bare_url, one_line

SHADES = 5
_FEWEST_RATIO = 1.02
"""Figures that differ by less have one shade."""
Load = tuple[bool, float]
"""Whether it is of an open loop, and the load."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the matrix: a model on a device of a host in a run, its levels by load."""

    model: str
    device: str
    host: str
    run: str
    levels: dict[Load, Level]

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (self.model, self.device, self.host, self.run)))


@dataclass(frozen=True, slots=True)
class Value:
    figure: float | None
    ends: Interval | None
    n: int | None


@dataclass(frozen=True, slots=True)
class Figure:
    """What a table of the matrix shows: where a level holds it and which way is better."""

    title: str
    unit: str
    more_is_better: bool
    of: Callable[[Level], Value]


def _percentile(metric: Distribution, statistic: str) -> Value:
    return Value(metric.at(statistic), levels.interval(metric, statistic), metric.n)


CHARACTERS = Figure(
    "Characters per second",
    "characters/s",
    True,
    lambda level: Value(level.characters_per_s, level.characters_per_s_ci95, level.completed),
)
MEDIAN = Figure("Median TTFT", "ms", False, lambda level: _percentile(levels.lead(level), "p50"))
TAIL = Figure("TTFT p95", "ms", False, lambda level: _percentile(levels.lead(level), "p95"))
SHOWN = (
    CHARACTERS,
    Figure(
        "Tokens per second",
        "tokens/s",
        True,
        lambda level: Value(level.output_tokens_per_s, level.output_tokens_per_s_ci95, level.completed),
    ),
    MEDIAN,
    TAIL,
    Figure("Inter-token latency p99", "ms", False, lambda level: _percentile(level.itl_ms or levels.NOTHING, "p99")),
)


def document(records: Sequence[tuple[str, Record]]) -> Document:
    """Summaries of runs, each with the name of its folder."""
    runs = [(name, levels.read(record)) for name, record in records]
    hosts = [_host(summary) for _, summary in runs]
    lines = []
    for (name, summary), host in zip(runs, hosts, strict=True):
        for model, rows in levels.by_model(levels.of(summary)).items():
            by_load = {(level.is_open, levels.load(level)): level for level in reversed(levels.firsts(rows))}
            ran = device_words(rows[0])
            shown_host = host if len(set(hosts)) > 1 else ""
            lines.append(Line(model, "" if ran == model else ran, shown_host, name, by_load))
    loads = sorted(set(chain.from_iterable(line.levels for line in lines)))
    counts = [
        units.plural(len({line.model for line in lines}), "model"),
        units.plural(len(loads), "load"),
        units.plural(len({line.device for line in lines}), "device"),
        units.plural(len(set(hosts)), "host"),
    ]
    about = (
        f"{units.plural(len(runs), 'run')}: {', '.join(counts)}. Stronger shades are better, at one load; "
        "[lo–hi] are 95% intervals, n requests. Compare only what was asked the same."
    )
    matrix: list[Block] = [doc.Html(tag("p", about))]
    matrix += [doc.Html(_table(figure, lines, loads)) for figure in SHOWN if _figures(figure, lines)]
    verdicts, doubts, origins, dates = [], [], [], []
    for name, summary in runs:
        verdicts.append(doc.Text(name, run.models(summary)))
        doubts.append(doc.Findings(name, run.gates(summary), f"{name}: {run.NOTHING}"))
        facts = provenance.facts(summary)
        date = provenance.date(summary)
        origins.append(doc.Facts(name, [("date", date), *facts] if date else facts))
        if date:
            dates.append(date)
    sections = [
        Section("matrix", "All runs", matrix),
        Section("plots", "Side by side", _plots(lines)),
        Section("verdicts", "Each run in short", verdicts),
        Section("validity", "Can they be trusted?", doubts),
        Section("origin", "Run details", origins),
        Section("more", "More", [run.definitions()]),
    ]
    when = f"{min(dates)} to {max(dates)}" if len(set(dates)) > 1 else "".join(dates[:1])
    simulated = any(levels.is_simulated(summary) for _, summary in runs)
    title = doc.Title(f"{len(runs)} runs", date=when, simulated=provenance.SIMULATED if simulated else "")
    return Document(title, [section for section in sections if section.blocks])


def _host(summary: Summary) -> str:
    """The machine that served, as far as that is known: the client's where the server runs on it."""
    facts = levels.facts(summary)
    if facts.telemetry and facts.telemetry.local is False:
        return bare_url((facts.target.base_url if facts.target else None) or "elsewhere")
    return one_line((facts.environment or EnvironmentFacts()).cpu or "this machine", 60)


# -- shaded tables


def _every(lines: Iterable[Line]) -> list[Level]:
    return list(chain.from_iterable(line.levels.values() for line in lines))


def _figures(figure: Figure, lines: Iterable[Line]) -> list[float]:
    values = [figure.of(level).figure for level in _every(lines)]
    return [float(value) for value in values if value is not None]


def _table(figure: Figure, lines: Sequence[Line], loads: Sequence[Load]) -> Markup:
    # By load, so that the shades of a column rank its models.
    values: dict[Load, list[float]] = {}
    for at in loads:
        there = (figure.of(line.levels[at]).figure for line in lines if at in line.levels)
        values[at] = [float(value) for value in there if value is not None]
    fixed = [name for name in ("device", "host", "run") if any(getattr(line, name) for line in lines)]
    heads = [tag("th", name, scope="col", class_="left") for name in ("model", *fixed)]
    for opened, load in loads:
        heads.append(tag("th", f"{load:g} req/s" if opened else f"c{load:g}", scope="col"))
    rows = []
    for line in lines:
        cells = [tag("th", line.model, scope="row", class_="left")]
        cells += [tag("td", getattr(line, name), class_="left") for name in fixed]
        cells += [_shaded(figure, line.levels.get(at), values[at]) for at in loads]
        rows.append(tag("tr", cells))
    title = figure.title
    if figure in (MEDIAN, TAIL) and not all(map(levels.is_stream, _every(lines))):
        title += " (of whole answers: E2E)"
    name = f"{title}, {figure.unit}"
    return html.grid(name, tag("caption", name), heads, rows, class_="matrix")


def _shaded(figure: Figure, level: Level | None, values: Sequence[float]) -> Markup:
    """Shade 0 is for the worst of the values, 4 for the best, on a logarithmic scale; a value alone has none."""
    value = Value(None, None, None) if level is None else figure.of(level)
    if value.figure is None:
        return tag("td", units.ABSENT, class_="none")
    ends = interval(value.ends)
    small = [tag("small", f"[{ends}]")] if ends else []
    small.append(tag("small", f"n {units.count(value.n)}"))
    low, high = min(values), max(values)
    shade = 0
    if value.figure > 0 and low > 0 and high / low >= _FEWEST_RATIO:
        share = log(value.figure / low) / log(high / low)
        shade = min(int((share if figure.more_is_better else 1 - share) * SHADES), SHADES - 1)
    return tag("td", units.figure(float(value.figure)), small, class_=f"shade{shade}")


# -- plots


def _plots(lines: Sequence[Line]) -> list[Plot]:
    closed: dict[str, list[Level]] = {}
    for line in lines:
        rows = [level for (opened, _), level in sorted(line.levels.items()) if not opened]
        if len(rows) > 1:
            closed[line.name] = rows
    if not closed:
        return []
    kind = levels.lead_name(next(iter(closed.values()))[0])
    columns: Columns[Level] = [
        (Column("level", left=True), lambda level: Cell(levels.label(level))),
        tables.REQUESTS,
        tables.CHARS_SURE,
        (Column(f"{kind} p50", "ms"), lambda level: doc.Times().cell(levels.lead(level), "p50")),
    ]
    characters, waits, same = {}, {}, []
    for name, rows in closed.items():
        characters[name] = [trace.characters(level) for level in rows]
        waits[name] = [trace.percentile(level, levels.lead(level), "p50", kind) for level in rows]
        same.append(doc.table("Side by side", columns, rows, model=name))
    loads = trace.load_axis(list(chain.from_iterable(closed.values())))
    axis = trace.value_axis(f"median {kind}, ms", [trace.line(points) for points in waits.values()])
    rates = {"xaxis": loads, "yaxis": trace.rate_axis("characters/s")}
    times = {"xaxis": loads, "yaxis": axis}
    note = "With 95% intervals; logarithmic."
    groups = [page.Group(name, levels.firsts(rows)) for name, rows in closed.items()]
    return [
        *page.frontier(groups),
        trace.compared("Characters per second", "With 95% intervals.", characters, rates, same),
        trace.compared(f"Median {kind}", note, waits, times, same),
    ]
