"""prompts: the files that people have, whatever the tool that wrote them called its keys."""

from __future__ import annotations

import gzip
import json
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from loadbench import prompts, quality
from loadbench import scenario as scenarios
from loadbench.errors import ScenarioError
from loadbench.prompts import Prompt, trace
from loadbench.prompts.reading import SHAPES, Draw
from loadbench.scenario import Scenario
from loadbench.scenario import items as items_file
from tests.support.promptfiles import fault, user, written


def told(path: Path) -> tuple[list[Prompt], list[str]]:
    """What a file asks, and what is said of it."""
    said: list[str] = []
    return prompts.read(path, note=said.append), [line.removeprefix(f"{path}: ") for line in said]


def spoken(*turns: str, system: str | None = None, name: str = "p1") -> Prompt:
    first = () if system is None else ({"role": "system", "content": system},)
    return Prompt(name, (*first, *user(turns[0])), turns=turns[1:])


U, A = {"role": "user", "content": "One"}, {"role": "assistant", "content": "an answer"}
TWO = {"role": "user", "content": "Two"}

# https://huggingface.co/datasets: each as its own page shows it.
ROWS: dict[str, tuple[Any, Prompt]] = {
    "ShareGPT": (
        {"id": "a", "conversations": [{"from": "human", "value": "One"}, {"from": "gpt", "value": "x"}]},
        spoken("One"),
    ),
    "ShareGPT with role and content": (
        {"conversations": [U, A, TWO]},
        spoken("One", "Two"),
    ),
    "ShareGPT with a system text beside it": (
        {"system": "Be brief", "conversations": [{"from": "human", "value": "One"}]},
        spoken("One", system="Be brief"),
    ),
    "a list of from and value": (
        [{"from": "human", "value": "One"}, {"from": "gpt", "value": "x"}, {"from": "human", "value": "Two"}],
        spoken("One", "Two"),
    ),
    "questions with their answers": (
        {"conversation": [{"human": "One", "assistant": "x"}, {"human": "Two", "assistant": "y"}]},
        spoken("One", "Two"),
    ),
    "WildChat": (
        {"conversation_hash": "9f", "model": "m", "turn": 1, "conversation": [{**U, "language": "English"}, A]},
        spoken("One"),
    ),
    "LMSYS-Chat-1M": (
        {"conversation_id": "c", "model": "m", "conversation": [U, A], "turn": 1, "redacted": False},
        spoken("One"),
    ),
    "UltraChat": ({"id": "0", "data": ["One", "x", "Two", "y"]}, spoken("One", "Two")),
    "UltraChat 200k": (
        {"prompt": "One", "prompt_id": "f0", "messages": [U, A]},
        spoken("One", name="f0"),
    ),
    "MT-bench": (
        {"question_id": 81, "category": "writing", "turns": ["One", "Two"], "reference": []},
        spoken("One", "Two", name="81"),
    ),
    "MT-bench of the hub": (
        {"prompt": ["One", "Two"], "prompt_id": 1, "category": "writing"},
        spoken("One", "Two", name="1"),
    ),
    "HumanEval": (
        {"task_id": "HumanEval/0", "prompt": "def f():", "entry_point": "f", "test": "", "canonical_solution": " 1"},
        spoken("def f():", name="HumanEval/0"),
    ),
    "fine-tuning with messages": (
        {"messages": [{"role": "system", "content": "Be brief"}, U, {**A, "weight": 1}], "tools": []},
        spoken("One", system="Be brief"),
    ),
    "fine-tuning with prompt and completion": ({"prompt": "One", "completion": "x"}, spoken("One")),
    "fine-tuning with lists of both": ({"prompt": [U], "completion": [A]}, spoken("One")),
    "preferences": ({"prompt": "One", "chosen": [U, A], "rejected": [U, A]}, spoken("One")),
    "Alpaca": ({"instruction": "One", "input": "", "output": "x", "text": "Below is …"}, spoken("One")),
    "Alpaca with an input": ({"instruction": "One", "input": "of this", "output": "x"}, spoken("One\n\nof this")),
    "Dolly": ({"instruction": "One", "context": "of this", "response": "x"}, spoken("One\n\nof this")),
    "OpenOrca": (
        {"id": "niv.1", "system_prompt": "", "question": "One", "response": "x"},
        spoken("One", name="niv.1"),
    ),
    "GSM8K": ({"question": "One", "answer": "4"}, spoken("One")),
    "LongBench": ({"input": "One", "context": "long", "answers": ["x"], "_id": "q"}, spoken("One\n\nlong", name="q")),
    "Vicuna": ({"question_id": 7, "text": "One", "category": "generic"}, spoken("One", name="7")),
    "OpenAssistant": (
        {"message_id": "m1", "role": "prompter", "text": "One", "lang": "en"},
        spoken("One", name="m1"),
    ),
    "OpenAI batch": (
        {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": [U]}},
        spoken("One", name="r1"),
    ),
    "OpenAI batch of responses": (
        {"custom_id": "r1", "body": {"input": "One", "instructions": "Be brief"}},
        spoken("One", system="Be brief", name="r1"),
    ),
    "Anthropic batch": (
        {"custom_id": "r1", "params": {"system": "Be brief", "messages": [U]}},
        spoken("One", system="Be brief", name="r1"),
    ),
    "Gemini batch": (
        {"key": "r1", "request": {"contents": [{"role": "user", "parts": [{"text": "One"}]}]}},
        spoken("One", name="r1"),
    ),
    "a row of a hub": ({"row_idx": 0, "row": {"question": "One"}, "truncated_cells": []}, spoken("One")),
    "what is missing, as pandas writes it": ({"prompt": "One", "score": float("nan")}, spoken("One")),
}


@pytest.mark.parametrize(("row", "meant"), ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("name", ["p.json", "p.jsonl"])
def test_a_row_of_a_data_set_is_taken_as_meant(tmp_path: Path, row: Any, meant: Prompt, name: str) -> None:
    path = written(tmp_path, [row] if name == "p.json" else json.dumps(row), name)

    assert prompts.read(path) == [meant]


EMPTY = {"role": "assistant", "content": ""}
BEGUN = {"role": "assistant", "content": "{", "prefix": True}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "4"}


@pytest.mark.parametrize(
    ("rows", "messages", "unused"),
    [
        (
            [{"prompt": f"{n}", "category": "c", "reference": None, "source": "s", "note": ""} for n in range(3)],
            [user("0"), user("1"), user("2")],
            ["the keys category, source"],  # once
        ),
        (
            [{"messages": [U, A, TWO, A]}, {"messages": [U]}],
            [(U, A, TWO), (U,)],
            ["the answers at the end of 1 item"],
        ),
        ([{"messages": [U, BEGUN]}], [(U, BEGUN)], []),  # the beginning of an answer that is marked as one
        ([{"body": {"messages": [U, A]}}], [(U, A)], []),  # a request of a batch file is sent as it is
        ([{"messages": [U, A, TWO, EMPTY, U]}], [(U, A, TWO)], ["what follows an empty answer in 1 item"]),
        ([{"messages": [U, CALL, RESULT]}], [(U, CALL, RESULT)], []),  # an answer that calls a tool is not empty
        (
            [{"question": " "}, {"role": "assistant", "text": "x"}, {"question": "One"}],
            [user("One")],
            ["2 items that ask nothing"],
        ),
    ],
)
def test_what_is_not_sent_is_said(tmp_path: Path, rows: Any, messages: list[Any], unused: list[str]) -> None:
    read, said = told(written(tmp_path, rows))

    assert [one.messages for one in read] == messages
    assert said == [f"not used: {what}" for what in unused]


def test_numbers_that_come_again_name_no_prompt(tmp_path: Path) -> None:
    rows = [{"id": 5, "prompt": "One"}, {"id": 5, "prompt": "Two"}]

    assert [one.id for one in prompts.read(written(tmp_path, rows))] == ["5", "p2"]


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"promt": "a"}, "p.json: [0]: unknown key promt; did you mean prompt?"),
        ({"prompt": "a", "max_token": 5}, "p.json: [0]: unknown key max_token; did you mean max_tokens?"),
        ({"prompt": "a", "check": []}, "p.json: [0]: unknown key check; did you mean checks?"),
        ({"prompt": "a", "checks": ["x"]}, 'p.json: [0].checks is ["x"]: must be a list, as [{"contains": "Lisbon"}]'),
        ({"messages": 5}, "p.json: [0].messages is 5: must be a list of messages"),
        ({"input_length": 0, "output_length": 5}, "p.json: [0]: input_length is 0: must be a number, at least 1"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_named(tmp_path: Path, row: Any, line: str) -> None:
    assert fault(written(tmp_path, [row])).startswith(line)


@pytest.mark.parametrize("key", SHAPES)
@pytest.mark.parametrize("value", ["One", ["One"], [U], [{"from": "human", "value": "One"}], json.dumps([U])])
def test_every_key_of_the_table_is_enough(tmp_path: Path, key: str, value: Any) -> None:
    path = written(tmp_path, [{key: value, "category": "c"}])
    try:
        said = prompts.read(path)[0].messages[0]["content"]
    except ScenarioError:  # a text where a conversation is to be, or the other way round
        said = fault(path)

    assert said in ("One", value) or said.startswith(f"p.json: [0].{key}")


# -- files


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.json", '["One", "Two"]'),
        ("p.json", '\ufeff\n [ "One" ,\r\n "Two" ] \n'),
        ("p.json", '{"prompts": ["One", "Two"]}'),
        ("p.json", '{"data": [{"prompt": "One"}, {"prompt": "Two"}]}'),
        ("p.json", '{"rows": [{"row": {"text": "One"}}, {"row": {"text": "Two"}}]}'),
        ("p.json", '{"prompt": "One"}\n{"prompt": "Two"}\n'),
        ("p.jsonl", '["One", "Two"]'),
        ("p.jsonl", '[\n{"prompt": "One"},\n{"prompt": "Two"}\n]\n'),
        ("p.jsonl", '{\n"prompt": "One"\n}\n{\n"prompt": "Two"\n}'),
        ("p.jsonl", '\ufeff{"prompt": "One"}\r\n\r\n{"prompt": "Two"}'),
        ("p.csv", "id,prompt\np1,One\np2,Two\n"),
        ("p.csv", "\ufeffprompt;source\r\nOne;a\r\n\r\nTwo;b\r\n"),
        ("p.csv", 'prompt\n"One"\n"Two"\n'),
        ("p.tsv", "question\tanswer\nOne\tx\nTwo\ty\n"),
        ("p.txt", "\ufeffOne\r\n\r\nTwo"),
    ],
)
@pytest.mark.parametrize("packing", ["plain", "gzip", "utf-16"])
def test_lists_lines_and_tables_are_read_whatever_packs_them(
    tmp_path: Path, name: str, content: str, packing: str
) -> None:
    data = content.removeprefix("\ufeff" * (packing == "utf-16")).encode("utf-16" if packing == "utf-16" else "utf-8")
    if packing == "gzip":
        name, data = f"{name}.gz", gzip.compress(data)

    assert prompts.read(written(tmp_path, data, name)) == [spoken("One"), spoken("Two", name="p2")]


