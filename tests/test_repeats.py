"""Runs of the same level: what they say together, and a run that goes on until that is known well enough."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadbench.engine import Progress
from loadbench.report import breakdowns
from loadbench.report.levels import read
from loadbench.runner.plan import make
from loadbench.runner.schedule import Precise, until_record
from loadbench.scenario import Scenario
from loadbench.serve.simulator import Simulator
from loadbench.store.record import Result
from tests.support.command import invoke
from tests.support.plain import entries, over_runs


def level(name: str, tokens_per_s: float | None, ttft_ms: float = 200.0, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "model": "m",
        "concurrency": 4,
        "status": "complete",
        "output_tokens_per_s": tokens_per_s,
        "ttft_ms": {"p50": ttft_ms},
        **more,
    }


# -- over runs


def test_the_interval_over_runs_holds_the_truth_nineteen_times_in_twenty() -> None:
    chance = np.random.default_rng(3)
    held = 0
    for _ in range(2000):
        found = over_runs((100 * np.exp(0.05 * chance.standard_normal(4))).tolist())
        held += found["low"] <= 100 <= found["high"]

    assert held / 2000 == pytest.approx(0.95, abs=0.015)


def test_two_runs_have_a_spread_and_no_interval() -> None:
    found = over_runs([100.0, 110.0])

    assert (found["n"], found["spread"], found["low"], found["half_width"]) == (2, 1.1, None, None)


def test_runs_of_which_one_has_no_figure_say_nothing_together() -> None:
    assert over_runs([100.0, None, 100.0])["mean"] is None


def test_only_levels_that_were_repeated_are_entries() -> None:
    found = entries(
        [
            level("m@c4", 100.0),
            level("m@c8", 150.0, concurrency=8),
            level("m@c4#2", 110.0),
            level("m@c4#3", 120.0, status="interrupted"),
            level("m@c4#end", 90.0, closing=True),
        ]
    )

    assert [[run["level"] for run in entry["runs"]] for entry in found] == [["m@c4", "m@c4#2"]]
    assert found[0]["figures"]["output_tokens_per_s"]["spread"] == 1.1


def test_a_table_sets_each_run_against_the_first_and_their_mean_beneath() -> None:
    levels = [level("m@c4", 100.0), level("m@c4#2", 110.0), level("m@c4#3", 90.0)]
    [table] = breakdowns.repeats(read({"levels": levels, "repeats": entries(levels)}))

    assert [[cell.text for cell in row[:4]] for row in table.rows] == [
        ["c4", "1", "100", "1.00x"],
        ["", "2", "110", "1.10x"],
        ["", "3", "90.0", "0.90x"],
        ["", "all", "99.7", "1.22x, 10.0%"],
    ]
    assert table.rows[-1][2].interval == "77.7–128"


@pytest.mark.parametrize(
    ("reached", "said"),
    [
        (True, ["every mean is known to 5%, as --until wanted"]),
        (False, ["not every mean is known to 5%, which --until wanted"]),
        (None, []),  # ended before anybody could tell
    ],
)
def test_a_table_says_whether_what_until_wanted_was_reached(reached: bool | None, said: list[str]) -> None:
    levels = [level("m@c4", 100.0), level("m@c4#2", 110.0)]
    run = {"until": {"wanted": 0.05, "reached": reached}}
    [table] = breakdowns.repeats(read({"levels": levels, "repeats": entries(levels), "run": run}))

    assert list(table.notes[1:]) == said


# -- until it is known well enough


class Server:
    """Ends levels as the engine does: so many requests of a TTFT that wanders from run to run."""

    fails = "none"
    """How the names of levels begin that fail."""

    def __init__(self, wander: float, asked: Scenario) -> None:
        self.chance, self.wander = np.random.default_rng(1), wander
        self.record, self.told, self.ran = until_record(asked), list[str](), list[str]()
        plan = make(asked, ["m"])
        self.schedule = Precise(plan.levels, self.record, self.told.append)

    def run(self) -> list[str]:
        while self.step():
            pass
        return self.ran

    def step(self) -> bool:
        planned = self.schedule.following()
        if planned is not None:
            self.ran.append(planned.level.id)
            ttft_ns = round(2e8 * math.exp(self.wander * self.chance.standard_normal()))
            for number in range(40):
                began = number * 500_000_000
                self.schedule.heard(self.result(planned.level.id, number, began, ttft_ns))
            status = "failed" if planned.level.id.startswith(self.fails) else "complete"
            facts = {"status": status, "measured_from_ns": 0, "full_ns": 0, "last_issue_ns": 19_500_000_000}
            self.schedule.ended(Progress(planned.level, 1, planned.limits), facts)
        return planned is not None

    def result(self, name: str, number: int, began: int, ttft_ns: int) -> Result:
        return Result(
            level=name,
            attempt=1,
            request=number,
            warmup=False,
            prompt="p",
            due_ns=began,
            sent_ns=began,
            connect_ns=0,
            headers_ns=began,
            first_event_ns=began + ttft_ns,
            first_token_ns=began + ttft_ns,
            last_token_ns=began + ttft_ns + 100_000_000,
            end_ns=began + ttft_ns + 100_000_000,
            gaps_us=[100_000],
            text_events=2,
            output_tokens=2,
            characters=8,
            finish_reason="stop",
        )


@pytest.mark.parametrize(("wander", "rounds"), [(0.0, 3), (10.0, 5)])
def test_it_ends_after_three_rounds_at_the_earliest_and_after_all_at_the_latest(wander: float, rounds: int) -> None:
    server = Server(wander, Scenario(concurrency=[1, 2], until=0.05, repeat=5))
    ran = server.run()

    assert len(ran) == 2 * rounds
    assert server.record["reached"] is (wander == 0)
    assert server.told[-1].endswith("5 % is wanted: enough" if wander == 0 else "5 % is wanted")


def test_a_server_that_wanders_a_little_is_measured_until_it_is_known_well_enough() -> None:
    server = Server(0.05, Scenario(concurrency=[1], until=0.03))
    rounds = len(server.run())
    said = [float(line.partition(", to ")[2].split(" %")[0]) for line in server.told]

    assert 3 < rounds < 20
    assert all(width > 3 for width in said[:-1])
    assert said[-1] <= 3


def test_runs_in_turns_go_on_until_the_means_of_both_are_known() -> None:
    asked = Scenario(concurrency=[1], until=0.05, repeat=6)
    still, wanders = Server(0.0, asked), Server(10.0, asked)
    wanders.schedule.rounds = still.schedule.rounds
    still.schedule.rounds.runs.append(wanders.schedule)
    while still.step() | wanders.step():
        pass

    assert [len(server.record["runs"]) for server in (still, wanders)] == [6, 6]
    assert [server.record["reached"] for server in (still, wanders)] == [True, False]


def test_a_load_that_failed_is_not_waited_for() -> None:
    server = Server(0.0, Scenario(concurrency=[1, 2], until=0.05))
    server.fails = "m@c2#2"

    assert len(server.run()) == 6
    assert server.record["reached"] is True


def test_a_run_whose_loads_all_failed_ends_after_its_round() -> None:
    server = Server(0.0, Scenario(concurrency=[1, 2], until=0.05))
    server.fails = "m@"

    assert server.run() == ["m@c1", "m@c2"]
    assert server.record["reached"] is None


def test_a_run_that_goes_on_counts_what_it_measured_before() -> None:
    first = Server(0.0, Scenario(concurrency=[1], until=0.05))
    for _ in range(2):
        planned = first.schedule.following()
        assert planned is not None
        first.schedule.ended(Progress(planned.level, 1, planned.limits), {"status": "interrupted"})
    whole = Server(0.0, Scenario(concurrency=[1], until=0.05))
    whole.run()
    again = Precise(make(Scenario(concurrency=[1], until=0.05), ["m"]).levels[3:], whole.record, [].append)

    assert first.record["runs"] == []  # what was interrupted counts for nothing
    assert again.following() is None


def test_rounds_take_turns_and_every_second_one_goes_backwards() -> None:
    ran = Server(0.0, Scenario(concurrency=[1, 2], until=0.05)).run()

    assert ran == ["m@c1", "m@c2", "m@c2#2", "m@c1#2", "m@c1#3", "m@c2#3"]
    assert all(one != other for one, other in pairwise(ran))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--until", "5%", "--repeat", "2"), "until takes 3 runs, repeat is 2"),
        (("--until", "5%", "-c", "1,1"), "until repeats each load: name none twice in concurrency"),
        (("--until", "5%", "--budget", "5m"), "--until and --budget are both given"),
        (("--until", "0"), "until is 0"),
    ],
)
def test_what_cannot_be_repeated_so_is_refused_in_one_line(words: tuple[str, ...], said: str, quick: Simulator) -> None:
    done = invoke("run", "-e", quick.url, *words, "--dry-run")

    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_run_until_tells_each_round_and_keeps_what_it_found(quick: Simulator, tmp_path: Path) -> None:
    words = (
        "-c",
        "1,2",
        "-n",
        "60",
        "--max-tokens",
        "4",
        "--until",
        "60%",
        "--repeat",
        "4",
        "--no-telemetry",
        "--full",
    )
    done = invoke("run", "-e", quick.url, *words, "-o", tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_bytes())
    summary = json.loads((tmp_path / "run" / "summary.json").read_bytes())

    assert done.exit_code == 0, done.output
    assert "levels    c1, c2 (streams at once), 4 times; 60 requests each" in done.stderr
    assert "after 3 runs the least known mean is " in done.stderr
    assert info["until"]["wanted"] == 0.6
    assert len(info["until"]["runs"]) == len(summary["levels"]) == 2 * len(summary["repeats"][0]["runs"])
    assert "Run by run" in done.stdout
    assert "every mean is known to 60%" in " ".join(done.stdout.split())
