"""text: what may be a secret is not stored, and what looks like a key is not repeated."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from loadbench.scenario import Scenario, to_builtins
from loadbench.serve.simulator import Simulator
from loadbench.server import Secrets
from loadbench.text import NOT_STORED, bare_url, looks_like_a_key, starred, stored_body, stored_header
from tests.support.command import invoked

KEYS = (
    *("sk-proj-0123456789abcdef", "sk_live_51Habcdefgh", "gsk_0123456789abcdef", "hf_abcdefghijklmnop"),
    *("nvapi-Ab1_cdefgh", "ghp_0123456789abcdef", "xoxb-0123456789", "AKIAIOSFODNN7EXAMPLE", "AIzaSyA0123456789"),
    "0f8fad5bd9cb469fa165708",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
)
NO_KEYS = (
    *("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY_2", "TEAM_KEY", "my_key", "key.txt", "smollm2-135m-instruct"),
    *("phi-4-mini", "meta-llama/Llama-3.1-8B-Instruct-Turbo", "internationalisation"),
    "accounts/fireworks/models/llama-v3p1-70b-instruct",
)


@pytest.mark.parametrize("text", KEYS + NO_KEYS)
def test_a_key_is_known_by_its_look_and_names_of_variables_files_and_models_are_none(text: str) -> None:
    assert looks_like_a_key(text) == (text in KEYS)


@pytest.mark.parametrize(
    "name", ["X-JWT", "X-Session", "X-Signature", "X-Amz-Security", "Ocp-Apim-Subscription", "X-Anything", "Cookie"]
)
def test_the_value_of_a_header_is_not_stored(name: str) -> None:
    assert stored_header(name, "value") == NOT_STORED


def test_that_of_a_harmless_name_is_unless_it_looks_like_a_key() -> None:
    assert [stored_header("X-Team", value) for value in ("blue", *KEYS)] == ["blue", *[NOT_STORED] * len(KEYS)]


def test_what_a_server_says_loses_the_values_of_such_headers() -> None:
    headers = {"X-JWT": "short1", "X-Session": "abcdef", "X-Signature": "f00-ba7", "X-Other": KEYS[0]}
    secrets = Secrets.of(headers)

    assert secrets.hidden(f"no: short1, abcdef, f00-ba7, {KEYS[0]}") == "no: ***, ***, ***, ***"


def test_of_the_body_only_what_is_named_or_looks_like_a_key_is_left_out() -> None:
    body = {
        "ignore_eos": True,
        "max_completion_tokens": 9,
        "tokenizer": "gpt2",
        "user": "me",
        "api_key": "abc",
        "extra": {"Authorization": "x", "list": [KEYS[0], 1, None]},
    }

    assert stored_body(body) == {
        "ignore_eos": True,
        "max_completion_tokens": 9,
        "tokenizer": "gpt2",
        "user": "me",
        "api_key": NOT_STORED,
        "extra": {"Authorization": NOT_STORED, "list": [NOT_STORED, 1, None]},
    }
    assert "abc" not in str(to_builtins(Scenario(extra_body=body)))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:secret@host/v1", "http://***@host/v1"),
        ("http://me:secret%40host/v1", "http://***@host/v1"),
        ("http://me:secret%2540host/v1", "http://***@host/v1"),
        ("http://me:secret\uff20host/v1", "http://***@host/v1"),
        ("http://host/v1?api-version=2024-10-21", "http://host/v1?api-version=2024-10-21"),
        ("http://host/v1?api-key=a&sig=b&code=c&key=d#e", "http://host/v1?api-key=***&sig=***&code=***&key=***#e"),
        ("no such command 'sk-0123456789'", "no such command '***'"),
        ("a folder results/20261130-141355-quickstart", "a folder results/20261130-141355-quickstart"),
    ],
)
def test_messages_and_words_of_a_command_are_starred(text: str, shown: str) -> None:
    assert starred(text) == shown


@pytest.mark.parametrize("at", ["@", "%40", "%2540", "\uff20", "\ufe6b"])
def test_a_report_shows_no_password_of_a_url_however_its_at_sign_is_written(at: str) -> None:
    assert "secret" not in bare_url(f"https://me:secret{at}host:8443/v1?key=abc")


WRONG = {
    "a variable": ("run", "-e", "127.0.0.1:9", "--api-key-env", "{}"),
    "a variable of probe": ("probe", "-e", "127.0.0.1:9", "--api-key-env", "{}"),
    "a file": ("probe", "-e", "127.0.0.1:9", "--api-key-file", "{}"),
    "a variable of a server": ("serve", "simulator", "--api-key-env", "{}"),
    "a judge's": ("score", ".", "--judge", "http://127.0.0.1:9", "--judge-key-env", "{}"),
    "no option": ("run", "--api-key", "{}"),
    "an argument": ("doctor", "{}"),
    "a command": ("{}",),
    "a device": ("run", "--device", "{}"),
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("key", ["sk-proj-0123456789abcdef", "sk_live_0123456789abcdef"])
def test_a_key_in_place_of_something_else_is_not_repeated(words: tuple[str, ...], key: str, place: Path) -> None:
    ended = invoked(*(word.format(key) for word in words))

    assert ended.exit_code != 0
    assert key not in ended.output
    assert key[3:] not in ended.output


@pytest.mark.system
def test_run_json_holds_none_of_them_and_going_on_asks_for_them(
    quick: Simulator, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({"api_key": KEYS[0], "ignore_eos": True})
    words = ["run", "-e", quick.url, "-c", "1", "-n", "2", "--warmup", "0", "--quiet", "-o", "there"]
    words += ["--header", "X-JWT: abcdef", f"--header=X-Session: {KEYS[1]}", "--extra-body", body]
    monkeypatch.setattr(sys, "argv", ["loadbench", *words])
    ended = invoked(*words)
    assert ended.exit_code == 0, ended.output
    stored = (place / "there/run.json").read_text()
    headers = ("--header", "X-JWT: abcdef", "--header", "X-Session: a")
    without, other, again = (
        invoked("run", "--resume", "there", *headers, *more)
        for more in ((), ("--extra-body", '{"n": 1}'), ("--extra-body", json.dumps({"api_key": KEYS[0]}), "--quiet"))
    )

    assert [key for key in (*KEYS, "abcdef") if key in stored] == []
    assert "ignore_eos" in stored
    assert without.stderr == (
        "loadbench: there: sent api_key in extra_body, whose value is not stored: give it with --extra-body\n"
    )
    assert (without.exit_code, other.exit_code, again.exit_code) == (2, 2, 0)
