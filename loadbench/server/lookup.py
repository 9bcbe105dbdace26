"""Find a target: the model list first, then who the server is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import httpx

from loadbench.errors import TargetError, UsageError
from loadbench.server.access import is_proxied
from loadbench.server.calls import NotReady, call, excess, message_of, read_json, without_markup
from loadbench.server.endpoint import normalise, route
from loadbench.server.facts import MOST_CHARACTERS, MOST_MODELS, Target, field, model_facts, text
from loadbench.server.kinds import identify
from loadbench.server.vendor import Probe
from loadbench.text import one_line

# Foundry Local 2.x asks its catalog first: 4.5 s where that cannot be reached.
LIST_S = 20.0
# A server that takes longer to say who it is stays a generic one.
PROBE_S = 1.5
_WAIT = "--wait 60s waits for it"
_POLL_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)


async def find(
    endpoint: str, *, http: httpx.AsyncClient, within_s: float = LIST_S, named: bool = False, waits: bool = False
) -> Target:
    """Who answers at an endpoint and which models it has: a few round trips.

    A server without a model list is found too (`Target.unlisted` says why there is none); `choose` then wants a name.

    Args:
        endpoint: As a person wrote it.
        http: From `open_http`, with headers and key.
        within_s: For the model list.
        named: The models are named, so that the list is a convenience: whatever answers in its place, chats may work.
        waits: A list that may come later is waited for, even so.
    Raises:
        UsageError: The endpoint is no URL.
        TargetError: It does not answer, wants a key, or is something else; `NotReady` where waiting may help.
    """
    base_url = normalise(endpoint)
    url = route(base_url, "models")
    unlisted, server = None, None
    rows: list[object] = []
    try:
        response = await call(http, "GET", url, within_s=within_s)
        server = (response.headers.get("server") or "")[:MOST_CHARACTERS] or None
        _check_moved(url, response)
        unlisted = _refusal(url, response, http)
        if unlisted is None:
            rows, unlisted = _rows(url, response, http)
    except _NoList as error:
        if not named:
            raise TargetError(str(error)) from None
        unlisted = str(error)
    except NotReady as error:
        # Who took the connection and said nothing may chat all the same; who took none will not.
        if not named or waits or not (error.listless or isinstance(error.__cause__, TimeoutError)):
            raise
        unlisted = error.problem
    models = tuple(facts for row in rows if (facts := model_facts(row)) is not None)
    target = Target(base_url, "openai", None, server, models, unlisted, proxied=is_proxied(base_url))
    owners = [text(row, "owned_by") for row in rows]
    within_s = min(PROBE_S, within_s)
    end_s = asyncio.get_running_loop().time() + 2 * within_s
    target = await identify(Probe(http, target, owners, within_s, end_s))
    if "unknown" in (target.version or "").lower():  # llama.cpp built without its repository calls itself b0-unknown
        return replace(target, version=None)
    return target


async def wait(
    endpoint: str,
    *,
    http: httpx.AsyncClient,
    wait_s: float,
    waiting: Callable[[str], None] = lambda problem: None,
    named: bool = False,
) -> Target:
    """`find`, again and again until the server is ready or the time is up.

    Args:
        wait_s: From now, in seconds; 0 tries once.
        waiting: Called with the reason, each time it changes.
        named: As of `find`.
    Raises:
        TargetError: As `find`, without the advice to wait.
    """
    now_s = asyncio.get_running_loop().time
    deadline = now_s() + wait_s
    last: str | None = None
    attempt = 0
    while True:
        left_s = deadline - now_s()
        try:
            # A server that hangs while it starts must not eat the time that a second try needs.
            within_s = LIST_S if wait_s <= 0 else min(LIST_S, max(left_s, 0.5))
            return await find(endpoint, http=http, within_s=within_s, named=named, waits=left_s > 0)
        except NotReady as error:
            if wait_s <= 0:
                raise
            if now_s() >= deadline and not (named and left_s > 0):
                raise TargetError(f"waited {wait_s:g} s in vain: {error.problem}") from error
            if error.problem != last:
                last = error.problem
                waiting(f"waiting up to {wait_s:g} s: {last}")
        pause_s = _POLL_S[min(attempt, len(_POLL_S) - 1)]
        await asyncio.sleep(min(pause_s, max(deadline - now_s(), 0)))
        attempt += 1


class _NoList(TargetError):
    """The server gives no list, and will give none: as it wants a key, or is something else."""


def _refusal(url: str, response: httpx.Response, http: httpx.AsyncClient) -> str | None:
    """Why the server gives no list although it may well chat; None where it gave one."""
    status, message = response.status_code, message_of(response, http)
    answered = f"{url} answered {status}" + (f" ({message})" if message else "")
    if status in (401, 403) and "authorization" in http.headers:
        raise _NoList(f"{answered}: it refuses the key it was sent: check the variable that --api-key-env names")
    if status in (401, 403):
        raise _NoList(
            f"{answered}: the server wants a key: put it into a variable and name that with --api-key-env NAME"
        )
    if response.has_redirect_location:
        location = one_line(_location(response))
        raise _NoList(
            f"{url} redirects to {location}: that is no OpenAI-compatible API: check the address and the path of -e URL"
        )
    if status in (502, 503, 504) and ("loading" in message.lower() or response.headers.get("server") == "llama.cpp"):
        raise NotReady(f"{url}: the server is still loading its model (503)", _WAIT)
    if status in (429, 502, 503, 504):
        raise NotReady(f"{answered}: the server is busy or starting", _WAIT, listless=True)
    # transformers serve answers its list with 500 and chats all the same.
    return None if response.is_success else answered


def _check_moved(url: str, response: httpx.Response) -> None:
    """A server that is elsewhere now: its chats are too.

    Raises:
        TargetError: With its new address.
    """
    location = _location(response)
    try:
        # A login page or a web interface is no API: only a moved model list is worth following.
        moved = normalise(location) if location.rstrip("/").endswith("/models") else None
    except UsageError:
        moved = None
    if moved is not None and moved != str(response.request.url).partition("?")[0].removesuffix("/models"):
        raise TargetError(
            f"{url} redirects to {one_line(location)}: requests would not follow, so give that one: -e {moved}"
        )


def _location(response: httpx.Response) -> str:
    """Where a response redirects to, without query; empty where it does not."""
    if not response.has_redirect_location:
        return ""
    return str(response.url.join(response.headers["location"])).partition("?")[0]


def _rows(url: str, response: httpx.Response, http: httpx.AsyncClient) -> tuple[list[object], str | None]:
    """The rows of its list; or none, and why it is larger than any that is read.

    Raises:
        _NoList: It is none.
    """
    if (bound := excess(response)) is not None:
        return [], f"{url} {bound}"
    document = read_json(response.content)
    if document is None:
        kind = response.headers.get("content-type", "no content type").partition(";")[0]
        start = one_line(without_markup(response.text)[:60])
        raise _NoList(
            f"{url} answered {kind} that is no JSON ({start!r}): is it an OpenAI-compatible server? Check -e URL"
        )
    rows = document if isinstance(document, list) else field(document, "data", "models")
    if not isinstance(rows, list):
        message = message_of(response, http) or type(document).__name__
        raise _NoList(
            f"{url} answered JSON that is no model list ({message}): "
            "is it an OpenAI-compatible server? Check the path of -e URL"
        )
    if len(rows) > MOST_MODELS:
        return [], f"{url} lists {len(rows):,} models, and {MOST_MODELS:,} are read"
    return rows, None
