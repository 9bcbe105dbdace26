"""Load and unload with Foundry Local, by the generation of its web service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from loadbench.errors import TargetError
from loadbench.server import Kind, ModelFacts, server_root
from loadbench.server.calls import get_json, parsed, said
from loadbench.server.device import alias_of_id, is_same, placed, stem_of_id
from loadbench.server.endpoint import prefix
from loadbench.server.models.refusal import LOAD_S, UNLOAD_S, absent, answer, ask, refusal
from loadbench.server.rows import model_facts, model_rows, text

if TYPE_CHECKING:
    import httpx

TTL_S = 86_400
"""How long generation 0 keeps an idle model: its SDK's ten minutes would end within a long run."""
LIST_S = 10.0
_PAUSES_S = (0.1, 0.3, 1.0, 2.0, 0.0)


class OtherVariant(TargetError):
    """The service loads another variant for an alias than the one that was asked for."""


@dataclass(frozen=True, slots=True)
class FoundryControl:
    """A Foundry Local service; `base_url` is the target's, a model's own goes before it.

    Generation 2 loads by alias, and itself decides which variant that is: `running` tells which one it was.
    """

    kind: Kind
    base_url: str
    http: httpx.AsyncClient
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def load(self, model: ModelFacts) -> None:
        if model.cached is False:
            raise TargetError(absent(model.id))
        if self.kind == "foundry2":
            await self._load_by_alias(model)
            return
        route = f"/openai/load/{_quoted(model.id)}?ttl={TTL_S}" if self.kind == "foundry0" else _route("load", model.id)
        await ask(self.http, "GET", self._root(model) + route, what="load", model=model.id, within_s=LOAD_S)

    async def unload(self, model: ModelFacts) -> None:
        if self.kind == "foundry2":
            _accept("unload", model, await self._by_alias("unload", model, UNLOAD_S), self.http)
            return
        zero = self.kind == "foundry0"
        route = f"/openai/unload/{_quoted(model.id)}?force=true" if zero else _route("unload", model.id)
        await ask(self.http, "GET", self._root(model) + route, what="unload", model=model.id, within_s=UNLOAD_S)

    async def running(self, model: ModelFacts) -> ModelFacts | None:
        """The model if it is loaded, else the one other variant of it that is."""
        route = "/openai/loadedmodels" if self.kind == "foundry0" else "/models/loaded"
        rows = model_rows(await get_json(self.http, self._root(model) + route, within_s=LIST_S))
        names = [facts.id for row in rows or () if (facts := model_facts(row)) is not None]
        if same := [name for name in names if is_same(name, model.id)]:
            # Only what is loaded has its version, in 1.x.
            return placed(replace(model, id=model.id if ":" in model.id else same[0], loaded=True))
        others = [name for name in names if stem_of_id(name).lower() == stem_of_id(model.id).lower()]
        if len(others) != 1:
            return None
        return placed(ModelFacts(others[0], model.aliases, loaded=True, base_url=model.base_url))

    async def _load_by_alias(self, model: ModelFacts) -> None:
        response = await self._by_alias("load", model, LOAD_S)
        _accept("load", model, response, self.http)
        ran = await self.running(model)
        if ran is None or is_same(ran.id, model.id):
            return
        # Requests that name a variant which is not loaded are refused, one by one.
        if text(parsed(response), "status") == "loaded":
            with contextlib.suppress(TargetError):
                await self.unload(ran)
        raise OtherVariant(f"{model.id}: the service loads {ran.id} for that alias: measure that one with -m")

    async def _by_alias(self, what: str, model: ModelFacts, within_s: float) -> httpx.Response:
        """The answer under the first name that the server knows; its lists do not tell aliases."""
        stem = stem_of_id(model.id)
        names = dict.fromkeys(
            (*model.aliases, alias_of_id(model.id), stem, stem.lower().removesuffix("-instruct"), model.id)
        )
        for name in names:
            url = self._root(model) + _route(what, name)
            for pause_s in _PAUSES_S:
                response = await answer(self.http, "GET", url, what=what, model=model.id, within_s=within_s)
                # A stream that just ended still holds the model for a moment.
                if what == "load" or response.status_code < 500:
                    break
                await self.sleep(pause_s)
            if response.status_code != 404:
                break
        return response

    def _root(self, model: ModelFacts) -> str:
        base_url = model.base_url or self.base_url
        return server_root(base_url) if self.kind == "foundry0" else prefix(base_url)


def _accept(what: str, model: ModelFacts, response: httpx.Response, http: httpx.AsyncClient) -> None:
    if not response.is_success:
        raise TargetError(refusal(what, model.id, response.status_code, said(response, http)))


def _route(what: str, name: str) -> str:
    return f"/models/{what}/{_quoted(name)}"


def _quoted(name: str) -> str:
    return quote(name, safe=":")
