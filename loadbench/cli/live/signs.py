"""What the live picture's lines are made of: blocks and bars, or plain ASCII where a terminal has no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from loadbench.cli.harmless import harmless

NAME_MOST = 16
"""Widest name of a load."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What lines are made of beside letters.

    Attributes:
        ramp: Of sparklines, from low to high.
        marks: Sign and style of a level by how it stands.
        safe: Makes the text of others harmless, and fit for the terminal's encoding.
    """

    ramp: str = "▁▂▃▄▅▆▇█"
    full: str = "━"
    empty: str = "─"
    cut: str = "…"
    marks: Mapping[str, tuple[str, str]] = field(
        default_factory=lambda: {
            "complete": ("✓", "green"),
            "failed": ("✗", "bold red"),
            "interrupted": ("✗", "yellow"),
            "skipped": ("-", "yellow"),
            "present": ("▸", "bold cyan"),
            "to come": (" ", "dim"),
            "undecided": ("?", "yellow"),
        }
    )
    safe: Callable[[str], str] = harmless


def _ascii(text: str) -> str:
    return harmless(text).encode("ascii", "replace").decode()


BLOCKS = Signs()
ASCII = Signs(
    ramp=".:-=+*#@",
    full="=",
    empty="-",
    cut="~",
    marks={
        "complete": ("+", "green"),
        "failed": ("x", "bold red"),
        "interrupted": ("x", "yellow"),
        "skipped": ("-", "yellow"),
        "present": (">", "bold cyan"),
        "to come": (" ", "dim"),
        "undecided": ("?", "yellow"),
    },
    safe=_ascii,
)


def short(name: str, room: int, cut: str) -> str:
    """A name cut in its middle, so that variants and loads stay told apart.

    >>> short("Phi-4-mini-instruct-cuda-gpu:5@c16", 20, "…")
    'Phi-4-mi…a-gpu:5@c16'
    """
    if cell_len(name) <= room:
        return name
    model, at, load = name.rpartition("@")
    tail = at + load if at and cell_len(load) < room // 2 else ""
    model = model if tail else name
    keep = max(2, room - cell_len(tail) - cell_len(cut))
    head = set_cell_size(model, keep - keep // 2).rstrip()
    end = model
    while cell_len(end) > keep // 2:
        end = end[1:]
    return f"{head}{cut}{end}{tail}"


def append(line: Text, words: Iterable[tuple[str, str]], width: int) -> Text:
    """The line with as many of the words, each with its style, as there is room for; none is cut.

    >>> append(Text("c4"), [("0:12 left", "bold"), ("measuring", ""), ("1 of 9", "")], 26).plain
    'c4  0:12 left, measuring'
    """
    between = "  "
    for word, style in words:
        if line.cell_len + cell_len(between + word) > width:
            break
        line.append(between + word, style)
        between = ", "
    return line
