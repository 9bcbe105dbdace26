"""What counts and how much; the Pareto front, the weighted rank, how firm it is, and what would change it.

A score is a weighted geometric mean of how good a candidate is against the best, figure by figure:

    score = 100 * product over figures of (goodness / best goodness) ** share

with goodness = x where more is better, 1 / x where less is, and 2 ** x on scales of points, where one of four steps is
worth a factor of two. So a score is how near a candidate comes to one that were best in everything, and who is before
whom rests on these two alone: adding or dropping a third changes no order (docs/select.md has what that costs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter, mul

import numpy as np

from loadbench.errors import UsageError
from loadbench.scenario.files import is_list
from loadbench.select.needs import Figure, declared, is_speed, points
from loadbench.store.record import Flags, Reals
from loadbench.text import nearest, shown

# -- weights


@dataclass(frozen=True, slots=True)
class Criterion:
    """What a choice weighs.

    Attributes:
        figures: Its figures share its weight evenly; where `instead`, only the first one that is known best counts.
        weight: The usual one, in parts.
    """

    name: str
    label: str
    figures: tuple[str, ...]
    weight: float
    instead: bool = False


CRITERIA = (
    Criterion("latency", "latency", ("ttft_p95", "e2e_mean"), 3.0),
    Criterion("throughput", "throughput", ("characters_per_s",), 2.0),
    Criterion("quality", "quality", ("quality", "rules"), 3.0, instead=True),
    Criterion("memory", "memory", ("memory",), 1.0),
    Criterion("disk", "disk footprint", ("disk",), 0.5),
    Criterion("cost", "energy or cost", ("cost", "energy"), 0.5, instead=True),
    Criterion("tokens", "tokens/s", ("output_tokens_per_s",), 0.0),
    Criterion("licence", "licence", ("licence",), 0.0),
)
"""Tokens per second are shown and do not count unless somebody weighs them: models cut the same text into more or fewer
of them. A licence is a need before it is a matter of degree."""
USUAL: Mapping[str, float] = {one.name: one.weight for one in CRITERIA}
NAMES = tuple(USUAL)
_SAME = {"license": "licence", "energy": "cost", "ttft": "latency", "speed": "latency"}


@dataclass(frozen=True, slots=True)
class Policy:
    """What somebody decided to choose by.

    Attributes:
        weights: Parts by criterion, all of NAMES.
        licences: How good each licence is, from 0 to 1; one that is not named is not known.
        needs: Hard needs of the file, as written.
        usual: Whether the weights are the defaults.
    """

    weights: Mapping[str, float]
    licences: Mapping[str, float]
    needs: Sequence[str] = ()
    usual: bool = True


def policy(data: object = None, changes: Sequence[str] = (), where: str = "--weights") -> Policy:
    """The weights of a file, and those of the command line on top.

    A file lists all that counts: what it does not name has no weight. Without one the usual weights hold.

    Args:
        data: What the file holds: weights by criterion, and optionally `needs` (a list) and `licences` (a table).
        changes: Each "latency=3".
        where: The file's name, for messages.
    Raises:
        UsageError: One line that says what is wrong.

    >>> policy({"latency": 2, "licences": {"MIT": 1}}, ["memory=1"]).weights["memory"]
    1.0
    """
    if data is not None and not isinstance(data, Mapping):
        raise UsageError(f'{where}: must be a table of weights, as {{"latency": 3, "quality": 2}}')
    table = dict(data or {})
    needs, licences = table.pop("needs", []), table.pop("licences", table.pop("licenses", {}))
    if not is_list(needs, str):
        raise UsageError(f'{where}: needs is {shown(needs)}: must be a list of texts, as ["ttft_p95<1s"]')
    if not isinstance(licences, Mapping):
        raise UsageError(f'{where}: licences is {shown(licences)}: must be a table, as {{"mit": 1}}')
    weights = dict(USUAL) if data is None else dict.fromkeys(NAMES, 0.0)
    for name, value in table.items():
        weights[_criterion(str(name), where)] = _weight(value, f"{where}: {name}")
    for text in changes:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--weight {shown(text)}: write CRITERION=PARTS, as latency=3")
        weights[_criterion(name.strip(), "--weight")] = _weight(value.strip(), f"--weight {name.strip()}")
    if not math.fsum(weights.values()) > 0:
        raise UsageError(f"{where}: every weight is 0: give one of {', '.join(NAMES)} more")
    known: dict[str, float] = {}
    for name, value in licences.items():
        if isinstance(value, Mapping):  # TOML reads apache-2.0 = 1 as a table
            raise UsageError(f"{where}: licences.{name} is {shown(value)}: put names with a dot into quotes")
        known[str(name).strip().lower()] = _weight(value, f"{where}: licences.{name}")
    if max(known.values(), default=0) > 1:
        raise UsageError(f"{where}: a licence is worth from 0 to 1")
    return Policy(weights, known, tuple(needs), usual=data is None and not changes)


def _criterion(name: str, where: str) -> str:
    known = _SAME.get(name.lower(), name.lower())
    if known not in NAMES:
        raise UsageError(f"{where}: there is no criterion {shown(name)}{nearest(name, NAMES)}")
    return known


def _weight(value: object, where: str) -> float:
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            number = float(value)
    if not (math.isfinite(number) and number >= 0):
        raise UsageError(f"{where} is {shown(value)}: must be a number, at least 0")
    return number


def shares(weights: Mapping[str, float], known: Mapping[str, int]) -> dict[str, float]:
    """By figure, its share of the whole, which sums to 1; {} where nothing that has a weight is known.

    Args:
        weights: By criterion.
        known: By figure, of how many candidates it is known. What is known of nobody says nothing: its weight is spread
            over the rest.

    >>> shares({"latency": 3, "memory": 1}, {"ttft_p95": 2, "e2e_mean": 2, "memory": 2})
    {'ttft_p95': 0.375, 'e2e_mean': 0.375, 'memory': 0.25}
    """
    parts: dict[str, float] = {}
    for one in CRITERIA:
        figures = list(filter(known.get, one.figures))
        if not figures or not weights.get(one.name):
            continue
        if one.instead:
            figures = [max(figures, key=known.__getitem__)]
        for name in figures:
            parts[name] = weights[one.name] / len(figures)
    whole = math.fsum(parts.values())
    return {name: part / whole for name, part in parts.items()}


def criterion_of(figure: str) -> Criterion:
    """The criterion that a figure belongs to."""
    return next(one for one in CRITERIA if figure in one.figures)


# -- scores

STEP = math.log(2.0)
"""What a step on a scale of points is worth, as a logarithm."""


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """What is ranked.

    Attributes:
        names, figures: Candidates, a row each; figures with a weight or shown beside them, a column each.
        logs: Logarithm of the goodness; NaN where it is not known.
        down, up: How far it may lie below and above, as standard deviations of the logarithm; 0 where it is certain.
        speed: Which columns come from how fast a run went.
    """

    names: tuple[str, ...]
    figures: tuple[str, ...]
    logs: Reals
    down: Reals
    up: Reals
    speed: Flags


UNSURE = math.log(2.0) / 1.96
"""Of a time, rate or score without an interval: 95 % within a factor of two (of a score a point), since nobody knows
better."""
_Z = 1.959964


def grid(names: Sequence[str], found: Mapping[str, Mapping[str, Figure]]) -> Grid:
    """The logarithms of the candidates' figures, which are given by figure and candidate, and of their doubts."""
    figures = tuple(name for name, known in found.items() if not known.keys().isdisjoint(names))
    shape = (len(names), len(figures))
    logs, down, up = np.full(shape, np.nan), np.zeros(shape), np.zeros(shape)
    for k, figure in enumerate(figures):
        for i, name in enumerate(names):
            one = found[figure].get(name)
            if one is None:
                continue
            value, low, high = goodness(figure, one.value), goodness(figure, one.low), goodness(figure, one.high)
            if value is None:
                continue
            logs[i, k] = value
            if low is not None and high is not None:  # the other way round where less is better
                down[i, k] = max(0.0, value - min(low, high)) / _Z
                up[i, k] = max(0.0, max(low, high) - value) / _Z
            elif one.n and one.low is None:
                down[i, k] = up[i, k] = UNSURE
    return Grid(tuple(names), figures, logs, down, up, np.array(list(map(is_speed, figures)), dtype=bool))


