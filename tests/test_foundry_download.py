"""Downloads by Foundry Local's SDK: progress, stalls, further tries, a full disk, a cancel; with a scripted model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from loadbench.errors import LoadbenchError
from loadbench.serve.foundry.sdk import (
    BACKOFF_S,
    CANCELLED,
    GRACE_S,
    INTERNAL,
    NETWORK,
    STALL_S,
    TRIES,
    Hung,
    check_space,
    download,
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


def test_a_cancel_leaves_no_half_model() -> None:
    done = pulled([10.0, HANG], [100.0], cancel_at=10)

    assert str(done.error) == "the download of tiny-generic-cpu:1 was cancelled; nothing of it is left"
    assert (done.model.removed, len(done.model.scripts)) == (1, 1)


def test_a_cancel_between_two_tries_leaves_no_half_model_either() -> None:
    done = pulled([10.0, OFFLINE], [100.0], cancel_at=10)

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
    ("size_bytes", "free_bytes"),
    [
        (None, 0),  # taken on trust
        (1 * GB, 2 * GB),
        (1 * GB, int(1.05 * GB) + (256 << 20)),
    ],
)
def test_a_model_fits_with_some_room_to_spare(size_bytes: int | None, free_bytes: int, tmp_path: Path) -> None:
    check_space("tiny", size_bytes, tmp_path, lambda _: free_bytes)


@pytest.mark.parametrize("free_bytes", [0, 1 * GB, int(1.05 * GB) + (256 << 20) - 1])
def test_a_model_is_not_downloaded_onto_the_last_bytes_of_a_disk(free_bytes: int, tmp_path: Path) -> None:
    with pytest.raises(LoadbenchError, match=rf"^tiny needs 1\.3 GB of disk and {tmp_path} has [\d.]+ GB free: make"):
        check_space("tiny", 1 * GB, tmp_path, lambda _: free_bytes)


def test_the_disk_is_that_of_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    looked: list[Path] = []
    check_space("tiny", 1, tmp_path / "not" / "yet", lambda folder: looked.append(folder) or 10 * GB)

    assert looked == [tmp_path]
