"""Devices and execution providers choose among a model's variants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from loadbench.errors import TargetError
from loadbench.server import Chosen, Kind, ModelFacts, Target, choose

CPU = ModelFacts("Phi-4-mini-instruct-generic-cpu:5", ("phi-4-mini",))
CUDA = ModelFacts("Phi-4-mini-instruct-cuda-gpu:5", ("phi-4-mini",))
WEBGPU = ModelFacts("Phi-4-mini-instruct-generic-gpu:5", ("phi-4-mini",), execution_provider="WebGpuExecutionProvider")
NPU = ModelFacts("Phi-4-mini-instruct-openvino-npu:1", ("phi-4-mini",))
QWEN = ModelFacts("qwen2.5-0.5b-instruct-generic-cpu:4", ("qwen2.5-0.5b",))


def foundry(*models: ModelFacts, kind: Kind = "foundry2") -> Target:
    return Target("http://h:1/v1", kind, models=models)


def ids(target: Target, wanted: Any, *devices: str, ep: str | None = None) -> list[str]:
    choice = choose(target, wanted, devices=devices, execution_provider=ep)
    return [one.id for one in choice.chosen]


def error(target: Target, wanted: Any, *devices: str, ep: str | None = None) -> str:
    with pytest.raises(TargetError) as caught:
        ids(target, wanted, *devices, ep=ep)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_an_alias_gives_one_variant_for_each_device_asked_in_their_order() -> None:
    assert ids(foundry(CPU, CUDA, NPU), ["phi-4-mini"], "gpu", "cpu") == [CUDA.id, CPU.id]


def test_what_was_chosen_tells_what_was_asked_and_what_it_is() -> None:
    choice = choose(foundry(CPU, CUDA), ["phi-4-mini"], devices=["gpu"], execution_provider="cuda")

    facts = replace(CUDA, device="GPU", execution_provider="CUDAExecutionProvider")
    assert choice.chosen == (Chosen(CUDA.id, "phi-4-mini", facts, "GPU", "cuda"),)


PROVIDERS = {
    "short": ("cuda", CUDA),
    "another casing": ("CUDA", CUDA),
    "long": ("CUDAExecutionProvider", CUDA),
    "WebGPU's": ("webgpu", WEBGPU),
    "long in another casing": ("webgpuexecutionprovider", WEBGPU),
}


@pytest.mark.parametrize("case", PROVIDERS)
def test_cuda_and_webgpu_are_two_choices(case: str) -> None:
    provider, model = PROVIDERS[case]

    assert ids(foundry(CPU, WEBGPU, CUDA), ["phi-4-mini"], ep=provider) == [model.id]


def test_a_generic_variant_for_gpus_is_webgpus_where_nothing_else_is_told() -> None:
    assert ids(foundry(CUDA, replace(WEBGPU, execution_provider=None)), ["phi-4-mini"], ep="webgpu") == [WEBGPU.id]


PREFERRED = {
    "the loaded": ((WEBGPU, replace(CUDA, loaded=True)), CUDA),
    "then the cached": ((WEBGPU, replace(CUDA, cached=True)), CUDA),
    "then the server's first": ((WEBGPU, CUDA), WEBGPU),
    "in its newest version": ((replace(CUDA, id=CUDA.id.replace(":5", ":4")), CUDA, WEBGPU), CUDA),
}


@pytest.mark.parametrize("case", PREFERRED)
def test_among_several_providers_for_a_device_one_is_preferred(case: str) -> None:
    models, preferred = PREFERRED[case]

    assert ids(foundry(CPU, *models), ["phi-4-mini"], "gpu") == [preferred.id]


def test_variants_of_two_models_are_never_mistaken_for_one() -> None:
    reasoning = ModelFacts("Phi-4-mini-reasoning-generic-cpu:3")
    target = foundry(reasoning, replace(CPU, aliases=()))

    assert ids(target, ["phi-4-mini"], "cpu") == [CPU.id], "aliases leave out the word instruct"
    assert "may be any of" in error(target, ["phi-4"], "cpu")


def test_a_name_with_variants_for_several_devices_says_which_there_are() -> None:
    assert error(foundry(CPU, CUDA), ["phi-4-mini"]).endswith(
        "in full with -m, or say which device with --device (cpu, gpu)"
    )


def test_a_device_that_no_variant_is_for_is_absent_and_the_others_are_measured() -> None:
    choice = choose(foundry(CPU, CUDA), ["phi-4-mini"], devices=["cpu", "npu"])

    assert [one.id for one in choice.chosen] == [CPU.id]
    (absent,) = choice.absent
    assert (absent.name, absent.device, absent.execution_provider) == ("phi-4-mini", "NPU", None)
    assert absent.reason == "phi-4-mini is for CPU, GPU, not for NPU"


def test_a_full_id_that_contradicts_the_device_is_absent() -> None:
    choice = choose(foundry(CPU, CUDA), [CPU.id, CUDA.id], devices=["cpu"])

    assert [one.id for one in choice.chosen] == [CPU.id]
    assert [(one.name, one.reason) for one in choice.absent] == [(CUDA.id, f"{CUDA.id} is for GPU, not for CPU")]


def test_a_provider_that_no_variant_has_is_told_with_those_there_are() -> None:
    message = error(foundry(CPU, CUDA), ["phi-4-mini"], "gpu", ep="qnn")

    assert message == (
        "nothing to measure at http://h:1/v1: phi-4-mini is for CPU with CPUExecutionProvider, "
        "GPU with CUDAExecutionProvider, not for GPU with qnn; models there are for cpu, gpu: ask for one with --device"
    )


def test_a_name_that_is_not_there_is_an_error_whatever_the_device() -> None:
    assert "has no model 'zephyr'" in error(foundry(CPU, QWEN), ["phi-4-mini", "zephyr"], "cpu", "npu")


AUTO = {
    "the loaded of the devices": ((CPU, replace(CUDA, loaded=True), replace(QWEN, loaded=True)), ["cpu"], [QWEN.id]),
    "each device for itself": (
        (replace(CPU, loaded=True), replace(CUDA, cached=True)),
        ["cpu", "gpu"],
        [CPU.id, CUDA.id],
    ),
    "the registered": ((CPU, replace(QWEN, base_url="http://h:1/catalogs/local/v1")), ["cpu"], [QWEN.id]),
}


@pytest.mark.parametrize("case", AUTO)
def test_auto_takes_what_is_ready_on_the_devices_asked(case: str) -> None:
    models, devices, found = AUTO[case]

    assert ids(foundry(*models), "auto", *devices) == found


def test_auto_marks_a_device_that_nothing_is_ready_for() -> None:
    choice = choose(foundry(replace(CPU, loaded=True), CUDA), "auto", devices=["cpu", "gpu", "npu"])

    assert [(one.name, one.device, one.reason) for one in choice.absent] == [
        ("auto", "GPU", f"no model for GPU is loaded or cached ({CUDA.id}): load one, or name it with -m"),
        ("auto", "NPU", "no model is for NPU"),
    ]


SILENT = {
    "a list": Target("http://h:1/v1", "llama.cpp", models=(ModelFacts("m", loaded=True),)),
    "no list": Target("http://h:1/v1", "openai", unlisted="404"),
}


@pytest.mark.parametrize("case", SILENT)
def test_a_single_device_is_taken_on_trust_where_the_server_tells_none(case: str) -> None:
    choice = choose(SILENT[case], ["m"], devices=["gpu"], execution_provider="cuda")

    (model,) = choice.chosen
    assert (model.device, model.execution_provider) == ("GPU", "cuda")
    assert model.facts is None or model.facts.device is None


@pytest.mark.parametrize(("case", "wanted"), [("a list", ["m"]), ("a list", "auto"), ("no list", ["m"])])
def test_two_devices_cannot_be_set_apart_where_the_server_tells_none(case: str, wanted: Any) -> None:
    message = error(SILENT[case], wanted, "cpu", "gpu")

    assert message.count("is not told there, so devices cannot be set apart: ask for one alone") == 1


OLLAMA = Target(
    "http://h:1/v1", "ollama", models=(ModelFacts("a", loaded=True, device="GPU+CPU"), ModelFacts("b", loaded=False))
)


def test_a_model_that_is_split_is_for_the_gpu_and_one_that_is_not_loaded_for_any() -> None:
    assert ids(OLLAMA, ["a", "b"], "gpu") == ["a", "b"]
    assert "a is for GPU+CPU, not for CPU" in error(OLLAMA, ["a"], "cpu")
