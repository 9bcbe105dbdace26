"""Where the environment names a proxy, stock httpx takes the measured path's place, and the run says so."""

import json
import os
import subprocess
import sys
from pathlib import Path

from loadbench import simulator


def through_proxy(proxy: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A run against a host that only the proxy knows."""
    root = proxy.removesuffix("/v1")
    command = [sys.executable, "-m", "loadbench", "run", "-e", "http://model.test/v1", "-o", str(folder), *options]
    environ = {**os.environ, "HTTP_PROXY": root, "http_proxy": root, "NO_PROXY": "", "no_proxy": ""}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_a_run_through_a_proxy_measures_with_stock_httpx_and_says_so(tmp_path: Path) -> None:
    with simulator.start(ttft_ms=20, itl_ms=2) as server:
        done = through_proxy(server.url, tmp_path / "run", "-c", "2", "-n", "6", "--max-tokens", "10")

    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run/summary.json").read_bytes())
    (level,) = summary["levels"]
    assert (level["completed"], level["output_tokens"]["mean"], level["clock"]) == (6, 10, "user")
    assert 19 < level["ttft_ms"]["p50"] < 500
    assert "through a proxy" in done.stdout


def test_failures_behind_a_proxy_keep_their_words(tmp_path: Path) -> None:
    faults = {"503": 0.3, "cut": 0.3}
    with simulator.start(ttft_ms=5, itl_ms=1, faults=faults, seed=2) as server:
        done = through_proxy(server.url, tmp_path / "run", "-c", "2", "-n", "30", "--max-tokens", "10")
        truth = simulator.truth(server.url)

    (level,) = json.loads((tmp_path / "run/summary.json").read_bytes())["levels"]
    assert set(level["errors"]) == {"http_5xx", "truncated"}, done.stderr
    assert level["completed"] + level["failed"] == 30
    assert truth["faults"]["cut"] > 0


def test_a_proxy_that_is_down_is_named(tmp_path: Path) -> None:
    done = through_proxy("http://127.0.0.1:1/v1", tmp_path / "run")

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "proxy" in done.stderr
    assert not (tmp_path / "run").exists()
