"""Who looks on while a run goes on: people and programs see its events; samples go into its folder, a line a second."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread
import orjson
from msgspec import structs

from loadbench import server as targets
from loadbench import telemetry
from loadbench.scenario import Level, Scenario
from loadbench.server import ModelFacts, Target
from loadbench.store.folder import RunFolder
from loadbench.text import in_json

if TYPE_CHECKING:
    from loadbench.engine import Progress
    from loadbench.runner.plan import Plan, PlannedLevel

Facts = Mapping[str, Any]  # of an event, as JSON will say it

# -- views


class View:
    """Who watches a run. This one shows nothing.

    Its methods are called from the run's own task, between two arrivals, so they must be quick. `tick` may be slow: it
    has a thread.
    """

    def opening(self, facts: Facts, lines: Sequence[str], plan: Plan) -> None: ...
    def note(self, text: str) -> None: ...
    def fetching(self, what: str, done_bytes: int, whole_bytes: int) -> None: ...
    def probed(self, probe: Facts) -> None: ...
    def expects(self, levels: Sequence[PlannedLevel]) -> None: ...
    def began(self, progress: Progress, planned: PlannedLevel) -> None: ...
    def tick(self, progress: Progress, text_events: int) -> None: ...
    def sampled(self, sample: Facts) -> None: ...
    def ended(self, progress: Progress, facts: Facts) -> None: ...
    def skipped(self, level: Level, reason: str) -> None: ...
    def step(self, model: str, step: Facts, text: str) -> None: ...
    def summary(self, summary: Facts) -> None: ...
    def compared(self, document: Facts) -> None: ...
    def close(self) -> None: ...


class JsonLines(View):
    """One JSON object a line, each with its `event`; the last one is the summary."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def _write(self, event: str, **fields: object) -> None:
        self._out.write(in_json(orjson.dumps({"event": event, **fields}).decode()).encode() + b"\n")
        self._out.flush()

    def opening(self, facts: Facts, lines: Sequence[str], plan: Plan) -> None:
        levels = [one.level.id for one in plan.levels]
        self._write(
            "plan", **facts, levels=levels, shortest_s=plan.shortest_s, longest_s=plan.longest_s, cuts=list(plan.cuts)
        )

    def note(self, text: str) -> None:
        self._write("note", text=text)

    def fetching(self, what: str, done_bytes: int, whole_bytes: int) -> None:
        self._write("fetching", what=what, done_bytes=done_bytes, whole_bytes=whole_bytes)

    def probed(self, probe: Facts) -> None:
        self._write("probe", **probe)

    def expects(self, levels: Sequence[PlannedLevel]) -> None:
        shortest_s, longest_s = expected_s(levels)
        self._write("estimate", model=levels[0].level.model, shortest_s=shortest_s, longest_s=longest_s)

    def began(self, progress: Progress, planned: PlannedLevel) -> None:
        self._write("level_began", level=progress.level.id, attempt=progress.attempt)

    def tick(self, progress: Progress, text_events: int) -> None:
        ttft = progress.histograms["ttft"]
        self._write(
            "progress",
            level=progress.level.id,
            phase=progress.phase,
            in_flight=progress.in_flight,
            ended=progress.ended,
            completed=progress.completed,
            failed=progress.failed,
            dropped=progress.dropped,
            text_events=text_events,
            ttft_p50_us=ttft.percentile(0.5),
            ttft_p95_us=ttft.percentile(0.95),
        )

    def ended(self, progress: Progress, facts: Facts) -> None:
        self._write("level_ended", level=progress.level.id, status=facts["status"], reason=facts["reason"])

    def skipped(self, level: Level, reason: str) -> None:
        self._write("level_skipped", level=level.id, reason=reason)

    def step(self, model: str, step: Facts, text: str) -> None:
        self._write("step", model=model, **step)

    def summary(self, summary: Facts) -> None:
        self._write("summary", summary=summary)

    def compared(self, document: Facts) -> None:
        self._write("compared", **document)


def expected_s(levels: Sequence[PlannedLevel]) -> tuple[float, float]:
    """How long they take together: if throughput grows with every stream, and if it does not."""
    return sum(one.shortest_s for one in levels), sum(one.longest_s for one in levels)


