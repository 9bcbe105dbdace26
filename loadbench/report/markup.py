"""HTML from Python: one helper builds every element, and whatever is no `Markup` becomes text.

Model names, answers and error messages are written by others; here is the only place that turns them into HTML.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from loadbench.text import one_line

MOST_CHARACTERS = 2000
"""Of one piece of text: an error message may be a whole page."""
_VOID = {"meta", "link", "br", "hr", "input", "col"}
_NAME = re.compile(r"[a-z][a-z0-9-]*")


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
    return Markup(html.escape(one_line(value, MOST_CHARACTERS), quote=True))


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
    """JSON that may stand in a script element: whatever ends that, or begins a comment in it, begins with "<".

    >>> in_script('{"a": "</script><!--"}')
    '{"a": "\\\\u003c/script>\\\\u003c!--"}'
    """
    return Markup(json.replace("<", "\\u003c"))
