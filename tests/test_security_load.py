"""A large load on somebody else's machine is asked about first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadbench import api, scenario
from loadbench.errors import UsageError
from loadbench.prompts import Prompt
from loadbench.runner import plan
from loadbench.scenario import Scenario
from tests.support.forks import Forks
from tests.support.replay import RECEIVE, Server, serve
from tests.support.terminals import on_terminal
from tests.support.wire import plain

pytestmark = pytest.mark.system

MODELS = plain("200 OK", b'{"data":[{"id":"m"}]}', b"Content-Type: application/json\r\n")
FAR = "http://far-away.example:1"


def most(prompts: tuple[Prompt, ...] = (), **fields: Any) -> tuple[int, float]:
    """The most that a scenario's plan asks for."""
    asked = scenario.merge(Scenario(), **fields)
    return plan.most(asked, plan.make(asked, ["m"], prompts=list(prompts)).levels, prompts)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"concurrency": [1, 1500, 4]}, (1500, 0)),  # levels come one after the other
        ({"request_rate": [1, 2000]}, (0, 2000)),
        ({"request_rate": [1], "max_streams": 3000}, (3000, 1)),
        ({"request_rate": [1]}, (0, 1)),  # so many streams are a default, not a wish
        ({"shape": "ramp 1..4000 over 2m"}, (0, 4000)),  # of a mean of 2,000
    ],
)
def test_the_most_of_all_levels_counts(fields: dict[str, Any], found: tuple[int, float]) -> None:
    assert most(**fields) == found


@pytest.mark.parametrize(
    ("url", "streams", "per_s", "refused"),
    [
        (FAR, 1000, 1000.0, False),
        (FAR, 1001, 0.0, True),
        (FAR, 0, 1000.5, True),
        ("http://192.168.0.7", 1001, 0.0, True),  # a private address is somebody's machine too
        ("http://10.0.0.7", 1001, 0.0, True),
        ("http://127.0.0.1.example", 1001, 0.0, True),
        ("http://127.0.0.1:80", 9999, 9999.0, False),
        ("http://localhost:80", 9999, 9999.0, False),
        ("http://[::1]:80", 9999, 9999.0, False),
        ("", 9999, 9999.0, False),  # not started yet, so it is here
    ],
)
def test_only_much_on_another_machine_wants_a_word(url: str, streams: int, per_s: float, refused: bool) -> None:
    if not refused:
        plan.confirm_load([url], streams, per_s, lambda question: None)
        return
    with pytest.raises(UsageError, match=r"if it is meant, add --yes"):
        plan.confirm_load([url], streams, per_s, lambda question: None)


def test_one_far_server_among_near_ones_is_enough() -> None:
    with pytest.raises(UsageError, match=r"2,000 streams at once on far-away\.example:"):
        plan.confirm_load(["http://localhost", FAR], 2000, 0.0, lambda question: None)


@contextlib.contextmanager
def proxied() -> Iterator[tuple[Server, str]]:
    """A proxy that stands for a server far away, which lists a model; and the address of another one, near."""
    with serve([RECEIVE, MODELS]) as proxy, serve([RECEIVE, MODELS]) as near:
        yield proxy, near.url


COMMANDS = {
    "run": ("run", "-c", "1,2000"),
    "run at a rate": ("run", "-r", "5000"),
    "capacity": ("capacity", "--slo", "failed<1%", "--max", "2000"),
    "capacity by rate": ("capacity", "--slo", "failed<1%", "--max", "2000", "--by", "rate"),
    "against": ("run", "-c", "2000", "--against", "{near}"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_where_nobody_can_be_asked_a_command_wants_yes_and_sends_nothing(
    loadbench: Forks, tmp_path: Path, command: str
) -> None:
    with proxied() as (proxy, near):
        words = [word.format(near=near) for word in COMMANDS[command]]
        variables = {"HTTP_PROXY": proxy.url, "NO_PROXY": ""}
        done = loadbench.run(*words, "-e", FAR, "-m", "m", "-o", tmp_path / "there", variables=variables)

    assert done.code == 2, done.err
    assert "on far-away.example: that is much for a server on another machine: if it is meant, add --yes" in done.err
    assert not any(request.startswith(b"POST") for request in proxy.requests)
    assert not (tmp_path / "there").exists()


def test_a_person_is_asked_and_may_say_no(tmp_path: Path) -> None:
    with proxied() as (proxy, _):
        code, seen = on_terminal(
            *("run", "-c", "2000", "-e", FAR, "-m", "m", "-o", tmp_path / "there"),
            typed="n\n",
            variables={"HTTP_PROXY": proxy.url, "NO_PROXY": ""},
        )

    assert "This asks for up to 2,000 streams at once on far-away.example; go on? [y/N]" in seen.replace("\n", " ")
    assert (code, (tmp_path / "there").exists()) == (2, False)


def test_python_wants_the_word_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxied() as (proxy, _):
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        with pytest.raises(UsageError, match="if it is meant, add --yes"):
            api.run(endpoint=FAR, models=["m"], concurrency=[2000], folder=tmp_path / "there")