def test_one_conversation_is_a_file_of_one_prompt(tmp_path: Path) -> None:
    assert prompts.read(written(tmp_path, {"messages": [U]})) == [spoken("One")]


def test_columns_say_what_keys_do(tmp_path: Path) -> None:
    table = 'id,prompt,max_tokens,expected\na,"One,\nand more",9,Lisbon; Tagus\n'

    [read] = prompts.read(written(tmp_path, table, "p.csv"))

    assert read == Prompt("a", user("One,\nand more"), max_tokens=9, expected=("Lisbon", "Tagus"))


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("p.json", '["a",\n "b" "c"]', "p.json, line 2, column 6: not valid JSON: expecting ',' delimiter"),
        ("p.json", '["a", tru', "p.json, line 1, column 7: not valid JSON: expecting value"),
        ("p.json", '["a"', "p.json, line 1, column 5: not valid JSON: expecting ',' delimiter"),
        ("p.json", '["a"] x', "p.json, line 1, column 7: not valid JSON: extra data"),
        ("p.json", '["a', "p.json, line 1, column 2: not valid JSON: unterminated string starting at"),
        ("p.jsonl", b'"a"\n"b"\n"\xff"', "p.jsonl, line 3: not UTF-8 (byte 9): save it as UTF-8"),
        ("p.csv", "a,b\n1,2\n", "p.csv, line 2: row: unknown key a: use one of id, prompt,"),
        ("p.json.gz", b"\x1f\x8bnothing", "p.json.gz: cannot be read: "),
    ],
)  # fmt: skip
def test_a_fault_names_its_place_in_the_file(tmp_path: Path, name: str, content: Any, line: str) -> None:
    assert fault(written(tmp_path, content, name)).startswith(line)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_where_a_chunk_ends_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    rows = [{"prompt": 'a "b" \\ é 😀\n', "max_tokens": 123}, "c", [U]]
    whole = prompts.read(written(tmp_path, rows))
    monkeypatch.setattr(items_file, "_CHUNK", chunk)

    for ensure_ascii in (True, False):
        for indent in (None, 1):
            text = json.dumps(rows, ensure_ascii=ensure_ascii, indent=indent)
            assert prompts.read(written(tmp_path, text)) == whole
    assert prompts.read(written(tmp_path, "\n".join(map(json.dumps, rows)), "p.jsonl")) == whole


