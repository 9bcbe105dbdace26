"""What the errors of Foundry Local's SDK mean, in one line each that says what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from loadbench.errors import LoadbenchError, TargetError

INTERNAL, CANCELLED, NETWORK = 2, 5, 6
"""Of FoundryLocalException.error_code; 1 is not implemented, 3 a bad argument, 4 bad usage."""

_PLACE = re.compile(r"^\S+\.(?:cc|cpp|h):\d+ ")
_MEMORY = re.compile(
    r"bad.?alloc|bad allocation|out of memory|failed to allocate|cannot allocate|not enough memory|ALLOC_FAILED", re.I
)
_PROVIDER = re.compile(r"requires (\w+) which is not registered")
_IN_USE = re.compile(r"(?<!\d)(\d{1,9}) session\(s\) still using it")


class Busy(LoadbenchError):
    """A model answers requests."""


def plain(message: str) -> str:
    """An SDK message without the place in its source and the signature that it begins with, on one line.

    >>> plain("model.cc:530 void fl::Model::Load(fl::ExecutionProvider) model not found at path: /x")
    'model not found at path: /x'
    """
    text = " ".join(message.split())
    found = _PLACE.match(text)
    if found is None:
        return text
    depth = 0
    for i in range(found.end(), len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if text[i] == ")" and depth == 0 and text[i + 1 : i + 2] == " ":
            return text[i + 1 :].strip()
    return text[found.end() :]


def on_load(model: str, message: str) -> LoadbenchError:
    """Why a model did not load."""
    told = plain(message)
    if _MEMORY.search(told):
        return LoadbenchError(
            f"{model} does not fit into memory: unload other models, or take a smaller model or variant ({told})"
        )
    if found := _PROVIDER.search(told):
        return TargetError(
            f"{model} needs {found[1]}, which is not on this machine: install the device's driver and let the SDK "
            "fetch the provider (it needs a network once), or take another variant, as with --device cpu"
        )
    return LoadbenchError(f"{model} cannot be loaded: {told}")


def on_unload(model: str, message: str) -> LoadbenchError:
    """Why a model did not unload."""
    told = plain(message)
    if found := _IN_USE.search(told):
        return Busy(f"{model} still answers {found[1]} request(s): unload it when they have ended")
    return LoadbenchError(f"{model} cannot be unloaded: {told}")


def on_serve(port: int, message: str) -> LoadbenchError:
    """Why the web service did not start."""
    told = plain(message)
    if "bind" in told.lower():
        return LoadbenchError(f"port {port} of 127.0.0.1 is taken by another program: give another --port")
    return LoadbenchError(f"Foundry Local's web service cannot start on port {port}: {told}")


def not_cached(model: str) -> TargetError:
    """A model of the catalogue that is not on this disk."""
    return TargetError(f"{model} is not downloaded yet: loadbench models pull {model}")


def unreachable(catalogue: str | None) -> TargetError:
    """No catalogue: the runtime then lists nothing, and raises nothing."""
    where = f" at {catalogue}" if catalogue else ""
    return TargetError(
        f"Foundry Local's catalogue{where} cannot be reached, and none was read before: connect to the network, "
        "or register a model of your own: loadbench models register FOLDER"
    )


def unknown(name: str, known: Iterable[str]) -> TargetError:
    """No model of this id; near ones are named.

    >>> print(unknown("phi-4-mini-cpu:5", ["Phi-4-mini-cpu:5", "qwen-cpu:1"]))
    Foundry Local knows no model 'phi-4-mini-cpu:5'; did you mean Phi-4-mini-cpu:5?
    """
    names = {each.lower(): each for each in known}
    near = [names[each] for each in difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(near)}?" if near else "see loadbench models list"
    return TargetError(f"Foundry Local knows no model {name!r}; {hint}")
