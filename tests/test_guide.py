"""README.md and docs/cli.md show the program as it is; the README's promises of itself hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import guide

ANEW = "write it anew: python -m tests.guide text"
README = (guide.ROOT / "README.md").read_text(encoding="utf-8")


def test_the_page_of_commands_is_what_help_says() -> None:
    assert (guide.ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == guide.cli(), ANEW


def test_the_report_in_the_readme_is_what_the_program_prints(tmp_path: Path) -> None:
    assert guide.readme(tmp_path) == README, ANEW


def test_the_readme_is_short_and_its_pictures_are_small() -> None:
    shown = [guide.ROOT / path for path in re.findall(r"!\[.*?\]\((.*?)\)", README)]

    assert len(README.splitlines()) <= 150
    assert {path.suffix for path in shown} == {".svg", ".png"}
    assert all(path.stat().st_size < 200_000 for path in shown), "python -m tests.guide"


@pytest.mark.parametrize("page", sorted((guide.ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_the_index_names_every_page(page: Path) -> None:
    index = guide.ROOT / "docs" / "README.md"

    assert page == index or f"]({page.name})" in index.read_text(encoding="utf-8")
