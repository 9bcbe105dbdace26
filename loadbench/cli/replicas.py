"""The further endpoints of a service that has several: reached, held against the first one, told of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from loadbench import server as targets
from loadbench.cli import place as places
from loadbench.cli.place import Place, Reached
from loadbench.client import Endpoint
from loadbench.errors import TargetError
from loadbench.scenario import Scenario
from loadbench.server import Choice, Target


async def reached(
    place: Place, asked: Scenario, given: dict[str, Any], stack: AsyncExitStack, note: Callable[[str], None]
) -> list[Reached]:
    """Those that take turns with the server at a place; the same key goes to each.

    Raises:
        TargetError: Nobody answers at one of them.
    """
    at = [replace(place, endpoint=url, others=()) for url in place.others]
    return [await stack.enter_async_context(places.reached(one, asked, given, note)) for one in at]


def check(choice: Choice, others: Sequence[Reached]) -> None:
    """Whether all have the models that the first one is to be asked for, by the same names.

    Raises:
        TargetError: One has not.
    """
    for one in others:
        for model in choice.chosen:
            found = targets.choose(one.server, [model.id]).chosen[0].id
            if found != model.id:
                raise TargetError(
                    f"{one.server.base_url} has {found}, not {model.id}: replicas serve one model, so name "
                    "it alike on each"
                )


def client_endpoints(servers: Sequence[Target], models: Sequence[str], weights: Sequence[int] | None) -> list[Endpoint]:
    """Where the requests for these models go."""
    return [
        Endpoint(server.chat_url, server.chat_urls(models), weight)
        for server, weight in zip(servers, weights or [1] * len(servers), strict=True)
    ]


def facts(several: Sequence[Reached], weights: Sequence[int] | None) -> list[dict[str, Any]] | None:
    """What run.json says of each endpoint; None of a single one."""
    if len(several) < 2:
        return None
    return [
        {
            "url": one.server.base_url,
            "weight": weight,
            "kind": one.server.kind,
            "version": one.server.version,
            "round_trip_ms": None if one.round_trip_ns is None else round(one.round_trip_ns / 1e6, 3),
        }
        for one, weight in zip(several, weights or [1] * len(several), strict=True)
    ]
