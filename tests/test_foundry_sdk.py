"""The child's side: watched downloads, what errors of the SDK mean, and its protocol, with an SDK that is none."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from loadbench.errors import LoadbenchError, TargetError
from loadbench.serve import foundry_sdk
from loadbench.serve.foundry_sdk import (
    BACKOFF_S,
    CANCELLED,
    GRACE_S,
    INTERNAL,
    NETWORK,
    STALL_S,
    TRIES,
    Busy,
    Hung,
    check_space,
    download,
    on_load,
    on_serve,
    on_unload,
    plain,
    unknown,
)

GB = 10**9
HANG, STUCK = "hang", "stuck"
"""In a script: nothing comes any more, until it is cancelled; or not even then."""


class SdkError(Exception):
    """As the SDK's own, which is not imported here."""

    def __init__(self, message: str, error_code: int) -> None:
        super().__init__(message)
        self.error_code = error_code


OFFLINE = SdkError("net.cc:12 void fl::Get(const char*) no route to host", NETWORK)


@dataclass
class Model:
    """Each of its downloads does what the next script says: per cents to tell, an error to raise, `HANG`, `STUCK`."""

    scripts: list[list[Any]]
    id: str = "tiny-generic-cpu:1"
    is_cached: bool = False
    removed: int = 0
    let_go: threading.Event = field(default_factory=threading.Event)

    def download(self, progress_callback: Callable[[float], None], cancel_event: threading.Event) -> None:
        for step in self.scripts.pop(0):
            if isinstance(step, Exception):
                raise step
            if step == HANG:
                assert cancel_event.wait(10)
                raise SdkError("cancelled", CANCELLED)
            if step == STUCK:
                assert self.let_go.wait(10)
                return
            progress_callback(step)
        self.is_cached = True

    def remove_from_cache(self) -> None:
        self.removed += 1


@dataclass
class Clock:
    """Time that passes only as it is waited for."""

    now_s: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now_s

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """What is longer than a look is a pause between two tries."""
        if seconds > 1:
            self.pauses.append(seconds)
        self.now_s += seconds
        return event.wait(0.0005)


@dataclass
class Pulled:
    model: Model
    percents: list[float]
    clock: Clock
    error: LoadbenchError | None


def pulled(*scripts: list[Any], cancel_at: float | None = None, cached: bool = False, **more: Any) -> Pulled:
    """A download to its end.

    Args:
        cancel_at: The per cent at which it is cancelled.
    """
    model, clock, cancelled = Model(list(scripts), is_cached=cached), Clock(), threading.Event()
    percents: list[float] = []

    def progress(percent: float) -> None:
        percents.append(percent)
        if cancel_at is not None and percent >= cancel_at:
            cancelled.set()

    try:
        download(model, progress, cancelled, clock=clock, wait=clock.wait, **more)
    except LoadbenchError as error:
        model.let_go.set()
        return Pulled(model, percents, clock, error)
    return Pulled(model, percents, clock, None)


def test_progress_is_told_as_it_grows_and_never_falls() -> None:
    done = pulled([0.0, 10.0, 10.0, 5.0, 60.0, 100.0])

    assert (done.error, done.percents) == (None, [0.0, 10.0, 60.0, 100.0])


def test_a_download_that_breaks_is_tried_again_after_growing_pauses() -> None:
    done = pulled([30.0, OFFLINE], [40.0, OFFLINE], [OFFLINE], [50.0, 100.0])

    assert done.error is None
    assert done.clock.pauses == [BACKOFF_S, 2 * BACKOFF_S, 4 * BACKOFF_S]
    assert done.model.removed == 0  # the SDK goes on from what it has


def test_it_gives_up_after_so_many_tries_and_says_why() -> None:
    done = pulled(*[[OFFLINE]] * (TRIES + 1))

    assert len(done.model.scripts) == 1
    assert str(done.error) == (
        f"tiny-generic-cpu:1 cannot be downloaded, tried {TRIES} times: the network failed (no route to host); "
        "pull it again to go on where it stopped"
    )
    assert done.model.removed == 0


def test_a_stall_is_cancelled_and_tried_again() -> None:
    done = pulled([10.0, HANG], [100.0])

    assert (done.error, done.clock.pauses) == (None, [BACKOFF_S])
    assert done.clock.now_s > STALL_S


def test_stalls_without_end_are_told_as_such() -> None:
    done = pulled(*[[HANG]] * TRIES, stall_s=5)

    assert f"tried {TRIES} times: it made no progress for 5 s; " in str(done.error)


