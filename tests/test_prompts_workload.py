"""prompts: texts of wanted lengths, shared beginnings, files of other tools, conversations, recorded traffic."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench import prompts
from loadbench.errors import ScenarioError
from loadbench.prompts import Line, Prompt, Recipe, trace
from loadbench.prompts.prompt import WORDS
from loadbench.scenario import Length, Scenario
from tests.support.promptfiles import fault, user, written

pieces = st.lists(st.tuples(st.text("abc", min_size=1, max_size=3), st.integers(1, 60)), min_size=1, max_size=4)


def text_of(prompt: Prompt, line: Line = prompts.UNKNOWN) -> str:
    content: str = prompts.written(prompt, line).messages[-1]["content"]
    return content


def words_alike(one: str, two: str) -> int:
    """How many words both begin with."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one.split(), two.split(), strict=False))))


# -- recipes


def test_the_words_are_many_plain_and_different() -> None:
    assert len(set(WORDS)) == len(WORDS) > 400
    assert all(word.isalpha() and word.islower() and len(word) > 1 for word in WORDS)


@given(pieces)
def test_a_text_of_words_has_as_many_as_its_pieces(parts: list[tuple[str, int]]) -> None:
    text, _ = Recipe("words", tuple(parts)).text(prompts.UNKNOWN)

    assert len(text.split(" ")) == sum(count for _, count in parts)


@given(pieces)
def test_a_text_of_characters_has_as_many_as_its_pieces_and_no_blank_at_an_end(parts: list[tuple[str, int]]) -> None:
    text, _ = Recipe("characters", tuple(parts)).text(prompts.UNKNOWN)

    assert len(text) == len(text.strip()) == sum(count for _, count in parts)


@given(pieces, st.floats(0, 20), st.floats(0.5, 3))
def test_a_text_of_tokens_has_the_words_that_the_line_says(
    parts: list[tuple[str, int]], fixed: float, per_word: float
) -> None:
    recipe = Recipe("tokens", tuple(parts))
    words = len(recipe.text(Line(fixed, per_word))[0].split())
    inner = sum(count for _, count in parts[:-1]) / per_word  # pieces before the last stand, whatever is fixed

    assert words == max(1, round((recipe.length - fixed) / per_word), round(inner))


def test_pieces_of_one_key_begin_alike_and_longer_ones_go_on() -> None:
    short, long = (Recipe("words", (("k", n),)).text(prompts.UNKNOWN)[0] for n in (5, 9))

    assert long.startswith(f"{short} ")


def test_blocks_of_tokens_are_the_same_text_wherever_a_request_goes_on() -> None:
    line = Line(7.3, 1.31)
    one = Recipe("tokens", (("h1", 512), ("h2", 512), ("x", 99))).text(line)[0]
    two = Recipe("tokens", (("h1", 512), ("h2", 512), ("y", 4))).text(line)[0]

    assert words_alike(one, two) >= round(1024 / 1.31)


@given(pieces, st.integers(0, 4), st.sampled_from(["words", "characters", "tokens"]))
def test_a_recipe_reads_back_from_its_text(parts: list[tuple[str, int]], shared: int, unit: Any) -> None:
    recipe = Recipe(unit, tuple(parts), min(shared, len(parts)))

    assert Recipe.parse(str(recipe)) == recipe


@pytest.mark.parametrize("text", ["", "words", "bytes a*3", "words a", "words a*0", "words *3", "words a*x"])
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    assert ".recipe is" in fault(written(tmp_path, [{"id": "a", "recipe": text}]))


def test_a_line_goes_through_what_a_server_counted() -> None:
    assert prompts.fit([64, 256, 512, 512], [91, 321, 627, 629]) == Line(
        pytest.approx(14.3, abs=0.2), pytest.approx(1.199, abs=0.001)
    )


@pytest.mark.parametrize(
    ("words", "tokens"), [([], []), ([9], [12]), ([9, 9], [12, 13]), ([9, 90], [12, 12]), ([9, 90], [90, 9])]
)
def test_counts_that_say_nothing_of_a_word_give_no_line(words: list[int], tokens: list[int]) -> None:
    assert prompts.fit(words, tokens) is None


# -- made up


