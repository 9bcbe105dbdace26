"""Formats for machines: `summary.csv` with a figure a row, and two that take a file a level.

`.hgrm` is for HdrHistogram's plotters, vLLM's result files for their readers. docs/formats.md describes all of them.
"""

from __future__ import annotations

import csv as comma_separated
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from itertools import chain

import orjson

from loadbench.errors import UsageError
from loadbench.figures import FIGURES, PERCENTILES, Figure
from loadbench.metrics.checks import titled
from loadbench.metrics.vllm import figures
from loadbench.report import levels, provenance
from loadbench.report.levels import Record
from loadbench.store import LevelData, Run
from loadbench.store.files import HISTOGRAMS
from loadbench.store.histogram import Histogram
from loadbench.store.schema import EnvironmentFacts, ScenarioFacts, TargetFacts
from loadbench.store.summary import Level
from loadbench.text import csv_cell, in_json, markdown_prose

FORMATS = ("hgrm", "vllm")
_MOST_CHARACTERS = 120


# -- summary.csv: one figure a row, for pandas, DuckDB or a spreadsheet
#
# What was not measured has no row. Figures are in full precision. Columns are only ever added, at the end. It reads
# plain values, so that every figure that is declared has a row.

OF_LEVELS = ("shape", "device", "execution_provider", "endpoint", "repeat", "closing", "status", "began")
"""Keys of a level that follow the figure: rows of one level have the same, those of a model alone its device."""
_RAN = ("device", "execution_provider")
_NO_KEYS: dict[str, object] = dict.fromkeys(OF_LEVELS)
COLUMNS = (
    *("run", "model", "level", "concurrency", "request_rate_per_s", "metric", "statistic"),
    *("value", "unit", "n", "ci_low", "ci_high"),
    *OF_LEVELS,
)
STATISTICS = ("mean", *PERCENTILES, "max")
_WIDE = ("p50", "p95", "p99")
"""Statistics that have a column in a row a level; with all there would be 270."""
_UNITS = {"share": "fraction", "/s": "1/s"}
"""Words for units here, where they are not those of `figures`."""

_Row = tuple[str, str, object, str, int | None, float | None, float | None]
"""Metric, statistic, value, unit, n, both ends of the interval."""


def csv(summary: Record) -> str:
    """The summary's figures as CSV text with a header line and Unix line ends."""
    text = io.StringIO()
    writer = comma_separated.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows(summary):
        writer.writerow(map(csv_cell, row))
    return text.getvalue()


def rows(summary: Record) -> Iterator[tuple[object, ...]]:
    """All rows, with a value or None for each of COLUMNS: those of levels first, then of their curves and models."""
    run = provenance.title(levels.read(summary))
    for level in summary.get("levels") or []:
        load = (level.get("concurrency"), level.get("request_rate_per_s"))
        head = (run, level.get("model"), level.get("id"), *load)
        keys = {}
        for name in OF_LEVELS:
            # The device and provider that really ran, where the server tells.
            ran = (level.get("ran") or {}).get(name) if name in _RAN else None
            key = level.get(name) if ran is None else ran
            keys[name] = int(key) if isinstance(key, bool) else key
        for row in _of_level(level):
            yield (*head, *row, *keys.values())
        for endpoint in level.get("endpoints") or ():
            own = keys | {"endpoint": endpoint.get("url")}
            for row in _of_level(endpoint):
                yield (*head, *row, *own.values())
    for curve in summary.get("scaling") or []:
        for row in _of_curve(curve):
            yield (run, curve.get("model"), None, None, None, *row, *_NO_KEYS.values())
    for model in summary.get("models") or []:
        own = _NO_KEYS | {name: model.get(name) for name in _RAN}
        for row in _of_model(model):
            yield (run, model.get("id"), None, None, None, *row, *own.values())


