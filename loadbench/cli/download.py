"""`loadbench models pull`: downloads that are watched, tried again, and leave no half model behind."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Self

import anyio
import anyio.from_thread
import anyio.to_thread
import click
from rich import progress as bars
from rich.console import Console
from rich.markup import escape

from loadbench.cli.catalogue import Options, choose, empty, failed, on_server_or_sdk, say
from loadbench.cli.surroundings import data, note
from loadbench.errors import LoadbenchError
from loadbench.serve.foundry import Runtime
from loadbench.server import VENDORS, Http, ModelFacts, NotReady, Target
from loadbench.server.vendor import Progress
from loadbench.text import harmless, size, span

TRIES = 4
BACKOFF_S = 2.0  # before the second try; doubles with each
CANCEL_S = 10.0  # how long the SDK gets to clear away what it has, once it should stop
STEP = 10  # per cent between two lines of progress

Fetch = Callable[[Progress], Awaitable[None]]


def pull(options: Options) -> bool:
    """Download the models; whether all are there now."""
    return on_server_or_sdk(options, "downloads", _to_server, _by_sdk)


async def _to_server(server: Target, http: Http, options: Options) -> bool:
    on_disk = {facts.id.lower(): facts for facts in server.models if facts.cached}
    ok = True
    for name in options.names:
        there = on_disk.get(name.lower()) or on_disk.get(f"{name}:latest".lower())
        if there is not None:
            _pulled(there, None, options)
        else:
            fetch = partial(VENDORS[server.kind].pull, server, http, name)
            ok = await _download(ModelFacts(name), partial(persist, fetch), options) and ok
    return ok


async def _by_sdk(runtime: Runtime, target: Target, options: Options) -> bool:
    """Download with Foundry Local's SDK the variants that devices and execution provider choose."""
    if not target.models:
        raise LoadbenchError(empty(target))
    models, ok = choose(target, options)
    for facts in models:
        if facts.cached:
            _pulled(facts, None, options)
            continue
        try:
            check_space(facts, options.cache)
        except LoadbenchError as error:
            ok = failed(facts.id, error, options)
        else:
            ok = await _download(facts, partial(by_sdk, runtime, facts.id), options) and ok
    return ok


def check_space(facts: ModelFacts, folder: Path, free: Callable[[Path], int] | None = None) -> None:
    """Refuse a model that the disk of a folder, which need not be there yet, has no room for."""
    there = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    free_bytes = shutil.disk_usage(there).free if free is None else free(there)
    if facts.size_bytes is not None and facts.size_bytes > free_bytes:
        raise LoadbenchError(
            f"needs {size(facts.size_bytes)}, but the disk of {folder} has {size(free_bytes)} free: make room "
            "(`loadbench models remove NAME`), or name a folder elsewhere with --cache-dir"
        )


async def by_sdk(runtime: Runtime, model: str, shown: Shown) -> None:
    """The SDK's download, in a thread, which itself tries again; on Ctrl-C it is stopped, and waited for."""
    cancelled, ended = threading.Event(), anyio.Event()

    def work() -> None:
        try:
            runtime.pull(model, lambda percent: anyio.from_thread.run_sync(shown.at, percent, ""), cancelled)
        finally:
            anyio.from_thread.run_sync(ended.set)

    try:
        await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    except anyio.get_cancelled_exc_class():
        cancelled.set()
        with anyio.move_on_after(CANCEL_S, shield=True):
            await ended.wait()
        raise


async def persist(
    fetch: Fetch, shown: Shown, *, tries: int = TRIES, sleep: Callable[[float], Awaitable[None]] = anyio.sleep
) -> None:
    """A download that is begun again, after a growing pause, where it stalls or breaks off.

    Args:
        fetch: Goes on from what is there; raises NotReady where another try may help.
    """
    for attempt in range(1, tries + 1):
        try:
            await fetch(shown.at)
        except NotReady as error:
            if attempt == tries:
                raise LoadbenchError(f"{error}; given up after {tries} tries: try later") from error
            pause_s = BACKOFF_S * 2 ** (attempt - 1)
            shown.note(f"{error}; trying again in {pause_s:g} s ({attempt + 1} of {tries})")
            await sleep(pause_s)
        else:
            return


