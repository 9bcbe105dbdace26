"""A document as one HTML file that asks for nothing and runs no script but its own.

This module builds elements and the page around a document: its security policy, and plotly's JavaScript where that is
installed. Model names, answers and error messages are written by others; here alone they are turned into HTML.
trace.py has plotly's traces, plots.py and timeline.py the plots of a run, matrix.py several runs in one page; assets/
our own script and style.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import groupby

import orjson

from loadbench import text as units
from loadbench.report import document as doc
from loadbench.report.document import Cell, Column, Section, Table, Trace
from loadbench.text import one_line

MOST_PANELS = 6
"""Plots of one kind that are open; more unfold on a click."""
FEW = "too few requests for a 95% interval"
NARROW = "requests may resemble their neighbours: the 95% interval may be too narrow"
_SEVERITIES = {"red": "red: no basis for a verdict", "warn": "read with care", "note": "for your information"}
_LEVEL = 6
"""Of compression: the next levels take twice as long for one per cent."""
MOST_CHARACTERS = 2000
"""Of one piece of text: an error message may be a whole page."""
_VOID = {"meta", "link", "br", "hr", "input", "col"}
_NAME = re.compile(r"[a-z][a-z0-9-]*")


# -- HTML from Python: one function builds every element, and whatever is no `Markup` becomes text


class Markup(str):
    """A piece of HTML that was built here. Every other string is text."""

    __slots__ = ()


Child = str | Iterable["Child"] | None
"""A child of an element: text, Markup, several of them, or nothing."""


def text(value: object) -> Markup:
    """Text of anyone as HTML: one line, no control or direction characters, nothing that a browser takes for markup.

    >>> text("<img onerror=x> & 'y'")
    '&lt;img onerror=x&gt; &amp; &#x27;y&#x27;'
    """
    return Markup(escape(one_line(value, MOST_CHARACTERS), quote=True))


def tag(name: str, /, *children: Child, **attributes: object) -> Markup:
    """An element. `class_` is class, `aria_label` is aria-label; None and False leave an attribute out, True bares it.

    >>> tag("p", "1 < 2 ", tag("b", "bold"), class_="note", hidden=True, title=None)
    '<p class="note" hidden>1 &lt; 2 <b>bold</b></p>'
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"an element called {name!r}: only names that stand in the code")
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        words.append(attribute if value is True else f'{attribute}="{text(value)}"')
    begin = f"<{' '.join(words)}>"
    return Markup(begin if name in _VOID else f"{begin}{joined(children)}</{name}>")


def joined(children: Child) -> Markup:
    """Children one after the other, escaped where they are text. Blanks at the ends of text are kept."""
    if children is None:
        return Markup("")
    if isinstance(children, Markup):
        return children
    if isinstance(children, str):
        blank = (" " if children[:1] == " " else "", " " if children[-1:] == " " else "")
        return Markup(f"{blank[0]}{text(children)}{blank[1]}" if children.strip() else children[:1])
    return Markup("".join(joined(child) for child in children))


def in_script(json: str) -> Markup:
    """JSON for a script element: whatever ends that, or begins a comment in it, begins with "<".

    >>> in_script('{"a": "</script><!--"}')
    '{"a": "\\\\u003c/script>\\\\u003c!--"}'
    """
    return Markup(json.replace("<", "\\u003c"))


# -- scripts and styles


@dataclass(frozen=True, slots=True)
class Bundle:
    """plotly's JavaScript: compressed, as base64, and the SHA-256 of what comes out, which the page's policy allows."""

    packed: str
    digest: str


