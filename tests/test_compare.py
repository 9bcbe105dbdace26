"""Verdicts: their words, what they rest on, how often they are wrong and how often they see what is there."""

import math
from dataclasses import replace

import numpy as np
import pytest

from loadbench.compare import Flow, Outcomes, Side, Verdict, figure, interleaved, judge_levels, withheld
from loadbench.compare.verdict import Runs, moderated, runs_needed, word
from loadbench.errors import UsageError
from loadbench.stats.blocks import independent_in_runs, mean_interval
from loadbench.stats.shares import mcnemar, newcombe
from tests.support.comparisons import (
    Server,
    comparisons,
    judge,
    lap_of,
    of_levels,
    over_levels,
    share,
    share_of_any,
    side_of,
    words,
)

TRIALS = 1000
ALARMS = 0.05 + 0.015
"""5 % and two standard errors of it over 1,000 trials."""
EDGE = math.log(1.1)

WORDS = [
    # interval of the log ratio, of a time; the word
    ((0.10, 0.20), "slower"),
    ((-0.20, -0.10), "faster"),
    ((-0.09, 0.09), "same"),
    ((0.02, 0.20), "can't tell"),
    ((-0.30, 0.30), "can't tell"),
    ((0.0, 0.0), "same"),
    ((EDGE, 0.2), "can't tell"),  # an end on the edge is neither outside nor inside
]


TURNED = {"slower": "faster", "faster": "slower"}


@pytest.mark.parametrize(("bounds", "expected"), WORDS)
def test_the_word_is_that_of_the_interval_and_the_margin_and_turns_with_the_sides(bounds, expected: str) -> None:
    low, high = bounds

    assert word(low, high, EDGE, more_is_better=False) == expected
    assert word(low, high, EDGE, more_is_better=True) == TURNED.get(expected, expected)
    assert word(-high, -low, EDGE, more_is_better=False) == TURNED.get(expected, expected)


def test_runs_needed_are_those_that_settle_four_comparisons_of_five() -> None:
    # What 3 runs say of the ratio is known to 0.1 (standard error); 0.05 from the edge that takes many.
    found = runs_needed(0.05, 0.1**2, 3, 0.1)

    generator = np.random.default_rng(1)
    half = 1.96 * 0.1 * math.sqrt(3 / found)
    estimates = 0.05 + 0.1 * math.sqrt(3 / found) * generator.standard_normal(20_000)
    settled = (np.abs(estimates) > 0.1 + half) | (np.abs(estimates) < 0.1 - half)
    assert settled.mean() == pytest.approx(0.8, abs=0.02)


def test_runs_needed_are_more_near_an_edge_and_with_few_degrees_of_freedom() -> None:
    assert runs_needed(0.25, 0.04**2, 5, 0.1) == 6  # nearly settled
    assert runs_needed(0.1, 0.04**2, 5, 0.1) > 100  # on the edge
    assert runs_needed(0.02, 0.04**2, 3, 0.1, freedom=4) > 1.5 * runs_needed(0.02, 0.04**2, 3, 0.1)


@pytest.mark.parametrize("name", ["ttft_p42", "speed", "itl", "", "output_tokens_per_s_p95"])
def test_an_unknown_metric_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UsageError, match="no verdict on"):
        figure(name)


def test_each_metric_knows_its_good_direction() -> None:
    more = {name: figure(name).more_is_better for name in ("ttft", "itl_p99", "goodput", "failed", "attainment")}

    assert more == {"ttft": False, "itl_p99": False, "goodput": True, "failed": False, "attainment": True}


def test_a_ratio_is_new_over_base_of_what_each_prompt_took() -> None:
    # Prompts of 100, 200 and 400 ms, twice each, in another order on the other side, where they take 1.5 times as long.
    base = side_of(lap_of([100, 200, 400, 100, 200, 400], ["a", "b", "c", "a", "b", "c"]))
    new = side_of(lap_of([600, 150, 300, 600, 150, 300], ["c", "a", "b", "c", "a", "b"]))

    (verdict,) = judge(base, new, ["ttft"])

    assert verdict.ratio == pytest.approx(1.5)
    assert (verdict.base, verdict.new) == (pytest.approx(200), pytest.approx(300))
    assert (verdict.low, verdict.high) == (pytest.approx(1.5), pytest.approx(1.5))
    assert (verdict.word, verdict.n_base, verdict.runs_base) == ("slower", 6, 1)
    assert "within one run a side, paired by prompt (3)" in verdict.method


