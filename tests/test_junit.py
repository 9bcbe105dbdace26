"""report.junit: what CI servers read of a run, parsed again."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from loadbench.report import junit
from loadbench.text import one_line
from tests.support.plain import thresholds
from tests.support.summaries import CASES, TIMES, level, summary_of

ATTRIBUTES = {
    "testsuites": {"name", "time", "tests", "failures", "errors"},
    "testsuite": {"name", "tests", "failures", "errors", "time", "skipped", "timestamp", "id"},
    "properties": set(),
    "property": {"name", "value"},
    "testcase": {"name", "time", "classname"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "skipped": {"message"},
    "system-out": set(),
}
"""What the schema of Jenkins' xUnit plugin (junit-10.xsd) knows, as far as we write it; its skipped has a type, too."""
REQUIRED = {
    "testsuite": {"name", "tests", "failures", "errors"},
    "testcase": {"name"},
    "property": {"name", "value"},
}
CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"properties", "testcase"},
    "properties": {"property"},
    "testcase": {"skipped", "error", "failure", "system-out"},
}


def parsed(text: str) -> ElementTree.Element:
    """The XML, held against the schema, its counts against its cases."""
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "testsuites"
    for element in root.iter():
        assert set(element.attrib) <= ATTRIBUTES[element.tag], element.tag
        assert set(element.attrib) >= REQUIRED.get(element.tag, set()), element.tag
        assert {child.tag for child in element} <= CHILDREN.get(element.tag, set()), element.tag
    for suite in (root, *root):
        cases = list(suite.iter("testcase"))
        assert suite.attrib["tests"] == str(len(cases))
        assert suite.attrib["failures"] == str(sum(case.find("failure") is not None for case in cases))
        assert suite.attrib["errors"] == str(sum(case.find("error") is not None for case in cases))
        assert re.fullmatch(r"[0-9]+\.[0-9]{3}", suite.attrib["time"])
    return root


def summary(*written: str, levels: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    levels = levels or [level(duration_s=12.5, **changes)]
    run = {"name": "gate", "start": "2026-11-25T10:00:00+01:00", "target": {"kind": "vllm", "version": "0.9"}}
    run |= {"versions": {"loadbench": "0.1.0", "python": "3.11.7"}}
    return {"run": run, "levels": levels, "models": [], "warnings": [], "thresholds": thresholds(levels, written)}


def outcomes(*written: str, strict: bool = False, **changes: Any) -> dict[str, str]:
    """What became of each case, by its name."""
    root = parsed(junit.of_run(summary(*written, **changes), strict=strict))
    found = {}
    for case in root.iter("testcase"):
        bad = [child.tag for child in case if child.tag != "system-out"]
        assert len(bad) <= 1
        found[case.attrib["name"]] = bad[0] if bad else "passed"
    return found


@pytest.mark.parametrize("case", CASES)
def test_every_summary_makes_junit_that_can_be_read(case: str) -> None:
    root = parsed(junit.of_run(summary_of(case)))

    models = dict.fromkeys(one["model"] for one in summary_of(case)["levels"] if not one.get("closing"))
    suites = [suite.attrib["name"] for suite in root if suite.attrib["name"] != junit.WHOLE_RUN]
    assert suites == [one_line(model) for model in models]


def test_a_case_a_threshold_bound_and_gate() -> None:
    slo = [
        {"bound": "ttft_p95=1s", "attainment": 0.97, "attained": True, "n": 100, "ci95": None},
        {"bound": "e2e_p99=1s", "attainment": 0.9, "attained": False, "n": 100, "ci95": None},
        {"bound": "itl_p99=1s", "attainment": None, "attained": None, "n": None, "ci95": None},
    ]
    warnings = [
        {"code": "V1", "severity": "red", "text": "too short"},
        {"code": "V12", "severity": "warn", "text": "few"},
    ]

    assert outcomes("ttft_p95 > 600ms", "failed > 5%", "gpu_memory > 1GB", slo=slo, warnings=warnings) == {
        "runs to its end": "passed",
        "not ttft_p95 > 600ms": "failure",
        "not failed > 5%": "passed",
        "not gpu_memory > 1GB": "skipped",
        "slo ttft_p95=1s": "passed",
        "slo e2e_p99=1s": "failure",
        "slo itl_p99=1s": "skipped",
        "V1 short-window": "failure",
        "V12 few-requests": "passed",
    }


def test_strict_makes_a_failure_of_what_nobody_knows() -> None:
    assert outcomes("gpu_memory > 1GB", strict=True)["not gpu_memory > 1GB"] == "failure"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *(("complete", "passed"), ("skipped", "skipped"), ("aborted", "skipped")),
        *(("failed", "error"), ("incomplete", "error"), ("interrupted", "error")),
    ],
)
def test_a_level_that_did_not_run_to_its_end_is_no_pass(status: str, outcome: str) -> None:
    assert outcomes(status=status, reason="because")["runs to its end"] == outcome


