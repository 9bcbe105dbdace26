"""`loadbench models verify`: the workshop's checklist, with an exit code that a script can go by."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from loadbench.cli.catalogue import QUESTION, TOKENS
from tests.support.catalogues import Service, serving
from tests.support.command import KEY, models

pytestmark = pytest.mark.usefixtures("place", "no_foundry")

CPU, GPU = "phi-4-mini-instruct-generic-cpu:5", "phi-4-mini-instruct-cuda-gpu:5"


@pytest.fixture
def ollama() -> Iterator[Service]:
    with serving("ollama", rows={"one": {}, "two": {}}, loaded={"one"}) as service:
        yield service


@pytest.fixture
def foundry1() -> Iterator[Service]:
    with serving("foundry1", rows={CPU: {}, GPU: {}}) as service:
        yield service


def verify(*words: object, **variables: str) -> Result:
    return models("verify", *words, **variables)


def document(done: Result) -> Any:
    return json.loads(done.stdout)


# -- the list and the exit code


def test_models_that_are_there_and_answer_are_exit_code_0(ollama: Service) -> None:
    done = verify("-e", ollama.url, "-m", "one,two")

    assert done.exit_code == 0
    assert [re.sub(r"[\d.]+ m?s", "T", line) for line in done.stdout.splitlines()] == [
        "ok    one is listed: as one",
        "ok    one answers: TTFT T: 'Tick tock.'",
        "ok    two is listed: as two",
        "ok    two answers: loaded in T, TTFT T: 'Tick tock.'",
        "all 4 checks are ok",
    ]


def test_one_check_that_fails_is_exit_code_3_and_the_others_are_done(ollama: Service) -> None:
    ollama.broken = {"one"}
    done = verify("-e", ollama.url, "-m", "one,two")

    assert done.exit_code == 3
    assert "FAIL  one answers: http_4xx: HTTP 400: Model not loaded\n" in done.stdout
    assert "ok    two answers: " in done.stdout
    assert done.stdout.endswith("1 of 4 checks failed\n")


def test_a_model_that_is_not_listed_is_exit_code_3_and_is_not_asked(ollama: Service) -> None:
    done = verify("-e", ollama.url, "-m", "none,one")

    assert done.exit_code == 3
    assert re.search(r"^FAIL  none is listed: .* has no model 'none'", done.stdout)
    assert [asked["model"] for asked in ollama.chats] == ["one"]


def test_a_variant_that_is_not_there_fails_and_those_that_are_answer(foundry1: Service) -> None:
    done = verify("-e", foundry1.url, "-m", "phi-4-mini", "--device", "gpu,npu")

    assert done.exit_code == 3
    assert "FAIL  phi-4-mini is listed: phi-4-mini is for CPU, GPU, not for NPU\n" in done.stdout
    assert f"ok    phi-4-mini is listed: as {GPU}\n" in done.stdout
    assert "ok    phi-4-mini answers: " in done.stdout


def test_a_model_that_does_not_load_fails(ollama: Service) -> None:
    ollama.refuses = {"two": "out of memory"}
    done = verify("-e", ollama.url, "-m", "two")

    assert done.exit_code == 3
    assert "FAIL  two answers: it does not load: two: not enough memory for its load" in done.stdout


def test_a_server_that_holds_nothing_fails(foundry1: Service) -> None:
    done = verify("-e", foundry1.url)

    assert done.exit_code == 3
    assert done.stdout.startswith("FAIL  auto is listed: no model is loaded at ")


def test_no_server_is_exit_code_1_in_one_line() -> None:
    done = verify("-e", "127.0.0.1:1")

    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)


def test_a_model_is_left_as_it_was_found(foundry1: Service) -> None:
    verify("-e", foundry1.url, "-m", CPU)

    assert foundry1.loaded == set()
    assert [one.partition("load/")[0] for one in foundry1.asked if "load/" in one] == ["GET /models/", "GET /models/un"]


def test_words_of_a_server_cannot_move_the_cursor(ollama: Service) -> None:
    ollama.text = ("Tick\x1b[2J\r", "tock")
    done = verify("-e", ollama.url)

    assert done.exit_code == 0
    assert "\x1b" not in done.output


def test_a_short_answer_is_asked_for(ollama: Service) -> None:
    verify("-e", ollama.url, BENCH_MAX_TOKENS="500")

    [asked] = ollama.chats
    assert (asked["messages"][0]["content"], asked["max_tokens"]) == (QUESTION, TOKENS)


def test_reasoning_alone_is_an_answer_too(ollama: Service) -> None:
    ollama.reasoning, ollama.text = ("Let me", " see"), ()
    done = verify("-e", ollama.url)

    assert done.exit_code == 0
    assert "'Let me see'" in done.stdout


# -- a scenario's models


def test_the_models_the_server_and_the_headers_of_a_scenario_are_used(place: Path, ollama: Service) -> None:
    (place / "s.toml").write_text(
        f'endpoint = "{ollama.url}"\nmodels = ["two", "gone"]\nrequest_rate = [0.5]\n[headers]\nX-Tenant = "blue"\n'
    )
    done = verify("s.toml")

    assert done.exit_code == 3
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        *("ok    two is listed", "ok    two answers", "FAIL  gone is listed", "1 of 3 checks failed")
    ]
    assert ollama.headers[0]["x-tenant"] == "blue"


def test_a_scenarios_key_is_sent_and_its_variable_told(place: Path, ollama: Service) -> None:
    (place / "s.toml").write_text(f'endpoint = "{ollama.url}"\nmodels = ["one"]\napi_key_env = "TEAM_KEY"\n')
    done = verify("s.toml", TEAM_KEY=KEY)

    assert ollama.headers[0]["authorization"] == f"Bearer {KEY}"
    assert "as given, key from TEAM_KEY" in done.stderr
    assert KEY not in done.output


def test_the_models_of_a_models_json_are_looked_for(place: Path, ollama: Service) -> None:
    (place / "models.json").write_text('{"one": {"size_mb": 5}, "gone": {}}')
    (place / "s.toml").write_text('models = "models.json"\n')
    done = verify("s.toml", "-e", ollama.url, "--json")

    assert done.exit_code == 3
    assert [(one["model"], one["ok"]) for one in document(done)["checks"]] == [
        *(("one", True), ("one", True), ("gone", False))
    ]


def test_options_go_before_the_scenario(place: Path, ollama: Service) -> None:
    (place / "s.toml").write_text('endpoint = "http://127.0.0.1:1"\nmodels = ["gone"]\n')
    done = verify("s.toml", "-e", ollama.url, "-m", "one")

    assert done.exit_code == 0


def test_a_scenario_that_is_not_there_is_exit_code_2(ollama: Service) -> None:
    done = verify("gone.toml", "-e", ollama.url)

    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


# -- for a program


def test_json_is_one_document_of_all_checks_and_nothing_else(ollama: Service) -> None:
    ollama.broken = {"one"}
    done = verify("-e", ollama.url, "--json")
    told = document(done)

    assert (done.exit_code, done.stderr) == (3, "")
    assert (told["ok"], told["server"]) == (False, f"{ollama.url}/v1 (ollama 0.9), as given")
    assert told["checks"] == [
        {"model": "one", "check": "is listed", "ok": True, "text": "as one"},
        {"model": "one", "check": "answers", "ok": False, "text": "http_4xx: HTTP 400: Model not loaded"},
    ]


def test_json_says_that_all_is_well(ollama: Service) -> None:
    done = verify("-e", ollama.url, "--json")

    assert (done.exit_code, document(done)["ok"]) == (0, True)
