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


def scenario(*slo: str, **more: Any) -> Scenario:
    return Scenario(concurrency=[1], slo=list(slo or ("ttft_p95=1s",)), **more)


def records(asked: Scenario, *models: str, grid: Grid = GRID) -> list[dict[str, Any]]:
    return begun(models or ("m",), grid, asked)


def slow_from(streams: int) -> Callable[[int, float], Result]:
    """A server whose TTFT is 200 ms, and 5 s from so many streams (or requests per second) on."""
    return lambda n, load: stream(n, due=1000.0 * n / load, ttft=5000.0 if load >= streams else 200.0)


def gentle(n: int, load: float) -> Result:
    """A server of which ever more requests are slow: none at 6 streams, one in 14 at 7 and 8, a third from 9 on."""
    every = 3 if load >= 9 else 14
    return stream(n, due=10.0 * n, ttft=5000.0 if load >= 7 and n % every == 0 else 200.0)


def play(
    search: Search, law: Callable[[int, float], Result], *, each: Callable[[PlannedLevel], object] = lambda level: None
) -> list[str]:
    """Run it to its end as a session does; the levels that were begun."""
    given = []
    while (planned := search.following()) is not None:
        given.append(planned.level.id)
        one_level(search, planned, law)
        each(planned)
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


def quiet(model: str, step: Any, text: str) -> None: ...


def test_the_answer_and_every_step_are_in_the_record() -> None:
    asked = scenario()
    (record,) = kept = records(asked)
    given = play(Search(asked, kept, quiet), slow_from(7))

    assert given == ["m@c1", "m@c2", "m@c4", "m@c8", "m@c6", "m@c7", "m@c6#2"]
    assert [step["level"] for step in record["steps"]] == given
    assert [step["verdict"] for step in record["steps"]] == ["met"] * 3 + ["not met", "met", "not met", "met"]
    assert (record["found"], record["bracket"], record["reason"]) == (6, (6, 7), "confirmed by a second probe")
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


def test_a_rate_is_searched_in_open_loop() -> None:
    asked = scenario()
    (record,) = kept = records(asked, grid=Grid("rate", 1.0, 64.0, 0.2))
    given = play(Search(asked, kept, quiet), slow_from(3))

    assert given == ["m@r1", "m@r2", "m@r4", "m@r2.83", "m@r3.36", "m@r2.83#2"]
    assert (record["found"], record["bracket"]) == (2.83, (2.83, 3.36))


def test_models_have_their_turns_and_their_answers() -> None:
    asked = scenario()
    kept = records(asked, "m", "n")
    given = play(Search(asked, kept, quiet), slow_from(2))

    assert given == ["m@c1", "m@c2", "m@c1#2", "n@c1", "n@c2", "n@c1#2"]
    assert [one["found"] for one in kept] == [1, 1]


def test_nothing_is_found_where_the_lowest_load_fails() -> None:
    asked = scenario()
    (record,) = kept = records(asked)
    play(Search(asked, kept, quiet), slow_from(1))

    assert (record["found"], record["bracket"]) == (None, (None, 1))
    assert record["reason"] == "not even the lowest load meets it"


def test_the_highest_load_that_is_allowed_may_meet_it() -> None:
    asked = scenario()
    (record,) = kept = records(asked, grid=Grid("concurrency", 1, 4))
    play(Search(asked, kept, quiet), slow_from(99))

    assert (record["found"], record["bracket"]) == (4, (4, None))
    assert record["reason"] == "the highest load that was allowed meets it"


def test_a_budget_ends_with_a_bracket() -> None:
    asked, now_s = scenario(), [0.0]
    (record,) = kept = records(asked)

    def minute(planned: PlannedLevel) -> None:
        now_s[0] += 60

    given = play(Search(asked, kept, quiet, 290, lambda: now_s[0]), slow_from(7), each=minute)

    assert given == ["m@c1", "m@c2", "m@c4", "m@c8", "m@c6"]
    assert (record["found"], record["bracket"]) == (None, (6, 8))
    assert record["reason"] == "the budget of time was spent"


def test_a_budget_is_shared_among_the_models() -> None:
    asked, now_s = scenario(), [0.0]
    kept = records(asked, "m", "n")

    def minute(planned: PlannedLevel) -> None:
        now_s[0] += 60

    given = play(Search(asked, kept, quiet, 240, lambda: now_s[0]), slow_from(7), each=minute)

    assert given == ["m@c1", "m@c2", "n@c1", "n@c2"]


def test_a_probe_lasts_no_longer_than_the_budget_and_says_nothing_where_that_cut_it_short() -> None:
    asked, now_s = scenario(), [0.0]
    (record,) = kept = records(asked)
    search = Search(asked, kept, quiet, 30, lambda: now_s[0])
    planned = search.following()
    assert planned is not None
    for n in range(planned.limits.warmup, 40):
        search.heard(slow_from(9)(n, 1))
    now_s[0] = 30
    search.ended(Progress(planned.level, 1, planned.limits), {"status": "complete", "reason": None, "dropped": 0})

    assert planned.limits.duration_s == 30
    assert [(step["verdict"], step["counted"]) for step in record["steps"]] == [("undecided", False)]
    assert search.following() is None
    assert record["bracket"] == (None, None)


def test_what_a_probes_own_limit_leaves_undecided_is_neither_met_nor_missed() -> None:
    asked = scenario(duration=20.0, requests=200)
    (record,) = kept = records(asked, grid=Grid("concurrency", 1, 1))
    search = Search(asked, kept, quiet)
    planned = search.following()
    assert planned is not None
    for n in range(planned.limits.warmup, 40):
        search.heard(slow_from(9)(n, 1))
    search.ended(Progress(planned.level, 1, planned.limits), {"status": "complete", "reason": None, "dropped": 0})

    assert (planned.limits.duration_s, planned.limits.requests) == (20, 200)
    assert [(step["verdict"], step["counted"]) for step in record["steps"]] == [("undecided", True)]
    assert search.following() is None
    assert (record["found"], record["bracket"]) == (None, (None, None))
    assert record["reason"] == "the lowest load does not surely meet it"


