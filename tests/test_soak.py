"""The soak: a short one passes, and what grows, what is missing and what is miscounted fails it."""

import json
from pathlib import Path
from typing import Any

import pytest
import soak
from soak import Look, Records


def series(last: float, n: int = 90) -> tuple[list[float], list[float]]:
    """A figure that grows from 100 to `last`, evenly, with a peak now and then."""
    return list(map(float, range(n))), [100 + (last - 100) * i / n + (40 if i % 10 == 3 else 0) for i in range(n)]


def looks(files: int, mb: float = 40.0) -> list[Look]:
    return [Look(float(i), mb + 20, mb, 20 + files * i // 60, 6) for i in range(60)]


def folder(path: Path, lines: list[str], **facts: int) -> Path:
    """A run folder of one level."""
    path.mkdir()
    known = {"offered": 3, "dropped": 1, "attempted": 2, "completed": 1, "failed": 1, "cancelled": 0, **facts}
    level = {"id": "m@c1", "attempt": 1, "warmup_requests": 1, **known}
    (path / "requests.jsonl").write_text("\n".join(lines) + "\n")
    (path / "run.json").write_text(json.dumps({"probes": [{"requests": 2}]}))
    (path / "summary.json").write_text(json.dumps({"levels": [level]}))
    return path


def record(error: str | None = None, retries: int = 0) -> str:
    return json.dumps({"level": "m@c1", "attempt": 1, "error": error, "retries": retries})


WHOLE = [record(), record("reset", retries=1), record()]


@pytest.mark.endurance
def test_a_short_soak_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = soak.main(["--seconds", "10", "--folder", str(tmp_path / "runs")])

    assert code == 0, capsys.readouterr().out


@pytest.mark.parametrize(("last", "grew"), [(100, False), (104, False), (90, False), (125, True), (200, True)])
def test_a_steady_rise_is_growth_and_peaks_are_not(last: float, grew: bool) -> None:
    assert soak.growth("uss_mb", *series(last)).grew is grew


def test_a_rise_in_the_warm_up_is_none() -> None:
    at_s, values = series(100, n=100)

    low = [value / 2 if at < 20 else value for at, value in zip(at_s, values, strict=True)]
    found = soak.growth("uss_mb", at_s, low)

    assert not found.grew


def test_files_that_become_more_are_growth() -> None:
    grown = {one.name: one.grew for one in soak.growths(looks(files=30))}

    assert grown == {"rss_mb": False, "uss_mb": False, "files": True, "threads": False}
    assert not any(one.grew for one in soak.growths(looks(files=1)))


def test_a_sound_folder_is_counted_with_its_probes(tmp_path: Path) -> None:
    found = soak.records(folder(tmp_path / "run", WHOLE))

    assert found == Records(requests=5, retries=1, completed=2, errors={"reset": 1}, wrong=[])


@pytest.mark.parametrize(
    ("lines", "facts", "said"),
    [
        (WHOLE[:2], {}, "2 lines, but 2 attempted and 1 of warm-up"),
        ([*WHOLE[:2], WHOLE[2][:20]], {}, "line 3 of requests.jsonl cannot be read"),
        (WHOLE, {"offered": 4}, "4 offered, 1 dropped, 2 attempted"),
        (WHOLE, {"failed": 0}, "2 attempted, 1 completed, failed or cancelled"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, lines: list[str], facts: dict[str, Any], said: str) -> None:
    found = soak.records(folder(tmp_path / "run", lines, **facts))

    assert said in "\n".join(found.wrong)


@pytest.mark.parametrize(("seen", "fits"), [(4, False), (5, True), (6, True), (7, False)])
def test_a_silent_retry_is_one_request_or_two_for_the_server(seen: int, fits: bool) -> None:
    runs = [Records(requests=5, retries=1, completed=5, errors={}, wrong=[])]

    assert (soak.counted(runs, {"requests": seen}) is None) is fits
