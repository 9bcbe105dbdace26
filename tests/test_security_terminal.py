"""No text of a server, a run folder or a file name reaches a terminal as anything but text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadbench.cli.surroundings import data
from loadbench.text import harmless_lines, one_line
from tests.support.command import invoke
from tests.support.gateways import Answered, Asked, gateway
from tests.support.terminals import Glass, on_terminal

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("place")]

BRIEF = ("-c", "1", "-n", "2", "--warmup", "0", "--no-repeat-first", "--max-tokens", "4")
SIGNS = {
    "a link (OSC 8)": "\x1b]8;;http://evil.example\x1b\\",
    "the clipboard (OSC 52)": "\x1b]52;c;RVZJTA==\x07",
    "a colour (CSI)": "\x1b[38;5;201m",
    "a report of the cursor": "\x1b[6n",
    "a reset": "\x1bc",
    "8-bit control characters": "\x9b38;5;201m\x9d52;c;eA==\x9c",
    "directions": "\u202egpj.\u2066",
    "back to the begin of the line": "\rloadbench: all is well",
    "no width": "\u200b\ufeff",
}
EVIL = "".join(SIGNS.values())
MODEL = f"m{EVIL}"


def answer(asked: Asked) -> Answered:
    """Control sequences in all that is text; the `Server` has 8-bit ones alone, as our parser takes no others."""
    server = {"Server": "evil\x9b2J"}
    if asked.method == "POST":
        choices = [
            {"index": 0, "delta": {"reasoning_content": f"hm{EVIL}"}},
            {"index": 0, "delta": {"content": f"I am{EVIL} an answer"}},
            {"index": 0, "delta": {}, "finish_reason": f"stop{EVIL}"},
        ]
        return Answered(headers=server, events=[{"model": f"s{EVIL}", "choices": [choice]} for choice in choices])
    if asked.path.endswith("/models"):
        row = {"id": MODEL, "aliases": [f"a{EVIL}"], "license": EVIL, "quantization": EVIL, "device": EVIL}
        return Answered(headers=server, body={"data": [row]})
    if asked.path == "/api/version":
        return Answered(headers=server, body={"version": f"1{EVIL}"})
    return Answered(404, {"error": EVIL}, server)


def refuse(asked: Asked) -> Answered:
    """The same, but for chats."""
    if asked.method == "POST":
        return Answered(400, {"error": {"message": f"no{EVIL}", "code": EVIL}}, {"Server": "evil\x9b2J"})
    return answer(asked)


@pytest.fixture(scope="module")
def evil() -> Iterator[str]:
    """A server that answers."""
    with gateway(answer) as server:
        yield server.url


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    """One that refuses each chat."""
    with gateway(refuse) as server:
        yield server.url


def harms(text: str) -> list[str]:
    """What of it a terminal would obey, of that which is not ours."""
    odd = ("\x1b]", "\x1bc", "\x1b[6n", "38;5;201m", "\x07")
    wrong = [
        sequence for sequence in odd if sequence in text and not (sequence == odd[3] and f"\x1b[{odd[3]}" not in text)
    ]
    return wrong + sorted({sign for sign in text if one_line(f"a{sign}b") == "ab" and sign not in "\x1b"})


@pytest.fixture(scope="module")
def folder(evil: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of that server, one of which somebody changed; and with names that are not nice."""
    place = tmp_path_factory.mktemp("runs")
    for name in ("one", "two"):
        assert invoke("run", "-e", evil, "-m", MODEL, *BRIEF, "-o", place / name).exit_code == 0
    info = json.loads((place / "two/run.json").read_text())
    info |= {"name": f"n{EVIL}", "target_found": f"f{EVIL}", "command": [EVIL]}
    info["scenario"]["description"] = f"d{EVIL}"
    info["versions"]["httpx"] = EVIL
    info["environment"]["cpu"] = f"c{EVIL}"
    info["levels"][0]["reason"] = f"r{EVIL}"
    (place / "two/run.json").write_text(json.dumps(info))
    odd = place / "odd\x1b[38;5;201m\x9b2J\u202e"
    odd.mkdir()
    (odd / "run.json").write_text("{")
    (place / "none\x1b[38;5;201m\x07").mkdir()
    return place


