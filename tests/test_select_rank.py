"""The weighted rank and how firm it is: what must hold for any figures, and for figures that are declared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.errors import UsageError
from loadbench.select import policy, rank
from loadbench.select.rank import Grid, shares
from tests.support.choosing import GB, candidate, choose, row

FIGURES = ("ttft_p95", "characters_per_s", "memory")
amounts = st.lists(st.floats(0.01, 1e6), min_size=3, max_size=3)
weights = st.lists(st.floats(0.01, 10), min_size=3, max_size=3).map(lambda some: [one / sum(some) for one in some])


def grid(*rows: list[float], spread: float = 0.0) -> Grid:
    """Goodnesses of candidates c0, c1, …; all with the same doubt."""
    logs = np.log(np.array(rows))
    doubt = np.full(logs.shape, spread)
    speed = np.array([True, True, False])
    return Grid(tuple(f"c{i}" for i in range(len(rows))), FIGURES, logs, doubt, doubt, speed)


# -- scores


def test_a_score_is_the_weighted_geometric_mean_of_ratios_to_the_best() -> None:
    found = rank.scores(np.log([[4.0, 1.0], [1.0, 1.0]]), [0.5, 0.5])

    assert found.tolist() == pytest.approx([100.0, 50.0])


@given(first=amounts, second=amounts, third=amounts, parts=weights)
def test_a_third_candidate_never_turns_the_order_of_two(
    first: list[float], second: list[float], third: list[float], parts: list[float]
) -> None:
    two = rank.scores(np.log([first, second]), parts)
    three = rank.scores(np.log([first, second, third]), parts)

    assert three[0] / three[1] == pytest.approx(two[0] / two[1])


@given(first=amounts, second=amounts, parts=weights, factor=st.floats(1.01, 100), which=st.integers(0, 2))
def test_who_gets_better_in_one_figure_never_falls_behind(
    first: list[float], second: list[float], parts: list[float], factor: float, which: int
) -> None:
    better = [value * (factor if k == which else 1) for k, value in enumerate(first)]
    before, after = rank.scores(np.log([first, second]), parts), rank.scores(np.log([better, second]), parts)

    assert after[0] / after[1] >= before[0] / before[1] * (1 - 1e-9)


@given(first=amounts, second=amounts, parts=weights)
def test_who_is_dominated_is_never_before_who_dominates(
    first: list[float], second: list[float], parts: list[float]
) -> None:
    logs = np.log([first, second])
    beaten = rank.dominated(["a", "b"], FIGURES, logs)
    found = rank.scores(logs, parts)

    assert "a" not in beaten or found[0] <= found[1]


def test_a_point_of_quality_is_worth_a_factor_of_two() -> None:
    assert rank.goodness("quality", 4.0) == pytest.approx(rank.goodness("quality", 3.0) + np.log(2))  # type: ignore[operator]
    assert rank.goodness("rules", 0.75) == pytest.approx(rank.goodness("rules", 0.5) + np.log(2))  # type: ignore[operator]


# -- the front


def test_the_front_is_who_nobody_beats_in_everything() -> None:
    record = choose(
        candidate("fast", ttft=100, e2e=500, memory=4 * GB),
        candidate("light", memory=1 * GB),
        candidate("bad", ttft=900, e2e=9000, characters=50, memory=5 * GB),
    )

    beaten = {one["name"]: [by["by"] for by in one["dominated_by"]] for one in record["candidates"]}
    assert beaten == {"fast": [], "light": [], "bad": ["fast", "light"]}


def test_who_lacks_a_figure_beats_nobody_that_has_it() -> None:
    found = rank.dominated(["silent", "known"], ["a", "b"], np.array([[3.0, np.nan], [1.0, 1.0]]))

    assert found == {}


def test_who_lacks_a_figure_is_beaten_by_the_others() -> None:
    found = rank.dominated(["silent", "known"], ["a", "b"], np.array([[1.0, np.nan], [3.0, 1.0]]))

    assert list(found) == ["silent"]


# -- how firm


def test_a_winner_far_ahead_stays_in_every_draw() -> None:
    found = rank.wins(grid([10.0, 10.0, 1.0], [1.0, 1.0, 1.0], spread=0.1), [0.4, 0.4, 0.2])

    assert (found.figures[0], found.weights[0], found.both[0]) == (1.0, 1.0, 1.0)


def test_two_that_are_alike_win_half_of_the_draws_each() -> None:
    found = rank.wins(grid([2.0, 2.0, 2.0], [2.0, 2.0, 2.0], spread=0.1), [0.4, 0.4, 0.2], draws=20_000)

    assert found.figures == pytest.approx((0.5, 0.5), abs=0.02)
    assert found.weights == (0.5, 0.5)


def test_the_share_is_the_probability_that_the_law_says() -> None:
    # One figure, a lead of one standard deviation of the difference: Phi(1).
    lead, spread = 0.1 * np.sqrt(2), 0.1
    found = rank.wins(grid([np.exp(lead), 1.0, 1.0], [1.0, 1.0, 1.0], spread=spread), [1.0, 0.0, 0.0], draws=40_000)

    assert found.figures[0] == pytest.approx(0.841, abs=0.01)


def test_times_and_rates_of_a_run_are_drawn_together() -> None:
    # Half and half of two speeds: drawn apart, their mean would vary by a factor of sqrt(2) less.
    lead, spread = 0.1 * np.sqrt(2), 0.1
    found = rank.wins(grid([np.exp(lead)] * 3, [1.0] * 3, spread=spread), [0.5, 0.5, 0.0], draws=40_000)

    assert found.figures[0] == pytest.approx(0.841, abs=0.01)


def test_a_lead_that_hangs_on_a_weight_falls_with_it() -> None:
    # Even at 50:50, so that the heavier of both decides.
    found = rank.wins(grid([2.0, 1.0, 1.0], [1.0, 2.0, 1.0]), [0.5, 0.5, 0.0], draws=20_000)

    assert found.figures[0] == 0.5
    assert found.weights[0] == pytest.approx(0.5, abs=0.02)
    assert found.weights[0] != 0.5


def test_shares_are_the_same_for_the_same_seed_and_sum_to_one() -> None:
    some = grid([2.0, 1.0, 3.0], [1.0, 2.0, 3.0], [2.0, 2.0, 2.0], spread=0.3)

    first, again, other = (rank.wins(some, [0.4, 0.4, 0.2], seed=seed) for seed in (1, 1, 2))

    assert first == again != other
    assert sum(first.both) == pytest.approx(1)


def test_a_choice_between_two_alike_is_called_close() -> None:
    record = choose(candidate("a"), candidate("b"))

    assert record["robustness"]["word"] == "close"
    assert record["robustness"]["winner"]["both"] == pytest.approx(0.5, abs=0.03)


def test_a_clear_choice_is_called_firm() -> None:
    record = choose(candidate("a"), candidate("b", ttft=600, e2e=3000, characters=100))

    assert record["robustness"]["word"] == "firm"
    assert record["robustness"]["winner"] == {"figures": 1.0, "weights": 1.0, "both": 1.0}


# -- what would change it


PAIR = (
    {"name": "speedy", "ttft": 100, "e2e": 500, "memory": 4 * GB},
    {"name": "light", "memory": 1 * GB},
)


def pair(weight: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    speedy, light = ({**one, **(changes if one["name"] == "light" else {})} for one in PAIR)
    return choose(candidate(**speedy), candidate(**light), weight=weight or [])  # type: ignore[arg-type]


def test_the_least_change_of_a_weight_makes_the_other_win() -> None:
    told = pair()["would_change"]["weight"]
    shares_of = {one["name"]: one["share"] for one in pair()["criteria"]}
    rest = 1 - shares_of[told["criterion"]]

    def winner(share: float) -> str:
        others = {name: part / rest * (1 - share) for name, part in shares_of.items() if name != told["criterion"]}
        return str(pair([f"{name}={part}" for name, part in {**others, told["criterion"]: share}.items()])["winner"])

    step = 0.001 if told["needed"] > told["share"] else -0.001
    assert told["winner"] == "light"
    assert (winner(told["needed"] - step), winner(told["needed"] + step)) == ("speedy", "light")


def test_the_figure_that_is_named_makes_the_second_win() -> None:
    told = next(one for one in pair()["would_change"]["figures"] if one["figure"] == "memory")

    assert pair(memory=told["needed"] * 1.001)["winner"] == "speedy"
    assert pair(memory=told["needed"] * 0.999)["winner"] == "light"


def test_who_leads_in_everything_is_undone_by_no_weight() -> None:
    record = choose(candidate("a"), candidate("b", ttft=300, e2e=2000, characters=100, memory=3 * GB, disk=2 * GB))

    assert record["would_change"]["weight"] is None


def test_a_quality_beyond_the_scale_is_no_way_to_win() -> None:
    record = choose(candidate("a", ttft=10, e2e=50, quality=3.0), candidate("b", quality=4.5))

    assert record["winner"] == "a"
    assert "quality" not in {one["figure"] for one in record["would_change"]["figures"]}


def test_the_change_is_the_least_over_all_rivals() -> None:
    ratios = np.array([[0.0, -1.0], [-0.1, 0.0], [-3.0, -0.9]])
    found = rank.other_weight(["a", "b", "c"], ["ttft_p95", "memory"], ratios, [0.95, 0.05], 0)

    assert found is not None
    assert found.winner == "b"


# -- weights


def test_a_file_lists_all_that_counts() -> None:
    found = policy({"latency": 2, "memory": 1})

    assert {name: value for name, value in found.weights.items() if value} == {"latency": 2.0, "memory": 1.0}


def test_the_command_line_wins_over_the_file() -> None:
    assert policy({"latency": 2}, ["latency=5"]).weights["latency"] == 5


def test_a_licence_counts_by_what_the_file_says_it_is_worth() -> None:
    some = candidate("free", ttft=250), candidate("bound", licence="gemma")
    worth = {"latency": 1, "licence": 3, "licences": {"MIT": 1, "gemma": 0.1}}

    assert choose(*some, weights={"latency": 1})["winner"] == "bound"
    assert choose(*some, weights=worth)["winner"] == "free"


@pytest.mark.parametrize(
    ("data", "given", "said"),
    [
        ([1], [], "must be a table of weights"),
        ({"latancy": 1}, [], 'there is no criterion "latancy"; did you mean latency?'),
        ({"latency": -1}, [], "latency is -1: must be a number, at least 0"),
        ({"latency": True}, [], "must be a number"),
        ({"latency": 0}, [], "every weight is 0"),
        ({"needs": "x"}, [], "needs is"),
        ({"latency": 1, "licences": {"apache-2": {"0": 1}}}, [], "put names with a dot into quotes"),
        ({"latency": 1, "licences": {"mit": 2}}, [], "a licence is worth from 0 to 1"),
        (None, ["latency"], "write CRITERION=PARTS"),
        (None, ["latency=nan"], "must be a number"),
    ],
)
def test_weights_that_are_none_are_one_line(data: Any, given: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        policy(data, given)

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_figures_that_stand_in_for_one_another_the_better_known_counts() -> None:
    assert set(shares({"quality": 1.0}, {"quality": 1, "rules": 3})) == {"rules"}


def test_a_candidate_without_a_score_ranks_below_the_worst_scored() -> None:
    record = choose(candidate("a", quality=4.0), candidate("b", quality=2.0), candidate("c"))

    assert row(record, "c")["log_ratios"]["quality"] < row(record, "b")["log_ratios"]["quality"]


def test_who_is_not_known_where_all_others_are_alike_does_not_win_by_it() -> None:
    assert choose(candidate("a"), candidate("b", memory=None, ttft=199))["winner"] == "a"
