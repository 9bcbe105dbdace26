"""How people name a setting: its flag, its variables, what --help says of it.

A struct's field carries that beside its type, its limits and its default, so that each setting is declared once; the
command line makes its options from it:

    seed: Annotated[int, Meta(ge=0), Flag("--seed", "Of the order of prompts and the arrivals.", "N")] = 1
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from loadbench.scenario.bounds import Duration

Reader = Literal[
    "number",
    "whole number",
    "numbers",
    "whole numbers",
    "switch",
    "text",
    "texts",  # a variable holds one of them
    "list",  # commas part them in a variable
    "headers",
    "choice",
    "duration",
    "share",
    "tries",
    "devices",
    "certificates",
    "workers",
    "path",
    "folder",
    "file of end",
]
"""How the text behind a flag becomes a value."""


@dataclass(frozen=True, slots=True)
class Flag:
    """How the command line names a setting."""

    names: str  # as "-n --requests", or "--cold/--as-found"
    help: str
    metavar: str | None = None
    reads: Reader | None = None  # None where the field's type says it
    variable: bool = True  # whether the environment may set it: --max-tokens by LOADBENCH_MAX_TOKENS
    workshop: str | None = None  # another variable that sets it, as Foundry Local's workshop has
    name: str | None = None  # of the option, where a field has several of them
    also: str = ""  # spellings that other tools have taught; --help lists none of them


@dataclass(frozen=True, slots=True)
class Setting:
    """A field of a struct, under one of the flags that set it."""

    name: str  # unlike that of any other flag; as a rule the field's
    field: str  # as scenario files and Python have it
    flag: Flag
    reads: Reader
    choices: tuple[str, ...] = ()  # of a `choice`

    @property
    def variables(self) -> list[str]:
        """The environment variables that set it, the first one first."""
        found = []
        if self.flag.variable:
            long = self.flag.names.split()[-1].split("/")[0].removeprefix("--")
            found.append(f"LOADBENCH_{long.replace('-', '_').upper()}")
        if self.flag.workshop:
            found.append(self.flag.workshop)
        return found


@cache
def settings(struct: type[msgspec.Struct]) -> tuple[Setting, ...]:
    """The settings among a struct's fields, in their order."""
    found: list[Setting] = []
    for field, annotation in get_type_hints(struct, include_extras=True).items():
        kind, choices = _kind(annotation), ()
        if get_origin(kind) is Literal:
            choices = get_args(kind)
        for one in getattr(annotation, "__metadata__", ()):
            if isinstance(one, Flag):
                found.append(Setting(one.name or field, field, one, one.reads or _reads(kind), choices))
    return tuple(found)


def _kind(annotation: object) -> object:
    """A type without its limits, and without None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return _kind(get_args(annotation)[0])
    return annotation


def _reads(kind: object) -> Reader:
    if get_origin(kind) is Literal:
        return "choice"
    of: dict[object, Reader] = {bool: "switch", int: "whole number", float: "number", Duration: "duration", str: "text"}
    return of[kind]
