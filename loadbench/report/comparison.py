"""The report of a comparison, from the records of `loadbench.compare` alone: verdict, terms, verdicts, doubts.

A run's own report compares its models with the same words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from loadbench import figures
from loadbench import text as units
from loadbench.metrics.checks import titled
from loadbench.report import document as doc
from loadbench.report import levels, provenance
from loadbench.report.document import Block, Cell, Column, Columns, Finding, Line, Section, Table, Text, Title, table
from loadbench.report.levels import Record
from loadbench.store.summary import rank

Verdict = Record
"""Of one metric: at a level, or over the levels of a pair of models."""
AtLevel = tuple[Record, Verdict]
"""A level and one of its verdicts."""

AMONG_MODELS = "Models against each other"
BAD, GOOD = ("slower", "worse"), ("faster", "better")
SLIGHT = ("slightly slower", "slightly worse", "slightly faster", "slightly better")
"""Surely so, but within the margin."""
MOST_FIGURES = 4
MOST_WARNINGS = 3
MOST_RUNS = 1000  # nobody makes more to see a difference so small: "over 1,000" says so
_TONES: dict[str, doc.Tone] = {**dict.fromkeys((*BAD, "mixed"), "bad"), **dict.fromkeys(GOOD, "good")}
HOW = (
    "A verdict follows from the interval of NEW / BASE: wholly beyond the margin it is slower or faster (shares: worse "
    "or better), wholly within it the same (slightly slower: certain, but within it); else it is too early to tell.",
    "Of the verdicts of a level one is wrong in 5% of comparisons at most (Holm over the metrics judged). Metrics "
    "without a statistic are geometric means over prompts, each prompt of the same weight.",
    "With one run a side an interval knows what varies within a run, and of what changes from run to run only what the "
    "closing level shows: repeat both sides in turns (five runs a side) before you decide by a small difference.",
    "Formulas, sources and the simulations that check them: docs/statistics.md of loadbench.",
)


def document(comparisons: Record) -> doc.Document:
    """What `compare.document` returns, one comparison under the other."""
    sections = []
    for record in comparisons["comparisons"]:
        base, new = sides(record)
        title, text = _head(record)
        blocks: list[Block] = [
            replace(title, text=f"{new} against {base}"),
            text,
            doc.Facts("", facts(record)),
            doc.Tables(by_level(record)),
            *doc.tables_of(over_levels(record)),
            doc.Findings("Warnings", [*doubts(record), *_missing(record)]),
        ]
        sections.append(Section("comparison", "", blocks))
    how = Section("how", "", [doc.Small("How it was computed", HOW)])
    return doc.Document(None, [*sections, how])


def _head(record: Record) -> tuple[Title, Text]:
    """The verdict in sentences, beneath a word on simulated figures."""
    title = Title("", quiet=True)
    if record["base"]["simulated"] or record["new"]["simulated"]:
        # One side is enough: a real server against a simulated one compares nothing.
        title = replace(title, simulated=provenance.SIMULATED)
    lines = [Line(f"{headline(record)}.", strong=True, tone=_TONES.get(record["word"], ""))]
    for name, text in sentences(record):
        lines.append(Line(f"{text}.", name=name, beneath=True))
    return title, Text("", lines)


def brief(comparisons: Record) -> doc.Document:
    """The same on one screen: the verdict, a row a level, the worst warnings; `document` has the method too."""
    sections = []
    for record in comparisons["comparisons"]:
        warnings = []
        for finding in [*doubts(record), *_missing(record)]:
            label = finding.label or "note"
            where, text = finding.texts[0]
            if where:
                label += f" ({where})"
            warnings.append(f"{label}: {text}.")
        if len(warnings) > MOST_WARNINGS:
            warnings[MOST_WARNINGS:] = [f"and {len(warnings) - MOST_WARNINGS} more: see --explain."]
        blocks: list[Block] = [*_head(record), doc.Tables(_at_a_glance(record))]
        if warnings:
            blocks.append(Text.of("", warnings, "!"))
        sections.append(Section("comparison", "", blocks))
    return doc.Document(None, sections)


def _at_a_glance(record: Record) -> list[Table]:
    """A row a level, a column a metric, one table a pair of models; the last row is of all levels."""
    tables = []
    for models, levels_of in _by_pair(record["levels"]).items():
        rows = [(load(level["load"]), level["verdicts"]) for level in levels_of]
        if means := _by_pair(record["over_levels"]).get(models):
            rows.append(("all", means))
        columns: dict[str, Column] = {}
        for _, verdicts in rows:
            for verdict in verdicts:
                columns[verdict["metric"]] = Column(metric(verdict["metric"]))
        signs, lines = set(), []
        for name, verdicts in rows:
            cells = dict.fromkeys(columns, Cell(units.ABSENT))  # not every level has every metric
            for verdict in verdicts:
                cell = cells[verdict["metric"]] = _glance(verdict)
                signs |= {cell.text[0], cell.text[-1]}
            lines.append((Cell(name), *cells.values()))
        notes = []
        if "?" in signs:
            notes.append("? = can't tell yet")
        if "(" in signs:
            notes.append("( ) = no verdict: see the warnings")
        head = (Column("level", left=True), *columns.values())
        tables.append(Table("", head, tuple(lines), tuple(notes), pair(*models)))
    return tables


def _glance(verdict: Verdict) -> Cell:
    # First: without a verdict not even "all of them succeeded" may stand there as if it were one.
    if verdict["word"] == "no verdict":
        return Cell(f"({change(verdict)})")
    if _is_all_or_none(verdict):
        return Cell(units.share(verdict["new"]))
    if verdict["word"] == "same":
        return Cell("same")
    if verdict["word"] == "can't tell":
        return Cell(f"{change(verdict)} ?")
    return Cell(f"{change(verdict)} {verdict['word']}")


def among_models(records: Sequence[Record]) -> list[Block]:
    """The models of a run against the first one, for the run's own report; nothing of a single model."""
    if not records:
        return []
    lines = []
    means: list[Table] = []
    verdicts: list[Table] = []
    for record in records:
        text = ": ".join([headline(record), *(text for _, text in sentences(record))])
        for doubt in doubts(record):
            # In the sentence, as a model that answers nothing is quick: nobody should read that without this.
            if doubt.severity == "red" and doubt.label.startswith(_OF_ANSWERS):
                text += f". Mind: {doubt.texts[0][1]}"
        lines.append(f"{text}.")
        verdicts += by_level(record)
        mean = over_levels(record)
        if mean:
            means.append(replace(mean, model=pair(*sides(record))))
    blocks: list[Block] = [Text.of(AMONG_MODELS, lines, "●")]
    if len(means) < len(records):  # of one level alone: its verdicts are all there is
        return [*blocks, doc.Tables(verdicts)]
    return [*blocks, doc.Tables(means), doc.Details("Every verdict", [doc.Tables(verdicts)])]


