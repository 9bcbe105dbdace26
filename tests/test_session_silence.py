"""A server that says nothing: after ten seconds people are told what is waited for, and how long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from loadbench.client import Ask
from loadbench.runner.watch import Silence, waiting_for
from loadbench.scenario import Scenario, Timeouts
from loadbench.scenario.bounds import Duration
from loadbench.server import ModelFacts
from loadbench.store.record import Result
from tests.support.turns import Answers, Story, turn_of

FIRST = "no byte for 10 s: waiting for the first token, at most 5m from sending (timeouts.first_token)"


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def looks(*moments: tuple[float, int, int], in_flight: int = 4, begun: bool = False, **asked: Any) -> list[str | None]:
    """What is said at each moment: seconds, requests ended, tokens so far."""
    clock = Clock()
    silence = Silence(Scenario(**asked), clock)
    said = []
    for clock.now_s, ended, tokens in moments:
        said.append(silence.look(in_flight=in_flight, ended=ended, tokens=tokens, begun=begun))
    return said


def test_after_ten_seconds_of_silence_it_is_told_once_what_is_waited_for_and_until_when() -> None:
    said = looks((0, 0, 0), (5, 0, 0), (9.9, 0, 0), (10, 0, 0), (11, 0, 0), (60, 0, 0))

    assert [bool(one) for one in said] == [False, False, False, True, False, False]
    assert str(said[3]).startswith(FIRST)
    assert "--no-stream" in str(said[3])


@pytest.mark.parametrize("heard", [(8, 1, 0), (8, 0, 5)], ids=["an end", "tokens"])
def test_whatever_comes_breaks_the_silence(heard: tuple[float, int, int]) -> None:
    _, ended, tokens = heard
    said = looks((0, 0, 0), heard, (17, ended, tokens), (18, ended, tokens))

    assert [bool(one) for one in said] == [False, False, False, True]


def test_a_second_silence_is_told_again() -> None:
    assert [bool(one) for one in looks((0, 0, 0), (10, 0, 0), (12, 1, 9), (22, 1, 9))] == [False, True, False, True]


def test_nobody_waits_where_nothing_is_in_flight() -> None:
    assert looks((0, 0, 0), (30, 0, 0), in_flight=0) == [None, None]


def test_answers_that_have_begun_stand_still() -> None:
    said = looks((0, 0, 7), (10, 0, 7), begun=True)

    assert said[1] == "no token for 10 s: answers stand still, which each may for 2m (timeouts.idle)"


def test_a_run_of_whole_answers_waits_for_a_whole_one_and_is_not_told_to_do_so() -> None:
    said = waiting_for(Scenario(stream=False, timeouts=Timeouts(total=Duration(60))))

    assert said == "no byte for 10 s: waiting for a whole answer, at most 1m from sending (timeouts.total)"


class Late(Answers):
    """A client whose answers come once somebody was told that they are late."""

    async def chat(self, ask: Ask, origin_ns: int, done: Callable[[Result], None], *, keep: bool = True) -> None:
        while not self.story.notes:
            await anyio.lowlevel.checkpoint()
        await super().chat(ask, origin_ns, done, keep=keep)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def soon(seconds: float) -> None:
    assert seconds == 10


@pytest.mark.anyio
async def test_the_first_request_that_is_not_answered_is_told_too() -> None:
    story = Story()
    turn = turn_of(story, ModelFacts("m", loaded=True))
    turn.client, turn.pause = Late(story), soon
    error = await turn.begin()

    assert error is None
    assert story.notes[0].startswith(f"m: {FIRST}")


@pytest.mark.anyio
async def test_what_fails_in_a_probe_is_raised_as_it_is() -> None:
    class Breaks(Answers):
        async def chat(self, ask: Ask, origin_ns: int, done: Callable[[Result], None], *, keep: bool = True) -> None:
            raise ZeroDivisionError

    story = Story()
    turn = turn_of(story, ModelFacts("m", loaded=True))
    turn.client = Breaks(story)

    with pytest.raises(ZeroDivisionError):
        await turn.begin()
