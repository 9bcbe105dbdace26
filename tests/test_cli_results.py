"""`loadbench results`: a folder of runs in, a row each out, newest first."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console

from loadbench.report import listing
from loadbench.report import text as report_text
from tests.support.command import invoke

DOUBT = {"code": "V12", "severity": "warn", "text": "too few"}


def level(load: str = "c1", model: str = "m", tokens: float | None = 50.0, **changes: Any) -> dict[str, Any]:
    known = {"id": f"{model}@{load}", "model": model, "concurrency": int(load[1:]), "status": "complete", "attempt": 1}
    found = {"output_tokens_per_s": tokens, "ttft_ms": {"p50": 200.0, "p95": 300.0}, "warnings": []}
    return {**known, **found, **changes}


def run(path: Path, *levels: dict[str, Any], start: str = "2026-01-12T09:00:00Z", **info: Any) -> Path:
    """A run folder as `loadbench run` leaves it, but for its records."""
    path.mkdir(parents=True)
    summary = {name: info.pop(name) for name in ("warnings", "thresholds", "capacity_concurrency") if name in info}
    known = {"schema": 1, "name": path.name, "status": "complete", "start": start, "models": []}
    (path / "run.json").write_text(json.dumps({**known, "levels": levels, **info}), encoding="utf-8")
    (path / "summary.json").write_text(json.dumps({"schema": 1, "levels": levels, **summary}), encoding="utf-8")
    return path


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(invoke("results", folder, "--json").stdout)["results"]
    return found


def text(folder: Path, *words: object) -> Result:
    return invoke("results", folder, *words, COLUMNS="160")


def test_the_newest_run_is_first(tmp_path: Path) -> None:
    run(tmp_path / "b", start="2026-01-12T09:00:00Z")
    run(tmp_path / "c", start="2026-01-14T09:00:00Z")
    run(tmp_path / "a", start="2026-01-13T09:00:00Z")

    assert [row["name"] for row in rows(tmp_path)] == ["c", "a", "b"]


def test_two_runs_that_took_turns_are_a_row_each(tmp_path: Path) -> None:
    run(tmp_path / "both" / "base")
    run(tmp_path / "both" / "new")
    shown = text(tmp_path)

    assert {row["folder"] for row in rows(tmp_path)} == {str(tmp_path / "both" / side) for side in ("base", "new")}
    assert all(f"  both/{side} " in shown.stdout for side in ("base", "new"))
    assert "passed over" not in shown.stderr


def test_a_row_has_the_best_level_of_the_run(tmp_path: Path) -> None:
    again = level("c9", tokens=999.0, closing=True)  # the first level measured again is not the best
    run(tmp_path / "sweep", level("c1", tokens=50.0), level("c4", tokens=120.0), level("c8", tokens=90.0), again)

    (row,) = rows(tmp_path)
    assert (row["levels_complete"], row["levels"], row["models"]) == (4, 4, ["m"])
    assert row["best"] == {
        **{"level": "m@c4", "model": "m", "load": "c4", "output_tokens_per_s": 120.0},
        "ttft_ms": {"p50": 200.0, "p95": 300.0},
    }
    assert "2026-01-12 09:00" in text(tmp_path).stdout


RESULTS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing speaks against it": ({}, "no doubts"),
    "a gate of the run": ({"warnings": [DOUBT]}, "warn V12 few-requests"),
    "red before warn": ({"warnings": [DOUBT, {**DOUBT, "code": "V3", "severity": "red"}]}, "red V3 client-lag"),
    "a note is no doubt": ({"warnings": [{**DOUBT, "severity": "note"}]}, "no doubts"),
    "a threshold failed": ({"thresholds": [{"result": "passed"}, {"result": "failed"}]}, "thresholds failed"),
    "thresholds passed": ({"thresholds": [{"result": "passed"}]}, "thresholds passed"),
    "nobody knows": ({"thresholds": [{"result": "unknown"}]}, "thresholds not known"),
    "a capacity": ({"capacity_concurrency": 6}, "serves 6 users"),
    "interrupted": ({"status": "interrupted"}, "interrupted"),
    "simulated": ({"target": {"kind": "simulator"}}, "simulated"),
}


@pytest.mark.parametrize("name", RESULTS)
def test_the_last_column_says_how_it_went(tmp_path: Path, name: str) -> None:
    info, said = RESULTS[name]
    run(tmp_path / "sweep", level(), **info)

    assert said in text(tmp_path).stdout


def test_gates_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    run(tmp_path / "sweep", level(warnings=[DOUBT, {**DOUBT, "code": "V1"}]), warnings=[{**DOUBT, "code": "V11"}])

    assert rows(tmp_path)[0]["gates"] == {"severity": "warn", "codes": ["V1", "V11", "V12"]}


def test_a_run_is_listed_without_a_summary_or_its_records_and_a_name_moves_no_cursor(tmp_path: Path) -> None:
    path = run(tmp_path / "sweep", level(model="a\x1b[31mred"))
    (path / "requests.jsonl").mkdir()  # reading it would fail
    shown = text(tmp_path).stdout
    (path / "summary.json").unlink()

    assert "\x1b" not in shown
    assert (rows(tmp_path)[0]["status"], rows(tmp_path)[0]["best"]) == ("complete", None)


def test_a_run_whose_process_died_is_cut_short_one_that_still_writes_is_running(tmp_path: Path) -> None:
    old, new = (run(tmp_path / name, status="running") for name in ("old", "new"))
    for path in old.iterdir():
        os.utime(path, (1_000_000, 1_000_000))

    assert {row["name"]: row["status"] for row in rows(tmp_path)} == {"old": "cut short", "new": "running"}
    assert new.exists()


def test_a_level_done_again_counts_once(tmp_path: Path) -> None:
    run(tmp_path / "sweep", level(status="interrupted"), level(attempt=2), level("c2", status="failed"))

    assert (rows(tmp_path)[0]["levels_complete"], rows(tmp_path)[0]["levels"]) == (1, 2)
    assert " 1/2 " in text(tmp_path).stdout


BROKEN: dict[str, tuple[str, bytes]] = {
    "run.json cut off": ("run.json", b'{"schema": 1'),
    "run.json of another program": ("run.json", b"[]"),
    "run.json of a newer loadbench": ("run.json", b'{"schema": 99, "levels": []}'),
    "run.json with odd levels": ("run.json", b'{"schema": 1, "levels": [], "models": [7]}'),
    "summary.json cut off": ("summary.json", b'{"levels": ['),
    "summary.json of another shape": ("summary.json", b'{"levels": 7}'),
    "summary.json with odd levels": ("summary.json", b'{"levels": [{"output_tokens_per_s": "fast"}]}'),
    "no UTF-8": ("summary.json", b'{"levels": [{"id": "\xff"}]}'),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_run_is_listed_as_broken_and_the_others_as_ever(tmp_path: Path, name: str) -> None:
    run(tmp_path / "good", level())
    file, content = BROKEN[name]
    (run(tmp_path / "bad", level()) / file).write_bytes(content)

    done = text(tmp_path)

    assert done.exit_code == 0, done.output
    assert [(row["name"], row["status"]) for row in rows(tmp_path)] == [("good", "complete"), ("bad", "broken")]
    assert (done.stderr.startswith("broken: "), done.stderr.count("\n")) == (True, 1)


def test_folders_that_are_no_runs_are_passed_over_with_a_note(tmp_path: Path) -> None:
    run(tmp_path / "good", level())
    (tmp_path / "notes").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.md").write_text("x", encoding="utf-8")

    done = text(tmp_path)

    assert (done.exit_code, done.stderr) == (0, "no runs, passed over: notes\n")


def test_the_newest_alone(tmp_path: Path) -> None:
    for day in range(11, 15):
        run(tmp_path / f"r{day}", level(), start=f"2026-01-{day}T09:00:00Z")

    done = text(tmp_path, "-n", 1)

    assert "r14" in done.stdout
    assert "r13" not in done.stdout
    assert done.stderr == "3 older ones are not shown\n"


LONG = ("Meta-Llama-3.1-8B-Instruct", "phi-4-mini-instruct-generic-cpu:5", "qwen2.5-0.5b", "smollm2-135m-instruct")


def long_runs(folder: Path) -> None:
    """Runs with long names, models and fates."""
    for name, status in (("sweep", "interrupted"), ("quickstart", "complete")):
        levels = [level(model=model) for model in LONG]
        thresholds = [{"result": "failed"}]
        run(folder / f"20260112T090000Z-{name}", *levels, status=status, thresholds=thresholds, warnings=[DOUBT])


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_a_terminal_shows_whole_words_and_no_line_wider_than_itself(columns: int, tmp_path: Path) -> None:
    long_runs(tmp_path)
    screen = io.StringIO()
    console = Console(file=screen, width=columns, force_terminal=True, color_system=None)
    report_text.show_tables([listing.table_of(listing.entries(tmp_path)[0], tmp_path)], console)
    shown = screen.getvalue()

    assert max(map(len, shown.splitlines()[1:])) <= columns
    assert {"interrupted,", "thresholds", "failed,", "sweep", "quickstart"} <= set(shown.replace("-", " ").split())
    if columns >= 80:
        assert {"Llama", "3.1", "Instruct,"} <= set(shown.replace("-", " ").split())


@pytest.mark.parametrize("columns", ["20", "80"])
def test_a_pipe_gets_every_run_whole_in_a_line_of_its_own(columns: str, tmp_path: Path) -> None:
    long_runs(tmp_path)
    lines = invoke("results", tmp_path, COLUMNS=columns).stdout.splitlines()
    [sweep] = [line for line in lines if "sweep" in line]

    assert "20260112T090000Z-sweep" in sweep
    assert f"{LONG[0]}, {LONG[1]}, 2 more" in sweep
    assert sweep.endswith("interrupted, thresholds failed, warn V12 few-requests")


WRONG = {"gone": "no such folder", "file": "is a file", "good": "is a run; print it with `loadbench report"}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_folder_of_runs_is_one_line(tmp_path: Path, name: str) -> None:
    run(tmp_path / "good", level())
    (tmp_path / "file").write_text("x", encoding="utf-8")

    done = invoke("results", tmp_path / name)

    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert WRONG[name] in done.stderr


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    done = invoke("results", tmp_path)

    assert (done.exit_code, done.stdout) == (0, "")
    assert "`loadbench run` makes one" in done.stderr
    assert listing.entries(tmp_path) == ([], [])
