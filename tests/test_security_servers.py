"""Whom our own servers answer: whoever has the key where other machines reach them, else this machine's programs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadbench.serve import adapter, simulator
from loadbench.serve.chat import Admission

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[1]
KEY = "sesame-of-this-server-0815"
MESSAGES = [{"role": "user", "content": "x"}]
KINDS = {"simulator": ("simulator",), "adapter": ("adapter", "echo"), "llama": ("llama", "--slots=1", "--context=256")}


def asked(url: str, document: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of a GET, or of a POST of a document."""
    body = None if document is None else json.dumps(document).encode()
    sent = {name.replace("_", "-"): value for name, value in headers.items()} | {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body, sent)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@contextlib.contextmanager
def served(*words: str, **variables: str) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """What `loadbench serve … --json` announces, and what it says on stderr before."""
    with subprocess.Popen(
        [sys.executable, "-m", "loadbench", "serve", *words, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            facts = json.loads(process.stdout.readline())
            yield facts, [process.stderr.readline()] if "--host=0.0.0.0" in words else []
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_other_machines_reach_has_a_new_key_and_answers_nobody_without_it(kind: str) -> None:
    with served(*KINDS[kind], "--host=0.0.0.0") as (facts, (said,)):
        made = re.search(r": (\S{32}) \(made for this time", said)
        chat = {"model": facts["model"], "messages": MESSAGES, "max_tokens": 1}
        answers = [
            asked(facts["url"] + "/chat/completions", chat, **headers)[0]
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {made and made[1]}"})
        ]

    assert answers == [401, 401, 200]


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_ones_own_is_demanded_on_loopback_too_and_stands_on_no_command_line(kind: str) -> None:
    with served(*KINDS[kind], "--api-key-env=MINE", MINE=KEY) as (facts, said):
        url, chat = facts["url"], {"model": facts["model"], "messages": MESSAGES, "max_tokens": 1}
        answers = [
            asked(url + "/chat/completions", chat, **more)[0] for more in ({}, {"Authorization": f"Bearer {KEY}"})
        ]
        here = psutil.Process().children(recursive=True)
        lines = [" ".join(one.cmdline()) for one in here if one.is_running()]

    assert (answers, said) == ([401, 200], [])
    assert [line for line in lines if KEY in line] == []
    assert any("serve" in line for line in lines)


def test_a_key_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    with served("simulator", f"--api-key-file={tmp_path / 'key'}", "--host=0.0.0.0") as (facts, (said,)):
        answers = [asked(facts["url"] + "/models", **more)[0] for more in ({}, {"Authorization": f"Bearer {KEY}"})]

    assert answers == [401, 200]
    assert KEY not in said


def test_the_children_we_start_have_no_key_on_their_command_lines() -> None:
    with simulator.start(api_key=KEY) as one, adapter.start("echo", api_key=KEY) as other:
        lines = [" ".join(psutil.Process(server.pid).cmdline()) for server in (one, other)]
        seen = asked(other.url + "/models", Authorization=f"Bearer {KEY}")[0]

    assert [KEY in line for line in lines] == [False, False]
    assert seen == 200


REQUESTS: dict[str, tuple[dict[str, str], int]] = {
    "a program's": ({}, 200),
    "of a page of this machine": ({"Origin": "http://localhost:3000"}, 200),
    "of a page of another host": ({"Origin": "https://evil.example"}, 403),
    "of a page that hides where it is from": ({"Origin": "null"}, 403),
    "by a name that was turned to this address": ({"Host": "evil.example"}, 403),
    "by the name localhost": ({"Host": "localhost:1234"}, 200),
}


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    """An adapter and a simulator on loopback, without a key."""
    with simulator.start() as one, adapter.start("echo") as other:
        yield {"simulator": one.url, "adapter": other.url}


@pytest.mark.parametrize("kind", ["simulator", "adapter"])
@pytest.mark.parametrize("request_", REQUESTS)
def test_a_server_on_loopback_answers_this_machine_and_no_web_page_of_elsewhere(
    urls: dict[str, str], kind: str, request_: str
) -> None:
    headers, status = REQUESTS[request_]
    chat = {"model": "echo" if kind == "adapter" else "simulator", "messages": MESSAGES}

    assert asked(urls[kind] + "/models", **headers)[0] == status
    assert asked(urls[kind] + "/chat/completions", chat, **headers)[0] == status


def test_nobody_else_may_reset_what_the_simulator_counts(urls: dict[str, str]) -> None:
    root = urls["simulator"].removesuffix("/v1")

    assert asked(root + "/truth/reset", {}, Origin="https://evil.example")[0] == 403


def test_with_a_key_names_and_pages_do_not_matter() -> None:
    admission = Admission("127.0.0.1", KEY)

    assert admission.refusal("gpu-box:8080", "https://ui.example", f"Bearer {KEY}".encode()) is None


@pytest.mark.parametrize("host", ["localhost.evil.example", "127.0.0.1.evil.example", "[::1", "0.0.0.0", "", "a b"])
def test_a_host_that_only_looks_local_is_none(host: str) -> None:
    refusal = Admission("127.0.0.1", None).refusal("localhost", f"http://{host}", b"")

    assert refusal is not None
    assert refusal.status == 403


BODY = 16 * 1024 * 1024


def said(url: str, *pieces: bytes) -> bytes:
    """What comes back for these bytes, until the server closes."""
    host, port = url.removeprefix("http://").partition("/")[0].split(":")
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        for piece in pieces:
            with contextlib.suppress(OSError):  # it need not take them all
                sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)
        got = bytearray()
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(65_536):
                got += data
    return bytes(got)


def posted(length: int, key: str | None = None, more: str = "") -> bytes:
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    size = f"Content-Length: {length}\r\n" if length else ""
    return f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n{authorization}{size}{more}\r\n".encode()


@pytest.fixture(scope="module")
def guarded() -> Iterator[dict[str, str]]:
    """An adapter and a simulator that want KEY."""
    with simulator.start(api_key=KEY) as one, adapter.start("echo", api_key=KEY) as other:
        yield {"simulator": one.url, "adapter": other.url}


TOO_MUCH: dict[str, tuple[list[bytes], bytes]] = {
    "a body that is announced too long": ([posted(BODY + 1, KEY)], b"413"),
    "one that is": ([posted(BODY + 1, KEY), b"x" * (BODY + 1)], b"413"),
    "one of more digits than a number has": ([posted(0, KEY, f"Content-Length: {'9' * 5_000}\r\n")], b"41|40"),
    "one without a key": ([posted(1_000, "wrong"), b"x" * 1_000], b"401"),
    "one without a key that is never sent": ([posted(1_000)], b"401"),
    "one without a key that is too long": ([posted(BODY - 1), b"x" * (BODY - 1)], b"401"),
}


@pytest.mark.parametrize("kind", ["simulator", "adapter"])
@pytest.mark.parametrize("case", TOO_MUCH)
def test_a_request_is_refused_by_its_head_before_its_body_is_read(
    guarded: dict[str, str], kind: str, case: str
) -> None:
    pieces, status = TOO_MUCH[case]

    answer = said(guarded[kind], *pieces)

    assert re.match(rb"HTTP/1\.1 (" + status + rb")", answer), answer[:200]
    assert asked(guarded[kind] + "/models", Authorization=f"Bearer {KEY}")[0] == 200


ENDLESS = {
    "chunks": [posted(0, KEY, "Transfer-Encoding: chunked\r\n"), *[b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"] * 20],
    "headers": [b"GET /v1/models HTTP/1.1\r\n", *[b"X-A: " + b"a" * 60_000 + b"\r\n"] * 20],
    "one header": [b"GET /v1/models HTTP/1.1\r\nX-A: ", *[b"a" * 60_000] * 20],
    "requests": [b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n" * 50_000],
}


@pytest.mark.parametrize("case", ENDLESS)
def test_what_does_not_end_fills_no_memory_of_the_simulator(guarded: dict[str, str], case: str) -> None:
    with simulator.start(api_key=KEY) as server:
        before = psutil.Process(server.pid).memory_info().rss
        said(server.url, *ENDLESS[case])
        grown = psutil.Process(server.pid).memory_info().rss - before
        answers = asked(server.url + "/models", Authorization=f"Bearer {KEY}")[0]

    assert answers == 200
    assert grown < 64 << 20


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("n", [10**12, 10**4000, 1_000_001])
def test_an_answer_without_end_is_refused_by_the_simulator(
    urls: dict[str, str], name: str, stream: bool, n: int
) -> None:
    chat = {"model": "simulator", "messages": MESSAGES, name: n, "stream": stream}

    status, answer = asked(urls["simulator"] + "/chat/completions", chat)

    assert status == 400
    assert len(answer["error"]["message"]) < 500
