"""Choose models: from what a person named, or from what the server has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Literal

from loadbench.errors import TargetError
from loadbench.target.facts import Kind, ModelFacts, Target

_SHOWN = 5
_NO_CHAT = ("embed", "speech", "transcri", "rerank")
_LOAD = {
    "foundry0": "load one with `loadbench models load ALIAS`",
    "foundry1": "load one with `loadbench models load ALIAS`",
    "foundry2": "load one with `loadbench models load ALIAS`",
    "ollama": "fetch one with `ollama pull NAME`",
    "lmstudio": "download one in LM Studio",
}


def choose(target: Target, wanted: Sequence[str] | Literal["auto"]) -> list[str]:
    """The ids to put into requests, each once, in the order wanted.

    Args:
        wanted: Ids, aliases or unambiguous names, upper or lower case; ``auto`` takes the loaded models, else the
            cached ones, else all that a server lists which says neither.
    Raises:
        TargetError: The server has none, or not that one: names the nearest.
    """
    if wanted == "auto":
        return _automatic(target)
    if target.unlisted is not None or (not target.models and target.kind not in _LOAD):
        return list(dict.fromkeys(wanted))
    if not target.models:
        raise TargetError(_empty(target))
    return list(dict.fromkeys(_resolve(target, name).id for name in wanted))


def _automatic(target: Target) -> list[str]:
    if target.unlisted is not None:
        raise TargetError(f"{target.unlisted}, so its models are not known: name one with -m MODEL")
    if not target.models:
        raise TargetError(_empty(target))
    chatting = [facts for facts in target.models if not any(word in (facts.task or "") for word in _NO_CHAT)]
    for known in ([facts for facts in chatting if facts.loaded], [facts for facts in chatting if facts.cached]):
        if known:
            return list(dict.fromkeys(facts.id for facts in known))
    undecided = [facts.id for facts in chatting if facts.loaded is None and facts.cached is None]
    # Foundry Local lists its whole catalog: gigabytes that nobody asked to download.
    if not undecided or target.kind in ("foundry1", "foundry2"):
        advice = _LOAD.get(target.kind, "load one there")
        raise TargetError(
            f"no model is loaded at {target.base_url}: {advice}, or name one with -m ({_some(target.models)})"
        )
    return list(dict.fromkeys(undecided))


def _resolve(target: Target, name: str) -> ModelFacts:
    for facts in target.models:
        if facts.id == name:
            return facts
    sought = name.strip().lower()
    for names in (_ids, _told_names, _short_names, *((_family,) if target.kind.startswith("foundry") else ())):
        matches = [facts for facts in target.models if names(facts, sought)]
        if matches:
            return _one_of(matches, name, target.kind)
    if any(sought in (other.lower(), other.lower().partition(":")[0]) for other in target.registered):
        raise TargetError(f"model {name!r} is registered, not downloaded: it answers at -e {target.registered_url}")
    raise TargetError(f"{target.base_url} has no model {name!r}: {_nearest(target.models, sought)}")


def _ids(facts: ModelFacts, sought: str) -> bool:
    return facts.id.lower() == sought


def _told_names(facts: ModelFacts, sought: str) -> bool:
    return any(alias.lower() == sought for alias in facts.aliases)


def _short_names(facts: ModelFacts, sought: str) -> bool:
    """Without version or tag, without the organisation in front."""
    name = facts.id.lower()
    return sought in (name.partition(":")[0], name.rpartition("/")[2], name.partition(":")[0].rpartition("/")[2])


def _family(facts: ModelFacts, sought: str) -> bool:
    """Foundry Local's ids go on where its aliases end: phi-4-mini, phi-4-mini-instruct-generic-cpu:5."""
    return facts.id.lower().startswith(sought + "-")


def _one_of(matches: list[ModelFacts], name: str, kind: Kind) -> ModelFacts:
    for narrower in (
        [facts for facts in matches if facts.loaded],
        [facts for facts in matches if facts.cached],
        [facts for facts in matches if facts.id.endswith(":latest")] if kind == "ollama" else [],
    ):
        matches = narrower or matches
    if len({facts.id for facts in matches}) == 1:
        return matches[0]
    # The same variant in several versions: the newest, as the server's own alias does.
    if len({facts.id.partition(":")[0] for facts in matches}) == 1 and all(_version(facts) for facts in matches):
        return max(matches, key=_version)
    raise TargetError(f"{name!r} may be any of {_some(matches)}: name one in full with -m")


def _version(facts: ModelFacts) -> int:
    number = facts.id.partition(":")[2]
    return int(number) if number.isdecimal() else 0


def _nearest(models: Sequence[ModelFacts], sought: str) -> str:
    names = {name.lower(): facts.id for facts in models for name in (*facts.aliases, facts.id)}
    near = [names[close] for close in difflib.get_close_matches(sought, names, n=3, cutoff=0.5)]
    near += [facts.id for facts in models if sought and sought in facts.id.lower()]
    if near:
        return "did you mean " + " or ".join(list(dict.fromkeys(near))[:3]) + "?"
    return f"it has {_some(models)}"


def _empty(target: Target) -> str:
    advice = _LOAD.get(target.kind, "load one there, or name one with -m MODEL")
    if target.registered:
        advice += f", or take those that are registered, at -e {target.registered_url}"
    return f"{target.models_url} lists no model: {advice}"


def _some(models: Iterable[ModelFacts]) -> str:
    ids = list(dict.fromkeys(facts.id for facts in models))
    return ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