_OF_ANSWERS = (titled("V5"), titled("V6"))
"""Gates on what the answers held, which forbid a verdict between models."""


# -- words


def metric(name: str) -> str:
    """A metric with its statistic, for readers.

    >>> metric("ttft_p95"), metric("itl_p999"), metric("output_tokens_per_s"), metric("e2e")
    ('TTFT p95', 'ITL p99.9', 'tokens/s', 'E2E')
    """
    if figure := figures.named(name):
        return figure.title
    return name


def load(name: str | None) -> str:
    """A level's load as tables call it.

    >>> load("c8"), load("r0.5"), load(None)
    ('c8', '0.5 req/s', '')
    """
    if name is None:
        return ""
    if name.startswith("r") and name[1:2].isdigit():  # not `replay`
        return f"{name[1:]} req/s"
    return name


def change(verdict: Verdict, of: str = "ratio") -> str:
    """How much NEW differs from BASE: of a ratio in per cent, of shares in percentage points; "-" where unknown.

    Args:
        of: "ratio", or one end of its interval, "low" or "high".

    >>> change({"unit": "ms", "ratio": 1.213}), change({"unit": "/s", "ratio": 0.957})
    ('+21%', '-4.3%')
    >>> change({"unit": "share", "base": 0.01, "new": 0.024, "ratio": 2.4})
    '+1.4 pp'
    """
    moved = verdict[of]
    if verdict["unit"] != "share":
        return units.ABSENT if moved is None else f"{_signed(100 * (moved - 1))}%"
    if of == "ratio":  # of shares it says little: from 1 % to 2 % is twice as many, and next to nothing
        base, new = verdict["base"], verdict["new"]
        moved = None if base is None or new is None else new - base
    return units.ABSENT if moved is None else f"{_signed(100 * moved)} pp"


