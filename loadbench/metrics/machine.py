"""What a level cost: memory and CPU of the server, its GPUs, energy, and what else went on on the machine.

From the level's samples in telemetry.jsonl: one right before it, one a second, one right after it. Of a server on
another machine nothing is known but what it declares, or has in its own /metrics. Never a zero for what is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from loadbench.store.record import Facts
from loadbench.store.schema import RunFacts, Sample, ScenarioFacts
from loadbench.store.summary import Course, Level, rounded, significant

# One value a sample; None where it is unknown.
Column = Sequence[float | None]

# Of samples that shares of the cores are taken from: the system counts processor time in hundredths of a second.
SHORTEST_S = 1.0
# Between two samples that a rate is taken from, for the same reason.
SHORTEST_STEP_S = 0.5
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


def typed(samples: Iterable[Facts]) -> list[Sample]:
    """Samples as they are read or taken."""
    return [msgspec.convert(sample, Sample) for sample in samples]


def by_level(samples: Sequence[Sample]) -> dict[tuple[str, int], list[Sample]]:
    """The samples of each level's attempt, in their order."""
    found: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        if sample.phase == "level":
            found.setdefault((str(sample.level), sample.attempt or 0), []).append(sample)
    return found


def column(samples: Sequence[Sample], part: str, name: str) -> list[float | None]:
    """A figure of one part of the samples: "server", "client" or "machine".

    >>> column([Sample(at_s=0.0)], "server", "cpu_s")
    [None]
    """
    return [_figure(getattr(sample, part), name) for sample in samples]


def of_gpu(samples: Sequence[Sample], index: int, name: str) -> list[float | None]:
    """A figure of the GPU with that index."""
    found: list[float | None] = []
    for sample in samples:
        gpu = next((gpu for gpu in sample.gpus or () if gpu.index == index), None)
        found.append(_figure(gpu, name))
    return found


def of_gpus(samples: Sequence[Sample], gpus: Sequence[int], name: str) -> list[list[float | None]]:
    """A figure of each of several GPUs."""
    return [of_gpu(samples, index, name) for index in gpus]


def _figure(part: object, name: str) -> float | None:
    figure = getattr(part, name, None)
    if figure is None:
        return None
    return float(figure)


def known(values: Column) -> list[float]:
    """What is known, in the samples' order."""
    return [value for value in values if value is not None]


def mean(values: Column) -> float | None:
    """The mean of what is known."""
    figures = known(values)
    if not figures:
        return None
    return sum(figures) / len(figures)


@dataclass(frozen=True, slots=True)
class Growth:
    """How far a counter went from the first to the last sample that has it.

    Attributes:
        amount: In the counter's unit.
        seconds: Between those two samples, more than 0.
        from_start, to_end: Whether they are the first and the last of all: the counter was known before the level, and
            after it.
    """

    amount: float
    seconds: float
    from_start: bool
    to_end: bool


def growth(samples: Sequence[Sample], values: Column) -> Growth | None:
    """How far a counter went; None with fewer than two values, and where it fell.

    A counter that falls was begun anew, by another process or a driver that was reset: what it had counted until then
    is lost.

    >>> growth([Sample(at_s=0.0), Sample(at_s=2.0)], [5.0, 9.0])
    Growth(amount=4.0, seconds=2.0, from_start=True, to_end=True)
    """
    counts = known(values)
    if len(counts) < 2 or counts != sorted(counts):
        return None
    places = [place for place, value in enumerate(values) if value is not None]
    seconds = float(samples[places[-1]].at_s) - float(samples[places[0]].at_s)
    if seconds <= 0:
        return None
    return Growth(counts[-1] - counts[0], seconds, places[0] == 0, places[-1] == len(samples) - 1)


def within(samples: Sequence[Sample]) -> Sequence[Sample]:
    """The samples taken while the level ran: all but the one before it and the one after it, where there are more."""
    return samples[1:-1] if len(samples) > 2 else samples


# -- a level's figures


