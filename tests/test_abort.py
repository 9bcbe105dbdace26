"""abort: a run ends as soon as a threshold surely fails, no sooner, and the levels that follow are skipped."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from loadbench.engine import Limits, Progress
from loadbench.runner.plan import Fixed, PlannedLevel
from loadbench.runner.schedule import ERROR, FEWEST, Abort, Trial, chance, with_aborts
from loadbench.scenario import Level, Scenario
from loadbench.scenario.bounds import Threshold
from loadbench.serve import simulator
from loadbench.store.record import Result
from tests.support.command import invoke

pytestmark = pytest.mark.system

SECOND_NS = 1_000_000_000


def planned(*loads: int) -> list[PlannedLevel]:
    levels = Scenario(concurrency=list(loads), repeat_first=False).levels(["m"])
    return [PlannedLevel(level, Limits(None, 60.0, 0), 0.0, 60.0) for level in levels]


def progress_of(level: Level, *, completed: int = 0, failed: int = 0, in_flight: int = 0, dropped: int = 0) -> Progress:
    found = Progress(level, 1, Limits(None, 60.0, 0), phase="measuring", measured_from_ns=0)
    found.completed, found.failed, found.dropped = completed, failed, dropped
    found.ended, found.issued = completed + failed, completed + failed + in_flight
    return found


def result(number: int, ttft_ms: float, *, error: Any = None) -> Result:
    """A request of two tokens, the second 10 ms after the first."""
    first_ns = None if error else int(ttft_ms * 1e6)
    last_ns = None if first_ns is None else first_ns + 10_000_000
    marks = (0, 0, 0, first_ns, first_ns, first_ns, last_ns, last_ns or 1)
    return Result("m@c1", 1, number, "p", False, *marks, [10_000] if last_ns else [], 1, 2, error=error)


def begun(*written: str, loads: tuple[int, ...] = (1, 2), at_s: float = 11.0) -> Abort:
    """A schedule whose first level has measured for so long."""
    found = with_aborts(Fixed(planned(*loads)), [Threshold.parse(f"{text} abort") for text in written], streamed=True)
    assert isinstance(found, Abort)
    found.now_ns = lambda: int(at_s * SECOND_NS)
    found.following()
    return found


def stops(schedule: Abort, **counts: int) -> bool:
    return schedule.has_enough(progress_of(planned(1)[0].level, **counts))


# -- when


@pytest.mark.parametrize(
    ("written", "counts", "ends"),
    [
        ("failed > 10%", {"completed": 20, "failed": 20}, True),
        ("failed > 10%", {"completed": 36, "failed": 4}, False),  # just at the limit
        ("failed > 10%", {"completed": 34, "failed": 6}, False),  # beyond it, as chance may have it
        ("failed > 1%", {"completed": 9, "failed": 1}, False),  # one bad request
        ("failed > 0%", {"completed": 39, "failed": 1}, True),  # one is all that it takes
        ("failed > 10%", {"failed": 9}, False),  # too few have ended
        ("failed > 10%", {"failed": 20, "in_flight": 400}, False),  # those that end first are those that fail
        ("success < 90%", {"completed": 20, "dropped": 20}, True),
        ("dropped > 10%", {"completed": 40, "dropped": 40}, True),
        ("dropped > 10%", {"completed": 20, "failed": 20}, False),
        ("failed < 50%", {"completed": 40}, True),
    ],
)
def test_a_run_ends_once_so_many_bad_requests_are_no_chance(written: str, counts: dict[str, int], ends: bool) -> None:
    assert stops(begun(written), **counts) is ends


def test_nothing_ends_before_its_time() -> None:
    assert not stops(begun("failed > 10%", at_s=9.9), failed=40)
    assert stops(begun("failed > 10%", at_s=10.0), failed=40)
    assert stops(begun("failed > 10%", at_s=2.0), failed=40) is False


@pytest.mark.parametrize(
    ("written", "slow", "ends"),
    [
        ("ttft_p95 > 800ms", 40, True),
        ("ttft_p95 > 800ms", 2, False),  # 5 % are allowed
        ("ttft_p50 > 800ms", 21, False),
        ("ttft_max > 800ms", 1, True),
        ("tpot_p50 > 5ms", 0, True),  # all have 10 ms
        ("e2e_p90 > 900ms", 40, True),
        ("ttft_p50 < 100ms", 0, True),
        ("ttft_p50 < 100ms", 20, False),
    ],
)
def test_a_percentile_fails_by_the_requests_on_its_wrong_side(written: str, slow: int, ends: bool) -> None:
    schedule = begun(written)
    for number in range(40):
        schedule.heard(result(number, 900.0 if number < slow else 50.0))

    assert stops(schedule, completed=40) is ends


@pytest.mark.parametrize("counts", [{"failed": 40}, {"completed": 30, "failed": 10}, {"completed": 30, "dropped": 10}])
def test_a_request_that_failed_or_was_dropped_is_slower_than_any_limit(counts: dict[str, int]) -> None:
    schedule = begun("ttft_p95 > 800ms")

    assert stops(schedule, **counts)


def test_a_request_that_failed_is_quicker_than_no_limit() -> None:
    assert not stops(begun("ttft_p95 < 800ms"), failed=40)


def test_warm_up_requests_end_no_run() -> None:
    schedule = begun("ttft_p95 > 800ms")
    for number in range(40):
        schedule.heard(replace(result(number, 900.0), warmup=True))

    assert not stops(schedule, completed=40)


def test_at_the_limit_all_looks_together_end_one_run_in_a_hundred_at_most() -> None:
    """2,000 levels of 1,000 requests, each of which fails with just the share that is allowed."""
    rng = np.random.default_rng(7)
    progress, one = progress_of(planned(1)[0].level), Threshold.parse("failed > 10% abort")
    runs, wrong = 2000, 0
    for _ in range(runs):
        failed = np.cumsum(rng.random(1000) < 0.1)
        trial = Trial(one, opened=False)
        for n in range(FEWEST, 1001, 10):
            progress.failed, progress.ended, progress.issued = int(failed[n - 1]), n, n
            if trial.look(progress):
                wrong += 1
                break

    assert wrong / runs <= ERROR


@pytest.mark.parametrize(("hits", "n", "share"), [(3, 20, 0.1), (40, 50, 0.5), (11, 1000, 0.01), (20, 20, 0.9)])
def test_the_binomial_tail_is_exact(hits: int, n: int, share: float) -> None:
    exact = sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(hits, n + 1))

    assert chance(hits, n, share) == pytest.approx(exact, rel=1e-9)


# -- what then


def test_the_level_says_why_it_ended_and_those_that_follow_are_skipped() -> None:
    schedule = begun("failed > 10%", loads=(1, 2, 4))
    progress = progress_of(planned(1)[0].level, completed=20, failed=20)
    facts: dict[str, Any] = {"status": "complete", "reason": None}

    assert schedule.has_enough(progress)
    schedule.ended(progress, facts)

    assert facts == {
        "status": "aborted",
        "reason": "failed > 10%: 20 of 40 requests failed",
        "aborted": "failed > 10%",
    }
    rest = [schedule.following(), schedule.following(), schedule.following()]
    assert [one and (one.level.id, one.skip) for one in rest] == [
        ("m@c2", "failed > 10% ended the run at m@c1"),
        ("m@c4", "failed > 10% ended the run at m@c1"),
        None,
    ]


def test_a_level_that_was_whole_when_it_became_sure_stays_complete() -> None:
    schedule = begun("failed > 10%")
    progress = progress_of(planned(1)[0].level, completed=20, failed=20)
    progress.phase = "draining"
    facts: dict[str, Any] = {"status": "complete", "reason": None}

    schedule.has_enough(progress)
    schedule.ended(progress, facts)

    assert (facts["status"], facts["aborted"]) == ("complete", "failed > 10%")


def test_each_level_begins_anew() -> None:
    schedule = begun("ttft_p95 > 800ms")
    for number in range(40):
        schedule.heard(result(number, 900.0 if number < 3 else 50.0))
    assert not stops(schedule, completed=40)
    schedule.ended(progress_of(planned(1)[0].level), {"status": "complete"})

    schedule.following()

    assert not stops(schedule, completed=40)


def test_a_threshold_about_another_level_ends_nothing() -> None:
    assert not stops(begun("failed{c2} > 10%"), failed=40)


def test_without_abort_the_schedule_is_itself() -> None:
    fixed = Fixed(planned(1))

    assert with_aborts(fixed, [Threshold.parse("failed > 1%")], streamed=True) is fixed


# -- a whole run


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_against_a_server_that_fails_every_second_request_ends_early_with_exit_code_3(place: Path) -> None:
    with simulator.start(ttft_ms=5, itl_ms=1, faults={"500": 0.5}) as server:
        words = ["-c", "2,4", "-d", "60s", "--max-tokens", "4", "--no-telemetry", "-o", "run", "--junit", "junit.xml"]
        done = invoke("run", "-e", server.url, *words, "--fail-if", "failed > 10% abort after 500ms")

    assert done.exit_code == 3, done.output
    assert "loadbench: failed > 10% at c2" in done.stderr
    found = json.loads((place / "run" / "run.json").read_bytes())["levels"]
    assert [(one["id"].partition("@")[2], one["status"]) for one in found][:2] == [("c2", "aborted"), ("c4", "skipped")]
    assert found[0]["duration_s"] < 20
    assert found[1]["reason"] == "failed > 10% ended the run at simulator@c2"
    rows = json.loads((place / "run" / "summary.json").read_bytes())["thresholds"]
    assert [(row["result"], row["aborted"]) for row in rows] == [("failed", True), ("unknown", False)]
    assert "<failure" in (place / "junit.xml").read_text(encoding="utf-8")


def test_a_threshold_of_latency_fails_a_server_that_fails_every_second_request(place: Path) -> None:
    with simulator.start(ttft_ms=1, itl_ms=0.2, faults={"500": 0.5}) as server:
        words = ["-c", "2", "-n", "40", "--max-tokens", "4", "--no-telemetry", "-o", "run"]
        done = invoke("run", "-e", server.url, *words, "--fail-if", "ttft_p95 > 800ms")

    assert done.exit_code == 3, done.output
    assert "requests: they never ended" in done.stderr


def test_a_run_that_passes_its_thresholds_is_fine_and_strict_asks_for_more(place: Path) -> None:
    with simulator.start(ttft_ms=5, itl_ms=1) as server:
        words = ["run", "-e", server.url, "-c", "1", "-n", "20", "--max-tokens", "4", "--no-telemetry", "-q"]
        words += ["--fail-if", "failed > 1% abort"]
        fine = invoke(*words, "-o", "fine")
        strict = invoke(*words, "-o", "strict", "--strict")

    assert (fine.exit_code, fine.stderr) == (0, "")
    # Twenty short requests are no steady window.
    assert (strict.exit_code, strict.stderr.startswith("loadbench: V1")) == (3, True)
    assert strict.stderr.endswith(" red at c1: no basis for a verdict\n")


def test_a_threshold_of_a_level_that_is_not_planned_is_a_wrong_argument(place: Path) -> None:
    with simulator.start() as server:
        done = invoke("run", "-e", server.url, "-c", "1", "--dry-run", "--fail-if", "failed{c9} > 1%")

    assert (done.exit_code, "no level is called c9" in done.stderr) == (2, True)


def test_a_report_judges_a_stored_run_again(place: Path) -> None:
    with simulator.start(ttft_ms=5, itl_ms=1) as server:
        words = ["-c", "1", "-n", "20", "--max-tokens", "4", "--no-telemetry", "-q", "-o", "run"]
        invoke("run", "-e", server.url, *words, "--fail-if", "ttft_p50 > 1ms")
    (place / "run" / "summary.json").unlink()

    plain = invoke("report", "run", "--junit", "again.xml")
    strict = invoke("report", "run", "--strict")

    assert (plain.exit_code, strict.exit_code) == (0, 3)
    assert "FAILED: ttft_p50 > 1ms at c1" in plain.stdout
    assert "<failure" in (place / "again.xml").read_text(encoding="utf-8")


def test_junit_into_a_folder_that_is_not_there_is_told_before_anything_is_measured(place: Path) -> None:
    done = invoke("run", "--simulate", "--junit", "nowhere/junit.xml")

    assert (done.exit_code, "no folder nowhere; make it first" in done.stderr) == (2, True)
