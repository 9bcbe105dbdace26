"""This machine: its names, its programs, and processes of ours, which run nothing that lies in the working folder.

Python puts the working folder first on the path of `python -m` and `python -c`: a json.py there, in a folder that
somebody else made, would be imported in place of the library. No process of ours looks there. What PYTHONPATH names
is found as ever.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import urlsplit

from loadbench.errors import LoadbenchError, UsageError

# The variable that keeps the working folder off the path; processes that a child starts in its turn inherit it.
SAFE = "PYTHONSAFEPATH"

# How a process ends that took more memory than there is: the system's doing, or an allocation that nobody checked.
STARVED = frozenset({"SIGKILL", "SIGABRT"})


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a Python of ours: this very package is found first, the working folder not at all.

    Args:
        variables: The environment to start from; None takes this process's.
    """
    if variables is None:
        variables = os.environ
    path = os.pathsep.join([str(Path(__file__).parents[1]), *_named(variables)])
    return {**variables, "PYTHONPATH": path, SAFE: "1"}


def keep_working_folder_out() -> None:
    """The same for processes that a library starts with this one's environment: multiprocessing's, Dask's."""
    os.environ[SAFE] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(_named(os.environ))  # an empty one is none


def _named(environ: Mapping[str, str]) -> list[str]:
    """The folders of PYTHONPATH. An empty entry, as `$PYTHONPATH:/my/lib` makes one, would be the working folder."""
    return [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]


def python(module: str, *words: str) -> list[str]:
    """The command that runs a module with these arguments in a Python like this one, for `Child`."""
    return [sys.executable, "-m", module, *words]


class Child:
    """A process of ours, in a session of its own: Ctrl-C is the caller's. As a context manager it ends surely.

    The end of its stdin asks it to stop, on every system; one that does not in time is killed.

    Args:
        command: As of `python`.
        stderr: None keeps what it says there for `complaints`; "shown" lets it through, "piped" is for who reads it.
        variables: As of `environment`.
        patience_s: How long it gets to stop at the end of the block; nothing before it has said that it is ready.
    Raises:
        LoadbenchError: The system starts no process, or has no folder for a temporary file.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        stderr: Literal["shown", "piped"] | None = None,
        variables: Mapping[str, str] | None = None,
        patience_s: float = 0.0,
    ) -> None:
        self._patience_s = patience_s
        self._ready = False
        self._writing = threading.Lock()
        self._errors: IO[bytes] | None = None
        if stderr is None:
            try:
                self._errors = tempfile.TemporaryFile()  # noqa: SIM115 -- it is read until the process has ended
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                text = f"no temporary file can be made ({why}): set TMPDIR to a folder with room"
                raise LoadbenchError(text) from None
        try:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                command,
                env=environment(variables),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if stderr == "piped" else self._errors,
                start_new_session=sys.platform != "win32",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:  # too many processes or open files, no memory
            if self._errors is not None:
                self._errors.close()
            raise LoadbenchError(f"no process can be started: {(error.strerror or str(error)).lower()}") from None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[bytes] = self.process.stdin
        self.stdout: IO[bytes] = self.process.stdout

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(self._patience_s if self._ready else 0.0)
        for pipe in (self.stdout, self.process.stderr, self._errors):
            if pipe is not None:
                pipe.close()

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self.process.poll() is not None

    def send(self, document: object) -> None:
        """Write a line of JSON to its stdin; one that has ended shows that by its answers."""
        with self._writing, contextlib.suppress(OSError, ValueError):
            self.stdin.write(json.dumps(document, default=str).encode() + b"\n")
            self.stdin.flush()

    def announcement(
        self, within_s: float | None, *, late: str, died: str, starved: str | None = None
    ) -> dict[str, Any]:
        """What its first line says, once it is ready: a JSON object.

        Args:
            within_s: None waits for ever.
            late, died: The error where nothing came in time, and how the one begins that tells how it ended.
            starved: What to do where it took too much memory, if that is likely.
        Raises:
            LoadbenchError: The child says what is wrong, as UsageError where its exit code is 2; or as `late`, `died`.
        """
        line = self.first_line(within_s)
        if line is None:
            raise LoadbenchError(late)
        if not line:
            ending = exit_name(self.process.wait())
            if starved is not None and ending in STARVED:
                raise LoadbenchError(f"{died}, with {ending}, most likely for want of memory: {starved}")
            raise LoadbenchError(": ".join([f"{died}, with {ending}", *self.complaints()[-1:]]))
        document: dict[str, Any] = json.loads(line)
        if "error" in document:
            kind = UsageError if document["exit_code"] == UsageError.exit_code else LoadbenchError
            raise kind(document["error"])
        self._ready = True
        return document

    def first_line(self, within_s: float | None) -> bytes | None:
        """Its first line, empty where it ended without one; None where it was late, and was killed.

        A timer ends it, as Windows cannot poll a pipe.
        """
        if within_s is None:
            return self.stdout.readline()
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(within_s, give_up)
        timer.daemon = True  # where Ctrl-C comes as the child starts, nobody waits for it
        timer.start()
        try:
            line = self.stdout.readline()
        finally:
            timer.cancel()
        if late.is_set():
            return None
        return line

    def complaints(self) -> list[str]:
        """The lines that it wrote on stderr so far, where those are kept."""
        if self._errors is None:
            return []
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        return list(filter(None, map(str.strip, lines)))

    def hang_up(self) -> None:
        """End its stdin, which asks it to stop."""
        with self._writing, contextlib.suppress(OSError):  # it has ended already
            self.stdin.close()

    def stop(self, patience_s: float) -> None:
        """Ask it to stop, and kill it where it does not in time."""
        self.hang_up()
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


def exit_name(code: int) -> str:
    """How a process ended: an exit code, or the signal's name.

    >>> exit_name(3), exit_name(-9)
    ('exit code 3', 'SIGKILL')
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal {-code}"


