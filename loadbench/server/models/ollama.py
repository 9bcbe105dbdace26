"""Load and unload with Ollama: an empty prompt loads, and a time to live of 0 unloads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loadbench.server import ModelFacts
from loadbench.server.calls import get_json
from loadbench.server.models.refusal import LOAD_S, UNLOAD_S, ask
from loadbench.server.ollama import device_of_row
from loadbench.server.rows import count, model_facts, model_rows

if TYPE_CHECKING:
    import httpx

KEEP_ALIVE = -1
"""For as long as the server runs: its own five minutes would end within an idle gap."""
LIST_S = 10.0


@dataclass(frozen=True, slots=True)
class OllamaControl:
    """An Ollama server."""

    root: str
    http: httpx.AsyncClient

    async def load(self, model: ModelFacts) -> None:
        await self._generate("load", model, KEEP_ALIVE, LOAD_S)

    async def unload(self, model: ModelFacts) -> None:
        await self._generate("unload", model, 0, UNLOAD_S)

    async def running(self, model: ModelFacts) -> ModelFacts | None:
        rows = model_rows(await get_json(self.http, self.root + "/api/ps", within_s=LIST_S))
        for row in rows or ():
            facts = model_facts(row)
            if facts is not None and facts.id == model.id:
                context = count(row, "context_length") or model.context
                return replace(model, loaded=True, device=device_of_row(row), context=context)
        return None

    async def _generate(self, what: str, model: ModelFacts, keep_alive: int, within_s: float) -> None:
        document = {"model": model.id, "prompt": "", "stream": False, "keep_alive": keep_alive}
        url = self.root + "/api/generate"
        await ask(self.http, "POST", url, what=what, model=model.id, within_s=within_s, document=document)
