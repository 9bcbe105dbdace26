"""What went wrong in code that is not ours, in one line."""

from __future__ import annotations

import traceback
from pathlib import Path

FAILURES = (Exception, SystemExit)
"""What an adapter's code may raise; a script made into one likes to call sys.exit."""

_OURS = Path(__file__).parent


def told(error: BaseException) -> str:
    """Kind, message and place: the deepest line within the adapter's own file, not one of a library beneath it.

    >>> told(ValueError("no such\\n  layer"))
    'ValueError: no such layer'
    """
    said = " ".join(str(error).split())[:300]
    places = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith("<frozen ")
        and Path(frame.f_code.co_filename).parent != _OURS
        # below importlib, which we call to find the adapter, only its own lines are of use
        and frame.f_globals.get("__name__", "").partition(".")[0] != "importlib"
    ]
    line = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if not places:
        return line
    own = places[0][0]
    deepest = [number for name, number in places if name == own][-1]
    return f"{line} ({Path(own).name}:{deepest})"
