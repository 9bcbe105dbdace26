"""`loadbench models pull`: downloads that are watched, tried again, and leave no half model behind."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.to_thread

from loadbench.cli import reach
from loadbench.cli.models import catalogue, outcome
from loadbench.cli.models.progress import View, view
from loadbench.errors import LoadbenchError
from loadbench.server import VENDORS, Found, ModelFacts, NotReady, Target
from loadbench.text import size, span

if TYPE_CHECKING:
    from loadbench.serve.foundry import Runtime

STALL_S = 120.0
"""Without progress for so long, a try is given up."""
TRIES = 4
BACKOFF_S = 2.0
"""Before the second try; doubles with each."""
CANCEL_S = 10.0
"""How long the SDK gets to clear away what it has, once it is told to stop."""

Moved = Callable[[float | None, str], None]
Fetch = Callable[[Moved], Awaitable[None]]


def pull(given: dict[str, Any]) -> bool:
    """Download the models; whether all are there now.

    Raises:
        LoadbenchError: Neither server nor SDK downloads models here.
    """
    found, why = reach.found(given), "no server was named or found"
    if found is not None:
        pulled = anyio.run(_from_server, found, given)
        if pulled is not None:
            return pulled
        why = f"the service at {found.endpoint} downloads nothing over HTTP"
    with reach.sdk(given, why) as runtime:
        return anyio.run(_from_sdk, runtime, reach.listed(runtime, given), given)


async def _from_server(found: Found, given: dict[str, Any]) -> bool | None:
    """Download onto a server; None where one that was found leaves that to the SDK."""
    async with reach.server(found, given) as (server, http):
        if VENDORS[server.kind].lists_catalogue and given["endpoint"] is None:
            return None
        reach.tell(server, found.how, given)
        ok = True
        for name in given["names"]:
            there = _there(server, name)
            if there is not None:
                _already(there, given)
            else:
                fetch = partial(VENDORS[server.kind].pull, server, http, name)
                ok = await _download(ModelFacts(name), partial(persist, fetch), given) and ok
        return ok


def _there(server: Target, name: str) -> ModelFacts | None:
    """The model of this name, where the server has it on its disk."""
    names = {name.lower(), f"{name}:latest".lower()}
    return next((facts for facts in server.models if facts.cached and facts.id.lower() in names), None)


async def _from_sdk(runtime: Runtime, listed: Target, given: dict[str, Any]) -> bool:
    """Download with Foundry Local's SDK, the variants that devices and execution provider choose."""
    if not listed.models:
        raise LoadbenchError(catalogue.empty(listed))
    chosen, ok = outcome.chosen(listed, given)
    for facts in chosen:
        if facts.cached:
            _already(facts, given)
            continue
        try:
            check_space(facts, reach.cache(given))
        except LoadbenchError as error:
            ok = outcome.failed(facts.id, error, given)
        else:
            ok = await _download(facts, partial(by_sdk, runtime, facts.id), given) and ok
    return ok


def check_space(facts: ModelFacts, folder: Path, free: Callable[[Path], int] | None = None) -> None:
    """Refuse a model that the disk of a folder, which need not be there yet, has no room for.

    Raises:
        LoadbenchError: It has not.
    """
    there = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    free_bytes = shutil.disk_usage(there).free if free is None else free(there)
    if facts.size_bytes is not None and facts.size_bytes > free_bytes:
        raise LoadbenchError(
            f"needs {size(facts.size_bytes)}, but the disk of {folder} has {size(free_bytes)} free: make room "
            "(`loadbench models remove NAME`), or name a folder elsewhere with --cache-dir"
        )


async def by_sdk(runtime: Runtime, model: str, shown: View) -> None:
    """The SDK's download, in a thread, which itself tries again; on Ctrl-C it is told to end, and waited for.

    Raises:
        LoadbenchError: It failed.
    """
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
    fetch: Fetch,
    shown: View,
    *,
    stall_s: float = STALL_S,
    tries: int = TRIES,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> None:
    """A download that is begun again, after a growing pause, where it stalls or breaks off.

    Args:
        fetch: Goes on from what it has; raises NotReady where another try may help.
        stall_s: Progress that stands still for so long is a stall; some servers repeat it then.
    Raises:
        LoadbenchError: Another try would not help, or none did.
    """
    for attempt in range(1, tries + 1):
        last: tuple[float | None, str] = (None, "")
        with anyio.move_on_after(stall_s) as scope:

            def moved(percent: float | None, words: str) -> None:
                nonlocal last
                if (percent, words) != last:
                    scope.deadline = anyio.current_time() + stall_s
                    last = percent, words
                    shown.at(percent, words)

            try:
                await fetch(moved)
            except NotReady as error:
                failure: LoadbenchError = error
            else:
                return
        if scope.cancelled_caught:
            at = "" if last[0] is None else f" at {last[0]:.0f} %"
            failure = NotReady(f"the download stalled{at}: nothing came for {stall_s:g} s")
        if attempt == tries:
            raise LoadbenchError(f"{failure}; given up after {tries} tries: try later")
        pause_s = BACKOFF_S * 2 ** (attempt - 1)
        shown.told(f"{failure}; trying again in {pause_s:g} s ({attempt + 1} of {tries})")
        await sleep(pause_s)


async def _download(facts: ModelFacts, work: Callable[[View], Awaitable[None]], given: dict[str, Any]) -> bool:
    """One model, shown as it comes; whether it is there now."""
    began_s = time.monotonic()
    try:
        with view(facts, as_json=given["as_json"]) as shown:
            await work(shown)
    except LoadbenchError as error:
        return outcome.failed(facts.id, error, given)
    took_s = round(time.monotonic() - began_s, 3)
    said = {"event": "pulled", "model": facts.id, "already": False, "size_bytes": facts.size_bytes, "took_s": took_s}
    outcome.say(said, f"{facts.id}: pulled in {span(took_s * 1000)}", given)
    return True


def _already(facts: ModelFacts, given: dict[str, Any]) -> None:
    said = {"event": "pulled", "model": facts.id, "already": True, "size_bytes": facts.size_bytes, "took_s": None}
    outcome.say(said, f"{facts.id}: there already", given)
