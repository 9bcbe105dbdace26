"""How large the house is, and how dense: `python -m tests.support.house` prints it, test_house.py holds it."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "loadbench"
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_NO_CODE = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


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
    files = comprehensions = conditionals = untyped = comments = code = 0
    lines = 0
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        files += 1
        lines += source.count("\n")
        docstrings: set[int] = set()
        for node in ast.walk(ast.parse(source)):
            comprehensions += isinstance(node, _COMPREHENSIONS)
            conditionals += isinstance(node, ast.IfExp)
            untyped += isinstance(node, ast.Name) and node.id == "Any"
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                docstrings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        of_code: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                comments += not token.string.startswith(("# noqa", "# type:", "#!"))
            elif token.type not in _NO_CODE:
                of_code.update(range(token.start[0], token.end[0] + 1))
        code += len(of_code - docstrings)
    return Figures(
        lines=lines,
        files=files,
        names=len({path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("[!_]*.py")}),
        untyped=untyped,
        comprehensions=1000 * comprehensions / code,
        conditionals=1000 * conditionals / code,
        comments=1000 * comments / code,
        test_lines=sum(path.read_text(encoding="utf-8").count("\n") for path in (ROOT / "tests").rglob("*.py")),
    )


def table(found: Mapping[str, float]) -> str:
    """The figures, a line each."""
    return "\n".join(f"{name:<16}{figure:>10,.0f}" for name, figure in found.items())


if __name__ == "__main__":
    print(table(asdict(measure())))
