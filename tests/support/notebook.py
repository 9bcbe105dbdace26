"""Runs a notebook's cells in this process as a kernel does: in order, in one namespace, inside a running event loop.

`python -m tests.support.notebook FILE.ipynb [NAME=VALUE]` prints what each cell prints, and its last value.
VALUE replaces what a cell assigns to NAME, so that a test need not wait as long as a reader. A real kernel (nbclient,
ipykernel) would bring 40 packages for the same.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any


def cells(path: Path) -> list[str]:
    """The sources of the code cells."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def execute(source: str, names: dict[str, Any], where: str) -> None:
    """Run one cell; its last expression is shown unless it is None."""
    tree = ast.parse(source, where)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), where, "eval"), names)
        if value is not None:
            print(f"[{where}] {value!r:.300}", flush=True)


def replaced(source: str, name: str, value: str) -> str:
    """The source with another value for the name that it assigns at the start of a line."""
    return re.sub(rf"^{name} = .*$", f"{name} = {value}", source, flags=re.MULTILINE)


async def main(path: Path, *changes: str) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    sources = cells(path)
    for change in changes:
        name, _, value = change.partition("=")
        changed = [replaced(source, name, value) for source in sources]
        assert changed != sources, f"no cell assigns {name}"
        sources = changed
    for number, source in enumerate(sources, 1):
        execute(source, names, f"cell {number}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
