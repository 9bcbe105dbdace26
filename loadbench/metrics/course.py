"""What the machine did while a level ran: its samples as few columns, for a timeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from loadbench.metrics import energy
from loadbench.metrics.distribution import significant
from loadbench.metrics.machine import is_local, server_gpus
from loadbench.metrics.samples import Read, Sample, reader

MOST_POINTS = 120
SHORTEST_S = 0.5
"""Between two samples that a rate is told from: the system counts processor time in hundredths of a second."""

Column = list[float | None]


def course(samples: Sequence[Sample], info: Mapping[str, Any], device: str | None = None) -> dict[str, Any] | None:
    """The level's samples in at most 120 rows; None without samples, and of a server on another machine.

    {"t_s": [since the level's first sample, which is taken right before it], "server_memory_bytes", "server_cores",
    "gpu_utilisation", "power_w"}: each a column as long, or None where nobody knows any of it. Cores and power are
    means since the row before, so that the first row has none.

    Args:
        samples: Of the attempt that counts.
        info: run.json.
        device: What the model ran on, where that is known.
    """
    if not is_local(info) or not samples:
        return None
    gpus = server_gpus(samples, device)
    kept = _thinned(samples)
    begin_s = float(kept[0]["at_s"])
    columns = {
        "server_memory_bytes": [reader("server", "memory_bytes")(sample) for sample in kept],
        "server_cores": _rates(kept, reader("server", "cpu_s")),
        "gpu_utilisation": [_over_gpus(sample, gpus, "utilisation", mean=True) for sample in kept],
        "power_w": _power(kept, gpus),
    }
    if all(_unknown(column) for column in columns.values()):
        return None
    known = {name: None if _unknown(column) else column for name, column in columns.items()}
    return {"t_s": [round(float(sample["at_s"]) - begin_s, 3) for sample in kept], **known}


def _thinned(samples: Sequence[Sample]) -> list[Sample]:
    """Every so many-th sample and the last."""
    step = -(-len(samples) // (MOST_POINTS - 1))
    kept = list(samples[::step])
    return kept if kept[-1] is samples[-1] else [*kept, samples[-1]]


def _rates(samples: Sequence[Sample], read: Read) -> Column:
    """A counter's growth per second since the row before; None where it is unknown or fell."""
    found: Column = [None]
    for before, after in pairwise(samples):
        low, high = read(before), read(after)
        seconds = float(after["at_s"]) - float(before["at_s"])
        if low is None or high is None or high < low or seconds < SHORTEST_S:
            found.append(None)
        else:
            found.append(significant((high - low) / seconds, 4))
    return found


def _over_gpus(sample: Sample, gpus: Sequence[int], name: str, *, mean: bool = False) -> float | None:
    """The sum or mean over the GPUs that count; None where one of them does not tell."""
    told = [energy.of_gpu(index, name)(sample) for index in gpus]
    known = [value for value in told if value is not None]
    if not known or len(known) < len(told):
        return None
    return significant(sum(known) / (len(known) if mean else 1), 4)


def _power(samples: Sequence[Sample], gpus: Sequence[int]) -> Column:
    """Watts of the GPUs that count and of the CPU, whichever are known of the whole course."""
    of_gpus: Column = [_over_gpus(sample, gpus, "power_w") for sample in samples]
    of_cpu = _rates(samples, reader("cpu_energy_j"))
    parts = [column for column in (of_gpus, of_cpu) if not _unknown(column)]
    if not parts:
        return [None] * len(samples)
    rows = zip(*parts, strict=True)
    return [None if None in row else significant(sum(value or 0.0 for value in row), 4) for row in rows]


def _unknown(column: Column) -> bool:
    return all(value is None for value in column)
