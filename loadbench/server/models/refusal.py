"""Why a server did not load, unload or fetch a model: one line that says what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loadbench.errors import TargetError
from loadbench.server import NotReady
from loadbench.server.calls import call, said
from loadbench.server.failure import origin_of

if TYPE_CHECKING:
    import httpx

LOAD_S = 600.0
"""Tens of gigabytes from a disk, and a graph compiled for an NPU, take minutes."""
UNLOAD_S = 60.0

_MEMORY = re.compile(
    r"bad.alloc|out.of.memory|not enough (?:\w+ )?memory|insufficient (?:\w{1,20} ){0,3}memory"
    r"|requires more (?:system )?memory|failed to allocate|cannot allocate|allocation failed|\boom\b",
    re.IGNORECASE,
)
_ABSENT = re.compile(r"not.cached|not.downloaded|must be downloaded|try pulling", re.IGNORECASE)
_UNKNOWN = re.compile(r"not.found|does not exist|no model matching|unknown model|invalid model", re.IGNORECASE)
_PROVIDER = re.compile(r"requires (\w+ExecutionProvider) which is not registered", re.IGNORECASE)


async def ask(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    what: str,
    model: str,
    within_s: float,
    document: Mapping[str, Any] | None = None,
) -> httpx.Response:
    """A control call that succeeded; arguments as `answer`.

    Raises:
        TargetError: It did not, or did not in time: why, in one line.
    """
    response = await answer(http, method, url, what=what, model=model, within_s=within_s, document=document)
    if not response.is_success:
        raise TargetError(refusal(what, model, response.status_code, said(response, http)))
    return response


async def answer(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    what: str,
    model: str,
    within_s: float,
    document: Mapping[str, Any] | None = None,
) -> httpx.Response:
    """What the server answered to a control call, whichever status it has.

    Args:
        what: It is to do, e.g. ``load``; stands in the error.
    Raises:
        TargetError: No answer came, or not in time.
    """
    try:
        return await call(http, method, url, within_s=within_s, document=document)
    except NotReady as error:
        if isinstance(error.__cause__, TimeoutError):
            raise TargetError(
                f"{model}: no {what} within {within_s:g} s: is the machine out of memory, or its disk slow? The "
                "server's log tells"
            ) from error
        raise TargetError(
            f"{model}: {origin_of(url)} gave no answer to its {what}: is the server still running, or out of memory?"
        ) from error


def refusal(what: str, model: str, status: int, words: str) -> str:
    """What to do about a status and the server's words with it."""
    because = f" ({words})" if words else ""
    if _MEMORY.search(words):
        return (
            f"{model}: not enough memory for its {what}{because}: unload other models, take a smaller one, or another "
            "device"
        )
    if found := _PROVIDER.search(words):
        return (
            f"{model}: it needs {found[1]}, which this server does not have: choose another variant with --device or "
            "--ep"
        )
    if _ABSENT.search(words):
        return absent(model, because)
    if status == 404 or _UNKNOWN.search(words):
        if what == "download":
            return f"{model}: there is no such model to download{because}: check its name"
        return f"{model}: the server does not know it{because}: `loadbench models list` shows what it has"
    if status in (401, 403):
        return f"{model}: the server refused its {what} ({status}{': ' + words if words else ''}): see --api-key-env"
    if not words:
        return f"{model}: its {what} failed with {status} and no reason: is it downloaded? The server's log tells more"
    return f"{model}: its {what} failed with {status}{because}: the server's log tells more"


def absent(model: str, because: str = "") -> str:
    """A model that is in a catalog and on no disk."""
    return f"{model}: not downloaded{because}: `loadbench models pull {model}` fetches it"
