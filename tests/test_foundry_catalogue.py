"""The public catalogue through the real SDK, from a stand-in on loopback: variants, what is on the disk, no network."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadbench.errors import LoadbenchError, TargetError
from loadbench.serve import foundry
from loadbench.server import ModelFacts, Target, choose
from tests.support import bigram, catalogue
from tests.support.catalogue import BIGRAM_CPU, BIGRAM_CUDA, BIGRAM_NPU, BIGRAM_WEBGPU, MIB, TRIGRAM_CPU, VARIANTS
from tests.support.runtimes import Started, chat, home, needs_sdk, started

pytestmark = [pytest.mark.system, needs_sdk]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A runtime with the whole catalogue, of which the variant for the processor is on the disk."""
    with started(tmp_path_factory.mktemp("catalogue"), VARIANTS, [BIGRAM_CPU]) as here:
        here.runtime.models()
        yield here


@pytest.fixture(scope="module")
def listed(here: Started) -> dict[str, ModelFacts]:
    """What it lists, by id."""
    return {facts.id: facts for facts in here.runtime.models()}


def test_every_variant_is_listed_with_alias_device_and_provider(listed: dict[str, ModelFacts]) -> None:
    assert {id: facts.aliases for id, facts in listed.items()} == {it.id: (it.alias,) for it in VARIANTS}
    variants = (BIGRAM_CPU, BIGRAM_CUDA, BIGRAM_WEBGPU, BIGRAM_NPU)
    assert [(listed[it.id].device, listed[it.id].execution_provider) for it in variants] == [
        ("CPU", "CPUExecutionProvider"),
        ("GPU", "CUDAExecutionProvider"),
        ("GPU", "WebGpuExecutionProvider"),
        ("NPU", "QNNExecutionProvider"),
    ]


def test_a_variant_has_licence_size_context_and_capabilities(listed: dict[str, ModelFacts]) -> None:
    facts = listed[BIGRAM_CPU.id]

    assert (facts.licence, facts.size_bytes, facts.context) == ("MIT", 512 * MIB, bigram.CONTEXT)
    assert facts.capabilities == ("chat", "tool-calling")
    assert listed[BIGRAM_CUDA.id].capabilities == ()
    assert listed[TRIGRAM_CPU.id].licence == "Apache-2.0"


def test_what_is_on_the_disk_is_cached_and_has_a_folder(here: Started, listed: dict[str, ModelFacts]) -> None:
    assert [id for id, facts in listed.items() if facts.cached] == [BIGRAM_CPU.id]
    assert here.runtime.path(BIGRAM_CPU.id) == here.cache / "Testing" / "bigram-generic-cpu-1"
    assert here.runtime.path(TRIGRAM_CPU.id) is None


@pytest.mark.parametrize(
    ("device", "provider", "id"),
    [
        ("cpu", None, BIGRAM_CPU.id),
        ("npu", None, BIGRAM_NPU.id),
        ("gpu", "cuda", BIGRAM_CUDA.id),
        ("gpu", "webgpu", BIGRAM_WEBGPU.id),
    ],
)
def test_an_alias_a_device_and_a_provider_choose_a_variant(
    listed: dict[str, ModelFacts], device: str, provider: str | None, id: str
) -> None:
    target = Target("the SDK", "foundry2", models=tuple(listed.values()))
    choice = choose(target, ["bigram"], devices=[device], execution_provider=provider)

    assert [one.id for one in choice.chosen] == [id]


def test_a_model_of_the_catalogue_answers_at_the_plain_url(here: Started) -> None:
    here.runtime.load(BIGRAM_CPU.id)
    url = here.runtime.serve() + "/v1"
    told = chat(url, BIGRAM_CPU.id).json()
    [facts] = [facts for facts in here.runtime.models() if facts.loaded]
    here.runtime.unload(BIGRAM_CPU.id)

    assert (facts.id, facts.base_url) == (BIGRAM_CPU.id, None)
    assert told["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("call", ["load", "remove"])
def test_what_is_not_downloaded_is_neither_loaded_nor_removed(here: Started, call: str) -> None:
    message = r"^trigram-generic-cpu:3 is not downloaded yet: loadbench models pull trigram"
    with pytest.raises(TargetError, match=message):
        getattr(here.runtime, call)(TRIGRAM_CPU.id)


def test_an_unknown_id_is_told_with_near_ones_of_the_catalogue(here: Started) -> None:
    with pytest.raises(TargetError, match=r"knows no model 'bigram-generic-cpu:9'; did you mean bigram-generic-cpu:1"):
        here.runtime.load("bigram-generic-cpu:9")


def test_what_is_there_already_is_not_downloaded(here: Started) -> None:
    here.runtime.pull(BIGRAM_CPU.id, pytest.fail, threading.Event())


def test_a_cancelled_download_leaves_nothing_of_it_and_the_runtime_goes_on(here: Started) -> None:
    def press(_: float) -> None:
        raise KeyboardInterrupt

    cancelled = threading.Event()
    with pytest.raises(LoadbenchError, match=r"^the download of trigram-generic-cpu:3 was cancelled; nothing of it is"):
        here.runtime.pull(TRIGRAM_CPU.id, lambda _: cancelled.set(), cancelled)
    with pytest.raises(KeyboardInterrupt):
        here.runtime.pull(TRIGRAM_CPU.id, press, threading.Event())

    assert list(here.cache.glob("*/trigram-generic-cpu-3/*")) == []
    assert len(here.runtime.models()) == len(VARIANTS)


def test_a_disk_without_room_is_told_before_the_download(tmp_path: Path) -> None:
    huge = catalogue.Variant("huge-generic-cpu", "huge", "cpu", "CPUExecutionProvider", size_bytes=10**9 * MIB)
    with (
        started(tmp_path, [huge]) as here,
        pytest.raises(LoadbenchError, match=r"^huge-generic-cpu:1 needs .* GB of disk and .* free: make room"),
    ):
        here.runtime.pull(huge.id, pytest.fail, threading.Event())


def test_removed_it_is_gone_from_the_disk(tmp_path: Path) -> None:
    with started(tmp_path, [BIGRAM_CPU], [BIGRAM_CPU]) as here:
        here.runtime.models()
        here.runtime.remove(BIGRAM_CPU.id)

        assert [facts.cached for facts in here.runtime.models()] == [False]
        assert list(here.cache.glob("*/*/model.onnx")) == []


def test_offline_the_models_known_before_are_listed_with_a_note(
    here: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home(monkeypatch, tmp_path)
    cache = shutil.copytree(here.cache, tmp_path / "cache")
    notes: list[str] = []
    with foundry.start(cache=cache, catalog_url=catalogue.NOWHERE, progress=notes.append) as runtime:
        models = runtime.models()

    assert {facts.id: facts.cached for facts in models} == {it.id: it is BIGRAM_CPU for it in VARIANTS}
    assert notes == ["Foundry Local's catalogue cannot be reached; its models are listed as they last were"]


def test_with_nothing_known_an_unknown_model_says_what_to_do(tmp_path: Path) -> None:
    with (
        started(tmp_path) as here,  # an empty list is all that the runtime tells of a catalogue out of reach
        pytest.raises(TargetError, match=r"^Foundry Local's catalogue at http\S+ cannot be reached, and none was read"),
    ):
        here.runtime.load("phi-4-mini")
