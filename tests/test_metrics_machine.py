"""What a level cost: memory, CPU, GPU, other load, heat, energy, and the server's own metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from loadbench.metrics import summarise
from loadbench.metrics.machine import (
    Growth,
    by_level,
    column,
    growth,
    mean,
    measured_energy,
    others_cpu_share,
    server_gpus,
    throttled,
    typed,
    within,
)
from loadbench.store.schema import Sample
from tests.support.plain import energy
from tests.support.plain import sampled as figures
from tests.support.samples import GB, gpu, machine, sample, server
from tests.support.streams import level_data, run, stream

LOCAL = {"telemetry": {"local": True}, "environment": {"cores": 4}}
REMOTE = {"telemetry": {"local": False}, "environment": {"cores": 4}}
Samples = list[dict[str, Any]]


def of(samples: Samples, info: dict[str, Any] = LOCAL, tokens: int | None = 2000, **more: Any) -> dict[str, Any]:
    return figures(samples, info, duration_s=60.0, tokens=tokens, **more)


def gpus(name: str, *values: Any) -> Samples:
    """A sample a second of a figure of one GPU."""
    return [sample(at, gpus=[gpu(**{name: value})]) for at, value in enumerate(values)]


def scrapes(name: str, *values: float | None) -> Samples:
    return [sample(at, metrics=None if value is None else {name: value}) for at, value in enumerate(values)]


def powers(*sources: str | None) -> Samples:
    return [sample(at, machine=machine(power=source)) for at, source in enumerate(sources)]


HELD = [[gpu(i, server_memory_bytes=n * GB) for i, n in enumerate(held)] for held in ((4, 1), (3, 3))]
HEAT = ((1000, 40.0, 50), (3000, 61.5, 58), (3200, 60.0, 57), (900, 45.0, 51))
GENERATED = "vllm:generation_tokens_total"
UNKNOWN_CPU = dict.fromkeys(("server_cpu_s", "server_cpu_share", "cpu_s_per_1000_tokens"))

# What each row says, a level's samples, and its figures.
FIGURES = [
    (
        "memory and threads are the largest that a sample saw",
        [
            sample(0, server=server(1.0, 2 * GB, 8)),
            sample(1, server=server(2.0, 5 * GB, 9)),
            sample(2, server=server(3)),
        ],
        {"server_memory_peak_bytes": 5 * GB, "server_threads_peak": 9},
    ),
    (
        "CPU time is the last sample less the first, and a share of the time between them",
        [sample(10.0, server=server(100.0)), sample(11.0, server=server(102.0)), sample(14.0, server=server(105.0))],
        {"server_cpu_s": 5.0, "server_cpu_share": 1.25, "cpu_s_per_1000_tokens": 2.5},
    ),
    (
        "a server found late has a share but no CPU time per token",
        [sample(0), sample(1, server=server(100.0)), sample(3, server=server(101.0))],
        {"server_cpu_share": 0.5, "cpu_s_per_1000_tokens": None},
    ),
    (
        "a server that died is known until then",
        [sample(0, server=server(100.0)), sample(2, server=server(101.0, 3 * GB)), sample(3), sample(4)],
        {"server_cpu_s": 1.0, "server_cpu_share": 0.5, "server_memory_peak_bytes": 3 * GB},
    ),
    (
        "one sample has the memory and no time",
        [sample(0, server=server(100.0))],
        {"server_memory_peak_bytes": GB, **UNKNOWN_CPU},
    ),
    (
        "another process in the server's place gives no CPU time",
        [sample(0, server=server(100.0)), sample(1, server=server(0.5))],
        UNKNOWN_CPU,
    ),
    (
        "less than a tick of processor time is unknown and not 0",
        [sample(0, server=server(7.0)), sample(0.2, server=server(7.0))],
        UNKNOWN_CPU,
    ),
    (
        "an idle server used none",
        [sample(0, server=server(7.0)), sample(30, server=server(7.0))],
        {"server_cpu_s": 0.0},
    ),
    (
        "GPU memory is the server's where the driver has it",
        [sample(at, gpus=[gpu(memory_used_bytes=9 * GB, server_memory_bytes=at * GB)]) for at in (1, 3, 2)],
        {"gpu_memory_peak_bytes": 3 * GB, "gpu_memory_source": "server"},
    ),
    (
        "GPU memory is the device's where no driver says whose it is",
        gpus("memory_used_bytes", 9 * GB),
        {"gpu_memory_peak_bytes": 9 * GB, "gpu_memory_source": "device"},
    ),
    (
        "GPU memory is the largest sum over the GPUs at one moment",
        [sample(at, gpus=held) for at, held in enumerate(HELD)],
        {"gpu_memory_peak_bytes": 6 * GB},
    ),
    (
        "how busy a GPU was leaves out the sample from before",
        gpus("utilisation", 0.0, 0.9, 0.7),
        {"gpu_utilisation_mean": 0.8},
    ),
    ("mains", powers("mains", "mains"), {"power": "mains"}),
    ("a power that changes in mid-level", powers("mains", "battery"), {"power": "changed"}),
    ("battery", powers(None, "battery"), {"power": "battery"}),
    ("no power is known", powers(None), {"power": None}),
    (
        "the hottest of CPU and GPU counts, and the clock is that of the level",
        [
            sample(at, machine=machine(cpu_mhz=mhz, temperature_c=cpu_c), gpus=[gpu(temperature_c=gpu_c)])
            for at, (mhz, cpu_c, gpu_c) in enumerate(HEAT)
        ],
        {"temperature_c_max": 61.5, "cpu_mhz_mean": 3100.0},
    ),
    (
        "a counter of the server's: how far it went",
        scrapes("llamacpp:tokens_predicted_total", 50.0, 80.0, 250.0),
        {"server_metrics": {"llamacpp:tokens_predicted_total": 200.0}},
    ),
    (
        "a speed is 0 while nothing is generated",
        scrapes("llamacpp:predicted_tokens_seconds", 0.0, 40.0, 50.0),
        {"server_metrics": {"llamacpp:predicted_tokens_seconds": 45.0}},
    ),
    (
        "requests that run are those while the level ran",
        scrapes("llamacpp:requests_processing", 0.0, 4.0, 2.0, 0.0),
        {"server_metrics": {"llamacpp:requests_processing": 3.0}},
    ),
    (
        "and so are those that wait",
        scrapes("vllm:num_requests_waiting", 0.0, 6.0, 0.0),
        {"server_metrics": {"vllm:num_requests_waiting": 6.0}},
    ),
    (
        "of a cache the fullest counts",
        scrapes("vllm:kv_cache_usage_perc", 0.1, 0.8, 0.3),
        {"server_metrics": {"vllm:kv_cache_usage_perc": 0.8}},
    ),
    (
        "the tokens per second that the server counted stand beside ours",
        scrapes(GENERATED, 100.0, 200.0, 400.0),
        {"server_output_tokens_per_s": 150.0},
    ),
    *(
        (f"a server whose counter says {values}", scrapes(GENERATED, *values), {"server_metrics": None})
        for values in ((None, None), (400.0,), (400.0, 3.0))
    ),
]


@pytest.mark.parametrize(("samples", "expected"), [pytest.param(*row, id=name) for name, *row in FIGURES])
def test_samples_say_what_a_level_cost(samples: Samples, expected: dict[str, Any]) -> None:
    found = of(samples)

    assert {name: found[name] for name in expected} == expected


def test_without_samples_and_of_a_server_elsewhere_nothing_is_known() -> None:
    load = {"client": {"cpu_s": 2.0}, "gpus": [gpu()]}
    both = [sample(at, server=server(at), machine=machine(9 * at, power="mains", throttled=0), **load) for at in (1, 2)]

    assert set(of([]).values()) == set(of(both, REMOTE).values()) == {None}
    assert of(both)["power"] == "mains"


def test_of_a_server_elsewhere_declared_watts_and_its_own_metrics_count() -> None:
    info = {**REMOTE, "scenario": {"declared_watts": 300.0}}

    found = of([sample(at, metrics={GENERATED: 100 * at}) for at in (0, 2)], info)

    assert (found["energy_j"], found["energy_source"]) == (18_000.0, "declared")
    assert found["server_output_tokens_per_s"] == 100.0


def test_the_gpus_that_count_are_those_the_server_has_memory_on() -> None:
    two = sample(0, gpus=[gpu(0, server_memory_bytes=None), gpu(1, server_memory_bytes=GB)])

    assert server_gpus(typed([two])) == [1]
    assert server_gpus(typed([sample(0, gpus=[gpu(0), gpu(1)])])) == [0, 1]


@pytest.mark.parametrize(("device", "counted"), [("CPU", []), ("NPU", []), ("GPU", [0]), ("GPU+CPU", [0]), (None, [0])])
def test_a_gpu_does_not_count_for_a_model_that_runs_elsewhere(device: str | None, counted: list[int]) -> None:
    assert server_gpus(typed([sample(0, gpus=[gpu()])]), device) == counted


# -- counters


def counted(*values: float | None) -> list[Sample]:
    """A sample a second; None where the server was not found."""
    return typed(sample(i, server=None if v is None else {"cpu_s": v}) for i, v in enumerate(values))


GROWTHS = [
    # values, a second apart; amount, seconds, from the start, to the end
    pytest.param((10.0, 11.5, 14.0), (4.0, 2.0, True, True), id="a counter that goes on"),
    pytest.param((10.0, 10.0), (0.0, 1.0, True, True), id="one that stands still has a growth of 0"),
    pytest.param((None, 10.0, 14.0), (4.0, 1.0, False, True), id="found late"),
    pytest.param((10.0, 14.0, None, None), (4.0, 1.0, True, False), id="a server that died"),
    pytest.param((10.0, None, 16.0), (6.0, 2.0, True, True), id="one sample that failed"),
    *((values, None) for values in ((), (10.0,), (None, 10.0), (None, None))),  # fewer than two
    *((values, None) for values in ((10.0, 2.0), (10.0, 2.0, 30.0))),  # begun anew
]


@pytest.mark.parametrize(("values", "expected"), GROWTHS)
def test_a_counter_grew_from_its_first_to_its_last_sample(
    values: tuple[float | None, ...], expected: tuple[float, float, bool, bool] | None
) -> None:
    samples = counted(*values)

    assert growth(samples, column(samples, "server", "cpu_s")) == (expected and Growth(*expected))


def test_two_samples_of_one_moment_are_no_growth() -> None:
    assert growth(typed([sample(3.0), sample(3.0)]), [1.0, 2.0]) is None


def test_means_are_of_what_is_known() -> None:
    assert (mean([1.0, None, 4.0]), mean([]), mean([None])) == (2.5, None, None)


def test_the_samples_before_and_after_a_level_are_not_within_it() -> None:
    three, two = counted(1.0, 2.0, 3.0), counted(1.0, 2.0)

    assert within(three) == three[1:2]
    assert within(two) == two


def test_samples_belong_to_an_attempt_of_a_level() -> None:
    level = [sample(0, attempt=1), sample(1, attempt=2), sample(2, level="m@c2")]
    first, again, other, idle = typed([*level, {**sample(3), "phase": "idle", "level": None}])

    found = by_level([first, again, other, idle])

    assert found == {("m@c1", 1): [first], ("m@c1", 2): [again], ("m@c2", 1): [other]}


# -- the machine


def loads(*counts: tuple[float | None, float | None, float | None]) -> Samples:
    """Samples, 10 s apart, of the CPU seconds of machine, server and client."""
    return [
        sample(
            10 * i,
            machine=machine(whole),
            server=None if own is None else server(own),
            client={"cpu_s": ours, "memory_bytes": GB},
        )
        for i, (whole, own, ours) in enumerate(counts)
    ]


BEFORE, AFTER = (500.0, 70.0, 9.0), (530.0, 82.0, 11.0)
SHORT = [loads(BEFORE)[0], {**loads(AFTER)[0], "at_s": 0.9}]
OTHERS = [
    # 40 core-seconds in 10 s of 4 cores; 30 were busy, 12 the server's, 2 the client's.
    (loads(BEFORE, AFTER), 4, 0.4),
    (loads(BEFORE, (513.9, 82.0, 11.0)), 4, 0.0),  # clocks differ a little
    (loads(BEFORE, AFTER, (570.0, None, 12.0)), 4, 0.4),  # of the time in which all were known
    (loads((500.0, None, 9.0), (530.0, None, 11.0)), 4, None),  # local, but not found: its load would be the others'
    (loads((None, 70.0, 9.0), (None, 82.0, 11.0)), 4, None),
    (loads(BEFORE), 4, None),
    (loads(BEFORE, (530.0, 2.0, 11.0)), 4, None),
    (loads(BEFORE, AFTER), None, None),
    ([], 4, None),
    (SHORT, 4, None),  # of less than a second nothing is said
]


@pytest.mark.parametrize(("samples", "cores", "share"), OTHERS)
def test_other_load_is_what_neither_server_nor_client_used_of_all_cores(
    samples: Samples, cores: int | None, share: float | None
) -> None:
    assert others_cpu_share(typed(samples), cores) == share


def test_a_client_that_may_use_some_of_the_cores_sees_the_load_of_all() -> None:
    info = {**LOCAL, "environment": {"cores": 2, "machine_cores": 4}}

    assert of(loads(BEFORE, AFTER), info)["others_cpu_share"] == 0.4


THROTTLED = [
    # CPU's counts, GPU's words; throttled
    ((5, 5), (None, None), False),
    ((5, 6), (None, None), True),
    ((5, 5), (False, True), True),
    ((None, None), (False, False), False),
    ((None, None), (True, False), False),  # before the level
    ((None, None), (None, None), None),
    ((5,), (None,), None),
]


@pytest.mark.parametrize(("counts", "words", "expected"), THROTTLED)
def test_throttled_is_what_cpu_or_gpu_say(
    counts: tuple[int | None, ...], words: tuple[bool | None, ...], expected: bool | None
) -> None:
    samples = [
        sample(at, machine=machine(throttled=count), gpus=[gpu(throttled=word)])
        for at, (count, word) in enumerate(zip(counts, words, strict=True))
    ]

    assert throttled(typed(samples), [0]) is expected


# -- energy: counted, integrated or declared


def watts(*points: tuple[float, float]) -> Samples:
    return [sample(at_s, gpus=[gpu(power_w=power)]) for at_s, power in points]


RESET = [sample(at, gpus=[gpu(power_w=50.0, energy_j=joules)]) for at, joules in ((0.0, 900.0), (2.0, 10.0))]
BOTH_COUNT = [sample(at, gpus=[gpu(energy_j=at * 100.0)], cpu_energy_j=7 + at * 30.0) for at in (1.0, 3.0)]
ONE_OF_TWO = [sample(at, gpus=[gpu(0, energy_j=at), gpu(1)]) for at in (0.0, 5.0)]
ENERGY = [
    pytest.param(gpus("energy_j", 500.0, 650.0, 900.0), [0], (400.0, "gpu"), id="a GPU that counts its energy"),
    pytest.param(watts((0, 100), (1, 300), (3, 100)), [0], (200.0 + 400.0, "gpu"), id="its power, by trapezoids"),
    pytest.param(RESET, [0], (100.0, "gpu"), id="a counter that was reset gives way to the power"),
    pytest.param(BOTH_COUNT, [0], (260.0, "gpu+cpu"), id="both are added and named"),
    pytest.param([sample(0, cpu_energy_j=7.0), sample(1, cpu_energy_j=37.0)], [], (30.0, "cpu"), id="the CPU alone"),
    pytest.param(ONE_OF_TWO, [0, 1], (None, None), id="of two GPUs one alone is no figure"),
    pytest.param(ONE_OF_TWO, [0], (5.0, "gpu"), id="of one it is"),
]


@pytest.mark.parametrize(("samples", "counted", "expected"), ENERGY)
def test_energy_is_counted_or_integrated(samples: Samples, counted: list[int], expected: tuple[Any, Any]) -> None:
    assert measured_energy(typed(samples), counted) == expected


def spent(
    samples: Samples, tokens: int | None = 2000, counted: tuple[int, ...] = (0,), **scenario: Any
) -> dict[str, Any]:
    return energy(samples, counted, scenario, duration_s=60.0, tokens=tokens)


UNKNOWN = [
    pytest.param([], id="no samples"),
    pytest.param(gpus("energy_j", 500.0), id="one sample"),
    pytest.param(gpus("energy_j", 500.0, 100.0), id="a reset, no power"),
    pytest.param(gpus("energy_j", None, 500.0, 600.0), id="known from the middle on"),
    pytest.param([sample(0, gpus=[gpu(power_w=50.0)]), sample(1)], id="a power that ends"),
    pytest.param([sample(0), sample(1)], id="no GPU, no RAPL"),
    pytest.param([sample(0), *(sample(at, cpu_energy_j=at) for at in (1.0, 2.0))], id="RAPL from the middle on"),
]


@pytest.mark.parametrize("samples", UNKNOWN)
def test_what_was_not_measured_over_the_whole_level_is_unknown_and_never_0_or_declared(samples: Samples) -> None:
    counted = (0,) if any(one["gpus"] for one in samples) else ()
    declared = spent(samples, declared_watts=65.0)

    assert set(spent(samples, counted=counted, price_per_kwh=0.3).values()) == {None}
    assert (declared["energy_j"], declared["energy_source"]) == (3900.0, "declared")


def test_energy_and_cost_are_given_per_1000_tokens() -> None:
    counters = gpus("energy_j", 0.0, 14_400.0)
    found = spent(counters, price_per_kwh=0.5, declared_watts=65.0)

    assert (found["energy_j"], found["energy_source"]) == (14_400.0, "gpu")
    assert (found["j_per_1000_tokens"], found["wh_per_1000_tokens"]) == (7200.0, 2.0)
    assert found["cost_per_1000_tokens"] == pytest.approx(0.001)
    assert found["cost_per_million_tokens"] == pytest.approx(1.0)
    assert spent(counters)["cost_per_1000_tokens"] is None
    for tokens in (None, 0):
        without = spent(counters, tokens, price_per_kwh=0.5)

        assert without["energy_j"] == 14_400.0
        assert {without[name] for name in without if "per_1" in name or "per_million" in name} == {None}


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ({"price_per_hour": 3.0}, 25.0),  # a minute, 2,000 tokens
        ({"price_per_hour": 3.0, "declared_watts": 60.0}, 25.0),
        ({"price_per_hour": 3.0, "declared_watts": 60.0, "price_per_kwh": 0.5}, 25.25),
        ({"declared_watts": 60.0}, None),
    ],
)
def test_a_machine_that_is_rented_costs_its_time_and_its_energy_where_that_has_a_price(
    prices: dict[str, float], cost: float | None
) -> None:
    assert spent([], **prices)["cost_per_million_tokens"] == cost


# -- the course of a level


def seconds(n: int, **counters: Any) -> Samples:
    return [
        sample(10 + i, server={"cpu_s": 1.5 * i, "memory_bytes": 100 + i}, **{k: v * i for k, v in counters.items()})
        for i in range(n)
    ]


def test_the_course_counts_from_the_levels_first_sample_and_turns_counters_into_rates() -> None:
    found = of(seconds(3, cpu_energy_j=20.0))["course"]

    assert (found["t_s"], found["server_memory_bytes"]) == ([0.0, 1.0, 2.0], [100.0, 101.0, 102.0])
    assert (found["server_cores"], found["power_w"]) == ([None, 1.5, 1.5], [None, 20.0, 20.0])
    assert found["gpu_utilisation"] is None


def test_two_hours_of_samples_become_120_rows_with_the_last_among_them() -> None:
    found = of(seconds(7_200))["course"]

    assert len(found["t_s"]) <= 120
    assert found["t_s"][-1] == 7_199.0


def test_there_is_no_course_without_samples_or_of_a_server_elsewhere() -> None:
    assert of([])["course"] is of(seconds(3), REMOTE)["course"] is of([sample(1, server=None)])["course"] is None


# -- in the summary of a run


def summed(results: list[Any], samples: Samples, **info: Any) -> dict[str, Any]:
    whole = run(level_data(results), **{**LOCAL, **info})
    level: dict[str, Any] = summarise(replace(whole, samples=samples))["levels"][0]
    return level


BOTH = [sample(0, server=server(10.0)), sample(5, server=server(11.0))]
WHOLE = {"stream": False}
SPENT = [
    pytest.param([stream(0, warmup=True, tokens=100), stream(1, tokens=100)], {}, 200, 5.0, id="warm-up counts too"),
    pytest.param([stream(usage=False)], WHOLE, None, None, id="whole answers without a count"),
    pytest.param([stream(0), stream(1, usage=False)], WHOLE, None, None, id="one answer without a count"),
]


@pytest.mark.parametrize(("results", "scenario", "tokens", "per_1000_s"), SPENT)
def test_what_was_spent_counts_per_token_of_all_requests(
    results: list[Any], scenario: dict[str, Any], tokens: int | None, per_1000_s: float | None
) -> None:
    level = summed(results, BOTH, scenario=scenario)

    assert (level["output_tokens_spent"], level["cpu_s_per_1000_tokens"]) == (tokens, per_1000_s)
    assert level["server_cpu_s"] == 1.0


@pytest.mark.parametrize(("ran", "joules"), [("CPU", None), ("GPU", 50.0)])
def test_the_energy_of_a_gpu_counts_only_where_the_model_ran_on_one(ran: str, joules: float | None) -> None:
    samples = [sample(at, gpus=[gpu(energy_j=10.0 * at)]) for at in (0, 5)]
    turn = {"model": "m", "ran": {"id": "m", "device": ran, "execution_provider": None}}

    level = summed([stream()], samples, models=[turn])

    assert (level["energy_j"], level["ran"]) == (joules, turn["ran"])


def test_samples_of_another_level_or_attempt_do_not_count() -> None:
    other_level = [sample(at, level="m@c2", server=server(50 * at)) for at in (7, 9)]
    other_attempt = [sample(at, attempt=2, server=server(50 * at)) for at in (7, 9)]

    assert summed([stream()], [*BOTH, *other_level, *other_attempt])["server_cpu_s"] == 1.0
