"""Models at hand that nobody named: which of them a run measures, and where it asks or stops first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadbench.runner.job import Job
from loadbench.runner.measure import Person, which
from loadbench.server import Choice, Chosen, ModelFacts, Target
from loadbench.server.facts import MOST_CHARACTERS, MOST_MODELS
from tests.support.catalogues import Service, serving
from tests.support.command import invoked
from tests.support.gateways import NOT_FOUND, Answered, Asked, Law, chat, gateway, listed
from tests.support.terminals import on_terminal

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("place")]
DRY = ("-c", "1,4,16", "--dry-run")
IDLE = [f"model{number}:latest" for number in range(12)]


@pytest.fixture
def ollama() -> Iterator[Service]:
    with serving("ollama", rows={name: {} for name in IDLE}) as service:
        yield service


def test_a_dozen_models_that_are_not_loaded_are_not_measured_without_a_word(ollama: Service) -> None:
    done = invoked("run", "-e", ollama.url, *DRY)

    assert invoked("run", "-e", ollama.url, "-m", "auto", *DRY).exit_code == 2
    assert done.exit_code == 2
    assert done.stderr == (
        f"loadbench: {ollama.url}/v1 has 12 models, none of them loaded: choose with -m, as -m model0:latest, or take "
        f"all with -m all ({', '.join(IDLE[:5])} and 7 more)\n"
    )


@pytest.mark.parametrize(
    ("words", "names", "loaded", "models"),
    [
        (("-m", "all"), IDLE, set(), ", ".join(IDLE)),
        ((), IDLE, {IDLE[3]}, IDLE[3]),  # beside idle ones
        ((), ["one:latest"], set(), "one:latest"),
    ],
    ids=["all, by that word", "the one that is loaded", "a single one"],
)
def test_these_are_measured(words: tuple[str, ...], names: list[str], loaded: set[str], models: str) -> None:
    with serving("ollama", rows={name: {} for name in names}, loaded=loaded) as service:
        done = invoked("run", "-e", service.url, *words, *DRY)

    assert done.exit_code == 0
    assert f"models    {models}\n" in done.stderr


@pytest.mark.parametrize(
    ("typed", "exit_code", "said"),
    [
        ("2\n", 0, "models    model1:latest"),
        ("3, model0:latest\n", 0, "models    model0:latest, model2:latest"),
        ("all\n", 0, f"models    {', '.join(IDLE)}"),
        ("99\n", 2, "99: no such model there: choose with -m"),
    ],
)
def test_a_person_is_asked_which(ollama: Service, typed: str, exit_code: int, said: str) -> None:
    code, screen = on_terminal("run", "-e", ollama.url, *DRY, typed=typed, columns=200)

    assert code == exit_code
    assert "   2  model1:latest" in screen
    assert said in screen


def chosen(*loaded: bool | None, device: str | None = None) -> Choice:
    return Choice(
        tuple(Chosen(f"m{n}", f"m{n}", ModelFacts(f"m{n}", loaded=one), device) for n, one in enumerate(loaded))
    )


@pytest.mark.parametrize("loaded", [(True,) * 12, (None,) * 12, (False,), (True, False)])
def test_what_is_loaded_or_does_not_tell_is_measured_up_to_a_dozen(loaded: tuple[bool | None, ...]) -> None:
    choice = chosen(*loaded)

    assert which(Target("http://h/v1", "openai"), choice, Job(), Person()) is choice


def test_a_variant_for_each_device_is_what_was_asked_for() -> None:
    choice = Choice((*chosen(False, device="CPU").chosen, *chosen(False, device="GPU").chosen))

    assert which(Target("http://h/v1", "foundry2"), choice, Job(), Person())


# -- long lists, long names


def lists(*names: str) -> Law:
    def law(asked: Asked) -> Answered:
        if asked.method == "POST":
            return chat("A", "B")
        return listed(*names) if asked.path == "/v1/models" else NOT_FOUND

    return law


def test_a_list_without_end_is_refused_in_a_line() -> None:
    with gateway(lists(*(f"m{number}" for number in range(MOST_MODELS + 1)))) as server:
        done = invoked("run", "-e", server.url, "-m", "auto", "--dry-run")

    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "lists 5,001 models, and 5,000 are read" in done.stderr


def test_a_list_of_many_that_do_not_tell_what_is_loaded_is_asked_about() -> None:
    with gateway(lists(*(f"m{number}" for number in range(100)))) as server:
        done = invoked("run", "-e", server.url, "-m", "auto", "--dry-run")

    assert done.exit_code == 2
    assert "has 100 models: choose with -m" in done.stderr


def test_a_name_without_end_is_no_model() -> None:
    with gateway(lists("m" * (MOST_CHARACTERS + 1), "short")) as server:
        done = invoked("run", "-e", server.url, "--dry-run")

    assert done.exit_code == 0
    assert "models    short\n" in done.stderr
