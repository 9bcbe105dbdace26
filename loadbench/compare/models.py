"""The models of one run against its first: a part of summary.json."""

from __future__ import annotations

from typing import Any

from loadbench import metrics
from loadbench.compare.group import gather
from loadbench.compare.record import Record, Terms, compare_models
from loadbench.store import Run


def summarise(run: Run) -> dict[str, Any]:
    """Everything that the reports of a run print: `metrics.summarise`, and under `models_compared` its models."""
    summary = metrics.summarise(run)
    return summary | {"models_compared": of_run(run, summary)}


def of_run(run: Run, summary: dict[str, Any], terms: Terms | None = None) -> list[Record]:
    """Each further model against the first one, at every load that both completed; empty of one model.

    Args:
        run: Read.
        summary: What `metrics.summarise` returned of it.
    """
    if len({level.get("model") for level in summary["levels"]}) < 2:
        return []
    group = gather([run], summaries={run.path: summary})
    first, *others = group.models or [""]
    records = (compare_models(group, first, other, terms) for other in others)
    return [record for record in records if record["levels"]]
