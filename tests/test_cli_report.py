"""`loadbench report`: a run folder in, its report out."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from loadbench.cli import main
from loadbench.store.folder import RunFolder
from tests.support.streams import facts, in_turn


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of one level with 40 requests, as `loadbench run` leaves it."""
    path = tmp_path / "results" / "first"
    run = RunFolder.create(path, {"name": "first", "scenario": {"name": "first"}, "target": {"kind": "llama.cpp"}})
    results = in_turn(40)
    run.begin({"id": "m@c1", "model": "m"})
    for result in results:
        run.add(result)
    run.end({name: fact for name, fact in facts(results).items() if name != "attempt"}, {})
    run.close("complete")
    return path


def report(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


def test_it_prints_the_report_and_writes_the_files_again(folder: Path) -> None:
    done = report(folder)
    full = report(folder, "--full")

    assert (done.exit_code, full.exit_code) == (0, 0), done.output
    assert "TTFT and throughput" not in done.stdout
    assert "TTFT and throughput" in full.stdout
    assert json.loads((folder / "summary.json").read_bytes())["levels"][0]["completed"] == 40
    assert (folder / "report.md").read_text(encoding="utf-8").startswith("## loadbench: first")
    assert (folder / "summary.csv").exists()


READS: dict[str, Callable[[str], Any]] = {
    "markdown": lambda out: out.startswith("## loadbench: first"),
    "csv": lambda out: next(csv.DictReader(io.StringIO(out)))["model"] == "m",
    "json": lambda out: json.loads(out)["run"]["name"] == "first",
    "html": lambda out: "<title>first – loadbench</title>" in out and out.endswith("</html>\n"),
}


@pytest.mark.parametrize("kind", READS)
def test_stdout_holds_the_format_that_was_asked_for_and_nothing_else(folder: Path, kind: str) -> None:
    text = report(folder, "--format", kind).stdout

    assert READS[kind](text)
    assert text == report(folder, "--format", kind).stdout


def test_a_brief_in_markdown_names_the_run_and_its_server(folder: Path) -> None:
    lines = report(folder, "--format", "markdown", "--brief").stdout.splitlines()

    assert lines[0].startswith("## loadbench: first")
    assert [line for line in lines if line.startswith("- **target**: llama.cpp")]
    assert len(lines) < 30


@pytest.mark.parametrize(("kind", "word"), [("json", "--brief"), ("csv", "--full"), ("hgrm", "--full")])
def test_how_much_of_a_report_is_no_question_for_machines(folder: Path, kind: str, word: str) -> None:
    done = report(folder, "--format", kind, word)

    assert (done.exit_code, f"{word} is for --format text and markdown, not for {kind}" in done.stderr) == (2, True)


def test_a_file_takes_the_place_of_stdout(folder: Path, tmp_path: Path) -> None:
    done = report(folder, "--format", "markdown", "-o", tmp_path / "pr.md")

    assert done.output == ""
    assert (tmp_path / "pr.md").read_bytes() == (folder / "report.md").read_bytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_written_to_and_not_replaced(folder: Path, tmp_path: Path) -> None:
    # A pipe of our own, never a device: a defect that replaced /dev/null would cost the machine its own.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = report(folder, "-o", pipe)

        assert (done.exit_code, pipe.is_fifo()) == (0, True)
        assert os.read(reader, 100_000).startswith(b"loadbench  first")
    finally:
        os.close(reader)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("first -o no/pr.md", 2, "make it first"),
        ("gone", 2, "loadbench: gone: no such run folder"),
        ("empty", 2, "is not a run folder"),
        ("newer", 1, "upgrade loadbench"),
    ],
)
def test_what_cannot_be_reported_is_one_line(
    folder: Path, words: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    Path("empty").mkdir()
    shutil.copytree(folder, "newer")
    info = json.loads((folder / "run.json").read_bytes())
    Path("newer", "run.json").write_text(json.dumps(info | {"schema": 99}), encoding="utf-8")
    done = report(*words.split())

    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert said in done.stderr
    assert list(Path("empty").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_still_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refused)
    done = report(folder)

    assert done.exit_code == 0
    assert "TTFT p95" in done.stdout
    assert "Read-only file system" in done.stderr


def test_several_runs_make_one_page_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "both.html"

    done = report(folder, folder, "--format", "html", "-o", page)

    assert (done.exit_code, done.stdout) == (0, "")
    assert "<h1>2 runs</h1>" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("words", [(), ("--format", "markdown"), ("--format", "html", "--strict")])
def test_several_runs_in_another_format_are_one_line_that_says_what_to_do(folder: Path, words: tuple[str, ...]) -> None:
    done = report(folder, folder, *words)

    assert done.exit_code == 2
    assert done.stderr == "loadbench: 2 runs: several go side by side with --format html alone; else name one\n"


def test_the_newest_run_is_reported_where_none_is_named(place: Path, folder: Path) -> None:
    for name, began in (
        ("old", "2026-01-01T10:00:00Z"),
        ("new", "2026-01-03T10:00:00Z"),
        ("mid", "2026-01-02T10:00:00Z"),
    ):
        shutil.copytree(folder, place / "results" / name)  # beside `first`, which began at no known time
        path = place / "results" / name / "run.json"
        path.write_text(json.dumps({**json.loads(path.read_bytes()), "start": began, "name": name}))

    for words in ((), ("last",)):
        assert report(*words).stdout.startswith("loadbench  new  2026-01-03 10:00 UTC")
    (place / "last").mkdir()
    assert report("last").exit_code == 2  # a folder of that name is what is meant


def test_open_opens_the_page_of_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", opened.append)

    assert report(folder, "--open").exit_code == 0
    assert opened == [str(folder / "report.html")]


def test_without_any_run_one_line_says_what_to_do(place: Path) -> None:
    done = report()

    assert (done.exit_code, done.stdout) == (2, "")
    assert "results: no run is in it yet; `loadbench run` makes one" in done.stderr


@pytest.mark.system  # click asks bash for its version
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])

    assert done.exit_code == 0, done.output
    assert f"_LOADBENCH_COMPLETE={shell}_complete" in done.stdout


def test_commands_and_options_are_completed() -> None:
    words = {"_LOADBENCH_COMPLETE": "bash_complete", "COMP_CWORD": "2", "COMP_WORDS": "loadbench report --fu"}
    done = CliRunner().invoke(main, [], prog_name="loadbench", env=words)

    assert done.stdout.split() == ["plain,--full"]
