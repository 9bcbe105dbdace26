"""One run from its plan to its folder: models are tried, levels follow, what fails is marked and the rest goes on."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import anyio
import anyio.lowlevel
import anyio.to_thread
from msgspec import structs

from loadbench import engine
from loadbench.client import Client
from loadbench.engine import Engine, Progress, Settings
from loadbench.errors import LoadbenchError
from loadbench.prompts import DEFAULT, UNKNOWN, Line, Prompt, longest_in_tokens
from loadbench.runner.plan import Fixed, Plan, PlannedLevel, Schedule, by_an_answer
from loadbench.runner.turn import Control, Origin, Turn
from loadbench.runner.watch import Pulse, Silence, View, Watch
from loadbench.scenario import Level, Scenario
from loadbench.server import Chosen, ModelFacts, Target
from loadbench.store.folder import RunFolder
from loadbench.store.record import Result


class Drives(Protocol):
    """What makes the load of a run's levels: the engine in this process, or one that cuts them into shares.

    Attributes:
        gone: Why it makes no more; None while it does.
    """

    @property
    def gone(self) -> str | None: ...
    def asks(self, prompts: Sequence[Prompt], line: Line = UNKNOWN) -> None: ...
    def stop(self) -> None: ...
    def end_level(self, progress: Progress) -> None: ...
    async def run(self, progress: Progress) -> None: ...


@dataclass(slots=True)
class Session:
    """A run."""

    scenario: Scenario
    prompts: Sequence[Prompt]
    target: Target
    chosen: Sequence[Chosen]  # the models to measure; the plan's levels name their ids
    plan: Plan
    folder: RunFolder
    client: Client
    view: View
    watch: Watch  # takes samples; one without a sampler takes none
    control: Control | None = None  # loads and unloads models; None where the server offers that not
    # What is known of models beside what the server says, by id
    origins: Mapping[str, Origin] = field(default_factory=dict)
    # How long it may take, and how many runs share that time, this one among them
    budget_s: float | None = None
    runs: int = 1
    schedule: Schedule | None = None  # decides on the levels; unset, they are those of the plan
    # Makes what makes the load; unset, it is the engine in this process, on `client`
    drive: Callable[..., Drives] | None = None
    interrupted: bool = False  # whether the user ended it
    failed: dict[str, str] = field(default_factory=dict)  # models that completed nothing, and why
    _engine: Drives | None = None
    _whole: set[str] = field(default_factory=set)  # levels that were complete when it began
    _deadline_s: float | None = None  # of the budget
    _silence: Silence | None = None  # of the present level
    _overhead_s: float = 0.0  # warm-up and drain of the last level
    _stop: anyio.Event = field(default_factory=anyio.Event)
    _turn: Turn | None = None  # the model that has its turn
    _too_much: dict[str, tuple[float, str]] = field(default_factory=dict)  # the load at which a model failed too often
    _came: set[str] = field(default_factory=set)  # models that had a turn
    _answered: set[str] = field(default_factory=set)  # models that completed a measured request
    _schedule: Schedule = field(init=False)

    def __post_init__(self) -> None:
        self._schedule = self.schedule or Fixed(self.plan.levels)

    async def run(self) -> None:
        """Run all levels that are not complete yet, then close the folder.

        Raises:
            LoadbenchError: If the folder cannot be written any more; what was written stays.
        """
        await in_turns([self], self.view.note)

    async def step(self) -> bool:
        """The next level, measured or skipped; False where there is none. `in_turns` takes steps."""
        if self._engine is None:
            self._begin()
        if self.interrupted or (planned := self._schedule.following()) is None:
            return False
        level = planned.level
        if level.id in self._whole:
            self._answered.add(level.model)
            self.view.note(f"{level.id}: complete already")
            return True
        reason = planned.skip or self._reason_to_skip(level)
        if reason is None:
            await self._give_turn(level.model)
            reason = self._reason_to_skip(level)
        if reason is not None:
            self.folder.skip(self._entry(level), reason)
            self.view.skipped(level, reason)
            self._schedule.skipped(planned, reason)
        elif not self.interrupted:
            if self._deadline_s is not None:
                left_s = self._deadline_s - time.monotonic()
                planned = self._cut(planned, left_s / self._schedule.left() / self.runs)
            await self._level(planned)
        return True

    def _begin(self) -> None:
        scenario = self.scenario
        settings = Settings(
            seed=scenario.seed,
            arrivals=scenario.arrivals,
            distinct_prompts=scenario.distinct_prompts,
            pause=scenario.pause,
            retries=scenario.retries,
            retry_backoff_s=float(scenario.retry_backoff),
            streamed=scenario.stream,
            salt=time.time_ns(),
        )
        drive = self.drive or partial(Engine, self.client)
        self._engine = drive(self.prompts, settings, on_result=self._on_result, on_tick=self._on_tick)
        self._whole = self.folder.complete()
        self._deadline_s = None if self.budget_s is None else time.monotonic() + self.budget_s

    async def end(self) -> None:
        """After the last step: the model that has its turn is unloaded, if this run loaded it."""
        if self._turn is not None:
            await self._turn.end()
            self._turn = None

    def stop(self) -> None:
        """The user ends it: no further request starts, those in flight run to their end."""
        self.interrupted = True
        self._stop.set()
        if self._engine is not None:
            self._engine.stop()

    def close(self, status: str) -> None:
        """The folder takes no more."""
        self.folder.close(status)

    async def _give_turn(self, model: str) -> None:
        if self._turn is not None and self._turn.chosen.id == model:
            return
        await self.end()
        scenario = self.scenario
        if model in self._came:  # in turns a model comes again: what its cold start and a pause do to it is known then
            scenario = structs.replace(scenario, cold=False, idle_gap=None, keep_warm=None)
        self._came.add(model)
        self._turn = Turn(
            next(one for one in self.chosen if one.id == model),
            scenario,
            DEFAULT if self.prompts[0].recipe else self.prompts,  # those that are made up may be long
            self.client,
            self.control,
            self.watch,
            self.view,
            self._sleep,
            self.folder.info["probes"],
            self.origins.get(model, Origin()),
            salt=time.time_ns(),
            limited=self.target.limited,
        )
        self.folder.info.setdefault("models", []).append(self._turn.record)
        error = await self._turn.begin()
        if error is not None:
            self.failed[model] = error
            return
        if self.plan.assumption:
            to_come = [one for one in self.plan.levels if one.level.model == model and one.level.id not in self._whole]
            expected = by_an_answer(to_come, self.folder.info["probes"][-1], self.scenario.max_tokens)
            if expected:
                self.view.expects(expected)
        if longest_in_tokens(self.prompts) is not None and self._engine is not None:
            salt = time.time_ns() if self.scenario.distinct_prompts else None
            self._engine.asks(self.prompts, await self._turn.calibrate(self.prompts, salt=salt))

    async def _sleep(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._stop.wait()
        return not self.interrupted

    def _reason_to_skip(self, level: Level) -> str | None:
        if level.model in self.failed:
            return f"its model failed: {self.failed[level.model]}"
        if self._engine is not None and self._engine.gone is not None:
            return self._engine.gone
        load, reason = self._too_much.get(level.model, (math.inf, None))
        if _load(level) >= load:
            return reason
        if self._deadline_s is not None and time.monotonic() > self._deadline_s:
            return "the budget of time is spent"
        return None

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
        self.view.began(progress, planned)
        about = {"model": level.model, "level": level.id, "attempt": attempt}
        await self.watch.sample("level", **about)
        stopped, pulse, self._silence = True, Pulse(), Silence(self.scenario)
        try:
            async with anyio.create_task_group() as watching:
                watching.start_soon(lambda: self.watch.each_second("level", **about))
                watching.start_soon(pulse.beat)
                await self._engine.run(progress)
                watching.cancel_scope.cancel()
            await self.watch.sample("level", **about)
            stopped = self.interrupted
        finally:
            facts = engine.facts(progress, stopped=stopped) | pulse.facts()
            self._schedule.ended(progress, facts)  # before the folder writes it all
            self.folder.end(facts, progress.histograms)
            self.view.ended(progress, facts)
        if progress.completed:
            self._answered.add(level.model)
        most, ended = self.scenario.max_failed, progress.completed + progress.failed
        if most is not None and ended and progress.failed / ended > most:  # higher loads are not worth their time
            share = f"{progress.failed} of {ended} requests failed at {level.id}"
            if _load(level) < self._too_much.get(level.model, (math.inf, ""))[0]:
                self._too_much[level.model] = _load(level), f"{share}, more than --max-failed {100 * most:g}%"
        if progress.measured_from_ns is not None and progress.last_issue_ns is not None:
            measured_ns = progress.last_issue_ns - progress.measured_from_ns
            self._overhead_s = (progress.ended_ns - progress.began_ns - measured_ns) / 1e9
        if self._engine.gone is not None:
            self.failed[level.model] = self._engine.gone
        # A level that is too much for a model says nothing of its other levels; a server that went away does.
        if facts["status"] == "failed" and (progress.completed or level.model not in self._answered):
            self.failed[level.model] = facts["reason"]

    def _entry(self, level: Level) -> dict[str, object]:
        """The level in run.json, before it begins."""
        chosen = next((one for one in self.chosen if one.id == level.model), Chosen(level.model, level.model))
        facts = chosen.facts or ModelFacts(level.model)
        return {
            "id": level.id,
            "model": level.model,
            "endpoint": self.target.base_url if len(self.scenario.endpoints) < 2 else None,
            "device": facts.device,
            "execution_provider": facts.execution_provider,
            "alias": next(iter(facts.aliases), None),
            "asked_device": chosen.device,
            **level.load_facts,
            # Order, arrivals and pauses come of both: fresh ones each time, the same ones for every model and load.
            "seed": [self.scenario.seed, level.repeat],
            "closing": level.closing,
        }

    def _on_result(self, result: Result) -> None:
        self.folder.add(result)
        self._schedule.heard(result)

    async def _on_tick(self, progress: Progress) -> None:
        in_flight = self.client.text_events_in_flight()
        write, text_events = self.folder.take(), progress.text_events + in_flight
        silent = self._silence and self._silence.look(
            in_flight=progress.in_flight,
            ended=progress.ended + progress.warmup_requests,
            tokens=text_events,
            begun=in_flight > 0,
        )
        if silent is not None:
            self.view.note(f"{progress.level.id}: {silent}")

        def work() -> bool:
            write()
            self.view.tick(progress, text_events)
            return not progress.enough and self._schedule.has_enough(progress)

        with anyio.CancelScope(shield=True):  # what was taken is lost unless it is written
            enough = await anyio.to_thread.run_sync(work)
        if enough and self._engine is not None:
            self._engine.end_level(progress)


def _load(level: Level) -> float:
    return level.concurrency or level.request_rate_per_s or 0.0


# -- several runs


async def in_turns(runs: Sequence[Session], note: Callable[[str], object]) -> None:
    """Take all runs to their ends; of two the first, the second, the second, the first, and so on.

    So each level of one lies right beside that of the other, and what drifts meanwhile meets both alike.

    Raises:
        LoadbenchError: If a folder cannot be written any more; what was written stays.
    """
    status = "interrupted"
    try:
        async with anyio.create_task_group() as group:
            if sys.platform != "win32":  # there, Ctrl-C cancels at once: what had ended is in the folder
                group.start_soon(_on_signals, runs, note, group.cancel_scope)
                await anyio.lowlevel.checkpoint()  # so that it listens before anything begins
            order = list(runs)
            while any([await run.step() for run in order]):  # each of them has its step
                order.reverse()
            for run in runs:
                await run.end()
            group.cancel_scope.cancel()
        if not any(run.interrupted for run in runs):
            status = "complete"
    except BaseExceptionGroup as failures:
        raise _first_of_ours(failures) from failures
    finally:
        _close(runs, status)


async def _on_signals(runs: Sequence[Session], note: Callable[[str], object], scope: anyio.CancelScope) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                if any(run.interrupted for run in runs):
                    scope.cancel()
                    return
                for run in runs:
                    run.stop()
                note("stopping: requests in flight run to their end; Ctrl-C again stops at once")
    finally:
        signal.signal(signal.SIGTERM, before)  # event loops give back the system's: death without a word


def _close(runs: Sequence[Session], status: str) -> None:
    """Close all, whatever becomes of one."""
    if runs:
        try:
            runs[0].close(status)
        finally:
            _close(runs[1:], status)


def _first_of_ours(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to show: ours if there is one, else the first."""
    first: BaseException | None = None
    left: list[BaseException] = [failures]
    while left:
        error = left.pop(0)
        if isinstance(error, LoadbenchError):
            return error
        if isinstance(error, BaseExceptionGroup):
            left[:0] = error.exceptions
        else:
            first = first or error
    assert first is not None  # a group is never empty
    return first
