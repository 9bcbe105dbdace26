"""Load-test the language models on your own machines.

Data flows one way, and two halves meet only in the run folder:

    run:   scenario -> prompts -> server -> engine -> client -> transport -> record -> store
    read:  store -> metrics, stats -> compare, select -> report

`runner` measures, `cli` and `api` are its doors: `loadbench.run`, `loadbench.read` …
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_API = frozenset({"Finding", "Run", "catalogue", "choose", "compare_models", "probe", "read", "run"})


def __getattr__(name: str) -> Any:
    """What Python callers use is imported, with its libraries, when it is first asked for."""
    if name in _API:
        return getattr(import_module("loadbench.api"), name)
    raise AttributeError(f"module 'loadbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_API})
