"""Choose models: from the names that a person gives, or from what the server has, for given devices."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from loadbench.errors import TargetError
from loadbench.server.facts import ModelFacts, Target
from loadbench.server.foundry import short_provider, stem_of_id, version_of_id, without_version
from loadbench.server.lookup import VENDORS
from loadbench.server.vendor import Reading

_NO_CHAT = re.compile("embed|speech|transcri|rerank")
_SHOWN = 5
_CLOSE = 0.6  # difflib's own: below it, words are offered that share no more than a few letters


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model to measure.

    Attributes:
        id: What requests must name.
        name: As the person gave it.
        facts: None where the server lists no such model and it is taken on trust.
        device, execution_provider: As the person gave them, the device in upper case; None where any will do.
    """

    id: str
    name: str
    facts: ModelFacts | None = None
    device: str | None = None
    execution_provider: str | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """A variant that is not there, and why, in one line."""

    name: str
    device: str | None
    execution_provider: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What will be measured, and what cannot be."""

    chosen: tuple[Chosen, ...]
    absent: tuple[Absent, ...] = ()


@dataclass(frozen=True, slots=True)
class _Variant:
    """A variant to look for: device in upper case and execution provider, None where any will do."""

    device: str | None
    execution_provider: str | None

    def __str__(self) -> str:
        text = self.device or ""
        if self.execution_provider:
            text += f" with {self.execution_provider}"
        return text.strip()

    def chosen(self, facts: ModelFacts, name: str) -> Chosen:
        return Chosen(facts.id, name, facts, self.device, self.execution_provider)

    def absent(self, name: str, reason: str) -> Absent:
        return Absent(name, self.device, self.execution_provider, reason)

    def fitting(self, models: Sequence[ModelFacts], *, alone: bool) -> list[ModelFacts]:
        """The models for it; on trust, those that do not say what they are for, where only one device is wanted."""
        fitting = list(models)
        if self.device is not None and (not alone or _devices(models)):
            # Of a model that is split over two devices, the first counts.
            fitting = [facts for facts in models if (facts.device or "").upper().partition("+")[0] == self.device]
        if self.execution_provider is not None:
            sought = short_provider(self.execution_provider)
            fits = []
            for facts in fitting:
                provider = facts.execution_provider or ""
                if not provider and "-generic-gpu" in facts.id.lower():
                    provider = "webgpu"  # in Foundry's catalog, the generic variants for GPUs are WebGPU's
                if short_provider(provider) == sought:
                    fits.append(facts)
            if fits or any(facts.execution_provider is not None for facts in models):
                fitting = fits
        return fitting


def choose(
    target: Target,
    names: Sequence[str] | Literal["auto"],
    *,
    devices: Sequence[str] = (),
    execution_provider: str | None = None,
) -> Choice:
    """The models to measure, each once, in their order and each device in the order of `devices`.

    Where the server does not say what a model runs on, a single device or provider is taken on trust.

    Args:
        names: Ids, aliases or unambiguous names, upper or lower case; ``auto`` takes the loaded models, else the
            cached ones, else those registered, else all that a server lists which says neither.
        devices: ``cpu``, ``gpu``, ``npu`` in any casing: a variant of each model for each of them.
        execution_provider: Long or short, e.g. ``cuda``, ``WebGpuExecutionProvider``.
    Raises:
        TargetError: The server has none, or not that one: names the nearest, or those of the names that are there;
            or none of the models is for these devices.
    """
    vendor = VENDORS[target.kind]
    target = replace(target, models=tuple(map(vendor.placed, target.models)))
    names_of_devices = dict.fromkeys(device.strip().upper() for device in devices)
    variants = [_Variant(device, execution_provider) for device in names_of_devices or (None,)]
    if names == "auto":
        choice = _automatic(target, variants)
    elif target.unlisted is not None or (not target.models and vendor.load_hint is None):
        # No list shows them: one device is taken on trust, several cannot be set apart.
        chosen: list[Chosen] = []
        absent: list[Absent] = []
        for name in names:
            if len(variants) == 1:
                chosen.append(Chosen(name, name, None, variants[0].device, execution_provider))
                continue
            for variant in variants:
                absent.append(variant.absent(name, _no_devices(f"{name} runs")))
        choice = Choice(tuple(chosen), tuple(absent))
    else:
        choice = _named(target, names, variants)
    if not choice.chosen:
        reasons = "; ".join(dict.fromkeys(one.reason for one in choice.absent))
        if there := ", ".join(_devices(target.models)):
            reasons += f"; models there are for {there}: ask for one with --device"
        raise TargetError(f"nothing to measure at {target.base_url}: {reasons}")
    by_id: dict[str, Chosen] = {}
    for one in choice.chosen:
        by_id.setdefault(one.id, one)
    return replace(choice, chosen=tuple(by_id.values()))


def _named(target: Target, names: Sequence[str], variants: Sequence[_Variant]) -> Choice:
    if not target.models:
        raise TargetError(_empty(target))
    matches = {name: _matches(target, name) for name in names}
    alone = len(variants) == 1
    chosen: list[Chosen] = []
    absent: list[Absent] = []
    missing, present = [], []
    for name, models in matches.items():
        if not models:
            missing.append(name)
            continue
        present.append(name)
        for variant in variants:
            fitting = variant.fitting(models, alone=alone)
            if fitting:
                chosen.append(variant.chosen(_one_of(target, fitting, name, variant), name))
            else:
                absent.append(variant.absent(name, _mismatch(name, models, variant, alone=alone)))
    if missing:
        raise TargetError(_missing(target, missing, present))
    return Choice(tuple(chosen), tuple(absent))


def _automatic(target: Target, variants: Sequence[_Variant]) -> Choice:
    if target.unlisted is not None:
        raise TargetError(f"{target.unlisted}, so its models are not known: name one with -m MODEL")
    if not target.models:
        raise TargetError(_empty(target))
    chatting = [facts for facts in target.models if not _NO_CHAT.search(facts.task or "")]
    alone = len(variants) == 1
    chosen: list[Chosen] = []
    absent: list[Absent] = []
    for variant in variants:
        fitting = variant.fitting(chatting, alone=alone)
        ready = _ready(fitting, lists_catalogue=VENDORS[target.kind].lists_catalogue)
        chosen += [variant.chosen(facts, facts.id) for facts in ready]
        if ready:
            continue
        if not str(variant):
            advice = _load_hint(target, "load one there")
            raise TargetError(
                f"no model is loaded at {target.base_url}: {advice}, or name one with -m ({some(target.models)})"
            )
        if fitting:
            reason = f"no model for {variant} is loaded or cached ({some(fitting)}): load one, or name it with -m"
        elif variant.device and (alone or _devices(chatting)):
            reason = f"no model is for {variant}"
        elif alone:
            reason = f"no model is there {variant}"
        else:
            reason = _no_devices("its models run")
        absent.append(variant.absent("auto", reason))
    return Choice(tuple(chosen), tuple(absent))


def _ready(models: Sequence[ModelFacts], *, lists_catalogue: bool) -> list[ModelFacts]:
    """Models that can be measured without a download."""
    ready = _first_that_any_pass(
        models, lambda facts: facts.loaded, lambda facts: facts.cached, lambda facts: facts.base_url is not None
    )
    # A whole catalog: gigabytes that nobody asked to download.
    if ready or lists_catalogue:
        return ready
    return [facts for facts in models if facts.loaded is None and facts.cached is None]


def _first_that_any_pass(models: Sequence[ModelFacts], *tests: Callable[[ModelFacts], bool | None]) -> list[ModelFacts]:
    for test in tests:
        passing = [facts for facts in models if test(facts)]
        if passing:
            return passing
    return []


def _matches(target: Target, name: str) -> list[ModelFacts]:
    for facts in target.models:
        if facts.id == name:
            return [facts]
    vendor, sought = VENDORS[target.kind], name.strip().lower()
    readings: list[Reading] = [
        lambda sought, facts: facts.id.lower() == sought,
        *vendor.exact_names,
        lambda sought, facts: sought in map(str.lower, facts.aliases),
        _is_short_name,
        *vendor.loose_names,
    ]
    return _first_that_any_pass(target.models, *(partial(reading, sought) for reading in readings))


def _is_short_name(sought: str, facts: ModelFacts) -> bool:
    """Without version or tag, without the organisation in front."""
    name, bare = facts.id.lower(), without_version(facts.id).lower()
    return sought in (bare, name.rpartition("/")[2], bare.rpartition("/")[2])


def _one_of(target: Target, matches: list[ModelFacts], name: str, variant: _Variant) -> ModelFacts:
    # Ollama's `phi4` is phi4:latest, even where phi4:14b is loaded.
    preferred = VENDORS[target.kind].preferred
    matches = (
        _first_that_any_pass(matches, preferred, lambda facts: facts.cached, lambda facts: facts.loaded) or matches
    )
    ids = [facts.id for facts in matches]
    if variant.device is not None and len(set(map(stem_of_id, ids))) == 1:
        # Several providers for one device: the server's first.
        first = without_version(ids[0])
        matches = [facts for facts in matches if without_version(facts.id) == first]
        ids = [facts.id for facts in matches]
    if len(set(ids)) == 1:
        return matches[0]
    # The same variant in several versions: the newest, as the server's own alias does.
    if len(set(map(without_version, ids))) == 1 and all(map(version_of_id, ids)):
        return max(matches, key=lambda facts: version_of_id(facts.id))
    advice = "name one in full with -m"
    devices = _devices(matches)
    if len(devices) > 1:
        advice += f", or say which device with --device ({', '.join(devices)})"
    raise TargetError(f"{name!r} may be any of {some(matches)}: {advice}")


def _devices(models: Iterable[ModelFacts]) -> list[str]:
    return sorted({facts.device.lower() for facts in models if facts.device})


# -- what to do where a model is not there


def some(models: Iterable[ModelFacts | str]) -> str:
    """The first few ids, and how many more there are."""
    ids = list(dict.fromkeys(one if isinstance(one, str) else one.id for one in models))
    shown = ", ".join(ids[:_SHOWN])
    if len(ids) > _SHOWN:
        shown += f" and {len(ids) - _SHOWN} more"
    return shown


def _mismatch(name: str, models: Sequence[ModelFacts], variant: _Variant, *, alone: bool) -> str:
    if variant.device and not alone and not _devices(models):
        return _no_devices(f"{name} runs")
    kinds = []
    for facts in models:
        parts = [facts.device]
        if variant.execution_provider:  # else it is the device that does not fit
            parts.append(facts.execution_provider)
        kinds.append(" with ".join(filter(None, parts)) or "an unknown device")
    return f"{name} is for {', '.join(dict.fromkeys(kinds))}, not for {variant}"


def _no_devices(what: str) -> str:
    return f"which device {what} on is not told there, so devices cannot be set apart: ask for one alone"


def _empty(target: Target) -> str:
    advice = _load_hint(target, "load one there, or name one with -m MODEL")
    return f"{target.models_url} lists no model: {advice}"


def _missing(target: Target, names: Sequence[str], present: Sequence[str]) -> str:
    """What to do about models that are not there; `present` are the other names."""
    *others, last = map(repr, names)
    absent = " or ".join(filter(None, (", ".join(others), last)))
    sentence = f"{target.base_url} has no model {absent}"
    hint = VENDORS[target.kind].pull_hint
    if target.is_ours:
        hint = "pull {them} with `loadbench models pull {name}`"
    pull = hint.format(them="them", name="NAME")
    near: list[str] = []
    if len(names) == 1:
        pull = hint.format(them="it", name=shlex.quote(names[0]))
        near = _near(target.models, names[0])
    if present:
        options = " ".join(f"-m {shlex.quote(name)}" for name in present)
        return f"{sentence}: measure the others with {options}, or {pull}"
    if near:
        return f"{sentence}: did you mean {' or '.join(near)}?"
    return f"{sentence}: it has {some(target.models)}: name one with -m, take what it has with -m auto, or {pull}"


def _near(models: Sequence[ModelFacts], name: str) -> list[str]:
    sought = name.strip().lower()
    ids = {}
    for facts in models:
        for alias in (*facts.aliases, facts.id):
            ids[alias.lower()] = facts.id
    near = [ids[close] for close in difflib.get_close_matches(sought, ids, n=3, cutoff=_CLOSE)]
    near += [facts.id for facts in models if sought and sought in facts.id.lower()]
    return list(dict.fromkeys(near))[:3]


def _load_hint(target: Target, otherwise: str) -> str:
    if target.is_ours:  # it loads by itself what it has
        return "pull one with `loadbench models pull NAME`"
    return VENDORS[target.kind].load_hint or otherwise
