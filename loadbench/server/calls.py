"""HTTP calls to a server's own routes, and why no answer came, in one line."""

from __future__ import annotations

import asyncio
import html
import math
import re
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import cast
from urllib.parse import urlsplit

import httpx
import orjson

from loadbench.errors import TargetError
from loadbench.scenario import Timeouts
from loadbench.scenario.bounds import Duration
from loadbench.scenario.files import DEEPEST, is_deep
from loadbench.server.access import CONNECT_S, Secrets, is_proxied
from loadbench.text import one_line

Json = Mapping[str, object]

MOST_BYTES = 64 << 20
"""Of an answer to a control call."""
MOST_JSON_BYTES = 8 << 20
"""Of JSON in one; the longest lists of models have 2 MB."""
MOST_LINE_BYTES = 1 << 20
"""Of one line of a streamed answer."""
PAUSES_S = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Before a call is made again that came too early, where the server does not say when it may come."""
_LINE_END = re.compile(rb"[\r\n]+")
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
        super().__init__("; ".join(filter(None, (problem, advice))))
        self.problem, self.listless = problem, listless


# -- calls


async def call(
    http: httpx.AsyncClient, method: str, url: str, *, within_s: float, document: Json | None = None, again: bool = True
) -> httpx.Response:
    """One request, with a JSON body where there is one, answered within the time; our keys are starred out of it.

    Where a server answers that it is asked too often (429), it is asked again when it may be, if that is in time;
    unless `again` is False.

    Raises:
        TargetError: No HTTP answer came; `NotReady` where it may come later.
    """
    now_s = asyncio.get_running_loop().time
    end_s = now_s() + within_s
    connect_s = min(CONNECT_S, within_s)
    # Our own transport reads its time-outs here; `timeout_at` ends the call.
    late_s = Duration(within_s + 1)
    timeouts = Timeouts(connect=Duration(connect_s), first_token=late_s, idle=late_s, total=late_s)
    for pause_s in (*PAUSES_S, math.inf):
        try:
            async with (
                asyncio.timeout_at(end_s),
                http.stream(
                    method,
                    url,
                    json=document,
                    timeout=httpx.Timeout(within_s, connect=connect_s),
                    extensions={"timeouts": timeouts},
                ) as streamed,
            ):
                response = await _whole(streamed)
        except (httpx.TransportError, TimeoutError, httpx.InvalidURL, httpx.DecodingError, UnicodeError) as error:
            Secrets.of(http.headers).hide(error)
            raise _failed(url, error, connect_s, within_s) from error
        wait_s = retry_after_s(response.headers.multi_items())
        if wait_s is None:
            wait_s = pause_s
        if not again or response.status_code != 429 or math.isinf(pause_s) or now_s() + wait_s >= end_s:
            break
        await asyncio.sleep(wait_s)
    # As it would be from a server that repeats no key, in its headers neither.
    secrets, headers, content = Secrets.of(http.headers), response.headers.multi_items(), response.content
    clean_headers = [(name, secrets.hidden(value)) for name, value in headers]
    said = read_json(content)
    if said is None:
        text = secrets.hidden(response.text)
        if text != response.text:
            content = text.encode()
    else:
        # Not in its bytes, where escapes may hide a key.
        clean = secrets.hidden_in(said)
        if clean != said:
            content = orjson.dumps(clean)
    if content is response.content and clean_headers == headers:
        return response
    return _anew(response, clean_headers, content)


async def ask_json(http: httpx.AsyncClient, url: str, *, within_s: float, document: Json | None = None) -> object:
    """The JSON that a 200 answers to a GET, or to a POST where there is a document; None for anything else.

    For what is good to know and never needed.
    """
    method = "GET" if document is None else "POST"
    try:
        response = await call(http, method, url, within_s=within_s, document=document)
    except TargetError:
        return None
    if response.status_code != 200:
        return None
    return read_json(response.content)


async def ask_all(http: httpx.AsyncClient, urls: Iterable[str], within_s: float) -> list[object]:
    """What each URL answers with a 200, as JSON, or None; asked at once."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask_json(http, url, within_s=within_s)) for url in urls]
    return [task.result() for task in tasks]