def test_a_download_that_does_not_even_end_is_let_go_of() -> None:
    done = pulled([10.0, STUCK])

    assert isinstance(done.error, Hung)
    assert STALL_S + GRACE_S < done.clock.now_s < STALL_S + GRACE_S + 1


@pytest.mark.parametrize("script", [[10.0, HANG], [10.0, OFFLINE]], ids=["in a try", "between two"])
def test_a_cancel_leaves_no_half_model(script: list[Any]) -> None:
    done = pulled(script, [100.0], cancel_at=10)

    assert str(done.error) == "the download of tiny-generic-cpu:1 was cancelled; nothing of it is left"
    assert (done.model.removed, len(done.model.scripts)) == (1, 1)


def test_a_cancel_that_comes_too_late_changes_nothing() -> None:
    done = pulled([10.0, 100.0], cancel_at=100)

    assert (done.error, done.model.removed) == (None, 0)


def test_a_download_that_cannot_be_removed_is_cancelled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Model) -> None:
        raise SdkError("no such folder", INTERNAL)

    monkeypatch.setattr(Model, "remove_from_cache", refuse)

    assert "was cancelled" in str(pulled([10.0, HANG], cancel_at=10).error)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SdkError("write failed: No space left on device", INTERNAL), "the disk is full before tiny-generic-cpu:1 is"),
        (SdkError("There is not enough space on the disk.", INTERNAL), "the disk is full before "),
        (SdkError("model.cc:3 void f() not for you", 3), "tiny-generic-cpu:1 cannot be downloaded: not for you"),
    ],
)
def test_what_would_fail_again_is_not_tried_again(error: Exception, message: str) -> None:
    done = pulled([error], [100.0])

    assert str(done.error).startswith(message)
    assert len(done.model.scripts) == 1


def test_a_download_that_ends_without_a_model_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "is_cached", property(lambda self: False, lambda self, value: None))

    assert "the SDK says that it ended, and the model is not there" in str(pulled(*[[100.0]] * TRIES).error)


@pytest.mark.parametrize(
    ("size_bytes", "free_bytes", "fits"),
    [
        (None, 0, True),  # taken on trust
        (1 * GB, 2 * GB, True),
        (1 * GB, int(1.05 * GB) + (256 << 20), True),  # some room to spare
        (1 * GB, int(1.05 * GB) + (256 << 20) - 1, False),
        (1 * GB, 1 * GB, False),
        (1 * GB, 0, False),
    ],
)
def test_a_model_is_not_downloaded_onto_the_last_bytes_of_a_disk(
    size_bytes: int | None, free_bytes: int, fits: bool, tmp_path: Path
) -> None:
    message = rf"^tiny needs 1\.3 GB of disk and {tmp_path} has [\d.]+ GB free: make"
    with contextlib.nullcontext() if fits else pytest.raises(LoadbenchError, match=message):
        check_space("tiny", size_bytes, tmp_path, lambda _: free_bytes)


def test_the_disk_is_that_of_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    looked: list[Path] = []
    check_space("tiny", 1, tmp_path / "not" / "yet", lambda folder: looked.append(folder) or 10 * GB)

    assert looked == [tmp_path]


# -- errors


PLACE = "model_load_manager.cc:88 std::string fl::Load(const std::map<int, std::string (*)(int)>&, int) "


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("net.cc:5 int f(int) no route", "no route"),
        (PLACE + "it broke (really)", "it broke (really)"),  # brackets in the signature, and in the message
        ("C:\\a\\model.cpp:7 void f() it broke", "it broke"),
        ("it broke:\n  in two\n  lines", "it broke: in two lines"),
        ("it broke", "it broke"),  # no place
        ("model.cc:5 it broke", "it broke"),  # no signature
        ("see model.cc:5 void f() there", "see model.cc:5 void f() there"),  # not at its beginning
        ("", ""),
    ],
)
def test_a_message_loses_its_place_in_the_source(message: str, expected: str) -> None:
    assert plain(message) == expected


