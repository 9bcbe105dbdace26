"""What the machine is and does: its record, and samples of server, client, machine, GPUs and energy.

    machine, process, gpu -> sampler

Every figure stands for itself: what cannot be read is None, with the reason in `Sampler.facts`, and never a zero.
"""

from __future__ import annotations

from loadbench.telemetry.gpu import Gpus, gpu_free_memory_bytes, open_nvml
from loadbench.telemetry.machine import CoreWait, cores, environment, free_memory_bytes, versions
from loadbench.telemetry.process import ProcessTree, find_pid
from loadbench.telemetry.sampler import Sampler

__all__ = [
    "CoreWait",
    "Gpus",
    "ProcessTree",
    "Sampler",
    "cores",
    "environment",
    "find_pid",
    "free_memory_bytes",
    "gpu_free_memory_bytes",
    "open_nvml",
    "versions",
]
