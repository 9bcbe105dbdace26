"""Run folders, damaged in any way: figures as they were, or a doubt or one line that says why not."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given

from loadbench import select, store
from loadbench.errors import LoadbenchError
from loadbench.report import listing
from loadbench.store.files import hlog_works, read_info
from loadbench.store.folder import RunFolder
from tests.support.command import invoke
from tests.support.damaged_runs import LINES, Files, make, put, read_all
from tests.support.mutations import SEEDS, damage, edit, examples

WHOLE = ("run.json", "scores.json", "summary.json", "prompts.json")
LOGS = ("itl.hlog", "client_lag.hlog")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="module")
def whole(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("there") / "whole"
    put(path, files)
    return path


@pytest.fixture(scope="module")
def figures(whole: Path) -> Figures:
    return Figures(told(read_all(whole, whole, page=True)))


class Figures(str):
    """Shown short: hypothesis writes down what a test was called with."""

    def __repr__(self) -> str:
        return "Figures"


def told(summary: dict[str, Any]) -> str:
    """All that a summary says, apart from its doubts and from what run.json says itself."""
    levels = [{name: value for name, value in level.items() if name != "warnings"} for level in summary["levels"]]
    return json.dumps([levels, summary["models"], summary["scaling"], summary["noise"]], sort_keys=True)


def summarised(path: Path) -> dict[str, Any]:
    return select.summarise(store.read(path))


def doubts(summary: dict[str, Any]) -> set[str]:
    of_levels = [doubt for level in summary["levels"] for doubt in level["warnings"]]
    return {doubt["code"] for doubt in (*summary["warnings"], *of_levels)}


def harm(random: Random, name: str, content: bytes) -> bytes:
    """The file with damage to its bytes, or to what it says."""
    if name in LOGS or random.random() < 0.3:
        return damage(random, content)
    if name not in LINES:
        return json.dumps(edit(random, json.loads(content))).encode()
    lines = content.splitlines(keepends=True)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(lines))
        match random.choice(["edit", "edit", "drop", "double", "swap"]):
            case "edit":
                lines[at] = json.dumps(edit(random, json.loads(lines[at]))).encode() + b"\n"
            case "drop" if len(lines) > 1:
                del lines[at]
            case "double":
                lines.insert(at, lines[at])
            case "swap":
                lines[at], lines[-1] = lines[-1], lines[at]
    return b"".join(lines)


def harmed(seed: int, files: Files, names: Sequence[str], read: Callable[[Path], Any]) -> Any:
    """What is read of a folder with one damaged file; None where it was refused, as it should be."""
    random = Random(seed)
    name = random.choice(names)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        put(path, {**files, name: harm(random, name, files[name])})
        try:
            return read(path)
        except LoadbenchError as error:
            said = str(error)
            assert str(path) in said, "it names the file"
            assert said.isprintable(), "one line, and nothing that a terminal obeys"
            assert len(said) < 1500
            return None


@examples(60)
@given(seed=SEEDS)
def test_lines_that_are_damaged_change_no_figure_in_silence(seed: int, files: Files, figures: Figures) -> None:
    summary = harmed(seed, files, ("requests.jsonl", "telemetry.jsonl"), summarised)

    assert summary is None or told(summary) == figures or doubts(summary) & {"records", "samples"}


@examples(20)
@given(seed=SEEDS)
def test_a_damaged_run_json_is_reported_in_every_format_or_refused(seed: int, files: Files, whole: Path) -> None:
    harmed(seed, files, ("run.json",), lambda path: read_all(path, whole))


@pytest.mark.skipif(not hlog_works(), reason="hdrhistogram has no wheel here")
@examples(15)
@given(seed=SEEDS)
def test_a_damaged_log_of_histograms_changes_no_figure_in_silence(seed: int, files: Files, figures: Figures) -> None:
    summary = harmed(seed, files, LOGS, summarised)

    assert summary is None or told(summary) == figures or _lag_alone(summary, figures)


def _lag_alone(summary: dict[str, Any], figures: Figures) -> bool:
    """Whether the lag of the client differs, or is not known, and nothing else does: a tag was lost."""
    before, now = json.loads(figures), json.loads(told(summary))
    for one in (*before[0], *now[0]):
        one["client_lag_ms"] = None
    return bool(before == now)


@examples(10)
@given(seed=SEEDS)
def test_damaged_answers_scores_and_prompts_are_read_or_refused(
    seed: int, files: Files, whole: Path, figures: Figures
) -> None:
    names = ("answers.jsonl", "scores.jsonl", "scores.json", "prompts.json")

    # The choice between models rests on scores, so that all is read, not the summary alone.
    summary = harmed(seed, files, names, lambda path: read_all(path, whole))

    assert summary is None or told(summary) == figures


@examples(20)
@given(seed=SEEDS)
def test_a_damaged_folder_has_its_line_in_the_list_of_runs(seed: int, files: Files) -> None:
    entries = harmed(seed, files, ("run.json", "summary.json"), lambda path: listing.entries(path.parent)[0])

    assert len(entries) == 1
    assert entries[0].error is None or entries[0].error.isprintable()


@examples(15)
@given(seed=SEEDS)
def test_a_damaged_folder_is_gone_on_with_or_refused(seed: int, files: Files) -> None:
    def reopened(path: Path) -> dict[str, Any]:
        folder = RunFolder.reopen(path)
        folder.close("interrupted")
        return read_info(path)

    again = harmed(seed, files, ("run.json", "requests.jsonl"), reopened)

    assert again is None or again["status"] == "interrupted"


COMMANDS = (
    ("report",),
    ("report", "--format", "json", "--junit", "j.xml", "--strict"),
    ("report", "--format", "html", "-o", "page.html"),
    ("report", "--format", "hgrm", "-o", "files"),
    ("compare", "WHOLE"),
    ("compare", "WHOLE", "--format", "json", "--slo", "ttft_p95=1s"),
    ("select", "--need", "memory<4GB", "--write-models", "models.json"),
    ("score",),
    ("score", "--stub", "sheet.csv"),
    ("run", "--resume"),
)


@examples(8)
@given(seed=SEEDS)
def test_no_command_falls_over_a_damaged_folder(seed: int, files: Files, whole: Path) -> None:
    command = COMMANDS[seed % len(COMMANDS)]

    def run(path: Path) -> Any:
        words = [whole if word == "WHOLE" else path.parent / word if "." in word else word for word in command[1:]]
        words = [path.parent / "files" if word == "files" else word for word in words]
        nowhere = {"FOUNDRY_LOCAL_ENDPOINT": "http://127.0.0.1:1/v1", "HOME": str(path.parent)}
        return invoke(command[0], *words, path, "--debug", **nowhere)

    done = harmed(seed, files, [name for name in files if not name.startswith(("ttft", "e2e", "tpot"))], run)

    assert done.exception is None or isinstance(done.exception, SystemExit | LoadbenchError), repr(done.exception)
