"""What a run knows of each model beside its levels: where it ran, its cold start, its memory, its files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Model = dict[str, Any]

_TOGETHER = (("load_s", "load_source"), ("disk_bytes", "disk_source"))
"""Fields that belong to one another: the second says where the first comes from."""
_OF_LAST = ("load_error", "was_loaded")
"""Fields of the last turn alone: a load that failed once may succeed later."""
_VARIANT = re.compile(r"-(cpu|gpu|npu)(?::\d+)?$", re.IGNORECASE)


def records(info: Mapping[str, Any], levels: Sequence[Mapping[str, Any]]) -> list[Model]:
    """One record a model, in the order of the run: all its turns merged, with what the server's list says of it.

    Args:
        info: run.json; a resumed run has a turn more for a model: its values win, earlier ones fill up.
        levels: Entries of summary.json's `levels`, for the peaks.
    """
    turns = _turns(info)
    ids = dict.fromkeys([*turns, *(str(level.get("model")) for level in levels)])
    return [_record(model, turns.get(model, []), info, levels) for model in ids]


def what_ran(info: Mapping[str, Any]) -> dict[str, dict[str, Any] | None]:
    """By model, what the server ran: see `ran`."""
    return {model: ran(merged(turns)) for model, turns in _turns(info).items()}


def _turns(info: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    turns: dict[str, list[Mapping[str, Any]]] = {}
    for record in info.get("models") or ():
        if isinstance(record, Mapping):
            turns.setdefault(str(record.get("model")), []).append(record)
    return turns


def _record(
    model: str, turns: Sequence[Mapping[str, Any]], info: Mapping[str, Any], levels: Sequence[Mapping[str, Any]]
) -> Model:
    told = merged(turns)
    known = (info.get("target") or {}).get("models") or ()
    facts: Mapping[str, Any] = next((m for m in known if isinstance(m, Mapping) and m.get("id") == model), {})
    own = [level for level in levels if level.get("model") == model]
    aliases = facts.get("aliases") or ()
    gpu = max(own, key=lambda level: level.get("gpu_memory_peak_bytes") or 0, default={})
    probes = [p for p in info.get("probes") or () if isinstance(p, Mapping) and p.get("model") == model]
    return {
        "id": model,
        "name": told.get("name"),
        "alias": told.get("alias") or (aliases[0] if aliases else None),
        "device": facts.get("device"),
        "execution_provider": facts.get("execution_provider"),
        **{name: told.get(name) for name in ("asked_device", "asked_execution_provider")},
        "ran": ran(told),
        "served_as": told.get("served_as"),
        **{name: facts.get(name) for name in ("licence", "quantization", "context", "size_bytes")},
        **{name: told.get(name) for name in ("disk_bytes", "disk_source", "was_loaded")},
        **{name: told.get(name) for name in ("load_s", "load_source", "load_error")},
        "memory_before_load_bytes": told.get("memory_before_load_bytes"),
        "memory_after_load_bytes": told.get("memory_after_load_bytes"),
        "memory_peak_bytes": max((b for level in own if (b := level.get("server_memory_peak_bytes"))), default=None),
        "memory_after_unload_bytes": told.get("memory_after_unload_bytes"),
        "gpu_memory_peak_bytes": gpu.get("gpu_memory_peak_bytes"),
        "gpu_memory_source": gpu.get("gpu_memory_source"),
        **{purpose: _probe(purpose, probes) for purpose in ("first", "warm", "idle", "kept_warm")},
    }


def devices_by_name(info: Mapping[str, Any]) -> set[str]:
    """The models, by id, whose device is told by a name alone, and by nobody who saw it."""
    known = (info.get("target") or {}).get("models") or ()
    return {str(one["id"]) for one in known if isinstance(one, Mapping) and one.get("device_by_name") and one.get("id")}


def merged(turns: Sequence[Mapping[str, Any]]) -> Model:
    """The turns of one model as one: later values win, earlier ones fill up what is None.

    >>> merged([{"load_s": 2.0, "load_error": "no"}, {"load_s": None, "load_error": None}])
    {'load_s': 2.0, 'load_error': None}
    """
    found: Model = {}
    for turn in turns:
        paired = {name: turn.get(first) for first, second in _TOGETHER for name in (first, second)}
        found |= {
            name: value for name, value in turn.items() if paired.get(name, value) is not None or name not in found
        }
    last = turns[-1] if turns else {}
    return found | {name: last.get(name) for name in _OF_LAST if name in found}


def ran(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """What ran: id, device and execution provider, as the server's lists say, or the name that it answered by.

    Foundry Local's names tell the device; one in an answer is nearer to the truth than a list.

    >>> ran({"ran": None, "served_as": "phi-4-mini-instruct-generic-cpu:5"})
    {'id': 'phi-4-mini-instruct-generic-cpu:5', 'device': 'CPU', 'execution_provider': None}
    """
    listed, name = told.get("ran"), str(told.get("served_as") or "")
    found = _VARIANT.search(name)
    if found is None or (listed and _first(listed.get("device")) == found[1].upper()):
        return dict(listed) if listed else None
    return {"id": name, "device": found[1].upper(), "execution_provider": None}


def _first(device: Any) -> str:
    return str(device or "").upper().partition("+")[0]


def _probe(purpose: str, probes: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The last request of its kind that was answered, else the last; of first ones rather one that was cold."""
    of_kind = [probe for probe in probes if probe.get("purpose") == purpose]
    answered = [probe for probe in of_kind if probe.get("error") is None]
    cold = [probe for probe in answered if probe.get("cold")] if purpose == "first" else []
    chosen = next((some[-1] for some in (cold, answered, of_kind) if some), None)
    names = ("ttft_ms", "e2e_ms", "cold", "after_s", "every_s", "requests", "error")
    return None if chosen is None else {name: chosen.get(name) for name in names}
