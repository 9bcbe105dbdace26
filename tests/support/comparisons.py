"""Sides of a comparison with a known law: how much slower NEW is, what varies between requests, prompts and runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from loadbench.compare import DEFAULT, MARGIN, SHARE_MARGIN, Flow, Lap, Outcomes, Side, Verdict, judge_levels, means
from loadbench.stats.blocks import SLICES

SEED = 8


@dataclass(frozen=True, slots=True)
class Server:
    """What a simulated server does.

    Attributes:
        slower: Its times over those of a server with 1.0; 1 / that is its rate.
        noise: Standard deviation of the logarithm of a request's time around that of its prompt in its run.
        memory: Correlation of the noise of neighbours (AR(1)).
        between_prompts, between_runs: Standard deviations of the logarithms of prompts and of runs.
        failing: Share of requests that fail.
    """

    slower: float = 1.0
    noise: float = 0.15
    memory: float = 0.3
    between_prompts: float = 0.5
    between_runs: float = 0.0
    failing: float = 0.0


@cache
def remembering(n: int, memory: float) -> np.ndarray:
    """What turns n independent values into a series with that memory (AR(1)), each still of variance 1."""
    back = np.subtract.outer(np.arange(n), np.arange(n))
    weights = np.where(back >= 0, memory ** np.maximum(back, 0.0), 0.0)
    weights[:, 1:] *= math.sqrt(1 - memory * memory)
    return weights


def lap_of(values: Sequence[float], prompts: Sequence[str] | None = None, **more: Any) -> Lap:
    """A run of one level by its times to the first token alone."""
    names = list(prompts) if prompts is not None else [f"p{i}" for i in range(len(values))]
    return Lap(**{"run": "r", "began": "", "prompts": names, "values": {"ttft": np.array(values, float)}, **more})


def judge(
    base: Side,
    new: Side,
    metrics: Sequence[str] = DEFAULT,
    *,
    margin: float = MARGIN,
    share_margin: float = SHARE_MARGIN,
) -> list[Verdict]:
    """The verdicts of one level."""
    return judge_levels([(base, new)], metrics, margin=margin, share_margin=share_margin)[0]


def over_levels(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The mean of one metric over levels."""
    return means([verdicts])[0]


def side_of(*laps: Lap) -> Side:
    return Side("m", "c1", laps)


def lap(generator: np.random.Generator, server: Server, centres: Mapping[str, float], times: int, began: str) -> Lap:
    """One run: every prompt `times` times, in an order of its own each time, as the plan has it."""
    names = [name for _ in range(times) for name in generator.permutation(list(centres))]
    drift = server.between_runs * generator.standard_normal()
    speed = np.array([centres[name] for name in names]) + math.log(server.slower) + drift

    def column() -> np.ndarray:
        return np.exp(
            speed + server.noise * remembering(len(names), server.memory) @ generator.standard_normal(len(names))
        )

    slices = np.exp(-drift + 0.2 * generator.standard_normal(SLICES)) / server.slower
    failed = generator.random(len(names)) < server.failing
    return Lap(
        run=began,
        began=began,
        prompts=[str(name) for name in names],
        values={"ttft": column(), "tpot": column(), "e2e": column()},
        flows={"output_tokens_per_s": Flow(float(slices.sum()) / 60, slices, 60.0, 1.0)},
        outcomes={"failed": Outcomes(failed, [str(name) for name in names])},
    )


def comparisons(
    trials: int, base: Server, new: Server, *, prompts: int = 12, times: int = 10, runs: int = 1, seed: int = SEED
) -> Iterator[tuple[Side, Side]]:
    """Independent repetitions of a whole comparison, the runs of both sides taking turns (A B, B A, …)."""
    generator = np.random.default_rng(seed)
    for _ in range(trials):
        yield _level(generator, (base, new), prompts, times, runs)


def of_levels(
    trials: int, base: Server, new: Server, levels: int, *, times: int = 4, runs: int = 1, closing: bool = False
) -> Iterator[list[tuple[Side, Side]]]:
    """The same of several levels with 12 prompts, each level of a run apart from the server's law by itself.

    Args:
        closing: Whether each run measures its first level once more at its end.
    """
    generator = np.random.default_rng(SEED)
    for _ in range(trials):
        yield [_level(generator, (base, new), 12, times, runs, closing and at == 0) for at in range(levels)]


def _level(
    generator: np.random.Generator,
    servers: tuple[Server, Server],
    prompts: int,
    times: int,
    runs: int,
    closing: bool = False,
) -> tuple[Side, Side]:
    centres = {f"p{i}": 5 + servers[0].between_prompts * generator.standard_normal() for i in range(prompts)}
    laps: tuple[list[Lap], list[Lap]] = ([], [])
    for run in range(runs):
        turn = (0, 1) if run % 2 == 0 else (1, 0)
        for place, number in enumerate(turn):
            began = f"{2 * run + place:04}"
            found = lap(generator, servers[number], centres, times, began)
            if closing:
                found = replace(found, again=lap(generator, servers[number], centres, times, began))
            laps[number].append(found)
    return side_of(*laps[0]), side_of(*laps[1])


def words(
    trials: int, base: Server, new: Server, metrics: Sequence[str] = DEFAULT, *, margin: float = 0.1, **shape: int
) -> list[dict[str, Verdict]]:
    """The verdicts of each repetition, by metric."""
    found = []
    for one, other in comparisons(trials, base, new, **shape):
        found.append({verdict.metric: verdict for verdict in judge(one, other, metrics, margin=margin)})
    return found


def share(found: list[dict[str, Verdict]], metric: str, word: str) -> float:
    return sum(verdicts[metric].word == word for verdicts in found) / len(found)


def share_of_any(found: list[dict[str, Verdict]], *said: str) -> float:
    """Repetitions in which any metric at all got one of the words."""
    return sum(any(v.word in said for v in verdicts.values()) for verdicts in found) / len(found)
