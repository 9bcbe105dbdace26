"""The report as one self-contained HTML file: tables and words of the other formats, and plots of the same figures.

A section is a `Section`: an id, a title, and a body of Markup, tables (`loadbench.report.tables.Table`, a list of them
makes one block) and `Figure`s. To add one, write a function `(Summary) -> Section | None` in a module of this folder
and name it in `_sections` where a reader expects it; None leaves it out. A section of its own from elsewhere, such as a
choice between models, is passed as `extra` to `render` or `render_runs` and comes right after the verdict. Its `script`
runs once the page is drawn; it finds its `data` by `loadbench.data(id)`, draws by `loadbench.draw(element, spec)` and
must set text by `textContent`, never by `innerHTML`. Scripts and styles stand in `assets/`, data only in JSON.

markup.py    HTML from Python: what is not Markup is text
section.py   what a page is made of
page.py      the page around the sections, and its security policy
grid.py      tables
trace.py     plotly's traces from figures with their n and interval
parts.py scaling.py latency.py timeline.py models.py   the sections of a run
matrix.py    several runs in one page
bundle.py assets/   plotly's JavaScript where it is installed; our own script and style
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loadbench.report import levels, provenance
from loadbench.report.html import choice, latency, matrix, models, page, parts, scaling, timeline
from loadbench.report.html.section import Figure, Key, Panel, Section
from loadbench.report.levels import Summary

__all__ = ["Figure", "Key", "Panel", "Section", "render", "render_runs"]


def render(summary: Summary, extra: Sequence[Section] = ()) -> str:
    """A run's page.

    Args:
        summary: What `metrics.summarise` returns, with the facts of run.json in it.
        extra: More sections, after the verdict.
    """
    first, *others = _sections(summary)
    chosen = choice.section(summary["choice"]) if summary.get("choice") else None
    sections = [first, *([chosen] if chosen else []), *extra, *others]
    return page.render(provenance.title(summary), _subtitle(summary), _banner([summary]), sections)


def render_runs(summaries: Sequence[tuple[str, Summary]], extra: Sequence[Section] = ()) -> str:
    """Several runs in one page: a matrix of models, levels, devices and hosts, and plots side by side.

    Args:
        summaries: The name of each run, as its folder, and its summary.
        extra: More sections, after the matrix.
    """
    first, *others = matrix.sections(summaries)
    dates = [date for _, summary in summaries if (date := provenance.date(summary))]
    when = f"{min(dates)} to {max(dates)}" if len(set(dates)) > 1 else "".join(dates[:1])
    banner = _banner([summary for _, summary in summaries])
    return page.render(f"{len(summaries)} runs", when, banner, [first, *extra, *others, parts.meanings()])


def _sections(summary: Summary) -> Iterable[Section]:
    yield parts.verdict(summary)
    found = (
        scaling.section(summary),
        latency.against_load(summary),
        models.section(summary),
        parts.doubts(summary),
        parts.failures(summary),
        latency.distributions(summary),
        timeline.section(summary),
        parts.more(summary),
    )
    if levels.levels(summary):
        yield from (section for section in found if section)
    yield parts.origin(summary)
    yield parts.meanings()


def _subtitle(summary: Summary) -> str:
    """When and against what."""
    facts = dict(provenance.facts(summary))
    return " · ".join(part for part in (provenance.date(summary), facts.get("target"), facts.get("client")) if part)


def _banner(summaries: Sequence[Summary]) -> str:
    return f"{provenance.SIMULATED}." if any(levels.is_simulated(summary) for summary in summaries) else ""
