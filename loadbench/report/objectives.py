"""What a run had to keep within: its thresholds, its service-level objectives, and the search for the highest load."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from msgspec import UNSET

from loadbench import text as units
from loadbench.metrics.checks import titled
from loadbench.report import document as doc
from loadbench.report import levels
from loadbench.report.document import Cell, Column, Columns, Line, Table, Tone, interval, table
from loadbench.report.levels import Record
from loadbench.store.summary import Capacity, Level, Objective, Step, Summary, ThresholdRow

MOST_NAMED = 5
RESULTS = {"failed": "FAILED", "unknown": "not known", "passed": "passed"}
"""The worst first."""
MET = {True: "yes", False: "NO", None: units.ABSENT}


def lines(summary: Summary) -> list[Line]:
    """What failed, what is unknown, or that all passed; then the answer of a search."""
    parts = []
    for sentence in threshold_sentences(summary):
        tone: Tone = "bad"
        if sentence.startswith("passed"):
            tone = "good"
        elif sentence.startswith("not "):
            tone = "unsure"
        parts.append(Line(f"{sentence}.", strong=True, tone=tone))
    for sentence in capacity_sentences(summary):
        parts.append(Line(f"{sentence}.", strong=True))
    return parts


def reasons(record: Record | Summary, *, strict: bool) -> list[str]:
    """Why a run failed, a line each; empty where it did not.

    Args:
        strict: Whether unknown thresholds and red gates fail it too.
    """
    summary = levels.read(record)
    texts = [in_words(row, summary) for row in _with_result("failed", summary)]
    if not strict:
        return texts
    for row in _with_result("unknown", summary):
        texts.append(f"not known: {in_words(row, summary)}")
    red: dict[str, list[str]] = {}
    for level, warning in levels.warnings(summary):
        if warning.severity == "red":
            where = levels.full_label(level, summary) if level else "the whole run"
            red.setdefault(where, []).append(titled(warning.code))
    for where, codes in red.items():
        texts.append(f"{levels.joined(codes)} red at {where}: no basis for a verdict")
    return texts


# -- thresholds


def verdict(results: Collection[str]) -> str | None:
    """The worst of all results, failed, unknown or passed; None where there is no threshold."""
    for word in RESULTS:
        if word in results:
            return word
    return None


def _with_result(result: str, summary: Summary) -> list[ThresholdRow]:
    return [row for row in summary.thresholds if row.result == result]


def threshold_sentences(summary: Summary) -> list[str]:
    rows = summary.thresholds
    if not rows:
        return []
    # What passed is worth a sentence only where nothing else is to be said.
    sentences = []
    if failed := _with_result("failed", summary):
        sentences.append(f"FAILED: {_grouped(failed, summary)}")
        if aborted := [row.text for row in failed if row.aborted]:
            sentences.append(f"the run ended there: {aborted[0]} aborts it")
    if unknown := _with_result("unknown", summary):
        sentences.append(f"not known: {_grouped(unknown, summary)}")
    if not sentences:
        texts = list(dict.fromkeys(row.text for row in rows))
        n_levels = len({row.level for row in rows})
        passed = "passed: it does not fail"
        if len(texts) > 1:
            passed = f"passed: none of {len(texts)} thresholds fails"
        if n_levels > 1:
            passed += f" at any of {n_levels} levels"
        sentences.append(f"{passed} ({', '.join(texts)})")
    return sentences


def threshold_table(summary: Summary) -> Table | None:
    """A row a threshold and level; None where there is no threshold."""
    rows = summary.thresholds
    if not rows:
        return None
    columns: Columns[ThresholdRow] = [
        (Column("level", left=True), lambda row: Cell(place(row, summary) or units.ABSENT)),
        (Column("fails if", left=True), lambda row: Cell(row.text)),
        (Column("is"), lambda row: Cell(value(row), value_interval(row))),
        (Column("of"), lambda row: doc.count(row.n)),
        (Column("result", left=True), lambda row: Cell(RESULTS[row.result])),
    ]
    notes = ["each level must pass; a threshold says what fails"]
    if unknown := _with_result("unknown", summary):
        notes.append(f"not known: {_grouped(unknown, summary)}")
    return table("Thresholds", columns, rows, notes)


def in_words(row: ThresholdRow, summary: Summary) -> str:
    """One row in words: "ttft_p95 > 800ms at c8 (1.24 s)"."""
    text = row.text
    if where := place(row, summary):
        text += f" at {where}"
    return f"{text} ({row.reason or value(row)})"


def place(row: ThresholdRow, summary: Summary) -> str:
    """The level's short name, with its model where the run has several; "" where no level is one."""
    for level in summary.levels:
        if level.id == row.level:
            return levels.full_label(level, summary)
    return ""