def test_a_suite_says_what_failed_when_and_what_it_was_measured_with() -> None:
    root = parsed(junit.of_run(summary("ttft_p95 > 600ms", "failed > 5%")))

    [suite] = root
    [failure] = root.iter("failure")
    assert failure.attrib == {"type": "threshold", "message": "FAILED: ttft_p95 > 600ms at c4 (700 ms)"}
    assert [one.text for one in root.iter("system-out")][1] == "is 700 ms [650 ms–800 ms]"
    # The time is the level's once, the stamp UTC.
    assert [case.attrib["time"] for case in suite.iter("testcase")] == ["12.500", "0.000", "0.000"]
    assert (suite.attrib["time"], suite.attrib["timestamp"]) == ("12.500", "2026-11-25T09:00:00")
    assert {one.attrib["name"]: one.attrib["value"] for one in root.iter("property")} == {
        **{"model": "phi", "run": "gate", "server": "vllm", "server version": "0.9"},
        **{"loadbench version": "0.1.0", "python version": "3.11.7"},
    }


def test_models_are_suites_of_their_own_and_dots_in_names_part_no_packages() -> None:
    root = parsed(junit.of_run(summary(levels=[level(model="qwen2.5", id="qwen2.5@c4"), level()])))

    assert [suite.attrib["name"] for suite in root] == ["qwen2.5", "phi"]
    assert [case.attrib["classname"] for case in root.iter("testcase")] == ["qwen2_5.c4", "phi.c4"]


@pytest.mark.parametrize(
    "name", ["</testsuite>", '"><x a="', "a\x00b\x1b[31m\ud800", "\ufffe\uffff", "]]>", "&amp;", ""]
)
def test_hostile_names_stay_text(name: str) -> None:
    warnings = [{"code": "V4", "severity": "red", "text": name}]
    levels = [level(model=name, id=f"{name}@c4", reason=name, status="failed", warnings=warnings, ttft_ms=TIMES)]

    root = parsed(junit.of_run(summary("ttft_p95 > 600ms", levels=levels)))

    assert len(root) == 1
    assert len(list(root.iter("testcase"))) == 3


def test_what_is_about_no_level_is_a_suite_of_its_own_and_no_level_is_an_error() -> None:
    found = summary("failed{c9} > 1%")
    found["warnings"] = [{"code": "V11", "severity": "red", "text": "noisy"}]
    suites = parsed(junit.of_run(found))
    [error] = parsed(junit.of_run(summary() | {"levels": []})).iter("error")

    assert [(suite.attrib["name"], suite.attrib["tests"], suite.attrib["failures"]) for suite in suites] == [
        ("phi", "1", "0"),
        (junit.WHOLE_RUN, "2", "1"),
    ]
    assert error.attrib["message"] == "no level was measured"


# -- comparisons


def verdict_of(**changes: Any) -> dict[str, Any]:
    names = {"metric": "ttft", "unit": "ms", "base": 100.0, "new": 120.0, "ratio": 1.2, "low": 1.15, "high": 1.25}
    return {**names, "word": "slower", "runs_needed": None, "runs_base": 1, "runs_new": 1, "note": "", **changes}


def comparison(*verdicts: dict[str, Any]) -> dict[str, Any]:
    """What `compare.document` returns, as far as cases are made of it."""
    side = {"server": "vllm", "server_version": "0.9", "runs": [{"start": "2026-11-25T10:00:00+00:00"}]}
    level = {"load": "c4", "base_model": "phi", "new_model": "phi", "verdicts": list(verdicts)}
    sides = {"base": {**side, "name": "before"}, "new": {**side, "name": "after"}}
    return {"comparisons": [{**sides, "word": "slower", "margin": 0.1, "levels": [level], "over_levels": []}]}


@pytest.mark.parametrize(
    ("word", "outcome", "strict"),
    [
        ("slower", ["failure"], ["failure"]),
        ("worse", ["failure"], ["failure"]),
        ("faster", [], []),
        ("same", [], []),
        ("can't tell", ["skipped"], ["failure"]),
        ("no verdict", ["skipped"], ["failure"]),
    ],
)
def test_a_verdict_that_is_bad_news_is_a_failure(word: str, outcome: list[str], strict: list[str]) -> None:
    document = comparison(verdict_of(word=word))
    plain, judged = parsed(junit.of_comparison(document)), parsed(junit.of_comparison(document, strict=True))

    for expected, root in ((outcome, plain), (strict, judged)):
        [case] = root.iter("testcase")
        assert [child.tag for child in case if child.tag != "system-out"] == expected
    assert plain[0].attrib["name"] == "after against before"
    assert case.attrib["classname"] == "phi.c4"
    assert case.attrib["name"] == "TTFT"
    for failure in plain.iter("failure"):
        assert failure.attrib["message"] == f"{word}: +20% [+15 to +25%]"
