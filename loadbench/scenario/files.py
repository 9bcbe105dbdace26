"""Input files as text and as plain data (what JSON can say); a fault is one line that names file and place."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from loadbench.errors import ScenarioError

LARGEST_BYTES = 64 * 1024 * 1024
DEEPEST = 50
Keys = tuple[str | int, ...]


def shown(value: object) -> str:
    """A value as it would be written in JSON, on one line and cut at 60 characters."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):  # an integer of thousands of digits; endless nesting
        text = "a huge value"
    return printable(text if len(text) <= 60 else text[:57] + "...")


def printable(text: str) -> str:
    """One line: whatever could break it or the terminal is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def home() -> Path | None:
    """The user's home folder; None where there is none, as for a container's uid that has no entry and no HOME."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def expanded(path: str | Path, told: str) -> Path:
    """A path, a `~` at its start made good.

    Args:
        told: What gave it, for the message: an option, a variable, a file's field.
    Raises:
        ScenarioError: There is no such user, or no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        who = printable(Path(path).parts[0])
        whose = "there is no home folder here (HOME is not set)" if who == "~" else f"there is no user {who[1:]!r}"
        raise ScenarioError(f"{told} {printable(str(path))}: {whose}: write the path in full") from None


def at(keys: Sequence[str | int]) -> str:
    """A place in the data: `concurrency[2]`, `timeouts.total`, `headers."X Y"`."""
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += ("." if text else "") + (key if re.fullmatch(r"[\w-]{1,40}", key) else shown(key))
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown word: the nearest one, or else all of them."""
    from difflib import get_close_matches  # only where something is wrong

    names = list(known)
    close = get_close_matches(word[:100], names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f": use one of {', '.join(names)}"


def read_text(path: Path) -> str:
    """The text of an input file, UTF-8 with or without a byte order mark.

    Raises:
        ScenarioError: If it cannot be read, is empty, too large, or not UTF-8.
    """
    where = printable(str(path))
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise ScenarioError(f"{where}: no such file{_sibling(path)}") from None
    except IsADirectoryError:
        raise ScenarioError(f"{where}: a folder, not a file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or str(error)
        raise ScenarioError(f"{where}: cannot be read: {why.lower()}") from None
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
    close = get_close_matches(path.name, names, n=1)
    return f"; did you mean {printable(str(path.with_name(close[0])))}?" if close else ""


def parse_json(text: str, file: str, line: int | None = None) -> Any:
    """Plain data from JSON, stricter than the standard library: no NaN, no key twice in one object.

    Args:
        text: One document.
        file: Its name in messages.
        line: Where the document starts, if it is one of several in the file.

    Raises:
        ScenarioError: With line and column, or with the place in the data.
    """
    where = file if line is None else f"{file}, line {line}"

    def constant(name: str) -> float:
        raise ScenarioError(f"{where}: {name} is not a JSON number")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
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
    check(data, where)
    return data


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Plain data from TOML.

    Raises:
        ScenarioError: With line and column, or with the place in the data.
    """
    import tomllib

    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(?s)(.*) \(at (.*)\)", str(error))
        what, place = (found[1], found[2]) if found else (str(error), "")
        raise ScenarioError(f"{where}{', ' if place else ''}{place}: not valid TOML: {printable(what)}") from None
    except RecursionError:
        raise ScenarioError(f"{where}: nested deeper than {DEEPEST} levels") from None
    except ValueError:
        raise ScenarioError(f"{where}: holds a number with thousands of digits") from None
    check(data, where)
    return data


def check(data: object, where: str) -> None:
    """Refuse what cannot be sent or stored as JSON: dates, NaN, huge integers, half characters, deep nesting.

    Raises:
        ScenarioError: With the place in the data.
    """
    rest: list[tuple[Keys, object]] = [((), data)]
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


def is_deep(value: object, most: int) -> bool:
    """Whether objects and lists are nested in more levels than that.

    >>> is_deep([[1]], 2), is_deep({"a": [[]]}, 2)
    (False, True)
    """
    level: list[object] = [value]
    for _ in range(most):
        level = [
            item
            for one in level
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return any(isinstance(one, dict | list) for one in level)


def _key(keys: Keys, key: object, where: str) -> Keys:
    if not isinstance(key, str) or _problem(key):
        raise ScenarioError(f"{where}: {at(keys) or 'it'} has the key {shown(key)}: a key must be text")
    return (*keys, key)


def _problem(value: object) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else f"is {shown(value)}: too large a number"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"is {value}: must be a finite number"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"is {shown(value)}: holds half a character (a lone surrogate)"
        return None
    return f"is a {type(value).__name__}: JSON has no such type; put it in quotes"
