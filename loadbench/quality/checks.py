"""Rules that an answer passes or fails, declared beside its prompt: no opinion, no model, the same each time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from loadbench.errors import ScenarioError
from loadbench.quality import shape
from loadbench.quality.answers import Question
from loadbench.quality.numbers import numbers
from loadbench.text import nearest, printable, shown

KINDS: dict[str, tuple[str, ...]] = {
    "contains": ("ignore_case",),
    "not_contains": ("ignore_case",),
    "equals": ("ignore_case",),
    "regex": ("ignore_case",),
    "json_schema": (),
    "number": ("tolerance", "where"),
    "min_words": (),
    "max_words": (),
    "min_characters": (),
    "max_characters": (),
}
"""What can be checked, and what each kind takes beside its value."""


@dataclass(frozen=True, slots=True)
class Check:
    """One rule: its kind, what it asks for, and how."""

    kind: str
    value: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        more = "".join(f", {name} {shown(value)}" for name, value in self.options.items())
        return f"{self.kind} {shown(self.value)}{more}"

    def failure(self, text: str) -> str | None:
        """Why an answer fails, in words; None where it passes."""
        return _RULES[self.kind](self, text)

    def folded(self, text: str) -> str:
        """A text as this check compares it."""
        return text.casefold() if self.options.get("ignore_case") else text


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
    if len(kinds) != 1:
        unknown = next((key for key in raw if key not in KINDS), "")
        why = f"asks for {' and '.join(kinds)}: make a check of each" if kinds else f"{shown(unknown)} is no check"
        raise ValueError(why + ("" if kinds else nearest(unknown, KINDS)))
    [kind] = kinds
    options = {key: value for key, value in raw.items() if key != kind}
    for key in options:
        if key not in KINDS[kind]:
            raise ValueError(f"{kind} takes no {shown(key)}" + (nearest(key, KINDS[kind]) if KINDS[kind] else ""))
    _values(kind, raw[kind], options)
    return Check(kind, raw[kind], options)


def _values(kind: str, value: Any, options: Mapping[str, Any]) -> None:
    if kind == "json_schema":
        shape.check_schema(value)
    elif kind == "number":
        if not _is_number(value):
            raise ValueError(f"number is {shown(value)}: must be a number")
        if not _is_number(options.get("tolerance", 0)) or options.get("tolerance", 0) < 0:
            raise ValueError(f"tolerance is {shown(options['tolerance'])}: must be a number, 0 or more")
        if options.get("where", "last") not in ("last", "any"):
            raise ValueError(f"where is {shown(options['where'])}: write last or any")
    elif kind.startswith(("min_", "max_")):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{kind} is {shown(value)}: must be a whole number, 0 or more")
    elif not isinstance(value, str) or not value:
        raise ValueError(f"{kind} is {shown(value)}: must be a text, not empty")
    if kind == "regex":
        try:
            re.compile(value)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"regex {shown(value)} is not valid: {error}") from None
    if not isinstance(options.get("ignore_case", False), bool):
        raise ValueError(f"ignore_case is {shown(options['ignore_case'])}: write true or false")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def failures(checks: Sequence[Check], text: str) -> Iterator[tuple[Check, str]]:
    """The checks that an answer fails, each with why."""
    for check in checks:
        if (why := check.failure(text)) is not None:
            yield check, why


def _number(check: Check, text: str) -> str | None:
    found = numbers(text)
    anywhere = check.options.get("where", "last") == "any"
    asked, tolerance = Decimal(str(check.value)), Decimal(str(check.options.get("tolerance", 0)))
    if any(abs(one - asked) <= tolerance for one in (found if anywhere else found[-1:])):
        return None
    if not found:
        return "states no number"
    return f"states no {check.value}" if anywhere else f"its last number is {str(found[-1])[:40]}, not {check.value}"


def _contains(check: Check, text: str) -> str | None:
    return None if check.folded(check.value) in check.folded(text) else f"does not contain {shown(check.value)}"


def _not_contains(check: Check, text: str) -> str | None:
    return f"contains {shown(check.value)}" if check.folded(check.value) in check.folded(text) else None


def _equals(check: Check, text: str) -> str | None:
    same = check.folded(check.value.strip()) == check.folded(text.strip())
    return None if same else f"is not {shown(check.value)}"


def _regex(check: Check, text: str) -> str | None:
    flags = re.IGNORECASE if check.options.get("ignore_case") else 0
    return None if re.search(check.value, text, flags) else f"nothing in it matches {shown(check.value)}"


def _json_schema(check: Check, text: str) -> str | None:
    try:
        value = shape.parse(text)
    except ValueError as error:
        return f"is not JSON alone: {error}"
    why = shape.misfit(value, check.value)
    return None if why is None else f"its JSON does not fit: {why}"


def _length(check: Check, text: str) -> str | None:
    bound, _, unit = check.kind.partition("_")
    length = len(text.split()) if unit == "words" else len(text.strip())
    if length >= check.value if bound == "min" else length <= check.value:
        return None
    return f"has {length} {unit}, {'at least' if bound == 'min' else 'at most'} {check.value} were asked for"


_RULES: dict[str, Callable[[Check, str], str | None]] = {
    "contains": _contains,
    "not_contains": _not_contains,
    "equals": _equals,
    "regex": _regex,
    "json_schema": _json_schema,
    "number": _number,
    **dict.fromkeys(("min_words", "max_words", "min_characters", "max_characters"), _length),
}