def test_a_prompt_that_is_asked_more_often_weighs_no_more() -> None:
    generator = np.random.default_rng(1)
    base = side_of(lap_of(100 * np.exp(0.01 * generator.standard_normal(40)), ["a", "b"] * 20))
    # On the other side b takes twice as long and is asked three times as often.
    names = ["a", "b", "b", "b"] * 10
    values = [100.0 if name == "a" else 200.0 for name in names] * np.exp(0.01 * generator.standard_normal(40))

    (verdict,) = judge(base, side_of(lap_of(values, names)), ["ttft"])

    assert verdict.ratio == pytest.approx(math.sqrt(2), rel=0.01)


def test_sides_that_asked_different_prompts_are_not_paired_and_say_so() -> None:
    base, new = (side_of(lap_of([100.0, 110.0, 90.0] * 10, [f"{side}{i}" for i in range(30)])) for side in "ab")

    (verdict,) = judge(base, new, ["ttft"])

    assert (verdict.ratio, "not paired" in verdict.method) == (pytest.approx(1.0), True)


def test_what_a_side_did_not_measure_has_no_verdict_and_undefined_values_are_left_out() -> None:
    one = side_of(lap_of([100.0, math.nan, 120.0, 110.0] * 5, ["a", "b", "c", "d"] * 5))

    (verdict,) = judge(one, one, ["ttft", "tpot", "output_tokens_per_s", "failed", "itl_p99"])

    assert (verdict.metric, verdict.n_base, verdict.ratio) == ("ttft", 15, pytest.approx(1.0))
    assert judge(one, one, ["tpot"]) == []


def test_a_percentile_of_too_few_requests_has_no_interval_and_says_what_it_needs() -> None:
    one = side_of(lap_of(np.linspace(100, 200, 60)))

    (verdict,) = judge(one, one, ["ttft_p95"])

    assert (verdict.low, verdict.high, verdict.word, verdict.runs_needed) == (None, None, "can't tell", None)
    assert verdict.note == "needs >= 72 requests a side"
    assert verdict.ratio == pytest.approx(1.0)


def test_each_metric_that_is_judged_beside_widens_the_interval_and_what_cannot_be_judged_does_not() -> None:
    one, other = (side_of(lap_of(np.exp(row))) for row in np.random.default_rng(1).standard_normal((2, 60)))

    (alone,), (beside, mean) = judge(one, other, ["ttft"]), judge(one, other, ["ttft", "ttft_mean"])

    assert beside.low < alone.low
    assert (beside.confidence, mean.confidence) == (pytest.approx(0.975), pytest.approx(0.975))
    unjudged = judge(one, other, ["ttft", "ttft_p95", "ttft_p99"])[0]
    assert (alone.low, alone.confidence) == (unjudged.low, pytest.approx(0.95))


def test_a_window_without_four_blocks_gives_no_verdict_on_its_rate() -> None:
    short = side_of(lap_of([100.0] * 20, flows={"requests_per_s": Flow(10.0, np.full(64, 1.0), 6.4, 2.0)}))

    (verdict,) = judge(short, short, ["requests_per_s"])

    assert (verdict.word, verdict.ratio) == ("can't tell", 1.0)
    assert "too short" in verdict.note


def test_outliers_are_counted_and_stay_in() -> None:
    values = np.exp(0.05 * np.random.default_rng(1).standard_normal(60)) * 100
    far = values.copy()
    far[7] = 10_000

    (verdict,) = judge(side_of(lap_of(values)), side_of(lap_of(far)), ["ttft"])
    (mean,) = judge(side_of(lap_of(values, ["p"] * 60)), side_of(lap_of(far, ["p"] * 60)), ["ttft"])

    assert (mean.outliers_base, mean.outliers_new) == (0, 1)
    assert verdict.ratio == pytest.approx(math.exp(math.log(10_000 / values[7]) / 60))


def test_a_withheld_verdict_keeps_its_figures() -> None:
    (verdict,) = judge(side_of(lap_of([100.0] * 20)), side_of(lap_of([200.0] * 20)), ["ttft"])

    kept = withheld(verdict, "V8: model differs")

    assert (verdict.bad, kept.bad) == (True, False)
    assert (kept.word, kept.ratio, kept.note) == ("no verdict", verdict.ratio, "V8: model differs")


