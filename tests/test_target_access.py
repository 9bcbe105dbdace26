"""What goes with every request: headers and the key, which no message may show."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from loadbench.errors import LoadbenchError, UsageError
from loadbench.server import is_proxied, open_http, proxy_of
from loadbench.server.access import read_key_file

KEY = "sk-very-secret-0123456789"


def test_a_key_that_no_header_can_carry_is_refused_unseen() -> None:
    with pytest.raises(UsageError, match="holds a line break") as caught:
        open_http("http://127.0.0.1:1", key=f"{KEY}\r\nX: y")

    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_key_file_that_ends_in_a_line_break_is_fine() -> None:
    http = open_http("http://127.0.0.1:1", key=f" {KEY}\r\n")

    assert http.headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(http.headers)


def test_a_header_of_ones_own_goes_before_the_key() -> None:
    http = open_http("http://127.0.0.1:1", key=KEY, headers={"authorization": "Basic eDp5"})

    assert http.headers["authorization"] == "Basic eDp5"


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
