"""The page around the sections: one file that asks for nothing and runs no script but its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import orjson

from loadbench.report.html import bundle, grid
from loadbench.report.html.markup import Markup, in_script, joined, tag
from loadbench.report.html.section import Figure, Key, Panel, Section, Spec
from loadbench.report.tables import Table
from loadbench.text import plural

MOST_PANELS = 6
"""Plots of one kind that stand open; more unfold on a click."""


class Plots:
    """The page's plots by name; a trace that stands in several, as the others in grey, is kept once."""

    def __init__(self) -> None:
        self.specs: dict[str, Any] = {}
        self.shared: list[Spec] = []
        self._owner: dict[int, tuple[list[Any], int]] = {}
        self._places: dict[int, int] = {}

    def add(self, name: str, panel: Panel) -> None:
        """Take a panel; a trace that is the very same object as one before is shared."""
        traces: list[Any] = []
        for place, trace in enumerate(panel.traces):
            key = id(trace)
            if key not in self._owner:
                self._owner[key] = (traces, place)
                traces.append(trace)
                continue
            if key not in self._places:
                self._places[key] = len(self.shared)
                self.shared.append(trace)
                first, at = self._owner[key]
                first[at] = self._places[key]
            traces.append(self._places[key])
        self.specs[name] = {"traces": traces, "layout": panel.layout}


def render(title: str, subtitle: str, banner: str, sections: Sequence[Section]) -> str:
    """The whole file.

    Args:
        title: Of the page and its first heading.
        subtitle: Beneath it: when, where.
        banner: A warning above all else, or "".
        sections: In their order; their ids differ.
    """
    library = bundle.plotly()
    plots = Plots() if library else None
    found = [_section(section, plots) for section in sections]
    body = joined(
        [
            tag("a", "Skip to the report", href="#report", class_="skip"),
            _header(title, subtitle, banner),
            _contents(sections),
            tag("main", _without_plots(library), found, id="report"),
            tag("footer", tag("p", "Written by loadbench. Everything is in this file; it loads nothing.")),
        ]
    )
    scripts = [bundle.asset("page.js"), *(section.script for section in sections if section.script)]
    data = {"plots": plots.specs if plots else {}, "shared": plots.shared if plots else []}
    data |= {"sections": {section.id: section.data for section in sections if section.data}}
    styles = [bundle.asset("page.css"), *(section.style for section in sections if section.style)]
    head = joined(
        [
            tag("meta", charset="utf-8"),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts, library)}">'),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("meta", name="referrer", content="no-referrer"),
            tag("title", f"{title} – loadbench"),
            Markup(f"<style>{''.join(styles)}</style>"),
        ]
    )
    packed = [Markup(f'<script type="text/plain" id="plotly">{library.packed}</script>')] if library else []
    last = [*packed, _json("page-data", data), *(Markup(f"<script>{script}</script>") for script in scripts)]
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>{body}{"".join(last)}</body>\n</html>\n'


def _policy(scripts: Iterable[str], library: bundle.Bundle | None) -> str:
    """Nothing is loaded, and of scripts only these run: what somebody put into a name would not, even unescaped."""
    hashes = [bundle.digest(script.encode()) for script in scripts] + ([library.digest] if library else [])
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "form-action 'none'; base-uri 'none'"
    )


def _json(name: str, value: Mapping[str, Any]) -> Markup:
    content = in_script(orjson.dumps(value).decode())
    return Markup(f'<script type="application/json" id="{name}">{content}</script>')


def _header(title: str, subtitle: str, banner: str) -> Markup:
    words = tag(
        "div",
        tag("p", "loadbench", class_="brand"),
        tag("h1", title),
        tag("p", subtitle, class_="subtitle") if subtitle else None,
    )
    button = tag("button", "Dark", type="button", id="theme", hidden=True, aria_pressed="false")
    warning = tag("p", banner, class_="banner", role="note") if banner else None
    return tag("header", tag("div", words, button, class_="head"), warning)


def _contents(sections: Sequence[Section]) -> Markup:
    links = [tag("li", tag("a", section.title, href=f"#{section.id}")) for section in sections]
    return tag("nav", tag("ul", links), aria_label="Contents")


def _without_plots(library: bundle.Bundle | None) -> Markup:
    if library is None:
        words = ("The tables below hold every figure; the plots need plotly, which is not installed. To get them: ",)
        how = (tag("code", part) if i % 2 else part for i, part in enumerate(bundle.HOW.split("`")))
        return tag("p", *words, *how, ", then ", tag("code", "loadbench report RUN"), class_="hint")
    words = ("Plots need JavaScript. The same figures are in the tables beneath them.",)
    return Markup(f"<noscript>{tag('p', *words, class_='hint')}</noscript>")


def _section(section: Section, plots: Plots | None) -> Markup:
    name = f"{section.id}-title"
    parts = []
    for together, group in groupby(enumerate(section.body), lambda pair: _is_small(pair[1])):
        made = [_part(part, f"{section.id}-{place}", plots) for place, part in group]
        parts.append(tag("div", made, class_="pair") if together and len(made) > 1 else joined(made))
    return tag("section", tag("h2", section.title, id=name), parts, id=section.id, aria_labelledby=name)


def _is_small(part: Markup | Figure | Sequence[Table]) -> bool:
    """Whether a figure may share its line with another one."""
    return isinstance(part, Figure) and len(part.panels) == 1 and not part.wide


def _part(part: Markup | Figure | Sequence[Table], name: str, plots: Plots | None) -> Markup:
    if isinstance(part, Markup):
        return part
    return _figure(part, name, plots) if isinstance(part, Figure) else grid.block(part)


def _figure(figure: Figure, name: str, plots: Plots | None) -> Markup:
    words = [tag("h3", figure.title), tag("p", figure.note) if figure.note else None]
    if plots is None:
        tables = [grid.block([table], heading=False) for table in figure.tables]
        return tag("div", words, tables, class_="figure") if figure.tables else Markup("")
    several = len(figure.panels) > 1
    panels = [_panel(panel, f"{name}-{i}", plots, titled=several) for i, panel in enumerate(figure.panels)]
    kind = "panels one" if len(panels) == 1 else "panels wide" if figure.wide else "panels"
    more = panels[MOST_PANELS:]
    folded = tag(
        "details", tag("summary", plural(len(more), "more plot")), tag("div", more, class_=kind), class_="more"
    )
    return tag(
        "figure",
        tag("figcaption", words),
        tag("ul", [_key(key) for key in figure.legend], class_="legend") if figure.legend else None,
        tag("div", panels[:MOST_PANELS], class_=kind),
        folded if more else None,
        _as_tables(figure),
        class_="figure",
    )


def _as_tables(figure: Figure) -> Markup | None:
    if not figure.tables:
        return None
    return tag(
        "details", tag("summary", "The same as a table"), grid.block(figure.tables, heading=False), class_="same"
    )


def _panel(panel: Panel, name: str, plots: Plots, *, titled: bool) -> Markup:
    plots.add(name, panel)
    return tag(
        "div",
        tag("h4", panel.title) if titled and panel.title else None,
        tag(
            "div",
            class_="plot",
            role="img",
            aria_label=panel.label,
            data_plot=name,
            style=f"height:{panel.height}px",
        ),
        class_="panel",
    )


def _key(key: Key) -> Markup:
    sign = tag("span", class_=f"sign {key.sign}", data_color=key.color, aria_hidden="true")
    return tag("li", sign, key.text)
