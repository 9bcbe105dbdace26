"""summary.csv: every column is described, and the readers it is made for read it."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest

from loadbench.report import FORMATS
from loadbench.report.exports import COLUMNS, rows
from tests.support.summaries import CASES, summary_of, with_levels

TEXT = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
TABLE = TEXT[TEXT.index("| column | holds |") : TEXT.index("## hgrm")]


def read(summary: dict[str, Any]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(FORMATS["csv"](summary))))


def test_every_column_is_described_and_none_that_is_not_there() -> None:
    described = [
        name for row in re.findall(r"^\| (`[^|]+) \|", TABLE, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]

    assert described == list(COLUMNS)


def test_every_unit_is_described() -> None:
    units = {row["unit"] for case in CASES for row in read(summary_of(case))}
    row = next(line for line in TABLE.splitlines() if line.startswith("| `unit`"))

    assert len(units) > 8
    assert [unit for unit in units if f"`{unit}`" not in row] == []


def test_the_first_twelve_columns_are_those_of_the_first_version() -> None:
    assert COLUMNS[:12] == (
        *("run", "model", "level", "concurrency", "request_rate_per_s", "metric", "statistic"),
        *("value", "unit", "n", "ci_low", "ci_high"),
    )


def test_each_row_of_a_level_has_the_levels_keys() -> None:
    summary = with_levels(summary_of("closed_loop"), repeat=2, closing=True, status="complete", endpoint="http://a/v1")
    found = [row for row in read(summary) if row["level"]]

    keys = {(row["repeat"], row["closing"], row["status"], row["endpoint"]) for row in found}
    assert keys == {("2", "1", "complete", "http://a/v1")}


def test_the_device_is_what_ran_not_what_the_server_lists() -> None:
    ran = {"id": "m", "device": "CPU", "execution_provider": "CPUExecutionProvider"}
    found = read(with_levels(summary_of("tiny"), device="GPU", execution_provider=None, ran=ran))

    assert {row["device"] for row in found if row["level"]} == {"CPU"}


def test_no_figure_has_two_rows() -> None:
    for case in CASES:
        keys = [(row["model"], row["level"], row["metric"], row["statistic"]) for row in read(summary_of(case))]

        assert len(keys) == len(set(keys)), case


@pytest.mark.parametrize("case", CASES)
def test_pandas_reads_the_values_as_numbers(case: str) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(io.StringIO(FORMATS["csv"](summary_of(case))))

    assert list(frame.columns) == list(COLUMNS)
    assert all(frame[name].dtype.kind in "fi" for name in ("value", "n", "ci_low", "ci_high", "concurrency"))
    assert frame["value"].notna().all()
    assert len(frame) == len(list(rows(summary_of(case))))


def test_the_pandas_example_of_the_document_runs() -> None:
    pandas = pytest.importorskip("pandas")
    block = re.search(r"((?:^ {4}.*\n)*^ {4}figures = pd.read_csv.*\n(?:^ {4}.*\n)*)", TEXT, re.MULTILINE)
    assert block is not None
    code = "\n".join(line[4:] for line in block[1].splitlines())
    shown: list[Any] = []
    text = FORMATS["csv"](summary_of("closed_loop"))

    source = re.sub(r'read_csv\(".*?"\)', "read_csv(file)", code)
    exec(source, {"file": io.StringIO(text), "print": shown.append})

    assert shown[0].loc[1].notna().all()
    assert isinstance(shown[0], pandas.DataFrame)