TURNS = [("0 3", "1 2", True), ("0 2", "1 3", True), ("0 1", "2 3", False), ("0", "1", True), ("0 2 4", "1 3", False)]


@pytest.mark.parametrize(("base", "new", "expected"), TURNS)
def test_runs_that_took_turns_are_pairs(base: str, new: str, expected: bool) -> None:
    first, second = (side_of(*(lap_of([1.0], began=began) for began in side.split())) for side in (base, new))

    assert interleaved(first, second) is expected


def test_pairs_of_runs_cancel_what_both_met_and_blocks_of_runs_do_not() -> None:
    drift = [1.0, 1.3, 1.6, 1.9, 2.2]
    tiny = [1.0, 1.01, 0.99, 1.005, 0.995]
    base = side_of(*(lap_of([100 * d] * 6, began=f"{i}0") for i, d in enumerate(drift)))
    turns = side_of(
        *(lap_of([120 * d * t] * 6, began=f"{i}1") for i, (d, t) in enumerate(zip(drift, tiny, strict=True)))
    )
    later = side_of(*(replace(lap, began=f"9{lap.began}") for lap in turns.laps))

    (paired,), (apart,) = judge(base, turns, ["ttft"]), judge(base, later, ["ttft"])

    assert (paired.word, apart.word) == ("slower", "can't tell")
    assert (paired.method, apart.method) == (
        "5 pairs of runs, paired by prompt (6)",
        "5 and 5 runs, paired by prompt (6)",
    )
    assert paired.by_run == pytest.approx([1.2 * t for t in tiny])


def test_unequal_numbers_of_runs_are_compared_by_welchs_interval() -> None:
    base = side_of(*(lap_of([value] * 6, began=str(i)) for i, value in enumerate((100, 101, 99))))
    new = side_of(*(lap_of([value] * 6, began=str(i)) for i, value in enumerate((150, 151))))

    (verdict,) = judge(base, new, ["ttft"])

    assert (verdict.word, verdict.runs_base, verdict.runs_new, verdict.by_run) == ("slower", 3, 2, ())


def test_one_run_against_several_knows_how_much_those_differ() -> None:
    generator = np.random.default_rng(2)

    def run(pace: float):
        return lap_of(100 * pace * np.exp(0.1 * generator.standard_normal(40)), ["a", "b"] * 20)

    one, quiet = side_of(run(1.0)), side_of(run(1.0), run(1.01), run(0.99))
    unsteady = side_of(run(1.0), run(1.2), run(0.8))

    (calm,), (wide,) = judge(one, quiet, ["ttft"]), judge(one, unsteady, ["ttft"])

    assert calm.method.startswith("within one run a side")
    assert calm.method.endswith("how much runs differ")
    assert wide.high / wide.low > 1.5 > 1.2 > calm.high / calm.low


SHAPES = [{"prompts": 12, "times": 10}, {"prompts": 60, "times": 1}, {"prompts": 6, "times": 4, "runs": 3}]


@pytest.mark.endurance
@pytest.mark.parametrize("shape", SHAPES)
def test_without_any_margin_equal_servers_are_told_apart_in_one_comparison_of_twenty(shape: dict[str, int]) -> None:
    # The hardest test of the intervals: any of the metrics judged, of servers that are equal to the last digit.
    server = Server(failing=0.05, between_runs=0.02 if "runs" in shape else 0.0)

    found = words(TRIALS, server, server, margin=0.0, **shape)

    assert share_of_any(found, "slower", "faster", "worse", "better") <= ALARMS
    # At the default margin an interval must lie beyond it as a whole.
    beyond = [v.low > 1.1 or v.high < 1 / 1.1 for each in found for v in each.values() if v.ratio and v.low and v.high]
    assert sum(beyond) / TRIALS <= 0.005


@pytest.mark.endurance
def test_a_slow_down_of_a_fifth_is_called_slower_at_the_default_margin() -> None:
    # One run a side of 30 x 12 requests, and ten runs a side of 24 requests that differ by 2 % from run to run.
    one = words(200, Server(), Server(slower=1.2), prompts=12, times=30)
    ten = words(200, Server(between_runs=0.02), Server(slower=1.2, between_runs=0.02), prompts=6, times=4, runs=10)

    for found, least in ((one, 0.95), (ten, 0.75)):
        assert share(found, "ttft", "slower") >= least
        assert share(found, "ttft", "faster") == 0
    assert share(ten, "output_tokens_per_s", "slower") >= 0.95


