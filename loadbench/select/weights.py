"""What counts, and how much: the criteria, their usual weights, and the file that says otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from loadbench.errors import UsageError
from loadbench.text import nearest, shown


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
NAMES = tuple(one.name for one in CRITERIA)
USUAL: Mapping[str, float] = {one.name: one.weight for one in CRITERIA}
_SAME = {"license": "licence", "energy": "cost", "ttft": "latency", "speed": "latency"}


@dataclass(frozen=True, slots=True)
class Policy:
    """What somebody decided to choose by.

    Attributes:
        weights: Parts by criterion, all of NAMES.
        licences: How good each licence is, from 0 to 1; one that is not named is not known.
        needs: Hard needs of the file, as written.
        usual: Whether the weights are the usual ones, which nobody here chose.
    """

    weights: Mapping[str, float]
    licences: Mapping[str, float]
    needs: Sequence[str] = ()
    usual: bool = True


def policy(data: object = None, given: Sequence[str] = (), where: str = "--weights") -> Policy:
    """The weights of a file, and those of the command line on top.

    A file lists all that counts: what it does not name has no weight. Without one the usual weights hold.

    Args:
        data: What the file holds: weights by criterion, and optionally `needs` (a list) and `licences` (a table).
        given: Each "latency=3".
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
    if not isinstance(needs, list) or not all(isinstance(need, str) for need in needs):
        raise UsageError(f'{where}: needs is {shown(needs)}: must be a list of texts, as ["ttft_p95<1s"]')
    if not isinstance(licences, Mapping):
        raise UsageError(f'{where}: licences is {shown(licences)}: must be a table, as {{"mit": 1}}')
    weights = dict(USUAL) if data is None else dict.fromkeys(NAMES, 0.0)
    for name, value in table.items():
        weights[_criterion(str(name), where)] = _weight(value, f"{where}: {name}")
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--weight {shown(text)}: write CRITERION=PARTS, as latency=3")
        weights[_criterion(name.strip(), "--weight")] = _weight(value.strip(), f"--weight {name.strip()}")
    if not math.fsum(weights.values()) > 0:
        raise UsageError(f"{where}: every weight is 0: give one of {', '.join(NAMES)} more")
    for name, value in licences.items():
        if isinstance(value, Mapping):  # TOML reads apache-2.0 = 1 as a table
            raise UsageError(f"{where}: licences.{name} is {shown(value)}: put names with a dot into quotes")
    known = {str(name).strip().lower(): _weight(value, f"{where}: licences.{name}") for name, value in licences.items()}
    if any(value > 1 for value in known.values()):
        raise UsageError(f"{where}: a licence is worth from 0 to 1")
    return Policy(weights, known, tuple(needs), usual=data is None and not given)


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
        figures = [name for name in one.figures if known.get(name)]
        if one.instead and figures:
            figures = [max(figures, key=lambda name: known[name])]
        for name in figures:
            if weights.get(one.name):
                parts[name] = weights[one.name] / len(figures)
    whole = math.fsum(parts.values())
    return {name: part / whole for name, part in parts.items()}


def criterion_of(figure: str) -> Criterion:
    """The criterion that a figure belongs to."""
    return next(one for one in CRITERIA if figure in one.figures)
