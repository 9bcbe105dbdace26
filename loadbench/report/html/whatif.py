"""Another SLO, tried on the page: what share of the requests of each level would have met it, from the distributions.

The script interpolates between the points of a distribution; at the run's own bounds it shows the report's attainment.
"""

from __future__ import annotations

from collections.abc import Sequence

from loadbench.errors import UsageError
from loadbench.report import html, levels
from loadbench.report.document import Block, Html, Section, Small
from loadbench.report.html import Markup, plots, tag
from loadbench.scenario.bounds import Bound
from loadbench.store.summary import Level, Summary

Distributions = dict[str, dict[str, list[float]]]
"""By metric: all but one in so many requests took at most so many ms."""
STEPS = 200
"""Of a slider, evenly over the logarithm of its range."""
_SHARE = 95


def section(summary: Summary, groups: Sequence[tuple[str, Sequence[Level]]]) -> Section | None:
    """Sliders for bounds on the times of a request; None where no level holds a distribution."""
    kinds = [kind for kind in plots.kinds(summary) if kind.noun == "requests"]
    rows: list[tuple[str, Level, Distributions]] = []
    for model, own in groups:
        for level in own:
            times: Distributions = {}
            for kind in kinds:
                spectrum = kind.spectrum(level)
                if spectrum is not None:
                    times[kind.bound] = {"oneIn": list(spectrum.one_in), "ms": list(spectrum.ms)}
            if len(times) == len(kinds) and level.offered and level.completed:
                rows.append((model, level, times))
    if not rows:
        return None
    sliders, ranges = [], {}
    for kind in kinds:
        every = [ms for _, _, times in rows for ms in times[kind.bound]["ms"] if ms > 0]
        if not every:
            return None
        bounds = [ms for _, level, _ in rows for name, ms, _ in _own(level) if name == kind.bound]
        low, high = min([*every, *bounds]) / 1.5, max([*every, *bounds]) * 1.5
        ranges[kind.bound] = {"low": low, "high": high, "start": bounds[0] if bounds else None}
        sliders.append(_slider(kind.bound, f"{kind.name} at most", STEPS))
    sliders.append(_slider("share", "for so many requests", 99, low=50, value=_SHARE))
    form = tag(
        "form", tag("fieldset", tag("legend", "The SLO to try"), sliders), id="whatif", class_="weights", hidden=True
    )
    verdict = tag("p", "", id="whatif-now", role="status", aria_live="polite")
    heads = [tag("th", name, scope="col", class_="left") for name in ("model", "load")]
    heads += [tag("th", f"{kind.name} met", scope="col") for kind in kinds]
    heads += [tag("th", "goodput/s", scope="col"), tag("th", "SLO", scope="col")]
    body = []
    for model, level, _ in rows:
        cells = [tag("th", model, scope="row", class_="left"), tag("td", levels.load_words(level), class_="left")]
        cells += [tag("td", "") for _ in range(len(kinds) + 2)]
        body.append(tag("tr", cells))
    caption = tag("caption", "Levels under the SLO to try", class_="unseen")
    table = html.grid("Levels under the SLO to try", caption, heads, body, id="whatif-levels")
    data = {"kinds": [kind.bound for kind in kinds], "ranges": ranges, "rows": [_facts(*row) for row in rows]}
    about = (
        "Computed in this page from the distributions of the levels that were measured; between levels nothing was "
        "measured. Requests that failed or were dropped met nothing. Goodput is a range: how many requests met "
        "both bounds is not in a distribution of each."
    )
    blocks: list[Block] = [Html(tag("div", form, verdict, table, class_="block")), Small("", [about])]
    title = "What if the SLO were another?"
    return Section("what-if", title, blocks, data, html.asset("whatif.js"), folded=True)


def _slider(name: str, words: str, most: int, *, low: int = 0, value: int = 0) -> Markup:
    field = f"whatif-{name}"
    slider = tag("input", type="range", id=field, name_=name, min=str(low), max=str(most), step="1", value=str(value))
    return tag("div", tag("label", words, for_=field), slider, tag("output", "", for_=field))


def _own(level: Level) -> list[tuple[str, float, float | None]]:
    """The run's own bounds on percentiles of request times: metric, ms, attainment."""
    found = []
    for objective in level.slo or ():
        try:
            bound = Bound.parse(objective.bound)
        except UsageError:  # of a newer version
            continue
        if bound.statistic and bound.op in ("<", "<="):
            found.append((bound.metric, bound.value, objective.attainment))
    return found


def _facts(model: str, level: Level, times: Distributions) -> dict[str, object]:
    return {
        "model": model,
        "load": levels.load(level),
        "words": levels.load_words(level),
        "share": (level.completed or 0) / (level.offered or 1),
        "perS": level.requests_per_s,
        "times": times,
        "own": [{"metric": metric, "ms": ms, "attainment": attainment} for metric, ms, attainment in _own(level)],
    }
