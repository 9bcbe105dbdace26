"""Load and unload with LM Studio, whose routes for it came with version 0.4.

Source: 1_developer/2_rest in lmstudio-ai/docs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from loadbench.errors import TargetError
from loadbench.server import ModelFacts
from loadbench.server.calls import get_json
from loadbench.server.models.refusal import LOAD_S, UNLOAD_S, ask
from loadbench.server.rows import count, field, model_rows, text

if TYPE_CHECKING:
    import httpx

LIST_S = 10.0


@dataclass(frozen=True, slots=True)
class LMStudioControl:
    """An LM Studio server. It may hold several instances of a model: all of them are unloaded."""

    root: str
    http: httpx.AsyncClient

    async def load(self, model: ModelFacts) -> None:
        await self._instances(model)
        await self._ask("load", model, {"model": model.id}, LOAD_S)

    async def unload(self, model: ModelFacts) -> None:
        for instance in await self._instances(model):
            name = text(instance, "id") or model.id
            await self._ask("unload", model, {"instance_id": name}, UNLOAD_S)

    async def running(self, model: ModelFacts) -> ModelFacts | None:
        try:
            instances = await self._instances(model)
        except TargetError:
            return None
        if not instances:
            return None
        context = count(field(instances[0], "config"), "context_length") or model.context
        return replace(model, loaded=True, context=context)

    async def _ask(self, what: str, model: ModelFacts, document: dict[str, Any], within_s: float) -> None:
        url = f"{self.root}/api/v1/models/{what}"
        await ask(self.http, "POST", url, what=what, model=model.id, within_s=within_s, document=document)

    async def _instances(self, model: ModelFacts) -> list[Any]:
        """What is loaded of a model.

        Raises:
            TargetError: An older LM Studio, which has no such routes (it answers any with a 200).
        """
        rows = model_rows(await get_json(self.http, self.root + "/api/v1/models", within_s=LIST_S))
        if rows is None:
            raise TargetError(
                f"{model.id}: this LM Studio loads and unloads in its window or with `lms load` only; "
                "0.4 and newer do it over HTTP too"
            )
        row = next((row for row in rows if model.id in (text(row, "key"), text(row, "id"))), None)
        instances = field(row, "loaded_instances")
        return instances if isinstance(instances, list) else []
