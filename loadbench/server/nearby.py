"""Servers that nobody named and that listen on this machine: what `doctor` shows, and what a run takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from loadbench import server as targets
from loadbench.errors import LoadbenchError
from loadbench.server import Found, NotReady, Target

PORTS = {
    8080: "llama.cpp",
    11434: "Ollama",
    8000: "vLLM",
    1234: "LM Studio",
    5272: "Foundry Local",
    5273: "Foundry Local",
}
"""Where servers listen by default."""
HOW = "found on this machine"
_CONNECT_S = 0.3
_GLANCE_S = 0.5
LOOK_S = 6.0  # Foundry Local 2.x takes 4.5 s where its catalog cannot be reached


@dataclass(frozen=True, slots=True)
class Seen:
    """A server that is here.

    Attributes:
        how: It was found; None where it was looked for on a usual port.
        server: None where it does not answer yet, or wants a key.
        problem: Why not.
    """

    endpoint: str
    how: str | None
    server: Target | None
    problem: LoadbenchError | None = None

    @property
    def is_locked(self) -> bool:
        """Whether it answers only with its key, as many things do that are no servers of models."""
        return self.server is None and not isinstance(self.problem, NotReady)

    @property
    def kind(self) -> str:
        """What it is, as far as that is known."""
        if self.server is None:
            return "wants a key" if self.is_locked else "is loading"
        return " ".join(filter(None, (self.server.kind, self.server.version)))


async def look(ports: Iterable[int], found: Found | None = None) -> list[Seen]:
    """The servers on these ports of this machine, after the one that was found otherwise.

    Takes no longer than the slowest of them; where nothing listens, that is at once.
    """
    places: dict[str, str | None] = {} if found is None else {found.endpoint: found.how}
    for port in ports:
        places.setdefault(f"http://127.0.0.1:{port}/v1", None)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_look(url, how)) for url, how in places.items()]
    return [seen for task in tasks if (seen := task.result()) is not None]


async def _look(url: str, how: str | None) -> Seen | None:
    """A server that may be there; None where none is that speaks OpenAI's API, unless it was found otherwise."""
    if how is None and not await _listens(url):
        return None
    try:
        async with targets.open_http(url) as http:
            server = await targets.find(url, http=http, within_s=LOOK_S if how else _GLANCE_S)
    except LoadbenchError as error:
        # Something that will answer a run in a while, or with a key.
        if how or "loading" in str(error) or "--api-key-env" in str(error):
            return Seen(url, how, None, error)
        return None
    # Any web server answers 404.
    return Seen(url, how, server) if how or server.unlisted is None or server.kind != "openai" else None


async def _listens(url: str) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CONNECT_S):
            parts = urlsplit(url)
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.close()
        return True
    return False
