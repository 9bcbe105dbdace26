"""The runs of a folder, newest first: what each measured, how far it came, and what it found in a few figures.

It reads run.json and summary.json of each and no record, so that a thousand runs are listed in a second or two.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from loadbench import text as units
from loadbench.errors import LoadbenchError, StoreError, UsageError
from loadbench.metrics.checks import titled
from loadbench.report import levels, objectives
from loadbench.report.document import Cell, Column, Columns, Table, table
from loadbench.report.levels import Record, by_number
from loadbench.store.files import read_bounded, read_info
from loadbench.store.summary import SEVERITIES, Finding, Level
from loadbench.text import one_line

CUT_SHORT = "cut short"
"""Status of a run whose process died: run.json still says running, and nothing was written for a while."""
_QUIET_S = 120.0
_SIDES = ("base", "new")
_MOST_MODELS = 2


class _Threshold(msgspec.Struct):
    result: str


class _Summary(msgspec.Struct):
    """What is needed of summary.json; the decoder passes over all else."""

    # Not the whole summary: one of another version may lack a field, and its run is to be listed all the same.

    levels: Sequence[Level] = ()
    warnings: Sequence[Finding] = ()
    thresholds: Sequence[_Threshold] = ()
    capacity_concurrency: int | float | None = None
    capacity_rate_per_s: int | float | None = None


_DECODER = msgspec.json.Decoder(_Summary)


@dataclass(frozen=True, slots=True)
class Best:
    """The level with the most tokens/s; of its TTFT p50 and p95."""

    level: str | None
    model: str | None
    load: str
    output_tokens_per_s: float
    ttft_ms: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Gates:
    severity: str
    codes: list[str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One run folder.

    Attributes:
        began: ISO 8601, UTC; None where it is unknown.
        status: complete, interrupted, running, cut short, or broken, where `error` says why.
        models: That were to be measured.
        best: None where nothing was measured, or no summary was written yet.
        capacity: As a search found it: `{"concurrency": n}` or `{"rate_per_s": n}`; None without one.
        thresholds: failed, unknown or passed, the worst of all; None where none was set.
        gates: None where none spoke.
        simulated: Whether its figures come from the simulator.
    """

    folder: Path
    name: str
    began: str | None
    status: str
    models: tuple[str, ...] = ()
    levels_complete: int = 0
    levels: int = 0
    best: Best | None = None
    capacity: dict[str, float] | None = None
    thresholds: str | None = None
    gates: Gates | None = None
    simulated: bool = False
    error: str | None = None

    def plain(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self) | {"folder": str(self.folder), "models": list(self.models)}


# -- reading


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
    if now_s is None:
        now_s = time.time()
    found: list[Entry] = []
    skipped = []
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        runs = [path / side for side in ("", *_SIDES) if (path / side / "run.json").exists()]  # "": the folder itself
        found += [_entry(run, now_s) for run in runs]
        if not runs:
            skipped.append(path.name)
    return sorted(found, key=lambda entry: (entry.began or "", entry.folder.name), reverse=True), skipped


def newest(folder: Path = Path("results")) -> Path:
    """The run in a folder that began last.

    Raises:
        UsageError: If there is none that can be read.
    """
    found: list[Entry] = []
    if folder.is_dir():
        found, _ = entries(folder)
    if not found or found[0].error is not None:
        raise UsageError(f"{folder}: no run is in it yet; `loadbench run` makes one, or name a run's folder")
    return found[0].folder


def _entry(path: Path, now_s: float) -> Entry:
    summary, file = _Summary(), path / "summary.json"
    try:
        info = read_info(path)
        try:
            if file.exists():
                summary = _DECODER.decode(read_bounded(file))
        except OSError as error:
            raise StoreError(f"{file}: cannot read: {error.strerror or error}") from error
        return _read(path, info, summary, now_s)
    except (LoadbenchError, msgspec.DecodeError, OSError, UnicodeDecodeError) as error:
        return Entry(path, path.name, None, "broken", error=one_line(error))
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:  # JSON, but not of our making
        return Entry(path, path.name, None, "broken", error=one_line(f"{path}: cannot be read: {error!r}"))


