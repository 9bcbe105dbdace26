"""Energy of the processors: RAPL's counters, whose wraps are undone, and why there may be none."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadbench.telemetry import Rapl

RANGE_UJ = 262_143_328_850
"""Of a real processor: after 262 kJ the counter starts again."""


def zone(root: Path, number: str, name: str, energy_uj: int) -> Path:
    """A zone as Linux shows it; its counter's file."""
    folder = root / number
    folder.mkdir()
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    counter = folder / "energy_uj"
    counter.write_text(f"{energy_uj}\n")
    return counter


def test_all_packages_are_added_up_and_nothing_that_lies_within_them_or_around_them(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 3_000_000)
    zone(tmp_path, "intel-rapl:0:1", "dram", 500_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 7_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 20_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5_000_000)

    rapl = Rapl(tmp_path)

    assert (rapl.energy_j(), rapl.reason) == (12.0, None)


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 1_000_000)
    rapl = Rapl(tmp_path)
    before = rapl.energy_j() or 0.0

    used = []
    for energy_uj in (2_000_000, RANGE_UJ - 1_000_000, 500_000):
        counter.write_text(f"{energy_uj}\n")
        used.append((rapl.energy_j() or 0.0) - before)

    assert used == pytest.approx([3.0, RANGE_UJ / 1e6, RANGE_UJ / 1e6 + 1.5], abs=1e-3)


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    rapl = Rapl(tmp_path / "powercap")

    assert rapl.energy_j() is None
    assert "no RAPL counters" in (rapl.reason or "")


def test_a_board_without_a_package_is_not_taken_for_one(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "psys", 20_000_000)

    rapl = Rapl(tmp_path)

    assert rapl.energy_j() is None
    assert "no RAPL counters" in (rapl.reason or "")


def test_a_counter_for_root_alone_says_how_to_open_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000), monkeypatch)

    rapl = Rapl(tmp_path)

    assert rapl.energy_j() is None
    assert f"`sudo chmod a+r {tmp_path}/intel-rapl:*/energy_uj`" in (rapl.reason or "")


def test_one_package_of_two_is_no_figure_for_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    refuse(zone(tmp_path, "intel-rapl:1", "package-1", 7_000_000), monkeypatch)

    rapl = Rapl(tmp_path)

    assert rapl.energy_j() is None
    assert rapl.reason


def test_a_counter_that_fails_once_is_a_gap_and_loses_nothing(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    rapl = Rapl(tmp_path)
    counter.unlink()
    gap = rapl.energy_j()
    counter.write_text("9000000\n")

    after = rapl.energy_j()

    assert (gap, after) == (None, 9.0)


def test_a_counter_that_a_hypervisor_holds_at_zero_is_unknown(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)

    rapl = Rapl(tmp_path)

    assert rapl.energy_j() is None


def refuse(counter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the counter fails as it does for users; file modes would not stop root, who may run these tests."""
    read = Path.read_text

    def guarded(path: Path, encoding: str | None = None, errors: str | None = None) -> str:
        if path == counter:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, encoding, errors)

    monkeypatch.setattr(Path, "read_text", guarded)