MEMORY = "does not fit into memory: unload other models, or take a smaller model or variant ({})"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        *(
            (on_load("m", plain(PLACE + text)), LoadbenchError, f"m {MEMORY.format(text)}")
            for text in (
                "std::bad_alloc",
                "bad allocation",
                "CUDA out of memory",
                "Failed to allocate memory for requested buffer of size 1",
                "Cannot allocate memory",
                "CUBLAS_STATUS_ALLOC_FAILED",
            )
        ),
        (
            on_load("phi-cuda-gpu:1", "model requires CUDAExecutionProvider which is not registered"),
            TargetError,  # concerns this model alone
            "phi-cuda-gpu:1 needs CUDAExecutionProvider, which is not on this machine: install the device's driver and "
            "let the SDK fetch the provider (it needs a network once), or take another variant, as with --device cpu",
        ),
        (
            on_load("m", "Protobuf parsing failed."),
            LoadbenchError,
            "m cannot be loaded: Protobuf parsing failed.",
        ),
        (
            on_unload("m", "cannot unload: 2 session(s) still using it"),
            Busy,
            "m still answers 2 request(s): unload it when they have ended",
        ),
        (on_unload("m", "no"), LoadbenchError, "m cannot be unloaded: no"),
        (
            on_serve(80, "Failed to bind to 127.0.0.1:80"),
            LoadbenchError,
            "port 80 of 127.0.0.1 is taken by another program: give another --port",
        ),
        (on_serve(80, "no threads"), LoadbenchError, "Foundry Local's web service cannot start on port 80: no threads"),
    ],
)
def test_an_error_of_the_sdk_says_what_to_do(error: LoadbenchError, kind: type[LoadbenchError], message: str) -> None:
    assert (type(error), str(error)) == (kind, message)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("QWEN-cpu:1", "did you mean qwen-cpu:1?"),
        ("phi-4-cpu:2", "did you mean Phi-4-cpu:1 or phi-4-gpu:1?"),
        ("zzz", "see loadbench models list"),
    ],
)
def test_an_unknown_model_is_told_with_near_ones(name: str, hint: str) -> None:
    known = ["Phi-4-cpu:1", "phi-4-gpu:1", "qwen-cpu:1"]

    assert str(unknown(name, known)) == f"Foundry Local knows no model {name!r}; {hint}"


# -- the protocol


class Sdk:
    """Does what its calls are named after."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def path(self, model: str) -> str:
        return f"/models/{model}"

    def load(self, model: str) -> None:
        raise TargetError(f"{model} is not downloaded yet")

    def unload(self, model: str) -> None:
        raise RuntimeError("what nobody foresaw")

    def remove(self, model: str) -> None:
        assert self.let_go.wait(10)

    def pull(self, model: str, progress: Callable[[float], None], cancelled: threading.Event) -> None:
        if model == "hung":
            raise Hung("it hangs")
        progress(50.0)
        assert cancelled.wait(10)
        raise TargetError("cancelled")


@pytest.mark.parametrize(
    ("requests", "answers", "whole"),
    [
        ([(1, "path"), (2, "path")], [{"id": 1, "result": "/models/m"}, {"id": 2, "result": "/models/m"}], True),
        (
            [(1, "load"), (2, "path")],  # after an error the child goes on
            [
                {"id": 1, "error": "m is not downloaded yet", "kind": "TargetError"},
                {"id": 2, "result": "/models/m"},
            ],
            True,
        ),
        (
            [(1, "unload")],
            [
                {
                    "id": 1,
                    "error": "Foundry Local's SDK failed: RuntimeError: what nobody foresaw",
                    "kind": "LoadbenchError",
                }
            ],
            True,
        ),
        (
            [(1, "pull"), (1, "cancel"), (7, "cancel")],  # goes past the request that runs
            [{"id": 1, "progress": 50.0}, {"id": 1, "error": "cancelled", "kind": "TargetError"}],
            True,
        ),
        (
            [(1, "pull")],  # the end of stdin cancels it
            [{"id": 1, "progress": 50.0}, {"id": 1, "error": "cancelled", "kind": "TargetError"}],
            True,
        ),
        ([(1, "remove")], [], False),  # one that does not end does not hold up the end
    ],
)
def test_requests_are_answered_by_their_numbers(
    requests: list[tuple[int, str]], answers: list[dict[str, Any]], whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = []
    for number, call in requests:
        lines.append({"cancel": number} if call == "cancel" else {"id": number, "call": call, "model": "m"})
    sdk, said = Sdk(), list[dict[str, Any]]()
    monkeypatch.setattr(foundry_sdk, "END_S", 0.1)
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(line) + "\n" for line in lines)))
    ended = foundry_sdk.serve(sdk, lambda **words: said.append(words))
    answered = list(said)
    sdk.let_go.set()

    assert (answered, ended) == (answers, whole)


def test_a_download_that_hangs_is_reported_and_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(foundry_sdk.os, "_exit", codes.append)
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"id": 1, "call": "pull", "model": "hung"}\n'))
    foundry_sdk.serve(Sdk(), lambda **words: said.append(words))

    assert (said, codes) == ([{"id": 1, "error": "it hangs", "kind": "Hung"}], [1])
