"""What a level cost: memory and CPU of the server, its GPUs, energy, and what else went on on the machine.

From the level's samples in telemetry.jsonl: one right before it, one a second, one right after it. Of a server on
another machine nothing is known but what it declares, or tells in its own /metrics. Never a zero for what nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec

from loadbench.metrics.distribution import rounded, significant
from loadbench.store.schema import RunFacts, Sample, ScenarioFacts
from loadbench.store.summary import Course, Level

Read = Callable[[Sample], float | None]
Column = list[float | None]

SHORTEST_S = 1.0
"""Of samples that shares of the cores are told from: the system counts processor time in hundredths of a second."""
SHORTEST_STEP_S = 0.5
"""Between two samples that a rate is told from, for the same reason."""
MOST_POINTS = 120
J_PER_WH = 3600.0
WH_PER_KWH = 1000.0

OUTPUT_TOKENS = ("llamacpp:tokens_predicted_total", "vllm:generation_tokens_total")
COUNTERS = (*OUTPUT_TOKENS, "llamacpp:prompt_tokens_total", "vllm:prompt_tokens_total", "vllm:num_preemptions_total")
SPEEDS = ("llamacpp:predicted_tokens_seconds", "llamacpp:prompt_tokens_seconds")
RUNNING = ("llamacpp:requests_processing", "vllm:num_requests_running")
WAITING = ("llamacpp:requests_deferred", "vllm:num_requests_waiting")
FULL = ("vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc", "llamacpp:kv_cache_usage_ratio")


# -- samples


def typed(samples: Iterable[Mapping[str, Any]]) -> list[Sample]:
    """Samples as they are read or taken."""
    return [msgspec.convert(sample, Sample) for sample in samples]


def by_level(samples: Sequence[Sample]) -> dict[tuple[str, int], list[Sample]]:
    """The samples of each level's attempt, in their order."""
    found: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        if sample.phase == "level":
            found.setdefault((str(sample.level), sample.attempt or 0), []).append(sample)
    return found


def reader(*names: str) -> Read:
    """Reads a number from within a sample; None where it, or what it is in, is missing.

    >>> reader("cpu_energy_j")(Sample(at_s=0.0, cpu_energy_j=7)), reader("server", "cpu_s")(Sample(at_s=0.0))
    (7.0, None)
    """

    def read(sample: Sample) -> float | None:
        value: Any = sample
        for name in names:
            value = None if value is None else getattr(value, name)
        return None if value is None else float(value)

    return read


def of_gpu(index: int, name: str) -> Read:
    """Reads a figure of the GPU with that index."""

    def read(sample: Sample) -> float | None:
        for gpu in sample.gpus or ():
            if gpu.index == index:
                value = getattr(gpu, name)
                return None if value is None else float(value)
        return None

    return read


def scraped(name: str) -> Read:
    """Reads one of the server's own metrics."""

    def read(sample: Sample) -> float | None:
        value = (sample.metrics or {}).get(name)
        return None if value is None else float(value)

    return read


_LOADS = (reader("machine", "cpu_s"), reader("server", "cpu_s"), reader("client", "cpu_s"))


def values(samples: Sequence[Sample], read: Read) -> list[float]:
    """What is known, in the samples' order."""
    return [value for sample in samples if (value := read(sample)) is not None]


def largest(samples: Sequence[Sample], read: Read) -> float | None:
    """The peak; None where nothing is known."""
    return max(values(samples, read), default=None)


def mean(samples: Sequence[Sample], read: Read) -> float | None:
    """The mean; None where nothing is known."""
    known = values(samples, read)
    return sum(known) / len(known) if known else None


@dataclass(frozen=True, slots=True)
class Growth:
    """How far a counter went from the first to the last sample that has it.

    Attributes:
        amount: In the counter's unit.
        seconds: Between those two samples, more than 0.
        from_start, to_end: Whether they are the first and the last of all.
    """

    amount: float
    seconds: float
    from_start: bool
    to_end: bool

    @property
    def is_whole(self) -> bool:
        """Whether the counter was known before the level and after it."""
        return self.from_start and self.to_end


