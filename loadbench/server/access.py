"""What goes with every call to a server: the key, headers, TLS, proxies; and the client for control calls."""

from __future__ import annotations

import base64
import binascii
import html
import importlib.util
import json
import os
import re
import ssl
import stat
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx

from loadbench import __version__
from loadbench.errors import LoadbenchError, UsageError
from loadbench.scenario.files import read_bytes
from loadbench.server.endpoint import is_loopback, normalise, query
from loadbench.text import NAMES, STARS, looks_like_a_key
from loadbench.transport import tls_context

Http = httpx.AsyncClient
"""The client for control calls, from `open_http`."""
CONNECT_S = 5.0
LARGEST_KEY_BYTES = 64 * 1024
SHORTEST_SECRET = 6
"""Characters. What is shorter is guessed at once, and stands in many a word by chance."""
USER_AGENT = f"loadbench/{__version__}"
"""Who asks, as the log of a server shows it."""
_PLACEHOLDERS = ("ollama", "lm-studio")
"""What servers that want no key are given as one, by their own documentation: their models are called so too."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110's field names


def read_key(name: str | None, environ: Mapping[str, str]) -> str | None:
    """The key that an environment variable holds; None where no variable is named.

    Raises:
        UsageError: It is not set; what looks like the key itself is not repeated.
    """
    if name is None:
        return None
    key = environ.get(name, "").strip()
    if not key:
        option = "--api-key-env"
        if not looks_like_a_key(name):
            option += f" {name}"
        raise UsageError(f"{option}: that environment variable is not set; put the key in it")
    return key


def read_key_file(path: Path) -> str:
    """The key in a file: its text, without the line end behind it.

    Raises:
        UsageError: It cannot be read, or holds no key. No message shows what is in it, or a name that looks like one.
    """
    option = "--api-key-file"
    if not looks_like_a_key(path.name):
        option += f" {path}"
    try:
        key = read_bytes(path, LARGEST_KEY_BYTES, pipes=True).decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise UsageError(f"{option}: holds no text: give a file with the key alone in it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise UsageError(f"{option}: cannot be read: {why}") from None
    if not key:
        raise UsageError(f"{option}: is empty: put the key in it")
    if len(key.splitlines()) > 1:
        raise UsageError(f"{option}: has several lines: give a file with the key alone in it")
    return key


def key_file_warning(path: Path) -> str | None:
    """A line where others than its owner may read a key's file; None on Windows, whose rights are not looked at."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if os.name == "nt" or not mode & (stat.S_IRWXG | stat.S_IRWXO):
        return None
    return f"Warning: --api-key-file {path}: others on this machine may read it: chmod 600 {path}"


def request_headers(headers: Mapping[str, str] | None, key: str | None) -> dict[str, str]:
    """The headers that go with every request; a header of one's own wins over the key's.

    Raises:
        UsageError: A name or value no header may have. Values can be secrets: no message repeats one.
    """
    sent: dict[str, str] = {}
    for name, value in (headers or {}).items():
        if not _TOKEN.fullmatch(name):
            # Not shown either: a key pasted without its header's name stands in its place.
            raise UsageError("a header's name is not valid: letters, digits and dashes only, as 'X-Team: blue'")
        if not _printable(value):
            raise UsageError(f"the value of header {name} holds a line break or a sign outside ASCII: mend it")
        sent[name] = value.strip()
    key = (key or "").strip()
    if not _printable(key):
        raise UsageError("the API key holds a line break or a sign outside ASCII: mend the variable it comes from")
    if key and "authorization" not in map(str.lower, sent):
        sent["Authorization"] = f"Bearer {key}"
    return sent


