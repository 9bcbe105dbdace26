"""loadbench from Python: runs, their columns, what is refused, and what becomes of one that is stopped."""

from __future__ import annotations

import asyncio
import inspect
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import loadbench
from loadbench.api import Event
from loadbench.errors import LoadbenchError, ScenarioError, UsageError
from loadbench.scenario import Scenario
from loadbench.serve import simulator
from loadbench.serve.simulator import Simulator
from loadbench.store.folder import RunFolder
from tests.support import stub
from tests.support.streams import facts, in_turn, stream

pytestmark = pytest.mark.system

QUICK = {"requests": 6, "warmup": 1, "max_tokens": 4, "repeat_first": False}
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with simulator.start(ttft_ms=2, itl_ms=1, models=["m"]) as started:
        yield started


@pytest.fixture(scope="module")
def measured(server: Simulator, tmp_path_factory: pytest.TempPathFactory) -> tuple[loadbench.Run, list[Event]]:
    events: list[Event] = []
    folder = tmp_path_factory.mktemp("api") / "run"
    run = loadbench.run(endpoint=server.url, concurrency=(1, 2), folder=folder, progress=events.append, **QUICK)
    return run, events


def stored(path: Path, model: str = "m", ttft: float = 200.0, streams: int = 1) -> loadbench.Run:
    """A run of one level, without a server: a warm-up request and 39 that are measured."""
    info = {"name": path.name, "scenario": {"name": path.name}, "target": {"kind": "llama.cpp"}}
    folder, level = RunFolder.create(path, info), f"{model}@c{streams}"
    results = [stream(0, warmup=True, level=level), *in_turn(40, ttft=ttft, level=level)[1:]]
    folder.begin({"id": level, "model": model, "concurrency": streams})
    for result in results:
        folder.add(result)
    known = facts(results, id=level, model=model, concurrency=streams)
    folder.end({name: fact for name, fact in known.items() if name != "attempt"}, {})
    folder.close("complete")
    return loadbench.read(path)


# Importing


def test_the_package_alone_imports_no_library() -> None:
    script = "import sys, loadbench; print(*{'numpy', 'msgspec', 'click', 'anyio'} & {*sys.modules})"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []


def test_every_name_of_the_api_is_the_packages() -> None:
    from loadbench import api

    assert [name for name in api.__all__ if getattr(loadbench, name) is not getattr(api, name)] == []
    assert set(api.__all__) <= set(dir(loadbench))


def test_editors_know_every_field_of_a_scenario() -> None:
    fields = set(Scenario.__struct_fields__) - {"against", "against_model"}

    assert fields <= set(inspect.signature(loadbench.run).parameters)
    assert stub.STUB.read_text(encoding="utf-8") == stub.text(), "run: python -m tests.support.stub"


def test_a_name_that_is_not_there_is_said_so() -> None:
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        loadbench.runn  # noqa: B018


# Measuring


def test_a_run_is_measured_stored_and_read(measured: tuple[loadbench.Run, list[Event]]) -> None:
    run, _ = measured

    assert (run.exit_code, run.status, run.models, run.messages) == (0, "complete", ["m"], ())
    assert [(level["id"], level["completed"]) for level in run.levels] == [("m@c1", 6), ("m@c2", 6)]
    assert (run.folder / "report.md").exists()
    assert loadbench.read(run.folder).summary == run.summary


def test_it_tells_what_it_does_and_prints_nothing(
    measured: tuple[loadbench.Run, list[Event]], capfd: pytest.CaptureFixture[str]
) -> None:
    _, events = measured

    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1], kinds.count("level_ended")) == ("plan", "summary", 2)
    assert "m@c1: complete" in [str(event) for event in events]
    assert capfd.readouterr() == ("", "")


