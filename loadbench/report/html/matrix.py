"""Several runs in one page: models by levels by devices by hosts, as tables whose cells are shaded, and as plots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import log

from loadbench import text as units
from loadbench.report import headline, levels, provenance
from loadbench.report.breakdowns import device_words
from loadbench.report.document import (
    Block,
    Cell,
    Column,
    Document,
    Facts,
    Findings,
    Plot,
    Section,
    Text,
    Title,
    interval,
    table,
)
from loadbench.report.html import trace
from loadbench.report.html.markup import Markup, tag
from loadbench.report.html.page import scrolled
from loadbench.report.levels import Level, Summary
from loadbench.report.run import NOTHING, definitions, gates
from loadbench.report.tables import Columns, count
from loadbench.text import bare_url, one_line

SHADES = 5
_FEWEST_RATIO = 1.02
"""Figures that differ by less are not told apart by shades."""
Named = Sequence[tuple[str, Summary]]
"""Runs by the names of their folders."""
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
        return ", ".join(part for part in (self.model, self.device, self.host, self.run) if part)


@dataclass(frozen=True, slots=True)
class Value:
    figure: float | None
    ends: tuple[float, float] | None
    n: int | None


@dataclass(frozen=True, slots=True)
class Figure:
    """What a table of the matrix shows: where a level holds it and which way is better."""

    title: str
    unit: str
    more_is_better: bool
    of: Callable[[Level], Value]


def _rate(name: str) -> Callable[[Level], Value]:
    return lambda level: Value(level.get(name), trace.both(levels.bounds(level, name)), level.get("completed"))


def _lead(statistic: str) -> Callable[[Level], Value]:
    return lambda level: _percentile(levels.lead(level), statistic)


def _percentile(metric: levels.Record, statistic: str) -> Value:
    return Value(metric.get(statistic), levels.interval(metric, statistic), metric.get("n"))


CHARACTERS = Figure("Characters per second", "characters/s", True, _rate("characters_per_s"))
MEDIAN = Figure("Median TTFT", "ms", False, _lead("p50"))
TAIL = Figure("TTFT p95", "ms", False, _lead("p95"))
SHOWN = (
    CHARACTERS,
    Figure("Tokens per second", "tokens/s", True, _rate("output_tokens_per_s")),
    MEDIAN,
    TAIL,
    Figure("Gaps p99", "ms", False, lambda level: _percentile(levels.distribution(level, "itl_ms"), "p99")),
)


def document(runs: Named) -> Document:
    lines = _lines(runs)
    loads = sorted(set(chain.from_iterable(line.levels for line in lines)))
    matrix: list[Block] = [tag("p", _about(lines, loads, runs))]
    matrix += [_table(figure, lines, loads) for figure in SHOWN if _figures(figure, lines)]
    verdicts, doubts, origins = [], [], []
    for name, summary in runs:
        verdicts.append(Text(name, headline.lines(summary)))
        doubts.append(Findings(name, gates(summary), f"{name}: {NOTHING}"))
        facts = provenance.facts(summary)
        date = provenance.date(summary)
        origins.append(Facts(name, [("date", date), *facts] if date else facts))
    sections = [
        Section("matrix", "All runs", matrix),
        Section("plots", "Side by side", _plots(lines)),
        Section("verdicts", "Each run in short", verdicts),
        Section("validity", "Can they be trusted?", doubts),
        Section("origin", "How they were got", origins),
        Section("more", "More", [definitions()]),
    ]
    dates = [date for _, summary in runs if (date := provenance.date(summary))]
    when = f"{min(dates)} to {max(dates)}" if len(set(dates)) > 1 else "".join(dates[:1])
    simulated = any(levels.is_simulated(summary) for _, summary in runs)
    title = Title(f"{len(runs)} runs", date=when, simulated=provenance.SIMULATED if simulated else "")
    return Document(title, [section for section in sections if section.blocks])


def _lines(runs: Named) -> list[Line]:
    hosts = [_host(summary) for _, summary in runs]
    several_hosts = len(set(hosts)) > 1
    found = []
    for (run, summary), host in zip(runs, hosts, strict=True):
        for model, rows in levels.by_model(summary).items():
            by_load = {(levels.is_open(level), levels.load(level)): level for level in reversed(levels.firsts(rows))}
            ran = device_words(rows[0])
            found.append(Line(model, "" if ran == model else ran, host if several_hosts else "", run, by_load))
    return found


def _host(summary: Summary) -> str:
    """The machine that served, as far as it is told: the client's where the server runs on it."""
    run = levels.run_of(summary)
    if (run.get("telemetry") or {}).get("local") is False:
        return bare_url((run.get("target") or {}).get("base_url") or "elsewhere")
    machine = run.get("environment") or {}
    return one_line(machine.get("hostname") or machine.get("cpu") or "this machine", 60)