def growth(samples: Sequence[Sample], read: Read) -> Growth | None:
    """How far a counter went; None with fewer than two values, and where it fell.

    A counter that falls was begun anew, by another process or a driver that was reset: what it had counted until then
    is lost.

    >>> growth([Sample(at_s=0.0, cpu_energy_j=5.0), Sample(at_s=2.0, cpu_energy_j=9.0)], reader("cpu_energy_j"))
    Growth(amount=4.0, seconds=2.0, from_start=True, to_end=True)
    """
    known = [(i, float(sample.at_s), value) for i, sample in enumerate(samples) if (value := read(sample)) is not None]
    if len(known) < 2 or any(after[2] < before[2] for before, after in pairwise(known)):
        return None
    (first, begin_s, low), (last, end_s, high) = known[0], known[-1]
    if end_s <= begin_s:
        return None
    return Growth(high - low, end_s - begin_s, first == 0, last == len(samples) - 1)


def within(samples: Sequence[Sample]) -> Sequence[Sample]:
    """The samples taken while the level ran: all but the one before it and the one after it, where there are more."""
    return samples[1:-1] if len(samples) > 2 else samples


# -- a level's figures


def add_figures(level: Level, samples: Sequence[Sample], info: RunFacts) -> None:
    """Fill in what samples tell of a level; None for what is not known.

    Args:
        level: With its duration, the tokens it was spent on and what ran.
        samples: Of the attempt that counts.
    """
    here = samples if is_local(info) else ()
    device = (level.ran.device if level.ran else None) or level.device
    gpus = server_gpus(here, device)
    cores = None
    if info.environment is not None:  # what is busy is told of all cores, ours or not
        cores = info.environment.machine_cores or info.environment.cores
    _add_server(level, here)
    _add_gpus(level, here, gpus)
    add_energy(level, here, gpus, info.scenario or ScenarioFacts())
    level.others_cpu_share = others_cpu_share(here, cores)
    level.temperature_c_max = _hottest(here, gpus)
    level.cpu_mhz_mean = significant(mean(within(here), reader("machine", "cpu_mhz")))
    level.throttled = throttled(here, gpus)
    level.power = power(here)
    _add_scraped(level, samples)
    level.course = _course(here, gpus) if here else None


def is_local(info: RunFacts) -> bool:
    """Whether the server is on this machine, as far as the run knows."""
    return info.telemetry is None or info.telemetry.local is not False


def _add_server(level: Level, samples: Sequence[Sample]) -> None:
    """The server's processes together. CPU seconds per token only where they were counted from the level's start."""
    level.server_memory_peak_bytes = _whole(largest(samples, reader("server", "memory_bytes")))
    level.server_threads_peak = _whole(largest(samples, reader("server", "threads")))
    cpu = growth(samples, reader("server", "cpu_s"))
    if cpu is None or (not cpu.amount and cpu.seconds < SHORTEST_S):
        return  # less than a tick of the system's clock is not nothing
    level.server_cpu_s = significant(cpu.amount)
    level.server_cpu_share = significant(cpu.amount / cpu.seconds)
    if cpu.from_start and level.output_tokens_spent:
        level.cpu_s_per_1000_tokens = significant(1000 * cpu.amount / level.output_tokens_spent)


def server_gpus(samples: Sequence[Sample], device: str | None = None) -> list[int]:
    """Indices of the GPUs that count: those the server has memory on; where no driver tells that, all.

    None where the model is known to run on something else: an idle GPU draws power for nobody.
    """
    every = [gpu for sample in samples for gpu in sample.gpus or ()]
    held = dict.fromkeys(gpu.index for gpu in every if gpu.server_memory_bytes)
    if held or (device is not None and "GPU" not in device.upper()):
        return list(held)
    return list(dict.fromkeys(gpu.index for gpu in every))


