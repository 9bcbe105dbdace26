"""What README.md, docs/run.md, the examples in --help and the scenario files tell a newcomer to type works."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadbench import scenario
from loadbench.scenario.bounds import Bound, Duration
from loadbench.serve.simulator import Simulator
from loadbench.serve.simulator.law import FAULTS
from loadbench.server.foundry import VARIABLE
from tests.support.command import invoke
from tests.support.documents import COMMANDS, inline, parsed, typed

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[1]
README = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/run.md"))
ANEW = """from loadbench.scenario import json_schema
import json, pathlib
text = json.dumps(json_schema(), indent=2, ensure_ascii=False)
pathlib.Path("scenarios/scenario.schema.json").write_bytes(text.encode() + b"\\n")"""
SCENARIOS = sorted((ROOT / "scenarios").rglob("*.toml"))


# -- README.md and docs/run.md


@pytest.mark.parametrize(
    "line", [line for line in typed(README) if line.split()[1] == "run" and "--resume" not in line]
)
def test_a_run_of_the_readme_makes_a_plan(
    line: str, quick: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # its paths are those of a checkout
    monkeypatch.setenv("HOME", str(tmp_path))
    words = shlex.split(line)[1:]
    for name in ("-e", "--weights", "-m", "--device"):
        while name in words:
            del words[words.index(name) : words.index(name) + 2]

    words = [quick.url if before == "--against" else word for before, word in zip(["", *words], words, strict=False)]

    done = invoke(*words, "-e", quick.url, "--json", *(["--dry-run"] * ("--dry-run" not in words)))

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["levels"]


def test_the_readme_shows_every_command() -> None:
    assert {line.split()[1] for line in typed(README)} == {path[0] for path in COMMANDS if path}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\b(?:LOADBENCH|BENCH|FOUNDRY)_[A-Z_]+\b", README))))
def test_a_variable_that_the_readme_names_is_read(name: str) -> None:
    read = {variable for command in COMMANDS.values() for param in command.params for variable in param.envvar or ()}

    assert name in read | {VARIABLE, "BENCH_MODELS"}


def test_the_examples_of_the_grammars_are_read() -> None:
    texts = inline(README)
    bounds = [text for text in texts if re.match(r"[a-z]\w*[<>=]", text)]
    durations = [text for text in texts if re.fullmatch(r"\d+[a-z]+", text)]

    assert len(bounds) >= 2
    assert len(durations) >= 3
    for text in bounds:
        Bound.parse(text)
    for text in durations:
        Duration.parse(text)


def test_the_scenarios_that_the_readme_names_are_those_there_are() -> None:
    [sentence] = re.findall(r"holds ready files[^:]*: (.*?);", README, flags=re.DOTALL)

    assert set(re.findall(r"`([\w-]+)`", sentence)) == {path.stem for path in SCENARIOS}


def test_the_files_that_results_describes_are_those_of_a_run(
    quick: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", "-e", quick.url, "-c", "1", "-n", "2", "--max-tokens", "2", "--quiet", "-o", tmp_path / "run"]
    assert invoke(*words).exit_code == 0

    table = re.findall(r"^\|(.*?)\|", (ROOT / "results" / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    described = {name for cell in table for name in re.findall(r"`([^`]+)`", cell)}
    written = {"*.hlog" if path.suffix == ".hlog" else path.name for path in (tmp_path / "run").iterdir()}
    assert written == described


# -- the examples in --help


def examples() -> Iterator[tuple[str, str]]:
    for path, command in COMMANDS.items():
        parts = (getattr(command, "examples", ""), command.epilog or "", getattr(command, "details", ""))
        for line in typed("\n".join(parts)):
            yield " ".join(path), line


@pytest.mark.parametrize(("command", "line"), list(examples()))
def test_an_example_in_the_help_is_understood(command: str, line: str) -> None:
    parsed(line.replace("<folder>", "folder"))


def test_every_command_teaches_by_examples() -> None:
    assert {command for command, _ in examples()} == {" ".join(path) for path in COMMANDS}


@pytest.mark.parametrize("path", list(COMMANDS), ids=lambda path: " ".join(path) or "loadbench")
def test_the_help_fits_80_columns_and_cuts_no_sentence_off(path: tuple[str, ...]) -> None:
    text = invoke(*path, "--help", COLUMNS="80").output

    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "..." not in re.sub(r"COMMAND \[ARGS\]\.\.\.|results/\.\.\.", "", text)


# -- the scenarios


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_says_what_it_decides_and_its_commands_are_understood(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert text.startswith("# Decides: ")
    # In the comments that open the file: further down, editors do not look for it.
    assert text.partition("\n\n")[0].endswith(
        f"\n#:schema {'..' if path.parent.name == 'profiles' else '.'}/scenario.schema.json"
    )
    assert scenario.read(path).description
    assert typed(text)
    for line in typed(text):
        parsed(line)


def test_the_schema_for_editors_is_that_of_the_code() -> None:
    written = (ROOT / "scenarios" / "scenario.schema.json").read_text(encoding="utf-8")
    now = json.dumps(scenario.json_schema(), indent=2, ensure_ascii=False) + "\n"

    assert written == now, f"write it anew:\npython -c '{ANEW}'"


def test_what_writes_the_schema_anew_writes_it(tmp_path: Path) -> None:
    (tmp_path / "scenarios").mkdir()
    subprocess.run([sys.executable, "-c", ANEW], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)

    schema = "scenarios/scenario.schema.json"
    assert (tmp_path / schema).read_bytes() == (ROOT / schema).read_bytes()


def test_the_summarizer_says_what_to_do_where_its_models_are_not(quick: Simulator) -> None:
    there = "scenarios/summarizer.toml"
    absent = invoke("run", ROOT / there, "-e", quick.url, "--dry-run")
    auto = invoke("run", ROOT / there, "-e", quick.url, "--dry-run", "-m", "auto")

    assert absent.exit_code == 1
    assert all(words in absent.stderr for words in ("'qwen2.5-0.5b'", "-m auto", "`foundry model download NAME`"))
    assert auto.exit_code == 0
    assert all("foundry model download NAME" in text for text in (README, (ROOT / there).read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_makes_a_plan(path: Path) -> None:
    done = invoke("run", path, "--simulate", "-m", "simulator", "--dry-run", "--json")

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["levels"]


def test_the_faults_of_the_simulator_are_explained_in_its_help() -> None:
    text = " ".join(invoke("serve", "simulator", "--help").output.split())

    assert [name for name in FAULTS if f"{name}: " not in text] == []