@pytest.mark.endurance
def test_a_slow_down_of_eight_percent_is_called_slower_at_a_margin_of_four() -> None:
    found = words(200, Server(), Server(slower=1.08), ["ttft"], margin=0.04, prompts=12, times=120)

    assert share(found, "ttft", "slower") >= 0.9


@pytest.mark.endurance
def test_the_runs_that_a_verdict_asks_for_are_about_enough() -> None:
    base, new = Server(between_runs=0.04), Server(slower=1.2, between_runs=0.04)
    asked = [
        verdicts["ttft"].runs_needed
        for verdicts in words(200, base, new, ["ttft"], prompts=6, times=4, runs=4)
        if verdicts["ttft"].word == "can't tell"
    ]
    runs = int(np.median([n for n in asked if n is not None]))

    assert 5 <= runs <= 40
    assert share(words(200, base, new, ["ttft"], prompts=6, times=4, runs=runs), "ttft", "slower") >= 0.8


@pytest.mark.endurance
def test_pairing_by_prompt_sees_eight_percent_over_sixty_prompts_where_comparing_the_sides_does_not() -> None:
    """Power 0.80 paired by Student's test, 0.00 unpaired; what blocks cost of it is in the last line."""
    base, new = Server(noise=0.15, memory=0.0), Server(noise=0.15, memory=0.0, slower=1.08)
    student = paired = unpaired = 0
    for one, other in comparisons(TRIALS, base, new, prompts=60, times=1):
        before, after = (dict(zip(s.laps[0].prompts, s.laps[0].values["ttft"], strict=True)) for s in (one, other))
        ratios = np.array([math.log(after[name] / before[name]) for name in before])
        student += ratios.mean() > 2.001 * ratios.std(ddof=1) / math.sqrt(60)
        renamed = replace(other.laps[0], prompts=[f"other {name}" for name in other.laps[0].prompts])
        paired += judge(one, other, ["ttft"], margin=0.0)[0].word == "slower"
        unpaired += judge(one, side_of(renamed), ["ttft"], margin=0.0)[0].word == "slower"

    assert student / TRIALS == pytest.approx(0.80, abs=0.04)
    assert unpaired / TRIALS <= 0.01
    assert paired / TRIALS >= 0.58


@pytest.mark.endurance
@pytest.mark.parametrize(("metric", "least"), [("e2e_p50", 0.94), ("e2e_p95", 0.94), ("e2e_mean", 0.93)])
def test_the_ratio_of_two_statistics_of_one_run_a_side_is_covered(metric: str, least: float) -> None:
    server = Server(memory=0.5)
    found = words(TRIALS, server, replace(server, slower=1.3), [metric], prompts=12, times=30)
    given = [verdicts[metric] for verdicts in found if verdicts[metric].low is not None]

    assert len(given) >= 0.95 * TRIALS
    assert least - 0.015 <= sum(v.low <= 1.3 <= v.high for v in given) / len(given) < 1


@pytest.mark.endurance
@pytest.mark.parametrize(("prompts", "times", "memory"), [(60, 1, 0.6), (60, 2, 0.3), (12, 10, 0.3), (4, 40, 0.6)])
def test_the_typical_ratio_of_one_run_a_side_is_covered(prompts: int, times: int, memory: float) -> None:
    server = Server(memory=memory)
    found = words(TRIALS, server, replace(server, slower=1.3), ["ttft"], prompts=prompts, times=times)

    assert 0.92 <= sum(v["ttft"].low <= 1.3 <= v["ttft"].high for v in found) / TRIALS < 0.99


def test_what_neighbours_share_counts_once_where_both_sides_asked_in_the_same_order() -> None:
    ratios = np.cumsum(0.02 * np.random.default_rng(1).standard_normal(60))  # a level that wanders
    names = [f"p{i}" for i in range(60)]
    turned = np.random.default_rng(2).permutation(60)
    base, new = lap_of([100.0] * 60, names), lap_of(100 * np.exp(ratios), names)
    shuffled = lap_of(100 * np.exp(ratios[turned]), [names[i] for i in turned])
    expected = mean_interval(ratios)

    (same,), (other,) = judge(side_of(base), side_of(new), ["ttft"]), judge(side_of(base), side_of(shuffled), ["ttft"])

    assert (math.log(same.low), math.log(same.high)) == pytest.approx(expected)
    assert other.high / other.low == pytest.approx(same.high / same.low, rel=0.2)  # the new order shows nothing more


