"""What a model runs on, by the names of devices and execution providers."""

from __future__ import annotations

import pytest

from loadbench.server import ModelFacts
from loadbench.server.foundry import device_of_id, is_same, placed, registered, short_provider, stem_of_id

IDS = {
    "Phi-4-mini-instruct-cuda-gpu:5": ("GPU", "CUDAExecutionProvider", "Phi-4-mini-instruct"),
    "qwen2.5-0.5b-instruct-generic-cpu:4": ("CPU", "CPUExecutionProvider", "qwen2.5-0.5b-instruct"),
    "qwen2.5-0.5b-instruct-generic-gpu:4": ("GPU", None, "qwen2.5-0.5b-instruct"),  # CUDA or WebGPU, as there is
    "a-openvino-npu:1": ("NPU", "OpenVINOExecutionProvider", "a"),
    "a-qnn-npu": ("NPU", "QNNExecutionProvider", "a"),
    "a-trtrtx-gpu:1": ("GPU", "NvTensorRTRTXExecutionProvider", "a"),
    "a-vitis-npu:1": ("NPU", "VitisAIExecutionProvider", "a"),
    "a-cpu:1": ("CPU", None, "a"),
    "my-own-gpu:1": ("GPU", None, "my-own"),  # no provider of that name
    "smollm2-135m": (None, None, "smollm2-135m"),
    "gpu": (None, None, "gpu"),
    "phi4:14b": (None, None, "phi4"),
}


@pytest.mark.parametrize("model", IDS)
def test_foundrys_ids_tell_device_and_provider(model: str) -> None:
    device, provider, stem = IDS[model]

    assert (*device_of_id(model), stem_of_id(model)) == (device, provider, stem)


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("CUDAExecutionProvider", "cuda"),
        ("WebGpuExecutionProvider", "WebGPU"),
        ("OpenVINOExecutionProvider", "openvino"),
        ("QNNExecutionProvider", "qnn"),
        ("VitisAIExecutionProvider", "vitisai"),
        ("DmlExecutionProvider", "dml"),
        ("NvTensorRTRTXExecutionProvider", "trtrtx"),
        ("NvTensorRTRTXExecutionProvider", "nvtensorrtrtx"),
        ("MIGraphXExecutionProvider", "migraphx"),
        ("CPUExecutionProvider", "cpu"),
    ],
)
def test_short_names_of_providers_are_the_long_ones(long: str, short: str) -> None:
    assert short_provider(long) == short_provider(short)


def test_what_a_server_tells_goes_before_what_the_id_does() -> None:
    facts = placed(ModelFacts("a-cuda-gpu:1", device="CPU"))

    assert (facts.device, facts.execution_provider) == ("CPU", None), "CUDA is no provider of a CPU"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("a:1", "A:1", True), ("a", "a:1", True), ("a:1", "a:2", False), ("a", "b", False)],
)
def test_an_id_without_version_is_that_of_any_version(one: str, other: str, same: bool) -> None:
    assert is_same(one, other) is same
    assert is_same(other, one) is same


def test_the_name_of_a_registered_model_tells_a_device_that_nobody_saw() -> None:
    named = registered(ModelFacts("tiny-a-generic-gpu:1"))
    told = registered(ModelFacts("tiny-a-generic-gpu:1", device="CPU"))

    assert (named.device, named.device_by_name) == ("GPU", True)
    assert (told.device, told.device_by_name) == ("CPU", None)
    assert placed(ModelFacts("phi-4-generic-gpu:1")).device_by_name is None, "a catalogue's names are true"
    assert placed(named).device_by_name
