"""The record that each kind of server fills in, and the calls that change its models, with why they were refused."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import httpx

from loadbench.errors import TargetError
from loadbench.server.calls import Json, NotReady, call, message_of, origin_of, read_json
from loadbench.server.endpoint import server_root
from loadbench.server.facts import ModelFacts, Target
from loadbench.text import one_line

LIST_S = 10.0
LOAD_S = 600.0
"""Tens of gigabytes from a disk, and a graph compiled for an NPU, take minutes."""
UNLOAD_S = 60.0
STALL_S = 60.0
MOST_STEPS = 1_000
"""Of a download: layers or messages that are remembered."""

_MEMORY = re.compile(
    r"bad.alloc|out.of.memory|not enough (?:\w+ )?memory|insufficient (?:\w{1,20} ){0,3}memory"
    r"|requires more (?:system )?memory|failed to allocate|cannot allocate|allocation failed|\boom\b",
    re.IGNORECASE,
)
_ABSENT = re.compile(r"not.cached|not.downloaded|must be downloaded|try pulling", re.IGNORECASE)
_UNKNOWN = re.compile(r"not.found|does not exist|no model matching|unknown model|invalid model", re.IGNORECASE)
_PROVIDER = re.compile(r"requires (\w+ExecutionProvider) which is not registered", re.IGNORECASE)

Reading = Callable[[str, ModelFacts], bool]
"""Whether a name, in lower case, may mean a model."""
Progress = Callable[[float | None, str], None]
"""Called with percent (0 to 100, never falling; None while unknown) and what is being done."""


class Control(Protocol):
    """Loads and unloads the models of one server; each raises TargetError with one line that says why not."""

    async def load(self, model: ModelFacts) -> None:
        """Bring it into memory; it is there when this returns."""

    async def unload(self, model: ModelFacts) -> None:
        """Let it go from memory."""

    async def running(self, model: ModelFacts) -> ModelFacts | None:
        """What of it really is loaded now, with its device and provider; None where the server does not tell."""


@dataclass(frozen=True, slots=True)
class Vendor:
    """What one kind of server supports. The defaults are those of a server that holds what it was started with.

    Attributes:
        pull_hint: How people get a model that is not there; `{them}` is "it" or "them", `{name}` the one or "NAME".
        load_hint: How they get one into a server that has none; None where that server has to be started with it.
        lists_catalogue: Its list is of what can be downloaded, not only of what is there.
        placed: A model, with what its id says of its device.
        exact_names, loose_names: Further readings of a name, after the id itself, and after all others.
        preferred: Which of several models a name means.
        control: Loads and unloads.
        download, delete: As `pull` and `remove`; None where it does that by other means than HTTP.
        no_download, no_delete: What to do instead; `{name}`, `{url}` of the server, `{alias}`.
        has_metrics: It may serve its own figures as Prometheus text at `/metrics`.
        ignore_eos: `ignore_eos: true` makes answers run to max_tokens; other servers ignore or refuse it.
        min_tokens: `min_tokens` keeps an answer from ending earlier.
        cache_prompt: `cache_prompt: false` switches the prompt cache off.
        continuous_usage: `stream_options.continuous_usage_stats` puts the count so far into every event.
    """

    pull_hint: str
    load_hint: str | None = None
    lists_catalogue: bool = False
    placed: Callable[[ModelFacts], ModelFacts] = lambda facts: facts
    exact_names: tuple[Reading, ...] = ()
    loose_names: tuple[Reading, ...] = ()
    preferred: Callable[[ModelFacts], bool] = lambda facts: False
    control: Callable[[Target, httpx.AsyncClient], Control] | None = None
    download: Callable[[Target, httpx.AsyncClient, str, Progress], Awaitable[None]] | None = None
    no_download: str = "{name}: {url} downloads no models: start it with the model's file"
    delete: Callable[[Target, httpx.AsyncClient, ModelFacts], Awaitable[None]] | None = None
    no_delete: str = "{name}: {url} deletes no models over HTTP: delete its file there"
    has_metrics: bool = False
    ignore_eos: bool = False
    min_tokens: bool = False
    cache_prompt: bool = False
    continuous_usage: bool = False

    async def pull(self, target: Target, http: httpx.AsyncClient, name: str, progress: Progress) -> None:
        """Download a model by its name in the server's catalog; what is there of it already is kept.

        Args:
            http: Stock httpx's, or all progress comes at the end.
        Raises:
            NotReady: Another try goes on there.
            TargetError: It did not succeed.
        """
        if self.download is None:
            raise TargetError(self.no_download.format(name=name, url=target.base_url))
        await self.download(target, http, name, progress)

    async def remove(self, target: Target, http: httpx.AsyncClient, model: ModelFacts) -> None:
        """Delete a model from the disk; TargetError where that did not succeed."""
        if self.delete is None:
            alias = next(iter(model.aliases), model.id)
            raise TargetError(self.no_delete.format(name=model.id, url=target.base_url, alias=alias))
        await self.delete(target, http, model)


@dataclass(slots=True)
class Probe:
    """A server that is asked who it is: few short GETs, none of which can make a run fail.

    Attributes:
        target: What its model list tells, of the kind `openai`.
        owners: Who owns the models, row by row.
        within_s: For each GET; all together take at most twice that.
        limited: It refused to be asked so often.
    """

    http: httpx.AsyncClient
    target: Target
    owners: list[str | None]
    within_s: float
    end_s: float
    limited: bool = False

    @property
    def root(self) -> str:
        return server_root(self.target.base_url)

    @property
    def is_owned(self) -> bool:
        """Whether every model has an owner, so that others' routes are left out: gateways count what they are asked."""
        return bool(self.owners) and all(self.owners)

    async def get(self, route: str) -> object:
        """The JSON that a route of the server answers with a 200; None for anything else."""
        left_s = self.end_s - asyncio.get_running_loop().time()
        if self.limited or left_s <= 0:
            return None
        try:
            response = await call(self.http, "GET", self.root + route, within_s=min(self.within_s, left_s), again=False)
        except TargetError:
            return None
        self.limited = response.status_code == 429
        if response.status_code != 200:
            return None
        return read_json(response.content)


