"""What a choice rests on: the candidates that meet the needs at one load, their rank, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from loadbench.compare import MEANT, Lap, between, differences
from loadbench.compare.sides import Info
from loadbench.metrics.checks import titled
from loadbench.scenario.bounds import Need
from loadbench.select import rank
from loadbench.select.candidates import Candidate, load_at
from loadbench.select.needs import (
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
from loadbench.select.rank import CRITERIA, Policy, criterion_of, policy, shares
from loadbench.store.summary import Finding, Severity
from loadbench.store.summary import rank as place
from loadbench.text import plural


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms one is chosen.

    Attributes:
        policy: What counts, and how much.
        needs: What a candidate must meet.
        at: The load, as "c4"; None for the highest that all completed.
        missing: What becomes of a candidate that lacks a needed figure.
        seed, draws: Of the draws that tell how firm the rank is.
    """

    policy: Policy = field(default_factory=policy)
    needs: Sequence[Need] = ()
    at: str | None = None
    missing: Literal["out", "allow"] = "out"
    seed: int = 1
    draws: int = rank.DRAWS


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """What a choice rests on.

    Attributes:
        load: At which candidates are held against each other.
        figures: By name, the figures of the candidates that were measured there.
        met: By candidate, how it meets each need.
        left: The candidates that miss no need, a row each of what follows.
        grid: Their figures as logarithms.
        counts: By figure, how many of them have it.
        shares: By figure, its share of the whole.
        weights: The shares of the grid's figures, in its order.
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
    weights: Sequence[float]
    order: Sequence[int]
    scores: Sequence[float]
    wins: rank.Wins

    @property
    def ranked(self) -> list[Candidate]:
        """The candidates that are left, the best first."""
        return [self.left[row] for row in self.order]

    def win(self, row: int) -> dict[str, float]:
        wins = self.wins
        return {"figures": wins.figures[row], "weights": wins.weights[row], "both": wins.both[row]}


def basis_of(some: Sequence[Candidate], terms: Terms) -> Basis:
    load = load_at(some, terms.at)
    there = [one for one in some if load in one.sides]
    worth = terms.policy.licences
    licences: Figures = {}
    by_candidate: dict[str, list[Met]] = {}
    for one in there:
        by_candidate[one.name] = []
        word = licence(one)
        if word is not None and word in worth:
            licences[one.name] = Figure(worth[word], source=word)
    measured = {**figures(there, load), "licence": licences}
    out = set()
    for need in terms.needs:
        for name, found in met(need, there, load, measured).items():
            by_candidate[name].append(found)
            if falls_out(found, terms):
                out.add(name)
    left = [one for one in there if one.name not in out]
    names = [one.name for one in left]
    counts = {figure: len(values.keys() & set(names)) for figure, values in measured.items()}
    parts = shares(terms.policy.weights, counts)
    grid = rank.grid(names, measured)
    weights = [parts.get(name, 0.0) for name in grid.figures]
    # Where nothing that counts is known, all are even, in the order of the runs.
    even = (1 / max(1, len(names)),) * len(names)
    scores, wins = [100.0] * len(names), rank.Wins(even, even, even)
    order = list(range(len(names)))
    if names and parts:
        criteria = [criterion_of(name).name for name in grid.figures]
        first_of_each = list(dict.fromkeys(criteria))
        groups = [first_of_each.index(name) for name in criteria]
        scores = rank.scores(grid.logs, weights).tolist()
        wins = rank.wins(grid, weights, groups, draws=terms.draws, seed=terms.seed)
        order.sort(key=lambda row: (-scores[row], names[row]))  # by name where even, so that it is the same each time
    return Basis(
        load=load,
        terms=terms,
        figures=measured,
        met=by_candidate,
        left=left,
        grid=grid,
        counts=counts,
        shares=parts,
        weights=weights,
        order=order,
        scores=scores,
        wins=wins,
    )


def falls_out(need: Met, terms: Terms) -> bool:
    return need.outcome == "missed" or (need.outcome == "unknown" and terms.missing == "out")


# -- what speaks against it

_LISTED = 4


def doubts(basis: Basis, *, alone: bool, close: bool) -> list[Finding]:
    """What speaks against the winner, the worst first.

    Args:
        alone: There was only one candidate from the start.
        close: It comes first in too few draws.
    """
    winner, *others = basis.ranked
    found = [
        *_of_gates(winner, others, basis.load),
        *_of_runs([winner, *others], basis.load),
        *_of_answers(winner, others, basis),
        *_of_needs(winner.name, basis),
        *_of_figures([winner, *others], basis),
        *_of_sources([winner, *others], basis),
    ]
    if not basis.shares:
        found.append(_doubt("red", "weights", "", "no figure with a weight is known: there is no rank"))
    if not others:
        which = "there is only one candidate" if alone else "only one candidate is left"
        found.append(_doubt("warn", "one", "", f"{which}: nothing to compare it with"))
    elif close:
        share = basis.win(basis.order[0])["both"]
        text = f"a close call: it ranks first in {share:.0%} of the draws"
        found.append(_doubt("warn", "close", winner.name, text))
    return sorted(found, key=lambda one: place(one.severity))


def _doubt(severity: Severity, code: str, about: str, text: str) -> Finding:
    """A doubt about a candidate; about all of them where that is ""."""
    return Finding(severity=severity, code=code, where=about, text=text)


def _of_gates(winner: Candidate, others: Sequence[Candidate], load: str) -> Iterator[Finding]:
    """Red gates: of the winner's level they forbid a plain word, of another's its figures may be wrong too."""
    for one in (winner, *others):
        # Repeats trip the same gate by other figures: one text each, the others counted.
        warnings = list(one.warnings)
        for level in one.levels.get(load, ()):
            warnings += level.warnings
        reds: dict[str, dict[str, None]] = {}
        for warning in warnings:
            if warning.severity == "red":
                reds.setdefault(warning.code, {})[warning.text] = None
        if one is winner:
            for code, (text, *more) in reds.items():
                text = f"{titled(code)} red at {load}: {text}"
                if more:
                    text += f" (and {plural(len(more), 'more time')})"
                yield _doubt("red", code, one.name, text)
        elif reds:
            text = f"{', '.join(map(titled, reds))} red for {one.name} at {load}: its rank is not certain"
            yield _doubt("warn", ", ".join(reds), one.name, text)


def _of_runs(some: Sequence[Candidate], load: str) -> Iterator[Finding]:
    """Runs that asked for something else, or elsewhere: their figures do not compare (V8)."""
    first: Lap | None = None
    seen = set()
    for one in some:
        own: Lap | None = None
        for lap in one.laps(load):
            # Repeats are held against the candidate's first run, a candidate's first run against the winner's.
            base = own or first
            meant: tuple[str, ...] = MEANT if own is None else ("model",)
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
                    yield _doubt("red", found.code, "", text)


def _own_additions(what: str, base: Info, new: Info) -> bool:
    """Whether requests differ in nothing but what loadbench adds for a kind of server by itself."""
    if what != "extra_body":
        return False
    scenario, new_scenario = base.get("scenario") or {}, new.get("scenario") or {}
    target, new_target = base.get("target") or {}, new.get("target") or {}
    same_wish = scenario.get("extra_body") == new_scenario.get("extra_body")
    return same_wish and target.get("kind") != new_target.get("kind")


def _of_answers(winner: Candidate, others: Sequence[Candidate], basis: Basis) -> Iterator[Finding]:
    """Answers of other lengths, tokens counted in other ways (V5, V6)."""
    for one in others:
        # Finish reasons are left out: models that are chosen between end their answers differently.
        for found in between(winner.sides[basis.load], one.sides[basis.load]):
            if found.what == "output length":
                text = f"answers of {winner.name} have {found.base:.3g} tokens, of {one.name} {found.new:.3g}"
                text = f"{text}: E2E compares lengths too; force the length to compare speed"
                yield _doubt("warn", "V5", one.name, text)
            elif found.code == "V6":
                text = f"tokens of {winner.name} come from {found.base}, of {one.name} from {found.new}"
                severity: Severity = "warn" if basis.shares.get("output_tokens_per_s") else "note"
                yield _doubt(severity, "V6", one.name, f"{text}: compare them by characters")


def _of_needs(winner: str, basis: Basis) -> Iterator[Finding]:
    """Requirements that the winner may miss, and candidates that may have been eliminated wrongly."""
    for name, needs in basis.met.items():
        for one in needs:
            why = "its interval includes the bound" if one.sure is False else "too few requests for an interval"
            if name == winner and one.outcome == "unknown":
                yield _doubt("warn", "need", name, f"whether {name} meets {one.need} is not known")
            elif name == winner and one.sure is not True:
                yield _doubt("warn", "need", name, f"{name} meets {one.need}, but not for certain: {why}")
            elif one.outcome == "missed" and one.sure is not True:
                yield _doubt("note", "need", name, f"{name} was eliminated by {one.need}, but not for certain: {why}")


def _of_figures(some: Sequence[Candidate], basis: Basis) -> Iterator[Finding]:
    """Figures that count and that no candidate has, that some lack, or that rest on too few requests."""
    found, parts, weights = basis.figures, basis.shares, basis.terms.policy.weights
    lost: list[str] = []
    remedy = ""
    for one in CRITERIA:
        if weights.get(one.name) and not any(map(parts.get, one.figures)):
            lost.append(one.label)
            if one.name == "quality":
                remedy = "; answers are scored by loadbench score"
    if lost:
        text = f"unknown for every candidate, so its weight goes to the rest: {_names(lost)}{remedy}"
        yield _doubt("warn", "missing", "", text)
    names = [one.name for one in some]
    for name, share in parts.items():
        if share:
            yield from _of_one_figure(name, names, found[name])
    energies = {f.source for f in found.get("energy", {}).values()}
    if len(energies) > 1 and (parts.get("energy") or parts.get("cost")):
        text = f"energy was obtained in several ways ({', '.join(sorted(energies))}): it cannot be compared"
        yield _doubt("warn", "energy", "", text)


def _of_one_figure(name: str, candidates: Sequence[str], figures: Figures) -> Iterator[Finding]:
    """Candidates that lack a figure that counts, and whose figure has no interval."""
    title = declared(name).title
    lacking, few = [], []
    counts: set[int] = set()
    for one in candidates:
        figure = figures.get(one)
        if figure is None:
            lacking.append(one)
        elif figure.low is None and figure.n:  # without requests behind it, it is no statistic
            few.append(one)
            counts.add(figure.n)
    if lacking:
        text = f"{title} of {_names(lacking)} is unknown: it counts as half as good as the worst"
        yield _doubt("warn", "missing", _alone(lacking), text)
    if few:
        within = "a point" if unit(name) == "points" else "a factor of two"
        number = plural(max(counts), "request" if is_speed(name) else "prompt")
        if len(counts) > 1:
            number = f"{min(counts):,} to {number}"
        text = f"{title} of {_names(few)} rests on {number}, too few for an interval: taken within {within}"
        yield _doubt("warn", "V12", _alone(few), text)


def _of_sources(some: Sequence[Candidate], basis: Basis) -> Iterator[Finding]:
    """Where figures come from: the simulator, a process of several models, one measurement."""
    simulated, shared, most = [], [], 0
    for one in some:
        most = max(most, len(one.laps(basis.load)))
        if one.simulated:
            simulated.append(one.name)
        if one.shared:
            shared.append(one.name)
    if simulated:
        text = f"simulated, with a declared law: {_names(simulated)}; no figures of a real model"
        yield _doubt("warn", "simulated", "", text)
    if shared and basis.shares.get("memory"):
        text = f"several models were loaded in one process, so memory cannot be told apart ({_names(shared)})"
        yield _doubt("warn", "memory", "", text)
    # Others' fives are not a judge's fives.
    if len(scoring_methods(some)) > 1:
        yield _doubt("warn", "quality", "", "the runs were scored in different ways: their scores cannot be compared")
    if most == 1:
        text = "each was measured once, so run-to-run variation is unknown; repeat with --repeat 5"
        yield _doubt("note", "once", "", text)


def _alone(names: Sequence[str]) -> str:
    """Whom a doubt is about: "" of several."""
    return names[0] if len(names) == 1 else ""


def _names(names: Sequence[str]) -> str:
    listed, more = ", ".join(names[:_LISTED]), len(names) - _LISTED
    if more > 0:
        return f"{listed} and {more} more"
    return listed
