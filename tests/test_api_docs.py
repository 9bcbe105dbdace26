"""docs/api.md: its examples run, one after another, and it names what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import loadbench
from loadbench.api import FORMATS
from loadbench.serve import simulator

pytestmark = pytest.mark.system

TEXT = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
NAMED = {word for code in re.findall(r"`([^`\n]+)`", TEXT) for word in re.findall(r"\w+", code)}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the names of the examples are after all of them."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.chdir(tmp_path_factory.mktemp("docs"))
    printed: list[str] = []
    try:
        with simulator.start(ttft_ms=5, itl_ms=1, models=["phi-4-mini"]) as server:
            names: dict[str, Any] = {
                "ENDPOINT": server.url,
                "print": lambda *words: printed.append(" ".join(map(str, words))),
            }
            for example in EXAMPLES:
                exec(compile(example, "docs/api.md", "exec"), names)
    finally:
        monkeypatch.undo()
    return names | {"printed": printed}


def test_all_examples_run(ran: dict[str, Any]) -> None:
    assert len(EXAMPLES) >= 8
    assert (ran["run"].status, ran["run"].models) == ("complete", ["phi-4-mini"])
    assert ran["answer"]["error"] is None


def test_what_they_print_is_there(ran: dict[str, Any]) -> None:
    printed = "\n".join(ran["printed"])

    assert "<Run run: 3 levels of 1 model, complete, in results/first>" in printed
    assert "phi-4-mini@c2: complete" in printed
    assert "TTFT and throughput" in printed


def test_every_column_of_requests_is_named(ran: dict[str, Any]) -> None:
    table = TEXT[TEXT.index("| column | holds |") : TEXT.index("With pandas")]

    assert set(re.findall(r"`(\w+)`", table)) == set(ran["run"].requests)


def test_every_name_of_the_api_is_shown() -> None:
    public = {name for name in vars(loadbench.Run) if not name.startswith("_")}

    assert public - NAMED == set()
    assert [name for name in loadbench.api.__all__ if not re.search(rf"\b{name}\b", TEXT)] == []
    assert [name for name in FORMATS if f'"{name}"' not in TEXT] == []
