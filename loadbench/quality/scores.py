"""Scores that somebody gave, one a line in the run folder's scores.jsonl: appended, never rewritten."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import orjson

from loadbench.errors import StoreError
from loadbench.store import read_lines
from loadbench.store.files import end_lines, open_append, write_all

FILE = "scores.jsonl"
LOWEST, HIGHEST = 1, 5
Method = Literal["hand", "judge"]


class Score(msgspec.Struct, frozen=True, omit_defaults=False):
    """What somebody thinks of one answer; fields that a later version adds are passed over.

    Attributes:
        row: The answer's, from `row_id`.
        method: hand or judge.
        by: Who: the name given with --by, or the judge model's.
        at: When, in UTC.
        score: 1 to 5 for the whole answer; None where a judge's reply was of no use.
        aspects: 1 to 5 for each expected aspect that was scored.
        repeat: 1, 2, ...: a judge may be asked several times.
        note: A person's remark.
        unusable: Why there is no score.
        rubric: What the judge was asked to go by, as a short hash: scores by different ones are not the same scores.
        endpoint: Where the judge is.
        structured: Whether the server held the judge to the JSON schema.
        tries: Requests that it took.
        input_tokens, output_tokens: Of all of them; None where the server did not tell.
        cost: In the currency of the prices that were given.
        suspect: The answer seems to speak to whoever grades it.
    """

    row: str
    prompt: str
    model: str
    method: Method
    by: str
    at: str
    score: int | None = None
    aspects: dict[str, int] = {}
    repeat: int = 1
    note: str | None = None
    unusable: str | None = None
    rubric: str | None = None
    endpoint: str | None = None
    structured: bool | None = None
    tries: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    suspect: bool = False

    @property
    def rater(self) -> str:
        """Who, with the method: a person may bear a model's name."""
        return f"{self.method}:{self.by}"


def append(folder: Path, scores: Sequence[Score]) -> None:
    """Add scores to a run folder's; each is on disk when this returns.

    Raises:
        StoreError: The folder cannot be written.
    """
    if not scores:
        return
    path = folder / FILE
    lines = b"".join(orjson.dumps(msgspec.to_builtins(score), option=orjson.OPT_APPEND_NEWLINE) for score in scores)
    try:
        end_lines(path)  # of a process that was killed
        with open_append(path) as file:
            write_all(file, lines)
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error.strerror or error}; what was written before stays") from error


def read(folder: Path) -> tuple[list[Score], int]:
    """All scores of a run folder in their order, and the number of lines that are none.

    Raises:
        StoreError: The file cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        return [], 0
    decoder = msgspec.json.Decoder(Score)
    scores: list[Score] = []
    unreadable = 0
    for _, line in read_lines(path):
        try:
            score = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            unreadable += 1
            continue
        values = list(score.aspects.values())
        if score.score is not None:
            values.append(score.score)
        if all(LOWEST <= value <= HIGHEST for value in values):
            scores.append(score)
        else:
            unreadable += 1
    return scores, unreadable


def latest(scores: Iterable[Score]) -> list[Score]:
    """The last word of each rater on each answer and repeat; a score is not undone by a later useless reply."""
    last: dict[tuple[str, str, int], Score] = {}
    for score in scores:
        key = score.rater, score.row, score.repeat
        before = last.get(key)
        if before is None or score.score is not None or before.score is None or before.rubric != score.rubric:
            last[key] = score
    return list(last.values())


def means(scores: Iterable[Score]) -> Mapping[tuple[str, str], float]:
    """By rater and row, the mean over the repeats."""
    given: dict[tuple[str, str], list[int]] = {}
    for score in scores:
        if score.score is not None:
            given.setdefault((score.rater, score.row), []).append(score.score)
    return {key: sum(values) / len(values) for key, values in given.items()}
