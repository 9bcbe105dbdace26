"""Endpoints that do not answer: why, told in one line, and waiting for them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from loadbench.errors import LoadbenchError, TargetError
from loadbench.server import NotReady, Target, find, open_http, wait
from loadbench.transport import Transport
from tests.support.scripted import CERTIFICATE, Answer, scripted

MODELS = {"/v1/models": {"data": [{"id": "m"}], "object": "list"}}


@pytest.fixture
def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def _find(url: str, **options: Any) -> Target:
    async with open_http(url, **options) as http:
        return await find(url, http=http, within_s=2.0)


CLIENTS: list[Callable[[], httpx.AsyncBaseTransport | None]] = [lambda: None, Transport]


@pytest.mark.parametrize("client", CLIENTS, ids=["stock", "ours"])
def test_a_closed_port_is_refused(client: Callable[[], httpx.AsyncBaseTransport | None], free_port: int) -> None:
    with pytest.raises(
        NotReady, match=r"nothing answers at http://127.0.0.1:\d+: (connection refused|no connection): .*-e URL.*--wait"
    ):
        asyncio.run(_find(f"http://127.0.0.1:{free_port}", transport=client()))


@pytest.mark.parametrize("client", CLIENTS, ids=["stock", "ours"])
def test_an_unknown_host_is_named(client: Callable[[], httpx.AsyncBaseTransport | None]) -> None:
    with pytest.raises(NotReady, match=r"host name of http://no-such-host\.invalid:1 is not known"):
        asyncio.run(_find("http://no-such-host.invalid:1", transport=client()))


@pytest.mark.parametrize("client", CLIENTS, ids=["stock", "ours"])
@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"\x15\x03\x01\x00\x02\x02\x0a"])
def test_a_port_of_something_else_does_not_speak_http(
    client: Callable[[], httpx.AsyncBaseTransport | None], greeting: bytes
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(greeting)
        writer.close()
        await writer.wait_closed()

    async def run() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
            await _find(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", transport=client())

    with pytest.raises(TargetError, match=r"does not speak HTTP .*Perhaps it wants https://"):
        asyncio.run(run())


@pytest.mark.parametrize("client", CLIENTS, ids=["stock", "ours"])
def test_a_server_that_never_answers_runs_into_the_time_out(
    client: Callable[[], httpx.AsyncBaseTransport | None],
) -> None:
    async def run() -> None:
        silent = scripted({"/v1/models": Answer({}, delay_s=5.0)})
        async with silent as fake, open_http(fake.url, transport=client()) as http:
            await find(fake.url, http=http, within_s=0.1)

    with pytest.raises(NotReady, match=r"took the connection but sent no answer within 0.1 s"):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "certificate of https://.* is not trusted .*--ca-file FILE.*--insecure"),
        ({"ca_file": "/no/such.pem"}, "--ca-file /no/such.pem: No such file.*certificate authorities"),
        ({"ca_file": __file__}, "--ca-file .*: no certificates in it"),
    ],
)
def test_tls_that_cannot_be_trusted_names_the_options(options: dict[str, Any], words: str) -> None:
    async def run() -> None:
        async with scripted(MODELS, tls=True) as fake:
            await _find(fake.url, **options)

    with pytest.raises(LoadbenchError, match=words):
        asyncio.run(run())


@pytest.mark.parametrize("options", [{"ca_file": str(CERTIFICATE)}, {"verify": False}])
def test_tls_is_fine_with_the_issuer_named_or_unchecked(options: dict[str, Any]) -> None:
    async def run() -> Target:
        async with scripted(MODELS, tls=True) as fake:
            return await _find(fake.url, **options)

    assert asyncio.run(run()).kind == "openai"


def test_https_to_a_plain_port_says_so() -> None:
    async def run() -> None:
        async with scripted(MODELS) as fake:
            await _find(fake.url.replace("http:", "https:"))

    with pytest.raises(TargetError, match=r"does not speak TLS: write http://"):
        asyncio.run(run())


def test_waiting_ends_when_the_server_is_ready() -> None:
    loading = Answer({"error": {"message": "Loading model"}}, 503)
    reasons: list[str] = []

    async def run() -> Target:
        async with scripted({"/v1/models": loading}) as fake, open_http(fake.url) as http:

            def waiting(problem: str) -> None:
                reasons.append(problem)
                fake.answers["/v1/models"] = Answer(MODELS["/v1/models"])

            return await wait(fake.url, http=http, wait_s=10.0, waiting=waiting)

    assert asyncio.run(run()).models[0].id == "m"
    assert len(reasons) == 1


def test_waiting_ends_when_the_time_is_up(free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}"

    async def run() -> None:
        async with open_http(url) as http:
            await wait(url, http=http, wait_s=0.15)

    with pytest.raises(TargetError, match=r"waited 0.15 s in vain: nothing answers"):
        asyncio.run(run())


def test_waiting_does_not_help_against_a_missing_key() -> None:
    asked: list[str] = []

    async def run() -> None:
        async with scripted({"/v1/models": Answer({}, 401)}) as fake, open_http(fake.url) as http:
            try:
                await wait(fake.url, http=http, wait_s=30.0)
            finally:
                asked.extend(fake.asked)

    with pytest.raises(TargetError, match="wants a key"):
        asyncio.run(run())
    assert asked == ["/v1/models"]


def test_a_proxy_of_the_environment_is_told_and_never_used_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    async def run() -> Target:
        async with scripted(MODELS) as fake:
            return await _find(fake.url)

    assert asyncio.run(run()).proxied is False
    assert asyncio.run(_proxied("http://gateway.example")) is True


async def _proxied(url: str) -> bool:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=MODELS["/v1/models"], request=request)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), trust_env=False) as http:
        return (await find(url, http=http)).proxied
