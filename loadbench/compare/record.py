"""A whole comparison as one record of plain values, for reports and for programs (docs/compare.md)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from loadbench import figures, metrics, store
from loadbench.compare.differences import OF_LEVEL, Difference, between, differences, ran
from loadbench.compare.judging import judge_levels, means
from loadbench.compare.sides import Key, Side, against, interleaved, load_of, matched, sides
from loadbench.compare.verdict import (
    BAD,
    DEFAULT,
    GOOD,
    MARGIN,
    OF_MODELS,
    SHARE_MARGIN,
    WITHIN,
    Verdict,
    figure,
    rates,
    shares,
    withheld,
)
from loadbench.errors import LoadbenchError
from loadbench.metrics import checks
from loadbench.metrics.gates import noise
from loadbench.store import Run
from loadbench.store.files import read_info
from loadbench.store.summary import Finding, Summary, rank, significant

SCHEMA = 1
MOST_EARLIER = 5
"""Runs before one that are read for how much runs differ: the last ones are of the machine as it is now."""
_ALL = frozenset(one.key for one in figures.of("verdict"))
_SPARED: Mapping[str, Collection[str]] = {
    "V1": _ALL - set(rates()),
    "V4": shares(),
    "V5": ("ttft", "tpot", "itl", "client_queue", "failed", "tokens_per_s_per_user", "prefill_tokens_per_s"),
    "V6": _ALL
    - {"output_tokens_per_s", "input_tokens_per_s", "goodput", "tpot"}
    - {"tokens_per_s_per_user", "normalised_latency"},
}
"""Metrics that a red gate leaves a verdict: a short window makes rates accidental and nothing else, failures are no
reason not to say that more fail, other lengths none not to compare first tokens, two counts of tokens none not to
compare characters."""
_UNSPARING = ("records", "offered")
"""Red gates that take away even the verdict that more requests fail: records are missing, so nobody can count them."""

Record = dict[str, Any]
Gate = dict[str, str]
"""{"code", "severity", "text", "name", "run", "level"}; the level is "" of a gate about its whole run."""
Row = dict[str, str | None]
"""The place of a verdict and its word: {"base_model", "new_model", "load" (None over levels), "metric", "word"}."""
Overall = Literal["faster", "slower", "better", "worse", "mixed", "same", "can't tell", "no verdict"]


# -- runs that count as one side


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

    def facts(self) -> Record:
        """What a comparison says of this side."""
        runs, kinds = [], []
        for run in self.runs:
            runs.append({"folder": str(run.path), "start": run.info.get("start"), "levels": len(run.levels)})
            kinds.append((run.info.get("target") or {}).get("kind"))
        target = self.runs[0].info.get("target") or {}
        return {
            "name": self.name,
            "runs": runs,
            "models": self.models,
            "server": kinds[0],
            "server_version": target.get("version"),
            "base_url": target.get("base_url"),
            "simulated": "simulator" in kinds,
        }


def gather(
    runs: Sequence[Run],
    name: str | None = None,
    *,
    slo: Sequence[str] | None = None,
    summaries: Mapping[Path, Summary] | None = None,
    apart: Collection[Path] | None = None,
    read: Callable[[Path], Run] = store.read,
) -> Group:
    """One side from its runs.

    Args:
        runs: At least one, read.
        name: What to call the side; by default the first run's folder.
        slo: Bounds of attainment and goodput; each run's own by default.
        summaries: By run folder, what `metrics.summary` returned of it, where that is at hand.
        apart: Folders of the other side. Where they are named and there is one run, `earlier` runs say how much runs
            differ.
        read: Reads those, which both sides may share.
    """
    measured = sides(runs, slo)
    # Several runs say themselves how much runs differ.
    if apart is not None and len(runs) == 1:
        for key, side in sides(earlier(runs[0], apart, read), slo).items():
            if key in measured:
                measured[key] = replace(measured[key], earlier=side.laps)
    gates: dict[Key, list[Gate]] = {}
    for run in runs:
        summary = (summaries or {}).get(run.path) or metrics.summary(run)
        whole = [one for one in summary.warnings if one.code != "V11"]
        for level in summary.levels:
            if level.closing or level.status != "complete":
                continue
            # The noise band is its model's own, not that of the whole run.
            bands = noise([band for band in summary.noise if band.model == level.model])
            at = gates.setdefault((str(level.model), load_of(level.id, level.model)), [])
            at += _gates(level.warnings, run, str(level.id))
            at += _gates((*whole, *bands), run, "")
    return Group(name or runs[0].path.name, tuple(runs), measured, gates, slo)


def _gates(findings: Iterable[Finding], run: Run, level: str) -> list[Gate]:
    gates = []
    for one in findings:
        if one.severity != "note":
            gate = {"code": one.code, "severity": one.severity, "text": one.text}
            gate |= {"name": checks.NAMES.get(one.code, one.code), "run": run.path.name, "level": level}
            gates.append(gate)
    return gates


def earlier(run: Run, apart: Collection[Path] = (), read: Callable[[Path], Run] = store.read) -> list[Run]:
    """Runs of the same folder that began before this one and did the same on the same machine; the last ones.

    Args:
        apart: Folders that do not count: those of the side that it is compared with.
    """
    others = {path.resolve() for path in (run.path, *apart)}
    began = str(run.info.get("start"))
    alike: list[tuple[str, Path]] = []
    for file in run.path.resolve().parent.glob("*/run.json"):
        if file.parent in others:
            continue
        try:
            info = read_info(file.parent)
        except LoadbenchError:
            continue  # broken, or of a newer loadbench: it says nothing here
        start = str(info.get("start"))  # ISO 8601 in UTC: the order of the texts is that of the times
        if info.get("status") == "complete" and start < began and not differences(run.info, info):
            alike.append((start, file.parent))
    found: list[Run] = []
    for _, path in sorted(alike)[-MOST_EARLIER:]:
        try:
            found.append(read(path))
        except LoadbenchError:
            continue
    return found


# -- two sides


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms sides are compared.

    Attributes:
        margin: A ratio within 1 + margin either way is the same.
        share_margin: A difference of shares within it is the same.
        metrics: Names as `verdict.figure` reads them; None for the usual ones.
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
    found: dict[str, Difference] = {}
    # Each thing once, however many runs it is in: the first run of BASE stands for its side.
    for run in new.runs:
        for difference in differences(base.runs[0].info, run.info, terms.meant):
            found.setdefault(difference.what, difference)
    # Which model ran where is compared level by level, for a run may hold several.
    for what in OF_LEVEL:
        found.pop(what, None)
    apart = [*found.values(), *_among(base, "BASE"), *_among(new, "NEW")]
    apart.sort(key=lambda one: rank(one.severity))
    if terms.metrics is None:
        usual: tuple[str, ...] = OF_MODELS if any(one.model != other.model for one, other in pairs) else DEFAULT
        if base.slo is not None or "slo" not in [one.what for one in apart]:
            usual += _attained(pairs)
        terms = replace(terms, metrics=usual)
    facts: Record = {"kind": "runs", "base": base.facts(), "new": new.facts()}
    facts |= {"only_base": _rest(base.sides.values(), pairs), "only_new": _rest(new.sides.values(), pairs)}
    return {**facts, **_judged((base, new), pairs, apart, terms)}


def compare_models(group: Group, base: str, new: str, terms: Terms | None = None) -> Record:
    """One model against another of the same runs.

    Raises:
        UsageError: If a metric is unknown.
    """
    terms = terms or Terms()
    pairs = against(group.sides, base, new)
    meant = tuple(dict.fromkeys((*terms.meant, *OF_LEVEL)))
    terms = replace(terms, meant=meant, metrics=terms.metrics or (*OF_MODELS, *_attained(pairs)))
    facts: Record = {"kind": "models"}
    for place, name in (("base", base), ("new", new)):
        facts[place] = {**group.facts(), "name": name, "models": [name]}
        own = [side for side in group.sides.values() if side.model == name]
        facts[f"only_{place}"] = _rest(own, pairs)
    return {**facts, **_judged((group, group), pairs, _among(group, group.name), terms)}


def _rest(sides: Iterable[Side], pairs: Sequence[tuple[Side, Side]]) -> list[Row]:
    """Levels that the other side has not."""
    paired = set(itertools.chain.from_iterable(pairs))
    return [{"model": one.model, "load": one.load} for one in sides if one not in paired]


def _attained(pairs: Sequence[tuple[Side, Side]]) -> tuple[str, ...]:
    """Attainment, where every run was held to bounds."""
    for side in itertools.chain.from_iterable(pairs):
        for lap in side.laps:
            if "attainment" not in lap.outcomes:
                return ()
    if not pairs:
        return ()
    return ("attainment",)


def _among(group: Group, name: str) -> list[Difference]:
    """What runs of one side differ in: then they are no repeats of one another."""
    found: dict[str, Difference] = {}
    for run in group.runs[1:]:
        for one in differences(group.runs[0].info, run.info):
            if one.what not in OF_LEVEL:
                text = f"runs of {name} differ among themselves: {one.text}"
                found.setdefault(one.what, replace(one, what=f"{one.what} among runs of {name}", text=text))
    return sorted(found.values(), key=lambda one: rank(one.severity))


def _judged(
    groups: tuple[Group, Group],
    pairs: Sequence[tuple[Side, Side]],
    apart: Sequence[Difference],
    terms: Terms,
) -> Record:
    metrics = list(dict.fromkeys(terms.metrics or DEFAULT))
    levels: list[Record] = []
    rows: list[Row] = []
    of_models: dict[tuple[str, str], dict[str, list[Verdict]]] = {}
    found = judge_levels(pairs, metrics, margin=terms.margin, share_margin=terms.share_margin)
    for (one, other), of_level in zip(pairs, found, strict=True):
        own = [*ran(one, other, terms.meant), *between(one, other)]
        gates: list[Gate] = []
        for name, group, side in zip(("base", "new"), groups, (one, other), strict=True):
            for gate in group.gates.get((side.model, side.load), ()):
                gates.append({**gate, "side": name})
        gates.sort(key=lambda gate: rank(gate["severity"]))
        verdicts = [_held_back(verdict, [*apart, *own], gates) for verdict in of_level]
        by_metric = of_models.setdefault((one.model, other.model), {})
        for verdict in verdicts:
            rows.append(_row(verdict, one.model, other.model, one.load))
            # What a gate forbids at a level may not come back by the mean over levels.
            if verdict.word != "no verdict":
                by_metric.setdefault(verdict.metric, []).append(verdict)
        levels.append(
            {
                "load": one.load,
                "base_model": one.model,
                "new_model": other.model,
                "runs_base": one.runs,
                "runs_new": other.runs,
                "interleaved": one.runs > 1 and interleaved(one, other),
                "differences": list(map(asdict, own)),
                "gates": gates,
                "verdicts": list(map(_plain, verdicts)),
            }
        )
    over: list[Record] = []
    mean_rows: list[Row] = []
    for names, by_metric in of_models.items():
        of_metrics = list(by_metric.values())
        for verdicts, mean in zip(of_metrics, means(of_metrics), strict=True):
            if mean is not None:
                over.append({"base_model": names[0], "new_model": names[1], "levels": len(verdicts), **_plain(mean)})
                mean_rows.append(_row(mean, *names, None))
    return {
        "margin": terms.margin,
        "share_margin": terms.share_margin,
        "metrics": metrics,
        "meant": list(terms.meant),
        "differences": list(map(asdict, apart)),
        "levels": levels,
        "over_levels": over,
        **overall(rows, mean_rows),
    }


def _row(verdict: Verdict, base_model: str, new_model: str, load: str | None) -> Row:
    place: Row = {"base_model": base_model, "new_model": new_model, "load": load}
    return {**place, "metric": verdict.metric, "word": verdict.word}


def _held_back(verdict: Verdict, found: Sequence[Difference], gates: Sequence[Gate]) -> Verdict:
    """The verdict, or why there is none: a red difference, or a red gate of either side."""
    metric = figure(verdict.metric).metric
    why: dict[str, None] = {}  # in the order they came, each once: repeats trip the same gate
    for one in found:
        if one.severity == "red" and metric not in _SPARED.get(one.code, ()):
            why[f"{one.code} {one.what}"] = None
    for gate in gates:
        code = gate["code"]
        # That more requests fail is said whatever else is in doubt.
        spared = metric in _SPARED.get(code, ()) or (metric == "failed" and code not in _UNSPARING)
        if gate["severity"] == "red" and not spared:
            why[f"{checks.titled(code)} of {gate['side'].upper()}"] = None
    if not why:
        return verdict
    return withheld(verdict, f"red: {', '.join(why)}")


def _plain(verdict: Verdict) -> Record:
    plain: Record = {}
    for one in fields(verdict):
        if not one.compare:
            continue  # it is what the mean over levels is made of
        value = getattr(verdict, one.name)
        if isinstance(value, float):
            value = significant(value)
        plain[one.name] = value
    plain["by_run"] = [significant(ratio) for ratio in verdict.by_run]
    return {**plain, "more_is_better": figure(verdict.metric).more_is_better}


def overall(levels: Sequence[Row], means: Sequence[Row]) -> Record:
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
    decisive, exceptions, unsettled = [*means], [], []
    words: list[str | None] = []
    for one in levels:
        if _of(one) not in over or one["word"] == "no verdict":
            decisive.append(one)
        if one["word"] in (*BAD, *GOOD) and over.get(_of(one), one["word"]) != one["word"]:
            exceptions.append(one)
            words.append(one["word"])
    for one in decisive:
        if one["word"] != "can't tell":
            words.append(one["word"])
        elif one["metric"] not in shares():
            # Without a single failure it takes thousands of requests to hold a share within a point: nothing to settle.
            unsettled.append(one)
            words.append("can't tell")
    return {"word": _word(words), "decisive": decisive, "open": unsettled, "exceptions": exceptions}


def _of(one: Row) -> tuple[str | None, ...]:
    return one["base_model"], one["new_model"], one["metric"]


def _word(words: Sequence[str | None]) -> Overall:
    """One word for several: what is worse beyond the margin is never outweighed by what is the same.

    >>> _word(["same", "slower", "worse"]), _word(["faster", "slower"]), _word(["same", "can't tell"]), _word([])
    ('slower', 'mixed', 'same', 'no verdict')
    >>> _word(["can't tell"]), _word(["same", "slightly slower"])
    ("can't tell", 'same')
    """
    present = set(words) - {"no verdict"}
    if not present:
        return "no verdict"
    if present & set(BAD) and present & set(GOOD):
        return "mixed"
    for word in ("slower", "worse", "faster", "better"):
        if word in present:
            return word
    if present & set(WITHIN):
        return "same"
    return "can't tell"


# -- the models of one run


def summary(run: Run) -> Summary:
    """Everything that the reports of a run print: `metrics.summary`, and under `models_compared` its models."""
    found = metrics.summary(run)
    found.models_compared = of_run(run, found)
    return found


def of_run(run: Run, summary: Summary, terms: Terms | None = None) -> list[Record]:
    """Each further model against the first one, at every load that both completed; empty of one model.

    Args:
        summary: What `metrics.summary` returned of the run.
    """
    if len({level.model for level in summary.levels}) < 2:
        return []
    group = gather([run], summaries={run.path: summary})
    first, *others = group.models or [""]
    records = []
    for other in others:
        record = compare_models(group, first, other, terms)
        if record["levels"]:
            records.append(record)
    return records
