"""Choose models: from what a person named, or from what the server has, for the devices that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from loadbench.errors import TargetError
from loadbench.server import advice
from loadbench.server.device import is_for_device, is_for_provider, is_same, placed, stem_of_id
from loadbench.server.facts import Absent, Choice, Chosen, Kind, ModelFacts, Target

_NO_CHAT = ("embed", "speech", "transcri", "rerank")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A variant to look for: device in upper case and execution provider, None where any will do."""

    device: str | None
    execution_provider: str | None
    alone: bool  # no other device was asked for

    def __str__(self) -> str:
        with_it = f"with {self.execution_provider}" if self.execution_provider else ""
        return " ".join(part for part in (self.device or "", with_it) if part)


def choose(
    target: Target,
    wanted: Sequence[str] | Literal["auto"],
    *,
    devices: Sequence[str] = (),
    execution_provider: str | None = None,
) -> Choice:
    """The models to measure, each once, in the order wanted and each device in the order asked.

    Where the server does not tell what a model runs on, a single device or provider that was asked is taken on trust.

    Args:
        wanted: Ids, aliases or unambiguous names, upper or lower case; ``auto`` takes the loaded models, else the
            cached ones, else those registered, else all that a server lists which says neither.
        devices: ``cpu``, ``gpu``, ``npu`` in any casing: a variant of each model for each of them.
        execution_provider: Long or short, e.g. ``cuda``, ``WebGpuExecutionProvider``.
    Raises:
        TargetError: The server has none, or not that one: names the nearest, or those of the wanted that are there;
            or none of the models is for what was asked.
    """
    if target.kind.startswith("foundry"):
        target = replace(target, models=tuple(placed(facts) for facts in target.models))
    names = tuple(dict.fromkeys(device.strip().upper() for device in devices))
    asked = [_Asked(device, execution_provider, len(names) < 2) for device in names or (None,)]
    if wanted == "auto":
        choice = _automatic(target, asked)
    elif target.unlisted is not None or (not target.models and target.kind not in advice.LOAD):
        choice = _unseen(wanted, asked)
    else:
        choice = _named(target, wanted, asked)
    if not choice.chosen:
        raise TargetError(advice.nothing_left(target, choice.absent))
    seen = {one.id: one for one in reversed(choice.chosen)}
    return replace(choice, chosen=tuple(one for one in choice.chosen if seen[one.id] is one))


def _unseen(wanted: Sequence[str], asked: Sequence[_Asked]) -> Choice:
    """Models that no list shows."""
    first = asked[0]
    if first.alone:
        return Choice(tuple(Chosen(name, name, None, first.device, first.execution_provider) for name in wanted))
    return Choice((), tuple(_absent(name, one, _untold(f"{name} runs")) for name in wanted for one in asked))


def _named(target: Target, wanted: Sequence[str], asked: Sequence[_Asked]) -> Choice:
    if not target.models:
        raise TargetError(advice.empty(target))
    matches = {name: _matches(target, name) for name in wanted}
    chosen: list[Chosen] = []
    absent: list[Absent] = []
    missing: list[str] = []
    for name, found in matches.items():
        for one in asked:
            fitting = _fitting(found, one)
            if fitting:
                chosen.append(_chosen(_one_of(fitting, name, target.kind, one), name, one))
            elif not found:
                missing.append(name)
                break
            else:
                absent.append(_absent(name, one, _mismatch(name, found, one)))
    if missing:
        raise TargetError(advice.absent(target, missing, [name for name in matches if name not in missing]))
    return Choice(tuple(chosen), tuple(absent))


def _automatic(target: Target, asked: Sequence[_Asked]) -> Choice:
    if target.unlisted is not None:
        raise TargetError(f"{target.unlisted}, so its models are not known: name one with -m MODEL")
    if not target.models:
        raise TargetError(advice.empty(target))
    chatting = [facts for facts in target.models if not any(word in (facts.task or "") for word in _NO_CHAT)]
    chosen: list[Chosen] = []
    absent: list[Absent] = []
    for one in asked:
        fitting = _fitting(chatting, one)
        ready = _ready(target.kind, fitting)
        chosen += [_chosen(facts, facts.id, one) for facts in ready]
        if ready:
            continue
        if not str(one):
            raise TargetError(advice.idle(target))
        if fitting:
            reason = f"no model for {one} is loaded or cached ({advice.some(fitting)}): load one, or name it with -m"
        elif one.alone or any(facts.device for facts in chatting):
            reason = f"no model is {'for ' if one.device else 'there '}{one}"
        else:
            reason = _untold("its models run")
        absent.append(_absent("auto", one, reason))
    return Choice(tuple(chosen), tuple(absent))


