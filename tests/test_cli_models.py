"""`loadbench models list`, `remove` and `register`: of a server, of the SDK, and where there is neither."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadbench.cli.catalogue import cells, rows
from loadbench.server import ModelFacts
from tests.support.catalogues import PHI_CPU, PHI_GPU, Service, serving
from tests.support.command import KEY, models
from tests.support.sdk import FakeRuntime, install
from tests.support.terminals import on_terminal

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("place", "no_foundry")]

GB = 1_000_000_000
QWEN = ModelFacts("qwen2.5-0.5b-instruct-generic-cpu:4", ("qwen2.5-0.5b",), loaded=True, cached=True, device="CPU")


@pytest.fixture
def ollama() -> Iterator[Service]:
    small = {"size": 522_000_000, "details": {"quantization_level": "Q4_K_M"}}
    with serving("ollama", rows={"qwen3:0.6b": small, "zephyr:7b": {"size": 4 * GB}}, loaded={"zephyr:7b"}) as service:
        yield service


# -- list


def test_a_pipe_gets_aligned_columns_and_a_dash_for_what_is_not_told(ollama: Service) -> None:
    done = models("list", "-e", ollama.url)

    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "alias  id          device  provider     size  licence  context  quantisation  cached  loaded",
        "-      zephyr:7b   CPU     -         4.00 GB  -              -  -             yes     yes",
        "-      qwen3:0.6b  -       -          522 MB  -              -  Q4_K_M        yes     no",
    ]


def test_people_are_told_whose_models_these_are(ollama: Service) -> None:
    assert models("list", "-e", ollama.url).stderr == f"{ollama.url}/v1 (ollama 0.9), as given\n"


def test_json_is_one_array_of_all_facts_and_nothing_else(ollama: Service) -> None:
    done = models("list", "-e", ollama.url, "--json")
    listed = json.loads(done.stdout)

    assert done.stderr == ""
    assert [one["id"] for one in listed] == ["zephyr:7b", "qwen3:0.6b"]
    assert set(listed[0]) == set(ModelFacts.__slots__)
    assert (listed[1]["size_bytes"], listed[1]["licence"]) == (522_000_000, None)


def test_loaded_models_come_first_then_cached_ones_each_by_alias() -> None:
    other = ModelFacts("a:1", aliases=("aaa",), cached=False)

    assert rows([PHI_GPU, other, PHI_CPU, QWEN]) == [QWEN, PHI_CPU, other, PHI_GPU]


def test_only_models_for_a_device_are_listed() -> None:
    split = ModelFacts("half", device="GPU+CPU")

    assert rows([QWEN, PHI_GPU, split, ModelFacts("untold")], devices=["gpu"]) == [split, PHI_GPU]


def test_only_models_on_the_disk_are_listed_and_a_loaded_one_is_on_it() -> None:
    untold = ModelFacts("loaded", loaded=True)

    assert rows([PHI_GPU, PHI_CPU, untold, ModelFacts("unknown")], cached=True) == [untold, PHI_CPU]


def test_a_row_tells_the_provider_by_its_short_name() -> None:
    assert cells(PHI_GPU)[:7] == [
        *("phi-4-mini", "Phi-4-mini-instruct-cuda-gpu:5", "GPU", "CUDA", "3.70 GB", "MIT", "-")
    ]


def test_a_models_name_cannot_move_the_cursor() -> None:
    assert cells(ModelFacts("\x1b[2Jevil"))[1] == "[2Jevil"


def test_a_choice_that_leaves_nothing_says_so(ollama: Service) -> None:
    done = models("list", "-e", ollama.url, "--device", "npu")

    assert (done.exit_code, done.stdout) == (0, "")
    assert "none of the 2 models is so" in done.stderr


def test_a_person_sees_no_column_that_no_model_fills_but_its_name(ollama: Service) -> None:
    code, screen = on_terminal("models", "list", "-e", ollama.url, columns=80)

    assert code == 0
    assert "not told: alias, provider, licence, context" in screen
    assert "zephyr:7b" in screen
    assert max(len(line) for line in screen.splitlines()) <= 80


def test_a_person_reads_every_id_whole_on_a_narrow_terminal() -> None:
    with serving("openai", rows={"a-model-with-quite-a-long-name-that-goes-on-and-on": {}}) as service:
        _, screen = on_terminal("models", "list", "-e", service.url, columns=40)

    assert "a-model-with-quite-a-long-name-that-goes-on-and-on" in "".join(screen.split())


# -- whose models


def test_without_an_address_the_service_that_the_environment_names_is_asked(ollama: Service) -> None:
    done = models("list", "--json", FOUNDRY_LOCAL_ENDPOINT=ollama.url)

    assert len(json.loads(done.stdout)) == 2


def test_without_a_server_the_sdk_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    caches = install(monkeypatch, FakeRuntime([PHI_GPU, QWEN]))
    done = models("list", "--cache-dir", tmp_path / "mine")

    assert [line.split()[0] for line in done.stdout.splitlines()] == ["alias", "qwen2.5-0.5b", "phi-4-mini"]
    assert "Foundry Local's SDK (foundry2 2.2.1), cache " in done.stderr
    assert caches == [tmp_path / "mine"]


def test_without_server_and_sdk_one_line_says_how_to_get_each() -> None:
    done = models("list")

    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert all(words in done.stderr for words in ("no server was named or found", ".[foundry]", "-e URL"))


def test_an_offline_catalogue_is_told_and_what_is_cached_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRuntime([QWEN]))
    done = models("list")

    assert done.exit_code == 0
    assert "is this machine offline?" in done.stderr
    assert "qwen2.5-0.5b" in done.stdout


def test_an_offline_catalogue_with_nothing_cached_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRuntime([]))
    done = models("list")

    assert done.exit_code == 1
    assert "loadbench models register PATH" in done.stderr


def test_the_workshops_variable_holds_the_key(ollama: Service) -> None:
    models("list", "-e", ollama.url, API_KEY=KEY)

    assert ollama.keys == {f"Bearer {KEY}"}


def test_the_variable_that_is_named_goes_before_the_workshops(ollama: Service) -> None:
    models("list", "-e", ollama.url, "--api-key-env", "MINE", API_KEY="other", MINE=KEY)

    assert ollama.keys == {f"Bearer {KEY}"}


# -- remove


def test_nobody_to_ask_and_no_yes_removes_nothing(ollama: Service) -> None:
    done = models("remove", "qwen3:0.6b", "-e", ollama.url)

    assert done.exit_code == 2
    assert "--yes" in done.stderr
    assert "qwen3:0.6b" in ollama.rows


def test_yes_removes_from_a_server(ollama: Service) -> None:
    done = models("remove", "qwen3:0.6b", "-e", ollama.url, "--yes")

    assert (done.exit_code, done.stdout) == (0, "qwen3:0.6b: removed\n")
    assert list(ollama.rows) == ["zephyr:7b"]


@pytest.mark.parametrize(("answer", "left"), [("y\n", ["zephyr:7b"]), ("n\n", ["qwen3:0.6b", "zephyr:7b"])])
def test_a_person_is_asked(ollama: Service, answer: str, left: list[str]) -> None:
    _, screen = on_terminal("models", "remove", "qwen3:0.6b", "-e", ollama.url, typed=answer)

    assert "Remove qwen3:0.6b (522 MB)? [y/N]" in screen
    assert sorted(ollama.rows) == left


def test_the_sdk_removes_the_variant_that_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime([PHI_GPU, PHI_CPU])
    install(monkeypatch, runtime)
    done = models("remove", "phi-4-mini", "--yes", "--json")

    assert json.loads(done.stdout) == {"model": PHI_CPU.id, "action": "remove", "removed": True}
    assert runtime.removed == [PHI_CPU.id]


def test_a_service_that_deletes_nothing_leaves_it_to_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime([PHI_CPU])
    install(monkeypatch, runtime)
    with serving("foundry2") as service:
        done = models("remove", "phi-4-mini", "--yes", FOUNDRY_LOCAL_ENDPOINT=service.url)

    assert done.exit_code == 0
    assert runtime.removed == [PHI_CPU.id]


# -- register


def test_a_folder_is_registered_and_how_to_serve_it_told(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "genai_config.json").write_text("{}")
    runtime = FakeRuntime([])
    install(monkeypatch, runtime)
    done = models("register", "mine")

    assert done.stdout == "mine:1: registered; serve it with: loadbench serve foundry -m mine\n"
    assert runtime.registered == [(place / "mine", None)]


def test_texts_around_a_models_thoughts_are_told_as_it_is_registered(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "genai_config.json").write_text("{}")
    runtime = FakeRuntime([])
    install(monkeypatch, runtime)
    models("register", "mine", "--reasoning", "<think>", "</think>")

    assert runtime.thoughts == [("<think>", "</think>")]


@pytest.mark.parametrize(("made", "why"), [(False, "no such folder"), (True, "no genai_config.json in it")])
def test_what_is_no_model_is_not_registered(place: Path, made: bool, why: str) -> None:
    if made:
        (place / "mine").mkdir()
    done = models("register", "mine")

    assert done.exit_code == 2
    assert why in done.stderr
