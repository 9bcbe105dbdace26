"""A comparison in sentences: the verdict first, with the figures that make it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from loadbench import figures
from loadbench import text as units

Record = Mapping[str, Any]
Verdict = Mapping[str, Any]

BAD, GOOD = ("slower", "worse"), ("faster", "better")
SLIGHT = ("slightly slower", "slightly worse", "slightly faster", "slightly better")
"""Surely so, but within the margin."""
MOST_FIGURES = 4
MOST_RUNS = 1000


def metric(name: str) -> str:
    """A metric with its statistic, for readers.

    >>> metric("ttft_p95"), metric("itl_p999"), metric("output_tokens_per_s"), metric("e2e")
    ('TTFT p95', 'ITL p99.9', 'tokens/s', 'E2E')
    """
    figure = figures.named(name)
    return name if figure is None else figure.title


def load(name: str | None) -> str:
    """A level's load as tables call it.

    >>> load("c8"), load("r0.5"), load(None)
    ('c8', '0.5 req/s', '')
    """
    if name is None:
        return ""
    return f"{name[1:]} req/s" if name.startswith("r") and name[1:2].isdigit() else name


def change(verdict: Verdict, of: str = "ratio") -> str:
    """How much NEW differs from BASE: of a ratio in per cent, of shares in percentage points; "-" where unknown.

    Args:
        of: "ratio", or one end of its interval, "low" or "high".

    >>> change({"unit": "ms", "ratio": 1.213}), change({"unit": "/s", "ratio": 0.957})
    ('+21%', '-4.3%')
    >>> change({"unit": "share", "base": 0.01, "new": 0.024})
    '+1.4 pp'
    """
    if verdict["unit"] == "share":
        known = verdict.get("base") is not None and verdict.get("new") is not None
        moved = (verdict["new"] - verdict["base"] if known else None) if of == "ratio" else verdict[of]
        return units.ABSENT if moved is None else f"{_signed(100 * moved)} pp"
    ratio = verdict[of]
    return units.ABSENT if ratio is None else f"{_signed(100 * (ratio - 1))}%"


def _signed(value: float) -> str:
    text = f"{value:+.1f}" if abs(value) < 9.95 else f"{value:+,.0f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def interval(verdict: Verdict, join: str = " to ") -> str:
    """The interval of the change: "+17 to +25%"; "" where there is none."""
    if verdict["low"] is None:
        return ""
    if verdict["high"] is None:
        return f"over {change(verdict, 'low')}"  # of a percentile that has no end, as too many requests failed
    low, high = change(verdict, "low"), change(verdict, "high")
    unit = " pp" if high.endswith(" pp") else "%"
    return f"{low.removesuffix(unit)}{join}{high}"


def more_runs(verdict: Verdict) -> str:
    """About how many more runs a side it takes, in words; "" where nobody knows.

    >>> more_runs({"runs_needed": 6, "runs_base": 1, "runs_new": 2})
    'about 5 more runs'
    """
    if verdict["runs_needed"] is None:
        return ""
    more = max(int(verdict["runs_needed"]) - min(verdict["runs_base"], verdict["runs_new"]), 1)
    return f"over {MOST_RUNS:,} more runs" if more > MOST_RUNS else f"about {units.plural(more, 'more run')}"


def said(verdict: Verdict) -> str:
    """The word of a verdict, with what it takes where nobody can tell."""
    runs = "" if _is_all_or_none(verdict) else more_runs(verdict)
    return f"{verdict['word']} ({runs})" if runs else str(verdict["word"])


def _is_all_or_none(verdict: Verdict) -> bool:
    """A share of 0 or 1 on both sides: how many runs it takes to be sure of it is of no use to a reader."""
    return verdict["unit"] == "share" and verdict["base"] == verdict["new"] and verdict["base"] in (0, 1)


def sides(record: Record) -> tuple[str, str]:
    """What both sides are called: BASE and NEW are folders, or models of one run."""
    return str(record["base"]["name"]), str(record["new"]["name"])


def headline(record: Record) -> str:
    """The whole comparison in one sentence without its names: "slower", "the same within 10%"."""
    within = f"within {units.share(record['margin'])}"
    base, new = sides(record)
    return {
        "same": f"{new} is the same as {base} {within}{_open(record)}",
        "can't tell": f"can't tell whether {new} is the same as {base} {within}",
        "no verdict": f"no verdict on {new} against {base}",
        "mixed": f"{new} is better than {base} in some figures or levels and worse in others",
    }.get(record["word"], f"{new} is {record['word']} than {base}{_somewhere(record)}")


def _open(record: Record) -> str:
    """ "; open: TTFT p95", what nobody can tell beside what is the same; records of before have no such field."""
    names = dict.fromkeys(metric(row["metric"]) for row in record.get("open") or ())
    return f"; open: {_listed(list(names))}" if names else ""


def _somewhere(record: Record) -> str:
    """ " at some levels", where the mean over the levels does not say so."""
    return "" if any(row["word"] == record["word"] for row in record["decisive"]) else " at some levels"


def sentences(record: Record) -> list[tuple[str, str]]:
    """What makes the word, a sentence a pair of models: (name of the pair, text). The name is "" of the only pair."""
    rows: dict[tuple[str, str], tuple[list[Any], list[Any]]] = {}
    for number, kind in enumerate(("decisive", "exceptions")):
        for row in record[kind]:
            rows.setdefault((row["base_model"], row["new_model"]), ([], []))[number].append(row)
    return [
        (pair(*names) if len(rows) > 1 else "", _sentence(record, decisive, exceptions))
        for names, (decisive, exceptions) in rows.items()
    ]


def pair(base: str, new: str) -> str:
    return base if base == new else f"{new} against {base}"


def _sentence(record: Record, decisive: Sequence[Any], exceptions: Sequence[Any]) -> str:
    found = [(row, _of(record, row)) for row in decisive]
    names = {(row["base_model"], row["new_model"]) for row in decisive}
    n_levels = sum((level["base_model"], level["new_model"]) in names for level in record["levels"])
    several = n_levels > 1
    parts = []
    for word in (*BAD, *GOOD, *SLIGHT):
        figures = [_figure(row, v, several) for row, v in found if v["word"] == word]
        parts += [f"{word}: {_listed(figures)}"] if figures else []
    same = [(row, "") for row, v in found if v["word"] == "same"]
    parts += [f"same: {_listed(_by_metric(same, n_levels))}"] if same else []
    unsure = [
        (row, v["note"] or more_runs(v)) for row, v in found if v["word"] == "can't tell" and not _is_all_or_none(v)
    ]
    parts += [f"can't tell: {_listed(_by_metric(unsure, n_levels))}"] if unsure else []
    held: dict[str, list[tuple[Mapping[str, Any], str]]] = {}
    for row, v in found:
        if v["word"] == "no verdict":
            held.setdefault(v["note"], []).append((row, ""))
    for why, rows in held.items():
        on = "" if len(rows) == len(found) else _held_at(rows, {row["metric"] for row, _ in found}, n_levels)
        parts.append(f"no verdict{on} ({why})")
    apart: dict[tuple[str, str], list[str]] = {}
    for row in exceptions:
        at = apart.setdefault((row["load"], row["word"]), [])
        at.append(_figure(row, _of(record, row), several=False))
    parts += [f"but {word} at {load(at)}: {_listed(figures)}" for (at, word), figures in apart.items()]
    return "; ".join(parts) or "nothing that both sides measured can be judged"


def _figure(row: Mapping[str, Any], verdict: Verdict, several: bool) -> str:
    ends = interval(verdict)
    return f"{_named(row, several)} {change(verdict)}{f' ({ends})' if ends else ''}"


def _named(row: Mapping[str, Any], several: bool) -> str:
    return metric(row["metric"]) + (f" at {load(row['load'])}" if several and row["load"] is not None else "")


def _held_at(rows: Sequence[tuple[Mapping[str, Any], str]], metrics: Collection[str], n_levels: int) -> str:
    """What has no verdict for one reason: " at c8" where it is everything of a level, else the metrics by name."""
    loads: dict[str, set[str]] = {}
    for row, _ in rows:
        loads.setdefault(load(row["load"]), set()).add(row["metric"])
    if all(names == set(metrics) for names in loads.values()):
        return f" at {' and '.join(loads)}"
    return f" on {_listed(_by_metric(rows, n_levels))}"


def _by_metric(rows: Sequence[tuple[Mapping[str, Any], str]], n_levels: int) -> list[str]:
    """Metrics with what is said of them; the levels are named where it is not said of all: "TTFT p95 at c1 (why)"."""
    found: dict[tuple[str, str], list[str]] = {}
    for row, why in rows:
        found.setdefault((row["metric"], why), []).append(load(row["load"]))
    return [
        metric(name)
        + (f" at {' and '.join(loads)}" if all(loads) and len(loads) < n_levels else "")
        + (f" ({why})" if why else "")
        for (name, why), loads in found.items()
    ]


def _of(record: Record, row: Mapping[str, Any]) -> Verdict:
    """The verdict that a row of `decisive` or `exceptions` is about."""
    names = (row["base_model"], row["new_model"])
    rows: Iterable[Verdict] = (
        (v for v in record["over_levels"] if (v["base_model"], v["new_model"]) == names)
        if row["load"] is None
        else (
            v
            for level in record["levels"]
            if (level["base_model"], level["new_model"], level["load"]) == (*names, row["load"])
            for v in level["verdicts"]
        )
    )
    return next(v for v in rows if v["metric"] == row["metric"])


def _listed(figures: Sequence[str]) -> str:
    left = len(figures) - MOST_FIGURES
    shown = figures if left <= 1 else [*figures[:MOST_FIGURES], f"and {left} more"]
    return ", ".join(shown)
