"""Which model to ship: the recommendation, and a rank whose weights a reader can move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from loadbench import text as units
from loadbench.report.choice import tables, words
from loadbench.report.choice.words import Record, Row
from loadbench.report.html import bundle
from loadbench.report.html.markup import Markup, tag
from loadbench.report.html.section import Section

ID = "choice"
MOST_PARTS, STEP = 10, 0.5
"""Of a slider, in parts."""


def section(record: Record) -> Section | None:
    """None where there are no two to choose between."""
    left = words.rows(record)
    if len(left) < 2:
        return None
    criteria = [one for one in record["criteria"] if one["figures"]]
    body: list[Any] = [_said(record), _mover(criteria), _rank(record, left, criteria), _doubts(record)]
    rest = [table for table in tables.all_of(record) if not table.title.startswith("Rank at")]
    return Section(
        ID,
        "Which model to ship",
        [*body, *([table] for table in rest)],
        data=_data(left, criteria),
        script=bundle.asset("choice.js"),
        style=bundle.asset("choice.css"),
    )


def _said(record: Record) -> Markup:
    lines = [*words.reasons(record), words.robustness(record), words.front(record)]
    changes = words.would_change(record)
    load = f"At {record['load']['words']}{'' if record['load']['asked'] else ', the highest load that all completed'}."
    return tag(
        "div",
        tag("p", tag("strong", f"{words.headline(record)}.")),
        tag("p", load),
        tag("ul", [tag("li", f"{line}.") for line in lines if line]),
        [tag("h3", "What would change it"), tag("ul", [tag("li", f"{line}.") for line in changes])]
        if changes
        else None,
        class_="choice",
    )


def _mover(criteria: Sequence[Mapping[str, Any]]) -> Markup:
    """A slider a criterion; hidden until the script that reads them runs."""
    rows = [_slider(one) for one in criteria]
    return tag(
        "form",
        tag("fieldset", tag("legend", "Weights, in parts: move one and the rank follows"), rows),
        tag("button", "The weights of the report", type="reset"),
        tag("p", "", id="choice-now", role="status", aria_live="polite"),
        id="choice-weights",
        class_="weights",
        hidden=True,
    )


def _slider(one: Mapping[str, Any]) -> Markup:
    name = f"choice-{one['name']}"
    weight = min(float(one["weight"]), float(MOST_PARTS))
    return tag(
        "div",
        tag("label", one["label"], for_=name),
        tag(
            "input",
            type="range",
            id=name,
            name_=one["name"],
            min="0",
            max=f"{MOST_PARTS}",
            step=f"{STEP}",
            value=f"{weight:g}",
        ),
        tag("output", units.percent(one["share"]), for_=name),
    )


def _rank(record: Record, left: Sequence[Row], criteria: Sequence[Mapping[str, Any]]) -> Markup:
    """The rank as the report has it; the script puts its rows into another order and writes their scores."""
    heads = [
        tag("th", "#", scope="col"),
        tag("th", "model", scope="col", class_="left"),
        tag("th", "score", scope="col"),
    ]
    heads += [tag("th", one["label"], scope="col") for one in criteria]
    lines = []
    for i, row in enumerate(left):
        cells = [tag("td", str(row["rank"])), tag("th", str(row["name"]), scope="row", class_="left")]
        cells += [tag("td", f"{row['score']:.1f}"), *(_near(row, one) for one in criteria)]
        lines.append(tag("tr", cells, data_row=str(i)))
    caption = f"Rank at {record['load']['words']}"
    grid = tag("table", tag("caption", caption), tag("thead", tag("tr", heads)), tag("tbody", lines), id="choice-rank")
    notes = ["of the best candidate in each criterion = 100%; score = their weighted geometric mean"]
    if any(row["missing"] for row in left):
        notes.append("* not known in part or at all: counts as half as good as the worst of the others")
    return tag(
        "div",
        tag("div", grid, class_="scroll", role="region", aria_label=caption, tabindex="0"),
        tag("ul", [tag("li", note) for note in notes], class_="notes"),
        class_="block",
    )


def _near(row: Row, one: Mapping[str, Any]) -> Markup:
    logs = [row["log_ratios"][name] for name in one["figures"]]
    missing = any(name in row["missing"] for name in one["figures"])
    return tag("td", units.percent(math.exp(math.fsum(logs) / len(logs))) + ("*" if missing else ""))


def _doubts(record: Record) -> Markup:
    if not record["doubts"]:
        return Markup("")
    lines = [
        tag("li", tag("span", one["severity"], class_="badge"), f" {one['text']}", class_=f"gate {one['severity']}")
        for one in record["doubts"]
    ]
    return tag("div", tag("h3", "Doubts about the choice"), tag("ul", lines, class_="gates"))


def _data(left: Sequence[Row], criteria: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the script ranks again: no more than it needs."""
    return {
        "criteria": [{name: one[name] for name in ("name", "label", "weight", "figures")} for one in criteria],
        "rows": [{"name": row["name"], "logs": row["log_ratios"]} for row in left],
    }
