"""What goes with every request: headers, the key, which no message may show, and proxies."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.errors import LoadbenchError, TargetError, UsageError
from loadbench.server import Secrets, find, is_proxied, open_http, proxy_of
from loadbench.server.access import read_key_file
from loadbench.server.calls import call
from tests.support.scripted import Answer, scripted

# -- What goes with every request: headers and the key, which no message may show

KEY = "sk-very-secret-0123456789"


def test_a_key_is_a_header_and_is_never_shown() -> None:
    with pytest.raises(UsageError, match="holds a line break") as caught:
        open_http("http://127.0.0.1:1", key=f"{KEY}\r\nX: y")
    http = open_http("http://127.0.0.1:1", key=f" {KEY}\r\n")  # a file may end in a line break
    own = open_http("http://127.0.0.1:1", key=KEY, headers={"authorization": "Basic eDp5"})

    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert http.headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(http.headers)
    assert own.headers["authorization"] == "Basic eDp5"


@pytest.mark.skipif(os.name == "nt", reason="has no pipes with names")
def test_a_key_comes_from_a_pipe_that_a_shell_hands_over() -> None:
    reads, writes = os.pipe()
    os.write(writes, b"sk-1\n")
    os.close(writes)

    assert read_key_file(Path(f"/dev/fd/{reads}")) == "sk-1"
    os.close(reads)


@pytest.mark.skipif(os.name == "nt", reason="has no such files")
def test_a_key_file_that_has_no_end_or_no_writer_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadbench.scenario.files.WRITER_WAIT_S", 0.0)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_bytes(b"k" * 100_000)

    for path, why in (
        (Path("/dev/zero"), "a device, not a file"),
        (tmp_path / "pipe", "a pipe that nobody writes to"),
        (tmp_path / "long", "file too large"),
    ):
        with pytest.raises(UsageError, match=f"cannot be read: {why}"):
            read_key_file(path)


@pytest.mark.parametrize("headers", [{"a b": "x"}, {"": "x"}, {"X-Name": "a\nb"}, {"X-Name": "ä"}])
def test_a_header_that_http_cannot_carry_is_a_usage_error(headers: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="header"):
        open_http("http://127.0.0.1:1", headers=headers)


# -- proxies of the environment

PLACES = ("http", "https", "all", "no")


@pytest.fixture
def set_proxy(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Set one variable of a proxy, and no other."""
    for name in [f"{place}_proxy" for place in PLACES]:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch.setenv


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "All_Proxy"])
@pytest.mark.parametrize(
    "value",
    [
        *(
            "http//x",
            "http:/x",
            "http://",
            "http://x:99999",
            "http://x:0",
            "http://x:port",
            "http://[::1",
            ":8080",
            "://",
        ),
        *("socks4://x:1080", "socks://x", "ftp://x:21", "direct://", "htp://sesame:4711@x", "http://x\x01y:1"),
    ],
)
def test_what_is_no_proxy_is_one_line_that_names_the_variable(
    value: str, variable: str, set_proxy: Callable[[str, str], None]
) -> None:
    set_proxy(variable, value)
    with pytest.raises(UsageError, match=rf"^{variable} holds no proxy .* NO_PROXY$") as caught:
        open_http("http://model.test")

    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:1080", "socks5h://user:sesame@x:1", "SOCKS5://x:1"])
def test_a_socks_proxy_names_the_variable_and_the_package(
    value: str, set_proxy: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    set_proxy("ALL_PROXY", value)
    with pytest.raises(LoadbenchError, match=r"^ALL_PROXY names a SOCKS proxy.*httpx\[socks\].*NO_PROXY$") as caught:
        open_http("http://model.test")

    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "proxy"),
    [
        ("HTTP_PROXY", "proxy.test:3128", "http://proxy.test:3128"),
        ("http_proxy", "http://user:a%40b@proxy.test", "http://user:a%40b@proxy.test"),
        ("ALL_PROXY", "https://[::1]:3128/", "https://[::1]:3128/"),
        ("HTTPS_PROXY", "nonsense://", None),  # for another scheme than that of the server
        ("HTTP_PROXY", "", None),
    ],
)
def test_a_proxy_is_taken_as_it_is_written(
    variable: str, value: str, proxy: str | None, set_proxy: Callable[[str, str], None]
) -> None:
    set_proxy(variable, value)

    assert (proxy_of("http://model.test/v1"), is_proxied("http://model.test/v1")) == (proxy, proxy is not None)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://localhost", "http://model.test:8000", "http://a.model.test"]
)
def test_no_proxy_is_looked_at_where_none_is_for_the_server(url: str, set_proxy: Callable[[str, str], None]) -> None:
    set_proxy("ALL_PROXY", "socks5://x:1")
    set_proxy("NO_PROXY", "model.test")

    assert proxy_of(url) is None
    open_http(url)


def test_a_log_of_session_keys_that_cannot_be_written_is_told_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", "/no/such/folder/keys")
    with pytest.raises(UsageError, match=r"^SSLKEYLOGFILE: No such file or directory; give a file that can be written"):
        open_http("https://127.0.0.1:9")


# -- Keys starred out of what servers say

ECHOED = "sk-4711/very+secret=0123"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    "said",
    {
        "as it is": ECHOED,
        "with its scheme": f"Bearer {ECHOED}",
        "in a URL": "https://host/?key=sk-4711%2Fvery%2Bsecret%3D0123",
        "in JSON of PHP": "sk-4711\\/very+secret=0123",
    }.items(),
    ids=lambda case: case[0],
)
def test_a_key_is_starred_out_however_it_is_written(said: tuple[str, str]) -> None:
    secrets = Secrets.of({"Authorization": f"Bearer {ECHOED}"})

    assert "very" not in secrets.hidden(f"no: {said[1]}!")


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("X-Api-Key", ECHOED, ECHOED),
        ("api-key", ECHOED, ECHOED),
        ("Cookie", f"theme=dark; session={ECHOED}", ECHOED),
        ("Authorization", "Basic bWU6aHVudGVyMg==", "hunter2"),  # me:hunter2
        ("X-Auth-Token", ECHOED, ECHOED),
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
    echo = {"data": [{"id": ECHOED, ECHOED: [ECHOED]}]}
    with_key = Answer(echo, headers={"Server": f"gw/{ECHOED}", "Location": f"http://other/{ECHOED}"})
    page = Answer(f"<p>{ECHOED}</p>".encode())
    async with (
        scripted({"/v1/models": with_key, "/page": page}) as server,
        open_http(server.url, key=ECHOED) as http,
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
            raise OSError(f"illegal line {ECHOED}")
        except OSError as cause:
            raise httpx.RemoteProtocolError(f"illegal header {ECHOED}") from cause

    async with open_http("http://h", key=ECHOED, transport=httpx.MockTransport(broken)) as http:
        with pytest.raises(TargetError) as caught:
            await find("http://h", http=http)

    assert "illegal header ***" in str(caught.value)
    assert ECHOED not in "".join(traceback.format_exception(caught.value))


def test_plain_data_of_any_kind_is_gone_through() -> None:
    document: Any = [None, 1, True, {"a": [f"x {ECHOED}"]}]

    assert Secrets.of({"Authorization": ECHOED}).hidden_in(document) == [None, 1, True, {"a": ["x ***"]}]
