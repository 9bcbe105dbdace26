"""The examples in the docstrings: all of the package run, and what people call from Python has some."""

import doctest
import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path

import pytest

import loadbench

EXAMPLE = re.compile(r"^ *>>> ", re.MULTILINE)


def unfit(name: str) -> None:
    raise ImportError(f"{name} cannot be imported")


def examples() -> dict[str, int]:
    """How many examples the source of each module shows, by its name; modules without any are left out."""
    shown = {}
    for module in pkgutil.walk_packages(loadbench.__path__, "loadbench.", onerror=unfit):
        spec = importlib.util.find_spec(module.name)
        assert spec is not None
        assert spec.origin is not None
        if not spec.origin.endswith(".py"):  # compiled
            continue
        if count := len(EXAMPLE.findall(Path(spec.origin).read_text(encoding="utf-8"))):
            shown[module.name] = count
    return shown


SHOWN = examples()


@pytest.mark.parametrize("name", SHOWN)
def test_every_example_of_a_module_runs(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))

    # A docstring that doctest does not find, as one under a variable, shows an example that nobody holds.
    assert (found.failed, found.attempted) == (0, SHOWN[name])


@pytest.mark.parametrize("room", ["loadbench.stats", "loadbench.metrics", "loadbench.store"])
def test_what_people_call_from_python_shows_an_example(room: str) -> None:
    assert any(name == room or name.startswith(f"{room}.") for name in SHOWN)
