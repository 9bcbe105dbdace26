"""Workers on hosts of their own, which are network namespaces: one is cut off in mid-run. And certificates."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from loadbench import store
from loadbench.serve import simulator
from tests.support.daskers import running

pytest.importorskip("distributed")
HERE, BRIDGE = "10.77.31.1", f"lb{os.getpid()}"
pytestmark = [pytest.mark.endurance, pytest.mark.filterwarnings("default"), pytest.mark.timeout(240)]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces on a bridge of this machine; their names."""
    if sys.platform != "linux" or os.geteuid() or shutil.which("ip") is None:
        pytest.skip("network namespaces need Linux, root and iproute2")
    names = [f"{BRIDGE}n1", f"{BRIDGE}n2"]
    with ExitStack() as stack:
        try:
            ip("link", "add", BRIDGE, "type", "bridge")
            stack.callback(ip, "link", "del", BRIDGE)
            ip("addr", "add", f"{HERE}/24", "dev", BRIDGE)
            ip("link", "set", BRIDGE, "up")
            for number, name in enumerate(names, start=2):
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
                ip("link", "add", f"{name}-a", "type", "veth", "peer", "name", f"{name}-b", "netns", name)
                stack.callback(ip, "link", "del", f"{name}-a")
                ip("link", "set", f"{name}-a", "master", BRIDGE, "up")
                ip("-n", name, "addr", "add", f"10.77.31.{number}/24", "dev", f"{name}-b")
                ip("-n", name, "link", "set", f"{name}-b", "up")
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace can be made here: {error.stderr.decode().strip()}")
        yield names


def loadbench(*words: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "loadbench", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **variables},
    )


def both_measure(records: Path) -> bool:
    """Whether there are measured requests of each of two workers: one has the even numbers, one the odd ones."""
    lines = records.read_bytes().splitlines(keepends=True) if records.exists() else []
    read = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return {one["request"] % 2 for one in read if not one["warmup"]} == {0, 1}


def test_a_host_that_is_cut_off_in_mid_run_leaves_a_marked_run_that_can_be_read(
    hosts: list[str], tmp_path: Path
) -> None:
    folder, levels = tmp_path / "run", ("-c", "8", "-d", "14s", "--no-repeat-first")
    before = [("ip", "netns", "exec", name) for name in hosts]
    with simulator.start(ttft_ms=50, itl_ms=5, host=HERE) as server, running(tmp_path, before, host=HERE) as address:
        run = loadbench("run", "-e", server.url, *levels, "--cluster", address, "-o", str(folder))
        while run.poll() is None and not both_measure(folder / "requests.jsonl"):
            time.sleep(0.1)
        ip("link", "set", f"{hosts[1]}-a", "down")
        said, _ = run.communicate(timeout=120)
        read = store.read(folder)
        summary = json.loads((folder / "summary.json").read_text())

    (level,) = summary["levels"]
    rows = {row["address"].rpartition(":")[0]: row for row in level["workers"]}
    assert run.returncode == 1, said
    assert "was lost" in said
    assert level["status"] == "incomplete"
    assert rows["tcp://10.77.31.2"]["status"] == "complete"
    assert rows["tcp://10.77.31.3"]["status"] == "lost"
    assert rows["tcp://10.77.31.3"]["completed"] > 0
    assert read.unreadable_lines == 0
    assert level["offered"] == level["dropped"] + level["attempted"]
    assert level["attempted"] == level["completed"] + level["failed"] + level["cancelled"]
    assert [one["severity"] for one in level["warnings"] if one["code"] == "workers"] == ["red"]
    assert (folder / "report.md").read_text().count("lost") >= 1


def test_a_cluster_with_certificates_is_reached_by_dasks_own_settings(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("certificates are made with openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=dask", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    tls = {
        f"DASK_DISTRIBUTED__COMM__TLS__{role}__{part}": str(file)
        for role in ("SCHEDULER", "WORKER", "CLIENT")
        for part, file in (("CERT", certificate), ("KEY", key))
    }
    tls |= {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(certificate)}
    with running(tmp_path, [()], protocol="tls", variables=tls) as address:
        words = ("run", "--simulate", "-c", "2", "-n", "6", "--cluster", address, "--no-repeat-first")
        run = loadbench(*words, "-o", str(tmp_path / "run"), **tls)
        said, _ = run.communicate(timeout=100)
        without = loadbench(*words, "-o", str(tmp_path / "without"))
        refused, _ = without.communicate(timeout=100)

    assert address.startswith("tls://")
    assert run.returncode == 0, said
    assert store.read(tmp_path / "run").info["spread"]["workers"][0]["address"].startswith("tls://")
    assert without.returncode != 0
    assert "Traceback" not in refused
