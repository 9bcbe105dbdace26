"""What goes with every request: headers and the key, which no message may show."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest

from loadbench.errors import UsageError
from loadbench.target import open_http
from loadbench.target.access import read_key_file

KEY = "sk-very-secret-0123456789"


def test_a_key_that_no_header_can_carry_is_refused_unseen() -> None:
    with pytest.raises(UsageError, match="holds a line break") as caught:
        open_http("http://127.0.0.1:1", key=f"{KEY}\r\nX: y")

    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_key_file_that_ends_in_a_line_break_is_fine() -> None:
    http = open_http("http://127.0.0.1:1", key=f" {KEY}\r\n")

    assert http.headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(http.headers)


def test_a_header_of_ones_own_goes_before_the_key() -> None:
    http = open_http("http://127.0.0.1:1", key=KEY, headers={"authorization": "Basic eDp5"})

    assert http.headers["authorization"] == "Basic eDp5"


@pytest.mark.skipif(os.name == "nt", reason="has no pipes with names")
def test_a_key_comes_from_a_pipe_that_a_shell_hands_over() -> None:
    reads, writes = os.pipe()
    os.write(writes, b"sk-1\n")
    os.close(writes)

    assert read_key_file(Path(f"/dev/fd/{reads}")) == "sk-1"
    os.close(reads)


@pytest.mark.skipif(os.name == "nt", reason="has no such files")
def test_a_key_file_that_has_no_end_or_no_writer_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadbench.scenario.files.WRITER_WAIT_S", 0.0)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_bytes(b"k" * 100_000)

    for path, why in (
        (Path("/dev/zero"), "a device, not a file"),
        (tmp_path / "pipe", "a pipe that nobody writes to"),
        (tmp_path / "long", "file too large"),
    ):
        with pytest.raises(UsageError, match=f"cannot be read: {why}"):
            read_key_file(path)


@pytest.mark.parametrize("headers", [{"a b": "x"}, {"": "x"}, {"X-Name": "a\nb"}, {"X-Name": "ä"}])
def test_a_header_that_http_cannot_carry_is_a_usage_error(headers: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="header"):
        open_http("http://127.0.0.1:1", headers=headers)