def add_figures(level: Level, samples: Sequence[Sample], info: RunFacts) -> None:
    """Fill in what samples say of a level; None for what is unknown.

    Args:
        level: With its duration, the tokens it was spent on and what ran.
        samples: Of the attempt that counts.
    """
    _add_scraped(level, samples)
    if info.telemetry is not None and info.telemetry.local is False:
        samples = ()  # they are of this machine, and the server is on another
    device = level.device
    if level.ran is not None and level.ran.device:
        device = level.ran.device
    gpus = server_gpus(samples, device)
    _add_server(level, samples, gpus)
    add_energy(level, samples, gpus, info.scenario or ScenarioFacts())
    cores = None
    if info.environment is not None:  # the machine's processor time is that of all its cores, ours or not
        cores = info.environment.machine_cores or info.environment.cores
    level.others_cpu_share = others_cpu_share(samples, cores)
    temperatures = known(column(samples, "machine", "temperature_c"))
    for degrees in of_gpus(samples, gpus, "temperature_c"):
        temperatures += known(degrees)
    level.temperature_c_max = rounded(max(temperatures, default=None), 1)
    level.cpu_mhz_mean = significant(mean(column(within(samples), "machine", "cpu_mhz")))
    level.throttled = throttled(samples, gpus)
    sources: set[str] = set()
    for sample in samples:
        if sample.machine is not None and sample.machine.power:
            sources.add(sample.machine.power)
    level.power = next(iter(sources), None)
    if len(sources) > 1:  # figures of both mains and battery are those of neither
        level.power = "changed"
    level.course = _course(samples, gpus)


def _add_server(level: Level, samples: Sequence[Sample], gpus: Sequence[int]) -> None:
    """The server's processes together, and its GPUs."""
    if memory := known(column(samples, "server", "memory_bytes")):
        level.server_memory_peak_bytes = round(max(memory))
    if threads := known(column(samples, "server", "threads")):
        level.server_threads_peak = round(max(threads))
    cpu = growth(samples, column(samples, "server", "cpu_s"))
    # Less than a tick of the system's clock is not nothing.
    if cpu is not None and (cpu.amount or cpu.seconds >= SHORTEST_S):
        level.server_cpu_s = significant(cpu.amount)
        level.server_cpu_share = significant(cpu.amount / cpu.seconds)
        if cpu.from_start and level.output_tokens_spent:
            level.cpu_s_per_1000_tokens = significant(1000 * cpu.amount / level.output_tokens_spent)
    for source, name in (("server", "server_memory_bytes"), ("device", "memory_used_bytes")):
        # A moment at which no GPU reports is no zero.
        moments = filter(None, map(known, zip(*of_gpus(samples, gpus, name), strict=True)))
        most = max(map(sum, moments), default=None)
        if most is not None:
            level.gpu_memory_peak_bytes, level.gpu_memory_source = round(most), source
            break
    # Drivers say how busy the last second was: the sample before the level speaks of another time.
    means = list(map(mean, of_gpus(samples[1:], gpus, "utilisation")))
    level.gpu_utilisation_mean = significant(mean(means))


def server_gpus(samples: Sequence[Sample], device: str | None = None) -> list[int]:
    """Indices of the GPUs that count: those the server has memory on; where no driver says that, all.

    None where the model is known to run on something else: an idle GPU draws power for nobody.
    """
    every: dict[int, None] = {}  # as ordered sets
    held: dict[int, None] = {}
    for sample in samples:
        for gpu in sample.gpus or ():
            every[gpu.index] = None
            if gpu.server_memory_bytes:
                held[gpu.index] = None
    if held or (device is not None and "GPU" not in device.upper()):
        return list(held)
    return list(every)


