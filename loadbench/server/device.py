"""What a model runs on: devices and execution providers, their names, and how Foundry Local's ids tell them."""

from __future__ import annotations

import re
from dataclasses import replace

from loadbench.server.facts import ModelFacts

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "dml": "DmlExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "nvtensorrtrtx": "NvTensorRTRTXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "vitisai": "VitisAIExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
}
_ALSO = {"directml": "dml", "trtrtx": "nvtensorrtrtx", "tensorrtrtx": "nvtensorrtrtx", "vitis": "vitisai"}
_VARIANT = re.compile(r"(?:-([a-z0-9]+))?-(cpu|gpu|npu)(?::\d+)?$", re.IGNORECASE)


def short_provider(name: str) -> str:
    """An execution provider's short name, so that long, short and differently cased names compare.

    >>> short_provider("NvTensorRTRTXExecutionProvider"), short_provider("trtrtx"), short_provider("WebGPU")
    ('nvtensorrtrtx', 'nvtensorrtrtx', 'webgpu')
    """
    short = name.strip().lower().removesuffix("executionprovider")
    return _ALSO.get(short, short)


def device_of_id(model: str) -> tuple[str | None, str | None]:
    """Device and execution provider that the id of a Foundry Local model tells; None for what it does not.

    ``generic-gpu`` names no provider: the runtime takes CUDA where it has it, else WebGPU.

    Source: `LoadModel` in sdk_v2/cpp/src/inferencing/model_load_manager.cc (microsoft/Foundry-Local).

    >>> device_of_id("Phi-4-mini-instruct-cuda-gpu:5")
    ('GPU', 'CUDAExecutionProvider')
    >>> device_of_id("qwen2.5-0.5b-instruct-generic-gpu:4")
    ('GPU', None)
    """
    found = _VARIANT.search(model)
    if found is None:
        return None, None
    device, word = found[2].upper(), (found[1] or "").lower()
    if word == "generic":
        return device, _PROVIDERS["cpu"] if device == "CPU" else None
    return device, _PROVIDERS.get(_ALSO.get(word, word))


def stem_of_id(model: str) -> str:
    """An id without version, execution provider and device.

    >>> stem_of_id("Phi-4-mini-instruct-cuda-gpu:5"), stem_of_id("tiny:1")
    ('Phi-4-mini-instruct', 'tiny')
    """
    found = _VARIANT.search(model)
    if found is None:
        return model.partition(":")[0]
    word = (found[1] or "").lower()
    named = word == "generic" or _ALSO.get(word, word) in _PROVIDERS
    return model[: found.start() if named else found.start(2) - 1]


def alias_of_id(model: str) -> str:
    """The alias that Foundry Local 2.x makes of the id of a model that is registered by hand.

    A device without a provider before it is a part of the name (seen in 2.2.1).

    >>> alias_of_id("tiny-a-generic-gpu:1"), alias_of_id("tiny-a-gpu:1")
    ('tiny-a', 'tiny-a-gpu')
    """
    found = _VARIANT.search(model)
    word = (found[1] or "").lower() if found else ""
    named = word == "generic" or _ALSO.get(word, word) in _PROVIDERS
    return stem_of_id(model) if named else model.partition(":")[0]


def is_same(one: str, other: str) -> bool:
    """Whether two ids name one variant; where one of them has no version, it counts for any.

    Foundry Local 1.x lists tiny-generic-cpu, and tiny-generic-cpu:1 as loaded.
    """
    one, other = one.strip().lower(), other.strip().lower()
    names = one.partition(":"), other.partition(":")
    return one == other or (names[0][0] == names[1][0] and not (names[0][2] and names[1][2]))


def placed(facts: ModelFacts) -> ModelFacts:
    """The facts of a Foundry Local model, with what its id tells of device and provider where nothing else did."""
    device, provider = device_of_id(facts.id)
    if facts.device not in (None, device):
        provider = None
    return replace(facts, device=facts.device or device, execution_provider=facts.execution_provider or provider)


def registered(facts: ModelFacts) -> ModelFacts:
    """The same of a model that somebody registered: a catalogue's names are true, this one was chosen freely."""
    found = placed(facts)
    return replace(found, device_by_name=True) if facts.device is None and found.device is not None else found


def is_for_device(facts: ModelFacts, device: str) -> bool:
    """Whether a model is told to run on a device; of one that is split over two, the first counts."""
    return (facts.device or "").upper().partition("+")[0] == device.upper()


def is_for_provider(facts: ModelFacts, provider: str) -> bool:
    """Whether a model is told to run with an execution provider, named long or short."""
    if facts.execution_provider is not None:
        return short_provider(facts.execution_provider) == short_provider(provider)
    # In Foundry's catalog the generic variants for GPUs are WebGPU's.
    return "-generic-gpu" in facts.id.lower() and short_provider(provider) == "webgpu"