def goodness(figure: str, value: float | None) -> float | None:
    """The logarithm of how good a value is; None of one that has none.

    >>> goodness("ttft_p95", 200.0) > goodness("ttft_p95", 400.0), goodness("rules", 0.0), goodness("memory", 0.0)
    (True, 0.0, None)
    """
    if value is None:
        return None
    scale = points(figure)
    if scale is not None:
        return value * scale * STEP
    if not value > 0:
        return None
    if declared(figure).figure.more_is_better:
        return math.log(value)
    return -math.log(value)


def ratios(logs: Reals) -> Reals:
    """Logarithm of goodness over that of the best, at most 0; what is not known is filled."""
    if not logs.size:
        return logs
    known = filled(logs)
    return np.asarray(known - known.max(axis=-2, keepdims=True))


def filled(logs: Reals) -> Reals:
    """What is not known counts as half as good as the worst of the others: so it never wins by not being known.

    Args:
        logs: A row a candidate, a column a figure, of which one at least is known; any axes before them.
    """
    worst = np.nanmin(logs, axis=-2, keepdims=True)
    return np.where(np.isnan(logs), worst - STEP, logs)


def scores(logs: Reals, shares: Sequence[float]) -> Reals:
    """The score of each row, at most 100.

    >>> twice = np.log([[1.0, 1.0], [0.5, 1.0]])
    >>> scores(twice, [0.5, 0.5]).round(1)
    array([100. ,  70.7])
    """
    return np.asarray(100 * np.exp(ratios(logs) @ np.asarray(shares, dtype=np.float64)))


