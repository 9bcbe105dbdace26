"""Where the environment names a proxy, stock httpx takes the measured path's place, and the run says so."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from loadbench.serve import simulator
from tests.support.asking import ask_many, seconds
from tests.support.forks import Ended, Forks
from tests.support.gateways import NOT_FOUND, Answered, Asked, gateway, listed
from tests.support.replay import HOLD, RECEIVE, Step, serve
from tests.support.wire import DONE, HEAD, LAST, chunk, event

pytestmark = pytest.mark.system


@pytest.fixture
def through_proxy(loadbench: Forks) -> Callable[..., Ended]:
    """Runs a run against a host that only the proxy knows."""

    def run(proxy: str, folder: Path, *options: str) -> Ended:
        root = proxy.removesuffix("/v1")
        variables = {"HTTP_PROXY": root, "http_proxy": root, "NO_PROXY": "", "no_proxy": ""}
        return loadbench.run("run", "-e", "http://model.test/v1", "-o", folder, *options, variables=variables)

    return run


def test_a_run_through_a_proxy_measures_with_stock_httpx_and_says_so(
    through_proxy: Callable[..., Ended], tmp_path: Path
) -> None:
    with simulator.start(ttft_ms=20, itl_ms=2) as server:
        done = through_proxy(server.url, tmp_path / "run", "-c", "2", "-n", "6", "--max-tokens", "10", "--full")

    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "run/summary.json").read_bytes())
    (level,) = summary["levels"]
    assert (level["completed"], level["output_tokens"]["mean"], level["clock"]) == (6, 10, "user")
    assert 19 < level["ttft_ms"]["p50"] < 500
    assert "through a proxy" in done.out


def test_failures_behind_a_proxy_keep_their_words(through_proxy: Callable[..., Ended], tmp_path: Path) -> None:
    faults = {"503": 0.3, "cut": 0.3}
    with simulator.start(ttft_ms=5, itl_ms=1, faults=faults, seed=2) as server:
        done = through_proxy(server.url, tmp_path / "run", "-c", "2", "-n", "30", "--max-tokens", "10")
        truth = simulator.truth(server.url)

    (level,) = json.loads((tmp_path / "run/summary.json").read_bytes())["levels"]
    assert set(level["errors"]) == {"http_5xx", "truncated"}, done.err
    assert level["completed"] + level["failed"] == 30
    assert truth["faults"]["cut"] > 0


def test_a_proxy_that_is_down_is_named(through_proxy: Callable[..., Ended], tmp_path: Path) -> None:
    done = through_proxy("http://127.0.0.1:1/v1", tmp_path / "run")

    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "proxy" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rest", [[HOLD], [0.01, chunk(b": ping\n\n")] * 500])
def test_a_body_that_goes_on_behind_a_proxy_is_not_waited_for(rest: list[Step]) -> None:
    with serve([RECEIVE, HEAD + chunk(event("A")) + chunk(event("B", "stop") + DONE), *rest]) as proxy:
        results = ask_many("http://model.test", 5, proxy=proxy.url, timeouts=seconds())

    assert [(result.error, result.text) for result in results] == [(None, "AB")] * 5
    assert all(result.end_ns == result.last_token_ns for result in results)


def test_a_connection_to_a_proxy_is_kept_where_the_body_ends_a_moment_after_done() -> None:
    with serve([RECEIVE, HEAD + chunk(event("A", "stop") + DONE), 0.02, LAST] * 4 + [HOLD]) as proxy:
        results = ask_many("http://model.test", 4, proxy=proxy.url, timeouts=seconds())

    assert [result.error for result in results] == [None] * 4
    assert proxy.connections == 1


def test_gzip_is_read_behind_a_proxy_too(through_proxy: Callable[..., Ended], tmp_path: Path) -> None:
    body = gzip.compress(event("A") + event("B", "stop") + DONE)
    headers = {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}

    def law(asked: Asked) -> Answered:
        if asked.method == "POST":
            return Answered(body=body, headers=headers)
        return listed("m") if asked.path.endswith("/models") else NOT_FOUND

    with gateway(law) as server:
        done = through_proxy(server.url, tmp_path / "run", "-c", "1", "-n", "3")

    (level,) = json.loads((tmp_path / "run/summary.json").read_bytes())["levels"]
    assert (level["completed"], level["failed"]) == (3, 0), done.err
