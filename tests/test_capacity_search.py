"""The search as a schedule: levels it gives, steps it keeps, budgets, servers that go away, and going on later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from loadbench.engine import Progress
from loadbench.runner.capacity import Grid, Search, begun
from loadbench.runner.plan import PlannedLevel
from loadbench.scenario import Scenario
from loadbench.store.record import Result
from tests.support.streams import failed, stream

GRID = Grid("concurrency", 1, 64)


def prepared(
    *slo: str, grid: Grid = GRID, models: tuple[str, ...] = ("m",), budget_s: float | None = None, **more: Any
) -> tuple[Search, Clock]:
    """A search whose records are at their beginning, and its clock."""
    asked = Scenario(concurrency=[1], slo=list(slo or ("ttft_p95=1s",)), **more)
    return Search(asked, begun(models, grid, asked), quiet, budget_s, clock := Clock()), clock


class Clock:
    """Time that passes when a test says so."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def quiet(model: str, step: Any, text: str) -> None: ...


def slow_from(streams: int) -> Callable[[int, float], Result]:
    """A server whose TTFT is 200 ms, and 5 s from so many streams (or requests per second) on."""
    return lambda n, load: stream(n, due=1000.0 * n / load, ttft=5000.0 if load >= streams else 200.0)


def gentle(n: int, load: float) -> Result:
    """A server of which ever more requests are slow: none at 6 streams, one in 14 at 7 and 8, a third from 9 on."""
    every = 3 if load >= 9 else 14
    return stream(n, due=10.0 * n, ttft=5000.0 if load >= 7 and n % every == 0 else 200.0)


def play(search: Search, law: Callable[[int, float], Result], clock: Clock | None = None) -> list[str]:
    """Run it to its end as a session does, a minute a level where a clock counts; the levels that were begun."""
    given = []
    while (planned := search.following()) is not None:
        given.append(planned.level.id)
        one_level(search, planned, law)
        if clock is not None:
            clock.now_s += 60
    return given


def one_level(search: Search, planned: PlannedLevel, law: Callable[[int, float], Result], **facts: Any) -> None:
    progress = Progress(planned.level, 1, planned.limits)
    load = planned.level.concurrency or planned.level.request_rate_per_s or 0
    for n in range(planned.limits.requests or 0):
        result = law(planned.limits.warmup + n, load)
        search.heard(result)
        if result.error:
            progress.errors[result.error] += 1
        if n % 10 == 0 and search.has_enough(progress):
            break
    search.ended(progress, {"status": "complete", "reason": None, "dropped": 0, **facts})


def test_every_step_is_in_the_record_and_is_told() -> None:
    search, _ = prepared()
    told: list[tuple[str, str]] = []
    search.tell = lambda model, step, text: told.append((model, step["level"]))
    given = play(search, slow_from(7))
    [record] = search.records

    assert told == [("m", level) for level in given]
    assert [step["level"] for step in record["steps"]] == given
    assert [step["verdict"] for step in record["steps"]] == ["met"] * 3 + ["not met", "met", "not met", "met"]
    assert record["steps"][0] == {
        "load": 1,
        "level": "m@c1",
        "verdict": "met",
        "requests": 111,  # the first look was at 109; tests look every tenth request
        "shares": (
            {
                "bound": "ttft_p95=1s",
                "share": 1.0,
                "wanted": 0.95,
                "interval": (pytest.approx(0.951, abs=0.001), 1.0),
                "attained": True,
                "worth": 111,
            },
        ),
        "reason": None,
        "counted": True,
    }


def fails_from_3(n: int, load: float) -> Result:
    return failed(n, error="http_5xx") if load > 2 else slow_from(99)(n, load)


TWICE = "the capacity was probed twice"


@pytest.mark.parametrize(
    ("law", "options", "loads", "found", "bracket", "reason"),
    [
        (slow_from(7), {}, "c1 c2 c4 c8 c6 c7 c6#2", 6, (6, 7), TWICE),
        (slow_from(1), {}, "c1", None, (None, 1), "not even the lowest load meets it"),
        (
            *(slow_from(99), {"grid": Grid("concurrency", 1, 4)}, "c1 c2 c4 c4#2", 4, (4, None)),
            "the highest load that was allowed meets it",
        ),
        (
            *(slow_from(3), {"grid": Grid("rate", 1.0, 64.0, 0.2)}, "r1 r2 r4 r2.83 r3.36 r2.83#2"),
            *(2.83, (2.83, 3.36), TWICE),
        ),
        (fails_from_3, {}, "c1 c2 c4 c3 c2#2", 2, (2, 3), TWICE),  # a load at which every request fails is too high
        # Loads that nobody can tell lie between the two ends of the bracket.
        (gentle, {}, "c1 c2 c4 c8 c6 c7 c6#2 c16 c12 c10 c9", 6, (6, 9), TWICE),
        (slow_from(7), {"budget_s": 290}, "c1 c2 c4 c8 c6", None, (6, 8), "the budget of time was spent"),
        # An answer that was confirmed stands, though the budget ends what follows.
        (gentle, {"budget_s": 470}, "c1 c2 c4 c8 c6 c7 c6#2 c16", 6, (6, 16), TWICE),
    ],
)
def test_a_search_comes_to_an_answer_and_a_bracket(
    law: Callable[[int, float], Result],
    options: dict[str, Any],
    loads: str,
    found: float | None,
    bracket: tuple[float | None, float | None],
    reason: str,
) -> None:
    search, clock = prepared(**options)
    given = play(search, law, clock)
    [record] = search.records

    assert given == [f"m@{load}" for load in loads.split()]
    assert (record["found"], record["bracket"], record["reason"]) == (found, bracket, reason)
    if "budget_s" not in options:  # a search that is over asks nothing more
        assert Search(search.scenario, search.records, quiet).following() is None


