"""The tables that have a row a model: cold start, memory and disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadbench import text as units
from loadbench.report import levels
from loadbench.report.costs import in_megabytes
from loadbench.report.levels import Summary
from loadbench.report.tables import Cell, Column, Table, Times, known

Model = Mapping[str, Any]
_Reads = Sequence[tuple[Column, Callable[[Model], Cell]]]
_LOADERS = {"loaded by this run": "this run", "start of the server": "server's start"}
_MOMENTS = {
    "before_load": "before the model's load",
    "after_load": "with the model loaded",
    "peak": "the largest sample (one a second) of its levels",
    "after_unload": "after its unload",
}
_PURPOSES = ("first", "warm", "idle", "kept_warm")


def cold_start(summary: Summary) -> Table | None:
    """How long a model takes to load, and its first answer cold, warm, after a pause; None where nothing is known."""
    models = levels.models(summary)
    streamed = levels.is_streamed(summary)
    name, statistic = ("TTFT", "ttft_ms") if streamed else ("E2E", "e2e_ms")
    times = Times.of([model.get(purpose) for model in models for purpose in _PURPOSES], statistic)

    def answer(purpose: str, *, cold: bool | None = None) -> Callable[[Model], Cell]:
        def read(model: Model) -> Cell:
            probe = model.get(purpose) or {}
            if not probe or (cold is not None and bool(probe.get("cold")) is not cold):
                return Cell(units.ABSENT)
            return Cell("failed") if probe.get("error") else times.cell(probe, statistic)

        return read

    columns: _Reads = [
        (Column("model", left=True), _name),
        (Column("load", "s"), _load),
        (Column("by", left=True), _loader),
        (Column(f"{name} cold", times.unit), answer("first", cold=True)),
        (Column(f"{name} first", times.unit), answer("first", cold=False)),
        (Column(f"{name} warm", times.unit), answer("warm")),
        (Column("after idle", times.unit), answer("idle")),
        (Column("kept warm", times.unit), answer("kept_warm")),
    ]
    notes = ["single requests of a few tokens, each with a prompt of its own"]
    if any((model.get("first") or {}).get("cold") for model in models):
        notes.append("cold = the first after a load that was seen")
    notes += _pauses(models)
    notes += [f"{model.get('id')}: {model['load_error']}" for model in models if model.get("load_error")]
    return _table("Cold start", models, columns, notes)


def memory(summary: Summary) -> Table | None:
    """The server's memory around a model's load, its files, its GPU memory; None where nothing is known."""
    models = levels.models(summary)
    columns: _Reads = [
        (Column("model", left=True), _name),
        (Column("before load", "MB", short="before"), _bytes("memory_before_load_bytes")),
        (Column("after load", "MB", short="loaded"), _bytes("memory_after_load_bytes")),
        (Column("peak under load", "MB", short="peak"), _bytes("memory_peak_bytes")),
        (Column("after unload", "MB", short="unloaded"), _bytes("memory_after_unload_bytes")),
        (Column("GPU memory", "MB", short="GPU mem."), _bytes("gpu_memory_peak_bytes")),
        (Column("on disk", "MB"), _bytes("disk_bytes")),
        (Column("size listed", "MB", short="listed"), _bytes("size_bytes")),
    ]
    moments = [words for name, words in _MOMENTS.items() if any(model.get(f"memory_{name}_bytes") for model in models)]
    notes = [f"resident memory of the server's processes: {', '.join(moments)}"] if moments else []
    if any(model.get("gpu_memory_source") == "device" for model in models):
        notes.append("GPU memory: all that was used on the device, by whomever")
    if any(model.get("disk_source") == "server" for model in models):
        notes.append("on disk: as the server tells")
    found = _table("Memory and disk", models, columns, notes)
    # The size that a server lists stands with the model's facts; alone it is no table.
    return found if found and any(column.name != "size listed" for column in found.columns[1:]) else None


def _table(title: str, models: Sequence[Model], columns: _Reads, notes: Sequence[str]) -> Table | None:
    rows = tuple(tuple(read(model) for _, read in columns) for model in models)
    found = known([Table(title, tuple(column for column, _ in columns), rows, tuple(notes))])
    return found[0] if found else None


def _name(model: Model) -> Cell:
    return Cell(str(model.get("id")))


def _load(model: Model) -> Cell:
    return Cell("failed" if model.get("load_error") else units.figure(model.get("load_s")))


def _loader(model: Model) -> Cell:
    told = model.get("load_source")
    return Cell(_LOADERS.get(str(told), str(told)) if told else units.ABSENT)


def _bytes(name: str) -> Callable[[Model], Cell]:
    return lambda model: Cell(in_megabytes(model.get(name)))


def _pauses(models: Sequence[Model]) -> list[str]:
    """What "after idle" and "kept warm" mean in this run."""
    notes = []
    for purpose, words in (("idle", "after idle"), ("kept_warm", "kept warm")):
        probe = next((model[purpose] for model in models if model.get(purpose)), None)
        if probe and probe.get("after_s"):
            pings = f" with a one-token request every {probe['every_s']:g} s" if probe.get("every_s") else " of silence"
            notes.append(f"{words} = after {probe['after_s']:g} s{pings}")
    return notes
