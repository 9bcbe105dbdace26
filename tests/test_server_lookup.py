"""Finding a target: every kind of server and its models, every way in which there is none, and waiting for one."""

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
    ModelFacts,
    NotReady,
    Target,
    choose,
    find,
    free_memory_warning,
    open_http,
    wait,
)
from loadbench.server.facts import licence_name
from loadbench.server.ollama import device_of_row
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


PROPS = {"default_generation_settings": {"n_ctx": 2048}, "build_info": "b6000-abc", "total_slots": 4}
KNOWN: dict[str, tuple[dict[str, Any], str | None, str, str | None, list[str] | None]] = {
    # its answers, its `Server` header; kind, version, and all that it is asked, where that matters
    "llama.cpp": (
        *({"/v1/models": LLAMA_MODELS, "/props": PROPS}, "llama.cpp"),
        *("llama.cpp", "b6000-abc", ["/v1/models", "/props"]),
    ),
    "llama.cpp without its repository": (
        *({"/v1/models": LLAMA_MODELS, "/props": {**PROPS, "build_info": "b0-unknown"}}, "llama.cpp"),
        *("llama.cpp", None, None),
    ),
    "llama.cpp behind a proxy": ({**LITELLM, "/props": PROPS}, None, "llama.cpp", "b6000-abc", None),
    "the simulator": (
        *({"/v1/models": {"data": [{"id": "simulator"}]}}, "loadbench-simulator/0.1.0"),
        *("simulator", "0.1.0", ["/v1/models"]),
    ),
    "vLLM by its models' owner": (VLLM, "uvicorn", "vllm", "0.11.0", None),
    "vLLM with renamed owners": ({**LITELLM, "/version": {"version": "0.11.0"}}, None, "vllm", "0.11.0", None),
    "any other": (LITELLM, "uvicorn", "openai", None, None),
}


@pytest.mark.parametrize("case", KNOWN)
def test_a_server_is_known_by_what_it_says_of_itself(case: str) -> None:
    answers, server, kind, version, paths = KNOWN[case]
    asked: list[str] = []

    target = found(answers, server=server, then=lambda fake: asked.extend(fake.asked))

    assert (target.kind, target.version, target.server_header) == (kind, version, server)
    assert paths is None or asked == paths


def test_a_model_list_is_read_in_each_dialect() -> None:
    [llama] = found({"/v1/models": LLAMA_MODELS, "/props": PROPS}, server="llama.cpp").models
    [vllm] = found(VLLM).models
    other = found(LITELLM)

    assert (llama.context, llama.size_bytes, llama.quantization, llama.loaded) == (2048, 96576768, "Q4_1", True)
    assert vllm.context == 8192
    assert [model.id for model in other.models] == ["smollm2-135m", "mock"]
    assert other.chat_url == other.base_url + "/chat/completions"


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


# == what Ollama, LM Studio and llama.cpp show of their models; licences; whether a model fits into memory

# -- What Ollama, LM Studio and llama.cpp tell of their models, in bodies as they send them, shortened

