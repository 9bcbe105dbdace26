"""How a download goes: a bar to a person, a line each 10 % to a pipe, JSON lines to a program."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click

from loadbench.cli.harmless import data, harmless
from loadbench.server import ModelFacts
from loadbench.text import size

STEP = 10
"""Per cent between two lines."""


class View(Protocol):
    """Who is shown how a download goes."""

    def at(self, percent: float | None, words: str) -> None:
        """It has come so far, of 100; None where that is not known. `words` say what is being done, if anything."""

    def told(self, text: str) -> None:
        """Something happened that a person should know."""


@contextmanager
def view(facts: ModelFacts, *, as_json: bool) -> Iterator[View]:
    """The view for this user: `--json`, a terminal, or a pipe."""
    if as_json:
        yield JsonLines(facts.id)
    elif sys.stderr.isatty():
        with Bar(facts) as bar:
            yield bar
    else:
        yield Lines(facts)


class JsonLines:
    """An object a line on stdout, each with its `event`; progress once per whole per cent."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._last: tuple[int | None, str] = (None, "")

    def at(self, percent: float | None, words: str) -> None:
        now = None if percent is None else int(percent), words
        if now != self._last:
            self._last = now
            self._say("progress", percent=percent, words=words or None)

    def told(self, text: str) -> None:
        self._say("note", text=text)

    def _say(self, event: str, **fields: Any) -> None:
        click.echo(data({"event": event, "model": self._model, **fields}))


class Lines:
    """Plain lines on stderr."""

    def __init__(self, facts: ModelFacts, now_s: Callable[[], float] = time.monotonic) -> None:
        self._facts, self._now_s = facts, now_s
        self._began: tuple[float, float] | None = None  # when and at which per cent it was seen first
        self._next = 0.0
        self._words = ""

    def at(self, percent: float | None, words: str) -> None:
        if percent is None:
            if words and words != self._words:
                self._words = words
                self._say(words)
            return
        self._began = self._began or (self._now_s(), percent)
        if percent < self._next:
            return
        self._next = (percent // STEP + 1) * STEP
        self._say(", ".join(filter(None, (f"{percent:.0f} %{self._amount(percent)}", self._left(percent)))))

    def told(self, text: str) -> None:
        self._began, self._next = None, 0.0
        self._say(text)

    def _amount(self, percent: float) -> str:
        whole = self._facts.size_bytes
        return "" if whole is None else f" ({size(whole * percent / 100)} of {size(whole)})"

    def _left(self, percent: float) -> str:
        began_s, began = self._began or (0.0, 0.0)
        took_s = self._now_s() - began_s
        if not began < percent < 100 or took_s <= 0:
            return ""
        minutes, seconds = divmod(round(took_s * (100 - percent) / (percent - began)), 60)
        return f"about {minutes}:{seconds:02} left"

    def _say(self, text: str) -> None:
        click.echo(f"{harmless(self._facts.id)}: {harmless(text)}", err=True)


class Bar:
    """A bar on the terminal, with megabytes and the time left."""

    def __init__(self, facts: ModelFacts) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        amount = DownloadColumn() if facts.size_bytes else TaskProgressColumn()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            amount,
            TimeRemainingColumn(),
            TextColumn("{task.fields[words]}"),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._whole = facts.size_bytes or 100
        self._task = self._progress.add_task(escape(harmless(facts.id)), total=None, words="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def at(self, percent: float | None, words: str) -> None:
        from rich.markup import escape

        shown: dict[str, Any] = {"words": escape(harmless(words))}
        if percent is None:
            self._progress.update(self._task, **shown)
        else:
            self._progress.update(self._task, total=self._whole, completed=self._whole * percent / 100, **shown)

    def told(self, text: str) -> None:
        self._progress.console.print(harmless(text), style="yellow", markup=False)