def _signed(value: float) -> str:
    if abs(value) >= 9.95:
        return f"{value:+,.0f}"
    text = f"{value:+.1f}"
    if text in ("+0.0", "-0.0"):
        return "0.0"  # a sign would tell a direction that nobody can see
    return text


def interval(verdict: Verdict) -> str:
    """The interval of the change: "+17 to +25%"; "" where there is none."""
    if verdict["low"] is None:
        return ""
    low = change(verdict, "low")
    if verdict["high"] is None:
        return f"over {low}"  # of a percentile that has no end, as too many requests failed
    unit = " pp" if verdict["unit"] == "share" else "%"
    return f"{low.removesuffix(unit)} to {change(verdict, 'high')}"


def more_runs(verdict: Verdict) -> str:
    """About how many more runs a side it takes, in words; "" where unknown.

    >>> more_runs({"runs_needed": 6, "runs_base": 1, "runs_new": 2})
    'about 5 more runs'
    """
    if verdict["runs_needed"] is None:
        return ""
    more = max(int(verdict["runs_needed"]) - min(verdict["runs_base"], verdict["runs_new"]), 1)
    if more > MOST_RUNS:
        return f"over {MOST_RUNS:,} more runs"
    return f"about {units.plural(more, 'more run')}"


def word(verdict: Verdict) -> str:
    """The word of a verdict, with the runs that it takes where it is undecided."""
    text, runs = str(verdict["word"]), more_runs(verdict)
    if runs and not _is_all_or_none(verdict):
        text += f" ({runs})"
    return text


def _is_all_or_none(verdict: Verdict) -> bool:
    """A share of 0 or 1 on both sides: how many runs it takes to be sure of it is of no use to a reader."""
    return verdict["unit"] == "share" and verdict["base"] == verdict["new"] and verdict["base"] in (0, 1)


def sides(record: Record) -> tuple[str, str]:
    return str(record["base"]["name"]), str(record["new"]["name"])


def pair(base: str, new: str) -> str:
    return base if base == new else f"{new} against {base}"


def _pair_of(row: Record) -> tuple[str, str]:
    return row["base_model"], row["new_model"]


def _by_pair(rows: Iterable[Record]) -> dict[tuple[str, str], list[Record]]:
    """Rows by the models that they compare, base and new, in their order."""
    pairs: dict[tuple[str, str], list[Record]] = {}
    for row in rows:
        pairs.setdefault(_pair_of(row), []).append(row)
    return pairs


# -- the verdict


def headline(record: Record) -> str:
    """The whole comparison in one sentence without its names: "slower", "the same within 10%"."""
    within = f"within {units.share(record['margin'])}"
    base, new = sides(record)
    match record["word"]:
        case "same":
            # What is undecided beside what is the same; older records have no such field.
            text = f"{new} is the same as {base} {within}"
            # What is undecided beside what is the same; older records have no such field.
            if names := dict.fromkeys(metric(row["metric"]) for row in record.get("open") or ()):
                text += f"; open: {_listed(list(names))}"
            return text
        case "can't tell":
            return f"can't tell yet whether {new} and {base} are the same {within}"
        case "no verdict":
            return f"no verdict on {new} against {base}"
        case "mixed":
            return f"{new} is better than {base} on some metrics or levels and worse on others"
    text = f"{new} is {record['word']} than {base}"
    if record["word"] not in {row["word"] for row in record["decisive"]}:
        text += " at some levels"  # the mean over the levels does not say so
    return text


def sentences(record: Record) -> list[tuple[str, str]]:
    """What makes the word, a sentence a pair of models: (name of the pair, text). The name is "" of the only pair."""
    decisive, exceptions, of_pair = map(_by_pair, (record["decisive"], record["exceptions"], record["levels"]))
    pairs = decisive | exceptions
    texts = []
    for models in pairs:
        name = pair(*models) if len(pairs) > 1 else ""
        n_levels = len(of_pair.get(models, ()))
        texts.append((name, _sentence(record, decisive.get(models, ()), exceptions.get(models, ()), n_levels)))
    return texts


