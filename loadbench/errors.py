"""The errors that mean "no run". A failed request is data (record.py), never an exception.

    LoadbenchError               exit 1: target or machine unusable
    ├── TargetError              the endpoint does not answer, wants a key, has no such model
    ├── StoreError               the run folder cannot be written or read
    └── UsageError               exit 2: arguments or input files
        └── ScenarioError        a scenario, prompts or trace file: names the file and the path in it

Each message is one line that says what, which value, and what to do.
"""

from pathlib import Path


class LoadbenchError(Exception):
    """Base of all: the target or this machine is unusable."""

    exit_code = 1


class TargetError(LoadbenchError):
    """The endpoint does not answer, does not speak the protocol, wants a key or lacks the model."""


class StoreError(LoadbenchError):
    """The run folder cannot be written or read."""


class UsageError(LoadbenchError):
    """An argument or an input file is wrong."""

    exit_code = 2


class ScenarioError(UsageError):
    """A scenario, prompts or trace file is wrong; the message names the file and the path in it."""


def how_to_install(*extras: str) -> str:
    """How to get optional parts, for the end of a message: by `make` in a clone, else by the packages themselves.

    Not by `pip install loadbench[…]`: no package of that name is published.

    >>> how_to_install("llama")
    '`make setup` or `pip install -e ".[llama]"` in the clone of loadbench'
    """
    if (Path(__file__).parents[1] / "Makefile").is_file():
        return f'`make setup` or `pip install -e ".[{",".join(extras)}]"` in the clone of loadbench'
    from importlib.metadata import requires

    packages = []
    for requirement in requires("loadbench") or ():
        package, _, marker = requirement.partition(";")
        if marker.rpartition("extra == ")[2].strip("'\" ") in extras:
            packages.append(f'"{package.strip()}"')
    return f"`pip install {' '.join(packages)}`"


FAILED = 3
"""Exit code of a run whose threshold failed; with --strict also of one that nobody can judge. Of a search: not even the
lowest load surely meets the SLO."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""
