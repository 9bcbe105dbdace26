"""The machine: what it is, for a run's record, what it does at a moment, and how long this process waits for a core."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import psutil

import loadbench
from loadbench.telemetry import gpu
from loadbench.telemetry.gpu import Figures

_RECORDED = ("anyio", "httpx", "httptools", "hdrhistogram", "numpy", "nvidia-ml-py", "psutil", "uvloop")
_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
"""Of psutil's CPU times. Guests are within user already, interrupts on Windows within system."""
_SENSORS = {"coretemp", "k10temp", "zenpower", "x86_pkg_temp", "soc_thermal", "soc-thermal"}
"""Names of CPU sensors in Linux, beside all that start with "cpu"."""


def cores() -> int | None:
    """How many this process may use; None where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def environment() -> Figures:
    """This machine: cpu, cores (ours, and all of them), memory in bytes, GPUs, os, power source; None for unknowns."""
    cpu = None
    if sys.platform.startswith("linux"):
        for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    # Last, as it starts `uname -p`; on most Linux machines that knows no name.
    cpu = cpu or platform.processor() or None
    power, _ = _battery()
    return {
        "cpu": cpu,
        "cores": cores(),
        "machine_cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": gpu.names(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "power": power,
    }


def versions() -> dict[str, str]:
    """Of loadbench, Python and the packages that measure."""
    found = {"loadbench": loadbench.__version__, "python": platform.python_version()}
    for name in _RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def free_memory_bytes() -> int | None:
    """What programs can take without swapping."""
    available: int = psutil.virtual_memory().available
    return available or None


class Machine:
    """Takes samples of the whole machine.

    Which sensors there are is looked up once: reading all of them, disks' and radios' too, takes many ms.

    Args:
        sys_root: Linux shows its sensors here; elsewhere there is no such folder, and no temperature.
    """

    def __init__(self, sys_root: Path = Path("/sys")) -> None:
        cpus = sys_root / "devices/system/cpu"
        self._throttles = sorted(cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
        self._clocks = sorted(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        self._sensors = _sensors(sys_root / "class")

    def sample(self) -> Figures:
        """The "machine" of a sample; cpu_s and throttled are counters since the machine started."""
        power, percent = _battery()
        times = psutil.cpu_times()
        # A dead sensor reads 0 or less, and cores may be offline.
        degrees = list(filter(lambda reading: reading > 0, _readings(self._sensors)))
        clocks = list(filter(lambda reading: reading > 0, _readings(self._clocks)))
        throttles = _readings(self._throttles)
        if len(throttles) < len(self._throttles):  # a part of a sum is no sum
            throttles = []
        if clocks:
            mhz: float | None = round(sum(clocks) / len(clocks) / 1000, 1)
        else:
            mhz = _psutil_mhz()
        return {
            "cpu_s": round(sum(getattr(times, name, 0.0) for name in _BUSY), 2) or None,
            "memory_available_bytes": free_memory_bytes(),
            "cpu_mhz": mhz,
            "temperature_c": max(degrees) / 1000 if degrees else None,
            "throttled": sum(throttles) if throttles else None,
            "power": power,
            "battery_percent": percent,
        }


def _psutil_mhz() -> float | None:
    try:
        clock = psutil.cpu_freq()
    except (AttributeError, OSError, RuntimeError):  # psutil: some virtual machines of Apple's have no clock
        return None
    if clock is None or not clock.current:
        return None
    mhz: float = round(clock.current, 1)
    return mhz


def _sensors(classes: Path) -> list[Path]:
    files: list[Path] = []
    for name in sorted(classes.glob("hwmon/hwmon*/name")):
        if _is_cpu(name):
            files += sorted(name.parent.glob("temp*_input"))
    if files:
        labels = {path: _text(path.with_name(path.name.replace("_input", "_label"))) for path in files}
        # AMD's Tctl may lie 27 degrees above the die, so that fans start earlier; Tdie is the temperature.
        return [path for path in files if labels[path] != "Tctl" or "Tdie" not in labels.values()]
    return [kind.with_name("temp") for kind in sorted(classes.glob("thermal/thermal_zone*/type")) if _is_cpu(kind)]


def _is_cpu(name: Path) -> bool:
    text = _text(name) or ""
    return text in _SENSORS or text.startswith("cpu")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _readings(paths: list[Path]) -> list[int]:
    readings = []
    for path in paths:
        try:
            readings.append(int(_text(path) or ""))
        except ValueError:
            continue
    return readings


def _battery() -> tuple[str | None, float | None]:
    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError):  # systems without batteries lack the function
        return None, None
    if battery is None:
        return None, None
    power, percent = {None: None, True: "mains", False: "battery"}[battery.power_plugged], battery.percent
    if percent is not None:
        percent = round(percent, 1)
    return power, percent


READER = "loadbench-read"
"""What transport/_reader.c calls its thread."""


class Waited(NamedTuple):
    """How long threads that were ready to run had no core, and how often they came to run. Cumulative."""

    ns: int
    turns: int


class CoreWait:
    """How long the threads that decide what is measured waited for a core: the reader thread, else all of this process.

    Linux counts it for each thread (`schedstat`: time on a core, time ready without one, both in ns, and turns). What a
    thread waited that has ended since the last call is lost: none that measures ends within a level.

    Args:
        tasks: The folder of the process's threads.
    """

    def __init__(self, tasks: Path = Path("/proc/self/task")) -> None:
        self._tasks = tasks
        self._seen: dict[str, tuple[int, int]] = {}
        self._all, self._readers = Waited(0, 0), Waited(0, 0)

    def __call__(self) -> Waited | None:
        """Of all those threads together; None where the kernel does not count it."""
        try:
            threads = os.listdir(self._tasks)
        except OSError:
            return None
        seen, readers = {}, False
        for thread in threads:
            try:
                words = (self._tasks / thread / "schedstat").read_text(encoding="ascii").split()
                ran_ns, waited_ns, turns = map(int, words)
                reads = (self._tasks / thread / "comm").read_text(encoding="utf-8", errors="replace").strip() == READER
            except (OSError, ValueError):  # ended meanwhile, or no such count
                continue
            if not ran_ns:  # all zero where a kernel has the file and does not count
                continue
            before_ns, turns_before = self._seen.get(thread, (0, 0))
            if waited_ns < before_ns or turns < turns_before:  # the number was given to another thread
                before_ns = turns_before = 0
            seen[thread] = waited_ns, turns
            more_ns, more = waited_ns - before_ns, turns - turns_before
            self._all = Waited(self._all.ns + more_ns, self._all.turns + more)
            if reads:
                readers = True
                self._readers = Waited(self._readers.ns + more_ns, self._readers.turns + more)
        self._seen = seen
        if not seen:
            return None
        return self._readers if readers else self._all
