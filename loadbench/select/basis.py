"""What a choice rests on: its terms, and at one load the candidates that meet the needs, with figures and rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from loadbench.scenario.bounds import Need
from loadbench.select import rank
from loadbench.select.candidates import Candidate, load_at
from loadbench.select.needs import Figure, Figures, Met, figures, licence, met
from loadbench.select.weights import Policy, criterion_of, policy, shares


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
    def ranked(self) -> list[Candidate]:
        """The candidates that are left, the best first."""
        return [self.left[row] for row in self.order]

    def weights(self) -> list[float]:
        """Shares of the grid's figures, in its order."""
        return [self.shares.get(name, 0.0) for name in self.grid.figures]

    def win(self, row: int) -> dict[str, float]:
        wins = self.wins
        return {"figures": wins.figures[row], "weights": wins.weights[row], "both": wins.both[row]}


def basis_of(some: Sequence[Candidate], terms: Terms) -> Basis:
    load = load_at(some, terms.at)
    there = [one for one in some if load in one.sides]
    worth = terms.policy.licences
    licences: Figures = {}
    for one in there:
        word = licence(one)
        if word is not None and word in worth:
            licences[one.name] = Figure(worth[word], source=word)
    measured = {**figures(there, load), "licence": licences}
    by_need = [met(need, there, load, measured) for need in terms.needs]
    by_candidate = {one.name: [found[one.name] for found in by_need] for one in there}
    left = [one for one in there if not any(falls_out(need, terms) for need in by_candidate[one.name])]
    names = [one.name for one in left]
    counts = {figure: len(values.keys() & set(names)) for figure, values in measured.items()}
    parts = shares(terms.policy.weights, counts)
    grid = rank.grid(names, measured)
    weights = [parts.get(name, 0.0) for name in grid.figures]
    even = (1 / max(1, len(names)),) * len(names)
    scores, wins = [100.0] * len(names), rank.Wins(even, even, even)
    order = list(range(len(names)))
    if names and parts:
        criteria = [criterion_of(name).name for name in grid.figures]
        first_of_each = list(dict.fromkeys(criteria))
        groups = [first_of_each.index(name) for name in criteria]
        scores = rank.scores(grid.logs, weights).tolist()
        wins = rank.wins(grid, weights, groups, draws=terms.draws, seed=terms.seed)
        order.sort(key=lambda row: (-scores[row], names[row]))
    return Basis(
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


def falls_out(need: Met, terms: Terms) -> bool:
    return need.outcome == "missed" or (need.outcome == "unknown" and terms.missing == "out")
