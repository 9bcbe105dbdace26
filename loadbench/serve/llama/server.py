"""llama.cpp's server in this process, out of the wheel xllamacpp (extra `llama`; MIT).

Measured on two cores of an AMD EPYC, shared with the client, with one thread and 8 slots of 2048 tokens: ready after
0.5 to 1 s; 520 MiB resident (4 slots: 336; the KV cache takes 23 KB a token, all of it at the start); 121 tokens/s in
all for 1 stream, 112 for 4, 131 for 8: one thread computes all streams of a batch, so they gain next to nothing.
"""

import contextlib
import http.client
import importlib.util
import json
import os
import platform
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from loadbench.errors import LoadbenchError, UsageError, how_to_install
from loadbench.serve.llama.model import MODEL, fetch_model

SLOTS = 8
MAX_SLOTS = 256  # LLAMA_MAX_SEQ, compiled into llama.cpp
MAX_THREADS = 512  # GGML_MAX_N_THREADS, likewise
MAX_CONTEXT = 1_000_000  # beyond any model here; guards against a slip of the finger taking all memory
CONTEXT = 2048  # tokens a slot: a prompt of 1024 and an answer almost as long, with room for the chat template
ORPHAN_CHECK_S = 0.5
HEALTHY_TIMEOUT_S = 30.0


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


def available(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """None where the embedded model can run, else one line that says why not and what to do."""
    if importlib.util.find_spec("xllamacpp") is None:
        if not _has_wheel():
            machine = f"{platform.system()} on {platform.machine()}"
            return f"the embedded model has no wheel for {machine}: pass a server with -e URL"
        return f"the embedded model needs xllamacpp: {how_to_install('llama')}"
    if sys.platform == "linux" and platform.machine() == "x86_64":
        with contextlib.suppress(OSError):
            if "avx2" not in cpuinfo.read_text().split():
                return "the embedded model needs a CPU with AVX2, which this one lacks: pass a server with -e URL"
    return None


def _has_wheel() -> bool:
    """xllamacpp has wheels for Linux with glibc (x86-64, Arm), macOS 14 and later, Windows on x86-64."""
    machine = platform.machine().lower()
    if sys.platform == "linux":
        return machine in ("x86_64", "aarch64") and platform.libc_ver()[0] == "glibc"
    return sys.platform == "darwin" or (sys.platform == "win32" and machine == "amd64")


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
    *,
    gguf: Path | None = None,
    slots: int = SLOTS,
    threads: int | None = None,
    context: int = CONTEXT,
    host: str = "127.0.0.1",
    port: int = 0,
    alias: str | None = None,
    api_key: str | None = None,
    until_eof: bool = False,
    verbose: bool = False,
    progress: Callable[[str], None] | None = None,
) -> NoReturn:
    """Serve in this process until SIGTERM or SIGINT, then end it with exit code 0.

    Only for the main thread of a process that does nothing else.

    Args:
        ready: Called once /health answers 200.
        context: Tokens per slot.
        alias: The model id to serve under.
        api_key: What requests must carry as a bearer token, if anything; llama.cpp lists its models without.
        until_eof: Stop as well when stdin, if it is a pipe, ends, or when the parent is gone.
        progress: Told when the model file is fetched.
    Raises:
        UsageError: The GGUF file is missing or not one, or a number is out of range.
        LoadbenchError: Not available here, port in use, not enough memory.
    """
    if reason := available():
        raise LoadbenchError(reason)
    threads = default_threads() if threads is None else threads
    for name, value, least, most in (
        ("slots", slots, 1, MAX_SLOTS),
        ("threads", threads, 1, MAX_THREADS),
        ("context", context, 1, MAX_CONTEXT),
        ("port", port, 0, 65_535),
    ):
        if not least <= value <= most:
            raise UsageError(f"--{name} must be {least} to {most}, not {value}")
    path = gguf or fetch_model(progress)
    _check_gguf(path)
    alias = alias or (path.stem if gguf else MODEL)
    parent = os.getppid()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())

    with _log(verbose) as log:
        try:
            import xllamacpp

            parameters = xllamacpp.CommonParams()
            _set(parameters, path, alias, slots, threads, context, host, port)
            parameters.api_keys = [] if api_key is None else [api_key]
            parameters.verbosity = 3 if verbose else 1
            server = xllamacpp.Server(parameters)  # returns when the model is loaded and the port open
        except ImportError as error:
            raise LoadbenchError(f"xllamacpp cannot be loaded: {error}; pass another server with -e URL") from error
        except RuntimeError as error:
            raise LoadbenchError(_cause(log(), path, host, port, slots, context)) from error
        near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        bound = int(server.listening_address.rpartition(":")[2])
        _wait_healthy(near, bound)
        context = _slot_context(near, bound, api_key)
        url = f"http://{f'[{near}]' if ':' in near else near}:{bound}/v1"
        ready(LlamaServer(url, os.getpid(), alias, slots, threads, str(path), context))
        until_eof = until_eof and _stdin_is_pipe()
        if until_eof:
            threading.Thread(target=_await_eof, args=(stopped,), daemon=True).start()
        # A forked relative may hold the pipe open, so the parent's id is watched too. PR_SET_PDEATHSIG would not do: it
        # fires when the *thread* that started us ends (man 2const PR_SET_PDEATHSIG), and worker threads come and go.
        while not stopped.wait(ORPHAN_CHECK_S) and not (until_eof and os.getppid() != parent):
            pass
        # Tearing the C++ server down waits 30 s for clients that still stream; the system frees it all at once.
        sys.stdout.flush()
        os._exit(0)


