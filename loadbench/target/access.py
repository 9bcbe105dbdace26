"""Control calls: a stock httpx client, and its failures told in one line."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from loadbench.errors import TargetError, UsageError
from loadbench.target.endpoint import is_loopback, normalise

CONNECT_S = 5.0
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110's field names
_NO_HTTP = ("protocol", "reset", "truncated")
_SECRET_HEADERS = ("authorization", "api-key", "x-api-key", "proxy-authorization")


class NotReady(TargetError):
    """The endpoint may answer in a while: it starts, loads its model, or is not up yet."""


def read_key(name: str | None, environ: Mapping[str, str]) -> str | None:
    """The key that an environment variable holds; None where no variable is named.

    Raises:
        UsageError: If the variable is not set.
    """
    if name is None:
        return None
    key = environ.get(name, "").strip()
    if not key:
        raise UsageError(f"--api-key-env {name}: that environment variable is not set; put the key in it")
    return key


def request_headers(headers: Mapping[str, str] | None, key: str | None) -> dict[str, str]:
    """The headers that go with every request; a header of one's own wins over the key's.

    Raises:
        UsageError: A name or value no header may have. Values can be secrets: no message repeats one.
    """
    sent: dict[str, str] = {}
    for name, value in (headers or {}).items():
        if not _TOKEN.fullmatch(name):
            raise UsageError(f"header name {name[:60]!r} is not valid: letters, digits and dashes only")
        if not _printable(value):
            raise UsageError(f"the value of header {name} holds a line break or a sign outside ASCII: mend it")
        sent[name] = value.strip()
    key = (key or "").strip()
    if not _printable(key):
        raise UsageError("the API key holds a line break or a sign outside ASCII: mend the variable it comes from")
    if key and not any(name.lower() == "authorization" for name in sent):
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
    return httpx.AsyncClient(
        headers={"User-Agent": "loadbench", **request_headers(headers, key)},
        verify=_tls(verify, ca_file) if base_url.startswith("https:") else False,
        trust_env=not is_loopback(base_url),
        transport=transport,
        follow_redirects=False,
        timeout=httpx.Timeout(20.0, connect=CONNECT_S),
    )


def is_proxied(base_url: str) -> bool:
    """Whether the environment sends requests to this server through a proxy."""
    if is_loopback(base_url):
        return False
    parts = urlsplit(base_url)
    proxies = urllib.request.getproxies()
    if not (proxies.get(parts.scheme) or proxies.get("all")):
        return False
    return not urllib.request.proxy_bypass(parts.netloc)


async def get(http: httpx.AsyncClient, url: str, *, within_s: float) -> httpx.Response:
    """One GET, answered within the time.

    Raises:
        TargetError: No HTTP answer came; `NotReady` where it may come later.
    """
    connect_s = min(CONNECT_S, within_s)
    try:
        async with asyncio.timeout(within_s):
            return await http.get(url, timeout=httpx.Timeout(within_s, connect=connect_s))
    except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise NotReady(
            f"no connection to {_origin(url)} within {connect_s:g} s: is the host up and the port open? "
            "(--wait 60s waits for a server that is starting)"
        ) from error
    except (TimeoutError, httpx.TimeoutException) as error:
        raise NotReady(
            f"{url} took the connection but sent no answer within {within_s:g} s: is the server overloaded, or is "
            "this the port of something else?"
        ) from error
    except httpx.TransportError as error:
        raise _unreachable(url, error) from error
    except (httpx.InvalidURL, httpx.DecodingError, UnicodeError) as error:
        raise TargetError(f"{url}: {one_line(str(error))}: check the endpoint") from error


async def get_json(http: httpx.AsyncClient, url: str, *, within_s: float) -> Any:
    """The JSON that a 200 answers; None for anything else. For what is good to know and never needed."""
    try:
        response = await get(http, url, within_s=within_s)
    except TargetError:
        return None
    return parsed(response) if response.status_code == 200 else None


def parsed(response: httpx.Response) -> Any:
    """The body as JSON; None where it is none."""
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return None


def said(response: httpx.Response, http: httpx.AsyncClient) -> str:
    """What the server said in its body, one line and without our key, which servers like to echo; may be empty."""
    document = parsed(response)
    error = document.get("error", document) if isinstance(document, dict) else document
    message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    kind = response.headers.get("content-type", "")
    if not isinstance(message, str):
        message = "" if document is not None or "html" in kind else response.text
    return one_line(without_secrets(message, http))


def without_secrets(message: str, http: httpx.AsyncClient) -> str:
    """The text with every key that the client sends starred out."""
    for name in _SECRET_HEADERS:
        value = http.headers.get(name, "")
        for secret in (value, value.partition(" ")[2]):
            message = message.replace(secret, "***") if secret else message
    return message


def one_line(message: str) -> str:
    """At most 200 printable characters on one line."""
    text = " ".join("".join(sign if sign.isprintable() else " " for sign in message).split())
    return text if len(text) <= 200 else text[:197] + "..."


def _printable(value: str) -> bool:
    return all(" " <= sign <= "~" or sign == "\t" for sign in value.strip())


def _tls(verify: bool, ca_file: str | None) -> ssl.SSLContext | bool:
    if not verify:
        return False
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"--ca-file {ca_file!r} holds no certificates that can be read: {one_line(str(error))}"
        ) from error


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _unreachable(url: str, error: httpx.TransportError) -> TargetError:
    origin, causes = _origin(url), list(_causes(error))
    # Our own transport names the kind of failure, in METRICS.md's words; stock httpx leaves it to the chain of causes.
    kind = getattr(error, "kind", None)
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if tls is not None or kind == "tls":
        return _tls_error(origin, tls, one_line(str(error)))
    if isinstance(error, httpx.ProxyError):
        return TargetError(f"the proxy in front of {origin} refused: {one_line(str(error))}: see HTTP_PROXY, NO_PROXY")
    if kind == "dns" or any(isinstance(cause, socket.gaierror) for cause in causes):
        return NotReady(f"the host name of {origin} is not known: check its spelling, or your DNS")
    if isinstance(error, httpx.ConnectError) and is_proxied(url):
        return NotReady(
            f"no connection to the proxy in front of {origin}: {_refusal(error, causes)}: see HTTP_PROXY, or put the "
            "host into NO_PROXY"
        )
    if isinstance(error, httpx.ConnectError) or kind in ("connect", "timeout_connect"):
        return NotReady(
            f"nothing answers at {origin}: {_refusal(error, causes)}: start the server there, or give its address with "
            "-e URL (`loadbench doctor` lists servers found here; --wait 60s waits for one that is starting)"
        )
    if isinstance(error, httpx.ProtocolError | httpx.ReadError | httpx.WriteError) or kind in _NO_HTTP:
        other = "http" if url.startswith("https:") else "https"
        return NotReady(
            f"{origin} took the connection but does not speak HTTP ({one_line(str(error)) or 'connection reset'}): "
            f"is it the port of an OpenAI-compatible server? Perhaps it wants {other}://"
        )
    return TargetError(f"{origin}: {one_line(str(error)) or type(error).__name__}: check the endpoint, -e URL")


def _refusal(error: httpx.TransportError, causes: list[BaseException]) -> str:
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "connection refused"
    reasons = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    reason = one_line(reasons[-1] if reasons else str(error))
    # asyncio's words, with an address that is told already.
    return "no connection" if reason.startswith("Connect call failed") else reason


def _tls_error(origin: str, error: ssl.SSLError | None, said: str) -> TargetError:
    if isinstance(error, ssl.SSLCertVerificationError) or "certificate" in said.lower():
        why = one_line(error.verify_message) if isinstance(error, ssl.SSLCertVerificationError) else said
        return TargetError(
            f"the TLS certificate of {origin} is not trusted ({why}): "
            "name its issuer with --ca-file FILE, or skip the check with --insecure"
        )
    reason = (error.reason if error is not None else None) or said
    if any(sign in reason for sign in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")):
        return TargetError(f"{origin} does not speak TLS: write http:// instead of https://")
    return TargetError(
        f"TLS with {origin} failed ({one_line(reason)}): "
        "--ca-file FILE names its issuer, --insecure skips the check of the certificate"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and all it came from; stock httpx wraps refusals of several addresses into a group."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for member in error.exceptions:
                yield from _causes(member)
        error = error.__cause__ or error.__context__
