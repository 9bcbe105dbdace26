"""The id of a model of one's own, from its folder and its settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadbench.errors import UsageError
from loadbench.serve.foundry.places import id_of


def settings(*providers: Any) -> dict[str, Any]:
    return {"model": {"decoder": {"session_options": {"provider_options": list(providers)}}}}


def lay(folder: Path, content: Any) -> Path:
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
    assert id_of(lay(tmp_path / name, content), None) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("mine", "mine:1"), ("mine:7", "mine:7"), ("Mine_2.5-cpu", "Mine_2.5-cpu:1")]
)
def test_a_name_of_ones_own_gets_a_version(tmp_path: Path, name: str, expected: str) -> None:
    assert id_of(lay(tmp_path / "tiny", settings()), name) == expected


@pytest.mark.parametrize("name", ["", ":1", "a b", "a/b", "-a", "a:b", "a:1:2", "a:", "../a", "größe"])
def test_what_is_no_id_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"is no model id: write it as my-model-generic-cpu:1, the number is its ver"):
        id_of(lay(tmp_path / "tiny", settings()), name)


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
