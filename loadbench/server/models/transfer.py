"""Download a model onto a server, with progress, and remove one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from loadbench.errors import TargetError
from loadbench.server import ModelFacts, NotReady, Target, server_root
from loadbench.server.calls import get_json, post_lines, read_json
from loadbench.server.device import placed
from loadbench.server.failure import one_line
from loadbench.server.models.refusal import UNLOAD_S, ask, refusal
from loadbench.server.rows import count, field, model_facts, model_rows, text

if TYPE_CHECKING:
    import httpx

STALL_S = 60.0
CATALOG_S = 20.0
MOST_LAYERS = 1_000
MOST_END = 1 << 20
"""Characters of what a service says at the end of a download."""
_PERCENT = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d{1,20})?) {0,4}%")
_SHARE = re.compile(r'\( {0,4}"([^"]*+)" {0,4}, {0,4}(\d(?:\.\d{1,20})?) {0,4}\)')

Progress = Callable[[float | None, str], None]


async def pull(target: Target, http: httpx.AsyncClient, name: str, progress: Progress) -> None:
    """Download a model onto the server; what it has of it already, it keeps.

    Args:
        http: Of stock httpx, or all progress comes at the end.
        name: As the server's catalog has it: an id, for Foundry Local an unambiguous alias too.
        progress: Told percent (0 to 100, never falling; None while unknown) and what is being done.
    Raises:
        NotReady: It broke off, or made no progress for `STALL_S` seconds, whatever it said: another try goes on there.
        TargetError: The server has no such model, or downloads nothing over HTTP.
    """
    root = server_root(target.base_url)
    match target.kind:
        case "ollama":
            await _pull_ollama(http, root, name, progress)
        case "foundry0":
            await _pull_foundry(http, root, name, progress)
        case "foundry1" | "foundry2":
            raise TargetError(
                f"{name}: this generation of Foundry Local downloads through its SDK alone: leave out -e, and "
                "`loadbench models pull` uses that"
            )
        case "lmstudio":
            raise TargetError(f"{name}: download it in LM Studio, or with `lms get {name}`")
        case _:
            raise TargetError(f"{name}: {target.base_url} downloads no models: start it with the model's file")


async def remove(target: Target, http: httpx.AsyncClient, model: ModelFacts) -> None:
    """Delete a model from the server's disk.

    Raises:
        TargetError: It has no such model, or cannot delete one over HTTP.
    """
    match target.kind:
        case "ollama":
            url = server_root(target.base_url) + "/api/delete"
            document = {"model": model.id}
            await ask(http, "DELETE", url, what="removal", model=model.id, within_s=UNLOAD_S, document=document)
        case "foundry0" | "foundry1" | "foundry2":
            name = model.aliases[0] if model.aliases else model.id
            raise TargetError(
                f"{model.id}: the service deletes nothing over HTTP: `foundry cache remove {name}` does, and "
                "`loadbench models remove` without -e, in the SDK's own cache"
            )
        case _:
            raise TargetError(f"{model.id}: {target.base_url} deletes no models over HTTP: delete its file there")


async def _pull_ollama(http: httpx.AsyncClient, root: str, name: str, progress: Progress) -> None:
    layers: dict[str, tuple[int, int]] = {}
    percent: float | None = None
    done, error = False, None
    pace = _Pace(name)
    async with aclosing(post_lines(http, root + "/api/pull", {"model": name}, stall_s=STALL_S)) as lines:
        async for line in lines:
            row = read_json(line)
            error = error or _sentence(field(row, "error"))
            status = text(row, "status") or ""
            done = done or status == "success"
            digest = text(row, "digest") or status
            if (total := count(row, "total")) and (digest in layers or len(layers) < MOST_LAYERS):
                layers[digest] = (count(row, "completed") or 0, total)
                now = 100 * sum(one for one, _ in layers.values()) / sum(one for _, one in layers.values())
                # A layer that is told later makes the sum grow.
                percent = max(percent or 0.0, min(now, 100.0))
            pace.look(percent, status)
            progress(percent, status)
    if error is not None:
        raise TargetError(refusal("download", name, 400, error))
    if not done:
        raise NotReady(f"{name}: the download broke off before its end")


async def _pull_foundry(http: httpx.AsyncClient, root: str, name: str, progress: Progress) -> None:
    """By the catalog's own row, as the SDK of that generation asks for it.

    Source: sdk/python/foundry_local/api.py and client.py (microsoft/Foundry-Local, 0.5).
    """
    row = _wanted(model_rows(await get_json(http, root + "/foundry/list", within_s=CATALOG_S)), name)
    provider = text(row, "providerType")
    document = {
        "model": {
            "Name": text(row, "name", "id"),
            "Uri": text(row, "uri"),
            "Publisher": text(row, "publisher"),
            "ProviderType": "AzureFoundryLocal" if provider == "AzureFoundry" else provider,
            "PromptTemplate": field(row, "promptTemplate") or {},
        },
        "token": None,
        "IgnorePipeReport": True,
    }
    percent: float | None = None
    end = ""
    pace = _Pace(name)
    async with aclosing(post_lines(http, root + "/openai/download", document, stall_s=STALL_S)) as lines:
        async for line in lines:
            if end or line.startswith("{"):
                end += line
                if len(end) > MOST_END:
                    raise NotReady(f"{name}: the service says no end of its download")
                continue
            file, told = _told(line)
            percent = percent if told is None else max(percent or 0.0, min(told, 100.0))
            pace.look(percent, file)
            progress(percent, file)
    outcome = read_json(end)
    if outcome is None:
        raise NotReady(f"{name}: the download broke off before its end")
    if field(outcome, "success") is not True:
        raise TargetError(
            refusal("download", name, 400, _sentence(field(outcome, "errorMessage")) or "no reason given")
        )


def _wanted(rows: list[Any] | None, name: str) -> Any:
    """The catalog's row for a name: its id, with or without version, or its alias."""
    if not rows:
        raise NotReady(f"{name}: the service shows no catalog: is it offline?")
    known = [(placed(facts), row) for row in rows if (facts := model_facts(row)) is not None]
    sought = name.strip().lower()
    found = [(facts, row) for facts, row in known if sought == facts.id.lower()] or [
        (facts, row)
        for facts, row in known
        if sought in (facts.id.lower().partition(":")[0], *(alias.lower() for alias in facts.aliases))
    ]
    if not found:
        raise TargetError(refusal("download", name, 404, "not in its catalog"))
    if len({facts.id.partition(":")[0] for facts, _ in found}) > 1:
        raise TargetError(f"{name!r} may be any of {_ids(facts for facts, _ in found)}: name one of them")
    return max(found, key=lambda one: _version(one[0].id))[1]