@pytest.mark.endurance
def test_the_ratio_of_gaps_is_covered_though_gaps_of_a_request_resemble_each_other() -> None:
    generator = np.random.default_rng(4)
    sizes = np.full(60, 20)

    def gaps(slower: float) -> np.ndarray:
        own = np.repeat(0.3 * generator.standard_normal(60), 20)
        return slower * np.exp(own + 0.3 * generator.standard_normal(1200))

    held = 0
    for _ in range(TRIALS):
        base, new = (side_of(lap_of([1.0] * 60, gaps_ms=gaps(slower), gap_sizes=sizes)) for slower in (1.0, 1.1))
        (verdict,) = judge(base, new, ["itl_p50"])
        held += verdict.low <= 1.1 <= verdict.high

    assert held / TRIALS >= 0.94


def test_levels_have_a_geometric_mean_with_an_interval_narrower_than_their_own() -> None:
    generator = np.random.default_rng(3)

    def verdict(slower: float):
        base, new = (
            side_of(lap_of(times * np.exp(0.2 * generator.standard_normal(100)), ["a", "b"] * 50))
            for times in (1, slower)
        )
        return judge(base, new, ["ttft"])[0]

    found = [verdict(slower) for slower in (1.1, 1.2, 1.3, 1.2)]
    overall = over_levels(found)

    assert overall.ratio == pytest.approx(math.prod(v.ratio for v in found) ** (1 / 4))
    assert overall.high / overall.low < min(v.high / v.low for v in found)
    assert (overall.word, overall.metric, overall.base, overall.n_base) == ("slower", "ttft", None, 400)
    assert "as if independent" in overall.method


def test_levels_of_the_same_runs_are_averaged_run_by_run() -> None:
    def verdict(shift: float, tilt: float):
        # Runs whose machine is slow in both levels: what one level shows, the other shows again.
        noise = [0.9, 1.0, 1.1]
        base = side_of(*(lap_of([100.0] * 6, began=f"{i}0") for i in range(3)))
        new = side_of(*(lap_of([100.0 * shift * n**tilt] * 6, began=f"{i}1") for i, n in enumerate(noise)))
        return judge(base, new, ["ttft"])[0]

    together, apart = over_levels([verdict(1.0, 1), verdict(1.2, 1)]), over_levels([verdict(1.0, 1), verdict(1.2, -1)])

    assert together.ratio == pytest.approx(math.sqrt(1.2) * (0.9 * 1.1) ** (1 / 3))
    assert apart.high / apart.low < 1.1 < together.high / together.low
    assert "run by run" in together.method


def test_levels_of_runs_that_did_not_take_turns_are_no_surer_than_each_level() -> None:
    def verdict(shift: float):
        # Each side heats up in the same way; run by run that would cancel, and a shift between the blocks would not.
        drift = [1.0, 1.2, 1.4, 1.6]
        base = side_of(*(lap_of([100.0 * d] * 6, began=f"1{i}") for i, d in enumerate(drift)))
        new = side_of(*(lap_of([100.0 * shift * d] * 6, began=f"2{i}") for i, d in enumerate(drift)))
        return judge(base, new, ["ttft"])[0]

    levels = [verdict(1.2), verdict(1.3)]
    overall = over_levels(levels)

    assert overall.word == "can't tell"
    assert overall.high / overall.low == pytest.approx(levels[0].high / levels[0].low)
    assert "rose and fell together" in overall.method


def test_one_level_several_metrics_or_no_interval_have_no_mean_over_levels() -> None:
    one = side_of(lap_of(np.linspace(100, 120, 60)))
    ttft, p95 = judge(one, one, ["ttft", "ttft_p95"])

    assert over_levels([]) is None
    assert over_levels([ttft]) is None
    assert over_levels([ttft, p95]) is None
    assert over_levels([p95, p95]) is None


# Requests that failed or were dropped


