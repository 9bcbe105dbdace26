"""docs/statistics.md names every estimator, every test it names exists, and its tables say what simulation says."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest
from statistics_tables import TABLES, written

from loadbench import stats
from loadbench.compare import estimates, judging, record, verdict
from loadbench.quality import scores
from loadbench.runner import probe as look
from loadbench.stats import blocks, scaling, shares, usl

HERE = Path(__file__).parent
TEXT = (HERE.parent / "docs" / "statistics.md").read_text(encoding="utf-8")
NAMED = {word for code in re.findall(r"`([^`\n]+)`", TEXT) for word in re.findall(r"\w+", code)}
NO_ESTIMATE = {"withheld", "row", "line", "wanted", "figures", "entries", "lead", "agreements", "stalls_of_histogram"}
NO_ESTIMATE |= {"compare_models", "compare_runs", "document", "earlier", "gather", "mean_of", "of_run"}
NO_ESTIMATE |= {"saturated", "summarise", "append", "latest", "read", "rates", "shares", "summary", "figure"}
"""Public, but they compute nothing that is uncertain."""
MODULES = (
    *(usl, scaling, estimates, judging, verdict, record),
    *(look, scores),
)


def functions(module: ModuleType) -> set[str]:
    """Public functions that are defined there."""
    found = inspect.getmembers(module, inspect.isfunction)
    return {name for name, each in found if each.__module__ == module.__name__ and not name.startswith("_")}


OF_METRICS = {
    "drift",
    "times",
    "memory",
    "against",
    "dependence",
    "dependence_of",
    "over_runs",
    "noise_bands",
    "stalls",
}
"""Of `loadbench.metrics`, whose modules compute much that is certain."""


def test_every_interval_is_named() -> None:
    members = {**vars(stats), **vars(blocks), **vars(shares)}
    every = {name for name, each in members.items() if inspect.isfunction(each) and not name.startswith("_")}
    cached = {name for name, each in members.items() if hasattr(each, "cache_info") and not name.startswith("_")}
    every -= {"dataclass", "lru_cache", "reach", "widening"}
    assert len(every | cached) > 25
    assert (every | cached | OF_METRICS) - NAMED == set()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_estimator_is_named(module: ModuleType) -> None:
    assert functions(module) - NAMED - NO_ESTIMATE == set()


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"\btest_\w+", TEXT))
    files = {path.stem: path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py")}
    there = set(re.findall(r"def (test_\w+)", "\n".join(files.values())))

    assert len(named) > 25
    assert named - there - set(files) == set()


def rows_of(markdown: str) -> list[list[str]]:
    lines = [line.strip("| ").split("|") for line in markdown.strip().splitlines()]
    return [[cell.strip() for cell in line] for i, line in enumerate(lines) if i != 1]


def table(name: str) -> list[list[str]]:
    """As it stands on the page."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", TEXT, re.DOTALL)

    assert found, name
    return rows_of(found[1])


def test_every_table_is_on_the_page() -> None:
    assert set(re.findall(r"<!-- (\w+) -->", TEXT)) - {"end"} == set(TABLES)
    assert all(len(table(name)) > 2 for name in TABLES)


def test_a_table_is_written_between_its_marks() -> None:
    assert written("a\n<!-- x -->\nold\n<!-- end -->\nb", "x", "new") == "a\n<!-- x -->\nnew\n<!-- end -->\nb"


QUICK = {
    **dict.fromkeys(("counts", "shares", "knees"), 0),
    **{"means": 200, "gaps": 150, "outliers": 100, "usl": 60, "serial": 100, "capacity": 200, "backlog": 40},
    "queued_shares": 200,
    **{"near_saturation": 60, "usl_misfit": 40},
    **{"capacity_by_rate": 8, "capacity_estimates": 40},
    **{
        "alarms": 40,
        "power": 20,
        "levels": 20,
        "settled": 20,
        "failing_runs": 50,
        "over_levels": 40,
        "drift": 20,
        "kappa": 40,
        "until": 100,
    },
}


MIXED = ("usl", "usl_misfit", "until", "settled", "capacity_by_rate", "capacity_estimates")
"""Tables of which only the columns that say how often something held are shares."""


def number(cell: str) -> float | None:
    return float(cell) if re.fullmatch(r"[+-]?\d+(\.\d+)?", cell) else None


@pytest.mark.endurance
@pytest.mark.parametrize(("name", "trials"), QUICK.items())
def test_the_tables_are_what_simulation_says(name: str, trials: int) -> None:
    there, again = table(name), rows_of(replace(TABLES[name], trials=trials).markdown())
    shares = [name not in MIXED or "held" in head for head in there[0]]

    assert there[0] == again[0]
    assert [row[0] for row in there] == [row[0] for row in again]
    for before, after, is_share in zip(chain(*there), chain(*again), shares * len(there), strict=True):
        said, found = number(before), number(after)
        if said is None or found is None or not trials:
            assert before == after or "-" in (before, after)
        elif is_share:
            p = min(max(said, found, 1.0), 99.0) / 100 if max(said, found) < 50 else min(said, found, 99.0) / 100
            error = math.sqrt(p * (1 - p) * (1 / trials + 1 / TABLES[name].trials))

            assert abs(said - found) <= 100 * 4 * error + 0.1, (name, before, after)
