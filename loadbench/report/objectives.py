"""What a run had to keep within: its thresholds, its service-level objectives, and the search for the highest load."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from loadbench import text as units
from loadbench.metrics.checks import titled
from loadbench.report import levels
from loadbench.report.document import Cell, Column, Line, Table, Tone, interval, table
from loadbench.report.levels import Level, Record, Summary

MOST_NAMED = 5
RESULTS = {"failed": "FAILED", "unknown": "not known", "passed": "passed"}


# -- thresholds


def thresholds(summary: Summary) -> list[Record]:
    return list(summary.get("thresholds") or [])


def verdict(summary: Summary) -> str | None:
    """The worst of all results, failed, unknown or passed; None where nothing was asked."""
    results = {row["result"] for row in thresholds(summary)}
    return next((word for word in RESULTS if word in results), None)


def lines(summary: Summary) -> list[Line]:
    """What failed, what nobody knows, or that all passed; then what a search answers."""
    found = []
    for sentence in threshold_sentences(summary):
        tone: Tone = "bad"
        if sentence.startswith("passed"):
            tone = "good"
        elif sentence.startswith("not "):
            tone = "unsure"
        found.append(Line(f"{sentence}.", strong=True, tone=tone))
    found += [Line(f"{sentence}.", strong=True) for sentence in capacity_sentences(summary)]
    return found


def threshold_sentences(summary: Summary) -> list[str]:
    rows = thresholds(summary)
    if not rows:
        return []
    found = []
    failed = [row for row in rows if row["result"] == "failed"]
    if failed:
        found.append(f"FAILED: {_grouped(failed, summary)}")
        aborted = [row for row in failed if row["aborted"]]
        found += [f"the run ended there: {row['text']} aborts it" for row in aborted[:1]]
    unknown = [row for row in rows if row["result"] == "unknown"]
    if unknown:
        found.append(f"not known: {_grouped(unknown, summary)}")
    if not found:
        texts = list(dict.fromkeys(str(row["text"]) for row in rows))
        n_levels = len({row["level"] for row in rows})
        none = "it does not fail" if len(texts) == 1 else f"none of {len(texts)} thresholds fails"
        at = f" at any of {n_levels} levels" if n_levels > 1 else ""
        found.append(f"passed: {none}{at} ({', '.join(texts)})")
    return found


def threshold_table(summary: Summary) -> Table | None:
    """A row a threshold and level; None where nothing was asked."""
    rows = thresholds(summary)
    if not rows:
        return None
    columns: list[tuple[Column, Callable[[Record], Cell]]] = [
        (Column("level", left=True), lambda row: Cell(place(row, summary) or units.ABSENT)),
        (Column("fails if", left=True), lambda row: Cell(str(row["text"]))),
        (Column("is"), lambda row: Cell(value(row), value_interval(row))),
        (Column("of"), lambda row: Cell(units.count(row["n"]))),
        (Column("result", left=True), lambda row: Cell(RESULTS[row["result"]])),
    ]
    notes = ["each level must pass; a threshold says what fails"]
    unknown = [row for row in rows if row["result"] == "unknown"]
    if unknown:
        notes.append(f"not known: {_grouped(unknown, summary)}")
    return table("Thresholds", columns, rows, notes)


def in_words(row: Record, summary: Summary) -> str:
    """One row in words: "ttft_p95 > 800ms at c8 (1.24 s)"."""
    where = place(row, summary)
    at = f" at {where}" if where else ""
    return f"{row['text']}{at} ({row['reason'] or value(row)})"


def place(row: Record, summary: Summary) -> str:
    """The level's short name, with its model where the run has several; "" where no level is one."""
    for level in summary.get("levels") or []:
        if level.get("id") == row["level"]:
            return levels.full_label(level, summary)
    return ""


def value(row: Record) -> str:
    if row["value"] is None and row["result"] == "failed":
        return "no end"
    return units.with_unit(row["value"], row["unit"])


def value_interval(row: Record) -> str:
    low, high = row["interval"] or (None, None)
    return interval(low, high, lambda end: units.with_unit(end, row["unit"]))


def _grouped(rows: Sequence[Record], summary: Summary) -> str:
    """Rows in words: what one threshold says of several levels is one part, and so is one reason of several levels."""
    by_text: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        why = str(row["reason"] or value(row))
        by_text.setdefault(str(row["text"]), {}).setdefault(why, []).append(place(row, summary))
    parts = []
    for text, reasons in by_text.items():
        said = []
        for why, places in list(reasons.items())[:MOST_NAMED]:
            at = levels.joined(filter(None, places))
            said.append(f"at {at} ({why})" if at else f"({why})")
        if len(reasons) > MOST_NAMED:
            said.append(f"and {len(reasons) - MOST_NAMED} more")
        parts.append(f"{text} {', '.join(said)}")
    return "; ".join(parts)


