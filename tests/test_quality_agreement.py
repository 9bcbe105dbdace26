"""Agreement: kappa against its textbook form, its interval, and who is milder."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.quality.scores import agreement, agreements, weighted_kappa
from tests.support.raters import answers, noisy, values

SCORES = st.integers(1, 5)


def textbook(a: list[int], b: list[int]) -> float | None:
    """Cohen's kappa with quadratic weights from the 5 x 5 table."""
    table = np.zeros((5, 5))
    for x, y in zip(a, b, strict=True):
        table[x - 1, y - 1] += 1
    weights = np.array([[(i - j) ** 2 for j in range(5)] for i in range(5)])
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    return None if not (weights * expected).sum() else float(1 - (weights * table).sum() / (weights * expected).sum())


@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=40))
def test_kappa_is_that_of_the_table(pairs: list[tuple[int, int]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]

    assert weighted_kappa(a, b) == pytest.approx(textbook(a, b))


@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=40))
def test_kappa_is_the_same_the_other_way_round_and_at_most_1(pairs: list[tuple[int, int]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    kappa = weighted_kappa(a, b)

    assert kappa == pytest.approx(weighted_kappa(b, a))
    assert kappa is None or -1 - 1e-9 <= kappa <= 1 + 1e-9


def test_kappa_by_hand() -> None:
    # Mean square of the differences 1/3; of all pairs 10 + 35/3 - 2 * 8/3 * 3 = 17/3.
    assert weighted_kappa([1, 2, 5], [1, 3, 5]) == pytest.approx(16 / 17)


def test_raters_are_compared_on_what_both_scored_alone() -> None:
    rows = answers(4)
    rated = values("hand:anna", [1, 2, 3, 4]) | values("judge:j", [2, 3])

    found = agreement("hand:anna", "judge:j", rated, rows)

    assert found is not None
    assert (found.n, found.prompts, found.same, found.difference) == (2, 2, 0.0, 1.0)


def test_raters_without_a_common_answer_have_no_agreement() -> None:
    assert agreements({("hand:a", "r0"): 1, ("hand:b", "r1"): 2}, answers(2)) == []


def test_each_two_of_three_raters_are_compared() -> None:
    rated = values("hand:a", [1, 2]) | values("hand:b", [1, 2]) | values("judge:j", [1, 2])

    assert [(one.a, one.b) for one in agreements(rated, answers(2))] == [
        ("hand:a", "hand:b"),
        ("hand:a", "judge:j"),
        ("hand:b", "judge:j"),
    ]


def test_the_interval_holds_the_estimate_and_is_the_same_each_time() -> None:
    a, b = noisy(40, 1)
    rated = values("hand:a", a) | values("hand:b", b)

    found = agreement("hand:a", "hand:b", rated, answers(40))

    assert found is not None
    assert found.kappa is not None
    assert found.ci95 is not None
    assert found.ci95[0] < found.kappa < found.ci95[1]
    assert found == agreement("hand:a", "hand:b", rated, answers(40))


def test_answers_to_the_same_prompt_do_not_narrow_the_interval() -> None:
    a, b = noisy(20, 2)
    alone = agreement("a", "b", values("a", a) | values("b", b), answers(20))
    often = [score for score in a for _ in range(5)], [score for score in b for _ in range(5)]

    repeated = agreement("a", "b", values("a", often[0]) | values("b", often[1]), answers(100, each=5))

    assert alone is not None
    assert repeated is not None
    assert repeated.ci95 == pytest.approx(alone.ci95)


@pytest.mark.parametrize(("prompts", "there"), [(9, False), (10, True)])
def test_below_ten_prompts_there_is_no_interval(prompts: int, there: bool) -> None:
    a, b = noisy(prompts, 3)

    found = agreement("a", "b", values("a", a) | values("b", b), answers(prompts))

    assert found is not None
    assert (found.ci95 is not None) == there


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth = weighted_kappa(*noisy(200_000, 0))
    assert truth is not None
    hits = 0
    for seed in range(200):
        a, b = noisy(40, seed + 1)
        found = agreement("a", "b", values("a", a) | values("b", b), answers(40))
        assert found is not None
        assert found.ci95 is not None
        hits += found.ci95[0] <= truth <= found.ci95[1]

    assert 0.88 <= hits / 200 <= 0.99
