"""The report of a run on one screen: the answer in words, one table, what speaks against it. `run.py` has all of it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from loadbench import text as units
from loadbench.errors import UsageError
from loadbench.figures import FIGURES, STATISTIC_TITLES, Figure
from loadbench.metrics.checks import NAMES
from loadbench.report import levels as reading
from loadbench.report import objectives, provenance, run, tables
from loadbench.report.document import (
    Block,
    Cell,
    Column,
    Document,
    Facts,
    Line,
    Section,
    Table,
    Text,
    Title,
    Tone,
    tables_of,
)
from loadbench.report.levels import Record
from loadbench.scenario.bounds import Bound
from loadbench.store.summary import Curve, Distribution, Finding, Level, Summary, rank

MOST_WARNINGS = 3
FEW, MANY = reading.REQUESTS_NEEDED["p95"], reading.REQUESTS_NEEDED["p99"]
"""Requests of a level from which on confidence is fair, and good."""
FEWEST = 5
"""Requests below which the headline says nothing of a level's speed."""
_BASIS = {
    "V1": "it was too short",
    "V2": "the load was not held",
    "V3": "this client was late to read",
    "V4": "too many requests failed",
    "V9": "other programs kept the machine busy",
    "V10": "the server changed while it was measured",
    "V11": "the machine's own noise is too large",
    "V13": "answers came in one burst",
    "V15": "another device answered",
    "client-starved": "this client waited for a core",
    "paused": "this client stood still",
}
"""Why a red check is no basis for a decision; of another one, its name."""


def document(record: Record | Summary) -> Document:
    """At most 25 lines at 100 columns for one model and four levels."""
    summary = reading.read(record)
    warning = provenance.SIMULATED if reading.is_simulated(summary) else ""
    title = Title(provenance.title(summary), date=provenance.date(summary), simulated=warning)
    # A search's table has the loads in the order they were tried.
    blocks: list[Block] = [Text("", answers(summary))]
    by_model = reading.by_model(reading.of(summary))
    blocks += tables_of(objectives.steps(summary) or [_table(model, rows) for model, rows in by_model.items()])
    unfinished = [*provenance.absent(summary), *run.unfinished(summary)]
    if unfinished:
        blocks.append(Text.of("", unfinished, "†"))
    if found := _warnings(summary):
        blocks.append(Text("", found, sign="!"))
    return Document(title, [Section("brief", "In short", blocks)])


def answers(summary: Summary) -> list[Line]:
    """What a reader came for, in sentences; a search has its answer from all probes together."""
    lines = objectives.lines(summary)
    if not summary.capacity:
        return lines + answer(summary)
    if red := _red(reading.of(summary), summary):
        lines.append(Line(red))
    return lines


def pasted(record: Record | Summary) -> Document:
    """The same to paste in an issue: with what was measured, on which machine, and the command."""
    summary = reading.read(record)
    short = document(summary)
    facts = [(name, text) for name, text in provenance.facts(summary) if name in ("target", "model", "client")]
    if command := reading.facts(summary).command:
        facts.append(("command", shlex.join(command)))
    # One command's line is long, and the reader came for the table.
    return replace(short, sections=[*short.sections, Section("facts", "", [Facts("", facts)])])


# -- in words


def answer(summary: Summary) -> list[Line]:
    """For each model: the load it serves within the SLO, what more load buys, and how firm that is."""
    models = reading.by_model(reading.of(summary))
    lines = []
    for model, rows in models.items():
        if any(level.completed for level in rows):
            curve = tables.curve_of(summary, model)
            text = " ".join([*_served(rows), *_speed(rows, curve), _confidence(rows, summary)])
        else:
            text = _nothing(rows)
        lines.append(Line(text, name=model if len(models) > 1 else ""))
    return lines