def half_failing(pace: float, failing: float = 0.5, n: int = 200):
    """A run in which so many requests fail, spread evenly; those that complete take `pace` of 100 ms."""
    generator = np.random.default_rng(3)
    times = 100 * pace * np.exp(0.05 * generator.standard_normal(n))
    names = [f"p{i % 4}" for i in range(n)]
    lost = np.floor(np.arange(n) * failing) != np.floor((np.arange(n) + 1) * failing)
    due = np.where(lost, math.inf, times)
    kept = [name for name, gone in zip(names, lost, strict=True) if not gone]
    return lap_of(times[~lost], kept, due_values={"ttft": due, "e2e": due} if lost.any() else {})


LATENCIES = ("ttft", "ttft_p50", "ttft_p95", "ttft_mean")


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("metric", LATENCIES)
def test_a_server_that_fails_every_second_request_is_never_called_faster(metric: str, runs: int) -> None:
    # What completes takes half the time.
    base, new = (side_of(*[run] * runs) for run in (half_failing(1.0, 0.0), half_failing(0.5)))

    (one,), (turned,) = judge(base, new, [metric]), judge(new, base, [metric])

    assert one.word in ("slower", "can't tell")
    assert turned.word in ("faster", "can't tell")
    assert "50 % of" in one.note


def test_a_percentile_that_has_no_end_is_surely_slower_and_two_such_cannot_be_told_apart() -> None:
    whole, half, quicker = (side_of(half_failing(*law)) for law in ((1.0, 0.0), (1.0,), (0.5,)))

    (verdict,), (both,) = judge(whole, quicker, ["ttft_p95"]), judge(half, quicker, ["ttft_p95"])

    assert (verdict.word, verdict.new, verdict.high, "infinitely long" in verdict.note) == (
        "slower",
        None,
        math.inf,
        True,
    )
    assert (both.word, both.base, both.new, both.runs_needed) == ("can't tell", None, None, None)


def test_one_failure_of_two_hundred_takes_no_verdict_away() -> None:
    words = {v.word for v in judge(side_of(half_failing(1.0)), side_of(half_failing(0.5, 0.505)), ["ttft", "e2e"])}
    (few,) = judge(side_of(half_failing(1.0, 0.0)), side_of(half_failing(0.5, 0.005)), ["ttft"])

    assert words == {"faster"}
    assert few.word == "faster"


# The error shared by the metrics, and the variance shared by the runs


def test_a_metric_that_has_its_word_leaves_its_share_of_the_error_to_the_others() -> None:
    sides = []
    for pace in (1.0, 1.5):
        generator = np.random.default_rng(int(10 * pace))
        ttft, e2e = (100 * one * np.exp(0.1 * generator.standard_normal(60)) for one in (pace, 1 + (pace - 1) / 5))
        sides.append(side_of(replace(lap_of(ttft), values={"ttft": ttft, "e2e": e2e})))

    ttft_verdict, e2e_verdict = judge(*sides, ["ttft", "e2e"])

    assert (ttft_verdict.word, ttft_verdict.confidence) == ("slower", pytest.approx(0.975))
    assert (e2e_verdict.word, e2e_verdict.confidence) == ("can't tell", pytest.approx(0.95))


def runs_of(paces: list[float], which: int, metrics: tuple[str, ...]):
    """A run for each pace, in turns with those of the other side; metrics differ from run to run each by itself."""
    laps = []
    for i, pace in enumerate(paces):
        generator = np.random.default_rng([which, i])
        values = {name: 100 * pace * np.exp(0.05 * generator.standard_normal(48)) for name in metrics}
        laps.append(replace(lap_of(np.ones(48), ["a", "b"] * 24, began=f"{i}{which}"), values=values))
    return side_of(*laps)


def test_three_runs_know_their_spread_better_by_several_metrics_than_by_one() -> None:
    names = ("ttft", "tpot", "e2e")
    base, new = runs_of([1.0] * 3, 0, names), runs_of([1.25] * 3, 1, names)

    (alone,), together = judge(base, new, ["ttft"]), judge(base, new, names)

    assert [verdict.word for verdict in together] == ["slower"] * 3
    assert together[0].high / together[0].low < 1.1 * alone.high / alone.low


def test_levels_of_the_same_runs_share_what_they_know_of_their_spread() -> None:
    quiet = (runs_of([1.0, 1.0, 1.0], 0, ("ttft",)), runs_of([1.0, 1.0, 1.0], 1, ("ttft",)))
    loud = (runs_of([1.0, 1.3, 0.8], 2, ("ttft",)), runs_of([1.2, 0.9, 1.1], 3, ("ttft",)))

    beside_quiet, beside_loud = (
        judge_levels([quiet, quiet], ["ttft"])[0][0],
        judge_levels([quiet, loud], ["ttft"])[0][0],
    )

    assert beside_loud.high / beside_loud.low > 1.1 * beside_quiet.high / beside_quiet.low