def _sentence(record: Record, decisive: Sequence[Record], exceptions: Sequence[Record], n_levels: int) -> str:
    metrics = {row["metric"] for row in decisive}
    changed: dict[str, list[str]] = {}
    same, unsure = [], []
    withheld: dict[str, list[tuple[Record, str]]] = {}
    for row in decisive:
        verdict = _of(record, row)
        match verdict["word"]:
            case "same":
                same.append((row, ""))
            case "can't tell":
                if not _is_all_or_none(verdict):
                    unsure.append((row, verdict["note"] or more_runs(verdict)))
            case "no verdict":
                withheld.setdefault(verdict["note"], []).append((row, ""))
            case kind:
                changed.setdefault(kind, []).append(_figure(row, verdict, several=n_levels > 1))
    # What is certain comes first, and the bad before the good; what is unknown comes last.
    parts = []
    for kind in (*BAD, *GOOD, *SLIGHT):
        if kind in changed:
            parts.append(f"{kind}: {_listed(changed[kind])}")
    if same:
        parts.append(f"same: {_listed(_by_metric(same, n_levels))}")
    if unsure:
        parts.append(f"can't tell: {_listed(_by_metric(unsure, n_levels))}")
    for why, rows in withheld.items():
        of_load: dict[str, set[str]] = {}
        for row, _ in rows:
            of_load.setdefault(load(row["load"]), set()).add(row["metric"])
        on = ""
        # Of all metrics at some loads, the loads say it in fewer words.
        if len(rows) < len(decisive):
            on = f" on {_listed(_by_metric(rows, n_levels))}"
            if all(names == metrics for names in of_load.values()):
                on = f" at {' and '.join(of_load)}"
        parts.append(f"no verdict{on} ({why})")
    apart: dict[tuple[str, str], list[str]] = {}
    for row in exceptions:
        changes = apart.setdefault((row["load"], row["word"]), [])
        changes.append(_figure(row, _of(record, row), several=False))
    for (at, kind), changes in apart.items():
        parts.append(f"but {kind} at {load(at)}: {_listed(changes)}")
    return "; ".join(parts) or "nothing that both sides measured can be judged"


def _figure(row: Record, verdict: Verdict, *, several: bool) -> str:
    text = metric(row["metric"])
    if several and row["load"] is not None:
        text += f" at {load(row['load'])}"
    text += f" {change(verdict)}"
    if ends := interval(verdict):
        text += f" ({ends})"
    return text


def _by_metric(rows: Sequence[tuple[Record, str]], n_levels: int) -> list[str]:
    """Metrics with the reason of each; the levels are named where it is not that of all: "TTFT p95 at c1 (why)"."""
    loads_of: dict[tuple[str, str], list[str]] = {}
    for row, why in rows:
        loads_of.setdefault((row["metric"], why), []).append(load(row["load"]))
    texts = []
    for (name, why), loads in loads_of.items():
        text = metric(name)
        if all(loads) and len(loads) < n_levels:
            text += f" at {' and '.join(loads)}"
        if why:
            text += f" ({why})"
        texts.append(text)
    return texts


def _of(record: Record, row: Record) -> Verdict:
    """The verdict that a row of `decisive` or `exceptions` is about."""
    models = _pair_of(row)
    verdicts = _by_pair(record["over_levels"]).get(models, [])
    if row["load"] is not None:
        [level] = [one for one in _by_pair(record["levels"])[models] if one["load"] == row["load"]]
        verdicts = level["verdicts"]
    return next(verdict for verdict in verdicts if verdict["metric"] == row["metric"])


def _listed(texts: Sequence[str]) -> str:
    left = len(texts) - MOST_FIGURES
    if left > 1:  # "and 1 more" would take as much room as that one
        texts = [*texts[:MOST_FIGURES], f"and {left} more"]
    return ", ".join(texts)


# -- terms and doubts