@pytest.mark.parametrize("name", ["p.json", "p.jsonl", "p.txt", "p.csv"])
def test_an_item_without_end_is_refused_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(items_file, "LARGEST_BYTES", 1 << 20)
    path = written(tmp_path, {"p.json": '["', "p.csv": "prompt\n"}.get(name, "").encode() + b"x" * (40 << 20), name)
    tracemalloc.start()

    assert "larger than 1 MiB" in fault(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


# -- a sample


def test_of_a_large_file_a_sample_is_kept_that_the_seed_decides(tmp_path: Path) -> None:
    path = written(tmp_path, [f"{n}" for n in range(1000)])
    first, again, other = (prompts.read(path, Draw(50, seed)) for seed in (1, 1, 2))

    assert first == again != other
    assert len(first) == 50
    assert [one.id for one in first] == sorted((one.id for one in first), key=lambda name: int(name[1:]))


def test_each_item_is_as_likely_as_any_other_to_be_kept() -> None:
    counts = [0] * 20
    for seed in range(2000):
        draw = Draw(5, seed)
        for number in range(20):
            if draw.wants():
                draw.add(Prompt(f"{number}", user("x")))
        for prompt in draw.prompts():
            counts[int(prompt.id)] += 1

    # 2,000 times 5 of 20: 500 each, with a deviation of 19.
    assert all(400 < count < 600 for count in counts)


def test_a_file_of_books_gives_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadbench.prompts.reading.MOST_CHARACTERS", 1000)
    draw = Draw(50, 1)
    for number in range(100):
        if draw.wants():
            draw.add(Prompt(f"{number}", user("x" * 90), turns=("y" * 10,)))

    assert 5 <= len(draw.prompts()) <= 10


def test_a_scenario_says_that_it_asks_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadbench.prompts.workload.MOST", 3)
    path = written(tmp_path, [f"{n}" for n in range(9)])
    said: list[str] = []

    assert len(prompts.for_scenario(Scenario(prompts=str(path), seed=4), said.append)) == 3
    assert said == [f"prompts: {path}: 3 of 9 prompts, drawn by the seed (4)"]
    assert len(prompts.for_scenario(Scenario(prompts=str(path), requests=5))) == 5


# -- traces


def test_azures_table_says_when_in_dates(tmp_path: Path) -> None:
    # https://github.com/Azure/AzurePublicDataset/blob/master/AzureLLMInferenceDataset2023.md
    table = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,9,0\n"
        "2023-11-16 18:17:46.6805900,396,109\n"
    )

    read = trace.read(written(tmp_path, table, "t.csv"))

    assert [(one.at_s, one.max_tokens, str(one.recipe)) for one in read] == [
        (0, 44, "tokens t2*374"),
        (120, 109, "tokens t4*396"),
    ]


