"""A whole comparison as one record of plain values, for reports and for programs (docs/compare.md)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from loadbench import figures, metrics, store
from loadbench.compare.differences import OF_LEVEL, Difference, between, differences, ran
from loadbench.compare.figures import DEFAULT, OF_MODELS, figure, keys
from loadbench.compare.judging import judge_levels, means
from loadbench.compare.sides import Side, against, interleaved, load_of, matched, sides
from loadbench.compare.verdict import BAD, MARGIN, SHARE_MARGIN, WITHIN, Verdict, withheld
from loadbench.errors import LoadbenchError
from loadbench.metrics import checks, gates
from loadbench.metrics.checks import titled
from loadbench.store import Run
from loadbench.store.summary import Band, as_mapping, rank, significant, worst_first

MOST_EARLIER = 5
"""Runs before one that are read for how much runs differ: the last ones are of the machine as it is now."""

Key = tuple[str, str]
"""Model and load."""
Gate = dict[str, str]
"""{"code", "name", "severity", "text", "run", "level"}; the level is "" of a gate about its whole run."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Runs that count as one side, read.

    Attributes:
        name: What to call it: the folder's name.
        runs: At least one.
        sides: What they measured, by model and load.
        gates: Those that spoke, red and warning, by model and load.
        slo: Bounds that replaced the runs' own; None where those counted.
    """

    name: str
    runs: tuple[Run, ...]
    sides: Mapping[Key, Side]
    gates: Mapping[Key, Sequence[Gate]]
    slo: Sequence[str] | None = None

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(model for model, _ in self.sides))

    def facts(self) -> dict[str, Any]:
        """What a comparison says of this side."""
        targets = [run.info.get("target") or {} for run in self.runs]
        return {
            "name": self.name,
            "runs": [
                {"folder": str(run.path), "start": run.info.get("start"), "levels": len(run.levels)}
                for run in self.runs
            ],
            "models": self.models,
            "server": targets[0].get("kind"),
            "server_version": targets[0].get("version"),
            "base_url": targets[0].get("base_url"),
            "simulated": any(target.get("kind") == "simulator" for target in targets),
        }


def gather(
    runs: Sequence[Run],
    name: str | None = None,
    *,
    slo: Sequence[str] | None = None,
    summaries: Mapping[Path, Mapping[str, Any]] | None = None,
    apart: Collection[Path] | None = None,
) -> Group:
    """One side from its runs.

    Args:
        runs: At least one, read.
        name: What to call the side; by default the first run's folder.
        slo: Bounds of attainment and goodput; each run's own by default.
        summaries: By run folder, what `metrics.summarise` returned of it, where that is at hand.
        apart: Folders of the other side. Where they are named and there is one run, `earlier` runs say how much runs
            differ.
    """
    found: dict[Key, list[Gate]] = {}
    known = summaries or {}
    measured = sides(runs, slo)
    if apart is not None and len(runs) == 1:
        before = sides(earlier(runs[0], apart), slo)
        for key, side in before.items():
            if key in measured:
                measured[key] = replace(measured[key], earlier=side.laps)
    for run in runs:
        _gates(run, known.get(run.path) or metrics.summarise(run), found)
    return Group(name or runs[0].path.name, tuple(runs), measured, found, slo)


def earlier(run: Run, apart: Collection[Path] = ()) -> list[Run]:
    """Runs of the same folder that began before this one and did the same on the same machine; the last ones.

    Args:
        apart: Folders that do not count: those of the side that it is compared with.
    """
    own = run.path.resolve()
    others = {path.resolve() for path in apart}
    began = str(run.info.get("start"))
    alike: list[tuple[str, Path]] = []
    for file in own.parent.glob("*/run.json"):
        path = file.parent
        if path == own or path in others:
            continue
        try:
            info = store.read_info(path)
        except LoadbenchError:
            continue  # broken, or of a newer loadbench: it says nothing here
        start = str(info.get("start"))
        if info.get("status") == "complete" and start < began and not differences(run.info, info):
            alike.append((start, path))
    found: list[Run] = []
    for _, path in sorted(alike)[-MOST_EARLIER:]:
        try:
            found.append(store.read(path))
        except LoadbenchError:
            continue
    return found


def _gates(run: Run, summary: Mapping[str, Any], found: dict[Key, list[Gate]]) -> None:
    """The warnings of a run's levels; at each of them those about its whole run, of the noise band its model's own."""
    whole = [warning for warning in summary["warnings"] if warning["code"] != "V11"]
    noise = {
        str(band.get("model")): [as_mapping(found) for found in gates.noise([msgspec.convert(band, Band)])]
        for band in summary["noise"]
    }
    for level in summary["levels"]:
        if level.get("closing") or level.get("status") != "complete":
            continue
        model = str(level.get("model"))
        at = found.setdefault((model, load_of(level)), [])
        at.extend(_gate(warning, run, str(level.get("id"))) for warning in level.get("warnings") or ())
        at.extend(_gate(warning, run, "") for warning in (*whole, *noise.get(model, ())))


def _gate(warning: Mapping[str, str], run: Run, level: str) -> Gate:
    name = checks.NAMES.get(warning["code"], warning["code"])
    told = {key: warning[key] for key in ("code", "severity", "text")}
    return {**told, "name": name, "run": run.path.name, "level": level}


Row = dict[str, Any]
"""Where a verdict stands, and its word: {"base_model", "new_model", "load" (None over levels), "metric", "word"}."""
Overall = Literal["faster", "slower", "better", "worse", "mixed", "same", "can't tell", "no verdict"]
GOOD = ("faster", "better")


def row(verdict: Verdict, base_model: str, new_model: str, load: str | None) -> Row:
    return {
        "base_model": base_model,
        "new_model": new_model,
        "load": load,
        "metric": verdict.metric,
        "word": verdict.word,
    }


def overall(levels: Sequence[Row], means: Sequence[Row]) -> dict[str, Any]:
    """The word, the verdicts it is made from, and the levels that stand out from them.

    A metric's verdict is that of its mean over the levels, where there is one, else those of its levels. What nobody
    can tell takes nothing away from the others, and is named beside the word; levels that stand out count: a mean
    hides that one got better and one worse.

    Returns:
        {"word", "decisive": rows, "open": those of them that nobody can tell, "exceptions": rows of levels that are
        better or worse though their mean is not}.

    >>> at = {"base_model": "m", "new_model": "m", "load": "c1"}
    >>> overall([at | {"metric": "ttft", "word": "slower"}, at | {"metric": "e2e", "word": "same"}], [])["word"]
    'slower'
    """
    over = {_of(mean): mean["word"] for mean in means}
    decisive = [*means, *(one for one in levels if _of(one) not in over or one["word"] == "no verdict")]
    exceptions = [
        one for one in levels if one["word"] in (*BAD, *GOOD) and over.get(_of(one), one["word"]) != one["word"]
    ]
    # Without a single failure it takes thousands of requests to hold a share within a point: nothing to settle.
    unsettled = [one for one in decisive if one["metric"] not in keys("share") and one["word"] == "can't tell"]
    counted = [one for one in decisive if one["metric"] not in keys("share") or one["word"] != "can't tell"]
    words = [one["word"] for one in (*counted, *exceptions)]
    return {"word": _word(words), "decisive": decisive, "open": unsettled, "exceptions": exceptions}


def _of(one: Row) -> tuple[str, str, str]:
    return one["base_model"], one["new_model"], one["metric"]


def _word(words: Sequence[str]) -> Overall:
    """One word for several: what is worse beyond the margin is never outweighed by what is the same.

    >>> _word(["same", "slower", "worse"]), _word(["faster", "slower"]), _word(["same", "can't tell"]), _word([])
    ('slower', 'mixed', 'same', 'no verdict')
    >>> _word(["can't tell"]), _word(["same", "slightly slower"])
    ("can't tell", 'same')
    """
    said = {word for word in words if word != "no verdict"}
    if not said:
        return "no verdict"
    bad, good = said & set(BAD), said & set(GOOD)
    if bad and good:
        return "mixed"
    if bad:
        return "slower" if "slower" in bad else "worse"
    if good:
        return "faster" if "faster" in good else "better"
    return "same" if said & set(WITHIN) else "can't tell"


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
        gates = _gates_of(groups, (one, other))
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


def _gates_of(groups: tuple[Group, Group], sides: tuple[Side, Side]) -> list[Gate]:
    """What spoke against the level on either side, the red ones first; notes left out."""
    found = [
        {**gate, "side": name}
        for name, group, side in zip(("base", "new"), groups, sides, strict=True)
        for gate in group.gates.get((side.model, side.load), ())
        if gate["severity"] != "note"
    ]
    return sorted(found, key=lambda gate: rank(gate["severity"]))


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


def summarise(run: Run) -> dict[str, Any]:
    """Everything that the reports of a run print: `metrics.summarise`, and under `models_compared` its models."""
    summary = metrics.summarise(run)
    return summary | {"models_compared": of_run(run, summary)}


def of_run(run: Run, summary: dict[str, Any], terms: Terms | None = None) -> list[Record]:
    """Each further model against the first one, at every load that both completed; empty of one model.

    Args:
        run: Read.
        summary: What `metrics.summarise` returned of it.
    """
    if len({level.get("model") for level in summary["levels"]}) < 2:
        return []
    group = gather([run], summaries={run.path: summary})
    first, *others = group.models or [""]
    records = (compare_models(group, first, other, terms) for other in others)
    return [record for record in records if record["levels"]]
