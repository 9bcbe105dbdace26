"""What README.md and docs/ tell their reader to type exists: commands, options, files; their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.documents import broken_links, inline, options_of_all, parsed, typed

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = {"--memory-limit", "--nthreads", "--nworkers", "--write"}
"""Options of Dask's commands, and of tests/statistics_tables.py."""

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)


@each_document
def test_every_command_is_understood_and_its_files_exist(document: Path) -> None:
    for line in typed(document.read_text(encoding="utf-8")):
        parsed(line)
        for word in re.findall(r"\bscenarios/[\w./-]+", line):
            assert (ROOT / word).is_file(), line


def test_the_documents_show_commands() -> None:
    lines = [line for document in DOCUMENTS for line in typed(document.read_text(encoding="utf-8"))]

    assert len(lines) > 50
    assert "loadbench run scenarios/quickstart.toml" in lines


@each_document
def test_every_option_that_is_named_exists(document: Path) -> None:
    texts = [text for text in inline(document.read_text(encoding="utf-8")) if re.match(r"--?[a-z]|loadbench ", text)]
    named = {option for text in texts for option in re.findall(r"(?<!\S)--?[a-z][\w-]*", text)}

    assert named - options_of_all() - OTHERS == set()


def test_every_link_leads_somewhere() -> None:
    notebooks = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
    linking = [*DOCUMENTS, *notebooks, ROOT / "CONTRIBUTING.md", ROOT / "results" / "README.md"]

    assert {path.name: broken for path in linking if (broken := broken_links(path))} == {}
