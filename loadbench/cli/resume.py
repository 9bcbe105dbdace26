"""What a run that is continued takes from its folder: prompts, server, levels that are done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadbench import prompts, store
from loadbench import server as targets
from loadbench.errors import TargetError
from loadbench.prompts import Prompt
from loadbench.scenario import Scenario
from loadbench.scenario.files import home
from loadbench.server import Found, Target

PROMPTS = "prompts.json"


def questions(folder: Path, asked: Scenario) -> list[Prompt]:
    """The prompts that the run began with, whatever became of their file since."""
    kept = folder / PROMPTS
    return prompts.read(kept) if kept.exists() else prompts.for_scenario(asked)


def keep_questions(folder: Path, asked: Sequence[Prompt]) -> None:
    """Keep the prompts of a run that begins, or of one that was killed before it could keep them."""
    if not (folder / PROMPTS).exists():
        store.write_atomically(folder / PROMPTS, prompts.to_json(asked))


def began_as(folder: Path | None) -> str | None:
    """Whether the run measured a server that loadbench started: `simulator`, `embedded`, `sdk`, or None."""
    if folder is None:
        return None
    how = str(store.read_info(folder).get("target_found") or "")
    starts = {"the simulator": "simulator", "the embedded": "embedded", "Foundry Local's own": "sdk"}
    return next((name for words, name in starts.items() if how.startswith(words)), None)


def place(folder: Path) -> Found | None:
    """Where the run's server was; a Foundry Local service may have moved to another port since."""
    server = _server(folder)
    if str(server.get("kind") or "").startswith("foundry") and (found := targets.discover(os.environ, home())):
        return found
    url = server.get("base_url")
    return Found(url, "as the run began") if url else None


def check_servers(folder: Path, servers: Sequence[Target]) -> None:
    """Refuse to go on with another kind of server than the run began with.

    Raises:
        TargetError: If one of them is another one.
    """
    began = store.read_info(folder).get("endpoints") or [_server(folder)]
    for server, before in zip(servers, began, strict=False):
        kind = before.get("kind")
        if kind is not None and kind != server.kind:
            raise TargetError(
                f"{server.base_url} is now {server.kind}, the run in {folder} began with {kind}: start that one again, "
                "or begin a new run"
            )


def complete(folder: Path | None) -> set[str]:
    """Ids of the levels that need not be done again."""
    levels = [] if folder is None else store.read_info(folder)["levels"]
    return {level["id"] for level in levels if level["status"] == "complete"}


def _server(folder: Path) -> dict[str, Any]:
    return store.read_info(folder).get("target") or {}
