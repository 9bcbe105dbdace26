"""The page around the sections: one file that asks for nothing and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from loadbench.report.html import bundle, grid
from loadbench.report.html.markup import Markup, in_script, joined, tag
from loadbench.report.html.section import Figure, Key, Panel, Section
from loadbench.report.units import plural

MOST_PANELS = 6
"""Plots of one kind that stand open; more unfold on a click."""


def render(title: str, subtitle: str, banner: str, sections: Sequence[Section]) -> str:
    """The whole file.

    Args:
        title: Of the page and its first heading.
        subtitle: Beneath it: when, where.
        banner: A warning above all else, or "".
        sections: In their order; their ids differ.
    """
    library = bundle.plotly_js()
    plots: dict[str, Any] = {}
    found = [_section(section, plots if library else None) for section in sections]
    body = joined(
        [
            tag("a", "Skip to the report", href="#report", class_="skip"),
            _header(title, subtitle, banner),
            _contents(sections),
            tag("main", _without_plots(library), found, id="report"),
            tag("footer", tag("p", "Written by loadbench. Everything is in this file; it loads nothing.")),
        ]
    )
    scripts = [library] if library else []
    scripts += [bundle.asset("page.js"), *(section.script for section in sections if section.script)]
    data = {"plots": plots, "sections": {section.id: section.data for section in sections if section.data}}
    styles = [bundle.asset("page.css"), *(section.style for section in sections if section.style)]
    head = joined(
        [
            tag("meta", charset="utf-8"),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">'),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("meta", name="referrer", content="no-referrer"),
            tag("title", f"{title} – loadbench"),
            Markup(f"<style>{''.join(styles)}</style>"),
        ]
    )
    last = [_json("page-data", data), *(Markup(f"<script>{script}</script>") for script in scripts)]
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>{body}{"".join(last)}</body>\n</html>\n'


def _policy(scripts: Iterable[str]) -> str:
    """Nothing is loaded, and of scripts only these run: what somebody put into a name would not, even unescaped."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
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


def _without_plots(library: str | None) -> Markup:
    if library is None:
        words = ("The tables below hold every figure; the plots need plotly, which is not installed. To get them: ",)
        return tag("p", *words, tag("code", bundle.HOW), ", then ", tag("code", "loadbench report RUN"), class_="hint")
    words = ("Plots need JavaScript. The same figures are in the tables beneath them.",)
    return Markup(f"<noscript>{tag('p', *words, class_='hint')}</noscript>")


def _section(section: Section, plots: dict[str, Any] | None) -> Markup:
    name = f"{section.id}-title"
    parts = []
    for place, part in enumerate(section.body):
        if isinstance(part, Markup):
            parts.append(part)
        elif isinstance(part, Figure):
            parts.append(_figure(part, f"{section.id}-{place}", plots))
        else:
            parts.append(grid.block(part))
    return tag("section", tag("h2", section.title, id=name), parts, id=section.id, aria_labelledby=name)


def _figure(figure: Figure, name: str, plots: dict[str, Any] | None) -> Markup:
    words = [tag("h3", figure.title), tag("p", figure.note) if figure.note else None]
    if plots is None:
        tables = [grid.block([table], heading=False) for table in figure.tables]
        return tag("div", words, tables, class_="figure") if figure.tables else Markup("")
    panels = [_panel(panel, f"{name}-{i}", plots) for i, panel in enumerate(figure.panels)]
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


def _panel(panel: Panel, name: str, plots: dict[str, Any]) -> Markup:
    plots[name] = {"traces": panel.traces, "layout": panel.layout}
    return tag(
        "div",
        tag("h4", panel.title) if panel.title else None,
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
