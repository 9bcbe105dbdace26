"""The report of a choice, from the record of `loadbench.select` alone: a decision record, the recommendation first.

On a page it has a rank besides whose weights a reader can move.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from loadbench import text as units
from loadbench.figures import named
from loadbench.metrics.checks import NAMES
from loadbench.report import document as doc
from loadbench.report import html, provenance
from loadbench.report.document import Block, Cell, Column, Finding, Line, Section, Table, Text, Title, tables_of
from loadbench.report.html import Markup, tag
from loadbench.report.levels import Record

MOST_REASONS = 3
_NOTABLE = 0.02
"""As a logarithm: figures nearer than 2 % are alike, and no reason."""
_SHORT = {"throughput": "through.", "disk footprint": "disk", "energy or cost": "energy", "latency": "latency"}
MOST_WARNINGS = 3
NEAR = "the best candidate in each criterion = 100%; score = weighted geometric mean"
HALF_AS_GOOD = "* unknown, in part or wholly: counts as half as good as the worst of the others"
MOST_PARTS, STEP = 10, 0.5
"""Of a slider, in parts."""


def document(record: Record, *, short: bool = False) -> doc.Document:
    """The whole record, to be signed by whoever decides: its status is "proposed".

    Args:
        short: On one screen: the decision, the rank, the worst warnings.
    """
    title = Title("Which model to ship: none meets the requirements", program="loadbench select")
    if ranked := rows(record):
        title = Title("Which model to ship:", str(ranked[0]["name"]), "loadbench select")
    # A simulator may stand in for one candidate while others are real: that is no warning about all of it.
    sources = {bool(row["simulated"]) for row in record["candidates"]}
    if sources == {True}:
        title = replace(title, simulated=provenance.SIMULATED)
    elif True in sources:
        title = replace(title, simulated="SIMULATED in part: Warnings name the figures that come from no model")
    if short:
        return doc.Document(title, [Section("choice", "", _short(record))])
    blocks: list[Block] = [
        _decision(record),
        _context(record),
        *tables_of(_needs(record), _rank(record), *_figures(record)),
        *_rest(record),
        doc.Small("", ["How it was computed: docs/select.md."]),
    ]
    return doc.Document(title, [Section("choice", "", blocks)])


def _short(record: Record) -> list[Block]:
    # A note changes no decision: --explain has them.
    warnings = [f"{one['text']}." for one in record["doubts"] if one["severity"] != "note"]
    if len(warnings) > MOST_WARNINGS:
        warnings[MOST_WARNINGS:] = [f"and {len(warnings) - MOST_WARNINGS} more: see --explain."]
    blocks: list[Block] = [replace(_decision(record), title="")]
    if rank := _rank(record):
        blocks += tables_of(replace(rank, notes=rank.notes[:1]))  # the first says how the score is made
    if eliminated := fell_out(record):
        blocks.append(_sentences("", [f"Eliminated: {line}" for line in eliminated]))
    if warnings:
        blocks.append(Text.of("", warnings, "!"))
    return blocks


def _sentences(title: str, texts: Sequence[str]) -> Text:
    """With the full stop that the record's JSON leaves out."""
    return Text.of(title, [f"{text}." for text in texts])


def _decision(record: Record) -> Text:
    tone: doc.Tone = ""
    if reds(record) or not rows(record):
        tone = "bad"
    lines = [Line(f"{headline(record)}.", strong=True, tone=tone)]
    for line in filter(None, (*reasons(record), robustness(record))):
        lines.append(Line(f"{line}.", beneath=True))
    return Text("Decision", lines)


