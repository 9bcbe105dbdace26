"""What may be a secret, by its name or by its look; none of it is stored, and none that was typed is repeated."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

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
        shown = found[3] if found[2].lower() in _HARMLESS_QUERIES else STARS
        return f"{found[1]}{found[2]}={shown}"

    text = _USER.sub(rf"\1{STARS}@", text)
    return _KNOWN.sub(STARS, _QUERY.sub(value, text))


def stored_header(name: str, value: str, instead: str = NOT_STORED) -> str:
    """The value of a header as it may be shared: of a few harmless names alone."""
    harmless = name.strip().lower() in _HARMLESS_HEADERS and not looks_like_a_key(value)
    return value if harmless else instead


def stored_body(body: Any, instead: str = NOT_STORED) -> Any:
    """More keys of a request as they may be shared: without texts that are named or look like keys."""
    if isinstance(body, Mapping):
        return {
            name: stored_body(instead if _is_secret(name, value) else value, instead) for name, value in body.items()
        }
    if isinstance(body, list | tuple):
        return [stored_body(value, instead) for value in body]
    return instead if isinstance(body, str) and looks_like_a_key(body) else body


def not_stored(body: Mapping[str, Any]) -> list[str]:
    """The keys of a request's body as run.json has it whose values must be given again."""
    return [name for name, value in body.items() if _lacks(value)]


def _is_secret(name: str, value: object) -> bool:
    return isinstance(value, str) and _BODY_NAMES.fullmatch(name) is not None


def _lacks(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_lacks, value.values()))
    return any(map(_lacks, value)) if isinstance(value, list) else value == NOT_STORED