def test_variables_of_the_command_line_do_not_count(
    server: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOADBENCH_CONCURRENCY", "7")
    monkeypatch.setenv("LOADBENCH_ANSWERS", "false")

    run = loadbench.run(endpoint=server.url, concurrency=1, folder=tmp_path / "run", **QUICK)

    assert ([level["id"] for level in run.levels], (run.folder / "answers.jsonl").exists()) == (["m@c1"], True)


def test_a_scenario_file_is_run_with_fields_in_place_of_its_own(server: Simulator, tmp_path: Path) -> None:
    (tmp_path / "asked.txt").write_text("Why?\n", encoding="utf-8")
    text = 'requests = 50\nconcurrency = [3]\nmax_tokens = 4\nprompts = "asked.txt"\nrepeat_first = false\n'
    (tmp_path / "small.toml").write_text(text, encoding="utf-8")

    run = loadbench.run(tmp_path / "small.toml", endpoint=server.url, requests=5, folder=tmp_path / "run")

    assert (run.name, [(level["id"], level["completed"]) for level in run.levels]) == ("small", [("m@c3", 5)])
    assert run.info["prompts"]["count"] == 1


def test_it_works_where_an_event_loop_is_running_and_in_a_thread(server: Simulator, tmp_path: Path) -> None:
    async def cell() -> loadbench.Run:
        return loadbench.run(Scenario(**QUICK), endpoint=server.url, concurrency=1, folder=tmp_path / "loop")

    async def threads() -> list[loadbench.Run]:
        fields: dict[str, Any] = {"endpoint": server.url, "concurrency": 1, **QUICK}
        call = asyncio.to_thread(loadbench.run, folder=tmp_path / "thread", **fields)
        return [await call]

    assert asyncio.run(cell()).status == "complete"
    assert asyncio.run(threads())[0].status == "complete"


def test_the_callers_process_stays_as_it_was(server: Simulator, tmp_path: Path) -> None:
    before = (signal.getsignal(signal.SIGINT), sys.getswitchinterval(), threading.active_count())

    loadbench.run(endpoint=server.url, concurrency=1, folder=tmp_path / "run", **QUICK)

    assert (signal.getsignal(signal.SIGINT), sys.getswitchinterval(), threading.active_count()) == before


def test_headers_reach_the_server_and_no_file(locked: Simulator, tmp_path: Path) -> None:
    from tests.support.command import KEY

    headers = {"Authorization": f"Bearer {KEY}"}
    run = loadbench.run(endpoint=locked.url, headers=headers, concurrency=1, folder=tmp_path / "run", **QUICK)

    assert run.levels[0]["completed"] == 6
    assert [path for path in run.folder.iterdir() if KEY.encode() in path.read_bytes()] == []


# What is refused


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LoadbenchError, match=r"^nothing answers at http://127.0.0.1:9: ") as caught:
        loadbench.run(endpoint="http://127.0.0.1:9", concurrency=1, folder=tmp_path / "run")

    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_field_that_does_not_exist_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="no such field of a Scenario: concurency"):
        loadbench.run(concurency=[1])


def test_a_value_that_is_not_valid_is_refused_before_anything_starts() -> None:
    with pytest.raises(ScenarioError, match="concurrency"):
        loadbench.run(concurrency=[0])


def test_a_folder_that_holds_a_run_is_refused(server: Simulator, tmp_path: Path) -> None:
    path = stored(tmp_path / "run").folder

    with pytest.raises(UsageError, match="holds another run"):
        loadbench.run(endpoint=server.url, concurrency=1, folder=path)


def test_a_folder_without_a_run_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run folder"):
        loadbench.read(tmp_path)


def test_a_run_in_which_nothing_completed_is_a_run(tmp_path: Path) -> None:
    with simulator.start(models=["m"], faults={"500": 1.0}) as broken:
        run = loadbench.run(endpoint=broken.url, concurrency=1, folder=tmp_path / "run", **QUICK)

    assert (run.exit_code, run.levels[0]["completed"]) == (1, 0)
    assert any("m" in line for line in run.messages)


# Stopping