async def _download(facts: ModelFacts, work: Callable[[Shown], Awaitable[None]], options: Options) -> bool:
    """One model, shown as it comes; whether it is there now."""
    began_s = time.monotonic()
    try:
        with Shown(facts, as_json=options.as_json) as shown:
            await work(shown)
    except LoadbenchError as error:
        return failed(facts.id, error, options)
    took_s = round(time.monotonic() - began_s, 3)
    _pulled(facts, took_s, options)
    return True


def _pulled(facts: ModelFacts, took_s: float | None, options: Options) -> None:
    """Report that a model is there; `took_s` is None where it was before."""
    words = "there already" if took_s is None else f"pulled in {span(took_s * 1000)}"
    document = {
        "event": "pulled",
        "model": facts.id,
        "already": took_s is None,
        "size_bytes": facts.size_bytes,
        "took_s": took_s,
    }
    say(document, f"{facts.id}: {words}", options)


# -- how a download goes


class Shown:
    """Shows how a download goes: JSON lines on stdout, a bar on a terminal, else plain lines on stderr."""

    def __init__(self, facts: ModelFacts, *, as_json: bool, now_s: Callable[[], float] = time.monotonic) -> None:
        self._facts, self._as_json, self._now_s = facts, as_json, now_s
        self._began: tuple[float, float] | None = None  # when and at which per cent it was seen first
        self._next = 0.0
        self._last: tuple[int | None, str] = (None, "")
        self._words = ""
        self._bar: bars.Progress | None = None
        if not as_json and sys.stderr.isatty():
            self._bar = bars.Progress(
                bars.TextColumn("{task.description}"),
                bars.BarColumn(),
                bars.DownloadColumn() if facts.size_bytes else bars.TaskProgressColumn(),
                bars.TimeRemainingColumn(),
                bars.TextColumn("{task.fields[words]}"),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(escape(harmless(facts.id)), total=None, words="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def at(self, percent: float | None, words: str) -> None:
        """It has come so far, of 100; None where that is not known. `words` say what is being done, if anything."""
        if self._as_json:
            now = None if percent is None else int(percent), words
            if now != self._last:
                self._last = now
                self._event("progress", percent=percent, words=words or None)
        elif self._bar is not None:
            text = escape(harmless(words))
            if percent is None:
                self._bar.update(self._task, words=text)
            else:
                whole = self._facts.size_bytes or 100
                self._bar.update(self._task, total=whole, completed=whole * percent / 100, words=text)
        elif percent is not None:
            self._line(percent)
        elif words and words != self._words:
            self._words = words
            note(f"{self._facts.id}: {words}")

    def _line(self, percent: float) -> None:
        """A line each STEP per cent, with the time left as the speed so far has it."""
        began_s, began = self._began = self._began or (self._now_s(), percent)
        if percent < self._next:
            return
        self._next = (percent // STEP + 1) * STEP
        text = f"{percent:.0f} %"
        if (whole := self._facts.size_bytes) is not None:
            text += f" ({size(whole * percent / 100)} of {size(whole)})"
        took_s = self._now_s() - began_s
        if began < percent < 100 and took_s > 0:
            minutes, seconds = divmod(round(took_s * (100 - percent) / (percent - began)), 60)
            text += f", about {minutes}:{seconds:02} left"
        note(f"{self._facts.id}: {text}")

    def note(self, text: str) -> None:
        """Something happened that a person should know."""
        if self._as_json:
            self._event("note", text=text)
        elif self._bar is not None:
            self._bar.console.print(harmless(text), style="yellow", markup=False)
        else:
            self._began, self._next = None, 0.0  # another try begins
            note(f"{self._facts.id}: {text}")

    def _event(self, event: str, **fields: object) -> None:
        click.echo(data({"event": event, "model": self._facts.id, **fields}))
