"""Rules that an answer passes or fails, declared beside its prompt: no opinion, no model, the same each time.

Numbers are read as people write them; JSON is held to a small part of JSON Schema, of which every keyword is obeyed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from loadbench.errors import ScenarioError
from loadbench.quality.answers import Question
from loadbench.scenario.files import is_list, parse_json
from loadbench.text import at, nearest, printable, shown

_CASE = ("ignore_case",)
KINDS: dict[str, tuple[str, ...]] = {
    **{"contains": _CASE, "not_contains": _CASE, "equals": _CASE, "regex": _CASE},
    **{"json_schema": (), "number": ("tolerance", "where")},
    **{"min_words": (), "max_words": (), "min_characters": (), "max_characters": ()},
}
"""What can be checked, and what each kind takes beside its value."""


@dataclass(frozen=True, slots=True)
class Check:
    """One rule: its kind, what it asks for, and how."""

    kind: str
    value: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        text = f"{self.kind} {shown(self.value)}"
        for name, value in self.options.items():
            text += f", {name} {shown(value)}"
        return text

    def failure(self, text: str) -> str | None:
        """Why an answer fails, in words; None where it passes."""
        value, ignore_case = self.value, bool(self.options.get("ignore_case"))
        why, passes = "", False
        match self.kind:
            case "number":
                return self._number(text)
            case "json_schema":
                try:
                    why = misfit(json_alone(text), value) or ""
                except ValueError as error:
                    return f"is not JSON alone: {error}"
                why, passes = f"its JSON does not fit: {why}", not why
            case "regex":
                pattern = re.compile(value, re.IGNORECASE if ignore_case else 0)
                passes = pattern.search(text) is not None
                why = f"nothing in it matches {shown(value)}"
            case "contains" | "not_contains" | "equals":
                if ignore_case:
                    value, text = value.casefold(), text.casefold()
                if self.kind == "equals":
                    why, passes = f"is not {shown(self.value)}", value.strip() == text.strip()
                elif self.kind == "contains":
                    why, passes = f"does not contain {shown(self.value)}", value in text
                else:
                    why, passes = f"contains {shown(self.value)}", value not in text
            case _:
                bound, _, unit = self.kind.partition("_")
                length = len(text.strip())  # blanks around an answer are no answer
                if unit == "words":
                    length = len(text.split())
                limit, passes = f"at most {value}", length <= value
                if bound == "min":
                    limit, passes = f"at least {value}", length >= value
                why = f"has {length} {unit}, {limit} were asked for"
        if passes:
            return None
        return why

    def _number(self, text: str) -> str | None:
        stated = numbers(text)
        if not stated:
            return "states no number"
        why = f"states no {self.value}"
        if self.options.get("where", "last") == "last":
            why = f"its last number is {str(stated[-1])[:40]}, not {self.value}"
            stated = stated[-1:]
        # As decimals: 0.1 + 0.2 is 0.3 to whoever wrote the rule.
        value, tolerance = Decimal(str(self.value)), Decimal(str(self.options.get("tolerance", 0)))
        for number in stated:
            if abs(number - value) <= tolerance:
                return None
        return why


def parse(question: Question) -> tuple[Check, ...]:
    """A prompt's checks.

    Raises:
        ScenarioError: One is not understood: names the prompt and the place.
    """
    checks = []
    for index, raw in enumerate(question.checks):
        try:
            checks.append(_check(raw))
        except ValueError as error:
            raise ScenarioError(f"prompt {printable(question.id)}: checks[{index}]: {error}") from None
    return tuple(checks)


def _check(raw: object) -> Check:
    if not isinstance(raw, dict):
        raise ValueError(f'is {shown(raw)}: must be an object, as {{"contains": "Lisbon"}}')
    kinds = [key for key in raw if key in KINDS]
    if not kinds:
        unknown = next(iter(raw), "")
        raise ValueError(f"{shown(unknown)} is no check{nearest(unknown, KINDS)}")
    if len(kinds) > 1:
        raise ValueError(f"asks for {' and '.join(kinds)}: make a check of each")
    [kind] = kinds
    options = dict(raw)
    del options[kind]
    for key in options:
        if key not in KINDS[kind]:
            meant = nearest(key, KINDS[kind]) if KINDS[kind] else ""
            raise ValueError(f"{kind} takes no {shown(key)}{meant}")
    _check_value(kind, raw[kind])
    tolerance, ignore_case = options.get("tolerance", 0), options.get("ignore_case", False)
    if not _is_number(tolerance) or tolerance < 0:
        raise ValueError(f"tolerance is {shown(tolerance)}: must be a number, 0 or more")
    if options.get("where", "last") not in ("last", "any"):
        raise ValueError(f"where is {shown(options['where'])}: write last or any")
    if not isinstance(ignore_case, bool):
        raise ValueError(f"ignore_case is {shown(ignore_case)}: write true or false")
    return Check(kind, raw[kind], options)


def _check_value(kind: str, value: object) -> None:
    if kind == "json_schema":
        check_schema(value)
    elif kind == "number":
        if not _is_number(value):
            raise ValueError(f"number is {shown(value)}: must be a number")
    elif kind.startswith(("min_", "max_")):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{kind} is {shown(value)}: must be a whole number, 0 or more")
    elif not isinstance(value, str) or not value:
        raise ValueError(f"{kind} is {shown(value)}: must be a text, not empty")
    elif kind == "regex":
        try:
            re.compile(value)
        except (re.error, OverflowError, RecursionError) as error:  # a{9999999999}, and brackets a thousand deep
            raise ValueError(f"regex {shown(value)} is not valid: {error}") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# -- numbers in a text

LONGEST = 1000
"""Digits of a number that are looked at: Decimal computes with no number of a million."""
_NUMBER = re.compile(r"([-+−]?)(\d+(?:[.,]\d+)*|\.\d+)([eE][+-]?\d{1,3}(?!\w))?")
_PLAIN = re.compile(r"\d*\.\d+|\d+")
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+(\.\d+)?")
_EUROPEAN = re.compile(r"\d{1,3}(\.\d{3})+,\d+")
_LIST = re.compile(r"\d+(,\d+)+")


def numbers(text: str) -> list[Decimal]:
    """The numbers of a text, in its order, as a reader takes them.

    1,234 is a thousand, 4,9 has a decimal comma, 1,2,3 are three; a dash between figures is a range, not a minus;
    the 4 of GPT-4 is part of a name, 3.5.1 is a version.

    >>> [str(n) for n in numbers("GPT-4 needs 1,234.5 MB, 4,9GB or 10-20%, about −3.")]
    ['1234.5', '4.9', '10', '20', '-3']
    """
    stated = []
    for match in _NUMBER.finditer(text):
        sign, digits, exponent = match.groups(default="")
        before = text[max(match.start() - 1, 0) : match.start()]
        if before.isalpha() or before == "_":  # GPT-4, v2, a_1
            continue
        if sign == "+" or before.isdigit() or before == ")":  # 10-20 is a range
            sign = ""
        for plain in _with_point(digits[:LONGEST]):
            stated.append(Decimal(sign.replace("−", "-") + plain + exponent))
    return stated


def _with_point(digits: str) -> list[str]:
    """Digits with dots and commas, as numbers with a decimal point."""
    if _PLAIN.fullmatch(digits):
        return [digits]
    # 1,234 might be a list of two: a reader takes it for a thousand.
    if _THOUSANDS.fullmatch(digits):
        return [digits.replace(",", "")]
    if _EUROPEAN.fullmatch(digits):
        return [digits.replace(".", "").replace(",", ".")]
    if _LIST.fullmatch(digits):
        if digits.count(",") == 1:
            return [digits.replace(",", ".")]
        return digits.split(",")
    return []


# -- JSON and its schema

TYPES: dict[str, type | tuple[type, ...]] = {"object": dict, "array": list, "string": str, "number": (int, float)}
TYPES |= {"integer": int, "boolean": bool, "null": type(None)}
KEYWORDS = ("type", "required", "properties", "additionalProperties", "enum", "items")
PROSE = ("title", "description")
"""Keywords that constrain nothing."""
_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*)\n?```", re.DOTALL | re.IGNORECASE)

Keys = tuple[str | int, ...]


def json_alone(text: str) -> object:
    """The JSON document that a text is: nothing before or after it but blanks, or the one fence that models like.

    Raises:
        ValueError: It is none; says why, in one line.

    >>> json_alone('```json\\n{"order": "88-1204"}\\n```')
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
    """Refuse a schema that would not be fully obeyed: an unknown keyword is an error, never passed over.

    Raises:
        ValueError: With the place in the schema.
    """
    where = f"json_schema at {at(keys)}" if keys else "json_schema"
    if not isinstance(schema, dict):
        raise ValueError(f"{where} is {shown(schema)}: must be an object")
    for key in schema:
        if key not in KEYWORDS + PROSE:
            raise ValueError(f"{where} has the keyword {shown(key)}, which is not known{nearest(key, KEYWORDS)}")
    for name in _types(schema):
        if not isinstance(name, str) or name not in TYPES:
            raise ValueError(f"{where} has the type {shown(name)}: use one of {', '.join(TYPES)}")
    required = schema.get("required", [])
    if not is_list(required, str):
        raise ValueError(f"{where} has required {shown(required)}: must be a list of names")
    if not isinstance(schema.get("enum", []), list):
        raise ValueError(f"{where} has enum {shown(schema['enum'])}: must be a list of values")
    if not isinstance(schema.get("additionalProperties", True), bool):
        raise ValueError(f"{where} has additionalProperties that is no true or false")
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        raise ValueError(f"{where} has properties {shown(properties)}: must be an object")
    for name, below in properties.items():
        check_schema(below, (*keys, "properties", name))
    if "items" in schema:
        check_schema(schema["items"], (*keys, "items"))


