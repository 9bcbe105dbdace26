"""What each candidate's figures are at one load: times and rates from its requests, the rest from its levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from loadbench import stats
from loadbench.compare import Lap, Side
from loadbench.compare.side import Reals
from loadbench.figures import PERCENTILES
from loadbench.figures import Figure as Declared
from loadbench.select.candidate import Candidate
from loadbench.select.figure import Figure, Part, combined

Figures = dict[str, Figure]
"""By the name of the candidate; without those of whom it is not known."""


def figures(candidates: Sequence[Candidate], load: str) -> dict[str, Figures]:
    """By the name of the figure (figure.FIGURES, licences apart), what is known of each candidate."""
    found = {name: of_times(candidates, load, *name.rsplit("_", 1)) for name in ("ttft_p95", "e2e_mean")}
    found |= {name: of_rates(candidates, load, name) for name in ("characters_per_s", "output_tokens_per_s")}
    score, rules = _qualities(candidates)
    found |= {"quality": score, "rules": rules}
    found["memory"] = _each(candidates, lambda one: _memory(one, load))
    found["disk"] = _each(candidates, _disk)
    found |= {name: _per_characters(candidates, load, name) for name in ("energy", "cost")}
    return found


def of_times(
    candidates: Sequence[Candidate], load: str, metric: str, statistic: str, *, with_failures: bool = False
) -> Figures:
    """A percentile, the mean or the longest of a time, in ms.

    Args:
        with_failures: Requests that failed or were dropped count as without end, so that a figure may be infinite.
    """
    parts = {one.name: _parts(one.sides.get(load), metric, statistic, with_failures) for one in candidates}
    endless = {name: some for name, some in parts.items() if any(math.isinf(part.value) for part in some)}
    found = combined({name: some for name, some in parts.items() if name not in endless})
    for name, some in endless.items():
        lows = [part.low for part in some if part.low is not None]
        low = min(lows) if len(lows) == len(some) else None
        found[name] = Figure(math.inf, low, math.inf, sum(part.n for part in some), len(some))
    return found


def of_rates(candidates: Sequence[Candidate], load: str, metric: str) -> Figures:
    """What flowed in the steady window, per second."""
    return combined({one.name: _rate_parts(one.sides.get(load), metric) for one in candidates})


def of_shares(candidates: Sequence[Candidate], load: str, figure: Declared) -> Figures:
    """A share of requests, as those that failed of those that were sent, over all runs."""
    hits, of = figure.counts or ("", "")

    def read(one: Candidate) -> Figure | None:
        levels = one.levels.get(load, ())
        counts = [(level.get(hits), level.get(of)) for level in levels]
        known = [(hit, n) for hit, n in counts if hit is not None and n]
        if not known:
            return None
        hit, n = sum(hit for hit, _ in known), sum(n for _, n in known)
        worth = _worth(one.sides.get(load))
        ends = stats.wilson(hit * worth, n * worth) or (None, None)
        return Figure(hit / n, ends[0], ends[1], n, len(known))

    return _each(candidates, read)


def _worth(side: Side | None) -> float:
    """How many independent requests one of these is worth: failures come together."""
    flags = [lap.outcomes["failed"].flags for lap in (side.laps if side else ()) if "failed" in lap.outcomes]
    n = sum(map(len, flags))
    return sum(map(stats.independent_flags, flags)) / n if n else 1.0


def of_levels(candidates: Sequence[Candidate], load: str, figure: Declared) -> Figures:
    """A figure of summary.json's levels that has no interval of its own."""
    read = {one.name: [figure.read(level) for level in one.levels.get(load, ())] for one in candidates}
    return combined(
        {name: [Part(float(value)) for value in values if value is not None] for name, values in read.items()}
    )


def _parts(side: Side | None, metric: str, statistic: str, with_failures: bool) -> list[Part]:
    found = [_part(lap, metric, statistic, with_failures) for lap in (side.laps if side else ())]
    known = [part for part in found if part is not None]
    return known if len(known) == len(found) else []


def _part(lap: Lap, metric: str, statistic: str, with_failures: bool) -> Part | None:
    values = lap.gaps_ms if metric == "itl" else lap.values.get(metric)
    if with_failures and lap.due_values:
        values = _with_failures(lap, metric, values)
    values = np.zeros(0) if values is None else values[~np.isnan(values)]
    if not len(values):
        return None
    if statistic == "mean":
        endless = bool(np.isinf(values).any())
        bounds = None if metric == "itl" or endless else stats.mean_interval(values)
        return _bounded(float(values.mean()), bounds, len(values))
    if statistic == "max":
        return Part(float(values.max()), n=len(values))
    p = PERCENTILES[statistic]
    value = stats.percentile(np.sort(values), p)
    bounds = stats.percentile_interval(values, p) if metric != "itl" else None
    return None if value is None else _bounded(float(value), bounds, len(values))


