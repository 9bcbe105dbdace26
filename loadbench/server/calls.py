"""Calls to a server's own routes, and what it said in one line."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any, cast

import httpx
import orjson

from loadbench.bounds import Duration
from loadbench.errors import TargetError
from loadbench.scenario import Timeouts
from loadbench.scenario.files import DEEPEST, is_deep
from loadbench.server.access import CONNECT_S
from loadbench.server.failure import NotReady, one_line, origin_of, retry_after_s, unreachable, without_markup
from loadbench.server.secrets import Secrets

MOST_BYTES = 64 << 20
"""Of an answer to a control call."""
MOST_JSON_BYTES = 8 << 20
"""Of JSON in one; the longest lists of models have 2 MB."""
MOST_LINE_BYTES = 1 << 20
"""Of one line of a streamed answer."""
PAUSES_S = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Before a call is made again that came too early, where the server does not say when it may come."""
_LINE_END = re.compile(rb"[\r\n]+")


async def call(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    within_s: float,
    document: Mapping[str, Any] | None = None,
    again: bool = True,
) -> httpx.Response:
    """One request, with a JSON body where there is one, answered within the time; our keys are starred out of it.

    Where a server answers that it is asked too often (429), it is asked again when it may be, if that is in time;
    unless `again` is False.

    Raises:
        TargetError: No HTTP answer came; `NotReady` where it may come later.
    """
    now_s = asyncio.get_running_loop().time
    end_s = now_s() + within_s
    for pause_s in (*PAUSES_S, math.inf):
        response = await _once(http, method, url, document, within_s, end_s)
        asked_s = retry_after_s(response.headers.multi_items())
        wait_s = pause_s if asked_s is None else asked_s
        if not again or response.status_code != 429 or math.isinf(pause_s) or now_s() + wait_s >= end_s:
            break
        await asyncio.sleep(wait_s)
    return _without_secrets(response, Secrets.of(http.headers))


async def _once(
    http: httpx.AsyncClient, method: str, url: str, document: Mapping[str, Any] | None, within_s: float, end_s: float
) -> httpx.Response:
    connect_s = min(CONNECT_S, within_s)
    # Our own transport reads its time-outs here; the one below ends the call.
    late_s = Duration(within_s + 1)
    timeouts = Timeouts(connect=Duration(connect_s), first_token=late_s, idle=late_s, total=late_s)
    try:
        async with asyncio.timeout_at(end_s):
            async with http.stream(
                method,
                url,
                json=document,
                timeout=httpx.Timeout(within_s, connect=connect_s),
                extensions={"timeouts": timeouts},
            ) as streamed:
                return await _whole(streamed)
    except (httpx.TransportError, TimeoutError, httpx.InvalidURL, httpx.DecodingError, UnicodeError) as error:
        Secrets.of(http.headers).hide(error)
        raise _failed(url, error, connect_s, within_s) from error


async def get(http: httpx.AsyncClient, url: str, *, within_s: float) -> httpx.Response:
    """One GET, answered within the time; errors as `call`."""
    return await call(http, "GET", url, within_s=within_s)


async def get_json(http: httpx.AsyncClient, url: str, *, within_s: float) -> Any:
    """The JSON that a 200 answers; None for anything else. For what is good to know and never needed."""
    return await _json(http, "GET", url, None, within_s)


async def post_json(http: httpx.AsyncClient, url: str, document: Mapping[str, Any], *, within_s: float) -> Any:
    """The JSON that a 200 answers to a POST; None for anything else."""
    return await _json(http, "POST", url, document, within_s)


