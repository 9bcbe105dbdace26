"""What a page is made of: sections of prose, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from loadbench.report.html.markup import Markup
from loadbench.report.tables import Table

Spec = Mapping[str, Any]
Sign = Literal["line", "dash", "dot", "point", "square", "diamond", "hollow", "bar", "ramp", "triangle", "cross", "x"]


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend: what a sign means. `color` as in traces, "@0" to "@5", "@muted", "@bad"."""

    text: str
    sign: Sign = "line"
    color: str = "@0"


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot.

    Attributes:
        title: Above it; "" where the figure's title says all.
        label: What it shows, for those who cannot see it.
        traces: Plotly's, with colours as names that the page's theme resolves ("@0", "@muted", "@ramp0.5", "@0/0.2").
        layout: Plotly's, over what the page sets.
        height: In pixels.
    """

    title: str
    label: str
    traces: Sequence[Spec]
    layout: Spec
    height: int = 300


@dataclass(frozen=True, slots=True)
class Figure:
    """Plots of one kind side by side, their legend, and the same figures as tables."""

    title: str
    note: str
    panels: Sequence[Panel]
    legend: Sequence[Key] = ()
    tables: Sequence[Table] = ()
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page with a heading and a place in its contents.

    Attributes:
        id: Of its element, and the address of its heading.
        title: Its heading.
        body: Markup, tables (one a model makes one block with one heading) and figures, in their order.
        data: What `script` reads, as JSON: `loadbench.data("<id>")` in the browser.
        script: JavaScript that runs once the page is there. It must build no HTML of data: text goes by `textContent`.
        style: CSS of this section.
    """

    id: str
    title: str
    body: Sequence[Markup | Figure | Sequence[Table]]
    data: Mapping[str, Any] = field(default_factory=dict)
    script: str = ""
    style: str = ""
