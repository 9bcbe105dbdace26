"""What run.json says of a run from its start."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from loadbench import scenario, store, telemetry
from loadbench.cli.wanted import NOT_STORED
from loadbench.client import Parameters
from loadbench.engine import process
from loadbench.prompts import Prompt
from loadbench.scenario import Scenario
from loadbench.target import Choice, Target

_SECRET = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)


def info(
    asked: Scenario,
    server: Target,
    how: str,
    choice: Choice,
    parameters: Parameters,
    questions: Sequence[Prompt],
    clock: str,
) -> dict[str, Any]:
    """What run.json says from the start. No key, no header that may hold one."""
    models = [one.id for one in choice.chosen]
    stored = scenario.to_builtins(asked)
    stored["headers"] = {name: NOT_STORED if _SECRET.search(name) else value for name, value in asked.headers.items()}
    facts = asdict(server)
    facts["models"] = [one for one in facts["models"] if one["id"] in models]
    own_limits = any(one.max_tokens is not None for one in questions)
    return {
        "name": asked.name,
        "start": store.utc_now(),
        "command": _command(sys.argv),
        "versions": telemetry.versions(),
        "scenario": stored,
        "seed": asked.seed,
        "prompts": {
            "count": len(questions),
            "source": _source(asked),
            "sha256": _digest(questions),
            "own_limits": own_limits,
        },
        "parameters": asdict(parameters),
        "target": facts,
        "target_found": how,
        "absent": [asdict(one) for one in choice.absent],
        "environment": telemetry.environment(),
        "clock": clock,
        "event_loop": "uvloop" if process.has_uvloop() else "asyncio",
        "hlog": store.hlog_works(),
    }


def _command(words: Sequence[str]) -> list[str]:
    """The command line, without the values of headers that may be secret."""
    shown = ["loadbench", *words[1:]]
    for i, word in enumerate(shown):
        name, colon, _ = word.partition(":")
        if colon and _SECRET.search(name) and (shown[i - 1] == "--header" or word.startswith("--header=")):
            shown[i] = f"{name}: {NOT_STORED}"
    return shown


def _digest(questions: Sequence[Prompt]) -> str:
    asked = [(one.id, one.messages, *one.turns, *[str(one.recipe)] * (one.recipe is not None)) for one in questions]
    return hashlib.sha256(repr(asked).encode()).hexdigest()


def _source(asked: Scenario) -> str:
    if asked.trace is not None:
        return asked.trace
    if asked.input_length is not None:
        return f"made up, {asked.input_length}"
    return asked.prompts if isinstance(asked.prompts, str) else "the scenario" if asked.prompts else "the built-in set"