def facts(record: Record) -> list[tuple[str, str]]:
    base, new = sides(record)
    of_runs = record["kind"] == "runs"
    if of_runs:
        rows = [("BASE", _side_facts(record["base"])), ("NEW", _side_facts(record["new"]))]
    else:
        rows = [("BASE", base), ("NEW", new), ("run", _side_facts(record["base"]))]
    terms = f"{units.share(record['margin'])} of a ratio, {100 * record['share_margin']:g} pp (points) of a share"
    rows.append(("margin", terms))
    if record["meant"] and of_runs:
        rows.append(("on purpose", ", ".join(record["meant"])))
    return rows


def _side_facts(side: Record) -> str:
    folders = [str(run["folder"]) for run in side["runs"]]
    runs = folders[0] if len(folders) == 1 else f"{len(folders)} runs: {', '.join(folders)}"
    server = (provenance.KINDS.get(side["server"], side["server"]), side["server_version"])
    parts = [runs, " ".join(map(str, filter(None, server)))]
    start = str(side["runs"][0]["start"] or "").replace("T", " ").removesuffix("Z")
    if start:
        parts.append(f"{start} UTC")
    return "; ".join(filter(None, parts))


def doubts(record: Record) -> list[Finding]:
    """The red ones first; what several levels share is there once, and so are gates that only warn."""
    places: dict[tuple[str, str, str], list[str]] = {}
    warned: dict[str, None] = {}
    several = len(_by_pair(record["levels"])) > 1
    for one in record["differences"]:
        places.setdefault((one["severity"], one["code"], _advised(one)), [])
    for level in record["levels"]:
        at = f"{level['new_model']} {load(level['load'])}" if several else load(level["load"])
        for one in level["differences"]:
            if one["what"] == "model" and record["kind"] == "models":
                continue  # that is the comparison
            places.setdefault((one["severity"], one["code"], _advised(one)), []).append(at)
        for gate in level["gates"]:
            if gate["severity"] == "red":
                text = f"{_side(gate, record)}: {gate['text']}"
                places.setdefault(("red", gate["code"], text), []).append(at)
            elif gate["severity"] == "warn":
                warned[titled(gate["code"])] = None  # its text is in the run's own report
    findings = []
    for (severity, code, text), where in places.items():
        label = f"{titled(code)} {severity}".strip()
        findings.append(Finding(label, severity, [(levels.joined(where), text)]))
    if warned:
        findings.append(Finding("warn", "warn", [("", f"the runs' own reports also warn: {', '.join(warned)}")]))
    return sorted(findings, key=lambda one: rank(one.severity))


def _advised(one: Record) -> str:
    """A red difference with the way to compare it on purpose."""
    if one["severity"] == "red" and one["code"] == "V8" and " among " not in one["what"]:
        return f'{one["text"]} (--expect "{one["what"]}" where that is what you compare)'
    return str(one["text"])


def _side(gate: Record, record: Record) -> str:
    name = _name(gate["side"], record)
    if len(record[gate["side"]]["runs"]) > 1:
        name += f" ({gate['run']})"
    return name


def _name(side: str, record: Record) -> str:
    """BASE or NEW; of two models of one run, the model."""
    if record["kind"] == "models":
        return str(record[side]["name"])
    return side.upper()


def _missing(record: Record) -> list[Finding]:
    findings = []
    for side in ("base", "new"):
        name = _name(side, record)
        by_model: dict[str, list[str]] = {}
        for level in record[f"only_{side}"]:
            by_model.setdefault(str(level["model"]), []).append(load(level["load"]))
        for model, loads in by_model.items():
            findings.append(Finding("", "", [("", f"only {name} has {model} at {', '.join(loads)}")]))
    return findings


# -- tables