def _types(schema: Mapping[str, Any]) -> list[Any]:
    """What its `type` names: one or several."""
    types = schema.get("type", [])
    if isinstance(types, list):
        return types
    return [types]


def misfit(value: object, schema: Mapping[str, Any], keys: Keys = ()) -> str | None:
    """The first place where a value is not as its schema says, in words; None where it fits.

    >>> schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    >>> misfit({"n": 12}, schema), misfit({"n": "12"}, schema), misfit({}, schema)
    (None, 'n is "12": must be of type integer', 'it lacks n')
    """
    place = at(keys) or "it"
    types = _types(schema)
    if "type" in schema and not any(_is(value, name) for name in types):
        return f"{place} is {shown(value)}: must be of type {' or '.join(types)}"
    if "enum" in schema and not any(same(value, one) for one in schema["enum"]):
        return f"{place} is {shown(value)}: must be one of {shown(schema['enum'])}"
    why = None
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                return f"{place} lacks {at((name,))}"
        for name, below in value.items():
            if name in properties:
                why = why or misfit(below, properties[name], (*keys, name))
            elif not schema.get("additionalProperties", True):
                why = why or f"{place} has {at((name,))}, which is not asked for"
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            why = why or misfit(item, schema["items"], (*keys, index))
    return why


def _is(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"  # in Python it would be an integer too
    if name == "integer" and isinstance(value, float):
        return value.is_integer()  # as JSON Schema has it, 12.0 is one
    return isinstance(value, TYPES[name])


def same(one: object, other: object) -> bool:
    """Whether two JSON values are equal; true is not 1, as it is in Python.

    >>> same(1, 1.0), same(1, True), same([{"a": 1}], [{"a": True}])
    (True, False, False)
    """
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other  # True == 1 in Python, at any depth
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
