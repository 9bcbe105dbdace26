"""Foundry Local's SDK in its cache folder, ids of one's own models, and the parent's side with children on a script."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadbench.errors import LoadbenchError, TargetError, UsageError, how_to_install
from loadbench.serve import foundry
from loadbench.serve.foundry import (
    REGISTERED,
    Runtime,
    available,
    cache_folder,
    half_downloads,
    has_models,
    id_of,
    running,
)

# -- what of it is on this machine

TOO_OLD = "Foundry Local's SDK {} is too old, 2.1 or newer is needed: "


@pytest.mark.parametrize(
    ("version", "has_package", "reason"),
    [
        *((version, True, None) for version in ("2.1", "2.1.0", "2.2.1", "2.10.0", "3.0.0rc1", "10.0")),
        *((version, True, TOO_OLD.format(version)) for version in ("0.5.1", "1.2.4", "2.0.9", "2.0.0rc2")),
        (None, True, "Foundry Local's SDK is not installed: "),
        ("2.2.1", False, "Foundry Local's SDK 2.2.1 is installed without its package foundry_local_sdk: "),
    ],
)
def test_a_missing_or_old_sdk_says_what_to_install(
    version: str | None, has_package: bool, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foundry, "_sdk_version", lambda: version)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object() if has_package else None)

    assert available() == (None if reason is None else reason + how_to_install("foundry"))


@pytest.mark.parametrize(
    ("variable", "folder"),
    [
        (None, "/home/ada/.loadbench/cache/models"),
        ("", "/home/ada/.loadbench/cache/models"),
        ("/data/models", "/data/models"),
        ("~/models", "/home/eve/models"),
    ],
)
def test_the_cache_folder_is_the_sdks_own_unless_another_is_named(
    variable: str | None, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/eve")
    monkeypatch.setenv("USERPROFILE", "/home/eve")
    environ = {} if variable is None else {"LOADBENCH_CACHE_DIR": variable}

    assert cache_folder(environ, Path("/home/ada")).as_posix() == folder


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
    assert has_models(tmp_path / "none") is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps({"models": [{"id": "tiny:1"}]}), True),
        (json.dumps({"models": []}), False),  # all were removed
        (json.dumps({"models": "none"}), False),
        (json.dumps([]), False),
        ("not JSON", False),
    ],
)
def test_a_registered_model_counts(tmp_path: Path, text: str, expected: bool) -> None:
    (tmp_path / REGISTERED).write_text(text)

    assert has_models(tmp_path) is expected


def test_only_this_models_unfinished_downloads_are_half(tmp_path: Path) -> None:
    lay(tmp_path / "Microsoft" / "phi-1", "download.tmp")
    lay(tmp_path / "Microsoft" / "phi-2", "download.tmp")
    lay(tmp_path / "Other" / "phi-1", *WHOLE)

    assert half_downloads(tmp_path, "phi:1") == [tmp_path / "Microsoft" / "phi-1"]


# -- the id of a model of one's own


def settings(*providers: Any) -> dict[str, Any]:
    return {"model": {"decoder": {"session_options": {"provider_options": list(providers)}}}}


@pytest.mark.parametrize(
    ("folder", "content", "name", "expected"),
    [
        ("tiny", settings(), None, "tiny-generic-cpu:1"),
        ("tiny", settings({"cuda": {}}), None, "tiny-cuda-gpu:1"),
        ("tiny", settings({"CUDA": {"enable_cuda_graph": "0"}}), None, "tiny-cuda-gpu:1"),
        ("tiny", settings({"DML": {}}), None, "tiny-generic-gpu:1"),
        ("tiny", settings({"WebGPU": {}}), None, "tiny-generic-gpu:1"),
        ("tiny", settings({"qnn": {}}), None, "tiny-qnn-npu:1"),
        ("tiny", settings({"OpenVINO": {}}), None, "tiny-openvino-npu:1"),
        ("tiny", settings({"VitisAI": {}}), None, "tiny-vitis-npu:1"),
        ("tiny", settings({"NvTensorRtRtx": {}}), None, "tiny-trtrtx-gpu:1"),
        ("tiny", settings({"qnn": {}}, {"cuda": {}}), None, "tiny-qnn-npu:1"),  # the first counts
        ("tiny", settings({}, {"cuda": {}}), None, "tiny-cuda-gpu:1"),
        ("tiny", settings({"of tomorrow": {}}), None, "tiny-generic-cpu:1"),
        ("tiny", {}, None, "tiny-generic-cpu:1"),
        ("tiny", {"model": {"decoder": []}}, None, "tiny-generic-cpu:1"),
        ("tiny-generic-cpu", settings({"cuda": {}}), None, "tiny-generic-cpu:1"),  # the folder's name says it already
        ("my model (2)", settings(), None, "my-model-2-generic-cpu:1"),
        ("-.-", settings(), None, "model-generic-cpu:1"),
        ("Größe", settings(), None, "Gr-e-generic-cpu:1"),
        ("tiny", settings(), "mine", "mine:1"),
        ("tiny", settings(), "mine:7", "mine:7"),
        ("tiny", settings(), "Mine_2.5-cpu", "Mine_2.5-cpu:1"),
    ],
)
def test_an_id_is_made_of_folder_and_provider_or_of_a_name(
    tmp_path: Path, folder: str, content: Any, name: str | None, expected: str
) -> None:
    lay(tmp_path / folder)
    (tmp_path / folder / "genai_config.json").write_text(json.dumps(content))

    assert id_of(tmp_path / folder, name) == expected


@pytest.mark.parametrize("name", ["", ":1", "a b", "a/b", "-a", "a:b", "a:1:2", "a:", "../a", "größe"])
def test_what_is_no_id_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "genai_config.json").write_text("{}")

    with pytest.raises(UsageError, match=r"is no model id: write it as my-model-generic-cpu:1, the number is its ver"):
        id_of(tmp_path, name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no genai_config.json: it must be a model in the format of ONNX Runtime GenAI"),
        (b"not JSON", "cannot be read: "),
        (b"\xff\xfe", "cannot be read: "),
        (b"[]", "holds no settings: it must be an object"),
    ],
)
def test_a_folder_without_settings_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "genai_config.json").write_bytes(content)

    with pytest.raises(UsageError) as raised:
        id_of(tmp_path, "mine")
    assert message in str(raised.value)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()

    with pytest.raises(UsageError, match=r"model\.onnx is no folder: name the one that holds the model's genai_config"):
        id_of(tmp_path / "model.onnx", None)


# -- the parent's side, with a child that follows a script

MODEL = "tiny-generic-cpu:1"
BEGIN = """
import json, os, signal, sys, time
def say(**words): os.write(1, json.dumps(words).encode() + b"\\n")
def heard(): return json.loads(sys.stdin.readline())
say(id=0, result="2.2.1")
ask = heard()
"""
DONE = "say(id=ask['id'], result=None)"
OFFLINE = "Foundry Local's catalogue cannot be reached; its models are listed as they last were"


@contextlib.contextmanager
def scripted(script: str, cache: Path = Path("none"), notes: list[str] | None = None) -> Iterator[Runtime]:
    """A runtime whose child is ready and then does this; `ask` is the first request."""
    with running([sys.executable, "-c", f"{BEGIN}{script}"], cache, ([] if notes is None else notes).append) as runtime:
        yield runtime


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """The folder of an unfinished download, in the cache folder `tmp_path`."""
    folder = tmp_path / "Testing" / MODEL.replace(":", "-")
    lay(folder, "download.tmp", "model.onnx.data")
    return folder


def press(_: float) -> None:
    """As Ctrl-C does in the thread that follows the progress."""
    raise KeyboardInterrupt


@pytest.mark.system
def test_an_answer_is_the_one_to_the_question() -> None:
    with scripted("say(id=99, result='another'); say(id=ask['id'], result='http://127.0.0.1:1')") as runtime:
        assert runtime.serve() == "http://127.0.0.1:1"


@pytest.mark.system
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("LoadbenchError", LoadbenchError),
        ("TargetError", TargetError),
        ("UsageError", UsageError),
        ("Hung", LoadbenchError),  # a kind that only the child knows
    ],
)
def test_an_error_keeps_its_kind_and_its_line(kind: str, expected: type[LoadbenchError]) -> None:
    with (
        scripted(f"say(id=ask['id'], error='it is so', kind={kind!r})") as runtime,
        pytest.raises(LoadbenchError, match=r"^it is so$") as raised,
    ):
        runtime.load(MODEL)

    assert raised.type is expected


@pytest.mark.system
def test_notes_come_at_once_and_a_catalogue_out_of_reach_is_noted_once() -> None:
    notes: list[str] = []
    log = b"[error] failed to fetch catalog from http://x\n"
    with scripted(f"say(note='it fetches CUDA, once'); os.write(2, {log!r} * 2); {DONE}", notes=notes) as runtime:
        runtime.load(MODEL)

    assert sorted(notes) == [OFFLINE, "it fetches CUDA, once"]


@pytest.mark.system
def test_calls_of_two_threads_each_get_their_answer() -> None:
    script = "other = heard()\nfor one in (other, ask): say(id=one['id'], result=one['model'])"
    found: dict[str, Path | None] = {}
    with scripted(script) as runtime:
        asking = [threading.Thread(target=lambda it=it: found.update({it: runtime.path(it)})) for it in ("a", "b")]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()

    assert found == {"a": Path("a"), "b": Path("b")}


KILLED = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.system
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize(
    ("script", "call", "message"),
    [
        ("print('it broke', file=sys.stderr); sys.exit(3)", "load", r"ended with exit code 3 \(it broke\) while it"),
        ("sys.exit(3)", "load", rf"ended with exit code 3 \(no message\) while it was asked to load {MODEL}$"),
        ('os.write(1, b\'{"id": 1, "res\'); sys.exit(3)', "load", r"ended with exit code 3"),  # within an answer
        ("os.close(1); sys.stdin.read()", "load", rf"closed its answers while it was asked to load {MODEL}$"),
        (KILLED, "load", f"was ended by SIGKILL, most likely for want of memory, while it was asked to load {MODEL}$"),
        (KILLED, "unload", f"was ended by SIGKILL while it was asked to unload {MODEL}$"),
    ],
)
def test_a_child_that_ends_without_an_answer_is_one_line(script: str, call: str, message: str) -> None:
    with scripted(script) as runtime, pytest.raises(LoadbenchError, match=f"^Foundry Local's runtime {message}"):
        getattr(runtime, call)(MODEL)


@pytest.mark.system
def test_a_note_that_cannot_be_passed_on_does_not_leave_the_caller_waiting() -> None:
    def broken(_: str) -> None:
        raise BrokenPipeError

    command = [sys.executable, "-c", f"{BEGIN}say(note='x'); time.sleep(0.2)"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)
        with (
            running(command, Path(), broken) as runtime,
            pytest.raises(LoadbenchError, match=r"^Foundry Local's runtime "),
        ):
            runtime.load(MODEL)


@pytest.mark.system
def test_a_child_that_is_never_ready_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foundry, "READY_TIMEOUT_S", 0.2)
    with (
        pytest.raises(LoadbenchError, match=r"^Foundry Local's runtime is not ready after 0\.2 s$"),
        running([sys.executable, "-c", "import sys; sys.stdin.read()"], Path()),
    ):
        pass


@pytest.mark.system
def test_a_child_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foundry, "STOP_TIMEOUT_S", 0.2)
    with scripted(f"{DONE}; time.sleep(60)") as runtime:
        runtime.load(MODEL)
        began_s = time.monotonic()

    assert time.monotonic() - began_s < 5


# -- downloads

UNTIL_CANCELLED = """
say(id=ask['id'], progress=50.0)
assert heard() == {'cancel': ask['id']}
say(id=ask['id'], error='it was cancelled', kind='LoadbenchError')
"""
TALKATIVE = """
import threading
cancelled = threading.Event()
threading.Thread(target=lambda: heard() and cancelled.set()).start()
percent = 0.0
while not cancelled.wait(0.01) and percent < 5:
    percent += 0.01
    say(id=ask['id'], progress=percent)