def _about(lines: Sequence[Line], loads: Sequence[Load], runs: Named) -> str:
    counts = [
        units.plural(len({line.model for line in lines}), "model"),
        units.plural(len(loads), "load"),
        units.plural(len({line.device for line in lines}), "device"),
        units.plural(len({_host(summary) for _, summary in runs}), "host"),
    ]
    return (
        f"{units.plural(len(runs), 'run')}: {', '.join(counts)}. Stronger shades are better, within each table; "
        "[lo–hi] are 95% intervals, n requests. Compare only what was asked the same."
    )


# -- shaded tables


def _every(lines: Iterable[Line]) -> list[Level]:
    return list(chain.from_iterable(line.levels.values() for line in lines))


def _figures(figure: Figure, lines: Iterable[Line]) -> list[float]:
    values = [figure.of(level).figure for level in _every(lines)]
    return [float(value) for value in values if value is not None]


def _table(figure: Figure, lines: Sequence[Line], loads: Sequence[Load]) -> Markup:
    known = _figures(figure, lines)
    fixed = [name for name in ("device", "host", "run") if any(getattr(line, name) for line in lines)]
    heads = [tag("th", name, scope="col", class_="left") for name in ("model", *fixed)]
    for opened, load in loads:
        heads.append(tag("th", f"{load:g} req/s" if opened else f"c{load:g}", scope="col"))
    rows = []
    for line in lines:
        cells = [tag("th", line.model, scope="row", class_="left")]
        cells += [tag("td", getattr(line, name), class_="left") for name in fixed]
        cells += [_shaded(figure, line.levels.get(load), known) for load in loads]
        rows.append(tag("tr", cells))
    title = figure.title
    if figure in (MEDIAN, TAIL) and not all(map(levels.is_stream, _every(lines))):
        title += " (of whole answers: E2E)"
    name = f"{title}, {figure.unit}"
    head, body = tag("thead", tag("tr", heads)), tag("tbody", rows)
    return scrolled(name, tag("table", tag("caption", name), head, body, class_="matrix"))


def _shaded(figure: Figure, level: Level | None, known: Sequence[float]) -> Markup:
    value = Value(None, None, None) if level is None else figure.of(level)
    if value.figure is None:
        return tag("td", units.ABSENT, class_="none")
    small = [tag("small", f"[{interval(*value.ends)}]")] if value.ends else []
    small.append(tag("small", f"n {units.count(value.n)}"))
    shade = _shade(float(value.figure), known, more_is_better=figure.more_is_better)
    return tag("td", units.figure(float(value.figure)), small, class_=f"shade{shade}")


def _shade(value: float, known: Sequence[float], *, more_is_better: bool) -> int:
    """0 for the worst to 4 for the best, on a logarithmic scale."""
    low, high = min(known), max(known)
    if value <= 0 or low <= 0 or high / low < _FEWEST_RATIO:
        return 0
    share = log(value / low) / log(high / low)
    return min(int((share if more_is_better else 1 - share) * SHADES), SHADES - 1)


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
    columns: Columns = [
        (Column("level", left=True), lambda level: Cell(levels.label(level))),
        (Column("requests"), count("completed")),
        (Column("chars", "/s"), lambda level: _cell(CHARACTERS.of(level))),
        (Column(f"{kind} p50", "ms"), lambda level: _cell(MEDIAN.of(level))),
    ]
    characters, waits, tables = {}, {}, []
    for name, rows in closed.items():
        characters[name] = [trace.rate(level, "characters_per_s", "characters/s") for level in rows]
        waits[name] = [trace.percentile(level, levels.lead(level), "p50", kind) for level in rows]
        tables.append(table("Side by side", columns, rows, model=name))
    loads = trace.load_axis(list(chain.from_iterable(closed.values())))
    axis = trace.value_axis(f"median {kind}, ms", [trace.line(points) for points in waits.values()])
    rates = {"xaxis": loads, "yaxis": trace.rate_axis("characters/s")}
    return [
        trace.compared("Characters per second", "With 95% intervals.", characters, rates, tables),
        trace.compared(
            f"Median {kind}", "With 95% intervals; logarithmic.", waits, {"xaxis": loads, "yaxis": axis}, tables
        ),
    ]


def _cell(value: Value) -> Cell:
    return Cell(units.figure(value.figure), interval(*(value.ends or (None, None))))
