"""Finding a target: every kind of server, every way in which there is none, and waiting for one."""

from __future__ import annotations

import asyncio
import re
import socket
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from loadbench.errors import LoadbenchError, TargetError
from loadbench.server import (
    KINDS,
    VENDORS,
    Chosen,
    NotReady,
    Target,
    choose,
    find,
    open_http,
    wait,
)
from loadbench.transport import Transport
from tests.support.finding import found
from tests.support.scripted import CERTIFICATE, Answer, scripted

# -- Finding a target: every kind of server, and every way in which there is none

KEY = "sk-very-secret-0123456789"

# Bodies as the real servers send them, shortened.
LLAMA_MODELS = {
    "models": [{"name": "smollm2-135m", "size": "", "details": {"quantization_level": ""}}],
    "object": "list",
    "data": [
        {
            "id": "smollm2-135m",
            "aliases": ["smollm2-135m", "small"],
            "owned_by": "llamacpp",
            "meta": {"n_ctx": 2048, "n_ctx_train": 8192, "size": 96576768, "ftype": "Q4_1"},
        }
    ],
}
VLLM = {
    "/v1/models": {"data": [{"id": "org/Big-8B", "owned_by": "vllm", "max_model_len": 8192, "parent": None}]},
    "/version": {"version": "0.11.0"},
}
LITELLM = {"/v1/models": {"data": [{"id": "smollm2-135m", "owned_by": "openai"}, {"id": "mock"}], "object": "list"}}


def failure(answers: Mapping[str, Any], **options: Any) -> str:
    """The error that `find` ends with, checked to be one line without the key; addresses are cut out."""
    with pytest.raises(LoadbenchError) as caught:
        found(answers, **options)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert KEY not in shown
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_llama_cpp_is_known_by_its_server_header_and_asked_for_nothing_but_its_props() -> None:
    asked: list[str] = []
    props = {"default_generation_settings": {"n_ctx": 2048}, "build_info": "b6000-abc", "total_slots": 4}

    target = found(
        {"/v1/models": LLAMA_MODELS, "/props": props}, server="llama.cpp", then=lambda fake: asked.extend(fake.asked)
    )

    assert (target.kind, target.version, target.server_header) == ("llama.cpp", "b6000-abc", "llama.cpp")
    model = target.models[0]
    assert (model.context, model.size_bytes, model.quantization, model.loaded) == (2048, 96576768, "Q4_1", True)
    assert asked == ["/v1/models", "/props"]


def test_llama_cpp_behind_a_proxy_is_known_by_its_props() -> None:
    target = found({"/v1/models": LITELLM["/v1/models"], "/props": {"default_generation_settings": {"n_ctx": 512}}})

    assert target.kind == "llama.cpp"


def test_the_simulator_is_known_without_a_second_request() -> None:
    asked: list[str] = []

    target = found(
        {"/v1/models": {"data": [{"id": "simulator"}]}},
        server="loadbench-simulator/0.1.0",
        then=lambda fake: asked.extend(fake.asked),
    )

    assert (target.kind, target.version, asked) == ("simulator", "0.1.0", ["/v1/models"])


def test_vllm_is_known_by_its_models_owner() -> None:
    target = found(VLLM, server="uvicorn")

    assert (target.kind, target.version, target.models[0].context) == ("vllm", "0.11.0", 8192)


def test_vllm_with_renamed_owners_is_known_by_its_version_route() -> None:
    assert found({**LITELLM, "/version": {"version": "0.11.0"}}).kind == "vllm"


def test_any_other_server_is_a_generic_one() -> None:
    target = found(LITELLM, server="uvicorn")

    assert (target.kind, target.version, [model.id for model in target.models]) == (
        "openai",
        None,
        ["smollm2-135m", "mock"],
    )
    assert target.chat_url == target.base_url + "/chat/completions"


def test_a_bare_list_of_names_with_odd_rows_between_is_read() -> None:
    target = found({"/v1/models": ["a", None, {"id": None}, {"ID": "b", "aliases": None, "meta": None}, 7]})

    assert [model.id for model in target.models] == ["a", "b"]


def test_a_server_that_keeps_silent_about_itself_is_a_generic_one() -> None:
    silent = Answer({}, delay_s=5.0)

    async def run() -> Target:
        async with scripted({**LITELLM, "/status": silent}) as fake, open_http(fake.url) as http:
            return await find(fake.url, http=http, within_s=0.2)

    assert asyncio.run(run()).kind == "openai"


@pytest.mark.parametrize("status", [404, 405, 500, 501])
def test_a_server_without_a_model_list_wants_a_name(status: int) -> None:
    target = found({"/v1/models": Answer(b"Internal Server Error", status, {"Content-Type": "text/plain"})})

    assert choose(target, ["any-name"]).chosen == (Chosen("any-name", "any-name"),)
    with pytest.raises(TargetError, match=rf"/v1/models answered {status} .*name one with -m MODEL"):
        choose(target, "auto")


