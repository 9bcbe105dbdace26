"""What is scored: each different answer once, the prompts behind them; and answers that differ by no right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadbench import quality
from loadbench.errors import LoadbenchError, ScenarioError, UsageError
from loadbench.quality.answers import Between, Repeats, between_runs, drawn_at_random, repeats, row_id, settings_apart
from tests.support.answered import ANSWERS, CAPITAL, folder, line


def test_each_different_answer_is_one_row_with_its_count(tmp_path: Path) -> None:
    run = quality.read(folder(tmp_path / "run", [*ANSWERS, ANSWERS[0], ("qwen", "capital", "Lisbon.")]))

    assert [(one.model, one.text, one.count) for one in run.answers] == [
        ("phi", "Lisbon.", 2),
        ("qwen", "It is Madrid.", 1),
        ("phi", "2 + 2 = 4", 1),
        ("qwen", "Four, as two pairs are four.", 1),
        ("qwen", "Lisbon.", 1),
    ]
    assert run.models == ["phi", "qwen"]


def test_rows_have_names_of_their_own_that_no_spreadsheet_takes_for_a_number() -> None:
    rows = {row_id(prompt, model, text) for prompt in "ab" for model in "ab" for text in ("", "a", "b")}

    assert len(rows) == 12
    assert all(row.startswith("r") and len(row) == 13 for row in rows)


def test_answers_of_attempts_that_do_not_count_are_left_out(tmp_path: Path) -> None:
    path = folder(tmp_path / "run", [("phi", "capital", "first try")])
    info = json.loads((path / "run.json").read_text(encoding="utf-8"))
    info["levels"][0]["status"] = "incomplete"
    info["levels"] += [
        {**info["levels"][0], "attempt": 2, "status": "complete"},
        {**info["levels"][0], "attempt": 3, "status": "interrupted"},
    ]
    (path / "run.json").write_text(json.dumps(info), encoding="utf-8")
    with (path / "answers.jsonl").open("a", encoding="utf-8") as file:
        file.write(line(0, "phi", "capital", "second try", attempt=2))
        file.write(line(0, "phi", "capital", "third try", attempt=3))
        file.write(line(0, "phi", "capital", "of no level", level="gone"))

    assert [one.text for one in quality.read(path).answers] == ["second try"]


def test_lines_that_a_killed_process_left_are_counted_and_passed_over(tmp_path: Path) -> None:
    path = folder(tmp_path / "run")
    with (path / "answers.jsonl").open("ab") as file:
        file.write(b'{"level": "all@c1", "att\n\xff\xfe\n\n[1]\n')

    run = quality.read(path)

    assert (len(run.answers), run.unreadable_lines) == (4, 3)


@pytest.mark.parametrize("text", [None, "", line(0, "m", "p", "x", level="other")])
def test_a_run_without_answers_says_so(tmp_path: Path, text: str | None) -> None:
    path = folder(tmp_path / "run", [])
    if text is not None:
        (path / "answers.jsonl").write_text(text, encoding="utf-8")

    with pytest.raises(UsageError, match="holds no answers to score"):
        quality.read(path)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadbenchError, match="not a run folder"):
        quality.read(tmp_path)


def questions(tmp_path: Path, *prompts: Any, name: str = "prompts.json") -> dict[str, quality.Question]:
    path = tmp_path / name
    text = "\n".join(map(json.dumps, prompts)) if name.endswith("jsonl") else json.dumps(prompts)
    path.write_text(text, encoding="utf-8")
    return quality.read_questions(path)


@pytest.mark.parametrize("name", ["prompts.json", "prompts.jsonl"])
def test_prompts_are_read_as_a_person_reads_them(tmp_path: Path, name: str) -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    read = questions(
        tmp_path,
        "Hello",
        CAPITAL,
        {"id": "parts", "messages": [{"role": "user", "content": parts}], "temperature": 1},
        {"id": "system", "system": "Be brief.", "prompt": "Why?", "checks": [{"contains": "x"}]},
        name=name,
    )

    assert read == {
        "p1": quality.Question("p1", "Hello"),
        "capital": quality.Question("capital", "Capital of Portugal?", ("Lisbon",)),
        "parts": quality.Question("parts", "a b"),
        "system": quality.Question("system", "[system]\nBe brief.\n\n[user]\nWhy?", (), ({"contains": "x"},)),
    }


def test_each_turn_of_a_conversation_is_a_question_and_the_last_has_the_expectations(tmp_path: Path) -> None:
    read = questions(tmp_path, {"id": "talk", "turns": ["One?", "Two?", "Three?"], "expected": ["3"]})

    own = "[assistant]\n(what this model answered)"
    assert read == {
        "talk": quality.Question("talk", "One?"),
        "talk/2": quality.Question("talk/2", f"[user]\nOne?\n\n{own}\n\n[user]\nTwo?"),
        "talk/3": quality.Question(
            "talk/3", f"[user]\nOne?\n\n{own}\n\n[user]\nTwo?\n\n{own}\n\n[user]\nThree?", ("3",)
        ),
    }


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ({"id": "a", "prompt": "?", "expected": "Lisbon"}, "a: expected must be a list of texts"),
        ({"id": "a", "prompt": "?", "checks": {"contains": "x"}}, "a: checks must be a list"),
    ],
)
def test_expectations_of_the_wrong_kind_are_refused(tmp_path: Path, prompt: Any, why: str) -> None:
    with pytest.raises(ScenarioError, match=why):
        questions(tmp_path, prompt)


def test_another_file_gives_aspects_and_checks_and_leaves_the_words(tmp_path: Path) -> None:
    path = folder(tmp_path / "run")
    other = [{"id": "capital", "prompt": "Other words?", "expected": ["a river"], "checks": [{"contains": "x"}]}, "New"]
    (tmp_path / "more.json").write_text(json.dumps(other), encoding="utf-8")

    read = quality.read(path, tmp_path / "more.json").questions

    assert read["capital"] == quality.Question("capital", "Capital of Portugal?", ("a river",), ({"contains": "x"},))
    assert read["sum"].expected == ("four", "says why")
    assert read["p2"].text == "New"


def test_a_run_that_kept_no_prompts_can_be_read(tmp_path: Path) -> None:
    assert quality.read(folder(tmp_path / "run", prompts=None)).questions == {}


# -- the same at temperature 0


def test_answers_that_differ_within_a_run_are_counted_by_model(tmp_path: Path) -> None:
    given = [("phi", "capital", text) for text in ("Lisbon.", "Lisbon.", "Lisboa.", "Lisbon!")]
    given += [("phi", "sum", "4"), ("phi", "sum", "4"), ("qwen", "capital", "Lisbon."), ("qwen", "sum", "4")]

    found = repeats(quality.read(folder(tmp_path / "run", given)))

    # qwen was asked nothing twice: of it nothing is known.
    assert found == [Repeats("phi", 2, 1, 6, 2, (("capital", 3, 6),))]


def test_an_answer_that_goes_on_where_the_other_ends_parts_behind_its_end(tmp_path: Path) -> None:
    run = quality.read(folder(tmp_path / "run", [("phi", "sum", "4"), ("phi", "sum", "4.")]))

    assert repeats(run)[0].examples == (("sum", 2, 2),)


def test_two_runs_are_compared_where_both_asked_the_same(tmp_path: Path) -> None:
    first = [("m", "a", "1"), ("m", "b", "1"), ("m", "c", "1"), ("m", "d", "1"), ("only here", "a", "1")]
    second = [("m", "a", "1"), ("m", "b", "2"), ("m", "c", "1"), ("m", "c", "2"), ("m", "d", "9"), ("m", "e", "1")]
    asked = [{"id": name, "prompt": name} for name in "abcd"]
    one = quality.read(folder(tmp_path / "one", first, asked))
    other = quality.read(folder(tmp_path / "two", second, [*asked[:3], {"id": "d", "prompt": "another"}]))

    assert between_runs(one, other) == [Between("m", 3, 2, 1, 1)]


@pytest.mark.parametrize(
    ("scenario", "why"),
    [
        ({}, None),
        ({"temperature": 0}, None),
        ({"temperature": 0.7}, "temperature 0.7: answers differ by right"),
        ({"distinct_prompts": True}, "each prompt was made distinct by a prefix: no two requests asked the same"),
    ],
)
def test_only_the_same_question_at_temperature_0_is_compared(scenario: dict[str, Any], why: str | None) -> None:
    assert drawn_at_random({"scenario": scenario}) == why


def test_settings_that_two_runs_do_not_share_are_named() -> None:
    one = {"scenario": {"max_tokens": 64, "system": None}}
    other = {"scenario": {"max_tokens": 128, "system": "Be brief."}}

    assert settings_apart(one, other) == ["max_tokens 64 and 128", "system None and Be brief."]
