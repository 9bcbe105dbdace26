"""Shares between sides: differences, not ratios; paired where the same prompts were asked."""

import numpy as np
import pytest

from loadbench.compare import Outcomes, Side, judge
from loadbench.stats import independent_in_runs, mcnemar, newcombe
from tests.support.comparisons import lap_of, side_of


def failing(*flags: list[bool], prompts: list[str] | None = None, offered: int | None = None) -> Side:
    """A run for each list of failures."""
    return side_of(
        *(
            lap_of(
                [1.0],
                outcomes={"failed": Outcomes(np.array(each), prompts or [f"p{i}" for i in range(len(each))], offered)},
            )
            for each in flags
        )
    )


def spread(n: int, failed: int) -> list[bool]:
    """Failures that come at random, so that blocks find nothing in their order."""
    flags = np.arange(n) < failed
    return np.random.default_rng(7).permutation(flags).tolist()


def test_a_share_is_compared_by_its_difference_and_has_no_ratio() -> None:
    (verdict,) = judge(failing(spread(400, 4)), failing(spread(400, 80)), ["failed"])

    assert (verdict.ratio, verdict.base, verdict.new, verdict.unit) == (None, 0.01, 0.2, "share")
    assert verdict.low < 0.19 < verdict.high
    assert (verdict.word, verdict.bad, verdict.margin) == ("worse", True, 0.01)


def test_fewer_failures_are_better() -> None:
    (verdict,) = judge(failing(spread(400, 80)), failing(spread(400, 4)), ["failed"])

    assert (verdict.word, verdict.bad) == ("better", False)


def test_a_few_requests_without_a_failure_do_not_show_that_failures_are_the_same() -> None:
    (few,) = judge(failing([False] * 40), failing([False] * 40), ["failed"])
    (many,) = judge(failing([False] * 800), failing([False] * 800), ["failed"])

    assert (few.word, many.word) == ("can't tell", "same")
    assert few.runs_needed is not None


def test_the_same_prompts_are_paired_and_mcnemar_asks_those_that_changed() -> None:
    base, new = spread(200, 20), spread(200, 20)
    changed = [i for i, failed in enumerate(base) if not failed][:9]
    for i in changed:
        new[i] = True

    (paired,) = judge(failing(base), failing(new), ["failed"])
    other = failing(new, prompts=[f"other{i}" for i in range(200)])
    (apart,) = judge(failing(base), other, ["failed"])

    assert (paired.method, apart.method) == ("Newcombe, paired by prompt", "Newcombe, not paired")
    assert (paired.p_value, apart.p_value) == (pytest.approx(mcnemar(9, 0)), None)
    assert paired.high - paired.low < apart.high - apart.low


def test_each_asking_of_a_prompt_is_paired_with_the_same_asking_of_the_other_side() -> None:
    base = failing([True, False, False, False], prompts=["a", "a", "b", "b"])
    new = failing([False, False, True, False], prompts=["b", "b", "a", "a"])

    (verdict,) = judge(base, new, ["failed"])

    assert verdict.p_value == 1.0


def test_without_pairing_the_interval_is_newcombes_of_as_many_requests_as_they_are_worth() -> None:
    rng = np.random.default_rng(1)
    base, new = (rng.random(300) < 0.1).tolist(), (rng.random(300) < 0.2).tolist()

    (verdict,) = judge(failing(base), failing(new, prompts=[f"q{i}" for i in range(300)]), ["failed"])
    low, high = newcombe((sum(base), 300), (sum(new), 300))

    assert verdict.low == pytest.approx(low, abs=0.01)
    assert verdict.high == pytest.approx(high, abs=0.01)
    assert verdict.high - verdict.low >= high - low


def test_failures_that_come_together_make_the_difference_less_certain() -> None:
    together = [i < 30 for i in range(300)]
    names = [f"q{i}" for i in range(300)]

    (wide,) = judge(failing([False] * 300), failing(together, prompts=names), ["failed"])
    (narrow,) = judge(failing([False] * 300), failing(spread(300, 30), prompts=names), ["failed"])

    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_requests_that_were_never_sent_count_to_what_was_offered() -> None:
    (verdict,) = judge(failing([True] * 10, offered=40), failing([True] * 10, offered=40), ["failed"])

    assert (verdict.base, verdict.n_base) == (0.25, 40)
    assert verdict.p_value is None  # what was not sent has no prompt to pair by


def test_runs_of_one_side_are_pooled() -> None:
    (verdict,) = judge(failing(spread(50, 5), spread(50, 10)), failing(spread(50, 5), spread(50, 5)), ["failed"])

    assert (verdict.base, verdict.n_base, verdict.runs_base) == (0.15, 100, 2)


def test_a_run_without_outcomes_has_no_verdict_on_shares() -> None:
    assert judge(failing([False] * 10), side_of(lap_of([1.0])), ["failed", "attainment"]) == []


@pytest.mark.endurance
@pytest.mark.parametrize(("differ", "most"), [(False, 0.05), (True, 0.12)])
def test_runs_that_fail_by_turns_raise_few_false_alarms(differ: bool, most: float) -> None:
    """Each run has a share of failures of its own; as if all requests were of one run half of the comparisons err."""
    generator, names = np.random.default_rng(4), [f"p{i % 10}" for i in range(100)]

    def side() -> Side:
        of_run = generator.beta(0.6, 11.4, 5) if differ else np.full(5, 0.05)  # mean 5 %, spread 6 %
        flags = [generator.random(100) < share for share in of_run]
        return side_of(*(lap_of([1.0] * 100, names, outcomes={"failed": Outcomes(one, names)}) for one in flags))

    words = [judge(side(), side(), ["failed"], share_margin=0.0)[0].word for _ in range(200)]

    assert sum(word in ("better", "worse") for word in words) / 200 <= most


def test_failures_that_are_spread_over_the_runs_lose_nothing() -> None:
    assert independent_in_runs([5, 4, 6], [100, 100, 100], 290.0) == 290.0
    assert independent_in_runs([15], [300], 300.0) == 300.0
    assert independent_in_runs([15, 0, 0], [100, 100, 100], 300.0) < 10
