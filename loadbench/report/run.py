"""The report of a run, from its summary alone: what it says, in which order. It computes no statistic."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from loadbench import text as units
from loadbench.metrics.checks import NAMES, titled
from loadbench.report import breakdowns, choice, comparison, levels, objectives, provenance, tables
from loadbench.report import document as doc
from loadbench.report.document import Block, Details, Finding, Line, Only, Section, Text, tables_of
from loadbench.report.html import plots as drawn
from loadbench.report.html import timeline
from loadbench.report.levels import Record
from loadbench.store.summary import Curve, Level, Objective, Summary, rank

NOTHING = "No warnings: no check found anything that makes these figures doubtful."
STEADY = 1.1
"""A TTFT or E2E that changes by less than this factor between two levels stays."""
MORE_THAN_PLANNED = 1.05
SCALES, WAITS = 0.8, 2.0
"""Least efficiency, and most growth of the median TTFT (of whole answers E2E), of a model that scales well."""


def document(record: Record | Summary, *, plots: bool = False) -> doc.Document:
    """The whole report.

    Args:
        record: What `metrics.summarise` returns, with the facts of run.json in it.
        plots: Whether it is for a page, which alone has plots.
    """
    summary = levels.read(record)
    measured = levels.of(summary)
    blocks: list[Block] = [Text("", lines(summary)), doc.Facts("Run details", provenance.facts(summary))]
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
    facts: dict[str, str] = {}
    for name, text in provenance.facts(summary):
        facts.setdefault(name, text)
    about = " · ".join(facts[name] for name in ("target", "client") if name in facts)
    warning = provenance.SIMULATED if levels.is_simulated(summary) else ""
    title = doc.Title(provenance.title(summary), date=provenance.date(summary), about=about, simulated=warning)
    return doc.Document(title, sections, verdict_again=bool(measured))


def lines(summary: Summary) -> list[Line]:
    """The report in sentences: thresholds and searches first, then each model."""
    return [*objectives.lines(summary), *models(summary)]


def definitions() -> Block:
    hint = "Metric definitions: see report.md in the run folder."
    return Details("Metric definitions", [doc.Facts("", provenance.definitions())], hint)


def _measured(summary: Summary, *, plots: bool) -> list[Section]:
    compared = [] if summary.models_compared is UNSET else comparison.among_models(summary.models_compared)
    between, slowest = tables_of(tables.scaling(summary)), tables_of(tables.worst_prompts(summary))
    throughput: list[Block] = [
        # A page has it as the table of its plot.
        *([Only("markdown", between)] if between else []),
        *tables_of(tables.knees(summary), tables.law(summary)),
    ]
    times = [tables.thinking(summary), tables.gaps(summary), tables.prefill(summary)]
    latency: list[Block] = [*tables_of(*times, tables.answers(summary), tables.open_loop(summary))]
    beside = drawn.side_by_side(summary) if plots else []
    models: list[Block] = [*compared, *beside, *tables_of(*breakdowns.devices(summary))]
    failures = tables_of(objectives.threshold_table(summary), objectives.slo(summary), tables.errors(summary))
    costs = tables_of(
        breakdowns.cold_start(summary),
        breakdowns.memory(summary),
        breakdowns.machine(summary),
        breakdowns.energy(summary),
        breakdowns.server(summary),
    )
    # The other formats have all prompts, to unfold.
    validity: list[Block] = [Only("text", slowest)] if slowest else []
    for title, lines, sign in (
        ("Levels that did not run to their end", unfinished(summary), "†"),
        ("Measured again at the end", _closing(summary), "-"),
    ):
        if lines:
            validity.append(Text.of(title, lines, sign))
    validity.append(doc.Findings("Warnings", gates(summary), NOTHING))
    if plots:
        throughput = [*drawn.throughput(summary), *throughput]
        latency = [*drawn.latency(summary), *latency]
    sections = [
        Section("scaling", "Throughput against load", throughput),
        Section("latency", "Latency against load", latency),
        Section("models", "Models side by side", models),
        Section("failures", "Failures and SLOs", failures),
        Section("costs", "What it cost", costs),
        Section("validity", "Can it be trusted?", validity),
    ]
    if plots:
        sections.append(Section("spectra", "Latency, all percentiles", drawn.distributions(summary)))
        sections.append(Section("timeline", "Timeline", timeline.plots(summary)))
    return [section for section in sections if section.blocks]


def gates(summary: Summary) -> list[Finding]:
    """Reds first, then by number; the same text at several levels is there once."""
    spoke: dict[tuple[str, str], dict[str, list[str]]] = {}
    for level, warning in levels.warnings(summary):
        places = spoke.setdefault((warning.code, warning.severity), {}).setdefault(warning.text, [])
        places.append(levels.full_label(level, summary) if level else "")
    findings = []
    for code, severity in sorted(spoke, key=lambda gate: (rank(gate[1]), levels.by_number(gate[0])[0])):
        texts = [(levels.joined(places), text) for text, places in spoke[code, severity].items()]
        name = NAMES.get(code, "")
        findings.append(Finding(f"{code} {severity}", severity, texts, "" if name == code else name))
    return findings


def unfinished(summary: Summary) -> list[str]:
    """One line for each level that did not run to its end: "c8: interrupted after 12 of 80 requests (Ctrl-C)"."""
    sentences = []
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
        sentences.append(line)
    return sentences


def _closing(summary: Summary) -> list[str]:
    """One line for each level that was measured again at the end: what changed meanwhile."""
    sentences = []
    several = len(levels.by_model(levels.of(summary))) > 1
    for band in summary.noise:
        ratios = []
        of = {"tokens/s": band.output_tokens_per_s, "TTFT p50": band.ttft_p50, "E2E p50": band.e2e_p50}
        for name, ratio in of.items():
            if ratio is not UNSET and ratio is not None:
                ratios.append(f"{name} {ratio:.2f}x")
        level = str(band.level).rpartition("@")[2]
        where = f"{band.model} {level}" if several else level
        sentences.append(f"{where}: {', '.join(ratios) or 'no figure'} of the first time; in no table above")
    return sentences


# -- one sentence a model, for those who read nothing else: only figures that exist, hedged where gates are red


def models(summary: Summary) -> list[Line]:
    """What each model did, and why that may be no basis for a verdict."""
    by_model = levels.by_model(levels.of(summary))
    searched = {str(search.model) for search in summary.capacity or ()}
    sentences = []
    for model, rows in by_model.items():
        text = _sentence(rows, tables.curve_of(summary, model), with_characters=len(by_model) > 1)
        # A search says for itself what the model serves, from more than the levels' shares alone.
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
        sentences.append(Line(f"{text}.", name=model, doubt=doubt))
    return sentences


def _sentence(rows: Sequence[Level], curve: Curve | None, *, with_characters: bool) -> str:
    measured = [level for level in rows if level.output_tokens_per_s is not None]
    attempted = sum(level.attempted or 0 for level in rows)
    if not attempted and not measured:
        return "not measured"
    if not measured:
        completed = sum(level.completed or 0 for level in rows)
        failures = tables.failures(rows)
        why = f" (failed: {failures})" if failures else ""
        return f"throughput not measured; {completed:,} of {units.plural(attempted, 'request')} completed{why}"
    # Loops of two kinds share no axis; the first repeat stands for the others.
    ordered = levels.by_load(level for level in measured if level.is_open == measured[0].is_open)
    firsts = levels.firsts(ordered)
    last = firsts[-1]
    if curve and curve.serial and len(firsts) > 1:
        waits = f", and wait {last.stretch:.2g} times as long" if last.stretch else ""
        # Nobody saw the tokens of whole answers: a server that shares itself out looks the same.
        answers = "answers" if levels.is_stream(last) else "answers as if"
        serial = f"{answers} one request at a time: {last.concurrency or 0} streams get what one gets{waits}"
        parts = [serial, _throughput(firsts[-1:], ordered, with_characters), _times(firsts)]
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


# -- how many users a model serves within its objectives


def carried(rows: Sequence[Level]) -> str:
    """How much load a model serves within the objectives, of the levels that were measured; "" without objectives.

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
    # What speaks against the levels that decide.
    red, codes = set(), set()
    for decisive in (most, failing):
        for level in [] if decisive is None else by_load[decisive]:
            codes |= {warning.code for warning in level.warnings}
            red |= {titled(warning.code) for warning in level.warnings if warning.severity == "red"}
    hedge = ", on few requests" if "V12" in codes else ""
    if red:
        hedge = f", by figures in doubt ({', '.join(sorted(red))} red)"
    within = f"within {levels.joined(bound.bound for bound in _bounds(judged))}"
    beyond = ", the most that was measured"
    if failing is not None:
        beyond = f", {failing:g} is too many"
    unit = "user" if most == 1 else "users"
    if judged[0].is_open:
        unit = "req/s"
    devices = {levels.device(level) or "" for level in rows}
    on = f" on {devices.pop()}" if len(devices) == 1 and "" not in devices else ""
    if any(level.device_by_name for level in rows):
        on = ""
    if most is None:
        loads = units.listed(f"{load:g}" for load in by_load)
        return f"serves none of the levels measured{on} ({loads} {unit}) {within}{hedge}"
    return f"serves {most:g} {unit}{on} {within}{beyond}{hedge}"


def _bounds(rows: Sequence[Level]) -> list[Objective]:
    bounds: list[Objective] = []
    for level in rows:
        bounds += level.slo or ()
    return bounds
