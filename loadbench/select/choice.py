"""A choice as one record of plain values, for reports and for programs (docs/select.md); models.json written back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np

from loadbench import compare
from loadbench.errors import StoreError, UsageError
from loadbench.select import rank
from loadbench.select.basis import Basis, Terms, basis_of, doubts, falls_out
from loadbench.select.candidates import Candidate, Measured, candidates, load_words, scores
from loadbench.select.needs import COMPARED, declared, unit
from loadbench.select.rank import CRITERIA, criterion_of, shares
from loadbench.store import Run
from loadbench.store.summary import Summary, as_mapping, significant

Record = dict[str, Any]
SCHEMA = 1
CLOSE, FIRM = 0.8, 0.95
"""Shares of draws below which a lead is close, and from which on it is firm."""


def choose(some: Sequence[Candidate], runs: Sequence[Measured], terms: Terms | None = None) -> Record:
    """Needs first, then the Pareto front and the weighted rank of what is left, with what speaks against it.

    Args:
        some: At least one candidate (`candidates`).
        runs: The runs that they come from.
        terms: The usual ones by default.
    Raises:
        UsageError: No load is common to them, or none of them completed the one of the terms.
    """
    basis = basis_of(some, terms or Terms())
    rows = [_row(one, basis) for one in some]
    _place({row["name"]: row for row in rows}, basis)
    load = next(one.loads[basis.load] for one in some if basis.load in one.loads)
    policy = basis.terms.policy
    record: Record = {
        "schema": SCHEMA,
        "runs": [_run(one) for one in runs],
        "load": {"name": basis.load, "words": load_words(load), "asked": basis.terms.at is not None},
        "needs": [need.text for need in basis.terms.needs],
        "missing": basis.terms.missing,
        "criteria": [],
        "usual_weights": policy.usual,
        "figures": [_declared(name, basis.shares) for name in COMPARED if basis.figures.get(name)],
        "candidates": sorted(rows, key=lambda row: (row["rank"] is None, row["rank"] or 0)),
        "winner": None,
        "robustness": None,
        "would_change": {"weight": None, "figures": [], "unknown": []},
        "doubts": [],
    }
    # Which figures would count if the criterion had a weight: reports show it beside the weights.
    with_any_weight = shares(dict.fromkeys(policy.weights, 1.0), basis.counts)
    for one in CRITERIA:
        record["criteria"].append(
            {
                "name": one.name,
                "label": one.label,
                "weight": policy.weights[one.name],
                "share": sum(basis.shares.get(name, 0.0) for name in one.figures),
                "figures": [name for name in one.figures if name in with_any_weight],
            }
        )
    if not basis.order:  # all fell out: there is no winner to speak against
        return record
    record["winner"] = basis.ranked[0].name
    wins = basis.win(basis.order[0])
    word = "close"
    if wins["both"] >= FIRM:
        word = "firm"
    elif wins["both"] >= CLOSE:
        word = "likely"
    draws = {"draws": basis.terms.draws, "seed": basis.terms.seed, "weights_spread": rank.SPREAD}
    record["robustness"] = {**draws, "winner": wins, "word": word}
    if len(basis.order) > 1 and basis.shares:
        record["would_change"] = _would_change(basis)
    for doubt in doubts(basis, alone=len(some) == 1, close=word == "close"):
        about = {"severity": doubt.severity, "code": doubt.code, "about": doubt.where}
        record["doubts"].append({**about, "text": doubt.text})
    return record


def _row(one: Candidate, basis: Basis) -> Record:
    facts = one.facts
    found = {}
    for name, values in basis.figures.items():
        if one.name in values:
            found[name] = {**asdict(values[one.name]), "unit": unit(name)}
    needs = basis.met.get(one.name, ())
    out = []
    if basis.load not in one.sides:
        out.append(f"not measured at {basis.load}: it completed {', '.join(one.loads) or 'no level'}")
    for need in needs:
        if falls_out(need, basis.terms):
            out.append(f"{need.need}: not known" if need.outcome == "unknown" else need.need)
    began = [level.began for level in one.levels.get(basis.load, ()) if level.began]
    return {
        "name": one.name,
        "model": one.model,
        "device": one.device,
        "execution_provider": one.execution_provider,
        "server": one.server,
        "endpoint": one.endpoint,
        "licence": facts.get("licence"),
        "quantization": facts.get("quantization"),
        "context": facts.get("context"),
        "names": list(dict.fromkeys(filter(None, (facts.get("name"), facts.get("alias"), one.model)))),
        "simulated": one.simulated,
        "runs": list(one.runs),
        "began": min(began, default=None),
        "loads": list(one.loads),
        "figures": found,
        "needs": list(map(asdict, needs)),
        "status": "out" if out else "left",
        "out": "; ".join(out) or None,
        "rank": None,
        "score": None,
        "ratios": None,
        "wins": None,
        "missing": [],
        "dominated_by": [],
    }


def _place(rows: Mapping[str, Record], basis: Basis) -> None:
    """What the rank says of each row that is left."""
    grid = basis.grid
    # Tokens do not compare between models: they decide nothing of who beats whom in everything.
    names = [name for name in grid.figures if name != "output_tokens_per_s"]
    columns = list(map(grid.figures.index, names))
    front = rank.dominated(grid.names, names, grid.logs[:, columns])
    logs = rank.ratios(grid.logs)
    for place, i in enumerate(basis.order, start=1):
        missing = []
        ratios: dict[str, float | None] = {}
        for k, name in enumerate(grid.figures):
            ratios[name] = math.exp(logs[i, k])
            if np.isnan(grid.logs[i, k]):
                missing.append(name)
                ratios[name] = None
        rows[grid.names[i]] |= {
            "rank": place,
            "score": basis.scores[i],
            "ratios": ratios,
            "log_ratios": dict(zip(grid.figures, logs[i].tolist(), strict=True)),
            "missing": missing,
            "wins": basis.win(i),
            "dominated_by": list(map(asdict, front.get(grid.names[i], ()))),
        }


def _run(one: Measured) -> Record:
    info = one.run.info
    return {
        "folder": one.run.path.name,
        "name": info.get("name"),
        "start": info.get("start"),
        "server": (info.get("target") or {}).get("kind"),
        "machine": (info.get("environment") or {}).get("cpu"),
    }


def _declared(name: str, parts: Mapping[str, float]) -> Record:
    one = declared(name)
    return {
        "name": name,
        "label": one.title,
        "unit": unit(name),
        "more_is_better": one.figure.more_is_better,
        "criterion": criterion_of(name).name,
        "share": parts.get(name, 0.0),
    }


def _would_change(basis: Basis) -> Record:
    grid, weights = basis.grid, basis.weights
    ratios, first, second = rank.ratios(grid.logs), basis.order[0], basis.order[1]
    weight = rank.other_weight(grid.names, grid.figures, ratios, weights, first)
    name = grid.names[second]
    own = {figure: values[name].value for figure, values in basis.figures.items() if name in values}
    others = rank.other_figures(name, own, grid.figures, (ratios[first] - ratios[second]).tolist(), weights)
    return {
        "weight": asdict(weight) if weight else None,
        "figures": list(map(asdict, others)),
        "unknown": list(map(asdict, rank.unmeasured(grid, weights, first))),
    }


# -- choices between the models of a run


def summary(run: Run) -> Summary:
    """Everything that the reports of a run print: `compare.summary`, and under `choice` which of its models to ship.

    None there, where the run has no two of them.
    """
    found = compare.summary(run)
    found.choice = None
    if len({level.model for level in found.levels}) < 2:
        return found
    try:
        scored = scores(run.path)
    except StoreError:
        scored = None  # of a run's report its figures are the point
    measured = [Measured(run, found, scored)]
    some = candidates(measured)
    if len(some) > 1:
        with suppress(UsageError):  # no load is common to them
            found.choice = choose(some, measured)
    return found


def summarise(run: Run) -> Record:
    """The same as plain values, as summary.json has them."""
    return as_mapping(summary(run))


# -- models.json, for a scenario or a router to read

_ROUNDED = {
    "ttft_p95_ms": "ttft_p95",
    "e2e_mean_ms": "e2e_mean",
    "characters_per_s": "characters_per_s",
    "tokens_per_s": "output_tokens_per_s",
    "quality": "quality",
    "rules_passed": "rules",
    "j_per_1000_characters": "energy",
    "cost_per_1000_characters": "cost",
}


def updated(known: Mapping[str, Record], record: Record, facts: Mapping[str, Record] | None = None) -> Record:
    """The content of models.json after a choice: what it held, and the figures of each candidate.

    Keys that are not ours stay as they are, and so do models that were not measured. A candidate goes under the name
    that the file has for it (as the scenario calls it, its alias, or its id), else under its id.

    Args:
        known: What the file holds.
        record: What `choose` returned.
        facts: What scenarios say of models (`model_facts`), for those that are new to the file.
    """
    found: Record = {str(name): dict(entry) for name, entry in known.items()}
    rows = record["candidates"]
    written: dict[str, list[Record]] = {}
    for row in rows:
        key = _key(row, rows, found)
        entry = found.setdefault(key, {})
        for name in row["names"]:
            if facts and name in facts:
                entry.update({**facts[name], **entry})
                break
        entry.setdefault("capabilities", ["chat"])
        disk = row["figures"].get("disk")
        if disk:
            entry["size_mb"] = round(disk["value"] / 1e6)
        if row["licence"]:
            entry["licence"] = str(row["licence"]).lower()
        if row["context"]:
            entry.setdefault("context_tokens", row["context"])
        written.setdefault(key, []).append(_measured(row, record))
    for key, measured in written.items():
        found[key]["measured"] = measured
    return found


def _key(row: Record, rows: Sequence[Record], found: Record) -> str:
    """Its name in the file. Not one that several models answer to: variants of an alias go under their ids."""
    answering: dict[str, set[str]] = {}
    for other in rows:
        answering.setdefault(str(other["model"]), set()).add(other["model"])
        for name in other["names"]:
            answering.setdefault(name, set()).add(other["model"])
    for name in row["names"]:
        if name in found and answering[name] == {row["model"]}:
            return str(name)
    return str(row["model"])


def _measured(row: Record, record: Record) -> Record:
    """One device's and server's figures, for a router; null where not measured."""
    figures, load = row["figures"], record["load"]["name"]
    measured: Record = {}
    for key, name in _ROUNDED.items():
        measured[key] = None
        if name in figures:
            measured[key] = significant(figures[name]["value"])
    measured["memory_bytes"] = None
    if "memory" in figures:
        measured["memory_bytes"] = round(figures["memory"]["value"])
    for key in ("device", "execution_provider", "server", "endpoint", "simulated", "rank"):
        measured[key] = row[key]
    return {
        **measured,
        "meets_needs": row["status"] == "left",
        "chosen": row["name"] == record["winner"],
        "load": load if load in row["loads"] else None,
        "when": row["began"],
        "runs": row["runs"],
    }
