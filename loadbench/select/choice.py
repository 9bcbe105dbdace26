"""A choice as one record of plain values, for reports and for programs (docs/select.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from loadbench.bounds import Need
from loadbench.select import change, doubts, load, pareto, rank, robust, values
from loadbench.select.candidate import Candidate, Measured
from loadbench.select.figure import COMPARED, Figure, declared, unit
from loadbench.select.need import Met, met
from loadbench.select.weights import CRITERIA, Policy, criterion_of, policy, shares

Record = dict[str, Any]
SCHEMA = 1
CLOSE, FIRM = 0.8, 0.95
"""Shares of draws below which a lead is close, and from which on it is firm."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms one is chosen.

    Attributes:
        policy: What counts, and how much.
        needs: What a candidate must meet.
        at: The load, as "c4"; None for the highest that all completed.
        missing: What becomes of a candidate of whom a needed figure is not known.
        seed, draws: Of the draws that tell how firm the rank is.
    """

    policy: Policy = field(default_factory=policy)
    needs: Sequence[Need] = ()
    at: str | None = None
    missing: Literal["out", "allow"] = "out"
    seed: int = 1
    draws: int = robust.DRAWS


def choose(candidates: Sequence[Candidate], found: Sequence[Measured], terms: Terms | None = None) -> Record:
    """Needs first, then the Pareto front and the weighted rank of who is left, with what speaks against it.

    Args:
        candidates: At least one (`candidate.candidates`).
        found: The runs that they come from.
        terms: The usual ones by default.
    Raises:
        UsageError: No load is common to them, or nobody completed the one that is asked for.
    """
    terms = terms or Terms()
    at = load.common(candidates) if terms.at is None else load.asked(candidates, terms.at)
    there = [one for one in candidates if at in one.sides]
    known = {**values.figures(there, at), "licence": _licences(there, terms.policy)}
    held = _held(there, at, known, terms)
    left = [one for one in there if not _out(held[one.name], terms)]
    names = [one.name for one in left]
    grid = rank.grid(names, known)
    counts = {name: sum(one in who for one in names) for name, who in known.items()}
    parts = shares(terms.policy.weights, counts)
    weights = [parts.get(name, 0.0) for name in grid.figures]
    ranked = _ranked(grid, weights, terms)
    order = ranked.order
    rows = [_row(one, at, known, held, terms) for one in candidates]
    _place(rows, left, grid, ranked)
    record: Record = {
        "schema": SCHEMA,
        "runs": [_run(one) for one in found],
        "load": _load(candidates, at, terms),
        "needs": [need.text for need in terms.needs],
        "missing": terms.missing,
        "criteria": _criteria(terms.policy, parts, counts),
        "usual_weights": terms.policy.usual,
        "figures": [_declared(name, parts) for name in COMPARED if any(known.get(name, {}))],
        "candidates": sorted(rows, key=lambda row: (row["rank"] is None, row["rank"] or 0)),
        "winner": left[order[0]].name if order else None,
        "robustness": None,
        "would_change": {"weight": None, "figures": [], "unknown": []},
        "doubts": [],
    }
    if not order:
        return record
    winner, others = left[order[0]], [left[i] for i in order[1:]]
    record["robustness"] = _robustness(ranked, order, terms)
    record["would_change"] = _would_change(grid, weights, order, known)
    record["doubts"] = [asdict(one) for one in _doubts(winner, others, at, known, held, parts, terms, record)]
    return record


@dataclass(frozen=True, slots=True, eq=False)
class _Ranked:
    """Scores, the order of the rows by them, and how often each row wins."""

    order: list[int]
    scores: list[float]
    wins: robust.Wins
    ratios: rank.Reals


def _licences(candidates: Sequence[Candidate], chosen: Policy) -> values.Figures:
    said = {one.name: values.licence(one) or "" for one in candidates}
    return {name: Figure(chosen.licences[word], source=word) for name, word in said.items() if word in chosen.licences}


def _held(
    there: Sequence[Candidate], at: str, known: Mapping[str, values.Figures], terms: Terms
) -> dict[str, list[Met]]:
    by_need = [met(need, there, at, known) for need in terms.needs]
    return {one.name: [found[one.name] for found in by_need] for one in there}


def _out(held: Sequence[Met], terms: Terms) -> bool:
    bad = ("missed",) if terms.missing == "allow" else ("missed", "unknown")
    return any(one.outcome in bad for one in held)


def _ranked(grid: rank.Grid, weights: Sequence[float], terms: Terms) -> _Ranked:
    if not grid.names:
        return _Ranked([], [], robust.Wins((), (), ()), grid.logs)
    if not grid.figures or not sum(weights):
        even = (1 / len(grid.names),) * len(grid.names)
        ratios = rank.ratios(grid.logs) if grid.figures else grid.logs
        scores = [100.0] * len(grid.names)
        return _Ranked(list(range(len(grid.names))), scores, robust.Wins(even, even, even), ratios)
    found = [float(score) for score in rank.scores(grid.logs, weights)]
    order = sorted(range(len(grid.names)), key=lambda i: (-found[i], grid.names[i]))
    kinds = list(dict.fromkeys(criterion_of(name).name for name in grid.figures))
    groups = [kinds.index(criterion_of(name).name) for name in grid.figures]
    wins = robust.wins(grid, weights, groups, draws=terms.draws, seed=terms.seed)
    return _Ranked(order, found, wins, rank.ratios(grid.logs))


def _row(
    one: Candidate, at: str, known: Mapping[str, values.Figures], held: Mapping[str, Sequence[Met]], terms: Terms
) -> Record:
    levels = one.levels.get(at, ())
    facts = one.facts
    row: Record = {
        **{
            name: getattr(one, name) for name in ("name", "model", "device", "execution_provider", "server", "endpoint")
        },
        **{name: facts.get(name) for name in ("licence", "quantization", "context")},
        "names": [name for name in dict.fromkeys((facts.get("name"), facts.get("alias"), one.model)) if name],
        "simulated": one.simulated,
        "runs": list(one.runs),
        "began": min((str(level.get("began")) for level in levels if level.get("began")), default=None),
        "loads": list(one.loads),
        "figures": {
            name: {**asdict(who[one.name]), "unit": unit(name)} for name, who in known.items() if one.name in who
        },
        "needs": [asdict(need) for need in held.get(one.name, ())],
        "status": "left",
        "out": None,
        **dict.fromkeys(("rank", "score", "ratios", "wins")),
        "missing": [],
        "dominated_by": [],
    }
    if at not in one.sides:
        has = f"it completed {', '.join(one.loads)}" if one.loads else "it completed no level"
        return row | {"status": "out", "out": f"not measured at {at}: {has}"}
    bad = [need for need in held[one.name] if _out([need], terms)]
    if bad:
        words = [f"{need.need}: not known" if need.outcome == "unknown" else need.need for need in bad]
        return row | {"status": "out", "out": "; ".join(words)}
    return row


def _place(rows: Sequence[Record], left: Sequence[Candidate], grid: rank.Grid, ranked: _Ranked) -> None:
    """What the rank says of each row that is left."""
    by_name = {row["name"]: row for row in rows}
    # What is told of each word is not compared as a figure; tokens do not compare between models.
    columns = [k for k, name in enumerate(grid.figures) if name != "output_tokens_per_s"]
    front = pareto.dominated(grid.names, [grid.figures[k] for k in columns], grid.logs[:, columns])
    for place, i in enumerate(ranked.order, start=1):
        row = by_name[left[i].name]
        row["rank"], row["score"] = place, ranked.scores[i]
        row["ratios"] = {
            name: float(np.exp(ranked.ratios[i, k])) if not np.isnan(grid.logs[i, k]) else None
            for k, name in enumerate(grid.figures)
        }
        row["log_ratios"] = {name: float(ranked.ratios[i, k]) for k, name in enumerate(grid.figures)}
        row["missing"] = [name for k, name in enumerate(grid.figures) if np.isnan(grid.logs[i, k])]
        row["wins"] = {kind: getattr(ranked.wins, kind)[i] for kind in ("figures", "weights", "both")}
        row["dominated_by"] = [asdict(one) for one in front.get(row["name"], ())]


def _run(one: Measured) -> Record:
    info = one.run.info
    return {
        "folder": one.run.path.name,
        "name": info.get("name"),
        "start": info.get("start"),
        "server": (info.get("target") or {}).get("kind"),
        "machine": (info.get("environment") or {}).get("cpu"),
    }


def _load(candidates: Sequence[Candidate], at: str, terms: Terms) -> Record:
    return {
        "name": at,
        "words": load.words(next(one.loads[at] for one in candidates if at in one.loads)),
        "asked": terms.at is not None,
    }


def _criteria(chosen: Policy, parts: Mapping[str, float], counts: Mapping[str, int]) -> list[Record]:
    would = shares(dict.fromkeys(chosen.weights, 1.0), counts)
    return [
        {
            "name": one.name,
            "label": one.label,
            "weight": chosen.weights[one.name],
            "share": sum(parts.get(name, 0.0) for name in one.figures),
            "figures": [name for name in one.figures if name in would],
        }
        for one in CRITERIA
    ]


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


def _robustness(ranked: _Ranked, order: Sequence[int], terms: Terms) -> Record:
    both = ranked.wins.both[order[0]]
    return {
        "draws": terms.draws,
        "seed": terms.seed,
        "weights_spread": robust.SPREAD,
        "winner": {kind: getattr(ranked.wins, kind)[order[0]] for kind in ("figures", "weights", "both")},
        "word": "firm" if both >= FIRM else "likely" if both >= CLOSE else "close",
    }


def _would_change(
    grid: rank.Grid, weights: Sequence[float], order: Sequence[int], known: Mapping[str, values.Figures]
) -> Record:
    if len(order) < 2 or not sum(weights):
        return {"weight": None, "figures": [], "unknown": []}
    ratios, first, second = rank.ratios(grid.logs), order[0], order[1]
    weight = change.other_weight(grid.names, grid.figures, ratios, weights, first)
    name = grid.names[second]
    own = {figure: who[name].value for figure, who in known.items() if name in who}
    lead = [float(one) for one in ratios[first] - ratios[second]]
    figures = change.other_figures(name, own, grid.figures, lead, weights)
    return {
        "weight": asdict(weight) if weight else None,
        "figures": [asdict(one) for one in figures],
        "unknown": [asdict(one) for one in change.unknown(grid, weights, first)],
    }


def _doubts(
    winner: Candidate,
    others: Sequence[Candidate],
    at: str,
    known: Mapping[str, values.Figures],
    held: Mapping[str, Sequence[Met]],
    parts: Mapping[str, float],
    terms: Terms,
    record: Record,
) -> list[doubts.Doubt]:
    found = [
        *doubts.of_gates(winner, others, at),
        *doubts.of_runs(winner, others, at),
        *doubts.of_answers(winner, others, at, bool(parts.get("output_tokens_per_s"))),
        *doubts.of_needs(winner.name, held),
        *doubts.of_figures(winner, others, known, parts, terms.policy.weights),
        *doubts.of_sources([winner, *others], at, parts),
    ]
    if not parts:
        found.append(doubts.Doubt("red", "weights", "", "nothing that has a weight is known: there is no rank"))
    if not others:
        out = len(record["candidates"]) - 1
        text = "only one candidate is left" if out else "there is only one candidate"
        found.append(doubts.Doubt("warn", "one", "", f"{text}: it was held against nobody"))
    elif record["robustness"]["word"] == "close":
        share = record["robustness"]["winner"]["both"]
        text = f"a close call: it comes first in {share:.0%} of the draws"
        found.append(doubts.Doubt("warn", "close", winner.name, text))
    return sorted(found, key=lambda one: ("red", "warn", "note").index(one.severity))