# -- service-level objectives


def slo(summary: Summary) -> Table | None:
    """Attainment of each bound; None when no SLO was given."""
    rows = []
    for level in levels.levels(summary):
        rows += [(level, bound) for bound in level.get("slo") or []]
    columns: list[tuple[Column, Callable[[tuple[Level, Record]], Cell]]] = [
        (Column("level", left=True), lambda row: Cell(levels.full_label(row[0], summary))),
        (Column("bound", left=True), lambda row: Cell(str(row[1].get("bound")))),
        (Column("attained by"), lambda row: _attained_by(row[1])),
        (Column("of offered"), lambda row: Cell(units.count(row[1].get("n")))),
        # Of all bounds where a search decides a load.
        (Column("met"), lambda row: Cell(decision(summary, row[0]) or _yes_or_no(row[1].get("attained")))),
        (Column("goodput", "req/s"), lambda row: _goodput(row[0])),
    ]
    notes = []
    if not levels.is_streamed(summary):
        notes.append("met -: not decided, a whole answer has no first token and no gaps")
    return table("Service-level objectives", columns, rows, notes) if rows else None


def _attained_by(bound: Record) -> Cell:
    low, high = bound.get("ci95") or (None, None)
    return Cell(units.share(bound.get("attainment")), interval(low, high, units.share))


def _yes_or_no(met: bool | None) -> str:
    return {True: "yes", False: "NO"}.get(met, units.ABSENT) if met is not None else units.ABSENT


def _goodput(level: Level) -> Cell:
    return Cell(units.figure(level.get("goodput_per_s")), interval(*levels.bounds(level, "goodput_per_s")))


# -- the search for the highest load within them


def searches(summary: Summary) -> list[Record]:
    return list(summary.get("capacity") or [])


def is_searched(summary: Summary, model: str) -> bool:
    """Whether a search says how much load a model carries."""
    return any(str(search.get("model")) == model for search in searches(summary))


def decision(summary: Summary, level: Level) -> str | None:
    """What the search decided of a level, as the SLO table says it; None of a level that is no step of a search."""
    for search in searches(summary):
        for step in search.get("steps") or []:
            if str(step["level"]) == str(level.get("id")):
                return {"met": "yes", "not met": "NO"}.get(step["verdict"], str(step["verdict"]))
    return None


def capacity_sentences(summary: Summary) -> list[str]:
    """The answer for each model; what stands in the summary alone where no search is told."""
    found = searches(summary)
    if len(found) == 1:
        return [_answer(found[0])]
    if found:
        return [f"{search['model']}: {_answer(search)}" for search in found]
    streams, rate = summary.get("capacity_concurrency"), summary.get("capacity_rate_per_s")
    loads = []
    if streams is not None:
        loads.append(units.plural(int(streams), "stream"))
    if rate is not None:
        loads.append(f"{rate:g} req/s")
    return [f"capacity within the SLO: {' or '.join(loads)}"] if loads else []


def steps(summary: Summary) -> list[Table]:
    """Every load that was tried, in order, one table a model."""
    columns = (
        Column("load", left=True),
        Column("verdict", left=True),
        Column("requests"),
        Column("bound", left=True),
        Column("met by"),
        Column("wanted"),
    )
    tables = []
    for search in searches(summary):
        rows: list[tuple[Cell, ...]] = []
        for step in search.get("steps") or []:
            rows += _step(step, search)
        if rows:
            notes = tuple(_search_notes(search))
            tables.append(Table("Search for the capacity", columns, tuple(rows), notes, str(search["model"])))
    return tables


def _answer(search: Record) -> str:
    """As "capacity 6 streams within ttft_p95=1s, not from 9 streams on, undecided between (confirmed by ...)"."""
    because = f" ({search['reason']})" if search.get("reason") else ""
    return f"{_zones(search)}{because}{_estimate(search)}"


