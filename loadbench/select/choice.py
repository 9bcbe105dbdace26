"""A choice as one record of plain values, for reports and for programs (docs/select.md), and what speaks against it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from loadbench import compare
from loadbench.compare import Lap, between, differences
from loadbench.errors import StoreError, UsageError
from loadbench.metrics.checks import titled
from loadbench.scenario.bounds import Need
from loadbench.select import rank
from loadbench.select.candidates import (
    Candidate,
    Json,
    Measured,
    candidates,
    check_load,
    common_load,
    load_words,
    scores,
)
from loadbench.select.needs import (
    COMPARED,
    Figure,
    Figures,
    Met,
    declared,
    figures,
    is_speed,
    licence,
    met,
    scoring_methods,
    unit,
)
from loadbench.select.weights import CRITERIA, Policy, criterion_of, policy, shares
from loadbench.store import Run
from loadbench.store.summary import Severity, worst_first
from loadbench.text import plural

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
    draws: int = rank.DRAWS


def choose(some: Sequence[Candidate], runs: Sequence[Measured], terms: Terms | None = None) -> Record:
    """Needs first, then the Pareto front and the weighted rank of who is left, with what speaks against it.

    Args:
        some: At least one candidate (`candidates`).
        runs: The runs that they come from.
        terms: The usual ones by default.
    Raises:
        UsageError: No load is common to them, or nobody completed the one that is asked for.
    """
    basis = _basis(some, terms or Terms())
    left, order = basis.left, basis.order
    rows = [_row(one, basis) for one in some]
    _place(rows, basis)
    load = next(one.loads[basis.load] for one in some if basis.load in one.loads)
    record: Record = {
        "schema": SCHEMA,
        "runs": [_run(one) for one in runs],
        "load": {"name": basis.load, "words": load_words(load), "asked": basis.terms.at is not None},
        "needs": [need.text for need in basis.terms.needs],
        "missing": basis.terms.missing,
        "criteria": _criteria(basis),
        "usual_weights": basis.terms.policy.usual,
        "figures": [_declared(name, basis.shares) for name in COMPARED if basis.figures.get(name)],
        "candidates": sorted(rows, key=lambda row: (row["rank"] is None, row["rank"] or 0)),
        "winner": left[order[0]].name if order else None,
        "robustness": None,
        "would_change": {"weight": None, "figures": [], "unknown": []},
        "doubts": [],
    }
    if order:
        record["robustness"] = _robustness(basis)
        record["would_change"] = _would_change(basis)
        record["doubts"] = [asdict(one) for one in _doubts(basis, record)]
    return record


@dataclass(frozen=True, slots=True, eq=False)
class _Basis:
    """What a choice rests on.

    Attributes:
        load: At which candidates are held against each other.
        terms: On which.
        figures: By name, the figures of the candidates that were measured there.
        met: By candidate, how it stands to each need.
        left: The candidates that miss no need, a row each of what follows.
        grid: Their figures as logarithms.
        counts: By figure, how many of them have it.
        shares: By figure, its share of the whole.
        order: Rows, the best first.
        scores: By row.
        wins: How often each row wins.
    """

    load: str
    terms: Terms
    figures: Mapping[str, Figures]
    met: Mapping[str, Sequence[Met]]
    left: Sequence[Candidate]
    grid: rank.Grid
    counts: Mapping[str, int]
    shares: Mapping[str, float]
    order: Sequence[int]
    scores: Sequence[float]
    wins: rank.Wins

    @property
    def weights(self) -> list[float]:
        """Shares of the grid's figures, in its order."""
        return [self.shares.get(name, 0.0) for name in self.grid.figures]


