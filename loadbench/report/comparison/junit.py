"""A comparison as JUnit XML: a suite a comparison, a case a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loadbench import text as units
from loadbench.report.comparison import words
from loadbench.report.junit import Case, Outcome, Suite, group_of, to_xml

OVER_LEVELS = "over all levels"


def render(document: Mapping[str, Any], *, strict: bool = False) -> str:
    """Slower and worse are failures; what nobody can tell, or may judge, is skipped.

    Args:
        document: What `compare.document` returns.
        strict: Whether what is not known is a failure too.
    """
    suites = [_suite(record, strict) for record in document["comparisons"]]
    return to_xml(suites, "loadbench compare")


def _suite(record: words.Record, strict: bool) -> Suite:
    base, new = words.sides(record)
    facts = {"base": base, "new": new, "verdict": record["word"], "margin": units.share(record["margin"])}
    for side in ("base", "new"):
        server = " ".join(str(record[side][name]) for name in ("server", "server_version") if record[side].get(name))
        facts |= {f"{side} server": server} if server else {}
    began = min((run["start"] for run in record["new"].get("runs") or [] if run.get("start")), default=None)
    return Suite(f"{new} against {base}", list(_cases(record, strict)), facts, began)


def _cases(record: words.Record, strict: bool) -> Iterable[Case]:
    for level in record["levels"]:
        group = group_of(words.pair(level["base_model"], level["new_model"]), words.load(level["load"]))
        yield from (_case(verdict, group, strict) for verdict in level["verdicts"])
    for mean in record["over_levels"]:
        yield _case(mean, group_of(words.pair(mean["base_model"], mean["new_model"]), OVER_LEVELS), strict)


def _case(verdict: words.Verdict, group: str, strict: bool) -> Case:
    interval = words.interval(verdict)
    changed = words.change(verdict) + (f" [{interval}]" if interval else "")
    text = f"{words.said(verdict)}: {changed}"
    name, word = words.metric(verdict["metric"]), str(verdict["word"])
    if word in words.BAD:
        return Case(name, group, "failure", word, text)
    if word in ("can't tell", "no verdict"):
        outcome: Outcome = "failure" if strict else "skipped"
        note = verdict.get("note")
        return Case(name, group, outcome, word, f"{text} ({note})" if note else text)
    return Case(name, group, told=text)
