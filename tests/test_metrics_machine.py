"""What a level cost: memory, CPU, GPU, other load, heat, and the server's own metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from loadbench.metrics import machine as of_machine
from loadbench.metrics import summarise
from tests.support.plain import sampled as figures
from tests.support.samples import GB, gpu, machine, sample, server
from tests.support.streams import level_data, run, stream

LOCAL = {"telemetry": {"local": True}, "environment": {"cores": 4}}
REMOTE = {"telemetry": {"local": False}, "environment": {"cores": 4}}


def of(
    *samples: dict[str, Any], info: dict[str, Any] = LOCAL, tokens: int | None = 2000, **more: Any
) -> dict[str, Any]:
    return figures(samples, info, duration_s=60.0, tokens=tokens, **more)


# -- the server


def test_memory_and_threads_are_the_largest_that_a_sample_saw() -> None:
    found = of(
        sample(0, server=server(1.0, 2 * GB, 8)),
        sample(1, server=server(2.0, 5 * GB, 9)),
        sample(2, server=server(3.0)),
    )

    assert (found["server_memory_peak_bytes"], found["server_threads_peak"]) == (5 * GB, 9)


def test_cpu_time_is_the_last_sample_less_the_first_and_a_share_of_the_time_between_them() -> None:
    found = of(
        sample(10.0, server=server(100.0)), sample(11.0, server=server(102.0)), sample(14.0, server=server(106.0))
    )

    assert (found["server_cpu_s"], found["server_cpu_share"]) == (6.0, 1.5)


def test_cpu_time_is_told_per_1000_output_tokens() -> None:
    assert of(sample(0, server=server(100.0)), sample(9, server=server(105.0)))["cpu_s_per_1000_tokens"] == 2.5


def test_a_server_found_late_has_a_share_but_no_cpu_time_per_token() -> None:
    found = of(sample(0), sample(1, server=server(100.0)), sample(3, server=server(101.0)))

    assert (found["server_cpu_share"], found["cpu_s_per_1000_tokens"]) == (0.5, None)


def test_a_server_that_died_is_known_until_then() -> None:
    found = of(sample(0, server=server(100.0)), sample(2, server=server(101.0, 3 * GB)), sample(3), sample(4))

    assert (found["server_cpu_s"], found["server_cpu_share"], found["server_memory_peak_bytes"]) == (1.0, 0.5, 3 * GB)


def test_one_sample_knows_the_memory_and_no_time() -> None:
    found = of(sample(0, server=server(100.0)))

    assert found["server_memory_peak_bytes"] == GB
    assert (found["server_cpu_s"], found["server_cpu_share"], found["cpu_s_per_1000_tokens"]) == (None, None, None)


def test_another_process_in_the_servers_place_gives_no_cpu_time() -> None:
    assert of(sample(0, server=server(100.0)), sample(1, server=server(0.5)))["server_cpu_s"] is None


def test_without_samples_nothing_is_known() -> None:
    assert set(of().values()) == {None}


def test_of_a_server_elsewhere_this_machine_says_nothing() -> None:
    both = [
        sample(
            at,
            server=server(at),
            client={"cpu_s": at},
            machine=machine(9 * at, power="mains", throttled=0),
            gpus=[gpu()],
        )
        for at in (1.0, 2.0)
    ]

    assert set(of(*both, info=REMOTE).values()) == {None}
    assert of(*both)["power"] == "mains"


def test_of_a_server_elsewhere_declared_watts_and_its_own_metrics_count() -> None:
    info = {**REMOTE, "scenario": {"declared_watts": 300.0}}

    found = of(*(sample(at, metrics={"vllm:generation_tokens_total": 100 * at}) for at in (0, 2)), info=info)

    assert (found["energy_j"], found["energy_source"]) == (18_000.0, "declared")
    assert found["server_output_tokens_per_s"] == 100.0


def test_less_than_a_tick_of_processor_time_is_unknown_and_not_0() -> None:
    short = of(sample(0, server=server(7.0)), sample(0.2, server=server(7.0)))
    idle = of(sample(0, server=server(7.0)), sample(30, server=server(7.0)))

    assert (short["server_cpu_s"], short["cpu_s_per_1000_tokens"]) == (None, None)
    assert idle["server_cpu_s"] == 0.0


# -- GPUs


def test_gpu_memory_is_the_servers_where_the_driver_tells_it() -> None:
    found = of(*(sample(at, gpus=[gpu(memory_used_bytes=9 * GB, server_memory_bytes=at * GB)]) for at in (1, 3, 2)))

    assert (found["gpu_memory_peak_bytes"], found["gpu_memory_source"]) == (3 * GB, "server")


def test_gpu_memory_is_the_devices_where_no_driver_tells_whose() -> None:
    found = of(sample(0, gpus=[gpu(memory_used_bytes=9 * GB)]))

    assert (found["gpu_memory_peak_bytes"], found["gpu_memory_source"]) == (9 * GB, "device")


def test_gpu_memory_is_the_largest_sum_over_the_gpus_at_one_moment() -> None:
    samples = [
        sample(at, gpus=[gpu(i, server_memory_bytes=n * GB) for i, n in enumerate(held)])
        for at, held in enumerate(((4, 1), (3, 3)))
    ]

    assert of(*samples)["gpu_memory_peak_bytes"] == 6 * GB


def test_the_gpus_that_count_are_those_the_server_has_memory_on() -> None:
    two = sample(0, gpus=[gpu(0, server_memory_bytes=None), gpu(1, server_memory_bytes=GB)])

    assert of_machine.server_gpus(of_machine.typed([two])) == [1]
    assert of_machine.server_gpus(of_machine.typed([sample(0, gpus=[gpu(0), gpu(1)])])) == [0, 1]


@pytest.mark.parametrize(("device", "counted"), [("CPU", []), ("NPU", []), ("GPU", [0]), ("GPU+CPU", [0]), (None, [0])])
def test_a_gpu_does_not_count_for_a_model_that_runs_elsewhere(device: str | None, counted: list[int]) -> None:
    assert of_machine.server_gpus(of_machine.typed([sample(0, gpus=[gpu()])]), device) == counted


def test_how_busy_a_gpu_was_leaves_out_the_sample_from_before() -> None:
    samples = [sample(at, gpus=[gpu(utilisation=share)]) for at, share in enumerate((0.0, 0.9, 0.7))]

    assert of(*samples)["gpu_utilisation_mean"] == 0.8


# -- the machine


def loads(*counts: tuple[float | None, float | None, float | None]) -> list[dict[str, Any]]:
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


def test_other_load_is_what_neither_server_nor_client_used_of_all_cores() -> None:
    # 40 core-seconds in 10 s of 4 cores; 30 were busy, 12 the server's, 2 the client's.
    assert of_machine.others_cpu_share(of_machine.typed(loads((500.0, 70.0, 9.0), (530.0, 82.0, 11.0))), 4) == 0.4


def test_an_idle_machine_has_no_other_load_even_where_clocks_differ_a_little() -> None:
    assert of_machine.others_cpu_share(of_machine.typed(loads((500.0, 70.0, 9.0), (513.9, 82.0, 11.0))), 4) == 0.0


@pytest.mark.parametrize(
    ("samples", "cores"),
    [
        (loads((500.0, None, 9.0), (530.0, None, 11.0)), 4),  # local, but not found: its load would count as others'
        (loads((None, 70.0, 9.0), (None, 82.0, 11.0)), 4),
        (loads((500.0, 70.0, 9.0)), 4),
        (loads((500.0, 70.0, 9.0), (530.0, 2.0, 11.0)), 4),
        (loads((500.0, 70.0, 9.0), (530.0, 82.0, 11.0)), None),
        ([], 4),
    ],
)
def test_other_load_is_unknown_where_any_of_its_parts_is(samples: list[dict[str, Any]], cores: int | None) -> None:
    assert of_machine.others_cpu_share(of_machine.typed(samples), cores) is None


def test_other_load_is_of_the_time_in_which_all_parts_were_known() -> None:
    died = loads((500.0, 70.0, 9.0), (530.0, 82.0, 11.0), (570.0, None, 12.0))

    assert of_machine.others_cpu_share(of_machine.typed(died), 4) == 0.4


def test_of_less_than_a_second_nothing_is_said_about_others() -> None:
    first, last = loads((500.0, 70.0, 9.0), (530.0, 82.0, 11.0))

    assert of_machine.others_cpu_share(of_machine.typed([first, {**last, "at_s": first["at_s"] + 0.9}]), 4) is None


def test_a_client_that_may_use_some_of_the_cores_sees_the_load_of_all() -> None:
    info = {**LOCAL, "environment": {"cores": 2, "machine_cores": 4}}

    assert of(*loads((500.0, 70.0, 9.0), (530.0, 82.0, 11.0)), info=info)["others_cpu_share"] == 0.4


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

    assert of_machine.throttled(of_machine.typed(samples), [0]) is expected


@pytest.mark.parametrize(
    ("sources", "expected"),
    [(("mains", "mains"), "mains"), (("mains", "battery"), "changed"), ((None, "battery"), "battery"), ((None,), None)],
)
def test_power_that_changes_in_mid_level_is_told(sources: tuple[str | None, ...], expected: str | None) -> None:
    samples = [sample(at, machine=machine(power=source)) for at, source in enumerate(sources)]

    assert of(*samples)["power"] == expected


def test_the_hottest_of_cpu_and_gpu_counts_and_the_clock_is_that_of_the_level() -> None:
    found = of(
        *(
            sample(at, machine=machine(cpu_mhz=mhz, temperature_c=cpu_c), gpus=[gpu(temperature_c=gpu_c)])
            for at, (mhz, cpu_c, gpu_c) in enumerate(
                ((1000, 40.0, 50), (3000, 61.5, 58), (3200, 60.0, 57), (900, 45.0, 51))
            )
        )
    )

    assert (found["temperature_c_max"], found["cpu_mhz_mean"]) == (61.5, 3100.0)


# -- the server's own metrics


def scrapes(name: str, *values: float | None) -> list[dict[str, Any]]:
    return [sample(at, metrics=None if value is None else {name: value}) for at, value in enumerate(values)]


SCRAPED = [
    ("llamacpp:tokens_predicted_total", (50.0, 80.0, 250.0), 200.0),  # a counter: how far it went
    ("llamacpp:predicted_tokens_seconds", (0.0, 40.0, 50.0), 45.0),  # 0 while nothing is generated
    ("llamacpp:requests_processing", (0.0, 4.0, 2.0, 0.0), 3.0),  # while the level ran
    ("vllm:num_requests_waiting", (0.0, 6.0, 0.0), 6.0),
    ("vllm:kv_cache_usage_perc", (0.1, 0.8, 0.3), 0.8),
]


@pytest.mark.parametrize(("name", "values", "expected"), SCRAPED)
def test_the_servers_metrics_are_told_by_their_own_names(name: str, values: tuple[float, ...], expected: float) -> None:
    assert of(*scrapes(name, *values))["server_metrics"] == {name: expected}


def test_the_tokens_per_second_that_the_server_counted_stand_beside_ours() -> None:
    assert of(*scrapes("vllm:generation_tokens_total", 100.0, 200.0, 400.0))["server_output_tokens_per_s"] == 150.0


@pytest.mark.parametrize("values", [(None, None), (400.0,), (400.0, 3.0)])
def test_a_server_without_metrics_or_one_that_began_anew_says_nothing(values: tuple[float | None, ...]) -> None:
    found = of(*scrapes("vllm:generation_tokens_total", *values))

    assert (found["server_metrics"], found["server_output_tokens_per_s"]) == (None, None)


# -- in the summary of a run


def summed(results: list[Any], samples: list[dict[str, Any]], **info: Any) -> dict[str, Any]:
    whole = run(level_data(results), **{**LOCAL, **info})
    level: dict[str, Any] = summarise(replace(whole, samples=samples))["levels"][0]
    return level


BOTH = [sample(0, server=server(10.0)), sample(5, server=server(11.0))]


def test_what_was_spent_on_warm_up_counts_per_token() -> None:
    results = [stream(0, warmup=True, tokens=100), stream(1, tokens=100)]

    level = summed(results, BOTH)

    assert (level["output_tokens_spent"], level["cpu_s_per_1000_tokens"]) == (200, 5.0)


def test_whole_answers_without_a_count_have_no_cost_per_token() -> None:
    level = summed([stream(usage=False)], BOTH, scenario={"stream": False})

    assert (level["output_tokens_spent"], level["cpu_s_per_1000_tokens"]) == (None, None)
    assert level["server_cpu_s"] == 1.0


def test_an_answer_without_a_count_among_others_leaves_the_cost_per_token_unknown() -> None:
    level = summed([stream(0), stream(1, usage=False)], BOTH, scenario={"stream": False})

    assert (level["output_tokens_spent"], level["output_tokens"]["total"]) == (None, 32)


@pytest.mark.parametrize(("ran", "energy"), [("CPU", None), ("GPU", 50.0)])
def test_the_energy_of_a_gpu_counts_only_where_the_model_ran_on_one(ran: str, energy: float | None) -> None:
    samples = [sample(at, gpus=[gpu(energy_j=10.0 * at)]) for at in (0, 5)]
    turn = {"model": "m", "ran": {"id": "m", "device": ran, "execution_provider": None}}

    level = summed([stream()], samples, models=[turn])

    assert (level["energy_j"], level["ran"]) == (energy, turn["ran"])


def test_samples_of_another_level_or_attempt_do_not_count() -> None:
    others = [
        sample(at, level=name, attempt=n, server=server(50 * at))
        for name, n in (("m@c2", 1), ("m@c1", 2))
        for at in (7, 9)
    ]

    assert summed([stream()], [*BOTH, *others])["server_cpu_s"] == 1.0


def test_a_run_from_before_there_were_samples_has_none_of_their_figures() -> None:
    level = summarise(run(level_data([stream()])))["levels"][0]

    assert (level["server_cpu_s"], level["energy_j"], level["power"], level["server_metrics"]) == (None,) * 4


def test_lines_of_telemetry_that_cannot_be_read_are_told() -> None:
    [said] = summarise(replace(run(level_data([stream()])), unreadable_samples=2))["warnings"]

    assert (said["code"], said["severity"]) == ("samples", "note")
