"""`loadbench run` from end to end with what it has for models on devices: variants, loading, samples, retries, pauses.

Whole answers, failures that end a model's levels, and Foundry Local's own runtime too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from loadbench.runner import turn
from loadbench.serve import foundry, simulator
from loadbench.serve.simulator import Simulator
from tests.support.catalogues import PHI_CPU, PHI_GPU, ServedRuntime, Service, serving
from tests.support.command import BRIEF, KEY, files, invoke, run
from tests.support.sdk import install

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("place")]

CPU, GPU = "phi-4-mini-instruct-generic-cpu:5", "phi-4-mini-instruct-cuda-gpu:5"
PHI = ("-m", "phi-4-mini", *BRIEF, "-o", "there")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rest after an unload, and no `foundry` command."""
    monkeypatch.setattr(turn, "SETTLE_S", 0.0)
    monkeypatch.setenv("PATH", "")


@pytest.fixture
def foundry1() -> Iterator[Service]:
    with serving("foundry1", rows={CPU: {}, GPU: {}}) as service:
        yield service


def of_run(name: str = "run.json") -> Any:
    """A document of the run's folder."""
    return json.loads(Path("there", name).read_bytes())


def lines_of_run(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("there", name).read_text().splitlines()]


def red(summary: Any) -> list[str]:
    """The checks that are red, but for those on this machine: a run of milliseconds has no window and no quiet one."""
    warnings = [warning for level in summary["levels"] for warning in level["warnings"]]
    return sorted({one["code"] for one in warnings if one["severity"] == "red"} - {"V1", "V3", "V9", "client-starved"})


def errors(done: Result) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("loadbench: ")]


# -- devices


def test_the_variants_for_two_devices_are_measured_as_two_models(foundry1: Service) -> None:
    done = run("-e", foundry1.url, *PHI, "--device", "cpu,gpu")

    assert done.exit_code == 0
    levels = of_run("summary.json")["levels"]
    assert [(level["id"], level["completed"], level["asked_device"]) for level in levels] == [
        *((f"{CPU}@c1", 2, "CPU"), (f"{GPU}@c1", 2, "GPU"))
    ]
    assert [one["ran"]["device"] for one in of_run()["models"]] == ["CPU", "GPU"]
    # One is loaded at a time, and all are left as they were found.
    assert [one.removeprefix("GET /models/") for one in foundry1.asked if "load/" in one] == [
        *(f"load/{CPU}", f"unload/{CPU}", f"load/{GPU}", f"unload/{GPU}")
    ]
    assert red(of_run("summary.json")) == []


def test_where_no_device_is_there_one_line_says_so_and_nothing_is_written(place: Path, foundry1: Service) -> None:
    done = run("-e", foundry1.url, *PHI, "--device", "npu")
    plan = json.loads(run("-e", foundry1.url, *PHI, "--device", "cpu,npu", "--dry-run", "--json").stdout)

    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert "phi-4-mini is for CPU, GPU, not for NPU; models there are for cpu, gpu" in done.stderr
    assert (plan["models"], [one["device"] for one in plan["absent"]]) == ([CPU], ["NPU"])
    assert files(place) == set()


def test_a_device_that_is_not_there_is_told_at_once_and_in_the_report_and_the_run_goes_on(foundry1: Service) -> None:
    done = run("-e", foundry1.url, *PHI, "--device", "cpu,npu")

    reason = "phi-4-mini is for CPU, GPU, not for NPU"
    assert done.exit_code == 0
    assert f"absent    {reason}: skipped\n" in done.stderr
    assert of_run()["absent"] == [{"name": "phi-4-mini", "device": "NPU", "execution_provider": None, "reason": reason}]
    assert [level["model"] for level in of_run("summary.json")["levels"]] == [CPU]
    assert f"phi-4-mini for NPU: {reason}" in Path("there", "report.md").read_text()
    assert reason in " ".join(done.stdout.split())


@pytest.mark.parametrize(("provider", "model"), [("cuda", GPU), ("CPUExecutionProvider", CPU)])
def test_the_variant_for_an_execution_provider_is_measured(foundry1: Service, provider: str, model: str) -> None:
    run("-e", foundry1.url, *PHI, "--ep", provider)

    [record] = of_run()["models"]
    assert (record["model"], record["asked_execution_provider"]) == (model, provider)


@pytest.mark.parametrize(("on_gpu", "reds"), [(set(), ["V15"]), ({"m"}, [])])
def test_a_server_that_runs_another_device_than_was_asked_makes_the_figures_red(
    on_gpu: set[str], reds: list[str]
) -> None:
    with serving("ollama", rows={"m": {}}, on_gpu=on_gpu) as service:
        done = run("-e", service.url, "-m", "m", "--device", "gpu", *BRIEF, "-o", "there")

    assert done.exit_code == 0
    assert red(of_run("summary.json")) == reds
    assert ("device-fallback" in done.stdout) == bool(reds)


