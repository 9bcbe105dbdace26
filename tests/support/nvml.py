"""A stand-in for pynvml: its function names, its error classes, the GPUs that a test describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

GB = 10**9
H100: dict[str, Any] = {
    "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 * GB, used=30 * GB, free=50 * GB),
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=87, memory=40),
    "nvmlDeviceGetPowerUsage": 512_300,
    "nvmlDeviceGetTotalEnergyConsumption": 123_456_789,
    "nvmlDeviceGetTemperature": 61,
    "nvmlDeviceGetClockInfo": 1_755,
    "nvmlDeviceGetCurrentClocksEventReasons": 0,
    "nvmlDeviceGetComputeRunningProcesses": [],
    "nvmlDeviceGetGraphicsRunningProcesses": [],
}
NOT_SUPPORTED = object()
"""An answer that is refused, as NVML does it for a function that a GPU lacks."""


class NVMLError(Exception):
    """As pynvml's: the number of the error is its `value`."""

    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


class Nvml:
    """The module. `init` is the number of the error that opening it meets, 0 for none; a GPU is its answers by name."""

    NVML_ERROR_DRIVER_NOT_LOADED = 9
    NVML_ERROR_LIBRARY_NOT_FOUND = 12
    NVMLError = NVMLError

    def __init__(self, *gpus: Mapping[str, Any], init: int = 0) -> None:
        self.gpus, self.init, self.opened = gpus, init, 0

    def nvmlInit(self) -> None:
        if self.init:
            raise NVMLError(self.init)
        self.opened += 1

    def nvmlShutdown(self) -> None:
        if not self.opened:
            raise NVMLError(1)
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Mapping[str, Any]:
        if not self.gpus[index]:
            raise NVMLError(15)  # the GPU is lost
        return self.gpus[index]

    def __getattr__(self, name: str) -> Any:
        if name not in H100 and name != "nvmlDeviceGetCurrentClocksThrottleReasons":
            raise AttributeError(name)

        def ask(handle: Mapping[str, Any], *_: Any) -> Any:
            answer = handle.get(name, NOT_SUPPORTED)
            if answer is NOT_SUPPORTED:
                raise NVMLError(3)
            return answer

        return ask


def using(**bytes_by_pid: int | None) -> Sequence[Any]:
    """Entries of a GPU's list of processes: `using(p7=100)` is process 7 with 100 bytes."""
    return [SimpleNamespace(pid=int(pid[1:]), usedGpuMemory=used) for pid, used in bytes_by_pid.items()]
