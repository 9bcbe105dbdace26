"""The machine and the samples: what is told is told in its unit, what is not is None and never 0."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from loadbench import telemetry
from loadbench.telemetry import CoreWait, Rapl, machine
from loadbench.telemetry.machine import Machine
from loadbench.transport import reader_built
from tests.support.nvml import GB, H100, Nvml, using

pytestmark = pytest.mark.system

WORKER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
print("ready", flush=True)
for line in sys.stdin:
    held = b"x" * 50_000_000
    sum(range(4_000_000))
    print("done", flush=True)
child.communicate()
"""
"""At each line it takes 50 MB and some tenth of a second of CPU; it has a child."""


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        child.stdout.readline()
        yield child
        child.kill()


def put(root: Path, **files: object) -> None:
    """Files under /sys as a test describes them; `__` is a slash, and numbers are written as they are."""
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def sampler(pid: int | None, folder: Path, *gpus: dict[str, Any]) -> telemetry.Sampler:
    """On a machine with these GPUs, and neither sensors nor energy counters."""
    library = Nvml(*gpus, init=0 if gpus else 12)
    return telemetry.Sampler(pid, gpus=lambda: telemetry.open_nvml(lambda: library), rapl_root=folder, sys_root=folder)


def test_work_of_the_server_is_seen_between_two_samples(worker: subprocess.Popen[str], tmp_path: Path) -> None:
    watched = sampler(worker.pid, tmp_path)
    before = watched.sample()
    assert worker.stdin
    assert worker.stdout
    worker.stdin.write("work\n")
    worker.stdin.flush()
    worker.stdout.readline()

    after = watched.sample()

    used_s = after["server"]["cpu_s"] - before["server"]["cpu_s"]
    assert after["server"]["processes"] == 2
    assert 49_000_000 < after["server"]["memory_bytes"] - before["server"]["memory_bytes"] < 80_000_000
    assert 0.02 < used_s < 5
    assert after["machine"]["cpu_s"] - before["machine"]["cpu_s"] >= used_s - 0.05, "the machine did this too"


def test_a_server_that_dies_is_unknown_and_the_rest_goes_on(worker: subprocess.Popen[str], tmp_path: Path) -> None:
    watched = sampler(worker.pid, tmp_path)
    watched.sample()
    worker.kill()
    worker.wait()

    sample = watched.sample()

    assert sample["server"] is None
    assert sample["client"]["memory_bytes"] > 0


def test_the_servers_memory_on_a_gpu_is_that_of_its_whole_tree(worker: subprocess.Popen[str], tmp_path: Path) -> None:
    (child,) = psutil.Process(worker.pid).children()
    users = using(**{f"p{child.pid}": 3 * GB, "p1": GB})

    sample = sampler(worker.pid, tmp_path, {**H100, "nvmlDeviceGetComputeRunningProcesses": users}).sample()

    assert sample["gpus"][0]["server_memory_bytes"] == 3 * GB


def test_this_client_is_sampled(tmp_path: Path) -> None:
    client = sampler(None, tmp_path).sample()["client"]

    assert client["memory_bytes"] == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    assert client["cpu_s"] == pytest.approx(time.process_time(), abs=0.5)


def test_a_machine_that_tells_nothing_has_no_zero_in_its_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cpu_freq", "sensors_battery"):
        monkeypatch.delattr(psutil, name)
    watched = sampler(None, tmp_path)

    sample = watched.sample()

    machine = sample.pop("machine")
    assert {name for name, figure in machine.items() if figure is not None} == {"cpu_s", "memory_available_bytes"}
    assert 0 not in machine.values()
    assert [sample[name] for name in ("server", "gpus", "cpu_energy_j")] == [None, None, None]


def test_facts_say_where_figures_come_from(tmp_path: Path) -> None:
    put(tmp_path, **{"intel-rapl:0__name": "package-0"})
    put(tmp_path, **{"intel-rapl:0__energy_uj": 5, "intel-rapl:0__max_energy_range_uj": 9})

    facts = sampler(None, tmp_path, H100).facts()

    nothing = sampler(None, tmp_path / "none").facts()
    assert list(facts.values()) == ["nvml", None, "rapl", None]
    assert list(nothing.values())[:3] == [None, "no NVIDIA driver", None]
    assert nothing["cpu_energy_reason"]


