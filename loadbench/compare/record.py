"""A whole comparison as one record of plain values, for reports and for programs (docs/compare.md)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from loadbench import figures
from loadbench.compare.differences import OF_LEVEL, Difference, between, differences, ran
from loadbench.compare.figures import DEFAULT, OF_MODELS, figure, keys
from loadbench.compare.group import Gate, Group
from loadbench.compare.judging import judge_levels, means
from loadbench.compare.overall import overall, row
from loadbench.compare.reading import against, matched
from loadbench.compare.side import Side, interleaved
from loadbench.compare.verdict import MARGIN, SHARE_MARGIN, Verdict, withheld
from loadbench.metrics.distribution import significant
from loadbench.metrics.gates import titled
from loadbench.store.summary import SEVERITIES, worst_first

Record = dict[str, Any]
Judged = tuple[Side, Side, list[Verdict]]
SCHEMA = 1
_ALL = frozenset(one.key for one in figures.of("verdict"))
_SPARED: Mapping[str, Collection[str]] = {
    "V1": _ALL - {*keys("rate")},
    "V4": keys("share"),
    "V5": ("ttft", "tpot", "itl", "client_queue", "failed"),
    "V6": _ALL - {"output_tokens_per_s", "input_tokens_per_s", "goodput", "tpot"},
}
"""Metrics that a red gate leaves a verdict: a short window makes rates accidental and nothing else, failures are no
reason not to say that more fail, other lengths none not to compare first tokens, two counts of tokens none not to
compare characters."""
_UNSPARING = ("records", "offered")
"""Red gates that take away even the verdict that more requests fail: records are missing, so nobody can count them."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms sides are compared.

    Attributes:
        margin: A ratio within 1 + margin either way is the same.
        share_margin: A difference of shares within it is the same.
        metrics: Names as `figures.figure` reads them; None for the usual ones.
        meant: What is compared on purpose, by the names of `differences.NAMES`.
    """

    margin: float = MARGIN
    share_margin: float = SHARE_MARGIN
    metrics: Sequence[str] | None = None
    meant: Collection[str] = ()


def document(records: Sequence[Record]) -> Record:
    """Comparisons as `loadbench compare --format json` writes them."""
    return {"schema": SCHEMA, "comparisons": list(records)}


def compare_runs(base: Group, new: Group, terms: Terms | None = None) -> Record:
    """NEW against BASE, level by level of what both measured.

    Raises:
        UsageError: If a metric is unknown.
    """
    terms = terms or Terms()
    pairs = matched(base.sides, new.sides)
    found = _of_runs(base, new, terms.meant)
    if terms.metrics is None:
        same = all(one.model == other.model for one, other in pairs)
        terms = replace(
            terms, metrics=(*(DEFAULT if same else OF_MODELS), *_attained(pairs, found if base.slo is None else ()))
        )
    rest = {
        "only_base": _rest(base.sides, [one for one, _ in pairs]),
        "only_new": _rest(new.sides, [other for _, other in pairs]),
    }
    sides = {"base": base.facts(), "new": new.facts()}
    return {"kind": "runs", **sides, **rest, **_judged((base, new), pairs, found, terms)}


def compare_models(group: Group, base: str, new: str, terms: Terms | None = None) -> Record:
    """One model against another of the same runs.

    Raises:
        UsageError: If a metric is unknown.
    """
    terms = terms or Terms()
    pairs = against(group.sides, base, new)
    terms = replace(
        terms,
        meant=tuple(dict.fromkeys((*terms.meant, *OF_LEVEL))),
        metrics=terms.metrics or (*OF_MODELS, *_attained(pairs, ())),
    )
    own = [{key: side for key, side in group.sides.items() if key[0] == model} for model in (base, new)]
    rest = {
        "only_base": _rest(own[0], [one for one, _ in pairs]),
        "only_new": _rest(own[1], [other for _, other in pairs]),
    }
    facts = group.facts()
    sides = {side: {**facts, "name": name, "models": [name]} for side, name in (("base", base), ("new", new))}
    return {"kind": "models", **sides, **rest, **_judged((group, group), pairs, _among(group, group.name), terms)}


def _rest(sides: Mapping[tuple[str, str], Side], paired: Sequence[Side]) -> list[dict[str, str]]:
    """Levels that the other side has not."""
    return [{"model": s.model, "load": s.load} for s in sides.values() if not any(s is one for one in paired)]


def _attained(pairs: Sequence[tuple[Side, Side]], found: Sequence[Difference]) -> tuple[str, ...]:
    """Attainment, where both sides were held to the same bounds."""
    laps = [lap for pair in pairs for side in pair for lap in side.laps]
    held = bool(laps) and all("attainment" in lap.outcomes for lap in laps)
    return ("attainment",) if held and all(one.what != "slo" for one in found) else ()


def _judged(
    groups: tuple[Group, Group],
    pairs: Sequence[tuple[Side, Side]],
    found: Sequence[Difference],
    terms: Terms,
) -> Record:
    levels: list[Record] = []
    judged: list[Judged] = []
    metrics = list(dict.fromkeys(terms.metrics or DEFAULT))
    found_at = judge_levels(pairs, metrics, margin=terms.margin, share_margin=terms.share_margin)
    for (one, other), verdicts_of in zip(pairs, found_at, strict=True):
        of_level = [*ran(one, other, terms.meant), *between(one, other)]
        gates = _gates(groups, (one, other))
        verdicts = [_held_back(verdict, [*found, *of_level], gates) for verdict in verdicts_of]
        judged.append((one, other, verdicts))
        levels.append(
            {
                "load": one.load,
                "base_model": one.model,
                "new_model": other.model,
                "runs_base": one.runs,
                "runs_new": other.runs,
                "interleaved": one.runs > 1 and interleaved(one, other),
                "differences": [asdict(difference) for difference in of_level],
                "gates": gates,
                "verdicts": [_plain(verdict) for verdict in verdicts],
            }
        )
    over = _means(judged)
    return {
        "margin": terms.margin,
        "share_margin": terms.share_margin,
        "metrics": metrics,
        "meant": list(terms.meant),
        "differences": [asdict(difference) for difference in found],
        "levels": levels,
        "over_levels": [
            {"base_model": names[0], "new_model": names[1], "levels": n, **_plain(verdict)}
            for names, n, verdict in over
        ],
        **overall(
            [row(v, one.model, other.model, one.load) for one, other, verdicts in judged for v in verdicts],
            [row(verdict, *names, None) for names, _, verdict in over],
        ),
    }


def _of_runs(base: Group, new: Group, meant: Collection[str]) -> list[Difference]:
    """What the sides differ in, and runs of one side among themselves; each thing once, the red ones first."""
    found: dict[str, Difference] = {}
    for run in new.runs:
        for one in differences(base.runs[0].info, run.info, meant):
            found.setdefault(one.what, one)
    return _sorted([*found.values(), *_among(base, "BASE"), *_among(new, "NEW")])


def _among(group: Group, name: str) -> list[Difference]:
    """What runs of one side differ in: then they are no repeats of one another."""
    found: dict[str, Difference] = {}
    for run in group.runs[1:]:
        for one in differences(group.runs[0].info, run.info):
            text = f"runs of {name} differ among themselves: {one.text}"
            found.setdefault(one.what, replace(one, what=f"{one.what} among runs of {name}", text=text))
    return _sorted([one for what, one in found.items() if what not in OF_LEVEL])


def _sorted(found: Sequence[Difference]) -> list[Difference]:
    """The red ones first. Which model ran where is asked level by level, for a run may hold several."""
    return worst_first(one for one in found if one.what not in OF_LEVEL)


def _gates(groups: tuple[Group, Group], sides: tuple[Side, Side]) -> list[Gate]:
    """What spoke against the level on either side, the red ones first; notes left out."""
    found = [
        {**gate, "side": name}
        for name, group, side in zip(("base", "new"), groups, sides, strict=True)
        for gate in group.gates.get((side.model, side.load), ())
        if gate["severity"] != "note"
    ]
    return sorted(found, key=lambda gate: SEVERITIES.index(gate["severity"]))


def _held_back(verdict: Verdict, found: Sequence[Difference], gates: Sequence[Gate]) -> Verdict:
    """The verdict, or why there is none: a red difference, or a red gate of either side."""
    metric = figure(verdict.metric).metric
    why = [
        f"{one.code} {one.what}" for one in found if one.severity == "red" and metric not in _SPARED.get(one.code, ())
    ]
    why += [
        f"{titled(one['code'])} of {one['side'].upper()}"
        for one in gates
        if one["severity"] == "red" and not _spares(one["code"], metric)
    ]
    return withheld(verdict, f"red: {', '.join(dict.fromkeys(why))}") if why else verdict


def _spares(code: str, metric: str) -> bool:
    """Whether a red gate leaves a metric its verdict: that more requests fail is said whatever else is in doubt."""
    return metric in _SPARED.get(code, ()) or (metric == "failed" and code not in _UNSPARING)


def _means(judged: Sequence[Judged]) -> list[tuple[tuple[str, str], int, Verdict]]:
    """The geometric mean over the levels of each pair of models, by metric; of what has a verdict."""
    found: dict[tuple[tuple[str, str], str], list[Verdict]] = {}
    for one, other, verdicts in judged:
        for verdict in verdicts:
            if verdict.word != "no verdict":
                found.setdefault(((one.model, other.model), verdict.metric), []).append(verdict)
    means_of: list[tuple[tuple[str, str], int, Verdict]] = []
    for names in dict.fromkeys(names for names, _ in found):
        rows = [verdicts for (of, _), verdicts in found.items() if of == names]
        for verdicts, mean in zip(rows, means(rows), strict=True):
            if mean is not None:
                means_of.append((names, len(verdicts), mean))
    return means_of


def _plain(verdict: Verdict) -> Record:
    fields = {name: _plain_value(value) for name, value in asdict(replace(verdict, evidence=None)).items()}
    del fields["evidence"]
    by_run = [significant(ratio) for ratio in verdict.by_run]
    return {**fields, "by_run": by_run, "more_is_better": figure(verdict.metric).more_is_better}


def _plain_value(value: Any) -> Any:
    return significant(value) if isinstance(value, float) else value
