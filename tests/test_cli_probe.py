"""`loadbench probe`: the answer as it comes, its figures, what is loaded for it, and what is said where it fails."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
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
from tests.support.catalogues import PHI_CPU, PHI_GPU, Case, ServedRuntime, Service, holds, serving
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


# -- what is shown, and what fails


ANSWER = rf"Tick tock\.\n{FIGURES}\n\n"
CLOCK = {
    "an answer and the figures below": Case("", out=f"clock\n{ANSWER}", err=r"/v1 \(openai\), as given$"),
    "reasoning comes before it on lines of its own": Case(
        "", out=r"clock\nLet me think\.\nTick tock\.\nTTFT .*\n\n", server={"reasoning": ("Let me", " think.")}
    ),
    "an answer that ends in its reasoning": Case(
        "", out=r"clock\nLet me\nTTFT .*\n\n", server={"reasoning": ("Let me",), "text": ()}
    ),
    "an answer cannot move the cursor but keeps its lines and spaces": Case(
        "",
        out=r"clock\na\[2Jbc\n\td e f\ng\n.*\n\n",
        server={"text": ("a\x1b[2J\rb\u202ec\x07", "\n\td\u00a0e\u3000f\u2028g", "")},
    ),
    "an answer without text fails": Case("", 1, err="^loadbench: clock: empty: .", server={"text": ()}),
    "a variable that holds no key": Case("--api-key-env MINE", 2, out="", err="^loadbench: .*MINE"),
    "a model that is not there": Case(
        "-m clocks", 1, out="", err="^loadbench: .*has no model 'clocks': did you mean clock\\?"
    ),
    "a model that is not there, for a program": Case("-m clocks --json", 1, out="", err="did you mean clock\\?"),
}


@pytest.mark.parametrize("case", CLOCK.values(), ids=CLOCK)
def test_a_server_with_one_model(case: Case, server: Service) -> None:
    holds(case, server, "probe")


OLLAMA = {
    "a model that fails is one line and the others are asked": Case(
        "-m one,two",
        1,
        out=f"one\ntwo\n{ANSWER}",
        err="^loadbench: one: http_4xx: HTTP 400: Model not loaded$",
        server={"broken": {"one"}},
    ),
    "a model that does not load is one line": Case(
        "-m one,two",
        1,
        out=f"one\ntwo\n{ANSWER}",
        err=r"^loadbench: one: not enough memory for its load \(out of memory\)",
        server={"refuses": {"one": "out of memory"}},
    ),
}


@pytest.mark.parametrize("case", OLLAMA.values(), ids=OLLAMA)
def test_a_server_with_several(case: Case, ollama: Service) -> None:
    holds(case, ollama, "probe")


FOUNDRY = {
    "a model that is loaded stays so": Case("", server={"loaded": {CPU}}, after={"loaded": {CPU}}),
    "a model that fails is unloaded too": Case(f"-m {CPU}", 1, server={"broken": {CPU}}, after={"loaded": set()}),
    "an unload that fails is told and no failure": Case(
        f"-m {CPU}", err=f"^{CPU}: not unloaded: ", server={"keeps": {CPU}}
    ),
    "a device that is not there is one line and the others are asked": Case(
        "-m phi-4-mini --device cpu,npu",
        1,
        out=f"{CPU}\n{ANSWER}",
        err="^loadbench: phi-4-mini is for CPU, GPU, not for NPU$",
    ),
    "where no device is there nothing is asked": Case("-m phi-4-mini --device npu", 1, out="", after={"chats": []}),
}


@pytest.mark.parametrize("case", FOUNDRY.values(), ids=FOUNDRY)
def test_a_foundry_local_service(case: Case, foundry1: Service) -> None:
    holds(case, foundry1, "probe")


def test_a_program_reads_what_failed_and_why(ollama: Service, foundry1: Service) -> None:
    ollama.refuses, ollama.broken = {"one": "out of memory"}, {"two"}
    done = probe("-e", ollama.url, "-m", "one,two", "--json")
    absent, there = objects(probe("-e", foundry1.url, "-m", "phi-4-mini", "--device", "gpu,npu", "--json"))

    assert done.exit_code == 1
    assert [(one["model"], one["error"]) for one in objects(done)] == [("one", "load"), ("two", "http_4xx")]
    assert (absent["model"], absent["device"], absent["error"]) == ("phi-4-mini", "NPU", "absent")
    assert (there["model"], there["error"], there["device"]) == (GPU, None, "GPU")
    assert (there["execution_provider"], there["load_s"] >= 0) == ("CUDAExecutionProvider", True)


@pytest.mark.parametrize("address", ["locked", "nobody"])
def test_where_nobody_lets_it_in_one_line_says_what_to_do(address: str, locked: Simulator) -> None:
    done = probe("-e", locked.url if address == "locked" else "127.0.0.1:1")

    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert ("--api-key-env" if address == "locked" else "connection refused") in done.stderr


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


@pytest.mark.parametrize(
    ("words", "variables", "asked"),
    [
        ([], {}, ("one", PROMPT, 64, 0.0)),
        (["--prompt", "Why?", "--max-tokens", "9", "--temperature", "0.5"], {}, ("one", "Why?", 9, 0.5)),
        (
            [],
            {"BENCH_MODELS": "two", "BENCH_PROMPT": "Why, then?", "BENCH_MAX_TOKENS": "5", "BENCH_TEMPERATURE": "1"},
            ("two", "Why, then?", 5, 1.0),
        ),
    ],
    ids=["a question about load tests that repeats", "options", "the workshop's variables"],
)
def test_the_question_and_its_limits(
    ollama: Service, words: list[str], variables: dict[str, str], asked: tuple[object, ...]
) -> None:
    ollama.loaded = {"one"}
    probe("-e", ollama.url, *words, **variables)

    [body] = ollama.chats
    assert (body["model"], body["messages"][0]["content"], body["max_tokens"], body["temperature"]) == asked
    assert (len(body["messages"]), body["stream"]) == (1, True)


@pytest.mark.parametrize("all_of_them", ["all", "auto"])
def test_all_models_are_those_at_hand(ollama: Service, all_of_them: str) -> None:
    ollama.loaded = {"one"}
    done = probe("-e", ollama.url, "--json", BENCH_MODELS=all_of_them)

    assert [one["model"] for one in objects(done)] == ["one"]


def test_the_service_of_the_environment_is_asked(server: Service) -> None:
    done = probe(FOUNDRY_LOCAL_ENDPOINT=server.url)

    assert done.exit_code == 0
    assert done.stderr == f"{server.url}/v1 (openai), FOUNDRY_LOCAL_ENDPOINT\n"


@pytest.mark.parametrize(
    ("words", "variables", "told"),
    [
        (["--header", "X-Tenant: blue", "--api-key-env", "MINE"], {"MINE": KEY, "API_KEY": "other"}, "MINE"),
        (["--header", "X-Tenant: blue"], {"API_KEY": KEY}, "API_KEY"),
    ],
)
def test_headers_and_the_key_reach_the_server(
    server: Service, words: list[str], variables: dict[str, str], told: str
) -> None:
    done = probe("-e", server.url, *words, **variables)

    [headers] = server.headers
    assert (headers["authorization"], headers["x-tenant"]) == (f"Bearer {KEY}", "blue")
    assert server.keys == {f"Bearer {KEY}"}
    assert done.stderr == f"{server.url}/v1 (openai), as given, key from {told}\n"
    assert KEY not in done.output


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


def test_a_model_larger_than_the_free_memory_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "free_memory_bytes", lambda: 1_000_000_000)
    with serving("ollama", rows={"large": {"size": 2_000_000_000}}) as service:
        done = probe("-e", service.url)

    assert "Warning: large needs about 2.4 GB of memory" in done.stderr


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
