"""How long this process waited for a core, as the kernel counts it for each thread."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadbench.telemetry import CoreWait

MS = 1_000_000


def thread(tasks: Path, number: int, waited_ms: int, ran_ms: int = 50) -> None:
    (tasks / str(number)).mkdir(exist_ok=True)
    (tasks / str(number) / "schedstat").write_text(f"{ran_ms * MS} {waited_ms * MS} 7\n")


def test_the_wait_is_that_of_all_threads_and_grows(tmp_path: Path) -> None:
    wait = CoreWait(tmp_path)
    thread(tmp_path, 1, 100)
    thread(tmp_path, 2, 20)
    before_s = wait()
    thread(tmp_path, 1, 350)

    assert (before_s, wait()) == (0.12, pytest.approx(0.37))


def test_what_a_thread_waited_that_has_ended_stays(tmp_path: Path) -> None:
    wait = CoreWait(tmp_path)
    thread(tmp_path, 1, 100)
    thread(tmp_path, 2, 20)
    wait()
    (tmp_path / "2" / "schedstat").unlink()

    assert wait() == 0.12


def test_a_number_that_another_thread_was_given_counts_anew(tmp_path: Path) -> None:
    wait = CoreWait(tmp_path)
    thread(tmp_path, 1, 100)
    wait()
    thread(tmp_path, 1, 30)

    assert wait() == pytest.approx(0.13)


@pytest.mark.parametrize("text", [None, "0 0 0\n", "", "no such count\n"])
def test_a_kernel_that_does_not_count_it_says_none_and_not_zero(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "1").mkdir()
    if text is not None:
        (tmp_path / "1" / "schedstat").write_text(text)

    assert CoreWait(tmp_path)() is None


def test_a_system_without_proc_says_none(tmp_path: Path) -> None:
    assert CoreWait(tmp_path / "task")() is None
