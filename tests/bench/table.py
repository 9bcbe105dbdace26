"""Rows of text as a table."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def number(value: float | None, digits: int = 2) -> str:
    """- where nobody knows."""
    return "-" if value is None else f"{value:,.{digits}f}"


def off(error: float | None) -> str:
    """From the truth, as a share of it."""
    return "-" if error is None else f"{100 * error:+.2f} %" if abs(error) < 1 else f"x{1 + error:.0f}"
