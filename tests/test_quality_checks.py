"""Rules: what passes, what fails and why, and rules that are no rules."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.errors import ScenarioError
from loadbench.quality import Question, checks
from loadbench.quality.checks import json_alone, misfit, numbers, same


def why(check: dict[str, Any], text: str) -> str | None:
    """Why a text fails a check; None where it passes."""
    [parsed] = checks.parse(Question("q", "?", (), (check,)))
    return parsed.failure(text)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        ({"contains": "Lisbon"}, "It is Lisbon."),
        ({"contains": "lisbon", "ignore_case": True}, "LISBON"),
        ({"not_contains": "sorry"}, "Sorry"),
        ({"equals": "positive"}, " positive\n"),
        ({"equals": "Positive", "ignore_case": True}, "positive"),
        ({"regex": r"\b88-\d{4}\b"}, "order 88-1204 it is"),
        ({"regex": "^no", "ignore_case": True}, "No."),
        ({"min_words": 2}, "two words"),
        ({"max_words": 2}, "two   words"),
        ({"min_characters": 3}, "abc"),
        ({"max_characters": 3}, " abc "),  # blanks around an answer are no answer
        ({"number": 50}, "75 less a third is 50."),
        ({"number": 0.3}, "0.1 + 0.2 = 0.3"),  # as decimals: 0.1 + 0.2 is not 0.3 in binary
        ({"number": 4.9, "tolerance": 0.1}, "about 5 GB: 5.0"),
        ({"number": 12, "where": "any"}, "12 shelves, of which 9 came"),
        ({"number": 1234}, "1,234"),
        ({"json_schema": {"type": "object", "required": ["n"]}}, '{"n": 1}'),
        ({"json_schema": {"type": "object"}}, '```json\n{"n": 1}\n```'),
        ({"json_schema": {"title": "order", "type": ["array", "null"], "items": {"enum": [1, "a"]}}}, '[1, "a"]'),
    ],
)
def test_an_answer_that_is_as_asked_passes(check: dict[str, Any], text: str) -> None:
    assert why(check, text) is None


@pytest.mark.parametrize(
    ("check", "text", "reason"),
    [
        ({"contains": "Lisbon"}, "lisbon", 'does not contain "Lisbon"'),
        ({"not_contains": "sorry"}, "so sorry", 'contains "sorry"'),
        ({"equals": "positive"}, "positive.", 'is not "positive"'),
        ({"regex": r"^\d+$"}, "12 or so", 'nothing in it matches "^\\\\d+$"'),
        ({"min_words": 3}, "two words", "has 2 words, at least 3 were asked for"),
        ({"max_words": 1}, "two words", "has 2 words, at most 1 were asked for"),
        ({"max_characters": 2}, "abc", "has 3 characters, at most 2 were asked for"),
        ({"number": 50}, "50 boxes and 25 more", "its last number is 25, not 50"),
        ({"number": 50, "where": "any"}, "51, 49", "states no 50"),
        ({"number": 50}, "fifty", "states no number"),
        ({"number": 4}, "as GPT-4 says", "states no number"),
        ({"json_schema": {"type": "object"}}, 'Here: {"n": 1}', "is not JSON alone: line 1, column 1: not valid"),
        ({"json_schema": {"type": "object"}}, "", "is not JSON alone: it is empty"),
        ({"json_schema": {"type": "object"}}, "[1]", "its JSON does not fit: it is [1]: must be of type object"),
        ({"json_schema": {"properties": {"n": {"type": "integer"}}}}, '{"n": true}', "n is true: must be of type int"),
        ({"json_schema": {"items": {"enum": [1]}}}, "[1, true]", "[1] is true: must be one of [1]"),
        ({"json_schema": {"required": ["a b"]}}, "{}", 'it lacks "a b"'),
        ({"json_schema": {"properties": {}, "additionalProperties": False}}, '{"n": 1}', "it has n, which is not"),
    ],
)
def test_an_answer_that_is_not_as_asked_fails_and_says_why(check: dict[str, Any], text: str, reason: str) -> None:
    assert reason in (why(check, text) or "passed")


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        ("Lisbon", 'is "Lisbon": must be an object, as {"contains": "Lisbon"}'),
        ({"contain": "x"}, '"contain" is no check; did you mean contains?'),
        ({}, '"" is no check'),
        ({"contains": "x", "regex": "y"}, "asks for contains and regex: make a check of each"),
        ({"contains": ""}, 'contains is "": must be a text, not empty'),
        ({"contains": "x", "ignore_case": 1}, "ignore_case is 1: write true or false"),
        ({"contains": "x", "tolerance": 1}, 'contains takes no "tolerance"'),
        ({"regex": "("}, 'regex "(" is not valid'),
        ({"number": True}, "number is true: must be a number"),
        ({"number": 1, "tolerance": -1}, "tolerance is -1"),
        ({"number": 1, "where": "first"}, 'where is "first": write last or any'),
        ({"max_words": 1.5}, "max_words is 1.5: must be a whole number"),
        ({"min_words": -1}, "min_words is -1"),
        ({"json_schema": []}, "json_schema is []: must be an object"),
        ({"json_schema": {"minimum": 1}}, 'json_schema has the keyword "minimum", which is not known'),
        ({"json_schema": {"properties": {"n": {"pattern": "x"}}}}, 'at properties.n has the keyword "pattern"'),
        ({"json_schema": {"items": {"type": "int"}}}, 'at items has the type "int": use one of object, array'),
        ({"json_schema": {"required": "n"}}, 'has required "n": must be a list of names'),
        ({"json_schema": {"enum": 1}}, "has enum 1: must be a list of values"),
        ({"json_schema": {"properties": []}}, "has properties []: must be an object"),
        ({"json_schema": {"additionalProperties": {}}}, "additionalProperties that is no true or false"),
    ],
)
def test_a_rule_that_is_none_is_refused_with_its_place(check: Any, reason: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        checks.parse(Question("order", "?", (), ({"contains": "x"}, check)))

    assert str(refused.value).startswith("prompt order: checks[1]: ")
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("x=-5, y=+3", ["-5", "3"]),
        ("10-20 and 10–20", ["10", "20", "10", "20"]),
        ("(2)-1", ["2", "1"]),
        ("4.9GB, 50%, $1,234.50", ["4.9", "50", "1234.50"]),
        ("1.234,5", ["1234.5"]),
        ("1,2,3", ["1", "2", "3"]),
        ("3.5.1 on 24.12.2025", []),
        ("v2, GPT-4, a_1", []),
        ("1e3 and .5", ["1E+3", "0.5"]),
        ("**14**.", ["14"]),
    ],
)
def test_numbers_are_read_as_people_write_them(text: str, found: list[str]) -> None:
    assert [str(number) for number in numbers(text)] == found


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9))
def test_a_number_is_found_with_and_without_its_thousands_marked(number: Decimal) -> None:
    assert numbers(f"It is {number}.") == numbers(f"It is {number:,}.") == [number]


@given(st.text())
def test_no_text_is_too_odd_for_any_rule(text: str) -> None:
    rules = ({"number": 1}, {"regex": "a+b"}, {"json_schema": {"type": "object"}}, {"max_words": 3}, {"equals": "x"})

    for check in rules:
        assert isinstance(why(check, text), str | None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=2), below, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_json_document_is_read_as_it_was_written_in_a_fence_or_not(value: Any) -> None:
    text = json.dumps(value)

    assert same(json_alone(text), value)
    assert same(json_alone(f"```json\n{text}\n```"), value)


@given(JSON, JSON)
def test_an_enum_takes_its_own_values_and_no_others(value: Any, other: Any) -> None:
    assert misfit(value, {"enum": [value]}) is None
    assert (misfit(value, {"enum": [other]}) is None) == (
        json.dumps(value, sort_keys=True) == json.dumps(other, sort_keys=True)
    )


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', "NaN", "```\n1\n``` and ```\n2\n```", "[" * 5000])
def test_json_that_readers_take_differently_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"twice|NaN|not valid|nested"):
        json_alone(text)


@pytest.mark.parametrize(
    "digits", ["9" * 1_000_000, f"0.{'3' * 1_000_000}", f"1{',000' * 300_000}", f"-{'1' * 5000}e300"]
)
def test_a_number_of_a_million_digits_is_none_that_is_asked_for(digits: str) -> None:
    for where in ("last", "any"):
        assert why({"number": 42, "where": where, "tolerance": 0.5}, f"It is {digits}") is not None


def test_a_long_fraction_is_the_number_that_it_is() -> None:
    assert why({"number": 0.3333, "tolerance": 0.001}, f"It is 0.{'3' * 1_000_000}.") is None
