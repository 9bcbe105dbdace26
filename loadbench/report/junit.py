"""JUnit XML of a run or a comparison, for the test views of CI servers.

Of a run a suite a model, a case a level, threshold, bound and gate; of a comparison a case a verdict. Written to the
schema of Jenkins' xUnit plugin (junit-10.xsd), which readers of Ant's, GitHub's and GitLab's take too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Literal
from xml.etree import ElementTree

from loadbench import text as units
from loadbench.metrics.checks import titled
from loadbench.report import comparison, levels, objectives, provenance
from loadbench.report.levels import Record
from loadbench.store.schema import EnvironmentFacts, RunFacts, ScenarioFacts, TargetFacts
from loadbench.store.summary import Finding, Level, Objective, Summary, ThresholdRow
from loadbench.text import bare_url, one_line

Outcome = Literal["passed", "failure", "error", "skipped"]
WHOLE_RUN = "the whole run"
OVER_LEVELS = "over all levels"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST = 2000


@dataclass(frozen=True, slots=True)
class Case:
    """One test.

    Attributes:
        group: Where views list it, as a class name: dots part it into packages.
        kind: What sort of failure, as "threshold" or "V1".
        text: Why it did not pass.
        output: What else there is to say, of a test that passed too.
        time_s: How long it took; the views add them up.
    """

    name: str
    group: str
    outcome: Outcome = "passed"
    kind: str = ""
    text: str = ""
    output: str = ""
    time_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests that belong together, and what they were made with."""

    name: str
    cases: Sequence[Case]
    properties: Mapping[str, str]
    began: str | None = None


# -- a run


def of_run(record: Record | Summary, *, strict: bool = False) -> str:
    """The run as JUnit XML.

    A level that did not run to its end is an error, one that was skipped or aborted is skipped; a threshold that
    failed, a bound that was not attained and a red gate are failures. What is unknown is skipped.

    Args:
        strict: Whether a threshold that is not known is a failure.
    """
    summary = levels.read(record)
    run = levels.facts(summary)
    shared = _properties(run, summary)
    suites = []
    for model, rows in levels.by_model(levels.of(summary)).items():
        cases: list[Case] = []
        for level in rows:
            cases += _level(level, summary, strict)
        suites.append(Suite(model, cases, _of_model(model, summary) | shared, run.start))
    # What is about no level alone.
    whole = [_gate(warning, WHOLE_RUN) for warning in summary.warnings]
    for row in summary.thresholds:
        if row.level is None:
            whole.append(_threshold(row, summary, WHOLE_RUN, strict=strict))
    if not levels.of(summary):
        whole.append(Case("measures", WHOLE_RUN, "error", "run", "no level was measured"))
    if whole:
        suites.append(Suite(WHOLE_RUN, whole, shared, run.start))
    name = f"loadbench {run.name or 'run'}"
    if levels.is_simulated(summary):
        name += " (SIMULATED)"
    return to_xml(suites, name)


def _level(level: Level, summary: Summary, strict: bool) -> Iterable[Case]:
    group = group_of(level.model, levels.label(level))
    status = level.status or "complete"
    done = f"{units.plural(level.completed or 0, 'request')} completed"
    time_s = float(level.duration_s or 0.0)
    if status == "complete":
        yield Case("runs to its end", group, output=done, time_s=time_s)
    else:
        outcome: Outcome = "skipped" if status in ("skipped", "aborted") else "error"
        text = ": ".join(filter(None, (status, level.reason)))
        yield Case("runs to its end", group, outcome, status, text, done, time_s)
    for row in summary.thresholds:
        if row.level == level.id:
            # A level that was skipped is no failure, however strict: nothing was sent.
            yield _threshold(row, summary, group, strict=strict and status != "skipped")
    for bound in level.slo or ():
        yield _bound(bound, group)
    for warning in level.warnings:
        yield _gate(warning, group)


def _threshold(row: ThresholdRow, summary: Summary, group: str, *, strict: bool) -> Case:
    name = f"not {row.text}"
    measured = f"is {objectives.value(row)}"
    if interval := objectives.value_interval(row):
        measured += f" [{interval}]"
    if row.result == "failed":
        return Case(name, group, "failure", "threshold", f"FAILED: {objectives.in_words(row, summary)}", measured)
    if row.result == "passed":
        return Case(name, group, output=measured)
    outcome: Outcome = "failure" if strict else "skipped"
    return Case(name, group, outcome, "unknown", f"not known: {row.reason}")


def _bound(bound: Objective, group: str) -> Case:
    name = f"slo {bound.bound}"
    met_by, missed = "", "not attained"
    if bound.attainment is not None:
        met_by = f"met by {units.share(bound.attainment)} of {units.count(bound.n)} requests"
        missed = f"not attained: {met_by}"
    match bound.attained:
        case True:
            return Case(name, group, output=met_by)
        case False:
            return Case(name, group, "failure", "slo", missed)
    return Case(name, group, "skipped", text="not decided")


def _gate(warning: Finding, group: str) -> Case:
    """A red gate is a failure; the others are output."""
    if warning.severity == "red":
        return Case(titled(warning.code), group, "failure", warning.code, warning.text)
    return Case(titled(warning.code), group, output=f"{warning.severity}: {warning.text}")


