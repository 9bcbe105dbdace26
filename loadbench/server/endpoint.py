"""Endpoints: from what a person pastes to the base URL that requests are built on."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlsplit

from loadbench.errors import UsageError
from loadbench.machine import is_local_name
from loadbench.text import NAMES, looks_like_a_key, plain

CHAT = "chat/completions"
_CHATS = (CHAT, "text/chatcompletion_v2", "invocations")
"""Routes that chat: OpenAI's, MiniMax's, and those of Databricks and MLflow."""
_OTHERS = {
    "completions": "text completions",
    "responses": "OpenAI's Responses API",
    "embeddings": "embeddings",
    "v1/messages": "Anthropic's Messages API",
    "api/chat": "Ollama's own API",
    "api/generate": "Ollama's own API",
}
"""Routes that people paste as well, and what they speak: not what is measured."""
_VERSION = re.compile(r"v\d+(?:(?:alpha|beta|p)\d*)*")
_SECRET = re.compile(rf"{NAMES.pattern}|\b(?:code|sas|sign|user)\b", re.IGNORECASE)
_HOST = re.compile(r"[\w.-]+")
FOUNDRY_CATALOG = "/catalogs/local"
"""Where Foundry Local 2.x serves registered models."""
_LONGEST_PORT = 6  # characters: five, and one that is too many
_EXAMPLE = "write it as http://HOST:PORT/v1"


def normalise(endpoint: str) -> str:
    """The base URL of an endpoint: scheme, host, prefix and API version, without a trailing slash.

    A full chat route that no version stands before has no such base: it stays whole. A query stays too, behind either;
    `route` puts it behind every address.

    Args:
        endpoint: With or without scheme (http is assumed), prefix, ``/v1``, a pasted ``/chat/completions``, a query.
    Raises:
        UsageError: It is no http(s) URL, is a route for something else than chat, or holds a key or a password, neither
            of which the message repeats.

    >>> normalise("localhost:8080")
    'http://localhost:8080/v1'
    >>> normalise("https://gw.example/openai/v1/chat/completions/")
    'https://gw.example/openai/v1'
    >>> normalise("https://gw.example/inference/chat/completions?api-version=1")
    'https://gw.example/inference/chat/completions?api-version=1'
    >>> normalise("::1")
    'http://[::1]/v1'
    """
    text = endpoint.strip()
    # Before all else, and shown in no part: a password may hold any sign that a URL is cut at.
    if "@" in plain(text):
        raise UsageError(
            "the endpoint carries a user name or password before its '@': leave it out, put the key into a variable "
            "and name that with --api-key-env NAME"
        )
    address, _, query = text.partition("#")[0].partition("?")
    query = _checked_query(query, address)
    scheme, rest = "http", address.removeprefix("//")
    if match := re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/", address):
        scheme, rest = match[1].lower(), address[match.end() :].lstrip("/")
        if scheme not in ("http", "https"):
            raise UsageError(
                f"endpoint {_quoted(address)}: {scheme}:// is not spoken here, only http and https: {_EXAMPLE}"
            )
    netloc, _, path = rest.replace("\\", "/").partition("/")
    return f"{scheme}://{_authority(netloc, address)}{_base_path(path, address)}{query}"


def route(base_url: str, name: str = CHAT) -> str:
    """The address of one of the API's routes, with the endpoint's query; `CHAT`'s may have been pasted whole.

    >>> route("http://h:1/v1"), route("https://h/a/chat/completions?b=1", "models")
    ('http://h:1/v1/chat/completions', 'https://h/a/models?b=1')
    """
    address, mark, query = base_url.partition("?")
    if name != CHAT or _chat_of(address) is None:
        address = f"{api(base_url)}/{name}"
    return address + mark + query


def api(base_url: str) -> str:
    """What a server's routes lie below: the base URL without a chat route that was pasted, and without its query.

    >>> api("https://h/a/chat/completions?b=1")
    'https://h/a'
    """
    address = base_url.partition("?")[0]
    return address.removesuffix(f"/{_chat_of(address)}")


def query(base_url: str) -> dict[str, str]:
    """The query that goes with every request, by name."""
    return dict(parse_qsl(base_url.partition("?")[2], keep_blank_values=True))


def distinct(endpoints: Sequence[str]) -> list[str]:
    """Several endpoints of one service, each by its base URL.

    Raises:
        UsageError: One is no URL, or two are the same.
    """
    urls = [normalise(one) for one in endpoints]
    for index, url in enumerate(urls):
        if url in urls[:index]:
            raise UsageError(
                f"endpoint {_quoted(endpoints[index])} is {url} again: name each once, and have one get more of "
                "the requests by --weights"
            )
    return urls


def server_root(base_url: str) -> str:
    """Where a server's own routes live: the base URL without API version and Foundry's catalog prefix.

    >>> server_root("http://127.0.0.1:5273/catalogs/local/v1")
    'http://127.0.0.1:5273'
    """
    return prefix(base_url).removesuffix(FOUNDRY_CATALOG).removesuffix("/openai")


def prefix(base_url: str) -> str:
    """What stands before the API's version, if it has one.

    >>> prefix("http://127.0.0.1:5273/catalogs/local/v1"), prefix("https://h/a/chat/completions")
    ('http://127.0.0.1:5273/catalogs/local', 'https://h/a')
    """
    address = api(base_url)
    before, _, last = address.rpartition("/")
    if _VERSION.fullmatch(last):
        return before
    return address


def is_loopback(url: str) -> bool:
    """Whether the server is on this machine."""
    return is_local_name(urlsplit(url).netloc)


def _authority(netloc: str, text: str) -> str:
    with contextlib.suppress(ValueError):
        # A bare IPv6 address, whose colons would read as a port.
        return f"[{_reachable(ipaddress.IPv6Address(netloc))}]"
    host, colon, port = netloc.rpartition(":")
    if not colon or netloc.endswith("]"):
        host, colon, port = netloc, "", ""
    if not host and port.isdecimal():
        raise UsageError(f"endpoint {_quoted(text)} has no host: did you mean http://127.0.0.1:{port}/v1?")
    if netloc.isdecimal():
        raise UsageError(f"endpoint {_quoted(text)} is only a number: did you mean http://127.0.0.1:{netloc}/v1?")
    if len(port) > _LONGEST_PORT:  # not shown: it may be a password whose host is missing
        raise UsageError(f"the endpoint has no port number behind its ':': {_EXAMPLE}")
    if colon and not (port.isdecimal() and port.isascii() and 0 < int(port) < 65536):
        raise UsageError(f"endpoint {_quoted(text)}: port {_quoted(port)} is not a number from 1 to 65535: {_EXAMPLE}")
    authority = _host(host, text)
    if port:
        authority += f":{int(port)}"  # without leading zeros
    return authority


def _host(host: str, text: str) -> str:
    try:
        if host.startswith("[") and host.endswith("]"):
            return f"[{_reachable(ipaddress.IPv6Address(host[1:-1]))}]"
        if host.replace(".", "").isdecimal():
            return _reachable(ipaddress.IPv4Address(host))
    except ValueError:
        raise UsageError(f"endpoint {_quoted(text)}: {_quoted(host)} is not an IP address: {_EXAMPLE}") from None
    if not _HOST.fullmatch(host) or host.lower() in ("http", "https") or host.startswith((".", "-")) or ".." in host:
        raise UsageError(f"endpoint {_quoted(text)} is not a URL: {_EXAMPLE}")
    return host.lower()


def _reachable(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    # Servers log the wildcard they listen on and people paste it; Windows cannot connect to it.
    if not address.is_unspecified:
        return str(address)
    if address.version == 4:
        return "127.0.0.1"
    return "::1"


def _base_path(path: str, text: str) -> str:
    if re.search(r"[^\x21-\x7e]", path):
        raise UsageError(f"endpoint {_quoted(text)} holds a space or a sign that no URL has: {_EXAMPLE}")
    segments = list(filter(None, path.split("/")))
    if ".." in segments or "." in segments:
        raise UsageError(f"endpoint {_quoted(text)}: a path with dots is not followed: {_EXAMPLE}")
    whole = "/" + "/".join(segments)
    if chat := _chat_of(whole):
        before = segments[: -1 - chat.count("/")]
        if chat == CHAT and before and _VERSION.fullmatch(before[-1]):
            return "/" + "/".join(before)
        return whole
    for other, speaks in _OTHERS.items():
        if whole.endswith("/" + other):
            segments = segments[: -1 - other.count("/")]
            # Documentation of older servers shows it: the base is meant.
            if other != "completions" or not segments or not _VERSION.fullmatch(segments[-1]):
                raise UsageError(
                    f"endpoint {_quoted(text)} is a route for {speaks}, and chat completions are measured: give the "
                    "server's base URL, as http://HOST:PORT/v1, or its whole route .../chat/completions"
                )
            break
    if segments[-1:] == ["models"] and len(segments) > 1 and _has_version(segments[:-1]):
        segments.pop()
    # Some servers count on: OpenVINO's API is /v3.
    if not _has_version(segments):
        segments.append("v1")
    return "/" + "/".join(segments)


def _has_version(segments: Sequence[str]) -> bool:
    """Whether a path ends where routes begin: in a version, or as Google's, /v1beta/openai."""
    if segments[-1:] == ["openai"]:
        segments = segments[:-1]
    return bool(segments) and _VERSION.fullmatch(segments[-1]) is not None


def _chat_of(address: str) -> str | None:
    for chat in _CHATS:
        if address.endswith("/" + chat):
            return chat
    return None


def _checked_query(text: str, address: str) -> str:
    for pair in parse_qsl(text, keep_blank_values=True):
        if _SECRET.search(pair[0]) or any(map(looks_like_a_key, pair)):
            raise UsageError(
                f"endpoint {_quoted(address)} carries a query ('?...') that looks like a key, and results would show "
                "it: leave it out (a key goes into --api-key-env NAME, or into --header 'NAME: VALUE')"
            )
    if re.search(r"[^\x21-\x7e]", text):
        raise UsageError(f"endpoint {_quoted(address)} carries a query with a space or a sign that no URL has")
    if not text:
        return ""
    # A slash at the end would be taken for one of the path.
    return "?" + text.replace("/", "%2F").replace("\\", "%5C")


def _quoted(text: str) -> str:
    """Quoted, printable and of bounded length, so that a message stays one line."""
    if len(text) > 100:
        text = text[:97] + "..."
    return repr(text)