@pytest.mark.parametrize(
    "head",
    [
        "Timestamp,Model,Request tokens,Response tokens",
        "TIMESTAMP,x,ContextTokens,GeneratedTokens",
        "arrival_timestamp,batch_size,prompt_size,token_size",
        "arrived_at,x,num_prefill_tokens,num_decode_tokens",
        "timestamp,x,input_length,output_length",
        "time,x,prompt_tokens,completion_tokens",
        "start_time,x,input_tokens,output_tokens",
    ],
)
def test_tables_name_the_three_columns_as_they_like(tmp_path: Path, head: str) -> None:
    read = trace.read(written(tmp_path, f"{head}\n10,0,30,5\n12.5,0,60,7\n", "t.csv"))

    assert [(one.at_s, one.max_tokens, one.recipe and one.recipe.length) for one in read] == [(0, 5, 30), (2.5, 7, 60)]


def test_a_trace_without_times_has_a_request_each_second(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"input_length": n, "output_length": 9, "hash_ids": [1]}) for n in (30, 20, 10))
    said: list[str] = []

    read = trace.read(written(tmp_path, lines, "t.jsonl"), 2.0, note=said.append)

    assert [(one.at_s, one.recipe and one.recipe.length) for one in read] == [(0, 30), (0.5, 20), (1, 10)]
    assert "has no times: a request each second" in said[0]


