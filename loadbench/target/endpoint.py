"""Endpoints: from what a person pastes to the base URL that requests are built on."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from loadbench.admission import is_local_name
from loadbench.errors import UsageError

# Full URLs as documentation and logs show them; only the base is kept.
_OPERATIONS = ("chat/completions", "completions", "embeddings", "responses")
_VERSION = re.compile(r"v\d+")
_HOST = re.compile(r"[\w.-]+")
FOUNDRY_CATALOG = "/catalogs/local"
"""Where Foundry Local 2.x serves registered models."""
_EXAMPLE = "write it as http://HOST:PORT/v1"


def normalise(endpoint: str) -> str:
    """The base URL of an endpoint: scheme, host, prefix and API version, without a trailing slash.

    Args:
        endpoint: With or without scheme (http is assumed), prefix, ``/v1``, or a pasted ``/chat/completions``.
    Raises:
        UsageError: It is no http(s) URL, or holds a query or a password, neither of which the message repeats.

    >>> normalise("localhost:8080")
    'http://localhost:8080/v1'
    >>> normalise("https://gw.example/openai/v1/chat/completions/")
    'https://gw.example/openai/v1'
    >>> normalise("::1")
    'http://[::1]/v1'
    """
    text = endpoint.strip()
    # Before all else, and shown in no part: a password may hold any sign that a URL is cut at.
    if "@" in text:
        raise UsageError(
            "the endpoint carries a user name or password before its '@': leave it out, put the key into a variable "
            "and name that with --api-key-env NAME"
        )
    if "?" in text:
        raise UsageError(
            f"endpoint {_shown(text.partition('?')[0])} carries a query ('?...'), which requests would lose: "
            "leave it out (a key goes into --api-key-env NAME, anything else into --header)"
        )
    scheme, rest = _scheme(text)
    netloc, _, path = rest.partition("#")[0].replace("\\", "/").partition("/")
    return f"{scheme}://{_authority(netloc, text)}{_base_path(path, text)}"


def distinct(endpoints: Sequence[str]) -> list[str]:
    """Several endpoints of one service, each by its base URL.

    Raises:
        UsageError: One is no URL, or two are the same.
    """
    urls = [normalise(one) for one in endpoints]
    for index, url in enumerate(urls):
        if url in urls[:index]:
            raise UsageError(
                f"endpoint {_shown(endpoints[index])} is {url} again: name each once, and have one get more of "
                "the requests by --weights"
            )
    return urls


def server_root(base_url: str) -> str:
    """Where a server's own routes live: the base URL without API version and Foundry's catalog prefix.

    >>> server_root("http://127.0.0.1:5273/catalogs/local/v1")
    'http://127.0.0.1:5273'
    """
    return base_url.rpartition("/")[0].removesuffix(FOUNDRY_CATALOG).removesuffix("/openai")


def is_loopback(url: str) -> bool:
    """Whether the server is on this machine."""
    return is_local_name(urlsplit(url).netloc)


def _scheme(text: str) -> tuple[str, str]:
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/", text)
    if found is None:
        return "http", text.removeprefix("//")
    scheme = found[1].lower()
    if scheme not in ("http", "https"):
        raise UsageError(f"endpoint {_shown(text)}: {scheme}:// is not spoken here, only http and https: {_EXAMPLE}")
    return scheme, text[len(scheme) + 1 :].lstrip("/")


def _authority(netloc: str, text: str) -> str:
    try:
        # A bare IPv6 address, whose colons would read as a port.
        return f"[{_reachable(ipaddress.IPv6Address(netloc))}]"
    except ValueError:
        pass
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(\d+))?", netloc)
    host, port = (
        (bracketed[1], bracketed[2]) if bracketed else netloc.rsplit(":", 1) if ":" in netloc else (netloc, None)
    )
    if not host and port and port.isdecimal():
        raise UsageError(f"endpoint {_shown(text)} has no host: did you mean http://127.0.0.1:{port}/v1?")
    if netloc.isdecimal():
        raise UsageError(f"endpoint {_shown(text)} is only a number: did you mean http://127.0.0.1:{netloc}/v1?")
    if port is not None and not (port.isdecimal() and port.isascii() and 0 < int(port) < 65536):
        raise UsageError(f"endpoint {_shown(text)}: port {_shown(port)} is not a number from 1 to 65535: {_EXAMPLE}")
    return _host(host, text, bracketed=bracketed is not None) + (f":{int(port)}" if port else "")


def _host(host: str, text: str, *, bracketed: bool) -> str:
    try:
        if bracketed:
            return f"[{_reachable(ipaddress.IPv6Address(host))}]"
        if host.replace(".", "").isdecimal():
            return str(_reachable(ipaddress.IPv4Address(host)))
    except ValueError:
        raise UsageError(f"endpoint {_shown(text)}: {_shown(host)} is not an IP address: {_EXAMPLE}") from None
    if not _HOST.fullmatch(host) or host.lower() in ("http", "https") or host.startswith((".", "-")) or ".." in host:
        raise UsageError(f"endpoint {_shown(text)} is not a URL: {_EXAMPLE}")
    return host.lower()


def _reachable(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    # Servers log the wildcard they listen on and people paste it; Windows cannot connect to it.
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "::1"
    return str(address)


def _base_path(path: str, text: str) -> str:
    if re.search(r"[^\x21-\x7e]", path):
        raise UsageError(f"endpoint {_shown(text)} holds a space or a sign that no URL has: {_EXAMPLE}")
    segments = [segment for segment in path.split("/") if segment]
    if ".." in segments or "." in segments:
        raise UsageError(f"endpoint {_shown(text)}: a path with dots is not followed: {_EXAMPLE}")
    for operation in _OPERATIONS:
        count = operation.count("/") + 1
        if "/".join(segments[-count:]) == operation:
            segments = segments[:-count]
            break
    if segments[-1:] == ["models"] and len(segments) > 1 and _VERSION.fullmatch(segments[-2]):
        segments.pop()
    # Some servers count on: OpenVINO's API is /v3.
    if not segments or not _VERSION.fullmatch(segments[-1]):
        segments.append("v1")
    return "/" + "/".join(segments)


def _shown(text: str) -> str:
    """Quoted, printable and of bounded length, so that a message stays one line."""
    return repr(text if len(text) <= 100 else text[:97] + "...")
