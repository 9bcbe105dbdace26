"""The files of a run folder: their schema, their names, how one is replaced."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib.util
import os
import re
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from loadbench.errors import StoreError, UsageError
from loadbench.result import Result

SCHEMA = 1
FIELDS = tuple(field.name for field in dataclasses.fields(Result) if field.name != "text")
"""Of a record in requests.jsonl; the text goes to answers.jsonl."""
HISTOGRAMS = ("ttft", "itl", "tpot", "e2e", "client_lag")
"""Metrics with a log of their own, NAME.hlog."""
_LEFT = re.compile(r"\.\w+\.(json|md|csv|html)\.\w{8}")
_MAX_RUN_BYTES = 64 * 1024 * 1024


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by a whole one, or not at all.

    Raises:
        StoreError: If the folder cannot be written.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise cannot_write(path, error) from error


def left_behind(folder: Path) -> list[Path]:
    """What `write_atomically` left where its process was killed: nobody reads it."""
    return [path for path in folder.iterdir() if _LEFT.fullmatch(path.name)]


def end_lines(path: Path) -> None:
    """Let the next line begin on a line of its own, after a process that died while it wrote its last one.

    A record that was cut off stays, and is counted by whoever reads it. Of a log of histograms it is dropped: other
    programs read that too, and the level it was of is measured again.
    """
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb+") as file:
        if path.suffix == ".hlog":
            file.truncate(file.read().rfind(b"\n") + 1)
            return
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            file.write(b"\n")


def hold(path: Path) -> int | None:
    """Keep a folder to this process until it closes the descriptor or dies; None where the system has no such locks.

    Raises:
        StoreError: If another process holds it.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = None
    try:
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if descriptor is not None:
            os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise StoreError(f"{path}: another loadbench is writing to it; wait for its end, or end it") from None
        return None
    return descriptor


def cannot_write(path: Path, error: OSError) -> StoreError:
    """What to tell a user whose folder refuses a write."""
    advice, folder = "choose another folder with -o", path.parent
    if (folder / "run.json").exists():
        on = f"then continue with --resume {folder}: what was written before stays"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = f"free some space, {on}"
        elif path.name == "run.json" or path.suffix in (".jsonl", ".hlog"):
            files = error.errno in (errno.EMFILE, errno.ENFILE)
            advice = f"{'raise the limit of open files (ulimit -n)' if files else 'let it be written again'}, {on}"
    return StoreError(f"{path}: cannot write: {error.strerror or error}; {advice}")


def log_tag(level: str, attempt: int) -> str:
    """The tag of a level's attempt in the .hlog files.

    >>> log_tag("smollm2-135m@c4", 2)
    'smollm2-135m@c4/2'
    """
    return f"{level}/{attempt}"


def hlog_works() -> bool:
    """Whether .hlog files can be written and read here: hdrhistogram has no wheel for some platforms."""
    return importlib.util.find_spec("hdrh") is not None


def utc_now(timespec: str = "seconds") -> str:
    """Now, in UTC, as ISO 8601: "2026-11-22T10:15:00Z".

    Args:
        timespec: "milliseconds" where the order of what follows closely matters.
    """
    return datetime.now(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def read_info(path: Path) -> dict[str, Any]:
    """run.json of a folder.

    Raises:
        UsageError: If the folder is no run folder.
        StoreError: If it cannot be read, or it is of a newer schema.
    """
    file = path / "run.json"
    try:
        if file.stat().st_size > _MAX_RUN_BYTES:
            raise StoreError(f"{file}: is larger than any run.json; is this a run folder?")
        info = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        what = "is not a run folder: no run.json in it" if path.is_dir() else "no such run folder"
        raise UsageError(f"{path}: {what}; runs are in results/ unless -o said otherwise") from None
    except NotADirectoryError:
        raise UsageError(f"{path}: is a file; give the run's folder") from None
    except OSError as error:
        raise StoreError(f"{file}: cannot read: {error.strerror or error}") from error
    except orjson.JSONDecodeError as error:
        raise StoreError(f"{file}: is damaged: {error}") from None
    if not isinstance(info, dict) or not isinstance(info.get("schema"), int):
        raise StoreError(f"{file}: is not a run.json of loadbench: it names no schema")
    if info["schema"] > SCHEMA:
        raise StoreError(f"{file}: has schema {info['schema']}, this loadbench reads up to {SCHEMA}: upgrade loadbench")
    levels = info.get("levels")
    if not isinstance(levels, list) or not all(
        isinstance(level, dict)
        and isinstance(level.get("id"), str)
        and isinstance(level.get("attempt"), int)
        and isinstance(level.get("status"), str)
        for level in levels
    ):
        raise StoreError(f"{file}: is damaged: its levels cannot be read")
    return info