# -- the Pareto front


@dataclass(frozen=True, slots=True)
class Dominated:
    """Another candidate that is better in some figures, and in no other worse."""

    by: str
    better: tuple[str, ...]


def dominated(names: Sequence[str], figures: Sequence[str], goodness: Reals) -> Mapping[str, list[Dominated]]:
    """By candidate, those that dominate it; who is not in it is on the front.

    Args:
        goodness: A row a candidate, a column a figure, more is better; NaN for what nobody measured: that is never
            better than anything, and nothing can be said to be better than that in this figure alone.

    >>> found = dominated(["a", "b", "c"], ["speed", "size"], np.array([[3.0, 1.0], [2.0, 2.0], [2.0, 0.5]]))
    >>> {name: [(one.by, one.better) for one in by] for name, by in found.items()}
    {'c': [('a', ('speed', 'size')), ('b', ('size',))]}
    """
    found: dict[str, list[Dominated]] = {}
    for i, name in enumerate(names):
        for j, other in enumerate(names):
            mine, theirs = goodness[i], goodness[j]
            # What was not measured of the other might be worse than this.
            if i == j or bool((np.isnan(theirs) & ~np.isnan(mine)).any()):
                continue
            both = ~np.isnan(mine) & ~np.isnan(theirs)
            if both.any() and bool((theirs[both] >= mine[both]).all()) and bool((theirs[both] > mine[both]).any()):
                better = tuple(figure for k, figure in enumerate(figures) if both[k] and theirs[k] > mine[k])
                found.setdefault(name, []).append(Dominated(other, better))
    return found


# -- how firm the rank is

DRAWS = 4000
SPREAD = 0.2
"""Each weight is multiplied by something between 1 - this and 1 + this."""
_ALIKE = 1e-9
"""Logarithms of scores this near are a tie, which is shared."""


@dataclass(frozen=True, slots=True)
class Wins:
    """Shares of draws in which each candidate comes first, in the order of the grid; ties are shared."""

    figures: tuple[float, ...]
    weights: tuple[float, ...]
    both: tuple[float, ...]


def wins(
    grid: Grid, shares: Sequence[float], groups: Sequence[int] | None = None, *, draws: int = DRAWS, seed: int = 1
) -> Wins:
    """How often each candidate wins if its figures, the weights, or both are drawn again.

    A figure is drawn from a lognormal that its 95 % interval is of, each side with its own spread. Times and rates of
    one candidate are drawn together, as of one run that went well or badly: that they fall together by chance is the
    less favourable case for who leads. Memory, disk and licence are no statistics and stay.

    Args:
        shares: Of the figures, in the grid's order; they sum to 1.
        groups: By figure, the number of the criterion whose weight it has a part of; by default each has its own.
        draws: How many.
        seed: The same one gives the same shares.
    """
    generator = np.random.default_rng(seed)
    weights = np.asarray(shares, dtype=np.float64)
    rows, columns = grid.logs.shape
    # One draw a candidate for all that comes from speed, one a figure for the rest.
    run = generator.standard_normal((draws, rows, 1))
    own = generator.standard_normal((draws, rows, columns))
    z = np.where(grid.speed, run, own)
    drawn = grid.logs + np.where(z < 0, grid.down, grid.up) * z
    factors = generator.uniform(1 - SPREAD, 1 + SPREAD, (draws, columns))
    if groups is not None:
        factors = factors[:, list(groups)]
    other = weights * factors
    other = other / other.sum(axis=1, keepdims=True)
    again = filled(drawn)
    by_weights = np.einsum("rc,dc->dr", filled(grid.logs), other)
    by_both = np.einsum("drc,dc->dr", again, other)
    return Wins(_first(again @ weights), _first(by_weights), _first(by_both))


