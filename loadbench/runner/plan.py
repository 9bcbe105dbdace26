"""What a run is going to do and how long it may take: made before anything is measured; and which of it comes next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import msgspec

from loadbench import server as targets
from loadbench.engine import MAX_STREAMS, Limits, Progress
from loadbench.errors import UsageError
from loadbench.prompts import Prompt
from loadbench.scenario import LEAST_REPEATS, Level, Scenario, Shape
from loadbench.store.record import Result

SHORTEST_LEVEL_S = 6.0
"""A budget leaves levels out rather than make one shorter than this: under 5 s of steady window nothing can be said."""
_WINDOW_SHARE = 0.75  # of a level's share of the budget; the rest is for warm-up and drain
_FIRST_TOKEN_S = 0.5
_TOKENS_PER_S = 30.0


@dataclass(frozen=True, slots=True)
class PlannedLevel:
    """A level, when it ends, and how long it may take."""

    level: Level
    limits: Limits
    # Estimated: if the server's throughput grows with every stream, and if it does not
    shortest_s: float
    longest_s: float
    skip: str | None = None  # why it is not to be run; None where it is


@dataclass(frozen=True, slots=True)
class Plan:
    """All levels of a run, in order."""

    levels: tuple[PlannedLevel, ...]
    cuts: tuple[str, ...]  # what a budget took away, in words
    assumption: str  # what the estimate rests on, in words; empty where durations alone decide
    idle_s: float = 0.0  # of the gaps in which models are left idle

    @property
    def shortest_s(self) -> float:
        return self.idle_s + sum(planned.shortest_s for planned in self.levels)

    @property
    def longest_s(self) -> float:
        return self.idle_s + sum(planned.longest_s for planned in self.levels)


def make(
    scenario: Scenario, models: Sequence[str], *, prompts: Sequence[Prompt] = (), budget_s: float | None = None
) -> Plan:
    """Plan a scenario for these models.

    Args:
        prompts: Those of the scenario: where it replays a trace, they say when requests are due.
        budget_s: How long it all may take: what idle gaps leave of it is shared equally by the levels, and the highest
            loads are left out where the share would be too short.

    Raises:
        UsageError: If the budget is too short for a single level, or is given with `until`.
    """
    if scenario.until is not None and budget_s is not None:
        raise UsageError("--until and --budget are both given: --until with --repeat K ends after K rounds")
    replay_s = max((prompt.at_s or 0.0 for prompt in prompts), default=0.0)
    levels = []
    for level in scenario.levels(models):
        if level.is_replay and prompts:  # at the trace's mean rate
            level = msgspec.structs.replace(level, request_rate_per_s=len(prompts) / (replay_s or 1.0))
        levels.append(level)
    idle_s = 0.0
    if scenario.idle_gap is not None:
        gaps = 1 if scenario.keep_warm is None else 2
        idle_s = gaps * float(scenario.idle_gap) * len(dict.fromkeys(models))
    cuts: list[str] = []
    longest_s = None
    if budget_s is not None:
        levels, cuts = _within(levels, budget_s - idle_s, idle_s)
        longest_s = _WINDOW_SHARE * (budget_s - idle_s) / len(levels)
    duration_s = None if scenario.duration is None else float(scenario.duration)
    planned = []
    for level in levels:
        warmup, requests = scenario.warmup_for(level), scenario.requests_for(level)
        ends_s = [duration_s, longest_s]
        shape_s = None
        if level.is_replay:
            shape_s = replay_s
            requests = min(requests or len(prompts), max(1, len(prompts) - warmup))
        elif level.shape is not None:
            shape_s = Shape.parse(level.shape).duration_s
            ends_s.append(shape_s)
        limits = Limits(
            requests=requests,
            duration_s=min((time_s for time_s in ends_s if time_s is not None), default=None),
            warmup=warmup,
            max_streams=scenario.max_streams or MAX_STREAMS,
        )
        if longest_s is not None and shape_s is not None and longest_s < min(shape_s, duration_s or shape_s):
            cuts.append(f"{level.id} is cut short: {shape_s:.0f} s are its whole shape")
        shortest_s, most_s = _estimate(level, limits, _FIRST_TOKEN_S + scenario.max_tokens / _TOKENS_PER_S)
        if scenario.until is not None and level.repeat > LEAST_REPEATS:
            shortest_s = 0.0  # it may not be needed
        planned.append(PlannedLevel(level, limits, shortest_s, most_s))
    if longest_s is not None:
        cuts.append(f"each level ends after {longest_s:.0f} s of measurement, if its requests do not end it before")
    guessed = any(one.limits.requests is not None for one in planned)
    assumption = f"guessed from {_TOKENS_PER_S:.0f} tokens/s a stream"
    return Plan(tuple(planned), tuple(cuts), assumption if guessed else "", idle_s)


def _within(levels: list[Level], budget_s: float, idle_s: float) -> tuple[list[Level], list[str]]:
    most = int(budget_s / SHORTEST_LEVEL_S * _WINDOW_SHARE)
    if most < 1:
        least_s = idle_s + SHORTEST_LEVEL_S / _WINDOW_SHARE
        beside = f" beside {idle_s:g}s of idle gaps" if idle_s else ""
        raise UsageError(
            f"--budget {budget_s + idle_s:g}s is too short for one level{beside}: give at least {least_s:.0f}s"
        )
    kept, left_out = list(levels), []
    while len(kept) > most:
        # Closing levels go first, then repeats, then the highest loads; what stays keeps its order.
        worst = max(kept, key=lambda one: (one.closing, one.repeat, one.concurrency or 0, one.request_rate_per_s or 0))
        kept.remove(worst)
        left_out.append(worst.id)
    return kept, [f"left out: {', '.join(reversed(left_out))}"] if left_out else []


def by_an_answer(levels: Sequence[PlannedLevel], probe: Mapping[str, Any], max_tokens: int) -> list[PlannedLevel]:
    """Levels as long as a model's first answers let expect; none where those tell nothing.

    Args:
        probe: What run.json says of such a short answer.
    """
    ttft_ms, e2e_ms, tokens = probe["ttft_ms"], probe["e2e_ms"], probe["output_tokens"] or 0
    if ttft_ms is None or e2e_ms is None or tokens < 2:
        return []
    token_ms = (e2e_ms - ttft_ms) / (tokens - 1)
    request_s = (ttft_ms + token_ms * (max_tokens - 1)) / 1000
    found = []
    for one in levels:
        shortest_s, longest_s = _estimate(one.level, one.limits, request_s)
        found.append(replace(one, shortest_s=shortest_s, longest_s=longest_s))
    return found


def _estimate(level: Level, limits: Limits, request_s: float) -> tuple[float, float]:
    """Shortest and longest seconds of a level whose requests take so long one by one, drain included."""
    n, duration_s = limits.warmup + (limits.requests or 0), limits.duration_s or 0.0
    if (rate_per_s := level.request_rate_per_s) is not None:
        by_count = (n / rate_per_s + request_s,) * 2
        by_time = (limits.warmup / rate_per_s + duration_s + request_s,) * 2
    else:
        streams = level.concurrency or 1
        by_count = (request_s * -(-n // streams), request_s * n)
        by_time = (duration_s + request_s, duration_s + request_s * (1 + streams))
    if limits.duration_s is None:
        return by_count
    if limits.requests is None:
        return by_time
    return min(by_count[0], by_time[0]), min(by_count[1], by_time[1])


def check_thresholds(scenario: Scenario, models: Sequence[str]) -> None:
    """Refuse a threshold that is about no level of the plan.

    Raises:
        UsageError: It names the levels there are.
    """
    planned = scenario.levels(models)
    for one in scenario.thresholds:
        if not any(one.is_about(level.id, level.model) for level in planned):
            names = ", ".join(dict.fromkeys(level.id.rpartition("@")[2].partition("#")[0] for level in planned))
            raise UsageError(f"{one.text}: no level is called {one.level}: write one of {names}, or a model's name")


# -- whether a load is meant

MOST_STREAMS = 1000
MOST_PER_S = 1000.0  # requests; of both, what is sent to another machine without a question


def confirm_load(urls: Sequence[str], streams: int, per_s: float, confirm: Callable[[str], bool | None]) -> None:
    """Ask a person whether such a load is meant, where it is large and goes to another machine.

    Args:
        urls: Of all servers that get it. Those that are started for the run have none, and are on this machine.
        streams, per_s: The most at once, and the most requests started in a second, over all levels.
    Raises:
        UsageError: It was not confirmed, or nobody can be asked.
    """
    hosts = dict.fromkeys(urlsplit(url).hostname or url for url in urls if url and not targets.is_loopback(url))
    large = []
    if streams > MOST_STREAMS:
        large.append(f"{streams:,} streams at once")
    if per_s > MOST_PER_S:
        large.append(f"{per_s:,.6g} requests/s")
    if not hosts or not large:
        return
    load = f"up to {' and '.join(large)} on {', '.join(hosts)}"
    answer = confirm(f"This asks for {load}; go on?")
    if answer is None:
        raise UsageError(f"{load}: that is much for a server on another machine: if it is meant, add --yes")
    if not answer:
        raise UsageError(f"{load}: not confirmed, nothing was sent")


def most(scenario: Scenario, levels: Sequence[PlannedLevel], questions: Sequence[Prompt]) -> tuple[int, float]:
    """The most streams at once, and the most requests started in a second, of a plan's levels.

    In open loop as many streams as the scenario allows by its own word may come to be open; a trace's rate is that of
    its fullest second.
    """
    streams, per_s = 0, 0.0
    for one in levels:
        level = one.level
        streams = max(streams, level.concurrency or scenario.max_streams or 0)
        if level.is_replay:
            rate_per_s: float = _fullest_second([prompt.at_s for prompt in questions if prompt.at_s is not None])
        elif level.shape is not None:
            rate_per_s = Shape.parse(level.shape).peak_per_s
        else:
            rate_per_s = level.request_rate_per_s or 0.0
        per_s = max(per_s, rate_per_s)
    return streams, per_s


def _fullest_second(at_s: Sequence[float]) -> int:
    """How many of the ascending moments lie within one second, at most.

    >>> _fullest_second([0.0, 0.5, 0.9, 1.4, 1.6])
    3
    """
    fullest = first = 0
    for number, moment in enumerate(at_s):
        while moment - at_s[first] >= 1:
            first += 1
        fullest = max(fullest, number - first + 1)
    return fullest


# -- what comes next


class Schedule:
    """Decides what a run does next. It gives one level at a time, and hears how that one goes."""

    def following(self) -> PlannedLevel | None:
        """The next level; None where the run is over."""
        raise NotImplementedError

    def left(self) -> int:
        """How many levels share what is left of the budget of time, the one that `following` just gave among them."""
        return 1

    def heard(self, result: Result) -> None:
        """A request of the level ended. Called between two arrivals: it must be quick."""

    def has_enough(self, progress: Progress) -> bool:
        """Whether the level may end early. Called about twice a second, in a thread: it may take some milliseconds."""
        return False

    def ended(self, progress: Progress, facts: dict[str, Any]) -> None:
        """The level is over; `facts` become its entry in run.json, written together with all else that is there.

        They may be added to: a schedule that ended a level early says so there.
        """

    def skipped(self, planned: PlannedLevel, reason: str) -> None:
        """The level was not run."""


class Fixed(Schedule):
    """The levels of a plan, one after the other, each to its end."""

    def __init__(self, levels: Sequence[PlannedLevel]) -> None:
        self._levels = levels
        self._given = 0

    def following(self) -> PlannedLevel | None:
        if self._given == len(self._levels):
            return None
        self._given += 1
        return self._levels[self._given - 1]

    def left(self) -> int:
        return len(self._levels) - self._given + 1