def _read(path: Path, info: Record, summary: _Summary, now_s: float) -> Entry:
    # A level that was tried again has several entries; once complete, it is.
    complete: dict[str, bool] = {}
    for level in info["levels"]:
        complete[level["id"]] = complete.get(level["id"], False) or level["status"] == "complete"
    models: dict[str, None] = {}
    for row in (*info["levels"], *(info.get("models") or ())):
        if row.get("model"):
            models[str(row["model"])] = None
    status = str(info.get("status") or "unknown")
    if status == "running":
        files = [path / name for name in ("run.json", "requests.jsonl", "telemetry.jsonl")]
        last_s = max(file.stat().st_mtime for file in files if file.exists())
        # One that lives writes requests or samples all the time; one that was killed wrote down no end.
        if now_s - last_s >= _QUIET_S:
            status = CUT_SHORT
    target = info.get("target") or {}
    capacity: dict[str, float] = {}
    if summary.capacity_concurrency is not None:
        capacity["concurrency"] = summary.capacity_concurrency
    if summary.capacity_rate_per_s is not None:
        capacity["rate_per_s"] = summary.capacity_rate_per_s
    return Entry(
        folder=path,
        name=str(info.get("name") or path.name),
        began=info.get("start"),
        status=status,
        models=tuple(models),
        levels_complete=sum(complete.values()),
        levels=len(complete),
        best=_best(summary.levels),
        capacity=capacity or None,
        thresholds=objectives.verdict([row.result for row in summary.thresholds]),
        gates=_gates(summary),
        simulated=target.get("kind") == "simulator" or any(level.simulated for level in summary.levels),
    )


def _best(rows: Sequence[Level]) -> Best | None:
    best: Best | None = None
    for row in rows:
        rate = row.output_tokens_per_s
        if rate is not None and not row.closing and (best is None or rate > best.output_tokens_per_s):
            ttft = levels.ttft(row)
            best = Best(row.id, row.model, levels.label(row), rate, {"p50": ttft.p50, "p95": ttft.p95})
    return best


def _gates(summary: _Summary) -> Gates | None:
    warnings: list[Finding] = list(summary.warnings)
    for level in summary.levels:
        warnings += level.warnings
    for severity in SEVERITIES:  # the worst first
        codes = {warning.code for warning in warnings if warning.severity == severity}
        if codes:
            return Gates(severity, sorted(codes, key=by_number))
    return None


# -- the table


def table_of(rows: Sequence[Entry], folder: Path) -> Table:
    columns: Columns[Entry] = [
        (Column("began", "(UTC)", left=True), lambda entry: Cell((entry.began or units.ABSENT)[:16].replace("T", " "))),
        (Column("run", left=True), lambda entry: Cell(one_line(entry.folder.relative_to(folder).as_posix()))),
        (Column("models", left=True), _models),
        (Column("levels"), _levels),
        (Column("tokens", "/s"), lambda x: Cell(units.figure(x.best.output_tokens_per_s if x.best else None))),
        (Column("at", left=True), _at),
        (Column("TTFT", "p50"), lambda entry: Cell(units.span(entry.best.ttft_ms["p50"] if entry.best else None))),
        (Column("result", left=True), lambda entry: Cell(one_line(", ".join(_results(entry))))),
    ]
    return table(str(folder), columns, rows)


def _models(entry: Entry) -> Cell:
    shown = list(entry.models[:_MOST_MODELS])
    if len(entry.models) > _MOST_MODELS:
        shown.append(f"{len(entry.models) - _MOST_MODELS} more")
    return Cell(one_line(", ".join(shown) or units.ABSENT))


def _levels(entry: Entry) -> Cell:
    if entry.status == "broken":
        return Cell(units.ABSENT)
    if entry.levels_complete == entry.levels:
        return Cell(str(entry.levels))
    return Cell(f"{entry.levels_complete}/{entry.levels}")


def _at(entry: Entry) -> Cell:
    if entry.best is None:
        return Cell(units.ABSENT)
    text = entry.best.load
    if len(entry.models) > 1:
        text = f"{entry.best.model} {text}"
    return Cell(one_line(text))


def _results(entry: Entry) -> Iterable[str]:
    """How it went, worst first."""
    if entry.status != "complete":
        yield entry.status
    if entry.thresholds is not None:
        result = {"unknown": "not known"}.get(entry.thresholds, entry.thresholds)
        yield f"thresholds {result}"
    for name, n in (entry.capacity or {}).items():
        unit = "users" if name == "concurrency" else "requests/s"
        yield f"serves {units.figure(n)} {unit}"
    if entry.gates is not None and entry.gates.severity != "note":
        yield f"{entry.gates.severity} {levels.joined(map(titled, entry.gates.codes))}"
    elif entry.status == "complete" and entry.best is not None:
        yield "no doubts"
    if entry.status == "complete" and entry.best is None and entry.capacity is None:
        yield "nothing measured"
    if entry.simulated:
        yield "simulated"
