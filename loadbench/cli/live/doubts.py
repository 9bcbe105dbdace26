"""What goes wrong while a run goes on, level by level: failures, a client without a core, heat, other load."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loadbench.cli.live.words import failures
from loadbench.metrics import gates, machine
from loadbench.store.schema import ScenarioFacts
from loadbench.store.summary import Finding, Level

if TYPE_CHECKING:
    from loadbench.engine import Progress

_LOOK_EVERY = 4  # ticks


class Doubts:
    """What is to be seen of each level, in the order it came up; the report says it all again, with more exactness."""

    def __init__(self) -> None:
        self._requests: dict[str, str] = {}  # by level
        self._others: dict[str, tuple[str, str]] = {}  # by what it is about: of the level at which it was seen last
        self._first: Mapping[str, Any] | None = None
        self._last: Mapping[str, Any] | None = None
        self._level = ""
        self._ticks = 0

    def sampled(self, sample: Mapping[str, Any]) -> None:
        """Keep a sample of server and machine; looked at with the next tick."""
        self._last = sample

    def look(self, progress: Progress, *, last: bool = False) -> None:
        """See what there is to see now.

        Args:
            last: The level is over: what is looked at now and then only is looked at too.
        """
        level = progress.level.id
        if level != self._level:
            self._level, self._first, self._ticks = level, None, 0
        if told := ", ".join(failures(progress)):
            kind, _, message = (progress.last_error or "").partition(": ")
            error = (
                f"; last: {message if len(progress.errors) == 1 and message else progress.last_error}" if kind else ""
            )
            self._requests[level] = told + error
        self._ticks += 1
        if last or self._ticks % _LOOK_EVERY == 0:
            self._client(progress)
            self._machine(level)

    def lines(self) -> list[tuple[str, str]]:
        """Level id and words of each, the most telling last: where there is no room, the first ones go."""
        return [*self._others.values(), *self._requests.items()]

    def _client(self, progress: Progress) -> None:
        # Lag alone is no fault, and what was merged is known at the end.
        seen = Level(client_wait_share=progress.client_wait_share)
        self._note(progress.level.id, "client", gates.contention(seen, ScenarioFacts()))

    def _machine(self, level: str) -> None:
        sample = self._last
        if sample is None or sample.get("level") != level or not sample.get("server"):
            return  # of a server elsewhere this machine says nothing
        if self._first is None:
            self._first = sample
            return
        samples = machine.typed((self._first, sample))
        share = machine.others_cpu_share(samples, os.cpu_count())
        self._note(level, "others", gates.others(Level(others_cpu_share=share), ScenarioFacts()))
        if machine.throttled(samples, machine.server_gpus(samples)):
            self._others["heat"] = level, "the processor or the GPU was throttled: too hot, or short of power"

    def _note(self, level: str, what: str, doubt: Finding | None) -> None:
        if doubt is not None:
            self._others[what] = level, doubt.text
        elif self._others.get(what, ("", ""))[0] == level:
            del self._others[what]
