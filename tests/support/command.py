"""`loadbench` in this process, as a test types it."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from loadbench.cli import main

OURS = ("LOADBENCH_", "BENCH_", "FOUNDRY_", "RETRY_", "API_KEY")
"""How the names of the variables begin that a command reads."""
BRIEF = ("-c", "1", "-n", "2", "--warmup", "0", "--max-tokens", "4")
"""A run of some milliseconds."""
KEY = "sesame-4711-do-not-store"
"""The bearer token of the fixture `locked`."""


def invoke(*words: object, **variables: str) -> Result:
    """`loadbench` in this process."""
    return CliRunner(env=variables).invoke(main, [str(word) for word in words], prog_name="loadbench")


def invoked(*words: object, **variables: str) -> Result:
    """The same, where only an exit may end it: what else it raises, is raised here."""
    ended = invoke(*words, **variables)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended


def run(*words: object, **variables: str) -> Result:
    """`loadbench run` in this process; only its own exits are let through, so that no traceback hides in a code."""
    return invoked("run", *words, **variables)


def models(*words: object, **variables: str) -> Result:
    """`loadbench models` in this process; only its own exits are let through."""
    return invoked("models", *words, **variables)


def files(folder: Path) -> set[str]:
    """All files under a folder, by their paths in it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