def test_a_variant_that_does_not_load_is_skipped_and_the_other_measured(foundry1: Service) -> None:
    foundry1.refuses = {GPU: "out of memory"}
    done = run("-e", foundry1.url, *PHI, "--device", "cpu,gpu")

    assert done.exit_code == 1
    assert len(errors(done)) == 1
    assert "not enough memory" in errors(done)[0]
    levels = of_run("summary.json")["levels"]
    assert [(level["model"], level["status"]) for level in levels] == [(CPU, "complete"), (GPU, "skipped")]


# -- cold starts


def test_cold_unloads_first_and_leaves_the_model_loaded(foundry1: Service) -> None:
    foundry1.loaded = {CPU}
    done = run("-e", foundry1.url, *BRIEF, "--cold", "-o", "there")

    assert done.exit_code == 0
    assert [one.removeprefix("GET /models/") for one in foundry1.asked if "load/" in one] == [
        *(f"unload/{CPU}", f"load/{CPU}")
    ]
    [record] = of_run("summary.json")["models"]
    assert (record["was_loaded"], record["load_source"], record["first"]["cold"]) == (True, "loaded by this run", True)
    assert record["load_s"] >= 0


def test_a_pause_and_one_with_pings_are_each_followed_by_a_request(quick: Simulator) -> None:
    simulator.reset(quick.url)
    done = run("-e", quick.url, *BRIEF, "--idle-gap", "50ms", "--keep-warm", "20ms", "-o", "there")

    assert done.exit_code == 0
    assert [(one["purpose"], one["after_s"], one["every_s"]) for one in of_run()["probes"]] == [
        *(("first", None, None), ("warm", None, None), ("idle", 0.05, None), ("kept_warm", 0.05, 0.02))
    ]
    [model] = of_run("summary.json")["models"]
    assert min(model["idle"]["ttft_ms"], model["kept_warm"]["ttft_ms"]) > 0
    assert simulator.truth(quick.url)["requests"] in (7, 8)  # 4 probes, 2 measured, a ping or two


# -- samples


def test_server_and_machine_are_sampled_and_how_is_told(foundry1: Service) -> None:
    run("-e", foundry1.url, *PHI, "--device", "cpu")

    phases = [sample["phase"] for sample in lines_of_run("telemetry.jsonl")]
    assert phases == ["before_load", "after_load", "level", "level", "after_unload"]
    assert of_run()["telemetry"]["local"] is True
    [record] = of_run("summary.json")["models"]
    assert min(record["memory_before_load_bytes"], record["memory_after_load_bytes"]) > 1_000_000


def test_without_telemetry_nothing_is_sampled(place: Path, foundry1: Service) -> None:
    done = run("-e", foundry1.url, *PHI, "--device", "cpu", "--no-telemetry")

    assert done.exit_code == 0
    assert "there/telemetry.jsonl" not in files(place)
    assert of_run()["telemetry"] is None
    [record] = of_run("summary.json")["models"]
    assert record["memory_after_load_bytes"] is None


# -- failures


@pytest.fixture
def failing() -> Iterator[str]:
    """A simulator that answers about every third request with 503; its seed decides which, from its start on."""
    with simulator.start(ttft_ms=1, itl_ms=0.2, faults={"503": 0.35}, seed=3) as server:
        yield server.url


def test_failed_requests_are_asked_again_as_requests_of_their_own(failing: str) -> None:
    words = ("-c", "2", "-n", "30", "--max-tokens", "4", "--retries", "3", "--retry-backoff", "1ms")
    done = run("-e", failing, *words, "-o", "there")

    assert done.exit_code == 0
    requests = {one["request"]: one for one in lines_of_run("requests.jsonl")}
    again = [one for one in requests.values() if one["retry_of"] is not None]
    assert again
    assert all(requests[one["retry_of"]]["error"] == "http_5xx" for one in again)
    assert all(requests[one["retry_of"]]["prompt"] == one["prompt"] for one in again)
    assert len({one["retry_of"] for one in again}) == len(again)
    [level] = of_run("summary.json")["levels"]
    assert level["retried"] == sum(not one["warmup"] for one in again)
    assert level["recovered"] == sum(one["error"] is None and not one["warmup"] for one in again)
    assert level["failed"] == sum(one["error"] is not None and not one["warmup"] for one in requests.values())


def test_without_retries_a_failure_is_final(failing: str) -> None:
    run("-e", failing, "-c", "2", "-n", "20", "--max-tokens", "4", "-o", "there")

    assert {one["retry_of"] for one in lines_of_run("requests.jsonl")} == {None}
    [level] = of_run("summary.json")["levels"]
    assert level["failed"] > 0


