"""The server in a child process, so that its threads never share an interpreter with the load generator's clock."""

import contextlib
import json
import logging
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from loadbench.errors import LoadbenchError, UsageError
from loadbench.serve.llama.model import MODEL, fetch_model
from loadbench.serve.llama.server import LlamaServer, available

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 3.0


@contextlib.contextmanager
def start(
    gguf: Path | str | None = None,
    slots: int | None = None,
    threads: int | None = None,
    port: int = 0,
    *,
    context: int | None = None,
    host: str = "127.0.0.1",
    alias: str | None = None,
    verbose: bool = False,
    timeout_s: float = READY_TIMEOUT_S,
    progress: Callable[[str], None] | None = None,
) -> Iterator[LlamaServer]:
    """Start the embedded model, yield it once /health answers 200, and end it surely.

    The child has a session of its own: Ctrl-C reaches only the caller, who may still drain requests before it stops
    the server. Where the caller dies without a word, the child sees its stdin end and stops.

    Args:
        gguf: A model file; None fetches the embedded one, which `progress` is told.
        context: Tokens per slot.
        timeout_s: For loading the model, the download apart.
    Raises:
        UsageError: The GGUF file is missing or not one.
        LoadbenchError: Not available here, no network, port in use, not enough memory, not ready in time.
    """
    from loadbench import machine

    if reason := available():
        raise LoadbenchError(reason)
    if gguf is None:
        gguf, alias = fetch_model(progress), alias or MODEL
    options = {
        "port": port,
        "host": host,
        "gguf": gguf,
        "slots": slots,
        "threads": threads,
        "context": context,
        "alias": alias,
    }
    command = machine.python("loadbench.serve.llama")
    command += [f"--{name}={value}" for name, value in options.items() if value is not None]
    if verbose:
        command.append("--verbose")
    with (
        machine.complaints() as errors,
        machine.start(command, errors=None if verbose else errors) as child,
    ):
        try:
            line = machine.first_line(child, timeout_s)
            if line is None:
                raise LoadbenchError(
                    f"the embedded model is not ready after {timeout_s:g} s; "
                    "`loadbench serve llama --verbose` shows why"
                )
            if not line:
                errors.seek(0)
                raise _failure(child.wait(), errors.read().decode(errors="replace"))
            yield LlamaServer(**json.loads(line))
            if child.poll() is not None:
                logging.getLogger(__name__).warning(
                    "the embedded model ended by itself: exit code %s", child.returncode
                )
        finally:
            _stop(child)


def _failure(returncode: int, errors: str) -> LoadbenchError:
    said = [line.removeprefix("Error: ") for line in errors.splitlines() if line.startswith("Error: ")]
    if said:
        return (UsageError if returncode == 2 else LoadbenchError)(said[-1])
    if returncode < 0:
        name = signal.Signals(-returncode).name
        hint = (
            ", most likely for want of memory: give fewer --slots or a smaller --context"
            if name in ("SIGKILL", "SIGABRT")
            else ""
        )
        return LoadbenchError(f"the embedded model was ended by {name} as it started{hint}")
    last = (errors.strip().splitlines() or ["no message"])[-1]
    return LoadbenchError(f"the embedded model ended as it started with exit code {returncode}: {last}")


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