async def get_all(http: httpx.AsyncClient, urls: Iterable[str], within_s: float) -> list[Any]:
    """What each URL answers with a 200, as JSON, or None; asked at once."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(get_json(http, url, within_s=within_s)) for url in urls]
    return [task.result() for task in tasks]


async def post_lines(
    http: httpx.AsyncClient, url: str, document: Mapping[str, Any], *, stall_s: float
) -> AsyncGenerator[str, None]:
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
                raise TargetError(f"{url} answered {response.status_code}: {said(refused, http) or 'no reason given'}")
            async with aclosing(_lines(response)) as lines:
                async for line in lines:
                    yield secrets.hidden(line.decode("utf-8", "replace").strip())
    except (httpx.ReadTimeout, TimeoutError) as error:
        raise NotReady(f"{url} sent nothing for {stall_s:g} s") from error
    except (httpx.ReadError, httpx.RemoteProtocolError) as error:
        secrets.hide(error)
        raise NotReady(
            f"{origin_of(url)} broke the answer off ({one_line(str(error)) or 'connection lost'})"
        ) from error
    except (httpx.TransportError, httpx.InvalidURL, httpx.DecodingError, UnicodeError) as error:
        secrets.hide(error)
        raise _failed(url, error, CONNECT_S, stall_s) from error


def parsed(response: httpx.Response) -> Any:
    """The body as JSON; None where it is none, and where it is more than is read."""
    return read_json(response.content)


def read_json(content: bytes | str) -> Any:
    """JSON of a server; None where it is none, and where `excess` names a bound."""
    if len(content) > MOST_JSON_BYTES:
        return None
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    # orjson takes 1,000 levels; whatever walks through them afterwards does not.
    return None if is_deep(document, DEEPEST) else document


def excess(response: httpx.Response) -> str | None:
    """Which bound its JSON passes, in words; None where it passes none, or is no JSON."""
    size = len(response.content)
    if size > MOST_JSON_BYTES:
        return f"answers {size / 1e6:.0f} MB, and {MOST_JSON_BYTES >> 20} MiB of JSON are read"
    try:
        deep = is_deep(orjson.loads(response.content), DEEPEST)
    except orjson.JSONDecodeError as error:
        deep = error.msg.startswith(("depth limit", "Recursion limit"))  # orjson's of 3.11 and of older ones
    return f"answers JSON that is nested deeper than {DEEPEST} levels" if deep else None


def said(response: httpx.Response, http: httpx.AsyncClient) -> str:
    """What the server said in its body, one line and without our key, which servers like to echo; may be empty."""
    document = parsed(response)
    error = document.get("error", document) if isinstance(document, dict) else document
    message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    if not isinstance(message, str):
        message = "" if document is not None else without_markup(response.text)
    return one_line(Secrets.of(http.headers).hidden(message))


async def _lines(streamed: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The lines of a body, each when it is whole.

    Raises:
        TargetError: One is longer than any that is asked for.
    """
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
    """The response with its body, which a hostile server may make endless.

    Raises:
        TargetError: It is larger than anything that is asked for.
    """
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
    kept = [
        (name.encode(as_sent), value.encode(as_sent))
        for name, value in headers
        if name.lower() not in ("content-encoding", "content-length")
    ]
    made = httpx.Response(response.status_code, headers=kept, content=content, request=response.request)
    # A server may name any of Python's codecs, those of zip, hex and punycode among them: httpx would use it.
    made.encoding = "utf-8"
    return made


def _without_secrets(response: httpx.Response, secrets: Secrets) -> httpx.Response:
    """The response as it would be from a server that repeats no key, in its headers neither."""
    document = parsed(response)
    said = response.text if document is None else document
    clean, headers = secrets.hidden_in(said), response.headers.multi_items()
    clean_headers = [(name, secrets.hidden(value)) for name, value in headers]
    if clean == said and clean_headers == headers:
        return response
    content = clean.encode() if document is None else orjson.dumps(clean)
    return _anew(response, clean_headers, content)


async def _json(
    http: httpx.AsyncClient, method: str, url: str, document: Mapping[str, Any] | None, within_s: float
) -> Any:
    try:
        response = await call(http, method, url, within_s=within_s, document=document)
    except TargetError:
        return None
    return parsed(response) if response.status_code == 200 else None


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
            return unreachable(url, error)
        case _:
            return TargetError(f"{url}: {one_line(str(error))}: check the endpoint")
