"""scenario: shapes, lengths and pauses in the small grammars, and what a scenario makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench import scenario
from loadbench.errors import ScenarioError, UsageError
from loadbench.scenario import Length, Pause, Scenario, Shape
from loadbench.scenario.bounds import Duration

rates = st.floats(0.01, 1000).map(lambda rate: float(f"{rate:.4g}"))
times = st.floats(0.1, 3600).map(lambda time: Duration(float(f"{time:.4g}")))


# -- shapes


@pytest.mark.parametrize(
    ("text", "normal", "name", "duration_s", "requests"),
    [
        ("ramp 1..8 over 120s", "ramp 1..8 over 2m", "ramp1-8", 120, 540),
        ("  RAMP 0.5 .. 2  over 3", "ramp 0.5..2 over 3s", "ramp0.5-2", 3, 3.75),
        ("ramp 8..1 over 2m", "ramp 8..1 over 2m", "ramp8-1", 120, 540),  # downwards
        ("steps 1, 2,4 each 30s", "steps 1,2,4 each 30s", "steps1-2-4", 90, 210),
        ("steps 3 each 10s", "steps 3 each 10s", "steps3", 10, 30),  # one step is a constant rate for a time
        # After a spike, the base for as long as before it.
        ("spike 1 to 10 at 30s for 10s", "spike 1 to 10 at 30s for 10s", "spike1-10", 70, 160),
        ("spike 1 to 10 at 30s for 10s over 2m", "spike 1 to 10 at 30s for 10s over 2m", "spike1-10", 120, 210),
        ("spike 2 to 4 at 5s for 5s over 10s", "spike 2 to 4 at 5s for 5s over 10s", "spike2-4", 10, 30),  # no rest
    ],
)
def test_a_shape_is_read(text: str, normal: str, name: str, duration_s: float, requests: float) -> None:
    shape = Shape.parse(text)

    assert (shape.text, shape.name) == (normal, name)
    assert (shape.duration_s, shape.requests) == (pytest.approx(duration_s), pytest.approx(requests))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("flat 3", '"flat 3" is no shape: write "ramp 1..8 over 2m", "steps 1,2,4 each 30s" or '),
        ("", '"" is no shape: write "ramp 1..8 over 2m", "steps'),
        ("ramp 1 to 8 over 2m", '"ramp 1 to 8 over 2m" is no shape: write "ramp 1..8'),
        ("ramp 1..x over 2m", '"ramp 1..x over 2m": "x" must be a number of requests per second, 0 to 1000000'),
        ("ramp -1..2 over 2m", '"ramp -1..2 over 2m": "-1" must be a number of requests per second, 0 to 1000000'),
        ("ramp 1..nan over 2m", '"ramp 1..nan over 2m": "nan" must be a number of requests per second'),
        ("steps 1,,2 each 2s", '"steps 1,,2 each 2s": "" must be a number of requests per second'),
        ("ramp 1..2 over 2parsec", '"ramp 1..2 over 2parsec": unknown unit "parsec" in "2parsec": use ms, s, m or h'),
        ("ramp 1..2 over 0s", '"ramp 1..2 over 0s": 0s must be more than 0'),
        ("steps 0,0 each 1s", '"steps 0,0 each 1s" starts no request: give a rate above 0'),
        ("spike 1 to 2 at 5s for 5s over 6s", '"spike 1 to 2 at 5s for 5s over 6s": the spike ends after the shape'),
    ],
)  # fmt: skip
def test_what_is_no_shape_is_one_line_with_the_remedy(text: str, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        Shape.parse(text)

    assert str(caught.value).startswith(line)


@settings(max_examples=60)
@given(rates, rates, times, times)
def test_a_shape_reads_back_from_its_own_text(low: float, high: float, first: Duration, then: Duration) -> None:
    for text in (f"ramp {low}..{high} over {first}", f"spike {low} to {high} at {first} for {then}"):
        shape = Shape.parse(text)

        assert Shape.parse(shape.text) == shape


def test_each_shape_of_a_scenario_is_a_level_at_its_mean_rate() -> None:
    levels = Scenario(shape=["ramp 1..8 over 2m", "steps 1,2 each 30s"], repeat=2).levels(["m"])

    assert [level.id for level in levels] == ["m@ramp1-8", "m@steps1-2", "m@steps1-2#2", "m@ramp1-8#2"]
    assert [level.request_rate_per_s for level in levels[:2]] == [4.5, 1.5]
    assert [level.shape for level in levels[:2]] == ["ramp 1..8 over 2m", "steps 1,2 each 30s"]
    assert {level.concurrency for level in levels} == {None}


def test_shapes_that_differ_in_their_times_alone_have_ids_of_their_own() -> None:
    levels = Scenario(shape=["ramp 1..8 over 1m", "ramp 1..8 over 2m", "ramp 1..8 over 120s"]).levels(["m"])

    assert [level.id for level in levels] == [
        "m@ramp-1-8-over-1m",
        "m@ramp-1-8-over-2m",
        "m@ramp-1-8-over-2m#2",  # written twice
    ]


def test_a_shape_ends_by_itself_and_is_measured_from_its_beginning() -> None:
    scene = Scenario(shape="ramp 1..8 over 2m")
    [level] = scene.levels(["m"])

    assert (scene.requests_for(level), scene.warmup_for(level)) == (None, 0)


def test_a_trace_is_a_level_that_names_its_file_and_speed() -> None:
    [level] = Scenario(trace="traces/day.jsonl", trace_speed=2.5).levels(["m"])
    [plain] = Scenario(trace="day.csv").levels(["m"])

    assert (level.id, level.shape, level.is_replay) == ("m@trace-x2.5", "trace day.jsonl x2.5", True)
    assert (plain.id, plain.shape) == ("m@trace", "trace day.csv")


def test_a_trace_is_found_beside_its_scenario(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('trace = "day.jsonl"')

    assert scenario.read(tmp_path / "s.toml").trace == str(tmp_path / "day.jsonl")


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"shape": "ramp"}, 'shape: "ramp" is no shape: write "ramp 1..8'),
        ({"shape": ["ramp 1..2 over 1s", "rise"]}, 'shape[1]: "rise" is no shape'),
        ({"shape": []}, "shape is []: must not be empty"),
        ({"shape": 3}, "shape is 3: must be a text or a list"),
        ({"shape": "ramp 1..2 over 1s", "concurrency": [1]}, "concurrency and shape are both given: keep one"),
        ({"trace": "a.csv", "request_rate": [1]}, "request_rate and trace are both given: keep one"),
        ({"trace": "a.xls"}, 'trace is "a.xls": must be the path of a .jsonl or .csv file'),
        ({"trace": "a.csv", "prompts": ["x"]}, "prompts and trace are both given: a trace says how long its prompts"),
        ({"trace": "a.csv", "input_length": "3"}, "input_length and trace are both given: a trace says"),
        ({"trace": "a.csv", "output_length": "3"}, "output_length and trace are both given: a trace says"),
        ({"trace": "a.csv", "trace_speed": 0}, "trace_speed is 0: must be more than 0"),
        ({"trace_speed": 2}, "trace_speed is 2: give a trace to replay, or leave it out"),
        ({"think_time": "soon"}, 'think_time: "soon" is no duration: write 500ms, 30s, 5m, 1h or 1m30s'),
        ({"think_time": "2s", "request_rate": [1]}, "think_time and request_rate are both given: users pause in"),
        ({"think_time": "often 2s"}, 'think_time: "often 2s" is no pause: write 2s or exponential 2s'),
        ({"think_time": "0s"}, 'think_time: "0s" must be more than 0; leave it out'),
        ({"turns": 0}, "turns is 0: must be at least 1"),
        ({"input_length": "many"}, 'input_length: "many" is no length: write tokens normal 512 128, words 200 or'),
        ({"input_length": "3", "prompts": ["x"]}, "prompts and input_length are both given: keep the prompts, or"),
        ({"output_length": "words 3"}, 'output_length: "words 3" is no length: write 128, normal 128 32'),
        ({"shared_prefix": 0.5}, "shared_prefix is for prompts that are made up: give their input_length"),
        ({"shared_prefix": 50, "input_length": "9"}, "shared_prefix is 50: must be at most 1"),
    ],
)  # fmt: skip
def test_a_fault_names_place_value_and_remedy(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario.from_json(fields, "s.toml")

    assert str(caught.value).startswith(f"s.toml: {line}")


# -- lengths


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("200", Length("words", "fixed", 200)),
        ("words 200", Length("words", "fixed", 200)),
        ("characters fixed 800", Length("characters", "fixed", 800)),
        ("Tokens  normal 512 128", Length("tokens", "normal", 512, 128)),
        ("uniform 16 256", Length("words", "uniform", 16, 256)),
        ("tokens lognormal 512 300", Length("tokens", "lognormal", 512, 300)),
    ],
)
def test_a_length_is_read(text: str, length: Length) -> None:
    assert Length.parse(text) == length


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "is no length"),
        ("bytes 3", "is no length"),
        ("normal 3", "is no length"),  # without a deviation
        ("3 4", "is no length"),
        ("tokens x", "is no length"),
        ("0", "a length must be 1 to 1000000"),
        ("normal 9 -1", "a deviation at least 0"),
        ("nan", "a length must be 1 to 1000000"),
        ("uniform 9 3", "uniform goes from the lower to the higher: write uniform 3 9"),
    ],
)
def test_what_is_no_length_is_said(text: str, line: str) -> None:
    with pytest.raises(UsageError, match=line):
        Length.parse(text)


def drawn(text: str, count: int = 20_000, seed: int = 1) -> np.ndarray:
    return np.array(Length.parse(text).draw(np.random.default_rng(seed), count))


@pytest.mark.parametrize(
    ("text", "mean", "deviation"),
    [
        ("300", 300, 0),
        ("normal 300 60", 300, 60),
        ("uniform 100 500", 300, 400 / 12**0.5),
        ("lognormal 300 150", 300, 150),  # of the length, not of its logarithm
        ("lognormal 300 0", 300, 0),
    ],
)
def test_lengths_have_the_mean_and_deviation_that_were_asked_for(text: str, mean: float, deviation: float) -> None:
    found = drawn(text)

    assert found.mean() == pytest.approx(mean, rel=0.02)
    assert found.std() == pytest.approx(deviation, rel=0.03, abs=0.5)


def test_a_uniform_length_takes_each_whole_number_alike_its_bounds_too() -> None:
    values, counts = np.unique(drawn("uniform 3 6"), return_counts=True)

    assert values.tolist() == [3, 4, 5, 6]
    assert counts / 20_000 == pytest.approx(0.25, rel=0.05)


def test_no_length_is_below_one() -> None:
    assert drawn("normal 2 50").min() == 1


def test_the_seed_decides_the_lengths() -> None:
    assert drawn("normal 300 60", 9).tolist() == drawn("normal 300 60", 9).tolist()
    assert drawn("normal 300 60", 9).tolist() != drawn("normal 300 60", 9, seed=2).tolist()


# -- pauses


@pytest.mark.parametrize(
    ("text", "pause"),
    [("2s", Pause(2.0)), ("constant 500ms", Pause(0.5)), ("Exponential  1m", Pause(60.0, exponential=True))],
)
def test_a_pause_is_read(text: str, pause: Pause) -> None:
    assert Pause.parse(text) == pause


def test_an_exponential_pause_varies_as_much_as_its_mean_and_a_constant_one_not_at_all() -> None:
    rng = np.random.default_rng(1)
    chance = np.array([Pause(2.0, exponential=True).draw_ns(rng) for _ in range(20_000)]) / 1e9

    assert chance.mean() == pytest.approx(2, rel=0.03)
    assert chance.std() == pytest.approx(2, rel=0.03)
    assert {Pause(2.0).draw_ns(rng) for _ in range(9)} == {2_000_000_000}
