"""Run folders read for a choice: their records, what is computed of them, their scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Required, TypedDict

import msgspec
import orjson
from msgspec import Meta

from loadbench import compare, metrics, quality, store
from loadbench.errors import LoadbenchError, StoreError, UsageError
from loadbench.select.candidate import Measured, candidates
from loadbench.select.choice import Record, choose
from loadbench.store import Run
from loadbench.text import printable

Share = Annotated[float, Meta(ge=0, le=1)]
Points = Annotated[float, Meta(ge=1, le=5)]
Count = Annotated[int, Meta(ge=0, le=2**53)]


def read(folder: Path) -> Measured:
    """A run folder.

    Raises:
        UsageError: It is none.
        StoreError: It cannot be read.
    """
    run = store.read(folder)
    return Measured(run, metrics.summarise(run), scores(folder))


def scores(folder: Path) -> dict[str, Any] | None:
    """scores.json, as the last `loadbench score` wrote it; of a run that nobody scored, what its own rules say.

    None where there is neither.

    Raises:
        StoreError: scores.json is there and cannot be read.
    """
    path = folder / quality.FILE
    try:
        found = orjson.loads(store.read_bounded(path))
    except FileNotFoundError:
        return _rules(folder)
    except OSError as error:
        raise StoreError(f"{path}: cannot read: {error.strerror or error}") from error
    except orjson.JSONDecodeError as error:
        raise StoreError(f"{path}: is damaged: {error}; `loadbench score {folder}` writes it again") from None
    try:
        msgspec.convert(found, _Scores)
    except msgspec.ValidationError as error:
        what = f"is no scores.json of loadbench: {printable(str(error))}"
        raise StoreError(f"{path}: {what}; `loadbench score {folder}` writes it again") from None
    scored: dict[str, Any] = found
    return scored


class _Share(TypedDict, total=False):
    pass_rate: Required[Share]
    ci95: tuple[Share, Share] | None
    n: Required[Count]


class _Mean(TypedDict, total=False):
    mean: Required[Points]
    ci95: tuple[Points, Points] | None
    n: Required[Count]


class _Row(TypedDict, total=False):
    model: str
    score: _Mean | None
    checks: _Share | None


class _Scores(TypedDict, total=False):
    """What is read of scores.json: types and ranges of what may be there."""

    method: str | None
    models: Required[list[_Row]]


def _rules(folder: Path) -> dict[str, Any] | None:
    try:
        asked = quality.read_questions(folder / "prompts.json")
        if not any(question.checks for question in asked.values()):
            return None  # the answers of a long run need not be read
        scored = quality.read(folder)
        rules: dict[str, Any] = msgspec.to_builtins(quality.summarise(scored, quality.read_scores(folder)[0]))
        return rules
    except LoadbenchError:
        return None  # a run without answers has no quality


def summarise(run: Run) -> dict[str, Any]:
    """Everything that the reports of a run print: `compare.summarise`, and under `choice` which of its models to ship.

    None there, where the run has no two of them.
    """
    summary = compare.summarise(run)
    if len({level.get("model") for level in summary["levels"]}) < 2:
        return summary | {"choice": None}
    try:
        scored = scores(run.path)
    except StoreError:
        scored = None  # of a run's report its figures are the point
    return summary | {"choice": of_runs([Measured(run, summary, scored)])}


def of_runs(found: Sequence[Measured]) -> Record | None:
    """The choice between all candidates of some runs on the usual terms; None where there are no two to choose from."""
    some = candidates(found)
    try:
        return choose(some, found) if len(some) > 1 else None
    except UsageError:
        return None  # no load is common to them