say(id=ask['id'], error='it was cancelled' if cancelled.is_set() else 'no cancel came', kind='LoadbenchError')
os._exit(0)
"""
DEAF = """
say(id=ask['id'], progress=50.0)
heard()
while True:
    say(id=ask['id'], progress=51.0)
    time.sleep(0.05)
"""


@pytest.mark.system
def test_a_download_reports_its_progress() -> None:
    percents: list[float] = []
    with scripted(f"for percent in (0.0, 50.0, 100.0): say(id=ask['id'], progress=percent)\n{DONE}") as runtime:
        runtime.pull(MODEL, percents.append, threading.Event())

    assert percents == [0.0, 50.0, 100.0]


@pytest.mark.system
def test_a_download_that_broke_keeps_what_it_has(tmp_path: Path, half: Path) -> None:
    with (
        scripted("say(id=ask['id'], error='broken', kind='LoadbenchError')", tmp_path) as runtime,
        pytest.raises(LoadbenchError, match=r"^broken$"),
    ):
        runtime.pull(MODEL, lambda _: None, threading.Event())

    assert half.exists()


@pytest.mark.system
@pytest.mark.parametrize(
    ("script", "model", "message", "stays"),
    [
        (UNTIL_CANCELLED, MODEL, r"^it was cancelled$", False),
        (TALKATIVE, MODEL, r"^it was cancelled$", False),  # progress without a pause
        ("say(id=ask['id'], progress=1.0); heard(); os._exit(1)", MODEL, "exit code 1", False),
        (UNTIL_CANCELLED, "tiny-generic-cpu:2", r"^it was cancelled$", True),  # the half one is another model's
    ],
)
def test_a_cancel_reaches_the_child_and_leaves_no_half_model(
    script: str, model: str, message: str, stays: bool, tmp_path: Path, half: Path
) -> None:
    cancelled = threading.Event()
    with scripted(script, tmp_path) as runtime, pytest.raises(LoadbenchError, match=message):
        runtime.pull(model, lambda _: cancelled.set(), cancelled)

    assert half.exists() is stays


@pytest.mark.system
def test_ctrl_c_cancels_waits_for_the_end_and_leaves_no_half_model(tmp_path: Path, half: Path) -> None:
    after = "heard(); say(id=2, result='still here')"
    with scripted(UNTIL_CANCELLED + after, tmp_path) as runtime:
        with pytest.raises(KeyboardInterrupt):
            runtime.pull(MODEL, press, threading.Event())

        assert not half.exists()
        assert runtime.path("another") == Path("still here")


@pytest.mark.system
def test_ctrl_c_ends_a_child_that_does_not_let_go(tmp_path: Path, half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foundry, "CANCEL_S", 0.3)
    with scripted(DEAF, tmp_path) as runtime:
        with pytest.raises(KeyboardInterrupt):
            runtime.pull(MODEL, press, threading.Event())

        assert not half.exists()
        with pytest.raises(LoadbenchError, match=r"^Foundry Local's runtime (was ended by SIGKILL|ended with)"):
            runtime.load(MODEL)
