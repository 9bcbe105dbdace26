"""The program: the script `loadbench`, and `python -m loadbench` where that is not on the PATH."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Run the command line. Ctrl-C and SIGTERM end it with one line from the first moment on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as of a job that a shell put into the background
            signal.signal(number, _leave)
    try:
        from loadbench.cli import main as command
    except (ImportError, MemoryError, OSError) as error:
        sys.exit(f"loadbench: cannot start: {' '.join(str(error).split())[:300] or 'not enough memory'}")
    command()


def _leave(number: int, frame: FrameType | None) -> None:
    # Nothing is open yet, and an exception here would be a traceback of whatever is being imported.
    try:
        os.write(2, b"loadbench: interrupted\n")
    finally:
        os._exit(INTERRUPTED)


if __name__ == "__main__":
    # Python puts the working folder first for `-m`: a json.py there would be imported in place of the library.
    if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
        del sys.path[0]
    main()
