"""docs/checks.md from the table of checks: `python tests/checks_page.py` writes it, test_validity.py holds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from loadbench.metrics.checks import CHECKS

PAGE = Path(__file__).parent.parent / "docs" / "checks.md"
HEAD = """\
# Checks

What loadbench looks at before it lets anybody rely on a figure. Each check (gate) has a name; V1 to V15 have a number
beside it, and `code` and `name` in [summary.json](summary.md) hold both. **red** forbids a verdict on what it is about,
**warn** is a doubt, **note** a fact to know. A red check never takes away the verdict that more requests fail, unless
records are missing; a red `short-window` forbids those on rates alone ([compare.md](compare.md)).

How a late client is told from a server or a proxy that sends several tokens at once: the kernel stamps what arrives, so
reading late changes no time, until what waits is joined by what comes next; then both carry the newest time. A read
that merged two arrivals so found the newest of them at any age up to their gap. So at most twice the share of reads
that came later than half a mean gap (`late_share`) were merged by the client; what else came together, the server wrote
so, or something between gathered it. The wait for a core is the one case in which that fails, since a server that keeps
all cores busy often sleeps right after it has written: the kernel counts that wait (`client_wait_share`).
"""


def page() -> str:
    return HEAD + "\n".join(_lines())


def _lines() -> Iterator[str]:
    for check in CHECKS:
        yield f"\n## {check.name} ({check.code})\n" if check.name else f"\n## {check.code}\n"
        yield f"{_capital(check.means)}. What to do: {check.remedy}.\n"
        for severity in ("red", "warn", "note"):
            threshold = getattr(check, severity)
            if threshold:
                yield f"- **{severity}**: {threshold}"
    yield ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
