"""GPUs by NVML: each figure by itself, and a reason where there are none."""

from __future__ import annotations

import re
from typing import Any

import pynvml
import pytest

from loadbench.errors import how_to_install
from loadbench.telemetry import Gpus, environment, gpu_free_memory_bytes, open_nvml
from tests.support.nvml import GB, H100, NOT_SUPPORTED, Nvml, using

QUERIES = sorted(name for name in H100 if "Processes" not in name)


def opened(*gpus: dict[str, Any]) -> Gpus:
    return open_nvml(lambda: Nvml(*gpus))


def look(changes: dict[str, Any], pids: frozenset[int] = frozenset()) -> dict[str, Any]:
    """The sample of one GPU that answers as an H100, with some changes."""
    (gpu,) = opened({**H100, **changes}).sample(pids) or []
    return gpu


def test_what_nvml_tells_is_sampled_in_our_units() -> None:
    gpu = look({})

    assert gpu == {
        "index": 0,
        "name": "NVIDIA H100 80GB HBM3",
        "memory_used_bytes": 30 * GB,
        "memory_total_bytes": 80 * GB,
        "server_memory_bytes": None,
        "utilisation": 0.87,
        "power_w": 512.3,
        "energy_j": 123_456.789,
        "temperature_c": 61,
        "clock_mhz": 1_755,
        "throttled": False,
    }


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_that_a_gpu_lacks_leaves_its_own_figures_unknown_and_no_others(query: str) -> None:
    whole, gpu = look({}), look({query: NOT_SUPPORTED})

    changed = {name for name in whole if gpu[name] != whole[name]}
    assert changed
    assert {gpu[name] for name in changed} == {None}
    assert len(changed) == (2 if query == "nvmlDeviceGetMemoryInfo" else 1)


def test_an_idle_gpu_is_used_by_nothing_and_not_throttled() -> None:
    idle = look({"nvmlDeviceGetUtilizationRates": rates(0), "nvmlDeviceGetCurrentClocksEventReasons": 0x1})

    assert (idle["utilisation"], idle["throttled"]) == (0.0, False)


@pytest.mark.parametrize(
    ("reasons", "throttled"),
    [
        (0x04, True),  # power cap
        (0x08, True),  # hardware slowdown
        (0x20, True),  # thermal, by software
        (0x40, True),  # thermal, by hardware
        (0x80, True),  # power brake
        (0x01 | 0x20, True),
        (0x01, False),  # idle
        (0x02, False),  # clocks that somebody set
        (0x10, False),  # boards in step
        (0x100, False),  # clocks for a display
    ],
)
def test_heat_and_power_throttle_and_nothing_else(reasons: int, throttled: bool) -> None:
    assert look({"nvmlDeviceGetCurrentClocksEventReasons": reasons})["throttled"] is throttled


def test_drivers_before_535_tell_the_reasons_under_their_old_name() -> None:
    old = {
        "nvmlDeviceGetCurrentClocksEventReasons": NOT_SUPPORTED,
        "nvmlDeviceGetCurrentClocksThrottleReasons": 0x40,
    }

    assert look(old)["throttled"] is True


@pytest.mark.parametrize(
    ("query", "figure"),
    [
        ("nvmlDeviceGetPowerUsage", "power_w"),
        ("nvmlDeviceGetTotalEnergyConsumption", "energy_j"),
        ("nvmlDeviceGetTemperature", "temperature_c"),
        ("nvmlDeviceGetClockInfo", "clock_mhz"),
    ],
)
def test_a_zero_that_cannot_be_is_unknown(query: str, figure: str) -> None:
    assert look({query: 0})[figure] is None


@pytest.mark.parametrize(
    ("compute", "graphics", "used"),
    [
        (using(p7=3 * GB, p8=2 * GB, p9=20 * GB), [], 5 * GB),  # of its processes alone
        (using(p7=3 * GB), using(p7=3 * GB, p8=1 * GB), 4 * GB),  # one in both lists counts once
        ([*using(p7=3 * GB), *using(p7=1 * GB)], [], 4 * GB),  # on two parts of a divided GPU
    ],
)
def test_the_servers_memory_is_that_of_its_processes(compute: Any, graphics: Any, used: int) -> None:
    lists = {
        "nvmlDeviceGetComputeRunningProcesses": compute,
        "nvmlDeviceGetGraphicsRunningProcesses": graphics,
    }

    assert look(lists, frozenset({7, 8}))["server_memory_bytes"] == used