def named(level: Level, side: str) -> Level:
    """The level as a view shows it: `base m@c4`."""
    return structs.replace(level, id=f"{side} {level.id}", model=f"{side} {level.model}")


class Sided(View):
    """Shows one side's run to the view of both, which is opened, closed and given summaries by who made it."""

    def __init__(self, view: View, side: str) -> None:
        self._view, self._side = view, side
        self._shown: Progress | None = None  # of the present level

    def note(self, text: str) -> None:
        self._view.note(f"{self._side}: {text}")

    def probed(self, probe: Facts) -> None:
        self._view.probed({**probe, "model": f"{self._side} {probe['model']}"})

    def expects(self, levels: Sequence[PlannedLevel]) -> None:
        self._view.expects([replace(one, level=named(one.level, self._side)) for one in levels])

    def began(self, progress: Progress, planned: PlannedLevel) -> None:
        level = named(planned.level, self._side)
        self._shown = cast("Progress", _Named(progress, level))
        self._view.began(self._shown, replace(planned, level=level))

    def tick(self, progress: Progress, text_events: int) -> None:
        self._view.tick(self._shown or progress, text_events)

    def sampled(self, sample: Facts) -> None:
        names = {}
        for key in ("level", "model"):
            names[key] = None if sample.get(key) is None else f"{self._side} {sample[key]}"
        self._view.sampled({**sample, **names})

    def ended(self, progress: Progress, facts: Facts) -> None:
        self._view.ended(self._shown or progress, facts)

    def skipped(self, level: Level, reason: str) -> None:
        self._view.skipped(named(level, self._side), reason)

    def step(self, model: str, step: Facts, text: str) -> None:
        self._view.step(f"{self._side} {model}", step, text)


class _Named:
    """A level's progress under another name; all else is read from it when it is needed."""

    def __init__(self, progress: Progress, level: Level) -> None:
        self.level = level
        self._progress = progress

    def __getattr__(self, name: str) -> Any:
        return getattr(self._progress, name)


# -- samples

INTERVAL_S = 1.0


