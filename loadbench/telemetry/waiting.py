"""How long this process had to wait for a core, as the kernel counts it."""

from __future__ import annotations

import os
from pathlib import Path


class CoreWait:
    """Time that this process's threads were ready to run and had no core.

    Linux counts it for each thread (`schedstat`: time on a core, time ready without one, both in ns, and turns). What a
    thread waited that has ended since the last call is lost: none that measures ends within a level.

    Args:
        tasks: The folder of the process's threads.
    """

    def __init__(self, tasks: Path = Path("/proc/self/task")) -> None:
        self._tasks = tasks
        self._seen_ns: dict[str, int] = {}
        self._waited_ns = 0

    def __call__(self) -> float | None:
        """Seconds of all threads together, cumulative; None where the kernel does not count them."""
        found = self._read()
        if not found:
            return None
        for thread, waited_ns in found.items():
            before_ns = self._seen_ns.get(thread, 0)
            # A number may be given to another thread, which counts from 0.
            self._waited_ns += waited_ns - before_ns if waited_ns >= before_ns else waited_ns
        self._seen_ns = found
        return self._waited_ns / 1e9

    def _read(self) -> dict[str, int]:
        found = {}
        try:
            threads = os.listdir(self._tasks)
        except OSError:
            return {}
        for thread in threads:
            try:
                ran_ns, waited_ns, _ = (self._tasks / thread / "schedstat").read_text(encoding="ascii").split()
                if int(ran_ns):  # all zero where a kernel has the file and does not count
                    found[thread] = int(waited_ns)
            except (OSError, ValueError):  # ended meanwhile, or no such count
                continue
        return found
