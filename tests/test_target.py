"""Finding a target: every kind of server, and every way in which there is none."""

from __future__ import annotations

import asyncio
import re
import traceback
from collections.abc import Mapping
from typing import Any

import pytest

from loadbench.errors import LoadbenchError, TargetError
from loadbench.server import (
    KINDS,
    VENDORS,
    Chosen,
    Target,
    choose,
    find,
    open_http,
)
from tests.support.finding import found
from tests.support.scripted import Answer, scripted

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