def test_nvml_is_opened_at_the_first_sample_and_closed_in_the_end(tmp_path: Path) -> None:
    library = Nvml(H100)
    watched = telemetry.Sampler(None, gpus=lambda: telemetry.open_nvml(lambda: library), rapl_root=tmp_path)
    opened = [library.opened]
    watched.sample()
    watched.sample()
    opened.append(library.opened)

    watched.close()

    assert [*opened, library.opened] == [0, 1, 0]
    telemetry.Sampler(None, rapl_root=tmp_path).close()  # one that took no sample closes too


def test_a_sample_of_this_very_machine_is_json_that_a_reader_can_trust() -> None:
    watched = telemetry.Sampler(psutil.Process().pid)
    sample = json.loads(json.dumps(watched.sample()))
    watched.close()

    assert list(sample) == ["server", "client", "machine", "gpus", "cpu_energy_j"]
    assert sample["server"]["cpu_s"] > 0
    assert sample["gpus"] != []


@pytest.mark.parametrize(
    ("events", "throttled"),
    [
        ((3, 0, 4), 7),
        ((0,), 0),  # never throttled is a true zero
        ((1, None), None),  # a core that goes offline leaves them unknown
    ],
)
def test_events_of_all_cores_are_added_up(
    events: tuple[int | None, ...], throttled: int | None, tmp_path: Path
) -> None:
    for core, count in enumerate(events):
        put(tmp_path, **{f"devices__system__cpu__cpu{core}__thermal_throttle__core_throttle_count": count or 0})
    machine = Machine(tmp_path)
    for core, count in enumerate(events):
        if count is None:
            (tmp_path / f"devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count").unlink()

    assert machine.sample()["throttled"] == throttled


def test_the_clock_is_the_mean_of_the_cores_that_run(tmp_path: Path) -> None:
    for core, khz in enumerate((2_000_000, 3_000_000, 0)):
        put(tmp_path, **{f"devices__system__cpu__cpu{core}__cpufreq__scaling_cur_freq": khz})

    assert Machine(tmp_path).sample()["cpu_mhz"] == 2500.0


@pytest.mark.parametrize("told", [None, SimpleNamespace(current=0.0)])
def test_a_clock_that_psutil_does_not_know_is_unknown(
    told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "cpu_freq", lambda: told)

    assert Machine(tmp_path).sample()["cpu_mhz"] is None


@pytest.mark.parametrize(
    ("files", "degrees"),
    [
        ({"0__name": "coretemp", "0__temp1_input": 61_000, "0__temp2_input": 64_500}, 64.5),
        ({"0__name": "nvme", "0__temp1_input": 80_000, "1__name": "k10temp", "1__temp1_input": 55_000}, 55.0),
        ({"0__name": "nvme", "0__temp1_input": 80_000}, None),
        ({"0__name": "cpu_thermal", "0__temp1_input": 48_000}, 48.0),
        ({"0__name": "coretemp", "0__temp1_input": 0}, None),  # a dead sensor
        ({"0__name": "coretemp", "0__temp1_input": -128_000, "0__temp2_input": 50_000}, 50.0),
        (  # 27 degrees above the die, on purpose
            {
                "0__name": "k10temp",
                "0__temp1_input": 87_000,
                "0__temp1_label": "Tctl",
                "0__temp2_input": 60_000,
                "0__temp2_label": "Tdie",
            },
            60.0,
        ),
        ({"0__name": "k10temp", "0__temp1_input": 70_000, "0__temp1_label": "Tctl"}, 70.0),
    ],
)
def test_the_temperature_is_that_of_the_hottest_cpu_sensor(
    files: dict[str, object], degrees: float | None, tmp_path: Path
) -> None:
    put(tmp_path, **{f"class__hwmon__hwmon{name}": content for name, content in files.items()})

    assert Machine(tmp_path).sample()["temperature_c"] == degrees


