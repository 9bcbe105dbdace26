"""`loadbench run` and `probe` on gateways: their routes, what they refuse, what they hide, how often they answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from loadbench.runner import turn
from loadbench.server import calls
from tests.support.command import KEY, invoked
from tests.support.gateways import NOT_FOUND, PAGE, Answered, Asked, chat, gateway, listed

pytestmark = pytest.mark.usefixtures("place")
BRIEF = ("-c", "1", "-n", "2", "--warmup", "0", "--no-telemetry", "-o", "there")
HELLO = chat("Hel", "lo", "!")


def run(url: str, *words: object, **variables: str) -> Result:
    return invoked("run", "-e", url, *BRIEF, *words, **variables)


def completed() -> int:
    """Measured requests that completed."""
    return sum(json.loads(line)["error"] is None for line in Path("there", "requests.jsonl").read_text().splitlines())


def only(route: str, answer: Answered = HELLO, rest: Answered = NOT_FOUND) -> Callable[[Asked], Answered]:
    """A server with one route."""
    return lambda asked: answer if asked.path == route else rest


# -- routes


@pytest.mark.parametrize(
    "route",
    [
        "/v1beta/openai/chat/completions",  # Google's
        "/inference/chat/completions",  # GitHub Models
        "/chat/completions",  # Perplexity
        "/api/paas/v4/chat/completions",  # Zhipu
        "/serving-endpoints/mine/invocations",  # Databricks
        "/v1/chat/completions",
    ],
)
def test_a_full_route_that_was_pasted_is_asked_as_it_is(route: str) -> None:
    with gateway(only(route)) as server:
        done = run(server.url + route, "-m", "m")

    assert (done.exit_code, completed()) == (0, 2)
    assert {one.path for one in server.chats} == {route}


AZURE = "/openai/deployments/mine/chat/completions?api-version=2024-10-21"


def azure(asked: Asked) -> Answered:
    """Azure's OpenAI: a query with each request, the key in a header of its own, no model list."""
    if asked.headers.get("api-key") != KEY or not asked.path.endswith("?api-version=2024-10-21"):
        return Answered(401, {"error": {"code": "401", "message": "Access denied"}})
    return HELLO if asked.path == AZURE else Answered(404, {"error": {"code": "404", "message": "Resource not found"}})


def test_a_query_goes_with_each_request_and_a_key_in_a_header_of_its_own() -> None:
    with gateway(azure) as server:
        done = run(server.url + AZURE, "-m", "mine", "--header", f"api-key: {KEY}")

    assert (done.exit_code, completed()) == (0, 2)
    assert {one.path.partition("?")[2] for one in server.asked} == {"api-version=2024-10-21"}
    assert KEY not in Path("there", "run.json").read_text()


def test_a_run_on_a_pasted_route_goes_on_where_it_was() -> None:
    with gateway(azure) as server:
        run(server.url + AZURE, "-m", "mine", "--header", f"api-key: {KEY}")
        begun = json.loads(Path("there", "run.json").read_bytes())
        begun["levels"] = []
        Path("there", "run.json").write_text(json.dumps(begun))
        before = len(server.chats)
        done = invoked("run", "--resume", "there", "--header", f"api-key: {KEY}")

    assert done.exit_code == 0
    assert len(server.chats) > before


# -- what a list that is not there means


LISTS = {
    "401": Answered(401, {"error": "no such permission"}),
    "403": Answered(403, PAGE),
    "404": NOT_FOUND,
    "405": Answered(405, b""),
    "500": Answered(500, {"error": "boom"}),
    "502": Answered(502, PAGE),
    "503": Answered(503, b""),
    "a web page": Answered(200, PAGE),
    "no list": Answered(200, {"status": "ok"}),
    "nothing": Answered(200, b""),
    "half a list": Answered(200, b'{"data": [{"id": "m"'),
    "a login page": Answered(302, b"", {"Location": "https://login.example/"}),
}


def only_chats(answer: Answered) -> Callable[[Asked], Answered]:
    return lambda asked: HELLO if asked.method == "POST" else answer


@pytest.mark.parametrize("name", LISTS)
def test_a_server_whose_list_is_not_to_be_had_is_measured_where_the_model_is_named(name: str) -> None:
    with gateway(only_chats(LISTS[name])) as server:
        done = run(server.url, "-m", "m")

    assert (done.exit_code, completed()) == (0, 2)


