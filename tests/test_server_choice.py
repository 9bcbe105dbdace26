"""From the names that people use, devices and execution providers to the ids that requests need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from loadbench.errors import TargetError
from loadbench.server import Chosen, Kind, ModelFacts, Target, choose

# -- From the names that people use to the ids that requests need

PHI_CPU = ModelFacts("Phi-4-mini-instruct-generic-cpu:5", aliases=("phi-4-mini",))
PHI_GPU = ModelFacts("Phi-4-mini-instruct-cuda-gpu:5", aliases=("phi-4-mini",))
QWEN_OLD = ModelFacts("qwen2.5-0.5b-instruct-generic-cpu:3")
QWEN = ModelFacts("qwen2.5-0.5b-instruct-generic-cpu:12")


def server(*models: ModelFacts, kind: Kind = "openai", unlisted: str | None = None) -> Target:
    return Target("http://127.0.0.1:1/v1", kind, models=models, unlisted=unlisted)


def ids(target: Target, wanted: Sequence[str], **asked: Any) -> list[str]:
    return [one.id for one in choose(target, wanted, **asked).chosen]


def loaded(model: ModelFacts) -> ModelFacts:
    return ModelFacts(model.id, model.aliases, loaded=True)


RESOLVED: dict[str, tuple[Target, list[str], list[str]]] = {
    "as it is": (server(ModelFacts("a"), ModelFacts("A")), ["A", "a"], ["A", "a"]),
    "another casing": (server(ModelFacts("SmolLM2-135M")), ["smollm2-135m"], ["SmolLM2-135M"]),
    "each once": (server(ModelFacts("a")), ["a", "A", "a"], ["a"]),
    "an alias": (server(ModelFacts("x", ("small",))), ["Small"], ["x"]),
    "without organisation": (server(ModelFacts("org/Big-8B")), ["big-8b"], ["org/Big-8B"]),
    "Ollama's latest": (
        server(ModelFacts("phi4:14b"), ModelFacts("phi4:latest"), kind="ollama"),
        ["phi4"],
        ["phi4:latest"],
    ),
    "Foundry's alias as told": (server(PHI_CPU, kind="foundry2"), ["phi-4-mini"], [PHI_CPU.id]),
    "Foundry's alias by the id": (server(QWEN, kind="foundry2"), ["qwen2.5-0.5b"], [QWEN.id]),
    "without version, the newest": (
        server(QWEN_OLD, QWEN, kind="foundry2"),
        ["Qwen2.5-0.5B-instruct-generic-cpu"],
        [QWEN.id],
    ),
    "of two variants, the loaded one": (
        server(PHI_CPU, loaded(PHI_GPU), kind="foundry2"),
        ["phi-4-mini"],
        [PHI_GPU.id],
    ),
    "an old version that is loaded": (server(loaded(QWEN_OLD), QWEN, kind="foundry2"), ["qwen2.5-0.5b"], [QWEN_OLD.id]),
    "a server without a list": (server(unlisted="404"), ["x", "x"], ["x"]),
    "a generic server with an empty list": (server(), ["x"], ["x"]),
}


@pytest.mark.parametrize("case", RESOLVED)
def test_a_name_becomes_the_id_that_requests_need(case: str) -> None:
    target, wanted, found = RESOLVED[case]

    assert ids(target, wanted) == found


ABSENT: dict[str, tuple[Target, str, str]] = {
    "a slip": (server(ModelFacts("smollm2-135m"), ModelFacts("mock")), "smolm2-135m", "did you mean smollm2-135m[?]$"),
    "a part": (server(ModelFacts("vendor-smollm2-135m-it")), "135m", "did you mean vendor-smollm2-135m-it[?]"),
    "a slip in an alias": (
        server(PHI_CPU, kind="foundry2"),
        "phi4-mini",
        "did you mean Phi-4-mini-instruct-generic-cpu",
    ),
    "nothing near": (
        server(*(ModelFacts(f"m{n}") for n in range(7))),
        "zephyr",
        "it has m0, m1, m2, m3, m4 and 2 more",
    ),
    "two variants": (server(PHI_CPU, PHI_GPU, kind="foundry2"), "phi-4-mini", "may be any of Phi.*cpu:5, Phi.*gpu:5"),
    "no prefixes elsewhere": (server(ModelFacts("phi-4-mini")), "phi", "did you mean phi-4-mini"),
    "nothing at all": (server(kind="foundry2"), "phi", "lists no model: load one with `foundry model load"),
}


@pytest.mark.parametrize("case", ABSENT)
def test_an_absent_model_is_an_error_that_names_the_nearest(case: str) -> None:
    target, name, words = ABSENT[case]

    with pytest.raises(TargetError, match=words):
        choose(target, [name])


HERE = server(ModelFacts("smollm2-135m-instruct"))
ADVICE: dict[str, tuple[Target, list[str], str]] = {
    # what is said after "has no model "
    "all of several": (
        HERE,
        ["qwen2.5-0.5b", "phi-3.5-mini", "phi-4-mini"],
        "'qwen2.5-0.5b', 'phi-3.5-mini' or 'phi-4-mini': it has smollm2-135m-instruct: name one with -m, take what it "
        "has with -m auto, or add them to what this server offers",
    ),
    "one of one": (
        HERE,
        ["qwen2.5-0.5b"],
        "'qwen2.5-0.5b': it has smollm2-135m-instruct: name one with -m, take what it has with -m auto, or add it to "
        "what this server offers",
    ),
    "vLLM's": (
        server(ModelFacts("a"), kind="vllm"),
        ["org/big"],
        "'org/big': it has a: name one with -m, take what it has with -m auto, or start its server with it "
        "(`vllm serve org/big`)",
    ),
    "llama.cpp's": (
        server(ModelFacts("a"), kind="llama.cpp"),
        ["big"],
        "'big': it has a: name one with -m, take what it has with -m auto, or start llama-server with it (-m FILE, or "
        "-hf REPOSITORY)",
    ),
    "the SDK's": (
        replace(server(PHI_CPU, kind="foundry2"), is_ours=True),
        ["qwen2.5-1.5b"],
        "'qwen2.5-1.5b': it has Phi-4-mini-instruct-generic-cpu:5: name one with -m, take what it has with -m auto, or "
        "pull it with `loadbench models pull qwen2.5-1.5b`",
    ),
    "some of several": (
        server(PHI_CPU, QWEN, kind="foundry0"),
        ["qwen2.5-0.5b", "qwen2.5-1.5b", "phi-4-mini"],
        "'qwen2.5-1.5b': measure the others with -m qwen2.5-0.5b -m phi-4-mini, or pull it with "
        "`foundry model download qwen2.5-1.5b`",
    ),
    "two of several": (
        server(ModelFacts("a b"), kind="ollama"),
        ["a b", "c", "d"],
        "'c' or 'd': measure the others with -m 'a b', or pull them with `ollama pull NAME`",
    ),
    "LM Studio's": (
        server(ModelFacts("a"), kind="lmstudio"),
        ["x", "a"],
        "'x': measure the others with -m a, or download it in LM Studio",
    ),
}


@pytest.mark.parametrize("case", ADVICE)
def test_the_error_says_how_to_go_on_without_the_absent_models(case: str) -> None:
    target, wanted, words = ADVICE[case]

    with pytest.raises(TargetError) as caught:
        choose(target, wanted)

    assert str(caught.value) == f"http://127.0.0.1:1/v1 has no model {words}"


@pytest.mark.parametrize(
    ("models", "taken"),
    [
        ([ModelFacts("a", loaded=False, cached=True), ModelFacts("b", loaded=True)], ["b"]),
        ([ModelFacts("a", loaded=False, cached=True), ModelFacts("b", loaded=False, cached=False)], ["a"]),
        ([ModelFacts("a"), ModelFacts("b"), ModelFacts("a")], ["a", "b"]),  # all that a generic server lists
        ([ModelFacts("a", task="embeddings"), ModelFacts("b")], ["b"]),
    ],
)
def test_auto_takes_the_loaded_models_else_the_cached_else_all(models: list[ModelFacts], taken: list[str]) -> None:
    assert ids(server(*models), "auto") == taken


@pytest.mark.parametrize(
    ("there", "wanted", "ep", "message"),
    [
        (server(QWEN, kind="foundry2"), "auto", None, r"no model is loaded .*`foundry model load ALIAS`.*qwen2.5"),
        (server(), "auto", None, "http://127.0.0.1:1/v1/models lists no model: load one there, or name one"),
        (server(PHI_CPU, kind="foundry2"), "auto", "cuda", "no model is there with cuda"),
        (server(ModelFacts("phi-4b")), ["yi-9b"], None, "it has phi-4b: name one with -m"),  # only letters in common
        (
            server(ModelFacts("tiny-generic-cpu:1"), kind="foundry2"),
            ["tiny-generic-cpu:2"],
            None,
            "did you mean tiny-generic-cpu:1",
        ),
    ],
)
def test_what_cannot_be_chosen_is_an_error(there: Target, wanted: Any, ep: str | None, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        choose(there, wanted, execution_provider=ep)


def test_the_id_that_foundry_1s_sdk_tells_is_taken_though_its_list_has_no_versions() -> None:
    there = server(ModelFacts("tiny-generic-cpu"), kind="foundry1")

    assert ids(there, ["tiny-generic-cpu:1"]) == ["tiny-generic-cpu"]


# -- Devices and execution providers choose among a model's variants

CPU = ModelFacts("Phi-4-mini-instruct-generic-cpu:5", ("phi-4-mini",))
CUDA = ModelFacts("Phi-4-mini-instruct-cuda-gpu:5", ("phi-4-mini",))
WEBGPU = ModelFacts("Phi-4-mini-instruct-generic-gpu:5", ("phi-4-mini",), execution_provider="WebGpuExecutionProvider")
NPU = ModelFacts("Phi-4-mini-instruct-openvino-npu:1", ("phi-4-mini",))
QWEN_CPU = ModelFacts("qwen2.5-0.5b-instruct-generic-cpu:4", ("qwen2.5-0.5b",))


def foundry(*models: ModelFacts, kind: Kind = "foundry2") -> Target:
    return Target("http://h:1/v1", kind, models=models)


def chosen_ids(target: Target, wanted: Any, *devices: str, ep: str | None = None) -> list[str]:
    choice = choose(target, wanted, devices=devices, execution_provider=ep)
    return [one.id for one in choice.chosen]


def error(target: Target, wanted: Any, *devices: str, ep: str | None = None) -> str:
    with pytest.raises(TargetError) as caught:
        chosen_ids(target, wanted, *devices, ep=ep)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_an_alias_gives_one_variant_for_each_device_asked_in_their_order() -> None:
    assert chosen_ids(foundry(CPU, CUDA, NPU), ["phi-4-mini"], "gpu", "cpu") == [CUDA.id, CPU.id]


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

    assert chosen_ids(foundry(CPU, WEBGPU, CUDA), ["phi-4-mini"], ep=provider) == [model.id]


def test_a_generic_variant_for_gpus_is_webgpus_where_nothing_else_is_told() -> None:
    assert chosen_ids(foundry(CUDA, replace(WEBGPU, execution_provider=None)), ["phi-4-mini"], ep="webgpu") == [
        WEBGPU.id
    ]


PREFERRED = {
    "the loaded": ((WEBGPU, replace(CUDA, loaded=True)), CUDA),
    "then the cached": ((WEBGPU, replace(CUDA, cached=True)), CUDA),
    "then the server's first": ((WEBGPU, CUDA), WEBGPU),
    "in its newest version": ((replace(CUDA, id=CUDA.id.replace(":5", ":4")), CUDA, WEBGPU), CUDA),
}


@pytest.mark.parametrize("case", PREFERRED)
def test_among_several_providers_for_a_device_one_is_preferred(case: str) -> None:
    models, preferred = PREFERRED[case]

    assert chosen_ids(foundry(CPU, *models), ["phi-4-mini"], "gpu") == [preferred.id]


def test_variants_of_two_models_are_never_mistaken_for_one() -> None:
    reasoning = ModelFacts("Phi-4-mini-reasoning-generic-cpu:3")
    target = foundry(reasoning, replace(CPU, aliases=()))

    assert chosen_ids(target, ["phi-4-mini"], "cpu") == [CPU.id], "aliases leave out the word instruct"
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
    assert "has no model 'zephyr'" in error(foundry(CPU, QWEN_CPU), ["phi-4-mini", "zephyr"], "cpu", "npu")


AUTO = {
    "the loaded of the devices": (
        (CPU, replace(CUDA, loaded=True), replace(QWEN_CPU, loaded=True)),
        ["cpu"],
        [QWEN_CPU.id],
    ),
    "each device for itself": (
        (replace(CPU, loaded=True), replace(CUDA, cached=True)),
        ["cpu", "gpu"],
        [CPU.id, CUDA.id],
    ),
    "the registered": ((CPU, replace(QWEN_CPU, base_url="http://h:1/catalogs/local/v1")), ["cpu"], [QWEN_CPU.id]),
}


@pytest.mark.parametrize("case", AUTO)
def test_auto_takes_what_is_ready_on_the_devices_asked(case: str) -> None:
    models, devices, found = AUTO[case]

    assert chosen_ids(foundry(*models), "auto", *devices) == found


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
    assert chosen_ids(OLLAMA, ["a", "b"], "gpu") == ["a", "b"]
    assert "a is for GPU+CPU, not for CPU" in error(OLLAMA, ["a"], "cpu")
