"""What compares runs and models, and what chooses one: the records, and their reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadbench import compare, select
from loadbench.errors import UsageError
from loadbench.report import choice
from loadbench.report import comparison as comparisons

if TYPE_CHECKING:
    from loadbench.api.run import Run


@dataclass(frozen=True, slots=True)
class Finding:
    """A comparison or a choice. It prints as its report.

    Attributes:
        record: As `loadbench compare --format json` and `loadbench select --format json` have it: docs/compare.md,
            docs/select.md.
    """

    record: Mapping[str, Any]
    _formats: Mapping[str, Callable[[Mapping[str, Any]], str]]

    def __str__(self) -> str:
        return self.report()

    def __repr__(self) -> str:
        return f"<Finding: {self.report().strip().splitlines()[0].strip()}>"

    def report(self, kind: str = "text") -> str:
        """The report as text: "text", "markdown" or "json"."""
        if kind not in self._formats:
            raise UsageError(f"report({kind!r}): write one of {', '.join(self._formats)}")
        return self._formats[kind](self.record)


def comparison(base: Run, new: Run, terms: compare.Terms) -> Finding:
    """A run against a base.

    Raises:
        UsageError: If they have no level in common.
    """
    sides = [
        compare.gather([one._read], one.folder.resolve().name, apart=[other.folder])
        for one, other in ((base, new), (new, base))
    ]
    if not compare.matched(sides[0].sides, sides[1].sides):
        raise UsageError(
            f"{base.folder} and {new.folder}: no level in common was measured; measure the same models and loads"
        )
    if sides[0].name == sides[1].name:
        sides = [replace(side, name=str(one.folder)) for side, one in zip(sides, (base, new), strict=True)]
    record = compare.compare_runs(sides[0], sides[1], terms)
    return Finding(compare.document([record]), comparisons.FORMATS)


def compare_models(
    runs: Run | Sequence[Run], base: str | None = None, *, margin: float = compare.MARGIN, **terms: Any
) -> Finding:
    """The models of one run, or of several together, each against one of them.

    Args:
        base: The model that the others are held against; unset: the first.
        margin: Ratios within it are the same.
        terms: More of `loadbench.compare.Terms`.
    Raises:
        UsageError: If there are no two models, or none of that name.
    """
    several = _listed(runs)
    group = compare.gather([one._read for one in several], several[0].name)
    models = group.models
    first = base or (models[0] if models else "")
    if first not in models or len(models) < 2:
        raise UsageError(
            f"base={first!r}: measured are {', '.join(models) or 'none'}; it takes two models, one of them base"
        )
    wanted = compare.Terms(margin=margin, **terms)
    records = [compare.compare_models(group, first, other, wanted) for other in models if other != first]
    return Finding(compare.document(records), comparisons.FORMATS)


def choose(
    runs: Run | str | Path | Sequence[Run | str | Path],
    *,
    needs: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    at: str | None = None,
    **terms: Any,
) -> Finding:
    """Which model to ship, of all that the runs measured: `record["winner"]`, and why.

    Args:
        needs: As "ttft_p95 < 1s" or "memory < 4GB": who misses one falls out.
        weights: All that counts, as {"latency": 3, "quality": 2}; unset: the usual.
        at: The load to choose by, as "c4"; unset: the highest that all completed.
        terms: More of `loadbench.select.Terms`: missing, seed, draws.
    Raises:
        UsageError: If nothing was measured, or a need or a weight is not understood.
    """
    policy = select.policy(None if weights is None else dict(weights), where="weights")
    wanted = [select.Need.parse(text) for text in (*policy.needs, *needs)]
    found = [select.read(Path(getattr(one, "folder", one))) for one in _listed(runs)]
    candidates = select.candidates(found)
    if not candidates:
        raise UsageError("no level was measured in these runs, so there is nothing to choose from")
    record = select.choose(candidates, found, select.Terms(policy=policy, needs=wanted, at=at, **terms))
    return Finding(record, choice.FORMATS)


def _listed(runs: Any) -> list[Any]:
    found = list(runs) if isinstance(runs, list | tuple) else [runs]
    if not found:
        raise UsageError("no run is given")
    return found
