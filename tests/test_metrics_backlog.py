"""Open loop: a server that cannot keep up is told from a healthy one (gate V2)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.streams import stream, summed


def served(
    rate_per_s: float, *, n: int, slots: int, service_ms: Callable[[], float], seed: int = 0, constant: bool = False
) -> dict[str, Any]:
    """A level of n requests to a server that answers as many at once as it has slots, the others in turn."""
    rng = np.random.default_rng(seed)
    gaps_ms = np.full(n, 1.0) if constant else rng.exponential(1.0, n)
    free_ms = [0.0] * slots
    results = []
    for number, due in enumerate(np.cumsum(gaps_ms) * 1000 / rate_per_s):
        begin = max(due, min(free_ms))
        took = service_ms()
        free_ms[free_ms.index(min(free_ms))] = begin + took
        results.append(stream(number, due=due, ttft=begin - due + took / 2, per_token=took / 62, tokens=32))
    return summed(results, concurrency=None, request_rate_per_s=rate_per_s)


def told(level: dict[str, Any]) -> list[tuple[str, str]]:
    return [(w["severity"], w["text"]) for w in level["warnings"] if w["code"] == "V2"]


def test_twenty_a_second_to_a_server_of_ten_a_second_is_a_backlog() -> None:
    level = served(20.0, n=240, slots=1, service_ms=lambda: 100.0)

    [(severity, text)] = told(level)

    assert severity == "red"
    assert "/s that are due: the backlog grows" in text
    assert text.startswith("the server completes 9.9")
    assert level["residence_growth"] > 3


def test_a_constant_rate_needs_thirty_requests_to_show_a_backlog() -> None:
    assert [severity for severity, _ in told(served(2.0, n=40, slots=1, service_ms=lambda: 1000.0, constant=True))] == [
        "red"
    ]


@pytest.mark.endurance
@pytest.mark.parametrize("n", [30, 300])
@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_a_healthy_server_has_no_backlog_whatever_chance_does(load: float, n: int) -> None:
    one_by_one = [served(load, n=n, slots=1, service_ms=lambda: 1000.0, seed=seed) for seed in range(15)]
    eight_at_once = [served(8 * load, n=n, slots=8, service_ms=lambda: 1000.0, seed=seed) for seed in range(15)]

    assert [text for level in one_by_one + eight_at_once for _, text in told(level) if "backlog" in text] == []


@pytest.mark.parametrize("n", [30, 100])
def test_answers_as_long_as_the_window_are_no_backlog(n: int) -> None:
    # Two a second, 20 s each, all at once: in 15 s none ends, and yet nothing waits.
    rng = np.random.default_rng(2)
    levels = [
        served(2.0, n=n, slots=n, service_ms=lambda: float(20_000 * rng.lognormal(0, 0.4)), seed=seed)
        for seed in range(15)
    ]

    assert [text for level in levels for _, text in told(level) if "backlog" in text] == []


def test_a_closed_loop_has_no_backlog() -> None:
    assert summed([stream(i, due=1000 * i) for i in range(9)])["residence_growth"] is None


def test_two_requests_have_no_first_and_last_third() -> None:
    assert summed([stream(0), stream(1)], concurrency=None, request_rate_per_s=1.0)["residence_growth"] is None
