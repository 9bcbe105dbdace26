"""The files of a run folder: their schema, their names, how one is replaced."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import re
import secrets
import sys
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, BinaryIO, cast

import orjson

from loadbench.errors import StoreError, UsageError
from loadbench.scenario.files import check_regular, open_file
from loadbench.store.record import Json
from loadbench.store.schema import Part, check_run
from loadbench.text import printable

SCHEMA = 1
# Of a file of lines: a longer one is none of ours, and is not read into memory.
LARGEST_LINE_BYTES = 64 * 1024 * 1024
TOO_LONG = b"(a line that is too long)"
# Of a `Result`, what is no field in requests.jsonl; the text goes to answers.jsonl.
NO_FIELDS = ("text", "retry_after_s")
# Fields of a record that hold what a server said: a number that cannot be true is as none.
SERVER_COUNTS = ("first_tokens", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "status")
# Metrics with a log of their own, NAME.hlog. In open loop `ttft` counts from when a request was due, as in reports,
# and `ttft_from_sent` stands beside it.
HISTOGRAMS = ("ttft", "ttft_from_sent", "itl", "tpot", "e2e", "client_lag", "client_wait")
_LEFT = re.compile(r"\.\w+\.(json|md|csv|html)\.\w{8}")
_MAX_FILE_BYTES = 64 * 1024 * 1024
_MOST_PASSED_OVER_BYTES = 256 * 1024 * 1024
_BLOCK_BYTES = 1 << 20
# Of a call to a network disk whose server was away.
TRIES = 3
# Open a file itself, neither what a link in its place points to, nor a pipe that would be waited for.
_PLAIN = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by a whole one, or not at all; who may read it, the umask says.

    Raises:
        StoreError: If the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    for tried in range(1, TRIES + 1):
        try:
            # Not by tempfile, which lets nobody else read it whatever the umask is.
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN, 0o666)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                write_all(file, content)
                os.fsync(descriptor)
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            if error.errno == errno.ESTALE and tried < TRIES:
                continue  # a network disk that came back: the same call finds the file again
            raise cannot_write(path, error) from error
        return


def open_append(path: Path) -> BinaryIO:
    """Open a file of a run folder to add to it, without a buffer; it is made where it is missing.

    A folder may come from somebody else: a link in it would have us write where it points.

    Raises:
        OSError: It cannot be opened, or is a link, a pipe, a device.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _PLAIN, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "A symbolic link, not a file") from None
        raise
    try:
        check_regular(os.fstat(descriptor).st_mode)
        return cast(BinaryIO, os.fdopen(descriptor, "ab+", buffering=0))
    except BaseException:
        os.close(descriptor)
        raise


def write_all(file: IO[bytes], content: bytes | bytearray) -> None:
    """Write all of it to a file without a buffer, which may take a part at a time.

    Raises:
        OSError: It cannot be written; what was, stays.
    """
    rest = memoryview(content)
    while rest:
        written = file.write(rest)
        if written is None:  # what Python makes of EAGAIN
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        rest = rest[written:]


def left_behind(folder: Path) -> list[Path]:
    """What `write_atomically` left where its process was killed: nobody reads it."""
    return [path for path in folder.iterdir() if _LEFT.fullmatch(path.name)]


def end_lines(path: Path) -> None:
    """Let the next line begin on a line of its own, after a process that died while it wrote its last one.

    A record that was cut off stays, and is counted by whoever reads it. Of a log of histograms it is dropped: other
    programs read that too, and the level it was of is measured again.

    Raises:
        StoreError: If it cannot be written.
    """
    if not os.path.lexists(path):
        return
    try:
        with open_append(path) as file:
            size = file.seek(0, os.SEEK_END)
            if path.suffix == ".hlog":
                file.truncate(_last_line_end(file, size))
            elif size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    write_all(file, b"\n")
    except OSError as error:
        raise cannot_write(path, error) from error