def open_http(
    endpoint: str,
    *,
    verify: bool = True,
    ca_file: str | None = None,
    headers: Mapping[str, str] | None = None,
    key: str | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> httpx.AsyncClient:
    """A client for control calls to one endpoint; the caller closes it, and with it the transport where one is given.

    A transport that is there already (its TLS is its own) saves import and set-up of the stock one, up to 0.17 s.
    Redirects are refused, as a benchmark must know whom it measures. The environment's proxies serve hosts other than
    this one. On plain http nothing is verified and no TLS context is made: that costs 20 ms (200 with stock httpx).
    """
    base_url = normalise(endpoint)
    tls: ssl.SSLContext | bool = False
    if base_url.startswith("https:"):
        tls = tls_context(ca_file=ca_file, insecure=not verify)
    proxy = proxy_of(base_url) if transport is None else None
    return httpx.AsyncClient(
        headers={"User-Agent": USER_AGENT, **request_headers(headers, key)},
        params=query(base_url),
        verify=tls,
        proxy=proxy,
        trust_env=False,  # one reading of the environment, for measured requests too
        transport=transport,
        follow_redirects=False,
        timeout=httpx.Timeout(20.0, connect=CONNECT_S),
    )


def is_proxied(base_url: str) -> bool:
    """Whether the environment sends requests to this server through a proxy."""
    return _proxy(base_url) is not None


def proxy_of(base_url: str) -> str | None:
    """The proxy through which the environment sends requests to this server; None where it sends them straight.

    Raises:
        UsageError: It is no URL of a proxy; the message names the variable and repeats no value, as passwords stand
            in some.
        LoadbenchError: It speaks SOCKS, and the package for that is not here.
    """
    setting = _proxy(base_url)
    if setting is None:
        return None
    variable, url = setting
    if "://" not in url:
        url = f"http://{url}"  # as curl and httpx read it
    scheme = url.partition("://")[0].lower()
    try:
        parts = urlsplit(url)
        host = httpx.URL(url).host if parts.hostname else ""
        is_usable = host not in ("", "http", "https") and parts.port != 0
    except (ValueError, httpx.InvalidURL):
        is_usable = False
    if not is_usable or scheme not in ("http", "https", "socks5", "socks5h"):
        raise UsageError(
            f"{variable} holds no proxy that can be used: write it as http://HOST:PORT (https and socks5 too), "
            "or put the host into NO_PROXY"
        )
    if scheme.startswith("socks5") and importlib.util.find_spec("socksio") is None:
        raise LoadbenchError(
            f"{variable} names a SOCKS proxy, which needs a package that is not here: pip install 'httpx[socks]', "
            "or put the host into NO_PROXY"
        )
    return url


def _proxy(base_url: str) -> tuple[str, str] | None:
    """The variable that names a proxy for this server, and its value; None where none is for it."""
    if is_loopback(base_url):
        return None
    parts = urlsplit(base_url)
    proxies = urllib.request.getproxies()
    scheme = parts.scheme
    if not proxies.get(scheme):
        scheme = "all"
    value = proxies.get(scheme)
    if not value or urllib.request.proxy_bypass(parts.netloc):
        return None
    # As `getproxies` reads them: in any case, in small letters first.
    names = sorted((name for name in os.environ if name.lower() == f"{scheme}_proxy"), reverse=True)
    variable = next((name for name in names if os.environ[name] == value), "the system's setting")
    return variable, value


def _printable(value: str) -> bool:
    return all(" " <= sign <= "~" or sign == "\t" for sign in value.strip())


# -- keys starred out of all that servers say: many repeat what they refuse


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must reach no record, and no screen.

    Attributes:
        words: Each in every form in which a server may write it; longest first.

    >>> secrets = Secrets.of({"Authorization": "Bearer sk-4711-abc", "X-Team": "blue-team"})
    >>> secrets.hidden("blue-team may not use sk-4711-abc")
    'blue-team may not use ***'
    """

    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Secrets:
        """Those among the headers of a request."""
        forms: set[str] = set()
        for name, value in headers.items():
            if not NAMES.search(name) and not looks_like_a_key(value):
                continue
            for word in _parts(value.strip()):
                if len(word) >= SHORTEST_SECRET and word not in _PLACEHOLDERS:
                    # As it is, and as URLs, JSON and HTML write it.
                    quoted = json.dumps(word)[1:-1]
                    forms |= {word, quote(word, safe=""), quoted, quoted.replace("/", "\\/"), html.escape(word)}
        return cls(tuple(sorted(forms, key=lambda word: (-len(word), word))))

    def hidden(self, text: str) -> str:
        """The text without them."""
        for word in self.words:
            if word in text:
                text = text.replace(word, STARS)
        return text

    def hidden_in(self, document: object) -> object:
        """Plain data without them, in its keys too."""
        if isinstance(document, str):
            return self.hidden(document)
        if isinstance(document, list):
            return [self.hidden_in(item) for item in document]
        if isinstance(document, dict):
            return {self.hidden_in(key): self.hidden_in(value) for key, value in document.items()}
        return document

    def settled(self, text: str) -> str:
        """The text without them, and without an end that may be the beginning of one: more of it is to come.

        >>> Secrets(("sk-4711",)).settled("the key is sk-4")
        'the key is '
        """
        text = self.hidden(text)
        begun = 0
        for word in self.words:
            lengths = range(min(len(word) - 1, len(text)), begun, -1)
            begun = next((length for length in lengths if text.endswith(word[:length])), begun)
        return text[: len(text) - begun]

    def hide(self, error: BaseException | None) -> None:
        """Take them out of an error's words, and of all that it came from, so that no traceback shows one."""
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            error.args = tuple(map(self.hidden_in, error.args))
            if isinstance(error, BaseExceptionGroup):
                for inner in error.exceptions:
                    self.hide(inner)
            error = error.__cause__ or error.__context__


def _parts(value: str) -> Iterator[str]:
    """A header's value, the key behind its scheme, a user's password, and the values of cookies."""
    yield value
    scheme, _, rest = value.partition(" ")
    yield rest.strip()
    if scheme.lower() == "basic":
        try:
            user = base64.b64decode(rest.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        yield user
        yield user.partition(":")[2]
    for cookie in value.split(";"):
        yield cookie.partition("=")[2].strip()
