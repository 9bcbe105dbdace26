"""Formats that take a file a level: `.hgrm` for HdrHistogram's plotters, vLLM's result files for its readers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal

import orjson

from loadbench.errors import UsageError
from loadbench.metrics.checks import titled
from loadbench.metrics.vllm import figures
from loadbench.report import levels, provenance
from loadbench.report.levels import Level, Record, Summary
from loadbench.store import LevelData, Run
from loadbench.store.files import HISTOGRAMS
from loadbench.store.histogram import Histogram
from loadbench.text import in_json

FORMATS = ("hgrm", "vllm")
_MOST_CHARACTERS = 120


def files(
    kind: str, run: Run, summary: Summary, names: Sequence[str] = (), metrics: Sequence[str] = ()
) -> dict[str, str]:
    """The texts by file name, in the order of the levels; of levels without a completed request there are none.

    Args:
        kind: One of FORMATS.
        summary: What `metrics.summarise` returns.
        names: Ids of levels, or loads as c4, which are those of every model; empty for all. `vllm` leaves out the
            closing level, unless it is named: to its readers it would be a level like the others.
        metrics: Of `hgrm`, which histograms; empty for all.
    Raises:
        UsageError: If a level or a metric does not exist, or nothing was measured.
    """
    ids = [str(data.facts["id"]) for data in run.levels]
    for name in names:
        if not any(_is_named(level, [name]) for level in ids):
            there = ", ".join(ids) or "none"
            raise UsageError(f"--level {name!r}: {run.path} has no such level; it has {there}")
    if kind == "vllm" and metrics:
        raise UsageError("--metric is for --format hgrm: a file of vLLM's holds all of them")
    for name in metrics:
        if name not in HISTOGRAMS:
            raise UsageError(f"--metric {name!r}: there is no such histogram: write one of {', '.join(HISTOGRAMS)}")
    found: dict[str, str] = {}
    for level, data in zip(ids, run.levels, strict=True):
        if names and not _is_named(level, names):
            continue
        if kind == "vllm" and not names and data.facts.get("closing"):
            continue
        for end, text in _texts(kind, data, summary, metrics):
            found[_free(file_name(level, end), found)] = text
    if not found:
        what = f" of {' or '.join(metrics)}" if metrics else ""
        raise UsageError(f"{run.path}: nothing{what} was measured there, so there is no {kind} to write")
    return found


def _texts(kind: str, data: LevelData, summary: Summary, metrics: Sequence[str]) -> Iterable[tuple[str, str]]:
    from loadbench.metrics.level import histograms

    if kind == "vllm":
        if any(error is None for error in data.results.error):
            yield "vllm.json", vllm(data, summary)
        return
    for name, histogram in histograms(data, streamed=levels.is_stream(_level(data, summary))).items():
        if not metrics or name in metrics:
            yield f"{name}.hgrm", hgrm(histogram)


def _level(data: LevelData, summary: Summary) -> Level:
    return next(level for level in summary["levels"] if level["id"] == data.facts["id"])


def _is_named(level: str, names: Sequence[str]) -> bool:
    return level in names or level.rpartition("@")[2] in names


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


# -- hgrm
#
# A histogram by percentile, as HdrHistogram's own `outputPercentileDistribution` of Java prints it. Values are in ms:
# the highest one that its slot stands for, to 3 digits, so that the last may lie above the exact maximum that other
# reports print. Mean and deviation are those of the slots, as Java has them.
# Source: `PercentileIterator` and `AbstractHistogram` in HdrHistogram/HdrHistogram 2.2.2 (public domain).

TICKS_PER_HALF_DISTANCE = 5
BUCKETS, SUB_BUCKETS = 22, 2048
"""Of all our histograms: 1 us to 1 h at 3 significant digits."""
US_PER_MS = 1000.0


def hgrm(histogram: Histogram) -> str:
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    for value_us, level, total in ticks(histogram):
        share = level / 100.0
        line = f"{_fixed(value_us / US_PER_MS, 3):>12} {_fixed(share, 12)} {total:>10}"
        lines.append(line if level == 100.0 else f"{line} {_fixed(1 / (1.0 - share), 2):>14}")
    mean, deviation, highest = _moments(histogram)
    lines += [
        f"#[Mean    = {_fixed(mean / US_PER_MS, 3):>12}, StdDeviation   = {_fixed(deviation / US_PER_MS, 3):>12}]",
        f"#[Max     = {_fixed(highest / US_PER_MS, 3):>12}, Total count    = {histogram.count:>12}]",
        f"#[Buckets = {BUCKETS:>12}, SubBuckets     = {SUB_BUCKETS:>12}]",
    ]
    return "\n".join(lines) + "\n"


def ticks(histogram: Histogram) -> Iterator[tuple[int, float, int]]:
    """Value in us, percentile from 0 to 100, and how many values are at most that, tick by tick.

    Each half of the distance that is left to 100 % has 5 ticks; a value that reaches several of them has them all, but
    the highest value only the next one, and then 100 %.

    >>> histogram = Histogram()
    >>> histogram.record_many([10, 20])
    >>> [tick[:2] for tick in ticks(histogram)][-3:]
    [(10, 50.0), (20, 55.0), (20, 100.0)]
    """
    level, total = 0.0, 0
    for _, highest_us, count in histogram.slots():
        total += count
        while 100.0 * total / histogram.count >= level:
            yield highest_us, level, total
            halves = int(math.log(100.0 / (100.0 - level)) / math.log(2)) + 1
            level += 100.0 / (TICKS_PER_HALF_DISTANCE * 2**halves)
            if total == histogram.count:
                yield highest_us, 100.0, total
                return


def _moments(histogram: Histogram) -> tuple[float, float, float]:
    """Mean, standard deviation and highest value in us, of the middles of the slots; zeros when empty, as in Java."""
    middles = [(low + (high - low + 1) // 2, count) for low, high, count in histogram.slots()]
    if not middles:
        return 0.0, 0.0, 0.0
    mean = sum(middle * float(count) for middle, count in middles) / histogram.count
    squares = sum((middle - mean) * (middle - mean) * count for middle, count in middles)
    *_, (_, highest, _) = histogram.slots()
    return mean, math.sqrt(squares / histogram.count), float(highest)


def _fixed(value: float, decimals: int) -> str:
    """With so many decimals, halves rounded up as Java does: Python rounds the binary value, halves to even.

    >>> _fixed(2.625, 2), f"{2.625:.2f}"
    ('2.63', '2.62')
    """
    rounded = Decimal(repr(value)).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
    return f"{rounded:f}"  # str() would write 0E-12


# -- a level in the shape of `vllm bench serve --save-result`, for the tools that read such files

BACKEND = "openai-chat"


def vllm(data: LevelData, summary: Summary) -> str:
    """The file of one level: vLLM's own keys with vLLM's meanings, then ours, each beginning with `loadbench_`."""
    level, run = _level(data, summary), levels.run_of(summary)
    found: dict[str, object] = {
        "date": _date(str(level.get("began") or run.get("start") or "")),
        "endpoint_type": BACKEND,
        "backend": BACKEND,
        "label": provenance.title(summary),
        "model_id": level["model"],
        "tokenizer_id": level["model"],
    }
    found |= _traffic(level, run.get("scenario") or {})
    found |= figures(data, streamed=levels.is_stream(level))
    found |= _facts(level, run)
    return in_json(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode())


def _traffic(level: Level, scenario: Record) -> dict[str, object]:
    """How requests were sent. Burstiness 1 is a Poisson process; without an end it is a constant rate."""
    rate = level.get("request_rate_per_s")
    constant = rate is not None and scenario.get("arrivals") == "constant"
    return {
        "request_rate": "inf" if rate is None else rate,
        "burstiness": "inf" if constant else 1.0,
        "max_concurrency": level.get("concurrency"),
    }


def _facts(level: Level, run: Record) -> dict[str, object]:
    """What readers look for beside the figures, and what speaks against those."""
    target = run.get("target") or {}
    gpu = (run.get("environment") or {}).get("gpu")
    gpus = [str(name) for name in (gpu if isinstance(gpu, list) else [gpu]) if name]
    device = levels.device(level)
    doubts: dict[str, None] = {}
    for warning in level.get("warnings") or ():
        if warning["severity"] != "note":
            doubts[f"{titled(warning['code'])} {warning['severity']}"] = None
    found = {
        "gpu": gpus[0] if gpus and device != "CPU" else None,
        "vllm_version": target.get("version") if target.get("kind") == "vllm" else None,
        "loadbench_level": level["id"],
        "loadbench_status": level.get("status"),
        "loadbench_shape": level.get("shape"),
        "loadbench_device": device,
        "loadbench_token_source": level.get("token_source"),
        "loadbench_output_tokens_per_s_steady": level.get("output_tokens_per_s"),
        "loadbench_goodput_per_s": level.get("goodput_per_s"),
        "loadbench_doubts": ", ".join(doubts) or None,
        "loadbench_simulated": levels.is_simulated({"run": run}) or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _date(began: str) -> str | None:
    """As vLLM writes it: 20260112-090000."""
    found = re.match(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)", began)
    return None if found is None else "{}{}{}-{}{}{}".format(*found.groups())
