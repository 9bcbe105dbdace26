"""Foundry Local's own routes, by generation of its web service (FOUNDRY.md §2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx

from loadbench.server.calls import get_all
from loadbench.server.device import alias_of_id, is_same, placed, registered
from loadbench.server.endpoint import FOUNDRY_CATALOG, prefix, server_root
from loadbench.server.facts import ModelFacts
from loadbench.server.rows import merged, model_facts, model_rows

_CATALOG_S = 6.0
"""The catalog asks the network first: 4.7 s for 2.2.1 where there is none."""


async def generation_0(
    http: httpx.AsyncClient, root: str, models: Sequence[ModelFacts], within_s: float
) -> tuple[ModelFacts, ...]:
    """The models listed, and those of the catalog that are on no disk yet."""
    routes = ("/openai/loadedmodels", "/openai/models", "/foundry/list")
    loaded, cached, catalog = await get_all(http, (root + route for route in routes), max(within_s, _CATALOG_S))
    rows = model_rows(catalog) or []
    known = with_rows(models, rows)
    listed = {_bare(facts.id) for facts in known}
    more = (facts for row in rows if (facts := model_facts(row)) is not None and _bare(facts.id) not in listed)
    if (on_disk := _names(cached)) is not None:
        known = tuple(replace(facts, cached=_among(facts, on_disk)) for facts in (*known, *more))
    return tuple(placed(facts) for facts in _with_loaded(known, loaded))


async def generation_1(
    http: httpx.AsyncClient, base_url: str, models: Sequence[ModelFacts], within_s: float
) -> tuple[ModelFacts, ...]:
    """The models listed, and which of them are loaded."""
    (loaded,) = await get_all(http, [prefix(base_url) + "/models/loaded"], max(within_s, _CATALOG_S))
    return tuple(placed(facts) for facts in _with_loaded(models, loaded))


async def generation_2(
    http: httpx.AsyncClient, base_url: str, models: Sequence[ModelFacts], within_s: float
) -> tuple[ModelFacts, ...]:
    """The models of the catalog that is listed, and those registered by hand, which answer under another prefix.

    The list tells nothing of what is downloaded: `cached` stays None unless a model is loaded or registered.
    """
    own, local = prefix(base_url), server_root(base_url) + FOUNDRY_CATALOG
    if own == local:
        (loaded,) = await get_all(http, [local + "/models/loaded"], max(within_s, _CATALOG_S))
        return tuple(_registered(facts, None) for facts in _with_loaded(models, loaded))
    routes = (own + "/models/loaded", local + "/models/loaded", local + "/v1/models")
    loaded, local_loaded, local_rows = await get_all(http, routes, max(within_s, _CATALOG_S))
    added = tuple(facts for row in model_rows(local_rows) or () if (facts := model_facts(row)) is not None)
    ids = {facts.id for facts in added}
    of_catalog = (placed(facts) for facts in _with_loaded(models, loaded) if facts.id not in ids)
    return (*of_catalog, *(_registered(facts, local + "/v1") for facts in _with_loaded(added, local_loaded)))


def with_rows(models: Sequence[ModelFacts], rows: Sequence[Any] | None) -> tuple[ModelFacts, ...]:
    """The models, filled up from another list of the same server."""
    others = {_bare(facts.id): facts for row in rows or () if (facts := model_facts(row)) is not None}
    return tuple(merged(facts, others[_bare(facts.id)]) if _bare(facts.id) in others else facts for facts in models)


def _registered(facts: ModelFacts, base_url: str | None) -> ModelFacts:
    """Its alias is what the runtime makes of its id: `tiny` for tiny-generic-cpu:1."""
    aliases = tuple(name for name in (alias_of_id(facts.id),) if name != facts.id)
    return registered(replace(facts, aliases=facts.aliases or aliases, cached=True, base_url=base_url))


def _with_loaded(models: Sequence[ModelFacts], loaded: Any) -> tuple[ModelFacts, ...]:
    names = _names(loaded)
    if names is None:
        return tuple(models)
    return tuple(
        replace(facts, loaded=True, cached=True) if _among(facts, names) else replace(facts, loaded=False)
        for facts in models
    )


def _names(document: Any) -> dict[str, list[str]] | None:
    """The ids of a list, by what they are called without their version."""
    rows = model_rows(document)
    if rows is None:
        return None
    names: dict[str, list[str]] = {}
    for row in rows:
        if (facts := model_facts(row)) is not None:
            names.setdefault(_stem(facts.id), []).append(facts.id)
    return names


def _among(facts: ModelFacts, names: Mapping[str, Sequence[str]]) -> bool:
    return any(is_same(facts.id, name) for name in names.get(_stem(facts.id), ()))


def _stem(name: str) -> str:
    return _bare(name).partition(":")[0]


def _bare(name: str) -> str:
    return name.strip().lower()