@pytest.mark.parametrize(
    ("budget_s", "loads", "found"),
    [(None, "m@c1 m@c2 m@c1#2 n@c1 n@c2 n@c1#2", [1, 1]), (240, "m@c1 m@c2 n@c1 n@c2", [None, None])],
)
def test_models_have_their_turns_their_answers_and_their_share_of_the_budget(
    budget_s: float | None, loads: str, found: list[int | None]
) -> None:
    search, clock = prepared(models=("m", "n"), budget_s=budget_s)
    given = play(search, slow_from(2), clock)

    assert given == loads.split()
    assert [one["found"] for one in search.records] == found


@pytest.mark.parametrize(
    ("options", "limits", "counted", "reason"),
    [
        # A probe lasts no longer than the budget, and says nothing where that cut it short.
        ({"budget_s": 30}, (30, 436), False, "the budget of time was spent"),
        # What a probe's own limit leaves undecided is neither met nor missed.
        (
            {"duration": 20.0, "requests": 200, "grid": Grid("concurrency", 1, 1)},
            *((20, 200), True, "the lowest load does not surely meet it"),
        ),
    ],
)
def test_a_probe_that_its_time_ends_is_undecided(
    options: dict[str, Any], limits: tuple[float, int], counted: bool, reason: str
) -> None:
    search, clock = prepared(**options)
    planned = search.following()
    assert planned is not None
    for n in range(planned.limits.warmup, 40):
        search.heard(slow_from(9)(n, 1))
    clock.now_s = 30
    search.ended(Progress(planned.level, 1, planned.limits), {"status": "complete", "reason": None, "dropped": 0})
    [record] = search.records

    assert (planned.limits.duration_s, planned.limits.requests) == limits
    assert [(step["verdict"], step["counted"]) for step in record["steps"]] == [("undecided", counted)]
    assert search.following() is None
    assert (record["found"], record["bracket"], record["reason"]) == (None, (None, None), reason)


def test_the_probe_that_confirms_a_rate_lasts_a_minute_after_its_warm_up() -> None:
    search, _ = prepared(duration=20.0, grid=Grid("rate", 8.0, 8.0))
    limits = []
    while (planned := search.following()) is not None:
        limits.append(planned.limits)
        one_level(search, planned, slow_from(99))

    assert [round((one.duration_s or 0) * 8) for one in limits] == [round(1.2 * 8 * s / 0.75) for s in (20, 60)]
    assert [one.requests for one in limits] == [4 * 214, 2 * 640]


def several(search: Search, levels: int, law: Callable[[int, float], Result]) -> PlannedLevel:
    """So many levels of a search; the one after them."""
    for _ in range(levels):
        planned = search.following()
        assert planned is not None
        one_level(search, planned, law)
    following = search.following()
    assert following is not None
    return following


def test_a_search_goes_on_where_it_was_interrupted() -> None:
    search, _ = prepared()
    planned = several(search, 3, slow_from(7))
    search.ended(Progress(planned.level, 1, planned.limits), {"status": "interrupted", "reason": "stopped"})
    [record] = search.records

    assert (record["bracket"], record["reason"]) == ((4, None), "the search was interrupted")
    assert play(Search(search.scenario, [record], quiet), slow_from(7)) == ["m@c8", "m@c6", "m@c7", "m@c6#2"]
    assert record["found"] == 6


def test_a_model_that_cannot_be_measured_ends_its_own_search_alone() -> None:
    search, _ = prepared(models=("m", "n"))
    search.skipped(several(search, 0, gentle), "its model failed: http_5xx")
    first = search.records[0]

    assert play(search, slow_from(2)) == ["n@c1", "n@c2", "n@c1#2"]
    assert (first["reason"], first["bracket"]) == ("its model failed: http_5xx", (None, None))


def test_a_server_that_went_away_says_nothing_of_the_load() -> None:
    search, _ = prepared()
    planned = several(search, 2, slow_from(9))
    gone = {"status": "failed", "reason": "no request completed"}
    one_level(search, planned, lambda n, load: failed(n, error="connect"), **gone)
    [record] = search.records

    assert search.following() is None
    assert (record["bracket"], record["reason"]) == ((2, None), "m@c4: no request completed")


def test_a_load_of_which_a_part_was_missing_is_tried_again_and_once_more_is_too_often() -> None:
    search, _ = prepared()
    tried = []
    while (planned := search.following()) is not None:
        tried.append(planned.level.id)
        lost = {"status": "incomplete", "reason": "worker w2 was lost"}
        one_level(search, planned, slow_from(9), **(lost if planned.level.id in ("m@c2", "m@c4", "m@c4#2") else {}))
    [record] = search.records

    assert tried == ["m@c1", "m@c2", "m@c2#2", "m@c4", "m@c4#2"]
    assert [step["counted"] for step in record["steps"]] == [True, False, True, False, False]
    assert (record["found"], record["bracket"]) == (None, (2, None))
    assert record["reason"] == "m@c4#2: worker w2 was lost"
