"""A sample: the server's processes, this client, the machine, its GPUs and the energy, at a moment."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from loadbench.telemetry.energy import RAPL_ROOT, Rapl
from loadbench.telemetry.gpu import Gpus, open_nvml
from loadbench.telemetry.machine import Machine
from loadbench.telemetry.process import ProcessTree


class Sampler:
    """Takes samples; one at a time, from any thread. Each blocks for some milliseconds.

    Counters (CPU seconds, joules, throttle events) are cumulative, from whenever they began to count; only the
    difference of two samples says something.

    Args:
        pids: The server's first process, on this machine, or those of several servers that are added up; None where
            it is elsewhere or not known.
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

    def sample(self) -> dict[str, Any]:
        """What there is to see now: server, client, machine, gpus, cpu_energy_j; None for what nobody tells."""
        servers = [sampled for tree in self._trees if (sampled := tree.sample()) is not None]
        whole = servers and len(servers) == len(self._trees)
        server = {name: sum(one[name] for one in servers) for name in servers[0]} if whole else None
        pids = frozenset[int]().union(*(tree.pids for tree in self._trees))
        return {
            "server": server,
            "client": self._clients(),
            "machine": self._machine.sample(),
            "gpus": self._nvml().sample(pids),
            "cpu_energy_j": self._rapl.energy_j(),
        }

    def _clients(self) -> dict[str, Any]:
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

    def facts(self) -> dict[str, str | None]:
        """What the samples can tell, and why not: gpu_source, gpu_reason, cpu_energy_source, cpu_energy_reason."""
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

    def _nvml(self) -> Gpus:
        if self._gpus is None:
            self._gpus = self._open_gpus()
        return self._gpus
