"""Foundry Local's real runtime in its child process: models of one's own, the web service, its end, its catalogue."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from loadbench.errors import LoadbenchError, TargetError, UsageError
from loadbench.serve import foundry
from loadbench.serve.foundry import Runtime
from loadbench.server import ModelFacts, Target, choose
from tests.support import bigram, catalogue
from tests.support.catalogue import BIGRAM_CPU, BIGRAM_CUDA, BIGRAM_NPU, BIGRAM_WEBGPU, MIB, TRIGRAM_CPU, VARIANTS
from tests.support.runtimes import Started, chat, ends, home, needs_sdk, started

pytestmark = [pytest.mark.system, needs_sdk]

PARENT = """
import os, signal, sys
from pathlib import Path
from loadbench.serve import foundry
pressed = []
signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
with foundry.start(cache=Path(sys.argv[1]), catalog_url=sys.argv[2]) as runtime:
    model = runtime.register(Path(sys.argv[3]))
    os.killpg(0, signal.SIGINT)
    runtime.load(model.id)
    print(runtime.pid, bool(pressed), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """One for all, with an empty public catalogue; each test registers a model of its own."""
    with started(tmp_path_factory.mktemp("foundry")) as here:
        yield here.runtime


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a model, `tiny`."""
    return bigram.make(tmp_path / "tiny")


@pytest.fixture
def model(runtime: Runtime, folder: Path, request: pytest.FixtureRequest) -> Iterator[ModelFacts]:
    """A registered model, named after the test."""
    name = request.node.originalname.removeprefix("test_").replace("_", "-")[:40].strip("-")
    facts = runtime.register(folder, f"{name}-generic-cpu")
    yield facts
    runtime.remove(facts.id)


def of(runtime: Runtime, id: str) -> ModelFacts | None:
    return next((facts for facts in runtime.models() if facts.id == id), None)


# -- models of one's own


def test_a_registered_model_has_id_alias_device_and_the_size_of_its_files(runtime: Runtime, folder: Path) -> None:
    facts = runtime.register(folder)
    runtime.remove(facts.id)
    mine = runtime.register(folder, "mine:3")
    runtime.remove(mine.id)

    assert runtime.version.startswith("2.")
    assert (facts.id, facts.aliases, facts.cached, facts.loaded) == ("tiny-generic-cpu:1", ("tiny",), True, False)
    assert (facts.device, facts.execution_provider) == ("CPU", "CPUExecutionProvider")
    assert facts.size_bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert (facts.context, facts.task, mine.id) == (bigram.CONTEXT, "chat-completion", "mine:3")


def test_registered_again_it_is_one_model_and_its_settings_are_read_again(
    runtime: Runtime, model: ModelFacts, folder: Path
) -> None:
    bigram.make(folder, context=512)
    again = runtime.register(folder, model.id)

    assert runtime.path(model.id) == folder
    assert (again.id, again.context) == (model.id, 512)
    assert [facts.id for facts in runtime.models()].count(model.id) == 1


def test_registered_again_while_it_is_loaded_it_stays_loaded(runtime: Runtime, model: ModelFacts, folder: Path) -> None:
    runtime.load(model.id)

    assert runtime.register(folder, model.id).loaded is True


def test_a_name_that_stands_for_another_folder_is_not_taken_over(
    runtime: Runtime, model: ModelFacts, tmp_path: Path
) -> None:
    other = bigram.make(tmp_path / "other")

    with pytest.raises(LoadbenchError, match=r"is registered already, for .*tiny: remove that first"):
        runtime.register(other, model.id)


def test_a_folder_without_a_model_is_refused_before_the_sdk_is_asked(runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no genai_config\.json"):
        runtime.register(tmp_path)


def test_removed_it_is_forgotten_and_its_files_stay(runtime: Runtime, folder: Path) -> None:
    facts = runtime.register(folder, "forgotten")
    runtime.remove(facts.id)

    assert of(runtime, facts.id) is None
    assert (folder / "model.onnx").exists()


# -- the web service


def test_a_loaded_model_answers_with_exact_token_counts(runtime: Runtime, model: ModelFacts) -> None:
    runtime.serve()
    runtime.load(model.id)
    facts = of(runtime, model.id)
    assert facts is not None
    assert facts.base_url is not None
    told = chat(facts.base_url, facts.id, "Grüße", max_tokens=7).json()

    assert told["choices"][0]["message"]["content"] == bigram.reply(7)
    assert told["usage"]["completion_tokens"] == 7
    assert told["usage"]["prompt_tokens"] == bigram.prompt_tokens("Grüße") == len("Grüße".encode()) + 19


def test_an_answer_ends_by_itself_and_once_unloaded_there_is_none(runtime: Runtime, model: ModelFacts) -> None:
    url = runtime.serve() + "/catalogs/local/v1"
    runtime.load(model.id)
    answer = chat(url, model.id, max_tokens=1000).json()["choices"][0]
    runtime.unload(model.id)
    facts = of(runtime, model.id)

    assert (answer["finish_reason"], answer["message"]["content"]) == ("stop", bigram.reply(bigram.WORDS))
    assert facts is not None
    assert facts.loaded is False
    assert chat(url, model.id).status_code == 400


def test_unloading_waits_a_moment_for_a_stream_to_end(runtime: Runtime, tmp_path: Path) -> None:
    model = runtime.register(bigram.make(tmp_path / "busy", burn=2000))
    runtime.load(model.id)
    url = runtime.serve() + "/catalogs/local/v1/chat/completions"
    body = {"model": model.id, "messages": [{"role": "user", "content": "x"}], "max_tokens": 16, "stream": True}
    with httpx.stream("POST", url, json=body) as answer:
        lines = answer.iter_lines()
        assert any("chat.completion.chunk" in line for line in lines)  # a slow machine gets keep-alives first
        runtime.unload(model.id)
        assert "data: [DONE]" in list(lines)
    facts = of(runtime, model.id)
    runtime.remove(model.id)

    assert facts is not None
    assert facts.loaded is False


def test_served_again_it_has_the_same_url_and_refuses_another_port(runtime: Runtime) -> None:
    url = runtime.serve()

    assert runtime.serve() == url
    with pytest.raises(LoadbenchError, match=f"the web service runs at {url} already"):
        runtime.serve(9)


def test_a_port_of_choice_is_taken_and_what_was_loaded_stays_so(tmp_path: Path) -> None:
    with started(tmp_path) as here:
        model = here.runtime.register(bigram.make(tmp_path / "tiny"))
        here.runtime.load(model.id)
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(LoadbenchError, match=f"^port {port} of 127.0.0.1 is taken by another program"):
                here.runtime.serve(port)

        assert here.runtime.serve(port) == f"http://127.0.0.1:{port}"
        assert [facts.id for facts in here.runtime.models() if facts.loaded] == [model.id]


def test_thoughts_are_streamed_where_the_texts_around_them_were_told(tmp_path: Path) -> None:
    """Without them 2.2.1 drops thoughts from the stream, and counts them all the same."""
    with started(tmp_path) as here:
        model = here.runtime.register(bigram.make(tmp_path / "tiny"), "tiny-generic-cpu", (" word0", " word3"))
        here.runtime.load(model.id)
        url = here.runtime.serve() + "/catalogs/local/v1"
        answer = chat(url, model.id, max_tokens=6, stream=True).text

    assert '"reasoning_content":" word1"' in answer
    assert '"content":" word4"' in answer


# -- errors


def test_an_unknown_id_is_told_with_near_ones(runtime: Runtime, model: ModelFacts) -> None:
    with pytest.raises(TargetError, match=rf"knows no model '{model.id}2'; did you mean {model.id}\?"):
        runtime.load(f"{model.id}2")


def test_a_broken_model_is_one_line_and_the_runtime_goes_on(
    runtime: Runtime, model: ModelFacts, folder: Path, tmp_path: Path
) -> None:
    broken = runtime.register(bigram.make(tmp_path / "broken"), "broken")
    (tmp_path / "broken" / "model.onnx").write_bytes(b"nothing of the kind")

    with pytest.raises(LoadbenchError, match=r"^broken:1 cannot be loaded: .*Protobuf parsing failed") as raised:
        runtime.load(broken.id)
    runtime.load(model.id)
    runtime.remove(broken.id)
    assert "\n" not in str(raised.value)
    assert [facts.id for facts in runtime.models() if facts.loaded] == [model.id]


# -- the process


def test_this_process_never_imports_the_sdk(runtime: Runtime) -> None:
    runtime.models()

    assert [name for name in sys.modules if name.startswith(("foundry_local", "onnxruntime"))] == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_a_runtime_that_was_killed_is_one_clear_line(tmp_path: Path) -> None:
    with started(tmp_path) as here:
        model = here.runtime.register(bigram.make(tmp_path / "tiny"))
        os.kill(here.runtime.pid, signal.SIGKILL)

        with pytest.raises(LoadbenchError, match=f"^Foundry Local's runtime was ended by SIGKILL.* to load {model.id}"):
            here.runtime.load(model.id)
        with pytest.raises(LoadbenchError, match=r"^Foundry Local's runtime was ended by SIGKILL as it served$"):
            here.runtime.wait()


def test_a_call_after_its_end_is_one_clear_line(tmp_path: Path) -> None:
    with started(tmp_path) as here:
        runtime = here.runtime

    with pytest.raises(LoadbenchError, match=r"^Foundry Local's runtime ended with exit code 0"):
        runtime.models()


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX's")
def test_ctrl_c_does_not_reach_it_and_it_ends_with_a_parent_that_was_killed(folder: Path, tmp_path: Path) -> None:
    words = [tmp_path / "cache", catalogue.NOWHERE, folder]
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *map(str, words)],
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path(foundry.__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        assert parent.stdout
        pid, pressed = parent.stdout.readline().decode().split()
        assert (pressed, psutil.pid_exists(int(pid))) == ("True", True)
        parent.kill()

    assert ends(int(pid))


def test_without_the_sdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadbench.serve.foundry._sdk_version", lambda: None)

    with pytest.raises(LoadbenchError, match=r"^Foundry Local's SDK is not installed: "), foundry.start():
        pass


def test_an_sdk_that_cannot_be_loaded_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home(monkeypatch, tmp_path)
    (tmp_path / "foundry_local_sdk.py").write_text(
        "print('its log')\nraise ImportError('libonnx.so: cannot open shared object file')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with (
        pytest.raises(LoadbenchError, match=r"^Foundry Local's SDK cannot be loaded: libonnx\.so: cannot open"),
        foundry.start(cache=tmp_path),
    ):
        pass


# == the public catalogue, from a stand-in on loopback: variants, what is on the disk, no network


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
