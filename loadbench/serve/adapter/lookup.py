"""An adapter's class, by `module:Class` or by the name of an entry point."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from loadbench.errors import LoadbenchError, UsageError
from loadbench.serve.adapter.failure import FAILURES, told

GROUP = "loadbench.adapters"
"""Packages announce their adapters in this entry-point group."""


def find(spec: str) -> Any:
    """A new adapter, not loaded yet.

    Args:
        spec: `module:Class`, the module in the working folder or installed, or a name in `GROUP`.
    Raises:
        UsageError: No such module, class or name, or the class lacks a method.
        LoadbenchError: The module or the class's constructor raised.
    """
    found = _attribute(spec) if ":" in spec else _entry_point(spec)
    try:
        adapter = found() if isinstance(found, type) else found
    except FAILURES as error:
        raise LoadbenchError(f"{spec} cannot be made: {told(error)}") from error
    lacking = [name for name in ("load", "generate") if not callable(getattr(adapter, name, None))]
    if lacking:
        raise UsageError(f"{spec} is no adapter: it has no {' and no '.join(lacking)} (docs/adapter.md shows one)")
    return adapter


def _attribute(spec: str) -> Any:
    module_name, _, name = spec.partition(":")
    words = (*module_name.split("."), *name.split("."))
    if not all(word.isidentifier() for word in words) or module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").strip("./\\").replace("/", ".").replace("\\", ".")
        raise UsageError(f"{spec!r} is no module:Class: write it like {dotted or 'my_model'}:{name or 'MyModel'}")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)  # and left there: load() may import more from the same folder
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise LoadbenchError(f"the module {module_name} cannot be imported: {told(error)}") from error
        files = (path.stem for path in Path(here).glob("*.py"))
        raise UsageError(
            f"there is no module {error.name!r}, neither in {here} nor installed{_near(error.name, files)}"
        ) from None
    except FAILURES as error:
        raise LoadbenchError(f"the module {module_name} cannot be imported: {told(error)}") from error
    found: Any = module
    for word in name.split("."):
        if not hasattr(found, word):
            there = [other for other, value in vars(found).items() if callable(getattr(value, "generate", None))]
            raise UsageError(f"the module {module_name} has no {name!r}{_near(word, there) or _list(there)}")
        found = getattr(found, word)
    return found


def _entry_point(name: str) -> Any:
    known = entry_points(group=GROUP)
    if name not in known.names:
        raise UsageError(
            f"no adapter is named {name!r}{_near(name, known.names) or _list(known.names)}; "
            "one of your own is written module:Class"
        )
    try:
        return known[name].load()
    except FAILURES as error:
        raise LoadbenchError(f"the adapter {name} ({known[name].value}) cannot be imported: {told(error)}") from error


def _near(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(set(names)), n=1)
    return f"; is it {close[0]}?" if close else ""


def _list(names: Iterable[str]) -> str:
    return f"; there is {', '.join(sorted(set(names))[:8])}" if names else ""
