"""Summaries made by hand, in tests/golden/: what the reports are tested with."""

import copy
import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.stem for path in GOLDEN.glob("*.json"))


def summary_of(case: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / f"{case}.json").read_text(encoding="utf-8"))
    return found


def with_levels(summary: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The summary with the same changes in each level."""
    changed = copy.deepcopy(summary)
    for level in changed["levels"]:
        level.update(changes)
    return changed
