"""What is asked about first: a large load on somebody else's machine, and models by the dozen that nobody named."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import click

from loadbench import server as targets
from loadbench.cli.harmless import harmless
from loadbench.errors import UsageError
from loadbench.prompts import Prompt
from loadbench.runner.plan import PlannedLevel
from loadbench.scenario import Scenario, Shape
from loadbench.server import Choice, Target
from loadbench.server.choice import some

MOST_STREAMS = 1000
_DOZEN = 12
"""Models that a run takes without a word where the server holds them, or does not tell."""
_LISTED = 40
"""Models, to a person who is to choose."""
MOST_PER_S = 1000.0
"""Requests; of both, what nobody is asked about."""


def ask(urls: Iterable[str], streams: int, per_s: float, given: Mapping[str, Any]) -> None:
    """Ask a person whether such a load is meant, where it is large and goes to another machine.

    Args:
        urls: Of all servers that get it. Those that are started for the run have none, and are on this machine.
        streams, per_s: The most at once, and the most requests started in a second, over all levels.
        given: The command's options: `yes`, `as_json`.
    Raises:
        UsageError: It was not confirmed; or nobody can be asked, and --yes was not given.
    """
    hosts = dict.fromkeys(urlsplit(url).hostname or url for url in urls if url and not targets.is_loopback(url))
    large = [f"{streams:,} streams at once"] * (streams > MOST_STREAMS)
    large += [f"{per_s:,.6g} requests/s"] * (per_s > MOST_PER_S)
    if not hosts or not large or given["yes"]:
        return
    asks = f"up to {' and '.join(large)} on {', '.join(hosts)}"
    if given["as_json"] or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{asks}: that is much for a server on another machine: if it is meant, add --yes")
    if not click.confirm(f"This asks for {asks}; go on?", err=True):
        raise UsageError(f"{asks}: not confirmed, nothing was sent")


def which(server: Target, choice: Choice, asked: Scenario, given: Mapping[str, Any]) -> Choice:
    """What to measure of what is at hand: several models that are not loaded take a word, as each takes its time.

    Args:
        given: The command's options: `models`, `as_json`.
    Raises:
        UsageError: Nobody can be asked which, or the answer names none.
    """
    loaded = [one.facts.loaded if one.facts is not None else None for one in choice.chosen]
    idle = Counter(one.device for one, state in zip(choice.chosen, loaded, strict=True) if state is False)
    few = max(idle.values(), default=0) < 2 and len(choice.chosen) <= _DOZEN
    if asked.models != "auto" or few or takes_all(given):
        return choice
    ids = list(dict.fromkeys(one.id for one in choice.chosen))
    many = f"{server.base_url} has {len(ids)} models" + (", none of them loaded" if idle.total() == len(loaded) else "")
    if given["as_json"] or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{many}: choose with -m, as -m {shlex.quote(ids[0])}, or take all with -m all ({some(ids)})")
    click.echo(f"{many}:", err=True)
    for number, name in enumerate(ids[:_LISTED], start=1):
        click.echo(f"{number:4}  {harmless(name)}", err=True)
    if len(ids) > _LISTED:
        click.echo(f"      and {len(ids) - _LISTED} more", err=True)
    said = str(click.prompt("Which ones (numbers or names, as 1,3, or all)", err=True))
    words = [word.strip() for word in said.split(",") if word.strip()]
    if words == ["all"]:
        return choice
    picked = {ids[int(word) - 1] if word.isdecimal() and 0 < int(word) <= len(ids) else word for word in words}
    if unknown := picked - set(ids):
        raise UsageError(f"{', '.join(sorted(unknown))}: no such model there: choose with -m")
    return replace(choice, chosen=tuple(one for one in choice.chosen if one.id in picked))


def takes_all(given: Mapping[str, Any]) -> bool:
    """Whether all models at hand are meant, by that word."""
    words = given.get("models") or [os.environ.get("BENCH_MODELS", "")]
    return [word.strip().lower() for word in words] == ["all"]


def most(asked: Scenario, levels: Sequence[PlannedLevel], prompts: Sequence[Prompt]) -> tuple[int, float]:
    """The most streams at once, and the most requests started in a second, of a plan's levels.

    In open loop as many streams as the scenario allows by its own word may come to be open; a trace's rate is that of
    its fullest second.
    """
    streams = [one.level.concurrency or 0 for one in levels]
    if asked.max_streams is not None and any(one.level.concurrency is None for one in levels):
        streams.append(asked.max_streams)
    rates = [_peak_per_s(one, prompts) for one in levels]
    return max(streams, default=0), max(rates, default=0.0)


def _peak_per_s(one: PlannedLevel, prompts: Sequence[Prompt]) -> float:
    level = one.level
    if level.is_replay:
        return _fullest_second([prompt.at_s for prompt in prompts if prompt.at_s is not None])
    if level.shape is not None:
        return Shape.parse(level.shape).peak_per_s
    return level.request_rate_per_s or 0.0


def _fullest_second(at_s: Sequence[float]) -> int:
    """How many of the ascending moments lie within one second, at most.

    >>> _fullest_second([0.0, 0.5, 0.9, 1.4, 1.6])
    3
    """
    found = first = 0
    for number, moment in enumerate(at_s):
        while moment - at_s[first] >= 1:
            first += 1
        found = max(found, number - first + 1)
    return found
