"""The candidates: each model on each device at each server, over all runs that measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from loadbench.compare import Lap, Side, sides
from loadbench.compare.reading import load_of
from loadbench.store import Run
from loadbench.text import plain

Level = Mapping[str, Any]
Load = tuple[str, float]
"""("closed", streams) or ("open", requests a second)."""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A run folder, as a choice reads it.

    Attributes:
        run: Its records.
        summary: What `metrics.summarise` makes of them.
        scores: scores.json; None where nobody scored.
    """

    run: Run
    summary: Mapping[str, Any]
    scores: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A model on a device at a server.

    Attributes:
        name: What to call it: the model, with device and server where that alone is not one of a kind.
        model: As requests name it.
        device, execution_provider: What it ran on, as far as is known.
        server, endpoint: The kind of server and its address; without one where it was started for its run.
        facts: What the runs know of the model; the last one that says something wins.
        sides: By load ("c4"), what was measured at it.
        levels: By load, the levels of summary.json.
        loads: Each load as a number.
        runs: Names of the run folders.
        scores: Of each run that was scored, the method and the model's entry in scores.json.
        warnings: Gates that spoke about its whole runs.
        simulated: Whether the simulator answered.
        shared: Whether other models were loaded in the same process, so that nobody knows whose the memory is.
    """

    name: str
    model: str
    device: str | None
    execution_provider: str | None
    server: str | None
    endpoint: str | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    sides: Mapping[str, Side] = field(default_factory=dict)
    levels: Mapping[str, Sequence[Level]] = field(default_factory=dict)
    loads: Mapping[str, Load] = field(default_factory=dict)
    runs: Sequence[str] = ()
    scores: Sequence[tuple[str | None, Mapping[str, Any]]] = ()
    warnings: Sequence[Mapping[str, str]] = ()
    simulated: bool = False
    shared: bool = False


_Key = tuple[str, str | None, str | None, str | None, str | None]


@dataclass(slots=True)
class _Gathered:
    laps: dict[str, list[Lap]] = field(default_factory=dict)
    levels: dict[str, list[Level]] = field(default_factory=dict)
    loads: dict[str, Load] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    scores: list[tuple[str | None, Mapping[str, Any]]] = field(default_factory=list)
    warnings: list[Mapping[str, str]] = field(default_factory=list)
    shared: bool = False


def candidates(found: Sequence[Measured]) -> list[Candidate]:
    """Every model of the runs on every device and server, in the order they were first begun.

    Runs of the same model on the same device at the same server are repeats of one candidate. A server that was started
    for its run has another port each time, and is the same all the same.
    """
    gathered: dict[_Key, _Gathered] = {}
    for one in found:
        _gather(one, gathered)
    keys = list(gathered)
    return [
        Candidate(
            _name(key, keys),
            *key,
            facts=some.facts,
            sides={load: Side(key[0], load, tuple(laps)) for load, laps in some.laps.items()},
            levels=some.levels,
            loads=some.loads,
            runs=tuple(dict.fromkeys(some.runs)),
            scores=some.scores,
            warnings=some.warnings,
            simulated=key[3] == "simulator",
            shared=some.shared,
        )
        for key, some in gathered.items()
    ]


def _gather(one: Measured, gathered: dict[_Key, _Gathered]) -> None:
    measured = sides([one.run])
    records = {str(record.get("id")): record for record in one.summary.get("models") or ()}
    resident = [record for record in records.values() if record.get("was_loaded") is not False]
    seen: set[_Key] = set()
    for level in one.summary.get("levels") or ():
        if level.get("closing"):
            continue
        model, load = str(level.get("model")), load_of(level)
        record = records.get(model, {})
        key = _key(level, record, one.run)
        some = gathered.setdefault(key, _Gathered())
        if key not in seen:
            seen.add(key)
            some.runs.append(one.run.path.name)
            some.facts |= _told(record, model, one.run)
            some.facts |= {name: fact for name, fact in record.items() if fact is not None}
            some.shared = some.shared or (len(resident) > 1 and record in resident)
            some.scores += _scores(one.scores, model)
            some.warnings += one.summary.get("warnings") or ()
            for known, side in measured.items():
                if known[0] == model:
                    some.laps.setdefault(known[1], []).extend(side.laps)
        if level.get("status") == "complete" and load in some.laps:
            some.levels.setdefault(load, []).append(level)
            rate = level.get("request_rate_per_s")
            some.loads[load] = ("closed", float(level.get("concurrency") or 0)) if rate is None else ("open", rate)


def _key(level: Level, record: Mapping[str, Any], run: Run) -> _Key:
    ran = level.get("ran") or record.get("ran") or {}
    device = ran.get("device") or level.get("device") or record.get("device")
    provider = ran.get("execution_provider") or level.get("execution_provider")
    target = run.info.get("target") or {}
    ours = "started for th" in str(run.info.get("target_found") or "")  # this run, the run
    return str(level.get("model")), device, provider, target.get("kind"), None if ours else level.get("endpoint")


def _told(record: Mapping[str, Any], model: str, run: Run) -> dict[str, Any]:
    """What the scenario's models.json says of a model, where its server says nothing."""
    known = (run.info.get("scenario") or {}).get("model_facts") or {}
    names = (record.get("name"), record.get("alias"), model)
    said: Mapping[str, Any] = next((known[name] for name in names if isinstance(known.get(name), Mapping)), {})
    size = said.get("size_mb")
    told = {"licence": said.get("licence"), "told_bytes": size * 1e6 if isinstance(size, int | float) else None}
    return {name: fact for name, fact in told.items() if fact is not None}


def _scores(scores: Mapping[str, Any] | None, model: str) -> list[tuple[str | None, Mapping[str, Any]]]:
    if scores is None:
        return []
    return [(scores.get("method"), row) for row in scores.get("models") or () if row.get("model") == model]


def _name(key: _Key, keys: Sequence[_Key]) -> str:
    """The model, and of device, provider, server and address what tells it from others of that name."""
    same = [other for other in keys if other[0] == key[0]]
    name = key[0]
    for place, word in ((1, "on"), (2, "by"), (3, "of"), (4, "at")):
        if len({other[place] for other in same}) > 1:
            value = key[place]
            name += f" {word} {_short(value) if place == 4 else value or '?'}"
            same = [other for other in same if other[place] == value]
    return name


def _short(endpoint: str | None) -> str:
    try:
        netloc = urlsplit(endpoint or "").netloc
    except ValueError:  # no file can hold us up
        netloc = ""
    return plain(netloc).rpartition("@")[2] or "a server of its run"
