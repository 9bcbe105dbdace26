"""What `find` makes of a scripted server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from loadbench.server import Target, find, open_http
from tests.support.scripted import Scripted, scripted


def found(
    answers: Mapping[str, Any],
    *,
    server: str | None = None,
    path: str = "",
    then: Callable[[Scripted], object] = lambda fake: None,
    **options: Any,
) -> Target:
    """What `find` says of a server with these answers; `then` looks at the server afterwards."""

    async def run() -> Target:
        async with scripted(answers, server=server) as fake, open_http(fake.url, **options) as http:
            target = await find(fake.url + path, http=http)
            then(fake)
            return target

    return asyncio.run(run())