def _basis(some: Sequence[Candidate], terms: Terms) -> _Basis:
    load = common_load(some) if terms.at is None else check_load(some, terms.at)
    there = [one for one in some if load in one.sides]
    measured = {**figures(there, load), "licence": _licences(there, terms.policy)}
    by_need = [met(need, there, load, measured) for need in terms.needs]
    by_candidate = {one.name: [found[one.name] for found in by_need] for one in there}
    left = [one for one in there if not any(_falls_out(one, terms) for one in by_candidate[one.name])]
    names = [one.name for one in left]
    counts = {figure: sum(name in values for name in names) for figure, values in measured.items()}
    parts = shares(terms.policy.weights, counts)
    grid = rank.grid(names, measured)
    weights = [parts.get(name, 0.0) for name in grid.figures]
    even = (1 / max(1, len(names)),) * len(names)
    scores, wins = [100.0] * len(names), rank.Wins(even, even, even)
    if names and sum(weights):
        criteria = list(dict.fromkeys(criterion_of(name).name for name in grid.figures))
        groups = [criteria.index(criterion_of(name).name) for name in grid.figures]
        scores = [float(score) for score in rank.scores(grid.logs, weights)]
        wins = rank.wins(grid, weights, groups, draws=terms.draws, seed=terms.seed)
    order = list(range(len(names)))
    if names and sum(weights):
        order.sort(key=lambda row: (-scores[row], names[row]))
    return _Basis(
        load=load,
        terms=terms,
        figures=measured,
        met=by_candidate,
        left=left,
        grid=grid,
        counts=counts,
        shares=parts,
        order=order,
        scores=scores,
        wins=wins,
    )


def _licences(some: Sequence[Candidate], chosen: Policy) -> Figures:
    found = {}
    for one in some:
        word = licence(one)
        if word is not None and word in chosen.licences:
            found[one.name] = Figure(chosen.licences[word], source=word)
    return found


def _falls_out(one: Met, terms: Terms) -> bool:
    return one.outcome == "missed" or (one.outcome == "unknown" and terms.missing == "out")


def _row(one: Candidate, basis: _Basis) -> Record:
    levels = one.levels.get(basis.load, ())
    facts = one.facts
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
        "names": [name for name in dict.fromkeys((facts.get("name"), facts.get("alias"), one.model)) if name],
        "simulated": one.simulated,
        "runs": list(one.runs),
        "began": min((str(level.get("began")) for level in levels if level.get("began")), default=None),
        "loads": list(one.loads),
        "figures": {
            name: {**asdict(values[one.name]), "unit": unit(name)}
            for name, values in basis.figures.items()
            if one.name in values
        },
        "needs": [asdict(need) for need in basis.met.get(one.name, ())],
        **_status(one, basis),
        "rank": None,
        "score": None,
        "ratios": None,
        "wins": None,
        "missing": [],
        "dominated_by": [],
    }


def _status(one: Candidate, basis: _Basis) -> Record:
    """Whether it is left, and why not."""
    if basis.load not in one.sides:
        has = f"it completed {', '.join(one.loads)}" if one.loads else "it completed no level"
        return {"status": "out", "out": f"not measured at {basis.load}: {has}"}
    bad = [need for need in basis.met[one.name] if _falls_out(need, basis.terms)]
    if not bad:
        return {"status": "left", "out": None}
    words = [f"{need.need}: not known" if need.outcome == "unknown" else need.need for need in bad]
    return {"status": "out", "out": "; ".join(words)}


def _place(rows: Sequence[Record], basis: _Basis) -> None:
    """What the rank says of each row that is left."""
    grid = basis.grid
    by_name = {row["name"]: row for row in rows}
    # Tokens do not compare between models: they decide nothing of who beats whom in everything.
    columns = [k for k, name in enumerate(grid.figures) if name != "output_tokens_per_s"]
    front = rank.dominated(grid.names, [grid.figures[k] for k in columns], grid.logs[:, columns])
    ratios = rank.ratios(grid.logs) if grid.figures else grid.logs
    for place, i in enumerate(basis.order, start=1):
        logs = dict(zip(grid.figures, ratios[i].tolist(), strict=True))
        missing = [name for k, name in enumerate(grid.figures) if np.isnan(grid.logs[i, k])]
        row = by_name[grid.names[i]]
        row["rank"], row["score"] = place, basis.scores[i]
        row["ratios"] = {name: None if name in missing else math.exp(log) for name, log in logs.items()}
        row["log_ratios"] = logs
        row["missing"] = missing
        row["wins"] = _wins(basis, i)
        row["dominated_by"] = [asdict(one) for one in front.get(grid.names[i], ())]


