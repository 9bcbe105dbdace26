"""The benchmark of the client: it runs, its truth is that of the same requests, its verdicts follow its figures."""

import json
import math
from pathlib import Path
from typing import Any

import bench_client
import pytest
from bench import commands, loads, peers
from bench.loads import Load

pytestmark = pytest.mark.endurance

TINY = Load(streams=3, rounds=2, tokens=5, ttft_ms=20.0, itl_ms=5.0)


def numbers(value: Any) -> list[float]:
    """All numbers in a JSON document."""
    if isinstance(value, dict):
        return [number for each in value.values() for number in numbers(each)]
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.parametrize("client", ["loadbench-user", "httpx", "aiohttp"])
def test_the_truth_holds_the_very_requests_that_the_client_made(client: str) -> None:
    if loads.missing(client):
        pytest.skip(f"{client}: {loads.missing(client)}")

    figures = loads.run(client, TINY)

    assert (figures.requests, figures.failed, figures.tokens) == (6, 0, 30)
    assert (figures.truth_requests, figures.truth_tokens) == (6, 30)
    assert figures.truth_ms["ttft_p50"] == pytest.approx(20, abs=10)
    assert all(error is not None and error > -0.5 for error in map(figures.error, loads.COMPARED))


def test_it_prints_a_table_and_writes_finite_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    words = ["--quick", "--streams", "2", "--seconds", "0.1", "--tokens", "5", "--clients", "loadbench-user,httpx"]

    assert bench_client.main([*words, "--commands", "0", "--json", str(file)]) == 0

    found = json.loads(file.read_text())
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith(("truth", "l", "h"))]
    assert [figures["client"] for figures in found["figures"]] == ["loadbench-user", "httpx"]
    assert rows == ["truth", "loadbench-user", "httpx"]
    assert len(numbers(found)) > 40
    assert all(map(math.isfinite, numbers(found)))


def test_the_time_between_levels_is_the_servers_view_of_it() -> None:
    (gap_s,) = commands.between_levels_s((1, 2))

    assert 0 < gap_s < 5


def test_a_figure_at_its_limit_is_ok_and_one_beyond_it_is_over() -> None:
    verdicts = [bench_client.Budget("", figure, 10.0, "").verdict for figure in (None, 10.0, 10.1)]

    assert verdicts == ["-", "ok", "over"]


def test_a_load_restarts_its_streams_at_least_once() -> None:
    assert bench_client.load(512, 0.1, 100).rounds == 2
    assert bench_client.load(512, 10.0, 100).requests == 512 * 10


def test_the_stock_clients_percentile_is_the_nearest_rank() -> None:
    ascending = [n * 1_000_000 for n in range(1, 161)]

    assert [peers.percentile(ascending, p) for p in (0.5, 0.99, 0.999)] == [80, 159, 160]


def test_a_report_of_many_requests_is_made_of_real_records() -> None:
    took_s, peak_mb = commands.report_of(1000)

    assert took_s > 0
    assert peak_mb is None or 20 < peak_mb < 5000  # a child that begins is as large as who begins it


def test_a_summary_of_many_requests_is_timed_against_its_budget() -> None:
    row = bench_client.summary_budget(2000)

    assert (row.name, row.limit, row.verdict) == ("summary of 2,000 requests, 20 gaps each", 3.0, "ok")
    assert row.figure is not None
    assert row.figure > 0