def wide(summary: Record) -> list[dict[str, object]]:
    """A row a level, a column a figure: `output_tokens_per_s`, `ttft_ms_p95`, and with `_ci_low` and `_ci_high` its
    interval."""
    # Each figure has its column, measured or not: whoever selects one need not look first.
    unmeasured: dict[str, object] = {}
    for figure in FIGURES.values():
        if figure.of == "level" and figure.path and not figure.source and "." not in figure.path:
            unmeasured |= dict.fromkeys([f"{figure.path}_{name}" for name in _WIDE] if figure.values else [figure.path])
    by_level: dict[object, dict[str, object]] = {}
    for row in rows(summary):
        one = dict(zip(COLUMNS, row, strict=True))
        level = one["level"]
        known = by_level.setdefault(level, {name: one[name] for name in (*COLUMNS[:5], *OF_LEVELS)} | unmeasured)
        if level is None or one["endpoint"] != known["endpoint"]:
            continue  # of a model, or of one endpoint of several
        column = str(one["metric"])
        if one["statistic"] in STATISTICS and one["statistic"] not in _WIDE:
            continue
        if one["statistic"] != "value":
            column += f"_{one['statistic']}"
        known[column] = one["value"]
        for end in ("ci_low", "ci_high"):
            if one[end] is not None:
                known[f"{column}_{end}"] = one[end]
    by_level.pop(None, None)
    return list(by_level.values())


def _of_curve(curve: Record) -> Iterator[_Row]:
    law = curve.get("usl") or {}
    for name, unit in (("lambda_per_s", "1/s"), ("sigma", "count"), ("kappa", "count"), ("peak_n", "count")):
        if law.get(name) is not None:
            yield "usl", name, law[name], unit, None, *_ends(law.get("ci95") or {}, name)
    for name, knee in sorted((curve.get("knees") or {}).items()):
        if knee:
            yield _single("knees", f"{name} {knee['relation']}", knee["n"], "count")
    if curve.get("serial") is not None:
        yield _single("serial", "value", curve["serial"], "flag")


def _of_model(model: Record) -> Iterator[_Row]:
    for figure in FIGURES.values():
        if figure.of == "model" and figure.path and figure.read(model) is not None:
            yield _single(figure.path, "value", figure.read(model), _unit(figure))
    for purpose in ("first", "warm", "idle", "kept_warm"):
        probe = model.get(purpose) or {}
        for name, unit in (("ttft_ms", "ms"), ("e2e_ms", "ms"), ("after_s", "s"), ("cold", "flag")):
            if probe.get(name) is not None and not probe.get("error"):
                yield _single(f"{purpose}.{name}", "value", probe[name], unit)


def _single(metric: str, statistic: str, value: object, unit: str) -> _Row:
    return metric, statistic, int(value) if isinstance(value, bool) else value, unit, None, None, None


def _ends(holder: Record, key: str) -> tuple[float | None, float | None]:
    low, high = holder.get(key) or (None, None)
    return low, high


def _of_level(level: Record) -> Iterator[_Row]:
    declared = [figure for figure in FIGURES.values() if figure.of == "level" and figure.path]
    for figure in declared:
        if figure.values:
            distribution = level.get(figure.path) or {}
            for statistic in STATISTICS:
                if distribution.get(statistic) is not None:
                    value, ends = distribution[statistic], _ends(distribution.get("ci95") or {}, statistic)
                    yield figure.path, statistic, value, _unit(figure), distribution.get("n"), *ends
    nested = []
    for figure in declared:
        if figure.source or "." in figure.path:
            nested.append(figure)
        elif not figure.values and figure.read(level) is not None:
            value = int(figure.read(level)) if figure.unit == "flag" else figure.read(level)
            yield figure.path, "value", value, _unit(figure), None, *_ends(level, f"{figure.path}_ci95")
    for name, drift in sorted((level.get("drift") or {}).items()):
        yield _single("drift", name, drift["ratio"], "ratio")
    for figure in nested:
        if figure.read(level) is not None:
            metric, _, name = figure.path.partition(".")
            statistic = str(level.get(figure.source) or "value") if figure.source else name
            yield _single(metric, statistic, figure.read(level), _unit(figure))
    if level.get("power"):
        yield _single("power", str(level["power"]), 1, "flag")
    for name, value in sorted((level.get("server_metrics") or {}).items()):
        yield _single("server_metrics", name, value, "count")
    if level.get("simulated"):
        yield _single("simulated", "value", 1, "flag")
    for name, value in sorted((level.get("whole_run") or {}).items()):
        if value is not None:
            yield _single(f"whole_run.{name}", "value", value, "s" if name == "duration_s" else "1/s")
    for metric, of in (("errors", "attempted"), ("finish_reasons", "completed")):
        for kind, n in sorted((level.get(metric) or {}).items()):
            yield metric, kind, n, "requests", level.get(of), None, None
    for bound in level.get("slo") or []:
        if bound.get("attainment") is not None:
            yield "slo", bound["bound"], bound["attainment"], "fraction", bound.get("n"), *_ends(bound, "ci95")


