"""Text: what comes from others made harmless, secrets starred out, numbers written for readers.

Names and messages come from servers, files and folders. What a terminal, a page or a table shows of them goes through
here, and so does what a record keeps of headers, bodies and URLs.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

# -- values in messages


def shown(value: object) -> str:
    """A value as it would be written in JSON, on one line and cut at 60 characters."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):  # an integer of thousands of digits; endless nesting
        text = "a huge value"
    if len(text) > 60:
        text = text[:57] + "..."
    return printable(text)


def printable(text: str) -> str:
    """One line: whatever could break it or the terminal is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def harmless(text: str) -> str:
    """Without what could move the cursor or break the line.

    >>> harmless("a\\x1b]52;c;ZXZpbA==\\x07b\\u202ec\\x9bd")
    'a]52;c;ZXZpbA==bcd'
    """
    return "".join(sign for sign in text if sign.isprintable())


def harmless_lines(text: str) -> str:
    """The same of several lines: their ends stay."""
    return "\n".join(map(harmless, text.split("\n")))


def at(keys: Sequence[str | int]) -> str:
    """A place in the data: `concurrency[2]`, `timeouts.total`, `headers."X Y"`."""
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
            continue
        if text:
            text += "."
        text += key if re.fullmatch(r"[\w-]{1,40}", key) else shown(key)
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown word: the nearest one, or else all of them."""
    from difflib import get_close_matches  # only where something is wrong

    names = list(known)
    for close in get_close_matches(word[:100], names, n=1, cutoff=0.5):
        return f"; did you mean {close}?"
    return f": use one of {', '.join(names)}"


# -- text of others, for a terminal, Markdown and CSV