async def post_lines(http: httpx.AsyncClient, url: str, document: Json, *, stall_s: float) -> AsyncGenerator[str, None]:
    """The lines of a streamed answer as they arrive; read it to its end, or leave it through `aclosing`.

    Raises:
        NotReady: The stream broke, or nothing came for `stall_s` seconds.
        TargetError: An error status; or no HTTP answer came.
    """
    timeout, secrets = httpx.Timeout(stall_s, connect=CONNECT_S), Secrets.of(http.headers)
    try:
        async with http.stream("POST", url, json=document, timeout=timeout) as response:
            if response.status_code >= 400:
                async with asyncio.timeout(stall_s):
                    refused = await _whole(response)
                reason = message_of(refused, http) or "no reason given"
                raise TargetError(f"{url} answered {response.status_code}: {reason}")
            async with aclosing(_lines(response)) as lines:
                async for line in lines:
                    yield secrets.hidden(line.decode("utf-8", "replace").strip())
    except (httpx.ReadTimeout, TimeoutError) as error:
        raise NotReady(f"{url} sent nothing for {stall_s:g} s") from error
    except (httpx.ReadError, httpx.RemoteProtocolError) as error:
        secrets.hide(error)
        reason = one_line(str(error)) or "connection lost"
        raise NotReady(f"{origin_of(url)} broke the answer off ({reason})") from error
    except (httpx.TransportError, httpx.InvalidURL, httpx.DecodingError, UnicodeError) as error:
        secrets.hide(error)
        raise _failed(url, error, CONNECT_S, stall_s) from error


