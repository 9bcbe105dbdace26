"""The tables of a run's levels: throughput and TTFT, gaps, whole requests, errors, prompts, what more load buys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from loadbench import text as units
from loadbench.figures import STATISTIC_TITLES
from loadbench.report import document as doc
from loadbench.report import levels
from loadbench.report.document import Cell, Column, Columns, Table, Times, table, without_unknown
from loadbench.store.summary import (
    Curve,
    CurveRow,
    Distribution,
    Interval,
    Knee,
    Law,
    LengthRow,
    Level,
    PromptRow,
    Rates,
    Summary,
)

MOST_PROMPTS = 50
"""Rows of one level's prompt table; summary.json has them all."""
WORST_PROMPTS = 3
NO_RATES = Rates()
KNEES = {
    "power": "power = most tokens/s per time in the system, X/R (Kleinrock)",
    "doubling": "doubling = the load that the first doubling with a gain under 5% leads to",
    "corner": "corner = X_max * R(1): streams that keep the server busy if none waits for another",
    "slo": "SLO = where the first objective is crossed, between two levels on a line over log2 of the load",
}
SEVERAL = 2


# -- columns


def per_model(title: str, rows: Iterable[Level], columns: Columns[Level], notes: Sequence[str] = ()) -> list[Table]:
    return [table(title, columns, own, notes, model) for model, own in levels.by_model(rows).items()]


def level_name(level: Level) -> Cell:
    """The level's name, with a dagger where it did not run to its end."""
    return Cell(levels.label(level) + ("" if level.is_whole else " †"))


LevelColumn = tuple[Column, Callable[[Level], Cell]]


def tokens(level: Level) -> Cell:
    return doc.figure(level.output_tokens_per_s, level.output_tokens_per_s_ci95)


def characters(level: Level) -> Cell:
    return doc.figure(level.characters_per_s, level.characters_per_s_ci95)


LEVEL: LevelColumn = (Column("level", left=True), level_name)
DONE: LevelColumn = (Column("done"), lambda level: doc.count(level.completed))
FAILED: LevelColumn = (Column("failed", short="fail"), lambda level: doc.count(level.failed))
REQUESTS: LevelColumn = (Column("requests"), lambda level: doc.count(level.completed))
DONE_PER_S: LevelColumn = (Column("done", "/s"), lambda level: doc.figure(level.requests_per_s))
IN_FLIGHT: LevelColumn = (Column("in flight", "mean"), lambda level: doc.figure(level.in_flight_mean))
TOKENS: LevelColumn = (Column("tokens", "/s"), lambda level: doc.figure(level.output_tokens_per_s))
TOKENS_SURE: LevelColumn = (Column("tokens", "/s"), tokens)
CHARS: LevelColumn = (Column("chars", "/s"), lambda level: doc.figure(level.characters_per_s))
CHARS_SURE: LevelColumn = (Column("chars", "/s"), characters)
EFFICIENCY: LevelColumn = (Column("efficiency", short="eff."), lambda level: Cell(units.percent(level.efficiency)))
STRETCH: LevelColumn = (Column("stretch"), lambda level: doc.figure(level.stretch))


def times_of(
    name: str, times: Times, read: Callable[[Level], Distribution | None], statistics: Iterable[str], unit: str = ""
) -> Columns[Level]:
    columns: Columns[Level] = []
    for statistic in statistics:
        column = Column(f"{name} {STATISTIC_TITLES[statistic]}", unit or times.unit)
        columns.append((column, _time(times, read, statistic)))
    return columns


def _time(times: Times, read: Callable[[Level], Distribution | None], statistic: str) -> Callable[[Level], Cell]:
    return lambda level: times.cell(read(level), statistic)


def _tpot(level: Level, cell: Cell) -> Cell:
    """A TPOT with "~" before it where it is estimated."""
    if levels.is_tpot_estimated(level) and cell.text != units.ABSENT:
        return replace(cell, text=f"~{cell.text}")
    return cell


# -- notes


def _tpot_notes(rows: Sequence[Level]) -> list[str]:
    if not any(map(levels.is_tpot_estimated, rows)):
        return []
    return ["~ TPOT: tokens of the first arrival estimated from tokens per event"]