def _context(record: Record) -> doc.Facts:
    """On what terms the choice was made, and from which runs."""
    # One load for all candidates: figures at different loads do not compare.
    load = f"{record['load']['words']}, the highest load that all completed"
    if record["load"]["asked"]:
        load = f"{record['load']['words']}, as requested"
    must = "no requirements"
    if record["needs"]:
        outcome = "fails" if record["missing"] == "out" else "passes"
        must = f"{', '.join(record['needs'])} (an unknown figure {outcome})"
    weights = []
    for criterion in sorted(record["criteria"], key=lambda criterion: -(criterion["share"] or 0)):
        if criterion["share"]:
            weights.append(f"{criterion['label']} {units.percent(criterion['share'])}")
    weighted = ", ".join(weights) or "none"
    days, machines, runs = set(), [], []
    for run in record["runs"]:
        if run["start"]:
            days.add(str(run["start"])[:10])
        if run["machine"]:
            machines.append(str(run["machine"]))
        started = run["start"] or "at an unknown time"
        runs.append(("run", f"{run['folder']}, {run['server'] or 'unknown server'}, started {started}"))
    measured = " to ".join(sorted({min(days), max(days)})) if days else "at an unknown time"
    facts = [
        ("status", "proposed by loadbench from measurements"),
        ("candidates", units.listed([str(row["name"]) for row in record["candidates"]], "and")),
        ("load", load),
        ("measured", measured),
        ("from", ", ".join(dict.fromkeys(machines))),
        ("requirements", must),
        ("weights", f"the defaults: {weighted}" if record["usual_weights"] else f"as given: {weighted}"),
        *runs,
    ]
    return doc.Facts("Context", [(name, text) for name, text in facts if text])


def _rest(record: Record) -> list[Block]:
    left = rows(record)
    alternatives = list(filter(None, [front(record)]))
    for row in left[1:]:
        first = units.share(row["wins"]["both"])
        alternatives.append(f"{row['name']}: score {row['score']:.1f}, first in {first} of the draws")
    alternatives += [f"Eliminated: {line}" for line in fell_out(record)]
    if len(record["candidates"]) == 1:
        alternatives.append("None was measured")
    consequences = ["No candidate can ship: measure other models, or relax a requirement"]
    if left:
        winner, gives = left[0], []
        by_name = _by_name(record)
        for name, measured in winner["figures"].items():
            if name in by_name and name != "licence":  # that has a sentence of its own
                figure = by_name[name]
                ends = value_interval(figure, measured["low"], measured["high"])
                gives.append(f"{figure['label']} {value(figure, measured['value'])}{ends}")
        consequences = [f"{winner['name']} gives: {', '.join(gives)}"]
        if winner["licence"]:
            consequences.append(f"Licence, as listed: {winner['licence']}")
        consequences += would_change(record)
    findings = []
    for doubt in record["doubts"]:
        findings.append(Finding(doubt["severity"], doubt["severity"], [("", doubt["text"])]))
    return [
        _sentences("Alternatives", alternatives),
        _sentences("Consequences", consequences),
        doc.Findings("Warnings", findings),
    ]


# -- words


def rows(record: Record) -> list[Record]:
    """The candidates that are left, the best first."""
    return [row for row in record["candidates"] if row["rank"] is not None]


def _by_name(record: Record) -> dict[str, Record]:
    """What counts: the figures of the choice."""
    return {figure["name"]: figure for figure in record["figures"]}


def reds(record: Record) -> list[Record]:
    return [doubt for doubt in record["doubts"] if doubt["severity"] == "red"]


def in_words(record: Record) -> dict[str, str | list[str]]:
    """The sentences of the report, for its JSON."""
    return {
        "headline": headline(record),
        "reasons": reasons(record),
        "robustness": robustness(record),
        "would_change": would_change(record),
        "front": front(record),
        "fell_out": fell_out(record),
    }


