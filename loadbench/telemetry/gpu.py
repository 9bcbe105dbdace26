"""NVIDIA GPUs by NVML: memory, utilisation, power, energy, temperature, clock, throttling."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Collection
from typing import Any

from loadbench.errors import how_to_install

Figures = dict[str, Any]
"""A part of a sample, as a line of telemetry.jsonl has it."""
Library = Any
"""The module pynvml, and what it answers: it has no types."""
_THROTTLED = 0x04 | 0x08 | 0x20 | 0x40 | 0x80
"""Reasons that hold the clock down against the load: power cap, hardware slowdown, thermal (2), power brake.

Not among them: idle, clocks that somebody set, synchronised boards. Source: nvmlClocksEventReasons in nvml.h.
"""


class Gpus:
    """The GPUs that NVML shows; opened by `open_nvml`.

    Args:
        library: Initialised, or None.
        reason: Why there are none to read, in a line.
    """

    def __init__(self, library: Library, reason: str | None = None) -> None:
        self._library = library
        self.reason = reason
        self._devices: list[tuple[int, Library, str | None]] = []
        if library is None:
            return
        for index in range(self._ask("nvmlDeviceGetCount") or 0):
            handle = self._ask("nvmlDeviceGetHandleByIndex", index)
            if handle is not None:
                self._devices.append((index, handle, self._ask("nvmlDeviceGetName", handle)))
        if not self._devices:
            self.reason = "NVML shows no GPU"

    def names(self) -> list[str] | None:
        """Their names; None where no GPU has one."""
        return [name for _, _, name in self._devices if name] or None

    def free_memory_bytes(self) -> int | None:
        """The most that is free on one of them."""
        free = []
        for _, handle, _ in self._devices:
            memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
            if memory is not None and memory.total:
                free.append(memory.free)
        return max(free, default=None)

    def sample(self, pids: Collection[int] = ()) -> list[Figures] | None:
        """The "gpus" of a sample: one a GPU, each figure None by itself where the GPU does not report it.

        Args:
            pids: The server's processes.
        """
        gpus = []
        for index, handle, name in self._devices:
            memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
            if memory is not None and not memory.total:  # boards that share the machine's memory show none
                memory = None
            rates = self._ask("nvmlDeviceGetUtilizationRates", handle)
            # The first name is that of drivers since 535, the second goes in CUDA 14.
            reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
            if reasons is None:
                reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
            # A GPU that answers takes some power and has some warmth: 0 is "unknown" on boards that lack the sensor.
            milliwatts = self._ask("nvmlDeviceGetPowerUsage", handle) or None
            millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption", handle) or None
            figures = {
                "index": index,
                "name": name,
                "memory_used_bytes": memory and memory.used,
                "memory_total_bytes": memory and memory.total,
                "server_memory_bytes": self._memory_of(handle, pids),
                "utilisation": rates and rates.gpu / 100,
                "power_w": milliwatts and milliwatts / 1000,
                "energy_j": millijoules and millijoules / 1000,
                "temperature_c": self._ask("nvmlDeviceGetTemperature", handle, 0) or None,  # 0: NVML_TEMPERATURE_GPU
                "clock_mhz": self._ask("nvmlDeviceGetClockInfo", handle, 1) or None,  # 1: NVML_CLOCK_SM
                "throttled": None if reasons is None else bool(reasons & _THROTTLED),
            }
            gpus.append(figures)
        return gpus or None

    def close(self) -> None:
        """Let go of the library; a second call does nothing."""
        if self._library is not None:
            self._ask("nvmlShutdown")
        self._library, self._devices = None, []

    def _memory_of(self, handle: Library, pids: Collection[int]) -> int | None:
        """Of these processes, in CUDA's list or in that of graphics (WebGPU and Vulkan compute there).

        None where neither list names one of them: in a container, a list may be empty or bear the host's numbers.
        """
        if not pids:
            return None
        most: dict[int, int] = {}
        for kind in ("Compute", "Graphics"):
            by_pid: dict[int, int] = {}
            for entry in self._ask(f"nvmlDeviceGet{kind}RunningProcesses", handle) or ():
                if entry.pid in pids:
                    if entry.usedGpuMemory is None:  # Windows' driver model does not report it
                        return None
                    # A process has an entry in each part of a divided GPU.
                    by_pid[entry.pid] = by_pid.get(entry.pid, 0) + entry.usedGpuMemory
            for pid, used in by_pid.items():
                most[pid] = max(used, most.get(pid, 0))  # one in both lists shows its whole memory in each
        if not most:
            return None
        return sum(most.values())

    def _ask(self, name: str, *arguments: object) -> Library:
        """What NVML answers; None where this GPU, driver or version of the library has no such thing."""
        function = getattr(self._library, name, None)
        if function is None:
            return None
        try:
            return function(*arguments)
        except self._library.NVMLError:
            return None


def open_nvml(load: Callable[[], Library] = lambda: importlib.import_module("pynvml")) -> Gpus:
    """Open NVML; where that fails the result has no GPUs, and a reason.

    Args:
        load: Imports pynvml, which takes 20 ms.
    """
    try:
        library = load()
    except ImportError:
        return Gpus(None, f"NVIDIA GPUs are read by NVML: {how_to_install('gpu')}")
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        if error.value in (library.NVML_ERROR_LIBRARY_NOT_FOUND, library.NVML_ERROR_DRIVER_NOT_LOADED):
            return Gpus(None, "no NVIDIA driver")
        return Gpus(None, f"NVML: {error}")
    return Gpus(library)


@functools.cache
def names() -> list[str] | None:
    """Names of this machine's GPUs.

    NVML stays open from here on: a driver that nobody holds takes up to seconds to start again, for the sampler.
    """
    return open_nvml().names()


def gpu_free_memory_bytes() -> int | None:
    """The most that is free on one GPU; None without NVML."""
    gpus = open_nvml()
    try:
        return gpus.free_memory_bytes()
    finally:
        gpus.close()
