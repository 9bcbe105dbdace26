"""What run.json says of a run from its start."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from loadbench import scenario, store, telemetry
from loadbench.client import Parameters
from loadbench.engine import process
from loadbench.prompts import Prompt
from loadbench.scenario import Scenario
from loadbench.server import Choice, Target
from loadbench.text import NOT_STORED, starred, stored_body, stored_header


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
    facts = asdict(server)
    facts["models"] = [one for one in facts["models"] if one["id"] in models]
    own_limits = any(one.max_tokens is not None for one in questions)
    return {
        "name": asked.name,
        "start": store.utc_now(),
        "command": _command(sys.argv),
        "versions": telemetry.versions(),
        "scenario": scenario.to_builtins(asked, NOT_STORED),
        "seed": asked.seed,
        "prompts": {
            "count": len(questions),
            "source": _source(asked),
            "sha256": _digest(questions),
            "own_limits": own_limits,
        },
        "parameters": {**asdict(parameters), "extra_body": stored_body(parameters.extra_body)},
        "target": facts,
        "target_found": how,
        "absent": [asdict(one) for one in choice.absent],
        "environment": telemetry.environment(),
        "clock": clock,
        "event_loop": "uvloop" if process.has_uvloop() else "asyncio",
        "hlog": store.hlog_works(),
    }


def _command(words: Sequence[str]) -> list[str]:
    """The command line, without what may be a secret in it."""
    shown = ["loadbench"]
    for before, word in pairwise(words):
        option, equals, value = word.partition("=")
        if not equals or not option.startswith("--"):
            option, equals, value = before, "", word
        if option == "--header":
            name, _, text = value.partition(":")
            value = f"{name}: {stored_header(name, text.strip())}"
        elif option == "--extra-body":
            value = _body(value)
        shown.append(starred(f"{option}={value}" if equals else value))
    return shown


def _body(text: str) -> str:
    try:
        body = json.loads(text)
    except ValueError:  # no body, but the word behind a value that is called like the option
        return text
    stored = stored_body(body)
    return text if stored == body else json.dumps(stored)


def _digest(questions: Sequence[Prompt]) -> str:
    asked = [(one.id, one.messages, *one.turns, *[str(one.recipe)] * (one.recipe is not None)) for one in questions]
    return hashlib.sha256(repr(asked).encode()).hexdigest()


def _source(asked: Scenario) -> str:
    if asked.trace is not None:
        return asked.trace
    if asked.input_length is not None:
        return f"made up, {asked.input_length}"
    return asked.prompts if isinstance(asked.prompts, str) else "the scenario" if asked.prompts else "the built-in set"
