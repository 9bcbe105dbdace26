"""Text of others (model names, server messages) made harmless for a terminal and for GitHub Markdown."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import urlsplit, urlunsplit

from loadbench.scenario.secret import plain

# CSI (ESC [ ... final byte), OSC (ESC ] ... BEL or ST), other two-byte escapes; then their 8-bit forms.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\^_]|\x9b[0-?]*[ -/]*[@-~]")
_UNSEEN = re.compile("[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""What JSON lets stand as it is and a terminal obeys: 8-bit control characters, directions, what has no width."""
_PLAIN = re.compile(r"[\w.:/+,=()%@ -]+")
_ENTITIES = {c: f"&#{ord(c)};" for c in "`|\\*[]~$#"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_ASCII = str.maketrans(
    {"–": "-", "—": "-", "×": "x", "≥": ">=", "≤": "<=", "…": "...", "·": "-", "●": "*", "†": "+", "Σ": "sum ", "°": ""}
)


def one_line(text: object, limit: int = 200) -> str:
    """One printable line: no escape sequences, control, zero-width or direction characters; cut at `limit`.

    >>> one_line("a\\x1b[31mred\\x1b[0m\\nb\\u202e")
    'ared b'
    """
    line = _ESCAPES.sub("", str(text))
    line = " ".join(line.split())
    line = "".join(c for c in line if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def in_json(json: str) -> str:
    """JSON text that a terminal may show; to a program it means the same.

    >>> print(in_json('"a\\x9b31m\\u202e"'))
    "a\\u009b31m\\u202e"
    """
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", json)


def cell(value: object) -> object:
    """A cell of a CSV file: text on one line, without control characters, that no spreadsheet takes for a formula.

    >>> cell("=cmd|x"), cell("a\\nb"), cell(-1.5)
    ("'=cmd|x", 'a b', -1.5)
    """
    if not isinstance(value, str):
        return value
    text = one_line(value, 1000)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def escape(text: object, limit: int = 1000) -> str:
    """Prose for Markdown: nothing in it formats, links, mentions a person or an issue, or ends a table cell.

    >>> escape("a|b <i> `x` see #637, ask @octocat")
    'a&#124;b &lt;i&gt; &#96;x&#96; see &#35;637, ask @<!-- -->octocat'
    """
    entities = "".join(_ENTITIES.get(c, c) for c in one_line(text, limit))
    entities = re.sub(r"(?<!\w)_|_(?!\w)", "&#95;", entities)
    return re.sub(r"(?<![\w.])@(?=\w)", "@<!-- -->", entities)


def code(text: object) -> str:
    """A name for Markdown, as code; odd characters as entities, since a code span in a table cannot hold every pipe.

    >>> code("qwen2.5-0.5b"), code("a|b`c")
    ('`qwen2.5-0.5b`', '<code>a&#124;b&#96;c</code>')
    """
    line = one_line(text)
    return f"`{line}`" if _PLAIN.fullmatch(line) else f"<code>{escape(line)}</code>"


def bare_url(url: object) -> str:
    """A URL without user, password, query and fragment, where secrets travel.

    >>> bare_url("https://me:secret@host:8443/v1?key=abc")
    'https://host:8443/v1'
    """
    line = one_line(url, 500)
    try:
        parts = urlsplit(line)
    except ValueError:
        return "(unreadable URL)"
    return urlunsplit((parts.scheme, without_user(parts.netloc), parts.path, "", ""))


def without_user(netloc: str) -> str:
    """A URL's host and port, without the user and password before its ``@``, however that is written.

    >>> without_user("me:secret%40host:8443")
    'host:8443'
    """
    return plain(netloc).rpartition("@")[2]


def ascii_only(text: str) -> str:
    """The same text for an output that cannot encode our signs.

    >>> ascii_only("1–2 × 3")
    '1-2 x 3'
    """
    return text.translate(_ASCII).encode("ascii", "replace").decode()