def _add_gpus(level: Level, samples: Sequence[Sample], gpus: Sequence[int]) -> None:
    by_server = _gpu_memory(samples, gpus, "server_memory_bytes")
    on_device = _gpu_memory(samples, gpus, "memory_used_bytes")
    if by_server is not None:
        level.gpu_memory_peak_bytes, level.gpu_memory_source = _whole(by_server), "server"
    elif on_device is not None:
        level.gpu_memory_peak_bytes, level.gpu_memory_source = _whole(on_device), "device"
    # Drivers tell how busy the last second was: the sample before the level speaks of another time.
    busy = [share for index in gpus if (share := mean(samples[1:], of_gpu(index, "utilisation"))) is not None]
    level.gpu_utilisation_mean = significant(sum(busy) / len(busy)) if busy else None


def _gpu_memory(samples: Sequence[Sample], gpus: Sequence[int], name: str) -> float | None:
    """The largest sum over the GPUs at one moment."""
    reads = [of_gpu(index, name) for index in gpus]
    sums = []
    for sample in samples:
        known = [value for read in reads if (value := read(sample)) is not None]
        if known:
            sums.append(sum(known))
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
    reads = [reader("machine", "temperature_c"), *(of_gpu(index, "temperature_c") for index in gpus)]
    peaks = [peak for read in reads if (peak := largest(samples, read)) is not None]
    return rounded(max(peaks), 1) if peaks else None


def throttled(samples: Sequence[Sample], gpus: Sequence[int]) -> bool | None:
    """Whether the CPU's count of throttle events rose or a GPU said that it was throttled; None where neither tells."""
    counts = values(samples, reader("machine", "throttled"))
    told = [
        gpu.throttled
        for sample in samples[1:] or samples
        for gpu in sample.gpus or ()
        if gpu.index in gpus and gpu.throttled is not None
    ]
    if len(counts) < 2 and not told:
        return None
    return any(told) or (len(counts) > 1 and counts[-1] > counts[0])


def power(samples: Sequence[Sample]) -> str | None:
    """ "mains" or "battery", "changed" where it was one and then the other."""
    sources = {sample.machine.power for sample in samples if sample.machine is not None and sample.machine.power}
    return "changed" if len(sources) > 1 else next(iter(sources), None)


def _whole(value: float | None) -> int | None:
    """A whole number, for bytes and threads."""
    return None if value is None else round(value)


# -- energy


def add_energy(level: Level, samples: Sequence[Sample], gpus: Sequence[int], scenario: ScenarioFacts) -> None:
    """Fill in `energy_j`, its source, and what 1,000 output tokens of the level took.

    Args:
        samples: Of the level, without what is not the server's machine's.
        gpus: Indices of the GPUs that count.
        scenario: `declared_watts` stands in where nothing was measured, `price_per_kwh` gives the cost.
    """
    joules, source = measured_energy(samples, gpus)
    if joules is None and scenario.declared_watts and level.duration_s:
        joules, source = scenario.declared_watts * level.duration_s, "declared"
    level.energy_j, level.energy_source = significant(joules), source
    if joules is None or not level.output_tokens_spent:
        return
    per_1000_j = 1000 * joules / level.output_tokens_spent
    per_1000_wh = per_1000_j / J_PER_WH
    level.j_per_1000_tokens = significant(per_1000_j)
    level.wh_per_1000_tokens = significant(per_1000_wh)
    if scenario.price_per_kwh:
        level.cost_per_1000_tokens = significant(per_1000_wh / WH_PER_KWH * scenario.price_per_kwh)


def measured_energy(samples: Sequence[Sample], gpus: Sequence[int]) -> tuple[float | None, str | None]:
    """Joules of the whole devices over the level, and what they are of: "gpu", "cpu" or "gpu+cpu"."""
    of_gpus = [_gpu_joules(samples, index) for index in gpus]
    known_of_gpus = [joules for joules in of_gpus if joules is not None]
    parts: dict[str, float] = {}
    if known_of_gpus and len(known_of_gpus) == len(of_gpus):  # the sum of some is the energy of none
        parts["gpu"] = sum(known_of_gpus)
    cpu = growth(samples, reader("cpu_energy_j"))
    if cpu is not None and cpu.is_whole:
        parts["cpu"] = cpu.amount
    return (sum(parts.values()), "+".join(parts)) if parts else (None, None)


