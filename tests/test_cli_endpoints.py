"""`loadbench run -e URL -e URL`: requests are spread over replicas; figures of each and of all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from loadbench import api
from loadbench.api import Event
from loadbench.serve import simulator
from loadbench.serve.simulator import Simulator
from tests.support.command import invoke, invoked

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("place")]

BRIEF = ("-c", "2", "-n", "24", "--max-tokens", "4", "--no-repeat-first", "--quiet")


@pytest.fixture(scope="module")
def other() -> Iterator[Simulator]:
    with simulator.start(ttft_ms=1, itl_ms=0.2) as server:
        yield server


def run(*words: object, **variables: str) -> Result:
    return invoked("run", *words, **variables)


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path("run") / name).read_bytes())
    return found


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path("run") / "requests.jsonl").read_text().splitlines()]


def test_each_endpoint_gets_its_part_and_has_the_figures_of_its_own_law() -> None:
    with simulator.start(ttft_ms=20, itl_ms=2) as fast, simulator.start(ttft_ms=80, itl_ms=2) as slow:
        done = run("-e", fast.url, "-e", slow.url, "--weights", "3,1", *BRIEF, "-n", "80", "--warmup", "4", "-o", "run")
        truths = [simulator.truth(server.url) for server in (fast, slow)]
    level = read("summary.json")["levels"][0]
    asked = Counter(record["endpoint"] for record in records())

    assert done.exit_code == 0, done.output
    assert asked == {0: 63, 1: 21}  # with the warm-up
    assert [one["share"] for one in level["endpoints"]] == [0.75, 0.25]
    assert sum(one["completed"] for one in level["endpoints"]) == level["completed"] == 80
    # The probes: two of the first endpoint, one of the other.
    assert [truth["completed"] for truth in truths] == [63 + 2, 21 + 1]
    did_ms = [truth["ttft_us"]["p50"] / 1000 for truth in truths]
    assert [one["ttft_ms"]["p50"] for one in level["endpoints"]] == pytest.approx(did_ms, rel=0.2)


def test_run_json_names_each_endpoint_with_what_answers_there(quick: Simulator, other: Simulator) -> None:
    run("-e", quick.url, "-e", other.url, *BRIEF, "-o", "run")
    info = read("run.json")

    assert [(one["url"], one["weight"], one["kind"]) for one in info["endpoints"]] == [
        (quick.url, 1, "simulator"),
        (other.url, 1, "simulator"),
    ]
    assert all(one["round_trip_ms"] > 0 for one in info["endpoints"])
    assert info["levels"][0]["endpoint"] is None
    assert info["telemetry"]["server_pids"] == [quick.pid, other.pid]


def test_reports_have_a_table_of_the_endpoints(quick: Simulator, other: Simulator) -> None:
    run("-e", quick.url, "-e", other.url, *BRIEF, "-o", "run")
    text = invoke("report", "run", "--full").stdout
    markdown, page, table = (invoke("report", "run", "--format", kind).stdout for kind in ("markdown", "html", "csv"))

    for report in (text, markdown, page):
        assert "Endpoints" in report
        assert other.url.removeprefix("http://").removesuffix("/v1") in report
    figures = [line.split(",") for line in table.splitlines()]
    assert {row[15] for row in figures if row[5:7] == ["ttft_ms", "p50"]} == {"", quick.url, other.url}


def test_one_endpoint_alone_has_no_such_table(quick: Simulator) -> None:
    run("-e", quick.url, *BRIEF, "-o", "run")

    assert read("run.json")["endpoints"] is None
    assert read("run.json")["levels"][0]["endpoint"] == quick.url
    assert "Endpoints" not in (Path("run") / "report.md").read_text()


def test_a_dry_run_shows_all_endpoints(quick: Simulator, other: Simulator) -> None:
    done = run("-e", quick.url, "-e", other.url, "--weights", "1,2", "-c", "1", "--dry-run")

    assert f"target    {quick.url} (simulator" in done.stderr
    assert f"and       {other.url} (simulator" in done.stderr
    assert "in turns  1:2 of the requests" in done.stderr


def test_a_variable_names_several_with_commas(quick: Simulator, other: Simulator) -> None:
    done = run("-c", "1", "--dry-run", LOADBENCH_ENDPOINT=f"{quick.url},{other.url}")

    assert f"and       {other.url}" in done.stderr


def test_a_scenario_file_names_several(quick: Simulator, other: Simulator, place: Path) -> None:
    (place / "two.toml").write_text(f'endpoint = ["{quick.url}", "{other.url}"]\nweights = [3, 1]\n')

    several = run("two.toml", "--dry-run").stderr
    single = run("two.toml", "-e", other.url, "--dry-run").stderr

    assert "in turns  3:1" in several
    assert "in turns" not in single  # weights of the file belong to its endpoints


def test_from_python_too(quick: Simulator, other: Simulator) -> None:
    found = api.run(endpoint=[quick.url, other.url], weights=[1, 2], concurrency=1, requests=30, max_tokens=4)

    assert [one["share"] for one in found.levels[0]["endpoints"]] == pytest.approx([1 / 3, 2 / 3], abs=0.05)
    assert set(found.requests["endpoint"]) == {0, 1}


def test_a_search_for_the_capacity_spreads_its_requests_too(quick: Simulator, other: Simulator) -> None:
    words = ("--slo", "ttft_p95=5s", "--max", "2", "-n", "80", "--max-tokens", "2", "-q", "-o", "run")
    done = invoke("capacity", "-e", quick.url, "-e", other.url, *words)

    assert done.exit_code == 0, done.output
    assert {record["endpoint"] for record in records()} == {0, 1}


def test_an_endpoint_that_dies_fails_its_requests_and_is_named(quick: Simulator) -> None:
    with ExitStack() as mortal:
        dies = mortal.enter_context(simulator.start(ttft_ms=1, itl_ms=0.2))

        def told(event: Event) -> None:
            if event["event"] == "level_ended":
                mortal.close()

        found = api.run(endpoint=[quick.url, dies.url], concurrency=[1, 2], requests=200, max_tokens=4, progress=told)
    first, last, *_ = found.levels

    assert [one["failed"] for one in first["endpoints"]] == [0, 0]
    assert last["endpoints"][0]["failed"] == 0
    assert last["endpoints"][1]["failed"] == last["failed"] > 0
    assert set(last["endpoints"][1]["errors"]) <= {"connect", "reset", "truncated"}
    assert any(f"{dies.url} failed" in one["text"] for one in last["warnings"])


def test_an_endpoint_that_does_not_answer_is_named_before_the_run(quick: Simulator) -> None:
    done = run("-e", quick.url, "-e", "http://127.0.0.1:9", *BRIEF, "-o", "run")

    assert done.exit_code == 1
    assert "nothing answers at http://127.0.0.1:9" in done.stderr
    assert not Path("run").exists()


def test_an_endpoint_without_the_model_is_named_before_the_run(quick: Simulator) -> None:
    with simulator.start(models=["another"]) as strange:
        done = run("-e", quick.url, "-e", strange.url, *BRIEF, "-o", "run")

    assert done.exit_code == 1
    assert f"{strange.url} has no model 'simulator'" in done.stderr
    assert not Path("run").exists()


def test_an_endpoint_that_lists_a_model_and_cannot_run_it_is_named_before_it_is_measured(quick: Simulator) -> None:
    with simulator.start(faults={"500": 1.0}) as broken:
        done = run("-e", quick.url, "-e", broken.url, *BRIEF, "-o", "run")

    assert done.exit_code == 1
    assert f"simulator: {broken.url}: http_5xx" in done.stderr
    assert read("run.json")["levels"][0]["status"] == "skipped"


REFUSED = {
    "the same endpoint twice": (["-e", "http://127.0.0.1:1/v1", "-e", "127.0.0.1:1"], "again: name each once"),
    "several in one option": (["-e", "http://127.0.0.1:1,http://127.0.0.1:2"], "an -e of its own"),
    "weights of others": (["-e", "http://127.0.0.1:1", "-e", "http://127.0.0.1:2", "--weights", "1"], "1 for 2"),
    "a weight of nothing": (["-e", "http://127.0.0.1:1", "-e", "http://127.0.0.1:2", "--weights", "0,1"], "at least 1"),
    "a second side": (["-e", "http://127.0.0.1:1", "-e", "http://127.0.0.1:2", "--against", "http://x"], "--against"),
    "cold starts": (["-e", "http://127.0.0.1:1", "-e", "http://127.0.0.1:2", "--cold"], "--cold"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_several_endpoints_cannot_mean_is_refused(why: str) -> None:
    words, said = REFUSED[why]
    done = run(*words, "--dry-run")

    assert done.exit_code == 2
    assert said in done.stderr


def test_a_run_that_is_continued_keeps_its_endpoints(quick: Simulator, other: Simulator) -> None:
    run("-e", quick.url, "-e", other.url, *BRIEF, "-o", "run")
    info = read("run.json")
    info["levels"][0]["status"] = "interrupted"
    Path("run/run.json").write_text(json.dumps(info))

    refused = run("--resume", "run", "-e", quick.url)
    again = run("--resume", "run", "--quiet")

    assert (refused.exit_code, again.exit_code) == (2, 0)
    assert "leave out -e" in refused.stderr
    assert {record["endpoint"] for record in records() if record["attempt"] == 2} == {0, 1}