def _zones(search: Record) -> str:
    """Up to where the SLO is met, from where on it is missed, and what lies between."""
    low, high, undecided = search["meets"], search["misses"], search["undecided"]
    slo = " and ".join(search["slo"])
    above = ", undecided above" if undecided else ""
    between = ", undecided between" if undecided else ""
    if search["found"] is not None:
        capacity = f"capacity {_load(search['found'], search)} within {slo}"
        if high is None:
            return capacity + (above or ", or more")
        if undecided:
            return f"{capacity}, not from {_load(high, search)} on{between}"
        return f"{capacity}; {_load(high, search)} not"
    if low is None and high is None:
        loads = " and ".join(_load(load, search) for load in undecided)
        return f"capacity within {slo} not known" + (f": undecided at {loads}" if undecided else "")
    if low is None:
        below = ", undecided below" if undecided else ""
        return f"capacity below {_load(high, search)}: {slo} not met there{below}"
    if high is None:
        return f"capacity at least {_load(low, search)} within {slo}{above}"
    return f"capacity at least {_load(low, search)}, fewer than {_load(high, search)} within {slo}{between}"


def _estimate(search: Record) -> str:
    """What all probes together say, where the zones leave something open."""
    estimate, low, high = search["estimate"], search["meets"], search["misses"]
    neighbours = search["by"] == "concurrency" and low is not None and high == low + 1
    if estimate is None or neighbours:
        return ""
    unit = "streams" if search["by"] == "concurrency" else "req/s"
    about = f"; by all probes together about {estimate['load']:g} {unit}"
    if estimate["ci95"] is None:
        return about
    return f"{about} (95% interval {estimate['ci95'][0]:g} to {estimate['ci95'][1]:g})"


def _step(step: Record, search: Record) -> Iterable[tuple[Cell, ...]]:
    """One row a bound; what is said of the whole load stands in the first."""
    decided = str(step["verdict"]) + ("" if step.get("counted", True) else ", not counted")
    head = (Cell(_label(step, search)), Cell(decided), Cell(units.count(step["requests"])))
    blank = Cell("")
    if not step.get("shares"):
        yield (*head, blank, Cell(units.ABSENT), Cell(units.ABSENT))
    for share in step.get("shares") or ():
        least = units.ABSENT if share["wanted"] is None else units.percent(share["wanted"])
        yield (*head, Cell(str(share["bound"])), _met_by(share), Cell(least))
        head = (blank, blank, blank)


def _met_by(share: Record) -> Cell:
    if share["share"] is None:
        return Cell(_yes_or_no(share["attained"]))
    ends = "–".join(units.percent(end) for end in share["interval"] or ())
    return Cell(units.percent(share["share"]), ends)


def _search_notes(search: Record) -> Iterable[str]:
    steps = search.get("steps") or []
    for step in steps:
        if step.get("reason"):
            yield f"{_label(step, search)}: {step['reason']}"
    for load in search.get("contradictions") or []:
        yield f"{_load(load, search)} met the SLO once and not surely another time: not counted as met"
    looks = f"at each of {search['looks']} looks, 95% for all of them" if search["looks"] > 1 else "at one look"
    # Older runs took requests as independent.
    weighed = any("worth" in share for share in levels.parts(steps, "shares"))
    taken = ", wider where requests depend on each other" if weighed else ", which takes requests as independent"
    yield (
        f"met by = share of requests, with Wilson's interval ({100 * search['confidence']:.3g}% {looks}){taken}; "
        "undecided = neither surely met nor surely missed"
    )
    if weighed and search["by"] == "rate":
        yield "at a rate a load is met only once its queue is steady: the first quarter of a probe is warm-up"


def _load(load: float, search: Record) -> str:
    return units.plural(int(load), "stream") if search["by"] == "concurrency" else f"{load:g} req/s"


def _label(step: Record, search: Record) -> str:
    name = f"c{step['load']}" if search["by"] == "concurrency" else f"{step['load']:g} req/s"
    repeat = str(step["level"]).partition("#")[2]
    return f"{name} ({repeat})" if repeat else name


def reasons(summary: Summary, *, strict: bool) -> list[str]:
    """Why a run failed, a line each; empty where it did not.

    Args:
        strict: Whether unknown thresholds and red gates fail it too.
    """
    judged = thresholds(summary)
    found = [in_words(row, summary) for row in judged if row["result"] == "failed"]
    if not strict:
        return found
    found += [f"not known: {in_words(row, summary)}" for row in judged if row["result"] == "unknown"]
    red: dict[str, list[str]] = {}
    for level, warning in levels.warnings(summary):
        if warning.get("severity") == "red":
            where = levels.full_label(level, summary) if level else "the whole run"
            red.setdefault(where, []).append(titled(str(warning.get("code"))))
    return found + [f"{levels.joined(codes)} red at {where}: no basis for a verdict" for where, codes in red.items()]
