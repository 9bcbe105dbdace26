"""JSON in an answer, and whether it has the declared shape: a small, honest part of JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from loadbench.errors import ScenarioError
from loadbench.scenario.files import parse_json
from loadbench.text import at, nearest, shown

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
KEYWORDS = ("type", "required", "properties", "additionalProperties", "enum", "items")
PROSE = ("title", "description")
"""Keywords that constrain nothing."""
_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*)\n?```", re.DOTALL | re.IGNORECASE)

Keys = tuple[str | int, ...]


def parse(text: str) -> Any:
    """The JSON document that a text is: nothing before or after it but blanks, or the one fence that models like.

    Raises:
        ValueError: It is none; says why, in one line.

    >>> parse('```json\\n{"order": "88-1204"}\\n```')
    {'order': '88-1204'}
    """
    text = text.strip()
    fenced = _FENCE.fullmatch(text)
    if fenced and "```" not in fenced[1]:
        text = fenced[1].strip()
    if not text:
        raise ValueError("it is empty")
    try:
        return parse_json(text, "it")
    except ScenarioError as error:
        raise ValueError(str(error).removeprefix("it: ").removeprefix("it, ")) from None


def check_schema(schema: object, keys: Keys = ()) -> None:
    """Refuse a schema that this room would not fully obey: an unknown keyword is an error, never passed over.

    Raises:
        ValueError: With the place in the schema.
    """
    place = f" at {at(keys)}" if keys else ""
    if not isinstance(schema, dict):
        raise ValueError(f"json_schema{place} is {shown(schema)}: must be an object")
    for key in schema:
        if key not in KEYWORDS + PROSE:
            raise ValueError(
                f"json_schema{place} has the keyword {shown(key)}, which is not known{nearest(key, KEYWORDS)}"
            )
    types = schema.get("type", [])
    for name in types if isinstance(types, list) else [types]:
        if name not in TYPES:
            raise ValueError(f"json_schema{place} has the type {shown(name)}: use one of {', '.join(TYPES)}")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise ValueError(f"json_schema{place} has required {shown(required)}: must be a list of names")
    if not isinstance(schema.get("enum", []), list):
        raise ValueError(f"json_schema{place} has enum {shown(schema['enum'])}: must be a list of values")
    if not isinstance(schema.get("additionalProperties", True), bool):
        raise ValueError(f"json_schema{place} has additionalProperties that is no true or false")
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        raise ValueError(f"json_schema{place} has properties {shown(properties)}: must be an object")
    for name, below in properties.items():
        check_schema(below, (*keys, "properties", name))
    if "items" in schema:
        check_schema(schema["items"], (*keys, "items"))


def misfit(value: Any, schema: Mapping[str, Any]) -> str | None:
    """The first place where a value is not as its schema says, in words; None where it fits.

    >>> schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    >>> misfit({"n": 12}, schema), misfit({"n": "12"}, schema), misfit({}, schema)
    (None, 'n is "12": must be of type integer', 'it lacks n')
    """
    return next(_misfits(value, schema, ()), None)


def _misfits(value: Any, schema: Mapping[str, Any], keys: Keys) -> Iterator[str]:
    place = at(keys) or "it"
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(_is(value, name) for name in types):
            yield f"{place} is {shown(value)}: must be of type {' or '.join(types)}"
            return
    if "enum" in schema and not any(same(value, one) for one in schema["enum"]):
        yield f"{place} is {shown(value)}: must be one of {shown(schema['enum'])}"
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{place} lacks {at((name,))}"
        for name, below in value.items():
            if name in properties:
                yield from _misfits(below, properties[name], (*keys, name))
            elif not schema.get("additionalProperties", True):
                yield f"{place} has {at((name,))}, which is not asked for"
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _misfits(item, schema["items"], (*keys, index))


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    match name:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "number":
            return isinstance(value, int | float)
        case "integer":  # as JSON Schema has it, 12.0 is one
            return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        case _:
            return name == "null" and value is None


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; true is not 1, as it is in Python.

    >>> same(1, 1.0), same(1, True), same([{"a": 1}], [{"a": True}])
    (True, False, False)
    """
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)
