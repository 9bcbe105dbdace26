"""The notebooks of docs/notebooks run from top to bottom; one is stored with what a real run showed."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from loadbench.serve import simulator
from tests.support.notebook import cells

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the lesson prints in a fresh process."""
    return output(NOTEBOOKS[0], tmp_path_factory.mktemp("lesson"), "STREAMS=[1, 4]", "SECONDS=0.5")


def output(path: Path, folder: Path, *changes: str) -> str:
    words = [sys.executable, "-W", "error", "-m", "tests.support.notebook", str(path), *changes]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_lesson_runs_and_measures_every_model(printed: str) -> None:
    assert [path.stem for path in NOTEBOOKS] == ["compare_models", "measure"]
    assert set(re.findall(r"^(\w+)@c4: complete$", printed, re.MULTILINE)) == {"small", "medium", "large"}


def test_the_lesson_finds_what_was_declared(printed: str) -> None:
    rows = re.findall(r"^(small|medium|large) +(\d) +\S+ +\S+ +([\d.]+) ", printed, re.MULTILINE)
    medians = {(model, streams): float(ms) for model, streams, ms in rows}

    assert len(medians) == 6
    assert medians["small", "1"] < medians["medium", "1"] < medians["large", "1"]
    assert medians["large", "4"] > 2 * medians["large", "1"]  # it has two slots


def test_the_lesson_ends_with_a_choice_that_says_it_is_simulated(printed: str) -> None:
    """Which one it is, half a second a level cannot tell on a busy machine; test_cli_select plants a winner."""
    winner = printed.rstrip().splitlines()[-1]

    assert re.search(r"'(small|medium|large)'", winner)
    assert "SIMULATED" in printed


def test_a_run_in_a_notebook_shows_itself_its_plot_and_its_tables(tmp_path: Path) -> None:
    with simulator.start(ttft_ms=2, itl_ms=1) as server:
        text = output(NOTEBOOKS[1], tmp_path, f"ENDPOINT={server.url!r}", "SECONDS=0.3")

    assert re.findall(r"^\[cell (\d)\]", text, re.MULTILINE) == ["2", "3", "4", "5"]
    assert "<Run notebook: 3 levels of 1 model, complete" in text


def test_what_is_stored_is_of_a_real_run_and_names_no_machine() -> None:
    """Made by: python -m tests.support.notebook --store docs/notebooks/measure.ipynb"""
    text = NOTEBOOKS[1].read_text(encoding="utf-8")
    code = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]

    assert [bool(cell["outputs"]) for cell in code] == [False] + [True] * 5
    assert re.findall(r"SIMULATED|<script|(?<![\w.])/(?:home|root|tmp|Users)/", text) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_magic_and_the_lesson_without_output(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]

    if path.stem == "compare_models":
        assert [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []
    assert all(ast.parse(source) for source in cells(path))
    assert path.read_text(encoding="utf-8") == json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
