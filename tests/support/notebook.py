"""Runs a notebook's cells in this process as a kernel does: in order, in one namespace, inside a running event loop.

`python -m tests.support.notebook FILE.ipynb [NAME=VALUE]` prints what each cell prints, and its last value.
VALUE replaces what a cell assigns to NAME, so that a test need not wait as long as a reader. With `--store` the file
keeps what the cells show. A real kernel (nbclient, ipykernel) would bring 40 packages for the same.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any


def cells(path: Path) -> list[str]:
    """The sources of the code cells."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def execute(source: str, names: dict[str, Any], where: str) -> Any:
    """Run one cell; the value of its last expression."""
    tree = ast.parse(source, where)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), where, "eval"), names)


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
        value = execute(source, names, f"cell {number}")
        if value is not None:
            print(f"[cell {number}] {value!r:.300}", flush=True)


def store(path: Path) -> None:
    """Run it and keep in the file what each cell shows."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    asyncio.run(fill(notebook))
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


async def fill(notebook: dict[str, Any]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, 1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            value = execute("".join(cell["source"]), names, f"cell {number}")
        cell["execution_count"], cell["outputs"] = number, []
        if printed.getvalue():
            text = printed.getvalue().splitlines(keepends=True)
            cell["outputs"].append({"name": "stdout", "output_type": "stream", "text": text})
        if value is not None:
            result = {"output_type": "execute_result", "execution_count": number, "metadata": {}}
            cell["outputs"].append(result | {"data": shown(value)})


def shown(value: Any) -> dict[str, Any]:
    """A value as Jupyter stores it; of a plot its data alone, for whoever has plotly's viewer."""
    if hasattr(value, "to_plotly_json"):
        return {"application/vnd.plotly.v1+json": json.loads(value.to_json()), "text/plain": ["(a plot)"]}
    texts = {"text/plain": repr(value).splitlines(keepends=True)}
    if hasattr(value, "_repr_html_"):
        texts["text/html"] = value._repr_html_().splitlines(keepends=True)
    return texts


if __name__ == "__main__":
    if sys.argv[1] == "--store":
        store(Path(sys.argv[2]))
    else:
        asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
