"""The candidates of a choice: run folders read, each model on each device at each server, the load they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import orjson
from msgspec import Meta

from loadbench import metrics, quality, store
from loadbench.compare import Lap, Side, sides
from loadbench.compare.sides import load_of
from loadbench.errors import LoadbenchError, StoreError, UsageError
from loadbench.store import Run
from loadbench.store.files import read_bounded
from loadbench.store.summary import Finding, Level, Model, Ran, Summary
from loadbench.text import plain, printable

Load = tuple[str, float]
"""("closed", streams) or ("open", requests a second)."""
Share = Annotated[float, Meta(ge=0, le=1)]
Points = Annotated[float, Meta(ge=1, le=5)]
Count = Annotated[int, Meta(ge=0, le=2**53)]

# -- run folders


class Rating(msgspec.Struct, frozen=True):
    """The mean score of a model's answers, over n prompts."""

    mean: Points
    n: Count
    ci95: tuple[Points, Points] | None = None


class Passed(msgspec.Struct, frozen=True):
    """The share of n prompts whose rules a model's answers pass."""

    pass_rate: Share
    n: Count
    ci95: tuple[Share, Share] | None = None


class Scored(msgspec.Struct, frozen=True):
    """A model in scores.json, as far as a choice reads it."""

    model: str = ""
    score: Rating | None = None
    checks: Passed | None = None


class Scores(msgspec.Struct, frozen=True):
    """scores.json, as far as a choice reads it."""

    models: list[Scored]
    method: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A run folder, as a choice reads it: its records, what they come to, and scores.json where somebody scored."""

    run: Run
    summary: Summary
    scores: Scores | None = None


def read(folder: Path) -> Measured:
    """A run folder.

    Raises:
        UsageError: It is none.
        StoreError: It cannot be read.
    """
    run = store.read(folder)
    return Measured(run, metrics.summary(run), scores(folder))


def scores(folder: Path) -> Scores | None:
    """scores.json, as the last `loadbench score` wrote it; of a run that nobody scored, what its own rules say.

    None where there is neither.

    Raises:
        StoreError: scores.json is there and cannot be read.
    """
    path = folder / quality.FILE
    again = f"`loadbench score {folder}` writes it again"
    try:
        return msgspec.convert(orjson.loads(read_bounded(path)), Scores)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StoreError(f"{path}: cannot read: {error.strerror or error}") from error
    except orjson.JSONDecodeError as error:
        raise StoreError(f"{path}: is damaged: {error}; {again}") from None
    except msgspec.ValidationError as error:
        raise StoreError(f"{path}: is no scores.json of loadbench: {printable(str(error))}; {again}") from None
    try:
        questions = quality.read_questions(folder / "prompts.json")
        if not any(question.checks for question in questions.values()):  # nobody asked for a rule
            return None  # the answers of a long run need not be read
        summary = quality.summarise(quality.read(folder), quality.read_scores(folder)[0])
        return msgspec.convert(summary, Scores, from_attributes=True)
    except LoadbenchError:
        return None  # a run without answers has no quality


# -- candidates


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A model on a device at a server.

    Attributes:
        name: What to call it: the model, with device and server where that alone is not one of a kind.
        device, execution_provider: What it ran on, as far as the runs tell.
        server, endpoint: The kind of server and its address; without one where it was started for its run.
        facts: What the runs say of the model; the last one that says something wins.
        sides: By load ("c4"), what was measured at it.
        levels: By load, the levels of summary.json.
        loads: Each load as a number.
        runs: Names of the run folders.
        scores: Of each run that was scored, the method and the model's entry in scores.json.
        warnings: Gates that spoke about its whole runs.
        simulated: Whether the simulator answered.
        shared: Whether other models were loaded in the same process, so that the memory is not its own alone.
    """

    name: str
    model: str
    device: str | None
    execution_provider: str | None
    server: str | None
    endpoint: str | None
    facts: dict[str, Any] = field(default_factory=dict)
    sides: Mapping[str, Side] = field(default_factory=dict)
    levels: dict[str, list[Level]] = field(default_factory=dict)
    loads: dict[str, Load] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    scores: list[tuple[str | None, Scored]] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    simulated: bool = False
    shared: bool = False

    def laps(self, load: str) -> Sequence[Lap]:
        if load not in self.sides:
            return ()
        return self.sides[load].laps


class _Key(NamedTuple):
    """What makes two measurements ones of the same candidate."""

    model: str
    device: str | None
    execution_provider: str | None
    server: str | None
    endpoint: str | None