def test_thermal_zones_show_the_temperature_where_there_are_no_sensors(tmp_path: Path) -> None:
    zones = {"zone0__type": "battery", "zone0__temp": 90_000, "zone1__type": "cpu-thermal", "zone1__temp": 52_000}
    put(tmp_path, **{f"class__thermal__thermal_{name}": content for name, content in zones.items()})

    assert Machine(tmp_path).sample()["temperature_c"] == 52.0


@pytest.mark.parametrize(
    ("battery", "seen"),
    [
        (None, (None, None)),
        (SimpleNamespace(percent=81.2345, power_plugged=False), ("battery", 81.2)),
        (SimpleNamespace(percent=100, power_plugged=True), ("mains", 100)),
        (SimpleNamespace(percent=50, power_plugged=None), (None, 50)),
        (SimpleNamespace(percent=0, power_plugged=True), ("mains", 0)),
    ],
)
def test_the_power_source_is_what_the_battery_says(
    battery: Any, seen: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)

    machine = Machine(tmp_path).sample()

    assert (machine["power"], machine["battery_percent"]) == seen
    assert telemetry.environment()["power"] == seen[0]


def test_waiting_is_not_being_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = SimpleNamespace(user=8.0, nice=1.0, system=4.0, idle=900.0, iowait=70.0, irq=0.5, softirq=0.25, steal=2.0)
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(**vars(times), guest=6.0, guest_nice=1.0))

    assert Machine(tmp_path).sample()["cpu_s"] == 15.75


def test_free_memory_is_what_the_system_offers() -> None:
    assert telemetry.free_memory_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.1)


def test_the_record_names_the_machine_and_the_packages_that_measure() -> None:
    environment, versions = telemetry.environment(), telemetry.versions()

    assert environment.keys() == {"cpu", "cores", "machine_cores", "memory_bytes", "gpu", "os", "power"}
    assert 1 <= environment["cores"] <= environment["machine_cores"]
    assert {"loadbench", "python", "psutil", "anyio"} <= versions.keys()


def test_importing_it_does_not_import_nvml() -> None:
    script = "import sys; from loadbench import telemetry; telemetry.Sampler(None); print('pynvml' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False"]


def best_s(sample: Callable[[], Any], times: int = 20) -> float:
    """The quickest of some: what else the machine does makes it slower, never faster."""
    spans = []
    for _ in range(times):
        began_s = time.perf_counter()
        sample()
        spans.append(time.perf_counter() - began_s)
    return min(spans)


def test_a_sample_takes_a_few_ms(worker: subprocess.Popen[str]) -> None:
    watched = telemetry.Sampler(worker.pid)

    assert best_s(watched.sample) < 0.02


# -- energy of the processors: RAPL's counters

RANGE_UJ = 262_143_328_850
"""Of a real processor: after 262 kJ the counter starts again."""


def zone(root: Path, number: str, name: str, energy_uj: int) -> Path:
    """A zone as Linux shows it; its counter's file."""
    folder = root / number
    folder.mkdir()
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    counter = folder / "energy_uj"
    counter.write_text(f"{energy_uj}\n")
    return counter


def test_all_packages_are_added_up_and_nothing_that_lies_within_them_or_around_them(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 3_000_000)
    zone(tmp_path, "intel-rapl:0:1", "dram", 500_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 7_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 20_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5_000_000)

    rapl = Rapl(tmp_path)

    assert (rapl.energy_j(), rapl.reason) == (12.0, None)


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 1_000_000)
    rapl = Rapl(tmp_path)
    before = rapl.energy_j() or 0.0

    used = []
    for energy_uj in (2_000_000, RANGE_UJ - 1_000_000, 500_000):
        counter.write_text(f"{energy_uj}\n")
        used.append((rapl.energy_j() or 0.0) - before)

    assert used == pytest.approx([3.0, RANGE_UJ / 1e6, RANGE_UJ / 1e6 + 1.5], abs=1e-3)


