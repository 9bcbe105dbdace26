"""Compiles the reader thread (loadbench/transport/_reader.c) as loadbench is installed; left out where it cannot.

It takes Linux, a C compiler (CC names another than `cc`) and Python's headers. A wheel without it is pure Python.
LOADBENCH_NO_READER=1 leaves it out. The compiler's words, if it fails: `pip install -v`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = "loadbench/transport/_reader.abi3.so"
"""One file for CPython 3.11 and newer: it keeps to the stable ABI."""


class CustomBuildHook(BuildHookInterface):
    """Hatchling's door."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        failure = compiled(Path(self.root))
        if failure is not None:
            self.app.display_info(f"loadbench is built without its reader thread: {failure}")
            return
        build_data["artifacts"].append(BUILT)
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def compiled(root: Path) -> str | None:
    """Compile it into the source tree, where an editable install finds it; None, or why that cannot be."""
    built = root / BUILT
    built.unlink(missing_ok=True)  # it may be of another machine
    stable = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
    if not sys.platform.startswith("linux") or not stable:
        return "it is for CPython with its lock, on Linux"
    if os.environ.get("LOADBENCH_NO_READER"):
        return "LOADBENCH_NO_READER is set"
    command = [*shlex.split(os.environ.get("CC", "cc")), "-std=c11", "-O2", "-fPIC", "-shared", "-pthread"]
    command += shlex.split(os.environ.get("CFLAGS", ""))
    command += ["-I", sysconfig.get_paths()["include"], str(built.with_name("_reader.c")), "-o", str(built)]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        built.unlink(missing_ok=True)
        return str(error)
    return None
