"""Find a target: the model list first, then who the server is; and the servers that listen on this machine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from urllib.parse import urlsplit

import httpx

from loadbench.errors import LoadbenchError, TargetError, UsageError
from loadbench.server import foundry, lmstudio, ollama
from loadbench.server.access import is_proxied, open_http
from loadbench.server.calls import NotReady, ask_json, call, excess, message_of, read_json, without_markup
from loadbench.server.endpoint import normalise, route
from loadbench.server.facts import MOST_CHARACTERS, MOST_MODELS, Kind, Target, count, field, model_facts, text
from loadbench.server.vendor import Control, Probe, Vendor
from loadbench.text import one_line

# Foundry Local 2.x asks its catalog first: 4.5 s where that cannot be reached.
LIST_S = 20.0
# A server that takes longer to say who it is stays a generic one.
PROBE_S = 1.5
_WAIT = "--wait 60s waits for it"
_POLL_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
_QUANTIZATION = re.compile(r"(?<![A-Za-z0-9])(I?Q\d(?:_[A-Z0-9]+)*|BF16|F16|F32|MXFP4)(?![A-Za-z0-9])", re.IGNORECASE)

VENDORS: dict[Kind, Vendor] = {
    "foundry0": foundry.FOUNDRY_0,
    "foundry1": foundry.FOUNDRY_1,
    "foundry2": foundry.FOUNDRY_2,
    "llama.cpp": Vendor(
        pull_hint="start llama-server with {them} (-m FILE, or -hf REPOSITORY)",
        has_metrics=True,
        ignore_eos=True,
        cache_prompt=True,
    ),
    "vllm": Vendor(
        pull_hint="start its server with {them} (`vllm serve {name}`)",
        has_metrics=True,
        ignore_eos=True,
        min_tokens=True,
        continuous_usage=True,
    ),
    "ollama": ollama.OLLAMA,
    "lmstudio": lmstudio.LM_STUDIO,
    "simulator": Vendor(
        pull_hint="pull {them} with Foundry Local (`foundry model download {name}`) and measure its service",
        ignore_eos=True,
        continuous_usage=True,
    ),
    "openai": Vendor(pull_hint="add {them} to what this server offers"),
}
KINDS: tuple[Kind, ...] = tuple(VENDORS)


def control(target: Target, http: httpx.AsyncClient) -> Control | None:
    """The control of a server's models; None where it offers none: it holds what it was started with."""
    make = VENDORS[target.kind].control
    if make is None:
        return None
    return make(target, http)


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
    models = tuple(filter(None, map(model_facts, rows)))
    target = Target(base_url, "openai", None, server, models, unlisted, proxied=is_proxied(base_url))
    owners = [text(row, "owned_by") for row in rows]
    within_s = min(PROBE_S, within_s)
    end_s = asyncio.get_running_loop().time() + 2 * within_s
    target = await _identify(Probe(http, target, owners, within_s, end_s))
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
    within_s = LIST_S
    while True:
        left_s = deadline - now_s()
        if wait_s > 0:
            # A server that hangs while it starts must not eat the time that a second try needs.
            within_s = min(LIST_S, max(left_s, 0.5))
        try:
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
    answered = f"{url} answered {status}"
    if message:
        answered += f" ({message})"
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
    if not response.is_success:
        return answered  # transformers serve answers its list with 500 and chats all the same
    return None


def _check_moved(url: str, response: httpx.Response) -> None:
    """Raise the new address of a server that is elsewhere now: its chats are too."""
    location = _location(response)
    # A login page or a web interface is no API: only a moved model list is worth following.
    if not location.rstrip("/").endswith("/models"):
        return
    try:
        moved = normalise(location)
    except UsageError:
        return
    if moved != str(response.request.url).partition("?")[0].removesuffix("/models"):
        raise TargetError(
            f"{url} redirects to {one_line(location)}: requests would not follow, so give that one: -e {moved}"
        )


def _location(response: httpx.Response) -> str:
    if not response.has_redirect_location:
        return ""
    return str(response.url.join(response.headers["location"])).partition("?")[0]


def _rows(url: str, response: httpx.Response, http: httpx.AsyncClient) -> tuple[list[object], str | None]:
    """The rows of its list; or none, and why it is larger than any that is read."""
    if (bound := excess(response)) is not None:
        return [], f"{url} {bound}"
    document = read_json(response.content)
    if document is None:
        kind = response.headers.get("content-type", "no content type").partition(";")[0]
        start = one_line(without_markup(response.text)[:60])
        raise _NoList(
            f"{url} answered {kind} that is no JSON ({start!r}): is it an OpenAI-compatible server? Check -e URL"
        )
    rows = document
    if not isinstance(document, list):
        rows = field(document, "data", "models")
    if not isinstance(rows, list):
        message = message_of(response, http) or type(document).__name__
        raise _NoList(
            f"{url} answered JSON that is no model list ({message}): "
            "is it an OpenAI-compatible server? Check the path of -e URL"
        )
    if len(rows) > MOST_MODELS:
        return [], f"{url} lists {len(rows):,} models, and {MOST_MODELS:,} are read"
    return rows, None


