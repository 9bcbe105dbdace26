"""What a command finds around it: streams that may be full or closed, signals, files; and what it says there."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from loadbench.text import harmless


def note(text: str) -> None:
    """What a person should know and a program need not read: a line on stderr."""
    click.echo(harmless(text), err=True)


def say(reasons: Sequence[str]) -> None:
    """Why a command fails, a line each on stderr."""
    for reason in reasons:
        note(f"loadbench: {reason}")


def data(document: object, *, indent: bool = False, sort: bool = False) -> str:
    """JSON for a program, which a terminal may show all the same."""
    import orjson

    from loadbench.text import in_json

    option = (orjson.OPT_INDENT_2 if indent else 0) | (orjson.OPT_SORT_KEYS if sort else 0)
    return in_json(orjson.dumps(document, option=option).decode())


def write(path: Path, content: str) -> None:
    """Write a report where the user says: a file whole or not at all, a pipe as it is."""
    from loadbench.errors import StoreError, UsageError
    from loadbench.store.files import write_atomically

    try:
        if not path.parent.is_dir():
            raise UsageError(f"{path}: no folder {path.parent}; make it first or choose another -o")
        if path.exists() and not path.is_file():
            path.write_text(content, encoding="utf-8")  # /dev/stderr or a pipe: must not be replaced by a file
        else:
            write_atomically(path.resolve(), content.encode())
    except (OSError, StoreError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        why = getattr(cause, "strerror", None) or cause
        raise StoreError(f"{path}: cannot write: {why}; free some space, or name another file") from error


def put(content: str, output: Path | None) -> None:
    """To a file, else to stdout; in bytes, so that neither the terminal's encoding nor Windows line ends change it."""
    if output is not None:
        write(output, content)
    else:
        click.echo(content.encode(), nl=False)


class Guarded(io.RawIOBase):
    """A stream that takes every write: what does not arrive is passed over, and the first reason kept in `error`.

    A full disk behind stdout must not end a run that has been measured for an hour.
    """

    def __init__(self, raw: io.RawIOBase | None, *, fails_unread: bool) -> None:
        """Guard a stream.

        Args:
            raw: None where the stream was closed from the start.
            fails_unread: Whether a reader that went away is an error, once: `loadbench report … | head` ends then.
        """
        self._raw = raw
        self._fails_unread = fails_unread
        self.error: OSError | None = None
        self._arrived = 0  # bytes of a write that an interrupt cut off, after which its buffer comes with them again

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size, arrived = view.nbytes, min(self._arrived, view.nbytes)
        if self.error is not None or arrived == size:
            self._arrived -= arrived
            return size
        done: list[int | None] = []
        try:
            if self._raw is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            # One call in C that writes and keeps the result: Ctrl-C may come right behind it, and not between the two.
            done.extend(map(self._raw.write, (view[arrived:],)))
            while done[-1] is None:
                select.select([], [self._raw], [])  # the other end made it non-blocking
                done.extend(map(self._raw.write, (view[arrived:],)))
        except KeyboardInterrupt:
            self._arrived = arrived + sum(filter(None, done))
            raise
        except OSError as error:
            self.error = error
            if isinstance(error, BrokenPipeError) and self._fails_unread:
                raise
            return size
        self._arrived = 0
        return arrived + done[-1]

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        if self._raw is None:
            raise io.UnsupportedOperation("fileno")
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw is not None and self._raw.isatty()


@contextlib.contextmanager
def guarded() -> Iterator[Guarded | None]:
    """Within it stdout and stderr take every write; yields stdout's guard, None of a fake one."""
    for number in range(3):  # where one is closed, the next file opened would get its number and its text
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    before = sys.stdin, sys.stdout, sys.stderr
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - it lives as long as the command
    out, sys.stdout = _guard(sys.stdout, fails_unread=True)
    _, sys.stderr = _guard(sys.stderr, fails_unread=False)
    try:
        yield out
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def _guard(stream: Any, *, fails_unread: bool) -> tuple[Guarded | None, Any]:
    """A stream's guard, and the stream with it; the stream as it is where a test put a fake there."""
    if stream is None:
        gone = Guarded(None, fails_unread=fails_unread)
        return gone, io.TextIOWrapper(io.BufferedWriter(gone), encoding="utf-8", errors="replace")
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # python -u has no buffer between
    if not isinstance(raw, io.RawIOBase) or isinstance(raw, Guarded):
        return None, stream
    with contextlib.suppress(OSError):
        stream.flush()
    guard = Guarded(raw, fails_unread=fails_unread)
    return guard, io.TextIOWrapper(
        io.BufferedWriter(guard),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Within it SIGTERM is what Ctrl-C is: what this command started ends with it, whatever it is at."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if callable(signal.getsignal(signal.SIGINT)):  # not so in the background of a shell, which ignores Ctrl-C there
        signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _interrupt(*_: Any) -> None:
    # Not the same handler: an event loop has one of its own for SIGINT, which lets its tasks come to their ends.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)
