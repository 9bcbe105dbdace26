"""What is wrong within a stream: events, their JSON, their pace. Each row is a record."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.faults import assert_row, each_path, one_path, play
from tests.support.faulty_streams import EVENTS, PACES, SHAPES, TABLES


@pytest.mark.parametrize(("name", "path"), [*each_path(PACES), *one_path(EVENTS, SHAPES)])
def test_a_fault_has_its_record_and_spoils_no_later_request(name: str, path: str, tmp_path: Path) -> None:
    played = play(TABLES[name], path, tmp_path / "run")

    assert_row(played, TABLES[name])
