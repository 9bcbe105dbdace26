"""A key comes from a variable or a file, and is written nowhere: whatever a server does with it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import Result
from hdrh.histogram import HdrHistogram

from tests.support.command import OURS, invoke
from tests.support.gateways import Answered, Asked, Gateway, gateway

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("place")]

ROOT = Path(__file__).parents[1]
KEY = "sk-live-8f3Kq/Zx+91=secret"
BRIEF = ("-c", "1", "-n", "2", "--warmup", "0", "--no-repeat-first", "--max-tokens", "4")


@dataclass(slots=True)
class Parrot:
    """A server that says the key it was sent wherever a server says anything.

    Attributes:
        fails: Whether chats are refused; the key stands in the error.
        at_chat: Called at each chat.
        gateway: Where it is, and what it was asked.
    """

    fails: bool = False
    at_chat: Callable[[], None] = lambda: None
    gateway: Gateway = field(default_factory=Gateway)

    @property
    def url(self) -> str:
        return self.gateway.url

    @property
    def asked(self) -> list[Mapping[str, str]]:
        """The headers of each request."""
        return [one.headers for one in self.gateway.asked]

    def answer(self, asked: Asked) -> Answered:
        key = (asked.headers.get("authorization") or asked.headers.get("x-api-key") or "nobody").rpartition(" ")[2]
        headers = {"X-Echo": key, "Server": f"gateway/{key}"}
        if asked.method == "POST":
            return self._chat(key, headers)
        if asked.path.endswith("/models"):
            rows = [{"id": "m", "owned_by": key, "license": key, "aliases": [key]}, {"id": f"m-{key}"}]
            return Answered(200, {"data": rows}, headers)
        if asked.path == "/metrics":
            return Answered(200, f'n{{key="{key}"}} 1\n'.encode(), {**headers, "Content-Type": "text/plain"})
        return Answered(404, f"<h1>{key} may not {asked.path}</h1>".encode(), headers)

    def _chat(self, key: str, headers: Mapping[str, str]) -> Answered:
        self.at_chat()
        if self.fails:
            error = {"message": f"Incorrect API key provided: {key}", "type": key, "code": key}
            return Answered(401, {"error": error}, headers)
        deltas = [{"reasoning_content": key[:9]}, {"reasoning_content": key[9:]}]
        deltas += [{"content": piece} for piece in ("Your key is ", key[:7], key[7:], ", keep it.")]
        choices: list[dict[str, Any]] = [{"index": 0, "delta": delta} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": key})
        return Answered(headers=headers, events=[{"model": f"served-{key}", "choices": [one]} for one in choices])


@pytest.fixture
def parrot() -> Iterator[Parrot]:
    """A server that repeats its key."""
    found = Parrot()
    with gateway(found.answer) as found.gateway:
        yield found


def process(place: Path, *words: object, **variables: str) -> tuple[str, str]:
    """What `loadbench` says on stdout and stderr, as a process of its own, in a folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment |= {"PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "loadbench", *map(str, words)]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=100, check=False)
    return done.stdout, done.stderr


def loadbench(place: Path, *words: object, **variables: str) -> Result:
    """`loadbench` in this process, in a folder."""
    with contextlib.chdir(place):
        return invoke(*words, **variables)


def leaks(place: Path, *said: str) -> list[str]:
    """Where a part of the key stands, of all that was written and said: the files, and the histograms in them."""
    found = [text for text in said if _tells(text)]
    for path in sorted(place.rglob("*")):
        if path.is_file() and path.name != "key.txt":
            content = path.read_bytes().decode("utf-8", "replace")
            if path.suffix == ".hlog":
                content += _decoded(content)
            if _tells(content) or _tells(path.name):
                found.append(str(path.relative_to(place)))
    return found


def _decoded(log: str) -> str:
    """What the lines of a histogram log hold beside their counts, and that they can be read."""
    lines = [line for line in log.splitlines() if line.startswith("Tag=")]
    assert all(HdrHistogram.decode(line.rpartition(",")[2]).get_total_count() >= 0 for line in lines)
    return "\n".join(line.rpartition(",")[0] for line in lines)


def _tells(text: str) -> bool:
    """Whether it holds the key, or a long piece of it."""
    return any(KEY[start : start + 10] in text for start in range(len(KEY) - 9))


WAYS: Mapping[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
    "API_KEY": ((), {"API_KEY": KEY}),
    "a variable": (("--api-key-env", "TEAM_KEY"), {"TEAM_KEY": KEY}),
    "a file": (("--api-key-file", "key.txt"), {}),
    "a header": (("--header", f"Authorization: Bearer {KEY}"), {}),
    "a header of another name": (("--header", f"X-Api-Key: {KEY}"), {}),
}


def a_run(parrot: Parrot, place: Path, way: str) -> tuple[str, ...]:
    """A run whose key comes this way, and all that it can write."""
    (place / "key.txt").write_text(f"{KEY}\n")
    (place / "key.txt").chmod(0o600)
    outputs = ("-o", "there", "--junit", "j.xml", "--fail-if", "failed>99%", "--json", "--debug")
    return ("run", "-e", parrot.url, "-m", "m", *BRIEF, *WAYS[way][0], *outputs)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_that_a_run_writes_or_says_holds_the_key(parrot: Parrot, tmp_path: Path, way: str) -> None:
    done = loadbench(tmp_path, *a_run(parrot, tmp_path, way), **WAYS[way][1])

    assert (tmp_path / "there" / "report.html").exists(), done.stderr
    assert "x-api-key" in parrot.asked[-1] or parrot.asked[-1]["authorization"] == f"Bearer {KEY}"
    assert leaks(tmp_path, done.stdout, done.stderr) == []


def test_nothing_that_the_process_of_a_refused_run_says_holds_the_key(parrot: Parrot, tmp_path: Path) -> None:
    parrot.fails = True

    said = process(tmp_path, *a_run(parrot, tmp_path, "API_KEY"), API_KEY=KEY)

    assert (tmp_path / "there" / "report.html").exists(), said
    assert parrot.asked[-1]["authorization"] == f"Bearer {KEY}"
    assert leaks(tmp_path, *said) == []


@pytest.mark.skipif(sys.platform != "linux", reason="command lines are read from /proc")
def test_no_process_that_a_run_starts_has_the_key_on_its_command_line(parrot: Parrot, tmp_path: Path) -> None:
    seen: set[str] = set()
    parrot.at_chat = lambda: seen.update(" ".join(line) for line in _lines(psutil.Process()))

    said = process(
        *(tmp_path, "run", "-e", parrot.url, "-m", "m", "-c", "2", "-n", "4", "--workers", "2", "-o", "there"),
        API_KEY=KEY,
    )

    assert (tmp_path / "there" / "report.html").exists(), said
    assert len(seen) >= 2, "the command and its workers"
    assert [line for line in seen if _tells(line)] == []
    assert leaks(tmp_path, *said) == []


def _lines(process: psutil.Process) -> Iterator[list[str]]:
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            yield child.cmdline()


def test_an_answer_that_repeats_the_key_is_kept_without_it_and_counted_with_it(parrot: Parrot, tmp_path: Path) -> None:
    loadbench(tmp_path, "run", "-e", parrot.url, "-m", "m", *BRIEF, "-o", "there", API_KEY=KEY)

    texts = [json.loads(line)["text"] for line in (tmp_path / "there/answers.jsonl").read_text().splitlines()]
    requests = [json.loads(line) for line in (tmp_path / "there/requests.jsonl").read_text().splitlines()]

    assert set(texts) == {"Your key is ***, keep it."}
    assert {one["characters"] for one in requests} == {len(f"Your key is {KEY}, keep it.{KEY}")}


COMMANDS = {
    "models list": ("models", "list", "--json"),
    "models load": ("models", "load", "m"),
    "models verify": ("models", "verify", "-m", "m"),
    "probe": ("probe", "-m", "m"),
    "probe of no such model": ("probe", "-m", "nothing"),
    "capacity": ("capacity", "-m", "m", "--slo", "failed<50%", "--max", "2", "-n", "20", "--max-tokens", "4"),
    "against itself": ("run", "-m", "m", *BRIEF, "--against", "{url}"),
    "doctor": ("doctor", "--quick", "--json", "--api-key-env", "API_KEY"),
}


@pytest.mark.parametrize(
    ("command", "fails"), [*((command, False) for command in COMMANDS), ("probe", True), ("models verify", True)]
)
def test_no_command_that_asks_a_server_shows_the_key(parrot: Parrot, tmp_path: Path, command: str, fails: bool) -> None:
    parrot.fails = fails
    words = [word.format(url=parrot.url) for word in COMMANDS[command]]

    done = loadbench(tmp_path, *words, "-e", parrot.url, "--debug", API_KEY=KEY)

    assert any(one.get("authorization") == f"Bearer {KEY}" for one in parrot.asked), done.output
    assert leaks(tmp_path, done.stdout, done.stderr) == []


@pytest.mark.parametrize("fails", [False, True], ids=["answers", "refuses"])
def test_reports_comparisons_and_a_judge_keep_the_key_out(parrot: Parrot, tmp_path: Path, fails: bool) -> None:
    loadbench(tmp_path, "run", "-e", parrot.url, "-m", "m", *BRIEF, "-o", "there", API_KEY=KEY)
    parrot.fails = fails

    done = [
        loadbench(tmp_path, *words, JUDGE=KEY)
        for words in (
            ("compare", "there", "there", "--format", "markdown", "-o", "compared.md"),
            ("score", "there", "--judge", parrot.url, "--judge-model", "m", "--judge-key-env", "JUDGE", "--debug"),
            ("report", "there", "--format", "csv", "-o", "there.csv"),
            ("select", "there", "--format", "markdown", "-o", "choice.md"),
        )
    ]

    assert parrot.asked[-1]["authorization"] == f"Bearer {KEY}"
    assert [leaks(tmp_path, one.stdout, one.stderr) for one in done] == [[]] * 4


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"{KEY}: x y", f"Author ization: {KEY}"])
def test_a_header_that_is_written_wrong_is_not_repeated(tmp_path: Path, header: str) -> None:
    done = loadbench(tmp_path, "models", "list", "-e", "http://127.0.0.1:9", "--header", header, "--debug")

    assert done.exit_code == 2 or "UsageError" in done.stderr
    assert leaks(tmp_path, done.stdout, done.stderr) == []


