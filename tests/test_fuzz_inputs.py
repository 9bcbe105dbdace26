"""Input files, damaged in any way: a right result, or one line that names the file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench import prompts, quality
from loadbench import scenario as scenarios
from loadbench.errors import LoadbenchError, UsageError
from loadbench.prompts import trace
from loadbench.quality import sheet
from loadbench.quality.answers import row_id
from loadbench.scenario import Scenario
from tests.support.fuzzed import GRAMMARS, ROOT, TOML
from tests.support.mutations import VALUES, damaged, edited, examples

SCENARIO = scenarios.to_builtins(
    scenarios.merge(
        scenarios.read(ROOT / "scenarios" / "sweep.toml"), fail_if=["failed > 10% abort"], slo=["ttft_p95=800ms"]
    )
)
PROMPTS = [
    {"id": "a", "prompt": "Why?", "expected": ["x"], "group": "g", "max_tokens": 8, "checks": [{"contains": "x"}]},
    {"id": "b", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], "turns": ["t"]},
    {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]},
    {"custom_id": "c", "body": {"messages": [{"role": "user", "content": "u"}], "max_tokens": 5}},
]
TRACE = [{"timestamp": 0, "input_length": 600, "output_length": 9, "hash_ids": [1, 2]}, {"timestamp": 5.5}]
BURSTGPT = b"Timestamp,Request tokens,Response tokens\n0,10,5\n1.5,20,0\n2,30,8\n"
MODELS = {"phi": {"capabilities": ["chat"], "size_mb": 3600, "licence": "mit"}, "qwen": {}}
WORDS = (
    *("ttft_p95=800ms", "failed<1%", "goodput>3", "memory<4GB", "failed > 10% abort after 5s", "ttft_p95{c8} > 1s"),
    *("ramp 1..8 over 2m", "steps 1,2,4 each 30s", "spike 1 to 10 at 30s for 10s over 2m"),
    *("500ms", "1.5h", "tokens normal 512 128", "uniform 16 256", "exponential 2s", "words 200", "lognormal 9 3"),
)


def outcome(name: str, content: bytes, read: Callable[[Path], Any]) -> Any:
    """What a reader makes of a file of that name and content; None where it refused it, as it should."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            return read(path)
        except LoadbenchError as error:
            said = str(error)
            assert path.name in said
            assert said.isprintable(), "one line, and nothing that a terminal obeys"
            assert len(said) < 1000
            return None


def lines(items: list[Any]) -> bytes:
    return b"\n".join(json.dumps(item).encode() for item in items)


@examples(100)
@given(damaged(*TOML))
def test_a_damaged_scenario_is_read_or_refused_in_one_line(content: bytes) -> None:
    found = outcome("s.toml", content, scenarios.read)

    assert found is None or isinstance(found, Scenario)


@examples(150)
@given(edited(SCENARIO, tuple(Scenario.__struct_fields__)))
def test_a_scenario_with_any_values_is_refused_or_written_and_read_as_the_same(data: Any) -> None:
    found = outcome("s.json", json.dumps(data).encode(), scenarios.read)

    assert found is None or scenarios.from_json(scenarios.to_builtins(found)) == found
    assert found is None or found.levels(["m"])


@examples(250)
@given(
    st.sampled_from(sorted(GRAMMARS)),
    damaged(*(word.encode() for word in WORDS)).map(lambda word: word.decode(errors="replace")),
)
def test_a_word_of_the_small_grammars_is_read_or_refused_in_one_line(grammar: str, word: str) -> None:
    said = ""
    try:
        GRAMMARS[grammar](word)
    except (UsageError, ValueError) as error:
        said = str(error)

    assert not said or said.isprintable()


@examples(150)
@given(
    st.sampled_from(["p.json", "p.jsonl", "p.txt"]), edited(PROMPTS, ("prompt", "turns", "recipe", "system")), st.data()
)
def test_damaged_prompts_are_read_or_refused_in_one_line(name: str, items: Any, data: st.DataObject) -> None:
    whole = lines(items) if name == "p.jsonl" and isinstance(items, list) else json.dumps(items).encode()
    content = data.draw(st.just(whole) | damaged(whole))

    found = outcome(name, content, prompts.read)
    asked = outcome(name, content, quality.read_questions)

    assert found is None or all(prompt.id for prompt in found)
    assert asked is None or all(isinstance(question.text, str) for question in asked.values())


@examples(100)
@given(edited(TRACE, ("hash_ids", "output_length")), st.booleans(), st.data())
def test_a_damaged_trace_is_read_in_order_of_time_or_refused_in_one_line(
    rows: Any, columns: bool, data: st.DataObject
) -> None:
    whole = BURSTGPT if columns else lines(rows if isinstance(rows, list) else [rows])
    content = data.draw(st.just(whole) | damaged(whole))

    found = outcome("t.csv" if columns else "t.jsonl", content, trace.read)

    times = [prompt.at_s for prompt in found or ()]
    assert times == sorted(times)
    assert all(prompt.max_tokens for prompt in found or ())


@examples(80)
@given(edited(MODELS, ("size_mb", "capabilities", "measured")), st.data())
def test_a_damaged_models_json_is_read_or_refused_in_one_line(models: Any, data: st.DataObject) -> None:
    whole = json.dumps(models).encode()

    outcome("models.json", data.draw(st.just(whole) | damaged(whole)), scenarios.read_models)


@examples(120)
@given(st.sampled_from([".csv", ".json"]), st.sampled_from([None, 3, *VALUES]), st.data())
def test_a_damaged_sheet_gives_no_score_that_nobody_gave(kind: str, score: object, data: st.DataObject) -> None:
    answers = [quality.Answer("rf4f533673391", "capital", "phi", '=Lisbon,\n"the" capital'), ANSWER]
    row = {"row": ANSWER.row, "prompt": "sea", "answer": ANSWER.text, "score": score, "aspects": {}, "note": "n"}
    if kind == ".json":
        whole = json.dumps({"answers": [row]}).encode()
    else:
        whole = f"row,prompt,answer,score,note\n{ANSWER.row},sea,{ANSWER.text},{score},n\n".encode(errors="replace")
    content = data.draw(st.just(whole) | damaged(whole))

    filled = outcome(f"sheet{kind}", content, lambda path: sheet.read(path, answers, {}))

    marks = filled.marks if filled else []
    assert all(1 <= mark.score <= 5 and mark.answer in answers for mark in marks)
    assert all(line.isprintable() for line in (filled.refused if filled else ()))


ANSWER = quality.Answer(row_id("sea", "phi", "wet"), "sea", "phi", "wet")


@pytest.mark.parametrize("name", ["s.toml", "s.json", "p.json", "p.jsonl"])
def test_nesting_without_end_is_refused_in_one_line(name: str) -> None:
    deep = b"x = " + b"[" * 100_000 if name == "s.toml" else b"[" * 100_000

    assert outcome(name, deep, scenarios.read if name[0] == "s" else prompts.read) is None
