"""Downloads and removal over HTTP: Ollama's, and generation 0 of Foundry Local as documented."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from loadbench.errors import TargetError
from loadbench.server import VENDORS, Kind, ModelFacts, NotReady, Target, open_http
from tests.support.replay import RECEIVE, serve
from tests.support.scripted import Answer, Scripted, scripted

Heard = list[tuple[float | None, str]]


def pulled(kind: Kind, answers: Mapping[str, Any], name: str) -> tuple[Heard, Scripted]:
    """What a pull tells of its progress, and what the server was asked."""
    heard: Heard = []

    async def run() -> Scripted:
        async with scripted(answers) as fake, open_http(fake.url) as http:
            target = Target(f"{fake.url}/v1", kind)
            await VENDORS[kind].pull(target, http, name, lambda *told: heard.append(told))
            return fake

    return heard, asyncio.run(run())


def refused(kind: Kind, answers: Mapping[str, Any], name: str, error: type[TargetError] = TargetError) -> str:
    with pytest.raises(error) as caught:
        pulled(kind, answers, name)
    assert len(str(caught.value).splitlines()) == 1
    assert (type(caught.value) is NotReady) is (error is NotReady)
    return str(caught.value)


def stream(*rows: dict[str, Any], **options: Any) -> dict[str, Answer]:
    return {"/api/pull": Answer("".join(json.dumps(row) + "\n" for row in rows).encode(), **options)}


BEGUN = (
    {"status": "pulling manifest"},
    {"status": "pulling aaa", "digest": "sha256:aaa", "total": 900},
    {"status": "pulling aaa", "digest": "sha256:aaa", "total": 900, "completed": 450},
    {"status": "pulling aaa", "digest": "sha256:aaa", "total": 900, "completed": 900},
)
ENDED = (
    {"status": "pulling bbb", "digest": "sha256:bbb", "total": 100, "completed": 50},
    {"status": "pulling bbb", "digest": "sha256:bbb", "total": 100, "completed": 100},
    {"status": "verifying sha256 digest"},
    {"status": "success"},
)


def test_ollamas_layers_make_one_percentage() -> None:
    heard, fake = pulled("ollama", stream(*BEGUN, *ENDED), "phi4")

    assert heard[:4] == [
        (None, "pulling manifest"),
        (0.0, "pulling aaa"),
        (50.0, "pulling aaa"),
        (100.0, "pulling aaa"),
    ]
    assert fake.sent == [("POST", "/api/pull", {"model": "phi4"})]


def test_a_percentage_never_falls_when_a_further_layer_is_told() -> None:
    heard, _ = pulled("ollama", stream(*BEGUN, *ENDED), "phi4")

    percents = [percent for percent, _ in heard if percent is not None]
    assert percents == sorted(percents)
    assert heard[-1] == (100.0, "success")


def test_a_download_that_ends_without_success_may_be_tried_again() -> None:
    assert refused("ollama", stream(*BEGUN), "phi4", NotReady) == "phi4: the download broke off before its end"


def test_a_download_whose_connection_breaks_may_be_tried_again() -> None:
    answers = stream(*BEGUN, headers={"Content-Length": "9999"}, cut=True)

    assert "broke the answer off" in refused("ollama", answers, "phi4", NotReady)


def test_a_download_that_stands_still_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadbench.server.vendor.STALL_S", 0.05)
    answers = stream(*BEGUN, headers={"Content-Length": "9999"})

    assert refused("ollama", answers, "phi4", NotReady).endswith("sent nothing for 0.05 s")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadbench.server.vendor.STALL_S", 0.2)


def streaming(line: bytes, status: bytes = b"200 OK") -> Iterator[str]:
    """A server that sends this for ever, whatever it is asked."""
    head = b"HTTP/1.1 " + status + b"\r\nContent-Type: application/x-ndjson\r\n\r\n"
    with serve([RECEIVE, head, *[line * (65_536 // len(line))] * 3_000]) as server:
        yield server.url


ENDLESS = {
    "a line without end": (b"x" * 65_536, b"200 OK", TargetError, "a line of more than 1 MiB"),
    "an error without end": (b"x" * 65_536, b"500 Oh", TargetError, "more than 64 MiB|sent nothing for"),
    "one status again and again": (b'{"status":"pulling"}\n', b"200 OK", NotReady, "no progress for 0.2 s .pulling."),
    "two in turns": (b'{"status":"a"}\n{"status":"b"}\n', b"200 OK", NotReady, "no progress for 0.2 s"),
    "a layer that stands still": (
        b'{"status":"a","digest":"d","total":9,"completed":1e308}\n',
        b"200 OK",
        NotReady,
        "no progress for 0.2 s",
    ),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_a_download_without_end_is_left(case: str, hasty: None) -> None:
    line, status, error, message = ENDLESS[case]

    async def run(url: str) -> None:
        async with open_http(url) as http:
            await VENDORS["ollama"].pull(Target(f"{url}/v1", "ollama"), http, "phi4", lambda percent, words: None)

    for url in streaming(line, status):
        with pytest.raises(error, match=message):
            asyncio.run(run(url))


def test_numbers_of_a_layer_that_cannot_be_are_passed_over() -> None:
    odd = {"status": "pulling", "digest": "d", "total": 1, "completed": 10**300}
    heard, _ = pulled("ollama", stream({"status": "a", "digest": "e", "total": 1e308}, odd, *ENDED), "phi4")

    assert heard[-1][1] == "success"


ERRORS = {
    "unknown": (
        "pull model manifest: file does not exist",
        "phi4: there is no such model to download .*check its name",
    ),
    "full disk": ("write /root/.ollama: no space left on device", "its download failed .*no space left on device"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_in_ollamas_stream_is_one_line(case: str) -> None:
    said, line = ERRORS[case]

    with pytest.raises(TargetError, match=line):
        pulled("ollama", stream({"status": "pulling manifest"}, {"error": said}), "phi4")


def test_an_error_status_is_told_with_the_servers_words() -> None:
    answers = {"/api/pull": Answer({"error": "invalid model name"}, 400)}

    assert refused("ollama", answers, "a b").endswith("/api/pull answered 400: invalid model name")


# -- Foundry Local, generation 0, as documented ------------------------------------------------------------------------

PHI = {
    "name": "Phi-4-mini-instruct-generic-cpu:5",
    "alias": "phi-4-mini",
    "uri": "azureml://registries/azureml/models/Phi-4-mini-instruct-generic-cpu/versions/5",
    "providerType": "AzureFoundry",
    "publisher": "Microsoft",
    "promptTemplate": {"prompt": "<|user|>{Content}"},
    "runtime": {"deviceType": "CPU", "executionProvider": "CPUExecutionProvider"},
}
OLDER = {**PHI, "name": "Phi-4-mini-instruct-generic-cpu:4"}
CUDA = {"name": "Phi-4-mini-instruct-cuda-gpu:5", "alias": "phi-4-mini"}
PROGRESS = b'("genai_config.json", 0.01)\n("model.onnx.data", 0.5)\nTotal 78.25% Downloading\n("", 1)\n'
DONE = b'{\n  "Success": true,\n  "ErrorMessage": null\n}\n'


def foundry(*rows: dict[str, Any], body: bytes = PROGRESS + DONE) -> dict[str, Any]:
    return {"/foundry/list": {"models": list(rows)}, "/openai/download": Answer(body)}


def test_generation_0_tells_its_progress_in_lines_of_text() -> None:
    heard, _ = pulled("foundry0", foundry(PHI), PHI["name"])

    assert heard == [
        (1.0, "genai_config.json"),
        (50.0, "model.onnx.data"),
        (78.25, "Total 78.25% Downloading"),
        (100.0, ""),
    ]


def test_generation_0_is_asked_for_the_row_of_its_catalog() -> None:
    _, fake = pulled("foundry0", foundry(PHI), "phi-4-mini")

    ((_, _, document),) = fake.sent
    assert document["model"] == {
        "Name": PHI["name"],
        "Uri": PHI["uri"],
        "Publisher": "Microsoft",
        "ProviderType": "AzureFoundryLocal",
        "PromptTemplate": {"prompt": "<|user|>{Content}"},
    }
    assert document["IgnorePipeReport"] is True, "progress comes over HTTP then"


@pytest.mark.parametrize("name", ["phi-4-mini", "Phi-4-mini-instruct-generic-cpu"])
def test_generation_0s_newest_version_is_downloaded(name: str) -> None:
    _, fake = pulled("foundry0", foundry(OLDER, PHI), name)

    assert fake.sent[0][2]["model"]["Name"] == PHI["name"]


def test_an_alias_of_several_variants_wants_one_of_them() -> None:
    message = refused("foundry0", foundry(PHI, CUDA), "phi-4-mini")

    assert message == f"'phi-4-mini' may be any of {PHI['name']}, {CUDA['name']}: name one of them"


ODD = {
    "dots": b'("a", 1.2.3)\n',
    "digits": b'("a", ' + b"9" * 400 + b")\n" + b"1" * 100_000 + b" %\n",
    "brackets": b'("' * 100_000 + b"\n",
    "depth": b"",
}


@pytest.mark.parametrize("case", ODD)
def test_progress_of_generation_0_that_is_none_is_passed_over(case: str) -> None:
    heard, _ = pulled("foundry0", foundry(PHI, body=ODD[case] + PROGRESS + DONE), PHI["name"])

    assert heard[-1] == (100.0, "")


def test_an_end_of_generation_0_that_is_nested_deep_is_none() -> None:
    body = PROGRESS + b'{"a":' * 900 + b"1" + b"}" * 900

    assert "broke off" in refused("foundry0", foundry(PHI, body=body), PHI["name"], NotReady)


FAILED = {
    "failed": (
        PROGRESS + b'{"success": false, "errorMessage": "disk full"}',
        TargetError,
        "its download failed .*disk full",
    ),
    "cut": (PROGRESS, NotReady, "broke off before its end"),
}


@pytest.mark.parametrize("case", FAILED)
def test_a_download_of_generation_0_that_does_not_succeed_says_so(case: str) -> None:
    body, error, line = FAILED[case]

    with pytest.raises(error, match=line):
        pulled("foundry0", foundry(PHI, body=body), "phi-4-mini")


def test_a_name_that_is_not_in_the_catalog_is_told() -> None:
    assert "there is no such model to download" in refused("foundry0", foundry(PHI), "zephyr")


def test_a_service_without_a_catalog_may_be_offline() -> None:
    assert "is it offline?" in refused("foundry0", {}, "phi-4-mini", NotReady)


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("foundry1", "downloads through its SDK alone"),
        ("foundry2", "downloads through its SDK alone"),
        ("lmstudio", "lms get x"),
        ("llama.cpp", "start it with the model's file"),
    ],
)
def test_servers_that_download_nothing_over_http_say_what_does(kind: Kind, advice: str) -> None:
    assert advice in refused(kind, {}, "x")


# -- Removal -----------------------------------------------------------------------------------------------------------


def removed(kind: Kind, answers: Mapping[str, Any], model: ModelFacts) -> Scripted:
    async def run() -> Scripted:
        async with scripted(answers) as fake, open_http(fake.url) as http:
            await VENDORS[kind].remove(Target(f"{fake.url}/v1", kind), http, model)
            return fake

    return asyncio.run(run())


def test_ollama_deletes_a_model() -> None:
    fake = removed("ollama", {"/api/delete": Answer()}, ModelFacts("phi4:latest"))

    assert fake.sent == [("DELETE", "/api/delete", {"model": "phi4:latest"})]


def test_a_model_that_ollama_does_not_have_is_told() -> None:
    with pytest.raises(TargetError, match=r"phi4: the server does not know it .model 'phi4' not found"):
        removed("ollama", {"/api/delete": Answer({"error": "model 'phi4' not found"}, 404)}, ModelFacts("phi4"))


@pytest.mark.parametrize(
    ("kind", "advice"), [("foundry0", "`foundry cache remove phi` does"), ("vllm", "delete its file there")]
)
def test_servers_that_delete_nothing_over_http_say_what_does(kind: Kind, advice: str) -> None:
    with pytest.raises(TargetError, match=advice):
        removed(kind, {}, ModelFacts("x", ("phi",)))
