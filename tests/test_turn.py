"""A model's turn: loaded where that is for the run to do, asked cold, warm and after a pause, unloaded again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio.lowlevel
import pytest

from loadbench.client import Ask
from loadbench.runner.turn import PROBE_TOKENS, SETTLE_S, Origin
from loadbench.scenario.bounds import Duration
from loadbench.server import ModelFacts
from loadbench.store.record import Result
from tests.support.turns import Answers, Loads, Story, turn_of

pytestmark = pytest.mark.anyio
COLD = ModelFacts("m-cpu:1", aliases=("m",), loaded=False, device="CPU")
WARM = ModelFacts("m-cpu:1", aliases=("m",), loaded=True, device="CPU")


@pytest.fixture
def story() -> Story:
    return Story()


# -- loading


LOADED = ("sample before_load", "load", "sample after_load")


@pytest.mark.parametrize(
    ("facts", "asked", "steps", "cold"),
    [
        (COLD, {}, (*LOADED, "ask", "ask", "unload", "sample after_unload"), True),
        (WARM, {}, ("sample after_load", "ask", "ask"), False),  # it stays as it is
        (WARM, {"cold": True}, ("unload", *LOADED, "ask", "ask"), True),
    ],
)
async def test_a_model_is_loaded_where_that_is_for_the_run_to_do_and_left_as_it_was(
    story: Story, facts: ModelFacts, asked: dict[str, Any], steps: tuple[str, ...], cold: bool
) -> None:
    turn = turn_of(story, facts, control=Loads(story), **asked)
    await turn.begin()
    await turn.end()

    assert tuple(story.told) == steps
    assert turn.probes[0]["cold"] is cold
    assert turn.record["was_loaded"] == facts.loaded
    assert turn.record["load_source"] == ("loaded by this run" if "load" in steps else None)
    assert (turn.record["load_s"] is not None) == ("load" in steps)


async def test_memory_is_taken_before_the_load_after_it_and_after_the_unload(story: Story) -> None:
    turn = turn_of(story, COLD, control=Loads(story))
    await turn.begin()
    await turn.end()

    moments = ("before_load", "after_load", "after_unload")
    assert [turn.record[f"memory_{moment}_bytes"] for moment in moments] == [100, 900, 150]
    assert story.slept_s[-1] == SETTLE_S  # allocators give back a moment later


async def test_cold_says_so_where_the_server_offers_no_unloading(story: Story) -> None:
    turn = turn_of(story, WARM, cold=True)
    await turn.begin()

    assert story.notes == ["m-cpu:1: --cold has no effect, this server offers no unloading"]
    assert turn.probes[0]["cold"] is False


async def test_a_load_that_fails_fails_the_model_and_asks_nothing(story: Story) -> None:
    turn = turn_of(story, COLD, control=Loads(story, refuses="m: not enough memory"))
    error = await turn.begin()
    await turn.end()

    assert error == turn.record["load_error"] == "m: not enough memory"
    assert story.told == ["sample before_load"]


async def test_a_server_that_this_run_started_loaded_the_model_as_it_started(story: Story) -> None:
    turn = turn_of(story, WARM, origin=Origin(load_s=0.7, disk_bytes=42, disk_source="files"))
    await turn.begin()

    assert (turn.record["load_s"], turn.record["load_source"]) == (0.7, "start of the server")
    assert (turn.record["disk_bytes"], turn.record["disk_source"], turn.record["was_loaded"]) == (42, "files", None)


# -- probes


async def test_each_request_before_the_measurement_is_short_and_has_a_prompt_of_its_own(story: Story) -> None:
    await turn_of(story, WARM).begin()

    assert [ask.prompt.max_tokens for ask in story.asks] == [PROBE_TOKENS, PROBE_TOKENS]
    assert len({str(ask.prompt.messages) for ask in story.asks}) == 2  # no prompt cache makes the second one fast
    assert all(ask.warmup for ask in story.asks)


@pytest.mark.parametrize(
    ("facts", "loads", "cold"),
    [
        (COLD, False, True),  # the first request made the server load it
        (WARM, True, False),
        (ModelFacts("m"), False, False),  # nobody told: no claim
        (None, False, False),
    ],
)
async def test_a_first_request_is_called_cold_where_that_is_known(
    story: Story, facts: ModelFacts | None, loads: bool, cold: bool
) -> None:
    turn = turn_of(story, facts, control=Loads(story) if loads else None)
    await turn.begin()

    assert [(probe["purpose"], probe["cold"]) for probe in turn.probes] == [("first", cold), ("warm", False)]


@pytest.mark.parametrize(
    ("failures", "error", "errors"),
    [
        (["http_4xx"], "http_4xx", ["http_4xx"]),
        ([None, "reset"], None, [None, "reset"]),  # a warm request fails nothing
    ],
)
async def test_a_first_request_that_fails_is_the_models_failure(
    story: Story, failures: list[str | None], error: str | None, errors: list[str | None]
) -> None:
    turn = turn_of(story, WARM, failures=failures)
    found = await turn.begin()

    assert (found or "").startswith(error or "")
    assert (found is None) == (error is None)
    assert [probe["error"] for probe in turn.probes] == errors


async def test_whole_answers_have_no_first_token(story: Story) -> None:
    turn = turn_of(story, WARM, stream=False)
    await turn.begin()

    assert [probe["ttft_ms"] for probe in turn.probes] == [None, None]
    assert all(probe["e2e_ms"] > 0 for probe in turn.probes)


async def test_each_endpoint_is_asked_once_before_it_is_measured(story: Story) -> None:
    turn = turn_of(story, None, endpoint=["http://a", "http://b", "http://c"])
    error = await turn.begin()

    purposes = [("first", 0), ("replica", 1), ("replica", 2), ("warm", 0)]
    assert error is None
    assert [(probe["purpose"], probe["endpoint"]) for probe in turn.probes] == purposes
    assert [ask.endpoint for ask in story.asks] == [0, 1, 2, 0]


async def test_an_endpoint_that_does_not_answer_its_request_is_named(story: Story) -> None:
    error = await turn_of(story, None, endpoint=["http://a", "http://b"], failures=[None, *["reset"] * 3]).begin()

    assert (error or "").startswith("http://b: reset: ")


async def test_the_first_request_that_is_not_answered_is_noted(story: Story) -> None:
    class Late(Answers):
        """A client whose answers come once a note said that they are late."""

        async def chat(self, ask: Ask, origin_ns: int, done: Callable[[Result], None], *, keep: bool = True) -> None:
            while not self.story.notes:
                await anyio.lowlevel.checkpoint()
            await super().chat(ask, origin_ns, done, keep=keep)

    async def soon(seconds: float) -> None:
        assert seconds == 10

    turn = turn_of(story, WARM)
    turn.client, turn.pause = Late(story), soon

    assert await turn.begin() is None
    assert story.notes[0].startswith("m-cpu:1: no byte for 10 s: waiting for the first token, at most 5m from sending")


async def test_what_fails_in_a_probe_is_raised_as_it_is(story: Story) -> None:
    class Breaks(Answers):
        async def chat(self, ask: Ask, origin_ns: int, done: Callable[[Result], None], *, keep: bool = True) -> None:
            raise ZeroDivisionError

    turn = turn_of(story, WARM)
    turn.client = Breaks(story)
    with pytest.raises(ZeroDivisionError):
        await turn.begin()


# -- idle gaps


async def test_after_an_idle_gap_one_more_request_is_timed(story: Story) -> None:
    turn = turn_of(story, WARM, idle_gap=Duration(60))
    await turn.begin()

    assert story.slept_s[-1] == pytest.approx(60, abs=1)
    assert [(probe["purpose"], probe["after_s"]) for probe in turn.probes][2:] == [("idle", 60.0)]


async def test_pings_keep_a_model_warm_in_a_second_gap(story: Story) -> None:
    turn = turn_of(story, WARM, idle_gap=Duration(0.09), keep_warm=Duration(0.04))
    begun = story.told
    await turn.begin()

    assert "ping" not in begun[: begun.index("ask") + 3]
    assert "ping" in begun
    last = turn.probes[-1]
    assert (last["purpose"], last["after_s"], last["every_s"]) == ("kept_warm", 0.09, 0.04)


async def test_a_user_who_ends_the_run_in_an_idle_gap_waits_no_longer(story: Story) -> None:
    turn = turn_of(story, WARM, idle_gap=Duration(60), keep_warm=Duration(20), interrupted_after=1)
    await turn.begin()

    assert [probe["purpose"] for probe in turn.probes] == ["first", "warm"]


# -- what really ran


async def test_what_the_server_says_it_runs_is_recorded_beside_what_was_asked(story: Story) -> None:
    runs = ModelFacts("m-cpu:1", device="CPU", execution_provider="CPUExecutionProvider")
    asked = ModelFacts("m-gpu:1", aliases=("m",), loaded=False, device="GPU")
    turn = turn_of(story, asked, control=Loads(story, runs=runs), served_as="m-cpu:1", device=["gpu"])
    await turn.begin()

    assert turn.record["ran"] == {"id": "m-cpu:1", "device": "CPU", "execution_provider": "CPUExecutionProvider"}
    assert (turn.record["model"], turn.record["asked_device"]) == ("m-gpu:1", "GPU")
    assert turn.record["served_as"] == "m-cpu:1"


async def test_a_server_that_does_not_tell_what_runs_is_taken_at_its_list(story: Story) -> None:
    turn = turn_of(story, WARM)
    await turn.begin()

    assert turn.record["ran"] == {"id": "m-cpu:1", "device": "CPU", "execution_provider": None}
