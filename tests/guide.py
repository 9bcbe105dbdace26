"""What README.md and docs/cli.md show of the program, and their pictures, made from the program itself.

`python -m tests.guide` writes them all, from the run in results/example; `python -m tests.guide text` leaves out the
pictures, which need Chromium. tests/test_guide.py fails where a text is not up to date.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

from tests.support.command import invoke
from tests.support.documents import COMMANDS

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
EXAMPLE = r"(?<=^```text\n)loadbench  example.*?(?=^```$)"
_HEAD = """# Commands and options

Written by `python -m tests.guide` from the program's own help. [run.md](run.md) shows the commands by example.
"""


def cli() -> str:
    """docs/cli.md: the whole help of every command."""
    parts = [_HEAD]
    for path, command in COMMANDS.items():
        command._help_option = None  # click keeps the one of whoever asked first, who may know no -h
        done = invoke(*path, "--help-all", COLUMNS="100")
        if done.exit_code:  # a command whose --help has all
            done = invoke(*path, "--help", COLUMNS="100")
        text = done.stdout
        parts.append(f"## {' '.join(['loadbench', *path])}\n\n```text\n{text.rstrip()}\n```\n")
    return "\n".join(parts)


def example(folder: Path, *words: str, **variables: str) -> str:
    """`loadbench report` of a copy of results/example: it writes its files anew."""
    run = shutil.copytree(ROOT / "results" / "example", folder / "example", dirs_exist_ok=True)
    done = invoke("report", run, *words, **variables)
    assert done.exit_code == 0, done.output
    return done.stdout


def readme(folder: Path) -> str:
    """README.md with the report that the program prints now."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    now = example(folder, COLUMNS="80").rstrip() + "\n"
    return re.sub(EXAMPLE, lambda _: now, text, count=1, flags=re.MULTILINE | re.DOTALL)


def draw(folder: Path) -> None:
    """The report as a terminal shows it, and the top of its page."""
    from rich.console import Console
    from rich.text import Text

    from tests.support import browsers

    PICTURES.mkdir(exist_ok=True)
    coloured = example(folder, COLUMNS="100", FORCE_COLOR="1").rstrip()
    console = Console(record=True, width=100, file=(folder / "screen").open("w"), force_terminal=True)
    console.print(Text.assemble(("$ ", "green"), "loadbench report results/example\n"))
    console.print(Text.from_ansi(coloured))
    console.save_svg(str(PICTURES / "report.svg"), title="loadbench")

    page = folder / "example.html"
    example(folder, "--format", "html", "-o", str(page))
    with browsers.started() as browser, browsers.opened(browser, page) as opened:
        opened.page.wait_for_timeout(2000)  # plots are drawn as they come into view
        opened.page.screenshot(path=PICTURES / "page.png")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        (ROOT / "docs" / "cli.md").write_text(cli(), encoding="utf-8")
        (ROOT / "README.md").write_text(readme(Path(name)), encoding="utf-8")
        if sys.argv[1:] != ["text"]:
            draw(Path(name))
