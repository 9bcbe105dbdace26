"""Writes loadbench/__init__.pyi, by which editors and type checkers know the arguments of `loadbench.run`.

`python -m tests.support.stub` makes it anew after a change of `Scenario` or of `api.run`; a test says when it is due.
"""

from __future__ import annotations

import inspect
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from loadbench import api
from loadbench.scenario import Scenario, Timeouts
from loadbench.scenario.bounds import Duration, FailIf
from loadbench.scenario.settings import settings

STUB = Path(api.__file__).with_name("__init__.pyi")
_HEAD = """\
# Made by `python -m tests.support.stub` from loadbench.api and loadbench.scenario.Scenario.
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from loadbench.api import Event
{imports}
from loadbench.scenario import Scenario, Timeouts

__version__: str

"""
_FILES = {setting.field for setting in settings(Scenario) if setting.flag.metavar == "FILE"}


def text() -> str:
    imports = "\n".join(f"from loadbench.api import {name} as {name}" for name in sorted(api.__all__) if name != "run")
    lines = [_HEAD.format(imports=imports) + "def run("]
    starred = False
    for one in inspect.signature(api.run).parameters.values():
        if one.kind is one.KEYWORD_ONLY and not starred:
            starred = True
            lines.append("    *,")
        if one.default is ...:
            lines.append(f"    {one.name}: {written(one.name, one.annotation)} = ...,")
        else:
            annotation = one.annotation.replace("scenario.Scenario", "Scenario")
            lines.append(f"    {one.name}: {annotation} = {one.default!r},")
    return "\n".join([*lines, ") -> Run: ...", ""])


def written(name: str, hint: Any) -> str:
    """A field's type as `run` takes it: of a list also one value or a tuple, of a path also a `Path`."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    names: list[str] = []
    for kind in kinds:
        names += [one for one in _names(kind) if one not in names]
    if name in _FILES:
        names.insert(1, "Path")
    if "None" not in names:
        names.append("None")  # as if it were left out
    return " | ".join(sorted(names, key=lambda one: one == "None"))


def _names(kind: Any) -> list[str]:
    origin = get_origin(kind)
    if origin is Literal:
        return [f"Literal[{', '.join(map(repr, get_args(kind)))}]".replace("'", '"')]
    if origin is list:
        [of] = get_args(kind)
        one = [
            part for of_one in (get_args(of) if get_origin(of) is types.UnionType else (of,)) for part in _names(of_one)
        ]
        return [*one, f"Sequence[{' | '.join(one)}]"]
    special: dict[Any, list[str]] = {
        Duration: ["str", "float"],
        FailIf: ["Mapping[str, Any]"],
        Timeouts: ["Timeouts", "Mapping[str, str | float]"],
        types.NoneType: ["None"],
    }
    if origin is dict:
        return [f"Mapping[str, {'str' if get_args(kind)[1] is str else 'Any'}]"]
    return special.get(kind, [kind.__name__])


if __name__ == "__main__":
    STUB.write_text(text(), encoding="utf-8")