def test_a_variance_is_drawn_to_that_of_its_neighbours_as_limma_does() -> None:
    # Smyth 2004: (d0 * s0^2 + d * s^2) / (d0 + d), with d0 from how much the logarithms of the variances spread.
    generator = np.random.default_rng(5)
    true = 0.05**2 * 10 / generator.chisquare(10, 400)
    residuals = [tuple(row - row.mean()) for row in np.sqrt(true)[:, None] * generator.standard_normal((400, 5))]
    found = [Runs(effect=0.0, within=0.0, part=1.0, residuals=each, freedom=4) for each in residuals]

    doubts = moderated(found)

    shrunk = np.array([doubt.variance for doubt in doubts])
    own = np.array([one.variance for one in found])
    assert np.abs(np.log(shrunk / true)).mean() < 0.6 * np.abs(np.log(own / true)).mean()
    assert all(10 <= doubt.freedom <= 24 for doubt in doubts)


def test_a_first_level_measured_twice_says_how_much_one_run_a_side_is_worth() -> None:
    def side(pace: float, seed: int, *again: float):
        generator = np.random.default_rng(seed)
        runs = [lap_of(100 * p * np.exp(0.02 * generator.standard_normal(60)), ["a", "b"] * 30) for p in (pace, *again)]
        return side_of(replace(runs[0], again=runs[1]) if again else runs[0])

    def word(*again: float):
        return judge(side(1.0, 1, *again), side(1.2, 2, *(1.2 * one for one in again)), ["ttft"])[0]

    steady, wandering = word(1.0), word(1.3)

    assert (word().word, steady.word, wandering.word) == ("slower", "slower", "can't tell")
    assert "how much runs differ" in steady.method


def test_what_varies_within_levels_averages_out_where_a_closing_level_says_how_much_runs_differ() -> None:
    server = Server(between_runs=0.02)

    def width(verdict: Verdict | None) -> float:
        assert verdict is not None
        return math.log(verdict.high / verdict.low)

    for closing, plain in zip(
        of_levels(5, server, server, 4, closing=True), of_levels(5, server, server, 4), strict=True
    ):
        of_each = [verdicts[0] for verdicts in judge_levels(closing, ["ttft"])]
        of_plain = [verdicts[0] for verdicts in judge_levels(plain, ["ttft"])]

        assert width(over_levels(of_plain)) < width(over_levels(of_each)) < 0.85 * np.mean([width(v) for v in of_each])


@pytest.mark.endurance
def test_five_pairs_of_runs_find_a_fifth_and_three_find_no_less_than_one() -> None:
    """At a margin of 10 %, with 48 requests a run, six metrics, and runs that differ by 2 %."""
    server = Server(between_runs=0.02)
    found = [
        share(words(200, server, replace(server, slower=1.2), prompts=12, times=4, runs=runs), "ttft", "slower")
        for runs in (1, 3, 5)
    ]

    assert found[2] >= 0.75
    assert found[1] >= found[0]


@pytest.mark.endurance
@pytest.mark.parametrize(("runs", "between"), [(1, 0.05), (3, 0.05), (5, 0.1)])
def test_equal_servers_are_told_apart_over_four_levels_in_one_comparison_of_twenty(runs: int, between: float) -> None:
    server = Server(between_runs=between)
    wrong = 0
    for levels in of_levels(100, server, server, 4, runs=runs, closing=runs == 1):
        said = {verdict.word for verdicts in judge_levels(levels) for verdict in verdicts}
        wrong += bool(said & {"slower", "faster", "worse", "better"})

    assert wrong / 100 <= 0.05


# Shares: differences, not ratios; paired where the same prompts were asked


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
    few, many = failing(spread(400, 4)), failing(spread(400, 80))
    (verdict,), (turned,) = judge(few, many, ["failed"]), judge(many, few, ["failed"])

    assert (turned.word, turned.bad) == ("better", False)
    assert (verdict.ratio, verdict.base, verdict.new, verdict.unit) == (None, 0.01, 0.2, "share")
    assert verdict.low < 0.19 < verdict.high
    assert (verdict.word, verdict.bad, verdict.margin) == ("worse", True, 0.01)


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
