"""Curves of servers whose law is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.plain import scaling

LEVELS = np.array([1.0, 2, 4, 8, 16, 32, 64])

LAW = (50.0, 0.06, 0.0008)


def curve(lambda_per_s: float, sigma: float, kappa: float, n: NDArray[np.float64] = LEVELS) -> NDArray[np.float64]:
    return lambda_per_s * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))


def noisy(law: tuple[float, float, float], seed: int, noise: float = 0.02) -> NDArray[np.float64]:
    return curve(*law) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(LEVELS)))


ONE_MS = 1000.0
"""What an answer takes alone: 200 ms to the first token, 800 ms for the others."""


def level(n: int, x: float, ttft_ms: float | None, e2e_ms: float, **more: Any) -> dict[str, Any]:
    found = {"id": f"m@c{n}", "model": "m", "concurrency": n, "output_tokens_per_s": x, "e2e_ms": {"mean": e2e_ms}}
    return found | {"ttft_ms": {"mean": ttft_ms}, "streamed": ttft_ms is not None, **more}


def queue(n: int, x: float = 50.0, **more: Any) -> dict[str, Any]:
    """One at a time: each waits for the n - 1 before it."""
    return level(n, x, 200 + (n - 1) * ONE_MS, n * ONE_MS, **more)


def batch(n: int) -> dict[str, Any]:
    return level(n, 50.0 * n * 0.9 ** (n - 1), 210.0, ONE_MS / 0.9 ** (n - 1))


def shared(n: int) -> dict[str, Any]:
    """All at once, each n times slower."""
    return level(n, 50.0, 200.0 * n, n * ONE_MS)


def serial(*levels: dict[str, Any]) -> bool | None:
    [curve] = scaling(levels)
    found: bool | None = curve["serial"]
    return found


CURVE = {1: 50.0, 2: 95.0, 4: 170.0, 8: 275.0, 16: 400.0, 32: 420.0}
"""Tokens/s by streams, of answers of 50 tokens: X/R is highest at 16, no doubling gains less than 5 %, X_max is 8.4/s
and one answer alone takes a second."""


def levels(curve: dict[int, float] = CURVE, tokens: float = 50.0, **ttft_p95_ms: float) -> list[dict[str, Any]]:
    found = []
    for n, x in curve.items():
        done_per_s = x / tokens
        found.append(
            {
                "id": f"m@c{n}",
                "model": "m",
                "concurrency": n,
                "output_tokens_per_s": x,
                "requests_per_s": done_per_s,
                "e2e_ms": {"mean": 1000 * n / done_per_s},
            }
        )
    return found
