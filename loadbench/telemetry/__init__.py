"""What the machine is and does: its record, and samples of server, client, machine, GPUs and energy.

Every figure is read by itself: what cannot be read is None, with the reason in `Sampler.facts`, and never a zero.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from loadbench.telemetry.gpu import Figures, Gpus, gpu_free_memory_bytes, open_nvml
from loadbench.telemetry.machine import CoreWait, Machine, Waited, cores, environment, free_memory_bytes, versions
from loadbench.telemetry.process import ProcessTree, find_pid

__all__ = [
    "CoreWait",
    "Gpus",
    "ProcessTree",
    "Sampler",
    "Waited",
    "cores",
    "environment",
    "find_pid",
    "free_memory_bytes",
    "gpu_free_memory_bytes",
    "open_nvml",
    "versions",
]

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
        zones = []
        try:
            # intel-rapl-mmio shows the same packages a second time, and is left out.
            for name in sorted(root.glob("intel-rapl:*/name")):
                if name.read_text(encoding="ascii").startswith("package"):
                    counter = name.with_name("energy_uj")
                    now_uj = int(counter.read_text(encoding="ascii"))
                    range_uj = int(name.with_name("max_energy_range_uj").read_text(encoding="ascii"))
                    zones.append(_Zone(counter, range_uj, now_uj, now_uj))
        except PermissionError:
            self.reason = f"RAPL is for root alone here: `sudo chmod a+r {root}/intel-rapl:*/energy_uj`"
        except (OSError, ValueError) as error:
            self.reason = f"RAPL cannot be read: {error}"
        else:
            self._zones = zones
            if not zones:
                self.reason = f"no RAPL counters in {root} (virtual machines and Arm have none)"

    def energy_j(self) -> float | None:
        """Joules, cumulative from an arbitrary start; None where a package cannot be read.

        Wraps are undone if samples are closer than one: at 300 W that is some 14 minutes.
        """
        try:
            readings = [int(zone.counter.read_text(encoding="ascii")) for zone in self._zones]
        except (OSError, ValueError):
            return None
        for zone, now_uj in zip(self._zones, readings, strict=True):
            if now_uj < zone.last_uj:  # it has wrapped
                zone.total_uj += zone.range_uj
            zone.total_uj += now_uj - zone.last_uj
            zone.last_uj = now_uj
        # Some hypervisors show counters that never leave 0.
        return round(sum(zone.total_uj for zone in self._zones) / 1e6, 6) or None


class Sampler:
    """Takes samples; one at a time, from any thread. Each blocks for some milliseconds.

    Counters (CPU seconds, joules, throttle events) are cumulative, from whenever they began to count; only the
    difference of two samples says something.

    Args:
        pids: The first process of the server on this machine, or of several servers that are added up; None where it is
            elsewhere or not known.
        gpus: Opens NVML, at the first sample: that may take long where nobody uses the GPU.
        rapl_root: The folder of the processors' energy counters.
        sys_root: The folder of the machine's sensors.
    """

    def __init__(
        self,
        *pids: int | None,
        gpus: Callable[[], Gpus] = open_nvml,
        rapl_root: Path = RAPL_ROOT,
        sys_root: Path = Path("/sys"),
    ) -> None:
        self._trees = [ProcessTree(pid) for pid in pids if pid is not None]
        self.workers: Callable[[], Iterable[int]] = tuple
        self._client = psutil.Process()
        self._workers: dict[int, tuple[psutil.Process, float]] = {}  # with the CPU seconds they were last seen with
        self._machine = Machine(sys_root)
        self._rapl = Rapl(rapl_root)
        self._open_gpus = gpus
        self._gpus: Gpus | None = None

    def sample(self) -> Figures:
        """The figures of now: server, client, machine, gpus, cpu_energy_j; None for what cannot be read."""
        server: Counter[str] = Counter()
        pids: set[int] = set()
        complete = True
        for tree in self._trees:
            figures = tree.sample()
            pids |= tree.pids
            if figures is None:  # the sum of some servers is that of none
                complete = False
            else:
                server.update(figures)
        return {
            "server": dict(server) if server and complete else None,
            "client": self._clients(),
            "machine": self._machine.sample(),
            "gpus": self._nvml().sample(pids),
            "cpu_energy_j": self._rapl.energy_j(),
        }

    def facts(self) -> dict[str, str | None]:
        """What the samples can show, and why not: gpu_source, gpu_reason, cpu_energy_source, cpu_energy_reason."""
        gpu_reason, cpu_reason = self._nvml().reason, self._rapl.reason
        return {
            "gpu_source": None if gpu_reason else "nvml",
            "gpu_reason": gpu_reason,
            "cpu_energy_source": None if cpu_reason else "rapl",
            "cpu_energy_reason": cpu_reason,
        }

    def close(self) -> None:
        """Let go of the GPUs; no sample after this."""
        if self._gpus is not None:
            self._gpus.close()

    def _clients(self) -> Figures:
        """This process and its workers; what ended ones used stays in `cpu_s`, so that it never falls."""
        memory_bytes, cpu_s = self._client.memory_info().rss, time.process_time()
        for pid in set(self.workers()) - self._workers.keys():
            with contextlib.suppress(psutil.Error):
                self._workers[pid] = psutil.Process(pid), 0.0
        for pid, (process, seen_s) in self._workers.items():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                memory_bytes += process.memory_info().rss
                seen_s = max(seen_s, times.user + times.system)
                self._workers[pid] = process, seen_s
            cpu_s += seen_s
        return {"memory_bytes": memory_bytes, "cpu_s": round(cpu_s, 3)}

    def _nvml(self) -> Gpus:
        if self._gpus is None:
            self._gpus = self._open_gpus()
        return self._gpus
