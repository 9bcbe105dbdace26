"""Load, unload, download and remove over HTTP: the requests that each server gets, and why it refused."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import pytest

from loadbench.errors import TargetError
from loadbench.server import KINDS, VENDORS, Control, Kind, ModelFacts, NotReady, Target, control, open_http
from loadbench.server.foundry import FoundryControl
from tests.support.replay import RECEIVE, serve
from tests.support.scripted import Answer, Scripted, scripted

# -- load and unload

TINY = ModelFacts("tiny-generic-cpu:1", ("tiny",))
PHI = ModelFacts("Phi-4-mini-instruct-cuda-gpu:5")
PHI_ALIAS = replace(PHI, aliases=("phi",))
PHI_ON_CPU = "Phi-4-mini-instruct-generic-cpu:5"
LOCAL = "/catalogs/local/models"

Do = Callable[[Control], Awaitable[Any]]
Action = Literal["load", "unload", "running"]


def controlled(kind: Kind, answers: Mapping[str, Any], do: Do, *, prefix: str = "") -> tuple[Any, Scripted]:
    """The result of a control call on a scripted server, and the server."""

    async def at_once(seconds: float) -> None: ...

    async def run() -> tuple[Any, Scripted]:
        async with scripted(answers) as fake, open_http(fake.url) as http:
            hands = control(Target(f"{fake.url}{prefix}/v1", kind), http)
            assert hands is not None
            if isinstance(hands, FoundryControl):
                hands = replace(hands, sleep=at_once)
            return await do(hands), fake

    return asyncio.run(run())


def act(action: Action, model: ModelFacts) -> Do:
    return lambda hands: getattr(hands, action)(model)


def error(kind: Kind, answers: Mapping[str, Any], action: Action, model: ModelFacts) -> str:
    with pytest.raises(TargetError) as caught:
        controlled(kind, answers, act(action, model))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def failed(message: str, status: int = 500, **options: Any) -> Answer:
    return Answer({"error": {"message": message}}, status, **options)


def test_servers_that_hold_what_they_were_started_with_have_no_control() -> None:
    async def kinds() -> list[str]:
        async with open_http("http://h:1") as http:
            return [kind for kind in KINDS if control(Target("http://h:1/v1", kind), http) is not None]

    assert asyncio.run(kinds()) == ["foundry0", "foundry1", "foundry2", "ollama", "lmstudio"]


BUSY = "Unload failed: cannot unload model 'tiny-generic-cpu:1': 1 session(s) still using it"
TAKEN: dict[str, tuple[Kind, str, Action, ModelFacts, dict[str, Any], list[str]]] = {
    # kind, prefix, what is done with which model, the server's answers; the paths of the requests
    "generation 0 loads for longer than any pause": (
        *("foundry0", "", "load", TINY),
        {"/openai/load/tiny-generic-cpu:1?ttl=86400": Answer()},
        ["/openai/load/tiny-generic-cpu:1?ttl=86400"],
    ),
    "generation 0 unloads at once": (
        *("foundry0", "", "unload", TINY),
        {"/openai/unload/tiny-generic-cpu:1?force=true": Answer()},
        ["/openai/unload/tiny-generic-cpu:1?force=true"],
    ),
    "generation 1 loads by id": (
        *("foundry1", "", "load", TINY),
        {"/models/load/tiny-generic-cpu:1": Answer()},
        ["/models/load/tiny-generic-cpu:1"],
    ),
    "a registered model by alias under its prefix": (
        *("foundry2", "/catalogs/local", "load", TINY),
        {f"{LOCAL}/load/tiny": {"status": "loaded"}, f"{LOCAL}/loaded": [TINY.id]},
        [f"{LOCAL}/load/tiny", f"{LOCAL}/loaded"],
    ),
    "the names that an alias may be": (
        *("foundry2", "", "load", PHI),
        {
            "/models/load/Phi-4-mini-instruct": failed("Model not found: No model matching 'Phi-4-mini-instruct'", 404),
            "/models/load/phi-4-mini": {"status": "already_loaded"},
            "/models/loaded": [PHI.id],
        },
        ["/models/load/Phi-4-mini-instruct", "/models/load/phi-4-mini", "/models/loaded"],
    ),
    "the alias that the runtime makes of an id": (  # beside tiny-a-generic-gpu:1, whose alias is tiny-a: seen in 2.2.1
        *("foundry2", "/catalogs/local", "load", ModelFacts("tiny-a-gpu:1")),
        {
            f"{LOCAL}/load/tiny-a-gpu": {"status": "loaded"},
            f"{LOCAL}/load/tiny-a": {"status": "loaded"},
            f"{LOCAL}/loaded": ["tiny-a-gpu:1"],
        },
        [f"{LOCAL}/load/tiny-a-gpu", f"{LOCAL}/loaded"],
    ),
    "an unload right after a stream is tried again": (
        *("foundry2", "", "unload", TINY),
        {"/models/unload/tiny": failed(BUSY, then=Answer({"status": "unloaded"}))},
        ["/models/unload/tiny"] * 2,
    ),
}


@pytest.mark.parametrize("case", TAKEN)
def test_a_model_is_loaded_and_unloaded_as_its_server_wants_it(case: str) -> None:
    kind, prefix, action, model, answers, paths = TAKEN[case]

    _, fake = controlled(kind, answers, act(action, model), prefix=prefix)

    assert fake.asked == paths


def test_a_models_own_base_url_goes_before_the_targets() -> None:
    async def run() -> list[str]:
        async with scripted({f"{LOCAL}/unload/tiny": {}}) as fake, open_http(fake.url) as http:
            hands = FoundryControl("foundry2", f"{fake.url}/v1", http)
            await hands.unload(replace(TINY, base_url=f"{fake.url}/catalogs/local/v1"))
            return fake.asked

    assert asyncio.run(run()) == [f"{LOCAL}/unload/tiny"]


@pytest.mark.parametrize(
    ("status", "undone"), [("loaded", ["/models/unload/phi"]), ("already_loaded", [])], ids=["ours", "somebody else's"]
)
def test_another_variant_that_generation_2_loads_is_undone_where_it_is_ours(status: str, undone: list[str]) -> None:
    answers = {
        "/models/load/phi": {"status": status},
        "/models/loaded": [PHI_ON_CPU],
        "/models/unload/phi": {"status": "unloaded"},
    }
    message = f"{PHI.id}: the service loads {PHI_ON_CPU} for that alias: measure that one with -m"

    async def do(hands: Control) -> None:
        with pytest.raises(TargetError, match=f"^{message}"):
            await hands.load(PHI_ALIAS)

    _, fake = controlled("foundry2", answers, do)

    assert fake.asked == ["/models/load/phi", "/models/loaded", *undone]


OLD_LM_STUDIO = {"/api/v1/models": {"error": "Unexpected endpoint"}, "/api/v1/models/load": {"error": "Unexpected"}}


@pytest.mark.parametrize(
    ("kind", "action", "model", "answers", "line"),
    [
        ("foundry2", "unload", TINY, {"/models/unload/tiny": failed(BUSY)}, r"1 session\(s\) still using it"),
        (
            *("foundry2", "load", replace(TINY, cached=False), {}),
            "^tiny-generic-cpu:1: not downloaded: `loadbench models pull tiny-generic-cpu:1` fetches it$",
        ),
        (
            "foundry1",
            "load",
            ModelFacts("x"),
            {"/models/load/x": Answer(b"", 500)},
            "failed with 500 and no reason: is",
        ),
        ("lmstudio", "load", ModelFacts("m"), OLD_LM_STUDIO, "0.4 and newer do it over HTTP"),  # any path gets a 200
        (
            *("foundry1", "load", ModelFacts("x")),
            {"/models/load/x": Answer(b"{", headers={"Content-Length": "100"}, cut=True)},
            "gave no answer to its load: is the server still running, or out of memory[?]$",
        ),
    ],
)
def test_what_does_not_succeed_is_one_line(
    kind: Kind, action: Action, model: ModelFacts, answers: dict[str, Any], line: str
) -> None:
    assert re.search(line, error(kind, answers, action, model))


RUNNING: dict[str, tuple[Kind, ModelFacts, dict[str, Any], tuple[Any, ...] | None]] = {
    # kind, model, the server's answers; id, device, provider and context of what runs
    "generation 0": (
        *("foundry0", TINY, {"/openai/loadedmodels": ["Tiny-generic-cpu:1"]}),
        (TINY.id, "CPU", "CPUExecutionProvider", None),
    ),
    "generation 1 names a version only in what is loaded": (
        *("foundry1", ModelFacts("tiny-generic-cpu"), {"/models/loaded": ["tiny-generic-cpu:1"]}),
        ("tiny-generic-cpu:1", "CPU", "CPUExecutionProvider", None),
    ),
    "none": ("foundry2", TINY, {"/models/loaded": []}, None),
    "others": ("foundry2", TINY, {"/models/loaded": ["other-generic-cpu:1"]}, None),
    "no list": ("foundry2", TINY, {"/models/loaded": Answer(b"", 500)}, None),
    "Ollama's device": (
        *("ollama", ModelFacts("gemma3:latest")),
        {"/api/ps": {"models": [{"name": "gemma3:latest", "size": 9, "size_vram": 9, "context_length": 4096}]}},
        ("gemma3:latest", "GPU", None, 4096),
    ),
}


@pytest.mark.parametrize("case", RUNNING)
def test_what_runs_has_its_device_and_context(case: str) -> None:
    kind, model, answers, facts = RUNNING[case]

    ran, _ = controlled(kind, answers, act("running", model))

    assert (ran and (ran.id, ran.device, ran.execution_provider, ran.context)) == facts
    assert ran is None or ran.loaded


def test_ollama_loads_with_an_empty_prompt_for_as_long_as_it_runs_and_unloads_with_none() -> None:
    model = ModelFacts("gemma3:latest")

    async def both(hands: Control) -> None:
        await hands.load(model)
        await hands.unload(model)

    _, fake = controlled("ollama", {"/api/generate": {"done": True, "done_reason": "load"}}, both)

    document = {"model": model.id, "prompt": "", "stream": False}
    assert fake.sent == [
        ("POST", "/api/generate", {**document, "keep_alive": -1}),
        ("POST", "/api/generate", {**document, "keep_alive": 0}),
    ]


def test_lm_studio_loads_a_model_with_its_context_and_unloads_every_instance() -> None:
    instances = [{"id": "m", "config": {"context_length": 9}}, {"id": "m:2"}]
    answers = {
        "/api/v1/models": {"models": [{"key": "m", "loaded_instances": instances}]},
        "/api/v1/models/load": {"model_instance_id": "m"},
        "/api/v1/models/unload": {},
    }

    async def all_three(hands: Control) -> ModelFacts | None:
        await hands.load(ModelFacts("m"))
        ran = await hands.running(ModelFacts("m"))
        await hands.unload(ModelFacts("m"))
        return ran

    ran, fake = controlled("lmstudio", answers, all_three)

    assert (ran.loaded, ran.context) == (True, 9)
    assert fake.sent == [
        ("POST", "/api/v1/models/load", {"model": "m"}),
        ("POST", "/api/v1/models/unload", {"instance_id": "m"}),
        ("POST", "/api/v1/models/unload", {"instance_id": "m:2"}),
    ]


REFUSALS = {
    "unknown": (404, "Model not found: No model matching 'x'", "x: the server does not know it .*`loadbench models"),
    "not downloaded": (400, "Model not cached: Model must be downloaded", "x: not downloaded .*models pull x"),
    "C++'s memory": (500, "Load failed: std::bad_alloc", "x: not enough memory for its load .*unload other models"),
    "a bad allocation": (500, "bad allocation", "not enough memory"),
    "CUDA's memory": (500, "CUDA error: out of memory", "not enough memory"),
    "Ollama's memory": (500, "model requires more system memory (9.1 GiB) than is available", "not enough memory"),
    "no such provider": (
        500,
        "Load failed: model 'x' requires CUDAExecutionProvider which is not registered. Call DownloadAndRegisterEps()",
        "x: it needs CUDAExecutionProvider, which this server does not have: .*--device or --ep",
    ),
    "a key": (401, "invalid token", "refused its load .401: invalid token.: see --api-key-env"),
    "anything": (500, "model runner has unexpectedly stopped", "its load failed with 500 .model runner has"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refused_load_is_one_line_that_says_what_to_do(case: str) -> None:
    status, words, line = REFUSALS[case]

    assert re.search(line, error("foundry1", {"/models/load/x": failed(words, status)}, "load", ModelFacts("x")))


def test_a_load_that_takes_too_long_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadbench.server.vendor.LOAD_S", 0.05)

    message = error("foundry1", {"/models/load/x": Answer(delay_s=5.0)}, "load", ModelFacts("x"))

    assert message.startswith("x: no load within 0.05 s: is the machine out of memory")


# -- Downloads and removal over HTTP: Ollama's, and generation 0 of Foundry Local as documented

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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "^phi4: the download broke off before its end$"),
        ({"headers": {"Content-Length": "9999"}, "cut": True}, "broke the answer off"),
        ({"headers": {"Content-Length": "9999"}}, "sent nothing for 0.05 s$"),
    ],
)
def test_a_download_that_breaks_or_stalls_may_be_tried_again(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadbench.server.vendor.STALL_S", 0.05)

    assert re.search(message, refused("ollama", stream(*BEGUN, **options), "phi4", NotReady))


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


# -- Foundry Local, generation 0, as documented

PHI_ROW = {
    "name": "Phi-4-mini-instruct-generic-cpu:5",
    "alias": "phi-4-mini",
    "uri": "azureml://registries/azureml/models/Phi-4-mini-instruct-generic-cpu/versions/5",
    "providerType": "AzureFoundry",
    "publisher": "Microsoft",
    "promptTemplate": {"prompt": "<|user|>{Content}"},
    "runtime": {"deviceType": "CPU", "executionProvider": "CPUExecutionProvider"},
}
OLDER = {**PHI_ROW, "name": "Phi-4-mini-instruct-generic-cpu:4"}
CUDA = {"name": "Phi-4-mini-instruct-cuda-gpu:5", "alias": "phi-4-mini"}
PROGRESS = b'("genai_config.json", 0.01)\n("model.onnx.data", 0.5)\nTotal 78.25% Downloading\n("", 1)\n'
DONE = b'{\n  "Success": true,\n  "ErrorMessage": null\n}\n'


def foundry(*rows: dict[str, Any], body: bytes = PROGRESS + DONE) -> dict[str, Any]:
    return {"/foundry/list": {"models": list(rows)}, "/openai/download": Answer(body)}


def test_generation_0_tells_its_progress_in_lines_of_text() -> None:
    heard, _ = pulled("foundry0", foundry(PHI_ROW), PHI_ROW["name"])

    assert heard == [
        (1.0, "genai_config.json"),
        (50.0, "model.onnx.data"),
        (78.25, "Total 78.25% Downloading"),
        (100.0, ""),
    ]


def test_generation_0_is_asked_for_the_row_of_its_catalog() -> None:
    _, fake = pulled("foundry0", foundry(PHI_ROW), "phi-4-mini")

    ((_, _, document),) = fake.sent
    assert document["model"] == {
        "Name": PHI_ROW["name"],
        "Uri": PHI_ROW["uri"],
        "Publisher": "Microsoft",
        "ProviderType": "AzureFoundryLocal",
        "PromptTemplate": {"prompt": "<|user|>{Content}"},
    }
    assert document["IgnorePipeReport"] is True, "progress comes over HTTP then"


@pytest.mark.parametrize("name", ["phi-4-mini", "Phi-4-mini-instruct-generic-cpu"])
def test_generation_0s_newest_version_is_downloaded(name: str) -> None:
    _, fake = pulled("foundry0", foundry(OLDER, PHI_ROW), name)

    assert fake.sent[0][2]["model"]["Name"] == PHI_ROW["name"]


def test_an_alias_of_several_variants_wants_one_of_them() -> None:
    message = refused("foundry0", foundry(PHI_ROW, CUDA), "phi-4-mini")

    assert message == f"'phi-4-mini' may be any of {PHI_ROW['name']}, {CUDA['name']}: name one of them"


ODD = {
    "dots": b'("a", 1.2.3)\n',
    "digits": b'("a", ' + b"9" * 400 + b")\n" + b"1" * 100_000 + b" %\n",
    "brackets": b'("' * 100_000 + b"\n",
    "depth": b"",
}


@pytest.mark.parametrize("case", ODD)
def test_progress_of_generation_0_that_is_none_is_passed_over(case: str) -> None:
    heard, _ = pulled("foundry0", foundry(PHI_ROW, body=ODD[case] + PROGRESS + DONE), PHI_ROW["name"])

    assert heard[-1] == (100.0, "")


def test_an_end_of_generation_0_that_is_nested_deep_is_none() -> None:
    body = PROGRESS + b'{"a":' * 900 + b"1" + b"}" * 900

    assert "broke off" in refused("foundry0", foundry(PHI_ROW, body=body), PHI_ROW["name"], NotReady)


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
        pulled("foundry0", foundry(PHI_ROW, body=body), "phi-4-mini")


def test_a_name_that_is_not_in_the_catalog_is_told() -> None:
    assert "there is no such model to download" in refused("foundry0", foundry(PHI_ROW), "zephyr")


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


# -- removal


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
