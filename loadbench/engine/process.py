"""What the process that measures does so as not to stand in its own way."""

from __future__ import annotations

import gc
import importlib.util
import sys


def has_uvloop() -> bool:
    """Whether the event loop that measures best is here: it is not on Windows."""
    return importlib.util.find_spec("uvloop") is not None


def hold_collector() -> None:
    """Hold the collector of garbage back: what is alive now need not be looked at while tokens arrive."""
    gc.unfreeze()  # what levels before were made of is in circles
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def share_the_interpreter() -> None:
    """A thread that draws, writes or answers calls holds up the reader for a millisecond at most."""
    sys.setswitchinterval(0.001)
