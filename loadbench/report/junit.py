"""JUnit XML of a run or a comparison, for the test views of CI servers.

Of a run a suite a model, a case a level, threshold, bound and gate; of a comparison a case a verdict. Written to the
schema of Jenkins' xUnit plugin (junit-10.xsd), which readers of Ant's, GitHub's and GitLab's take too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Literal
from xml.etree import ElementTree

from loadbench import text as units
from loadbench.metrics.checks import titled
from loadbench.report import comparison, levels, objectives, provenance
from loadbench.report.levels import Level, Record, Summary
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


def of_run(summary: Summary, *, strict: bool = False) -> str:
    """The run as JUnit XML.

    A level that did not run to its end is an error, one that was skipped or aborted is skipped; a threshold that
    failed, a bound that was not attained and a red gate are failures. What nobody knows is skipped.

    Args:
        strict: Whether a threshold that is not known is a failure.
    """
    run = levels.run_of(summary)
    shared = _properties(summary)
    suites = []
    for model, rows in levels.by_model(summary).items():
        cases = list(chain.from_iterable(_level(level, summary, strict) for level in rows))
        suites.append(Suite(model, cases, _model_properties(model, summary) | shared, run.get("start")))
    whole = _whole_run(summary, strict)
    if whole:
        suites.append(Suite(WHOLE_RUN, whole, shared, run.get("start")))
    name = f"loadbench {run.get('name') or 'run'}"
    return to_xml(suites, f"{name} (SIMULATED)" if levels.is_simulated(summary) else name)


def _level(level: Level, summary: Summary, strict: bool) -> Iterable[Case]:
    group = group_of(level.get("model"), levels.label(level))
    yield _end(level, group)
    for row in objectives.thresholds(summary):
        if row["level"] == level.get("id"):
            yield _threshold(row, summary, group, strict=strict and level.get("status") != "skipped")
    for bound in level.get("slo") or []:
        yield _bound(bound, group)
    for warning in level.get("warnings") or []:
        yield _gate(warning, group)


def _end(level: Level, group: str) -> Case:
    status = level.get("status") or "complete"
    name, time_s = "runs to its end", float(level.get("duration_s") or 0.0)
    done = f"{units.plural(int(level.get('completed') or 0), 'request')} completed"
    if status == "complete":
        return Case(name, group, output=done, time_s=time_s)
    outcome: Outcome = "skipped" if status in ("skipped", "aborted") else "error"
    text = f"{status}: {level['reason']}" if level.get("reason") else status
    return Case(name, group, outcome, status, text, done, time_s)


def _threshold(row: Record, summary: Summary, group: str, *, strict: bool) -> Case:
    name = f"not {row['text']}"
    interval = objectives.value_interval(row)
    measured = f"is {objectives.value(row)}" + (f" [{interval}]" if interval else "")
    if row["result"] == "failed":
        return Case(name, group, "failure", "threshold", f"FAILED: {objectives.in_words(row, summary)}", measured)
    if row["result"] == "passed":
        return Case(name, group, output=measured)
    return Case(name, group, "failure" if strict else "skipped", "unknown", f"not known: {row['reason']}")


def _bound(bound: Record, group: str) -> Case:
    name = f"slo {bound.get('bound')}"
    met_by = ""
    if bound.get("attainment") is not None:
        met_by = f"met by {units.share(bound['attainment'])} of {units.count(bound.get('n'))} requests"
    match bound.get("attained"):
        case True:
            return Case(name, group, output=met_by)
        case False:
            text = f"not attained: {met_by}" if met_by else "not attained"
            return Case(name, group, "failure", "slo", text)
    return Case(name, group, "skipped", text="not decided")


def _gate(warning: Record, group: str) -> Case:
    """A gate that spoke: red is a failure, all else is told."""
    code, text = str(warning.get("code")), str(warning.get("text") or "")
    if warning.get("severity") == "red":
        return Case(titled(code), group, "failure", code, text)
    return Case(titled(code), group, output=f"{warning.get('severity')}: {text}")


def _whole_run(summary: Summary, strict: bool) -> list[Case]:
    """What is said of no level alone."""
    cases = [_gate(warning, WHOLE_RUN) for warning in summary.get("warnings") or []]
    lost = [row for row in objectives.thresholds(summary) if row["level"] is None]
    cases += [_threshold(row, summary, WHOLE_RUN, strict=strict) for row in lost]
    if not levels.levels(summary):
        cases.append(Case("measures", WHOLE_RUN, "error", "run", "no level was measured"))
    return cases


def _properties(summary: Summary) -> dict[str, str]:
    run = levels.run_of(summary)
    target, scenario, machine = run.get("target") or {}, run.get("scenario") or {}, run.get("environment") or {}
    found = {
        "run": run.get("name"),
        "scenario": scenario.get("name"),
        "server": target.get("kind"),
        "server version": target.get("version"),
        "url": bare_url(target["base_url"]) if target.get("base_url") else None,
        "simulated": "yes" if levels.is_simulated(summary) else None,
        "client": ", ".join(str(machine[name]) for name in ("cpu", "os") if machine.get(name)),
    }
    versions = run.get("versions")
    if isinstance(versions, Mapping):
        found |= {f"{name} version": version for name, version in sorted(versions.items())}
    return {name: str(value) for name, value in found.items() if value}


def _model_properties(model: str, summary: Summary) -> dict[str, str]:
    record: Record = next((one for one in levels.models(summary) if one.get("id") == model), {})
    found = {
        "model": model,
        "quantization": record.get("quantization"),
        "licence": record.get("licence"),
        "device": levels.device(record),
        "ran": provenance.ran(record),
    }
    return {name: str(value) for name, value in found.items() if value}


# -- a comparison


def of_comparison(document: Record, *, strict: bool = False) -> str:
    """A suite a comparison: slower and worse are failures; what nobody can tell, or may judge, is skipped.

    Args:
        document: What `compare.document` returns.
        strict: Whether what is not known is a failure too.
    """
    return to_xml([_comparison(record, strict) for record in document["comparisons"]], "loadbench compare")


def _comparison(record: Record, strict: bool) -> Suite:
    base, new = comparison.sides(record)
    facts = {"base": base, "new": new, "verdict": record["word"], "margin": units.share(record["margin"])}
    for side in ("base", "new"):
        server = " ".join(str(record[side][name]) for name in ("server", "server_version") if record[side].get(name))
        if server:
            facts[f"{side} server"] = server
    starts = [run["start"] for run in record["new"].get("runs") or [] if run.get("start")]
    cases = []
    for level in record["levels"]:
        models = comparison.pair(level["base_model"], level["new_model"])
        group = group_of(models, comparison.load(level["load"]))
        cases += [_verdict(verdict, group, strict) for verdict in level["verdicts"]]
    for mean in record["over_levels"]:
        models = comparison.pair(mean["base_model"], mean["new_model"])
        cases.append(_verdict(mean, group_of(models, OVER_LEVELS), strict))
    return Suite(f"{new} against {base}", cases, facts, min(starts, default=None))


def _verdict(verdict: Record, group: str, strict: bool) -> Case:
    interval = comparison.interval(verdict)
    text = f"{comparison.word(verdict)}: {comparison.change(verdict)}" + (f" [{interval}]" if interval else "")
    name, word = comparison.metric(verdict["metric"]), str(verdict["word"])
    if word in comparison.BAD:
        return Case(name, group, "failure", word, text)
    if word in ("can't tell", "no verdict"):
        if verdict.get("note"):
            text += f" ({verdict['note']})"
        return Case(name, group, "failure" if strict else "skipped", word, text)
    return Case(name, group, output=text)


# -- XML


def to_xml(suites: Sequence[Suite], name: str) -> str:
    """Suites as JUnit XML; whatever names hold, it can be parsed."""
    every = chain.from_iterable(suite.cases for suite in suites)
    root = ElementTree.Element("testsuites", {"name": _text(name), **_counts(list(every))})
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
            _add(element, case)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(suite: ElementTree.Element, case: Case) -> None:
    names = {"name": _text(case.name), "classname": _text(case.group), "time": f"{case.time_s:.3f}"}
    element = ElementTree.SubElement(suite, "testcase", names)
    if case.outcome == "skipped":
        ElementTree.SubElement(element, "skipped", {"message": _text(case.text)})
    elif case.outcome != "passed":
        kind = {"type": _text(case.kind or case.outcome), "message": _text(case.text)}
        ElementTree.SubElement(element, case.outcome, kind).text = _text(case.text)
    if case.output:
        ElementTree.SubElement(element, "system-out").text = _text(case.output)


def _counts(cases: Sequence[Case]) -> dict[str, str]:
    outcomes = [case.outcome for case in cases]
    return {
        "tests": str(len(cases)),
        "failures": str(outcomes.count("failure")),
        "errors": str(outcomes.count("error")),
        "skipped": str(outcomes.count("skipped")),
        "time": f"{sum(case.time_s for case in cases):.3f}",
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
