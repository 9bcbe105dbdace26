"""Scores that somebody gave, one a line in scores.jsonl, appended and never rewritten; and how far raters agree."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from loadbench.errors import StoreError
from loadbench.quality.answers import Answer
from loadbench.stats import TAIL
from loadbench.store.files import end_lines, open_append, read_lines, write_all
from loadbench.store.record import Reals

FILE = "scores.jsonl"
LOWEST, HIGHEST = 1, 5
Method = Literal["hand", "judge"]
Interval = tuple[float, float]
Rated = Mapping[tuple[str, str], float]
"""Scores by rater and row."""
SAMPLES = 2000
LEAST_PROMPTS = 10
"""Below it a bootstrap over prompts has too few different samples to say anything."""


class Score(msgspec.Struct, frozen=True):
    """What somebody thinks of one answer; fields that a later version adds are passed over.

    Attributes:
        row: The answer's, from `row_id`.
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
    try:
        end_lines(path)  # a process that was killed may have left half a line
        with open_append(path) as file:
            write_all(file, msgspec.json.Encoder().encode_lines(scores))
            os.fsync(file.fileno())  # a judge's score was paid for: it outlives a crash of the machine
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
        # The file is plain text: somebody may have written a 7 into it.
        if min(values, default=LOWEST) >= LOWEST and max(values, default=HIGHEST) <= HIGHEST:
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


def means(scores: Iterable[Score]) -> Rated:
    """By rater and row, the mean over the repeats."""
    by_row: dict[tuple[str, str], list[int]] = {}
    for score in scores:
        if score.score is not None:
            by_row.setdefault((score.rater, score.row), []).append(score.score)
    return {key: sum(values) / len(values) for key, values in by_row.items()}


# -- how far two raters of the same answers agree


class Agreement(msgspec.Struct, frozen=True):
    """Two raters on the answers that both scored.

    Attributes:
        n: Answers that both scored.
        prompts: How many prompts these answer: the interval is over them.
        kappa: 1 is full agreement, 0 what two raters would reach who score at random with the same habits; below 0
            worse. None where both gave all answers one and the same score: then there is nothing to agree on.
        ci95: None below ten prompts.
        same: Share of the answers with equal scores.
        difference: Mean of b's score less a's: who is milder.
    """

    a: str
    b: str
    n: int
    prompts: int
    kappa: float | None
    ci95: Interval | None
    same: float
    difference: float


def weighted_kappa(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Cohen's kappa with quadratic weights: 1 - mean squared difference / the same, of all pairs of their scores.

    Scores need not be whole: the mean of a judge's repeats counts as it is. For whole ones it is the usual kappa.

    Source: Cohen 1968, Psychological Bulletin 70:213; Fleiss & Cohen 1973 for squares.

    >>> weighted_kappa([1, 2, 3, 4], [1, 2, 3, 4]), weighted_kappa([1, 5], [5, 1]), weighted_kappa([3, 3], [3, 3])
    (1.0, -1.0, None)
    """
    sums = _sums(np.asarray(a, np.float64), np.asarray(b, np.float64)).sum(axis=0, keepdims=True)
    kappa = float(_kappas(sums)[0])
    if np.isnan(kappa):
        return None
    return kappa


def _sums(a: Reals, b: Reals) -> Reals:
    """What kappa is computed from, a row for each answer: 1, a, b, a², b², (a-b)²."""
    return np.stack([np.ones_like(a), a, b, a * a, b * b, (a - b) ** 2], axis=1)


def _kappas(sums: Reals) -> Reals:
    """Kappa of each row of sums; NaN where it is not defined."""
    n, a, b, aa, bb, squares = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = aa / n + bb / n - 2 * (a / n) * (b / n)  # mean of (a_i - b_j)² over all i and j
        return np.where(expected > 1e-9, 1 - squares / n / expected, np.nan)


def agreement(a: str, b: str, values: Rated, answers: Sequence[Answer], seed: int = 1) -> Agreement | None:
    """How far two raters agree; None where they share no answer."""
    pairs, prompts = [], []
    numbers: dict[str, int] = {}
    for one in answers:
        if (a, one.row) in values and (b, one.row) in values:
            pairs.append((values[a, one.row], values[b, one.row]))
            prompts.append(numbers.setdefault(one.prompt, len(numbers)))
    if not pairs:
        return None
    x, y = np.array(pairs, np.float64).T
    by_prompt = np.zeros((len(numbers), 6))
    np.add.at(by_prompt, prompts, _sums(x, y))
    kappa = weighted_kappa(x.tolist(), y.tolist())
    interval = None if kappa is None else _bootstrap(by_prompt, seed)
    same, difference = float((x == y).mean()), float((y - x).mean())
    return Agreement(a, b, len(pairs), len(by_prompt), kappa, interval, same, difference)


def _bootstrap(sums: Reals, seed: int) -> Interval | None:
    """Percentile interval of kappa over whole prompts drawn again: answers to one prompt are not independent."""
    prompts = len(sums)
    if prompts < LEAST_PROMPTS:
        return None
    drawn = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=SAMPLES)
    kappas = _kappas(drawn @ sums)
    kappas = kappas[~np.isnan(kappas)]  # a sample whose scores are all one and the same has none
    if len(kappas) < 0.95 * SAMPLES:
        return None
    low, high = np.quantile(kappas, [TAIL, 1 - TAIL])
    return float(low), float(high)


def agreements(values: Rated, answers: Sequence[Answer], seed: int = 1) -> list[Agreement]:
    """Of each two raters that share an answer."""
    found = []
    for a, b in combinations(sorted({rater for rater, _ in values}), 2):
        one = agreement(a, b, values, answers, seed)
        if one is not None:
            found.append(one)
    return found