def test_higher_loads_are_left_out_once_too_many_requests_failed(failing: str) -> None:
    words = "-c 1,2,4 -n 20 --max-tokens 4 --max-failed 5% -o there --no-repeat-first"
    done = run("-e", failing, *words.split())

    assert done.exit_code == 0
    levels = of_run("summary.json")["levels"]
    assert [level["status"] for level in levels] == ["complete", "skipped", "skipped"]
    assert "more than --max-failed 5%" in levels[1]["reason"]
    assert "--max-failed 5%" in done.stderr


# -- whole answers


def test_whole_answers_have_an_end_and_no_first_token(quick: Simulator, foundry1: Service) -> None:
    run("-e", foundry1.url, "-m", "phi-4-mini", *BRIEF, "--device", "cpu", "--no-stream", "-o", "asked")
    done = run("-e", quick.url, *BRIEF, "--no-stream", "-o", "there")

    assert done.exit_code == 0
    [level] = of_run("summary.json")["levels"]
    assert (level["streamed"], level["completed"]) == (False, 2)
    assert level["e2e_ms"]["p50"] > 0
    assert level["ttft_ms"]["p50"] is None
    assert level["output_tokens"]["p50"] == 4
    assert {chat["stream"] for chat in foundry1.chats} == {False}
    [model] = of_run("summary.json")["models"]
    assert model["first"]["ttft_ms"] is None
    assert model["first"]["e2e_ms"] > 0


# -- keys


def test_a_key_that_nobody_named_is_sent_and_told(locked: Simulator) -> None:
    done = run("-e", locked.url, *BRIEF, "-o", "there", API_KEY=KEY)

    assert done.exit_code == 0
    assert "\nkey       from API_KEY\n" in done.stderr
    assert KEY not in done.output


# -- Foundry Local's own runtime


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedRuntime]:
    """The SDK with a model for each device on the disk, and its web service."""
    monkeypatch.setattr(foundry, "has_models", lambda cache: True)
    with serving("foundry2", rows={PHI_CPU.id: {}, PHI_GPU.id: {}}) as service:
        runtime = ServedRuntime([PHI_CPU, PHI_GPU], service=service)
        install(monkeypatch, runtime)
        yield runtime


def test_the_sdk_loads_each_variant_itself_and_its_web_service_is_measured(runtime: ServedRuntime) -> None:
    done = run(*PHI, "--device", "cpu,gpu")

    assert done.exit_code == 0
    assert runtime.told == [
        "serve",
        *(f"{what} {model}" for model in (PHI_CPU.id, PHI_GPU.id) for what in ("load", "unload")),
    ]
    assert {chat["model"] for chat in runtime.service.chats} == {PHI_CPU.id, PHI_GPU.id}
    assert of_run()["target_found"].startswith("Foundry Local's own runtime, started for this run")
    assert of_run()["target"]["kind"] == "foundry2"


def test_a_dry_run_asks_the_sdk_for_its_list_alone(place: Path, runtime: ServedRuntime) -> None:
    done = run(*PHI, "--device", "cpu,npu", "--dry-run")

    assert done.exit_code == 0
    assert runtime.told == []
    assert done.stderr.startswith("target    (not started), Foundry Local's own runtime, started for this run")
    assert f"models    {PHI_CPU.id}\n" in done.stderr
    assert files(place) == set()


def test_a_run_of_the_sdk_goes_on_with_it_whatever_the_environment_names(runtime: ServedRuntime) -> None:
    run(*PHI, "--device", "cpu")
    info = of_run()
    info["levels"][0]["status"] = "interrupted"
    Path("there", "run.json").write_text(json.dumps(info))
    runtime.told.clear()
    done = run("--resume", "there", "--quiet", FOUNDRY_LOCAL_ENDPOINT="http://127.0.0.1:1")

    assert done.exit_code == 0
    assert runtime.told == ["serve", f"load {PHI_CPU.id}", f"unload {PHI_CPU.id}"]


def test_a_refusal_of_the_sdk_fails_that_model_alone(runtime: ServedRuntime) -> None:
    runtime.service.refuses = {PHI_GPU.id: "it does not fit into memory"}
    done = run(*PHI, "--device", "cpu,gpu")

    assert done.exit_code == 1
    assert errors(done) == [f"loadbench: {PHI_GPU.id}: it does not fit into memory"]


def test_the_report_can_be_written_again_from_the_folder(runtime: ServedRuntime) -> None:
    run(*PHI, "--device", "cpu,npu")
    written = Path("there", "report.md").read_text()
    done = invoke("report", "there")

    assert done.exit_code == 0
    assert Path("there", "report.md").read_text() == written
