"""The numbers that a text states, as a reader takes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

LONGEST = 1000
"""Digits of a number that are looked at."""
_FOUND = re.compile(r"([-+−]?)(\d+(?:[.,]\d+)*|\.\d+)([eE][+-]?\d{1,3}(?!\w))?")
_PLAIN = re.compile(r"\d*\.\d+|\d+")
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+(\.\d+)?")
_EUROPEAN = re.compile(r"\d{1,3}(\.\d{3})+,\d+")
_LIST = re.compile(r"\d+(,\d+)+")


def numbers(text: str) -> list[Decimal]:
    """The numbers of a text, in its order.

    1,234 is a thousand, 4,9 has a decimal comma, 1,2,3 are three; a dash between figures is a range, not a minus;
    the 4 of GPT-4 is part of a name, 3.5.1 is a version.

    >>> [str(n) for n in numbers("GPT-4 needs 1,234.5 MB, 4,9GB or 10-20%, about −3.")]
    ['1234.5', '4.9', '10', '20', '-3']
    """
    return list(_numbers(text))


def _numbers(text: str) -> Iterator[Decimal]:
    for match in _FOUND.finditer(text):
        sign, run, exponent = match.groups(default="")
        before = text[match.start() - 1] if match.start() else " "
        if before.isalpha() or before == "_":
            continue
        # No more digits than a reader compares: Decimal computes with no number of a million.
        run = run[:LONGEST]
        minus = "-" if sign in ("-", "−") and not (before.isdigit() or before == ")") else ""
        for plain in _plain(run):
            yield Decimal(minus + plain + exponent)


def _plain(run: str) -> list[str]:
    """Digits with dots and commas, as numbers with a decimal point."""
    if _PLAIN.fullmatch(run):
        return [run]
    if _THOUSANDS.fullmatch(run):
        return [run.replace(",", "")]
    if _EUROPEAN.fullmatch(run):
        return [run.replace(".", "").replace(",", ".")]
    if _LIST.fullmatch(run):
        return run.split(",") if run.count(",") > 1 else [run.replace(",", ".")]
    return []