def program(name: str, environ: Mapping[str, str]) -> str | None:
    """The path of a program that PATH names; None where there is none.

    Relative entries of PATH are left out, and so is the working folder, where Windows looks first.
    """
    folders = list(filter(os.path.isabs, environ.get("PATH", "").split(os.pathsep)))
    if not folders:
        return None
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None or not os.path.isabs(found):
        return None
    return found


def is_local_name(host: str) -> bool:
    """Whether a host, as a URL or a Host header writes it, is this machine's loopback.

    >>> [is_local_name(host) for host in ("localhost:8080", "127.0.0.1", "[::1]:80", "evil.example", "10.0.0.1:80")]
    [True, True, True, False, False]
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


# What ran out, by error number, and what to do.
_LACKS = {
    errno.EMFILE: "too few files may be open at once: raise the limit with ulimit -n",
    errno.ENFILE: "this system has no more files to open: end other programs, or raise its limit",
    errno.ENOMEM: "not enough memory: free some, or raise the limit (ulimit -v, the container's)",
    errno.EAGAIN: "no more processes or threads may be started: raise the limit (ulimit -u, the container's pids)",
}
_SAID = {
    "can't start new thread": errno.EAGAIN,  # a RuntimeError without a number
    "failed to map segment": errno.ENOMEM,  # of a library that is loaded
    **{os.strerror(number): number for number in _LACKS},
}


def lacking(error: BaseException) -> str | None:
    """What this machine ran out of, and what to do, where that is what an error comes from; None where it is not.

    >>> lacking(OSError(24, "Too many open files"))
    'too few files may be open at once: raise the limit with ulimit -n'
    >>> lacking(ValueError("24")) is None
    True
    """
    seen: set[int] = set()
    to_see: list[BaseException | None] = [error]
    while to_see:
        one = to_see.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        number: int | None = None
        if isinstance(one, MemoryError):
            number = errno.ENOMEM
        elif isinstance(one, OSError):
            number = one.errno
        elif isinstance(one, ImportError | RuntimeError):
            for text, said in _SAID.items():
                if text in str(one):
                    number = said
                    break
        if number in _LACKS:
            return _LACKS[number]
        to_see += [one.__context__, one.__cause__]
        if isinstance(one, BaseExceptionGroup):
            to_see += one.exceptions
    return None
