"""What is wrong with an answer's HTTP: heads, framing, codings, statuses. Each row is a record."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.faults import assert_row, each_path, one_path, play
from tests.support.faulty_answers import CODINGS, FRAMES, HEADS, STATUSES, TABLES


@pytest.mark.parametrize(("name", "path"), [*each_path(HEADS, FRAMES), *one_path(CODINGS, STATUSES)])
def test_a_fault_has_its_record_and_spoils_no_later_request(name: str, path: str, tmp_path: Path) -> None:
    played = play(TABLES[name], path, tmp_path / "run")

    assert_row(played, TABLES[name])
