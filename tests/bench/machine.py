"""What else the machine does: a timing on a shared machine is worth as much as the machine is idle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Use:
    """CPU seconds of the whole machine up to an instant: busy ones, and those that the hypervisor gave to others."""

    at_s: float
    busy_s: float
    steal_s: float


def use() -> Use:
    """Now."""
    times = psutil.cpu_times()
    steal = getattr(times, "steal", 0.0)
    idle = times.idle + getattr(times, "iowait", 0.0)
    # Linux counts guests' time in user and nice too.
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return Use(time.perf_counter(), sum(times) - guests - idle - steal, steal)


def idle_view(watch_s: float = 1.0) -> str:
    """One line on the machine: cores, load, and what it did in a second of our doing nothing."""
    before = use()
    time.sleep(watch_s)
    after = use()
    cores = os.cpu_count() or 1
    load = f"load average {os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "no load average"
    span_s = after.at_s - before.at_s
    busy, steal = (after.busy_s - before.busy_s) / span_s, (after.steal_s - before.steal_s) / span_s
    return (
        f"{cpu_name()}, {cores} cores, {sys.platform}, Python {sys.version.split()[0]}; before the start: {load}, "
        f"{busy:.2f} cores busy with other work, {steal:.2f} stolen by the hypervisor"
    )


def cpu_name() -> str:
    """As the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        import platform

        return platform.processor() or platform.machine()


@contextmanager
def crowded(processes: int) -> Iterator[None]:
    """So many processes beside that never wait."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def peak_rss_mb(pid: int) -> float | None:
    """Peak resident memory of a living process in MB (10**6 bytes); its present one where the system keeps no peak."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.Error:
        return None
    return float(getattr(memory, "peak_wset", memory.rss)) / 1e6
