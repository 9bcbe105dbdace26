"""Energy of the processors: RAPL's counters, which Linux shows for Intel and AMD."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RAPL_ROOT = Path("/sys/class/powercap")


@dataclass(slots=True)
class _Zone:
    """A processor package: its counter wraps at `range_uj`; `total_uj` does not."""

    counter: Path
    range_uj: int
    last_uj: int
    total_uj: int


class Rapl:
    """Reads what all processor packages have used.

    Only packages count: cores, graphics and (mostly) memory lie within them, and `psys`, the whole board, holds them.

    Args:
        root: The folder of the counters.

    Attributes:
        reason: Why there is no figure, in a line; None where there is one.
    """

    def __init__(self, root: Path = RAPL_ROOT) -> None:
        self._zones: list[_Zone] = []
        self.reason: str | None = None
        try:
            # intel-rapl-mmio shows the same packages a second time, and is left out.
            packages = [zone for zone in sorted(root.glob("intel-rapl:*")) if _name(zone).startswith("package")]
            zones = [_open(zone) for zone in packages]
        except PermissionError:
            self.reason = f"RAPL is for root alone here: `sudo chmod a+r {root}/intel-rapl:*/energy_uj`"
        except (OSError, ValueError) as error:
            self.reason = f"RAPL cannot be read: {error}"
        else:
            self._zones = zones
            self.reason = None if zones else f"no RAPL counters in {root} (virtual machines and Arm have none)"

    def energy_j(self) -> float | None:
        """Joules, cumulative from an arbitrary start; None where a package cannot be read.

        Wraps are undone if samples are closer than one: at 300 W that is some 14 minutes.
        """
        try:
            readings = [int(zone.counter.read_text(encoding="ascii")) for zone in self._zones]
        except (OSError, ValueError):
            return None
        for zone, now_uj in zip(self._zones, readings, strict=True):
            step_uj = now_uj - zone.last_uj
            zone.total_uj += step_uj if step_uj >= 0 else step_uj + zone.range_uj
            zone.last_uj = now_uj
        # Some hypervisors show counters that never leave 0.
        return round(sum(zone.total_uj for zone in self._zones) / 1e6, 6) or None


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def _open(zone: Path) -> _Zone:
    now_uj = int((zone / "energy_uj").read_text(encoding="ascii"))
    range_uj = int((zone / "max_energy_range_uj").read_text(encoding="ascii"))
    return _Zone(zone / "energy_uj", range_uj, now_uj, now_uj)
