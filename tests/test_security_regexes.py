"""A regular expression that servers' or files' text meets takes time in proportion to that text, whatever it is."""

from __future__ import annotations

import ast
import functools
import itertools
import re
import time
from collections.abc import Callable
from pathlib import Path

from loadbench.server import facts

PACKAGE = Path(__file__).parents[1] / "loadbench"
USES = {"search", "findall", "finditer", "sub", "split", "match", "fullmatch"}
FLAGS = {"IGNORECASE": re.IGNORECASE, "I": re.IGNORECASE, "DOTALL": re.DOTALL, "ASCII": re.ASCII}
PIECES = (
    *("a", "1", "_", " ", "\t", "-", ".", ",", "1,", "1.", '"', '("', "(", "{", "}", "a{", "} ", "=", 'a="', '="a\\"'),
    *("\\", "<think>", "<think> ", "```\n", "\x1b[", "\x1b]", "\x1b]0;", "\x9b", "/", ":", "http://a", "I", "IQ1_A"),
    *("a ", "a.", "a: ", "-cpu", ":1", "[", "]", "%", "@", "\u2212", "e1", "\r", "\n", "#", "a-", "[a"),
)
BEFORE = ("", "m{")
OWN = {
    "scenario/reading.py": "msgspec's own messages",
    "scenario/files.py": "tomllib's own messages",
}
"""Files whose expressions meet nothing long that is foreign."""
SHORT = ("(?P<head>", "(?P<bound>")
"""In expressions of bounds.py that meet texts of at most 300 characters."""


@functools.cache
def expressions() -> list[tuple[str, str, str | bytes, int]]:
    """File, use, pattern and flags of each that stands in the source as one text."""
    found = {("server/facts.py", "findall", sign, int(re.IGNORECASE)) for sign, _ in facts._LICENCES}
    for path in sorted(PACKAGE.rglob("*.py")):
        file, source = path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")
        if "re." not in source or file in OWN:
            continue
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call() as call):
                    uses = {use for use in USES if f"{name}.{use}(" in source}
                case ast.Call() as call:
                    uses = {ast.unparse(call.func).removeprefix("re.")} & USES
                case _:
                    continue
            match call:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="re")), args=[ast.Constant(value=pattern), *_]):
                    words = {word.attr for word in ast.walk(call) if isinstance(word, ast.Attribute)}
                    flags = sum({FLAGS[word] for word in words & FLAGS.keys()})
                    anchored = bool(uses) and uses <= {"match", "fullmatch"}
                    if not any(name in str(pattern) for name in SHORT):
                        found |= {(file, use if anchored else "findall", pattern, flags) for use in uses}
    return sorted(found, key=str)


def took_ns(work: Callable[[str | bytes], object], text: str | bytes) -> int:
    """CPU time of this thread."""
    began = time.thread_time_ns()
    work(text)
    return max(time.thread_time_ns() - began, 1)


def is_steep(work: Callable[[str | bytes], object], text: Callable[[int], str | bytes]) -> bool:
    """Whether 16 times the text takes far more than 16 times the work, at each look: at the square it is 256 times."""
    short, long = text(64), text(1_024)
    looks = ((took_ns(work, long), took_ns(work, short)) for _ in range(9))
    return all(much > 64 * little for much, little in looks)


def test_every_expression_takes_time_in_proportion_to_its_text() -> None:
    steep = [
        (file, pattern, before + piece)
        for file, use, pattern, flags in expressions()
        for before, piece in itertools.product(BEFORE, pieces_of(pattern))
        if is_steep(getattr(re.compile(pattern, flags), use), repeated(before, piece, isinstance(pattern, bytes)))
    ]

    assert steep == []
    assert len(expressions()) > 80


def pieces_of(pattern: str | bytes) -> list[str]:
    """What the texts are made of: pieces that are steep for many, and the words of the expression itself."""
    own = re.findall(r"[A-Za-z]{3,}[ .]?", pattern) if isinstance(pattern, str) else []
    return [*PIECES, *own, *(f"{word} a " for word in own)]


def repeated(before: str, piece: str, as_bytes: bool) -> Callable[[int], str | bytes]:
    """A text by how often it has the piece; nothing takes its end."""

    def text(n: int) -> str | bytes:
        whole = before + piece * n + "\0"
        return whole.encode() if as_bytes else whole

    return text


def test_an_expression_at_the_square_is_seen() -> None:
    assert is_steep(re.compile(r'([A-Za-z_]\w*)="').findall, lambda n: "a" * n)
