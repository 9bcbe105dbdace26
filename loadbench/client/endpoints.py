"""Several endpoints of one service, and which of them a conversation goes to: round-robin, by weight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go.

    Attributes:
        chat_url: The full address of `/chat/completions`.
        own_urls: The same of the models that have one of their own, by id.
        weight: Against the weights of the others.
    """

    chat_url: str
    own_urls: Mapping[str, str] = field(default_factory=dict)
    weight: int = 1


def cycle(weights: Sequence[int]) -> tuple[int, ...]:
    """Places of the endpoints, each as often as its weight, spread evenly: smooth weighted round robin, as of nginx.

    Conversation n goes to ``cycle[n % len(cycle)]``, whatever becomes of it: no state, the same in each run. Clients
    that share a level count their own conversations, each from another number on: did they go by the numbers of the
    level's requests, of 2 clients and 2 endpoints each would meet one endpoint alone, and in a closed loop endpoints
    would get the requests that their speed allows, not those of their weights.

    >>> cycle([1, 1]), cycle([3, 1]), cycle([2, 4, 2])
    ((0, 1), (0, 0, 1, 0), (1, 0, 2, 1))
    """
    parts = [weight // math.gcd(*weights) for weight in weights]
    credit = [0] * len(parts)
    found = []
    for _ in range(sum(parts)):
        credit = [had + part for had, part in zip(credit, parts, strict=True)]
        chosen = credit.index(max(credit))
        credit[chosen] -= sum(parts)
        found.append(chosen)
    return tuple(found)
