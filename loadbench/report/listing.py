"""The runs of a folder, newest first: what each measured, how far it came, and what it found in a few figures.

It reads run.json and summary.json of each and no record, so that a thousand runs are listed in a second or two.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from loadbench import text as units
from loadbench.errors import LoadbenchError, StoreError, UsageError
from loadbench.metrics.gates import titled
from loadbench.report import levels
from loadbench.report.tables import Cell, Column, Table
from loadbench.store import read_bounded, read_info
from loadbench.text import one_line

CUT_SHORT = "cut short"
"""Status of a run whose process died: it is still running by its own word, and nothing was written for a while."""
_QUIET_S = 120.0
_SEVERITIES = ("red", "warn", "note")
_VERDICTS = ("failed", "unknown", "passed")
_MOST_MODELS = 2


class _Summary(msgspec.Struct):
    """What is needed of summary.json; the decoder passes over all else."""

    levels: list[dict[str, Any]] = []
    warnings: list[dict[str, Any]] = []
    thresholds: list[dict[str, Any]] = []
    capacity_concurrency: int | float | None = None
    capacity_rate_per_s: int | float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One run folder.

    Attributes:
        folder: As it was found.
        name: Of the run.
        began: ISO 8601, UTC; None where nobody knows.
        status: complete, interrupted, running, cut short, or broken, where `error` says why.
        models: That were to be measured.
        levels_complete, levels: How many there are.
        best: The level with the most tokens/s: `level`, `model`, `load`, `output_tokens_per_s`, `ttft_ms` (its p50 and
            p95); None where nothing was measured, or no summary was written yet.
        capacity: As a search found it: `{"concurrency": n}` or `{"rate_per_s": n}`; None without one.
        thresholds: failed, unknown or passed, the worst of all; None where none was set.
        gates: The codes of the worst severity that spoke: `{"severity": "red", "codes": ["V3"]}`; None where none did.
        simulated: Whether its figures come from the simulator.
    """

    folder: Path
    name: str
    began: str | None
    status: str
    models: tuple[str, ...] = ()
    levels_complete: int = 0
    levels: int = 0
    best: dict[str, Any] | None = None
    capacity: dict[str, float] | None = None
    thresholds: str | None = None
    gates: dict[str, Any] | None = None
    simulated: bool = False
    error: str | None = None

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return found | {"folder": str(self.folder), "models": list(self.models)}


_SIDES = ("base", "new")