OLLAMA: dict[str, Any] = {
    "/v1/models": {"object": "list", "data": [{"id": "gemma3:latest", "owned_by": "library"}, {"id": "phi4:14b"}]},
    "/api/version": {"version": "0.12.3"},
    "/api/tags": {
        "models": [
            {
                "name": "gemma3:latest",
                "model": "gemma3:latest",
                "size": 3338801804,
                "details": {"family": "gemma3", "parameter_size": "4.3B", "quantization_level": "Q4_K_M"},
            }
        ]
    },
    "/api/ps": {
        "models": [
            {"name": "gemma3:latest", "size": 6591830464, "size_vram": 5333539264, "context_length": 4096},
        ]
    },
    "/api/show": {
        "license": "Gemma Terms of Use \n\nLast modified: February 21, 2024",
        "details": {"family": "gemma3", "quantization_level": "Q4_K_M"},
        "model_info": {"general.architecture": "gemma3", "gemma3.context_length": 131072, "gemma3.block_count": 34},
        "capabilities": ["completion", "vision"],
    },
}
UNEXPECTED = {"error": "Unexpected endpoint or method. (GET /status)"}  # LM Studio answers that with a 200
LM_STUDIO: dict[str, Any] = {
    "/v1/models": {"data": [{"id": "llama-3.1-8b"}, {"id": "gemma-3-270m-it-qat"}, {"id": "text-embedding-nomic"}]},
    "/api/v0/models": {
        "object": "list",
        "data": [
            {
                "id": "llama-3.1-8b",
                "type": "llm",
                "quantization": "Q4_K_M",
                "state": "loaded",
                "max_context_length": 131072,
                "loaded_context_length": 4096,
                "capabilities": ["tool_use"],
            },
            {"id": "gemma-3-270m-it-qat", "type": "llm", "state": "not-loaded", "max_context_length": 32768},
            {"id": "text-embedding-nomic", "type": "embeddings", "state": "loaded"},
        ],
    },
    **dict.fromkeys(("/status", "/openai/status", "/api/version", "/props", "/version", "/api/v1/models"), UNEXPECTED),
}
LM_STUDIO_0_4: dict[str, Any] = {
    **LM_STUDIO,
    "/api/v1/models": {
        "models": [
            {
                "type": "llm",
                "key": "gemma-3-270m-it-qat",
                "quantization": {"name": "Q4_0", "bits_per_weight": 4},
                "size_bytes": 241410208,
                "loaded_instances": [],
                "max_context_length": 32768,
                "capabilities": {"vision": True, "trained_for_tool_use": False},
            }
        ]
    },
}


def llama(props: dict[str, Any], **row: Any) -> Target:
    answers = {"/v1/models": {"data": [{"id": "m", "owned_by": "llamacpp", **row}]}, "/props": props}
    return found(answers, server="llama.cpp")


def test_ollama_lists_its_models_with_all_that_its_routes_show() -> None:
    sent: list[Any] = []
    target = found(OLLAMA, then=lambda fake: sent.extend(fake.sent))

    assert (target.kind, target.version) == ("ollama", "0.12.3")
    gemma, phi = target.models
    assert (gemma.size_bytes, gemma.quantization, gemma.licence) == (3338801804, "Q4_K_M", "Gemma")
    assert gemma.capabilities == ("completion", "vision")
    assert (gemma.loaded, gemma.cached, phi.loaded, phi.cached) == (True, True, False, True)
    assert (gemma.context, phi.context) == (4096, 131072), "the one really allocated, the one of the model"
    assert (gemma.device, phi.device) == ("GPU+CPU", None), "of what is loaded alone"
    assert sorted(sent, key=lambda one: one[2]["model"]) == [
        ("POST", "/api/show", {"model": name}) for name in ("gemma3:latest", "phi4:14b")
    ]


@pytest.mark.parametrize(
    ("row", "device"),
    [
        ({"size": 10, "size_vram": 10}, "GPU"),
        ({"size": 10, "size_vram": 0}, "CPU"),
        ({"size": 10, "size_vram": 4}, "GPU+CPU"),
        ({"size": 10}, None),  # an older Ollama
        ({"size_vram": 4}, None),
    ],
)
def test_ollamas_memory_tells_the_device(row: dict[str, Any], device: str | None) -> None:
    assert device_of_row(row) == device


def test_of_many_ollama_models_the_loaded_one_is_shown_and_at_most_twenty() -> None:
    names = [f"m{number}:latest" for number in range(30)]
    answers = {
        **OLLAMA,
        "/v1/models": {"data": [{"id": name} for name in names]},
        "/api/ps": {"models": [{"name": names[-1], "size": 1, "size_vram": 1}]},
    }
    sent: list[Any] = []

    found(answers, then=lambda fake: sent.extend(fake.sent))

    shown = [document["model"] for _, _, document in sent]
    assert len(shown) == 20
    assert names[-1] in shown


