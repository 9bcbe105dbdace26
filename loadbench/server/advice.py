"""What to do where a model is not there: one line that names the nearest, and how to get it."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Sequence

from loadbench.server.facts import Absent, ModelFacts, Target

_SHOWN = 5
_CLOSE = 0.6  # difflib's own: below it, words are offered that share no more than a few letters
_FOUNDRY = "load one with `foundry model load ALIAS`"
LOAD = {
    "foundry0": _FOUNDRY,
    "foundry1": _FOUNDRY,
    "foundry2": _FOUNDRY,
    "ollama": "fetch one with `ollama pull NAME`",
    "lmstudio": "download one in LM Studio",
}
"""How to get a model into a server of a kind that holds several."""


def absent(target: Target, names: Sequence[str], present: Sequence[str]) -> str:
    """What to do about wanted models that are not there; `present` are the others that were wanted."""
    *others, last = [repr(name) for name in names]
    said = f"{target.base_url} has no model {', '.join(others)}{' or ' if others else ''}{last}"
    pull = _pull(target, names)
    if present:
        return f"{said}: measure the others with {' '.join(f'-m {shlex.quote(name)}' for name in present)}, or {pull}"
    near = _near(target.models, names[0]) if len(names) == 1 else []
    if near:
        return f"{said}: did you mean {' or '.join(near)}?"
    return f"{said}: it has {some(target.models)}: name one with -m, take what it has with -m auto, or {pull}"


def empty(target: Target) -> str:
    """A server that lists nothing."""
    advice = _load(target, "load one there, or name one with -m MODEL")
    return f"{target.models_url} lists no model: {advice}"


def idle(target: Target) -> str:
    """A server that lists models and holds none."""
    advice = _load(target, "load one there")
    return f"no model is loaded at {target.base_url}: {advice}, or name one with -m ({some(target.models)})"


def ambiguous(name: str, matches: Iterable[ModelFacts]) -> str:
    """A name that may mean several models."""
    matches = list(matches)
    devices = sorted({facts.device.lower() for facts in matches if facts.device})
    choice = f", or say which device with --device ({', '.join(devices)})" if len(devices) > 1 else ""
    return f"{name!r} may be any of {some(matches)}: name one in full with -m{choice}"


def nothing_left(target: Target, lacking: Sequence[Absent]) -> str:
    """Every variant that was asked for is absent."""
    devices = sorted({facts.device.lower() for facts in target.models if facts.device})
    ask = f"; models there are for {', '.join(devices)}: ask for one with --device" if devices else ""
    reasons = "; ".join(dict.fromkeys(one.reason for one in lacking))
    return f"nothing to measure at {target.base_url}: {reasons}{ask}"


def some(models: Iterable[ModelFacts | str]) -> str:
    """The first few ids, and how many more there are."""
    ids = list(dict.fromkeys(one if isinstance(one, str) else one.id for one in models))
    return ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")


def _load(target: Target, otherwise: str) -> str:
    if target.is_ours:  # it loads by itself what it has
        return "pull one with `loadbench models pull NAME`"
    return LOAD.get(target.kind, otherwise)


def _pull(target: Target, names: Sequence[str]) -> str:
    them, name = ("it", shlex.quote(names[0])) if len(names) == 1 else ("them", "NAME")
    if target.is_ours:
        return f"pull {them} with `loadbench models pull {name}`"
    match target.kind:
        case "foundry0" | "foundry1" | "foundry2":
            return f"pull {them} with `foundry model download {name}`"
        case "ollama":
            return f"pull {them} with `ollama pull {name}`"
        case "lmstudio":
            return f"download {them} in LM Studio"
        case "llama.cpp":
            return f"start llama-server with {them} (-m FILE, or -hf REPOSITORY)"
        case "vllm":
            return f"start its server with {them} (`vllm serve {name}`)"
        case "openai":
            return f"add {them} to what this server offers"
        case _:
            return f"pull {them} with Foundry Local (`foundry model download {name}`) and measure its service"


def _near(models: Sequence[ModelFacts], name: str) -> list[str]:
    """Up to three ids that look like a name."""
    sought = name.strip().lower()
    names = {name.lower(): facts.id for facts in models for name in (*facts.aliases, facts.id)}
    near = [names[close] for close in difflib.get_close_matches(sought, names, n=3, cutoff=_CLOSE)]
    near += [facts.id for facts in models if sought and sought in facts.id.lower()]
    return list(dict.fromkeys(near))[:3]
