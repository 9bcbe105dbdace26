"""A stand-in, on loopback, for the service that Foundry Local's runtime 2.x asks which models there are.

The format is that of `AzureCatalogClient` and `CatalogModelToModelInfo` in sdk_v2/cpp/src/catalog/ of
microsoft/Foundry-Local (MIT). The runtime asks for the variants of the devices it finds; this stand-in gives it all,
so that a machine without a GPU lists variants for one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import bigram
from tests.support.gateways import Answered, Asked, gateway

PATH = "/asset-gallery/v1.0/models"
"""The runtime takes no other path."""
NOWHERE = f"http://127.0.0.1:9{PATH}"
"""A catalogue that cannot be reached: nobody listens on the discard port."""

PUBLISHER = "Testing"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Variant:
    """One model for one device, as the catalogue tells of it."""

    name: str
    alias: str
    device: str
    execution_provider: str
    size_bytes: int = 512 * MIB
    licence: str = "MIT"
    context: int = bigram.CONTEXT
    capabilities: tuple[str, ...] = ()
    version: int = 1

    @property
    def id(self) -> str:
        """What requests name."""
        return f"{self.name}:{self.version}"


BIGRAM_CPU = Variant(
    "bigram-generic-cpu", "bigram", "cpu", "CPUExecutionProvider", capabilities=("chat", "tool-calling")
)
BIGRAM_CUDA = Variant("bigram-cuda-gpu", "bigram", "gpu", "CUDAExecutionProvider", size_bytes=700 * MIB)
BIGRAM_WEBGPU = Variant("bigram-generic-gpu", "bigram", "gpu", "WebGpuExecutionProvider", size_bytes=600 * MIB)
BIGRAM_NPU = Variant("bigram-qnn-npu", "bigram", "npu", "QNNExecutionProvider", size_bytes=400 * MIB)
TRIGRAM_CPU = Variant("trigram-generic-cpu", "trigram", "cpu", "CPUExecutionProvider", licence="Apache-2.0", version=3)
VARIANTS = (BIGRAM_CPU, BIGRAM_CUDA, BIGRAM_WEBGPU, BIGRAM_NPU, TRIGRAM_CPU)


def row(variant: Variant) -> dict[str, Any]:
    """A variant in the catalogue's own words."""
    uri = f"azureml://registries/{PUBLISHER.lower()}/models"
    return {
        "assetId": f"{uri}/{variant.name}/versions/{variant.version}",
        "name": variant.name,
        "version": str(variant.version),
        "alias": variant.alias,
        "displayName": variant.name,
        "publisher": PUBLISHER,
        "license": variant.licence,
        "licenseDescription": f"{variant.licence} licence",
        "inferenceTasks": ["chat-completion"],
        "modelCapabilities": list(variant.capabilities),
        "deploymentOptions": ["Foundry Local on Devices"],
        "createdTime": "2026-01-02T03:04:05Z",
        "modelLimits": {
            "textLimits": {"inputContextWindow": variant.context, "maxOutputTokens": variant.context // 2},
            "supportedInputModalities": ["text"],
            "supportedOutputModalities": ["text"],
        },
        "variantInformation": {
            "parents": [{"assetId": f"{uri}/{variant.alias}/versions/1"}],
            "variantMetadata": {
                "modelType": "ONNX",
                "device": variant.device,
                "executionProvider": variant.execution_provider,
                "fileSizeBytes": variant.size_bytes,
            },
        },
    }


@contextlib.contextmanager
def serving(variants: Sequence[Variant] = VARIANTS) -> Iterator[str]:
    """The catalogue's URL, answered while the context lasts."""

    def law(asked: Asked) -> Answered:
        names = [name for each in asked.body["filters"] if each["field"] == "name" for name in each["values"]]
        rows = [row(variant) for variant in variants if not names or variant.name in names]
        return Answered(body={"summaries": rows, "totalCount": len(rows), "continuationToken": None})

    with gateway(law) as there:
        yield there.url + PATH


def place(cache: Path, variant: Variant) -> Path:
    """Put the tiny model into a cache folder as a finished download of the variant; its folder."""
    folder = bigram.make(cache / PUBLISHER / f"{variant.name}-{variant.version}", context=variant.context)
    named = json.dumps({"Name": variant.id, "PromptTemplate": None})
    (folder / "inference_model.json").write_text(named, encoding="utf-8")
    return folder
