"""How large the house is, and how dense: `python -m tests.support.house` prints it, test_house.py holds it."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "loadbench"
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of all Python files.

    Attributes:
        lines: Under loadbench/, blank ones and docstrings among them.
        files: There.
        names: What `ls loadbench/` shows, without Python's own `__init__` and the like.
        untyped: Times that `Any` stands there.
        comprehensions, conditionals, comments: Per 1,000 lines of code; no comment is what a linter is told.
        test_lines: Under tests/.
    """

    lines: int
    files: int
    names: int
    untyped: int
    comprehensions: float
    conditionals: float
    comments: float
    test_lines: int


def measure() -> Figures:
    """The figures of the checkout that this file is in."""
    sources = [path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    thousand = sum(_code_lines(source) for source in sources) / 1000
    comprehensions = sum(isinstance(node, _COMPREHENSIONS) for node in nodes)
    conditionals = sum(isinstance(node, ast.IfExp) for node in nodes)
    comments = sum(_comments(source) for source in sources)
    return Figures(
        lines=_lines(sources),
        files=len(sources),
        names=len({path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("[!_]*.py")} - {"__pycache__"}),
        untyped=sum(isinstance(node, ast.Name) and node.id == "Any" for node in nodes),
        comprehensions=comprehensions / thousand,
        conditionals=conditionals / thousand,
        comments=comments / thousand,
        test_lines=_lines(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")),
    )


def _comments(source: str) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return sum(not comment.startswith(("# noqa", "# type:", "#!")) for comment in comments)


def _lines(sources: Iterable[str]) -> int:
    return sum(source.count("\n") for source in sources)


def _code_lines(source: str) -> int:
    """Lines that hold code: no blank ones, no comments, no docstrings."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings)


def table(found: Mapping[str, float]) -> str:
    """The figures, a line each."""
    return "\n".join(f"{name:<16}{figure:>10,.0f}" for name, figure in found.items())


if __name__ == "__main__":
    print(table(asdict(measure())))
