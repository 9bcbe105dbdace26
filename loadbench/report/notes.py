"""The doubts of a report: levels that did not run to their end, and the validity gates that spoke."""

from __future__ import annotations

from dataclasses import dataclass

from loadbench import text as units
from loadbench.metrics.gates import NAMES
from loadbench.report import levels
from loadbench.report.levels import Summary

_ORDER = {"red": 0, "warn": 1, "note": 2}


@dataclass(frozen=True, slots=True)
class Note:
    """One gate's doubt: its code, how bad ("red" forbids a verdict), and its text at each level.

    `name` is "" where the code is one.
    `texts` are pairs of the levels' names ("" for the whole run) and what is said there, reason and remedy.
    """

    code: str
    name: str
    severity: str
    texts: tuple[tuple[str, str], ...]


def gates(summary: Summary) -> list[Note]:
    """Reds first, then by number; the same words at several levels are said once."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for level, warning in levels.warnings(summary):
        gate = str(warning.get("code") or "?"), str(warning.get("severity") or "warn")
        at = found.setdefault(gate, {}).setdefault(str(warning.get("text") or ""), [])
        at.append(levels.full_label(level, summary) if level else "")
    said = [
        Note(code, _name(code), severity, tuple((levels.joined(at), text) for text, at in texts.items()))
        for (code, severity), texts in found.items()
    ]
    return sorted(said, key=lambda note: (_ORDER.get(note.severity, 2), _number(note.code)))


def unfinished(summary: Summary) -> list[str]:
    """One line for each level that did not run to its end: "c8: interrupted after 12 of 80 requests (Ctrl-C)"."""
    lines = []
    for level in levels.levels(summary):
        if not levels.is_unfinished(level):
            continue
        attempted, planned = level.get("attempted"), level.get("requests_planned")
        after = f" after {attempted:,}" if attempted else ""
        after += f" of {units.plural(planned, 'request')}" if after and planned else " requests" if after else ""
        cancelled = level.get("cancelled")
        after += f", {cancelled:,} of them cancelled" if cancelled else ""
        reason = f" ({level['reason']})" if level.get("reason") else ""
        lines.append(f"{levels.full_label(level, summary)}: {level['status']}{after}{reason}")
    return lines


def closing(summary: Summary) -> list[str]:
    """One line for each level that was measured again at the end: what changed meanwhile."""
    lines = []
    several = len(levels.by_model(summary)) > 1
    for band in summary.get("noise") or []:
        ratios = [
            f"{name} {band[figure]:.2f}x"
            for figure, name in (("output_tokens_per_s", "tokens/s"), ("ttft_p50", "TTFT p50"), ("e2e_p50", "E2E p50"))
            if band.get(figure) is not None
        ]
        level = str(band.get("level")).rpartition("@")[2]
        where = f"{band.get('model')} {level}" if several else level
        lines.append(f"{where}: {', '.join(ratios) or 'no figure'} of the first time; in no table above")
    return lines


def capacity(summary: Summary) -> str:
    """The highest load within the SLO, "" where nobody searched for it."""
    streams, rate = summary.get("capacity_concurrency"), summary.get("capacity_rate_per_s")
    found = [units.plural(int(streams), "stream")] if streams is not None else []
    found += [f"{rate:g} req/s"] if rate is not None else []
    return f"capacity within the SLO: {' or '.join(found)}" if found else ""


def _name(code: str) -> str:
    name = NAMES.get(code, "")
    return "" if name == code else name


def _number(code: str) -> int:
    digits = code.lstrip("V")
    return int(digits) if digits.isdigit() else 99