def others_cpu_share(samples: Sequence[Sample], cores: int | None) -> float | None:
    """Share of all cores that neither the server nor this client used; None where one of the three is unknown, or the
    samples are less than a second apart."""
    # All three over the same stretch of time: from the first sample that has them all to the last one.
    complete = list(samples)
    for part in ("machine", "server", "client"):
        complete = [sample for sample in complete if _figure(getattr(sample, part), "cpu_s") is not None]
    machine = growth(complete, column(complete, "machine", "cpu_s"))
    server = growth(complete, column(complete, "server", "cpu_s"))
    client = growth(complete, column(complete, "client", "cpu_s"))
    if machine is None or server is None or client is None or not cores or machine.seconds < SHORTEST_S:
        return None
    # The three are read one after the other, so that an idle machine may come out a little below 0.
    return rounded(max(0.0, machine.amount - server.amount - client.amount) / (cores * machine.seconds), 6)


def throttled(samples: Sequence[Sample], gpus: Sequence[int]) -> bool | None:
    """Whether the CPU's count of throttle events rose or a GPU was throttled; None where neither is known."""
    counts = known(column(samples, "machine", "throttled"))
    flags: list[float] = []
    # The sample before the level speaks of another time, and is taken where it is the only one.
    for of_one in of_gpus(samples[1:] or samples, gpus, "throttled"):
        flags += known(of_one)
    if len(counts) < 2 and not flags:
        return None
    return any(flags) or (len(counts) > 1 and counts[-1] > counts[0])


# -- energy


def add_energy(level: Level, samples: Sequence[Sample], gpus: Sequence[int], scenario: ScenarioFacts) -> None:
    """Fill in `energy_j`, its source, and what the output tokens of the level took and cost.

    Args:
        samples: Of the level, without what is not the server's machine's.
        gpus: Indices of the GPUs that count.
        scenario: `declared_watts` stands in where nothing was measured, `price_per_kwh` and `price_per_hour` give the
            cost: that of the energy, of the machine's time, or of both.
    """
    joules, source = measured_energy(samples, gpus)
    if joules is None and scenario.declared_watts and level.duration_s:
        joules, source = scenario.declared_watts * level.duration_s, "declared"
    level.energy_j, level.energy_source = significant(joules), source
    if not level.output_tokens_spent:
        return
    thousands = level.output_tokens_spent / 1000
    cost = 0.0
    if scenario.price_per_hour and level.duration_s:
        cost += scenario.price_per_hour * level.duration_s / 3600 / thousands
    if joules is not None:
        per_1000_wh = joules / J_PER_WH / thousands
        level.j_per_1000_tokens = significant(joules / thousands)
        level.wh_per_1000_tokens = significant(per_1000_wh)
        cost += per_1000_wh / WH_PER_KWH * (scenario.price_per_kwh or 0.0)
    if cost:
        level.cost_per_1000_tokens = significant(cost)
        level.cost_per_million_tokens = significant(1000 * cost)


def measured_energy(samples: Sequence[Sample], gpus: Sequence[int]) -> tuple[float | None, str | None]:
    """Joules of the whole devices over the level, and what they are of: "gpu", "cpu" or "gpu+cpu"."""
    joules = [_gpu_joules(samples, index) for index in gpus]
    parts: dict[str, float] = {}
    if gpus and None not in joules:  # the sum of some is the energy of none
        parts["gpu"] = sum(known(joules))
    cpu = growth(samples, [sample.cpu_energy_j for sample in samples])
    if cpu is not None and cpu.from_start and cpu.to_end:
        parts["cpu"] = cpu.amount
    if not parts:
        return None, None
    return sum(parts.values()), "+".join(parts)


def _gpu_joules(samples: Sequence[Sample], index: int) -> float | None:
    """Energy of one GPU: by its counter, else its power over time, by trapezoids from the first sample to the last."""
    counted = growth(samples, of_gpu(samples, index, "energy_j"))
    if counted is not None and counted.from_start and counted.to_end:
        return counted.amount
    watts = of_gpu(samples, index, "power_w")
    if len(watts) < 2 or watts[0] is None or watts[-1] is None:
        return None
    joules = 0.0
    begin_s, before = float(samples[0].at_s), watts[0]
    for sample, after in zip(samples, watts, strict=True):
        if after is not None:  # a straight line bridges samples without a figure
            joules += (before + after) / 2 * (float(sample.at_s) - begin_s)
            begin_s, before = float(sample.at_s), after
    return joules