# CSI (ESC [ ... final byte), OSC (ESC ] ... BEL or ST), other two-byte escapes; then their 8-bit forms.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\^_]|\x9b[0-?]*[ -/]*[@-~]")
_UNSEEN = re.compile("[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""What JSON lets stand as it is and a terminal obeys: 8-bit control characters, directions, what has no width."""
_PLAIN = re.compile(r"[\w.:/+,=()%@ -]+")
_ENTITIES = {ord(c): f"&#{ord(c)};" for c in "`|\\*[]~$#"} | str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_ASCII = str.maketrans(
    {"–": "-", "—": "-", "×": "x", "≥": ">=", "≤": "<=", "…": "...", "·": "-", "●": "*", "†": "+", "Σ": "sum ", "°": ""}
)


def one_line(text: object, limit: int = 200) -> str:
    """One printable line: no escape sequences, control, zero-width or direction characters; cut at `limit`.

    >>> one_line("a\\x1b[31mred\\x1b[0m\\nb\\u202e")
    'ared b'
    """
    line = str(text)
    if line.isprintable():  # nearly all text is: a report of a thousand cells looks at no character of its own
        line = " ".join(line.split())
    else:
        line = " ".join(_ESCAPES.sub("", line).split())
        printable = (c for c in line if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
        line = "".join(islice(printable, limit + 1))  # no more is looked at: a server may answer with 20 MB
    if len(line) > limit:
        return line[: limit - 1] + "…"
    return line


def in_json(json: str) -> str:
    """JSON text that a terminal may show; to a program it means the same.

    >>> print(in_json('"a\\x9b31m\\u202e"'))
    "a\\u009b31m\\u202e"
    """
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", json)


def csv_cell(value: object) -> object:
    """A cell of a CSV file: text on one line, without control characters, that no spreadsheet takes for a formula.

    >>> csv_cell("=cmd|x"), csv_cell("a\\nb"), csv_cell(-1.5)
    ("'=cmd|x", 'a b', -1.5)
    """
    if not isinstance(value, str):
        return value
    text = one_line(value, 1000)
    if text.startswith(("=", "+", "-", "@")):
        return f"'{text}"
    return text


def markdown_prose(text: object, limit: int = 1000) -> str:
    """Prose for Markdown: nothing in it formats, links, mentions a person or an issue, or ends a table cell.

    >>> markdown_prose("a|b <i> `x` see #637, ask @octocat")
    'a&#124;b &lt;i&gt; &#96;x&#96; see &#35;637, ask @<!-- -->octocat'
    """
    entities = one_line(text, limit).translate(_ENTITIES)
    entities = re.sub(r"(?<!\w)_|_(?!\w)", "&#95;", entities)
    return re.sub(r"(?<![\w.])@(?=\w)", "@<!-- -->", entities)


def markdown_code(text: object) -> str:
    """A name for Markdown, as code; odd characters as entities, since a code span in a table cannot hold every pipe.

    >>> markdown_code("qwen2.5-0.5b"), markdown_code("a|b`c")
    ('`qwen2.5-0.5b`', '<code>a&#124;b&#96;c</code>')
    """
    line = one_line(text)
    if _PLAIN.fullmatch(line):
        return f"`{line}`"
    return f"<code>{markdown_prose(line)}</code>"


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


# -- secrets: by their names or by their looks; none is stored, and none that was typed is repeated

STARS = "***"
NOT_STORED = "(not stored)"
"""In run.json, in place of what must be given again to go on with the run."""
NAMES = re.compile(
    r"auth|key|token|secret|cookie|passw|pwd|credential|jwt|bearer|session|signature|\bsig\b|hmac|otp|ticket|assertion",
    re.IGNORECASE,
)
"""Names of headers whose values are secret, whatever they look like."""
_HARMLESS_HEADERS = frozenset(
    {
        *("accept", "accept-encoding", "accept-language", "cache-control", "content-type", "priority", "user-agent"),
        *("http-referer", "referer", "traceparent", "x-correlation-id", "x-request-id", "x-title"),
        *("anthropic-beta", "anthropic-version", "api-version", "openai-beta", "openai-organization", "openai-project"),
        *("x-environment", "x-model", "x-priority", "x-project", "x-region", "x-stage", "x-team", "x-tenant", "x-zone"),
    }
)
"""Names of headers whose values are stored: the others may be anything."""
_HARMLESS_QUERIES = frozenset({"alt", "api-version", "deployment", "model", "region", "stream", "version"})
_BODY_NAMES = re.compile(
    r"(?:.*[-_])?(?:api[-_]?key|key|secret|passw(?:or)?d|authorization|credentials?|jwt|(?:access|auth|api|id|refresh)[-_]?token)",
    re.IGNORECASE,
)
"""Names in a request's body; of tokens there, most are counts."""
_MADE_AS_KEYS = (
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk|gsk|xai|hf|r8|nvapi|gh[oprsu]|github_pat|glpat|xox[abeoprs])[-_][\w-]{8,}"
    r"|(?:AKIA|ASIA|AIza)[\w-]{6,}|eyJ[\w-]{6,}(?:\.[\w-]*)*)"
)
"""As services make them; a JWT."""
_KNOWN = re.compile(_MADE_AS_KEYS)
_KEY = re.compile(rf"{_MADE_AS_KEYS}|\bBearer\s+\S+|(?=[A-Za-z0-9+]*\d)(?=[0-9+]*[A-Za-z])[A-Za-z0-9+]{{20,}}")
"""Any run of letters and digits that is too long for a word."""
_USER = re.compile(r"(://)[^/?#\s]*(?:@|\uff20|\ufe6b|%(?:25)*40)", re.IGNORECASE)
_QUERY = re.compile(r"([?&])([^=&#\s]+)=([^&#\s'\"]*)")
_UNQUOTINGS = 5


def looks_like_a_key(text: str) -> bool:
    """Whether a text holds what may be a key, by its look alone.

    >>> [looks_like_a_key(text) for text in ("sk-proj-0123456789", "OPENAI_API_KEY", "meta-llama/Llama-3.1-8B")]
    [True, False, False]
    """
    return _KEY.search(text) is not None


def plain(text: str) -> str:
    """The text with its signs as they are, however they are written: ``%40`` and a full-width one are an ``@`` too.

    >>> plain("me:secret%2540host")
    'me:secret@host'
    """
    for _ in range(_UNQUOTINGS):
        text = unicodedata.normalize("NFKC", unquote(text))
    return text


def starred(text: str) -> str:
    """A message or a word of a command line without users and passwords of URLs, values of queries, and known keys.

    >>> starred("https://me:secret@host/v1?api-version=1&code=abc refused sk-proj-0123456789")
    'https://***@host/v1?api-version=1&code=*** refused ***'
    """

    def value(found: re.Match[str]) -> str:
        if found[2].lower() in _HARMLESS_QUERIES:
            return found[0]
        return f"{found[1]}{found[2]}={STARS}"

    text = _USER.sub(rf"\1{STARS}@", text)
    return _KNOWN.sub(STARS, _QUERY.sub(value, text))


def stored_header(name: str, value: str, instead: str = NOT_STORED) -> str:
    """The value of a header as it may be shared: of a few harmless names alone."""
    if name.strip().lower() in _HARMLESS_HEADERS and not looks_like_a_key(value):
        return value
    return instead


def stored_body(body: Any, instead: str = NOT_STORED) -> Any:
    """More keys of a request as they may be shared: without texts that are named or look like keys."""
    if isinstance(body, Mapping):
        stored = {}
        for name, value in body.items():
            stored[name] = stored_body(value, instead)
            if isinstance(value, str) and _BODY_NAMES.fullmatch(name):
                stored[name] = instead
        return stored
    if isinstance(body, list | tuple):
        return [stored_body(value, instead) for value in body]
    if isinstance(body, str) and looks_like_a_key(body):
        return instead
    return body


def not_stored(body: Mapping[str, Any]) -> list[str]:
    """The keys of a request's body as run.json has it whose values must be given again."""
    return [name for name, value in body.items() if _lacks(value)]


def _lacks(value: object) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return any(map(_lacks, value))
    return value == NOT_STORED


# -- numbers for readers: three significant figures, thousands separators, no scientific notation, "-" for null

ABSENT = "-"
"""Not measured. Never 0."""


def figure(value: float | None) -> str:
    """Three significant figures, every digit before the point kept.

    >>> [figure(x) for x in (1204.3, 99.96, 52.13, 0.01234, 3, None)]
    ['1,204', '100', '52.1', '0.0123', '3', '-']
    """
    if value is None or not math.isfinite(value):
        return ABSENT
    if value == 0 or isinstance(value, int):
        return f"{value:,.0f}"
    decimals = max(2 - math.floor(math.log10(abs(value))), 0)
    rounded = round(value, decimals)
    # Rounding may carry into a new digit (99.96 -> 100.0), which then has one decimal too many.
    decimals = max(2 - math.floor(math.log10(abs(rounded))), 0)
    return f"{rounded:,.{decimals}f}"


def with_unit(value: float | None, unit: str | None) -> str:
    """A figure with its unit: ms, bytes, share, points (of 5), per_s; of any other its name must stand elsewhere.

    >>> with_unit(1204.0, "ms"), with_unit(0.9, "share"), with_unit(25.5, "per_s"), with_unit(3, None)
    ('1.20 s', '90%', '25.5/s', '3')
    """
    if value is None:
        return ABSENT
    match unit:
        case "ms":
            return span(value)
        case "bytes":
            return size(value)
        case "share":
            return share(value)
        case "points":
            return f"{value:.2f} of 5"
        case "per_s":
            return f"{figure(value)}/s"
    return figure(value)


def count(value: float | None) -> str:
    """A whole number.

    >>> count(12345), count(None)
    ('12,345', '-')
    """
    return ABSENT if value is None else f"{value:,.0f}"


def span(ms: float | None) -> str:
    """A time in words: ms below 1 s, s above, minutes from two of them on.

    >>> [span(x) for x in (0.214, 210.4, 1904.0, 200_000.0, 7_380_000.0)]
    ['0.214 ms', '210 ms', '1.90 s', '3 min 20 s', '2 h 3 min']
    """
    if ms is None or not math.isfinite(ms):
        return ABSENT
    if abs(ms) < 999.5:
        return f"{figure(float(ms))} ms"
    if abs(ms) < 120_000:
        return f"{figure(ms / 1000)} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def share(fraction: float | None) -> str:
    """A fraction in per cent; what is not all or nothing never reads 100% or 0%.

    >>> [share(x) for x in (0.391, 0.052, 0.9996, 0.99999, 1.0, 0.00001, 0.0, 1.04)]
    ['39%', '5.2%', '99.96%', '> 99.99%', '100%', '< 0.01%', '0%', '104%']
    """
    if fraction is None or not math.isfinite(fraction):
        return ABSENT
    percent = 100 * fraction
    if 0 < percent < 0.01:
        return "< 0.01%"
    if 99.99 < percent < 100:
        return "> 99.99%"
    if 0 < percent < 1 or 99 < percent < 100:
        return f"{percent:.2f}".rstrip("0").rstrip(".") + "%"
    if 0 < percent < 10:
        return f"{percent:.1f}".removesuffix(".0") + "%"
    return f"{percent:,.0f}%"


def percent(ratio: float | None) -> str:
    """A ratio in whole per cent, where 99.9% and 100% are the same to a reader.

    >>> percent(0.391), percent(0.9985), percent(1.04)
    ('39%', '100%', '104%')
    """
    if ratio is None or not math.isfinite(ratio):
        return ABSENT
    return f"{100 * ratio:,.0f}%"


def size(n_bytes: float | None) -> str:
    """Bytes in decimal units.

    >>> size(144_811_968), size(8_260_000_000)
    ('145 MB', '8.26 GB')
    """
    if n_bytes is None:
        return ABSENT
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{figure(n_bytes / scale)} {unit}"
    return f"{n_bytes:,.0f} B"


def plural(n: int, noun: str) -> str:
    """A count and its noun.

    >>> plural(1, "stream"), plural(1200, "request")
    ('1 stream', '1,200 requests')
    """
    return f"1 {noun}" if n == 1 else f"{n:,} {noun}s"


def listed(words: Iterable[str], last: str = "or") -> str:
    """Words in a row.

    >>> listed(["1", "2", "4"]), listed(["1"])
    ('1, 2 or 4', '1')
    """
    *before, end = words
    if not before:
        return end
    return f"{', '.join(before)} {last} {end}"
