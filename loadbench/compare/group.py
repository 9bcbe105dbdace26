"""The runs of one side of a comparison: their levels, and the gates that spoke against them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from loadbench import metrics, store
from loadbench.compare.differences import differences
from loadbench.compare.reading import load_of, sides
from loadbench.compare.side import Side
from loadbench.errors import LoadbenchError
from loadbench.metrics import gates as checks
from loadbench.store import Run
from loadbench.store.summary import Band, as_mapping

MOST_EARLIER = 5
"""Runs before one that are read for how much runs differ: the last ones are of the machine as it is now."""

Key = tuple[str, str]
"""Model and load."""
Gate = dict[str, str]
"""{"code", "name", "severity", "text", "run", "level"}; the level is "" of a gate about its whole run."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Runs that count as one side, read.

    Attributes:
        name: What to call it: the folder's name.
        runs: At least one.
        sides: What they measured, by model and load.
        gates: Those that spoke, red and warning, by model and load.
        slo: Bounds that replaced the runs' own; None where those counted.
    """

    name: str
    runs: tuple[Run, ...]
    sides: Mapping[Key, Side]
    gates: Mapping[Key, Sequence[Gate]]
    slo: Sequence[str] | None = None

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(model for model, _ in self.sides))

    def facts(self) -> dict[str, Any]:
        """What a comparison says of this side."""
        targets = [run.info.get("target") or {} for run in self.runs]
        return {
            "name": self.name,
            "runs": [
                {"folder": str(run.path), "start": run.info.get("start"), "levels": len(run.levels)}
                for run in self.runs
            ],
            "models": self.models,
            "server": targets[0].get("kind"),
            "server_version": targets[0].get("version"),
            "base_url": targets[0].get("base_url"),
            "simulated": any(target.get("kind") == "simulator" for target in targets),
        }


def gather(
    runs: Sequence[Run],
    name: str | None = None,
    *,
    slo: Sequence[str] | None = None,
    summaries: Mapping[Path, Mapping[str, Any]] | None = None,
    apart: Collection[Path] | None = None,
) -> Group:
    """One side from its runs.

    Args:
        runs: At least one, read.
        name: What to call the side; by default the first run's folder.
        slo: Bounds of attainment and goodput; each run's own by default.
        summaries: By run folder, what `metrics.summarise` returned of it, where that is at hand.
        apart: Folders of the other side. Where they are named and there is one run, `earlier` runs say how much runs
            differ.
    """
    found: dict[Key, list[Gate]] = {}
    known = summaries or {}
    measured = sides(runs, slo)
    if apart is not None and len(runs) == 1:
        before = sides(earlier(runs[0], apart), slo)
        for key, side in before.items():
            if key in measured:
                measured[key] = replace(measured[key], earlier=side.laps)
    for run in runs:
        _gates(run, known.get(run.path) or metrics.summarise(run), found)
    return Group(name or runs[0].path.name, tuple(runs), measured, found, slo)


def earlier(run: Run, apart: Collection[Path] = ()) -> list[Run]:
    """Runs of the same folder that began before this one and did the same on the same machine; the last ones.

    Args:
        apart: Folders that do not count: those of the side that it is compared with.
    """
    own = run.path.resolve()
    others = {path.resolve() for path in apart}
    began = str(run.info.get("start"))
    alike: list[tuple[str, Path]] = []
    for file in own.parent.glob("*/run.json"):
        path = file.parent
        if path == own or path in others:
            continue
        try:
            info = store.read_info(path)
        except LoadbenchError:
            continue  # broken, or of a newer loadbench: it says nothing here
        start = str(info.get("start"))
        if info.get("status") == "complete" and start < began and not differences(run.info, info):
            alike.append((start, path))
    found: list[Run] = []
    for _, path in sorted(alike)[-MOST_EARLIER:]:
        try:
            found.append(store.read(path))
        except LoadbenchError:
            continue
    return found


def _gates(run: Run, summary: Mapping[str, Any], found: dict[Key, list[Gate]]) -> None:
    """The warnings of a run's levels; at each of them those about its whole run, of the noise band its model's own."""
    whole = [warning for warning in summary["warnings"] if warning["code"] != "V11"]
    noise = {
        str(band.get("model")): [as_mapping(found) for found in checks.noise([msgspec.convert(band, Band)])]
        for band in summary["noise"]
    }
    for level in summary["levels"]:
        if level.get("closing") or level.get("status") != "complete":
            continue
        model = str(level.get("model"))
        at = found.setdefault((model, load_of(level)), [])
        at.extend(_gate(warning, run, str(level.get("id"))) for warning in level.get("warnings") or ())
        at.extend(_gate(warning, run, "") for warning in (*whole, *noise.get(model, ())))


def _gate(warning: Mapping[str, str], run: Run, level: str) -> Gate:
    name = checks.NAMES.get(warning["code"], warning["code"])
    told = {key: warning[key] for key in ("code", "severity", "text")}
    return {**told, "name": name, "run": run.path.name, "level": level}
