"""A key goes to the server that was named and to nobody else; https is verified unless somebody says otherwise."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import loadbench
from tests.support.command import KEY, invoke
from tests.support.replay import CERTIFICATE

BRIEF = ("-m", "m", "-c", "1", "-n", "2", "--warmup", "0", "--no-repeat-first", "--max-tokens", "4", "-o", "there")
OURS = ("LOADBENCH_", "BENCH_", "FOUNDRY_", "RETRY_", "API_KEY", "SSL_CERT")
MODELS = json.dumps({"data": [{"id": "m"}]}).encode()
CHAT = b"".join(
    b"data: %s\n\n" % event
    for event in (b'{"choices":[{"delta":{"content":"A"}}]}', b'{"choices":[{"delta":{},"finish_reason":"stop"}]}')
)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@dataclass(slots=True)
class Host:
    """A server.

    Attributes:
        elsewhere: Where it sends those who ask for the paths in `moved`.
        asked: Path and headers of each request.
    """

    url: str = ""
    elsewhere: str = ""
    moved: tuple[str, ...] = ()
    server: str = "uvicorn"
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@contextlib.contextmanager
def host(*, tls: bool = False) -> Iterator[Host]:
    """A server that lists a model and answers chats."""
    found = Host()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None: ...
        def version_string(self) -> str:
            return found.server

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            found.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            status, kind, body = 404, "application/json", b"{}"
            if any(path in self.path for path in found.moved):
                status = 307
            elif self.path == "/v1/models":
                status, body = 200, MODELS
            elif self.path == "/v1/chat/completions":
                status, kind, body = 200, "text/event-stream", CHAT
            elif self.path == "/props":
                status, body = 200, b'{"default_generation_settings":{"n_ctx":9},"total_slots":1}'
            self.send_response(status)
            if status == 307:
                self.send_header("Location", found.elsewhere + self.path)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = answer

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that does not trust us
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(CERTIFICATE)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        found.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


MOVED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "the model list": (("/v1/models",), ("run", *BRIEF)),
    "chats": (("/chat/completions",), ("run", *BRIEF)),
    "its own figures": (("/metrics",), ("run", *BRIEF)),
    "who it is": (("/props", "/api/", "/status", "/version"), ("models", "list")),
    "a probe": (("/chat/completions",), ("probe", "-m", "m")),
}


@pytest.mark.parametrize("what", MOVED)
def test_a_redirect_takes_no_request_and_no_key_to_another_host(what: str) -> None:
    moved, words = MOVED[what]
    with host() as there, host() as other:
        # Another name is another host, the port apart; and what llama.cpp is asked for is most.
        there.elsewhere, there.moved = other.url.replace("127.0.0.1", "localhost"), moved
        there.server = "llama.cpp" if "/metrics" in moved else "uvicorn"
        invoke(*words, "-e", there.url, API_KEY=KEY)
        sent = [path for path, headers in there.asked if headers.get("authorization") == f"Bearer {KEY}"]

    assert [path for path in sent if any(part in path for part in moved)], "the redirect was met, with the key"
    assert other.asked == []


def test_the_key_of_a_judge_goes_to_no_other_host_either(quick: Any) -> None:
    with host() as there, host() as other:
        there.elsewhere, there.moved = other.url, ("/chat/completions",)
        invoke("run", "-e", quick.url, "-m", "simulator", *BRIEF[2:])
        invoke("score", "there", "--judge", there.url, "--judge-key-env", "JUDGE", JUDGE=KEY)

    assert there.asked[-1][1]["authorization"] == f"Bearer {KEY}"
    assert other.asked == []


def test_servers_see_who_asks_on_both_paths() -> None:
    with host() as there:
        invoke("run", "-e", there.url, *BRIEF)

    assert {path for path, _ in there.asked} >= {"/v1/models", "/v1/chat/completions"}
    assert {headers["user-agent"] for _, headers in there.asked} == {f"loadbench/{loadbench.__version__}"}


COMMANDS = {
    "run": ("run", *BRIEF),
    "models list": ("models", "list"),
    "probe": ("probe", "-m", "m"),
    "doctor": ("doctor", "--quick", "--json"),
    "capacity": ("capacity", "--slo", "failed<50%", *BRIEF[:2]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_certificate_that_nobody_vouches_for_ends_it_before_anything_is_asked(command: str) -> None:
    with host(tls=True) as there:
        done = invoke(*COMMANDS[command], "-e", there.url, API_KEY=KEY)

    assert "is not trusted" in done.output
    assert "--ca-file FILE" in done.output
    assert (done.exit_code, there.asked) == (1, [])


def test_insecure_is_warned_of_and_noted() -> None:
    with host(tls=True) as there:
        done = invoke("run", "-e", there.url, *BRIEF, "--insecure")

    assert "Warning: --insecure: no certificate is checked" in done.stderr
    assert json.loads(Path("there/run.json").read_text())["insecure"] is True


@pytest.mark.parametrize("command", ["models list", "probe"])
def test_other_commands_warn_of_it_too(command: str) -> None:
    with host(tls=True) as there:
        done = invoke(*COMMANDS[command], "-e", there.url, "--insecure")

    assert "Warning: --insecure" in done.stderr


def test_over_plain_http_there_is_nothing_to_warn_of() -> None:
    with host() as there:
        done = invoke("models", "list", "-e", there.url, "--insecure")

    assert "Warning" not in done.stderr


def test_the_authorities_of_the_environment_are_trusted_on_both_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with host(tls=True) as there:
        done = invoke("run", "-e", there.url, *BRIEF)

    assert done.exit_code == 0, done.output
    assert {path for path, _ in there.asked} >= {"/v1/models", "/v1/chat/completions"}
    assert json.loads(Path("there/run.json").read_text())["insecure"] is False
