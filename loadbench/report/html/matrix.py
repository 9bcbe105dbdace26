"""Several runs in one page: models by levels by devices by hosts, as tables whose cells are shaded, and as plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from loadbench import text as units
from loadbench.report import devices, headline, levels, notes, provenance
from loadbench.report.html import grid, trace
from loadbench.report.html.markup import Markup, tag
from loadbench.report.html.scaling import compared, firsts
from loadbench.report.html.section import Section
from loadbench.report.levels import Level, Summary
from loadbench.report.tables import Cell, Column, Table
from loadbench.text import bare_url, one_line

SHADES = 5
_FEWEST_RATIO = 1.02
"""Figures that differ by less are not told apart by shades."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the matrix: a model on a device of a host in a run, its levels by load."""

    model: str
    device: str
    host: str
    run: str
    levels: dict[tuple[bool, float], Level]

    @property
    def name(self) -> str:
        return ", ".join(part for part in (self.model, self.device, self.host, self.run) if part)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a table of the matrix shows: where a level holds it and which way is better."""

    title: str
    unit: str
    more_is_better: bool
    metric: str
    statistic: str | None = None


SHOWN = (
    Figures("Characters per second", "characters/s", True, "characters_per_s"),
    Figures("Tokens per second", "tokens/s", True, "output_tokens_per_s"),
    Figures("Median TTFT", "ms", False, "lead", "p50"),
    Figures("TTFT p95", "ms", False, "lead", "p95"),
    Figures("Gaps p99", "ms", False, "itl_ms", "p99"),
)


def sections(summaries: Sequence[tuple[str, Summary]]) -> list[Section]:
    """The matrix, plots side by side, each run's verdict and how it was got."""
    lines = _lines(summaries)
    loads = sorted({load for line in lines for load in line.levels})
    body: list[Any] = [tag("p", _about(lines, loads, summaries))]
    body += [_table(figures, lines, loads) for figures in SHOWN if _has(figures, lines)]
    plots = [plot for plot in (_throughput(lines), _waiting(lines)) if plot]
    found = [Section("matrix", "All runs", body)]
    if plots:
        found.append(Section("plots", "Side by side", plots))
    return [*found, _verdicts(summaries), _doubts(summaries), _origins(summaries)]


def _lines(summaries: Sequence[tuple[str, Summary]]) -> list[Line]:
    hosts = [_host(summary) for _, summary in summaries]
    several_hosts = len(set(hosts)) > 1
    found = []
    for (run, summary), host in zip(summaries, hosts, strict=True):
        for model, rows in levels.by_model(summary).items():
            by_load = {(levels.is_open(level), levels.load(level)): level for level in reversed(firsts(rows))}
            ran = devices.words(rows[0])
            found.append(Line(model, "" if ran == model else ran, host if several_hosts else "", run, by_load))
    return found


def _host(summary: Summary) -> str:
    """The machine that served, as far as it is told: the client's where the server runs on it."""
    run = summary.get("run") or {}
    machine = run.get("environment") or {}
    target = run.get("target") or {}
    if (run.get("telemetry") or {}).get("local") is False:
        return bare_url(target.get("base_url") or "elsewhere")
    return one_line(machine.get("hostname") or machine.get("cpu") or "this machine", 60)


def _about(lines: Sequence[Line], loads: Sequence[Any], summaries: Sequence[tuple[str, Summary]]) -> str:
    models, ran = {line.model for line in lines}, {line.device for line in lines}
    hosts = {_host(summary) for _, summary in summaries}
    counted = ((len(models), "model"), (len(loads), "load"), (len(ran), "device"), (len(hosts), "host"))
    said = ", ".join(units.plural(n, noun) for n, noun in counted)
    return (
        f"{units.plural(len(summaries), 'run')}: {said}. Stronger shades are better, within each table; [lo–hi] "
        "are 95% intervals, n requests. Compare only what was asked the same."
    )


def _value(figures: Figures, level: Level | None) -> tuple[float | None, tuple[float, float] | None, Any]:
    """The figure, its interval, its n."""
    if level is None:
        return None, None, None
    if figures.statistic is None:
        value, bounds = level.get(figures.metric), trace.both(level.get(f"{figures.metric}_ci95"))
        return value, bounds, level.get("completed")
    metric = levels.lead(level) if figures.metric == "lead" else level.get(figures.metric) or {}
    return metric.get(figures.statistic), levels.interval(metric, figures.statistic), metric.get("n")


def _has(figures: Figures, lines: Sequence[Line]) -> bool:
    return any(_value(figures, level)[0] is not None for line in lines for level in line.levels.values())