async def _lines(streamed: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The lines of a body, each when it is whole."""
    rest = bytearray()
    async with aclosing(cast("AsyncGenerator[bytes, None]", streamed.aiter_bytes())) as pieces:
        async for piece in pieces:
            rest += piece
            if _LINE_END.search(piece):  # so that a line that comes byte by byte costs its length, not its square
                *lines, left = _LINE_END.split(bytes(rest))
                for line in lines:
                    yield line
                rest = bytearray(left)
            if len(rest) > MOST_LINE_BYTES:
                raise TargetError(f"{streamed.request.url} answers a line of more than {MOST_LINE_BYTES >> 20} MiB")
    if rest:
        yield bytes(rest)


async def _whole(streamed: httpx.Response) -> httpx.Response:
    """The response with its body, which a hostile server may make endless."""
    content = bytearray()
    async with aclosing(cast("AsyncGenerator[bytes, None]", streamed.aiter_bytes())) as pieces:
        async for piece in pieces:
            content += piece
            if len(content) > MOST_BYTES:
                raise TargetError(f"{streamed.request.url} answers more than {MOST_BYTES >> 20} MiB: is it an API?")
    return _anew(streamed, streamed.headers.multi_items(), bytes(content))


def _anew(response: httpx.Response, headers: list[tuple[str, str]], content: bytes) -> httpx.Response:
    """The response with these headers and this body, as it is after decompression."""
    as_sent = response.headers.encoding  # httpx itself would take ASCII alone
    as_bytes = []
    for name, value in headers:
        if name.lower() not in ("content-encoding", "content-length"):
            as_bytes.append((name.encode(as_sent), value.encode(as_sent)))
    made = httpx.Response(response.status_code, headers=as_bytes, content=content, request=response.request)
    # A server may name any of Python's codecs, those of zip, hex and punycode among them: httpx would use it.
    made.encoding = "utf-8"
    return made


# -- what an answer says


def read_json(content: bytes | str) -> object:
    """JSON of a server; None where it is none, and where `excess` names a bound."""
    if len(content) > MOST_JSON_BYTES:
        return None
    try:
        document: object = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    if is_deep(document, DEEPEST):
        return None  # orjson takes 1,000 levels; whatever walks through them afterwards does not
    return document


def excess(response: httpx.Response) -> str | None:
    """Which bound its JSON exceeds, in words; None where it exceeds none, or is no JSON."""
    size = len(response.content)
    if size > MOST_JSON_BYTES:
        return f"answers {size / 1e6:.0f} MB, and {MOST_JSON_BYTES >> 20} MiB of JSON are read"
    try:
        deep = is_deep(orjson.loads(response.content), DEEPEST)
    except orjson.JSONDecodeError as error:
        deep = error.msg.startswith(("depth limit", "Recursion limit"))  # orjson's of 3.11 and of older ones
    if not deep:
        return None
    return f"answers JSON that is nested deeper than {DEEPEST} levels"


def message_of(response: httpx.Response, http: httpx.AsyncClient) -> str:
    """What the server says in its body, one line and without our key, which servers like to echo; may be empty."""
    document = read_json(response.content)
    message = document
    if document is None:
        message = without_markup(response.text)
    if isinstance(message, dict):
        message = message.get("error", message)  # {"error": {"message": ...}} as OpenAI, {"error": ...} as Ollama
    if isinstance(message, dict):
        message = message.get("message") or message.get("detail")
    if not isinstance(message, str):
        return ""
    return one_line(Secrets.of(http.headers).hidden(message))


def without_markup(text: str) -> str:
    """What a web page says, in place of an API's answer; any other text as it is.

    >>> without_markup("<html><head><title>429 Too Many Requests</title></head><body><hr>nginx</body></html>")
    '429 Too Many Requests'
    """
    beginning = text[:_PAGE_BEGINNING]
    if not beginning.lstrip().startswith("<") or not _PAGE.search(beginning):
        return text
    if title := _TITLE.search(beginning):
        return html.unescape(title[2]).strip()
    return html.unescape(_TAG.sub(" ", beginning)).strip()


def retry_after_s(headers: Iterable[tuple[str, str]], now_s: float | None = None) -> float | None:
    """How long a refusal asks to wait, in s; None where its headers do not say so.

    Args:
        now_s: Of the wall clock; None reads it where a date is given.

    >>> retry_after_s([("Retry-After", "2")]), retry_after_s([("retry-after-ms", "250"), ("retry-after", "1")])
    (2.0, 0.25)
    """
    values = {name.lower(): value.strip() for name, value in headers}
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(values.get(name, "")) * unit_s
        except ValueError:
            continue
        if 0 <= seconds < math.inf:
            return seconds
        return None
    try:
        until = parsedate_to_datetime(values.get("retry-after", ""))
    except (ValueError, TypeError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    if now_s is None:
        now_s = time.time()
    return max(0.0, until.timestamp() - now_s)


# -- why no answer came


def origin_of(url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _failed(url: str, error: Exception, connect_s: float, within_s: float) -> TargetError:
    match error:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return NotReady(
                f"no connection to {origin_of(url)} within {connect_s:g} s: is the host up and the port open?",
                "--wait 60s waits for a server that is starting",
            )
        case TimeoutError() | httpx.TimeoutException():
            return NotReady(
                f"{url} took the connection but sent no answer within {within_s:g} s: is the server overloaded, or is "
                "this the port of something else?"
            )
        case httpx.TransportError():
            return _unreachable(url, error)
        case _:
            return TargetError(f"{url}: {one_line(str(error))}: check the endpoint")


def _unreachable(url: str, error: httpx.TransportError) -> TargetError:
    origin, causes, message = origin_of(url), list(_causes(error)), one_line(str(error))
    # Our own transport names the kind of failure (docs/metrics.md); stock httpx leaves it to the chain of causes.
    kind = getattr(error, "kind", None)
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if tls is not None or kind == "tls":
        return _tls_error(origin, tls, message)
    if isinstance(error, httpx.ProxyError):
        return TargetError(f"the proxy in front of {origin} refused: {message}: see HTTP_PROXY, NO_PROXY")
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
            f"{origin} took the connection but does not speak HTTP ({message or 'connection reset'}): "
            f"is it the port of an OpenAI-compatible server? Perhaps it wants {other}://"
        )
    return TargetError(f"{origin}: {message or type(error).__name__}: check the endpoint, -e URL")


def _refusal(error: httpx.TransportError, causes: list[BaseException]) -> str:
    reason = str(error)
    for cause in causes:
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if isinstance(cause, OSError) and cause.strerror:
            reason = cause.strerror
    if reason.startswith("Connect call failed"):
        return "no connection"  # those were asyncio's words, with an address that the message names already
    return one_line(reason)


def _tls_error(origin: str, error: ssl.SSLError | None, message: str) -> TargetError:
    why = message if "certificate" in message.lower() else ""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = one_line(error.verify_message)
    if why:
        return TargetError(
            f"the TLS certificate of {origin} is not trusted ({why}): "
            "name its issuer with --ca-file FILE, or skip the check with --insecure"
        )
    reason = message
    if error is not None and error.reason:
        reason = error.reason
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


# -- a server's own /metrics: Prometheus text, read into one number per name

SCRAPE_S = 2.0
MAX_METRICS_BYTES = 2_000_000
MAX_NAMES = 200
MAX_LINE = 2_000
"""Characters of a line that is read."""
MAX_NAME = 300
"""Characters of a name with its labels: `MAX_NAMES` of them are kept each second."""
MOST_FIGURE = 1e18
"""The largest that a run folder holds, either side of 0."""
_SAMPLE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*$")
_LABEL = re.compile(r'(?<!\w)([A-Za-z_]\w*)="((?:[^"\\]|\\.)*+)"')
_SUMMED = ("engine", "model", "model_name")
_SHARES = ("_perc", "_ratio")
_SKIPPED = ("_bucket", "_created", "_info")
_OTHERS = ("python_", "http_")  # the interpreter's and the web framework's, dozens of them


async def scrape(http: httpx.AsyncClient, root: str) -> dict[str, float] | None:
    """The server's own figures by name, as of now; None where it has no metrics or does not answer in time.

    Args:
        root: The server's root, from `server_root`.
    """
    try:
        response = await call(http, "GET", root + "/metrics", within_s=SCRAPE_S)
    except TargetError:
        return None
    if response.status_code != 200 or len(response.content) > MAX_METRICS_BYTES:
        return None
    # In a thread: 2 MB of them take the time of many tokens.
    return await asyncio.to_thread(read_metrics, response.text) or None


def read_metrics(text: str) -> dict[str, float]:
    """Counters, gauges, and sums and counts of histograms, at most `MAX_NAMES`.

    Series that differ by engine or model alone are added up; of those that are shares, the mean is taken. Other labels
    stay in the name. What is no number now (NaN), or none that a run folder holds, is left out.

    >>> read_metrics('a{engine="0",model_name="m"} 2\\na{engine="1",model_name="m"} 3\\nb{why="stop",engine="0"} 4e1')
    {'a': 5.0, 'b{why="stop"}': 40.0}
    """
    if text.startswith('"'):  # some builds of llama.cpp send the text as a JSON string (ggml-org/llama.cpp#17384)
        text = str(read_json(text) or "")
    series: dict[str, list[float]] = {}
    for line in text.splitlines():
        if line.startswith("#") or len(line) > MAX_LINE:
            continue
        sample = _SAMPLE.match(line)
        if sample is None or sample[1].endswith(_SKIPPED) or sample[1].startswith(_OTHERS):
            continue
        name, labels = sample[1], [label for label in _LABEL.findall(sample[2] or "") if label[0] not in _SUMMED]
        if labels:
            name += "{" + ",".join(f'{label}="{value}"' for label, value in labels) + "}"
        try:
            value = float(sample[3])
        except ValueError:
            continue
        is_too_many = name not in series and len(series) >= MAX_NAMES
        if not abs(value) <= MOST_FIGURE or len(name) > MAX_NAME or is_too_many:  # NaN is not <=
            continue
        series.setdefault(name, []).append(value)
    figures = {}
    for name, values in series.items():
        figure = math.fsum(values)
        if name.partition("{")[0].endswith(_SHARES):
            figure /= len(values)
        if abs(figure) <= MOST_FIGURE:
            figures[name] = figure
    return figures
