"""Sheets to score answers by hand: written with empty scores, filled in by a person, read back row by row."""

from __future__ import annotations

import csv
import io
import random
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from loadbench.errors import ScenarioError, UsageError
from loadbench.quality.answers import Answer, Question
from loadbench.quality.scores import HIGHEST, LOWEST
from loadbench.scenario.files import parse_json, read_text
from loadbench.text import printable, shown

COLUMNS = ("row", "prompt", "model", "question", "expected", "answer", "score", "note")
KINDS = (".csv", ".json")
LARGEST_CELL = 32_767
"""Characters that a spreadsheet keeps of a cell."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_JSON = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


@dataclass(frozen=True, slots=True)
class Line:
    """One answer on a sheet; `shown_as` is the model's name, or the letter that hides it."""

    answer: Answer
    question: Question
    shown_as: str


def lines(answers: Sequence[Answer], questions: Mapping[str, Question], *, blind: bool, seed: int) -> list[Line]:
    """What to score, prompt by prompt.

    Args:
        blind: Hide the models behind letters, drawn anew for each prompt: a letter that meant the same model all
            along would give it away. Prompts, and answers within each, are shuffled.
        seed: Of letters and order.
    """
    chance = random.Random(seed)
    by_prompt: dict[str, list[Answer]] = {}
    for answer in answers:
        by_prompt.setdefault(answer.prompt, []).append(answer)
    names = list(by_prompt)
    if blind:
        chance.shuffle(names)
    listed = []
    for name in names:
        group = by_prompt[name]
        if blind:
            chance.shuffle(group)
        question = questions.get(name, Question(name, ""))
        letters: dict[str, str] = {}
        for answer in group:
            letter = letters.setdefault(answer.model, _letter(len(letters)))
            listed.append(Line(answer, question, letter if blind else answer.model))
    return listed


