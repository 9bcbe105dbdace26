"""The report of a run, from its summary alone: what is said, in which order. It computes no statistic."""

from __future__ import annotations

from collections.abc import Sequence

from loadbench import text as units
from loadbench.metrics.checks import NAMES
from loadbench.report import (
    breakdowns,
    comparison,
    costs,
    headline,
    levels,
    objectives,
    provenance,
    scaling,
    tables,
)
from loadbench.report.document import (
    Block,
    Details,
    Document,
    Facts,
    Finding,
    Findings,
    Format,
    Line,
    Only,
    Section,
    Small,
    Table,
    Text,
    Title,
    tables_of,
)
from loadbench.report.html import choice, curves, timeline
from loadbench.report.levels import Summary
from loadbench.store.summary import rank

NOTHING = "No validity gate spoke: nothing was found that makes these figures doubtful."


def document(summary: Summary, *, plots: bool = False) -> Document:
    """The whole report.

    Args:
        summary: What `metrics.summarise` returns, with the facts of run.json in it.
        plots: Whether it is for a page, which alone has plots.
    """
    sections = [_verdict(summary)]
    if plots:
        sections += choice.sections(summary)
    if levels.levels(summary):
        sections += _measured(summary, plots=plots)
    sections.append(Section("more", "More figures", [*_details(summary), definitions()]))
    return Document(title(summary), sections, verdict_again=bool(levels.levels(summary)))


def title(summary: Summary) -> Title:
    facts = dict(provenance.facts(summary))
    about = " · ".join(facts[name] for name in ("target", "client") if name in facts)
    warning = provenance.SIMULATED if levels.is_simulated(summary) else ""
    return Title(provenance.title(summary), date=provenance.date(summary), about=about, simulated=warning)


def lines(summary: Summary) -> list[Line]:
    """The report in sentences: thresholds and searches first, then each model."""
    return [*objectives.lines(summary), *headline.lines(summary)]


def definitions() -> Block:
    hint = "What each figure means: report.md in the run folder, section Definitions."
    return Details("Definitions", [Facts("", provenance.definitions())], hint)


def _verdict(summary: Summary) -> Section:
    blocks: list[Block] = [Text("", lines(summary)), Facts("How it was got", provenance.facts(summary))]
    if not levels.levels(summary):
        blocks.append(Small("", ["No level was measured."]))
    blocks += tables_of(
        objectives.steps(summary),
        tables.headline(summary),
        breakdowns.endpoints(summary),
        breakdowns.workers(summary),
        breakdowns.repeats(summary),
    )
    return Section("verdict", "In short", blocks)


def _measured(summary: Summary, *, plots: bool) -> list[Section]:
    throughput = curves.throughput(summary) if plots else []
    latency = curves.latency(summary) if plots else []
    beside = curves.side_by_side(summary) if plots else []
    devices = [block for table in breakdowns.devices(summary) for block in tables_of(table)]
    failures = tables_of(objectives.threshold_table(summary), objectives.slo(summary), tables.errors(summary))
    slowest = _only("text", tables.worst_prompts(summary))  # the other formats have all of them to unfold
    used = tables_of(
        costs.cold_start(summary),
        costs.memory(summary),
        costs.machine(summary),
        costs.energy(summary),
        costs.server(summary),
    )
    sections = [
        Section(
            "scaling",
            "Throughput against load",
            [
                *throughput,
                *_only("markdown", scaling.lines(summary)),  # a page has it as the table of its plot
                *tables_of(scaling.knees(summary), scaling.law(summary)),
            ],
        ),
        Section(
            "latency",
            "Latency against load",
            [*latency, *tables_of(tables.gaps(summary), tables.answers(summary), tables.open_loop(summary))],
        ),
        Section("models", "Models side by side", [*comparison.among_models(summary), *beside, *devices]),
        Section("failures", "Failures and objectives", failures),
        Section("costs", "What it cost", used),
        Section("validity", "Can it be trusted?", [*slowest, *doubts(summary)]),
    ]
    if plots:
        sections.append(Section("spectra", "Latency, all percentiles", curves.distributions(summary)))
        sections.append(Section("timeline", "Timeline", timeline.plots(summary)))
    return [section for section in sections if section.blocks]


def _only(format: Format, found: Sequence[Table]) -> list[Block]:
    return [Only(format, tables_of(found))] if found else []


def _details(summary: Summary) -> list[Block]:
    rows = levels.levels(summary)
    details = (
        ("Behind the figures", tables_of(tables.behind(summary))),
        ("By prompt", tables_of(*map(tables.prompts, rows))),
        ("By input length", tables_of(*map(tables.input_lengths, rows))),
    )
    return [Details(title, blocks) for title, blocks in details if blocks]


# -- doubts


def doubts(summary: Summary) -> list[Block]:
    blocks: list[Block] = []
    unfinished = _unfinished(summary)
    if unfinished:
        blocks.append(Text.of("Levels that did not run to their end", unfinished, "†"))
    closing = _closing(summary)
    if closing:
        blocks.append(Text.of("Measured again at the end", closing))
    return [*blocks, Findings("Doubts", gates(summary), NOTHING)]


def gates(summary: Summary) -> list[Finding]:
    """Reds first, then by number; the same words at several levels are said once."""
    spoke: dict[tuple[str, str], dict[str, list[str]]] = {}
    for level, warning in levels.warnings(summary):
        gate = str(warning.get("code") or "?"), str(warning.get("severity") or "warn")
        places = spoke.setdefault(gate, {}).setdefault(str(warning.get("text") or ""), [])
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
    for level in levels.levels(summary):
        if not levels.is_unfinished(level):
            continue
        line = f"{levels.full_label(level, summary)}: {level['status']}"
        attempted, planned = level.get("attempted"), level.get("requests_planned")
        if attempted:
            of = f" of {units.plural(planned, 'request')}" if planned else " requests"
            line += f" after {attempted:,}{of}"
        if level.get("cancelled"):
            line += f", {level['cancelled']:,} of them cancelled"
        if level.get("reason"):
            line += f" ({level['reason']})"
        found.append(line)
    return found


def _closing(summary: Summary) -> list[str]:
    """One line for each level that was measured again at the end: what changed meanwhile."""
    found = []
    several = len(levels.by_model(summary)) > 1
    for band in summary.get("noise") or []:
        ratios = []
        for figure, name in (("output_tokens_per_s", "tokens/s"), ("ttft_p50", "TTFT p50"), ("e2e_p50", "E2E p50")):
            if band.get(figure) is not None:
                ratios.append(f"{name} {band[figure]:.2f}x")
        level = str(band.get("level")).rpartition("@")[2]
        where = f"{band.get('model')} {level}" if several else level
        found.append(f"{where}: {', '.join(ratios) or 'no figure'} of the first time; in no table above")
    return found