def test_lm_studio_is_known_although_it_answers_every_path_with_200() -> None:
    target = found(LM_STUDIO)

    llama, gemma, _ = target.models
    assert (target.kind, llama.loaded, llama.quantization) == ("lmstudio", True, "Q4_K_M")
    assert (llama.context, gemma.context) == (4096, 32768), "the one it was loaded with, the most"
    assert (llama.capabilities, llama.cached, gemma.loaded) == (("tool_use",), True, False)
    assert [one.id for one in choose(target, "auto").chosen] == ["llama-3.1-8b"], "an embedding model does not chat"


def test_lm_studios_newer_list_has_sizes_too() -> None:
    _, gemma, _ = found(LM_STUDIO_0_4).models

    assert (gemma.size_bytes, gemma.quantization, gemma.capabilities) == (241410208, "Q4_0", ("vision",))


def test_llama_cpp_tells_how_many_requests_it_takes_at_once() -> None:
    assert llama({"total_slots": 4}).slots == 4


@pytest.mark.parametrize(
    ("path", "quantization"),
    [
        ("/models/SmolLM2-135M-Instruct-Q4_1.gguf", "Q4_1"),
        (r"C:\models\phi-4-q4_k_m.gguf", "Q4_K_M"),
        ("gemma-3-4b-it-IQ4_XS.gguf", "IQ4_XS"),
        ("llama-f16.gguf", "F16"),
        ("Qwen3-4B.gguf", None),  # a family, no quantization
    ],
)
def test_llama_cpps_file_name_tells_the_quantization_where_its_list_does_not(
    path: str, quantization: str | None
) -> None:
    assert llama({"model_path": path}).models[0].quantization == quantization


def test_what_llama_cpp_was_trained_for_is_not_the_context_it_has() -> None:
    assert llama({}, meta={"n_ctx_train": 8192}).models[0].context is None


# -- Licences by their names, and whether a model fits into memory

# How the texts begin that Ollama shows.
TEXTS: dict[str | None, str | None] = {
    **dict.fromkeys((None, "", "  \n ")),
    "                        Apache License\n                  Version 2.0, January 2004": "Apache-2.0",
    "Microsoft.\nCopyright (c) Microsoft Corporation.\n\nMIT License\n\nPermission is hereby granted": "MIT",
    "Copyright (c) 2023\n\nPermission is hereby granted, free of charge, to any person": "MIT",
    "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\nLlama 3.2 Version Release Date: September 25, 2024": "Llama 3.2 Community",
    "META LLAMA 3 COMMUNITY LICENSE AGREEMENT\nMeta Llama 3 Version": "Llama 3 Community",
    "Gemma Terms of Use \n\nLast modified: February 21, 2024": "Gemma",
    "Qwen RESEARCH LICENSE AGREEMENT": "Qwen Research",
    "Tongyi Qianwen LICENSE AGREEMENT": "Qwen",
    "DEEPSEEK LICENSE AGREEMENT\n\nVersion 1.0": "DeepSeek",
    "\n\n  A licence of our own  \nwith terms": "A licence of our own",
    "This is a very long first line of a licence that goes on": "This is a very long first line of a l...",
    "Apache License Version 2.0 ... the LLAMA 3.1 COMMUNITY LICENSE applies to parts": "Apache-2.0",
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_licences_text_tells_its_name(text: str | None) -> None:
    assert licence_name(text) == TEXTS[text]


BIG = ModelFacts("big", size_bytes=10_000_000_000)


WARNING = (
    "big needs about 12.0 GB of memory (10.0 GB of weights and its context), but {} GB are free: it may swap or fail"
)


@pytest.mark.parametrize(
    ("facts", "available_bytes", "warning"),
    [
        (BIG, 8_000_000_000, WARNING.format("8.0")),
        (BIG, 11_900_000_000, WARNING.format("11.9")),  # it needs room for its context too
        (BIG, 12_000_000_000, None),
        (BIG, None, None),
        (ModelFacts("a"), 1, None),
        (ModelFacts("a", size_bytes=10, loaded=True), 1, None),
    ],
)
def test_a_model_larger_than_the_free_memory_is_warned_of(
    facts: ModelFacts, available_bytes: int | None, warning: str | None
) -> None:
    assert free_memory_warning(facts, available_bytes) == warning