async def _identify(probe: Probe) -> Target:
    """The server by its `Server` header, its model list, and what its own routes answer, one after the other.

    Source: docs/foundry.md for Foundry Local's generations; llama.cpp and the simulator name themselves in `Server`;
    `/api/version` is Ollama's, `/version` vLLM's, `/api/v0/models` LM Studio's own.
    """
    name, _, version = (probe.target.server_header or "").partition("/")
    if name.lower() == "loadbench-simulator":
        return _all_loaded(probe.target, "simulator", version or None)
    if name.lower() == "llama.cpp":
        return _llama(probe.target, await ask_json(probe.http, probe.root + "/props", within_s=probe.within_s))
    if "vllm" in probe.owners:
        document = await ask_json(probe.http, probe.root + "/version", within_s=probe.within_s)
        return _all_loaded(probe.target, "vllm", text(document, "version"))
    for recognise in (foundry.recognise, lmstudio.recognise, ollama.recognise):
        target = await recognise(probe)
        if target is not None:
            return target
    props = await probe.get("/props")
    if field(props, "default_generation_settings") is not None:
        return _llama(probe.target, props)
    document = await probe.get("/version")
    if isinstance(document, dict) and set(document) == {"version"}:
        return _all_loaded(probe.target, "vllm", text(document, "version"))
    return replace(probe.target, limited=probe.limited)


def _all_loaded(target: Target, kind: Kind, version: str | None) -> Target:
    models = tuple(replace(facts, loaded=True) for facts in target.models)
    return replace(target, kind=kind, version=version, models=models)


def _llama(target: Target, props: object) -> Target:
    """What its properties add to its list: a single model is held by the process, a router says which are loaded."""
    context, path = None, None
    if len(target.models) == 1:
        context = count(field(props, "default_generation_settings"), "n_ctx")
        path = text(props, "model_path") or ""

    models = []
    for facts in target.models:
        quantization = facts.quantization
        if quantization is None:  # what a GGUF file's name says: SmolLM2-135M-Instruct-Q4_1.gguf
            file = facts.id if path is None else path
            file = file.replace("\\", "/").rpartition("/")[2]
            if sizes := _QUANTIZATION.findall(file):
                quantization = sizes[-1].upper()
        loaded = facts.loaded is not False
        models.append(replace(facts, loaded=loaded, context=facts.context or context, quantization=quantization))
    version, slots = text(props, "build_info"), count(props, "total_slots")
    return replace(target, kind="llama.cpp", version=version, models=tuple(models), slots=slots)


# -- servers that listen on this machine: what `doctor` shows, and what a run takes

PORTS = {
    8080: "llama.cpp",
    11434: "Ollama",
    8000: "vLLM",
    1234: "LM Studio",
    5272: "Foundry Local",
    5273: "Foundry Local",
}
"""Where servers listen by default."""
HOW = "found on this machine"
_CONNECT_S = 0.3
_GLANCE_S = 0.5
LOOK_S = 6.0  # Foundry Local 2.x takes 4.5 s where its catalog cannot be reached


@dataclass(frozen=True, slots=True)
class Seen:
    """A server that is here.

    Attributes:
        how: It was found; None where it was looked for on a usual port.
        server: None where it does not answer yet, or wants a key.
        problem: Why not.
    """

    endpoint: str
    how: str | None
    server: Target | None
    problem: LoadbenchError | None = None

    @property
    def is_locked(self) -> bool:
        """Whether it answers only with its key, as many things do that are no servers of models."""
        return self.server is None and not isinstance(self.problem, NotReady)

    @property
    def kind(self) -> str:
        """What it is, as far as that is known."""
        if self.is_locked:
            return "wants a key"
        if self.server is None:
            return "is loading"
        return " ".join(filter(None, (self.server.kind, self.server.version)))


async def look(
    ports: Iterable[int], found: foundry.Found | None = None, environ: Mapping[str, str] = MappingProxyType({})
) -> list[Seen]:
    """The servers on these ports of this machine and where OLLAMA_HOST says, after the one that was found otherwise.

    Takes no longer than the slowest of them; where nothing listens, that is at once.
    """
    places: dict[str, str | None] = {}
    if found is not None:
        places[found.endpoint] = found.how
    for port in ports:
        places.setdefault(f"http://127.0.0.1:{port}/v1", None)
    ollamas = ollama.host(environ)
    if ollamas is not None:
        places.setdefault(ollamas.replace("//localhost:", "//127.0.0.1:"), None)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_look(url, how)) for url, how in places.items()]
    results = [task.result() for task in tasks]
    return list(filter(None, results))


async def _look(url: str, how: str | None) -> Seen | None:
    """A server that may be there; None where none is that speaks OpenAI's API, unless it was found otherwise."""
    if how is None:
        try:
            async with asyncio.timeout(_CONNECT_S):
                parts = urlsplit(url)
                _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.close()
        except (OSError, TimeoutError):
            return None
    within_s = LOOK_S if how else _GLANCE_S
    try:
        async with open_http(url) as http:
            server = await find(url, http=http, within_s=within_s)
    except LoadbenchError as error:
        # Something that will answer a run in a while, or with a key.
        if how or "loading" in str(error) or "--api-key-env" in str(error):
            return Seen(url, how, None, error)
        return None
    if how is None and server.unlisted is not None and server.kind == "openai":
        return None  # any web server answers 404
    return Seen(url, how, server)
