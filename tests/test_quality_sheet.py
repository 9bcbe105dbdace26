"""Sheets: what is written is read back, row by row; what was changed is refused, and nothing else with it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.errors import UsageError
from loadbench.quality import Answer, Question, sheet
from loadbench.quality.answers import row_id
from loadbench.quality.sheet import Filled

QUESTIONS = {
    "capital": Question("capital", "Capital of Portugal?", ("Lisbon", "a river")),
    "sum": Question("sum", "=2+2?"),
}


def answer(model: str, prompt: str, text: str) -> Answer:
    return Answer(row_id(prompt, model, text), prompt, model, text)


ANSWERS = [
    answer("phi", "capital", "Lisbon, on the Tagus."),
    answer("qwen", "capital", 'Two lines,\nwith "quotes"; and more'),
    answer("phi", "sum", "=2+2"),
]


def written(tmp_path: Path, kind: str, *, blind: bool = False, seed: int = 1, answers: list[Answer] = ANSWERS) -> Path:
    path = tmp_path / f"sheet{kind}"
    path.write_bytes(sheet.render(sheet.lines(answers, QUESTIONS, blind=blind, seed=seed), kind))
    return path


def fill(path: Path, scores: dict[str, Any], **cells: Any) -> None:
    """Give scores by row, and other cells the same value in all rows."""
    if path.suffix == ".json":
        document = json.loads(path.read_text(encoding="utf-8"))
        for row in document["answers"]:
            row |= {"score": scores.get(row["row"]), **cells}
        path.write_text(json.dumps(document), encoding="utf-8")
        return
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    text = io.StringIO()
    writer = csv.DictWriter(text, sheet.COLUMNS)
    writer.writeheader()
    writer.writerows({**row, "score": scores.get(row["row"], ""), **cells} for row in rows)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")


def read(path: Path, answers: list[Answer] = ANSWERS) -> Filled:
    return sheet.read(path, answers, QUESTIONS)


@pytest.mark.parametrize("kind", sheet.KINDS)
def test_a_sheet_as_written_has_no_scores_and_nothing_wrong(tmp_path: Path, kind: str) -> None:
    assert read(written(tmp_path, kind)) == Filled([], [], 3)


@pytest.mark.parametrize("kind", sheet.KINDS)
@pytest.mark.parametrize("blind", [False, True])
def test_what_was_filled_in_is_read_back(tmp_path: Path, kind: str, blind: bool) -> None:
    path = written(tmp_path, kind, blind=blind)
    fill(path, {ANSWERS[0].row: 5, ANSWERS[2].row: 1}, note=" hm ")

    filled = read(path)

    assert {mark.answer.row: (mark.score, mark.note) for mark in filled.marks} == {
        ANSWERS[0].row: (5, "hm"),
        ANSWERS[2].row: (1, "hm"),
    }
    assert (filled.refused, filled.empty) == ([], 1)


@pytest.mark.parametrize("kind", sheet.KINDS)
@given(texts=st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=5, unique=True), seed=st.integers(0, 99))
def test_any_answer_survives_its_way_through_a_sheet(
    tmp_path_factory: pytest.TempPathFactory, kind: str, texts: list[str], seed: int
) -> None:
    answers = [answer("m", f"p{i % 2}", text) for i, text in enumerate(texts)]
    path = written(tmp_path_factory.mktemp("sheet"), kind, blind=True, seed=seed, answers=answers)
    fill(path, {one.row: 3 for one in answers})

    filled = read(path, answers)

    assert {mark.answer for mark in filled.marks} == set(answers)
    assert filled.refused == []


def test_a_blind_sheet_names_no_model_and_its_key_does(tmp_path: Path) -> None:
    rows = sheet.lines(ANSWERS, QUESTIONS, blind=True, seed=3)
    told = sheet.render(rows, ".json") + sheet.render(rows, ".csv")
    key = json.loads(sheet.key(rows, 3))

    assert b"phi" not in told
    assert b"qwen" not in told
    assert {row: one["model"] for row, one in key["rows"].items()} == {one.row: one.model for one in ANSWERS}


def test_letters_are_drawn_anew_for_each_prompt() -> None:
    answers = [answer(model, f"p{i}", f"{model} {i}") for i in range(40) for model in ("phi", "qwen")]

    rows = sheet.lines(answers, {}, blind=True, seed=1)

    phi = [row.shown_as for row in rows if row.answer.model == "phi"]
    assert set(phi) == {"A", "B"}
    assert 10 < phi.count("A") < 30
    assert [row.answer.prompt for row in rows] != [one.prompt for one in answers]


def test_the_seed_decides_order_and_letters() -> None:
    answers = [answer(model, f"p{i}", f"{model} {i}") for i in range(5) for model in ("phi", "qwen")]

    first, same, other = (sheet.lines(answers, {}, blind=True, seed=seed) for seed in (1, 1, 2))

    assert first == same
    assert first != other


def test_a_model_keeps_its_letter_within_a_prompt() -> None:
    answers = [answer(model, "p", f"{model} {i}") for i in range(3) for model in ("phi", "qwen")]

    rows = sheet.lines(answers, {}, blind=True, seed=1)

    assert len({(row.answer.model, row.shown_as) for row in rows}) == 2


def test_a_sheet_that_is_not_blind_keeps_the_order(tmp_path: Path) -> None:
    assert [row.answer for row in sheet.lines(ANSWERS, QUESTIONS, blind=False, seed=7)] == ANSWERS


def test_more_models_than_letters_get_two() -> None:
    answers = [answer(f"m{i}", "p", f"text {i}") for i in range(28)]

    assert {row.shown_as for row in sheet.lines(answers, {}, blind=True, seed=1)} >= {"Z", "AA", "AB"}


def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path) -> None:
    text = written(tmp_path, ".csv").read_text(encoding="utf-8-sig")

    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []
    assert "'=2+2" in cells


@pytest.mark.parametrize("kind", sheet.KINDS)
@pytest.mark.parametrize("score", [0, 6, "4.5", "good", -1, "٣"])
def test_a_score_out_of_range_is_refused_and_the_other_rows_are_kept(tmp_path: Path, kind: str, score: Any) -> None:
    path = written(tmp_path, kind)
    fill(path, {ANSWERS[0].row: score, ANSWERS[1].row: 4})

    filled = read(path)

    assert [mark.answer for mark in filled.marks] == [ANSWERS[1]]
    [line] = filled.refused
    assert line.startswith(("row 2: score is", "answers[0]: score is"))
    assert line.endswith("must be a whole number from 1 to 5")


@pytest.mark.parametrize("kind", sheet.KINDS)
def test_a_changed_answer_is_refused(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind)
    path.write_text(path.read_text(encoding="utf-8").replace("on the Tagus", "on the Douro"), encoding="utf-8")
    fill(path, {one.row: 4 for one in ANSWERS})

    filled = read(path)

    assert len(filled.marks) == 2
    assert len(filled.refused) == 1
    assert "the answer is not the one that was given" in filled.refused[0]


def test_a_row_of_another_run_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, ".csv")
    fill(path, {one.row: 4 for one in ANSWERS})

    filled = read(path, ANSWERS[1:])

    assert len(filled.marks) == 2
    assert filled.refused == [f'row 2: "{ANSWERS[0].row}" is no answer of this run: is it the sheet of another one?']


def test_a_row_that_occurs_twice_counts_once(tmp_path: Path) -> None:
    path = written(tmp_path, ".json")
    fill(path, {ANSWERS[0].row: 4})
    document = json.loads(path.read_text(encoding="utf-8"))
    document["answers"].append(document["answers"][0] | {"score": 1})
    path.write_text(json.dumps(document), encoding="utf-8")

    filled = read(path)

    assert [mark.score for mark in filled.marks] == [4]
    assert filled.refused == [f"answers[3]: {ANSWERS[0].row} is scored already in answers[0]: keep one of them"]


def test_a_sheet_that_a_spreadsheet_saved_with_semicolons_and_its_line_ends_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, ".csv")
    fill(path, {one.row: 4 for one in ANSWERS})
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    text = io.StringIO()
    csv.writer(text, delimiter=";").writerows([cell.replace("\n", "\r\n") for cell in row] for row in rows)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")

    assert len(read(path).marks) == 3


def test_aspects_of_a_json_sheet_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, ".json", answers=ANSWERS[:1])
    fill(path, {ANSWERS[0].row: 4}, aspects={"Lisbon": 5, "a river": None})

    [mark] = read(path).marks

    assert mark.aspects == {"Lisbon": 5}


@pytest.mark.parametrize(
    ("aspects", "why"),
    [
        ({"Porto": 5}, '"Porto" is no aspect of this prompt'),
        ({"Lisbon": 9}, "Lisbon is 9: must be a whole number from 1 to 5"),
        ("5", 'aspects is "5": must be an object of scores'),
    ],
)
def test_aspects_that_were_not_asked_for_are_refused(tmp_path: Path, aspects: Any, why: str) -> None:
    path = written(tmp_path, ".json", answers=ANSWERS[:1])
    fill(path, {ANSWERS[0].row: 4}, aspects=aspects)

    assert read(path).refused == [f"answers[0]: {why}"]


def test_aspects_without_a_score_of_the_whole_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, ".json", answers=ANSWERS[:1])
    fill(path, {}, aspects={"Lisbon": 5})

    assert read(path).refused == [
        f"answers[0]: {ANSWERS[0].row}: its aspects are scored, the whole is not: fill in score"
    ]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("sheet.csv", "row,answer\nr1,x\n", "has no column score"),
        ("sheet.json", "{", "not valid JSON"),
        ("sheet.json", '{"rows": []}', "has no list of answers"),
        ("sheet.xlsx", "x", "a sheet ends in .csv or .json"),
        ("sheet.csv", "", "the file is empty"),
    ],
)
def test_a_file_that_is_no_sheet_is_refused_in_a_line(tmp_path: Path, name: str, text: str, why: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")

    with pytest.raises(UsageError, match=why):
        read(path)


@pytest.mark.parametrize("row", [None, 7, [], {"row": {}}, {"row": "r", "answer": 3}])
def test_a_row_of_the_wrong_kind_is_refused_alone(tmp_path: Path, row: Any) -> None:
    path = written(tmp_path, ".json")
    fill(path, {one.row: 4 for one in ANSWERS})
    document = json.loads(path.read_text(encoding="utf-8"))
    document["answers"].append(row)
    path.write_text(json.dumps(document), encoding="utf-8")

    filled = read(path)

    assert len(filled.marks) == 3
    assert len(filled.refused) == 1


def test_an_answer_that_a_spreadsheet_cut_says_so(tmp_path: Path) -> None:
    long = [answer("m", "p", "x" * 40_000)]
    path = tmp_path / "sheet.csv"
    path.write_text(f"row,answer,score\n{long[0].row},{'x' * sheet.LARGEST_CELL},4\n", encoding="utf-8")

    [line] = read(path, long).refused

    assert "spreadsheets cut long cells: use a .json sheet" in line