def _wins(basis: _Basis, row: int) -> dict[str, float]:
    wins = basis.wins
    return {"figures": wins.figures[row], "weights": wins.weights[row], "both": wins.both[row]}


def _run(one: Measured) -> Record:
    info = one.run.info
    return {
        "folder": one.run.path.name,
        "name": info.get("name"),
        "start": info.get("start"),
        "server": (info.get("target") or {}).get("kind"),
        "machine": (info.get("environment") or {}).get("cpu"),
    }


def _criteria(basis: _Basis) -> list[Record]:
    chosen = basis.terms.policy
    with_any_weight = shares(dict.fromkeys(chosen.weights, 1.0), basis.counts)
    return [
        {
            "name": one.name,
            "label": one.label,
            "weight": chosen.weights[one.name],
            "share": sum(basis.shares.get(name, 0.0) for name in one.figures),
            "figures": [name for name in one.figures if name in with_any_weight],
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


def _robustness(basis: _Basis) -> Record:
    winner = _wins(basis, basis.order[0])
    word = "close"
    if winner["both"] >= FIRM:
        word = "firm"
    elif winner["both"] >= CLOSE:
        word = "likely"
    terms = basis.terms
    return {
        "draws": terms.draws,
        "seed": terms.seed,
        "weights_spread": rank.SPREAD,
        "winner": winner,
        "word": word,
    }


def _would_change(basis: _Basis) -> Record:
    grid, weights = basis.grid, basis.weights
    if len(basis.order) < 2 or not sum(weights):
        return {"weight": None, "figures": [], "unknown": []}
    ratios, first, second = rank.ratios(grid.logs), basis.order[0], basis.order[1]
    weight = rank.other_weight(grid.names, grid.figures, ratios, weights, first)
    name = grid.names[second]
    own = {figure: values[name].value for figure, values in basis.figures.items() if name in values}
    others = rank.other_figures(name, own, grid.figures, (ratios[first] - ratios[second]).tolist(), weights)
    return {
        "weight": asdict(weight) if weight else None,
        "figures": [asdict(one) for one in others],
        "unknown": [asdict(one) for one in rank.unmeasured(grid, weights, first)],
    }


def _doubts(basis: _Basis, record: Record) -> list[Doubt]:
    """What speaks against the winner, the worst first."""
    winner, *others = (basis.left[i] for i in basis.order)
    found = [
        *_of_gates(winner, others, basis.load),
        *_of_runs(winner, others, basis.load),
        *_of_answers(winner, others, basis.load, tokens_count=bool(basis.shares.get("output_tokens_per_s"))),
        *_of_needs(winner.name, basis.met),
        *_of_figures(winner, others, basis),
        *_of_sources([winner, *others], basis),
    ]
    if not basis.shares:
        found.append(Doubt("red", "weights", "", "nothing that has a weight is known: there is no rank"))
    if not others:
        alone = "there is only one candidate" if len(record["candidates"]) == 1 else "only one candidate is left"
        found.append(Doubt("warn", "one", "", f"{alone}: it was held against nobody"))
    elif record["robustness"]["word"] == "close":
        share = record["robustness"]["winner"]["both"]
        text = f"a close call: it comes first in {share:.0%} of the draws"
        found.append(Doubt("warn", "close", winner.name, text))
    return worst_first(found)


# -- doubts: what speaks against a choice

MEANT = ("model", "device", "execution provider", "server", "server version")
"""What candidates differ in on purpose."""
_POOLED = ("model",)
_LISTED = 4


@dataclass(frozen=True, slots=True)
class Doubt:
    """One doubt.

    Attributes:
        severity: "red" forbids a plain recommendation, "warn" is to be minded, "note" to be known.
        code: The gate, or a word for what it is about.
        about: The candidate; "" for all of them.
        text: One sentence.
    """

    severity: Severity
    code: str
    about: str
    text: str


def _of_gates(winner: Candidate, others: Sequence[Candidate], load: str) -> Iterator[Doubt]:
    """Red gates: of the winner's level they forbid a plain word, of another's its figures may be wrong too."""
    for one in (winner, *others):
        warnings = list(one.warnings)
        for level in one.levels.get(load, ()):
            warnings.extend(level.get("warnings") or ())
        reds: dict[str, list[str]] = {}
        for warning in warnings:
            if warning.get("severity") == "red":
                texts = reds.setdefault(str(warning.get("code")), [])
                if str(warning.get("text")) not in texts:
                    texts.append(str(warning.get("text")))
        if one is winner:
            for code, (text, *more) in reds.items():
                also = f" (and {plural(len(more), 'more time')})" if more else ""
                yield Doubt("red", code, one.name, f"{titled(code)} red at {load}: {text}{also}")
        elif reds:
            text = f"{', '.join(map(titled, reds))} red for {one.name} at {load}: its place is not sure"
            yield Doubt("warn", ", ".join(reds), one.name, text)


def _of_runs(winner: Candidate, others: Sequence[Candidate], load: str) -> Iterator[Doubt]:
    """Runs that asked for something else, or elsewhere: their figures do not compare (V8)."""
    first: Lap | None = None
    seen = set()
    for one in (winner, *others):
        own: Lap | None = None
        for lap in one.sides[load].laps if load in one.sides else ():
            # Repeats are held against the candidate's first run, a candidate's first run against the winner's.
            base = own or first
            meant = MEANT if own is None else _POOLED
            own = own or lap
            first = first or lap
            if base is None:
                continue
            for found in differences(base.info, lap.info, meant):
                key = found.code, found.what, base.run, lap.run
                if found.severity == "red" and key not in seen and not _own_additions(found.what, base.info, lap.info):
                    seen.add(key)
                    runs = f"{base.run} ({found.base}) and {lap.run} ({found.new})"
                    text = f"{found.what} differs between the runs {runs}: their figures do not compare"
                    yield Doubt("red", found.code, "", text)


def _own_additions(what: str, base: Json, new: Json) -> bool:
    """Whether requests differ in nothing but what loadbench adds for a kind of server by itself."""
    asked = [(info.get("scenario") or {}).get("extra_body") for info in (base, new)]
    kinds = [(info.get("target") or {}).get("kind") for info in (base, new)]
    return what == "extra_body" and asked[0] == asked[1] and kinds[0] != kinds[1]


def _of_answers(winner: Candidate, others: Sequence[Candidate], load: str, *, tokens_count: bool) -> Iterator[Doubt]:
    """Answers of other lengths, tokens counted in other ways (V5, V6)."""
    for one in others:
        if load not in one.sides or load not in winner.sides:
            continue
        for found in between(winner.sides[load], one.sides[load]):
            if found.what == "output length":
                text = f"answers of {winner.name} have {found.base:.3g} tokens, of {one.name} {found.new:.3g}"
                yield Doubt(
                    "warn", "V5", one.name, f"{text}: E2E compares lengths too; force the length to compare speed"
                )
            elif found.code == "V6":
                text = f"tokens of {winner.name} come from {found.base}, of {one.name} from {found.new}"
                yield Doubt("warn" if tokens_count else "note", "V6", one.name, f"{text}: compare them by characters")


def _of_figures(winner: Candidate, others: Sequence[Candidate], basis: _Basis) -> Iterator[Doubt]:
    """Figures that count and that nobody has, that some lack, or that rest on too few requests."""
    everyone, found, parts = (winner, *others), basis.figures, basis.shares
    weights = basis.terms.policy.weights
    lost = [one for one in CRITERIA if weights.get(one.name) and not any(parts.get(name) for name in one.figures)]
    if lost:
        remedy = "; answers are scored by loadbench score" if any(one.name == "quality" for one in lost) else ""
        text = f"not known of any candidate, its weight is spread over the rest: {_names([one.label for one in lost])}"
        yield Doubt("warn", "missing", "", text + remedy)
    for name, share in parts.items():
        if share:
            yield from _of_one_figure(name, [one.name for one in everyone], found[name])
    energies = {f.source for f in found.get("energy", {}).values()}
    if len(energies) > 1 and (parts.get("energy") or parts.get("cost")):
        text = f"energy was told in several ways ({', '.join(sorted(energies))}): it does not compare"
        yield Doubt("warn", "energy", "", text)


def _of_one_figure(name: str, everyone: Sequence[str], figures: Figures) -> Iterator[Doubt]:
    """Candidates that lack a figure that counts, and whose figure has no interval."""
    title = declared(name).title
    lacking = [one for one in everyone if one not in figures]
    if lacking:
        text = f"{title} of {_names(lacking)} is not known: it counts as half as good as the worst"
        yield Doubt("warn", "missing", "" if len(lacking) > 1 else lacking[0], text)
    counts: dict[str, int] = {}
    for one in everyone:
        if one in figures and figures[one].low is None and figures[one].n:
            counts[one] = figures[one].n
    if counts:
        within = "a point" if unit(name) == "points" else "a factor of two"
        few, many = min(counts.values()), max(counts.values())
        number = plural(many, "request" if is_speed(name) else "prompt")
        if few < many:
            number = f"{few:,} to {number}"
        text = f"{title} of {_names(list(counts))} rests on {number}, too few for an interval: taken within {within}"
        yield Doubt("warn", "V12", "" if len(counts) > 1 else next(iter(counts)), text)


def _of_sources(everyone: Sequence[Candidate], basis: _Basis) -> Iterator[Doubt]:
    """Where figures come from: the simulator, a process of several models, one measurement."""
    simulated = [one.name for one in everyone if one.simulated]
    if simulated:
        text = f"simulated, with a declared law: {_names(simulated)}; no figures of a real model"
        yield Doubt("warn", "simulated", "", text)
    shared = [one.name for one in everyone if one.shared]
    if shared and basis.shares.get("memory"):
        text = f"several models were loaded in one process: nobody knows whose its memory is ({_names(shared)})"
        yield Doubt("warn", "memory", "", text)
    if len(scoring_methods(everyone)) > 1:
        yield Doubt("warn", "quality", "", "the runs were scored in different ways: their scores do not compare")
    laps = [len(one.sides[basis.load].laps) for one in everyone if basis.load in one.sides]
    if max(laps, default=0) == 1:
        text = "each was measured once: what changes from run to run is not known; repeat with --repeat 5"
        yield Doubt("note", "once", "", text)


def _of_needs(winner: str, met: Mapping[str, Sequence[Met]]) -> Iterator[Doubt]:
    """Needs that the winner meets not surely, or of which nobody knows; others that fell out not surely."""
    for name, some in met.items():
        for one in some:
            if name == winner and one.outcome == "unknown":
                yield Doubt("warn", "need", name, f"whether {name} meets {one.need} is not known")
            elif name == winner and one.sure is not True:
                why = "its interval holds the bound" if one.sure is False else "too few requests for an interval"
                yield Doubt("warn", "need", name, f"{name} meets {one.need}, but not surely: {why}")
            elif one.outcome == "missed" and one.sure is not True:
                why = "its interval holds the bound" if one.sure is False else "too few requests for an interval"
                yield Doubt("note", "need", name, f"{name} fell out by {one.need}, but not surely: {why}")


def _names(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


# -- choices between the models of runs


def summarise(run: Run) -> Record:
    """Everything that the reports of a run print: `compare.summarise`, and under `choice` which of its models to ship.

    None there, where the run has no two of them.
    """
    summary = compare.summarise(run)
    if len({level.get("model") for level in summary["levels"]}) < 2:
        return summary | {"choice": None}
    try:
        scored = scores(run.path)
    except StoreError:
        scored = None  # of a run's report its figures are the point
    return summary | {"choice": of_runs([Measured(run, summary, scored)])}


def of_runs(runs: Sequence[Measured]) -> Record | None:
    """The choice between all candidates of some runs on the usual terms; None where there are no two to choose from."""
    some = candidates(runs)
    try:
        return choose(some, runs) if len(some) > 1 else None
    except UsageError:
        return None  # no load is common to them
