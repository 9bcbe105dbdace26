"""Whether Foundry Local's SDK is here, what lies in its cache folder, and the id of a model of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadbench.errors import UsageError, how_to_install
from loadbench.serve.foundry.places import REGISTERED, available, cache_folder, half_downloads, has_models, id_of


@pytest.mark.parametrize("version", ["2.1", "2.1.0", "2.2.1", "2.10.0", "3.0.0rc1", "10.0"])
def test_a_new_enough_sdk_is_available(version: str) -> None:
    assert available(lambda _: version) is None


@pytest.mark.parametrize("version", ["0.5.1", "1.2.4", "2.0.9", "2.0.0rc2"])
def test_an_old_sdk_says_what_is_needed(version: str) -> None:
    assert available(lambda _: version) == (
        f"Foundry Local's SDK {version} is too old, 2.1 or newer is needed: {how_to_install('foundry')}"
    )


def test_no_sdk_says_what_to_install() -> None:
    assert available(lambda _: None) == f"Foundry Local's SDK is not installed: {how_to_install('foundry')}"


def test_an_sdk_without_its_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadbench.serve.foundry.places._installed", lambda _: "2.2.1")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    assert str(available()).startswith("Foundry Local's SDK 2.2.1 is installed without its package foundry_local_sdk: ")


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({}, "/home/ada/.loadbench/cache/models"),
        ({"LOADBENCH_CACHE_DIR": ""}, "/home/ada/.loadbench/cache/models"),
        ({"LOADBENCH_CACHE_DIR": "/data/models"}, "/data/models"),
    ],
)
def test_the_cache_folder_is_the_sdks_own_unless_another_is_named(environ: dict[str, str], folder: str) -> None:
    assert cache_folder(environ, Path("/home/ada")).as_posix() == folder


def test_a_home_in_the_variable_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))

    assert cache_folder({"LOADBENCH_CACHE_DIR": "~/models"}, Path("/home/ada")) == tmp_path / "models"


def lay(folder: Path, *names: str) -> None:
    """Empty files."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()


WHOLE = ("genai_config.json", "inference_model.json")


@pytest.mark.parametrize(
    ("place", "names", "expected"),
    [
        ("Microsoft/phi-1", WHOLE, True),
        ("Microsoft/phi-1/v2", WHOLE, True),  # several variants in one download
        ("Microsoft/phi-1", (*WHOLE, "download.tmp"), False),  # not whole
        ("Microsoft/phi-1", WHOLE[:1], False),
        ("Microsoft/phi-1", WHOLE[1:], False),
        ("Microsoft/phi-1", (), False),
    ],
)
def test_a_download_counts_once_it_is_whole(tmp_path: Path, place: str, names: tuple[str, ...], expected: bool) -> None:
    lay(tmp_path / place, *names)

    assert has_models(tmp_path) is expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (json.dumps({"models": [{"id": "tiny:1"}]}), True),
        (json.dumps({"models": []}), False),  # all were removed
        (json.dumps({"models": "none"}), False),
        (json.dumps([]), False),
        ("not JSON", False),
    ],
)
def test_a_registered_model_counts(tmp_path: Path, written: str, expected: bool) -> None:
    (tmp_path / REGISTERED).write_text(written)

    assert has_models(tmp_path) is expected


def test_a_folder_that_is_not_there_has_no_models(tmp_path: Path) -> None:
    assert has_models(tmp_path / "none") is False


def test_only_this_models_unfinished_downloads_are_half(tmp_path: Path) -> None:
    lay(tmp_path / "Microsoft" / "phi-1", "download.tmp")
    lay(tmp_path / "Microsoft" / "phi-2", "download.tmp")
    lay(tmp_path / "Other" / "phi-1", *WHOLE)

    assert half_downloads(tmp_path, "phi:1") == [tmp_path / "Microsoft" / "phi-1"]


# -- the id of a model of one's own


def settings(*providers: Any) -> dict[str, Any]:
    return {"model": {"decoder": {"session_options": {"provider_options": list(providers)}}}}


def model_folder(folder: Path, content: Any) -> Path:
    """A model's folder with these settings."""
    folder.mkdir()
    (folder / "genai_config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("tiny", settings(), "tiny-generic-cpu:1"),
        ("tiny", settings({"cuda": {}}), "tiny-cuda-gpu:1"),
        ("tiny", settings({"CUDA": {"enable_cuda_graph": "0"}}), "tiny-cuda-gpu:1"),
        ("tiny", settings({"DML": {}}), "tiny-generic-gpu:1"),
        ("tiny", settings({"WebGPU": {}}), "tiny-generic-gpu:1"),
        ("tiny", settings({"qnn": {}}), "tiny-qnn-npu:1"),
        ("tiny", settings({"OpenVINO": {}}), "tiny-openvino-npu:1"),
        ("tiny", settings({"VitisAI": {}}), "tiny-vitis-npu:1"),
        ("tiny", settings({"NvTensorRtRtx": {}}), "tiny-trtrtx-gpu:1"),
        ("tiny", settings({"qnn": {}}, {"cuda": {}}), "tiny-qnn-npu:1"),  # the first counts
        ("tiny", settings({}, {"cuda": {}}), "tiny-cuda-gpu:1"),
        ("tiny", settings({"of tomorrow": {}}), "tiny-generic-cpu:1"),
        ("tiny", {}, "tiny-generic-cpu:1"),
        ("tiny", {"model": {"decoder": []}}, "tiny-generic-cpu:1"),
        ("tiny-generic-cpu", settings({"cuda": {}}), "tiny-generic-cpu:1"),  # the folder's name says it already
        ("my model (2)", settings(), "my-model-2-generic-cpu:1"),
        ("-.-", settings(), "model-generic-cpu:1"),
        ("Größe", settings(), "Gr-e-generic-cpu:1"),
    ],
)
def test_without_a_name_it_is_made_of_folder_and_provider(
    tmp_path: Path, name: str, content: Any, expected: str
) -> None:
    assert id_of(model_folder(tmp_path / name, content), None) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("mine", "mine:1"), ("mine:7", "mine:7"), ("Mine_2.5-cpu", "Mine_2.5-cpu:1")]
)
def test_a_name_of_ones_own_gets_a_version(tmp_path: Path, name: str, expected: str) -> None:
    assert id_of(model_folder(tmp_path / "tiny", settings()), name) == expected


@pytest.mark.parametrize("name", ["", ":1", "a b", "a/b", "-a", "a:b", "a:1:2", "a:", "../a", "größe"])
def test_what_is_no_id_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"is no model id: write it as my-model-generic-cpu:1, the number is its ver"):
        id_of(model_folder(tmp_path / "tiny", settings()), name)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (None, "holds no genai_config.json: it must be a model in the format of ONNX Runtime GenAI"),
        ("not JSON", "cannot be read: "),
        (b"\xff\xfe", "cannot be read: "),
        ("[]", "holds no settings: it must be an object"),
    ],
)
def test_a_folder_without_settings_is_refused(tmp_path: Path, written: str | bytes | None, message: str) -> None:
    if isinstance(written, bytes):
        (tmp_path / "genai_config.json").write_bytes(written)
    elif written is not None:
        (tmp_path / "genai_config.json").write_text(written)

    with pytest.raises(UsageError) as raised:
        id_of(tmp_path, "mine")
    assert message in str(raised.value)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()

    with pytest.raises(UsageError, match=r"model\.onnx is no folder: name the one that holds the model's genai_config"):
        id_of(tmp_path / "model.onnx", None)
