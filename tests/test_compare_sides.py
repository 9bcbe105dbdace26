"""From run folders to sides: which levels belong together, that figures are the report's, what is not comparable."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from loadbench import store
from loadbench.compare import NAMES, Verdict, against, between, differences, gather, matched, sides
from loadbench.compare.record import earlier
from loadbench.stats.blocks import SLICES
from loadbench.store import LevelData, Run
from tests.support.compared import folder
from tests.support.comparisons import judge, lap_of, side_of
from tests.support.streams import MS, failed, in_turn, level_data, run, stream, summed


def named(name: str, path: str = "run", began: str = "2026-01-01T00:00:00Z", **changes: object) -> Run:
    """A run of one level of that id."""
    model = name.partition("@")[0]
    return replace(run(level_data(in_turn(8), id=name, model=model, began=began, **changes)), path=Path(path))


def two(*names: str) -> Run:
    levels = [named(name).levels[0] for name in names]
    return run(*levels)


def test_repeats_and_folders_of_one_level_are_runs_of_one_side() -> None:
    first = two("m@c4", "m@c8", "m@c4#2")
    second = named("m@c4", began="2025-12-31T00:00:00Z", path="earlier")

    found = sides([first, second])

    assert {key: side.runs for key, side in found.items()} == {("m", "c4"): 3, ("m", "c8"): 1}
    assert [lap.run for lap in found["m", "c4"].laps] == ["earlier", "run", "run"]


def test_the_closing_level_stands_with_the_first_and_is_no_run_of_its_own() -> None:
    closing = level_data(in_turn(5), id="m@c4#end", model="m", began="2026-01-02T00:00:00Z", closing=True)

    (side,) = sides([run(named("m@c4").levels[0], closing)]).values()

    assert (side.load, side.runs) == ("c4", 1)
    assert side.laps[0].again is not None
    assert len(side.laps[0].again.prompts) == 5


def test_a_models_name_may_hold_what_ids_are_made_of() -> None:
    level = level_data(in_turn(3), id="org/m@2#3@r0.5#2", model="org/m@2#3")

    assert list(sides([run(level)])) == [("org/m@2#3", "r0.5")]


def test_levels_that_did_not_run_to_their_end_or_have_no_completed_request_are_left_out() -> None:
    for status in ("interrupted", "incomplete", "failed", "skipped"):
        assert sides([named("m@c1", status=status)]) == {}
    assert sides([run(level_data([failed(i) for i in range(5)]))]) == {}


def test_sides_are_matched_by_model_and_load() -> None:
    base, new = sides([two("m@c1", "m@c4", "n@c1")]), sides([two("m@c4", "m@c8", "n@c1")])

    assert [(one.model, one.load, other.load) for one, other in matched(base, new)] == [
        ("m", "c4", "c4"),
        ("n", "c1", "c1"),
    ]


def test_one_model_a_side_is_matched_whatever_it_is_called() -> None:
    base, new = sides([two("m@c1", "m@c4")]), sides([two("other@c4")])

    assert [(one.load, other.model) for one, other in matched(base, new)] == [("c4", "other")]
    assert matched(base, sides([two("other@c4", "third@c4")])) == []
    both = sides([two("m@c1", "m@c4", "n@c4")])
    assert [(one.model, other.model, one.load) for one, other in against(both, "m", "n")] == [("m", "n", "c4")]


def one_lap(level: LevelData, **scenario: object):
    ((side),) = sides([run(level, scenario=scenario)]).values()
    return side.laps[0]


def test_times_are_those_of_the_measured_requests_that_completed() -> None:
    results = [
        stream(0, warmup=True),
        stream(1, ttft=100),
        failed(2),
        stream(3, ttft=300, prompt="q"),
        stream(4, tokens=1),
    ]

    lap = one_lap(level_data(results))

    assert lap.prompts == ["p", "q", "p"]
    assert lap.values["ttft"].tolist() == [100, 300, 200]
    assert lap.values["e2e"].tolist() == [720, 920, 200]
    assert lap.values["tpot"][:2].tolist() == [20, 20]
    assert np.isnan(lap.values["tpot"][2])
    assert lap.gap_sizes.tolist() == [31, 31, 0]
    assert set(lap.gaps_ms.tolist()) == {20.0}
    assert (lap.output_tokens, lap.token_source, lap.finish_reasons) == (pytest.approx(65 / 3), "usage", {"length": 3})


def test_open_loop_counts_from_due() -> None:
    lap = one_lap(level_data([stream(queued=50)], concurrency=None, request_rate_per_s=1.0))

    assert lap.values["ttft"].tolist() == [250]


def test_whole_answers_have_no_first_token_and_no_gaps() -> None:
    lap = one_lap(level_data([stream()]), stream=False)

    assert np.isnan(lap.values["ttft"]).all()
    assert lap.gaps_ms is None
    assert lap.values["e2e"].tolist() == [820]


def test_bursts_have_no_tpot_and_no_gaps() -> None:
    burst = stream(per_token=0.01, ttft=800)

    lap = one_lap(level_data([burst] * 3))

    assert not {"tpot", "tokens_per_s_per_user", "prefill_tokens_per_s"} & lap.values.keys()
    assert lap.gaps_ms is None


def test_rates_are_the_reports_and_their_slices_add_up_to_them() -> None:
    results = in_turn(12)
    level = level_data(results)
    steady = summed(results)

    lap = one_lap(level)

    for name in ("output_tokens_per_s", "characters_per_s", "input_tokens_per_s", "requests_per_s"):
        flow = lap.flows[name]
        assert flow.per_s == pytest.approx(steady[name], rel=1e-5)
        assert len(flow.slices) == SLICES
        assert flow.slices.sum() / flow.seconds == pytest.approx(flow.per_s)
    assert lap.flows["requests_per_s"].dependent_s == pytest.approx(0.825)


def test_a_window_that_is_too_short_for_a_rate_has_none() -> None:
    assert one_lap(level_data([stream(), stream(1, due=900)])).flows == {}


def test_goodput_and_attainment_are_of_the_bounds() -> None:
    results = [
        structs.replace(one, first_token_ns=one.first_token_ns + (300 * MS if i % 4 == 0 else 0))
        for i, one in enumerate(in_turn(12))
    ]
    level = level_data(results)

    lap = one_lap(level, slo=["ttft_p95=400ms"])
    other = sides([run(level)], slo=["ttft_p95=600ms"])["m", "c1"].laps[0]

    assert lap.outcomes["attainment"].flags.mean() == pytest.approx(0.75)
    assert other.outcomes["attainment"].flags.all()
    assert lap.flows["goodput"].per_s < other.flows["goodput"].per_s
    assert "attainment" not in one_lap(level).outcomes


def test_failures_are_of_what_was_sent_and_cancelled_ones_are_none() -> None:
    results = [stream(), failed(1), failed(2, error="cancelled")]

    assert one_lap(level_data(results)).outcomes["failed"].flags.tolist() == [False, True, False]


def test_a_run_against_a_slower_one_is_judged_from_its_folder_on() -> None:
    def folder(slower: float) -> Run:
        results = [
            stream(i, due=i * 1000, ttft=200 * slower + i % 5, per_token=20 * slower, prompt=f"p{i % 4}")
            for i in range(40)
        ]
        return run(level_data(results))

    (pair,) = matched(sides([folder(1.0)]), sides([folder(1.2)]))
    verdicts = {verdict.metric: verdict for verdict in judge(*pair)}

    assert {verdicts[name].word for name in ("ttft", "tpot", "e2e")} == {"slower"}
    assert verdicts["e2e"].ratio == pytest.approx(1.2, rel=0.01)


def test_runs_before_it_in_its_folder_that_did_the_same_say_how_much_runs_differ(tmp_path: Path) -> None:
    for day, name in enumerate(("oldest", "older", "broken", "busy", "base", "new", "later"), 1):
        info = {"parameters": {"max_tokens": 99}} if name == "busy" else {}
        folder(tmp_path / name, began=f"2026-01-{day:02}T00:00:00Z", seed=day, info=info)
    (tmp_path / "broken" / "run.json").write_text("{", encoding="utf-8")
    (tmp_path / "no run").mkdir()

    new = store.read(tmp_path / "new")

    assert [run.path.name for run in earlier(new, apart=[tmp_path / "base"])] == ["oldest", "older"]
    assert [run.path.name for run in earlier(new)] == ["oldest", "older", "base"]


def test_one_run_a_side_is_judged_by_how_much_earlier_runs_differ(tmp_path: Path) -> None:
    for where, paces in (("steady", (1.0, 1.01, 0.99)), ("wandering", (0.8, 1.3, 1.0))):
        for day, pace in enumerate(paces, 1):
            folder(tmp_path / where / f"before {day}", pace, began=f"2026-01-{day:02}T00:00:00Z", seed=day)
        folder(tmp_path / where / "base", began="2026-02-01T00:00:00Z", seed=8)
        folder(tmp_path / where / "new", 1.25, began="2026-02-02T00:00:00Z", seed=9)

    def judged(where: str) -> Verdict:
        paths = [tmp_path / where / name for name in ("base", "new")]
        groups = [gather([store.read(path)], apart=paths) for path in paths]
        (pair,) = matched(groups[0].sides, groups[1].sides)
        return judge(*pair, ["ttft"])[0]

    assert (judged("steady").word, judged("wandering").word) == ("slower", "can't tell")
    assert "how much runs differ" in judged("steady").method


# -- what makes two sides incomparable

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


def test_a_run_does_not_differ_from_itself_nor_by_the_order_of_keys() -> None:
    assert differences(INFO, copy.deepcopy(INFO)) == []
    assert differences({}, {}) == []
    assert differences(INFO, changed("parameters", "extra_body", to={"b": 2, "a": 1})) == []


@pytest.mark.parametrize("turned", [False, True])
def test_what_one_side_does_not_say_is_a_warning(turned: bool) -> None:
    sides = (INFO, changed("target", "version", to=None))

    (found,) = differences(*(reversed(sides) if turned else sides))

    assert (found.what, found.severity) == ("server version", "warn")
    assert "is unknown for " + ("BASE" if turned else "NEW") in found.text
    assert "b1" in found.text


def test_what_is_compared_on_purpose_is_a_note() -> None:
    (found,) = differences(INFO, changed("target", "version", to="b2"), meant=["server version"])

    assert (found.severity, found.text) == ("note", "server version is compared: b1 against b2")


def test_another_client_of_a_server_elsewhere_is_a_warning_only() -> None:
    for base in (
        changed("target", "base_url", to="http://gpu.lan:8080/v1"),
        INFO | {"telemetry": {"local": False}},  # a tunnel: the address is local, the server is not
    ):
        new = base | {"environment": {"cpu": "Core", "cores": 4, "power": "mains"}}

        found = [(one.what, one.severity) for one in differences(base, new)]

        assert found == [("processor", "warn"), ("cores", "warn")]


def test_the_red_ones_come_first() -> None:
    new = changed("clock", to="user")
    new["prompts"] = {"sha256": "bb"}

    assert [one.severity for one in differences(INFO, new)] == ["red", "warn"]


def test_answers_that_end_differently_are_a_warning() -> None:
    base, new = (
        side_of(lap_of([1.0], finish_reasons=reasons)) for reasons in ({"length": 100}, {"length": 90, "stop": 10})
    )
    near = side_of(lap_of([1.0], finish_reasons={"length": 96, "stop": 4}))

    (found,) = between(base, new)

    assert (found.code, found.severity) == ("V5", "warn")
    assert "length 100 % against length 90 %, stop 10 %" in found.text
    assert between(base, near) == []


OF_ANSWERS: list[tuple[str, Any, Any, str | None]] = [
    # a fact of the answers, of BASE, of NEW; the red gate
    ("output_tokens", 100.0, 119.0, None),
    ("output_tokens", 100.0, 121.0, "V5"),
    ("output_tokens", 121.0, 100.0, "V5"),
    ("output_tokens", None, 100.0, None),
    ("output_tokens", 0.0, 0.0, None),
    ("token_source", "usage", "usage", None),
    ("token_source", "usage", "events", "V6"),
    ("token_source", "mixed", "mixed", "V6"),
    ("token_source", "events", "events", None),
    ("token_source", None, "usage", None),
]


@pytest.mark.parametrize(("fact", "base", "new", "code"), OF_ANSWERS)
def test_answers_of_other_lengths_and_tokens_of_two_sources_are_red(
    fact: str, base: Any, new: Any, code: str | None
) -> None:
    found = between(*(side_of(lap_of([1.0], **{fact: value})) for value in (base, new)))

    assert [(one.code, one.severity) for one in found] == ([(code, "red")] if code else [])
