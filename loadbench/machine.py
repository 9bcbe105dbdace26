"""This machine: its names, its programs, and processes of ours, which run nothing that lies in the working folder.

Python puts the working folder first on the path of `python -m` and `python -c`: a json.py there, in a folder that
somebody else made, would be imported in place of the library. No process of ours looks there. What PYTHONPATH names
is found as ever.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from loadbench.errors import LoadbenchError

SAFE = "PYTHONSAFEPATH"
"""The variable that keeps the working folder off the path; processes that a child starts in its turn inherit it."""


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a Python of ours: this very package is found first, the working folder not at all.

    Args:
        variables: The environment to start from; None takes this process's.
    """
    given = os.environ if variables is None else variables
    path = os.pathsep.join([str(Path(__file__).parents[1]), *_named(given)])
    return {**given, "PYTHONPATH": path, SAFE: "1"}


def keep_working_folder_out() -> None:
    """The same for processes that a library starts with this one's environment: multiprocessing's, Dask's."""
    os.environ[SAFE] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(_named(os.environ))  # an empty one is none


def _named(environ: Mapping[str, str]) -> list[str]:
    """The folders of PYTHONPATH. An empty entry, as `$PYTHONPATH:/my/lib` makes one, would be the working folder."""
    return [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]


def python(module: str, *words: str) -> list[str]:
    """The command that runs a module with these arguments in a Python like this one; `start` it."""
    return [sys.executable, "-m", module, *words]


def start(
    command: Sequence[str], *, errors: IO[bytes] | int | None, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a command of `python` with pipes for stdin and stdout, in a session of its own: Ctrl-C is the caller's.

    Args:
        errors: Where its stderr goes; None is this process's.
        variables: As of `environment`.
    Raises:
        LoadbenchError: The system starts no process.
    """
    try:
        return subprocess.Popen(
            command,
            env=environment(variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    except OSError as error:  # too many processes or open files, no memory
        raise LoadbenchError(f"no process can be started: {(error.strerror or str(error)).lower()}") from None


def complaints() -> IO[bytes]:
    """A file for what a child says on stderr, which is read where it fails; gone when it is closed.

    Raises:
        LoadbenchError: No folder for temporary files can be written.
    """
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise LoadbenchError(f"no temporary file can be made ({why}): set TMPDIR to a folder with room") from None


def first_line(child: subprocess.Popen[bytes], within_s: float | None) -> bytes | None:
    """The child's first line, empty where it ended without one; None where it was late, and was killed.

    A timer ends it, as Windows cannot poll a pipe.

    Args:
        within_s: None waits for ever.
    """
    assert child.stdout is not None
    if within_s is None:
        return child.stdout.readline()
    late = threading.Event()

    def give_up() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(within_s, give_up)
    timer.daemon = True  # where Ctrl-C comes as the child starts, nobody waits for it
    timer.start()
    try:
        line = child.stdout.readline()
    finally:
        timer.cancel()
    return None if late.is_set() else line


def program(name: str, environ: Mapping[str, str]) -> str | None:
    """The path of a program that PATH names; None where there is none.

    Relative entries of PATH are left out, and so is the working folder, where Windows looks first.
    """
    folders = [entry for entry in environ.get("PATH", "").split(os.pathsep) if os.path.isabs(entry)]
    found = shutil.which(name, path=os.pathsep.join(folders)) if folders else None
    return found if found is not None and os.path.isabs(found) else None


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


_LACKS = {
    errno.EMFILE: "too few files may be open at once: raise the limit with ulimit -n",
    errno.ENFILE: "this system has no more files to open: end other programs, or raise its limit",
    errno.ENOMEM: "not enough memory: free some, or raise the limit (ulimit -v, the container's)",
    errno.EAGAIN: "no more processes or threads may be started: raise the limit (ulimit -u, the container's pids)",
}
"""What ran out, by error number, and what to do."""
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
        number = _number(one)
        if number is not None:
            return _LACKS[number]
        to_see += [one.__context__, one.__cause__]
        if isinstance(one, BaseExceptionGroup):
            to_see += one.exceptions
    return None


def _number(error: BaseException) -> int | None:
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError):
        return error.errno if error.errno in _LACKS else None
    if isinstance(error, ImportError | RuntimeError):
        return next((number for text, number in _SAID.items() if text in str(error)), None)
    return None
