"""What people paste as an endpoint, and the base URL it stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.errors import UsageError
from loadbench.server import is_loopback, normalise, server_root
from loadbench.server.endpoint import route

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
    # Chat routes that no version stands before stay whole, wherever they are.
    "http://h:1/chat/completions": "http://h:1/chat/completions",
    "h/inference/chat/completions/": "http://h/inference/chat/completions",
    "https://h/v1beta/openai/chat/completions": "https://h/v1beta/openai/chat/completions",
    "https://h/serving-endpoints/a/invocations": "https://h/serving-endpoints/a/invocations",
    "https://h/v1/text/chatcompletion_v2": "https://h/v1/text/chatcompletion_v2",
    "https://h/v1beta/openai/": "https://h/v1beta/openai",  # Google's base URL
    "https://h/v1beta/openai/models": "https://h/v1beta/openai",
    "https://h/v1?api-version=preview": "https://h/v1?api-version=preview",
    "https://h/openai/?api-version=1#top": "https://h/openai/v1?api-version=1",
    "https://h/v1/chat/completions?": "https://h/v1",
    "https://h/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21": (
        "https://h/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21"
    ),
    "https://h/v1/chat/completions?a=b/&c": "https://h/v1?a=b%2F&c",
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


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("/:[]@?%=&.v1"), max_size=40))
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


@pytest.mark.parametrize(
    "query",
    [
        *("api-key=sk-secret", "key=sk-secret", "sk-secret", "subscription-key=sk-secret", "code=sk-secret"),
        *("a=b&sig=sk-secret", "api%2Dkey=sk-secret", "version=AIzask-secret", "x=eyJhbGciOi.sk-secret"),
    ],
)
def test_a_query_with_a_key_in_it_is_refused_without_repeating_it(query: str) -> None:
    with pytest.raises(UsageError, match=r"carries a query.*--api-key-env NAME") as caught:
        normalise(f"https://h/v1/chat/completions?{query}")

    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "pasted",
    [
        *("https://user:sk-secret@h/v1", "sk-secret@h:1", "http://a:/?sk-secret@h?x"),
        *(
            "https://user:sk-secret%40h/v1",
            "https://user:sk-secret%2540h/v1",
            "user:sk-secret\uff20h",
            "user:sk-secret\ufe6bh",
        ),
        "https://user:sk-secret%EF%BC%A0h/v1",
    ],
)
def test_user_and_password_are_refused_without_repeating_them(pasted: str) -> None:
    with pytest.raises(UsageError, match="--api-key-env NAME") as caught:
        normalise(pasted)

    assert "sk-secret" not in str(caught.value)


def test_a_password_whose_host_is_missing_is_not_shown_as_a_port() -> None:
    with pytest.raises(UsageError, match="no port number") as caught:
        normalise("https://user:sk-secret")

    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("pasted", "speaks"),
    [
        ("https://h/inference/completions", "text completions"),
        ("https://h/v1/responses", "OpenAI's Responses API"),
        ("https://h/openai/v1/responses?api-version=preview", "OpenAI's Responses API"),
        ("https://h/v1/embeddings", "embeddings"),
        ("https://h/v1/messages", "Anthropic's Messages API"),
        ("http://localhost:11434/api/chat", "Ollama's own API"),
        ("http://localhost:11434/api/generate", "Ollama's own API"),
    ],
)
def test_a_route_that_is_not_for_chat_is_refused_by_its_name(pasted: str, speaks: str) -> None:
    with pytest.raises(UsageError, match=r"^endpoint .* is a route for .*base URL") as caught:
        normalise(pasted)

    assert speaks in str(caught.value)


@pytest.mark.parametrize(
    ("base_url", "chat", "models"),
    [
        ("http://h:1/v1", "http://h:1/v1/chat/completions", "http://h:1/v1/models"),
        ("https://h/v1?a=1", "https://h/v1/chat/completions?a=1", "https://h/v1/models?a=1"),
        ("https://h/a/chat/completions?a=1", "https://h/a/chat/completions?a=1", "https://h/a/models?a=1"),
    ],
)
def test_routes_lie_below_the_base_url_and_before_its_query(base_url: str, chat: str, models: str) -> None:
    assert (route(base_url), route(base_url, "models")) == (chat, models)


@pytest.mark.parametrize(
    ("base_url", "root"),
    [
        ("https://h/v1?a=b", "https://h"),
        ("https://h/a/chat/completions?a=1", "https://h/a"),
        ("https://h/v1beta/openai", "https://h/v1beta"),
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
