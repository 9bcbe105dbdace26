"""The table of the workers that shared a level: what each did, and how well it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadbench import text as units
from loadbench.report import levels
from loadbench.report.levels import Level, Summary
from loadbench.report.tables import Cell, Column, Table
from loadbench.text import one_line

COLUMNS = (
    *(Column("level", left=True), Column("worker", left=True), Column("streams", short="str.")),
    *(Column("done"), Column("failed", short="fail"), Column("TTFT p50", "ms"), Column("gap p99", "ms")),
    *(Column("lag p99", "ms"), Column("core", "share"), Column("way", "ms"), Column("clock", "± ms")),
)


def tables(summary: Summary) -> list[Table]:
    """One table a model, a row a level and worker; none of a run whose load one process made."""
    if not any(level.get("workers") for level in levels.levels(summary)):
        return []
    notes = (
        "lag: what was read late; core: CPU of one core; way: shortest TCP connect; clock: how well the start is known",
        "all other tables have the requests of all workers together",
    )
    return [
        Table(
            "Workers",
            COLUMNS,
            tuple(_cells(level, row, not i) for level in of_model for i, row in enumerate(level.get("workers") or ())),
            notes,
            model,
        )
        for model, of_model in levels.by_model(summary).items()
    ]


def _cells(level: Level, row: Level, first: bool) -> tuple[Cell, ...]:
    def ms(metric: str, p: str) -> Cell:
        return Cell(units.figure((row.get(metric) or {}).get(p)))

    streams: Any = row.get("streams") if row.get("streams") is not None else row.get("request_rate_per_s")
    return (
        Cell(levels.label(level) if first else ""),
        Cell(_name(row)),
        Cell(units.figure(streams)),
        *(Cell(units.count(row.get(count))) for count in ("completed", "failed")),
        *(ms("ttft_ms", "p50"), ms("itl_ms", "p99"), ms("client_lag_ms", "p99")),
        Cell(units.share(row.get("cpu_share"))),
        *(Cell(units.figure(row.get(figure))) for figure in ("round_trip_ms", "clock_uncertain_ms")),
    )


def _name(row: Level) -> str:
    where = str(row.get("address") or row.get("host") or "").partition("://")[2] or row.get("host") or ""
    lost = ", lost" if row.get("status") == "lost" else ""
    return one_line(f"{row.get('name')} {where}", 40).strip() + lost


def of(run: Mapping[str, Any]) -> str:
    """Who shared the load, as `2 processes of this machine`; "" where one process made it."""
    spread = run.get("spread") or {}
    number = len(spread.get("workers") or ())
    if not number:
        return ""
    if spread.get("kind") == "processes":
        return f"{number} process{'es' * (number > 1)} of this machine shared each level"
    hosts = len({row.get("host") for row in spread["workers"]})
    return (
        f"{number} workers of the Dask cluster {one_line(spread.get('kind'), 60)} on {hosts} "
        f"machine{'s' * (hosts > 1)} shared each level"
    )