def _last_line_end(file: BinaryIO, size: int) -> int:
    """How many bytes there are up to the end of the last whole line: of a file of any size, from its end."""
    while size:
        begins = max(0, size - _BLOCK_BYTES)
        file.seek(begins)
        found = file.read(size - begins).rfind(b"\n")
        if found >= 0:
            return begins + found + 1
        size = begins
    return 0


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
    if os.path.exists(folder / "run.json"):  # of a Path it raises, where the disk is gone
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


def read_info(path: Path) -> Json:
    """run.json of a folder.

    Raises:
        UsageError: If the folder is no run folder.
        StoreError: If it cannot be read, is of a newer schema, or holds what no run writes.
    """
    file = path / "run.json"
    try:
        info = orjson.loads(read_bounded(file))
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
    required = (("id", str), ("attempt", int), ("status", str))
    if not isinstance(levels, list) or not all(
        isinstance(level, dict) and all(isinstance(level.get(key), kind) for key, kind in required) for level in levels
    ):
        raise StoreError(f"{file}: is damaged: its levels cannot be read")
    try:
        check_run(info)
    except ValueError as error:
        raise StoreError(f"{file}: is damaged: {printable(str(error))}") from None
    return info


def read_bounded(path: Path) -> bytes:
    """The content of a file that is read as one.

    Raises:
        StoreError: If it is larger than any of ours.
        OSError: If it cannot be read.
    """
    with open_file(path) as file:
        content = file.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        raise StoreError(f"{path}: is larger than any {path.name} of loadbench; is this a run folder?")
    return content


def read_lines(path: Path, most_bytes: int = LARGEST_LINE_BYTES) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, without their ends, with their numbers from 1.

    In place of a line that is too long there is `TOO_LONG`, which is no JSON.

    Raises:
        StoreError: If it cannot be read, or is filled with what no run writes: without end, or nearly so.
    """
    try:
        with open_file(path) as file:
            number = passed_over = 0
            while line := file.readline(most_bytes):
                number += 1
                passed_over += line.isspace()
                if len(line) == most_bytes and not line.endswith(b"\n"):
                    line = TOO_LONG
                    while (rest := file.readline(_BLOCK_BYTES)) and not rest.endswith(b"\n"):
                        passed_over += len(rest)
                        if passed_over > _MOST_PASSED_OVER_BYTES:
                            break
                if passed_over > _MOST_PASSED_OVER_BYTES:
                    what = "is no line of loadbench's, and has no end; is this a run folder?"
                    raise StoreError(f"{path}, line {number}: {what}")
                if line := line.strip():
                    yield number, line
    except OSError as error:
        raise StoreError(f"{path}: cannot read: {error.strerror or error}") from error


def is_count(value: object) -> bool:
    """Whether a server's count is one: nothing, or a whole number that every JSON reader takes."""
    return value is None or (isinstance(value, int) and 0 <= value <= 2**53)


def count_line(part: Part, line: bytes) -> None:
    """Count one more line, without its end, of what a level wrote to a file."""
    part["lines"] += 1
    part["crc32"] = zlib.crc32(line, part["crc32"])


class Check:
    """Whether the lines of a level's attempt are those that were written: fed with them, in their order."""

    __slots__ = ("_found", "_more", "_wanted")

    def __init__(self, wanted: Part | None) -> None:
        self._wanted, self._found, self._more = wanted, Part(lines=0, crc32=0), 0

    def feed(self, line: bytes) -> None:
        if self._wanted is None or self._found["lines"] < self._wanted["lines"]:
            count_line(self._found, line)
        else:
            self._more += 1

    def fault(self, name: str) -> str | None:
        """What is wrong with the lines of a file, in words; None where nothing is, or where it is unknown."""
        if self._wanted is None:
            return None
        lines = self._wanted["lines"]
        if self._found["lines"] < lines or self._more:
            return f"{name} has {self._found['lines'] + self._more} lines of it, and {lines} were written"
        return None if self._found == self._wanted else f"its lines of {name} are not as they were written"
