"""A server cannot fill this machine's memory by an answer that does not end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from loadbench import server as targets
from loadbench.errors import TargetError
from loadbench.server import calls, open_http
from loadbench.transport import Transport
from tests.support.replay import RECEIVE, serve

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n"
PIECE = b" " * (1 << 20)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Endless(httpx.AsyncByteStream):
    """A body that goes on; how much of it was taken."""

    taken = 0
    closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.taken += len(PIECE)
            yield PIECE

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.anyio
async def test_a_model_list_without_end_is_left_at_once() -> None:
    body = Endless()
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=body))

    async with open_http("http://h", transport=transport) as http:
        with pytest.raises(TargetError, match="more than 64 MiB"):
            await targets.find("http://h", http=http)

    assert body.taken <= calls.MOST_BYTES + len(PIECE)
    assert body.closed


def test_so_it_is_on_our_own_transport() -> None:
    async def ask(url: str) -> None:
        async with open_http(url, transport=Transport(clock="user")) as http:
            await targets.find(url, http=http)

    with serve([RECEIVE, HEAD, *[PIECE] * 80]) as server, pytest.raises(TargetError, match="more than 64 MiB"):
        asyncio.run(ask(server.url))