def _set(parameters: Any, path: Path, alias: str, slots: int, threads: int, context: int, host: str, port: int) -> None:
    """Fill in xllamacpp's CommonParams, which are llama.cpp's common_params."""
    parameters.model.path = str(path)
    parameters.model_alias = {alias}  # a C++ set: of a plain str it would make an alias of each letter
    parameters.hostnames = [host]
    parameters.port = port
    parameters.n_parallel = slots
    parameters.n_ctx = slots * context  # the total, which llama.cpp divides evenly: /slots shows each one's n_ctx
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    parameters.cache_ram_mib = 0  # no prompt cache beside the slots' own
    parameters.endpoint_metrics = True
    parameters.endpoint_slots = True
    parameters.fit_params = False  # never silently a smaller context than asked for
    parameters.n_gpu_layers = 0  # on the CPU everywhere, so that the model's name has one meaning
    parameters.ui = False
    parameters.cors_origins = "http://localhost"  # not any web page that the user has open, which is the default


def _check_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise UsageError(f"the model file {path} cannot be read: {error.strerror or error}") from error
    if magic != b"GGUF":
        raise UsageError(f"{path} is not a GGUF model file: it begins with {magic!r} instead of b'GGUF'")


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


def _cause(log: str, path: Path, host: str, port: int, slots: int, context: int) -> str:
    """What the log says; the exception itself is always "Failed to init server, please check the input params."."""
    if "couldn't bind" in log:
        return f"cannot listen on {host}:{port}: the port is taken, or the address is not this machine's; try --port 0"
    if "failed to allocate" in log or "bad_alloc" in log:
        return f"not enough memory for {slots} slots of {context} tokens: give fewer --slots or a smaller --context"
    errors = [line.partition(" E ")[2].strip() for line in log.splitlines() if " E " in line]
    return f"llama.cpp cannot serve {path}: {errors[0] if errors else 'no reason given, try --verbose'}"


def _wait_healthy(host: str, port: int) -> None:
    """Wait until /health answers 200; it says 503 while a model loads."""
    give_up = time.monotonic() + HEALTHY_TIMEOUT_S
    while _get(host, port, "/health")[0] != 200:
        if time.monotonic() > give_up:
            raise LoadbenchError(f"llama.cpp opened its port {port} but is not healthy after {HEALTHY_TIMEOUT_S:g} s")
        time.sleep(0.05)


def _slot_context(host: str, port: int, api_key: str | None) -> int:
    """Tokens per slot, which llama.cpp rounds to 256 and caps at what the model was trained on."""
    context: int = json.loads(_get(host, port, "/slots", api_key)[1])[0]["n_ctx"]
    return context


def _get(host: str, port: int, path: str, api_key: str | None = None) -> tuple[int, bytes]:
    """Status and body; without httpx, whose import costs more than the server's start, and past any proxy."""
    connection = http.client.HTTPConnection(host, port, timeout=HEALTHY_TIMEOUT_S)
    try:
        connection.request("GET", path, headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _stdin_is_pipe() -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(0).st_mode)
    except OSError:  # closed
        return False


def _await_eof(stopped: threading.Event) -> None:
    while os.read(0, 4096):  # not sys.stdin: its lock would be held at exit
        pass
    stopped.set()
