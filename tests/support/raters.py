"""Answers, and raters of them who differ by chance."""

from __future__ import annotations

import numpy as np

from loadbench.quality import Answer


def answers(n: int, *, each: int = 1) -> list[Answer]:
    return [Answer(f"r{i}", f"p{i // each}", "m", f"text {i}") for i in range(n)]


def values(rater: str, scores: list[float]) -> dict[tuple[str, str], float]:
    return {(rater, f"r{i}"): score for i, score in enumerate(scores)}


def noisy(n: int, seed: int, spread: float = 1.0) -> tuple[list[float], list[float]]:
    """Scores of two who see the same quality, each with errors of their own."""
    chance = np.random.default_rng(seed)
    quality = chance.uniform(1, 5, n)
    a, b = (np.clip(np.rint(quality + chance.normal(0, spread, n)), 1, 5) for _ in range(2))
    return a.tolist(), b.tolist()
