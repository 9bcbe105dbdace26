"""A download that is watched, tried again with growing pauses, and cancelled without a half model left.

The SDK's own download goes on where it was broken off: it keeps what it has, and tells of progress by whole chunks. It
has no time-out of its own that a person would wait for, so the watch is here.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from loadbench.errors import LoadbenchError
from loadbench.serve.foundry.failure import CANCELLED, INTERNAL, NETWORK, plain

STALL_S = 120.0
"""Without progress for so long, it is begun again: 0.1 % of 20 GB takes 20 s at 1 MB/s."""
TRIES = 4
BACKOFF_S = 2.0
"""Before the second try; each further pause is twice as long."""
GRACE_S = 10.0
"""How long the SDK gets to end a download that it was told to cancel: it looks between two chunks."""

_LOOK_S = 0.1
_MARGIN = 1.05
_SPARE_BYTES = 256 << 20
"""For what the sizes in the catalogue leave out, and so that the disk is not filled to its last byte."""

Wait = Callable[[threading.Event, float], bool]


class Model(Protocol):
    """What of the SDK's model a download needs."""

    @property
    def id(self) -> str: ...

    @property
    def is_cached(self) -> bool: ...

    def download(self, progress_callback: Callable[[float], None], cancel_event: threading.Event) -> None: ...

    def remove_from_cache(self) -> None: ...


class Hung(LoadbenchError):
    """The SDK does not let go of a download: only the end of its process frees it."""


def pull(
    model: Model,
    progress: Callable[[float], None],
    cancelled: threading.Event,
    *,
    stall_s: float = STALL_S,
    clock: Callable[[], float] = time.monotonic,
    wait: Wait = threading.Event.wait,
) -> None:
    """Download a model; where it is cached already, that is all.

    Args:
        progress: Told the percentage, as it grows.
        cancelled: Set by whoever wants no more of it.
        clock: In seconds.
        wait: Waits for an event, so many seconds at most, and says whether it came.
    Raises:
        LoadbenchError: It was cancelled, and nothing of it is left; or it broke or stalled each time.
        Hung: As the class.
    """
    pause_s, why = BACKOFF_S, ""
    for attempt in range(TRIES):
        if attempt and wait(cancelled, pause_s * 2 ** (attempt - 1)):
            break
        why = _try(model, progress, cancelled, stall_s, clock, wait)
        if not why:
            return
        if cancelled.is_set():
            break
    if cancelled.is_set():
        with contextlib.suppress(Exception):  # it may have ended before its folder was made
            model.remove_from_cache()
        raise LoadbenchError(f"the download of {model.id} was cancelled; nothing of it is left")
    raise LoadbenchError(
        f"{model.id} cannot be downloaded, tried {TRIES} times: {why}; pull it again to go on where it stopped"
    )


def check_space(
    model: str, size_bytes: int | None, cache: Path, free_bytes: Callable[[Path], int] | None = None
) -> None:
    """See that the disk has room for a download.

    Args:
        size_bytes: As the catalogue tells; None is taken on trust.
        cache: Need not be there yet.
    Raises:
        LoadbenchError: It has not.
    """
    if size_bytes is None:
        return
    there = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free, needed = (free_bytes or _free_bytes)(there), size_bytes * _MARGIN + _SPARE_BYTES
    if free < needed:
        raise LoadbenchError(
            f"{model} needs {needed / 1e9:.1f} GB of disk and {cache} has {free / 1e9:.1f} GB free: make room, "
            "or name another folder with --cache-dir"
        )


def _try(
    model: Model,
    progress: Callable[[float], None],
    cancelled: threading.Event,
    stall_s: float,
    clock: Callable[[], float],
    wait: Wait,
) -> str:
    """One attempt; empty where it went well, else why not.

    Raises:
        LoadbenchError: A further attempt would not help.
    """
    stop, ended = threading.Event(), threading.Event()
    error: list[Exception] = []
    best, moved_s = -1.0, clock()

    def moved(percent: float) -> None:
        nonlocal best, moved_s
        if percent > best and not stop.is_set():
            best, moved_s = percent, clock()
            progress(percent)

    def download() -> None:
        try:
            model.download(moved, stop)
        except Exception as failure:
            error.append(failure)
        finally:
            ended.set()

    threading.Thread(target=download, daemon=True).start()
    stopped_s: float | None = None
    while not wait(ended, _LOOK_S):
        now_s = clock()
        if stopped_s is None and (cancelled.is_set() or now_s - moved_s > stall_s):
            stop.set()
            stopped_s = now_s
        elif stopped_s is not None and now_s - stopped_s > GRACE_S:
            raise Hung(f"the download of {model.id} hangs: it neither goes on nor ends; pull it again")
    if model.is_cached:
        return ""
    if stopped_s is not None:
        return f"it made no progress for {stall_s:g} s"
    return _why(model.id, error[0]) if error else "the SDK says that it ended, and the model is not there"


def _why(model: str, error: Exception) -> str:
    """What broke it.

    Raises:
        LoadbenchError: It would break again.
    """
    told = plain(str(error))
    if "no space left" in told.lower() or "not enough space" in told.lower():
        raise LoadbenchError(f"the disk is full before {model} is complete: make room and pull it again") from error
    if getattr(error, "error_code", INTERNAL) not in (INTERNAL, CANCELLED, NETWORK):
        raise LoadbenchError(f"{model} cannot be downloaded: {told}") from error
    return f"the network failed ({told})" if getattr(error, "error_code", None) == NETWORK else told


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free
