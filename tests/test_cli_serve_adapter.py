"""`loadbench serve adapter`: it says where it listens, and `loadbench run` measures it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from loadbench.serve import adapter
from tests.support.command import invoke

pytestmark = pytest.mark.system

SERVE = [sys.executable, "-m", "loadbench", "serve", "adapter"]


def served(*words: str, lines: int, stop: int = signal.SIGINT) -> tuple[int, list[str], str]:
    """Exit code, stdout's first lines, stderr, of a server that is stopped once it said that it is ready."""
    with subprocess.Popen(
        [*SERVE, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        said = [process.stdout.readline().rstrip("\n") for _ in range(lines)]
        process.send_signal(stop)
        rest, errors = process.communicate(timeout=10)
    assert rest == ""
    return process.returncode, said, errors


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_says_how_to_measure_it_and_stops_quietly(stop: int) -> None:
    code, said, errors = served("echo", lines=2, stop=stop)
    url = said[0].split()[0]

    assert said[0].endswith("/v1  echo by echo: 1 slot, a queue of 256")
    assert f"loadbench run -e {url} " in said[1]
    assert (code, errors) == (0, "")


def test_json_is_one_line_with_all_there_is() -> None:
    code, said, errors = served("echo", "--json", "--model", "it", "--slots", "3", "--queue", "0", lines=1)
    facts = json.loads(said[0])

    assert {name: facts[name] for name in ("model", "adapter", "slots", "queue")} == {
        "model": "it",
        "adapter": "echo",
        "slots": 3,
        "queue": 0,
    }
    assert facts["url"].endswith("/v1")
    assert (code, errors) == (0, "")


def test_what_the_adapter_prints_is_shown_on_stderr(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "class Mine:\n"
        "    def load(self, weights_path, *, threads=1): print('loads', weights_path, threads, flush=True)\n"
        "    def generate(self, prompt): return prompt\n"
    )
    code, said, errors = served("mine:Mine", "some/weights", "--option", "threads=2", "--json", lines=1)

    assert json.loads(said[0])["model"] == "weights"
    assert (code, errors) == (0, "loads some/weights 2\n")


def test_other_addresses_than_loopback_give_a_warning() -> None:
    _, said, errors = served("echo", "--host=0.0.0.0", lines=2)

    assert "http://127.0.0.1:" in said[0]
    assert errors.startswith("Warning: 0.0.0.0 can be reached from other machines, which must send the key")


def test_an_adapter_that_dies_is_one_line_and_exit_code_1(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "import os, signal\n"
        "class Mine:\n"
        "    def load(self, weights_path): pass\n"
        "    def generate(self, prompt): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen(
        [*SERVE, "mine:Mine", "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        url = json.loads(process.stdout.readline())["url"]
        body = {"model": "mine", "messages": [{"role": "user", "content": "x"}]}
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.post(f"{url}/chat/completions", json=body)
        _, errors = process.communicate(timeout=10)

    assert (process.returncode, errors) == (1, "loadbench: the adapter mine:Mine ended by itself: SIGKILL\n")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("ehco", 2, "no adapter is named 'ehco'; is it echo?; one of your own is written module:Class"),
        ("nowhere:Mine", 2, "there is no module 'nowhere', neither in "),
        ("echo --option delay=1", 2, "its options: delay_ms, words"),
        ("echo --option delay", 2, "--option 'delay' is no KEY=VALUE"),
        ("echo --option delay_ms=slow", 1, "echo cannot load its model: TypeError: "),
        ("echo --slots 0", 2, "0 is not in the range"),
        ("", 2, "Missing argument 'SPEC'"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_mistake_is_one_line(words: str, code: int, message: str) -> None:
    done = invoke("serve", "adapter", *words.split())

    assert (done.exit_code, done.stderr.count("\n")) == (code, 1)
    assert done.stderr.startswith("loadbench: ")
    assert message in done.stderr


def test_it_is_measured_as_any_server(folder: Path) -> None:
    with adapter.start("echo", slots=2, options={"delay_ms": 1, "words": 6}) as server:
        done = invoke(
            "run",
            "-e",
            server.url,
            "-c",
            "1,2",
            "--no-repeat-first",
            "-n",
            "4",
            "--warmup",
            "1",
            "--quiet",
            "-o",
            folder / "run",
        )
        assert done.exit_code == 0, done.output
    [one, two] = json.loads((folder / "run" / "summary.json").read_text())["levels"]

    assert [(level["completed"], level["failed"], level["model"]) for level in (one, two)] == [(4, 0, "echo")] * 2
    assert one["token_source"] == "usage"
    assert one["output_tokens"]["p50"] == 6
    assert one["itl_ms"]["p50"] >= 1


def test_tokens_of_an_adapter_that_does_not_count_are_estimated(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "class Mine:\n"
        "    def load(self, weights_path): pass\n"
        "    def generate(self, messages, max_tokens): yield from ['word '] * max_tokens\n"
    )
    with adapter.start("mine:Mine") as server:
        words = ("-c", "1", "-n", "3", "--max-tokens", "5", "--quiet", "-o", folder / "run")
        assert invoke("run", "-e", server.url, *words).exit_code == 0
    [level] = json.loads((folder / "run" / "summary.json").read_text())["levels"]

    assert (level["completed"], level["token_source"]) == (3, "events")


def test_help_teaches_by_examples() -> None:
    text = invoke("serve", "adapter", "--help").output

    assert "  loadbench serve adapter my_model:MyModel weights/ --port 8080 --slots 4" in text