def test_loads_that_nobody_can_tell_lie_between_the_two_ends_of_the_bracket() -> None:
    asked = scenario()
    (record,) = kept = records(asked)
    given = play(Search(asked, kept, quiet), gentle)

    assert given == ["m@c1", "m@c2", "m@c4", "m@c8", "m@c6", "m@c7", "m@c6#2", "m@c16", "m@c12", "m@c10", "m@c9"]
    assert [step["verdict"] for step in record["steps"] if step["load"] in (7, 8)] == ["undecided"] * 2
    assert (record["found"], record["bracket"], record["reason"]) == (6, (6, 9), "confirmed by a second probe")


def test_an_answer_that_was_confirmed_stands_though_the_budget_ends_what_follows() -> None:
    asked, now_s = scenario(), [0.0]
    (record,) = kept = records(asked)

    def minute(planned: PlannedLevel) -> None:
        now_s[0] += 60

    given = play(Search(asked, kept, quiet, 470, lambda: now_s[0]), gentle, each=minute)

    assert given[-2:] == ["m@c6#2", "m@c16"]
    assert (record["found"], record["bracket"], record["reason"]) == (6, (6, 16), "confirmed by a second probe")


def test_the_probe_that_confirms_a_rate_lasts_a_minute_after_its_warm_up() -> None:
    asked = scenario("ttft_p95=1s", duration=20.0)
    kept = records(asked, grid=Grid("rate", 8.0, 8.0))
    search, limits = Search(asked, kept, quiet), []
    while (planned := search.following()) is not None:
        limits.append(planned.limits)
        one_level(search, planned, slow_from(99))

    assert [round((one.duration_s or 0) * 8) for one in limits] == [round(1.2 * 8 * s / 0.75) for s in (20, 60)]
    assert [one.requests for one in limits] == [4 * 214, 2 * 640]


def test_a_search_goes_on_where_it_was_interrupted() -> None:
    asked = scenario()
    kept = records(asked)
    search = Search(asked, kept, quiet)
    for _ in range(3):
        planned = search.following()
        assert planned is not None
        one_level(search, planned, slow_from(7))
    planned = search.following()
    assert planned is not None
    search.ended(Progress(planned.level, 1, planned.limits), {"status": "interrupted", "reason": "stopped"})

    assert (kept[0]["bracket"], kept[0]["reason"]) == ((4, None), "the search was interrupted")
    assert play(Search(asked, kept, quiet), slow_from(7)) == ["m@c8", "m@c6", "m@c7", "m@c6#2"]
    assert kept[0]["found"] == 6


def test_a_search_that_is_over_asks_nothing_more() -> None:
    asked = scenario()
    kept = records(asked)
    play(Search(asked, kept, quiet), slow_from(3))

    assert Search(asked, kept, quiet).following() is None


def test_a_model_that_cannot_be_measured_ends_its_own_search_alone() -> None:
    asked = scenario()
    kept = records(asked, "m", "n")
    search = Search(asked, kept, quiet)
    planned = search.following()
    assert planned is not None
    search.skipped(planned, "its model failed: http_5xx")

    assert play(search, slow_from(2)) == ["n@c1", "n@c2", "n@c1#2"]
    assert (kept[0]["reason"], kept[0]["bracket"]) == ("its model failed: http_5xx", (None, None))


def test_a_server_that_went_away_says_nothing_of_the_load() -> None:
    asked = scenario()
    (record,) = kept = records(asked)
    search = Search(asked, kept, quiet)
    for _ in range(2):
        planned = search.following()
        assert planned is not None
        one_level(search, planned, slow_from(9))
    planned = search.following()
    assert planned is not None
    gone = {"status": "failed", "reason": "no request completed"}
    one_level(search, planned, lambda n, load: failed(n, error="connect"), **gone)

    assert search.following() is None
    assert record["bracket"] == (2, None)
    assert record["reason"] == "m@c4: no request completed"


def test_a_load_of_which_a_part_was_missing_is_tried_again_and_once_more_is_too_often() -> None:
    asked = scenario()
    (record,) = kept = records(asked)
    search = Search(asked, kept, quiet)
    tried = []
    while (planned := search.following()) is not None:
        tried.append(planned.level.id)
        lost = {"status": "incomplete", "reason": "worker w2 was lost"}
        one_level(search, planned, slow_from(9), **(lost if planned.level.id in ("m@c2", "m@c4", "m@c4#2") else {}))

    assert tried == ["m@c1", "m@c2", "m@c2#2", "m@c4", "m@c4#2"]
    assert [step["counted"] for step in record["steps"]] == [True, False, True, False, False]
    assert (record["found"], record["bracket"]) == (None, (2, None))
    assert record["reason"] == "m@c4#2: worker w2 was lost"


def test_a_load_at_which_every_request_fails_is_too_high() -> None:
    asked = scenario()
    (record,) = kept = records(asked)
    law = slow_from(99)
    play(Search(asked, kept, quiet), lambda n, load: failed(n, error="http_5xx") if load > 2 else law(n, load))

    assert (record["found"], record["bracket"]) == (2, (2, 3))


def test_each_step_is_told() -> None:
    asked, told = scenario(), []
    search = Search(asked, records(asked), lambda model, step, text: told.append((model, step["level"])))
    given = play(search, slow_from(2))

    assert told == [("m", level) for level in given]
