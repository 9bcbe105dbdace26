"""Keys that go with requests, starred out of all that servers say: many repeat what they refuse."""

from __future__ import annotations

import base64
import binascii
import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from loadbench.text import NAMES, STARS, looks_like_a_key

LEAST = 6
"""Characters of a secret. What is shorter is guessed at once, and stands in many a word by chance."""
_PLACEHOLDERS = ("ollama", "lm-studio")
"""What servers that want no key are given as one, by their own documentation: their models are called so too."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must reach no record, and no screen.

    Attributes:
        words: Each in every form in which a server may write it; longest first.

    >>> secrets = Secrets.of({"Authorization": "Bearer sk-4711-abc", "X-Team": "blue-team"})
    >>> secrets.hidden("blue-team may not use sk-4711-abc")
    'blue-team may not use ***'
    """

    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Secrets:
        """Those among the headers of a request."""
        found = {
            form
            for name, value in headers.items()
            if NAMES.search(name) or looks_like_a_key(value)
            for word in _parts(value.strip())
            if len(word) >= LEAST and word not in _PLACEHOLDERS
            for form in _forms(word)
        }
        return cls(tuple(sorted(found, key=lambda word: (-len(word), word))))

    def hidden(self, text: str) -> str:
        """The text without them."""
        for word in self.words:
            if word in text:
                text = text.replace(word, STARS)
        return text

    def hidden_in(self, document: Any) -> Any:
        """Plain data without them, in its keys too."""
        if isinstance(document, str):
            return self.hidden(document)
        if isinstance(document, list):
            return [self.hidden_in(item) for item in document]
        if isinstance(document, dict):
            return {self.hidden_in(key): self.hidden_in(value) for key, value in document.items()}
        return document

    def settled(self, text: str) -> str:
        """The text without them, and without an end that may be the beginning of one: more of it is to come.

        >>> Secrets(("sk-4711",)).settled("the key is sk-4")
        'the key is '
        """
        text = self.hidden(text)
        open_ = max((_begun(word, text) for word in self.words), default=0)
        return text[: len(text) - open_]

    def hide(self, error: BaseException | None) -> None:
        """Take them out of an error's words, and of all that it came from, so that no traceback shows one."""
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            error.args = tuple(self.hidden(word) if isinstance(word, str) else word for word in error.args)
            for inner in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
                self.hide(inner)
            error = error.__cause__ or error.__context__


def _parts(value: str) -> Iterator[str]:
    """A header's value, the key behind its scheme, a user's password, and the values of cookies."""
    yield value
    scheme, _, rest = value.partition(" ")
    yield rest.strip()
    if scheme.lower() == "basic":
        try:
            user = base64.b64decode(rest.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        yield user
        yield user.partition(":")[2]
    for cookie in value.split(";") if "=" in value else ():
        yield cookie.partition("=")[2].strip()


def _forms(word: str) -> tuple[str, ...]:
    """As it is, and as URLs, JSON and HTML write it."""
    quoted = json.dumps(word)[1:-1]
    return word, quote(word, safe=""), quoted, quoted.replace("/", "\\/"), html.escape(word)


def _begun(word: str, text: str) -> int:
    """How many characters at the end of the text begin the word."""
    return next((n for n in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:n])), 0)
