"""What a command finds around it: full and closed streams, signals at any moment, files and memory that run out."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from loadbench import store
from loadbench.cli import Program, main
from loadbench.serve.simulator import Simulator
from loadbench.store.files import read_info
from tests.support.command import invoke
from tests.support.forks import ENVIRONMENT, Forks

pytestmark = pytest.mark.system

EXAMPLES = Path(__file__).parents[1] / "results"
BRIEF = ("-c", "2", "-n", 8, "--max-tokens", 6, "--no-repeat-first")
LOST = "loadbench: stdout cannot be written: No space left on device: what was printed is not whole\n"


class Full(io.RawIOBase):
    """A stream whose disk is full."""

    def __init__(self, number: int = errno.ENOSPC) -> None:
        self._number = number

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise OSError(self._number, os.strerror(self._number))


class Kept(io.RawIOBase):
    """A stream whose text is kept."""

    def __init__(self) -> None:
        self.text = ""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.text += bytes(data).decode()
        return len(data)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, and the same again."""
    folder = tmp_path_factory.mktemp("results")
    for name in ("a", "b"):
        shutil.copytree(EXAMPLES / "example", folder / name)
    return folder


def at(runs: Path, words: str) -> list[str]:
    """Words of a command, with the runs where {} stands before their names."""
    return words.format(runs).split()


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def into(monkeypatch: pytest.MonkeyPatch) -> Command:
    """`loadbench` in this process with other streams: its exit code, and what it said on those that can be read."""

    def run(*words: object, out: io.RawIOBase | None = None, err: io.RawIOBase | None = None) -> tuple[int, str, str]:
        raws = {"stdout": out or Kept(), "stderr": err or Kept()}
        for name, raw in raws.items():
            monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8"))
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words], prog_name="loadbench")
        monkeypatch.undo()
        said = [getattr(raw, "text", "") for raw in raws.values()]
        return int(ended.value.code or 0), said[0], said[1]

    return run


# -- streams


@pytest.mark.parametrize(
    "words",
    [
        *("--help", "--version", "run --help", "results {}", "results {} --json"),
        *(f"report {{}}/a --format {kind}" for kind in ("text", "json", "markdown", "csv", "html")),
        *("report {}/a --format hgrm --level c1 --metric ttft", "compare {0}/a {0}/b", "select {}/a", "score {}/a"),
    ],
)
def test_what_a_full_stdout_does_not_take_is_one_line_and_exit_code_1(words: str, into: Command, runs: Path) -> None:
    code, _, said = into(*at(runs, words), out=Full())

    assert code == 1
    assert said.endswith(LOST)
    assert "defect" not in said


def test_a_run_into_a_full_stdout_is_measured_to_its_end(into: Command, quick: Simulator, tmp_path: Path) -> None:
    code, _, said = into("run", "-e", quick.url, *BRIEF, "-o", tmp_path / "run", out=Full())

    assert (code, said.count(LOST)) == (1, 1)
    assert json.loads((tmp_path / "run" / "summary.json").read_bytes())["levels"][0]["completed"] == 8


def test_json_lines_into_a_full_stdout_end_no_run(into: Command, quick: Simulator, tmp_path: Path) -> None:
    code, _, said = into("run", "-e", quick.url, *BRIEF, "--json", "-o", tmp_path / "run", out=Full())

    assert (code, said) == (1, LOST)
    assert read_info(tmp_path / "run")["status"] == "complete"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF])
def test_a_run_goes_on_where_nobody_takes_its_progress(
    number: int, into: Command, quick: Simulator, tmp_path: Path
) -> None:
    code, said, _ = into("run", "-e", quick.url, *BRIEF, "-o", tmp_path / "run", err=Full(number))

    assert code == 0
    assert "report.html" in said
    assert read_info(tmp_path / "run")["status"] == "complete"


