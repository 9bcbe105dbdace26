"""What people paste as an endpoint, and the base URL it stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.errors import UsageError
from loadbench.target import is_loopback, normalise, server_root

PASTED = {
    "http://127.0.0.1:8080": "http://127.0.0.1:8080/v1",
    "http://127.0.0.1:8080/": "http://127.0.0.1:8080/v1",
    "http://127.0.0.1:8080/v1": "http://127.0.0.1:8080/v1",
    "http://127.0.0.1:8080/v1///": "http://127.0.0.1:8080/v1",
    "  http://127.0.0.1:8080/v1\n": "http://127.0.0.1:8080/v1",  # from a file or a shell variable
    "localhost:8080": "http://localhost:8080/v1",
    "localhost:8080/v1": "http://localhost:8080/v1",  # urlsplit would read `localhost` as a scheme
    "box": "http://box/v1",
    "//box:1": "http://box:1/v1",
    "HTTPS://Box.Example:443": "https://box.example:443/v1",
    "[::1]:8080": "http://[::1]:8080/v1",
    "::1": "http://[::1]/v1",
    "https://[2001:DB8::1]/v1": "https://[2001:db8::1]/v1",
    "http://0.0.0.0:8000": "http://127.0.0.1:8000/v1",  # what servers log; Windows cannot connect to it
    "http://[::]:8000/v1": "http://[::1]:8000/v1",
    "http://h:1/catalogs/local/v1": "http://h:1/catalogs/local/v1",  # Foundry Local 2.x, registered models
    "http://h:1/catalogs/local": "http://h:1/catalogs/local/v1",
    "https://api.example/openai/v1": "https://api.example/openai/v1",
    "https://api.example/openai": "https://api.example/openai/v1",
    "http://h:1/v1/chat/completions": "http://h:1/v1",
    "http://h:1/v1/chat/completions/": "http://h:1/v1",
    "http://h:1/openai/v1/completions": "http://h:1/openai/v1",
    "http://h:1/v1/models": "http://h:1/v1",
    "http://h:1/models": "http://h:1/models/v1",  # a prefix, as nothing says otherwise
    "http://h:1//v1": "http://h:1/v1",
    "http://h:1/v3": "http://h:1/v3",  # OpenVINO model server
    "http://h:1/v3/chat/completions": "http://h:1/v3",
    "http://h:1/v1#models": "http://h:1/v1",
    "http:/h:1/v1": "http://h:1/v1",
    "http://a_b:1": "http://a_b:1/v1",  # container names
}

RUBBISH = {
    "": "not a URL",
    "/": "not a URL",
    "http://": "not a URL",
    "https//host": "not a URL",
    "http://http://host": "port ''",
    "two words": "not a URL",
    "ho\nst": "not a URL",
    "a..b": "not a URL",
    "ftp://host": "only http and https",
    "ws://host/v1": "only http and https",
    "8080": "http://127.0.0.1:8080/v1?",
    ":8080": "http://127.0.0.1:8080/v1?",
    "host:": "port ''",
    "host:0": "port '0'",
    "host:65536": "port '65536'",
    "host:80a": "port '80a'",
    "host:٨٠": "port '٨٠'",
    "http://[::1": "not a URL",
    "http://[::zz]:1": "not an IP address",
    "http://300.1.1.1:1": "not an IP address",
    "host/a b": "no URL has",
    "host/../v1": "dots",
}


@pytest.mark.parametrize("pasted", PASTED)
def test_an_endpoint_becomes_its_base_url(pasted: str) -> None:
    assert normalise(pasted) == PASTED[pasted]


@pytest.mark.parametrize("pasted", PASTED)
def test_a_base_url_stays_as_it_is(pasted: str) -> None:
    once = normalise(pasted)

    assert normalise(once) == once


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("/:[]@?.v1"), max_size=40))
def test_any_text_becomes_a_stable_base_url_or_a_usage_error_of_one_line(text: str) -> None:
    try:
        outcome = normalise(text)
    except UsageError as error:
        outcome = str(error)
    else:
        assert normalise(outcome) == outcome

    assert len(outcome.splitlines()) == 1
    assert not outcome.endswith("/")


@pytest.mark.parametrize("pasted", RUBBISH)
def test_rubbish_is_a_usage_error_that_says_what_is_wrong(pasted: str) -> None:
    with pytest.raises(UsageError, match=r"^endpoint ") as caught:
        normalise(pasted)

    assert RUBBISH[pasted] in str(caught.value)


def test_a_query_is_refused_without_repeating_it() -> None:
    with pytest.raises(UsageError, match=r"carries a query.*--api-key-env NAME") as caught:
        normalise("https://h/v1/chat/completions?api-key=sk-secret")

    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("pasted", ["https://user:sk-secret@h/v1", "sk-secret@h:1", "http://a:/?sk-secret@h?x"])
def test_user_and_password_are_refused_without_repeating_them(pasted: str) -> None:
    with pytest.raises(UsageError, match="--api-key-env NAME") as caught:
        normalise(pasted)

    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("base_url", "root"),
    [
        ("http://h:1/v1", "http://h:1"),
        ("http://h:1/catalogs/local/v1", "http://h:1"),
        ("http://h:1/openai/v1", "http://h:1"),
        ("http://h:1/llama/v1", "http://h:1/llama"),  # behind a reverse proxy
    ],
)
def test_the_root_of_a_server_lies_before_its_api(base_url: str, root: str) -> None:
    assert server_root(base_url) == root


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://localhost:1/v1", True),
        ("http://127.0.0.2/v1", True),
        ("http://[::1]:1/v1", True),
        ("http://box/v1", False),
        ("http://10.0.0.1/v1", False),
        ("http://localhost.example/v1", False),
    ],
)
def test_loopback_is_told_from_the_rest(url: str, here: bool) -> None:
    assert is_loopback(url) is here
