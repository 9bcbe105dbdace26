"""What the script `loadbench` and `python -m loadbench` start: signals are heard before anything is imported."""

import os
import signal
import sys
from types import FrameType


def start() -> None:
    """Run the command line. Ctrl-C and SIGTERM end it with one line from the first moment on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _end)
    try:
        from loadbench.cli import main
    except (ImportError, MemoryError, OSError) as error:
        sys.exit(f"loadbench: cannot start: {' '.join(str(error).split())[:300] or 'not enough memory'}")
    main()


def _end(number: int, frame: FrameType | None) -> None:
    # Nothing is open yet, and an exception here would be a traceback of whatever is being imported.
    try:
        os.write(2, b"loadbench: interrupted\n")
    finally:
        os._exit(130)


if __name__ == "__main__":
    start()
