"""One run from its plan to its folder: models are tried, levels follow, what fails is marked and the rest goes on."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import anyio
import anyio.to_thread

from loadbench import engine
from loadbench.client import Ask
from loadbench.engine import Chats, Engine, Progress
from loadbench.errors import LoadbenchError
from loadbench.plan import Plan, PlannedLevel
from loadbench.prompts import Prompt
from loadbench.result import Result
from loadbench.scenario import Level, Scenario
from loadbench.store import RunFolder
from loadbench.target import Target

PROBE_TOKENS = 8
_PROBES = 3


class Observer(Protocol):
    """Who watches a run; called from the run's own task, so it must be quick. `tick` may be slow: it has a thread."""

    def note(self, text: str) -> None: ...
    def probed(self, probe: Mapping[str, Any]) -> None: ...
    def began(self, progress: Progress, planned: PlannedLevel) -> None: ...
    def tick(self, progress: Progress, text_events: int) -> None: ...
    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None: ...
    def skipped(self, level: Level, reason: str) -> None: ...


@dataclass(slots=True)
class Session:
    """A run.

    Attributes:
        interrupted: Whether the user ended it.
        failed: Models that completed nothing, and why.
    """

    scenario: Scenario
    prompts: Sequence[Prompt]
    target: Target
    plan: Plan
    folder: RunFolder
    client: Chats
    observer: Observer
    budget_s: float | None = None
    interrupted: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    _engine: Engine | None = None
    _overhead_s: float = 0.0  # warm-up and drain of the last level
    _probed: set[str] = field(default_factory=set)
    _answered: set[str] = field(default_factory=set)  # models that completed a measured request

    async def run(self) -> None:
        """Run all levels that are not complete yet, then close the folder.

        Raises:
            LoadbenchError: If the folder cannot be written any more; what was written stays.
        """
        self._engine = Engine(
            self.client,
            self.prompts,
            seed=self.scenario.seed,
            arrivals=self.scenario.arrivals,
            distinct_prompts=self.scenario.distinct_prompts,
            on_result=self._on_result,
            on_tick=self._on_tick,
            salt=time.time_ns(),
        )
        status = "interrupted"
        try:
            async with anyio.create_task_group() as group:
                if sys.platform != "win32":  # there, Ctrl-C cancels at once: what had ended is in the folder
                    group.start_soon(self._on_signals, group.cancel_scope)
                group.start_soon(self._levels, group.cancel_scope)
            if not self.interrupted:
                status = "complete"
        except BaseExceptionGroup as failures:
            raise _first_of_ours(failures) from failures
        finally:
            self.folder.close(status)

    async def _levels(self, scope: anyio.CancelScope) -> None:
        whole = self.folder.complete()
        deadline = None if self.budget_s is None else time.monotonic() + self.budget_s
        for i, planned in enumerate(self.plan.levels):
            level = planned.level
            if self.interrupted:
                break
            if level.id in whole:
                self._answered.add(level.model)
                self.observer.note(f"{level.id}: complete already")
                continue
            if level.model not in self._probed:
                self._probed.add(level.model)
                await self._probe(level.model)
            reason = f"its model failed: {self.failed[level.model]}" if level.model in self.failed else None
            if reason is None and deadline is not None and time.monotonic() > deadline:
                reason = "the budget of time is spent"
            if reason is not None:
                self.folder.skip(self._entry(level), reason)
                self.observer.skipped(level, reason)
            elif not self.interrupted:
                left_s = None if deadline is None else deadline - time.monotonic()
                await self._level(
                    planned if left_s is None else self._cut(planned, left_s / (len(self.plan.levels) - i))
                )
        scope.cancel()

    def _cut(self, planned: PlannedLevel, share_s: float) -> PlannedLevel:
        """The level within its share of the budget's rest, less what the last one took beside its measurement."""
        longest_s = max(1.0, share_s - self._overhead_s)
        if planned.limits.duration_s is not None and planned.limits.duration_s <= longest_s:
            return planned
        return replace(planned, limits=replace(planned.limits, duration_s=longest_s))

    async def _level(self, planned: PlannedLevel) -> None:
        assert self._engine is not None
        level = planned.level
        attempt = self.folder.begin(self._entry(level))
        progress = Progress(level, attempt, planned.limits)
        self.observer.began(progress, planned)
        stopped = True
        try:
            await self._engine.run(progress)
            stopped = self.interrupted
        finally:
            facts = engine.facts(progress, stopped=stopped)
            self.folder.end(facts, progress.histograms)
            self.observer.ended(progress, facts)
        if progress.completed:
            self._answered.add(level.model)
        if progress.measured_from_ns is not None and progress.last_issue_ns is not None:
            measured_ns = progress.last_issue_ns - progress.measured_from_ns
            self._overhead_s = (progress.ended_ns - progress.began_ns - measured_ns) / 1e9
        # A level that is too much for a model says nothing of its other levels; a server that went away does.
        if facts["status"] == "failed" and (progress.completed or level.model not in self._answered):
            self.failed[level.model] = facts["reason"]

    async def _probe(self, model: str) -> None:
        """Ask a model once before it is measured, again after a failure that may pass; the record goes to run.json."""
        results: list[Result] = []
        prompt = replace(self.prompts[0], id="probe", max_tokens=PROBE_TOKENS)
        for number in range(_PROBES):
            now_ns = time.perf_counter_ns()
            ask = Ask(f"{model}@probe", 1, number, model, prompt, warmup=True, due_ns=now_ns)
            await self.client.chat(ask, now_ns, results.append, keep=False)
            if results[-1].error is None or results[-1].error == "http_4xx" or self.interrupted:
                break
        last = results[-1]
        sent, first = last.sent_ns, last.first_token_ns
        probe = {
            "model": model,
            "requests": len(results),
            "error": last.error,
            "error_message": last.error_message,
            "ttft_ms": None if sent is None or first is None else round((first - sent) / 1e6, 3),
            "e2e_ms": None if last.error else round(last.end_ns / 1e6, 3),
        }
        self.folder.info["probes"].append(probe)
        if last.error is not None:
            self.failed[model] = f"{last.error}: {last.error_message}"
        self.observer.probed(probe)

    def _entry(self, level: Level) -> dict[str, Any]:
        facts = next((facts for facts in self.target.models if facts.id == level.model), None)
        return {
            "id": level.id,
            "model": level.model,
            "endpoint": self.target.base_url,
            "device": facts.device if facts else None,
            "repeat": level.repeat,
            "concurrency": level.concurrency,
            "request_rate_per_s": level.request_rate_per_s,
        }

    def _on_result(self, result: Result) -> None:
        self.folder.add(result)

    async def _on_tick(self, progress: Progress) -> None:
        write, text_events = self.folder.take(), progress.text_events + self.client.text_events_in_flight()

        def work() -> None:
            write()
            self.observer.tick(progress, text_events)

        with anyio.CancelScope(shield=True):  # what was taken is lost unless it is written
            await anyio.to_thread.run_sync(work)

    async def _on_signals(self, scope: anyio.CancelScope) -> None:
        assert self._engine is not None
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                if self.interrupted:
                    scope.cancel()
                    return
                self.interrupted = True
                self._engine.stop()
                self.observer.note("stopping: requests in flight run to their end; Ctrl-C again stops at once")


def _first_of_ours(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to show: ours if there is one, else the first."""

    def leaves(error: BaseException) -> list[BaseException]:
        return (
            [leaf for one in error.exceptions for leaf in leaves(one)]
            if isinstance(error, BaseExceptionGroup)
            else [error]
        )

    found = leaves(failures)
    return next((error for error in found if isinstance(error, LoadbenchError)), found[0])
