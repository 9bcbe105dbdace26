"""Load, unload, download and remove over HTTP: what each server is asked, and why it did not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from loadbench.errors import TargetError
from loadbench.server import KINDS, VENDORS, Control, Kind, ModelFacts, NotReady, Target, control, open_http
from loadbench.server.foundry import FoundryControl
from tests.support.replay import RECEIVE, serve
from tests.support.scripted import Answer, Scripted, scripted

# -- Load and unload over HTTP: what each server is asked, and why it did not

TINY = ModelFacts("tiny-generic-cpu:1", ("tiny",))
PHI = ModelFacts("Phi-4-mini-instruct-cuda-gpu:5")
LOCAL = "/catalogs/local/models"

Do = Callable[[Control], Awaitable[Any]]


def told(kind: Kind, answers: Mapping[str, Any], do: Do, *, prefix: str = "") -> tuple[Any, Scripted]:
    """What a control call on a scripted server gives, and what the server was asked."""

    async def run() -> tuple[Any, Scripted]:
        async with scripted(answers) as fake, open_http(fake.url) as http:
            hands = control(Target(f"{fake.url}{prefix}/v1", kind), http)
            assert hands is not None
            if isinstance(hands, FoundryControl):
                hands = replace(hands, sleep=_at_once)
            return await do(hands), fake

    return asyncio.run(run())


async def _at_once(seconds: float) -> None: ...


def error(kind: Kind, answers: Mapping[str, Any], do: Do, **options: Any) -> str:
    with pytest.raises(TargetError) as caught:
        told(kind, answers, do, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def load(model: ModelFacts) -> Do:
    return lambda hands: hands.load(model)


def unload(model: ModelFacts) -> Do:
    return lambda hands: hands.unload(model)


def running(model: ModelFacts) -> Do:
    return lambda hands: hands.running(model)


def not_found(name: str) -> Answer:
    message = f"Model not found: No model matching '{name}'"
    return Answer({"error": {"code": None, "message": message, "param": None, "type": "invalid_request_error"}}, 404)


def test_servers_that_hold_what_they_were_started_with_have_no_control() -> None:
    async def kinds() -> list[str]:
        async with open_http("http://h:1") as http:
            return [kind for kind in KINDS if control(Target("http://h:1/v1", kind), http) is not None]

    assert asyncio.run(kinds()) == ["foundry0", "foundry1", "foundry2", "ollama", "lmstudio"]


# -- Foundry Local -----------------------------------------------------------------------------------------------------


def test_generation_0_as_documented_loads_for_longer_than_any_pause_and_unloads_at_once() -> None:
    answers = {
        "/openai/load/tiny-generic-cpu:1?ttl=86400": Answer(),
        "/openai/unload/tiny-generic-cpu:1?force=true": Answer(),
    }

    assert told("foundry0", answers, load(TINY))[0] is None
    assert told("foundry0", answers, unload(TINY))[0] is None


def test_generation_0_as_documented_tells_what_runs() -> None:
    ran, _ = told("foundry0", {"/openai/loadedmodels": ["Tiny-generic-cpu:1"]}, running(TINY))

    assert (ran.id, ran.loaded, ran.device, ran.execution_provider) == (TINY.id, True, "CPU", "CPUExecutionProvider")


def test_generation_1_loads_by_id_and_fails_without_a_word() -> None:
    answers = {"/models/load/tiny-generic-cpu:1": Answer(), "/models/load/nosuch": Answer(b"", 500)}

    assert told("foundry1", answers, load(TINY))[0] is None
    assert "failed with 500 and no reason: is it downloaded?" in error("foundry1", answers, load(ModelFacts("nosuch")))


def test_generation_1_names_a_version_only_in_what_is_loaded() -> None:
    model = ModelFacts("tiny-generic-cpu")

    ran, _ = told("foundry1", {"/models/loaded": ["tiny-generic-cpu:1"]}, running(model))

    assert (ran.id, ran.device) == ("tiny-generic-cpu:1", "CPU")


def test_generation_2_loads_a_registered_model_by_alias_under_its_prefix() -> None:
    answers = {f"{LOCAL}/load/tiny": {"status": "loaded"}, f"{LOCAL}/loaded": [TINY.id]}

    _, fake = told("foundry2", answers, load(TINY), prefix="/catalogs/local")

    assert fake.asked == [f"{LOCAL}/load/tiny", f"{LOCAL}/loaded"]


def test_a_models_own_base_url_goes_before_the_targets() -> None:
    answers = {f"{LOCAL}/unload/tiny": {"status": "unloaded"}}

    async def run() -> list[str]:
        async with scripted(answers) as fake, open_http(fake.url) as http:
            hands = FoundryControl("foundry2", f"{fake.url}/v1", http)
            await hands.unload(replace(TINY, base_url=f"{fake.url}/catalogs/local/v1"))
            return fake.asked

    assert asyncio.run(run()) == [f"{LOCAL}/unload/tiny"]


def test_generation_2_is_tried_with_the_names_an_alias_may_be() -> None:
    answers = {
        "/models/load/Phi-4-mini-instruct": not_found("Phi-4-mini-instruct"),
        "/models/load/phi-4-mini": {"status": "already_loaded"},
        "/models/loaded": [PHI.id],
    }

    _, fake = told("foundry2", answers, load(PHI))

    assert fake.asked == ["/models/load/Phi-4-mini-instruct", "/models/load/phi-4-mini", "/models/loaded"]


def test_generation_2_loads_a_registered_model_by_the_alias_that_the_runtime_makes_of_its_id() -> None:
    ours = "tiny-a-gpu:1"  # beside tiny-a-generic-gpu:1, whose alias is tiny-a: seen in 2.2.1
    answers = {
        f"{LOCAL}/load/tiny-a-gpu": {"status": "loaded"},
        f"{LOCAL}/load/tiny-a": {"status": "loaded"},
        f"{LOCAL}/loaded": [ours],
    }

    _, fake = told("foundry2", answers, load(ModelFacts(ours)), prefix="/catalogs/local")

    assert fake.asked == [f"{LOCAL}/load/tiny-a-gpu", f"{LOCAL}/loaded"]


def test_generation_2_that_loads_another_variant_is_undone_and_told() -> None:
    cpu = "Phi-4-mini-instruct-generic-cpu:5"
    answers = {
        "/models/load/phi": {"status": "loaded"},
        "/models/loaded": [cpu],
        "/models/unload/phi": {"status": "unloaded"},
    }

    message = error("foundry2", answers, load(replace(PHI, aliases=("phi",))))

    assert message.startswith(f"{PHI.id}: the service loads {cpu} for that alias: measure that one with -m")


def test_a_variant_that_somebody_else_loaded_is_left_in_memory() -> None:
    answers = {
        "/models/load/phi": {"status": "already_loaded"},
        "/models/loaded": ["Phi-4-mini-instruct-generic-cpu:5"],
    }

    async def do(hands: Control) -> None:
        with pytest.raises(TargetError):
            await hands.load(replace(PHI, aliases=("phi",)))

    _, fake = told("foundry2", answers, do)

    assert fake.asked == ["/models/load/phi", "/models/loaded"]


def test_an_unload_right_after_a_stream_is_tried_again() -> None:
    message = "Unload failed: cannot unload model 'tiny-generic-cpu:1': 1 session(s) still using it"
    answers = {"/models/unload/tiny": Answer({"error": {"message": message}}, 500, then=Answer({"status": "unloaded"}))}

    _, fake = told("foundry2", answers, unload(TINY))

    assert fake.asked == ["/models/unload/tiny"] * 2


def test_an_unload_that_never_works_says_what_the_server_said() -> None:
    message = "Unload failed: cannot unload model 'tiny-generic-cpu:1': 1 session(s) still using it"

    assert "1 session(s) still using it" in error(
        "foundry2", {"/models/unload/tiny": Answer({"error": {"message": message}}, 500)}, unload(TINY)
    )


def test_what_is_known_not_to_be_downloaded_is_not_asked_for() -> None:
    message = error("foundry2", {}, load(replace(TINY, cached=False)))

    assert message == "tiny-generic-cpu:1: not downloaded: `loadbench models pull tiny-generic-cpu:1` fetches it"


@pytest.mark.parametrize("loaded", [[], ["other-generic-cpu:1"], Answer(b"", 500)])
def test_what_is_not_told_to_run_is_none(loaded: Any) -> None:
    assert told("foundry2", {"/models/loaded": loaded}, running(TINY))[0] is None


# -- Ollama, LM Studio -------------------------------------------------------------------------------------------------


def test_ollama_loads_with_an_empty_prompt_for_as_long_as_it_runs_and_unloads_with_none() -> None:
    model = ModelFacts("gemma3:latest")

    async def both(hands: Control) -> None:
        await hands.load(model)
        await hands.unload(model)

    _, fake = told("ollama", {"/api/generate": {"done": True, "done_reason": "load"}}, both)

    document = {"model": model.id, "prompt": "", "stream": False}
    assert fake.sent == [
        ("POST", "/api/generate", {**document, "keep_alive": -1}),
        ("POST", "/api/generate", {**document, "keep_alive": 0}),
    ]


def test_ollama_tells_the_device_it_loaded_a_model_to() -> None:
    rows = [{"name": "gemma3:latest", "size": 6591830464, "size_vram": 6591830464, "context_length": 4096}]

    ran, _ = told("ollama", {"/api/ps": {"models": rows}}, running(ModelFacts("gemma3:latest")))

    assert (ran.device, ran.context, ran.loaded) == ("GPU", 4096, True)


INSTANCES = {
    "models": [{"key": "m", "loaded_instances": [{"id": "m", "config": {"context_length": 9}}, {"id": "m:2"}]}]
}


def test_lm_studio_unloads_every_instance_of_a_model() -> None:
    _, fake = told("lmstudio", {"/api/v1/models": INSTANCES, "/api/v1/models/unload": {}}, unload(ModelFacts("m")))

    assert [document for _, _, document in fake.sent] == [{"instance_id": "m"}, {"instance_id": "m:2"}]


def test_lm_studio_loads_a_model_and_tells_its_context() -> None:
    answers = {"/api/v1/models": INSTANCES, "/api/v1/models/load": {"model_instance_id": "m"}}

    async def both(hands: Control) -> ModelFacts | None:
        await hands.load(ModelFacts("m"))
        return await hands.running(ModelFacts("m"))

    ran, fake = told("lmstudio", answers, both)

    assert fake.sent == [("POST", "/api/v1/models/load", {"model": "m"})]
    assert (ran.loaded, ran.context) == (True, 9)


def test_an_older_lm_studio_that_answers_any_path_with_200_is_told_from_one_that_loads() -> None:
    answers = {"/api/v1/models": {"error": "Unexpected endpoint"}, "/api/v1/models/load": {"error": "Unexpected"}}

    assert "0.4 and newer do it over HTTP" in error("lmstudio", answers, load(ModelFacts("m")))


# -- Why not -----------------------------------------------------------------------------------------------------------

REFUSALS = {
    "unknown": (
        404,
        "Model not found: No model matching 'x'",
        "x: the server does not know it .*`loadbench models list`",
    ),
    "not downloaded": (
        400,
        "Model not cached: Model must be downloaded before loading",
        "x: not downloaded .*models pull x",
    ),
    "C++'s memory": (500, "Load failed: std::bad_alloc", "x: not enough memory for its load .*unload other models"),
    "a bad allocation": (500, "bad allocation", "not enough memory"),
    "CUDA's memory": (500, "CUDA error: out of memory", "not enough memory"),
    "Ollama's memory": (
        500,
        "model requires more system memory (9.1 GiB) than is available (4.0 GiB)",
        "not enough memory",
    ),
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
    answer = Answer({"error": {"message": words}}, status)

    with pytest.raises(TargetError, match=line):
        told("foundry1", {"/models/load/x": answer}, load(ModelFacts("x")))


def test_a_load_that_takes_too_long_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadbench.server.vendor.LOAD_S", 0.05)

    message = error("foundry1", {"/models/load/x": Answer(delay_s=5.0)}, load(ModelFacts("x")))

    assert message.startswith("x: no load within 0.05 s: is the machine out of memory")


def test_a_server_that_is_gone_in_mid_load_is_told() -> None:
    broken = Answer(b"{", headers={"Content-Length": "100"}, cut=True)

    message = error("foundry1", {"/models/load/x": broken}, load(ModelFacts("x")))

    assert message.endswith("gave no answer to its load: is the server still running, or out of memory?")


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
