"""`loadbench probe`: the answer as it comes, its figures, what is loaded for it, and what is said where it fails."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import click
import pytest
from click.testing import Result

from loadbench import telemetry
from loadbench.cli import probe as probing
from loadbench.cli.probe import PROMPT, line
from loadbench.runner.connect import Reached, RuntimeControl
from loadbench.serve import foundry, simulator
from loadbench.serve.simulator import Simulator
from loadbench.server import Chosen, ModelFacts, Target
from tests.support.catalogues import PHI_CPU, PHI_GPU, ServedRuntime, Service, serving
from tests.support.command import KEY, invoked
from tests.support.sdk import install
from tests.support.terminals import on_terminal

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("place", "no_foundry")]

CPU, GPU = "phi-4-mini-instruct-generic-cpu:5", "phi-4-mini-instruct-cuda-gpu:5"
FIGURES = r"TTFT [\d.,]+ m?s, 3 tokens(, [\d,.]+ tokens/s after the first)?, E2E [\d.,]+ m?s"


@pytest.fixture
def server() -> Iterator[Service]:
    with serving("openai", rows={"clock": {}}) as service:
        yield service


@pytest.fixture
def ollama() -> Iterator[Service]:
    with serving("ollama", rows={"one": {}, "two": {}}) as service:
        yield service


@pytest.fixture
def foundry1() -> Iterator[Service]:
    with serving("foundry1", rows={CPU: {}, GPU: {}}) as service:
        yield service


def probe(*words: object, **variables: str) -> Result:
    """`loadbench probe` in this process; only its own exits are let through."""
    return invoked("probe", *words, **variables)


def objects(done: Result) -> list[dict[str, Any]]:
    return [json.loads(one) for one in done.stdout.split("\n") if one]


# -- what is shown


def test_a_model_its_answer_and_the_figures_below_are_shown(server: Service) -> None:
    done = probe("-e", server.url)

    assert done.exit_code == 0
    assert re.fullmatch(rf"clock\nTick tock\.\n{FIGURES}\n\n", done.stdout)
    assert done.stderr == f"{server.url}/v1 (openai), as given\n"


def test_an_answer_is_shown_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    echoed: list[str] = []
    monkeypatch.setattr(probing, "_SHOW_EVERY_S", 0.001)
    with simulator.start(ttft_ms=1, itl_ms=4) as slow:
        monkeypatch.setattr(click, "echo", lambda text="", **_: echoed.append(str(text)))
        probe("-e", slow.url, "--max-tokens", "12")

    assert len([text for text in echoed if text]) > 6


def test_an_answer_that_was_shown_piece_by_piece_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_SHOW_EVERY_S", 0.001)
    with simulator.start(ttft_ms=1, itl_ms=3, reasoning_tokens=5) as slow:
        shown = probe("-e", slow.url, "--max-tokens", "12").stdout.split("\nTTFT")[0]
        [told] = objects(probe("-e", slow.url, "--max-tokens", "12", "--json"))

    assert told["reasoning"]
    assert shown == f"simulator\n{told['reasoning']}\n{told['answer']}".replace("\u2028", "\n")


def test_reasoning_is_shown_before_the_answer_on_lines_of_its_own(server: Service) -> None:
    server.reasoning = ("Let me", " think.")
    done = probe("-e", server.url)

    assert done.stdout.startswith("clock\nLet me think.\nTick tock.\nTTFT ")


def test_an_answer_that_ends_in_its_reasoning_is_shown(server: Service) -> None:
    server.reasoning, server.text = ("Let me",), ()
    done = probe("-e", server.url)

    assert done.exit_code == 0
    assert done.stdout.startswith("clock\nLet me\nTTFT ")


def test_an_answer_cannot_move_the_cursor_but_keeps_its_lines_and_spaces(server: Service) -> None:
    server.text = ("a\x1b[2J\rb\u202ec\x07", "\n\td\u00a0e\u3000f\u2028g", "")
    done = probe("-e", server.url)

    assert done.stdout.startswith("clock\na[2Jbc\n\td e f\ng\n")


def test_a_models_name_cannot_move_the_cursor() -> None:
    with serving("openai", rows={"evil\x1b[2J": {}}) as service:
        done = probe("-e", service.url)

    assert "\x1b" not in done.output


def test_json_is_an_object_a_line_and_a_model_and_nothing_else(ollama: Service) -> None:
    ollama.loaded = {"one", "two"}
    done = probe("-e", ollama.url, "--json")
    said = objects(done)

    assert (done.exit_code, done.stderr) == (0, "")
    assert [one["model"] for one in said] == ["one", "two"]
    first = said[0]
    assert (first["answer"], first["output_tokens"], first["input_tokens"]) == ("Tick tock.", 3, 9)
    assert (first["token_source"], first["finish_reason"], first["error"]) == ("usage", "stop", None)
    assert 0 < first["ttft_ms"] <= first["e2e_ms"]
    assert (first["device"], first["load_s"]) == ("CPU", None)


def test_a_person_sees_the_model_and_its_answer() -> None:
    with serving("openai", rows={"clock": {}}) as service:
        code, screen = on_terminal("probe", "-e", service.url)

    assert code == 0
    assert "clock\nTick tock.\nTTFT " in screen


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "TTFT 50.0 ms, 64 tokens, 100 tokens/s after the first, E2E 680 ms"),
        ({"tokens_per_s": None, "output_tokens": 1}, "TTFT 50.0 ms, 1 token, E2E 680 ms"),
        ({"token_source": "events"}, "TTFT 50.0 ms, 64 tokens (estimated), 100 tokens/s after the first, E2E 680 ms"),
    ],
)
def test_the_figures_in_words(more: dict[str, Any], words: str) -> None:
    said = {"ttft_ms": 50.0, "e2e_ms": 680.0, "output_tokens": 64, "tokens_per_s": 100.0, "token_source": "usage"}

    assert line({**said, **more}) == words


# -- what is asked


def test_the_question_and_its_limits_are_those_of_the_options(server: Service) -> None:
    probe("-e", server.url, "--prompt", "Why?", "--max-tokens", "9", "--temperature", "0.5")

    [asked] = server.chats
    assert asked["messages"] == [{"role": "user", "content": "Why?"}]
    assert (asked["max_tokens"], asked["temperature"], asked["stream"]) == (9, 0.5, True)


def test_without_options_a_question_about_load_tests_is_asked_that_repeats(server: Service) -> None:
    probe("-e", server.url)

    [asked] = server.chats
    assert asked["messages"] == [{"role": "user", "content": PROMPT}]
    assert (asked["max_tokens"], asked["temperature"]) == (64, 0.0)


def test_the_workshops_variables_are_understood(ollama: Service) -> None:
    variables = {"BENCH_MODELS": "two", "BENCH_PROMPT": "Why, then?", "BENCH_MAX_TOKENS": "5"}
    probe("-e", ollama.url, **variables, BENCH_TEMPERATURE="1")

    [asked] = ollama.chats
    assert (asked["model"], asked["messages"][0]["content"]) == ("two", "Why, then?")
    assert (asked["max_tokens"], asked["temperature"]) == (5, 1.0)


@pytest.mark.parametrize("all_of_them", ["all", "auto"])
def test_all_models_are_those_at_hand(ollama: Service, all_of_them: str) -> None:
    ollama.loaded = {"one"}
    done = probe("-e", ollama.url, "--json", BENCH_MODELS=all_of_them)

    assert [one["model"] for one in objects(done)] == ["one"]


def test_the_service_of_the_environment_is_asked(server: Service) -> None:
    done = probe(FOUNDRY_LOCAL_ENDPOINT=server.url)

    assert done.exit_code == 0
    assert done.stderr == f"{server.url}/v1 (openai), FOUNDRY_LOCAL_ENDPOINT\n"


# -- keys and headers


def test_headers_and_a_key_that_is_named_reach_the_server(server: Service) -> None:
    done = probe("-e", server.url, "--header", "X-Tenant: blue", "--api-key-env", "MINE", MINE=KEY, API_KEY="other")

    [headers] = server.headers
    assert (headers["authorization"], headers["x-tenant"]) == (f"Bearer {KEY}", "blue")
    assert server.keys == {f"Bearer {KEY}"}
    assert "as given, key from MINE" in done.stderr


def test_a_key_that_nobody_named_is_sent_and_told(server: Service) -> None:
    done = probe("-e", server.url, API_KEY=KEY)

    assert server.keys == {f"Bearer {KEY}"}
    assert done.stderr == f"{server.url}/v1 (openai), as given, key from API_KEY\n"
    assert KEY not in done.output


def test_a_variable_that_holds_no_key_is_one_line(server: Service) -> None:
    done = probe("-e", server.url, "--api-key-env", "MINE")

    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "MINE" in done.stderr


def test_a_server_that_wants_a_key_says_so_in_one_line(locked: Simulator) -> None:
    done = probe("-e", locked.url)

    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert "--api-key-env" in done.stderr


# -- what is loaded for it


def test_a_model_that_is_not_loaded_is_loaded_first_and_unloaded_after(foundry1: Service) -> None:
    done = probe("-e", foundry1.url, "-m", CPU)
    moves = [one for one in foundry1.asked if "load/" in one or "chat" in one]

    assert done.exit_code == 0
    assert [one.rpartition("/")[0] or one for one in moves] == [
        *("GET /models/load", "POST /v1/chat", "GET /models/unload")
    ]
    assert foundry1.loaded == set()
    assert re.search(rf"{CPU}: loading\n{CPU}: loaded in [\d.]+ s\n", done.stderr)


def test_a_model_that_is_loaded_stays_so(foundry1: Service) -> None:
    foundry1.loaded = {CPU}
    probe("-e", foundry1.url)

    assert foundry1.loaded == {CPU}
    assert not any("load/" in one for one in foundry1.asked)


def test_a_model_of_which_nobody_knows_whether_it_is_loaded_is_asked_as_it_is() -> None:
    runtime: Any = ServedRuntime([PHI_CPU])
    reached = Reached(Target("http://h:1/v1", "ollama"), RuntimeControl(runtime), None)
    none: Any = None
    stage = probing.Stage(reached, "as given", none, none, {})

    async def load_s() -> float | None:
        async with stage.loaded(Chosen("m", "m", ModelFacts("m", loaded=None))) as taken_s:
            return taken_s

    assert anyio.run(load_s) is None
    assert runtime.told == []


def test_the_time_to_load_is_told(foundry1: Service) -> None:
    [said] = objects(probe("-e", foundry1.url, "-m", GPU, "--json"))

    assert said["load_s"] >= 0
    assert (said["device"], said["execution_provider"]) == ("GPU", "CUDAExecutionProvider")


def test_a_model_that_fails_is_unloaded_too(foundry1: Service) -> None:
    foundry1.broken = {CPU}
    done = probe("-e", foundry1.url, "-m", CPU)

    assert done.exit_code == 1
    assert foundry1.loaded == set()


def test_a_model_larger_than_the_free_memory_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "free_memory_bytes", lambda: 1_000_000_000)
    with serving("ollama", rows={"large": {"size": 2_000_000_000}}) as service:
        done = probe("-e", service.url)

    assert "Warning: large needs about 2.4 GB of memory" in done.stderr


def test_an_unload_that_fails_is_told_and_no_failure(foundry1: Service) -> None:
    foundry1.keeps = {CPU}
    done = probe("-e", foundry1.url, "-m", CPU)

    assert done.exit_code == 0
    assert f"{CPU}: not unloaded: " in done.stderr


def test_foundrys_sdk_loads_the_variant_itself_and_serves_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foundry, "has_models", lambda cache: True)
    with serving("foundry2", rows={PHI_CPU.id: {}, PHI_GPU.id: {}}) as service:
        runtime = ServedRuntime([PHI_CPU, PHI_GPU], service=service)
        caches = install(monkeypatch, runtime)
        done = probe("-m", "phi-4-mini", "--device", "gpu", "--cache-dir", place / "mine")

    assert done.exit_code == 0
    assert runtime.told == ["serve", f"load {PHI_GPU.id}", f"unload {PHI_GPU.id}"]
    assert [one["model"] for one in service.chats] == [PHI_GPU.id]
    assert caches == [place / "mine"]
    assert "Foundry Local's own runtime" in done.stderr


# -- what fails


def test_a_model_that_fails_is_one_line_and_the_others_are_asked(ollama: Service) -> None:
    ollama.broken = {"one"}
    done = probe("-e", ollama.url, "-m", "one,two")

    assert done.exit_code == 1
    assert "loadbench: one: http_4xx: HTTP 400: Model not loaded\n" in done.stderr
    assert re.search(rf"one\ntwo\nTick tock\.\n{FIGURES}", done.stdout)


def test_an_answer_without_text_fails(server: Service) -> None:
    server.text = ()
    done = probe("-e", server.url)

    assert done.exit_code == 1
    assert re.search(r"^loadbench: clock: empty: .", done.stderr, re.MULTILINE)


def test_a_model_that_does_not_load_is_one_line(ollama: Service) -> None:
    ollama.refuses = {"one": "out of memory"}
    done = probe("-e", ollama.url, "-m", "one,two")
    lines = [one for one in done.stderr.splitlines() if one.startswith("loadbench: ")]

    assert done.exit_code == 1
    assert len(lines) == 1
    assert lines[0].startswith("loadbench: one: not enough memory for its load (out of memory)")
    assert "two\nTick tock." in done.stdout


def test_a_program_reads_what_failed_and_why(ollama: Service) -> None:
    ollama.refuses, ollama.broken = {"one": "out of memory"}, {"two"}
    done = probe("-e", ollama.url, "-m", "one,two", "--json")

    assert done.exit_code == 1
    assert [(one["model"], one["error"]) for one in objects(done)] == [("one", "load"), ("two", "http_4xx")]


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_model_that_is_not_there_is_one_line(server: Service, more: Sequence[str]) -> None:
    done = probe("-e", server.url, "-m", "clocks", *more)
    errors = [one for one in done.stderr.splitlines() if one.startswith("loadbench: ")]

    assert (done.exit_code, done.stdout, len(errors)) == (1, "", 1)
    assert "has no model 'clocks': did you mean clock?" in errors[0]


def test_a_device_that_is_not_there_is_one_line_and_the_others_are_asked(foundry1: Service) -> None:
    done = probe("-e", foundry1.url, "-m", "phi-4-mini", "--device", "cpu,npu")
    errors = [one for one in done.stderr.splitlines() if one.startswith("loadbench: ")]

    assert done.exit_code == 1
    assert errors == ["loadbench: phi-4-mini is for CPU, GPU, not for NPU"]
    assert done.stdout.startswith(f"{CPU}\nTick tock.\n")


def test_a_program_reads_which_device_is_not_there(foundry1: Service) -> None:
    absent, there = objects(probe("-e", foundry1.url, "-m", "phi-4-mini", "--device", "cpu,npu", "--json"))

    assert (absent["model"], absent["device"], absent["error"]) == ("phi-4-mini", "NPU", "absent")
    assert (there["model"], there["error"]) == (CPU, None)


def test_where_no_device_is_there_nothing_is_asked(foundry1: Service) -> None:
    done = probe("-e", foundry1.url, "-m", "phi-4-mini", "--device", "npu")

    assert (done.exit_code, done.stdout, foundry1.chats) == (1, "", [])


def test_where_nobody_answers_one_line_says_what_to_do() -> None:
    done = probe("-e", "127.0.0.1:1")

    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert "connection refused" in done.stderr
