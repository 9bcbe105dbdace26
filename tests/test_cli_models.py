"""`loadbench models`: list, load, unload, pull, remove, register, verify; of a server, of the SDK, of neither."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from loadbench import telemetry
from loadbench.cli import download
from loadbench.cli import models as commands
from loadbench.cli.catalogue import QUESTION, TOKENS, cells, rows
from loadbench.cli.download import by_sdk, check_space, persist
from loadbench.errors import LoadbenchError, TargetError, how_to_install
from loadbench.serve import foundry
from loadbench.server import ModelFacts, NotReady
from tests.support.catalogues import PHI_CPU, PHI_GPU, Case, Service, holds, serving
from tests.support.command import KEY, invoke, models
from tests.support.sdk import FOREVER, FakeRuntime, install
from tests.support.terminals import on_terminal

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("place", "no_foundry")]

GB = 1_000_000_000
CPU, GPU = "phi-4-mini-instruct-generic-cpu:5", "phi-4-mini-instruct-cuda-gpu:5"
QWEN = ModelFacts("qwen2.5-0.5b-instruct-generic-cpu:4", ("qwen2.5-0.5b",), loaded=True, cached=True, device="CPU")
MEMORY = r"; the server's memory: [\d.]+ [MG]B, now [\d.]+ [MG]B"
LARGE = "Warning: two needs about 4.8 GB of memory (4.0 GB of weights and its context), but 3.0 GB"
NO_LOADING = r" \(openai\) offers no loading and unloading over HTTP: it holds what it was started with"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "SETTLE_S", 0.0)
    monkeypatch.setattr(download, "BACKOFF_S", 0.01)


@pytest.fixture
def ollama() -> Iterator[Service]:
    details = {"size": GB, "details": {"quantization_level": "Q4_K_M"}}
    with serving("ollama", rows={"one": details, "two": {"size": 4 * GB}}, loaded={"one"}) as service:
        yield service


@pytest.fixture
def foundry1() -> Iterator[Service]:
    with serving("foundry1", rows={CPU: {}, GPU: {}}) as service:
        yield service


OLLAMA = {
    "list: a pipe gets aligned columns and a dash for what is not told": Case(
        "list",
        out="alias  id   device  provider     size  licence  context  quantisation  cached  loaded\n"
        "-      one  CPU     -         1.00 GB  -              -  Q4_K_M        yes     yes\n"
        "-      two  -       -         4.00 GB  -              -  -             yes     no\n",
        err=r"/v1 \(ollama 0\.9\), as given$",
    ),
    "list: a choice that leaves nothing says so": Case("list --device npu", out="", err="none of the 2 models is so"),
    "load: with its time, its device and the memory": Case(
        "load two", out=rf"two: loaded in [\d.]+ m?s on CPU{MEMORY}\n", after={"loaded": {"one", "two"}}
    ),
    "load: one that is loaded is left alone": Case("load one", out="one: loaded already\n", never="POST /api/generate"),
    "load: a refusal is one line and the other models are loaded": Case(
        "load two three",
        1,
        err="^loadbench: two: not enough memory for its load",
        server={"rows": {"one": {}, "two": {}, "three": {}}, "refuses": {"two": "model requires more system memory"}},
        after={"loaded": {"one", "three"}},
    ),
    "load: a program reads a refusal": Case(
        "load two --json",
        1,
        out=r'\{"model":"two","error":".*broken file.*"\}\n',
        server={"refuses": {"two": "broken file"}},
    ),
    "load: an unknown model is one line and nothing is loaded": Case("load two tow", 1, after={"loaded": {"one"}}),
    "unload: with the memory": Case("unload one", out=rf"one: unloaded{MEMORY}\n", after={"loaded": set()}),
    "unload: what is not loaded needs none": Case("unload two", out="two: not loaded\n", never="POST /api/generate"),
    "unload: all that are loaded and no others": Case(
        "unload --all --json",
        out=r'\{"model":"one",.*"already":false.*\n\{"model":"two",.*"already":false.*\n',
        server={"rows": {"one": {}, "two": {}, "three": {}}, "loaded": {"one", "two"}},
        after={"loaded": set()},
    ),
    "unload: where nothing is loaded all is nothing": Case(
        "unload --all", out="", err=r"no model is loaded at http\S+/v1$", server={"loaded": set()}
    ),
    "unload: neither names nor all": Case("unload", 2, out="", err="all with --all"),
    "unload: names and all": Case("unload one --all", 2, out="", err="all with --all"),
    "unload: what is refused is exit code 1": Case("unload --all", 1, server={"keeps": {"one"}}),
    "pull: what is there already is not fetched": Case("pull two", out="two: there already\n", never="POST /api/pull"),
    "remove: with nobody to ask and without --yes nothing goes": Case("remove two", 2, err="--yes"),
    "remove: with --yes": Case("remove two --yes", out="two: removed\n"),
    "verify: a model that answers no more fails, and the others are asked": Case(
        "verify -m one,two",
        3,
        out=r"(?s).*FAIL  one answers: http_4xx: HTTP 400: Model not loaded\n.*ok    two answers: .*"
        r"1 of 4 checks failed\n",
        server={"broken": {"one"}},
    ),
    "verify: a model that is not listed is not asked": Case(
        "verify -m none,one", 3, out=r"(?s)FAIL  none is listed: .* has no model 'none'.*"
    ),
    "verify: a model that does not load fails": Case(
        "verify -m two",
        3,
        out=r"(?s).*FAIL  two answers: it does not load: two: not enough memory for its load.*",
        server={"refuses": {"two": "out of memory"}},
    ),
    "verify: reasoning alone is an answer too": Case(
        "verify", out=r"(?s).*'Let me see'.*", server={"reasoning": ("Let me", " see"), "text": ()}
    ),
    "verify: words of a server cannot move the cursor": Case("verify", server={"text": ("Tick\x1b[2J\r", "tock")}),
    "verify: a scenario that is not there": Case("verify gone.toml", 2, out=""),
}


@pytest.mark.parametrize("case", OLLAMA.values(), ids=OLLAMA)
def test_a_server_that_loads_and_downloads(case: Case, ollama: Service) -> None:
    holds(case, ollama, "models")


FOUNDRY = {
    "one variant is loaded by its device": Case(
        "load phi-4-mini --device gpu", out=r".* on GPU \(CUDAExecutionProvider\).*\n", after={"loaded": {GPU}}
    ),
    "or by its execution provider": Case("load phi-4-mini --ep cpu", after={"loaded": {CPU}}),
    "downloads are refused where it was named": Case(
        "pull phi-4-mini", 1, err="downloads through its SDK alone: leave out -e"
    ),
    "a variant that is not there fails and those that are answer": Case(
        "verify -m phi-4-mini --device gpu,npu",
        3,
        out=rf"(?s).*FAIL  phi-4-mini is listed: phi-4-mini is for CPU, GPU, not for NPU\n"
        rf".*ok    phi-4-mini is listed: as {GPU}\n.*ok    phi-4-mini answers: .*",
    ),
    "a server that holds nothing fails": Case("verify", 3, out="(?s)FAIL  auto is listed: no model is loaded at .*"),
    "a model is left as it was found": Case(f"verify -m {CPU}", after={"loaded": set()}),
}


@pytest.mark.parametrize("case", FOUNDRY.values(), ids=FOUNDRY)
def test_a_foundry_local_service(case: Case, foundry1: Service) -> None:
    holds(case, foundry1, "models")


@pytest.mark.parametrize("words", ["load m", "unload --all"])
def test_a_server_that_holds_what_it_was_started_with_is_one_line(words: str) -> None:
    with serving("openai", rows={"m": {}}) as service:
        holds(Case(words, 1, out="", err=f"^loadbench: {service.url}/v1{NO_LOADING}$"), service, "models")


# -- the list


def test_json_is_one_array_of_all_facts_and_nothing_else(ollama: Service) -> None:
    done = models("list", "-e", ollama.url, "--json")
    listed = json.loads(done.stdout)

    assert done.stderr == ""
    assert [one["id"] for one in listed] == ["one", "two"]
    assert set(listed[0]) == set(ModelFacts.__slots__)
    assert (listed[1]["size_bytes"], listed[1]["licence"]) == (4 * GB, None)


def test_loaded_models_come_first_then_cached_ones_each_by_alias() -> None:
    other = ModelFacts("a:1", aliases=("aaa",), cached=False)
    split, untold, loaded = ModelFacts("half", device="GPU+CPU"), ModelFacts("x"), ModelFacts("loaded", loaded=True)

    assert rows([PHI_GPU, other, PHI_CPU, QWEN]) == [QWEN, PHI_CPU, other, PHI_GPU]
    assert rows([QWEN, PHI_GPU, split, untold], devices=["gpu"]) == [split, PHI_GPU]
    assert rows([PHI_GPU, PHI_CPU, loaded, untold], cached=True) == [loaded, PHI_CPU], "a loaded one is on the disk"


def test_a_row_tells_the_provider_by_its_short_name_and_cannot_move_the_cursor() -> None:
    assert cells(PHI_GPU)[:7] == [
        *("phi-4-mini", "Phi-4-mini-instruct-cuda-gpu:5", "GPU", "CUDA", "3.70 GB", "MIT", "-")
    ]
    assert cells(ModelFacts("\x1b[2Jevil"))[1] == "[2Jevil"


def test_a_person_sees_no_column_that_no_model_fills_but_its_name(ollama: Service) -> None:
    code, screen = on_terminal("models", "list", "-e", ollama.url, columns=80)

    assert code == 0
    assert "not told: alias, provider, licence, context" in screen
    assert max(len(line) for line in screen.splitlines()) <= 80


def test_a_person_reads_every_id_whole_on_a_narrow_terminal() -> None:
    with serving("openai", rows={"a-model-with-quite-a-long-name-that-goes-on-and-on": {}}) as service:
        _, screen = on_terminal("models", "list", "-e", service.url, columns=40)

    assert "a-model-with-quite-a-long-name-that-goes-on-and-on" in "".join(screen.split())


# -- whose models


def test_without_an_address_the_service_of_the_environment_is_asked_with_the_key_that_is_told(ollama: Service) -> None:
    done = models("load", "two", FOUNDRY_LOCAL_ENDPOINT=ollama.url, API_KEY=KEY)

    assert done.stderr.startswith(f"{ollama.url}/v1 (ollama 0.9), FOUNDRY_LOCAL_ENDPOINT, key from API_KEY\n")
    assert ollama.keys == {f"Bearer {KEY}"}


def test_the_variable_that_is_named_goes_before_the_workshops(ollama: Service) -> None:
    models("list", "-e", ollama.url, "--api-key-env", "MINE", API_KEY="other", MINE=KEY)

    assert ollama.keys == {f"Bearer {KEY}"}


def test_without_a_server_the_sdk_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    caches = install(monkeypatch, FakeRuntime([PHI_GPU, QWEN]))
    done = models("list", "--cache-dir", tmp_path / "mine")

    assert [line.split()[0] for line in done.stdout.splitlines()] == ["alias", "qwen2.5-0.5b", "phi-4-mini"]
    assert "Foundry Local's SDK (foundry2 2.2.1), cache " in done.stderr
    assert caches == [tmp_path / "mine"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("list", ("no server was named or found", ".[foundry]", "-e URL")),
        ("load phi-4-mini", (how_to_install("foundry"),)),
        ("verify -e 127.0.0.1:1", ("connection refused",)),
    ],
)
def test_without_server_and_sdk_one_line_says_what_to_do(words: str, said: tuple[str, ...]) -> None:
    done = models(*words.split())

    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert [one for one in said if one not in done.stderr] == []


def test_where_the_sdk_is_installed_one_line_says_how_to_start_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foundry, "available", lambda: None)
    done = models("load", "phi-4-mini")

    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "`loadbench serve foundry -m NAME` starts one" in done.stderr


@pytest.mark.parametrize(
    ("facts", "code", "said"),
    [([QWEN], 0, "is this machine offline?"), ([], 1, "loadbench models register PATH")],
)
def test_an_offline_catalogue_is_told_and_what_is_cached_is_listed(
    facts: list[ModelFacts], code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, FakeRuntime(facts))
    done = models("list")

    assert done.exit_code == code
    assert said in done.stderr
    assert ("qwen2.5-0.5b" in done.stdout) == bool(facts)


# -- load


def test_json_tells_time_device_and_memory(ollama: Service) -> None:
    ollama.on_gpu = {"two"}
    said = json.loads(models("load", "two", "-e", ollama.url, "--json").stdout)

    assert (said["model"], said["action"], said["already"], said["device"]) == ("two", "load", False, "GPU")
    assert said["load_s"] >= 0
    assert min(said["memory_before_bytes"], said["memory_after_bytes"]) > 1_000_000


def test_a_service_that_chooses_another_variant_is_refused_and_the_choice_undone() -> None:
    with serving("foundry2", rows={CPU: {}, GPU: {}}, aliases={"phi-4-mini": GPU}) as service:
        done = models("load", "phi-4-mini", "--device", "cpu", "-e", service.url)

    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == (
        f"loadbench: {CPU}: the service loads {GPU} for that alias: measure that one with -m, or leave out --device "
        "and --ep"
    )
    assert service.loaded == set()


@pytest.mark.parametrize(("free", "warned"), [(3 * GB, True), (8 * GB, False)])
def test_a_model_larger_than_the_free_memory_is_warned_of_and_loaded(
    ollama: Service, free: int, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "free_memory_bytes", lambda: free)
    done = models("load", "two", "-e", ollama.url)

    assert (done.exit_code, LARGE in done.stderr) == (0, warned)


# -- pull, from a server


def layer(completed: int) -> dict[str, Any]:
    return {"status": "pulling", "digest": "a", "total": 1000, "completed": completed}


NEW = "new:1b"
WHOLE = [{"status": "pulling manifest"}, *map(layer, range(0, 1001, 50)), {"status": "success"}]


def test_a_pipe_gets_a_line_each_ten_per_cent(ollama: Service) -> None:
    ollama.pulls = [WHOLE]
    done = models("pull", NEW, "-e", ollama.url)
    said = [line.split(",")[0] for line in done.stderr.splitlines()[1:]]

    assert done.exit_code == 0
    assert said == ["new:1b: pulling manifest", *(f"new:1b: {percent} %" for percent in range(0, 101, 10))]
    assert done.stdout.startswith("new:1b: pulled in ")


def test_json_lines_tell_the_progress_and_the_end(ollama: Service) -> None:
    ollama.pulls = [WHOLE]
    done = models("pull", NEW, "-e", ollama.url, "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]

    assert done.stderr == ""
    assert {one["model"] for one in events} == {NEW}
    assert [one["percent"] for one in events if one["event"] == "progress"][-1] == 100.0
    assert (events[-1]["event"], events[-1]["already"]) == ("pulled", False)


def test_a_download_that_breaks_off_is_told_and_tried_again(ollama: Service) -> None:
    ollama.pulls = [[layer(300)], WHOLE]
    done = models("pull", NEW, "-e", ollama.url)

    assert done.exit_code == 0
    assert "the download broke off before its end; trying again in 0.01 s (2 of 4)" in done.stderr


def test_one_model_that_is_not_there_leaves_the_others(ollama: Service) -> None:
    ollama.pulls = [[{"error": "pull model manifest: file does not exist"}], WHOLE]
    done = models("pull", "none", NEW, "-e", ollama.url)

    assert done.exit_code == 1
    assert "loadbench: none: there is no such model" in done.stderr
    assert NEW in ollama.rows


def test_a_person_sees_a_bar_until_it_is_there(ollama: Service) -> None:
    ollama.pulls = [WHOLE]
    code, screen = on_terminal("models", "pull", NEW, "-e", ollama.url)

    assert code == 0
    assert "100%" in screen
    assert screen.rstrip().splitlines()[-1].startswith("new:1b: pulled in ")


def test_ctrl_c_ends_a_download(ollama: Service) -> None:
    ollama.pulls = [[layer(300), {"hold": True}]]
    code, screen = on_terminal("models", "pull", NEW, "-e", ollama.url, until="30%")

    assert code == 130
    assert "interrupted" in screen
    assert NEW not in ollama.rows


def test_no_name_at_all_is_a_usage_error() -> None:
    assert invoke("models", "pull").exit_code == 2


# -- further tries


class Shown:
    """What a person is shown of a download."""

    def __init__(self) -> None:
        self.percents: list[float | None] = []
        self.notes: list[str] = []

    def at(self, percent: float | None, words: str) -> None:
        self.percents.append(percent)

    def note(self, text: str) -> None:
        self.notes.append(text)


BREAKS, WORKS, REFUSES = NotReady("connection lost"), None, TargetError("no such model")


@pytest.mark.parametrize(
    ("tries", "pauses", "error"),
    [
        ([BREAKS, BREAKS, BREAKS, WORKS], [0.01, 0.02, 0.04], None),
        ([BREAKS] * 4, [0.01, 0.02, 0.04], "connection lost; given up after 4 tries: try later"),
        ([REFUSES], [], "no such model"),
        ([BREAKS, WORKS], [0.01], None),
    ],
    ids=["pauses grow", "four tries are all", "what no try can mend is not tried again", "told"],
)
def test_what_breaks_off_is_tried_again_after_a_growing_pause(
    tries: list[Exception | None], pauses: list[float], error: str | None
) -> None:
    shown, slept, left = Shown(), [], list(tries)

    async def fetch(moved: Callable[[float | None, str], None]) -> None:
        moved(40.0, "")
        if (why := left.pop(0)) is not None:
            raise why

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    raised = None
    try:
        anyio.run(lambda: persist(fetch, shown, sleep=sleep))  # type: ignore[arg-type]
    except LoadbenchError as caught:
        raised = str(caught)

    assert (raised, slept) == (error, pauses)
    assert shown.notes[:1] == ["connection lost; trying again in 0.01 s (2 of 4)"][: len(pauses)]
    assert shown.percents == [40.0] * len(tries)


# -- pull, by the SDK


def test_device_and_provider_choose_the_variant_and_its_megabytes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime([replace(PHI_CPU, cached=False), PHI_GPU], downloads=[[0.0, 50.0, 100.0]])
    install(monkeypatch, runtime)
    done = models("pull", "phi-4-mini", "--device", "gpu", "--ep", "cuda")

    assert done.exit_code == 0
    assert "cuda-gpu:5: 50 % (1.85 GB of 3.70 GB)" in done.stderr
    assert [one.id for one in runtime.facts if one.cached] == [PHI_GPU.id]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("phi-4-mini --device npu", 1, "(?i)npu"),
        (PHI_GPU.id, 1, f"^loadbench: {PHI_GPU.id}: no network$"),
        ("phi-4-mini --device cpu --json", 0, '"already":true'),
    ],
    ids=["no such variant", "what cannot be fetched is one line", "what is cached is not fetched"],
)
def test_the_sdk_fetches_what_it_can(words: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRuntime([PHI_CPU, PHI_GPU], downloads=[[0.0, TargetError("no network")]]))
    done = models("pull", *words.split())

    assert done.exit_code == code
    assert re.search(said, done.output, re.MULTILINE)


def test_a_service_that_was_found_leaves_downloads_to_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRuntime([PHI_GPU], downloads=[[100.0]]))
    with serving("foundry2") as service:
        done = models("pull", PHI_GPU.id, FOUNDRY_LOCAL_ENDPOINT=service.url)

    assert done.exit_code == 0


def test_a_cancelled_download_is_told_to_the_sdk_and_waited_for() -> None:
    runtime = FakeRuntime([PHI_GPU], downloads=[[10.0, FOREVER]])

    async def run() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(by_sdk, runtime, PHI_GPU.id, Shown())
            await anyio.to_thread.run_sync(runtime.waiting.wait)
            group.cancel_scope.cancel()

    anyio.run(run)

    assert runtime.cancelled == [PHI_GPU.id]


def test_a_model_larger_than_the_free_disk_is_refused_before_a_byte(tmp_path: Path) -> None:
    with pytest.raises(LoadbenchError, match=r"needs 3\.70 GB, but the disk of .* has 1\.00 GB free.*--cache-dir"):
        check_space(PHI_GPU, tmp_path / "not" / "yet", free=lambda folder: GB)
    check_space(ModelFacts("one whose size nobody told"), tmp_path, free=lambda folder: 0)


def test_lines_tell_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 0.0, 30.0, 100.0])
    lines = download.Shown(PHI_GPU, as_json=False, now_s=lambda: next(now))
    for percent in (0.0, 25.0, 50.0):
        lines.at(percent, "")

    assert capsys.readouterr().err.splitlines()[1].endswith("25 % (925 MB of 3.70 GB), about 1:30 left")


def test_json_lines_tell_each_per_cent_once(capsys: pytest.CaptureFixture[str]) -> None:
    shown = download.Shown(PHI_GPU, as_json=True)
    for percent in (1.0, 1.4, 1.9, 2.0):
        shown.at(percent, "")

    assert len(capsys.readouterr().out.splitlines()) == 2


# -- remove and register


@pytest.mark.parametrize(("answer", "left"), [("y\n", ["one"]), ("n\n", ["one", "two"])])
def test_a_person_is_asked(ollama: Service, answer: str, left: list[str]) -> None:
    _, screen = on_terminal("models", "remove", "two", "-e", ollama.url, typed=answer)

    assert "Remove two (4.00 GB)? [y/N]" in screen
    assert sorted(ollama.rows) == left


@pytest.mark.parametrize("found", [False, True], ids=["no service", "a service that deletes nothing"])
def test_the_sdk_removes_the_variant_that_is_cached(found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime([PHI_GPU, PHI_CPU])
    install(monkeypatch, runtime)
    with serving("foundry2") as service:
        variables = {"FOUNDRY_LOCAL_ENDPOINT": service.url} if found else {}
        done = models("remove", "phi-4-mini", "--yes", "--json", **variables)

    assert json.loads(done.stdout) == {"model": PHI_CPU.id, "action": "remove", "removed": True}
    assert runtime.removed == [PHI_CPU.id]


@pytest.mark.parametrize("thoughts", [(), ("<think>", "</think>")])
def test_a_folder_is_registered_and_how_to_serve_it_told(
    thoughts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "genai_config.json").write_text("{}")
    runtime = FakeRuntime([])
    install(monkeypatch, runtime)
    done = models("register", "mine", *(("--reasoning", *thoughts) if thoughts else ()))

    assert done.stdout == "mine:1: registered; serve it with: loadbench serve foundry -m mine\n"
    assert runtime.registered == [(place / "mine", None)]
    assert [one for one in runtime.thoughts if one] == ([thoughts] if thoughts else [])


@pytest.mark.parametrize(("made", "why"), [(False, "no such folder"), (True, "no genai_config.json in it")])
def test_what_is_no_model_is_not_registered(place: Path, made: bool, why: str) -> None:
    if made:
        (place / "mine").mkdir()
    done = models("register", "mine")

    assert done.exit_code == 2
    assert why in done.stderr


# -- verify: the workshop's checklist, with an exit code that a script can go by


def test_models_that_are_there_and_answer_are_exit_code_0(ollama: Service) -> None:
    done = models("verify", "-e", ollama.url, "-m", "one,two")

    assert done.exit_code == 0
    assert [re.sub(r"[\d.]+ m?s", "T", line) for line in done.stdout.splitlines()] == [
        "ok    one is listed: as one",
        "ok    one answers: TTFT T: 'Tick tock.'",
        "ok    two is listed: as two",
        "ok    two answers: loaded in T, TTFT T: 'Tick tock.'",
        "all 4 checks are ok",
    ]


def test_a_short_answer_is_asked_for(ollama: Service) -> None:
    models("verify", "-e", ollama.url, BENCH_MAX_TOKENS="500")

    [asked] = ollama.chats
    assert (asked["messages"][0]["content"], asked["max_tokens"]) == (QUESTION, TOKENS)


@pytest.mark.parametrize(
    ("scenario", "words", "code", "checks"),
    [
        ('endpoint = "URL"\nmodels = ["two", "gone"]\nrequest_rate = [0.5]\n', "", 3, ["two +", "two +", "gone -"]),
        ('models = "models.json"\n', "-e URL", 3, ["one +", "one +", "gone -"]),
        ('endpoint = "http://127.0.0.1:1"\nmodels = ["gone"]\n', "-e URL -m one", 0, ["one +", "one +"]),
    ],
    ids=["its server and models", "models of a models.json", "options go before it"],
)
def test_a_scenario_says_which_models(
    place: Path, ollama: Service, scenario: str, words: str, code: int, checks: list[str]
) -> None:
    (place / "models.json").write_text('{"one": {"size_mb": 5}, "gone": {}}')
    (place / "s.toml").write_text(scenario.replace("URL", ollama.url))
    done = models("verify", "s.toml", *words.replace("URL", ollama.url).split(), "--json")

    assert done.exit_code == code
    assert [f"{one['model']} {'+' if one['ok'] else '-'}" for one in json.loads(done.stdout)["checks"]] == checks


def test_a_scenarios_key_and_headers_are_sent_and_its_variable_told(place: Path, ollama: Service) -> None:
    text = f'endpoint = "{ollama.url}"\nmodels = ["one"]\napi_key_env = "TEAM_KEY"\n[headers]\nX-Tenant = "blue"\n'
    (place / "s.toml").write_text(text)
    done = models("verify", "s.toml", TEAM_KEY=KEY)

    assert (ollama.headers[0]["authorization"], ollama.headers[0]["x-tenant"]) == (f"Bearer {KEY}", "blue")
    assert "as given, key from TEAM_KEY" in done.stderr
    assert KEY not in done.output


def test_json_is_one_document_of_all_checks_and_nothing_else(ollama: Service) -> None:
    well = json.loads(models("verify", "-e", ollama.url, "--json").stdout)
    ollama.broken = {"one"}
    done = models("verify", "-e", ollama.url, "--json")
    told = json.loads(done.stdout)

    assert well["ok"] is True
    assert (done.exit_code, done.stderr) == (3, "")
    assert (told["ok"], told["server"]) == (False, f"{ollama.url}/v1 (ollama 0.9), as given")
    assert told["checks"] == [
        {"model": "one", "check": "is listed", "ok": True, "text": "as one"},
        {"model": "one", "check": "answers", "ok": False, "text": "http_4xx: HTTP 400: Model not loaded"},
    ]