def _ids(models: Iterable[ModelFacts]) -> str:
    return ", ".join(facts.id for facts in models)


def _version(model: str) -> int:
    number = model.partition(":")[2]
    return int(number) if number.isdecimal() else 0


def _told(line: str) -> tuple[str, float | None]:
    """File and percent of a progress line: `("model.onnx", 0.5)` as documented, `12.5%` as its SDK reads it."""
    if found := _SHARE.search(line):
        return found[1], 100 * float(found[2])
    found = _PERCENT.search(line)
    return line, float(found[1]) if found else None


def _sentence(told: Any) -> str | None:
    return one_line(told) or None if isinstance(told, str) else None


class _Pace:
    """Whether a download gets on: a server may say that it works for ever."""

    def __init__(self, name: str) -> None:
        self._name, self._now_s = name, asyncio.get_running_loop().time
        self._seen: set[str] = set()
        self._percent, self._since_s = -1.0, self._now_s()

    def look(self, percent: float | None, status: str) -> None:
        """Another line came: a higher percentage is progress, and so is a step that was not told before.

        Raises:
            NotReady: Nothing of the kind came for `STALL_S` seconds.
        """
        step = status not in self._seen and len(self._seen) < MOST_LAYERS
        if step or (percent is not None and percent > self._percent):
            self._since_s, self._percent = self._now_s(), max(self._percent, percent or 0.0)
            if step:
                self._seen.add(status)
        elif self._now_s() - self._since_s > STALL_S:
            raise NotReady(f"{self._name}: no progress for {STALL_S:g} s ({one_line(status) or 'no word'})")
