"""Formats that take a file a level: `.hgrm` for HdrHistogram's plotters, vLLM's result files for its readers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loadbench.errors import UsageError
from loadbench.report import hgrm, vllm
from loadbench.store import LevelData, Run
from loadbench.store.files import HISTOGRAMS

FORMATS = ("hgrm", "vllm")
_MOST_CHARACTERS = 120


def files(
    kind: str, run: Run, summary: Mapping[str, Any], levels: Sequence[str] = (), metrics: Sequence[str] = ()
) -> dict[str, str]:
    """The texts by file name, in the order of the levels; of levels without a completed request there are none.

    Args:
        kind: One of FORMATS.
        summary: What `metrics.summarise` returns.
        levels: Ids, or loads as c4, which are those of every model; empty for all. `vllm` leaves out the closing level,
            unless it is named: to its readers it would be a level like the others.
        metrics: Of `hgrm`, which histograms; empty for all.
    Raises:
        UsageError: If a level or a metric does not exist, or nothing was measured.
    """
    chosen = [data for data in run.levels if _is_chosen(str(data.facts["id"]), levels)]
    for name in levels:
        if not any(_is_chosen(str(data.facts["id"]), [name]) for data in run.levels):
            there = ", ".join(str(data.facts["id"]) for data in run.levels) or "none"
            raise UsageError(f"--level {name!r}: {run.path} has no such level; it has {there}")
    if kind == "vllm" and metrics:
        raise UsageError("--metric is for --format hgrm: a file of vLLM's holds all of them")
    for name in metrics:
        if name not in HISTOGRAMS:
            raise UsageError(f"--metric {name!r}: there is no such histogram: write one of {', '.join(HISTOGRAMS)}")
    found: dict[str, str] = {}
    if kind == "vllm" and not levels:
        chosen = [data for data in chosen if not data.facts.get("closing")]
    for data in chosen:
        for end, text in _texts(kind, data, summary, metrics):
            found[_free(file_name(str(data.facts["id"]), end), found)] = text
    if not found:
        what = f" of {' or '.join(metrics)}" if metrics else ""
        raise UsageError(f"{run.path}: nothing{what} was measured there, so there is no {kind} to write")
    return found


def _texts(kind: str, data: LevelData, summary: Mapping[str, Any], metrics: Sequence[str]) -> Iterable[tuple[str, str]]:
    from loadbench.metrics.histograms import histograms

    if kind == "vllm":
        if any(error is None for error in data.results.error):
            yield "vllm.json", vllm.render(data, summary)
        return
    level = next(one for one in summary["levels"] if one["id"] == data.facts["id"])
    for name, histogram in histograms(data, streamed=level.get("streamed") is not False).items():
        if not metrics or name in metrics:
            yield f"{name}.hgrm", hgrm.render(histogram)


def _is_chosen(level: str, wanted: Sequence[str]) -> bool:
    return not wanted or level in wanted or level.rpartition("@")[2] in wanted


def file_name(level: str, end: str) -> str:
    """A name that every file system takes: what is no letter, digit or one of `@.-_` becomes a dash.

    >>> file_name("org/phi-4 mini:3@c4", "ttft.hgrm")
    'org-phi-4-mini-3@c4.ttft.hgrm'
    >>> file_name("../../etc", "ttft.hgrm")
    'etc.ttft.hgrm'
    """
    safe = re.sub(r"[^\w@.-]+", "-", level, flags=re.ASCII).lstrip("-.") or "level"
    return f"{safe[-_MOST_CHARACTERS:]}.{end}"


def _free(name: str, taken: Mapping[str, str]) -> str:
    """The name, with a number where another level's has become the same; cases do not tell names apart everywhere."""
    folded = {other.lower() for other in taken}
    stem, *ends = name.rsplit(".", 2)
    number, free = 1, name
    while free.lower() in folded:
        number += 1
        free = ".".join([f"{stem}-{number}", *ends])
    return free