def _gpu_joules(samples: Sequence[Sample], index: int) -> float | None:
    """Energy of one GPU: by its counter, else its power over time, by trapezoids from the first sample to the last."""
    counted = growth(samples, of_gpu(index, "energy_j"))
    if counted is not None and counted.is_whole:
        return counted.amount
    watts = [of_gpu(index, "power_w")(sample) for sample in samples]
    if len(watts) < 2 or watts[0] is None or watts[-1] is None:
        return None
    known = [(float(sample.at_s), w) for sample, w in zip(samples, watts, strict=True) if w is not None]
    return sum((before + after) / 2 * (end_s - begin_s) for (begin_s, before), (end_s, after) in pairwise(known))


# -- the server's own account, from its /metrics


def _add_scraped(level: Level, samples: Sequence[Sample]) -> None:
    """`server_metrics` by the server's own names, and the output tokens per second that it counted; None without any.

    Counters: how far they went over the level. Speeds: the mean of those that are not 0, for they are 0 while nothing
    is generated. Requests running and waiting: the mean while the level ran. Shares of a cache: the largest.
    """
    found: dict[str, float | None] = {}
    for name in COUNTERS:
        grown = growth(samples, scraped(name))
        found[name] = grown.amount if grown else None
    for name in SPEEDS:
        speeds = [speed for speed in values(samples, scraped(name)) if speed]
        found[name] = sum(speeds) / len(speeds) if speeds else None
    for name in (*RUNNING, *WAITING):
        found[name] = mean(within(samples), scraped(name))
    for name in FULL:
        found[name] = largest(samples, scraped(name))
    known = {name: significant(value) for name, value in found.items() if value is not None}
    level.server_metrics = known or None
    for name in OUTPUT_TOKENS:
        grown = growth(samples, scraped(name))
        if grown is not None:
            level.server_output_tokens_per_s = significant(grown.amount / grown.seconds)
            break


# -- the course of a level, for a timeline


def _course(samples: Sequence[Sample], gpus: Sequence[int]) -> Course | None:
    """The level's samples as columns of at most 120 rows; None where they tell none of it.

    Cores and power are means since the row before, so that the first row has none.
    """
    kept = _thinned(samples)
    begin_s = float(kept[0].at_s)
    columns = {
        "server_memory_bytes": [reader("server", "memory_bytes")(sample) for sample in kept],
        "server_cores": _rates(kept, reader("server", "cpu_s")),
        "gpu_utilisation": [_over_gpus(sample, gpus, "utilisation", mean=True) for sample in kept],
        "power_w": _power(kept, gpus),
    }
    if all(_is_unknown(column) for column in columns.values()):
        return None
    known = {name: None if _is_unknown(column) else column for name, column in columns.items()}
    return Course(t_s=[round(float(sample.at_s) - begin_s, 3) for sample in kept], **known)


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
        seconds = float(after.at_s) - float(before.at_s)
        if low is None or high is None or high < low or seconds < SHORTEST_STEP_S:
            found.append(None)
        else:
            found.append(significant((high - low) / seconds, 4))
    return found


def _over_gpus(sample: Sample, gpus: Sequence[int], name: str, *, mean: bool = False) -> float | None:
    """The sum or mean over the GPUs that count; None where one of them does not tell."""
    told = [of_gpu(index, name)(sample) for index in gpus]
    known = [value for value in told if value is not None]
    if not known or len(known) < len(told):
        return None
    return significant(sum(known) / (len(known) if mean else 1), 4)


def _power(samples: Sequence[Sample], gpus: Sequence[int]) -> Column:
    """Watts of the GPUs that count and of the CPU, whichever are known of the whole course."""
    of_gpus: Column = [_over_gpus(sample, gpus, "power_w") for sample in samples]
    of_cpu = _rates(samples, reader("cpu_energy_j"))
    parts = [column for column in (of_gpus, of_cpu) if not _is_unknown(column)]
    if not parts:
        return [None] * len(samples)
    rows = zip(*parts, strict=True)
    return [None if None in row else significant(sum(value or 0.0 for value in row), 4) for row in rows]


def _is_unknown(column: Column) -> bool:
    return all(value is None for value in column)
