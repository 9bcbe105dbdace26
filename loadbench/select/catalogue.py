"""models.json written back: what a scenario and a router read of each model, with what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadbench.select.candidates import Json

Entry = dict[str, Any]
_ROUNDED = {
    "ttft_p95_ms": "ttft_p95",
    "e2e_mean_ms": "e2e_mean",
    "characters_per_s": "characters_per_s",
    "tokens_per_s": "output_tokens_per_s",
    "quality": "quality",
    "rules_passed": "rules",
    "j_per_1000_characters": "energy",
    "cost_per_1000_characters": "cost",
}


def updated(known: Json, record: Json, facts: Mapping[str, Entry] | None = None) -> dict[str, Entry]:
    """The content of models.json after a choice: what it held, and the figures of each candidate.

    Keys that are not ours stay as they are, and so do models that were not measured. A candidate goes under the name
    that the file has for it (as it was asked for, its alias, or its id), else under its id.

    Args:
        known: What the file holds.
        record: What `choose` returned.
        facts: What scenarios said of models (`model_facts`), for those that are new to the file.
    """
    found: dict[str, Entry] = {str(name): dict(entry) for name, entry in known.items()}
    rows = record["candidates"]
    written: dict[str, list[Entry]] = {}
    for row in rows:
        key = _key(row, rows, found)
        entry = found.setdefault(key, {})
        for name in row["names"]:
            if facts and name in facts:
                entry.update({**facts[name], **entry})
                break
        entry.setdefault("capabilities", ["chat"])
        disk = row["figures"].get("disk")
        if disk:
            entry["size_mb"] = round(disk["value"] / 1e6)
        if row["licence"]:
            entry["licence"] = str(row["licence"]).lower()
        if row["context"]:
            entry.setdefault("context_tokens", row["context"])
        written.setdefault(key, []).append(_measured(row, record))
    for key, measured in written.items():
        found[key]["measured"] = measured
    return found


def _key(row: Json, rows: Sequence[Json], found: Mapping[str, Entry]) -> str:
    """Its name in the file. Not one that several models answer to: variants of an alias go under their ids."""
    models = {str(other["model"]) for other in rows}
    for name in row["names"]:
        answering = {other["model"] for other in rows if name in other["names"]}
        if name in found and len(answering) == 1 and (name == row["model"] or name not in models):
            return str(name)
    return str(row["model"])


def _measured(row: Json, record: Json) -> Entry:
    """One device's and server's figures, for a router; null where nobody measured."""
    figures = row["figures"]
    memory = figures.get("memory")
    return {
        **{name: _value(figures.get(figure)) for name, figure in _ROUNDED.items()},
        "memory_bytes": round(memory["value"]) if memory else None,
        **{name: row[name] for name in ("device", "execution_provider", "server", "endpoint", "simulated", "rank")},
        "meets_needs": row["status"] == "left",
        "chosen": row["name"] == record["winner"],
        "load": record["load"]["name"] if record["load"]["name"] in row["loads"] else None,
        "when": row["began"],
        "runs": row["runs"],
    }


def _value(figure: Json | None) -> float | None:
    return None if figure is None else float(f"{figure['value']:.6g}")