@dataclass(frozen=True, slots=True)
class Load:
    """All levels of one load: its repeats are judged together."""

    levels: Sequence[Level]

    @property
    def words(self) -> str:
        load = self.levels[0].load or 0
        if self.levels[0].is_open:
            return f"{load:g} request/s" if load == 1 else f"{load:g} requests/s"
        return f"{load:g} concurrent user" if load == 1 else f"{load:g} concurrent users"

    @property
    def number(self) -> str:
        return f"{self.levels[0].load or 0:g}"

    @property
    def met(self) -> bool | None:
        """Whether each repeat met every objective; None where too few requests tell."""
        attained = [objective.attained for level in self.levels for objective in level.slo or ()]
        if False in attained:
            return False
        return None if None in attained else True

    def broken(self) -> str:
        """The first objective that it misses, with what was measured: "p95 TTFT 2.3 s"."""
        for level in self.levels:
            for objective in level.slo or ():
                if objective.attained is False:
                    return _measured(level, objective.bound)
        return ""


def judged(levels: Sequence[Level]) -> list[Load]:
    """The loads that the SLO is judged at, the lowest first."""
    return _loads([level for level in levels if level.slo and level.is_whole])


def served(loads: Sequence[Load]) -> Load | None:
    """The highest load within the SLO below which none misses it; None where not even the lowest is within it."""
    within = list(takewhile(lambda load: load.met, loads))
    return within[-1] if within else None


def _served(levels: Sequence[Level]) -> list[str]:
    """How much load is served within the SLO, or without one what a user gets."""
    loads = judged(levels)
    if not loads:
        return _unjudged(levels)
    bounds = loads[0].levels[0].slo or ()
    slo = f"your SLO ({', '.join(_bound(objective.bound) for objective in bounds)})"
    most = served(loads)
    if most is loads[-1]:
        return [f"Serves {most.words} within {slo}, the most that was tried."]
    beyond = next(load for load in loads if not load.met)
    if beyond.met is None:
        if most is None:
            return [f"Too few requests to tell whether it serves {beyond.words} within {slo}."]
        return [f"Serves {most.words} within {slo}; at {beyond.number}, too few requests to tell."]
    if most is None:
        return [f"Misses {slo} at {beyond.words} already: {beyond.broken()}."]
    return [f"Serves {most.words} within {slo}; {beyond.number} is too many ({beyond.broken()})."]


def _unjudged(levels: Sequence[Level]) -> list[str]:
    loads = _loads([level for level in levels if (level.completed or 0) >= FEWEST])
    if not loads:
        return []
    first, last = loads[0].levels[0], loads[-1].levels[0]
    speed, wait = first.tokens_per_s_per_user, reading.lead(first).p50
    if first.is_open or speed is None or wait is None:
        return []
    one = "One user gets" if first.load == 1 else f"Each of {loads[0].words} gets"
    text = f"{one} {units.figure(speed)} tokens/s after {units.span(wait)}"
    after, later = last.tokens_per_s_per_user, reading.lead(last).p50
    if first is last or after is None or later is None:
        return [f"{text}."]
    return [f"{text}; with {loads[-1].words} each gets {units.figure(after)}, after {units.span(later)}."]


def _speed(levels: Sequence[Level], curve: Curve | None) -> list[str]:
    """Where total speed stops to grow, if it does."""
    measured = [level for level in levels if level.output_tokens_per_s is not None and (level.completed or 0) >= FEWEST]
    loads = _loads(measured)
    if not loads:
        return []
    last = loads[-1].levels[0]
    if last.is_open:
        return [f"At {loads[-1].words} it completes {units.figure(last.requests_per_s)}/s."]
    if curve is not None and curve.serial and len(loads) > 1:
        waits = f" and wait {last.stretch:.2g} times as long" if last.stretch else ""
        return [f"It answers one request at a time: {loads[-1].words} get together what one gets alone{waits}."]
    peak = max(loads, key=lambda load: load.levels[0].output_tokens_per_s or 0)
    saturated = None if curve is None else curve.saturated_n
    if saturated is not None and saturated < (last.load or 0):
        # Named where no higher load exceeds it by over 5 % and beyond both intervals (docs/statistics.md).
        at = next((load for load in loads if load.levels[0].load == saturated), peak)
        tokens, most = (units.figure(one.levels[0].output_tokens_per_s) for one in (at, peak))
        if tokens == most:
            return [f"Total speed tops out near {tokens} tokens/s at {at.words}: more users only wait longer."]
        already = f"{at.words} already {'gets' if saturated == 1 else 'get'} {tokens}"
        return [f"Total speed tops out near {most} tokens/s, and {already}: more users only wait longer."]
    tokens = units.figure(peak.levels[0].output_tokens_per_s)
    if len(loads) == 1:
        return [f"Total speed is {tokens} tokens/s at {peak.words}."]
    gain = peak.levels[0].speedup
    times = f", {gain:.2g} times that of {loads[0].number}" if gain else ""
    if peak.levels[0] is last:
        return [f"Total speed still grows at {peak.words}: {tokens} tokens/s{times}."]
    return [f"Total speed peaks at {peak.words}: {tokens} tokens/s{times}."]


