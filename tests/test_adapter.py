"""The child process: it starts, it tells, it ends, whatever the adapter does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from loadbench import machine
from loadbench.errors import LoadbenchError, UsageError
from loadbench.serve import adapter
from tests.support.runtimes import ends

pytestmark = pytest.mark.system

ADAPTERS = """
import os, pathlib, signal, sys, time
print("imported")
class Mine:
    def load(self, weights_path, *, note=None, loud=True):
        print("loaded")
        self.note = note
    def info(self):
        return {"note": self.note, "safe": sys.flags.safe_path}
    def generate(self, prompt):
        print("generated")
        return prompt
    def unload(self):
        pathlib.Path(self.note).write_text("unloaded")
class Fails(Mine):
    def load(self, weights_path): raise RuntimeError("no\\nGPU")
class Dies(Mine):
    def load(self, weights_path):
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
class Exits(Mine):
    def load(self, weights_path): os._exit(7)
class Slow(Mine):
    def load(self, weights_path): time.sleep(60)
class Hangs(Mine):
    def unload(self): time.sleep(60)
class DiesLater(Mine):
    def generate(self, prompt): os._exit(3)
class Stuck(Mine):
    def generate(self, prompt): time.sleep(60)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with adapters in it."""
    (tmp_path / "mine.py").write_text(ADAPTERS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(server: adapter.AdapterServer) -> httpx.Response:
    body = {"model": server.model, "messages": [{"role": "user", "content": "hello"}]}
    return httpx.post(f"{server.url}/chat/completions", json=body)


def test_an_adapter_of_the_working_folder_is_served_whatever_it_prints() -> None:
    with adapter.start("mine:Mine", options={"note": "é 'x' \"y\""}, model="it", slots=2, queue=3) as server:
        text = ask(server).json()["choices"][0]["message"]["content"]
        [row] = httpx.get(f"{server.url}/models").json()["data"]

    assert text == "hello"
    assert (row["id"], row["note"]) == ("it", "é 'x' \"y\"")
    assert (server.model, server.adapter, server.slots, server.queue) == ("it", "mine:Mine", 2, 3)


def test_the_model_is_unloaded_as_the_server_stops(folder: Path) -> None:
    note = folder / "note"
    with adapter.start("mine:Mine", options={"note": str(note)}):
        assert not note.exists()

    assert note.read_text() == "unloaded"


def test_a_generation_that_cannot_be_interrupted_does_not_hold_the_end_off(folder: Path) -> None:
    note = folder / "note"
    with adapter.start("mine:Stuck", options={"note": str(note)}) as server, socket.socket() as client:
        port = int(server.url.rpartition(":")[2].removesuffix("/v1"))
        client.connect(("127.0.0.1", port))
        body = json.dumps({"model": "stuck", "messages": [{"role": "user", "content": "x"}]})
        client.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        while httpx.get(f"http://127.0.0.1:{port}/health").json()["in_flight"] == 0:
            time.sleep(0.005)
        began = time.monotonic()

    assert time.monotonic() - began < 5
    assert not note.exists(), "a model that computes is not unloaded"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_child_stops_on_a_signal(number: int, folder: Path) -> None:
    note = folder / "note"
    with machine.Child(machine.python("loadbench.serve", "adapter.server")) as child:
        child.send({"spec": "mine:Mine", "options": {"note": str(note)}})
        assert child.first_line(20)
        child.process.send_signal(number)

        assert child.process.wait(5) == 0
    assert note.read_text() == "unloaded"


def test_the_child_does_not_outlive_a_killed_parent() -> None:
    parent = (
        "import time; from loadbench.serve import adapter\n"
        "with adapter.start('echo') as server: print(server.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        process.kill()

    assert ends(pid)


@pytest.mark.skipif(sys.platform == "win32", reason="sessions are POSIX")
def test_ctrl_c_does_not_reach_the_child_so_that_requests_can_be_drained() -> None:
    with adapter.start("echo") as server:
        assert os.getsid(server.pid) != os.getsid(0)


def test_a_file_of_the_working_folder_is_not_taken_for_one_of_the_library(folder: Path) -> None:
    (folder / "json.py").write_text("raise AssertionError")
    with adapter.start("mine:Mine", options={"note": str(folder / "note")}) as server:
        assert ask(server).status_code == 200


def test_an_unload_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadbench.serve.adapter.STOP_TIMEOUT_S", 0.3)
    with adapter.start("mine:Hangs") as server:
        pass

    assert not psutil.pid_exists(server.pid)


# -- errors: one line each


@pytest.mark.parametrize(
    ("spec", "settings", "message", "kind"),
    [
        ("mine:Mnie", {}, r"the module mine has no 'Mnie'; is it Mine\?", UsageError),
        ("echo", {"options": {"dealy_ms": 1}}, "load of echo does not take what is given: .*", UsageError),
        (
            "mine:Fails",
            {"weights": "w"},
            r"mine:Fails cannot load w: RuntimeError: no GPU \(mine.py:16\)",
            LoadbenchError,
        ),
        ("mine:Dies", {}, "mine:Dies ended as it was loaded, with SIGKILL: last words", LoadbenchError),
        ("mine:Exits", {}, "mine:Exits ended as it was loaded, with exit code 7.*", LoadbenchError),
        ("mine:Slow", {"timeout_s": 0.3}, "mine:Slow is not loaded after 0.3 s; .*", LoadbenchError),
        ("echo", {"slots": 0}, "--slots must be 1 to 1024, not 0", UsageError),
        ("echo", {"queue": -1}, "--queue must be 0 to 65536, not -1", UsageError),
        ("echo", {"port": 65_536}, "--port must be 0 to 65535, not 65536", UsageError),
    ],
)
def test_what_cannot_be_served_is_one_line(
    spec: str, settings: dict[str, Any], message: str, kind: type[LoadbenchError]
) -> None:
    with pytest.raises(LoadbenchError, match=f"^{message}$") as caught, adapter.start(spec, **settings):
        pass

    assert type(caught.value) is kind


def test_a_port_in_use_is_reported_before_the_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(LoadbenchError, match=f"^cannot listen on 127.0.0.1:{port}: "),
            adapter.start("mine:Slow", port=port),
        ):
            pass


def test_an_end_in_mid_run_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with adapter.start("mine:DiesLater") as server:
        with pytest.raises(httpx.RemoteProtocolError):
            ask(server)
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)  # left for its parent to see

    assert "the adapter ended by itself: exit code 3" in caplog.text
