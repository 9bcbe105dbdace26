"""`loadbench` in this process, as a test types it."""

from __future__ import annotations

import gc
import sys

from click.testing import CliRunner, Result

from loadbench.cli import main

KEY = "sesame-4711-do-not-store"
"""The bearer token of the fixture `locked`."""


def invoke(*words: object, **variables: str) -> Result:
    """`loadbench` in this process. What a run changes in it for speed is undone."""
    kept = sys.getswitchinterval(), gc.get_threshold()
    try:
        return CliRunner(env=variables).invoke(main, [str(word) for word in words], prog_name="loadbench")
    finally:
        sys.setswitchinterval(kept[0])
        gc.set_threshold(*kept[1])
        gc.unfreeze()


def invoked(*words: object, **variables: str) -> Result:
    """The same, where only an exit may end it: what else it raises, is raised here."""
    ended = invoke(*words, **variables)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended
