"""scenario: what a file, an option or run.json says, and one line for everything that is wrong with it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench import prompts, scenario
from loadbench.errors import ScenarioError
from loadbench.scenario import Scenario
from loadbench.scenario.bounds import Duration

SCENARIOS = sorted((Path(__file__).parent.parent / "scenarios").rglob("*.toml"))
FIELDS = Scenario.__struct_fields__


def toml(folder: Path, text: str | bytes, name: str = "s.toml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def fault(folder: Path, text: str | bytes, name: str = "s.toml") -> str:
    """The one line that reading this text gives, without the folder."""
    with pytest.raises(ScenarioError) as caught:
        scenario.read(toml(folder, text, name))
    message = str(caught.value)
    assert message.isprintable()
    return message.replace(f"{folder}/", "")


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_that_we_ship_reads_and_says_what_it_decides(path: Path) -> None:
    scene = scenario.read(path)

    assert scene.name == path.stem
    assert path.read_text("utf-8").startswith("# Decides: ")
    assert prompts.for_scenario(scene)
    assert scene.levels(["m"])
    assert scenario.from_json(json.dumps(scenario.to_builtins(scene)).encode()) == scene


def test_the_scenarios_and_a_profile_for_each_kind_of_machine_are_there() -> None:
    assert [path.stem for path in SCENARIOS if path.parent.name != "profiles"] == [
        *("quickstart", "stress", "summarizer", "sweep"),
    ]
    assert [path.stem for path in SCENARIOS if path.parent.name == "profiles"] == ["cpu", "gpu", "npu", "remote"]


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    written = 'name = "same"\nconcurrency = [1, 4]\nduration = "35s"\n[timeouts]\ntotal = "2m"\n'
    as_json = json.dumps(tomllib.loads(written))

    assert scenario.read(toml(tmp_path, written)) == scenario.read(toml(tmp_path, as_json, "s.json"))


def test_a_scenario_without_a_name_is_called_after_its_file(tmp_path: Path) -> None:
    assert scenario.read(toml(tmp_path, "seed = 2", "night run (2).toml")).name == "night-run-2"


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    assert scenario.read(toml(tmp_path, b"\xef\xbb\xbfseed = 7")).seed == 7


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("concurrency = [1, 2, 0]", "s.toml: concurrency[2] is 0: must be at least 1"),
        ("concurrency = 4", "s.toml: concurrency is 4: must be a list; write [4]"),
        ("concurrency = []", "s.toml: concurrency is []: must not be empty"),
        ("concurrency = [true]", "s.toml: concurrency[0] is true: must be a whole number"),
        ("requests = true", "s.toml: requests is true: must be a whole number"),
        ("concurrency = [1.5]", "s.toml: concurrency[0] is 1.5: must be a whole number"),
        ("concurrency = [9000000]", "s.toml: concurrency[0] is 9000000: must be at most 2000000"),
        ("seed = 99999999999999999999", "s.toml: seed is 99999999999999999999: too large a number"),
        ("request_rate = [-1]", "s.toml: request_rate[0] is -1: must be more than 0"),
        ("request_rate = [nan]", "s.toml: request_rate[0] is nan: must be a finite number"),
        ("temperature = inf", "s.toml: temperature is inf: must be a finite number"),
        ("temperature = 'hot'", 's.toml: temperature is "hot": must be a number'),
        ("arrivals = 'even'", 's.toml: arrivals is "even": must be "poisson" or "constant"'),
        ("concurency = [1]", "s.toml: unknown key concurency; did you mean concurrency?"),
        ("[timeouts]\ntotl = '1s'", "s.toml: unknown key timeouts.totl; did you mean total?"),
        # TOML counts what stands below a table's heading to the table.
        ("[timeouts]\nseed = 1", "s.toml: unknown key timeouts.seed: move it above [timeouts]"),
        ("[extra_body]\nrepeat = 5", "s.toml: extra_body.repeat: move it above [extra_body]"),
        ("[extra_body]\nmodel = 'm'", "s.toml: extra_body.model: not here, it comes from models"),
        ("[extra_body]\nday = 2024-01-01", "s.toml: extra_body.day is a date: JSON has no such type; put it in quotes"),
        ("models = ['a', 'a']", 's.toml: models[1] is "a" again: name each model once'),
        ("prompts = ['a', ' ']", 's.toml: prompts[1] is " ": a prompt must hold text'),
        ("models = 'none.json'", "s.toml: models: none.json: no such file"),
        ("duration = '5 parsecs'", 's.toml: duration: unknown unit "parsecs" in "5 parsecs": use ms, s, m or h'),
        ("duration = 0", "s.toml: duration is 0s: must be more than 0"),
        ("[timeouts]\nidle = true", "s.toml: timeouts.idle: true is no duration: write 500ms, 30s, 5m, 1h or 1m30s"),
        ("slo = ['success=99']", 's.toml: slo[0]: "success=99": a share is at most 1 or 100%: write 99%'),
        ("headers = { X = 1 }", "s.toml: headers.X is 1: must be a text"),
        ('headers = { X = "a\\nb" }', "s.toml: headers.X: a header's value must be printable ASCII on one line"),
        ("name = '../up'", 's.toml: name is "../up": use up to 64 letters, digits, dots, - and _, no spaces'),
        ("seed = = 3", "s.toml, line 1, column 8: not valid TOML: Invalid value"),
        (b"seed = 1\n# \xff", "s.toml, line 2: not UTF-8 (byte 11): save it as UTF-8"),
        (" \n", "s.toml: the file is empty"),
        ("seed = " + "[" * 5000, "s.toml: nested deeper than 50 levels"),
        ("seed = " + "9" * 5000, "s.toml: holds a number with thousands of digits"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_with_file_place_value_and_remedy(tmp_path: Path, text: str | bytes, line: str) -> None:
    assert fault(tmp_path, text) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{\n"seed" 1}', "s.json, line 2, column 8: not valid JSON: expecting ':' delimiter"),
        ('{"seed": NaN}', "s.json: NaN is not a JSON number"),
        ('{"seed": 1, "seed": 2}', 's.json: the key "seed" occurs twice in one object: remove one'),
        ('{"system": "\\ud800"}', 's.json: system is "\\ud800": holds half a character (a lone surrogate)'),
        ("[1]", "s.json: must be a table of settings, not [1]"),
        ("[" * 100_000, "s.json: nested deeper than 50 levels"),
    ],
)  # fmt: skip
def test_a_fault_in_json_is_one_line_too(tmp_path: Path, text: str, line: str) -> None:
    assert fault(tmp_path, text, "s.json") == line


def test_both_loads_at_once_are_refused(tmp_path: Path) -> None:
    assert "concurrency and request_rate are both given" in fault(tmp_path, "concurrency=[1]\nrequest_rate=[1]")


def test_a_key_in_place_of_its_variable_is_never_shown(tmp_path: Path) -> None:
    assert "sk-123" not in fault(tmp_path, 'api_key_env = "sk-123 secret"')


def test_a_missing_file_offers_the_one_of_nearly_that_name(tmp_path: Path) -> None:
    toml(tmp_path, "seed = 1", "quickstart.toml")

    with pytest.raises(ScenarioError, match=r"quickstar\.toml: no such file; did you mean .*quickstart\.toml\?"):
        scenario.read(tmp_path / "quickstar.toml")


def test_models_come_from_the_workshops_models_file_with_all_it_says(tmp_path: Path) -> None:
    toml(tmp_path, '{"phi": {"capabilities": ["chat"], "size_mb": 3600, "note": [1]}, "qwen": {}}', "models.json")
    scene = scenario.read(toml(tmp_path, 'models = "models.json"'))

    assert scene.models == ["phi", "qwen"]
    assert scene.model_facts["phi"] == {"capabilities": ["chat"], "size_mb": 3600, "note": [1]}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"a": {}, "a": {}}', 'models.json: the key "a" occurs twice in one object: remove one'),
        ('["a", "a"]', 'models.json: [1] is "a" again: name each model once'),
        ('{"a": 3}', 'models.json: a is 3: must be a table, as {"size_mb": 3600}'),
        ('{"a": {"size_mb": -1}}', "models.json: a.size_mb is -1: must be a number, at least 0"),
    ],
)
def test_a_wrong_models_file_is_named_with_the_place_in_it(tmp_path: Path, text: str, line: str) -> None:
    toml(tmp_path, text, "models.json")

    assert fault(tmp_path, 'models = "models.json"') == f"s.toml: models: {line}"


def test_levels_go_model_by_model_and_every_second_repeat_backwards() -> None:
    levels = Scenario(concurrency=[1, 4], repeat=2).levels(["a", "b"])

    assert [level.id for level in levels] == [
        *("a@c1", "a@c4", "b@c1", "b@c4"),
        *("b@c4#2", "b@c1#2", "a@c4#2", "a@c1#2"),
    ]


def test_each_model_ends_with_its_first_load_once_more() -> None:
    levels = Scenario(concurrency=[2, 8]).levels(["a", "b"])

    assert [(level.id, level.closing) for level in levels] == [
        *(("a@c2", False), ("a@c8", False), ("a@c2#end", True)),
        *(("b@c2", False), ("b@c8", False), ("b@c2#end", True)),
    ]
    assert (levels[2].concurrency, levels[2].repeat) == (2, 1)  # asked in the same order, by the seed of the first


@pytest.mark.parametrize(
    "asked",
    [
        {"concurrency": [2]},  # a single load would be measured twice
        {"concurrency": [2, 8], "repeat": 2},
        {"concurrency": [2, 8, 2]},
        {"concurrency": [2, 8], "repeat_first": False},
        {"shape": ["ramp 1..8 over 2m", "steps 1,2 each 30s"]},
    ],
)
def test_nothing_is_measured_once_more_where_it_tells_nothing_new(asked: dict[str, Any]) -> None:
    assert not any(level.closing for level in Scenario(**asked).levels(["m"]))


def test_a_load_that_is_listed_twice_is_its_own_second_repeat() -> None:
    levels = Scenario(request_rate=[0.5, 2.0, 0.5]).levels(["m"])

    assert [(level.id, level.repeat) for level in levels] == [("m@r0.5", 1), ("m@r2", 1), ("m@r0.5#2", 2)]


@given(st.lists(st.floats(1e-300, 1e6), min_size=1, max_size=8), st.integers(1, 4), st.lists(st.text("am@c1#2")))
def test_level_ids_are_unique(rates: list[float], repeat: int, models: list[str]) -> None:
    ids = [level.id for level in Scenario(request_rate=rates, repeat=repeat, repeat_first=False).levels(models)]

    assert len(ids) == len(set(ids)) == len(set(models)) * len(rates) * repeat


@pytest.mark.parametrize(
    ("fields", "requests", "warmup"),
    [
        ({"concurrency": [1]}, 30, 1),  # at least 30
        ({"concurrency": [8]}, 80, 8),  # ten per stream
        ({"request_rate": [4.5]}, 135, 5),  # thirty seconds' worth, so that the window reaches 20 s
        ({"concurrency": [8], "duration": Duration(5)}, None, 8),  # time alone ends it
        ({"concurrency": [8], "duration": Duration(5), "requests": 3, "warmup": 0}, 3, 0),
    ],
)
def test_requests_and_warmup_have_defaults(fields: dict[str, Any], requests: int | None, warmup: int) -> None:
    scene = Scenario(**fields)
    level = scene.levels(["m"])[0]

    assert (scene.requests_for(level), scene.warmup_for(level)) == (requests, warmup)


def test_what_is_not_given_stays_in_a_merge() -> None:
    scene = Scenario(concurrency=[2], seed=5, headers={"X-A": "1"})

    assert scenario.merge(scene, seed=None, concurrency=None) == scene
    assert scenario.merge(scene, headers={"X-B": "2"}).headers == {"X-A": "1", "X-B": "2"}


@pytest.mark.parametrize(
    ("file", "option", "merged"),
    [
        (
            {"concurrency": [2], "duration": Duration(9)},
            {"request_rate": [0.5], "requests": 7},
            {"concurrency": None, "request_rate": [0.5], "duration": None, "requests": 7},
        ),
        (
            {"concurrency": [2], "think_time": "2s"},
            {"shape": ["ramp 1..2 over 3s"]},
            {"concurrency": None, "think_time": None, "shape": ["ramp 1..2 over 3s"]},
        ),
        (
            {"input_length": "9", "output_length": "9", "shared_prefix": 0.5},
            {"trace": "day.csv"},
            {"trace": "day.csv", "input_length": None, "output_length": None, "shared_prefix": 0},
        ),
        (
            {"trace": "day.csv", "trace_speed": 2},
            {"concurrency": [4]},
            {"trace": None, "trace_speed": 1, "concurrency": [4]},
        ),
        (
            {"input_length": "9", "shared_prefix": 0.5},
            {"prompts": ["Hi"]},
            {"input_length": None, "shared_prefix": 0, "prompts": ["Hi"]},
        ),
        ({"fail_if": ["failed > 1%"]}, {"fail_if": ["ttft_p95 > 1s"]}, {"fail_if": ["ttft_p95 > 1s"]}),
    ],
)
def test_what_the_command_line_says_replaces_what_the_file_says_instead(
    file: dict[str, Any], option: dict[str, Any], merged: dict[str, Any]
) -> None:
    scene = scenario.merge(Scenario(**file), **option)

    assert {name: getattr(scene, name) for name in merged} == merged


def test_a_merge_checks_the_result_again() -> None:
    with pytest.raises(ScenarioError, match=r"^options: concurrency\[1\] is 0: must be at least 1$"):
        scenario.merge(Scenario(), concurrency=[1, 0])
    with pytest.raises(ScenarioError, match=r"^options: prompts\[0\] is .* holds half a character"):
        scenario.merge(Scenario(), prompts=["\udcff"])  # what Python makes of a stray byte on the command line
    with pytest.raises(TypeError, match="no such field of a Scenario: concurency"):
        scenario.merge(Scenario(), concurency=[1])


def test_models_that_the_command_line_picks_keep_their_facts() -> None:
    scene = scenario.from_json({"models": ["a", "b"], "model_facts": {"a": {"size_mb": 1}, "b": {"size_mb": 2}}})

    assert scenario.merge(scene, models=["b"]).model_facts == {"b": {"size_mb": 2}}


def test_secrets_in_headers_stay_out_of_the_run_folder() -> None:
    scene = Scenario(headers={"Authorization": "Bearer 123", "X-Team": "edge"})

    assert scenario.to_builtins(scene)["headers"] == {"Authorization": "***", "X-Team": "edge"}


def test_the_json_schema_knows_every_key_and_no_other() -> None:
    schema = json.loads(json.dumps(scenario.json_schema()))
    definition = schema["$defs"]["Scenario"]

    assert tuple(definition["properties"]) == FIELDS
    assert definition["additionalProperties"] is False
    assert all("description" in field or "$ref" in field for field in definition["properties"].values())
    assert schema["$defs"]["Timeouts"]["properties"]["total"]["default"] == "15m"


def test_a_header_that_frames_the_request_is_refused() -> None:
    with pytest.raises(ScenarioError, match="loadbench writes this header itself"):
        scenario.merge(Scenario(), headers={"Content-Length": "5"})
