"""docs/ci.md: its workflows are YAML, their commands are understood, their files fit together, and the gate works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadbench import figures, scenario
from loadbench.figures import STATISTICS
from loadbench.scenario.bounds import Threshold
from loadbench.serve import simulator
from tests.support.command import invoke
from tests.support.documents import fenced, inline, page, parsed

pytestmark = pytest.mark.system

TEXT, _ = page("ci.md")
WORKFLOW, GITLAB = (yaml.safe_load(text) for text in fenced(TEXT, "yaml"))
STEPS: list[dict[str, Any]] = WORKFLOW["jobs"]["loadbench"]["steps"]


def commands(script: str) -> list[str]:
    """The loadbench commands of a script, without where their output goes."""
    lines = re.findall(r"^\s*(?:if )?(loadbench .*)$", script, re.MULTILINE)
    bare = [re.split(r" +(?:>> |> \S+ 2>&1)", line)[0] for line in lines]
    return [line.replace("$SERVER_URL", "http://127.0.0.1:8080") for line in bare]


SCRIPTS = [step["run"] for step in STEPS if "run" in step] + ["\n".join(GITLAB["loadbench"]["script"])]
COMMANDS = [line for script in SCRIPTS for line in commands(script)]


def test_the_workflow_measures_reports_and_compares() -> None:
    assert [line.split()[1] for line in COMMANDS] == ["serve", "run", "report", "compare", "run"]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_workflow_is_understood(line: str) -> None:
    parsed(line)


def test_every_step_is_an_action_of_a_version_or_a_script() -> None:
    for step in STEPS:
        assert ("uses" in step) != ("run" in step)
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1"))


def test_the_workflow_is_known_by_the_name_that_the_baseline_is_looked_up_with() -> None:
    [fetch] = [step["run"] for step in STEPS if step.get("id") == "baseline"]

    assert f"--workflow {WORKFLOW['name']} " in fetch
    assert WORKFLOW["permissions"]["actions"] == "read"


def test_what_a_run_writes_is_what_later_steps_read() -> None:
    run = parsed(next(line for line in COMMANDS if line.split()[1] == "run")).params
    report, compare = (parsed(line).params for line in COMMANDS if line.split()[1] in ("report", "compare"))
    kept = {step["with"]["name"]: step["with"]["path"].split() for step in STEPS if "upload-artifact" in str(step)}
    [fetch] = [step["run"] for step in STEPS if step.get("id") == "baseline"]

    assert (run["folder"],) == report["folders"] == (Path("loadbench-run"),)
    assert compare["folders"] == (Path("baseline"), Path("loadbench-run"))
    assert kept == {
        "loadbench-run": [str(run["folder"])],
        "loadbench-junit": [str(run["junit"]), str(compare["junit"])],
    }
    assert "--name loadbench-run --dir baseline" in fetch
    assert GITLAB["loadbench"]["artifacts"]["reports"]["junit"] == "loadbench.xml"


def test_the_server_that_is_started_is_the_one_that_is_measured() -> None:
    serve, run = (parsed(line).params for line in COMMANDS[:2])

    assert run["endpoint"] == (f"http://127.0.0.1:{serve['port']}",)
    assert run["wait"] > 0


def test_the_scenario_of_the_document_is_one(tmp_path: Path) -> None:
    [text] = fenced(TEXT, "toml")
    file = tmp_path / "gate.toml"
    file.write_text(text, encoding="utf-8")

    found = scenario.read(file).thresholds

    assert [one.text for one in found if one.abort] == ["failed > 10%"]
    assert {one.level for one in found} == {None, "c8"}


@pytest.mark.parametrize("text", sorted(one for one in inline(TEXT) if re.fullmatch(r"[a-z]\w+ ?[<>] ?[\d.]+\S*", one)))
def test_a_threshold_of_the_document_is_one(text: str) -> None:
    Threshold.parse(text)


def test_the_document_names_every_metric_of_thresholds_and_no_other() -> None:
    table = TEXT.partition("| metric | value | is |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([a-z_0-9]+)`", " ".join(line.split("|")[1] for line in table.splitlines()[2:])))

    assert named == {one.key for one in figures.of("threshold")} | {f"_{name}" for name in STATISTICS}


def test_the_commands_of_the_workflow_work_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the simulator in place of the embedded model, and with few requests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "perf").mkdir()
    (tmp_path / "perf" / "gate.toml").write_text(fenced(TEXT, "toml")[0], encoding="utf-8")
    run, report, compare = (shlex.split(line)[1:] for line in COMMANDS[1:4])
    few = ["-c", "1,8", "-n", "20", "--max-tokens", "4", "--no-telemetry", "--no-repeat-first", "-q"]

    with simulator.start(ttft_ms=5, itl_ms=1) as server:
        run[run.index("-e") + 1] = server.url
        base = invoke(*run[: run.index("-o")], *few, "-o", "baseline")
        now = invoke(*run, *few)
    told = invoke(*report)
    compared = invoke(*compare)

    assert (base.exit_code, now.exit_code, told.exit_code) == (0, 0, 0), base.output + now.output
    assert told.stdout.startswith("## loadbench: gate")
    # Of twenty requests a busy client is red, and no verdict is no pass; one whose thread reads is not.
    assert compared.exit_code == (3 if "no verdict on" in compared.stdout else 0)
    assert "V1 short-window red" in compared.stdout
    assert all((tmp_path / name).is_file() for name in ("loadbench.xml", "compare.xml"))