def value(row: ThresholdRow) -> str:
    if row.value is None and row.result == "failed":
        return "no end"  # of a percentile: enough requests failed that it lies among those
    return units.with_unit(row.value, row.unit)


def value_interval(row: ThresholdRow) -> str:
    return interval(row.interval, lambda end: units.with_unit(end, row.unit))


def _grouped(rows: Sequence[ThresholdRow], summary: Summary) -> str:
    """Rows in words: one part for all levels of a threshold, and in it for all levels with the same reason."""
    by_text: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        by_text.setdefault(row.text, {}).setdefault(row.reason or value(row), []).append(place(row, summary))
    parts = []
    for text, places_of in by_text.items():
        texts = []
        for why, places in list(places_of.items())[:MOST_NAMED]:
            at = levels.joined(filter(None, places))
            texts.append(f"at {at} ({why})" if at else f"({why})")
        if len(places_of) > MOST_NAMED:
            texts.append(f"and {len(places_of) - MOST_NAMED} more")
        parts.append(f"{text} {', '.join(texts)}")
    return "; ".join(parts)


# -- service-level objectives


def slo(summary: Summary) -> Table | None:
    """Attainment of each bound; None when the run has no SLO."""
    rows: list[tuple[Level, Objective]] = []
    for level in levels.of(summary):
        for bound in level.slo or ():
            rows.append((level, bound))
    if not rows:
        return None
    columns: Columns[tuple[Level, Objective]] = [
        (Column("level", left=True), lambda row: Cell(levels.full_label(row[0], summary))),
        (Column("bound", left=True), lambda row: Cell(row[1].bound)),
        (Column("attained by"), lambda row: doc.share(row[1].attainment, row[1].ci95)),
        (Column("of offered"), lambda row: doc.count(row[1].n)),
        # Of all bounds where a search decides a load.
        (Column("met"), lambda row: Cell(_decision(summary, row[0]) or MET[row[1].attained])),
        (Column("goodput", "req/s"), lambda row: doc.figure(row[0].goodput_per_s, row[0].goodput_per_s_ci95)),
    ]
    notes = []
    if not levels.is_streamed(summary):
        notes.append("met -: not decided, a whole answer has no first token and no gaps")
    return table("Service-level objectives", columns, rows, notes)


# -- the search for the highest load within them


def _decision(summary: Summary, level: Level) -> str | None:
    """What the search decided of a level, as the SLO table has it; None of a level that is no step of a search."""
    for search in summary.capacity or ():
        for step in search.steps:
            if step.level == level.id:
                return {"met": "yes", "not met": "NO"}.get(step.verdict, step.verdict)
    return None


def capacity_sentences(summary: Summary) -> list[str]:
    """The answer for each model; without searches, what the summary alone holds."""
    searches = summary.capacity or ()
    if len(searches) == 1:
        return [_answer(searches[0])]
    if searches:
        return [f"{search.model}: {_answer(search)}" for search in searches]
    loads = []
    if summary.capacity_concurrency is not None:
        loads.append(units.plural(int(summary.capacity_concurrency), "stream"))
    if summary.capacity_rate_per_s is not None:
        loads.append(f"{summary.capacity_rate_per_s:g} req/s")
    if not loads:
        return []
    return [f"capacity within the SLO: {' or '.join(loads)}"]


