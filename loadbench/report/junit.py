"""JUnit XML of a run, for the test views of CI servers: a suite a model, a case a level, threshold, bound and gate.

Written to the schema of Jenkins' xUnit plugin (junit-10.xsd), which readers of Ant's, GitHub's and GitLab's take too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from xml.etree import ElementTree

from loadbench import text as units
from loadbench.metrics.gates import titled
from loadbench.report import levels, ran, thresholds
from loadbench.report.levels import Level, Summary
from loadbench.text import bare_url, one_line

Outcome = Literal["passed", "failure", "error", "skipped"]
WHOLE_RUN = "the whole run"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST = 2000


@dataclass(frozen=True, slots=True)
class Case:
    """One test.

    Attributes:
        group: Where views list it, as a class name: dots part it into packages.
        kind: What sort of failure, as "threshold" or "V1".
        text: Why it did not pass.
        told: What else there is to say, of a test that passed too.
        time_s: How long it took; the views add them up.
    """

    name: str
    group: str
    outcome: Outcome = "passed"
    kind: str = ""
    text: str = ""
    told: str = ""
    time_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests that belong together, and what they were made with."""

    name: str
    cases: Sequence[Case]
    properties: Mapping[str, str]
    began: str | None = None


def render(summary: Summary, *, strict: bool = False) -> str:
    """The run as JUnit XML.

    A level that did not run to its end is an error, one that was skipped or aborted is skipped; a threshold that
    failed, a bound that was not attained and a red gate are failures. What nobody knows is skipped.

    Args:
        strict: Whether a threshold that is not known is a failure.
    """
    run = summary.get("run") or {}
    shared = _properties(summary)
    began = run.get("start")
    suites = [
        Suite(
            model,
            [case for level in rows for case in _level(level, summary, strict)],
            _own(model, summary, shared),
            began,
        )
        for model, rows in levels.by_model(summary).items()
    ]
    whole = _whole(summary, strict)
    if whole:
        suites.append(Suite(WHOLE_RUN, whole, shared, began))
    name = f"loadbench {run.get('name') or 'run'}"
    return to_xml(suites, f"{name} (SIMULATED)" if levels.is_simulated(summary) else name)


def to_xml(suites: Sequence[Suite], name: str) -> str:
    """Suites as JUnit XML; whatever names hold, it can be parsed."""
    root = ElementTree.Element("testsuites", {"name": _text(name), **_counts([c for s in suites for c in s.cases])})
    del root.attrib["skipped"]  # the schema has it for suites alone
    for number, suite in enumerate(suites):
        began = _stamp(suite.began)
        found = ElementTree.SubElement(
            root,
            "testsuite",
            {
                "name": _text(suite.name),
                "id": str(number),
                **_counts(suite.cases),
                **({"timestamp": began} if began else {}),
            },
        )
        properties = ElementTree.SubElement(found, "properties")
        for key, value in suite.properties.items():
            ElementTree.SubElement(properties, "property", {"name": _text(key), "value": _text(value)})
        for case in suite.cases:
            _add(found, case)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(suite: ElementTree.Element, case: Case) -> None:
    names = {"name": _text(case.name), "classname": _text(case.group), "time": f"{case.time_s:.3f}"}
    found = ElementTree.SubElement(suite, "testcase", names)
    if case.outcome == "skipped":
        ElementTree.SubElement(found, "skipped", {"message": _text(case.text)})
    elif case.outcome != "passed":
        kind = {"type": _text(case.kind or case.outcome), "message": _text(case.text)}
        ElementTree.SubElement(found, case.outcome, kind).text = _text(case.text)
    if case.told:
        ElementTree.SubElement(found, "system-out").text = _text(case.told)


def _counts(cases: Sequence[Case]) -> dict[str, str]:
    count = {name: sum(case.outcome == name for case in cases) for name in ("failure", "error", "skipped")}
    return {
        "tests": str(len(cases)),
        "failures": str(count["failure"]),
        "errors": str(count["error"]),
        "skipped": str(count["skipped"]),
        "time": f"{sum(case.time_s for case in cases):.3f}",
    }


def _level(level: Level, summary: Summary, strict: bool) -> Iterable[Case]:
    """What is tested of one level; one that was skipped was tested for nothing."""
    group = group_of(level.get("model"), levels.label(level))
    yield _course(level, group)
    found = [row for row in thresholds.rows(summary) if row["level"] == level.get("id")]
    yield from (_threshold(row, summary, group, level, strict) for row in found)
    for bound in level.get("slo") or []:
        yield _bound(bound, group)
    for warning in level.get("warnings") or []:
        yield _gate(warning, group)