def _unit(figure: Figure) -> str:
    return _UNITS.get(figure.unit, figure.unit)


# -- rows as llama-bench prints them (llama.cpp tools/llama-bench, markdown_printer)

_BENCH = (("model", -30), ("size", 10), ("params", 10), ("backend", -10), ("test", 15), ("t/s", 20))
"""Heads and widths, of text negative. What no chat server tells is blank: `params`, or left out: threads, ngl."""
_BENCH_NOTES = """
build: {version}, over HTTP to {server}

pp: input tokens ÷ (TTFT − round trip); tg: 1 ÷ TPOT of one request. Both are medians, lengths are means.
±: half the 95% interval (llama-bench prints a standard deviation). @ c4: with 4 requests in flight.
"""


def llama_bench(record: Record) -> str:
    """A row each for prefill and decode speed of the closed loops' levels."""
    summary = levels.read(record)
    lines = [_bench_row([name for name, _ in _BENCH])]
    lines.append(
        "|" + "|".join(f" {'-' * (abs(width) - (width > 0))}{':' * (width > 0)} " for _, width in _BENCH) + "|"
    )
    run = levels.facts(summary)
    target = run.target or TargetFacts()
    listed = {model.id: model for model in target.models or ()}
    closed = [level for level in levels.firsts(levels.by_load(levels.of(summary))) if not level.is_open]
    for level in chain.from_iterable(levels.by_model(closed).values()):
        facts = listed.get(level.model)
        size = ""
        if facts and facts.size_bytes:
            size = f"{facts.size_bytes / 2**30:.2f} GiB"
            if facts.size_bytes < 2**30:
                size = f"{facts.size_bytes / 2**20:.2f} MiB"
        backend = levels.provider(level) or levels.device(level) or (facts.device if facts else None) or ""
        load = "" if level.concurrency == 1 else f" @ c{level.concurrency}"
        for kind, length, speed, ends in (
            ("pp", level.input_tokens, level.prefill_tokens_per_s, level.prefill_tokens_per_s_ci95),
            ("tg", level.output_tokens, level.tokens_per_s_per_user, level.tokens_per_s_per_user_ci95),
        ):
            if speed is None or length is None or length.mean is None:
                continue
            low, high = ends or (None, None)
            sure = "" if low is None or high is None else f" ± {(high - low) / 2:.2f}"
            test = f"{kind}{length.mean:.0f}{load}"
            lines.append(_bench_row([markdown_prose(level.model), size, "", backend, test, f"{speed:.2f}{sure}"]))
    version = f"loadbench {(run.versions or {}).get('loadbench', '')}".strip()
    server = " ".join(filter(None, (provenance.KINDS.get(target.kind or "", target.kind), target.version)))
    notes = _BENCH_NOTES.format(version=version, server=markdown_prose(server or "a server"))
    warning = f"\n**{provenance.SIMULATED}**\n" if levels.is_simulated(summary) else ""
    return "\n".join(lines) + f"\n{warning}{notes}"


def _bench_row(cells: Sequence[str]) -> str:
    placed = []
    for cell, (_, width) in zip(cells, _BENCH, strict=True):
        placed.append(cell.ljust(-width) if width < 0 else cell.rjust(width))
    return f"| {' | '.join(placed)} |"


# -- a file a level


