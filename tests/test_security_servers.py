"""Whom our own servers answer: whoever has the key where other machines reach them, else this machine's programs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadbench import adapter, simulator
from loadbench.admission import Admission

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
    assert refusal[0] == 403