def headline(record: Record) -> str:
    """The recommendation in a sentence, its doubt first where there is a red one."""
    left = rows(record)
    if not left and record["needs"]:
        return "No candidate meets the requirements"
    if not left:
        return "There is no candidate"
    winner = left[0]
    if len(record["candidates"]) == 1:
        choice = f"{winner['name']} is the only candidate: nothing to compare it with"
    elif len(left) == 1:
        choice = f"{winner['name']} is the only candidate that is left: nothing to compare it with"
    else:
        scores = f"score {winner['score']:.1f} of 100, ahead of {left[1]['name']} ({left[1]['score']:.1f})"
        firm = {"firm": "", "likely": ", likely but not certain", "close": ", but it is a close call"}
        choice = f"Choose {winner['name']}: {scores}{firm[record['robustness']['word']]}"
    red = list(dict.fromkeys(NAMES.get(doubt["code"]) or str(doubt["code"]) for doubt in reds(record)))
    if not red:
        return choice
    if len(left) > 1:  # else it begins with a name
        choice = f"c{choice[1:]}"
    # Before the choice: who reads no further must not take it for one.
    return f"No clear recommendation (red: {', '.join(red)}; see Warnings); by these figures: {choice}"


def reasons(record: Record) -> list[str]:
    """Why the winner is before the second: the figures that carry most of it, and those that speak against it."""
    left = rows(record)
    if len(left) < 2:
        return []
    winner, second = left[0], left[1]
    good: dict[str, float] = {}
    bad: dict[str, float] = {}
    for figure in record["figures"]:
        name = figure["name"]
        # In logarithms, as the score adds them up: a lead is what this figure carries of the distance.
        lead = winner["log_ratios"].get(name, 0.0) - second["log_ratios"].get(name, 0.0)
        if figure["share"] and abs(lead) >= _NOTABLE:
            side = good if lead > 0 else bad
            side[_beside(figure, winner, second)] = -abs(figure["share"] * lead)
    sentences = [f"Nothing that counts sets it apart from {second['name']}"]
    if good:
        sentences = [f"For it: {_largest(good)}"]
    if bad:
        sentences.append(f"Against it: {_largest(bad)}")
    return sentences


def _largest(gains: dict[str, float]) -> str:
    return "; ".join(sorted(gains, key=gains.__getitem__)[:MOST_REASONS])


def _beside(figure: Record, winner: Record, second: Record) -> str:
    name, shown = figure["name"], []
    for row in (winner, second):
        measured = row["figures"].get(name)
        if measured is None:
            shown.append("unknown")
        elif name == "licence":
            shown.append(str(measured["source"]))
        else:
            shown.append(value(figure, measured["value"]))
    text = f"{figure['label']} {shown[0]} against {shown[1]}"
    # Of points and shares a ratio says little: 2 % of failures are twice 1 %. The licence has no unit at all.
    times = math.exp(abs(winner["log_ratios"][name] - second["log_ratios"][name]))
    if "unknown" in shown or figure["unit"] in ("points", "share", "") or times < 1.05:
        return text
    return f"{text} ({times:.2g} times)"


def robustness(record: Record) -> str:
    """How often the winner stays; "" where it is alone."""
    robust = record["robustness"]
    if robust is None or len(rows(record)) < 2:
        return ""
    wins = {kind: units.share(share) for kind, share in robust["winner"].items()}
    spread = f"±{100 * robust['weights_spread']:.0f} %"
    return (
        f"It ranks first in {wins['figures']} of {units.count(robust['draws'])} draws from the figures' intervals, in "
        f"{wins['weights']} with each weight varied by up to {spread}, and in {wins['both']} with both"
    )