def _ready(kind: Kind, models: Sequence[ModelFacts]) -> list[ModelFacts]:
    """Models that can be measured without a download that nobody asked for."""
    for known in (
        [facts for facts in models if facts.loaded],
        [facts for facts in models if facts.cached],
        [facts for facts in models if facts.base_url is not None],
    ):
        if known:
            return known
    # Foundry Local lists its whole catalog: gigabytes that nobody asked to download.
    if kind in ("foundry1", "foundry2"):
        return []
    return [facts for facts in models if facts.loaded is None and facts.cached is None]


def _fitting(models: Sequence[ModelFacts], asked: _Asked) -> list[ModelFacts]:
    """The models for a device and provider; those on trust of which nothing is told."""
    fitting = list(models)
    if asked.device is not None:
        device = asked.device
        told = [facts for facts in fitting if facts.device is not None]
        fitting = [facts for facts in told if is_for_device(facts, device)] if told or not asked.alone else fitting
    if asked.execution_provider is not None:
        provider = asked.execution_provider
        fits = [facts for facts in fitting if is_for_provider(facts, provider)]
        told = [facts for facts in models if facts.execution_provider is not None]
        fitting = fits if fits or told else fitting
    return fitting


def _matches(target: Target, name: str) -> list[ModelFacts]:
    """All models that a person may mean by a name, by the narrowest reading that finds one."""
    for facts in target.models:
        if facts.id == name:
            return [facts]
    sought = name.strip().lower()
    is_foundry = target.kind.startswith("foundry")
    families = (_instruct, _family) if is_foundry else ()
    versions = (_other_version,) if is_foundry else ()
    for names in (_ids, *versions, _told_names, _short_names, *families):
        if matches := [facts for facts in target.models if names(facts, sought)]:
            return matches
    return []


def _ids(facts: ModelFacts, sought: str) -> bool:
    return facts.id.lower() == sought


def _other_version(facts: ModelFacts, sought: str) -> bool:
    """Foundry Local 1.x lists ids without their version, and its SDK tells them with it."""
    return ":" not in facts.id and is_same(facts.id, sought)


def _told_names(facts: ModelFacts, sought: str) -> bool:
    return any(alias.lower() == sought for alias in facts.aliases)


def _short_names(facts: ModelFacts, sought: str) -> bool:
    """Without version or tag, without the organisation in front."""
    name = facts.id.lower()
    return sought in (name.partition(":")[0], name.rpartition("/")[2], name.partition(":")[0].rpartition("/")[2])


def _instruct(facts: ModelFacts, sought: str) -> bool:
    """Foundry Local's aliases are its ids without device, and without the word that most of them have."""
    return stem_of_id(facts.id).lower() in (sought, sought + "-instruct")


def _family(facts: ModelFacts, sought: str) -> bool:
    """Foundry Local's ids go on where its aliases end: phi-4-mini, phi-4-mini-instruct-generic-cpu:5."""
    return facts.id.lower().startswith(sought + "-")


def _one_of(matches: list[ModelFacts], name: str, kind: Kind, asked: _Asked) -> ModelFacts:
    for narrower in (
        [facts for facts in matches if facts.loaded],
        [facts for facts in matches if facts.cached],
        [facts for facts in matches if facts.id.endswith(":latest")] if kind == "ollama" else [],
    ):
        matches = narrower or matches
    if asked.device is not None and len({stem_of_id(facts.id) for facts in matches}) == 1:
        # Several providers for one device: the server's first.
        first = matches[0].id.partition(":")[0]
        matches = [facts for facts in matches if facts.id.partition(":")[0] == first]
    if len({facts.id for facts in matches}) == 1:
        return matches[0]
    # The same variant in several versions: the newest, as the server's own alias does.
    if len({facts.id.partition(":")[0] for facts in matches}) == 1 and all(_version(facts) for facts in matches):
        return max(matches, key=_version)
    raise TargetError(advice.ambiguous(name, matches))


def _version(facts: ModelFacts) -> int:
    number = facts.id.partition(":")[2]
    return int(number) if number.isdecimal() else 0


def _chosen(facts: ModelFacts, name: str, asked: _Asked) -> Chosen:
    return Chosen(facts.id, name, facts, asked.device, asked.execution_provider)


def _absent(name: str, asked: _Asked, reason: str) -> Absent:
    return Absent(name, asked.device, asked.execution_provider, reason)


def _mismatch(name: str, found: Sequence[ModelFacts], asked: _Asked) -> str:
    if asked.device and not asked.alone and not any(facts.device for facts in found):
        return _untold(f"{name} runs")
    provider = bool(asked.execution_provider)
    kinds = dict.fromkeys(
        " with ".join(part for part in (facts.device, facts.execution_provider if provider else None) if part)
        or "an unknown device"
        for facts in found
    )
    return f"{name} is for {', '.join(kinds)}, not for {asked}"


def _untold(what: str) -> str:
    return f"which device {what} on is not told there, so devices cannot be set apart: ask for one alone"