def _with_failures(lap: Lap, metric: str, values: Reals | None) -> Reals | None:
    """All that was due: a request that failed counts for as many endless gaps as one that completed has."""
    if metric != "itl" or values is None:
        return lap.due_values.get(metric, values)
    missing = int(np.isinf(lap.due_values["e2e"]).sum())
    each = max(1, round(len(values) / max(1, len(lap.prompts))))
    return np.append(values, np.full(missing * each, np.inf))


def _rate_parts(side: Side | None, metric: str) -> list[Part]:
    laps = side.laps if side else ()
    found = []
    for lap in laps:
        flow = lap.flows.get(metric)
        if flow is None or not flow.per_s > 0:
            return []
        bounds = None
        if flow.slices is not None:
            bounds = stats.rate_interval(flow.slices, flow.seconds, flow.dependent_s)
        if bounds is not None and flow.slices is not None:
            # The slices spread what arrives evenly over each request; the rate itself does not.
            off = flow.per_s - float(flow.slices.sum()) / flow.seconds
            bounds = max(0.0, bounds[0] + off), bounds[1] + off
        found.append(_bounded(flow.per_s, bounds, len(lap.prompts)))
    return found


def _bounded(value: float, bounds: stats.Bounds | None, n: int) -> Part:
    low, high = bounds or (None, None)
    return Part(value, low, high, n)


def _each(candidates: Sequence[Candidate], read: Callable[[Candidate], Figure | None]) -> Figures:
    return {one.name: figure for one in candidates if (figure := read(one)) is not None}


def _memory(one: Candidate, load: str) -> Figure | None:
    """The largest over the runs of what the server's processes held, on the GPU too where the driver tells theirs."""
    found = []
    for level in one.levels.get(load, ()):
        resident, gpu = level.get("server_memory_peak_bytes"), level.get("gpu_memory_peak_bytes")
        if resident is not None:
            found.append((resident + (gpu or 0), level.get("gpu_memory_source") if gpu else None))
    if not found:
        return None
    most, source = max(found, key=lambda pair: pair[0])
    words = "resident" if source is None else "resident and on the GPU"
    words += ", where others may hold some too" if source == "device" else ""
    return Figure(float(most), runs=len(found), source=words)


def _disk(one: Candidate) -> Figure | None:
    measured, listed = one.facts.get("disk_bytes"), one.facts.get("size_bytes")
    if measured:
        source = "as the server tells" if one.facts.get("disk_source") == "server" else "of its files"
        return Figure(float(measured), source=source)
    if listed:
        return Figure(float(listed), source="as the server lists it")
    told = one.facts.get("told_bytes")
    return Figure(float(told), source="as models.json says") if told else None


def _per_characters(candidates: Sequence[Candidate], load: str, name: str) -> Figures:
    """Energy or cost of 1,000 characters: models cut text into tokens differently."""
    of = "j_per_1000_tokens" if name == "energy" else "cost_per_1000_tokens"
    parts: dict[str, list[Part]] = {}
    sources: dict[str, str] = {}
    for one in candidates:
        for level in one.levels.get(load, ()):
            tokens, characters = (level.get("output_tokens") or {}).get("total"), level.get("characters")
            if level.get(of) and tokens and characters:
                parts.setdefault(one.name, []).append(Part(level[of] * tokens / characters))
                sources[one.name] = str(level.get("energy_source"))
    found = combined(parts)
    return {who: Figure(one.value, one.low, one.high, one.n, one.runs, sources[who]) for who, one in found.items()}


def _qualities(candidates: Sequence[Candidate]) -> tuple[Figures, Figures]:
    """Scores by the one method that all runs were scored by, and the share of prompts whose rules are passed."""
    methods = {method for one in candidates for method, row in one.scores if row.get("score")}
    scores = _each(candidates, lambda one: _of_scores(one, "score", "mean")) if len(methods) == 1 else {}
    if scores:
        by = f"by {next(iter(methods))}"
        scores = {who: Figure(f.value, f.low, f.high, f.n, f.runs, by) for who, f in scores.items()}
    return scores, _each(candidates, lambda one: _of_scores(one, "checks", "pass_rate"))


def _of_scores(one: Candidate, part: str, name: str) -> Figure | None:
    """The mean over the runs; their prompts are the same, so that more runs make the interval no narrower."""
    known = [row[part] for _, row in one.scores if row.get(part)]
    if not known:
        return None
    bounds = [row.get("ci95") for row in known]
    low, high = (_mean([b[end] for b in bounds if b]) if all(bounds) else None for end in (0, 1))
    value = _mean([float(row[name]) for row in known])
    return None if value is None else Figure(value, low, high, max(int(row["n"]) for row in known), len(known))


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def licence(one: Candidate) -> str | None:
    """The licence as it is listed, in lower case; None where nobody says.

    >>> licence(Candidate("m", "m", None, None, None, None, {"licence": "Apache-2.0"}))
    'apache-2.0'
    """
    said: Any = one.facts.get("licence")
    return str(said).strip().lower() or None if said else None