@pytest.mark.parametrize("name", LISTS)
def test_without_its_name_that_is_one_line_which_asks_for_it_or_mends_the_address(name: str) -> None:
    with gateway(only_chats(LISTS[name])) as server:
        done = run(server.url)

    [line] = [line for line in done.stderr.splitlines() if line.startswith("loadbench: ")]
    assert done.exit_code == 1
    assert "<" not in line  # no page of a server's


def test_a_probe_needs_no_list_either() -> None:
    with gateway(only_chats(LISTS["401"])) as server:
        done = invoked("probe", "-e", server.url, "-m", "m")

    assert done.exit_code == 0
    assert "Hello!" in done.stdout


# -- what is hidden, and what is refused


def reasoning(hidden: int, limit: str = "max_tokens") -> Callable[[Asked], Answered]:
    """Spends so many tokens on hidden reasoning before the first word."""

    def law(asked: Asked) -> Answered:
        if asked.method == "GET":
            return listed("m")
        left = min(asked.body[limit], hidden + 3) - hidden
        spent = {"reasoning_tokens": hidden + min(left, 0)}
        usage = {"prompt_tokens": 7, "completion_tokens": hidden + left, "completion_tokens_details": spent}
        words = ("A", "B", "C")[: max(left, 0)]
        return chat(*words, finish="stop" if left >= 3 else "length", usage=usage)

    return law


def test_a_model_that_reasons_unseen_before_its_first_word_is_measured() -> None:
    with gateway(reasoning(50)) as server:
        done = run(server.url, "--max-tokens", "500")

    assert (done.exit_code, completed()) == (0, 2)
    assert {one.body["max_tokens"] for one in server.chats[1:]} == {500}


def test_where_all_went_into_hidden_reasoning_the_message_says_so_and_what_to_do() -> None:
    with gateway(reasoning(50)) as server:
        done = run(server.url, "--max-tokens", "20")

    assert done.exit_code == 1
    assert "all 20 tokens went into hidden reasoning (finish reason length)" in done.stderr
    assert "--max-tokens" in done.stderr
    assert "reasoning_effort" in done.stderr


def test_a_probe_says_so_too() -> None:
    with gateway(reasoning(500)) as server:
        done = invoked("probe", "-e", server.url)

    assert done.exit_code == 1
    assert "all 64 tokens went into hidden reasoning" in done.stderr


def test_a_model_that_reasons_unseen_is_fine_to_verify() -> None:
    with gateway(reasoning(50)) as server:
        done = invoked("models", "verify", "-e", server.url)

    assert done.exit_code == 0


def calls_tools(asked: Asked) -> Answered:
    """vLLM with tool_choice=required: no text before the call is whole."""
    if asked.method == "GET":
        return listed("m", owned_by="vllm")
    if asked.body["max_tokens"] < 20:
        return chat(finish="length", usage={"prompt_tokens": 7, "completion_tokens": asked.body["max_tokens"]})
    call = {"index": 0, "function": {"name": "weather", "arguments": '{"city": "Faro"}'}}
    return Answered(
        events=[{"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}]
    )


def test_a_server_without_text_in_a_few_tokens_is_measured_by_the_runs_own_limit() -> None:
    with gateway(calls_tools) as server:
        done = run(server.url, "--extra-body", '{"tool_choice": "required"}')

    assert (done.exit_code, completed()) == (0, 2)


def at_least_16(asked: Asked) -> Answered:
    if asked.method == "GET":
        return listed("m")
    if asked.body["max_tokens"] < 16:
        message = "Invalid 'max_tokens': integer below minimum value. Expected a value >= 16, but got 8 instead."
        return Answered(400, {"error": {"message": message}})
    return HELLO


def test_a_server_that_refuses_so_few_tokens_is_measured() -> None:
    with gateway(at_least_16) as server:
        done = run(server.url)

    assert (done.exit_code, completed()) == (0, 2)


def gpt5(asked: Asked) -> Answered:
    """Refuses max_tokens and a temperature, as OpenAI's newer models do."""
    if asked.method == "GET":
        return listed("gpt")
    if "max_tokens" in asked.body:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return Answered(400, {"error": {"message": message, "param": "max_tokens", "code": "unsupported_parameter"}})
    if "temperature" in asked.body:
        message = "Unsupported value: 'temperature' does not support 0 with this model. Only the default is supported."
        return Answered(400, {"error": {"message": message, "param": "temperature", "code": "unsupported_value"}})
    return HELLO


def test_null_in_extra_body_takes_keys_out() -> None:
    body = {"max_tokens": None, "temperature": None, "max_completion_tokens": 500}
    with gateway(gpt5) as server:
        done = run(server.url, "--extra-body", json.dumps(body))

    assert (done.exit_code, completed()) == (0, 2)
    assert all(one.body.keys() >= {"model", "messages", "max_completion_tokens"} for one in server.chats)
    assert not any(one.body.keys() & {"max_tokens", "temperature"} for one in server.chats)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gpt.json", '{"extra_body": {"max_tokens": null, "temperature": null, "max_completion_tokens": 9}}'),
        ("gpt.toml", """extra_body = '{"max_tokens": null, "temperature": null, "max_completion_tokens": 9}'"""),
    ],
)
def test_a_scenario_file_takes_keys_out_too(name: str, text: str) -> None:
    Path(name).write_text(text)
    with gateway(gpt5) as server:
        done = run(server.url, name)

    assert (done.exit_code, completed()) == (0, 2)


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ({}, {"max_tokens": None, "max_completion_tokens": 300}),
        ({"max_tokens": None, "max_completion_tokens": 300}, {"temperature": None}),
    ],
)
@pytest.mark.parametrize("command", ["run", "probe"])
def test_a_refusal_that_blames_a_key_says_how_to_take_it_out(
    given: dict[str, Any], advice: dict[str, Any], command: str
) -> None:
    if command == "probe" and given:
        pytest.skip("probe has no --extra-body")
    with gateway(gpt5) as server:
        words = ("--max-tokens", "300", *(("--extra-body", json.dumps(given)) if given else ()))
        done = run(server.url, *words) if command == "run" else invoked("probe", "-e", server.url, *words)

    assert done.exit_code == 1
    assert f"--extra-body '{json.dumps(advice)}'" in done.stderr