def test_made_up_prompts_are_as_long_as_wanted_and_differ() -> None:
    made = prompts.made_up(Length.parse("words 50"), 0.0, seed=1)

    assert len({text_of(one) for one in made}) == len(made) == 200
    assert {len(text_of(one).split()) for one in made} == {50}


def test_very_long_prompts_are_fewer() -> None:
    assert len(prompts.made_up(Length.parse("tokens 100000"), 0.0, seed=1)) == 40


def test_the_seed_decides_what_is_made_up() -> None:
    first, again, other = (
        [text_of(one) for one in prompts.made_up(Length.parse("words normal 50 9"), 0.5, seed)] for seed in (1, 1, 2)
    )

    assert first == again
    assert not set(first) & set(other)


@pytest.mark.parametrize("unit", ["words", "characters", "tokens"])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_shared_part_is_at_the_beginning_and_as_large_as_was_said(unit: str, share: float) -> None:
    made = prompts.made_up(Length.parse(f"{unit} 400"), share, seed=1)[:20]
    whole = [prompts.written(one) for one in made]
    shared = {one.messages[-1]["content"][: one.shared_characters] for one in whole}

    [beginning] = shared
    length = len(beginning) if unit == "characters" else len(beginning.split())
    assert length == round(400 * share)


def test_prompts_of_different_lengths_share_what_the_shorter_one_has_to_share() -> None:
    made = [prompts.written(one) for one in prompts.made_up(Length.parse("words uniform 50 400"), 0.5, seed=1)]
    made.sort(key=lambda one: one.shared_characters)

    for shorter, longer in pairwise(made):
        beginning = shorter.messages[-1]["content"][: shorter.shared_characters].rstrip()
        assert longer.messages[-1]["content"].startswith(beginning)


def test_a_unique_prefix_stands_behind_the_shared_part() -> None:
    made = prompts.written(prompts.made_up(Length.parse("words 40"), 0.5, seed=1)[0])
    sent = [prompts.distinct(made, number).messages[-1]["content"] for number in range(20)]

    assert len(set(sent)) == 20
    assert {text[: made.shared_characters + 1] for text in sent} == {
        made.messages[-1]["content"][: made.shared_characters] + "["
    }


def test_a_scenario_makes_up_prompts_with_its_system_message_and_answer_lengths() -> None:
    asked = Scenario(input_length="words 20", output_length="uniform 5 9", system="Be brief")
    made = prompts.for_scenario(asked)

    assert {one.max_tokens for one in made} == {5, 6, 7, 8, 9}
    assert prompts.written(made[0]).messages[0] == {"role": "system", "content": "Be brief"}
    assert len(prompts.written(made[0]).messages[1]["content"].split()) == 20


def test_a_prompts_own_limit_goes_before_the_scenarios_lengths(tmp_path: Path) -> None:
    path = written(tmp_path, [{"prompt": "a", "max_tokens": 3}, "b"])

    assert [one.max_tokens for one in prompts.for_scenario(Scenario(prompts=str(path), output_length="8"))] == [3, 8]


def test_what_is_made_up_reads_back_from_the_run_folder(tmp_path: Path) -> None:
    several = [
        *prompts.for_scenario(Scenario(input_length="tokens normal 90 9", shared_prefix=0.3, system="s")),
        Prompt("x", user("Hi"), turns=("and", "then"), at_s=2.5),
    ]
    (tmp_path / "p.json").write_bytes(prompts.to_json(several))

    assert prompts.read(tmp_path / "p.json") == several


# -- conversations


def test_turns_are_asked_after_each_other(tmp_path: Path) -> None:
    [prompt] = prompts.read(written(tmp_path, [{"id": "a", "turns": ["One", "Two", "Three"], "system": "s"}]))
    second = prompts.answered(prompt, "First answer", 2)
    third = prompts.answered(second, "Second answer", 3)

    assert [one["content"] for one in prompt.messages] == ["s", "One"]
    assert [(one["role"], one["content"]) for one in third.messages[1:]] == [
        ("user", "One"),
        ("assistant", "First answer"),
        ("user", "Two"),
        ("assistant", "Second answer"),
        ("user", "Three"),
    ]
    assert (second.id, third.id, third.turns) == ("a/2", "a/3", ())


def test_turns_may_follow_messages(tmp_path: Path) -> None:
    [prompt] = prompts.read(written(tmp_path, [{"messages": list(user("One")), "turns": ["Two"]}]))

    assert (prompt.messages, prompt.turns) == (user("One"), ("Two",))