def _course(level: Level, group: str) -> Case:
    """Whether the level ran to its end."""
    status, reason = level.get("status") or "complete", level.get("reason") or ""
    name, time_s = "runs to its end", float(level.get("duration_s") or 0.0)
    done = f"{units.plural(int(level.get('completed') or 0), 'request')} completed"
    if status == "complete":
        return Case(name, group, told=done, time_s=time_s)
    outcome: Outcome = "skipped" if status in ("skipped", "aborted") else "error"
    return Case(name, group, outcome, status, f"{status}: {reason}" if reason else status, done, time_s)


def _threshold(row: Mapping[str, Any], summary: Summary, group: str, level: Level | None, strict: bool) -> Case:
    name = f"not {row['text']}"
    interval = thresholds.interval(row)
    told = f"is {thresholds.value(row)}" + (f" [{interval}]" if interval else "")
    if row["result"] == "failed":
        return Case(name, group, "failure", "threshold", f"FAILED: {thresholds.told(row, summary)}", told)
    if row["result"] == "passed":
        return Case(name, group, told=told)
    never_ran = level is not None and level.get("status") == "skipped"
    outcome: Outcome = "failure" if strict and not never_ran else "skipped"
    return Case(name, group, outcome, "unknown", f"not known: {row['reason']}")


def _bound(bound: Mapping[str, Any], group: str) -> Case:
    name = f"slo {bound.get('bound')}"
    share = f"met by {units.share(bound.get('attainment'))} of {units.count(bound.get('n'))} requests"
    told = share if bound.get("attainment") is not None else ""
    match bound.get("attained"):
        case True:
            return Case(name, group, told=told)
        case False:
            return Case(name, group, "failure", "slo", f"not attained{f': {told}' if told else ''}")
    return Case(name, group, "skipped", text="not decided")


def _gate(warning: Mapping[str, Any], group: str) -> Case:
    """A gate that spoke: red is a failure, all else is told."""
    code, text = str(warning.get("code")), str(warning.get("text") or "")
    name = titled(code)
    if warning.get("severity") == "red":
        return Case(name, group, "failure", code, text)
    return Case(name, group, told=f"{warning.get('severity')}: {text}")


def _whole(summary: Summary, strict: bool) -> list[Case]:
    """What is said of no level alone."""
    found = [_gate(warning, WHOLE_RUN) for warning in summary.get("warnings") or []]
    lost = [row for row in thresholds.rows(summary) if row["level"] is None]
    found += [_threshold(row, summary, WHOLE_RUN, None, strict) for row in lost]
    if not levels.levels(summary):
        found.append(Case("measures", WHOLE_RUN, "error", "run", "no level was measured"))
    return found


def group_of(*names: object) -> str:
    """A class name: a name's own dots would part it where nobody means it.

    >>> group_of("qwen2.5-0.5b", "c4")
    'qwen2_5-0_5b.c4'
    """
    return ".".join(one_line(name).replace(".", "_") or "-" for name in names)


def _properties(summary: Summary) -> dict[str, str]:
    run = summary.get("run") or {}
    target, scenario = run.get("target") or {}, run.get("scenario") or {}
    versions = run.get("versions") if isinstance(run.get("versions"), Mapping) else {}
    machine = run.get("environment") or {}
    found = {
        "run": run.get("name"),
        "scenario": scenario.get("name"),
        "server": target.get("kind"),
        "server version": target.get("version"),
        "url": bare_url(target["base_url"]) if target.get("base_url") else None,
        "simulated": "yes" if levels.is_simulated(summary) else None,
        "client": ", ".join(str(machine[name]) for name in ("cpu", "os") if machine.get(name)),
        **{f"{name} version": version for name, version in sorted((versions or {}).items())},
    }
    return {name: str(value) for name, value in found.items() if value}


def _own(model: str, summary: Summary, shared: Mapping[str, str]) -> dict[str, str]:
    """The properties of a model's suite."""
    record = next((one for one in levels.models(summary) if one.get("id") == model), {})
    own = {"model": model, **{name: record.get(name) for name in ("quantization", "licence")}}
    own["device"] = (record.get("ran") or {}).get("device") or record.get("device")
    own["ran"] = ran.of(record) if record else None
    return {name: str(value) for name, value in own.items() if value} | dict(shared)


def _stamp(began: object) -> str | None:
    """As the schema of Ant has it: UTC, to the second, without a zone."""
    try:
        found = datetime.fromisoformat(str(began))
    except ValueError:
        return None
    return f"{found.astimezone(UTC) if found.tzinfo else found:%Y-%m-%dT%H:%M:%S}"


def _text(text: object) -> str:
    """Text that XML 1.0 can hold, without what moves a terminal's cursor."""
    return _NOT_XML.sub("\ufffd", one_line(text, _LONGEST))
