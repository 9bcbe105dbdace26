"""prompts: what a prompts file says, in which order prompts go out, and how a cache is kept from answering."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from loadbench import prompts
from loadbench.errors import UsageError
from loadbench.prompts import DEFAULT, Prompt
from loadbench.scenario import Scenario
from tests.support.promptfiles import fault, user, written

SHIPPED = Path(__file__).parent.parent / "scenarios"


def test_a_plain_list_of_texts_is_a_prompts_file(tmp_path: Path) -> None:
    assert prompts.read(written(tmp_path, ["One", "Two"])) == [Prompt("p1", user("One")), Prompt("p2", user("Two"))]


def test_an_object_says_everything_about_its_prompt(tmp_path: Path) -> None:
    asked = {"id": "a", "prompt": "Hi", "system": "Be brief", "group": "g", "expected": ["x"], "max_tokens": 9}

    assert prompts.read(written(tmp_path, [asked])) == [
        Prompt("a", ({"role": "system", "content": "Be brief"}, *user("Hi")), "g", ("x",), 9)
    ]


def test_lines_of_jsonl_are_messages_objects_or_texts(tmp_path: Path) -> None:
    lines = '[{"role": "user", "content": "One"}]\n\n{"prompt": "Two"}\r\n"Three\u2028still three"\n'

    texts = [prompt.messages for prompt in prompts.read(written(tmp_path, lines, "p.jsonl"))]

    assert texts == [user("One"), user("Two"), user("Three\u2028still three")]


def test_lines_of_a_text_file_are_prompts(tmp_path: Path) -> None:
    assert prompts.read(written(tmp_path, "One\r\n\n  Two\n", "p.txt")) == prompts.from_texts(["One", "Two"])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "p.json: the file is empty"),
        ("[", "p.json, line 1, column 2: not valid JSON: expecting value"),
        (b'["\xff"]', "p.json, line 1: not UTF-8 (byte 2): save it as UTF-8"),
        ([], "p.json: no prompts in it: give at least one"),
        ({"a": 1}, 'p.json: must be a list of prompts, not {"a": 1}'),
        ([""], 'p.json: [0] is "": a prompt must hold text'),
        (["a", 3], "p.json: [1] is 3: must be a text, a list of messages, or an object"),
        (["a", {"id": "p1", "prompt": "b"}], 'p.json: [1]: the id "p1" is that of prompt 1: rename one'),
        ([{"prompt": "a", "expect": []}], "p.json: [0]: unknown key expect; did you mean expected?"),
        ([{"id": "a"}], "p.json: [0]: give either prompt or messages"),
        ([{"prompt": "a", "messages": []}], "p.json: [0]: give either prompt or messages, not both"),
        ([{"prompt": " "}], 'p.json: [0].prompt is " ": a prompt must hold text'),
        ([{"id": [7], "prompt": "a"}], "p.json: [0].id is [7]: must be a text, not empty"),
        ([{"id": "a\nb", "prompt": "a"}], 'p.json: [0].id is "a\\nb": must be one line of at most 200 characters'),
        ([{"prompt": "a", "max_tokens": 0}], "p.json: [0].max_tokens is 0: must be a whole number, 1 to 1000000"),
        ([{"prompt": "a", "max_tokens": True}], "p.json: [0].max_tokens is true: must be a whole number, 1 to 1000000"),
        ([{"prompt": "a", "expected": "b"}], 'p.json: [0].expected is "b": must be a list of texts'),
        ([{"messages": [{"role": "usr"}]}], 'p.json: [0].messages[0].role is "usr"; did you mean user?'),
        ([[{"role": "user", "content": []}]], "p.json: [0][0].content is []: a prompt must hold text"),
        ('["\\ud800"]', 'p.json: [0] is "\\ud800": holds half a character (a lone surrogate)'),
        ("[" * 99 + "]" * 99, "p.json: [0][0][0]: nested deeper than 50 levels"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_with_file_place_value_and_remedy(tmp_path: Path, content: Any, line: str) -> None:
    assert fault(written(tmp_path, content)) == line


def test_a_fault_in_jsonl_names_the_line_of_the_file(tmp_path: Path) -> None:
    assert fault(written(tmp_path, '"a"\n\n{"prompt" 1}', "x.jsonl")).startswith(
        "x.jsonl, line 3, column 11: not valid"
    )
    assert fault(written(tmp_path, '"a"\n\n{"prompt": 1}', "x.jsonl")).startswith("x.jsonl, line 3: item.prompt is 1:")


def test_a_file_of_another_kind_or_none_is_refused(tmp_path: Path) -> None:
    assert fault(tmp_path / "p.xls").startswith("p.xls: a prompts file ends in .json, .jsonl, .csv, .tsv or .txt")
    assert fault(tmp_path / "p.json") == "p.json: no such file"


@pytest.mark.parametrize("name", ["prompts.json", "meeting-notes.json"])
def test_prompts_that_we_ship_name_what_a_good_answer_holds(name: str) -> None:
    read = prompts.read(SHIPPED / name)

    assert all(prompt.expected and prompt.group for prompt in read)


def test_meeting_notes_are_as_long_as_real_ones() -> None:
    words = [len(prompt.messages[-1]["content"].split()) for prompt in prompts.read(SHIPPED / "meeting-notes.json")]

    assert all(100 <= count <= 250 for count in words)


def test_the_built_in_prompts_differ_in_length() -> None:
    lengths = sorted(prompt.characters for prompt in DEFAULT)

    assert len({prompt.id for prompt in DEFAULT}) == 12
    assert lengths[-1] > 5 * lengths[0]


def test_a_scenario_asks_its_texts_its_file_or_the_built_in_set(tmp_path: Path) -> None:
    path = written(tmp_path, ["From the file"])

    assert prompts.for_scenario(Scenario(prompts=["Hi"])) == prompts.from_texts(["Hi"])
    assert prompts.for_scenario(Scenario(prompts=str(path)))[0].messages == user("From the file")
    assert tuple(prompts.for_scenario(Scenario())) == DEFAULT


def test_a_system_message_of_the_scenario_yields_to_the_prompts_own() -> None:
    own = Prompt("a", ({"role": "system", "content": "Mine"}, *user("Hi")))

    assert prompts.with_system(own, "Theirs") is own
    assert prompts.from_texts(["Hi"], system="Theirs")[0].messages[0] == {"role": "system", "content": "Theirs"}


def test_characters_count_all_texts_of_all_messages() -> None:
    parts = [{"type": "text", "text": "abc"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    prompt = Prompt("a", ({"role": "system", "content": "12"}, {"role": "user", "content": parts}))

    assert prompt.characters == 5


def test_each_cycle_holds_every_prompt_once_in_an_order_of_its_own() -> None:
    stream = prompts.order(DEFAULT, seed=1)
    cycles = [[prompt.id for prompt in islice(stream, 12)] for _ in range(3)]

    assert all(Counter(cycle) == Counter(prompt.id for prompt in DEFAULT) for cycle in cycles)
    assert len({tuple(cycle) for cycle in cycles}) == 3


def test_seed_and_repeat_decide_the_order_and_no_two_pairs_have_the_same() -> None:
    pairs = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3)]
    first, again = [[tuple(p.id for p in islice(prompts.order(DEFAULT, *pair), 12)) for pair in pairs] for _ in "12"]

    assert first == again
    assert len(set(first)) == len(pairs)


def test_no_prompts_have_no_order() -> None:
    with pytest.raises(UsageError, match="no prompts"):
        prompts.order([], seed=1)


def test_distinct_prompts_share_no_beginning_but_keep_id_and_length() -> None:
    prompt = Prompt("a", ({"role": "system", "content": "Be brief"}, *user("Hi")))
    sent = [prompts.distinct(prompt, number) for number in range(2000)]
    first = [p.messages[0]["content"] for p in sent]

    assert len(set(first)) == 2000
    assert len({text[:2] for text in first}) == 16  # they part with the first digit
    assert {len(text) for text in first} == {len(first[0])}
    assert {p.id for p in sent} == {"a"}
    assert sent[0].messages[1:] == prompt.messages[1:]


def test_a_prompt_of_parts_gets_its_prefix_as_a_part() -> None:
    parts = [{"type": "text", "text": "Hi"}]
    sent = prompts.distinct(Prompt("a", ({"role": "user", "content": parts},)), 1)

    assert [part["type"] for part in sent.messages[0]["content"]] == ["text", "text"]
    assert parts == [{"type": "text", "text": "Hi"}]


def test_prompts_written_read_back_the_same(tmp_path: Path) -> None:
    several = [
        *prompts.DEFAULT,
        Prompt("x", ({"role": "system", "content": "s"}, {"role": "user", "content": "u"}), "g", ("a", "b"), 7),
    ]
    (tmp_path / "p.json").write_bytes(prompts.to_json(several))

    assert prompts.read(tmp_path / "p.json") == several