@functools.cache
def plotly() -> Bundle | None:
    """The bundle of the installed plotly: 4.8 MB, 1.9 MB of a page; None where plotly is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return None
    script = get_plotlyjs().encode()
    # No time of day in it: the same run gives the same page.
    return Bundle(base64.b64encode(gzip.compress(script, _LEVEL, mtime=0)).decode(), _digest(script))


def _digest(script: bytes) -> str:
    """SHA-256 in base64, as a Content-Security-Policy names a script."""
    return base64.b64encode(hashlib.sha256(script).digest()).decode()


def asset(name: str) -> str:
    return (files("loadbench.report.html") / "assets" / name).read_text(encoding="utf-8")


class _Plots:
    """The page's plots by name; a trace that several have, as the others in grey, is kept once."""

    def __init__(self) -> None:
        self.specs: dict[str, object] = {}
        self.shared: list[Trace] = []
        self._owner: dict[int, tuple[list[Trace | int], int]] = {}
        self._places: dict[int, int] = {}

    def add(self, name: str, panel: doc.Panel) -> None:
        """Take a panel; a trace that is the very same object as one before is shared."""
        traces: list[Trace | int] = []
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


# -- the page


def render(document: doc.Document) -> str:
    """The whole file; the document has a title, and the ids of its sections differ."""
    assert document.title is not None
    library, sections = plotly(), document.sections
    plots = _Plots() if library else None
    links = [tag("li", tag("a", section.title, href=f"#{section.id}")) for section in sections]
    body = [
        tag("a", "Skip to the report", href="#report", class_="skip"),
        _header(document.title),
        tag("nav", tag("ul", links), aria_label="Contents"),
        tag("main", _without_plots(library), [_section(section, plots) for section in sections], id="report"),
        tag("footer", tag("p", "Written by loadbench. Everything is in this file; it loads nothing.")),
    ]
    data: dict[str, object] = {"plots": {}, "shared": []}
    if plots:
        data = {"plots": plots.specs, "shared": plots.shared}
    data["sections"] = {section.id: section.data for section in sections if section.data}
    scripts = [asset("page.js"), *(section.script for section in sections if section.script)]
    styles = [asset("page.css"), *(section.style for section in sections if section.style)]
    digests = [_digest(script.encode()) for script in scripts]
    if library:
        digests.append(library.digest)
        body.append(Markup(f'<script type="text/plain" id="plotly">{library.packed}</script>'))
    json = in_script(orjson.dumps(data).decode())
    body.append(Markup(f'<script type="application/json" id="page-data">{json}</script>'))
    body += [Markup(f"<script>{script}</script>") for script in scripts]
    head = [
        tag("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_policy(digests)}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{document.title.text} – loadbench"),
        Markup(f"<style>{''.join(styles)}</style>"),
    ]
    whole = f'<html lang="en">\n<head>{joined(head)}</head>\n<body>{joined(body)}</body>\n</html>'
    return f"<!doctype html>\n{whole}\n"


_FRAGMENT = """.loadbench-run table { border-collapse: collapse; color: inherit; }
.loadbench-run ul { padding-left: 1.2em; }
.loadbench-run th, .loadbench-run td { padding: .2em .7em; text-align: right; white-space: nowrap; }
.loadbench-run .unseen { display: none; } .loadbench-run .unit, .loadbench-run .notes { opacity: .7; }"""
"""No colours: a notebook has its own, light or dark."""


def fragment(document: doc.Document) -> str:
    """A document for a notebook's output: no script, and readable without its style, which GitHub takes out."""
    assert document.title is not None
    title = ", ".join(filter(None, (document.title.text, document.title.date)))
    parts = [Markup(f"<style>{_FRAGMENT}</style>"), tag("p", tag("strong", title))]
    if document.title.simulated:
        parts.append(tag("p", tag("strong", document.title.simulated)))
    parts += [render_block(block) for block in document.blocks()]
    return str(tag("div", parts, class_="loadbench-run"))


def _policy(digests: Iterable[str]) -> str:
    """Nothing is loaded, and of scripts only these run: what somebody put into a name would not, even unescaped."""
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "form-action 'none'; base-uri 'none'"
    )