def _table(figures: Figures, lines: Sequence[Line], loads: Sequence[tuple[bool, float]]) -> Markup:
    known = [float(v) for line in lines for level in line.levels.values() if (v := _value(figures, level)[0])]
    fixed = [name for name in ("model", "device", "host", "run") if any(getattr(line, name) for line in lines)]
    heads = [tag("th", name, scope="col", class_="left") for name in fixed]
    heads += [tag("th", f"{load:g} req/s" if opened else f"c{load:g}", scope="col") for opened, load in loads]
    rows = []
    for line in lines:
        words = [tag("th", line.model, scope="row", class_="left")]
        words += [tag("td", getattr(line, name), class_="left") for name in fixed[1:]]
        rows.append(tag("tr", words, [_shaded(figures, line.levels.get(load), known) for load in loads]))
    title = figures.title
    if figures.metric == "lead" and any(
        level.get("streamed") is False for line in lines for level in line.levels.values()
    ):
        title += " (of whole answers: E2E)"
    name = f"{title}, {figures.unit}"
    whole = tag("table", tag("caption", name), tag("thead", tag("tr", heads)), tag("tbody", rows), class_="matrix")
    return tag("div", whole, class_="scroll", role="region", aria_label=name, tabindex="0")


def _shaded(figures: Figures, level: Level | None, known: Sequence[float]) -> Markup:
    value, bounds, n = _value(figures, level)
    if value is None:
        return tag("td", units.ABSENT, class_="none")
    interval = f"[{units.figure(bounds[0])}–{units.figure(bounds[1])}]" if bounds else ""
    small = [tag("small", part) for part in (interval, f"n {units.count(n)}") if part]
    return tag("td", units.figure(float(value)), small, class_=f"shade{_shade(float(value), known, figures)}")


def _shade(value: float, known: Sequence[float], figures: Figures) -> int:
    """0 for the worst to 4 for the best, on a logarithmic scale."""
    low, high = min(known), max(known)
    if value <= 0 or low <= 0 or high / low < _FEWEST_RATIO:
        return 0
    share = log(value / low) / log(high / low)
    return min(int((share if figures.more_is_better else 1 - share) * SHADES), SHADES - 1)


def _closed(line: Line) -> list[Level]:
    return [level for (opened, _), level in sorted(line.levels.items()) if not opened]


def _throughput(lines: Sequence[Line]) -> Any:
    told = {line.name: _closed(line) for line in lines if len(_closed(line)) > 1}
    if not told:
        return None
    points = {
        name: [trace.rate(one, "characters_per_s", "characters/s") for one in rows] for name, rows in told.items()
    }
    layout = {
        "xaxis": trace.load_axis([level for rows in told.values() for level in rows]),
        "yaxis": {"title": {"text": "characters/s"}, "rangemode": "tozero"},
    }
    tables = [_plotted(name, rows) for name, rows in told.items()]
    return compared("Characters per second", "With 95% intervals.", points, layout, tables)


def _waiting(lines: Sequence[Line]) -> Any:
    told = {line.name: _closed(line) for line in lines if len(_closed(line)) > 1}
    if not told:
        return None
    kind = levels.lead_name(next(iter(told.values()))[0])
    points = {
        name: [trace.point(one, levels.lead(one), "p50", kind, "requests") for one in rows]
        for name, rows in told.items()
    }
    layout = {
        "xaxis": trace.load_axis([level for rows in told.values() for level in rows]),
        "yaxis": trace.value_axis(f"median {kind}, ms", trace.reached([trace.line(line) for line in points.values()])),
    }
    tables = [_plotted(name, rows) for name, rows in told.items()]
    return compared(f"Median {kind}", "With 95% intervals; logarithmic.", points, layout, tables)


def _plotted(name: str, rows: Sequence[Level]) -> Table:
    kind = levels.lead_name(rows[0])
    cells = []
    for level in rows:
        row = [Cell(levels.label(level)), Cell(units.count(level.get("completed")))]
        for figures in (SHOWN[0], SHOWN[2]):
            value, bounds, _ = _value(figures, level)
            interval = f"{units.figure(bounds[0])}–{units.figure(bounds[1])}" if bounds else ""
            row.append(Cell(units.figure(value), interval))
        cells.append(tuple(row))
    columns = (Column("level", left=True), Column("requests"), Column("chars", "/s"), Column(f"{kind} p50", "ms"))
    return Table("Side by side", columns, tuple(cells), model=name)


def _verdicts(summaries: Sequence[tuple[str, Summary]]) -> Section:
    body = []
    for run, summary in summaries:
        said = [
            tag("li", tag("b", sentence.model), f": {sentence.text}. ", tag("span", sentence.doubt, class_="doubt"))
            for sentence in headline.sentences(summary)
        ]
        body.append(tag("div", tag("h3", run), tag("ul", said, class_="said"), class_="block"))
    return Section("verdicts", "Each run in short", body)


def _doubts(summaries: Sequence[tuple[str, Summary]]) -> Section:
    body = []
    for run, summary in summaries:
        lines = [
            " ".join(filter(None, (note.code, note.severity, note.name))) + f": {at} {text}"
            for note in notes.gates(summary)
            for at, text in note.texts
        ]
        said = grid.notes(lines) if lines else tag("p", "No validity gate spoke.")
        body.append(tag("div", tag("h3", run), said, class_="block"))
    return Section("validity", "Can they be trusted?", body)


def _origins(summaries: Sequence[tuple[str, Summary]]) -> Section:
    body = []
    for run, summary in summaries:
        facts = [("date", provenance.date(summary)), *provenance.facts(summary)]
        rows = [[tag("dt", name), tag("dd", said)] for name, said in facts if said]
        body.append(tag("div", tag("h3", run), tag("dl", rows, class_="facts"), class_="block"))
    return Section("origin", "How they were got", body)