ASKING = {
    "run": ("run", "-m", MODEL, *BRIEF, "-o", "there", "--no-progress"),
    "run --json": ("run", "-m", MODEL, *BRIEF, "-o", "there", "--json"),
    "probe": ("probe", "-m", MODEL),
    "probe --json": ("probe", "-m", MODEL, "--json"),
    "models list": ("models", "list"),
    "models list --json": ("models", "list", "--json"),
    "models load": ("models", "load", MODEL),
    "models verify": ("models", "verify", "-m", MODEL),
    "a model that is not there": ("run", "-m", "nothing", "--debug"),
    "doctor": ("doctor", "--quick"),
    "doctor --json": ("doctor", "--quick", "--json"),
}


@pytest.mark.parametrize("command", ASKING)
def test_what_a_server_says_is_text_in_what_a_command_says(evil: str, command: str) -> None:
    done = invoke(*ASKING[command], "-e", evil)

    assert done.output
    assert harms(done.output) == []


@pytest.mark.parametrize("command", ["run", "run --json", "probe", "models verify"])
def test_so_are_its_errors(refusing: str, command: str) -> None:
    done = invoke(*ASKING[command], "-e", refusing)

    assert "HTTP 400: no" in done.output
    assert harms(done.output) == []


@pytest.mark.parametrize(
    ("command", "failing"), [("run", False), ("run", True), ("probe", False), ("models list", False), ("doctor", False)]
)
def test_so_it_is_on_a_terminal(evil: str, refusing: str, tmp_path: Path, command: str, failing: bool) -> None:
    words = [word for word in ASKING[command] if word != "--no-progress"]
    words = [str(tmp_path / "there") if word == "there" else word for word in words]
    glass = Recorded(columns=100)

    on_terminal(*words, "-e", refusing if failing else evil, glass=glass)

    assert glass.text
    assert [harm for harm in harms(glass.text) if harm != "\r"] == []


class Recorded(Glass):
    """A terminal of which all that was written to it is kept."""

    text = ""

    def write(self, text: str) -> None:
        self.text += text


READING = {
    "report": ("report", "two"),
    "report markdown": ("report", "two", "--format", "markdown"),
    "report csv": ("report", "two", "--format", "csv"),
    "report json": ("report", "two", "--format", "json"),
    "report vllm": ("report", "two", "--format", "vllm"),
    "report hgrm": ("report", "two", "--format", "hgrm"),
    "compare": ("compare", "one", "two"),
    "compare markdown": ("compare", "one", "two", "--format", "markdown"),
    "compare json": ("compare", "one", "two", "--format", "json"),
    "select": ("select", "one", "two"),
    "select markdown": ("select", "one", "two", "--format", "markdown"),
    "select json": ("select", "one", "two", "--format", "json"),
    "score": ("score", "two"),
    "score json": ("score", "two", "--json"),
    "results": ("results", "."),
    "results json": ("results", ".", "--json"),
    "no such level": ("report", "two", "--format", "hgrm", "--level", f"x{EVIL}", "--debug"),
}


@pytest.mark.parametrize("command", READING)
def test_what_a_run_folder_says_is_text_in_every_report(
    folder: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    done = invoke(*READING[command])

    assert done.output
    assert harms(done.output) == []


@pytest.mark.parametrize("sign", SIGNS)
def test_json_keeps_each_sign_and_shows_none(sign: str) -> None:
    text = data({SIGNS[sign]: [SIGNS[sign]]})

    assert json.loads(text) == {SIGNS[sign]: [SIGNS[sign]]}
    assert harms(text) == []


def test_a_traceback_keeps_its_lines_and_nothing_else_that_moves_the_cursor() -> None:
    assert harmless_lines(f"a{EVIL}\n  b\n").count("\n") == 2
    assert harms(harmless_lines(f"a{EVIL}\n  b\n").replace("\n", "")) == []
