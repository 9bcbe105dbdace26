"""A scripted HTTP server on loopback: fixed answers by path, and a record of what was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CERTIFICATE = Path(__file__).parents[1] / "loopback.pem"


@dataclass(frozen=True, slots=True)
class Answer:
    """One response; a dict or list body is sent as JSON, bytes as they are.

    Attributes:
        then: What the same path answers from the next time on.
        cut: The connection ends after the body, whatever its headers promised.
    """

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    then: Answer | None = None
    cut: bool = False


@dataclass(slots=True)
class Scripted:
    """The server's address, what it answers (may be changed while it runs) and what it was asked."""

    url: str
    answers: dict[str, Answer]
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    sent: list[tuple[str, str, Any]] = field(default_factory=list)
    """Method, path and JSON document of each request that had a body."""


@contextlib.asynccontextmanager
async def scripted(
    answers: Mapping[str, Any], *, server: str | None = None, tls: bool = False
) -> AsyncIterator[Scripted]:
    """Serve the answers, 404 for all other paths; plain bodies stand for a 200.

    Args:
        server: The `Server` header.
        tls: Serve https with `CERTIFICATE`.
    """
    fake = Scripted("", {path: body if isinstance(body, Answer) else Answer(body) for path, body in answers.items()})

    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        # Cancelled is what a delayed answer gets when the test is over.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await exchange(reader, writer):
                await writer.drain()
        writer.close()

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        start = await reader.readexactly(1)
        if not start.isalpha():  # a TLS hello on a plain port
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            return False
        head = (start + await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")[:-2]
        method, path = first.split()[:2]
        fake.asked.append(path)
        fake.headers.append({name.lower(): value for name, _, value in (line.partition(": ") for line in lines)})
        if length := int(fake.headers[-1].get("content-length", 0)):
            fake.sent.append((method, path, json.loads(await reader.readexactly(length))))
        answer = fake.answers.get(path, Answer({"detail": "Not Found"}, 404))
        if answer.then is not None:
            fake.answers[path] = answer.then
        await asyncio.sleep(answer.delay_s)
        raw = isinstance(answer.body, bytes)
        body = answer.body if raw else json.dumps(answer.body).encode()
        headers = {"Content-Type": "text/html" if raw else "application/json", "Content-Length": len(body)}
        headers |= {"Server": server} if server else {}
        told = "".join(f"{name}: {value}\r\n" for name, value in (headers | dict(answer.headers)).items())
        writer.write(f"HTTP/1.1 {answer.status} X\r\n{told}\r\n".encode() + body)
        return not answer.cut

    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(CERTIFICATE)
    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    fake.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield fake
    finally:
        listener.close()
        for writer in writers:
            writer.transport.abort()  # a TLS client that was refused never says goodbye
        await asyncio.sleep(0.001)  # aborted transports close in the next rounds of the loop
