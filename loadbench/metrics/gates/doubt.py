"""One gate's word on one level: its code and name, how bad it is, and a sentence with figure, reason and remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadbench.metrics.gates.checks import NAMES

Level = Mapping[str, Any]
Scenario = Mapping[str, Any]
Doubt = dict[str, str]


def graded(code: str, text: str, *, warn: bool = False, red: bool = False) -> Doubt | None:
    """Red, a warning, or nothing."""
    return said("red", code, text) if red else said("warn", code, text) if warn else None


def said(severity: str, code: str, text: str) -> Doubt:
    """A doubt; "red" forbids a verdict, "warn" is a doubt that is printed, "note" a fact that a reader should know."""
    return {"code": code, "name": NAMES.get(code, code), "severity": severity, "text": text}


def percent(share: float) -> str:
    """A share in words, two digits below 10 %.

    >>> percent(0.0123), percent(0.5)
    ('1.2 %', '50 %')
    """
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
