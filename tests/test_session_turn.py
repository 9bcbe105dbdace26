"""A model's turn: loaded where that is for the run to do, asked cold, warm and after a pause, unloaded again."""

from __future__ import annotations

import pytest

from loadbench.runner.turn import PROBE_TOKENS, SETTLE_S, Origin
from loadbench.scenario.bounds import Duration
from loadbench.server import ModelFacts
from tests.support.turns import Answers, Loads, Story, turn_of

COLD = ModelFacts("m-cpu:1", aliases=("m",), loaded=False, device="CPU")
WARM = ModelFacts("m-cpu:1", aliases=("m",), loaded=True, device="CPU")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # samples are taken in a thread


@pytest.fixture
def story() -> Story:
    return Story()


# -- loading


@pytest.mark.anyio
async def test_a_model_that_is_not_loaded_is_loaded_asked_and_unloaded(story: Story) -> None:
    turn = turn_of(story, COLD, control=Loads(story))
    await turn.begin()
    await turn.end()

    assert story.told == [
        *("sample before_load", "load", "sample after_load"),
        *("ask", "ask"),
        *("unload", "sample after_unload"),
    ]


@pytest.mark.anyio
async def test_memory_is_taken_before_the_load_after_it_and_after_the_unload(story: Story) -> None:
    turn = turn_of(story, COLD, control=Loads(story))
    await turn.begin()
    await turn.end()

    moments = ("before_load", "after_load", "after_unload")
    assert [turn.record[f"memory_{moment}_bytes"] for moment in moments] == [100, 900, 150]
    assert story.slept_s[-1] == SETTLE_S  # allocators give back a moment later


@pytest.mark.anyio
async def test_the_time_of_a_load_is_recorded_with_who_loaded(story: Story) -> None:
    turn = turn_of(story, COLD, control=Loads(story))
    await turn.begin()

    assert 0 <= turn.record["load_s"] < 5
    assert (turn.record["load_source"], turn.record["was_loaded"]) == ("loaded by this run", False)


@pytest.mark.anyio
async def test_a_model_that_is_loaded_already_stays_as_it_is(story: Story) -> None:
    turn = turn_of(story, WARM, control=Loads(story))
    await turn.begin()
    await turn.end()

    assert story.told == ["sample after_load", "ask", "ask"]
    assert (turn.record["load_s"], turn.record["load_source"], turn.record["was_loaded"]) == (None, None, True)


@pytest.mark.anyio
async def test_cold_unloads_and_loads_what_is_loaded_and_leaves_it_so(story: Story) -> None:
    turn = turn_of(story, WARM, control=Loads(story), cold=True)
    await turn.begin()
    await turn.end()

    assert story.told == ["unload", "sample before_load", "load", "sample after_load", "ask", "ask"]
    assert turn.probes[0]["cold"] is True


@pytest.mark.anyio
async def test_cold_says_so_where_the_server_offers_no_unloading(story: Story) -> None:
    turn = turn_of(story, WARM, cold=True)
    await turn.begin()

    assert story.notes == ["m-cpu:1: --cold has no effect, this server offers no unloading"]
    assert turn.probes[0]["cold"] is False


@pytest.mark.anyio
async def test_a_load_that_fails_fails_the_model_and_asks_nothing(story: Story) -> None:
    turn = turn_of(story, COLD, control=Loads(story, refuses="m: not enough memory"))
    error = await turn.begin()
    await turn.end()

    assert error == turn.record["load_error"] == "m: not enough memory"
    assert story.told == ["sample before_load"]


@pytest.mark.anyio
async def test_a_server_that_this_run_started_loaded_the_model_as_it_started(story: Story) -> None:
    turn = turn_of(story, WARM, origin=Origin(load_s=0.7, disk_bytes=42, disk_source="files"))
    await turn.begin()

    assert (turn.record["load_s"], turn.record["load_source"]) == (0.7, "start of the server")
    assert (turn.record["disk_bytes"], turn.record["disk_source"], turn.record["was_loaded"]) == (42, "files", None)


# -- probes


