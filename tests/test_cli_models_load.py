"""`loadbench models load` and `unload`: what is told of time and memory, what is refused, and the exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import Result

from loadbench import telemetry
from loadbench.cli import models as commands
from loadbench.errors import how_to_install
from loadbench.serve import foundry
from tests.support.catalogues import Service, serving
from tests.support.command import KEY, models

pytestmark = pytest.mark.usefixtures("place", "no_foundry")

GB = 1_000_000_000
CPU, GPU = "phi-4-mini-instruct-generic-cpu:5", "phi-4-mini-instruct-cuda-gpu:5"
MEMORY = r"; the server's memory: [\d.]+ [MG]B, now [\d.]+ [MG]B"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "SETTLE_S", 0.0)


@pytest.fixture
def ollama() -> Iterator[Service]:
    with serving("ollama", rows={"one": {"size": GB}, "two": {"size": 4 * GB}}, loaded={"one"}) as service:
        yield service


@pytest.fixture
def foundry1() -> Iterator[Service]:
    with serving("foundry1", rows={CPU: {}, GPU: {}}) as service:
        yield service


def objects(done: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def errors(done: Result) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("loadbench: ")]


# -- load


def test_a_model_is_loaded_with_its_time_its_device_and_the_memory(ollama: Service) -> None:
    done = models("load", "two", "-e", ollama.url)

    assert done.exit_code == 0
    assert re.fullmatch(rf"two: loaded in [\d.]+ m?s on CPU{MEMORY}\n", done.stdout)
    assert ollama.loaded == {"one", "two"}


def test_json_tells_time_device_and_memory(ollama: Service) -> None:
    ollama.on_gpu = {"two"}
    [said] = objects(models("load", "two", "-e", ollama.url, "--json"))

    assert (said["model"], said["action"], said["already"], said["device"]) == ("two", "load", False, "GPU")
    assert said["load_s"] >= 0
    assert min(said["memory_before_bytes"], said["memory_after_bytes"]) > 1_000_000


def test_a_model_that_is_loaded_is_left_alone(ollama: Service) -> None:
    done = models("load", "one", "-e", ollama.url)

    assert (done.exit_code, done.stdout) == (0, "one: loaded already\n")
    assert "POST /api/generate" not in ollama.asked


def test_one_variant_is_loaded_by_its_device(foundry1: Service) -> None:
    done = models("load", "phi-4-mini", "--device", "gpu", "-e", foundry1.url)

    assert done.exit_code == 0
    assert foundry1.loaded == {GPU}
    assert "on GPU (CUDAExecutionProvider)" in done.stdout


def test_one_variant_is_loaded_by_its_execution_provider(foundry1: Service) -> None:
    models("load", "phi-4-mini", "--ep", "cpu", "-e", foundry1.url)

    assert foundry1.loaded == {CPU}


def test_a_service_that_chooses_another_variant_is_refused_and_the_choice_undone() -> None:
    with serving("foundry2", rows={CPU: {}, GPU: {}}, aliases={"phi-4-mini": GPU}) as service:
        done = models("load", "phi-4-mini", "--device", "cpu", "-e", service.url)

    assert done.exit_code == 1
    assert errors(done) == [
        f"loadbench: {CPU}: the service loads {GPU} for that alias: measure that one with -m, or leave out --device "
        "and --ep"
    ]
    assert service.loaded == set()


def test_a_model_larger_than_the_free_memory_is_warned_of_and_loaded(
    ollama: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "free_memory_bytes", lambda: 3 * GB)
    done = models("load", "two", "-e", ollama.url)

    assert done.exit_code == 0
    assert "Warning: two needs about 4.8 GB of memory (4.0 GB of weights and its context), but 3.0 GB" in done.stderr


def test_a_model_that_fits_is_not_warned_of(ollama: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "free_memory_bytes", lambda: 8 * GB)

    assert "Warning" not in models("load", "two", "-e", ollama.url).stderr


def test_a_refusal_is_one_line_and_the_other_models_are_loaded(ollama: Service) -> None:
    ollama.rows |= {"three": {}}
    ollama.refuses = {"two": "model requires more system memory"}
    done = models("load", "two", "three", "-e", ollama.url)

    assert done.exit_code == 1
    assert len(errors(done)) == 1
    assert errors(done)[0].startswith("loadbench: two: not enough memory for its load")
    assert "three" in ollama.loaded


def test_a_program_reads_a_refusal(ollama: Service) -> None:
    ollama.refuses = {"two": "broken file"}
    done = models("load", "two", "-e", ollama.url, "--json")

    assert done.exit_code == 1
    [said] = objects(done)
    assert said["model"] == "two"
    assert "broken file" in said["error"]


def test_an_unknown_model_is_one_line_and_nothing_is_loaded(ollama: Service) -> None:
    done = models("load", "two", "tow", "-e", ollama.url)

    assert done.exit_code == 1
    assert len(errors(done)) == 1
    assert ollama.loaded == {"one"}


# -- unload


def test_a_model_is_unloaded_with_the_memory(ollama: Service) -> None:
    done = models("unload", "one", "-e", ollama.url)

    assert done.exit_code == 0
    assert re.fullmatch(rf"one: unloaded{MEMORY}\n", done.stdout)
    assert ollama.loaded == set()


def test_what_is_not_loaded_needs_no_unload(ollama: Service) -> None:
    done = models("unload", "two", "-e", ollama.url)

    assert (done.exit_code, done.stdout) == (0, "two: not loaded\n")
    assert "POST /api/generate" not in ollama.asked


def test_all_unloads_all_that_are_loaded_and_no_others(ollama: Service) -> None:
    ollama.loaded = {"one", "two"}
    ollama.rows |= {"three": {}}
    done = models("unload", "--all", "-e", ollama.url, "--json")

    assert done.exit_code == 0
    assert [(said["model"], said["already"]) for said in objects(done)] == [("one", False), ("two", False)]
    assert ollama.loaded == set()


def test_where_nothing_is_loaded_all_is_nothing(ollama: Service) -> None:
    ollama.loaded = set()
    done = models("unload", "--all", "-e", ollama.url)

    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.endswith(f"no model is loaded at {ollama.url}/v1\n")


@pytest.mark.parametrize("words", [[], ["one", "--all"]])
def test_names_or_all_but_not_both_are_to_be_given(ollama: Service, words: list[str]) -> None:
    done = models("unload", *words, "-e", ollama.url)

    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "all with --all" in done.stderr


def test_an_unload_that_is_refused_is_exit_code_1(ollama: Service) -> None:
    ollama.keeps = {"one"}
    done = models("unload", "--all", "-e", ollama.url)

    assert (done.exit_code, len(errors(done))) == (1, 1)


# -- where


@pytest.mark.parametrize("words", [["load", "m"], ["unload", "--all"]])
def test_a_server_that_holds_what_it_was_started_with_is_one_line(words: list[str]) -> None:
    with serving("openai", rows={"m": {}}) as service:
        done = models(*words, "-e", service.url)

    assert (done.exit_code, done.stdout) == (1, "")
    assert errors(done) == [
        f"loadbench: {service.url}/v1 (openai) offers no loading and unloading over HTTP: it holds what it was started "
        "with"
    ]


def test_without_a_service_one_line_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foundry, "available", lambda: None)
    done = models("load", "phi-4-mini")

    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "`loadbench serve foundry -m NAME` starts one" in done.stderr


def test_without_a_service_and_the_sdk_one_line_says_what_to_install() -> None:
    done = models("load", "phi-4-mini")

    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert how_to_install("foundry") in done.stderr


def test_the_service_of_the_environment_is_told_with_the_key_that_it_gets(ollama: Service) -> None:
    done = models("load", "two", FOUNDRY_LOCAL_ENDPOINT=ollama.url, API_KEY=KEY)

    assert done.stderr.startswith(f"{ollama.url}/v1 (ollama 0.9), FOUNDRY_LOCAL_ENDPOINT, key from API_KEY\n")
    assert ollama.keys == {f"Bearer {KEY}"}