def would_change(record: Record) -> list[str]:
    """What would make another win: the least change of a weight, and of the second's figures."""
    changes = record["would_change"]
    sentences = []
    by_name = _by_name(record)
    if weight := changes["weight"]:
        label = {one["name"]: one["label"] for one in record["criteria"]}[weight["criterion"]]
        way = "more than" if weight["needed"] > weight["share"] else "less than"
        sentences.append(
            f"{weight['winner']} would win if {label} weighed {way} {units.share(weight['needed'])} "
            f"rather than {units.share(weight['share'])}, the others in proportion"
        )
    elif len(rows(record)) > 1:
        sentences.append("No change to a single weight changes the winner")
    for one in changes["unknown"]:
        label = by_name[one["figure"]]["label"]
        sentences.append(f"{one['name']} would win if its {label}, now unknown, were as good: measure it")
    for one in changes["figures"][:2]:
        figure = by_name[one["figure"]]
        now, needed = value(figure, one["value"]), value(figure, one["needed"])
        sentence = f"{one['name']} would win if its {figure['label']} were {needed} rather than {now}"
        if one["factor"] and one["factor"] >= 1.05:
            sentence += f" ({one['factor']:.2g} times better)"
        sentences.append(sentence)
    return sentences


def front(record: Record) -> str:
    """Who is on the Pareto front, and who is beaten by whom."""
    left = rows(record)
    if len(left) < 2:
        return ""
    labels = {figure["name"]: figure["label"] for figure in record["figures"]}
    on = [row["name"] for row in left if not row["dominated_by"]]
    text = f"{on[0]} beats all others"
    if len(on) > 1:
        text = f"No candidate beats {units.listed(on, 'and')} on everything"
    for row in left:
        if row["dominated_by"]:
            by = row["dominated_by"][0]
            better = ", ".join(labels.get(name, name) for name in by["better"])
            text += f"; {row['name']} is beaten by {by['by']} (better: {better}; worse nowhere)"
    return text


def fell_out(record: Record) -> list[str]:
    sentences = []
    for row in record["candidates"]:
        if row["rank"] is not None:
            continue
        missed = []
        for need in row["needs"]:
            if need["outcome"] == "met":
                continue
            text = f"{need['need']}: {value(need, need['value'])}{value_interval(need, need['low'], need['high'])}"
            if need["outcome"] == "unknown":
                text = f"{need['need']}: unknown"
            elif need["sure"] is False:
                text += ", not certain: its interval includes the bound"
            elif need["sure"] is None:
                text += ", not certain: too few requests for an interval"
            missed.append(text)
        sentences.append(f"{row['name']}: {'; '.join(missed) or row['out']}")
    return sentences


def value(figure: Record, number: float | str | None) -> str:
    """A figure with its unit.

    >>> value({"unit": "bytes"}, 4.1e9), value({"unit": "ms"}, 1204.0), value({"unit": "share"}, 0.9)
    ('4.10 GB', '1.20 s', '90%')
    """
    if number is None or isinstance(number, str):
        return number or units.ABSENT
    if math.isinf(number):
        return "unbounded, as requests failed"
    return units.with_unit(float(number), figure["unit"])  # the label says per what


def value_interval(figure: Record, low: float | None, high: float | None) -> str:
    """ "[1.2 s to 1.4 s]" behind a figure, "" where it has none."""
    if low is None or high is None or math.isinf(high):  # no end: too many requests failed
        return ""
    return f" [{value(figure, low)} to {value(figure, high)}]"


# -- tables


def _needs(record: Record) -> Table | None:
    if not record["needs"]:
        return None
    columns = [Column(name, left=True) for name in ("model", *record["needs"])]
    columns.append(Column("left"))
    lines = []
    unsure = False
    for row in record["candidates"]:
        cells = [Cell(str(row["name"]))]
        for need in row["needs"]:
            text = value(need, need["value"])
            if need["outcome"] != "met":
                text += " NO"
            if need["sure"] is not True:
                text += " ?"
            if need["outcome"] == "unknown":
                text = "unknown"
            unsure = unsure or "?" in text
            cells.append(Cell(text))
        if not row["needs"]:  # it was not measured at this load, so that nothing was checked
            cells += [Cell(units.ABSENT)] * len(record["needs"])
        lines.append((*cells, Cell("yes" if row["status"] == "left" else "NO")))
    notes = []
    if unsure:
        notes.append("? not certain: the interval includes the bound, or there is none")
    return Table("Requirements", tuple(columns), tuple(lines), tuple(notes))


