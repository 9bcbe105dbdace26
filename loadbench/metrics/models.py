"""What a run knows of each model beside its levels: where it ran, its cold start, its memory, its files."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from loadbench.store.record import Facts, Json
from loadbench.store.schema import ModelFacts, ModelTurn, ProbeFacts, RunFacts
from loadbench.store.summary import Level, Model, Probe, Ran

# Fields that say where another one comes from, and are taken with it alone.
_TOGETHER = {"load_source": "load_s", "disk_source": "disk_bytes"}
# Fields of the last turn alone: a load that failed once may succeed later.
_OF_LAST = ("load_error", "was_loaded")
_VARIANT = re.compile(r"-(cpu|gpu|npu)(?::\d+)?$", re.IGNORECASE)
_OF_TURN = set(ModelTurn.__struct_fields__).intersection(Model.__struct_fields__)
_OF_LIST = set(ModelFacts.__struct_fields__).intersection(Model.__struct_fields__)


def records(info: RunFacts, levels: Sequence[Level]) -> list[Model]:
    """One record a model, in the order of the run: all its turns merged, with what the server's list says of it.

    Args:
        info: A resumed run has a turn more for a model: its values win, earlier ones fill up.
        levels: For the peaks.
    """
    turns = _turns(info)
    for level in levels:  # a model whose turn was not recorded has its levels alone
        turns.setdefault(str(level.model), [])
    return [_record(model, merged(of_model), info, levels) for model, of_model in turns.items()]


def what_ran(info: Facts) -> dict[str, Ran | None]:
    """By model, what the server ran: see `ran`.

    Args:
        info: run.json.
    """
    models = _turns(msgspec.convert({"models": info.get("models")}, RunFacts))
    return {model: ran(merged(turns)) for model, turns in models.items()}


def _turns(info: RunFacts) -> dict[str, list[ModelTurn]]:
    turns: dict[str, list[ModelTurn]] = {}
    for turn in info.models or ():
        turns.setdefault(str(turn.model), []).append(turn)
    return turns


def listed(info: RunFacts) -> Sequence[ModelFacts]:
    """The models of the server's list."""
    if info.target is None:
        return ()
    return info.target.models or ()


def _record(model: str, turn: ModelTurn, info: RunFacts, levels: Sequence[Level]) -> Model:
    facts = next((one for one in listed(info) if one.id == model), ModelFacts())
    fields: Json = {}
    for source, names in ((facts, _OF_LIST), (turn, _OF_TURN)):
        for name in names:
            fields[name] = getattr(source, name)
    fields |= {"id": model, "ran": ran(turn)}
    if facts.aliases and not turn.alias:
        fields["alias"] = facts.aliases[0]
    probes = [probe for probe in info.probes or () if probe.model == model]
    for purpose in ("first", "warm", "idle", "kept_warm"):
        fields[purpose] = _probe(purpose, probes)
    own = [level for level in levels if level.model == model]
    fields["memory_peak_bytes"] = max((level.server_memory_peak_bytes or 0 for level in own), default=0) or None
    gpu = max(own, key=lambda level: level.gpu_memory_peak_bytes or 0, default=Level())
    fields |= {"gpu_memory_peak_bytes": gpu.gpu_memory_peak_bytes, "gpu_memory_source": gpu.gpu_memory_source}
    return Model(**fields)


def merged(turns: Sequence[ModelTurn]) -> ModelTurn:
    """The turns of one model as one: later values win, earlier ones fill up what is None.

    >>> merged([ModelTurn(load_s=2.0, load_error="no"), ModelTurn(name="m")]).load_s
    2.0
    """
    found: Json = {}
    for turn in turns:
        for name in turn.__struct_fields__:
            value = getattr(turn, name)
            decides = getattr(turn, _TOGETHER.get(name, name))
            if decides is not None or name in _OF_LAST:
                found[name] = value
    return ModelTurn(**found)


def ran(turn: ModelTurn) -> Ran | None:
    """What ran: id, device and execution provider, as the server's lists say, or the name that it answered by.

    Foundry Local's names hold the device; one in an answer is nearer to the truth than a list.

    >>> ran(ModelTurn(served_as="phi-4-mini-instruct-generic-cpu:5"))
    Ran(id='phi-4-mini-instruct-generic-cpu:5', device='CPU', execution_provider=None)
    """
    name = turn.served_as or ""
    found = _VARIANT.search(name)
    if found is None or (turn.ran is not None and first_device(turn.ran.device) == found[1].upper()):
        return turn.ran
    return Ran(id=name, device=found[1].upper())


def first_device(device: str | None) -> str:
    """Of a model that is split over two devices, as GPU+CPU, the first counts."""
    return (device or "").strip().upper().partition("+")[0]


def _probe(purpose: str, probes: Sequence[ProbeFacts]) -> Probe | None:
    """The last request of its kind that was answered, else the last; of first ones rather one that was cold."""

    def worth(probe: ProbeFacts) -> tuple[bool, bool]:
        return probe.error is None, probe.error is None and purpose == "first" and bool(probe.cold)

    of_kind = [probe for probe in reversed(probes) if probe.purpose == purpose]
    chosen = max(of_kind, key=worth, default=None)  # the first of equals, which is the last that was sent
    if chosen is None:
        return None
    return Probe(**{name: getattr(chosen, name) for name in Probe.__struct_fields__})