def test_a_key_file_that_others_may_read_is_warned_of_and_taken(parrot: Parrot, tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text(f"{KEY}\r\n")
    (tmp_path / "key.txt").chmod(0o644)

    done = loadbench(tmp_path, "probe", "-m", "m", "-e", parrot.url, "--api-key-file", "key.txt")

    assert "others on this machine may read it: chmod 600 key.txt" in done.stderr
    assert parrot.asked[-1]["authorization"] == f"Bearer {KEY}"


def test_a_scenario_may_name_the_file_of_the_key_beside_it(parrot: Parrot, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/s.toml").write_text(f'endpoint = "{parrot.url}"\napi_key_file = "key.txt"\nmodels = ["m"]\n')
    (tmp_path / "sub/key.txt").write_text(KEY)

    done = loadbench(tmp_path, "run", "sub/s.toml", *BRIEF, "-o", "there")

    assert f"key       from {Path('sub/key.txt')}\n" in done.stderr
    assert parrot.asked[-1]["authorization"] == f"Bearer {KEY}"
    assert leaks(tmp_path, done.stdout, done.stderr) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such file"), (b"", "is empty"), (b"one\ntwo", "has several lines"), (b"\xff\xfe\x00", "holds no text")],
)
def test_a_file_without_a_key_is_a_usage_error_that_shows_nothing_of_it(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "key.txt").write_bytes(content)

    done = loadbench(tmp_path, "run", "-e", "http://127.0.0.1:9", "--api-key-file", "key.txt")

    assert (done.exit_code, done.stdout) == (2, "")
    assert f"--api-key-file key.txt: {'cannot be read: ' if content is None else ''}{said}" in done.stderr
    assert "two" not in done.stderr


def test_a_flag_goes_before_the_variable_that_says_the_other_way(parrot: Parrot, tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text(KEY)

    loadbench(
        *(tmp_path, "run", "-e", parrot.url, "-m", "m", *BRIEF, "-o", "there", "--api-key-file", "key.txt"),
        LOADBENCH_API_KEY_ENV="NOT_SET",
    )

    assert parrot.asked[-1]["authorization"] == f"Bearer {KEY}"


def test_two_ways_at_once_are_refused(tmp_path: Path) -> None:
    done = loadbench(tmp_path, "probe", "-e", "http://127.0.0.1:9", "--api-key-file", "k", "--api-key-env", "K")

    assert "api_key_env and api_key_file are both given: keep one" in done.stderr
