"""Why not to trust a comparison, or not wholly: what the sides differ in, which gates spoke, what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadbench import text as units
from loadbench.metrics.gates import titled
from loadbench.report import levels, provenance
from loadbench.report.comparison import words
from loadbench.report.comparison.words import Record
from loadbench.text import one_line

_ORDER = {"red": 0, "warn": 1, "note": 2}
HOW = (
    "A verdict is read off the interval of NEW / BASE: wholly beyond the margin it is slower or faster (shares: worse "
    "or better), wholly within it the same (slightly slower: surely so, but within it), else nobody can tell yet.",
    "Of the verdicts of a level one is wrong in 5% of comparisons at most (Holm over the metrics judged). Metrics "
    "without a statistic are geometric means over prompts, each prompt of the same weight.",
    "With one run a side an interval knows what varies within a run, and of what changes from run to run only what the "
    "closing level shows: repeat both sides in turns (five runs a side) before you decide by a small difference.",
    "Formulas, sources and the simulations that check them: docs/statistics.md of loadbench.",
)


@dataclass(frozen=True, slots=True)
class Doubt:
    """One line: its code, how bad ("red" forbids a verdict), where ("" everywhere), and what."""

    code: str
    severity: str
    where: str
    text: str


def doubts(record: Record) -> list[Doubt]:
    """The red ones first; what several levels share is said once."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for one in record["differences"]:
        found.setdefault((one["severity"], one["code"], _advised(one)), [])
    for level in record["levels"]:
        at = words.load(level["load"])
        if len({(other["base_model"], other["new_model"]) for other in record["levels"]}) > 1:
            at = f"{level['new_model']} {at}"
        for one in level["differences"]:
            if one["what"] == "model" and record["kind"] == "models":
                continue  # that is the comparison
            found.setdefault((one["severity"], one["code"], _advised(one)), []).append(at)
        for gate in level["gates"]:
            name = _side(gate, record)
            if gate["severity"] == "red":
                found.setdefault(("red", gate["code"], f"{name}: {gate['text']}"), []).append(at)
    lines = [Doubt(code, severity, levels.joined(at), text) for (severity, code, text), at in found.items()]
    return sorted([*lines, *_warned(record)], key=lambda one: _ORDER.get(one.severity, 2))


def missing(record: Record) -> list[str]:
    """Levels that only one side has."""
    lines = []
    for key, name in (("only_base", "BASE"), ("only_new", "NEW")):
        if record["kind"] == "models":
            name = str(record[key.removeprefix("only_")]["name"])
        by_model: dict[str, list[str]] = {}
        for level in record[key]:
            by_model.setdefault(str(level["model"]), []).append(words.load(level["load"]))
        lines += [f"only {name} has {model} at {', '.join(loads)}" for model, loads in by_model.items()]
    return lines


def facts(record: Record) -> list[tuple[str, str]]:
    """What was compared with what, and on which terms."""
    names = ("BASE", "NEW")
    found = []
    if record["kind"] == "runs":
        found += [(name, _side_facts(record[name.lower()])) for name in names]
    else:
        found += [(name, str(record[name.lower()]["name"])) for name in names]
        found.append(("run", _side_facts(record["base"])))
    terms = f"{units.share(record['margin'])} of a ratio, {100 * record['share_margin']:g} pp (points) of a share"
    found.append(("margin", terms))
    if record["meant"] and record["kind"] == "runs":
        found.append(("on purpose", ", ".join(record["meant"])))
    return found


def _side_facts(side: Mapping[str, Any]) -> str:
    folders = [str(run["folder"]) for run in side["runs"]]
    server = " ".join(
        one_line(part)
        for part in (provenance.KINDS.get(side["server"], side["server"]), side["server_version"])
        if part
    )
    start = str(side["runs"][0]["start"] or "").replace("T", " ").removesuffix("Z")
    shown = folders[0] if len(folders) == 1 else f"{len(folders)} runs: {', '.join(folders)}"
    return "; ".join(part for part in (shown, server, f"{start} UTC" if start else "") if part)


def _advised(one: Mapping[str, Any]) -> str:
    """A red difference with the way to compare it on purpose."""
    if one["severity"] == "red" and one["code"] == "V8" and " among " not in one["what"]:
        return f'{one["text"]} (--expect "{one["what"]}" where that is what you compare)'
    return str(one["text"])


def _side(gate: Mapping[str, str], record: Record) -> str:
    name = gate["side"].upper()
    runs: Sequence[Any] = record[gate["side"]]["runs"]
    if record["kind"] == "models":
        name = str(record[gate["side"]]["name"])
    return f"{name} ({gate['run']})" if len(runs) > 1 else name


def _warned(record: Record) -> list[Doubt]:
    """Gates that only warn, in one line: the reports of the runs have their words."""
    codes: dict[str, None] = {}
    for level in record["levels"]:
        codes |= {gate["code"]: None for gate in level["gates"] if gate["severity"] == "warn"}
    if not codes:
        return []
    return [Doubt("", "warn", "", f"the runs' own reports warn too: {', '.join(map(titled, codes))}")]
