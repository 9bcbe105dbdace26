"""A command on a terminal: what a person sees of it, and types."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

ROOT = Path(__file__).parents[1]
_OWN = """import fcntl, runpy, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module('loadbench', run_name='__main__')"""
"""Makes the terminal the process's own, so that Ctrl-C reaches it."""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(*words: object, typed: str = "", columns: int = 100, until: str | None = None) -> tuple[int, str]:
    """`loadbench` as a process on a terminal of its own: its exit code and the text on the screen, without colours.

    Args:
        typed: What the person types at once.
        until: Ctrl-C is pressed when this is on the screen.
    """
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    command = [sys.executable, "-c", _OWN, *map(str, words)]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    seen = b""
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:  # Linux's word for: nobody has the terminal any more
            break
        if not read:
            break
        seen += read
        if until is not None and until.encode() in seen:
            os.write(ours, b"\x03")
            until = None
    os.close(ours)
    return process.wait(), _ESCAPES.sub("", seen.decode()).replace("\r", "")
