"""Run a module or a script as `python` would, its interpreter held up 50 ms of each second, as by a slow library."""

from __future__ import annotations

import ctypes
import runpy
import sys
import threading
import time

HELD_US = 50_000
EACH_S = 1.0


def _hold() -> None:
    sleep = ctypes.PyDLL(None).usleep  # called with the interpreter's lock, which a PyDLL keeps
    while True:
        time.sleep(EACH_S - HELD_US / 1e6)
        sleep(HELD_US)


if __name__ == "__main__":
    threading.Thread(target=_hold, daemon=True).start()
    del sys.argv[0], sys.path[0]
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