def _letter(number: int) -> str:
    """As columns of a spreadsheet: A to Z, then AA."""
    letter = string.ascii_uppercase[number % 26]
    if number >= 26:
        return _letter(number // 26 - 1) + letter
    return letter


def key(sheet: Sequence[Line], seed: int) -> bytes:
    """Which letter hides which model on a blind sheet, as JSON."""
    rows = {line.answer.row: {"letter": line.shown_as, "model": line.answer.model} for line in sheet}
    return orjson.dumps({"seed": seed, "rows": rows}, option=_JSON)


def render(sheet: Sequence[Line], kind: str) -> bytes:
    """The sheet as a file.

    Args:
        kind: .csv (for spreadsheets: UTF-8 with a mark that says so) or .json.
    """
    if kind == ".json":
        how = f"Fill in score, {LOWEST} (useless or wrong) to {HIGHEST} (excellent); aspects and note where you like."
        rows = []
        for line in sheet:
            row = {"row": line.answer.row, "prompt": line.answer.prompt, "model": line.shown_as}
            row |= {"question": line.question.text, "answer": line.answer.text}
            rows.append(row | {"aspects": dict.fromkeys(line.question.expected), "score": None, "note": None})
        return orjson.dumps({"how": how, "answers": rows}, option=_JSON)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for line in sheet:
        answer, question = line.answer, line.question
        cells = (line.shown_as, question.text, "; ".join(question.expected), answer.text)
        writer.writerow((answer.row, _plain(answer.prompt), *map(_plain, cells), "", ""))
    # Without the mark, Excel takes UTF-8 for the machine's old code page.
    return b"\xef\xbb\xbf" + text.getvalue().encode()


def _plain(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: answers are anybody's text."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


@dataclass(frozen=True, slots=True)
class Mark:
    """A row that was filled in."""

    answer: Answer
    score: int
    aspects: Mapping[str, int]
    note: str | None


@dataclass(slots=True)
class Filled:
    """A sheet, read back.

    Attributes:
        marks: The rows that are in order.
        refused: Of the others, where and why, a line each.
        empty: Rows without a score.
    """

    marks: list[Mark] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    empty: int = 0


def read(path: Path, answers: Sequence[Answer], questions: Mapping[str, Question]) -> Filled:
    """Read a sheet that was filled in; each row stands for itself.

    Raises:
        UsageError: The whole file is of no use.
    """
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise UsageError(f"{printable(str(path))}: a sheet ends in .csv or .json")
    text = read_text(path)
    known = {answer.row: answer for answer in answers}
    filled, seen = Filled(), dict[str, str]()  # where each answer was scored first
    rows_of = _rows_of_csv if kind == ".csv" else _rows_of_json
    for place, cells in rows_of(text, path):
        try:
            mark = _mark(cells, known, questions)
            if mark is not None and mark.answer.row in seen:
                raise ValueError(f"{mark.answer.row} is scored already in {seen[mark.answer.row]}: keep one of them")
        except ValueError as error:
            filled.refused.append(f"{place}: {error}")
            continue
        if mark is None:
            filled.empty += 1
        else:
            seen[mark.answer.row] = place
            filled.marks.append(mark)
    return filled


def _rows_of_csv(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    where = printable(str(path))
    first = text.lstrip("\r\n").split("\n", 1)[0]
    # Spreadsheets of half the world part cells by semicolons.
    delimiter = max(",;\t", key=first.count)
    limit = csv.field_size_limit(1 << 26)  # for the process: given back below
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        head = [name.strip().lower() for name in next(rows)]
        for name in ("row", "answer", "score"):
            if name not in head:
                raise UsageError(f"{where}: has no column {name}: keep the columns of the sheet that --stub wrote")
        for number, row in enumerate(rows, start=2):  # as a spreadsheet counts: the head is row 1
            if "".join(row).strip():
                yield f"row {number}", dict(zip(head, row, strict=False))
    except csv.Error as error:
        raise UsageError(f"{where}: cannot be read as CSV: {error}") from None
    finally:
        csv.field_size_limit(limit)


def _rows_of_json(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    where = printable(str(path))
    try:
        data = parse_json(text, where)
    except ScenarioError as error:
        raise UsageError(str(error)) from None
    if isinstance(data, dict):
        data = data.get("answers")
    if not isinstance(data, list):
        raise UsageError(f"{where}: has no list of answers: keep the form of the sheet that --stub wrote")
    for index, row in enumerate(data):
        if not isinstance(row, dict):  # it is refused by its place, and the others are read
            row = {"row": row}
        yield f"answers[{index}]", row


def _mark(cells: Mapping[str, object], known: Mapping[str, Answer], questions: Mapping[str, Question]) -> Mark | None:
    """A row's score; None where it has none.

    Raises:
        ValueError: The row is not as it was written, or its score is none.
    """
    row, answer = cells.get("row"), None
    if isinstance(row, str):
        row = row.strip()
        answer = known.get(row)
    if answer is None:
        raise ValueError(f"{shown(row)} is no answer of this run: is it the sheet of another one?")
    text = cells.get("answer")
    if not isinstance(text, str) or _bare(text) not in (_bare(answer.text), _bare(_plain(answer.text))):
        cut = ""
        if len(answer.text) > LARGEST_CELL:
            cut = " (spreadsheets cut long cells: use a .json sheet)"
        raise ValueError(f"{row}: the answer is not the one that was given{cut}: score what the model said")
    # The answer was compared first: a row that was sorted apart from its text is no score of this answer.
    score = whole(cells.get("score"), "score")
    aspects = _aspects(cells.get("aspects"), questions.get(answer.prompt))
    if score is None:
        if aspects:
            raise ValueError(f"{row}: its aspects are scored, the whole is not: fill in score")
        return None
    note = cells.get("note")
    if note in (None, ""):
        return Mark(answer, score, aspects, None)
    return Mark(answer, score, aspects, str(note).strip())


def _bare(text: str) -> str:
    """A text without what editors change on their own: line ends, blanks at the end."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(map(str.rstrip, lines)).strip()


def _aspects(given: object, question: Question | None) -> dict[str, int]:
    if not given:
        return {}
    if not isinstance(given, dict):
        raise ValueError(f"aspects is {shown(given)}: must be an object of scores")
    for name in given:
        if question is None or name not in question.expected:
            raise ValueError(f"{shown(name)} is no aspect of this prompt")
    scored = {}
    for name, value in given.items():
        score = whole(value, name)
        if score is not None:
            scored[name] = score
    return scored


def whole(value: object, name: str) -> int | None:
    """A score as a person wrote it; None where the place is empty.

    Raises:
        ValueError: It is no whole number from 1 to 5.

    >>> whole(" 4 ", "score"), whole("", "score"), whole(5.0, "score")
    (4, None, 5)
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    number: float | None = None
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal():
        number = int(value.strip()[:4])  # more digits are out of range, and int() refuses thousands of them
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    if number is None or number != int(number) or not LOWEST <= number <= HIGHEST:
        raise ValueError(f"{name} is {shown(value)}: must be a whole number from {LOWEST} to {HIGHEST}")
    return int(number)