def test_a_trace_of_which_some_lines_have_times_is_refused(tmp_path: Path) -> None:
    lines = [{"timestamp": 0, "input_length": 1, "output_length": 1}, {"input_length": 1, "output_length": 1}]
    path = written(tmp_path, "\n".join(map(json.dumps, lines)), "t.jsonl")

    with pytest.raises(ScenarioError, match=r"t\.jsonl, line 2: has no timestamp, and others have one"):
        trace.read(path)


def test_lines_of_lengths_can_be_asked_at_any_load(tmp_path: Path) -> None:
    row = {"input_length": 600, "output_length": 9, "hash_ids": [4, 5]}
    [read] = prompts.read(written(tmp_path, json.dumps(row), "p.jsonl"))

    assert (str(read.recipe), read.max_tokens, read.at_s) == ("tokens h4*512 h5*88", 9, None)


def test_of_a_long_trace_a_stretch_in_a_row_is_replayed(tmp_path: Path) -> None:
    path = written(
        tmp_path, "Timestamp,Request tokens,Response tokens\n" + "".join(f"{n},{n + 1},1\n" for n in range(95)), "t.csv"
    )
    said: list[str] = []
    lengths = [
        [one.recipe.length for one in trace.read(path, most=10, seed=seed, note=said.append) if one.recipe]
        for seed in range(60)
    ]

    assert all(each == list(range(each[0], each[0] + 10)) for each in lengths)
    assert {each[0] for each in lengths} == {1, 11, 21, 31, 41, 51, 61, 71, 81}
    assert said[0] == f"{path}: 10 of 95 requests, a stretch in a row that the seed (0) chose"
    assert trace.read(path, most=10, seed=3) == trace.read(path, most=10, seed=3)
    assert len(trace.read(path, most=95)) == 95


# -- rules, and files that are none


def test_rules_are_kept_with_their_prompt(tmp_path: Path) -> None:
    asked = [{"id": "a", "prompt": "One", "expected": ["x"], "checks": [{"contains": "x"}, {"max_words": 5}]}]
    read = prompts.read(written(tmp_path, asked))
    (tmp_path / "kept.json").write_bytes(prompts.to_json(read))

    assert read[0].checks == ({"contains": "x"}, {"max_words": 5})
    assert prompts.read(tmp_path / "kept.json") == read
    assert quality.read_questions(tmp_path / "kept.json")["a"].checks == read[0].checks


def test_whole_numbers_name_a_question_as_they_name_its_prompt(tmp_path: Path) -> None:
    path = written(tmp_path, [{"question_id": 81, "turns": ["One"], "checks": [{"contains": "x"}]}])

    assert set(quality.read_questions(path)) == {one.id for one in prompts.read(path)} == {"81"}


@pytest.mark.skipif(os.name == "nt", reason="has no such files")
@pytest.mark.parametrize("kind", ["device", "pipe"])
@pytest.mark.parametrize("read", [prompts.read, trace.read, scenarios.read, scenarios.read_models])
def test_an_input_without_end_or_writer_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, read: Any
) -> None:
    monkeypatch.setattr("loadbench.scenario.files.WRITER_WAIT_S", 0.0)
    path = tmp_path / ("f.jsonl" if read in (prompts.read, trace.read) else "f.json")
    if kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path)

    with pytest.raises(ScenarioError, match=rf"f\.jsonl?: cannot be read: a {kind}"):
        read(path)


@pytest.mark.skipif(os.name == "nt", reason="has no such files")
def test_prompts_come_through_a_pipe_that_somebody_writes_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.jsonl")
    writer = threading.Thread(target=lambda: (tmp_path / "p.jsonl").write_text('"One"\n"Two"\n'))
    writer.start()

    read = prompts.read(tmp_path / "p.jsonl")
    writer.join()

    assert read == [spoken("One"), spoken("Two", name="p2")]