ERRORS: dict[str, tuple[Answer, str]] = {
    "key wanted": (Answer({"error": {"message": "Invalid API Key"}}, 401), "wants a key.*--api-key-env NAME"),
    "forbidden": (Answer({}, 403), "answered 403.*--api-key-env NAME"),
    "loading": (Answer({"error": {"message": "Loading model", "code": 503}}, 503), "still loading.*--wait 60s"),
    "busy": (Answer(b"", 503), "answered 503.*--wait 60s"),
    "bad gateway": (Answer({"detail": "no backend"}, 502), r"answered 502 \(no backend\).*--wait 60s"),
    "web page": (Answer(b"<html><body>Welcome"), "text/html that is no JSON .*Welcome.*OpenAI-compatible"),
    "nothing": (Answer(b""), "is no JSON"),
    "other JSON": (Answer({"hello": "world"}), "JSON that is no model list"),
    "error in a 200": (Answer({"error": "Unexpected endpoint"}), "no model list .Unexpected endpoint"),
    "a number": (Answer(7), r"no model list \(int\)"),
    "login page": (Answer(b"", 302, {"Location": "/login?next=x"}), r"redirects to http://[\d.:]+/login: that is no"),
    "moved": (Answer(b"", 301, {"Location": "https://h:8/api/v1/models"}), r"give that one: -e https://h:8/api/v1$"),
    "slash": (Answer(b"", 307, {"Location": "/v1/models/"}), "redirects to .*/v1/models/: that is no"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_no_model_list_is_one_line_that_says_what_to_do(case: str) -> None:
    answer, words = ERRORS[case]

    assert re.search(words, failure({"/v1/models": answer}))


def test_a_key_travels_in_the_header_and_in_no_error_even_when_the_server_echoes_it() -> None:
    sent: list[str] = []
    echo = Answer({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401)

    message = failure({"/v1/models": echo}, key=KEY)
    found(LITELLM, key=KEY, then=lambda fake: sent.extend(headers["authorization"] for headers in fake.headers))

    assert "Incorrect API key provided: ***" in message
    assert "refuses the key" in message
    assert set(sent) == {f"Bearer {KEY}"}


def test_servers_that_ignore_an_option_are_not_trusted_with_it() -> None:
    assert [kind for kind in KINDS if VENDORS[kind].ignore_eos] == ["llama.cpp", "vllm", "simulator"]
    assert [kind for kind in KINDS if VENDORS[kind].cache_prompt] == ["llama.cpp"]
    assert [kind for kind in KINDS if VENDORS[kind].continuous_usage] == ["vllm", "simulator"]


# -- Waiting for a server, and what is kept of what it says of itself

HERE = "http://127.0.0.1:9"
LISTED = Answer({"data": [{"id": "m"}]})


@pytest.mark.parametrize(("build", "version"), [("b6000-abc", "b6000-abc"), ("b0-unknown", None)])
def test_a_version_that_says_unknown_is_none(build: str, version: str | None) -> None:
    props = Answer({"default_generation_settings": {"n_ctx": 2048}, "build_info": build})

    async def found() -> str | None:
        async with scripted({"/v1/models": LISTED, "/props": props}) as fake, open_http(fake.url) as http:
            return (await find(fake.url, http=http)).version

    assert asyncio.run(found()) == version


def _raises(error: Exception) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    return answer


def _busy(status: int, message: str, **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(status, json={"error": {"message": message}}, headers=headers)


NOT_READY: dict[str, tuple[Callable[[httpx.Request], httpx.Response], str]] = {
    # a server that is not ready; how the reason ends for one who waits
    "refused": (_raises(httpx.ConnectError("refused")), "with -e URL (`loadbench doctor` lists servers found here)"),
    "unreachable": (_raises(httpx.ConnectTimeout("")), "is the host up and the port open?"),
    "loading": (_busy(503, "Loading model"), "the server is still loading its model (503)"),
    "busy": (_busy(503, "come back"), "answered 503 (come back): the server is busy or starting"),
}


@pytest.mark.parametrize("case", NOT_READY)
def test_who_waits_is_not_told_to_wait(case: str) -> None:
    answer, ending = NOT_READY[case]
    reasons: list[str] = []

    async def waited(wait_s: float) -> None:
        async with open_http(HERE, transport=httpx.MockTransport(answer)) as http:
            await wait(HERE, http=http, wait_s=wait_s, waiting=reasons.append)

    with pytest.raises(TargetError, match=r"^waited 0\.4 s in vain: ") as caught:
        asyncio.run(waited(0.4))
    with pytest.raises(TargetError, match="--wait 60s"):
        asyncio.run(waited(0.0))

    assert [reason[:21] for reason in reasons] == ["waiting up to 0.4 s: "]
    assert reasons[0].endswith(ending)
    assert str(caught.value).endswith(ending)


# -- Endpoints that do not answer: why, told in one line, and waiting for them

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