def _rank(record: Record) -> Table | None:
    """Each candidate that is left: its score, and how near it comes to the best in each criterion."""
    left = rows(record)
    if not left:
        return None
    weighed = [criterion for criterion in record["criteria"] if criterion["share"]]
    columns = [Column("#"), Column("model", left=True), Column("score")]
    for criterion in weighed:
        label = criterion["label"]
        columns.append(Column(label, units.percent(criterion["share"]), short=_SHORT.get(label, "")))
    columns.append(Column("first in", "of draws", short="first"))
    by_name = _by_name(record)
    lines = []
    any_missing = False
    for row in left:
        cells = [Cell(str(row["rank"])), Cell(str(row["name"])), Cell(f"{row['score']:.1f}")]
        for criterion in weighed:
            names = row["log_ratios"].keys() & set(criterion["figures"])
            log = math.fsum(by_name[name]["share"] * row["log_ratios"][name] for name in names) / criterion["share"]
            missing = not names.isdisjoint(row["missing"])
            any_missing = any_missing or missing
            cells.append(Cell(units.percent(math.exp(log)), marked=missing))
        lines.append((*cells, Cell(units.share(row["wins"]["both"]))))
    notes = [NEAR]
    if any_missing:
        notes.append(HALF_AS_GOOD)
    weights = "under each criterion its weight"
    if record["usual_weights"]:
        weights += ": the defaults, yours by --weights or --weight"
    notes.append(weights)
    return Table(f"Rank at {record['load']['words']}", tuple(columns), tuple(lines), tuple(notes))


def _figures(record: Record) -> list[Table]:
    """What was measured of everyone, first what speed is, then the rest; columns without a figure are left out."""
    everyone = record["candidates"]
    measured: set[str] = set()
    for row in everyone:
        measured |= set(row["figures"])
    speed: list[str] = []
    others: list[str] = []
    for figure in record["figures"]:
        if figure["name"] in measured - {"licence"}:
            kind = speed if figure["unit"] in ("ms", "/s") else others
            kind.append(figure["name"])
    tables = []
    if speed:
        notes = ["95 % intervals in brackets; * too few requests for one"]
        if {"characters_per_s", "output_tokens_per_s"} <= measured:
            notes.append("models cut text into tokens differently: compare them by characters")
        tables.append(_figures_of(f"Speed at {record['load']['words']}", everyone, speed, notes))
    if any(row["licence"] for row in everyone):  # no figure has it: its weight may be 0
        others.append("licence")
    if others:
        notes = []
        for name in ("memory", "disk"):
            sources = {row["figures"].get(name, {}).get("source") for row in everyone}
            if named_sources := ", ".join(sorted(filter(None, sources))):
                notes.append(f"{name}: {named_sources}")
        tables.append(_figures_of("Quality and footprint", everyone, others, notes))
    return tables


def _figures_of(title: str, everyone: Sequence[Record], names: Sequence[str], notes: Sequence[str]) -> Table:
    columns = [Column("model", left=True)]
    for name in names:
        if name == "licence":
            columns.append(Column(name, left=True))
        elif (one := named(name)) is None:  # of a choice alone: memory, disk, rules, quality
            columns.append(Column(name))
        else:
            head, unit = one.figure.column
            columns.append(Column(head or one.title, unit or one.figure.unit))
    lines = []
    for row in everyone:
        cells = [Cell(str(row["name"]))]
        for name in names:
            if name == "licence":
                cells.append(Cell(str(row["licence"] or units.ABSENT)))
            else:
                cells.append(_cell(name, row["figures"].get(name)))
        lines.append(tuple(cells))
    return Table(title, tuple(columns), tuple(lines), tuple(notes))