def steps(summary: Summary) -> list[Table]:
    """Every load that was tried, in order, one table a model; a row a bound, what is of the whole load in the first."""
    columns = (
        Column("load", left=True),
        Column("verdict", left=True),
        Column("requests"),
        Column("bound", left=True),
        Column("met by"),
        Column("wanted"),
    )
    blank = Cell("")
    tables = []
    for search in summary.capacity or ():
        rows: list[tuple[Cell, ...]] = []
        for step in search.steps:
            decided: str = step.verdict
            if not step.counted:
                decided += ", not counted"
            head = (Cell(_label(step, search)), Cell(decided), doc.count(step.requests))
            if not step.shares:
                rows.append((*head, blank, Cell(units.ABSENT), Cell(units.ABSENT)))
            for share in step.shares:
                met_by = Cell(units.percent(share.share), interval(share.interval, units.percent))
                if share.share is None:  # a bound on the whole level, as requests/s: it holds or does not
                    met_by = Cell(MET[share.attained])
                rows.append((*head, Cell(share.bound), met_by, Cell(units.percent(share.wanted))))
                head = (blank, blank, blank)
        if rows:
            notes = tuple(_search_notes(search))
            tables.append(Table("Search for the capacity", columns, tuple(rows), notes, str(search.model)))
    return tables


def _answer(search: Capacity) -> str:
    """As "capacity 6 streams within ttft_p95=1s, not from 9 streams on, undecided between (confirmed by ...)".

    Then what all probes together say, where the zones leave something open.
    """
    text = _zones(search)
    if search.reason:
        text += f" ({search.reason})"
    estimate, low, high = search.estimate, search.meets, search.misses
    # Between neighbours there is nothing left to estimate.
    neighbours = search.by == "concurrency" and low is not None and high == low + 1
    if estimate is None or neighbours:
        return text
    unit = "streams" if search.by == "concurrency" else "req/s"
    text += f"; by all probes together about {estimate.load:g} {unit}"
    if estimate.ci95 is None:
        return text
    return f"{text} (95% interval {estimate.ci95[0]:g} to {estimate.ci95[1]:g})"


def _zones(search: Capacity) -> str:
    """Up to where the SLO is met, from where on it is missed, and what is between."""
    low, high, slo = search.meets, search.misses, " and ".join(search.slo or ())
    loads = " and ".join(_load(load, search) for load in search.undecided or ())
    below, between, above, at = "", "", "", ""
    if loads:
        below, between, above = ", undecided below", ", undecided between", ", undecided above"
        at = f": undecided at {loads}"
    if search.found is not None:
        capacity = f"capacity {_load(search.found, search)} within {slo}"
        if high is None:
            return capacity + (above or ", or more")
        if loads:
            return f"{capacity}, not from {_load(high, search)} on{between}"
        return f"{capacity}; {_load(high, search)} not"
    if low is None and high is None:
        return f"capacity within {slo} not known{at}"
    if low is None:
        return f"capacity below {_load(high, search)}: {slo} not met there{below}"
    if high is None:
        return f"capacity at least {_load(low, search)} within {slo}{above}"
    return f"capacity at least {_load(low, search)}, fewer than {_load(high, search)} within {slo}{between}"


def _search_notes(search: Capacity) -> Iterable[str]:
    for step in search.steps:
        if step.reason:
            yield f"{_label(step, search)}: {step.reason}"
    for load in search.contradictions or ():
        yield f"{_load(load, search)} met the SLO once and was undecided another time: not counted as met"
    looks = "at one look"
    if search.looks is not None and search.looks > 1:
        looks = f"at each of {search.looks} looks, 95% for all of them"
    weighed = False
    for step in search.steps:
        weighed = weighed or any(share.worth is not UNSET for share in step.shares)
    taken = ", wider where requests depend on each other"
    if not weighed:  # older runs have no "worth"
        taken = ", which takes requests as independent"
    yield (
        f"met by = share of requests, with Wilson's interval ({100 * (search.confidence or 0):.3g}% {looks}){taken}; "
        "undecided = neither surely met nor surely missed"
    )
    if weighed and search.by == "rate":
        yield "at a rate a load is met only once its queue is steady: the first quarter of a probe is warm-up"


def _load(load: float | None, search: Capacity) -> str:
    if search.by == "concurrency":
        return units.plural(int(load or 0), "stream")
    return f"{load:g} req/s"


def _label(step: Step, search: Capacity) -> str:
    name = f"c{step.load}" if search.by == "concurrency" else f"{step.load:g} req/s"
    if repeat := str(step.level).partition("#")[2]:
        name += f" ({repeat})"
    return name
