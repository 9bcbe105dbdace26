"""What is computed from a summary, with plain values in and out, as tests write them down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from loadbench import metrics
from loadbench.metrics import gates, machine, models, slo
from loadbench.stats import scaling as curves
from loadbench.store.schema import ModelTurn, RunFacts, ScenarioFacts
from loadbench.store.summary import Level, Step, Summary, as_mapping

Plain = dict[str, Any]


def level(known: Mapping[str, Any]) -> Level:
    return msgspec.convert(known, Level)


def levels(known: Sequence[Mapping[str, Any]]) -> list[Level]:
    return [level(one) for one in known]


def warnings(known: Mapping[str, Any], scenario: Mapping[str, Any] | None = None) -> list[Plain]:
    return [as_mapping(one) for one in gates.warnings(level(known), msgspec.convert(scenario or {}, ScenarioFacts))]


def thresholds(known: Sequence[Mapping[str, Any]], written: Sequence[Any]) -> list[Plain]:
    return [as_mapping(row) for row in slo.thresholds(levels(known), written)]


def scaling(known: Sequence[Mapping[str, Any]]) -> list[Plain]:
    return [as_mapping(curve) for curve in curves.scaling(levels(known))]


def entries(known: Sequence[Mapping[str, Any]]) -> list[Plain]:
    return [as_mapping(entry) for entry in metrics.repeats(levels(known))]


def over_runs(values: Sequence[float | None]) -> Plain:
    return as_mapping(metrics.over_runs(values))


def searched(info: Mapping[str, Any]) -> Plain:
    found = slo.capacities(info)
    return {
        "capacity": None if found is None else [as_mapping(one) for one in found],
        "capacity_concurrency": slo.answer(found, "concurrency"),
        "capacity_rate_per_s": slo.answer(found, "rate"),
    }


def estimate(steps: Sequence[Mapping[str, Any]], by: str | None) -> Plain | None:
    found = slo.estimate(msgspec.convert(list(steps), list[Step]), by)
    return None if found is None else as_mapping(found)


def sampled(
    samples: Sequence[Mapping[str, Any]],
    info: Mapping[str, Any],
    *,
    duration_s: float | None = None,
    tokens: int | None = None,
    device: str | None = None,
) -> Plain:
    """What samples tell of a level."""
    found = Level(duration_s=duration_s, output_tokens_spent=tokens, device=device)
    machine.add_figures(found, machine.typed(samples), msgspec.convert(info, RunFacts))
    fields = Level.__struct_fields__
    told = as_mapping(found)
    return {name: told[name] for name in fields[fields.index("server_memory_peak_bytes") :]}


def ran(turn: Mapping[str, Any]) -> Plain | None:
    found = models.ran(msgspec.convert(turn, ModelTurn))
    return None if found is None else as_mapping(found)


def energy(
    samples: Sequence[Mapping[str, Any]],
    gpus: Sequence[int],
    scenario: Mapping[str, Any],
    *,
    duration_s: float,
    tokens: int | None,
) -> Plain:
    found = Level(duration_s=duration_s, output_tokens_spent=tokens)
    machine.add_energy(found, machine.typed(samples), gpus, msgspec.convert(scenario, ScenarioFacts))
    names = (
        "energy_j",
        "energy_source",
        "j_per_1000_tokens",
        "wh_per_1000_tokens",
        "cost_per_1000_tokens",
        "cost_per_million_tokens",
    )
    return {name: getattr(found, name) for name in names}


def records(info: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> list[Plain]:
    return [as_mapping(one) for one in models.records(msgspec.convert(info, RunFacts), levels(known))]


def summary(known: Mapping[str, Any]) -> Summary:
    return msgspec.convert(known, Summary)