def files(
    kind: str, run: Run, summary: Record, names: Sequence[str] = (), metrics: Sequence[str] = ()
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
    from loadbench.metrics.level import histograms

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
    texts: dict[str, str] = {}
    summarised = {level.id: level for level in levels.read(summary).levels}
    for id, data in zip(ids, run.levels, strict=True):
        if names and not _is_named(id, names):
            continue
        level = summarised[id]
        if kind == "hgrm":
            for name, histogram in histograms(data, streamed=levels.is_stream(level)).items():
                if not metrics or name in metrics:
                    texts[_free(file_name(id, f"{name}.hgrm"), texts)] = hgrm(histogram)
        elif (names or not level.closing) and any(error is None for error in data.results.error):
            texts[_free(file_name(id, "vllm.json"), texts)] = vllm(data, level, summary)
    if not texts:
        what = f" of {' or '.join(metrics)}" if metrics else ""
        raise UsageError(f"{run.path}: nothing{what} was measured there, so there is no {kind} to write")
    return texts


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
    # Of the middles of the slots; zeros when empty, as in Java.
    middles = [(low + (high - low + 1) // 2, count) for low, high, count in histogram.slots()]
    mean = deviation = highest = 0.0
    if middles:
        mean = sum(middle * float(count) for middle, count in middles) / histogram.count
        squares = sum((middle - mean) * (middle - mean) * count for middle, count in middles)
        deviation = math.sqrt(squares / histogram.count)
        highest = float(max(high for _, high, _ in histogram.slots()))
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


def _fixed(value: float, decimals: int) -> str:
    """With this many decimals, halves rounded up as Java does: Python rounds the binary value, halves to even.

    >>> _fixed(2.625, 2), f"{2.625:.2f}"
    ('2.63', '2.62')
    """
    rounded = Decimal(repr(value)).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
    return f"{rounded:f}"  # str() would write 0E-12


# -- a level in the shape of `vllm bench serve --save-result`, for the tools that read such files

BACKEND = "openai-chat"


def vllm(data: LevelData, level: Level, record: Record) -> str:
    """One JSON object: vLLM's keys with vLLM's meanings, then ours, each beginning with `loadbench_`."""
    summary = levels.read(record)
    run = levels.facts(summary)
    scenario, target = run.scenario or ScenarioFacts(), run.target or TargetFacts()
    # As vLLM writes it: 20260112-090000.
    began = re.match(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)", level.began or run.start or "")
    rate = level.request_rate_per_s
    constant = rate is not None and scenario.arrivals == "constant"
    keys: dict[str, object] = {
        "date": "{}{}{}-{}{}{}".format(*began.groups()) if began else None,
        "endpoint_type": BACKEND,
        "backend": BACKEND,
        "label": provenance.title(summary),
        "model_id": level.model,
        "tokenizer_id": level.model,
        # Burstiness 1 is a Poisson process; without an end it is a constant rate.
        "request_rate": "inf" if rate is None else rate,
        "burstiness": "inf" if constant else 1.0,
        "max_concurrency": level.concurrency,
    }
    keys |= figures(data, streamed=levels.is_stream(level))
    # What readers look for beside the figures, and what speaks against those.
    gpu = (run.environment or EnvironmentFacts()).gpu
    gpus = [name for name in (gpu if isinstance(gpu, list) else [gpu]) if name]
    device = levels.device(level)
    doubts: dict[str, None] = {}
    for warning in level.warnings:
        if warning.severity != "note":
            doubts[f"{titled(warning.code)} {warning.severity}"] = None
    ours = {
        "gpu": gpus[0] if gpus and device != "CPU" else None,
        "vllm_version": target.version if target.kind == "vllm" else None,
        "loadbench_level": level.id,
        "loadbench_status": level.status,
        "loadbench_shape": level.shape,
        "loadbench_device": device,
        "loadbench_token_source": level.token_source,
        "loadbench_output_tokens_per_s_steady": level.output_tokens_per_s,
        "loadbench_goodput_per_s": level.goodput_per_s,
        "loadbench_doubts": ", ".join(doubts) or None,
        "loadbench_simulated": levels.is_simulated(summary) or None,
    }
    keys |= {name: value for name, value in ours.items() if value is not None}
    return in_json(orjson.dumps(keys, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode())
