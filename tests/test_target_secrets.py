"""Keys starred out of what servers say."""

from __future__ import annotations

import json
import traceback
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.errors import TargetError
from loadbench.server import Secrets, find, open_http
from loadbench.server.calls import call
from tests.support.scripted import Answer, scripted

KEY = "sk-4711/very+secret=0123"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    "said",
    {
        "as it is": KEY,
        "with its scheme": f"Bearer {KEY}",
        "in a URL": "https://host/?key=sk-4711%2Fvery%2Bsecret%3D0123",
        "in JSON of PHP": "sk-4711\\/very+secret=0123",
    }.items(),
    ids=lambda case: case[0],
)
def test_a_key_is_starred_out_however_it_is_written(said: tuple[str, str]) -> None:
    secrets = Secrets.of({"Authorization": f"Bearer {KEY}"})

    assert "very" not in secrets.hidden(f"no: {said[1]}!")


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("X-Api-Key", KEY, KEY),
        ("api-key", KEY, KEY),
        ("Cookie", f"theme=dark; session={KEY}", KEY),
        ("Authorization", "Basic bWU6aHVudGVyMg==", "hunter2"),  # me:hunter2
        ("X-Auth-Token", KEY, KEY),
    ],
)
def test_a_header_that_may_hold_a_secret_has_it_starred_out(name: str, value: str, secret: str) -> None:
    assert Secrets.of({name: value}).hidden(f"you sent {secret}") == "you sent ***"


@pytest.mark.parametrize("value", ["Bearer ollama", "Bearer EMPTY", "Bearer lm-studio"])
def test_a_placeholder_that_stands_for_no_key_leaves_names_alone(value: str) -> None:
    said = "ollama and lm-studio answer EMPTY"

    assert Secrets.of({"Authorization": value}).hidden(said) == said


@given(st.text(alphabet="sk-47 a", max_size=40), st.lists(st.integers(0, 40), max_size=8))
def test_what_is_shown_as_it_comes_only_grows_and_never_shows_a_part_of_a_key(text: str, cuts: list[int]) -> None:
    secrets = Secrets(("sk-47",))

    shown = [secrets.settled(text[:cut]) for cut in sorted(cuts)] + [secrets.hidden(text)]

    assert all(after.startswith(before) for before, after in pairwise(shown))


@pytest.mark.anyio
async def test_whatever_a_server_answers_to_a_control_call_has_lost_our_key() -> None:
    echo = {"data": [{"id": KEY, KEY: [KEY]}]}
    with_key = Answer(echo, headers={"Server": f"gw/{KEY}", "Location": f"http://other/{KEY}"})
    page = Answer(f"<p>{KEY}</p>".encode())
    async with (
        scripted({"/v1/models": with_key, "/page": page}) as server,
        open_http(server.url, key=KEY) as http,
    ):
        found = await call(http, "GET", server.url + "/v1/models", within_s=5)
        text = await call(http, "GET", server.url + "/page", within_s=5)

    assert json.loads(found.content) == {"data": [{"id": "***", "***": ["***"]}]}
    assert (found.headers["server"], found.headers["location"]) == ("gw/***", "http://other/***")
    assert text.text == "<p>***</p>"


@pytest.mark.anyio
async def test_no_traceback_of_a_broken_answer_shows_the_key() -> None:
    async def broken(request: httpx.Request) -> httpx.Response:
        try:
            raise OSError(f"illegal line {KEY}")
        except OSError as cause:
            raise httpx.RemoteProtocolError(f"illegal header {KEY}") from cause

    async with open_http("http://h", key=KEY, transport=httpx.MockTransport(broken)) as http:
        with pytest.raises(TargetError) as caught:
            await find("http://h", http=http)

    assert "illegal header ***" in str(caught.value)
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_plain_data_of_any_kind_is_gone_through() -> None:
    document: Any = [None, 1, True, {"a": [f"x {KEY}"]}]

    assert Secrets.of({"Authorization": KEY}).hidden_in(document) == [None, 1, True, {"a": ["x ***"]}]