def by_level(record: Record) -> list[Table]:
    """A row a metric and level, one table a pair of models."""
    columns: Columns[AtLevel] = [
        (Column("level", left=True), lambda row: Cell(load(row[0]["load"]))),
        (Column("metric", left=True), lambda row: Cell(metric(row[1]["metric"]))),
        (Column("BASE"), lambda row: Cell(_value(row[1]["base"], row[1]["unit"]))),
        (Column("NEW"), lambda row: Cell(_value(row[1]["new"], row[1]["unit"]))),
        (Column("change"), lambda row: _change(row[1])),
        (Column("verdict", left=True), lambda row: Cell(word(row[1]))),
        (Column("n"), lambda row: _both(row[1], "n")),
        (Column("runs"), lambda row: _both(row[1], "runs")),
    ]
    tables = []
    for models, rows in _by_pair(record["levels"]).items():
        verdicts: list[AtLevel] = []
        for level in rows:
            for verdict in level["verdicts"]:
                verdicts.append((level, verdict))
        notes = _notes(verdicts, several=len(rows) > 1)
        tables.append(table("Verdicts", columns, verdicts, notes, pair(*models)))
    return tables


def over_levels(record: Record) -> Table | None:
    """The geometric mean of each metric over its levels; None where no level has a second."""
    means = record["over_levels"]
    if not means:
        return None
    columns: Columns[Verdict] = [
        (Column("model", left=True), lambda mean: Cell(pair(*_pair_of(mean)))),
        (Column("metric", left=True), lambda mean: Cell(metric(mean["metric"]))),
        (Column("levels"), lambda mean: Cell(units.count(mean["levels"]))),
        (Column("change"), _change),
        (Column("verdict", left=True), lambda mean: Cell(word(mean))),
        (Column("runs"), lambda mean: _both(mean, "runs")),
    ]
    if len(_by_pair(means)) == 1:
        del columns[0]  # the headline names them
    notes = _by_text((metric(mean["metric"]), mean["method"]) for mean in means)
    return table("Over all levels", columns, means, notes)


def _change(verdict: Verdict) -> Cell:
    return Cell(change(verdict), interval(verdict), verdict["low"] is None)


def _value(value: float | None, unit: str) -> str:
    match unit:
        case "ms":
            return units.span(value)
        case "share":
            return units.share(value)
    return units.figure(value)


def _both(verdict: Verdict, name: str) -> Cell:
    base, new = verdict[f"{name}_base"], verdict[f"{name}_new"]
    if base == new:
        return Cell(f"{base:,}")
    return Cell(f"{base:,} / {new:,}")


def _notes(verdicts: Sequence[AtLevel], *, several: bool) -> list[str]:
    judged, outliers, p_values = [], [], []
    for level, verdict in verdicts:
        name = metric(verdict["metric"])
        if several:
            name += f" at {load(level['load'])}"
        base, new = verdict["outliers_base"] or 0, verdict["outliers_new"] or 0
        if base or new:
            outliers.append(f"{name} {base} / {new}")
        # Of equal shares the test has nothing to tell: p = 1.
        if verdict["p_value"] is not None and verdict["base"] != verdict["new"]:
            p_values.append(f"{name}: on the same prompts, McNemar's p = {verdict['p_value']:.2g}")
        if verdict["low"] is not None:
            judged.append((level, verdict, verdict["method"]))
    notes = []
    if len(judged) < len(verdicts):
        notes.append("* no interval, so no verdict is possible")
    notes += _by_level([(level, verdict, verdict["note"]) for level, verdict in verdicts])
    if outliers:
        notes.append(f"outliers, flagged and none dropped: {', '.join(outliers)}")
    return [*notes, *p_values, *_by_level(judged)]


def _by_level(rows: Sequence[tuple[Record, Verdict, str]]) -> list[str]:
    """Texts about metrics; the levels are named where a text is not the same at all of them."""
    texts: dict[str, set[str]] = {}
    for _, verdict, text in rows:
        texts.setdefault(verdict["metric"], set()).add(text)
    named = []
    for level, verdict, text in rows:
        name = metric(verdict["metric"])
        if len(texts[verdict["metric"]]) > 1:
            name += f" at {load(level['load'])}"
        named.append((name, text))
    return _by_text(named)


def _by_text(rows: Iterable[tuple[str, str]]) -> list[str]:
    """One text of several subjects once: "TTFT, E2E: paired by prompt"."""
    by_text: dict[str, dict[str, None]] = {}
    for subject, text in rows:
        if text:
            by_text.setdefault(text, {})[subject] = None
    return [f"{', '.join(subjects)}: {text}" for text, subjects in by_text.items()]
