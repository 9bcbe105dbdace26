"""What `loadbench run --against` leaves: a folder with a run folder of each side."""

from __future__ import annotations

from pathlib import Path

SIDES = ("base", "new")
MEANT = ("model", "device", "execution provider", "server", "server version")
"""What two targets may differ in: it is what they are compared for."""


def folders(root: Path | None) -> list[Path]:
    """The run folders of both sides, if that is what this folder holds; else none."""
    found = [] if root is None else [root / name for name in SIDES]
    return found if all((folder / "run.json").exists() for folder in found) else []