def _confidence(levels: Sequence[Level], summary: Summary) -> str:
    if red := _red(levels, summary):
        return red
    dependent = []
    for level, finding in reading.warnings(summary):
        if finding.code == "near-saturation" and level is not None and level in levels:
            dependent.append(reading.load_words(level) if level.is_open else f"{level.concurrency}")
    fewest = min(level.completed for level in levels if level.completed)
    count = f"about {fewest:,} requests per level" if fewest < MANY else f"{fewest:,} requests per level or more"
    if dependent:
        count += f", and at {units.listed(dict.fromkeys(dependent), 'and')} they depend on each other"
    grade = "Low" if fewest < FEW else "Fair" if fewest < MANY or dependent else "Good"
    return f"{grade} confidence: {count}."


def _red(levels: Sequence[Level], summary: Summary) -> str:
    """Why this is no basis for a decision; nothing where it is one."""
    red = []
    for level, finding in reading.warnings(summary):
        if finding.severity == "red" and (level is None or level in levels):
            red.append(_BASIS.get(finding.code, NAMES.get(finding.code, finding.code)))
    return f"No basis for a decision yet: {units.listed(dict.fromkeys(red), 'and')}." if red else ""


def _nothing(levels: Sequence[Level]) -> str:
    attempted = sum(level.attempted or 0 for level in levels)
    if not attempted:
        return "Not measured."
    return f"None of {units.plural(attempted, 'request')} completed ({tables.failures(levels) or 'cancelled'})."


def _bound(text: str) -> str:
    """An objective as people say it: "p95 TTFT ≤ 2 s"."""
    try:
        bound = Bound.parse(text)
    except UsageError:  # of a newer version
        return text
    figure = FIGURES[bound.metric]
    sign = {"<=": "≤", ">=": "≥"}.get(bound.op, bound.op)
    statistic = f"{STATISTIC_TITLES[bound.statistic]} " if bound.statistic else ""
    return f"{statistic}{figure.title or figure.key} {sign} {_with_unit(bound.value, figure)}"


def _with_unit(value: float | None, figure: Figure) -> str:
    return units.with_unit(value, "per_s" if figure.unit == "/s" else figure.unit)


def _measured(level: Level, text: str) -> str:
    """What a level did by an objective. Failed requests count, as they do for the objective."""
    try:
        bound = Bound.parse(text)
    except UsageError:
        return text
    figure = FIGURES[bound.metric]
    title = figure.title or figure.key
    if not bound.statistic:
        value = figure.read(level)
        if value is None and figure.counts:  # of a folder that an older version wrote
            hits, all_of_them = (getattr(level, name) or 0 for name in figure.counts)
            value = hits / all_of_them if all_of_them else None
        return f"{title} {_with_unit(value, figure)}"
    over_all = (level.with_failures_ms or {}).get(bound.metric)
    value = figure.read(level, bound.statistic) if over_all is None else over_all.at(bound.statistic)
    if value is None and bound.metric == "ttfat" and not level.failed:
        return f"{level.only_reasoned or 0:,} of {level.attempted or 0:,} requests only reasoned"
    if value is None:
        return f"{level.failed or 0:,} of {level.attempted or 0:,} requests failed"
    return f"{STATISTIC_TITLES[bound.statistic]} {title} {_with_unit(value, figure)}"


# -- the table