def test_a_conversation_of_sharegpt_is_its_humans_turns(tmp_path: Path) -> None:
    said = [
        {"from": "system", "value": "Be brief"},
        {"from": "human", "value": "One"},
        {"from": "gpt", "value": "an answer that is not asked for"},
        {"from": "human", "value": "Two"},
        {"from": "gpt", "value": "another"},
    ]
    silent = {"id": "z", "conversations": [{"from": "gpt", "value": "a beginning"}]}
    read = prompts.read(written(tmp_path, [{"id": "Qw_0", "conversations": said}, silent, "plain"]))

    assert read == [
        Prompt("p1", ({"role": "system", "content": "Be brief"}, *user("One")), turns=("Two",)),
        Prompt("p3", user("plain")),  # p2 asks nothing
    ]


def test_a_line_of_a_batch_file_is_its_messages_and_its_limit(tmp_path: Path) -> None:
    body = {"model": "other", "messages": list(user("Hi")), "max_tokens": 9, "temperature": 1}
    lines = [
        {"custom_id": "r-1", "method": "POST", "url": "/v1/chat/completions", "body": body},
        {"custom_id": "r-2", "body": {"messages": list(user("Ho")), "max_completion_tokens": 5}},
    ]
    path = written(tmp_path, "\n".join(map(json.dumps, lines)), "b.jsonl")

    assert prompts.read(path) == [Prompt("r-1", user("Hi"), max_tokens=9), Prompt("r-2", user("Ho"), max_tokens=5)]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ([{"turns": []}], "p.json: [0].turns is []: must be a list of texts, as the user says them"),
        ([{"turns": ["a", " "]}], 'p.json: [0].turns is ["a", " "]: must be a list of texts'),
        ([{"turns": "a"}], 'p.json: [0].turns is "a": must be a list of texts'),
        ([{"prompt": "a", "turns": ["b"]}], "p.json: [0]: give either prompt or turns, not both"),
        ([{"conversations": "a"}], 'p.json: [0].conversations is "a": must be a list, as'),
        ([{"conversations": ["a"]}], 'p.json: [0].conversations[0] is "a": must be a turn, as'),
        ([{"conversations": []}], "p.json: no conversation in it has a turn of the human's: give at least one"),
        ([{"body": {"messages": []}}], "p.json: [0].body.messages is []: must be a list of messages"),
        (
            [{"body": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 0}}],
            "p.json: [0].body.max_tokens is 0: must be a whole number",
        ),
        ([{"prompt": "a", "at_s": -1}], "p.json: [0].at_s is -1: must be a number of seconds"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_with_file_place_value_and_remedy(tmp_path: Path, content: Any, line: str) -> None:
    assert fault(written(tmp_path, content)).startswith(line)


def test_fewer_turns_can_be_asked(tmp_path: Path) -> None:
    path = written(tmp_path, [{"turns": ["One", "Two", "Three"]}])

    for turns, left in ((1, ()), (2, ("Two",)), (None, ("Two", "Three"))):
        assert prompts.for_scenario(Scenario(prompts=str(path), turns=turns))[0].turns == left


@pytest.mark.parametrize("load", [{"request_rate": [1.0]}, {"shape": "ramp 1..2 over 3s"}])
def test_conversations_need_a_closed_loop_and_the_error_says_what_to_do(tmp_path: Path, load: dict[str, Any]) -> None:
    path = str(written(tmp_path, [{"turns": ["One", "Two"]}]))

    with pytest.raises(ScenarioError, match=rf"give concurrency instead of {next(iter(load))}, or turns = 1"):
        prompts.for_scenario(Scenario(prompts=path, **load))
    assert prompts.for_scenario(Scenario(prompts=path, turns=1, **load))


# -- traces

MOONCAKE = [
    {"timestamp": 1000, "input_length": 1100, "output_length": 7, "hash_ids": [46, 48, 49]},
    {"timestamp": 0, "input_length": 655, "output_length": 52, "hash_ids": [46, 47], "session_id": "further keys"},
    {"timestamp": 1000, "input_length": 20, "output_length": 1},
]
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45.5,ChatGPT,1087,0,1087,Conversation log
118,GPT-4,417,276,693,API log
"""


def mooncake(folder: Path, rows: list[Any] = MOONCAKE) -> Path:
    return written(folder, "\n".join(map(json.dumps, rows)), "t.jsonl")


def test_a_mooncake_trace_says_times_lengths_and_shared_blocks(tmp_path: Path) -> None:
    first, second, third = trace.read(mooncake(tmp_path))

    assert [one.at_s for one in (first, second, third)] == [0, 1, 1]
    assert [one.max_tokens for one in (first, second, third)] == [52, 7, 1]
    assert [str(one.recipe) for one in (first, second, third)] == [
        "tokens h46*512 h47*143",
        "tokens h46*512 h48*512 h49*76",
        "tokens t3*20",  # without ids it shares nothing
    ]


def test_requests_with_the_same_first_block_share_its_text(tmp_path: Path) -> None:
    first, second, third = (text_of(one, Line(9, 1.25)) for one in trace.read(mooncake(tmp_path)))

    assert words_alike(first, second) >= round(512 / 1.25)
    assert words_alike(first, third) < 5


def test_a_burstgpt_trace_says_times_and_lengths_and_leaves_out_what_failed(tmp_path: Path) -> None:
    read = trace.read(written(tmp_path, BURSTGPT, "t.csv"))

    assert [(one.at_s, one.max_tokens, one.recipe and one.recipe.length) for one in read] == [
        (0, 18, 472),
        (113, 276, 417),
    ]


def test_a_trace_can_be_replayed_faster(tmp_path: Path) -> None:
    slow, fast = (trace.read(mooncake(tmp_path), speed) for speed in (1, 4))

    assert [one.at_s for one in fast] == [0, 0.25, 0.25]
    assert [replace(one, at_s=0) for one in fast] == [replace(one, at_s=0) for one in slow]


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ([1], "t.jsonl, line 1: is [1]: must be as"),
        ({"timestamp": -1}, "t.jsonl, line 1: timestamp is -1: must be a number, at least 0"),
        ({"timestamp": 0, "input_length": 0}, "t.jsonl, line 1: input_length is 0: must be a number, at least 1"),
        ({"timestamp": 0, "input_length": 1.5}, "t.jsonl, line 1: input_length is 1.5: must be a whole number"),
        ({"timestamp": 0, "input_length": 1}, "t.jsonl, line 1: output_length is null: must be a number"),
        (
            {"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": ["a"]},
            't.jsonl, line 1: hash_ids is ["a"]: must be a list of whole numbers',
        ),
    ],
)  # fmt: skip
def test_a_fault_in_a_trace_names_line_value_and_remedy(tmp_path: Path, row: Any, line: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        trace.read(mooncake(tmp_path, [row]))

    assert str(caught.value).replace(f"{tmp_path}/", "").startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a,b\n1,2\n", 't.csv, line 1: no column "Timestamp": must have Timestamp, Request tokens, Response tokens'),
        ("Timestamp,Request tokens,Response tokens\n1,x,3\n", 't.csv, line 2: Request tokens is "x": must be a number'),
        ("Timestamp,Request tokens,Response tokens\n1,2\n", "t.csv, line 2: Response tokens is null: must be"),
        ("Timestamp,Request tokens,Response tokens\n1,2,0\n", "t.csv: no request in it has an answer: give at least"),
    ],
)
def test_a_fault_in_a_table_names_line_column_and_value(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        trace.read(written(tmp_path, text, "t.csv"))

    assert str(caught.value).replace(f"{tmp_path}/", "").startswith(line)


def test_a_scenario_replays_its_trace_and_blames_it(tmp_path: Path) -> None:
    path = mooncake(tmp_path)

    assert prompts.for_scenario(Scenario(trace=str(path), trace_speed=2))[-1].at_s == 0.5
    with pytest.raises(ScenarioError, match=r"^trace: .*gone\.jsonl: no such file"):
        prompts.for_scenario(Scenario(trace=str(tmp_path / "gone.jsonl")))


def test_a_table_that_is_none_is_a_scenario_error(tmp_path: Path) -> None:
    path = written(tmp_path, f"Timestamp,Request tokens,Response tokens\n{'9' * 200_000},1,1\n", "t.csv")

    with pytest.raises(ScenarioError, match=r"t\.csv: not valid CSV: field larger than field limit"):
        trace.read(path)
