"""The lines that open a run: whom it measures, with whose key, what is not there, and how long it may take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadbench.cli.opening import what, whom
from loadbench.runner import plan
from loadbench.scenario import Scenario
from loadbench.scenario.bounds import Duration
from loadbench.server import Absent, Choice, Chosen, Target

SERVER = Target("http://127.0.0.1:5273/v1", "foundry2", "2.2.1")
NO_NPU = Absent("phi", "NPU", None, "phi is for CPU, GPU, not for NPU")


def told(
    *models: str,
    server: Target = SERVER,
    how: str = "as given",
    absent: tuple[Absent, ...] = (),
    asked: Scenario | None = None,
    budget_s: float | None = None,
    **more: Any,
) -> dict[str, str]:
    """The lines by the word that each begins with."""
    models = models or ("phi",)
    steps = plan.make(asked or Scenario(concurrency=[1], requests=5), list(models), budget_s=budget_s)
    choice = Choice(tuple(Chosen(name, name) for name in models), absent)
    found = whom(server, how, choice) + what(steps, steps.levels, list(models), 12, Path("there"), **more)
    words = [line[:10].strip() for line in found]
    return {word: "\n".join(line[10:] for line in found if line[:10].strip() == word) for word in words}


def test_the_server_is_told_with_its_kind_and_how_it_was_found() -> None:
    assert told(how="FOUNDRY_LOCAL_ENDPOINT")["target"] == (
        "http://127.0.0.1:5273/v1 (foundry2 2.2.1), FOUNDRY_LOCAL_ENDPOINT"
    )


def test_a_server_without_a_version_is_told_without_one() -> None:
    assert told(server=Target("http://h:1/v1", "openai"))["target"] == "http://h:1/v1 (openai), as given"


def test_a_server_that_a_dry_run_does_not_start_has_no_address() -> None:
    found = told(server=Target("", "openai"), how="the simulator, started for the run", dry_run=True)

    assert found["target"] == "(not started), the simulator, started for the run"
    assert found["dry run"] == "nothing was measured, nothing was written"


def test_a_variant_that_is_not_there_is_told_and_that_the_run_goes_on_without_it() -> None:
    assert told(absent=(NO_NPU,))["absent"] == "phi is for CPU, GPU, not for NPU: skipped"


def test_where_all_is_there_nothing_is_said_of_absence() -> None:
    assert "absent" not in told()


def test_the_variable_that_holds_the_key_is_told() -> None:
    assert told(key="API_KEY")["key"] == "from API_KEY"


def test_without_a_key_nothing_is_said_of_one() -> None:
    assert "key" not in told()


def test_of_a_run_that_goes_on_it_is_told_what_is_complete() -> None:
    assert told(done=3)["complete"] == "3 of 4 levels already"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Scenario(concurrency=[1, 4], requests=5), "c1, c4 (streams at once); 5 requests each"),
        (Scenario(request_rate=[0.5]), "r0.5 (requests started per second); 30 requests each"),
        (Scenario(concurrency=[1, 8], repeat_first=False), "c1, c8 (streams at once); 30 to 80 requests each"),
    ],
)
def test_the_loads_are_told_with_what_they_mean_and_when_they_end(asked: Scenario, words: str) -> None:
    assert told(asked=asked)["levels"] == words


def test_several_models_get_the_same_loads() -> None:
    found = told("a", "b")

    assert (found["models"], found["levels"]) == ("a, b", "c1 (streams at once) for each model; 5 requests each")


def test_a_budget_that_leaves_levels_out_says_which() -> None:
    found = told(asked=Scenario(concurrency=[1, 2, 4, 8, 16], duration=Duration(60)), budget_s=30)

    assert "left out: phi@c8, phi@c16, phi@c1#end" in found["budget"].splitlines()