def _percentile_notes(
    metrics: Iterable[Distribution | None], statistics: Sequence[str], noun: str, name: str = ""
) -> list[str]:
    """What the marks mean: "* p99 needs ≥ 368 requests, has 40"."""
    measured = list(filter(None, metrics))
    notes = []
    for p in statistics:
        needed = levels.REQUESTS_NEEDED[p]
        subject = f"{name} {STATISTIC_TITLES[p]}".strip()
        marked = [metric for metric in measured if levels.is_marked(metric, p)]
        numbers = sorted({metric.n or 0 for metric in marked})
        few = [n for n in numbers if n < needed]
        enough = [n for n in numbers if n >= needed]
        if few:
            notes.append(f"* {subject} needs ≥ {needed:,} {noun}, has {_range(few)}")
        if enough:
            # Enough in number, but those that resemble each other count as fewer than they are.
            alike = "from too few requests" if noun == "gaps" else "resemble each other too much"
            lower = any(levels.ends(metric, p)[0] is not None for metric in marked)
            missing = "no upper end of the 95% interval" if lower else "no 95% interval"
            notes.append(f"* {subject}: {missing}; {_range(enough)} {noun} {alike}")
        if any(levels.is_doubtful(metric, p) for metric in measured):
            notes.append(f"* {subject}: {noun} may resemble their neighbours: its 95% interval may be too narrow")
    return notes


def _range(ascending: Sequence[int]) -> str:
    return f"{ascending[0]:,}" if len(ascending) == 1 else f"{ascending[0]:,} to {ascending[-1]:,}"


