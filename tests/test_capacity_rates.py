"""Whole searches by rate on a virtual clock, of queues whose answer is known; docs/statistics.md has many more."""

from __future__ import annotations

import numpy as np
import pytest

from loadbench.runner.probe import Probe, Rule, Sample
from loadbench.scenario import Scenario
from loadbench.scenario.bounds import Bound
from tests.support import searches
from tests.support.streams import stream

SEARCHES = 6


@pytest.mark.parametrize(("per_s", "bound_s"), searches.QUEUES)
def test_no_search_of_a_queue_promises_more_than_the_server_can_do(per_s: float, bound_s: float) -> None:
    """Before, nine of ten did: a probe began with an empty queue and was called met before it had filled."""
    random, exact = np.random.default_rng(1), searches.exact(per_s, bound_s)
    done = [searches.by_rate(random, searches.single(per_s), bound_s) for _ in range(SEARCHES)]
    answers = [one.found or 0.0 for one in done]

    assert max(answers) < per_s
    assert np.median(answers) == pytest.approx(exact, rel=0.08)


@pytest.mark.parametrize("rate_per_s", [8.0, 17.0, 19.5, 40.0])
def test_a_probe_of_real_records_says_what_the_simulation_says(rate_per_s: float) -> None:
    bound = Bound.parse("e2e_p95=2s")
    rule = Rule.of([bound], Scenario(request_rate=[rate_per_s]).levels(["m"])[0])
    due_s, stay_s = searches.single(20.0)(np.random.default_rng(3), rate_per_s, rule.sizes[-1])
    due_s, stay_s = np.round(due_s, 6), np.round(stay_s, 6)
    said = searches.probe(rule, Sample(due_s, stay_s, (stay_s <= 2.0)[:, None])).looked
    one = Probe([bound], rule, first=0, opened=True)
    for n, (due, stay) in enumerate(zip(due_s, stay_s, strict=True)):
        one.heard(stream(n, due=1000 * due, ttft=1000 * stay, tokens=1))
        if (decided := one.look()) is not None:
            break

    assert decided is not None
    assert (decided.verdict, decided.requests) == (said.verdict, said.requests)
