"""Who loads and unloads a server's models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from loadbench.server import ModelFacts, Target, server_root
from loadbench.server.models.foundry import FoundryControl
from loadbench.server.models.lmstudio import LMStudioControl
from loadbench.server.models.ollama import OllamaControl

if TYPE_CHECKING:
    import httpx


class Control(Protocol):
    """Loads and unloads the models of one server; each raises TargetError with one line that says why not."""

    async def load(self, model: ModelFacts) -> None:
        """Bring it into memory; it is there when this returns."""

    async def unload(self, model: ModelFacts) -> None:
        """Let it go from memory."""

    async def running(self, model: ModelFacts) -> ModelFacts | None:
        """What of it really is loaded now, with its device and provider; None where the server does not tell."""


def control(target: Target, http: httpx.AsyncClient) -> Control | None:
    """The control of a server's models; None where it offers none: it holds what it was started with."""
    root = server_root(target.base_url)
    match target.kind:
        case "foundry0" | "foundry1" | "foundry2":
            return FoundryControl(target.kind, target.base_url, http)
        case "ollama":
            return OllamaControl(root, http)
        case "lmstudio":
            return LMStudioControl(root, http)
        case _:
            return None