def _table(model: str, rows: Sequence[Level]) -> Table:
    """A row a level: what it did for all users together, and for one of them."""
    streamed = any(map(reading.is_stream, rows))
    # Where a model reasons, users wait beyond the first token for the answer.
    reasons = streamed and any(level.reasoned for level in rows)
    # Gaps between tokens mean nothing where an arrival carries several.
    spaced = all(reading.gap_name(level) == "ITL" for level in rows if level.completed)
    columns = [
        Column("requests/s" if rows[0].is_open else "users"),
        Column("req", "/s"),
        Column("tokens", "/s"),
        *([Column("per user", "tok/s"), Column("TTFT p50", "ms"), Column("TTFT p95", "ms")] if streamed else []),
        *([Column("TTFAT", "p95 ms")] if reasons else []),
        *([Column("ITL p95" if spaced else "TPOT p95", "ms")] if streamed else []),
        Column("E2E p95", "ms"),
        Column("failed"),
    ]
    judged = any(level.slo for level in rows)
    if judged:
        columns.append(Column("SLO"))
    cells = []
    for level in rows:
        row = [
            Cell(_name(level)),
            Cell(units.figure(level.requests_per_s)),
            Cell(units.figure(level.output_tokens_per_s)),
        ]
        if streamed:
            row += [Cell(units.figure(level.tokens_per_s_per_user))]
            row += [_time(reading.ttft(level), "p50"), _time(reading.ttft(level), "p95")]
            if reasons:
                row += [_time(level.ttfat_ms, "p95")]
            row += [_time(level.itl_ms if spaced else level.tpot_ms, "p95")]
        row += [_time(level.e2e_ms, "p95"), Cell(units.share(level.failure_share))]
        if judged:
            row.append(Cell(_met(level)))
        cells.append(tuple(row))
    notes = []
    if any(cell.marked for row in cells for cell in row):
        notes.append("* too few requests for a 95% interval")
    silent = sum(level.only_reasoned or 0 for level in rows)
    if reasons and silent:
        notes.append(f"{units.plural(silent, 'request')} ended with reasoning alone and are in no TTFAT")
    return Table("", tuple(columns), tuple(cells), tuple(notes), model)


def _name(level: Level) -> str:
    name = f"{level.load or 0:g}"
    if reading.repeat(level) > 1:
        name += f" ({reading.repeat(level)})"
    return name if level.is_whole else f"{name} †"


def _time(metric: Distribution | None, statistic: str) -> Cell:
    value = None if metric is None else metric.at(statistic)
    if metric is None or value is None:
        return Cell(units.ABSENT)
    return Cell(units.figure(value), marked=reading.is_marked(metric, statistic))


def _met(level: Level) -> str:
    if not level.slo:
        return units.ABSENT
    return {True: "met", False: "missed", None: "unclear"}[Load([level]).met]


# -- what speaks against it


def _warnings(summary: Summary) -> list[Line]:
    """The worst three, a line each; the others by name."""
    worst: dict[str, Finding] = {}
    places: dict[str, list[str]] = {}
    spoken = [(level, finding) for level, finding in reading.warnings(summary) if finding.severity != "note"]
    for finding in sorted((finding for _, finding in spoken), key=lambda one: rank(one.severity)):
        worst.setdefault(finding.code, finding)
    for level, finding in spoken:
        if level is not None:
            places.setdefault(finding.code, []).append(reading.label(level))
    lines = []
    for code, finding in list(worst.items())[:MOST_WARNINGS]:
        where = f" ({reading.joined(places[code])})" if code in places else ""
        tone: Tone = "bad" if finding.severity == "red" else "unsure"
        lines.append(Line(f"{NAMES.get(code, code)}{where}: {_short(finding.text)}.", tone=tone))
    others = [NAMES.get(code, code) for code in list(worst)[MOST_WARNINGS:]]
    if others:
        lines.append(Line(f"and {units.listed(others, 'and')}: see --full."))
    return lines


def _short(text: str, most: int = 70) -> str:
    """The first clauses of a finding, as many as a line has room for."""
    kept = text
    while len(kept) > most:
        cut = max(kept.rfind("; "), kept.rfind(": "))
        if cut < most / 3:
            break
        kept = kept[:cut]
    return units.one_line(kept)


# -- levels


def _loads(levels: Sequence[Level]) -> list[Load]:
    """By load, the lowest first; of two kinds of loop only that of the first level."""
    by_load: dict[float, list[Level]] = {}
    for level in levels:
        if level.is_open == levels[0].is_open:
            by_load.setdefault(level.load or 0, []).append(level)
    return [Load(by_load[load]) for load in sorted(by_load)]