@pytest.mark.anyio
async def test_each_request_before_the_measurement_is_short_and_has_a_prompt_of_its_own(story: Story) -> None:
    await turn_of(story, WARM).begin()

    assert [ask.prompt.max_tokens for ask in story.asks] == [PROBE_TOKENS, PROBE_TOKENS]
    assert len({str(ask.prompt.messages) for ask in story.asks}) == 2  # no prompt cache makes the second one fast
    assert all(ask.warmup for ask in story.asks)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("facts", "loads", "cold"),
    [
        (COLD, True, True),  # this run loaded it
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


@pytest.mark.anyio
async def test_a_first_request_that_fails_is_the_models_failure(story: Story) -> None:
    turn = turn_of(story, WARM, failures=["http_4xx"])
    error = await turn.begin()

    assert error is not None
    assert error.startswith("http_4xx")
    assert [probe["error"] for probe in turn.probes] == ["http_4xx"]


@pytest.mark.anyio
async def test_a_warm_request_that_fails_is_recorded_and_fails_nothing(story: Story) -> None:
    turn = turn_of(story, WARM, failures=[None, "reset"])

    assert await turn.begin() is None
    assert [probe["error"] for probe in turn.probes] == [None, "reset"]


@pytest.mark.anyio
async def test_whole_answers_have_no_first_token(story: Story) -> None:
    turn = turn_of(story, WARM, stream=False)
    await turn.begin()

    assert [probe["ttft_ms"] for probe in turn.probes] == [None, None]
    assert all(probe["e2e_ms"] > 0 for probe in turn.probes)


# -- idle gaps


@pytest.mark.anyio
async def test_after_an_idle_gap_one_more_request_is_timed(story: Story) -> None:
    turn = turn_of(story, WARM, idle_gap=Duration(60))
    await turn.begin()

    assert story.slept_s[-1] == pytest.approx(60, abs=1)
    assert [(probe["purpose"], probe["after_s"]) for probe in turn.probes][2:] == [("idle", 60.0)]


@pytest.mark.anyio
async def test_pings_keep_a_model_warm_in_a_second_gap(story: Story) -> None:
    turn = turn_of(story, WARM, idle_gap=Duration(0.09), keep_warm=Duration(0.04))
    begun = story.told
    await turn.begin()

    assert "ping" not in begun[: begun.index("ask") + 3]
    assert "ping" in begun
    last = turn.probes[-1]
    assert (last["purpose"], last["after_s"], last["every_s"]) == ("kept_warm", 0.09, 0.04)


@pytest.mark.anyio
async def test_a_user_who_ends_the_run_in_an_idle_gap_waits_no_longer(story: Story) -> None:
    turn = turn_of(story, WARM, idle_gap=Duration(60), keep_warm=Duration(20), interrupted_after=1)
    await turn.begin()

    assert [probe["purpose"] for probe in turn.probes] == ["first", "warm"]


# -- what really ran


@pytest.mark.anyio
async def test_what_the_server_says_it_runs_is_recorded_beside_what_was_asked(story: Story) -> None:
    runs = ModelFacts("m-cpu:1", device="CPU", execution_provider="CPUExecutionProvider")
    asked = ModelFacts("m-gpu:1", aliases=("m",), loaded=False, device="GPU")
    turn = turn_of(story, asked, control=Loads(story, runs=runs), served_as="m-cpu:1", device=["gpu"])
    await turn.begin()

    assert turn.record["ran"] == {"id": "m-cpu:1", "device": "CPU", "execution_provider": "CPUExecutionProvider"}
    assert (turn.record["model"], turn.record["asked_device"]) == ("m-gpu:1", "GPU")
    assert turn.record["served_as"] == "m-cpu:1"


@pytest.mark.anyio
async def test_a_server_that_does_not_tell_what_runs_is_taken_at_its_list(story: Story) -> None:
    turn = turn_of(story, WARM)
    await turn.begin()

    assert turn.record["ran"] == {"id": "m-cpu:1", "device": "CPU", "execution_provider": None}
    assert isinstance(turn.client, Answers)


@pytest.mark.anyio
async def test_each_endpoint_is_asked_once_before_it_is_measured() -> None:
    story = Story()
    turn = turn_of(story, None, endpoint=["http://a", "http://b", "http://c"])
    error = await turn.begin()

    assert error is None
    assert [(probe["purpose"], probe["endpoint"]) for probe in turn.probes] == [
        *(("first", 0), ("replica", 1), ("replica", 2), ("warm", 0)),
    ]
    assert [ask.endpoint for ask in story.asks] == [0, 1, 2, 0]


@pytest.mark.anyio
async def test_an_endpoint_that_does_not_answer_its_request_is_named() -> None:
    story = Story()
    error = await turn_of(story, None, endpoint=["http://a", "http://b"], failures=[None, *["reset"] * 3]).begin()

    assert error is not None
    assert error.startswith("http://b: reset: ")