# -- the server's own account, from its /metrics


def _add_scraped(level: Level, samples: Sequence[Sample]) -> None:
    """`server_metrics` by the server's own names, and the output tokens per second that it counted; None without any.

    Counters: how far they went over the level. Speeds: the mean of those that are not 0, for they are 0 while nothing
    is generated. Requests running and waiting: the mean while the level ran. Shares of a cache: the largest.
    """

    def scraped(name: str, samples: Sequence[Sample] = samples) -> list[float | None]:
        return [(sample.metrics or {}).get(name) for sample in samples]

    found: dict[str, float | None] = {}
    for name in COUNTERS:
        grown = growth(samples, scraped(name))
        if grown is None:
            continue
        found[name] = grown.amount
        if name in OUTPUT_TOKENS and level.server_output_tokens_per_s is None:
            level.server_output_tokens_per_s = significant(grown.amount / grown.seconds)
    for name in SPEEDS:
        found[name] = mean(list(filter(None, scraped(name))))
    for name in (*RUNNING, *WAITING):
        found[name] = mean(scraped(name, within(samples)))
    for name in FULL:
        found[name] = max(known(scraped(name)), default=None)
    level.server_metrics = {name: significant(value) for name, value in found.items() if value is not None} or None


# -- the course of a level, for a timeline


def _course(samples: Sequence[Sample], gpus: Sequence[int]) -> Course | None:
    """The level's samples as columns of at most 120 rows; None where none of it is known.

    Cores and power are means since the row before, so that the first row has none.
    """
    if not samples:
        return None
    step = -(-len(samples) // (MOST_POINTS - 1))
    kept = list(samples[::step])
    if kept[-1] is not samples[-1]:
        kept.append(samples[-1])
    # Watts of the GPUs that count and of the CPU, whichever are known of the whole course.
    of_all = _over_gpus(kept, gpus, "power_w")
    of_cpu = _per_s(kept, [sample.cpu_energy_j for sample in kept])
    columns: dict[str, list[float | None] | None] = {}
    for name, values in (
        ("server_memory_bytes", column(kept, "server", "memory_bytes")),
        ("server_cores", _per_s(kept, column(kept, "server", "cpu_s"))),
        ("gpu_utilisation", _over_gpus(kept, gpus, "utilisation", mean=True)),
        ("power_w", _sums(list(filter(known, (of_all, of_cpu))))),
    ):
        columns[name] = values if known(values) else None
    if not any(columns.values()):
        return None
    begin_s = float(kept[0].at_s)
    return Course(t_s=[round(float(sample.at_s) - begin_s, 3) for sample in kept], **columns)


def _per_s(samples: Sequence[Sample], values: Column) -> list[float | None]:
    """A counter's growth per second since the row before; None where it is unknown or fell."""
    found: list[float | None] = [None]
    for (before, low), (after, high) in pairwise(zip(samples, values, strict=True)):
        seconds = float(after.at_s) - float(before.at_s)
        if low is None or high is None or high < low or seconds < SHORTEST_STEP_S:
            found.append(None)
        else:
            found.append(significant((high - low) / seconds, 4))
    return found


def _over_gpus(samples: Sequence[Sample], gpus: Sequence[int], name: str, *, mean: bool = False) -> list[float | None]:
    """The sum or mean over the GPUs that count; None where it is unknown of one of them."""
    return _sums(of_gpus(samples, gpus, name), divisor=len(gpus) if mean else 1)


def _sums(columns: Sequence[Column], divisor: int = 1) -> list[float | None]:
    """Row by row; a sum with an unknown part is no sum."""
    found: list[float | None] = []
    for row in zip(*columns, strict=True):
        if None in row:
            found.append(None)
        else:
            found.append(significant(sum(known(row)) / divisor, 4))
    return found