@pytest.mark.parametrize(
    "entries",
    [
        using(),  # a container sees none
        using(p9=GB),  # others
        using(p7=None),  # Windows' driver model does not tell
        [*using(p7=GB), *using(p7=None)],
        using(p7=GB, p8=None),
        NOT_SUPPORTED,
    ],
)
def test_memory_of_the_server_that_is_not_told_is_unknown(entries: Any) -> None:
    lists = {"nvmlDeviceGetComputeRunningProcesses": entries}

    assert look(lists, frozenset({7, 8}))["server_memory_bytes"] is None


def test_a_lost_gpu_is_left_out_and_the_others_keep_their_numbers() -> None:
    gpus = opened(H100, {}, H100)

    assert [gpu["index"] for gpu in gpus.sample() or []] == [0, 2]


def test_the_most_that_is_free_is_on_one_gpu() -> None:
    full = {**H100, "nvmlDeviceGetMemoryInfo": memory(total=80 * GB, used=79 * GB)}
    shared = {**H100, "nvmlDeviceGetMemoryInfo": memory(total=0, used=0)}

    free = opened(full, H100, shared).free_memory_bytes()

    assert free == 50 * GB


def test_a_board_that_shares_the_machines_memory_has_none_to_show() -> None:
    shared = {**H100, "nvmlDeviceGetMemoryInfo": memory(total=0, used=0)}

    (gpu,) = opened(shared).sample() or []

    assert (gpu["memory_used_bytes"], gpu["memory_total_bytes"]) == (None, None)
    assert opened(shared).free_memory_bytes() is None


def test_nvml_that_does_not_open_says_why() -> None:
    def missing() -> Any:
        raise ImportError

    closed = {init: open_nvml(lambda init=init: Nvml(init=init)) for init in (9, 12, 18)}

    for gpus in closed.values():
        assert (gpus.sample({7}), gpus.names(), gpus.free_memory_bytes()) == (None, None, None)
    assert [gpus.reason for gpus in closed.values()] == ["no NVIDIA driver", "no NVIDIA driver", "NVML: error 18"]
    assert (opened().sample(), opened().reason) == (None, "NVML shows no GPU")
    assert open_nvml(missing).sample() is None
    assert how_to_install("gpu") in (open_nvml(missing).reason or "")


def test_closing_lets_go_of_the_library_once() -> None:
    library = Nvml(H100)
    gpus = open_nvml(lambda: library)

    gpus.close()
    gpus.close()

    assert library.opened == 0
    assert gpus.sample() is None


def test_the_stand_in_has_the_names_and_numbers_of_the_real_library() -> None:
    numbers = ("NVML_ERROR_DRIVER_NOT_LOADED", "NVML_ERROR_LIBRARY_NOT_FOUND")
    functions = [*H100, "nvmlInit", "nvmlShutdown", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"]

    assert [getattr(pynvml, name) for name in numbers] == [getattr(Nvml, name) for name in numbers]
    assert [name for name in functions if not callable(getattr(pynvml, name))] == []
    assert (pynvml.NVML_TEMPERATURE_GPU, pynvml.NVML_CLOCK_SM) == (0, 1)
    assert issubclass(pynvml.NVMLError_NotSupported, pynvml.NVMLError)
    assert pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED).value == 3


def test_the_real_library_reads_the_gpus_of_this_machine_or_says_why_it_cannot() -> None:
    """No stand-in here: with a GPU its figures must make sense, without one there must be a reason and no figure."""
    gpus = open_nvml()
    sample = gpus.sample()
    gpus.close()

    if gpus.reason is None:
        assert sample
        for gpu in sample:
            assert gpu["name"] in (environment()["gpu"] or [])
            assert gpu["memory_total_bytes"] is None or 0 <= gpu["memory_used_bytes"] <= gpu["memory_total_bytes"]
            assert gpu["utilisation"] is None or 0 <= gpu["utilisation"] <= 1
            assert gpu["power_w"] is None or 0 < gpu["power_w"] < 3000
            assert gpu["temperature_c"] is None or 0 < gpu["temperature_c"] < 120
    else:
        assert sample is None
        assert (environment()["gpu"], gpu_free_memory_bytes()) == (None, None)
        assert re.search(r"no NVIDIA driver|loadbench\[gpu\]|NVML", gpus.reason)


def memory(total: int, used: int) -> Any:
    return type(H100["nvmlDeviceGetMemoryInfo"])(total=total, used=used, free=total - used)


def rates(percent: int) -> Any:
    return type(H100["nvmlDeviceGetUtilizationRates"])(gpu=percent, memory=0)
