"""`loadbench serve`: it says where it listens, stops quietly, and calls mistakes by their name."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import httpx
import pytest

from loadbench.serve import adapter
from loadbench.serve.simulator.law import FAULTS
from tests.support.command import invoke

pytestmark = pytest.mark.system

SERVE = [sys.executable, "-m", "loadbench", "serve"]
SERVERS = ["llama --slots=1 --context=256", "simulator --itl 1ms", "adapter echo"]


def served(words: str, *, lines: int, stop: int = signal.SIGINT) -> tuple[int, list[str], str]:
    """Exit code, stdout's first lines, stderr, of a server that is stopped once it said that it is ready."""
    with subprocess.Popen(
        [*SERVE, *words.split()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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


@pytest.mark.parametrize(
    ("server", "stop"), [*((server, signal.SIGINT) for server in SERVERS), (SERVERS[2], signal.SIGTERM)]
)
def test_a_server_says_how_to_measure_it_and_stops_quietly(server: str, stop: int) -> None:
    code, said, errors = served(server, lines=2, stop=stop)
    url = said[0].split()[0]

    assert url.startswith("http://127.0.0.1:")
    assert f"loadbench run -e {url} " in said[1]
    assert (code, errors) == (0, "")


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("llama --slots=1 --context=256 --alias=it", {"model": "it", "slots": 1, "context": 256}),
        ("simulator --model it", {"model": "it"}),
        ("adapter echo --model it --slots 3 --queue 0", {"model": "it", "adapter": "echo", "slots": 3, "queue": 0}),
    ],
)
def test_json_is_one_line_with_all_there_is(server: str, expected: dict[str, object]) -> None:
    code, said, errors = served(f"{server} --json", lines=1)
    facts = json.loads(said[0])

    assert {name: facts[name] for name in expected} == expected
    assert facts["url"].endswith("/v1")
    assert facts["pid"] > 0
    assert (code, errors) == (0, "")


def test_an_adapter_says_its_slots_and_its_queue() -> None:
    assert served("adapter echo", lines=2)[1][0].endswith("/v1  echo by echo: 1 slot, a queue of 256")


def test_the_law_reaches_the_simulator() -> None:
    with subprocess.Popen(
        [*SERVE, "simulator", "--json", "--ttft", "70ms", "--fault", "429=0.5", "--slots", "3"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        url = json.loads(process.stdout.readline())["url"]
        with urllib.request.urlopen(url.replace("/v1", "/truth")) as answer:
            law = json.load(answer)["law"]
        process.terminate()

    assert (law["ttft_ms"], law["faults"], law["slots"]) == (70.0, {"429": 0.5}, 3)


@pytest.mark.parametrize("server", SERVERS)
def test_other_addresses_than_loopback_give_a_warning(server: str) -> None:
    _, said, errors = served(f"{server} --host=0.0.0.0", lines=2)

    assert "http://127.0.0.1:" in said[0]
    assert errors.startswith("Warning: 0.0.0.0 can be reached from other machines, which must send the key")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("simulator --ttft 5", 2, "'5' is no duration: write it like 50ms"),
        ("simulator --fault fire=0.1", 2, "no fault is named 'fire'"),
        ("simulator --fault cut=x", 2, "'cut=x' is no fault: write NAME=RATE"),
        ("simulator --length a..b", 2, "'a..b' is no length: write 64 or 16..256"),
        ("simulator --slots 0", 2, "slots is 0: it must be 1 or more"),
        ("simulator --colour red", 2, "No such option"),
        ("simulator --port 70000", 2, "70000 is not in the range"),
        ("llama --colour red", 2, "No such option"),
        ("adapter ehco", 2, "no adapter is named 'ehco'; is it echo?; one of your own is written module:Class"),
        ("adapter nowhere:Mine", 2, "there is no module 'nowhere', neither in "),
        ("adapter echo --option delay=1", 2, "its options: delay_ms, words"),
        ("adapter echo --option delay", 2, "--option 'delay' is no KEY=VALUE"),
        ("adapter echo --option delay_ms=slow", 1, "echo cannot load its model: TypeError: "),
        ("adapter echo --slots 0", 2, "0 is not in the range"),
        ("adapter", 2, "Missing argument 'SPEC'"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_mistake_is_one_line(words: str, code: int, message: str) -> None:
    done = invoke("serve", *words.split())

    assert (done.exit_code, done.stderr.count("\n")) == (code, 1)
    assert done.stderr.startswith("loadbench: ")
    assert message in done.stderr


@pytest.mark.parametrize("server", ["llama", "simulator", "adapter my_model:MyModel weights/"])
def test_help_teaches_by_examples(server: str) -> None:
    text = invoke("serve", server.split()[0], "--help").output

    assert "Examples:" in text
    assert f"  loadbench serve {server} --port 8080 " in text


def test_help_of_the_simulator_lists_its_law_and_gives_each_fault_a_line() -> None:
    text = invoke("serve", "simulator", "--help").output
    named = {match[1] for match in re.finditer(r"^ +([\w ]+):  ", text, flags=re.MULTILINE)}

    assert "--itl-per-stream TIME" in text
    assert {"400 to 599", *FAULTS} <= named


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    ours = "'loadbench.serve.llama', 'loadbench.serve.simulator'"
    heavy = f"{{'httpx', 'numpy', 'rich', 'xllamacpp', 'asyncio', 'anyio', {ours}}}"
    code = f"import sys, loadbench.cli.serve; print(sorted({heavy} & set(sys.modules)))"

    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# -- adapters


def test_what_the_adapter_prints_is_shown_on_stderr(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "class Mine:\n"
        "    def load(self, weights_path, *, threads=1): print('loads', weights_path, threads, flush=True)\n"
        "    def generate(self, prompt): return prompt\n"
    )
    code, said, errors = served("adapter mine:Mine some/weights --option threads=2 --json", lines=1)

    assert json.loads(said[0])["model"] == "weights"
    assert (code, errors) == (0, "loads some/weights 2\n")


def test_an_adapter_that_dies_is_one_line_and_exit_code_1(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "import os, signal\n"
        "class Mine:\n"
        "    def load(self, weights_path): pass\n"
        "    def generate(self, prompt): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen(
        [*SERVE, "adapter", "mine:Mine", "--json"],
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
