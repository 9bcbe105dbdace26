"""LM Studio: its two lists; load and unload, whose routes came with version 0.4.

Source: 1_developer/2_rest in lmstudio-ai/docs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import httpx

from loadbench.errors import TargetError
from loadbench.server import vendor
from loadbench.server.calls import ask_json
from loadbench.server.endpoint import server_root
from loadbench.server.facts import ModelFacts, Target, count, field, items, model_rows, models_of, text, with_list
from loadbench.server.vendor import Probe, Vendor, change


async def recognise(probe: Probe) -> Target | None:
    """`/api/v0/models` is its own. It answers any path with a 200, so the rows have to look right."""
    if probe.is_owned and "organization_owner" not in probe.owners:
        return None
    older = await probe.get("/api/v0/models")
    if not any(text(row, "state") for row in model_rows(older) or ()):
        return None
    # The older list is of what is downloaded; the newer one has sizes too.
    newer = await ask_json(probe.http, probe.root + "/api/v1/models", within_s=probe.within_s)
    downloaded = models_of(older) or ()
    ids = {facts.id for facts in downloaded}
    models = []
    for facts in with_list(with_list(probe.target.models, downloaded), models_of(newer)):
        cached = facts.id in ids or None  # what is not in the older list may still be on the disk
        models.append(replace(facts, cached=cached))
    return replace(probe.target, kind="lmstudio", models=tuple(models))


@dataclass(frozen=True, slots=True)
class LMStudioControl:
    """Loads one instance of a model, and unloads all of them."""

    root: str
    http: httpx.AsyncClient

    async def load(self, model: ModelFacts) -> None:
        await self._instances(model)
        await self._ask("load", model, {"model": model.id}, vendor.LOAD_S)

    async def unload(self, model: ModelFacts) -> None:
        for instance in await self._instances(model):
            await self._ask("unload", model, {"instance_id": text(instance, "id") or model.id}, vendor.UNLOAD_S)

    async def running(self, model: ModelFacts) -> ModelFacts | None:
        try:
            instances = await self._instances(model)
        except TargetError:
            return None
        if not instances:
            return None
        context = count(field(instances[0], "config"), "context_length")
        return replace(model, loaded=True, context=context or model.context)

    async def _ask(self, action: str, model: ModelFacts, document: dict[str, str], within_s: float) -> None:
        url = f"{self.root}/api/v1/models/{action}"
        await change(self.http, "POST", url, action=action, model=model.id, within_s=within_s, document=document)

    async def _instances(self, model: ModelFacts) -> list[object]:
        """What is loaded of a model: LM Studio may hold several of one."""
        rows = model_rows(await ask_json(self.http, self.root + "/api/v1/models", within_s=vendor.LIST_S))
        if rows is None:
            raise TargetError(
                f"{model.id}: this LM Studio loads and unloads in its window or with `lms load` only; "
                "0.4 and newer do it over HTTP too"
            )
        for row in rows:
            if model.id in (text(row, "key"), text(row, "id")):
                return items(field(row, "loaded_instances"))
        return []


LM_STUDIO = Vendor(
    pull_hint="download {them} in LM Studio",
    load_hint="download one in LM Studio",
    control=lambda target, http: LMStudioControl(server_root(target.base_url), http),
    no_download="{name}: download it in LM Studio, or with `lms get {name}`",
)