def test_a_refusal_of_something_else_is_not_advised_away() -> None:
    refusal = Answered(400, {"error": {"message": "max_tokens must be at most 100"}})
    with gateway(lambda asked: listed("m") if asked.method == "GET" else refusal) as server:
        done = run(server.url)

    assert done.exit_code == 1
    assert "--extra-body" not in done.stderr


# -- how often a server may be asked


class Refuses:
    """The first two requests of each method come too early."""

    def __init__(self, retry_after: str | None) -> None:
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        self._refusal = Answered(429, PAGE, headers)
        self._left = {"GET": 2, "POST": 2}

    def __call__(self, asked: Asked) -> Answered:
        if self._left[asked.method]:
            self._left[asked.method] -= 1
            return self._refusal
        return HELLO if asked.method == "POST" else only_list(asked)


@pytest.mark.parametrize("retry_after", ["0.02", None, "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_gateway_that_answers_so_often_and_no_oftener_is_measured(
    retry_after: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "PAUSES_S", (0.02,) * 5)
    monkeypatch.setattr(turn, "PAUSES_S", (0.02,) * 5)
    monkeypatch.setattr(turn, "REST_S", 0.02)
    with gateway(Refuses(retry_after)) as server:
        done = run(server.url)

    assert (done.exit_code, completed()) == (0, 2)
    assert len(server.chats) == 6  # two that were refused, the probes, those that are measured


def test_few_gets_are_made_to_learn_who_a_gateway_is() -> None:
    with gateway(lambda asked: HELLO if asked.method == "POST" else only_list(asked)) as server:
        run(server.url)

    assert len(server.gets) <= 4


def only_list(asked: Asked) -> Answered:
    return listed("m", owned_by="openai") if asked.path == "/v1/models" else NOT_FOUND


def test_who_is_refused_too_often_all_the_same_is_told_in_words_and_shown_no_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turn, "PAUSES_S", (0.0,))
    with gateway(lambda asked: Answered(429, PAGE) if asked.method == "POST" else only_list(asked)) as server:
        done = run(server.url)

    assert done.exit_code == 1
    assert "http_429: HTTP 429: Sign in" in done.stderr
    assert "<" not in done.stderr


def test_a_wait_that_is_longer_than_anybody_has_is_not_waited_for() -> None:
    refusal = Answered(429, {"error": {"message": "come back tomorrow"}}, {"Retry-After": "86400"})
    with gateway(lambda asked: refusal if asked.method == "POST" else only_list(asked)) as server:
        done = run(server.url)

    assert done.exit_code == 1
    assert "come back tomorrow" in done.stderr