SCRIPT = """
import sys, loadbench
try:
    loadbench.run(endpoint=sys.argv[1], concurrency=1, duration="60s", folder=sys.argv[2], max_tokens=4,
                  progress=lambda event: print(event["event"], flush=True))
except KeyboardInterrupt as stop:
    print("stopped:", *stop.__notes__, flush=True)
"""


def script(server: Simulator, folder: Path) -> subprocess.Popen[str]:
    """A script that measures for a minute, once it is in its first level."""
    words = [sys.executable, "-c", SCRIPT, server.url, str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "progress":
            return process
    raise AssertionError("the run did not begin")


def status(folder: Path) -> str:
    return str(json.loads((folder / "run.json").read_bytes())["status"])


@posix
def test_ctrl_c_lets_the_run_drain_and_report(server: Simulator, tmp_path: Path) -> None:
    process = script(server, tmp_path / "run")
    process.send_signal(signal.SIGINT)

    out, _ = process.communicate(timeout=30)

    assert process.returncode == 0
    assert f"stopped: what was measured until then: loadbench.read('{tmp_path / 'run'}')" in out
    assert loadbench.read(tmp_path / "run").status == "interrupted"
    assert loadbench.read(tmp_path / "run").levels[0]["completed"] > 0
    assert (tmp_path / "run" / "report.md").exists()


@posix
def test_a_run_does_not_outlive_its_caller(server: Simulator, tmp_path: Path) -> None:
    process = script(server, tmp_path / "run")
    process.kill()
    process.communicate()

    deadline = time.monotonic() + 20
    while status(tmp_path / "run") == "running" and time.monotonic() < deadline:
        time.sleep(0.05)

    assert status(tmp_path / "run") == "interrupted"


def test_a_callback_that_fails_ends_the_run_and_is_raised(server: Simulator, tmp_path: Path) -> None:
    def fails(event: Event) -> None:
        if event["event"] == "progress":
            raise ZeroDivisionError("mine")

    began_s = time.monotonic()
    with pytest.raises(ZeroDivisionError, match="mine"):
        loadbench.run(endpoint=server.url, concurrency=1, duration="60s", folder=tmp_path / "run", progress=fails)

    assert time.monotonic() - began_s < 20
    assert status(tmp_path / "run") == "interrupted"


# Reading


def test_requests_are_columns_of_one_length(measured: tuple[loadbench.Run, list[Event]]) -> None:
    run, _ = measured
    requests = run.requests

    assert {len(column) for column in requests.values()} == {len(requests["request"])}
    assert {str(name) for name in requests["level"]} == {"m@c1", "m@c2"}
    assert int((requests["completed"] & ~requests["warmup"]).sum()) == 12


def test_columns_are_in_their_units(tmp_path: Path) -> None:
    requests = stored(tmp_path / "run").requests
    measured = ~requests["warmup"]

    assert set(requests["ttft_ms"][measured]) == {200.0}
    assert np.allclose(requests["tpot_ms"], 20.0)
    assert np.allclose(requests["first_token_s"] - requests["sent_s"], 0.2)
    assert (requests["warmup"].sum(), requests["concurrency"][0], requests["output_tokens"][1]) == (1, 1.0, 32.0)


def test_what_never_was_is_nan_or_none(tmp_path: Path) -> None:
    requests = stored(tmp_path / "run").requests

    assert np.isnan(requests["request_rate_per_s"]).all()
    assert {*requests["error"]} == {None}


def test_gaps_are_those_of_a_levels_measured_requests(tmp_path: Path) -> None:
    run = stored(tmp_path / "run")

    assert run.gaps_ms("m@c1").shape == (39 * 31,)
    assert set(run.gaps_ms("m@c1")) == {20.0}
    with pytest.raises(UsageError, match="has the levels m@c1"):
        run.gaps_ms("m@c9")


def test_dataframes_have_the_requests_the_levels_and_the_figures(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    run = stored(tmp_path / "run")

    requests, levels, figures = run.to_dataframe(), run.to_dataframe("levels"), run.to_dataframe("figures")

    assert list(requests.columns) == list(run.requests)
    assert (len(requests), len(run.to_dataframe(warmup=True))) == (39, 40)
    assert requests.ttft_ms.median() == 200.0
    (level,) = levels.itertuples()
    assert (level.level, level.concurrency, level.completed, level.ttft_ms_p50) == ("m@c1", 1, 39, 200.0)
    assert level.ttft_ms_p50_ci_low <= 200.0 <= level.ttft_ms_p50_ci_high
    row = figures.query("metric == 'ttft_ms' and statistic == 'p50'").iloc[0]
    assert (row.level, row.value, row.n) == ("m@c1", 200.0, 39)


def test_without_pandas_the_error_says_what_to_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(LoadbenchError, match=r"pip install pandas; without it `requests` has"):
        stored(tmp_path / "run").to_dataframe()


def test_a_notebook_shows_one_screen_and_plots_each_model(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    run = stored(tmp_path / "run", model="<m>")

    html, figure = run._repr_html_(), run.plot()

    assert "<script" not in html
    assert html.count("<tr>") == 2  # the heads and a level
    assert "Total speed" in html
    assert [(trace.name, list(trace.x)) for trace in figure.data] == [("&lt;m&gt;", [1.0])] * 2


@pytest.mark.parametrize(
    ("kind", "begins"), [("text", "loadbench"), ("markdown", "## loadbench"), ("csv", "run,model")]
)
def test_reports_are_those_of_the_command(tmp_path: Path, kind: str, begins: str) -> None:
    assert stored(tmp_path / "run").report(kind).startswith(begins)


def test_reading_changes_nothing(tmp_path: Path) -> None:
    run = stored(tmp_path / "run")
    before = {path.name: path.stat().st_mtime_ns for path in run.folder.iterdir()}
    run.report(), run.requests, repr(run)

    assert {path.name: path.stat().st_mtime_ns for path in run.folder.iterdir()} == before


# Comparing and choosing


def test_a_slower_run_is_slower_than_its_base(tmp_path: Path) -> None:
    base, slow = stored(tmp_path / "base"), stored(tmp_path / "slow", ttft=400.0)

    finding = slow.compare(base)

    words = {one["metric"]: one["word"] for one in finding.record["comparisons"][0]["levels"][0]["verdicts"]}
    assert words["ttft"] == "slower"
    assert "slow" in str(finding)
    assert finding.report("markdown").startswith("#")


def test_models_of_several_runs_are_held_against_one(tmp_path: Path) -> None:
    runs = [stored(tmp_path / name, name, ttft) for name, ttft in (("a", 200.0), ("b", 400.0), ("c", 200.0))]

    finding = loadbench.compare_models(runs, base="b")

    assert [one["new"]["name"] for one in finding.record["comparisons"]] == ["a", "c"]
    with pytest.raises(UsageError, match="it takes two models"):
        loadbench.compare_models(runs[0])


def test_the_model_that_is_faster_is_chosen(tmp_path: Path) -> None:
    runs = [stored(tmp_path / name, name, ttft) for name, ttft in (("quick", 100.0), ("slow", 900.0))]

    finding = loadbench.choose(runs, weights={"latency": 1}, needs=["ttft_p50 < 2s"])

    assert "quick" in str(finding.record["winner"])
    assert "quick" in str(finding)


def test_runs_without_a_common_level_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no level in common"):
        stored(tmp_path / "a").compare(stored(tmp_path / "b", streams=2))


# What is there


def test_the_catalogue_and_a_probe(server: Simulator) -> None:
    (model,) = loadbench.catalogue(server.url)
    (answer,) = loadbench.probe("m", endpoint=server.url, max_tokens=3, prompt="Why?")

    assert model["id"] == "m"
    assert (answer["model"], answer["output_tokens"], answer["error"]) == ("m", 3, None)


def test_a_catalogue_of_nobody_is_one_line() -> None:
    with pytest.raises(LoadbenchError, match=r"127\.0\.0\.1:9"):
        loadbench.catalogue("http://127.0.0.1:9")
