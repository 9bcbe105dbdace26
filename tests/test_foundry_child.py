"""The parent's side of the child process, with children that follow a script: downloads, cancels, and bad ends."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadbench.errors import LoadbenchError, TargetError, UsageError
from loadbench.serve.foundry import runtime as runtimes
from loadbench.serve.foundry.runtime import Runtime, running

pytestmark = pytest.mark.system

MODEL = "tiny-generic-cpu:1"
BEGIN = """
import json, os, signal, sys, time
def say(**said): os.write(1, json.dumps(said).encode() + b"\\n")
def heard(): return json.loads(sys.stdin.readline())
say(id=0, result="2.2.1")
"""


@contextlib.contextmanager
def scripted(script: str, cache: Path = Path("none"), notes: list[str] | None = None) -> Iterator[Runtime]:
    """A runtime whose child is ready and then does this; `ask` is the first request."""
    command = [sys.executable, "-c", f"{BEGIN}ask = heard()\n{script}"]
    with running(command, None if notes is None else notes.append) as child:
        yield Runtime(child, cache)


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """The folder of an unfinished download, in the cache folder `tmp_path`."""
    folder = tmp_path / "Testing" / MODEL.replace(":", "-")
    folder.mkdir(parents=True)
    (folder / "download.tmp").touch()
    (folder / "model.onnx.data").write_bytes(b"half")
    return folder


# -- answers


def test_an_answer_is_the_one_to_the_question() -> None:
    with scripted("say(id=99, result='another'); say(id=ask['id'], result='http://127.0.0.1:1')") as runtime:
        assert runtime.serve() == "http://127.0.0.1:1"


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
    with scripted(f"say(id=ask['id'], error='it is so', kind={kind!r})") as runtime:
        with pytest.raises(LoadbenchError, match=r"^it is so$") as raised:
            runtime.load(MODEL)

        assert raised.type is expected


def test_notes_are_told_as_they_come() -> None:
    notes: list[str] = []
    with scripted("say(note='it fetches CUDA, once'); say(id=ask['id'], result=None)", notes=notes) as runtime:
        runtime.load(MODEL)

    assert notes == ["it fetches CUDA, once"]


def test_a_catalogue_out_of_reach_is_told_once() -> None:
    notes: list[str] = []
    log = "[error] failed to fetch catalog from http://x"
    with scripted(
        f"os.write(2, ({log!r} + chr(10)).encode() * 2); say(id=ask['id'], result=None)", notes=notes
    ) as runtime:
        runtime.load(MODEL)

    assert notes == ["Foundry Local's catalogue cannot be reached; its models are listed as they last were"]


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


# -- bad ends


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "print('it broke', file=sys.stderr); sys.exit(3)",
            r"ended with exit code 3 \(it broke\) while it was asked to",
        ),
        ("sys.exit(3)", r"ended with exit code 3 \(no message\) while it was asked to load tiny-generic-cpu:1$"),
        ('os.write(1, b\'{"id": 1, "res\'); sys.exit(3)', r"ended with exit code 3"),  # in the middle of an answer
        ("os.close(1); sys.stdin.read()", r"closed its answers while it was asked to load tiny-generic-cpu:1$"),
    ],
)
def test_a_child_that_ends_without_an_answer_is_one_line(script: str, message: str) -> None:
    with scripted(script) as runtime, pytest.raises(LoadbenchError, match=f"^Foundry Local's runtime {message}"):
        runtime.load(MODEL)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("load", "was ended by SIGKILL, most likely for want of memory, while it was asked to load tiny-generic-cpu:1"),
        ("unload", "was ended by SIGKILL while it was asked to unload tiny-generic-cpu:1"),
    ],
)
def test_a_child_that_is_killed_says_what_it_did_and_perhaps_why(call: str, message: str) -> None:
    with (
        scripted("os.kill(os.getpid(), signal.SIGKILL)") as runtime,
        pytest.raises(LoadbenchError, match=f"^Foundry Local's runtime {message}$"),
    ):
        getattr(runtime, call)(MODEL)


def test_a_note_that_cannot_be_told_does_not_leave_the_caller_waiting() -> None:
    def broken(_: str) -> None:
        raise BrokenPipeError

    command = [sys.executable, "-c", f"{BEGIN}heard(); say(note='x'); time.sleep(0.2)"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)
        with running(command, broken) as child, pytest.raises(LoadbenchError, match=r"^Foundry Local's runtime "):
            Runtime(child, Path()).load(MODEL)


def test_a_child_that_is_never_ready_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "READY_TIMEOUT_S", 0.2)
    with (
        running([sys.executable, "-c", "import sys; sys.stdin.read()"]) as child,
        pytest.raises(LoadbenchError, match=r"^Foundry Local's runtime is not ready after 0\.2 s$"),
    ):
        Runtime(child, Path())


def test_a_child_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "STOP_TIMEOUT_S", 0.2)
    with scripted("say(id=ask['id'], result=None); time.sleep(60)") as runtime:
        runtime.load(MODEL)
        began_s = time.monotonic()

    assert time.monotonic() - began_s < 5


# -- downloads

PROGRESS = "for percent in (0.0, 50.0, 100.0): say(id=ask['id'], progress=percent)\n"
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


def test_a_download_tells_its_progress() -> None:
    percents: list[float] = []
    with scripted(f"{PROGRESS}say(id=ask['id'], result=None)") as runtime:
        runtime.pull(MODEL, percents.append, threading.Event())

    assert percents == [0.0, 50.0, 100.0]


def test_a_download_that_broke_keeps_what_it_has(tmp_path: Path, half: Path) -> None:
    with (
        scripted("say(id=ask['id'], error='broken', kind='LoadbenchError')", tmp_path) as runtime,
        pytest.raises(LoadbenchError, match=r"^broken$"),
    ):
        runtime.pull(MODEL, lambda _: None, threading.Event())

    assert half.exists()


def test_a_cancel_reaches_the_child_and_leaves_no_half_model(tmp_path: Path, half: Path) -> None:
    cancelled = threading.Event()
    with scripted(UNTIL_CANCELLED, tmp_path) as runtime, pytest.raises(LoadbenchError, match=r"^it was cancelled$"):
        runtime.pull(MODEL, lambda _: cancelled.set(), cancelled)

    assert not half.exists()


def test_a_cancel_reaches_a_child_that_tells_progress_without_a_pause() -> None:
    cancelled = threading.Event()
    with scripted(TALKATIVE) as runtime, pytest.raises(LoadbenchError, match=r"^it was cancelled$"):
        runtime.pull(MODEL, lambda _: cancelled.set(), cancelled)


def test_a_cancelled_child_that_dies_leaves_no_half_model(tmp_path: Path, half: Path) -> None:
    cancelled = threading.Event()
    script = "say(id=ask['id'], progress=1.0); heard(); os._exit(1)"
    with scripted(script, tmp_path) as runtime, pytest.raises(LoadbenchError, match="exit code 1"):
        runtime.pull(MODEL, lambda _: cancelled.set(), cancelled)

    assert not half.exists()


def press(_: float) -> None:
    """As Ctrl-C does in the thread that is told of progress."""
    raise KeyboardInterrupt


def test_ctrl_c_cancels_waits_for_the_end_and_leaves_no_half_model(tmp_path: Path, half: Path) -> None:
    after = "heard(); say(id=2, result='still here')"
    with scripted(UNTIL_CANCELLED + after, tmp_path) as runtime:
        with pytest.raises(KeyboardInterrupt):
            runtime.pull(MODEL, press, threading.Event())

        assert not half.exists()
        assert runtime.path("another") == Path("still here")


def test_ctrl_c_ends_a_child_that_does_not_let_go(tmp_path: Path, half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "CANCEL_S", 0.3)
    with scripted(DEAF, tmp_path) as runtime:
        with pytest.raises(KeyboardInterrupt):
            runtime.pull(MODEL, press, threading.Event())

        assert not half.exists()
        with pytest.raises(LoadbenchError, match=r"^Foundry Local's runtime (was ended by SIGKILL|ended with)"):
            runtime.load(MODEL)


def test_another_models_half_download_is_left_alone(tmp_path: Path, half: Path) -> None:
    cancelled = threading.Event()
    with scripted(UNTIL_CANCELLED, tmp_path) as runtime, pytest.raises(LoadbenchError):
        runtime.pull("tiny-generic-cpu:2", lambda _: cancelled.set(), cancelled)

    assert half.exists()
