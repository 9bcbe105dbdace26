"""What a search for the capacity found, as run.json tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def searched(info: Mapping[str, Any]) -> dict[str, Any]:
    """The summary's `capacity` (a record for each model) and, where one model was searched, its answer.

    >>> searched({"capacity": [{"by": "concurrency", "found": 8}]})["capacity_concurrency"]
    8
    """
    records = info.get("capacity")
    only = records[0] if isinstance(records, list) and len(records) == 1 else {}
    return {
        "capacity": records,
        "capacity_concurrency": only.get("found") if only.get("by") == "concurrency" else None,
        "capacity_rate_per_s": only.get("found") if only.get("by") == "rate" else None,
    }