async def change(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    action: str,
    model: str,
    within_s: float,
    document: Json | None = None,
) -> None:
    """Change a model by a call; TargetError where it does not succeed: why, in one line."""
    response = await ask(http, method, url, action=action, model=model, within_s=within_s, document=document)
    accept(response, http, action=action, model=model)


async def ask(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    action: str,
    model: str,
    within_s: float,
    document: Json | None = None,
) -> httpx.Response:
    """What the server answers to a call that changes a model, whichever status it has; see `accept`.

    Args:
        action: As the error names it, e.g. ``load``.
    Raises:
        TargetError: No answer came, or not in time.
    """
    try:
        return await call(http, method, url, within_s=within_s, document=document)
    except NotReady as error:
        if isinstance(error.__cause__, TimeoutError):
            raise TargetError(
                f"{model}: no {action} within {within_s:g} s: is the machine out of memory, or its disk slow? The "
                "server's log tells"
            ) from error
        raise TargetError(
            f"{model}: {origin_of(url)} gave no answer to its {action}: is the server still running, or out of memory?"
        ) from error


def accept(response: httpx.Response, http: httpx.AsyncClient, *, action: str, model: str) -> None:
    """Go on where a call succeeded; else TargetError: why, in one line."""
    if not response.is_success:
        raise TargetError(refusal(action, model, response.status_code, message_of(response, http)))


def refusal(action: str, model: str, status: int, message: str) -> str:
    """What to do about a status and the server's message with it."""
    because, reason = "", ""
    if message:
        because, reason = f" ({message})", f": {message}"
    # The message before the status: servers answer 500, or 400, to almost anything.
    if _MEMORY.search(message):
        why = f"not enough memory for its {action}{because}: unload other models, take a smaller one, or another device"
    elif provider := _PROVIDER.search(message):
        why = f"it needs {provider[1]}, which this server does not have: choose another variant with --device or --ep"
    elif _ABSENT.search(message):
        return not_downloaded(model, because)
    elif (status == 404 or _UNKNOWN.search(message)) and action == "download":
        why = f"there is no such model to download{because}: check its name"
    elif status == 404 or _UNKNOWN.search(message):
        why = f"the server does not know it{because}: `loadbench models list` shows what it has"
    elif status in (401, 403):
        why = f"the server refused its {action} ({status}{reason}): see --api-key-env"
    elif message:
        why = f"its {action} failed with {status}{because}: the server's log tells more"
    else:
        why = f"its {action} failed with {status} and no reason: is it downloaded? The server's log tells more"
    return f"{model}: {why}"


def not_downloaded(model: str, because: str = "") -> str:
    """A model that is in a catalog and on no disk."""
    return f"{model}: not downloaded{because}: `loadbench models pull {model}` fetches it"


class Pace:
    """Whether a download gets on: a server may say that it works for ever."""

    def __init__(self, name: str, progress: Progress) -> None:
        self._name, self._progress, self._now_s = name, progress, asyncio.get_running_loop().time
        self._steps: set[str] = set()
        self._percent: float | None = None
        self._since_s = self._now_s()

    def moved(self, percent: float | None, step: str) -> None:
        """Another line came: a higher percentage is progress, and so is a step that is new.

        Raises:
            NotReady: Nothing of the kind came for `STALL_S` seconds.
        """
        moved = step not in self._steps and len(self._steps) < MOST_STEPS
        if moved:
            self._steps.add(step)
        if percent is not None and (self._percent is None or min(percent, 100.0) > self._percent):
            self._percent = min(percent, 100.0)
            moved = True
        if moved:
            self._since_s = self._now_s()
        elif self._now_s() - self._since_s > STALL_S:
            raise NotReady(f"{self._name}: no progress for {STALL_S:g} s ({one_line(step) or 'no word'})")
        self._progress(self._percent, step)


def sentence(value: object) -> str | None:
    """What a server says, in one line; None where that is nothing."""
    if not isinstance(value, str):
        return None
    return one_line(value) or None


def broke_off(name: str) -> NotReady:
    """The error of a download that may be tried again."""
    return NotReady(f"{name}: the download broke off before its end")
