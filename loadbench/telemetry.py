"""What the machine is: the part of a run's record that says where its figures come from."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import loadbench

_RECORDED = ("anyio", "httpx", "httptools", "hdrhistogram", "numpy", "uvloop")


def environment() -> dict[str, Any]:
    """This machine: cpu, cores, memory in bytes, os, power source; None for what it does not tell."""
    import psutil

    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": None,
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "power": None if battery is None else "mains" if battery.power_plugged else "battery",
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


def _cpu_name() -> str | None:
    if sys.platform.startswith("linux"):
        try:
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None
