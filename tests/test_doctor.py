"""`loadbench doctor`: each check says what is, whether it will do, and what to do."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from loadbench.cli import doctor as checks
from loadbench.cli.doctor import Check, doctor
from loadbench.errors import how_to_install
from loadbench.serve import simulator
from loadbench.telemetry import Sampler, open_nvml
from loadbench.transport import Clock
from loadbench.transport.wire import SPARE_FILES, raise_file_limit
from tests.support.nvml import H100, Nvml
from tests.support.scripted import Answer, scripted

pytestmark = pytest.mark.system

MODELS = {"/v1/models": {"data": [{"id": "m"}]}}


def run(*words: str) -> Result:
    return CliRunner().invoke(doctor, words)


def looked(answers: Mapping[str, Any], home: Path) -> list[Check]:
    """What the doctor says of a machine where one server with these answers listens."""

    async def run() -> list[Check]:
        async with scripted(answers) as fake:
            return await checks.servers([int(fake.url.rpartition(":")[2])], home=home)

    return asyncio.run(run())


def test_a_server_that_answers_is_shown_with_its_models() -> None:
    with simulator.start() as server:
        done = run("--quick", "--json", "-e", server.url)

    document = json.loads(done.stdout)
    rows = {row["name"]: row for row in document["checks"]}
    assert (done.exit_code, document["ok"]) == (0, True)
    assert rows["server"]["facts"]["kind"] == "simulator"
    assert rows["server"]["facts"]["models"] == ["simulator"]
    assert list(rows) == [
        *("version", "machine", "clock", "event loop", "open files", "extras", "telemetry", "embedded model", "server")
    ]


def test_a_named_server_that_does_not_answer_fails_the_doctor() -> None:
    done = run("--quick", "-e", "127.0.0.1:9")

    assert done.exit_code == 1
    assert "fail  server          nothing answers at http://127.0.0.1:9" in done.stdout


def test_a_key_that_is_not_there_is_said_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)

    done = run("-e", "h", "--api-key-env", "NO_SUCH_KEY")

    assert "--api-key-env NO_SUCH_KEY: that environment variable is not set" in str(done.exception)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("answers", "mark", "text"),
    [
        (MODELS, "ok", r"http://\S+/v1: openai, 0 of 1 models loaded \(m\)"),
        ({}, "ok", r"none found on this machine \(ports [\d, ]*\)$"),
        ({"/v1/models": b"<html>"}, "ok", r"none found on this machine \(ports [\d, ]*\)$"),
        ({"/v1/models": Answer({}, 500)}, "ok", r"none found on this machine \(ports [\d, ]*\)$"),
        ({"/v1/models": Answer({}, 401)}, "warn", ".*wants a key"),
        ({"/v1/models": Answer({"error": {"message": "Loading model"}}, 503)}, "warn", ".*still loading"),
    ],
    ids=["found", "no models", "a page", "broken", "locked", "loading"],
)
def test_servers_on_usual_ports_are_found_and_other_web_servers_left_out(
    answers: Mapping[str, Any], mark: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FOUNDRY_LOCAL_ENDPOINT", raising=False)
    monkeypatch.setenv("PATH", "")

    (row,) = looked(answers, tmp_path)

    assert row.mark == mark
    assert re.match(text, row.text), row.text


@pytest.mark.parametrize(
    ("endpoint", "facts", "advice"),
    [
        ("http://127.0.0.1:9", {"endpoint": "http://127.0.0.1:9/v1", "how": "FOUNDRY_LOCAL_ENDPOINT"}, None),
        ("ftp://h", {}, "mend or unset the variable"),
    ],
)
def test_an_endpoint_of_the_environment_that_is_of_no_use_is_a_warning(
    endpoint: str, facts: dict[str, str], advice: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOUNDRY_LOCAL_ENDPOINT", endpoint)

    (row,) = asyncio.run(checks.servers([], home=tmp_path))

    assert (row.mark, row.facts, row.advice) == ("warn", facts, advice)


@pytest.mark.parametrize(
    ("source", "step_ns", "mark"),
    [("thread", 300, "ok"), ("kernel", 300, "ok"), ("user", 100, "warn"), ("kernel", 15_000_000, "warn")],
)
def test_a_clock_that_spoils_figures_is_a_warning(source: Clock, step_ns: int, mark: str) -> None:
    ticks = count(0, max(1, step_ns // 3))  # several looks a step

    row = checks.clock(best=lambda: source, place=lambda: "ordinary", now_ns=lambda: next(ticks) // step_ns * step_ns)

    assert (row.mark, bool(row.advice)) == (mark, mark == "warn")
    place = {"reader_place": "ordinary"} if source == "thread" else {}
    assert row.facts == {"source": source, "step_ns": step_ns, **place}


@pytest.mark.parametrize(
    ("room", "mark", "text"),
    [
        (None, "ok", "not limited"),
        (512, "ok", "room for 512 streams"),
        (192, "warn", "room for 192 streams, 512 wanted"),
    ],
)
def test_streams_need_open_files(room: int | None, mark: str, text: str) -> None:
    row = checks.files(512, make_room=lambda streams: room)

    assert (row.mark, row.text) == (mark, text)


def test_the_limit_of_open_files_is_raised_as_far_as_the_system_grants() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        raise_file_limit(1)
        untouched = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = raise_file_limit(300)
        after = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert untouched == (256, before[1]), "one that suffices is left alone"
    assert room == 300
    assert after == (300 + SPARE_FILES, before[1])


def test_missing_extras_come_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "EXTRAS", {"here": "pytest", "gone": "no-such-package-at-all"})

    row = checks.extras()

    assert row.advice == f"not installed: {how_to_install('gone')}"
    assert row.text.startswith("here ")


def sampler(*gpus: Mapping[str, Any], rapl_root: Path) -> Callable[[], Sampler]:
    return lambda: Sampler(
        None, gpus=lambda: open_nvml(lambda: Nvml(*gpus, init=0 if gpus else 12)), rapl_root=rapl_root
    )


def test_what_samples_cannot_tell_here_comes_with_its_reason(tmp_path: Path) -> None:
    row = checks.samples(sampler(rapl_root=tmp_path))

    assert (row.mark, row.text) == ("ok", "memory and CPU of a local server")
    assert (row.advice or "").startswith("not measured: GPU: no NVIDIA driver; CPU energy: no RAPL counters")
    assert row.facts["gpus"] is None


def test_what_samples_can_tell_here_is_named(tmp_path: Path) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    for name, text in {"name": "package-0", "energy_uj": "7", "max_energy_range_uj": "100"}.items():
        (tmp_path / "intel-rapl:0" / name).write_text(text)

    row = checks.samples(sampler(H100, rapl_root=tmp_path))

    assert row.text == "memory and CPU of a local server, GPU by NVML (NVIDIA H100 80GB HBM3), CPU energy by RAPL"
    assert row.advice is None
    assert row.facts["gpu_source"] == "nvml"


def test_the_self_test_measures_the_simulator_with_our_client() -> None:
    row = checks.self_test(streams=4, duration_s=0.3)

    assert row.mark in ("ok", "warn"), row.text  # how exact it is depends on what else this machine does
    assert row.facts["completed"] >= 4
    assert row.facts["tokens_per_s"] > 100
    assert 15 < row.facts["ttft_p50_ms"] < 200
    assert row.facts["cpu_us_per_token"] > 0


FIGURES: dict[str, Any] = {
    "completed": 500,
    "failed": 0,
    "error": None,
    "streams": 128,
    "tokens_per_s": 24_000.0,
    "cpu_us_per_token": 10.0,
    "ttft_p50_ms": 20.0,
    "ttft_p50_error": 0.001,
    "ttft_p99_ms": 21.0,
    "ttft_p99_error": -0.002,
    "itl_p99_ms": 5.1,
    "itl_p99_error": 0.009,
}


@pytest.mark.parametrize(
    ("change", "mark", "words"),
    [
        ({}, "ok", "24,000 tokens/s over 128 streams, 10.0 us of CPU each: about 80,000 tokens/s in one process"),
        ({"ttft_p99_error": 0.02}, "warn", "TTFT p99 21.00 ms (+2.0%)"),
        ({"itl_p99_error": -0.02}, "warn", "gap p99 5.10 ms (-2.0%)"),
        ({"failed": 3, "error": "reset"}, "warn", "500 requests completed, 3 failed: reset"),
        ({"completed": 0, "failed": 50, "error": "local"}, "fail", "0 requests completed, 50 failed: local"),
        ({"itl_p99_ms": None, "itl_p99_error": None}, "warn", "gap p99 not measured"),
    ],
)
def test_the_self_tests_verdict_follows_its_figures(change: dict[str, Any], mark: str, words: str) -> None:
    row = checks.verdict({**FIGURES, **change})

    assert row.mark == mark
    assert words in row.text