def candidates(runs: Sequence[Measured]) -> list[Candidate]:
    """Every model of the runs on every device and server, in the order they were first begun.

    Runs of the same model on the same device at the same server are repeats of one candidate. A server that was started
    for its run has another port each time, and is the same all the same.
    """
    found: dict[_Key, Candidate] = {}
    laps: dict[_Key, dict[str, list[Lap]]] = {}
    shared: set[_Key] = set()
    for one in runs:
        measured = sides([one.run])
        models, resident = {}, []
        for model in one.summary.models:
            models[str(model.id)] = model
            if model.was_loaded is not False:
                resident.append(model.id)
        here: set[_Key] = set()
        for level in one.summary.levels:
            if level.closing:  # it repeats the first level, and is no load of its own
                continue
            model = models.get(str(level.model), Model(id=str(level.model)))
            key = _key(level, model, one.run)
            candidate = found.setdefault(key, Candidate(key.model, *key, simulated=key.server == "simulator"))
            own = laps.setdefault(key, {})
            if key not in here:
                here.add(key)
                _add_run(candidate, one, model)
                # One process held them all, so that its memory is not that of one.
                if len(resident) > 1 and key.model in resident:
                    shared.add(key)
                for (name, load), side in measured.items():
                    if name == key.model:
                        own.setdefault(load, []).extend(side.laps)
            load = load_of(level.id, level.model)
            if level.status == "complete" and load in own:
                candidate.levels.setdefault(load, []).append(level)
                candidate.loads[load] = ("closed", float(level.concurrency or 0))
                if level.request_rate_per_s is not None:
                    candidate.loads[load] = ("open", level.request_rate_per_s)
    several = []
    for key, candidate in found.items():
        own_sides = {load: Side(key.model, load, tuple(some)) for load, some in laps[key].items()}
        several.append(replace(candidate, name=_name(key, list(found)), sides=own_sides, shared=key in shared))
    return several


def _add_run(candidate: Candidate, one: Measured, model: Model) -> None:
    """What a run says of a candidate, whatever the load."""
    if one.run.path.name not in candidate.runs:
        candidate.runs.append(one.run.path.name)
    # What the scenario's models.json says of a model counts where its server says nothing.
    listed = (one.run.info.get("scenario") or {}).get("model_facts") or {}
    facts: dict[str, Any] = {}
    for name in (model.name, model.alias, candidate.model):
        entry = listed.get(name)
        if isinstance(entry, Mapping):
            facts["licence"] = entry.get("licence")
            if isinstance(entry.get("size_mb"), int | float):
                facts["told_bytes"] = entry["size_mb"] * 1e6
            break
    # In this order: the server's own word wins.
    for known in (facts, msgspec.structs.asdict(model)):
        candidate.facts.update({name: fact for name, fact in known.items() if fact is not None})
    candidate.warnings.extend(one.summary.warnings)
    if one.scores is not None:
        for row in one.scores.models:
            if row.model == candidate.model:
                candidate.scores.append((one.scores.method, row))


def _key(level: Level, model: Model, run: Run) -> _Key:
    ran = level.ran or model.ran or Ran()
    started_here = "started for th" in str(run.info.get("target_found") or "")  # this run, the run
    return _Key(
        model=str(level.model),
        device=ran.device or level.device or model.device,
        execution_provider=ran.execution_provider or level.execution_provider,
        server=(run.info.get("target") or {}).get("kind"),
        endpoint=None if started_here else level.endpoint,
    )


def _name(key: _Key, keys: Sequence[_Key]) -> str:
    """The model, and of device, provider, server and address what tells it from others of that name."""
    same = [other for other in keys if other.model == key.model]
    name = key.model
    for part, word in (("device", "on"), ("execution_provider", "by"), ("server", "of"), ("endpoint", "at")):
        value = getattr(key, part)
        if len({getattr(other, part) for other in same}) > 1:
            shown = _short(value) if part == "endpoint" else value or "?"
            name = f"{name} {word} {shown}"
            same = [other for other in same if getattr(other, part) == value]
    return name


def _short(endpoint: str | None) -> str:
    try:
        netloc = urlsplit(endpoint or "").netloc
    except ValueError:  # no file can hold us up
        netloc = ""
    # An address may hold a user's name and password.
    return plain(netloc).rpartition("@")[2] or "a server of its run"


# -- the load at which candidates are held against each other


def load_at(some: Sequence[Candidate], name: str | None) -> str:
    """The load of that name, or the highest one that all candidates completed.

    Requests at once come before rates. Candidates that completed no load at all have no say in it.

    Raises:
        UsageError: There is none; one line that says which there are.
    """
    loads: dict[str, Load] = {}
    for one in some:
        loads.update(one.loads)
    ordered = sorted(loads, key=lambda load: (loads[load][0] == "closed", loads[load][1]), reverse=True)
    if name is not None:
        if name not in loads:
            there = ", ".join(ordered) or "none"
            raise UsageError(f"--at {name}: no candidate completed that load; there are {there}")
        return name
    measured = [one for one in some if one.loads]
    if not measured:
        raise UsageError("no candidate completed a level: there is nothing to choose between; measure them first")
    for load in ordered:
        if all(load in one.loads for one in measured):
            return load
    has = "; ".join(f"{one.name} has {', '.join(one.loads)}" for one in measured[:6])
    raise UsageError(
        f"no load was completed by all candidates: {has}; choose one with --at; candidates without it are eliminated"
    )


def load_words(load: Load) -> str:
    """A load for people.

    >>> load_words(("closed", 4.0)), load_words(("open", 0.5))
    ('4 streams at once', '0.5 requests/s')
    """
    kind, number = load
    if kind == "open":
        return f"{number:g} requests/s"
    if number == 1:
        return "1 stream at once"
    return f"{number:g} streams at once"