def test_a_machine_without_a_package_says_so(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "psys", 20_000_000)  # a board is none

    for root in (tmp_path, tmp_path / "powercap"):
        rapl = Rapl(root)

        assert rapl.energy_j() is None
        assert "no RAPL counters" in (rapl.reason or "")


def test_a_counter_for_root_alone_says_how_to_open_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000), monkeypatch)

    rapl = Rapl(tmp_path)

    assert rapl.energy_j() is None
    assert f"`sudo chmod a+r {tmp_path}/intel-rapl:*/energy_uj`" in (rapl.reason or "")


def test_one_package_of_two_is_no_figure_for_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    refuse(zone(tmp_path, "intel-rapl:1", "package-1", 7_000_000), monkeypatch)

    rapl = Rapl(tmp_path)

    assert rapl.energy_j() is None
    assert rapl.reason


def test_a_counter_that_fails_once_is_a_gap_and_loses_nothing(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    rapl = Rapl(tmp_path)
    counter.unlink()
    gap = rapl.energy_j()
    counter.write_text("9000000\n")

    after = rapl.energy_j()

    assert (gap, after) == (None, 9.0)


def test_a_counter_that_a_hypervisor_holds_at_zero_is_unknown(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)

    assert Rapl(tmp_path).energy_j() is None


def refuse(counter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the counter fails as it does for users; file modes would not stop root, who may run these tests."""
    read = Path.read_text

    def guarded(path: Path, encoding: str | None = None, errors: str | None = None) -> str:
        if path == counter:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, encoding, errors)

    monkeypatch.setattr(Path, "read_text", guarded)


# -- how long this process waited for a core, as the kernel counts it for each thread

MS = 1_000_000


def thread(tasks: Path, number: int, waited_ms: int, turns: int = 7, name: str = "python") -> None:
    (tasks / str(number)).mkdir(exist_ok=True)
    (tasks / str(number) / "schedstat").write_text(f"{50 * MS} {waited_ms * MS} {turns}\n")
    (tasks / str(number) / "comm").write_text(f"{name}\n")


def test_the_wait_is_that_of_all_threads_and_grows(tmp_path: Path) -> None:
    wait = CoreWait(tmp_path)
    thread(tmp_path, 1, 100)
    thread(tmp_path, 2, 20)
    before = wait()
    thread(tmp_path, 1, 350, turns=17)

    assert (before, wait()) == ((120 * MS, 14), (370 * MS, 24))


def test_where_a_thread_reads_the_wait_is_its_alone(tmp_path: Path) -> None:
    wait = CoreWait(tmp_path)
    thread(tmp_path, 1, 100)
    thread(tmp_path, 2, 20, name="loadbench-read")
    before = wait()
    thread(tmp_path, 1, 350)
    thread(tmp_path, 2, 30, turns=9, name="loadbench-read")

    assert (before, wait()) == ((20 * MS, 7), (30 * MS, 9))


@pytest.mark.skipif(not reader_built(), reason="there is no reader thread here")
def test_the_reader_threads_own_wait_is_found() -> None:
    from loadbench.transport._reader import Reader

    reader = Reader()
    names = [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    reader.close()

    assert names.count(machine.READER) == 1


def test_what_ended_threads_waited_stays_and_a_number_given_to_another_thread_counts_anew(tmp_path: Path) -> None:
    wait = CoreWait(tmp_path)
    thread(tmp_path, 1, 100)
    thread(tmp_path, 2, 20)
    wait()
    (tmp_path / "2" / "schedstat").unlink()
    after = wait()
    thread(tmp_path, 1, 30, turns=2)

    assert (after, wait()) == ((120 * MS, 14), (150 * MS, 16))


@pytest.mark.parametrize("text", [None, "0 0 0\n", "", "no such count\n"])
def test_a_kernel_that_does_not_count_it_says_none_and_not_zero(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "comm").write_text("python\n")
    if text is not None:
        (tmp_path / "1" / "schedstat").write_text(text)

    assert CoreWait(tmp_path)() is None
    assert CoreWait(tmp_path / "no such folder")() is None


def test_a_system_without_proc_says_none(tmp_path: Path) -> None:
    assert CoreWait(tmp_path / "task")() is None