def _cell(name: str, measured: Record | None) -> Cell:
    if measured is None:
        return Cell(units.ABSENT)
    ends = doc.interval((measured["low"], measured["high"]), lambda end: _number(name, end))
    # Without an n it is no statistic of requests, as the size of a file: no interval is missing.
    return Cell(_number(name, measured["value"]), ends, marked=bool(measured["n"]) and not ends)


def _number(name: str, value: float | None) -> str:
    if value is None:
        return units.ABSENT
    match name:
        case "memory" | "disk":  # in MB
            return units.figure(value / 1e6)
        case "rules":
            return units.share(value)
        case "quality":
            return f"{value:.2f}"
    return units.figure(float(value))


# -- on a page


def section(record: Record) -> Section | None:
    """The choice between the models of a run; None where there are no two to choose between."""
    left = rows(record)
    if len(left) < 2:
        return None
    criteria = [criterion for criterion in record["criteria"] if criterion["figures"]]
    legend = tag("legend", "Weights, in parts: move one and the rank follows")
    sliders = [
        tag("fieldset", legend, map(_slider, criteria)),
        tag("button", "The weights of the report", type="reset"),
        tag("p", "", id="choice-now", role="status", aria_live="polite"),
    ]
    blocks: list[Block] = [
        _decision(record),
        _context(record),
        # Hidden until the script that reads the sliders runs.
        doc.Html(tag("form", *sliders, id="choice-weights", class_="weights", hidden=True)),
        doc.Html(_movable_rank(f"Rank at {record['load']['words']}", left, criteria)),
        *tables_of(_needs(record), *_figures(record)),
        *_rest(record),
    ]
    # What the script ranks again: no more than it needs.
    needed = []
    for one in criteria:
        needed.append({key: one[key] for key in ("name", "label", "weight", "figures")})
    data = {"criteria": needed, "rows": [{"name": row["name"], "logs": row["log_ratios"]} for row in left]}
    script, style = html.asset("choice.js"), html.asset("choice.css")
    return Section("choice", "Which model to ship", blocks, data, script, style)


def _slider(criterion: Record) -> Markup:
    name = f"choice-{criterion['name']}"
    slider = tag(
        "input",
        type="range",
        id=name,
        name_=criterion["name"],
        min="0",
        max=f"{MOST_PARTS}",
        step=f"{STEP}",
        value=f"{min(float(criterion['weight']), float(MOST_PARTS)):g}",  # --weight may name more
    )
    share = tag("output", units.percent(criterion["share"]), for_=name)
    return tag("div", tag("label", criterion["label"], for_=name), slider, share)


def _movable_rank(caption: str, left: Sequence[Record], criteria: Sequence[Record]) -> Markup:
    heads = [tag("th", "#", scope="col"), tag("th", "model", scope="col", class_="left")]
    heads.append(tag("th", "score", scope="col"))
    for criterion in criteria:
        heads.append(tag("th", criterion["label"], scope="col"))
    lines = []
    for i, row in enumerate(left):
        cells = [tag("td", str(row["rank"])), tag("th", str(row["name"]), scope="row", class_="left")]
        cells.append(tag("td", f"{row['score']:.1f}"))
        for criterion in criteria:
            # Its figures weigh the same: only the weights of criteria move.
            logs = [row["log_ratios"][name] for name in criterion["figures"]]
            share = units.percent(math.exp(math.fsum(logs) / len(logs)))
            if not set(row["missing"]).isdisjoint(criterion["figures"]):
                share += "*"
            cells.append(tag("td", share))
        lines.append(tag("tr", cells, data_row=str(i)))  # by this number the script finds what it moves
    table = html.grid(caption, tag("caption", caption), heads, lines, id="choice-rank")
    notes = [NEAR]
    if any(row["missing"] for row in left):
        notes.append(HALF_AS_GOOD)
    return tag("div", table, tag("ul", [tag("li", note) for note in notes], class_="notes"), class_="block")
