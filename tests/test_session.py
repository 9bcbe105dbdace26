"""A run: models are tried, levels follow, what fails is marked and the rest goes on, and Ctrl-C costs nothing."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from msgspec import structs

from loadbench import store
from loadbench.client import Ask
from loadbench.engine import Limits, Progress
from loadbench.errors import StoreError
from loadbench.prompts import DEFAULT
from loadbench.runner import plan, session
from loadbench.runner.plan import PlannedLevel
from loadbench.runner.session import Session
from loadbench.runner.turn import PROBE_TOKENS
from loadbench.runner.watch import View, Watch
from loadbench.scenario import Level, Scenario
from loadbench.server import Chosen, ModelFacts, Target
from loadbench.store.files import read_info
from loadbench.store.folder import RunFolder
from loadbench.store.record import Result
from tests.support.spreading import until
from tests.support.streams import failed, stream

pytestmark = pytest.mark.anyio

signals = pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cancels at once there")


@dataclass
class Chats:
    """A client: what each request gets is decided by `law`, as the kind of failure or None; it takes a moment.

    `at` acts when a request is asked, by its number in the whole run from 1, probes among them.
    """

    law: Callable[[Ask], str | None] = field(default=lambda ask: None)
    at: Mapping[int, Callable[[], object]] = field(default_factory=dict)
    takes_s: float = 0.001
    asked: list[Ask] = field(default_factory=list)

    async def warm(self, connections: int) -> None: ...

    async def chat(self, ask: Ask, origin_ns: int, done: Callable[[Result], None], *, keep: bool = True) -> None:
        self.asked.append(ask)
        error: str | None = "cancelled"
        try:
            if act := self.at.get(len(self.asked)):
                act()
            await anyio.sleep(self.takes_s)
            error = self.law(ask)
        finally:
            due = (ask.due_ns - origin_ns) / 1e6
            made = stream(ask.request, due=due) if error is None else failed(ask.request, due=due, error=error)
            done(structs.replace(made, level=ask.level, attempt=ask.attempt, prompt=ask.prompt.id, warmup=ask.warmup))

    def text_events_in_flight(self) -> int:
        return 3

    def take_lags_ns(self) -> list[int]:
        return []

    def round_trip_ns(self) -> int | None:
        return None

    def served_as(self, model: str) -> str | None:
        return model

    @property
    def levels(self) -> dict[str, int]:
        """Requests by level, probes among them, in the order of the first."""
        return dict(Counter(ask.level for ask in self.asked))


class Watcher(View):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.probes: list[dict[str, Any]] = []

    def note(self, text: str) -> None:
        self.seen.append(("note", text))

    def probed(self, probe: Mapping[str, Any]) -> None:
        self.seen.append(("probed", probe["model"]))
        self.probes.append(dict(probe))

    def began(self, progress: Progress, planned: PlannedLevel) -> None:
        self.seen.append(("began", progress.level.id))

    def tick(self, progress: Progress, text_events: int) -> None:
        self.seen.append(("tick", f"{progress.level.id} {text_events}"))

    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None:
        self.seen.append((facts["status"], progress.level.id))

    def skipped(self, level: Level, reason: str) -> None:
        self.seen.append(("skipped", level.id))


def run_of(
    folder: RunFolder | Path,
    client: Chats,
    models: Sequence[str] = ("m",),
    *,
    budget_s: float | None = None,
    **asked: Any,
) -> Session:
    scenario = Scenario(**{"concurrency": [1, 2], "requests": 5, "warmup": 1, "repeat_first": False, **asked})
    target = Target(
        base_url="http://localhost/v1", kind="simulator", models=(ModelFacts(id="m", device="NPU"), ModelFacts(id="n"))
    )
    if isinstance(folder, Path):
        folder = RunFolder.create(folder, {})
    steps = plan.make(scenario, models)
    facts = {one.id: one for one in target.models}
    chosen = [Chosen(model, model, facts.get(model)) for model in models]
    watch = Watch(folder, None)
    return Session(scenario, DEFAULT, target, chosen, steps, folder, client, Watcher(), watch, budget_s=budget_s)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run"


def statuses(path: Path) -> dict[str, str]:
    return {level.facts["id"]: level.facts["status"] for level in store.read(path).levels}


def reasons(path: Path) -> dict[str, str | None]:
    return {level.facts["id"]: level.facts["reason"] for level in store.read(path).levels}


def errors(path: Path, level: int = -1) -> Counter[str | None]:
    return Counter(store.read(path).levels[level].results.error)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


# -- all is well


async def test_every_level_is_run_and_recorded(path: Path) -> None:
    run = run_of(path, Chats())
    await run.run()

    assert statuses(path) == {"m@c1": "complete", "m@c2": "complete"}
    assert [len(level.results) for level in store.read(path).levels] == [6, 6]
    assert (read_info(path)["status"], run.interrupted, run.failed) == ("complete", False, {})
    assert run.view.seen == [
        *(("probed", "m"), ("probed", "m")),
        *(("began", "m@c1"), ("complete", "m@c1")),
        *(("began", "m@c2"), ("complete", "m@c2")),
    ]


async def test_a_levels_entry_names_the_target_and_the_device(path: Path) -> None:
    await run_of(path, Chats(), concurrency=[2]).run()
    entry = read_info(path)["levels"][0]

    assert {name: entry[name] for name in ("model", "endpoint", "device", "concurrency", "repeat", "attempt")} == {
        "model": "m",
        "endpoint": "http://localhost/v1",
        "device": "NPU",
        "concurrency": 2,
        "repeat": 1,
        "attempt": 1,
    }


async def test_levels_that_are_complete_are_not_run_again(path: Path) -> None:
    await run_of(path, Chats(), concurrency=[1]).run()
    client = Chats()
    again = run_of(RunFolder.reopen(path), client)
    await again.run()

    assert client.levels == {"m@probe": 2, "m@c2": 6}
    assert statuses(path) == {"m@c1": "complete", "m@c2": "complete"}
    assert ("note", "m@c1: complete already") in again.view.seen


async def test_a_run_that_is_complete_asks_nothing(path: Path) -> None:
    await run_of(path, Chats()).run()
    client = Chats()
    await run_of(RunFolder.reopen(path), client).run()

    assert client.asked == []


# -- probes


async def test_each_model_is_asked_twice_in_short_before_it_is_measured(path: Path) -> None:
    client = Chats()
    await run_of(path, client, ["m", "n"]).run()
    probes = [ask for ask in client.asked if ask.level.endswith("@probe")]

    assert list(client.levels) == ["m@probe", "m@c1", "m@c2", "n@probe", "n@c1", "n@c2"]
    assert [(ask.model, ask.prompt.max_tokens) for ask in probes] == [(model, PROBE_TOKENS) for model in "mmnn"]


async def test_a_probe_is_in_run_json_and_not_among_the_requests(path: Path) -> None:
    await run_of(path, Chats()).run()
    first, warm = read_info(path)["probes"]

    assert (first["model"], first["purpose"], first["requests"], first["error"]) == ("m", "first", 1, None)
    assert (first["ttft_ms"], first["e2e_ms"], first["cold"]) == (200.0, 825.0, False)
    assert (warm["model"], warm["purpose"], warm["ttft_ms"]) == ("m", "warm", 200.0)
    assert b"probe" not in (path / "requests.jsonl").read_bytes()


async def test_models_that_take_turns_are_paused_for_and_probed_after_it_once(path: Path) -> None:
    run = run_of(path, Chats(), ["m", "n"], repeat=3, idle_gap=0.001)
    await run.run()

    turns = [probe["model"] for probe in run.view.probes if probe["purpose"] == "first"]
    assert turns == ["m", "n", "m", "n"]  # m n, n m, m n: neighbours of one model are one turn
    assert [probe["model"] for probe in run.view.probes if probe["purpose"] == "idle"] == ["m", "n"]


async def test_a_model_that_failed_is_not_asked_again_when_its_next_turn_comes(path: Path) -> None:
    client = Chats(lambda ask: "http_4xx" if ask.model == "m" else None)
    await run_of(path, client, ["m", "n"], repeat=3).run()

    assert client.levels["m@probe"] == 1
    assert Counter(statuses(path).values()) == {"skipped": 6, "complete": 6}


async def test_each_repeat_has_a_seed_of_its_own_that_models_and_loads_share(path: Path) -> None:
    await run_of(path, client := Chats(), ["m", "n"], repeat=2, seed=7).run()
    entries = {level["id"]: level["seed"] for level in read_info(path)["levels"]}
    asked = {name: [ask.prompt.id for ask in client.asked if ask.level == name] for name in entries}

    assert {name: seed for name, seed in entries.items() if seed == [7, 2]}.keys() == {
        *("m@c1#2", "m@c2#2", "n@c1#2", "n@c2#2")
    }
    assert asked["m@c1"] == asked["n@c2"] != asked["m@c1#2"] == asked["n@c2#2"]


async def test_a_model_that_does_not_answer_is_marked_and_the_others_run(path: Path) -> None:
    run = run_of(path, Chats(lambda ask: "http_5xx" if ask.model == "m" else None), ["m", "n"])
    await run.run()

    assert statuses(path) == {"m@c1": "skipped", "m@c2": "skipped", "n@c1": "complete", "n@c2": "complete"}
    assert run.failed.keys() == {"m"}
    assert [what for what in run.view.seen if what[0] == "skipped"] == [("skipped", "m@c1"), ("skipped", "m@c2")]
    assert (reasons(path)["m@c1"] or "").startswith("its model failed: http_5xx")
    assert read_info(path)["probes"][0]["error"] == "http_5xx"


@pytest.mark.parametrize(
    ("failures", "requests"),
    [
        ([None], 1),
        (["reset", None], 2),  # what may pass is tried again
        (["http_5xx", "http_429", None], 3),
        (["reset", "reset", "reset", None], 3),  # thrice at most
        (["http_4xx", None], 1),  # a refusal does not pass
    ],
)
async def test_a_probe_that_fails_is_repeated_where_that_may_help(
    path: Path, failures: list[str | None], requests: int
) -> None:
    client = Chats(lambda ask: next(iter(failures[ask.request : requests]), None) if ask.level == "m@probe" else None)
    run = run_of(path, client)
    await run.run()

    warm = 0 if run.failed else 1
    assert run.view.probes[0]["requests"] == client.levels["m@probe"] - warm == requests
    assert ("m" in run.failed) == (failures[requests - 1] is not None)


# -- levels that fail, budgets


@pytest.mark.parametrize(
    ("fails", "found", "failed"),
    [
        (
            ("m@c1", "truncated"),
            {"m@c1": "failed", "m@c4": "skipped", "m@c2": "skipped"},
            {"m": "no request completed; the last one: truncated: None"},
        ),
        # A level that is too much says nothing of a model's other levels.
        (("m@c4", "http_429"), {"m@c1": "complete", "m@c4": "failed", "m@c2": "complete"}, {}),
    ],
)
async def test_a_level_without_a_completed_request_ends_its_model_alone(
    path: Path, fails: tuple[str, str], found: dict[str, str], failed: dict[str, str]
) -> None:
    client = Chats(lambda ask: fails[1] if ask.level == fails[0] else None)
    run = run_of(path, client, ["m", "n"], concurrency=[1, 4, 2])
    await run.run()

    assert statuses(path) == {**found, **dict.fromkeys(("n@c1", "n@c4", "n@c2"), "complete")}
    assert run.failed == failed


@pytest.mark.parametrize("more", [{}, {"max_failed": 0.2}])
async def test_some_failures_fail_nothing(path: Path, more: dict[str, Any]) -> None:
    run = run_of(path, Chats(lambda ask: "reset" if ask.request == 3 and not ask.warmup else None), **more)
    await run.run()

    assert set(statuses(path).values()) == {"complete"}
    assert errors(path) == {None: 5, "reset": 1}


async def test_higher_loads_are_left_out_once_too_large_a_share_fails(path: Path) -> None:
    client = Chats(lambda ask: "reset" if ask.level == "m@c2" and ask.request % 2 else None)
    await run_of(path, client, ["m", "n"], concurrency=[1, 4, 2, 8], repeat=1, max_failed=0.2).run()

    assert statuses(path) == {
        **{"m@c1": "complete", "m@c4": "complete", "m@c2": "complete", "m@c8": "skipped"},
        **dict.fromkeys(("n@c1", "n@c4", "n@c2", "n@c8"), "complete"),
    }
    assert reasons(path)["m@c8"] == "3 of 5 requests failed at m@c2, more than --max-failed 20%"


async def test_levels_beyond_the_budget_are_skipped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock_s = [100.0]
    timepiece = SimpleNamespace(
        monotonic=lambda: clock_s[0], time_ns=time.time_ns, perf_counter_ns=time.perf_counter_ns
    )
    monkeypatch.setattr(session, "time", timepiece)

    def minute(ask: Ask) -> None:
        clock_s[0] += 60 if ask.level == "m@c2" and ask.request == 0 else 0

    await run_of(path, Chats(minute), concurrency=[1, 2, 4, 8], budget_s=30).run()

    assert list(statuses(path).values()) == ["complete", "complete", "skipped", "skipped"]
    assert reasons(path)["m@c4"] == "the budget of time is spent"
    assert read_info(path)["status"] == "complete"


# -- a schedule that decides as it goes


@dataclass
class Until:
    """Repeats a level without an end of its own until `repeats` of them were whole; each ends after 20 requests."""

    repeats: int
    heard_of: Counter[str] = field(default_factory=Counter)
    told: list[tuple[str, str]] = field(default_factory=list)

    def following(self) -> PlannedLevel | None:
        n = len(self.told) + 1
        level = Scenario(concurrency=[1], repeat=n).levels(["m"])[-1]
        return None if n > self.repeats else PlannedLevel(level, Limits(None, 3600.0, 0), 0.0, 0.0)

    def left(self) -> int:
        return 1

    def heard(self, result: Result) -> None:
        self.heard_of[result.level] += 1

    def has_enough(self, progress: Progress) -> bool:
        return self.heard_of[progress.level.id] >= 20

    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None:
        self.told.append((progress.level.id, facts["status"]))

    def skipped(self, planned: PlannedLevel, reason: str) -> None:
        self.told.append((planned.level.id, reason))


async def test_a_schedule_decides_on_each_level_when_the_one_before_is_over_and_may_end_it_early(path: Path) -> None:
    run = run_of(path, Chats())
    run = replace(run, schedule=(until := Until(2)))
    await run.run()

    assert statuses(path) == {"m@c1": "complete", "m@c1#2": "complete"}
    assert until.told == [("m@c1", "complete"), ("m@c1#2", "complete")]
    assert [len(level.results) for level in store.read(path).levels] == list(until.heard_of.values())


async def test_a_schedule_is_told_of_a_level_that_is_not_run(path: Path) -> None:
    run = run_of(path, Chats(lambda ask: "http_5xx"))
    run = replace(run, schedule=(until := Until(1)))
    await run.run()

    assert statuses(path) == {"m@c1": "skipped"}
    assert [what for what, reason in until.told if reason.startswith("its model failed: http_5xx")] == ["m@c1"]


# -- Ctrl-C


@signals
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
async def test_a_first_signal_lets_requests_in_flight_end_and_begins_no_level(path: Path, kind: signal.Signals) -> None:
    client = Chats(at={6: lambda: os.kill(os.getpid(), kind)}, takes_s=0.02)  # 1 and 2 are probes
    run = run_of(path, client, concurrency=[2, 4], requests=100)
    await run.run()

    assert run.interrupted
    assert statuses(path) == {"m@c2": "interrupted"}
    assert errors(path) == {None: len(client.asked) - 2}
    assert len(client.asked) < 12
    assert read_info(path)["status"] == "interrupted"
    assert any("Ctrl-C again stops at once" in text for what, text in run.view.seen if what == "note")


@signals
async def test_a_second_signal_ends_requests_in_flight_at_once_and_records_them(path: Path) -> None:
    async def twice() -> None:
        await until(lambda: client.takes_s == 3600)
        interrupt()
        await until(lambda: run.interrupted)
        interrupt()

    client = Chats(lambda ask: None, takes_s=0.001)
    client.at = {3: lambda: setattr(client, "takes_s", 3600)}
    run = run_of(path, client, concurrency=[4], requests=100)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(twice)
        await run.run()

    assert run.interrupted
    assert statuses(path) == {"m@c4": "interrupted"}
    assert errors(path) == {"cancelled": 4}


@signals
@pytest.mark.parametrize("error", [None, "reset"])
async def test_a_signal_while_a_model_is_probed_begins_no_level(path: Path, error: str | None) -> None:
    client = Chats(lambda ask: error, at={1: interrupt}, takes_s=0.02)
    run = run_of(path, client)
    await run.run()

    assert len(client.asked) == 1
    assert not [what for what in run.view.seen if what[0] == "began"]
    assert read_info(path)["status"] == "interrupted"


@signals
async def test_signals_after_a_run_are_nobodys(path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    await run_of(path, Chats()).run()

    assert signal.getsignal(signal.SIGTERM) == before


async def test_a_level_that_is_cancelled_from_outside_is_not_complete(path: Path) -> None:
    client = Chats(at={20: lambda: scope.cancel()})
    with anyio.CancelScope() as scope:  # as Ctrl-C does on Windows
        await run_of(path, client, concurrency=[2], requests=100).run()

    assert statuses(path) == {"m@c2": "interrupted"}
    assert read_info(path)["status"] == "interrupted"


@signals
async def test_an_interrupted_run_is_continued_to_its_end(path: Path) -> None:
    await run_of(path, Chats(at={4: interrupt}, takes_s=0.01), requests=9).run()
    await run_of(RunFolder.reopen(path), Chats(), requests=9).run()

    assert statuses(path) == {"m@c1": "complete", "m@c2": "complete"}
    assert [len(level.results) for level in store.read(path).levels] == [10, 10]
    assert read_info(path)["status"] == "complete"


# -- what may break


async def test_a_disk_that_fills_up_ends_the_run_in_one_line_and_completes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(path, Chats(takes_s=0.02), concurrency=[1], requests=1000)
    full = StoreError("requests.jsonl: cannot write: No space left on device")
    real = run.folder.take
    takes: list[int] = []

    def take() -> Callable[[], None]:
        takes.append(len(takes))
        if len(takes) > 1:
            return real()  # someone made room

        def fail() -> None:
            raise full

        return fail

    monkeypatch.setattr(run.folder, "take", take)
    with pytest.raises(StoreError) as caught:
        await run.run()

    assert caught.value is full
    assert statuses(path) == {"m@c1": "interrupted"}
    assert read_info(path)["status"] == "interrupted"


async def test_a_defect_in_a_client_completes_nothing(path: Path) -> None:
    def defect() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run_of(path, Chats(at={5: defect})).run()

    assert statuses(path) == {"m@c1": "interrupted"}


async def test_records_are_written_although_the_level_ends_within_the_tick(path: Path) -> None:
    run = run_of(path, Chats())
    level = Level(id="m@c1", model="m", concurrency=1, request_rate_per_s=None, repeat=1)
    attempt = run.folder.begin({"id": "m@c1", "model": "m"})
    run._on_result(stream(0, attempt=attempt))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await run._on_tick(Progress(level, attempt, Limits(1, None, 0), text_events=4))
    run.folder.close("complete")

    assert json.loads((path / "requests.jsonl").read_bytes())["request"] == 0
    assert run.view.seen == [("tick", "m@c1 7")]


async def test_a_folder_that_vanished_is_one_line(path: Path) -> None:
    def vanish() -> None:
        (path / "run.json").unlink()
        path.rmdir()

    with pytest.raises(StoreError, match=os.strerror(errno.ENOENT)):
        await run_of(path, Chats(at={2: vanish})).run()