def _properties(run: RunFacts, summary: Summary) -> dict[str, str]:
    target, machine = run.target or TargetFacts(), run.environment or EnvironmentFacts()
    properties = {
        "run": run.name,
        "scenario": (run.scenario or ScenarioFacts()).name,
        "server": target.kind,
        "server version": target.version,
        "url": target.base_url and bare_url(target.base_url),
        "simulated": "yes" if levels.is_simulated(summary) else None,
        "client": ", ".join(filter(None, (machine.cpu, machine.os))),
    }
    for name, version in sorted((run.versions or {}).items()):
        properties[f"{name} version"] = version
    return _known(properties)


def _known(properties: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in properties.items() if value}


def _of_model(name: str, summary: Summary) -> dict[str, str]:
    properties: dict[str, str | None] = {"model": name}
    for model in summary.models:
        if model.id == name:
            properties |= {"quantization": model.quantization, "licence": model.licence}
            properties |= {"device": levels.device(model), "ran": provenance.ran(model)}
            break
    return _known(properties)


# -- a comparison


def of_comparison(document: Record, *, strict: bool = False) -> str:
    """A suite a comparison: slower and worse are failures; what nobody can tell, or may judge, is skipped.

    Args:
        document: What `compare.document` returns.
        strict: Whether what is not known is a failure too.
    """
    suites = []
    for record in document["comparisons"]:
        base, new = comparison.sides(record)
        facts = {"base": base, "new": new, "verdict": record["word"], "margin": units.share(record["margin"])}
        for side in ("base", "new"):
            server = " ".join(filter(None, (record[side].get("server"), record[side].get("server_version"))))
            if server:
                facts[f"{side} server"] = server
        starts = [run.get("start") for run in record["new"].get("runs") or []]
        cases = []
        for level in record["levels"]:
            models = comparison.pair(level["base_model"], level["new_model"])
            group = group_of(models, comparison.load(level["load"]))
            cases += [_verdict(verdict, group, strict) for verdict in level["verdicts"]]
        for mean in record["over_levels"]:
            models = comparison.pair(mean["base_model"], mean["new_model"])
            cases.append(_verdict(mean, group_of(models, OVER_LEVELS), strict))
        suites.append(Suite(f"{new} against {base}", cases, facts, min(filter(None, starts), default=None)))
    return to_xml(suites, "loadbench compare")


def _verdict(verdict: Record, group: str, strict: bool) -> Case:
    text = f"{comparison.word(verdict)}: {comparison.change(verdict)}"
    if interval := comparison.interval(verdict):
        text += f" [{interval}]"
    name, word = comparison.metric(verdict["metric"]), str(verdict["word"])
    if word in comparison.BAD:
        return Case(name, group, "failure", word, text)
    if word in ("can't tell", "no verdict"):
        if verdict.get("note"):
            text += f" ({verdict['note']})"
        outcome: Outcome = "failure" if strict else "skipped"
        return Case(name, group, outcome, word, text)
    return Case(name, group, output=text)


# -- XML


def to_xml(suites: Sequence[Suite], name: str) -> str:
    """Suites as JUnit XML; whatever names hold, it can be parsed."""
    every = list(chain.from_iterable(suite.cases for suite in suites))
    root = ElementTree.Element("testsuites", {"name": _text(name), **_counts(every)})
    del root.attrib["skipped"]  # the schema has it for suites alone
    for number, suite in enumerate(suites):
        attributes = {"name": _text(suite.name), "id": str(number), **_counts(suite.cases)}
        began = _stamp(suite.began)
        if began:
            attributes["timestamp"] = began
        element = ElementTree.SubElement(root, "testsuite", attributes)
        properties = ElementTree.SubElement(element, "properties")
        for key, value in suite.properties.items():
            ElementTree.SubElement(properties, "property", {"name": _text(key), "value": _text(value)})
        for case in suite.cases:
            names = {"name": _text(case.name), "classname": _text(case.group), "time": f"{case.time_s:.3f}"}
            test = ElementTree.SubElement(element, "testcase", names)
            if case.outcome == "skipped":
                ElementTree.SubElement(test, "skipped", {"message": _text(case.text)})
            elif case.outcome != "passed":
                kind = {"type": _text(case.kind or case.outcome), "message": _text(case.text)}
                ElementTree.SubElement(test, case.outcome, kind).text = _text(case.text)
            if case.output:
                ElementTree.SubElement(test, "system-out").text = _text(case.output)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _counts(cases: Sequence[Case]) -> dict[str, str]:
    outcomes: Counter[Outcome] = Counter()
    time_s = 0.0
    for case in cases:
        outcomes[case.outcome] += 1
        time_s += case.time_s
    return {
        "tests": str(len(cases)),
        "failures": str(outcomes["failure"]),
        "errors": str(outcomes["error"]),
        "skipped": str(outcomes["skipped"]),
        "time": f"{time_s:.3f}",
    }


def group_of(*names: object) -> str:
    """A class name: a name's own dots would part it where nobody means it.

    >>> group_of("qwen2.5-0.5b", "c4")
    'qwen2_5-0_5b.c4'
    """
    return ".".join(one_line(name).replace(".", "_") or "-" for name in names)


def _stamp(began: str | None) -> str | None:
    """As the schema of Ant has it: UTC, to the second, without a zone."""
    try:
        parsed = datetime.fromisoformat(str(began))
    except ValueError:
        return None
    if parsed.tzinfo:
        parsed = parsed.astimezone(UTC)
    return f"{parsed:%Y-%m-%dT%H:%M:%S}"


def _text(text: object) -> str:
    """Text that XML 1.0 can hold, without what moves a terminal's cursor."""
    return _NOT_XML.sub("\ufffd", one_line(text, _LONGEST))