def _header(title: doc.Title) -> Markup:
    subtitle = " · ".join(part for part in (title.date, title.about) if part)
    words = tag(
        "div",
        tag("p", "loadbench", class_="brand"),
        tag("h1", title.text),
        tag("p", subtitle, class_="subtitle") if subtitle else None,
    )
    button = tag("button", "Dark", type="button", id="theme", hidden=True, aria_pressed="false")
    warning = tag("p", f"{title.simulated}.", class_="banner", role="note") if title.simulated else None
    return tag("header", tag("div", words, button, class_="head"), warning)


def _without_plots(library: Bundle | None) -> Markup:
    if library is None:
        words = "The tables below hold every figure; the plots need plotly, which is not installed. To get them: "
        return tag(
            "p", words, tag("code", "pip install plotly"), ", then ", tag("code", "loadbench report RUN"), class_="hint"
        )
    words = "Plots need JavaScript. The same figures are in the tables beneath them."
    return Markup(f"<noscript>{tag('p', words, class_='hint')}</noscript>")


def _section(section: Section, plots: _Plots | None) -> Markup:
    """Figures of one panel that follow each other share a line."""

    def is_small(place: int) -> bool:
        block = section.blocks[place]
        return isinstance(block, doc.Plot) and len(block.panels) == 1 and not block.wide

    parts = []
    for small, places in groupby(range(len(section.blocks)), is_small):
        made = [render_block(section.blocks[place], f"{section.id}-{place}", plots) for place in places]
        parts.append(tag("div", made, class_="pair") if small and len(made) > 1 else joined(made))
    name = f"{section.id}-title"
    heading = tag("h2", section.title, id=name)
    if section.folded is not None:
        parts = [tag("details", tag("summary", heading), parts, class_="section", open=not section.folded)]
        heading = Markup("")
    return tag("section", heading, parts, id=section.id, aria_labelledby=name)


# -- blocks


def render_block(block: doc.Block, name: str = "", plots: _Plots | None = None) -> Markup:
    match block:
        case doc.Html(markup):
            return Markup(markup)
        case doc.Text(title, lines):
            return _titled(title, _text(lines))
        case doc.Facts(title, rows):
            terms = tag("dl", [[tag("dt", term), tag("dd", text)] for term, text in rows], class_="facts")
            return _folded(title, [terms]) if title else terms
        case doc.Tables(tables):
            return _titled(tables[0].title, _tables(tables, named=len(tables) > 1))
        case doc.Findings(title, findings, none):
            if not findings:
                return tag("p", none) if none else Markup("")
            return _titled(title, tag("ul", map(_finding, findings), class_="gates"))
        case doc.Small(_, lines):
            return joined([tag("p", line) for line in lines])
        case doc.Plot():
            return _plot(block, name, plots)
        case doc.Details(title, blocks):
            return _folded(title, [render_block(inner) for inner in blocks])
    return Markup("")


def _titled(title: str, content: Markup) -> Markup:
    return tag("div", tag("h3", title), content, class_="block") if title else content


def _folded(title: str, content: Sequence[Markup]) -> Markup:
    return tag("details", tag("summary", title), content, class_="folded")


def _text(lines: Sequence[doc.Line]) -> Markup:
    leads = any(line.strong or line.name for line in lines)
    items = []
    for line in lines:
        text, name = line.text, None
        if line.name:  # on a line of its own
            text = text[:1].upper() + text[1:]
            name = tag("strong", line.name, class_="model")
        if line.beneath or not leads:
            items.append(tag("li", name, text))
            continue
        words = tag("p", name, tag("strong" if line.strong else "span", text))
        doubt = tag("p", line.doubt, class_="doubt") if line.doubt else None
        items.append(tag("li", words, doubt, class_="doubted" if doubt else None))
    return tag("ul", items, class_="verdict" if leads else "said")


def _finding(finding: doc.Finding) -> Markup:
    badge = tag("span", finding.label, class_="badge", title=_SEVERITIES.get(finding.severity))
    lines = [tag("li", tag("b", f"{where}: ") if where else None, text) for where, text in finding.texts]
    words = tag("p", badge, " ", tag("b", finding.name))
    return tag("li", words, tag("ul", lines), class_=f"gate {finding.severity}")