def entries(folder: Path, *, now_s: float | None = None) -> tuple[list[Entry], list[str]]:
    """The runs in a folder, newest first, broken ones last; and the names of the folders that are no runs.

    What `run --against` left is two runs, one a side.

    Raises:
        UsageError: If there is no such folder, or it is itself a run.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise UsageError(f"{folder}: {what}; runs are in results/ unless -o said otherwise: name their folder")
    if (folder / "run.json").exists():
        raise UsageError(f"{folder}: is a run; print it with `loadbench report {folder}`, or name the folder above it")
    now_s = time.time() if now_s is None else now_s
    found, skipped = [], []
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        runs = [run for run in (path, *(path / side for side in _SIDES)) if (run / "run.json").exists()]
        found += [_entry(run, now_s) for run in runs]
        if not runs:
            skipped.append(path.name)
    return sorted(found, key=lambda one: (one.began or "", one.folder.name), reverse=True), skipped


def _entry(path: Path, now_s: float) -> Entry:
    try:
        info = read_info(path)
        summary = _summary(path / "summary.json")
        return _read(path, info, summary, now_s)
    except (LoadbenchError, msgspec.DecodeError, OSError, UnicodeDecodeError) as error:
        return Entry(path, path.name, None, "broken", error=one_line(error))
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:  # JSON, but not of our making
        return Entry(path, path.name, None, "broken", error=one_line(f"{path}: cannot be read: {error!r}"))


_decoder = msgspec.json.Decoder(_Summary)


def _summary(path: Path) -> _Summary:
    """Empty where none was written yet."""
    try:
        return _decoder.decode(read_bounded(path)) if path.exists() else _Summary()
    except OSError as error:
        raise StoreError(f"{path}: cannot read: {error.strerror or error}") from error


def _read(path: Path, info: Mapping[str, Any], summary: _Summary, now_s: float) -> Entry:
    ids = {level["id"]: level["status"] for level in info["levels"]}
    for level in info["levels"]:
        if level["status"] == "complete":
            ids[level["id"]] = "complete"
    named = [str(level["model"]) for level in info["levels"] if level.get("model")]
    named += [str(model["model"]) for model in info.get("models") or () if model.get("model")]
    whole = {"levels": summary.levels, "warnings": summary.warnings, "run": info}
    searched = {"concurrency": summary.capacity_concurrency, "rate_per_s": summary.capacity_rate_per_s}
    results = {row["result"] for row in summary.thresholds}
    return Entry(
        folder=path,
        name=str(info.get("name") or path.name),
        began=info.get("start"),
        status=_status(path, str(info.get("status") or "unknown"), now_s),
        models=tuple(dict.fromkeys(named)),
        levels_complete=sum(status == "complete" for status in ids.values()),
        levels=len(ids),
        best=_best(summary.levels),
        capacity={name: n for name, n in searched.items() if n is not None} or None,
        thresholds=next((word for word in _VERDICTS if word in results), None),
        gates=_gates(summary),
        simulated=levels.is_simulated(whole),
    )


def _status(path: Path, status: str, now_s: float) -> str:
    if status != "running":
        return status
    files = [path / name for name in ("run.json", "requests.jsonl", "telemetry.jsonl")]
    last_s = max(file.stat().st_mtime for file in files if file.exists())
    return "running" if now_s - last_s < _QUIET_S else CUT_SHORT


def _best(found: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    measured = [one for one in found if one.get("output_tokens_per_s") is not None and not one.get("closing")]
    if not measured:
        return None
    best = max(measured, key=lambda one: float(one["output_tokens_per_s"]))
    ttft = levels.ttft(best)
    return {
        "level": best["id"],
        "model": best.get("model"),
        "load": levels.label(best),
        "output_tokens_per_s": best["output_tokens_per_s"],
        "ttft_ms": {name: ttft.get(name) for name in ("p50", "p95")},
    }


def _gates(summary: _Summary) -> dict[str, Any] | None:
    found = [*summary.warnings, *(one for level in summary.levels for one in level.get("warnings") or ())]
    for severity in _SEVERITIES:
        codes = sorted({str(one["code"]) for one in found if one["severity"] == severity}, key=_by_number)
        if codes:
            return {"severity": severity, "codes": codes}
    return None


def _by_number(code: str) -> tuple[int, str]:
    digits = "".join(sign for sign in code if sign.isdigit())
    return int(digits or 0), code


def table(found: Sequence[Entry], folder: Path) -> Table:
    """A row a run."""
    columns = [
        Column("began", "(UTC)", left=True),
        Column("run", left=True),
        Column("models", left=True),
        Column("levels"),
        Column("tokens", "/s"),
        Column("at", left=True),
        Column("TTFT", "p50"),
        Column("result", left=True),
    ]
    return Table(str(folder), tuple(columns), tuple(_row(one, folder) for one in found))


def _row(one: Entry, folder: Path) -> tuple[Cell, ...]:
    best = one.best or {}
    at = best.get("load") or units.ABSENT
    part = f"{one.levels_complete}/{one.levels}" if one.levels_complete != one.levels else str(one.levels)
    cells = [
        (one.began or units.ABSENT)[:16].replace("T", " "),
        one.folder.relative_to(folder).as_posix(),
        _named(one.models) or units.ABSENT,
        part if one.status != "broken" else units.ABSENT,
        units.figure(best.get("output_tokens_per_s")),
        f"{best['model']} {at}" if best and len(one.models) > 1 else at,
        units.span((best.get("ttft_ms") or {}).get("p50")),
        ", ".join(_said(one)),
    ]
    return tuple(Cell(one_line(text)) for text in cells)


def _named(models: Sequence[str]) -> str:
    more = len(models) - _MOST_MODELS
    return ", ".join([*models[:_MOST_MODELS], *([f"{more} more"] if more > 0 else [])])


def _said(one: Entry) -> Iterable[str]:
    """How it went, worst first."""
    if one.status != "complete":
        yield one.status
    if one.thresholds is not None:
        yield f"thresholds {'not known' if one.thresholds == 'unknown' else one.thresholds}"
    for name, n in (one.capacity or {}).items():
        yield f"carries {units.figure(n)} {'users' if name == 'concurrency' else 'requests/s'}"
    if one.gates is not None and one.gates["severity"] != "note":
        yield f"{one.gates['severity']} {levels.joined(map(titled, one.gates['codes']))}"
    elif one.status == "complete" and one.best is not None:
        yield "no doubts"
    if one.status == "complete" and one.best is None and one.capacity is None:
        yield "nothing measured"
    if one.simulated:
        yield "simulated"
