"""What a level cost: memory and CPU of the server, its GPUs, energy, and what else went on on the machine.

From the level's samples in telemetry.jsonl: one right before it, one a second, one right after it. Of a server on
another machine nothing is known but what it declares, or tells in its own /metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadbench.metrics import energy, scraped
from loadbench.metrics.distribution import rounded, significant
from loadbench.metrics.samples import Sample, growth, largest, mean, reader, within

SHORTEST_S = 1.0
"""Of samples that shares of the cores are told from: the system counts processor time in hundredths of a second."""
_LOADS = (reader("machine", "cpu_s"), reader("server", "cpu_s"), reader("client", "cpu_s"))


def figures(
    samples: Sequence[Sample],
    info: Mapping[str, Any],
    *,
    duration_s: float | None,
    tokens: float | None,
    device: str | None = None,
) -> dict[str, Any]:
    """The level's fields of summary.json that come from samples; None for what is not known.

    Args:
        samples: Of the attempt that counts.
        info: run.json.
        duration_s: Of the level.
        tokens: Output tokens of all its requests, warm-up included.
        device: What the model ran on, where that is known.
    """
    here = samples if is_local(info) else ()
    gpus = server_gpus(here, device)
    scenario = info.get("scenario") or {}
    environment = info.get("environment") or {}
    cores = environment.get("machine_cores") or environment.get("cores")  # what is busy is told of all, ours or not
    return {
        **_server(here, tokens),
        **_gpu(here, gpus),
        **energy.figures(here, gpus, scenario, duration_s=duration_s, tokens=tokens),
        "others_cpu_share": others_cpu_share(here, cores),
        "temperature_c_max": _hottest(here, gpus),
        "cpu_mhz_mean": significant(mean(within(here), reader("machine", "cpu_mhz"))),
        "throttled": throttled(here, gpus),
        "power": power(here),
        **scraped.figures(samples),
    }


def is_local(info: Mapping[str, Any]) -> bool:
    """Whether the server is on this machine, as far as the run knows."""
    return (info.get("telemetry") or {}).get("local") is not False


def _server(samples: Sequence[Sample], tokens: float | None) -> dict[str, Any]:
    """The server's processes together. CPU seconds per token only where they were counted from the level's start."""
    cpu = growth(samples, reader("server", "cpu_s"))
    if cpu is not None and not cpu.amount and cpu.seconds < SHORTEST_S:
        cpu = None  # less than a tick of the system's clock is not nothing
    per_1000 = 1000 * cpu.amount / tokens if cpu is not None and cpu.from_start and tokens else None
    return {
        "server_memory_peak_bytes": whole(largest(samples, reader("server", "memory_bytes"))),
        "server_cpu_s": significant(cpu.amount) if cpu else None,
        "server_cpu_share": significant(cpu.amount / cpu.seconds) if cpu else None,
        "cpu_s_per_1000_tokens": significant(per_1000),
        "server_threads_peak": whole(largest(samples, reader("server", "threads"))),
    }


def server_gpus(samples: Sequence[Sample], device: str | None = None) -> list[int]:
    """Indices of the GPUs that count: those the server has memory on; where no driver tells that, all.

    None where the model is known to run on something else: an idle GPU draws power for nobody.
    """
    every = [gpu for sample in samples for gpu in sample.get("gpus") or ()]
    held = dict.fromkeys(gpu["index"] for gpu in every if gpu.get("server_memory_bytes"))
    if held or (device is not None and "GPU" not in device.upper()):
        return list(held)
    return list(dict.fromkeys(gpu["index"] for gpu in every))


def _gpu(samples: Sequence[Sample], gpus: Sequence[int]) -> dict[str, Any]:
    by_server, on_device = (
        _gpu_memory(samples, gpus, "server_memory_bytes"),
        _gpu_memory(samples, gpus, "memory_used_bytes"),
    )
    busy = [share for index in gpus if (share := mean(samples[1:], energy.of_gpu(index, "utilisation"))) is not None]
    source = "server" if by_server is not None else "device" if on_device is not None else None
    return {
        "gpu_memory_peak_bytes": whole(by_server if by_server is not None else on_device),
        "gpu_memory_source": source,
        # Drivers tell how busy the last second was: the sample before the level speaks of another time.
        "gpu_utilisation_mean": significant(sum(busy) / len(busy)) if busy else None,
    }


def _gpu_memory(samples: Sequence[Sample], gpus: Sequence[int], name: str) -> float | None:
    """The largest sum over the GPUs at one moment."""
    reads = [energy.of_gpu(index, name) for index in gpus]
    sums = []
    for sample in samples:
        known = [value for read in reads if (value := read(sample)) is not None]
        sums += [sum(known)] if known else []
    return max(sums, default=None)


def others_cpu_share(samples: Sequence[Sample], cores: int | None) -> float | None:
    """Share of all cores that neither the server nor this client used; None where one of the three is not known, or
    the samples are less than a second apart."""
    known = [sample for sample in samples if all(read(sample) is not None for read in _LOADS)]
    machine, server, client = (growth(known, read) for read in _LOADS)
    if machine is None or server is None or client is None or not cores or machine.seconds < SHORTEST_S:
        return None
    # The three are read one after the other, so that an idle machine may come out a little below 0.
    return rounded(max(0.0, machine.amount - server.amount - client.amount) / (cores * machine.seconds), 6)


def _hottest(samples: Sequence[Sample], gpus: Sequence[int]) -> float | None:
    """Of the CPU and the GPUs that count."""
    reads = [reader("machine", "temperature_c"), *(energy.of_gpu(index, "temperature_c") for index in gpus)]
    peaks = [peak for read in reads if (peak := largest(samples, read)) is not None]
    return rounded(max(peaks), 1) if peaks else None


def throttled(samples: Sequence[Sample], gpus: Sequence[int]) -> bool | None:
    """Whether the CPU's count of throttle events rose or a GPU said that it was throttled; None where neither tells."""
    counts = [value for sample in samples if (value := reader("machine", "throttled")(sample)) is not None]
    said = [
        bool(gpu["throttled"])
        for sample in samples[1:] or samples
        for gpu in sample.get("gpus") or ()
        if gpu.get("index") in gpus and gpu.get("throttled") is not None
    ]
    if len(counts) < 2 and not said:
        return None
    return any(said) or (len(counts) > 1 and counts[-1] > counts[0])


def power(samples: Sequence[Sample]) -> str | None:
    """ "mains" or "battery", "changed" where it was one and then the other."""
    sources = {source for sample in samples if (source := (sample.get("machine") or {}).get("power")) is not None}
    return "changed" if len(sources) > 1 else next(iter(sources), None)


def whole(value: float | None) -> int | None:
    """A whole number, for bytes and threads."""
    return None if value is None else round(value)