def _tables(tables: Sequence[Table], *, named: bool) -> Markup:
    """A table a model, then the notes of all of them, once. A caption that shows names the model."""
    notes = doc.notes_of(tables)
    below = tag("ul", [tag("li", note) for note in notes], class_="notes") if notes else None
    return joined([[_table(table, named=named) for table in tables], below])


def _table(table: Table, *, named: bool) -> Markup:
    """Its caption names its model, or is for screen readers."""
    name = f"{table.title}, {table.model}" if table.model else table.title
    caption = tag("caption", name, class_="unseen")
    if named and table.model:
        caption = tag("caption", table.model)
    rows = [tag("tr", map(_cell, row, table.columns, range(len(row)))) for row in table.rows]
    return grid(name, caption, map(_head, table.columns), rows)


def grid(name: str, caption: Markup, heads: Iterable[Markup], rows: Iterable[Markup], **attributes: object) -> Markup:
    """A table that scrolls in itself where it is wider than the page."""
    table = tag("table", caption, tag("thead", tag("tr", heads)), tag("tbody", rows), **attributes)
    return tag("div", table, class_="scroll", role="region", aria_label=name, tabindex="0")


def _head(column: Column) -> Markup:
    name: list[str | None] = [column.name]
    if column.unit.startswith("/"):
        name = [column.name + column.unit]
    elif column.unit:
        name += [" ", tag("span", column.unit, class_="unit")]
    return tag("th", name, scope="col", class_="left" if column.left else None)


def _cell(cell: Cell, column: Column, place: int) -> Markup:
    words: list[str] = [cell.text]
    if cell.marked:
        words.append(tag("abbr", "*", class_="mark", title=NARROW if cell.doubtful else FEW))
    if cell.interval:
        words += [" ", tag("span", f"[{cell.interval}]", class_="ci")]
    if place == 0 and column.left:
        return tag("th", words, scope="row", class_="left")
    kinds = ["left"] if column.left else []
    if cell.text == "NO":
        kinds.append("bad")
    if cell.text == units.ABSENT:
        kinds.append("none")
    return tag("td", words, class_=" ".join(kinds) or None)


# -- plots


def _plot(plot: doc.Plot, name: str, plots: _Plots | None) -> Markup:
    words = [tag("h3", plot.title), tag("p", plot.note) if plot.note else None]
    if plots is None:
        return tag("div", words, _tables(plot.tables, named=True), class_="figure block") if plot.tables else Markup("")
    panels = []
    for place, panel in enumerate(plot.panels):
        plots.add(f"{name}-{place}", panel)
        title = tag("h4", panel.title) if len(plot.panels) > 1 and panel.title else None
        place_of = {"data_plot": f"{name}-{place}", "style": f"height:{panel.height}px"}
        drawn = tag("div", class_="plot", role="img", aria_label=panel.label, **place_of)
        panels.append(tag("div", title, drawn, class_="panel"))
    kind = "panels"
    if len(panels) == 1:
        kind = "panels one"
    elif plot.wide:
        kind = "panels wide"
    parts = [tag("figcaption", words)]
    if plot.legend:
        keys = []
        for key in plot.legend:
            sign = tag("span", class_=f"sign {key.sign}", data_color=key.color, aria_hidden="true")
            keys.append(tag("li", sign, key.text))
        parts.append(tag("ul", keys, class_="legend"))
    parts.append(tag("div", panels[:MOST_PANELS], class_=kind))
    if len(panels) > MOST_PANELS:
        more = tag("summary", units.plural(len(panels) - MOST_PANELS, "more plot"))
        parts.append(tag("details", more, tag("div", panels[MOST_PANELS:], class_=kind), class_="more"))
    if plot.tables:
        same = tag("summary", "The same as a table")
        parts.append(tag("details", same, tag("div", _tables(plot.tables, named=True), class_="block"), class_="same"))
    return tag("figure", parts, class_="figure")