def counts(by_name: Mapping[str, int] | None) -> str:
    """Counts by name, most frequent first: "length 36, stop 4"."""
    ordered = sorted((by_name or {}).items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {n:,}" for name, n in ordered if n) or units.ABSENT


# -- tables, one a model


def failures(rows: Iterable[Level]) -> str:
    """Why requests of these levels failed, with how many; "" where none did."""
    kinds: Counter[str] = Counter()
    for level in rows:
        kinds.update(level.errors or {})
    return counts(kinds) if kinds else ""


def headline(summary: Summary) -> list[Table]:
    """TTFT (of whole answers E2E) and throughput, one row a level: the tables that a reader must see first."""
    rows = levels.of(summary)
    opened = any(level.is_open for level in rows)
    streamed = levels.is_streamed(summary)
    estimated = any(map(levels.is_estimated, rows))
    name = "TTFT" if streamed else "E2E"
    leads = list(map(levels.lead, rows))
    columns: Columns[Level] = [LEVEL, DONE, FAILED]
    if any(level.dropped for level in rows):
        columns.append((Column("dropped", short="drop"), lambda level: doc.count(level.dropped)))
    columns += times_of(name, Times.of(leads), levels.lead, ("p50", "p95", "p99"))
    head = Column("estimated tokens", "/s", short="~tokens") if estimated else Column("tokens", "/s")
    columns.append((head, lambda level: doc.figure(level.output_tokens_per_s)))
    columns.append(CHARS)
    if opened:
        columns.append(DONE_PER_S)
    else:
        columns.append(EFFICIENCY)
    notes = _percentile_notes(leads, ("p50", "p95", "p99"), "requests")
    if not streamed:
        notes.append("answers were asked for whole: no first token, no gaps between tokens")
    if opened:
        counted = "; TTFT counts from when a request was due" if levels.is_stream(rows[0]) else ""
        notes.append(f"open loop: requests start at the given rate{counted}")
    if not all(level.is_open for level in rows):
        notes.append("c4 = 4 streams; efficiency = tokens/s per stream against the lowest level")
    if any(levels.repeat(level) > 1 for level in rows):
        notes.append("c4 (2) = the second repeat of c4")
    if estimated:
        notes.append("estimated tokens (~): the server counted none, events with text stand for them")
    return per_model(f"{name} and throughput", rows, columns, notes)


def gaps(summary: Summary) -> list[Table]:
    """The gaps between tokens, and TPOT, which says nothing without the tables above. None of whole answers."""
    if not levels.is_streamed(summary):
        return []
    rows = levels.of(summary)
    times = Times.of(level.itl_ms for level in rows)
    names = levels.gap_names(summary) or ["ITL"]
    name = names[0] if len(names) == 1 else "gap"
    columns: Columns[Level] = [LEVEL]
    if name == "gap":
        columns.append((Column("gap", left=True), lambda level: Cell(levels.gap_name(level) or units.ABSENT)))
    columns += times_of(name, times, lambda level: level.itl_ms, ("p50", "p99", "p999", "max"))
    columns.append((Column("TPOT p50", times.unit), lambda level: _tpot(level, times.cell(level.tpot_ms, "p50"))))
    columns.append((Column("tokens", "/event"), lambda level: doc.figure(level.tokens_per_event)))
    notes = _percentile_notes([level.itl_ms for level in rows], ("p50", "p99", "p999"), "gaps", name)
    notes += _percentile_notes([level.tpot_ms for level in rows], ["p50"], "requests", "TPOT")
    if name == "IET":
        notes.append("IET = inter-event time: an arrival of text does not carry one token")
    if name == "gap":
        notes.append(
            "ITL = inter-token latency; IET = inter-event time: an arrival does not carry one token at that level"
        )
    title = "Inter-event time" if name == "IET" else "Inter-token latency"
    return per_model(title, rows, columns, [*notes, *_tpot_notes(rows)])


def prefill(summary: Summary) -> list[Table]:
    """What one user gets: how fast the prompt is read, how fast the answer flows, what a token takes in all."""
    rows = levels.of(summary)
    times = Times.of(level.normalised_latency_ms for level in rows)

    def of_users(level: Level) -> Cell:
        return doc.figure(level.tokens_per_s_per_user, level.tokens_per_s_per_user_ci95)

    def of_prompts(level: Level) -> Cell:
        return doc.figure(level.prefill_tokens_per_s, level.prefill_tokens_per_s_ci95)

    columns: Columns[Level] = [
        LEVEL,
        (Column("prefill", "tokens/s"), of_prompts),
        (Column("per user", "tokens/s"), of_users),
        *times_of("E2E/token", times, lambda level: level.normalised_latency_ms, ("p50", "p95")),
    ]
    notes = ["per user = 1 / TPOT p50; E2E/token = normalised latency, E2E / output tokens"]
    if any(level.prefill_tokens_per_s is not None for level in rows):
        notes.append(
            "prefill = input tokens / (TTFT - round trip), median: a lower bound, with queueing and the first token's "
            "decode in it, so read it at the lowest load"
        )
        if any(level.cached_share for level in rows):
            notes.append("input that the server took from its cache is not counted as prefilled")
        scenario = levels.facts(summary).scenario
        if not (scenario and scenario.distinct_prompts) and any(map(_may_be_cached, rows)):
            notes.append("prompts repeat, and the server does not say what it caches: see --distinct-prompts")
    metrics = [level.normalised_latency_ms for level in rows]
    notes += _percentile_notes(metrics, ("p50", "p95"), "requests", "E2E/token")
    return without_unknown(per_model("Prefill and decode", rows, columns, notes))


def _may_be_cached(level: Level) -> bool:
    prompts = len(level.prompts or ()) + (level.prompts_left_out or 0)
    return level.cached_share is None and 0 < prompts < (level.completed or 0)


def thinking(summary: Summary) -> list[Table]:
    """When the answer began, and how much came before it; only where a model reasons."""
    rows = [level for level in levels.of(summary) if level.reasoned]
    times = Times.of([*(level.ttfat_ms for level in rows), *(level.thinking_ms for level in rows)])
    columns: Columns[Level] = [
        LEVEL,
        *times_of("TTFAT", times, lambda level: level.ttfat_ms, ("p50", "p95")),
        *times_of("thinking", times, lambda level: level.thinking_ms, ("p50", "p95")),
        (Column("thinking", "share"), lambda level: doc.share(level.thinking_share)),
        (Column("reasoned"), lambda level: doc.count(level.reasoned)),
        (Column("no answer"), lambda level: doc.count(level.only_reasoned)),
    ]
    notes = [
        "TTFAT = time to first answer token, the first that is not reasoning; thinking = from the first token to it"
    ]
    sources = {level.thinking_share_source for level in rows}
    if "usage" in sources:
        notes.append("share of output tokens, as the server's usage counts them")
    if "characters" in sources:
        notes.append("share of characters" + (" where it does not" if "usage" in sources else ": usage counts none"))
    if any(level.only_reasoned for level in rows):
        notes.append("no answer = ended with reasoning alone, and in no TTFAT: allow more with --max-tokens")
    notes += _percentile_notes([level.ttfat_ms for level in rows], ("p50", "p95"), "requests", "TTFAT")
    return without_unknown(per_model("Thinking", rows, columns, notes))


def answers(summary: Summary) -> list[Table]:
    """Whole requests: how long, how many a second, what came back and how it ended."""
    rows = levels.of(summary)
    e2e = [level.e2e_ms for level in rows]
    notes = _percentile_notes(e2e, ("p50", "p95"), "requests", "E2E")
    columns: Columns[Level] = [LEVEL, *times_of("E2E", Times.of(e2e), lambda level: level.e2e_ms, ("p50", "p95"))]
    columns.append(DONE_PER_S)
    columns.append((Column("tokens in", "p50"), lambda level: doc.count((level.input_tokens or levels.NOTHING).p50)))
    if any(level.cached_share for level in rows):
        columns.append((Column("cached"), lambda level: doc.share(level.cached_share)))
        notes.append("cached: share of the input tokens that a prompt cache answered, by the server's usage")
    columns.append((Column("tokens out", "p50"), lambda level: doc.count((level.output_tokens or levels.NOTHING).p50)))
    finish = Column("finish reasons", left=True, short="finish")
    columns.append((finish, lambda level: Cell(counts(level.finish_reasons))))
    if any(level.retries for level in rows):
        columns.append((Column("sent again", short="again"), lambda level: doc.count(level.retries)))
        notes.append("sent again: once, silently, after a reused connection had died before its first byte")
    if any(level.retried for level in rows):
        columns.append((Column("retried"), lambda level: doc.count(level.retried)))
        columns.append((Column("recovered", short="recov."), lambda level: doc.count(level.recovered)))
        notes.append(
            "retried: requests that repeat a failed one; recovered: those of them that completed; the failed ones stay "
            "failed"
        )
    return per_model("End-to-end", rows, columns, notes)


def open_loop(summary: Summary) -> list[Table]:
    """What the clock of an open loop hides or shows: waiting in the client, and TTFT from when a request was sent."""
    rows = [level for level in levels.of(summary) if level.is_open]
    if not rows:
        return []
    times = Times.of([*(level.client_queue_ms for level in rows), *(level.ttft_ms for level in rows)])
    columns: Columns[Level] = [
        LEVEL,
        (Column("offered"), lambda level: doc.count(level.offered)),
        IN_FLIGHT,
        *times_of("queue", times, lambda level: level.client_queue_ms, ("p50", "p99")),
        *times_of("TTFT", times, lambda level: level.ttft_ms, ("p50", "p95"), "from sent"),
    ]
    unit = {"ms": "milliseconds", "s": "seconds"}[times.unit]
    notes = [f"queue = waiting in the client, from due to sent; times in {unit}"]
    return _of_answers(per_model("Open loop", rows, columns, notes), summary)


def behind(summary: Summary) -> list[Table]:
    rows = levels.of(summary)
    columns: Columns[Level] = [
        LEVEL,
        (Column("level took", "s"), lambda level: doc.figure(level.duration_s)),
        (Column("steady window", "s"), lambda level: doc.figure(level.window_s)),
        IN_FLIGHT,
        (Column("whole run tokens", "/s"), whole_run_tokens),
        (Column("whole run done", "/s"), lambda level: doc.figure((level.whole_run or NO_RATES).requests_per_s)),
        (Column("input tokens", "/s"), lambda level: doc.figure(level.input_tokens_per_s)),
        STRETCH,
        *times_of("TTFE", Times.of(level.ttfe_ms for level in rows), lambda level: level.ttfe_ms, ["p50"]),
        (Column("TPOT micro", "ms"), lambda level: _tpot(level, doc.figure(level.tpot_micro_ms))),
        (Column("client lag p99", "ms"), lambda level: doc.figure((level.client_lag_ms or levels.NOTHING).p99)),
        (Column("merged arrivals"), lambda level: doc.share(level.merged_share)),
    ]
    if any(level.client_wait_share is not None for level in rows):
        # Runs from before it was counted, and systems that do not count it, have no such column.
        columns.append((Column("client wait", "for a core"), lambda level: doc.share(level.client_wait_share)))
    return _of_answers(per_model("Behind the figures", rows, columns, _tpot_notes(rows)), summary)


def whole_run_tokens(level: Level) -> Cell:
    return doc.figure((level.whole_run or NO_RATES).output_tokens_per_s)


def _of_answers(tables: list[Table], summary: Summary) -> list[Table]:
    """Without the columns that whole answers do not have."""
    return tables if levels.is_streamed(summary) else without_unknown(tables)


# -- tables over all models, and of one level


def errors(summary: Summary) -> Table | None:
    """Failures by kind, one row a level and kind; None when there were none."""
    rows: list[tuple[Level, str, int]] = []
    for level in levels.of(summary):
        for kind, n in sorted((level.errors or {}).items(), key=lambda item: (-item[1], item[0])):
            if n:
                rows.append((level, kind, n))
    columns: Columns[tuple[Level, str, int]] = [
        (Column("level", left=True), lambda row: Cell(levels.full_label(row[0], summary))),
        (Column("kind", left=True), lambda row: Cell(row[1])),
        (Column("requests"), lambda row: doc.count(row[2])),
        (Column("of attempted"), lambda row: doc.share(row[2] / row[0].attempted if row[0].attempted else None)),
    ]
    return table("Errors by kind", columns, rows) if rows else None


def prompts(level: Level, most: int = MOST_PROMPTS) -> Table | None:
    """The level's prompts, slowest first token (whole answer) first, at most `most`; None when it names none."""

    def slowness(prompt: PromptRow) -> float | None:
        return prompt.ttft_median_ms if levels.is_stream(level) else prompt.e2e_median_ms

    entries = sorted(level.prompts or (), key=lambda prompt: (-(slowness(prompt) or 0.0), prompt.prompt))
    shown = entries[:most]
    times = Times.over(map(slowness, shown))
    columns: Columns[PromptRow] = [
        (Column("prompt", left=True), lambda prompt: Cell(prompt.prompt)),
        (Column("n"), lambda prompt: doc.count(prompt.n)),
        (_first_token(level, times), lambda prompt: times.value(prompt.ttft_median_ms)),
        (Column("E2E median", times.unit), lambda prompt: times.value(prompt.e2e_median_ms)),
        (Column("E2E worst", times.unit), lambda prompt: times.value(prompt.e2e_worst_ms)),
        (Column("tokens out"), lambda prompt: doc.count(prompt.output_tokens_median)),
        (Column("outliers"), lambda prompt: doc.count(prompt.outliers)),
    ]
    left_out = len(entries) - len(shown) + (level.prompts_left_out or 0)
    notes = [f"{units.plural(left_out, 'more prompt')}: see requests.jsonl"] if left_out else []
    return _of_level(level, table(f"By prompt, {levels.label(level)}", columns, shown, notes, str(level.model)))


def input_lengths(level: Level) -> Table | None:
    rows = level.input_lengths or ()
    times = Times.over(row.ttft_median_ms if levels.is_stream(level) else row.e2e_median_ms for row in rows)
    columns: Columns[LengthRow] = [
        (Column("input tokens", left=True), lambda row: Cell(f"{row.from_tokens:,}–{row.to_tokens:,}")),
        (Column("n"), lambda row: doc.count(row.n)),
        (_first_token(level, times), lambda row: times.value(row.ttft_median_ms)),
        (Column("E2E median", times.unit), lambda row: times.value(row.e2e_median_ms)),
    ]
    return _of_level(level, table(f"By input length, {levels.label(level)}", columns, rows, model=str(level.model)))


def _first_token(level: Level, times: Times) -> Column:
    return Column("TTFT from sent" if level.is_open else "TTFT median", times.unit)


def _of_level(level: Level, one: Table) -> Table | None:
    if not one.rows or levels.is_stream(level):
        return one if one.rows else None
    return next(iter(without_unknown([one])), None)


def worst_prompts(summary: Summary) -> list[Table]:
    """The slowest prompts at each model's highest load that names several."""
    shown = []
    for rows in levels.by_model(levels.of(summary)).values():
        several = [level for level in rows if len(level.prompts or ()) > 1]
        worst = prompts(max(several, key=levels.load), WORST_PROMPTS) if several else None
        if worst:
            label = worst.title.removeprefix("By prompt, ")
            shown.append(replace(worst, title=f"Slowest prompts ({label})", notes=()))
    return shown


# -- what more load buys


def curves(summary: Summary) -> list[Curve]:
    """The models' curves that have several loads."""
    return [curve for curve in summary.scaling if len({row.n for row in curve.levels}) >= SEVERAL]


def curve_of(summary: Summary, model: str | None, loop: str = "closed") -> Curve | None:
    for curve in curves(summary):
        if curve.model == model and curve.loop == loop:
            return curve
    return None


def knees_of(curve: Curve) -> dict[str, Knee]:
    """The knees of a curve by the name of their rule; a rule that finds none has no entry."""
    knees: dict[str, Knee] = {}
    for name in KNEES:
        knee = getattr(curve.knees, name)
        if knee:
            knees[name] = knee
    return knees


def scaling(summary: Summary) -> list[Table]:
    """Each level between the two lines that nothing leaves: every stream as fast as one alone, and one by one."""
    points: dict[str | None, CurveRow] = {}
    for curve in curves(summary):
        if curve.loop == "closed":
            points |= {row.id: row for row in curve.levels}
    rows = [level for level in levels.of(summary) if level.id in points]
    columns: Columns[Level] = [
        LEVEL,
        IN_FLIGHT,
        TOKENS_SURE,
        (Column("ideal", "/s"), lambda level: doc.figure(points[level.id].ideal_x_per_s)),
        (Column("one by one", "/s"), lambda level: doc.figure(points[level.id].serial_x_per_s)),
        EFFICIENCY,
        (Column("speed-up"), lambda level: doc.figure(level.speedup, level.speedup_ci95)),
        STRETCH,
    ]
    notes = [
        "ideal = each stream gets what one of the lowest level gets; one by one = all of them together get that",
        "speed-up, stretch = tokens/s, mean E2E against the lowest level",
    ]
    return without_unknown(per_model("Scaling", rows, columns, notes))


def knees(summary: Summary) -> Table | None:
    """The four knees of each model; None where no curve has one."""
    bent = [curve for curve in curves(summary) if knees_of(curve)]
    unit = "req/s" if all(curve.loop == "open" for curve in bent) else "streams"
    columns: Columns[Curve] = [
        (Column("model", left=True), lambda curve: Cell(curve.model)),
        (Column("power", unit), lambda curve: _knee(curve.knees.power)),
        (Column("doubling", unit), lambda curve: _knee(curve.knees.doubling)),
        (Column("corner", unit), lambda curve: _knee(curve.knees.corner)),
        (Column("SLO", unit), lambda curve: _knee(curve.knees.slo)),
    ]
    tables = without_unknown([table("Knees", columns, bent)])
    if not tables:
        return None
    shown = {column.name.lower() for column in tables[0].columns}
    notes = [text for name, text in KNEES.items() if name in shown]
    crossed: dict[str, str] = {}
    for curve in bent:
        knee = curve.knees.slo
        if knee and knee.relation != ">":
            crossed[curve.model] = str(knee.bound)
    if crossed:
        firsts = [f"{bound} ({model})" for model, bound in crossed.items()]
        same = set(crossed.values())
        notes.append(f"first objective to be crossed: {same.pop() if len(same) == 1 else ', '.join(firsts)}")
    if len(shown) > SEVERAL:
        notes.append("each rule has its own answer: a knee means nothing without its name")
    for curve in bent:
        if curve.usl_reason:
            of = f" of {curve.model}" if len(bent) > 1 else ""
            notes.append(f"no scalability law{of}: it {curve.usl_reason}")
    return replace(tables[0], notes=tuple(notes))


def _knee(knee: Knee | None) -> Cell:
    if knee is None:
        return Cell(units.ABSENT)
    n = float(knee.n)
    number = units.count(n) if n.is_integer() else units.figure(n)
    return Cell(number if knee.relation == "=" else f"{knee.relation} {number}")


def law(summary: Summary) -> Table | None:
    fitted = [(curve.model, curve.usl) for curve in curves(summary) if curve.usl]
    columns: Columns[tuple[str, Law]] = [
        (Column("model", left=True), lambda row: Cell(row[0])),
        (Column("lambda", "tokens/s"), lambda row: doc.figure(row[1].lambda_per_s, row[1].ci95.get("lambda_per_s"))),
        (Column("sigma"), lambda row: doc.figure(row[1].sigma, row[1].ci95.get("sigma"))),
        (Column("kappa"), lambda row: doc.figure(row[1].kappa, row[1].ci95.get("kappa"))),
        (Column("peak at", "streams"), lambda row: _peak(row[1], row[1].ci95.get("peak_n"))),
        (Column("off by"), lambda row: doc.share(row[1].rms)),
    ]
    notes = (
        "X(N) = lambda*N / (1 + sigma*(N-1) + kappa*N*(N-1)), N = mean in flight: sigma is what streams wait for, "
        "kappa what they cost each other",
        "nothing is said beyond the levels measured; off by = root mean square of the residuals",
    )
    return table("Universal Scalability Law", columns, fitted, notes) if fitted else None


def _peak(law: Law, interval: Interval | None) -> Cell:
    """The peak, or that it lies beyond what was measured; so with the ends of its interval."""

    def shown(n: float | None) -> str:
        return f"> {units.figure(law.measured_to)}" if n is None else units.figure(n)

    # The upper end alone may lie beyond.
    ends = "–".join(map(shown, interval)) if interval and interval[0] is not None else ""
    return Cell(shown(law.peak_n), ends)