def test_the_live_view_into_a_full_terminal_ends_no_run(
    into: Command, quick: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    from loadbench.cli.screen import Screen

    def screen(_: object) -> Screen:
        return Screen(Console(file=sys.stderr, force_terminal=True, width=80, height=24))

    monkeypatch.setattr("loadbench.cli.outcome.view", screen)
    code, _, _ = into("run", "-e", quick.url, *BRIEF, "-o", tmp_path / "run", err=Full())

    assert code == 0
    assert read_info(tmp_path / "run")["status"] == "complete"


def test_a_reader_that_went_away_ends_a_report_without_a_word(into: Command, runs: Path) -> None:
    code, _, said = into("report", runs / "a", "--format", "json", out=Full(errno.EPIPE))

    assert (code, said) == (1, "")


@pytest.mark.parametrize("closed", [(2,), (0,), (0, 2), (0, 1, 2)], ids=str)
def test_a_run_whose_streams_are_closed_is_measured_all_the_same(
    closed: tuple[int, ...], loadbench: Forks, quick: Simulator, tmp_path: Path
) -> None:
    names = [("stdin", "stdout", "stderr")[number] for number in closed]
    before = "import os, sys\n" + "".join(
        f"os.close({number})\nsys.{name} = None\n" for number, name in zip(closed, names, strict=True)
    )
    ended = loadbench.run("run", "-e", quick.url, *BRIEF, "-o", tmp_path / "run", before=before)
    run = store.read(tmp_path / "run")

    assert ended.code == (1 if 1 in closed else 0), ended
    assert run.unreadable_lines == 0
    assert run.info["status"] == "complete"


# -- files


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "words",
    [
        *("report {}/a -o", "report {}/a --junit", "report {}/a --format hgrm --level c1 --metric ttft -o"),
        *("compare {0}/a {0}/b --junit", "compare {0}/a {0}/b -o", "select {}/a -o"),
    ],
)
def test_a_full_file_is_one_line_that_names_it(words: str, runs: Path) -> None:
    ended = invoke(*at(runs, words), "/dev/full")
    line = "loadbench: /dev/full: cannot write: No space left on device; free some space, or name another file\n"

    assert ended.exit_code == 1
    assert ended.stderr.endswith(line)
    assert "defect" not in ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_run_whose_junit_file_is_full_prints_its_report_first(quick: Simulator, tmp_path: Path) -> None:
    ended = invoke("run", "-e", quick.url, *BRIEF, "-o", tmp_path / "run", "--junit", "/dev/full")

    assert ended.exit_code == 1
    assert "report.html" in ended.stdout
    assert "/dev/full: cannot write" in ended.stderr


# -- signals


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["click", "loadbench.cli", "loadbench.cli.options"])
def test_a_signal_while_it_is_still_importing_is_one_line(module: str, number: signal.Signals) -> None:
    code = f"""
import os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Finder())
from loadbench.__main__ import main
sys.argv = ["loadbench", "--version"]
main()
"""
    ended = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)

    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "loadbench: interrupted\n")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["as it reads the words", "as it works"])
def test_a_signal_to_any_command_is_one_line(moment: str, number: signal.Signals, into: Command) -> None:
    def kill(*_: object) -> None:
        os.kill(os.getpid(), number)

    @click.command()
    @click.option("--word", callback=kill if moment == "as it reads the words" else None)
    def command(word: str | None) -> None:
        kill()

    main.add_command(command, "dies")
    try:
        code, _, said = into("dies", "--word", "x")
    finally:
        del main.commands["dies"]

    assert (code, said) == (130, "loadbench: interrupted\n")


# -- what runs out


LACKS: dict[str, tuple[BaseException, str]] = {
    "files": (OSError(errno.EMFILE, "Too many open files"), "raise the limit with ulimit -n"),
    "files of the system": (OSError(errno.ENFILE, "x"), "no more files to open"),
    "memory": (MemoryError(), "not enough memory"),
    "memory for a library": (ImportError("libx.so: failed to map segment from shared object"), "not enough memory"),
    "threads": (RuntimeError("can't start new thread"), "no more processes or threads"),
    "processes": (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "no more processes or threads"),
    "in a group": (ExceptionGroup("x", [ValueError(), OSError(errno.EMFILE, "x")]), "ulimit -n"),
}


@pytest.mark.parametrize("lack", LACKS)
def test_what_this_machine_ran_out_of_is_one_line_and_no_defect(lack: str, into: Command) -> None:
    error, words = LACKS[lack]

    @click.command()
    def lacks() -> None:
        raise error

    main.add_command(lacks, "lacks")
    try:
        code, _, said = into("lacks")
    finally:
        del main.commands["lacks"]

    assert code == 1
    assert words in said
    assert (said.count("\n"), "defect" in said) == (1, False)


def test_a_program_that_cannot_even_be_imported_says_so_in_one_line() -> None:
    code = "import sys; sys.modules['click'] = None; from loadbench.__main__ import main; main()"
    ended = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 1
    assert ended.stderr.startswith("loadbench: cannot start: ")
    assert ended.stderr.count("\n") == 1


def test_the_top_command_is_the_guarded_one() -> None:
    assert isinstance(main, Program)
