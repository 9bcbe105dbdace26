"""A key goes to the server that was named and to nobody else; https is verified unless somebody says otherwise."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import loadbench
from tests.support.command import KEY, invoke
from tests.support.gateways import Answered, Asked, Gateway, chat, gateway
from tests.support.replay import CERTIFICATE

BRIEF = ("-m", "m", "-c", "1", "-n", "2", "--warmup", "0", "--no-repeat-first", "--max-tokens", "4", "-o", "there")


@pytest.fixture(autouse=True)
def _no_certificates(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SSL_CERT")]:
        monkeypatch.delenv(name)


@dataclass(slots=True)
class Host:
    """A server that lists a model and answers chats.

    Attributes:
        elsewhere: Where it sends those who ask for the paths in `moved`.
        gateway: Where it is, and what it was asked.
    """

    elsewhere: str = ""
    moved: tuple[str, ...] = ()
    server: str = "uvicorn"
    gateway: Gateway = field(default_factory=Gateway)

    @property
    def url(self) -> str:
        return self.gateway.url

    @property
    def asked(self) -> list[tuple[str, Mapping[str, str]]]:
        """Path and headers of each request."""
        return [(one.path, one.headers) for one in self.gateway.asked]

    def answer(self, asked: Asked) -> Answered:
        headers = {"Server": self.server}
        if any(path in asked.path for path in self.moved):
            return Answered(307, {}, {**headers, "Location": self.elsewhere + asked.path})
        match asked.path:
            case "/v1/models":
                return Answered(200, {"data": [{"id": "m"}]}, headers)
            case "/v1/chat/completions":
                return replace(chat("A"), headers=headers)
            case "/props":
                return Answered(200, {"default_generation_settings": {"n_ctx": 9}, "total_slots": 1}, headers)
        return Answered(404, {}, headers)


@contextlib.contextmanager
def host(*, tls: bool = False) -> Iterator[Host]:
    found = Host()
    with gateway(found.answer, tls=tls) as found.gateway:
        yield found


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