def _first(scores: Reals) -> tuple[float, ...]:
    best = scores >= scores.max(axis=1, keepdims=True) - _ALIKE
    share = best / best.sum(axis=1, keepdims=True)
    return tuple(share.mean(axis=0).tolist())


# -- what would change it

_LEAST = 1e-6
"""At a share of 0 or 1 exactly two are even at most: nobody wins beyond it."""


@dataclass(frozen=True, slots=True)
class OtherWeight:
    """The share of the whole from which on another candidate wins, the other criteria keeping their proportions."""

    criterion: str
    share: float
    needed: float
    winner: str


@dataclass(frozen=True, slots=True)
class OtherFigure:
    """The value from which on a candidate wins, all else unchanged; of points there is no factor."""

    name: str
    figure: str
    factor: float | None
    value: float
    needed: float


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """A candidate that would win if an unknown figure of it were as good as the winner's."""

    name: str
    figure: str


def unmeasured(grid: Grid, shares: Sequence[float], winner: int) -> list[Unmeasured]:
    """Candidates that only the lack of a figure keeps from winning; `winner` is a row."""
    logs = filled(grid.logs)
    found = []
    for i, name in enumerate(grid.names):
        for k, figure in enumerate(grid.figures):
            if i == winner or shares[k] <= 0 or not np.isnan(grid.logs[i, k]):
                continue
            lead = logs[winner] - logs[i]
            if float(np.dot(lead, shares)) < shares[k] * float(lead[k]):
                found.append(Unmeasured(name, figure))
    return found


def other_weight(
    names: Sequence[str], figures: Sequence[str], ratios: Reals, shares: Sequence[float], winner: int
) -> OtherWeight | None:
    """The least change of one criterion's weight that makes another candidate win; None where none does.

    Args:
        ratios: Logarithms of goodness against the best, a row a candidate (`rank.ratios`).
        shares: Of the figures, which sum to 1.
        winner: Its row.
    """
    found, nearest = None, math.inf
    columns: dict[str, list[int]] = {}
    for k, name in enumerate(figures):
        columns.setdefault(criterion_of(name).name, []).append(k)
    for criterion, own in columns.items():
        share = math.fsum(shares[k] for k in own)
        if not 0 < share < 1:
            continue
        for i, name in enumerate(names):
            ahead = ((ratios[winner] - ratios[i]) * shares).tolist()
            # How far the winner is ahead by this criterion alone, and by the others alone.
            by_it = math.fsum(ahead[k] for k in own)
            others, by_it = (math.fsum(ahead) - by_it) / (1 - share), by_it / share
            if i == winner or others == by_it:
                continue
            needed = others / (others - by_it)
            if _LEAST < needed < 1 - _LEAST and abs(needed - share) < nearest:
                found, nearest = OtherWeight(criterion, share, needed, name), abs(needed - share)
    return found


def other_figures(
    name: str, values: Mapping[str, float], figures: Sequence[str], lead: Sequence[float], shares: Sequence[float]
) -> list[OtherFigure]:
    """What each figure of a candidate would have to be for it to win, the least change first.

    What lies beyond a scale (a quality above 5, rules above 100 %) is left out, and what nobody measured.

    Args:
        lead: By figure, how far the winner is ahead as a logarithm.
    """
    behind = math.fsum(map(mul, shares, lead))
    found = []
    for figure, share in zip(figures, shares, strict=True):
        one, scale = declared(figure).figure, points(figure)
        if share <= 0 or figure not in values or one.unit == "word" or behind / share > math.log(1e6):
            continue
        value, gain, factor = values[figure], behind / share, None
        if scale is None:
            factor = math.exp(gain)
            needed = value * factor if one.more_is_better else value / factor
        else:
            needed = value + gain / STEP / scale
            top = 5.0 if one.unit == "points" else 1.0
            if needed > top:
                continue
        found.append((gain, OtherFigure(name, figure, factor, value, needed)))
    found.sort(key=itemgetter(0))
    return [one for _, one in found]