class Watch:
    """Takes samples, keeps them in the run folder and shows them.

    Args:
        sampler: None takes none, and then nothing is kept.
        scrape: Asks the server for its own metrics.
        local: Whether the server is on this machine; else this machine's GPUs and energy are not the server's.
    """

    def __init__(
        self,
        folder: RunFolder,
        sampler: telemetry.Sampler | None,
        scrape: Callable[[], Awaitable[dict[str, float] | None]] | None = None,
        *,
        local: bool = True,
        view: View | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._sampler, self._scrape = folder, sampler, scrape
        self._local, self._view, self._now_s = local, view or View(), now_s
        self._began_s = now_s()

    async def sample(self, phase: str, **about: object) -> int | None:
        """Take one sample; the server's resident memory in bytes, where that is known.

        Args:
            phase: What the run does at this moment: before_load, after_load, level, idle, after_unload.
            about: The `model`, or `level` and `attempt`, that it is of.
        """
        if self._sampler is None:
            return None
        at_s = round(self._now_s() - self._began_s, 3)
        figures = await anyio.to_thread.run_sync(self._sampler.sample)  # it blocks for some milliseconds
        if not self._local:
            figures |= {"gpus": None, "cpu_energy_j": None}
        metrics = None if self._scrape is None else await self._scrape()
        head = {"at_s": at_s, "phase": phase, "model": None, "level": None, "attempt": None, **about}
        sample = {**head, **figures, "metrics": metrics}
        self._folder.add_sample(sample)
        self._view.sampled(sample)
        server = figures.get("server") or {}
        memory: int | None = server.get("memory_bytes")
        return memory

    async def each_second(self, phase: str, **about: object) -> None:
        """Sample until cancelled; a sample is never cut in half."""
        while self._sampler is not None:
            await anyio.sleep(INTERVAL_S)
            with anyio.CancelScope(shield=True):
                await self.sample(phase, **about)


@dataclass(frozen=True)
class Watched:
    """A server; one without a base URL is not started and has nothing to watch."""

    server: Target
    # Further endpoints of the service, whose requests are counted together with its own
    others: tuple[Target, ...] = ()

    @property
    def local(self) -> bool:
        """Whether it is on this machine, with all others."""
        urls = [one.base_url for one in (self.server, *self.others)]
        return all(url and targets.is_loopback(url) for url in urls)

    @cached_property
    def pid(self) -> int | None:
        """As the server says, else of the process that listens on its port."""
        if not self.local:
            return None
        return self.server.pid or telemetry.find_pid(self.server.base_url)

    @cached_property
    def pids(self) -> list[int]:
        """Of all endpoints' processes; none where one is not known: a part of what they use would be no figure."""
        if self.pid is None:
            return []
        found = {self.pid: None}
        for one in self.others:
            pid = one.pid or telemetry.find_pid(one.base_url)
            if pid is None:
                return []
            found[pid] = None
        return list(found)

    @contextmanager
    def sampling(self) -> Iterator[telemetry.Sampler]:
        """Takes samples of it and of this machine."""
        sampler = telemetry.Sampler(*self.pids)
        try:
            yield sampler
        finally:
            sampler.close()

    def facts(self, sampler: telemetry.Sampler | None) -> dict[str, object] | None:
        """What run.json says of the samples; None where none are taken."""
        if sampler is None:
            return None
        server_pid = next(iter(self.pids), None)
        facts: dict[str, object] = {"interval_s": INTERVAL_S, "local": self.local, "server_pid": server_pid}
        if self.others:
            facts["server_pids"] = self.pids
        return facts | sampler.facts()

    def memory_warning(self, facts: ModelFacts) -> str | None:
        """A line where a model that is to be loaded is larger than the memory that is free."""
        if not self.local or facts.loaded is not False:
            return None
        if "GPU" in (facts.device or ""):
            free_bytes = telemetry.gpu_free_memory_bytes()
        else:
            free_bytes = telemetry.free_memory_bytes()
        return targets.free_memory_warning(facts, free_bytes)


# -- stalls

BEAT_S = 0.1


class Pulse:
    """Wakes ten times a second, and sees how late."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._began_s = now_s()
        self._longest_s = 0.0
        self._at_s: float | None = None

    async def beat(self) -> None:
        """Beat until cancelled."""
        while True:
            due_s = self._now_s() + BEAT_S
            try:
                await anyio.sleep(BEAT_S)
            finally:  # a level that ends right after a pause cancels this before it wakes
                late_s = self._now_s() - due_s
                if late_s > self._longest_s:
                    self._longest_s, self._at_s = late_s, due_s - self._began_s

    def facts(self) -> dict[str, float | None]:
        """For run.json: the longest time that this process could not run, and when that began."""
        at_s = None if self._at_s is None else round(self._at_s, 3)
        return {"client_pause_s": round(self._longest_s, 3), "client_pause_at_s": at_s}


SILENT_S = 10.0  # without an answer, before a person reads that it is waited for


def waiting_for(scenario: Scenario, *, begun: bool = False) -> str:
    """What is waited for, until when."""
    limits = scenario.timeouts
    if begun:
        return f"no token for {SILENT_S:g} s; an answer may stand still for {limits.idle} (timeouts.idle)"
    if not scenario.stream:
        most = f"at most {limits.total} from sending (timeouts.total)"
        return f"no byte for {SILENT_S:g} s: waiting for a whole answer, {most}"
    most = f"at most {limits.first_token} from sending (timeouts.first_token)"
    advice = "a server that cannot stream may answer with --no-stream"
    return f"no byte for {SILENT_S:g} s: waiting for the first token, {most}; {advice}"


class Silence:
    """Looks at a level from time to time; says once of each silence of the server that it lasts."""

    def __init__(self, scenario: Scenario, now_s: Callable[[], float] = time.monotonic) -> None:
        self._scenario = scenario
        self._now_s = now_s
        self._heard: tuple[int, int] | None = None
        self._since_s = now_s()
        self._noted = False

    def look(self, *, in_flight: int, ended: int, tokens: int, begun: bool) -> str | None:
        """A note for now, or None.

        Args:
            ended, tokens: So far in this level; where one grows the server is not silent.
        """
        heard = (ended, tokens)
        if heard != self._heard or not in_flight:
            self._heard, self._since_s, self._noted = heard, self._now_s(), False
            return None
        if self._noted or self._now_s() - self._since_s < SILENT_S:
            return None
        self._noted = True
        return waiting_for(self._scenario, begun=begun)
