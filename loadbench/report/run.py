"""The report of a run, from its summary alone: what it says, in which order. It computes no statistic."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from loadbench import text as units
from loadbench.metrics.checks import NAMES, titled
from loadbench.report import breakdowns, choice, comparison, levels, objectives, provenance, tables
from loadbench.report import document as doc
from loadbench.report.document import (
    Block,
    Details,
    Document,
    Facts,
    Finding,
    Line,
    Only,
    Section,
    Text,
    Title,
    tables_of,
)
from loadbench.report.html import plots as drawn
from loadbench.report.html import timeline
from loadbench.report.levels import Record
from loadbench.store.summary import Curve, Level, Objective, Summary, rank

NOTHING = "No validity gate spoke: nothing was found that makes these figures doubtful."
STEADY = 1.1
"""A TTFT or E2E that changes by less than this factor between two levels is said to stay."""
MORE_THAN_PLANNED = 1.05
SCALES, WAITS = 0.8, 2.0
"""Least efficiency, and most growth of the median TTFT (of whole answers E2E), of what is said to scale well."""


def document(record: Record | Summary, *, plots: bool = False) -> Document:
    """The whole report.

    Args:
        record: What `metrics.summarise` returns, with the facts of run.json in it.
        plots: Whether it is for a page, which alone has plots.
    """
    summary = levels.read(record)
    measured = levels.of(summary)
    blocks: list[Block] = [Text("", lines(summary)), Facts("How it was got", provenance.facts(summary))]
    if not measured:
        blocks.append(doc.Small("", ["No level was measured."]))
    blocks += tables_of(
        objectives.steps(summary),
        tables.headline(summary),
        breakdowns.endpoints(summary),
        breakdowns.workers(summary),
        breakdowns.repeats(summary),
    )
    sections = [Section("verdict", "In short", blocks)]
    chosen = choice.section(summary.choice) if plots and isinstance(summary.choice, dict) else None
    if chosen:
        sections.append(chosen)
    if measured:
        sections += _measured(summary, plots=plots)
    details = (
        ("Behind the figures", tables_of(tables.behind(summary))),
        ("By prompt", tables_of(*map(tables.prompts, measured))),
        ("By input length", tables_of(*map(tables.input_lengths, measured))),
    )
    more: list[Block] = [Details(title, inner) for title, inner in details if inner]
    sections.append(Section("more", "More figures", [*more, definitions()]))
    facts = dict(provenance.facts(summary))
    about = " · ".join(facts[name] for name in ("target", "client") if name in facts)
    warning = provenance.SIMULATED if levels.is_simulated(summary) else ""
    title = Title(provenance.title(summary), date=provenance.date(summary), about=about, simulated=warning)
    return Document(title, sections, verdict_again=bool(measured))


def lines(summary: Summary) -> list[Line]:
    """The report in sentences: thresholds and searches first, then each model."""
    return [*objectives.lines(summary), *models(summary)]


def definitions() -> Block:
    hint = "What each figure means: report.md in the run folder, section Definitions."
    return Details("Definitions", [Facts("", provenance.definitions())], hint)


def _measured(summary: Summary, *, plots: bool) -> Sequence[Section]:
    compared = [] if summary.models_compared is UNSET else comparison.among_models(summary.models_compared)
    throughput: Sequence[Block] = drawn.throughput(summary) if plots else ()
    latency: Sequence[Block] = drawn.latency(summary) if plots else ()
    beside: Sequence[Block] = drawn.side_by_side(summary) if plots else ()
    lines_between = tables_of(tables.scaling(summary))
    slowest = tables_of(tables.worst_prompts(summary))
    sections = [
        Section(
            "scaling",
            "Throughput against load",
            [
                *throughput,
                # A page has it as the table of its plot; the other formats below have all prompts to unfold.
                *([Only("markdown", lines_between)] if lines_between else []),
                *tables_of(tables.knees(summary), tables.law(summary)),
            ],
        ),
        Section(
            "latency",
            "Latency against load",
            [*latency, *tables_of(tables.gaps(summary), tables.answers(summary), tables.open_loop(summary))],
        ),
        Section("models", "Models side by side", [*compared, *beside, *tables_of(*breakdowns.devices(summary))]),
        Section(
            "failures",
            "Failures and objectives",
            tables_of(objectives.threshold_table(summary), objectives.slo(summary), tables.errors(summary)),
        ),
        Section(
            "costs",
            "What it cost",
            tables_of(
                breakdowns.cold_start(summary),
                breakdowns.memory(summary),
                breakdowns.machine(summary),
                breakdowns.energy(summary),
                breakdowns.server(summary),
            ),
        ),
        Section(
            "validity",
            "Can it be trusted?",
            [*([Only("text", slowest)] if slowest else []), *_doubts(summary)],
        ),
    ]
    if plots:
        sections.append(Section("spectra", "Latency, all percentiles", drawn.distributions(summary)))
        sections.append(Section("timeline", "Timeline", timeline.plots(summary)))
    return [section for section in sections if section.blocks]


# -- doubts


def _doubts(summary: Summary) -> list[Block]:
    blocks: list[Block] = []
    unfinished = _unfinished(summary)
    if unfinished:
        blocks.append(Text.of("Levels that did not run to their end", unfinished, "†"))
    closing = _closing(summary)
    if closing:
        blocks.append(Text.of("Measured again at the end", closing))
    return [*blocks, doc.Findings("Doubts", gates(summary), NOTHING)]


def gates(summary: Summary) -> list[Finding]:
    """Reds first, then by number; the same words at several levels are said once."""
    spoke: dict[tuple[str, str], dict[str, list[str]]] = {}
    for level, warning in levels.warnings(summary):
        places = spoke.setdefault((warning.code, warning.severity), {}).setdefault(warning.text, [])
        places.append(levels.full_label(level, summary) if level else "")
    found = []
    for code, severity in sorted(spoke, key=lambda gate: (rank(gate[1]), levels.by_number(gate[0])[0])):
        texts = [(levels.joined(places), text) for text, places in spoke[code, severity].items()]
        name = NAMES.get(code, "")
        found.append(Finding(f"{code} {severity}", severity, texts, "" if name == code else name))
    return found


def _unfinished(summary: Summary) -> list[str]:
    """One line for each level that did not run to its end: "c8: interrupted after 12 of 80 requests (Ctrl-C)"."""
    found = []
    for level in levels.of(summary):
        if level.is_whole:
            continue
        line = f"{levels.full_label(level, summary)}: {level.status}"
        if level.attempted:
            planned = level.requests_planned
            of = f" of {units.plural(planned, 'request')}" if planned else " requests"
            line += f" after {level.attempted:,}{of}"
        if level.cancelled:
            line += f", {level.cancelled:,} of them cancelled"
        if level.reason:
            line += f" ({level.reason})"
        found.append(line)
    return found


def _closing(summary: Summary) -> list[str]:
    """One line for each level that was measured again at the end: what changed meanwhile."""
    found = []
    several = len(levels.by_model(levels.of(summary))) > 1
    for band in summary.noise:
        ratios = []
        for name, ratio in (
            ("tokens/s", band.output_tokens_per_s),
            ("TTFT p50", band.ttft_p50),
            ("E2E p50", band.e2e_p50),
        ):
            if ratio is not UNSET and ratio is not None:
                ratios.append(f"{name} {ratio:.2f}x")
        level = str(band.level).rpartition("@")[2]
        where = f"{band.model} {level}" if several else level
        found.append(f"{where}: {', '.join(ratios) or 'no figure'} of the first time; in no table above")
    return found


# -- one sentence a model, for those who read nothing else: only figures that exist, hedged where gates are red


def models(summary: Summary) -> list[Line]:
    """What each model did, and why that may be no basis for a verdict."""
    by_model = levels.by_model(levels.of(summary))
    searched = {str(search.model) for search in summary.capacity or ()}
    found = []
    for model, rows in by_model.items():
        text = _sentence(rows, tables.curve_of(summary, model), with_characters=len(by_model) > 1)
        # A search says for itself what the model carries, from more than the levels' shares alone.
        load = "" if model in searched else carried(rows)
        if load:
            text += f"; {load}"
        red: dict[str, list[str]] = {}
        for level, warning in levels.warnings(summary):
            if warning.severity == "red" and (level is None or level in rows):
                where = levels.label(level) if level else "the whole run"
                red.setdefault(warning.code, []).append(where)
        gates: dict[str, list[str]] = {}
        for code, places in red.items():
            gates.setdefault(levels.joined(places), []).append(titled(code))
        doubts = [f"{levels.joined(codes)} red at {where}" for where, codes in gates.items()]
        doubt = f"Not a basis for a verdict: {'; '.join(doubts)}." if doubts else ""
        found.append(Line(f"{text}.", name=model, doubt=doubt))
    return found


def _sentence(rows: Sequence[Level], curve: Curve | None, *, with_characters: bool) -> str:
    measured = [level for level in rows if level.output_tokens_per_s is not None]
    attempted = sum(level.attempted or 0 for level in rows)
    if not measured:
        return _nothing(rows, attempted)
    # Loops of two kinds share no axis; repeats of a load are told by the first.
    ordered = levels.by_load(level for level in measured if level.is_open == measured[0].is_open)
    firsts = levels.firsts(ordered)
    if curve and curve.serial and len(firsts) > 1:
        parts = [_serial(firsts[-1]), _throughput(firsts[-1:], ordered, with_characters), _times(firsts)]
    else:
        parts = [_word(firsts, curve) + _throughput(firsts, ordered, with_characters), _times(firsts)]
    failed, dropped = sum(level.failed or 0 for level in rows), sum(level.dropped or 0 for level in rows)
    if failed:
        parts.append(f"{failed:,} of {units.plural(attempted, 'request')} failed")
    if dropped:
        offered = sum(level.offered or 0 for level in rows)
        parts.append(f"{dropped:,} of {units.plural(offered, 'request')} dropped")
    parts += [f"{levels.label(level)} {level.status}" for level in rows if not level.is_whole]
    return "; ".join(filter(None, parts))


def _nothing(rows: Sequence[Level], attempted: int) -> str:
    if not attempted:
        return "not measured"
    completed = sum(level.completed or 0 for level in rows)
    kinds: dict[str, int] = {}
    for level in rows:
        for kind, n in (level.errors or {}).items():
            kinds[kind] = kinds.get(kind, 0) + n
    why = f" (failed: {tables.counts(kinds)})" if kinds else ""
    return f"throughput not measured; {completed:,} of {units.plural(attempted, 'request')} completed{why}"


def _serial(last: Level) -> str:
    waits = f", and wait {last.stretch:.2g} times as long" if last.stretch else ""
    # Nobody saw the tokens of whole answers: a server that shares itself out looks the same.
    answers = "answers" if levels.is_stream(last) else "answers as if"
    return f"{answers} one request at a time: {last.concurrency or 0} streams get what one gets{waits}"


def _word(firsts: Sequence[Level], curve: Curve | None) -> str:
    """How it scales, in a word before the figures: by efficiency and TTFT, never by TPOT, which is blind to queues."""
    first, last = firsts[0], firsts[-1]
    if not curve or first is last or last.is_open:
        return ""
    before, after = levels.lead(first).p50, levels.lead(last).p50
    efficient = (last.efficiency or 0) >= SCALES
    if efficient and before and after and after / before <= WAITS:
        return f"scales well to {levels.load_words(last)}: "
    if curve.saturated_n is not None and curve.saturated_n < levels.load(last):
        return f"saturated from {units.plural(int(curve.saturated_n), 'stream')} on: "
    return ""


def _throughput(firsts: Sequence[Level], ordered: Sequence[Level], with_characters: bool) -> str:
    first, last, peak = firsts[0], firsts[-1], _peak(firsts)
    rate = _rate(peak, ordered, with_characters)
    if last.is_open:
        planned, completed = last.request_rate_per_s, last.requests_per_s
        done = f"{units.figure(completed)} req/s completed"
        # Nothing completes that was not started: a window of few arrivals holds more or fewer than planned.
        if planned and completed and completed > MORE_THAN_PLANNED * planned:
            done += ", more than planned by chance"
        return f"{rate} at {levels.load_words(last)} planned, {done}"
    gains = []
    if peak is not first and peak.speedup is not None:
        gains.append(f"{peak.speedup:.1f}x of {levels.load_words(first)}")
    if peak is not first and peak.efficiency is not None:
        gains.append(f"efficiency {units.percent(peak.efficiency)}")
    text = f"{rate} at {levels.load_words(peak)}"
    if gains:
        text += f" ({', '.join(gains)})"
    if peak is last:
        return text
    return f"peaks at {text}, {units.figure(last.output_tokens_per_s)} at {levels.load_words(last)}"


def _rate(level: Level, ordered: Sequence[Level], with_characters: bool) -> str:
    """Tokens per second, as a range where the load was repeated; characters too where models are compared."""
    same = [other for other in ordered if levels.load(other) == levels.load(level)]
    rates = [float(other.output_tokens_per_s or 0.0) for other in same]
    lowest, highest = units.figure(min(rates)), units.figure(max(rates))
    rate = lowest if lowest == highest else f"{lowest} to {highest}"
    if levels.is_estimated(level):
        rate = f"about {rate}"
    rate += " tokens/s"
    if with_characters and level.characters_per_s is not None:
        rate += f" and {units.figure(level.characters_per_s)} characters/s"
    return rate


def _times(firsts: Sequence[Level]) -> str:
    """How TTFT (of whole answers E2E) changes with load: by p95 where both ends have an interval, else the median."""
    first, last = firsts[0], firsts[-1]
    ends = levels.lead(first), levels.lead(last)
    kind = levels.lead_name(first)
    statistic, name = "p95", f"{kind} p95"
    if any(end.p95 is None or levels.is_marked(end, "p95") for end in ends):
        statistic, name = "p50", f"median {kind}"
    low, high = ends[0].at(statistic), ends[1].at(statistic)
    if high is None or low is None:
        return ""
    if any(levels.is_marked(end, statistic) for end in ends):
        name += " (too few requests for an interval)"
    if first is last:
        return f"{name} {units.span(high)}"
    between = f"from {units.span(low)} at {levels.load_words(first)} to {units.span(high)}"
    if _peak(firsts) is not last:
        between += f" at {levels.load_words(last)}"
    if high > low * STEADY:
        return f"{name} grows {between}"
    if high < low / STEADY:
        return f"{name} falls {between}"
    return f"{name} stays near {units.span(high)}"


def _peak(firsts: Sequence[Level]) -> Level:
    """The level with the most tokens/s; in open loop the highest, which the sentence is about."""
    if firsts[-1].is_open:
        return firsts[-1]
    return max(firsts, key=lambda level: level.output_tokens_per_s or 0.0)


# -- how many users a model carries within its objectives


def carried(rows: Sequence[Level]) -> str:
    """How much load a model carries within the objectives, of the levels that were measured; "" without objectives.

    A load is carried where each of its repeats met every bound, and so did every lower load that was measured.
    """
    judged = [level for level in rows if level.slo and level.is_whole]
    judged = [level for level in judged if level.is_open == judged[0].is_open]
    if not judged:
        return ""
    by_load: dict[float, list[Level]] = {}
    for level in sorted(judged, key=levels.load):
        by_load.setdefault(levels.load(level), []).append(level)
    most, failing = None, None
    for load, same in by_load.items():
        bounds = _bounds(same)
        if any(bound.attained is False for bound in bounds):
            failing = load
            break
        undecided = [bound.bound for bound in bounds if bound.attained is None]
        if undecided:
            return f"whether it keeps within {levels.joined(undecided)} is not known"
        most = load
    deciding: list[Level] = []
    for decisive in (most, failing):
        if decisive is not None:
            deciding += by_load[decisive]
    within = f"within {levels.joined(bound.bound for bound in _bounds(judged))}"
    beyond, hedge = ", the most that was measured", _hedge(deciding)
    if failing is not None:
        beyond = f", {failing:g} are too many"
    unit = "user" if most == 1 else "users"
    if judged[0].is_open:
        unit = "req/s"
    devices = {levels.device(level) or "" for level in rows}
    on = f" on {devices.pop()}" if len(devices) == 1 and "" not in devices else ""
    if any(level.device_by_name for level in rows):
        on = ""
    if most is None:
        loads = units.listed(f"{load:g}" for load in by_load)
        return f"carries none of the levels measured{on} ({loads} {unit}) {within}{hedge}"
    return f"carries {most:g} {unit}{on} {within}{beyond}{hedge}"


def _bounds(rows: Sequence[Level]) -> list[Objective]:
    found: list[Objective] = []
    for level in rows:
        found += level.slo or ()
    return found


def _hedge(deciding: Sequence[Level]) -> str:
    """What speaks against the levels that decide."""
    codes: dict[str, set[str]] = {"red": set(), "warn": set(), "note": set()}
    for level in deciding:
        for warning in level.warnings:
            codes[warning.severity].add(warning.code)
    if codes["red"]:
        return f", by figures that are in doubt ({', '.join(sorted(map(titled, codes['red'])))} red)"
    return ", by few requests" if "V12" in codes["warn"] | codes["note"] else ""
