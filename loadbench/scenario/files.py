"""Input files as text and as plain data (what JSON can say); a fault is one line that names file and place."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import select
import stat
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard, TypeVar

from loadbench.errors import ScenarioError
from loadbench.text import at, printable, shown

LARGEST_BYTES = 64 * 1024 * 1024
DEEPEST = 50
WRITER_WAIT_S = 5.0  # for the first byte of a named pipe: one that nobody writes to would be waited for without end
_BUFFER_BYTES = 1 << 19
Kind = TypeVar("Kind")
Keys = tuple[str | int, ...]
Table = dict[str, Any]  # plain data, as JSON and TOML have it


def home() -> Path | None:
    """The user's home folder; None where there is none, as for a container's uid that has no entry and no HOME."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def expanded(path: str | Path, source: str) -> Path:
    """A path, a `~` at its start made good.

    Args:
        source: Where it is written, for the message: an option, a variable, a file's field.
    Raises:
        ScenarioError: There is no such user, or no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        who = printable(Path(path).parts[0])
        why = "there is no home folder here (HOME is not set)" if who == "~" else f"there is no user {who[1:]!r}"
        raise ScenarioError(f"{source} {printable(str(path))}: {why}: write the path in full") from None


def open_file(path: Path, *, pipes: bool = False) -> BinaryIO:
    """Open a file to read its bytes, and never wait: a device has no end, a pipe may have no writer.

    Args:
        pipes: Take pipes and terminals too, for what a person names: `--api-key-file <(pass show key)`.

    Raises:
        OSError: It cannot be opened, or is neither a regular file nor what may stand for one.
    """
    extra = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"))
    descriptor = os.open(path, os.O_RDONLY | extra)
    try:
        mode = os.fstat(descriptor).st_mode
        if pipes and (stat.S_ISFIFO(mode) or os.isatty(descriptor)):
            # A descriptor that a shell handed over has its writer; a pipe with a name may wait for one for ever.
            named = stat.S_ISFIFO(mode) and not str(path).startswith(("/dev/", "/proc/"))
            if named and not _has_writer(descriptor):
                raise OSError(errno.EPIPE, "A pipe that nobody writes to")
            if hasattr(os, "set_blocking"):  # not on Windows, which opened it to block
                os.set_blocking(descriptor, True)
        else:
            check_regular(mode)
        return os.fdopen(descriptor, "rb", buffering=_BUFFER_BYTES)
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: Path, most: int = LARGEST_BYTES, *, pipes: bool = False) -> bytes:
    """All of a file that is read as one.

    Raises:
        OSError: As of `open_file`, or it is too large.
    """
    with open_file(path, pipes=pipes) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data


def check_regular(mode: int) -> None:
    """Refuse what is no regular file.

    Args:
        mode: `st_mode` of what was opened.

    Raises:
        OSError: It is a folder, a pipe, a socket or a device.
    """
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISFIFO(mode):
        raise OSError(errno.EINVAL, "A pipe, not a file")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "A device, not a file")


def _has_writer(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(WRITER_WAIT_S * 1000))


def open_input(path: Path) -> BinaryIO:
    """Open a file that a person named.

    Raises:
        ScenarioError: It cannot be; names the file and why.
    """
    where = printable(str(path))
    try:
        return open_file(path, pipes=True)
    except FileNotFoundError:
        raise ScenarioError(f"{where}: no such file{_sibling(path)}") from None
    except IsADirectoryError:
        raise ScenarioError(f"{where}: a folder, not a file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> ScenarioError:
    """The message on an input file that the system refuses to read."""
    why = getattr(error, "strerror", None) or str(error)
    return ScenarioError(f"{printable(str(path))}: cannot be read: {why.lower()}")


def read_text(path: Path) -> str:
    """The text of an input file, UTF-8 with or without a byte order mark.

    Raises:
        ScenarioError: If it cannot be read, is empty, too large, or not UTF-8.
    """
    where = printable(str(path))
    try:
        with open_input(path) as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error) from None
    if len(data) > LARGEST_BYTES:
        raise ScenarioError(f"{where}: larger than {LARGEST_BYTES >> 20} MiB: split it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ScenarioError(f"{where}, line {line}: not UTF-8 (byte {error.start}): save it as UTF-8") from None
    if not text.strip():
        raise ScenarioError(f"{where}: the file is empty")
    return text


def _sibling(path: Path) -> str:
    from difflib import get_close_matches

    try:
        names = [p.name for p in path.parent.iterdir()]
    except (OSError, ValueError):
        return ""
    for name in get_close_matches(path.name, names, n=1):
        return f"; did you mean {printable(str(path.with_name(name)))}?"
    return ""


def parse_json(text: str, file: str, line: int | None = None, *, keys: Keys = (), nan: bool = False) -> Any:
    """Plain data from JSON, stricter than the standard library: no NaN, no key twice in one object.

    Args:
        file: Its name in messages.
        line: Where the document starts, if it is one of several in the file.
        keys: Where it stands in the file, if it is a part of a larger one.
        nan: Take NaN for null, as data sets have it in place of what is missing.

    Raises:
        ScenarioError: With line and column, or with the place in the data.
    """
    where = file if line is None else f"{file}, line {line}"

    def constant(name: str) -> None:
        if nan:
            return
        raise ScenarioError(f"{where}: {name} is not a JSON number")

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        data = dict(pairs)
        if len(data) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ScenarioError(f"{where}: the key {shown(twice)} occurs twice in one object: remove one")
        return data

    try:
        data = json.loads(text, parse_constant=constant, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        place = f"line {(line or 1) + error.lineno - 1}, column {error.colno}"
        raise ScenarioError(f"{file}, {place}: not valid JSON: {error.msg.lower()}") from None
    except RecursionError:
        raise ScenarioError(f"{where}: nested deeper than {DEEPEST} levels") from None
    except ValueError:  # Python refuses integers beyond 4300 digits
        raise ScenarioError(f"{where}: holds a number with thousands of digits") from None
    check(data, where, keys)
    return data


def parse_toml(text: str, where: str) -> Table:
    """Plain data from TOML.

    Raises:
        ScenarioError: With line and column, or with the place in the data.
    """
    import tomllib

    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what = str(error)
        if found := re.fullmatch(r"(?s)(.*) \(at (.*)\)", what):
            what, where = found[1], f"{where}, {found[2]}"
        raise ScenarioError(f"{where}: not valid TOML: {printable(what)}") from None
    except RecursionError:
        raise ScenarioError(f"{where}: nested deeper than {DEEPEST} levels") from None
    except ValueError:
        raise ScenarioError(f"{where}: holds a number with thousands of digits") from None
    check(data, where)
    return data


def check(data: object, where: str, keys: Keys = ()) -> None:
    """Refuse what cannot be sent or stored as JSON: dates, NaN, huge integers, half characters, deep nesting.

    Raises:
        ScenarioError: With the place in the data.
    """
    rest: list[tuple[Keys, object]] = [(keys, data)]
    while rest:
        keys, value = rest.pop()
        if isinstance(value, dict):
            rest += [(_key(keys, key, where), item) for key, item in reversed(value.items())]
        elif isinstance(value, list | tuple):
            rest += [((*keys, index), item) for index, item in reversed(list(enumerate(value)))]
        elif problem := _problem(value):
            raise ScenarioError(f"{where}: {at(keys) or 'it'} {problem}")
        if len(keys) > DEEPEST:
            raise ScenarioError(f"{where}: {at(keys[:3])}: nested deeper than {DEEPEST} levels")


def is_list(value: object, kind: type[Kind]) -> TypeGuard[list[Kind]]:
    """Whether it is a list of such values, or an empty one.

    >>> is_list(["a", "b"], str), is_list(["a", 1], str), is_list("ab", str)
    (True, False, False)
    """
    return isinstance(value, list) and all(isinstance(one, kind) for one in value)


def is_deep(value: object, most: int) -> bool:
    """Whether objects and lists are nested in more levels than that.

    >>> is_deep([[1]], 2), is_deep({"a": [[]]}, 2)
    (False, True)
    """
    level: list[object] = [value]
    for _ in range(most):
        below: list[object] = []
        for one in level:
            if isinstance(one, dict):
                below.extend(one.values())
            elif isinstance(one, list):
                below.extend(one)
        if not below:
            return False
        level = below
    return any(isinstance(one, dict | list) for one in level)


def _key(keys: Keys, key: object, where: str) -> Keys:
    if not isinstance(key, str) or _problem(key):
        raise ScenarioError(f"{where}: {at(keys) or 'it'} has the key {shown(key)}: a key must be text")
    return (*keys, key)


def _problem(value: object) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            return f"is {shown(value)}: too large a number"
    elif isinstance(value, float):
        if not math.isfinite(value):
            return f"is {value}: must be a finite number"
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"is {shown(value)}: holds half a character (a lone surrogate)"
    else:
        return f"is a {type(value).__name__}: JSON has no such type; put it in quotes"
    return None
