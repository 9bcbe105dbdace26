"""Servers with a declared law, measured over HTTP: what loadbench says of them in words is what they are.

test_cli_capacity.py finds planted limits, test_cli_compare.py planted slow-downs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadbench.serve import simulator
from tests.support.command import invoke

pytestmark = [pytest.mark.system, pytest.mark.alone, pytest.mark.usefixtures("place")]


def measured(folder: str, words: tuple[str, ...], **law: Any) -> str:
    """The report of a run against a simulator of that law."""
    brief = ("--max-tokens", "6", "--no-telemetry", "--no-answers", "--no-repeat-first", "-o", folder)
    with simulator.start(**law) as server:
        done = invoke("run", "-e", server.url, *words, *brief)
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


def curve(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(folder) / "summary.json").read_bytes())["scaling"][0]
    return found


def test_a_server_of_one_slot_is_called_serial_in_words() -> None:
    said = measured("run", ("-c", "1,4", "-d", "1500ms"), ttft_ms=15, itl_ms=4, slots=1)

    assert "answers one request at a time: 4 streams get what one gets, and wait" in said
    assert curve("run")["serial"] is True


def test_a_server_of_many_slots_is_not() -> None:
    said = measured("run", ("-c", "1,4", "-d", "1500ms"), ttft_ms=15, itl_ms=4, slots=8)

    assert "one request at a time" not in said
    assert curve("run")["serial"] is False
