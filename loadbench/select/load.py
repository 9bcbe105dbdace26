"""The load at which candidates are held against each other."""

from __future__ import annotations

from collections.abc import Sequence

from loadbench.errors import UsageError
from loadbench.select.candidate import Candidate, Load


def common(candidates: Sequence[Candidate]) -> str:
    """The highest load that all candidates completed: requests at once, or where none is common, a rate.

    Candidates that completed no load at all have no say in it.

    Raises:
        UsageError: There is none; one line that says which each has.
    """
    some = [one for one in candidates if one.loads]
    if not some:
        raise UsageError("no candidate completed a level: there is nothing to choose by; measure them first")
    shared = [load for load in some[0].loads if all(load in one.loads for one in some)]
    if not shared:
        has = "; ".join(f"{one.name} has {', '.join(one.loads)}" for one in some[:6])
        raise UsageError(
            f"no load was completed by all candidates: {has}; choose one with --at, who lacks it falls out"
        )
    return max(shared, key=lambda load: _order(some[0].loads[load]))


def asked(candidates: Sequence[Candidate], name: str) -> str:
    """The load of that name.

    Raises:
        UsageError: No candidate completed it.
    """
    known: dict[str, Load] = {}
    for one in candidates:
        known |= one.loads
    if name in known:
        return name
    has = ", ".join(sorted(known, key=lambda load: _order(known[load]), reverse=True)) or "none"
    raise UsageError(f"--at {name}: no candidate completed that load; there are {has}")


def words(load: Load) -> str:
    """A load for people.

    >>> words(("closed", 4.0)), words(("open", 0.5))
    ('4 streams at once', '0.5 requests/s')
    """
    kind, number = load
    if kind == "open":
        return f"{number:g} requests/s"
    return f"{number:g} stream{'' if number == 1 else 's'} at once"


def _order(load: Load) -> tuple[bool, float]:
    return load[0] == "closed", load[1]
