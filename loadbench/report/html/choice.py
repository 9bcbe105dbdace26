"""Which model to ship, on a page: the recommendation, and a rank whose weights a reader can move."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadbench import text as units
from loadbench.report import choice
from loadbench.report.document import Section, tables_of
from loadbench.report.html import page
from loadbench.report.html.markup import Markup, tag
from loadbench.report.levels import Record, Summary

ID = "choice"
MOST_PARTS, STEP = 10, 0.5
"""Of a slider, in parts."""


def sections(summary: Summary) -> list[Section]:
    """The choice between the models of a run, where there are two."""
    found = section(summary["choice"]) if summary.get("choice") else None
    return [found] if found else []


def section(record: Record) -> Section | None:
    """None where there are no two to choose between."""
    left = choice.rows(record)
    if len(left) < 2:
        return None
    criteria = [criterion for criterion in record["criteria"] if criterion["figures"]]
    blocks = [
        choice.decision(record),
        choice.context(record),
        _mover(criteria),
        _rank(record, left, criteria),
        *tables_of(choice.needs(record), *choice.figures(record)),
        *choice.rest(record),
    ]
    data = {
        # What the script ranks again: no more than it needs.
        "criteria": [{name: one[name] for name in ("name", "label", "weight", "figures")} for one in criteria],
        "rows": [{"name": row["name"], "logs": row["log_ratios"]} for row in left],
    }
    return Section(ID, "Which model to ship", blocks, data, page.asset("choice.js"), page.asset("choice.css"))


def _mover(criteria: Sequence[Record]) -> Markup:
    """A slider a criterion; hidden until the script that reads them runs."""
    return tag(
        "form",
        tag("fieldset", tag("legend", "Weights, in parts: move one and the rank follows"), map(_slider, criteria)),
        tag("button", "The weights of the report", type="reset"),
        tag("p", "", id="choice-now", role="status", aria_live="polite"),
        id="choice-weights",
        class_="weights",
        hidden=True,
    )


def _slider(criterion: Record) -> Markup:
    name = f"choice-{criterion['name']}"
    slider = tag(
        "input",
        type="range",
        id=name,
        name_=criterion["name"],
        min="0",
        max=f"{MOST_PARTS}",
        step=f"{STEP}",
        value=f"{min(float(criterion['weight']), float(MOST_PARTS)):g}",
    )
    share = tag("output", units.percent(criterion["share"]), for_=name)
    return tag("div", tag("label", criterion["label"], for_=name), slider, share)


def _rank(record: Record, left: Sequence[Record], criteria: Sequence[Record]) -> Markup:
    heads = [
        tag("th", "#", scope="col"),
        tag("th", "model", scope="col", class_="left"),
        tag("th", "score", scope="col"),
        *(tag("th", criterion["label"], scope="col") for criterion in criteria),
    ]
    lines = []
    for i, row in enumerate(left):
        name = tag("th", str(row["name"]), scope="row", class_="left")
        near = [_near(row, criterion) for criterion in criteria]
        cells = [tag("td", str(row["rank"])), name, tag("td", f"{row['score']:.1f}"), near]
        lines.append(tag("tr", cells, data_row=str(i)))
    caption = f"Rank at {record['load']['words']}"
    head, body = tag("thead", tag("tr", heads)), tag("tbody", lines)
    table = page.scrolled(caption, tag("table", tag("caption", caption), head, body, id="choice-rank"))
    notes = [choice.NEAR]
    if any(row["missing"] for row in left):
        notes.append(choice.HALF_AS_GOOD)
    return tag("div", table, tag("ul", [tag("li", note) for note in notes], class_="notes"), class_="block")


def _near(row: Record, criterion: Record) -> Markup:
    logs = [row["log_ratios"][name] for name in criterion["figures"]]
    share = units.percent(math.exp(math.fsum(logs) / len(logs)))
    missing = any(name in row["missing"] for name in criterion["figures"])
    return tag("td", f"{share}*" if missing else share)
