"""The table of a service's endpoints: what each of them got, and how it did."""

from __future__ import annotations

from loadbench import text as units
from loadbench.report import levels
from loadbench.report.levels import Level, Summary
from loadbench.report.tables import Cell, Column, Table, Times
from loadbench.text import bare_url


def tables(summary: Summary) -> list[Table]:
    """One table a model, a row a level and endpoint; none of a service that has a single one."""
    rows = [row for level in levels.levels(summary) for row in level.get("endpoints") or ()]
    if not rows:
        return []
    streamed = levels.is_streamed(summary)
    name, lead = ("TTFT", "ttft_ms") if streamed else ("E2E", "e2e_ms")
    times, whole = (Times.of([row.get(metric) for row in rows]) for metric in (lead, "e2e_ms"))
    columns = [
        *(Column("level", left=True), Column("endpoint", left=True), Column("of requests", short="part")),
        *(Column("done"), Column("failed", short="fail")),
        *(Column(f"{name} {p}", times.unit) for p in ("p50", "p95")),
        *([Column("E2E p50", whole.unit)] if streamed else []),
        *(Column("in flight", "mean"), Column("tokens", "/s")),
    ]

    def cells(level: Level, row: Level, first: bool) -> tuple[Cell, ...]:
        return (
            Cell(levels.label(level) if first else ""),
            Cell(_short(row.get("url"))),
            Cell(units.share(row.get("share"))),
            *(Cell(units.count(row.get(count))) for count in ("completed", "failed")),
            *(times.cell(row.get(lead), p) for p in ("p50", "p95")),
            *([whole.cell(row.get("e2e_ms"), "p50")] if streamed else []),
            *(Cell(units.figure(row.get(figure))) for figure in ("in_flight_mean", "output_tokens_per_s")),
        )

    marked = any(levels.is_marked(row.get(lead) or {}, p) for row in rows for p in ("p50", "p95"))
    notes = ["* too few requests of that endpoint for an interval"] * marked
    notes += ["all other tables have the requests of all endpoints together"]
    notes += (
        ["TTFT from when a request was sent"] if streamed and any(map(levels.is_open, levels.levels(summary))) else []
    )
    return [
        Table(
            "Endpoints",
            tuple(columns),
            tuple(cells(level, row, not i) for level in of_model for i, row in enumerate(level.get("endpoints") or ())),
            tuple(notes),
            model,
        )
        for model, of_model in levels.by_model(summary).items()
    ]


def _short(url: object) -> str:
    """The address without what all have: as 127.0.0.1:8000."""
    return bare_url(url).partition("://")[2].removesuffix("/v1")
