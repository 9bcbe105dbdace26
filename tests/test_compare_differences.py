"""What makes two sides incomparable: each difference named, with both values and how bad it is."""

import copy
from typing import Any

import pytest

from loadbench.compare import NAMES, between, differences
from tests.support.comparisons import lap_of, side_of

INFO: dict[str, Any] = {
    "levels": [{"model": "phi", "device": "CPU", "execution_provider": "CPUExecutionProvider"}],
    "models": [{"model": "phi", "ran": {"device": "CPU", "execution_provider": "CPUExecutionProvider"}}],
    "target": {"kind": "llama.cpp", "version": "b1", "base_url": "http://127.0.0.1:8080/v1"},
    "prompts": {"sha256": "aa"},
    "parameters": {"max_tokens": 32, "temperature": 0.0, "extra_body": {"a": 1, "b": 2}, "stream": True},
    "scenario": {
        "system": None,
        "distinct_prompts": False,
        "request_rate": None,
        "arrivals": "poisson",
        "requests": 60,
        "duration": None,
        "warmup": None,
        "slo": [],
    },
    "environment": {"cpu": "Ryzen", "cores": 8, "power": "mains"},
    "clock": "kernel",
    "versions": {"loadbench": "0.1.0"},
}


def changed(*path: str, to: Any) -> dict[str, Any]:
    info = copy.deepcopy(INFO)
    place: Any = info
    for name in path[:-1]:
        place = place[int(name)] if isinstance(place, list) else place[name]
    place[path[-1]] = to
    return info


CASES = [
    # what changes, to; its name, severity
    (("levels", "0", "model"), "qwen", "model", "red"),
    (("models", "0", "ran"), {"device": "GPU", "execution_provider": "CPUExecutionProvider"}, "device", "red"),
    (("models", "0", "ran"), {"device": "CPU", "execution_provider": "Other"}, "execution provider", "red"),
    (("target", "kind"), "ollama", "server", "red"),
    (("target", "version"), "b2", "server version", "red"),
    (("endpoints",), [{"weight": 3}, {"weight": 1}], "endpoints", "red"),
    (("prompts", "sha256"), "bb", "prompts", "red"),
    (("parameters", "max_tokens"), 64, "max_tokens", "red"),
    (("parameters", "temperature"), 0.7, "temperature", "red"),
    (("parameters", "extra_body"), {"a": 1}, "extra_body", "red"),
    (("parameters", "stream"), False, "stream", "red"),
    (("scenario", "system"), "Be brief.", "system message", "red"),
    (("scenario", "distinct_prompts"), True, "distinct_prompts", "red"),
    (("scenario", "request_rate"), [2.0], "load", "red"),
    (("scenario", "requests"), 30, "requests", "warn"),
    (("scenario", "duration"), "30s", "duration", "warn"),
    (("scenario", "warmup"), 3, "warmup", "warn"),
    (("scenario", "slo"), ["ttft_p95=1s"], "slo", "warn"),
    (("environment", "cpu"), "Core", "processor", "red"),
    (("environment", "cores"), 4, "cores", "red"),
    (("environment", "power"), "battery", "power", "warn"),
    (("clock",), "user", "clock", "warn"),
    (("versions", "loadbench"), "0.2.0", "loadbench version", "warn"),
]


@pytest.mark.parametrize(("path", "to", "what", "severity"), CASES)
def test_each_difference_is_named_with_both_values(path: tuple[str, ...], to: Any, what: str, severity: str) -> None:
    (found,) = differences(INFO, changed(*path, to=to))

    assert (found.code, found.what, found.severity) == ("V8", what, severity)
    assert found.base != found.new
    for value in (found.base, found.new):
        assert str("unset" if value is None else value) in found.text


def test_every_fact_has_its_case() -> None:
    assert {what for _, _, what, _ in CASES} == set(NAMES)


def test_a_run_does_not_differ_from_itself() -> None:
    assert differences(INFO, copy.deepcopy(INFO)) == []
    assert differences({}, {}) == []


def test_keys_in_another_order_are_no_difference() -> None:
    assert differences(INFO, changed("parameters", "extra_body", to={"b": 2, "a": 1})) == []


@pytest.mark.parametrize("turned", [False, True])
def test_what_one_side_does_not_say_is_a_warning(turned: bool) -> None:
    sides = (INFO, changed("target", "version", to=None))

    (found,) = differences(*(reversed(sides) if turned else sides))

    assert (found.what, found.severity) == ("server version", "warn")
    assert "not known of " + ("BASE" if turned else "NEW") in found.text
    assert "b1" in found.text


def test_what_is_compared_on_purpose_is_a_note() -> None:
    (found,) = differences(INFO, changed("target", "version", to="b2"), meant=["server version"])

    assert (found.severity, found.text) == ("note", "server version is compared: b1 against b2")


def test_another_client_of_a_server_elsewhere_is_a_warning_only() -> None:
    base = changed("target", "base_url", to="http://gpu.lan:8080/v1")
    new = copy.deepcopy(base) | {"environment": {"cpu": "Core", "cores": 4, "power": "mains"}}

    assert [(one.what, one.severity) for one in differences(base, new)] == [("processor", "warn"), ("cores", "warn")]


def test_what_telemetry_says_of_the_place_counts_more_than_the_address() -> None:
    # A tunnel: the address is local, the server is not.
    base = INFO | {"telemetry": {"local": False}}
    new = base | {"environment": {"cpu": "Core", "cores": 8, "power": "mains"}}

    assert [one.severity for one in differences(base, new)] == ["warn"]


def test_the_red_ones_come_first() -> None:
    new = changed("clock", to="user")
    new["prompts"] = {"sha256": "bb"}

    assert [one.severity for one in differences(INFO, new)] == ["red", "warn"]


LENGTHS = [(100.0, 119.0, False), (100.0, 121.0, True), (121.0, 100.0, True), (None, 100.0, False), (0.0, 0.0, False)]


@pytest.mark.parametrize(("base", "new", "red"), LENGTHS)
def test_output_lengths_more_than_a_fifth_apart_are_red(base: float | None, new: float | None, red: bool) -> None:
    found = between(*(side_of(lap_of([1.0], output_tokens=tokens)) for tokens in (base, new)))

    assert [(one.code, one.severity) for one in found] == ([("V5", "red")] if red else [])


def test_answers_that_end_differently_are_a_warning() -> None:
    base, new = (
        side_of(lap_of([1.0], finish_reasons=reasons)) for reasons in ({"length": 100}, {"length": 90, "stop": 10})
    )
    near = side_of(lap_of([1.0], finish_reasons={"length": 96, "stop": 4}))

    (found,) = between(base, new)

    assert (found.code, found.severity) == ("V5", "warn")
    assert "length 100 % against length 90 %, stop 10 %" in found.text
    assert between(base, near) == []


SOURCES = [
    ("usage", "usage", False),
    ("usage", "events", True),
    ("mixed", "mixed", True),
    ("events", "events", False),
    (None, "usage", False),
]


@pytest.mark.parametrize(("base", "new", "red"), SOURCES)
def test_tokens_of_two_sources_are_red(base: str | None, new: str | None, red: bool) -> None:
    found = between(*(side_of(lap_of([1.0], token_source=source)) for source in (base, new)))

    assert [(one.code, one.severity) for one in found] == ([("V6", "red")] if red else [])
