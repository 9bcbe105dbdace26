"""What speaks against a choice: gates, runs that do not compare, figures that are missing or rest on too little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from loadbench.compare import between, differences
from loadbench.metrics.gates import titled
from loadbench.select.candidate import Candidate
from loadbench.select.figure import Figure, declared, is_speed, unit
from loadbench.select.need import Met
from loadbench.select.weights import CRITERIA

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

    severity: Literal["red", "warn", "note"]
    code: str
    about: str
    text: str


def of_gates(winner: Candidate, others: Sequence[Candidate], load: str) -> Iterator[Doubt]:
    """Red gates: of the winner's level they forbid a plain word, of another's its figures may be wrong too."""
    for one in (winner, *others):
        said = [*one.warnings, *(w for level in one.levels.get(load, ()) for w in level.get("warnings") or ())]
        reds: dict[str, dict[str, None]] = {}
        for w in said:
            if w.get("severity") == "red":
                reds.setdefault(str(w.get("code")), {})[str(w.get("text"))] = None
        codes = ", ".join(map(titled, reds))
        if one is winner:
            for code, (text, *more) in reds.items():
                also = f" (and {len(more)} more time{'s' * (len(more) > 1)})" if more else ""
                yield Doubt("red", code, one.name, f"{titled(code)} red at {load}: {text}{also}")
        elif reds:
            yield Doubt(
                "warn", ", ".join(reds), one.name, f"{codes} red for {one.name} at {load}: its place is not sure"
            )


def of_runs(winner: Candidate, others: Sequence[Candidate], load: str) -> Iterator[Doubt]:
    """Runs that asked for something else, or elsewhere: their figures do not compare (V8)."""
    laps = [(one, lap) for one in (winner, *others) if load in one.sides for lap in one.sides[load].laps]
    seen = set()
    for i, (one, lap) in enumerate(laps[1:], start=1):
        first, base = next((pair for pair in laps[:i] if pair[0] is one), laps[0])
        for found in differences(base.info, lap.info, _POOLED if first is one else MEANT):
            key = found.code, found.what, base.run, lap.run
            if found.severity == "red" and key not in seen and not _own_words(found.what, base.info, lap.info):
                seen.add(key)
                text = f"{found.what} differs between the runs {base.run} ({found.base}) and {lap.run} ({found.new})"
                yield Doubt("red", found.code, "", f"{text}: their figures do not compare")


def _own_words(what: str, base: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether requests differ in nothing but what loadbench adds for a kind of server by itself."""
    asked = [(info.get("scenario") or {}).get("extra_body") for info in (base, new)]
    kinds = [(info.get("target") or {}).get("kind") for info in (base, new)]
    return what == "extra_body" and asked[0] == asked[1] and kinds[0] != kinds[1]


def of_answers(winner: Candidate, others: Sequence[Candidate], load: str, tokens_count: bool) -> Iterator[Doubt]:
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


def of_figures(
    winner: Candidate,
    others: Sequence[Candidate],
    found: Mapping[str, Mapping[str, Figure]],
    shares: Mapping[str, float],
    weights: Mapping[str, float],
) -> Iterator[Doubt]:
    """Figures that count and that nobody has, that some lack, or that rest on too few requests."""
    everyone = (winner, *others)
    lost = [c for c in CRITERIA if weights.get(c.name) and not any(shares.get(name) for name in c.figures)]
    if lost:
        remedy = "; answers are scored by loadbench score" if any(one.name == "quality" for one in lost) else ""
        text = f"not known of any candidate, its weight is spread over the rest: {_names([one.label for one in lost])}"
        yield Doubt("warn", "missing", "", text + remedy)
    for name, share in shares.items():
        lacking = [one.name for one in everyone if one.name not in found[name]] if share else []
        if lacking:
            text = f"{declared(name).title} of {_names(lacking)} is not known: it counts as half as good as the worst"
            yield Doubt("warn", "missing", "" if len(lacking) > 1 else lacking[0], text)
        bare = {one.name: f.n for one in everyone if (f := found[name].get(one.name)) and f.low is None and f.n}
        if bare and share:
            within = "a point" if unit(name) == "points" else "a factor of two"
            noun = ("request" if is_speed(name) else "prompt") + ("" if max(bare.values()) == 1 else "s")
            n = f"{min(bare.values()):,}" + (f" to {max(bare.values()):,}" if len(set(bare.values())) > 1 else "")
            what = f"{declared(name).title} of {_names(list(bare))}"
            text = f"{what} rests on {n} {noun}, too few for an interval: taken within {within}"
            yield Doubt("warn", "V12", "" if len(bare) > 1 else next(iter(bare)), text)
    energies = {f.source for f in found.get("energy", {}).values()}
    if len(energies) > 1 and (shares.get("energy") or shares.get("cost")):
        text = f"energy was told in several ways ({', '.join(sorted(energies))}): it does not compare"
        yield Doubt("warn", "energy", "", text)


def of_sources(everyone: Sequence[Candidate], load: str, shares: Mapping[str, float]) -> Iterator[Doubt]:
    """Where figures come from: the simulator, a process of several models, one measurement."""
    simulated = [one.name for one in everyone if one.simulated]
    if simulated:
        text = f"simulated, with a declared law: {_names(simulated)}; no figures of a real model"
        yield Doubt("warn", "simulated", "", text)
    shared = [one.name for one in everyone if one.shared]
    if shared and shares.get("memory"):
        text = f"several models were loaded in one process: nobody knows whose its memory is ({_names(shared)})"
        yield Doubt("warn", "memory", "", text)
    methods = {method for one in everyone for method, row in one.scores if row.get("score")}
    if len(methods) > 1:
        yield Doubt("warn", "quality", "", "the runs were scored in different ways: their scores do not compare")
    if max((len(one.sides[load].laps) for one in everyone if load in one.sides), default=0) == 1:
        text = "each was measured once: what changes from run to run is not known; repeat with --repeat 5"
        yield Doubt("note", "once", "", text)


def of_needs(winner: str, met: Mapping[str, Sequence[Met]]) -> Iterator[Doubt]:
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
