"""`loadbench serve foundry`: which models it serves, what it says, and how it ends; with the real SDK and without."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from loadbench.cli.serve import chosen
from loadbench.errors import LoadbenchError, TargetError, how_to_install
from loadbench.server import ModelFacts
from tests.support import bigram, catalogue
from tests.support.command import invoke
from tests.support.runtimes import chat, ends, needs_sdk
from tests.support.sdk import FakeRuntime, install

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[1]
LOCAL = "http://127.0.0.1:5273/catalogs/local/v1"

TINY = ModelFacts("tiny-generic-cpu:1", ("tiny",), cached=True, device="CPU", base_url=LOCAL)
PHI_CPU = ModelFacts("phi-generic-cpu:2", ("phi",), cached=True, device="CPU")
PHI_CUDA = ModelFacts(
    "phi-cuda-gpu:2", ("phi",), cached=False, device="GPU", execution_provider="CUDAExecutionProvider"
)
QWEN = ModelFacts("qwen-generic-cpu:4", ("qwen",), cached=False, device="CPU")
MODELS = [TINY, PHI_CPU, PHI_CUDA, QWEN]


def ids(models: list[ModelFacts], *names: str, devices: list[str] | None = None, ep: str | None = None) -> list[str]:
    """Which it would load."""
    return [facts.id for facts in chosen(models, Path("cache"), names, devices or (), ep)]


# -- which models


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("tiny",), ["tiny-generic-cpu:1"]),
        (("phi-generic-cpu:2",), ["phi-generic-cpu:2"]),
        (("phi",), ["phi-generic-cpu:2"]),  # of its variants the one that is downloaded
        (("phi,tiny",), ["phi-generic-cpu:2", "tiny-generic-cpu:1"]),
        (("TINY", "phi", "tiny"), ["tiny-generic-cpu:1", "phi-generic-cpu:2"]),  # each once
    ],
)
def test_models_are_named_by_alias_or_id(names: tuple[str, ...], expected: list[str]) -> None:
    assert ids(MODELS, *names) == expected
    assert ids([TINY, PHI_CUDA, QWEN]) == ["tiny-generic-cpu:1"], "the only one that is here needs no name"
    assert ids([PHI_CPU, replace(PHI_CUDA, cached=True), TINY], "phi", devices=["gpu"], ep="cuda") == [PHI_CUDA.id]


@pytest.mark.parametrize(
    ("models", "names", "devices", "message"),
    [
        (MODELS, (), None, "several models are here: name with -m which to serve: tiny-generic-cpu:1, phi-generic-cpu"),
        ([QWEN], (), None, "no model is in cache: download one with `loadbench models pull NAME`, or register one of"),
        ([], (), None, "no model is in cache: "),
        (MODELS, ("qwen",), None, "qwen-generic-cpu:4 is not downloaded yet: loadbench models pull qwen-generic-cpu:4"),
        (MODELS, ("phi",), ["gpu"], "phi-cuda-gpu:2 is not downloaded yet: loadbench models pull phi-cuda-gpu:2"),
        (MODELS, ("phi",), ["npu"], "phi is for CPU, GPU, not for NPU"),
        (MODELS, ("phi",), ["cpu", "npu"], "phi is for CPU, GPU, not for NPU"),
        (MODELS, ("tny",), None, "Foundry Local's SDK has no model 'tny': did you mean tiny-generic-cpu:1?"),
    ],
)
def test_what_cannot_be_served_says_what_to_do(
    models: list[ModelFacts], names: tuple[str, ...], devices: list[str] | None, message: str
) -> None:
    with pytest.raises(TargetError) as raised:
        ids(models, *names, devices=devices)

    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


# -- the command, with a runtime that is none


def served(monkeypatch: pytest.MonkeyPatch, models: list[ModelFacts], *words: str) -> tuple[FakeRuntime, str, str]:
    """What it did and said, until Ctrl-C."""
    runtime = FakeRuntime(models, root=LOCAL.removesuffix("/catalogs/local/v1"))
    install(monkeypatch, runtime)
    done = invoke("serve", "foundry", *words)
    assert done.exit_code == 0, done.output
    return runtime, done.stdout, done.stderr


def test_only_what_was_named_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, said, _ = served(monkeypatch, MODELS, "-m", "phi", "--port", "5273")

    assert (runtime.loaded, runtime.ports) == (["phi-generic-cpu:2"], [5273])
    assert said.startswith("http://127.0.0.1:5273/v1  phi-generic-cpu:2 (CPU) on Foundry Local's runtime, SDK 2.2.1\n")


def test_a_registered_model_has_a_url_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    _, said, _ = served(monkeypatch, MODELS, "-m", "tiny")

    assert said.splitlines()[0].startswith(f"{LOCAL}  tiny-generic-cpu:1 (CPU) on ")
    assert f"loadbench run -e {LOCAL} -c 1,2,4 " in said.splitlines()[1]


def test_of_both_kinds_a_run_needs_one_url_and_others_are_told_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    _, said, told = served(monkeypatch, MODELS, "-m", "phi,tiny")

    assert said.startswith("http://127.0.0.1:5273/v1  phi-generic-cpu:2 (CPU), tiny-generic-cpu:1 (CPU) on ")
    assert told == f"tiny-generic-cpu:1 answers at {LOCAL}, where `loadbench run` finds it by itself\n"


def test_json_is_one_line_with_all_models(monkeypatch: pytest.MonkeyPatch) -> None:
    _, said, told = served(monkeypatch, MODELS, "-m", "phi,tiny", "--json")
    facts = json.loads(said)

    assert told == ""
    assert (facts["url"], facts["model"], facts["pid"]) == ("http://127.0.0.1:5273/v1", PHI_CPU.id, os.getpid())
    assert [(one["model"], one["url"], one["device"]) for one in facts["models"]] == [
        (PHI_CPU.id, "http://127.0.0.1:5273/v1", "CPU"),
        (TINY.id, LOCAL, "CPU"),
    ]


def test_a_model_that_may_not_fit_is_warned_of_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = ModelFacts("huge-generic-cpu:1", ("huge",), cached=True, device="CPU", size_bytes=10**15)
    _, _, told = served(monkeypatch, [huge])

    assert told.startswith("Warning: huge-generic-cpu:1 needs about ")


@pytest.mark.parametrize(
    ("installed", "error"),
    [
        (True, "tiny-generic-cpu:1 cannot be loaded: bad file"),
        (False, f"Foundry Local's SDK is not installed: {how_to_install('foundry')}"),
    ],
)
def test_what_cannot_start_is_one_line(
    installed: bool, error: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not installed:
        monkeypatch.setattr("loadbench.serve.foundry._sdk_version", lambda: None)
    else:
        caches = install(monkeypatch, FakeRuntime([TINY], refuses=LoadbenchError(error)))
    done = invoke("serve", "foundry", "--cache-dir", tmp_path)

    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"loadbench: {error}\n")
    assert not installed or caches == [tmp_path]


# -- the command, with the real SDK


@dataclass(frozen=True, slots=True)
class Serving:
    """The command as one types it, ready."""

    process: subprocess.Popen[str]
    facts: dict[str, object]

    @property
    def url(self) -> str:
        return str(self.facts["url"])

    @property
    def pid(self) -> int:
        return int(str(self.facts["pid"]))


@contextlib.contextmanager
def real(folder: Path, *words: str) -> Iterator[Serving]:
    """In a home of its own, with the tiny model registered and a public catalogue that is empty."""
    ours = ("LOADBENCH_", "BENCH_", "FOUNDRY_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    model = bigram.make(folder / "tiny")
    with catalogue.serving(()) as url:
        own = {"HOME": str(folder), "USERPROFILE": str(folder), "PYTHONPATH": str(ROOT), "LOADBENCH_CATALOG_URL": url}
        command = [sys.executable, "-m", "loadbench"]
        subprocess.run([*command, "models", "register", model], env=environment | own, check=True, capture_output=True)
        with subprocess.Popen(
            [*command, "serve", "foundry", "--json", *words],
            env=environment | own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout
                yield Serving(process, json.loads(process.stdout.readline()))
            finally:
                process.kill()


@needs_sdk
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_until_it_is_stopped_and_leaves_nothing_behind(tmp_path: Path, stop: int) -> None:
    with real(tmp_path, "-m", "tiny") as serving:
        told = chat(serving.url, "tiny-generic-cpu:1").json()
        serving.process.send_signal(stop)
        rest, errors = serving.process.communicate(timeout=15)

    assert told["usage"]["completion_tokens"] == 5
    assert (serving.process.returncode, rest, errors) == (0, "", "")
    assert ends(serving.pid)


@needs_sdk
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_a_runtime_that_dies_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    with real(tmp_path) as serving:
        os.kill(serving.pid, signal.SIGKILL)
        rest, errors = serving.process.communicate(timeout=15)

    assert (serving.process.returncode, rest) == (1, "")
    assert errors == "loadbench: Foundry Local's runtime was ended by SIGKILL as it served\n"
