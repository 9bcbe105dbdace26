"""Terminals: a command on one, with what a person sees and types; and one that shows what would be seen."""

from __future__ import annotations

import codecs
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from fcntl import ioctl
from pathlib import Path

ROOT = Path(__file__).parents[2]
_OWN = """import fcntl, runpy, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module('loadbench', run_name='__main__')"""
"""Makes the terminal the process's own, so that Ctrl-C reaches it."""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(
    *words: object,
    typed: str = "",
    columns: int = 100,
    until: str | None = None,
    narrowed: tuple[str, int] | None = None,
    variables: Mapping[str, str] | None = None,
    glass: Glass | None = None,
) -> tuple[int, str]:
    """`loadbench` as a process on a terminal of its own: its exit code and the text on the screen, without colours.

    Args:
        typed: What the person types at once.
        until: Ctrl-C is pressed when this is on the screen.
        narrowed: When this is on the screen, the terminal gets so many columns.
        variables: Of the environment.
        glass: Is written to as the terminal is; of as many columns.
    """
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **(variables or {})}
    environment.pop("COLUMNS", None)
    command = [sys.executable, "-c", _OWN, *map(str, words)]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    seen, signs = b"", codecs.getincrementaldecoder("utf-8")()
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:  # Linux's word for: nobody has the terminal any more
            break
        if not read:
            break
        seen += read
        if glass is not None:
            glass.write(signs.decode(read))
        if until is not None and until.encode() in seen:
            os.write(ours, b"\x03")
            until = None
        if narrowed is not None and narrowed[0].encode() in seen:
            ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, narrowed[1], 0, 0))
            if glass is not None:
                glass.resize(narrowed[1])
            narrowed = None
    os.close(ours)
    return process.wait(), _ESCAPES.sub("", seen.decode()).replace("\r", "")


class Glass:
    """A terminal that shows what is written to it, and wraps its lines anew when its width changes, as most do.

    It knows what a live picture uses: new lines, cursor up, erasing a line. Every sign is one column wide.
    """

    def __init__(self, columns: int, height: int = 24) -> None:
        self.columns, self.height = columns, height
        self._rows = [""]
        self._goes_on = [False]  # whether a row goes on with the line of the row before
        self._row = self._column = 0

    @property
    def rows(self) -> list[str]:
        """All rows, those that scrolled away too."""
        return [row.rstrip() for row in self._rows]

    def write(self, text: str) -> None:
        """Show text with its control sequences."""
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", text):
            if part == "\r":
                self._column = 0
            elif part == "\n":
                self._to_row(self._row + 1, goes_on=False)
                self._column = 0
            elif part.startswith("\x1b"):
                self._control(part)
            else:
                self._put(part)

    def resize(self, columns: int) -> None:
        """Change the width: lines are wrapped anew, the cursor stays where it was in its line."""
        lines: list[str] = []
        cursor = (0, 0)
        for number, (row, goes_on) in enumerate(zip(self._rows, self._goes_on, strict=True)):
            if goes_on:
                lines[-1] = lines[-1].ljust(-(-len(lines[-1]) // self.columns) * self.columns) + row
            else:
                lines.append(row)
            if number == self._row:
                cursor = (len(lines) - 1, len(lines[-1]) - len(row) + self._column)
        self.columns, self._rows, self._goes_on = columns, [], []
        for number, line in enumerate(lines):
            pieces = [line[at : at + columns] for at in range(0, max(len(line), 1), columns)]
            if number == cursor[0]:
                at = min(cursor[1] // columns, len(pieces) - 1)
                self._row, self._column = len(self._rows) + at, cursor[1] - at * columns
            self._rows += pieces
            self._goes_on += [piece > 0 for piece in range(len(pieces))]

    def _control(self, sequence: str) -> None:
        number, kind = sequence[2:-1], sequence[-1]
        if kind == "A":
            self._row = max(0, len(self._rows) - self.height, self._row - int(number or 1))
        elif kind == "K":
            self._rows[self._row], self._goes_on[self._row] = "", False
        elif kind not in "mhl":
            raise AssertionError(f"a control sequence that Glass does not know: {sequence!r}")

    def _put(self, sign: str) -> None:
        if self._column == self.columns:
            self._to_row(self._row + 1, goes_on=True)
            self._column = 0
        row = self._rows[self._row].ljust(self._column)
        self._rows[self._row] = row[: self._column] + sign + row[self._column + 1 :]
        self._column += 1

    def _to_row(self, row: int, *, goes_on: bool) -> None:
        self._row = row
        if row == len(self._rows):
            self._rows.append("")
            self._goes_on.append(False)
        self._goes_on[row] = goes_on
