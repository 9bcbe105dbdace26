"""Why no answer came, told in one line."""

from __future__ import annotations

import html
import re
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx

from loadbench.errors import TargetError
from loadbench.server.access import is_proxied

_NO_HTTP = ("protocol", "reset", "truncated")
_PAGE = re.compile(r"<(?:!doctype|html|head|title|body)\b", re.IGNORECASE)
_TITLE = re.compile(r"<(title|h1)\b[^<>]{0,200}>([^<]{1,300})", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_PAGE_BEGINNING = 4096
"""Characters of a web page that are looked at: endless ones take no time."""


class NotReady(TargetError):
    """The endpoint may answer in a while: it starts, loads its model, or is not up yet.

    Attributes:
        problem: The message without the advice to wait, for one who waits already.
        listless: The server answers, and only its model list is not to be had.
    """

    def __init__(self, problem: str, advice: str | None = None, *, listless: bool = False) -> None:
        super().__init__(f"{problem}; {advice}" if advice else problem)
        self.problem, self.listless = problem, listless


def one_line(message: str) -> str:
    """At most 200 printable characters on one line."""
    text = " ".join("".join(sign if sign.isprintable() else " " for sign in message).split())
    return text if len(text) <= 200 else text[:197] + "..."


def without_markup(text: str) -> str:
    """What a web page says, in place of an API's answer; any other text as it is.

    >>> without_markup("<html><head><title>429 Too Many Requests</title></head><body><hr>nginx</body></html>")
    '429 Too Many Requests'
    """
    beginning = text[:_PAGE_BEGINNING]
    if not beginning.lstrip().startswith("<") or not _PAGE.search(beginning):
        return text
    title = _TITLE.search(beginning)
    return html.unescape(title[2] if title else _TAG.sub(" ", beginning)).strip()


def retry_after_s(headers: Iterable[tuple[str, str]], now_s: float | None = None) -> float | None:
    """How long a refusal asks to wait, in s; None where its headers do not say so.

    Args:
        now_s: Of the wall clock; None reads it where a date is given.

    >>> retry_after_s([("Retry-After", "2")]), retry_after_s([("retry-after-ms", "250"), ("retry-after", "1")])
    (2.0, 0.25)
    """
    told = {name.lower(): value.strip() for name, value in headers}
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(told.get(name, "")) * unit_s
        except ValueError:
            continue
        return seconds if 0 <= seconds < float("inf") else None
    try:
        until = parsedate_to_datetime(told.get("retry-after", ""))
    except (ValueError, TypeError):
        return None
    until = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
    return max(0.0, until.timestamp() - (time.time() if now_s is None else now_s))


def origin_of(url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def unreachable(url: str, error: httpx.TransportError) -> TargetError:
    """The error that says why a URL could not be asked; `NotReady` where waiting may help."""
    origin, causes = origin_of(url), list(_causes(error))
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
            "-e URL (`loadbench doctor` lists servers found here)",
            "--wait 60s waits for one that is starting",
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
