"""Choose models: from what a person named, or from what the server has."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Sequence
from typing import Literal

from loadbench.errors import TargetError
from loadbench.target.facts import Kind, ModelFacts, Target

_SHOWN = 5
_CLOSE = 0.6  # difflib's own: below it, words are offered that share no more than a few letters
_NO_CHAT = ("embed", "speech", "transcri", "rerank")
_FOUNDRY = "load one with `foundry model load ALIAS`"
_LOAD = {
    "foundry0": _FOUNDRY,
    "foundry1": _FOUNDRY,
    "foundry2": _FOUNDRY,
    "ollama": "fetch one with `ollama pull NAME`",
    "lmstudio": "download one in LM Studio",
}


def choose(target: Target, wanted: Sequence[str] | Literal["auto"]) -> list[str]:
    """The ids to put into requests, each once, in the order wanted.

    Args:
        wanted: Ids, aliases or unambiguous names, upper or lower case; ``auto`` takes the loaded models, else the
            cached ones, else all that a server lists which says neither.
    Raises:
        TargetError: The server has none, or not that one: names the nearest, or those of the wanted that are there.
    """
    if wanted == "auto":
        return _automatic(target)
    if target.unlisted is not None or (not target.models and target.kind not in _LOAD):
        return list(dict.fromkeys(wanted))
    if not target.models:
        raise TargetError(_empty(target))
    found = {name: _resolve(target, name) for name in wanted}
    if absent := [name for name, facts in found.items() if facts is None]:
        raise TargetError(_absent(target, absent, [name for name in found if name not in absent]))
    return list(dict.fromkeys(facts.id for facts in found.values() if facts is not None))


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


def _resolve(target: Target, name: str) -> ModelFacts | None:
    """The model that a person means; None where the server has none of that name."""
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
    return None


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


def _absent(target: Target, absent: Sequence[str], present: Sequence[str]) -> str:
    """What to do about wanted models that are not there; `present` are the others that were wanted."""
    *names, last = [repr(name) for name in absent]
    said = f"{target.base_url} has no model {', '.join(names)}{' or ' if names else ''}{last}"
    pull = _pull(target.kind, absent)
    if present:
        return f"{said}: measure the others with {' '.join(f'-m {shlex.quote(name)}' for name in present)}, or {pull}"
    near = _near(target.models, absent[0]) if len(absent) == 1 else []
    if near:
        return f"{said}: did you mean {' or '.join(near)}?"
    return f"{said}: it has {_some(target.models)}: name one with -m, take what it has with -m auto, or {pull}"


def _pull(kind: Kind, names: Sequence[str]) -> str:
    them, name = ("it", shlex.quote(names[0])) if len(names) == 1 else ("them", "NAME")
    match kind:
        case "foundry0" | "foundry1" | "foundry2":
            return f"pull {them} with `foundry model download {name}`"
        case "ollama":
            return f"pull {them} with `ollama pull {name}`"
        case "lmstudio":
            return f"download {them} in LM Studio"
        case _:
            return f"pull {them} with Foundry Local (`foundry model download {name}`) and measure its service"


def _near(models: Sequence[ModelFacts], name: str) -> list[str]:
    """Up to three ids that look like a name."""
    sought = name.strip().lower()
    names = {name.lower(): facts.id for facts in models for name in (*facts.aliases, facts.id)}
    near = [names[close] for close in difflib.get_close_matches(sought, names, n=3, cutoff=_CLOSE)]
    near += [facts.id for facts in models if sought and sought in facts.id.lower()]
    return list(dict.fromkeys(near))[:3]


def _empty(target: Target) -> str:
    advice = _LOAD.get(target.kind, "load one there, or name one with -m MODEL")
    if target.registered:
        advice += f", or take those that are registered, at -e {target.registered_url}"
    return f"{target.models_url} lists no model: {advice}"


def _some(models: Iterable[ModelFacts]) -> str:
    ids = list(dict.fromkeys(facts.id for facts in models))
    return ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
