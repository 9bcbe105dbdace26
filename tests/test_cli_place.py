"""Where the server is that a command asks: where it is looked for first, what is started, and what is known of it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from loadbench.errors import LoadbenchError, TargetError, UsageError
from loadbench.runner import connect
from loadbench.runner.connect import Location, Reached, RuntimeControl
from loadbench.runner.job import Job, Limits, Server
from loadbench.runner.turn import Origin
from loadbench.scenario import Scenario
from loadbench.serve import foundry, llama, simulator
from loadbench.serve.llama import LlamaServer
from loadbench.serve.simulator import Simulator
from loadbench.server import ModelFacts, lookup
from tests.support.catalogues import PHI_CPU, PHI_GPU, ServedRuntime, Service, serving
from tests.support.gateways import PAGE, Answered, gateway
from tests.support.sdk import install

pytestmark = pytest.mark.usefixtures("place", "no_foundry")

NAMED = "http://named:1/v1"
SIZE_BYTES = 93_000_000


@dataclass
class World:
    """All places at once, and what was started of them.

    Attributes:
        slots: Of each embedded model that was started.
    """

    home: Path
    service: str
    runtime: ServedRuntime
    started: list[str]
    slots: list[int]

    def find(
        self,
        endpoint: str | None = None,
        concurrency: list[int] | None = None,
        *,
        simulate: bool = False,
        dry_run: bool = False,
        resume: Path | None = None,
        cache_dir: Path | None = None,
        api_key_env: str | None = None,
    ) -> Location:
        """The server that is found; what was started for it has ended."""
        with ExitStack() as stack:
            job = Job(
                scenario=Scenario(endpoint=endpoint, concurrency=concurrency, api_key_env=api_key_env),
                server=Server(simulate=simulate, cache_dir=cache_dir),
                limits=Limits(dry_run=dry_run),
                resume=resume,
            )
            return connect.locate(job, stack, lambda _: None)

    def began(self, how: str, **server: Any) -> Path:
        """The folder of a run that measured such a server."""
        folder = self.home / "run"
        folder.mkdir()
        told = {"schema": 1, "levels": [], "target_found": how, "target": server}
        (folder / "run.json").write_text(json.dumps(told))
        return folder


@pytest.fixture
def world(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A simulator, a service that the environment names and one in its daemon.json, the SDK, the embedded model."""
    runtime = ServedRuntime([PHI_CPU, PHI_GPU], service=Service("foundry2", url="http://127.0.0.1:5273"))
    gguf = place / "model.gguf"
    with gguf.open("wb") as file:
        file.truncate(SIZE_BYTES)
    started: list[str] = []
    slots_seen: list[int] = []

    @contextmanager
    def simulated(**_: object) -> Iterator[Simulator]:
        started.append("simulator")
        yield Simulator("http://127.0.0.1:1/v1", 11, "simulator")

    @contextmanager
    def embedded(*, slots: int, progress: object) -> Iterator[LlamaServer]:
        started.append("embedded")
        slots_seen.append(slots)
        yield LlamaServer("http://127.0.0.1:2/v1", 12, llama.MODEL, slots, 2, str(gguf), 2048)

    install(monkeypatch, runtime)
    monkeypatch.setattr(simulator, "start", simulated)
    monkeypatch.setattr(llama, "available", lambda: None)
    monkeypatch.setattr(llama, "fetch_model", lambda note, *, fetching: gguf)
    monkeypatch.setattr(llama, "start", embedded)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        service = f"http://127.0.0.1:{listening.getsockname()[1]}"
        (place / ".foundry").mkdir()
        (place / ".foundry" / "daemon.json").write_text(json.dumps({"webUrls": [service]}))
        cache = place / ".loadbench" / "cache" / "models"
        cache.mkdir(parents=True)
        (cache / "foundry.local.modelinfo.json").write_text('{"models": [{"id": "m:1"}]}')
        yield World(place, service, runtime, started, slots_seen)


def without_service(world: World) -> None:
    (world.home / ".foundry" / "daemon.json").unlink()


def without_models_of_the_sdk(world: World) -> None:
    (world.home / ".loadbench" / "cache" / "models" / "foundry.local.modelinfo.json").unlink()


# -- the order


ORDER = ("the simulator", "as given", "FOUNDRY_LOCAL_ENDPOINT", "~/.foundry/daemon.json", connect.SDK, "the embedded")


@pytest.mark.parametrize("strongest", range(len(ORDER)))
def test_the_first_of_these_that_is_there_is_taken(
    world: World, strongest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if strongest <= 2:
        monkeypatch.setenv("FOUNDRY_LOCAL_ENDPOINT", "http://environment:1")
    if strongest > 3:
        without_service(world)
    if strongest > 4:
        without_models_of_the_sdk(world)
    found = world.find(NAMED if strongest <= 1 else None, simulate=strongest == 0)

    assert found.how.startswith(ORDER[strongest])


def test_without_the_sdk_its_models_are_of_no_use(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without_service(world)
    monkeypatch.setattr(foundry, "available", lambda: "not installed")

    assert world.find().how.startswith("the embedded")


def test_models_of_the_sdk_are_looked_for_in_the_folder_that_is_given(world: World) -> None:
    without_service(world)
    (world.home / "mine").mkdir()

    assert world.find(cache_dir=world.home / "mine").how.startswith("the embedded")


# -- servers that nobody named


def listening(monkeypatch: pytest.MonkeyPatch, *services: Service) -> None:
    """Make their ports those where servers usually listen."""
    monkeypatch.setattr(lookup, "PORTS", {int(one.url.rpartition(":")[2]): one.kind for one in services})


def test_the_one_server_that_listens_on_this_machine_is_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without_service(world)
    with serving("ollama", rows={"m": {}}) as ollama:
        listening(monkeypatch, ollama)
        found = world.find()

    assert found == Location(f"{ollama.url}/v1", "found on this machine")


def test_of_several_servers_none_is_taken_and_each_is_named_as_one_would_type_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_service(world)
    with serving("ollama", rows={"m": {}}) as ollama, serving("openai", rows={"n": {}}) as other:
        listening(monkeypatch, ollama, other)
        with pytest.raises(UsageError) as caught:
            world.find()

    assert str(caught.value) == (
        f"2 servers are here: name the one that is meant: -e {ollama.url}/v1 (ollama 0.9) or -e {other.url}/v1 (openai)"
    )


def test_a_foundry_service_is_one_of_several(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving("ollama", rows={"m": {}}) as ollama:
        listening(monkeypatch, ollama)
        with pytest.raises(UsageError, match=rf"-e {world.service}/v1 \(Foundry Local.* or -e {ollama.url}"):
            world.find()


def test_what_the_environment_names_is_taken_whatever_else_listens(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOUNDRY_LOCAL_ENDPOINT", NAMED)
    with serving("ollama", rows={"m": {}}) as ollama:
        listening(monkeypatch, ollama)

        assert world.find().endpoint == NAMED


@pytest.mark.parametrize(
    ("variables", "endpoint", "key"),
    [
        ({"OPENAI_BASE_URL": "http://gpu-box:8000/v1", "OPENAI_API_KEY": "sesame"}, "http://gpu-box:8000/v1", "sesame"),
        ({"OPENAI_BASE_URL": "http://gpu-box:8000/v1", "API_KEY": "other"}, "http://gpu-box:8000/v1", "other"),
        # Its key goes nowhere else: not to a server that comes before it, nor to one that is named by -e
        (
            {"OPENAI_BASE_URL": "http://gpu-box:8000/v1", "OPENAI_API_KEY": "k", "FOUNDRY_LOCAL_ENDPOINT": NAMED},
            NAMED,
            None,
        ),
    ],
)
def test_openai_s_variables_name_a_server_and_the_key_of_that_one_alone(
    world: World, variables: dict[str, str], endpoint: str, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = world.find()

    assert (found.endpoint, connect.key(None, None, found.how)) == (endpoint, key)
    assert connect.key(None, None, "as given") == variables.get("API_KEY")


def test_a_key_of_openai_s_alone_names_no_server(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")

    assert world.find().endpoint == f"{world.service}/v1"
    assert connect.key(None, None, lookup.HOW) is None


def test_an_ollama_is_looked_for_where_its_own_variable_says(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without_service(world)
    with serving("ollama", rows={"m": {}}) as ollama:
        monkeypatch.setenv("OLLAMA_HOST", ollama.url.replace("http://127.0.0.1", "0.0.0.0"))
        found = world.find()

    assert found == Location(f"{ollama.url}/v1", "found on this machine")


def test_a_web_server_of_another_kind_is_passed_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without_service(world)
    without_models_of_the_sdk(world)
    with gateway(lambda asked: Answered(404, PAGE)) as web:
        monkeypatch.setattr(lookup, "PORTS", {int(web.url.rpartition(":")[2]): "web"})

        assert world.find().how.startswith("the embedded")


@pytest.mark.parametrize("named", [False, True])
def test_a_server_that_wants_a_key_is_taken_where_one_is_named_for_it(
    world: World, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_service(world)
    without_models_of_the_sdk(world)
    monkeypatch.setenv("API_KEY", "sesame")
    with gateway(lambda asked: Answered(401, {"error": "no"})) as locked:
        monkeypatch.setattr(lookup, "PORTS", {int(locked.url.rpartition(":")[2]): "vLLM"})
        found = world.find(api_key_env="API_KEY" if named else None)

    assert (found.endpoint == f"{locked.url}/v1") == named


def test_a_server_that_was_just_found_gets_no_key_that_nobody_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "sesame")

    assert connect.key(None, None, "as given") == "sesame"
    assert connect.key(None, None, lookup.HOW) is None
    assert connect.key_source(None, None, lookup.HOW) is None
    assert connect.key("API_KEY", None, lookup.HOW) == "sesame"


def test_a_server_that_is_named_is_not_asked_yet(world: World) -> None:
    assert world.find(NAMED) == Location(NAMED, "as given")


@pytest.mark.parametrize(("concurrency", "slots"), [([1], 4), ([2, 8], 8), (None, 8), ([1, 64], 16)])
def test_the_embedded_model_gets_a_slot_a_stream_within_reason(
    world: World, concurrency: list[int] | None, slots: int
) -> None:
    without_service(world)
    without_models_of_the_sdk(world)
    world.find(concurrency=concurrency)

    assert world.slots == [slots]


def test_what_the_embedded_model_does_not_tell_of_itself_is_known_as_we_start_it(world: World) -> None:
    without_service(world)
    without_models_of_the_sdk(world)
    found = world.find()

    [facts] = found.models
    assert (facts.id, facts.device, facts.licence, facts.size_bytes) == (llama.MODEL, "CPU", "Apache-2.0", SIZE_BYTES)
    assert found.pid == 12
    assert found.load_s is not None


# -- runs that go on


@pytest.mark.parametrize(("kind", "what"), [("simulator", "the simulator"), ("embedded", "the embedded model")])
def test_a_run_of_what_was_started_goes_on_with_it_whatever_else_is_there(world: World, kind: str, what: str) -> None:
    folder = world.began(f"{what}, started for this run", kind="simulator" if kind == "simulator" else "llama.cpp")
    world.find(resume=folder)

    assert world.started == [kind]


def test_a_run_of_the_sdk_goes_on_with_it_whatever_else_is_there(world: World) -> None:
    folder = world.began(f"{connect.SDK}, started for this run", kind="foundry2")

    assert world.find(resume=folder).runtime is world.runtime


@pytest.mark.parametrize("gone", ["the SDK", "its models"])
def test_a_run_of_the_sdk_is_not_continued_with_another_server(
    world: World, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = world.began(f"{connect.SDK}, started for this run", kind="foundry2")
    if gone == "the SDK":
        monkeypatch.setattr(foundry, "available", lambda: "it is not installed")
    else:
        without_models_of_the_sdk(world)
    with pytest.raises(LoadbenchError, match=r"which cannot start now: (it is not installed|no model is in )"):
        world.find(resume=folder)

    assert world.started == []


def test_a_run_of_a_server_goes_on_where_that_was(world: World) -> None:
    folder = world.began("as given", kind="vllm", base_url="http://gpu-box:8000/v1")

    assert world.find(resume=folder) == Location("http://gpu-box:8000/v1", "as the run began")


def test_a_run_of_a_foundry_service_goes_on_where_that_is_now(world: World) -> None:
    folder = world.began("~/.foundry/daemon.json", kind="foundry1", base_url="http://127.0.0.1:7/v1")

    assert world.find(resume=folder).endpoint == world.service + "/v1"


# -- dry runs


def test_a_dry_run_starts_neither_simulator_nor_embedded_model(world: World) -> None:
    simulated = world.find(simulate=True, dry_run=True)
    without_service(world)
    without_models_of_the_sdk(world)
    embedded = world.find(dry_run=True)

    assert (simulated.endpoint, embedded.endpoint, world.started) == (None, None, [])
    assert [one.models[0].id for one in (simulated, embedded)] == [simulator.MODEL, llama.MODEL]


def test_a_dry_run_starts_the_sdk_for_its_list_alone(world: World) -> None:
    without_service(world)
    found = world.find(dry_run=True)

    assert found.endpoint is None
    assert world.runtime.told == []
    assert [facts.id for facts in reach(found).server.models] == [PHI_CPU.id, PHI_GPU.id]


def test_a_dry_run_of_the_sdk_says_whose_models_it_looked_at(world: World) -> None:
    without_service(world)
    reached = reach(world.find(dry_run=True))
    with pytest.raises(TargetError, match=f"nothing to measure at {connect.SDK}: no model is for NPU"):
        reached.choose(Scenario(device=["npu"]))

    assert world.runtime.told == []


# -- who answers


def reach(location: Location, scenario: Scenario | None = None) -> Reached:
    async def look() -> Reached:
        async with connect.reached(location, Job(scenario=scenario or Scenario()), lambda _: None) as reached:
            return reached

    return anyio.run(look)


def test_the_sdk_is_asked_itself_and_its_web_service_measured(world: World) -> None:
    without_service(world)
    reached = reach(world.find())

    assert (reached.server.base_url, reached.server.kind) == ("http://127.0.0.1:5273/v1", "foundry2")
    assert (reached.server.pid, reached.server.version) == (world.runtime.pid, "2.2.1")
    assert isinstance(reached.control, RuntimeControl)
    assert reached.scrape is None


def test_what_is_known_of_a_model_beside_its_server_fills_its_facts_up() -> None:
    with serving("openai", rows={"m": {"device": "GPU"}}) as service:
        known = ModelFacts("m", size_bytes=7, device="CPU")
        server = reach(Location(service.url, "", (known, ModelFacts("other")), pid=9)).server

    assert server.models == (ModelFacts("m", size_bytes=7, device="GPU"),)
    assert server.pid == 9


def test_the_pid_that_a_server_tells_goes_before_the_one_of_what_was_started() -> None:
    with serving("foundry2", rows={"m": {}}) as service:
        server = reach(Location(service.url, "", pid=9)).server

    assert server.pid not in (None, 9)


@pytest.mark.parametrize(("kind", "offered"), [("ollama", True), ("foundry1", True), ("openai", False)])
def test_only_some_servers_offer_loading(kind: Any, offered: bool) -> None:
    with serving(kind, rows={"m": {}}) as service:
        reached = reach(Location(service.url, ""))

    assert (reached.control is not None) == offered


def test_a_scenarios_one_model_by_name_is_chosen() -> None:
    with serving("openai", rows={"a": {}, "b": {}}) as service:
        choice = reach(Location(service.url, "")).choose(Scenario(models=["b"]))

    assert [one.id for one in choice.chosen] == ["b"]


# -- Foundry Local's runtime as what loads


def test_the_runtime_loads_and_unloads_the_exact_variant_and_refuses_one_alone() -> None:
    runtime: Any = ServedRuntime([PHI_CPU, PHI_GPU])
    control = RuntimeControl(runtime)
    before = anyio.run(control.running, PHI_GPU)
    anyio.run(control.load, PHI_GPU)
    ran = anyio.run(control.running, PHI_GPU)
    anyio.run(control.unload, PHI_GPU)
    told = list(runtime.told)
    runtime.service.refuses = {PHI_CPU.id: "it does not fit"}
    with pytest.raises(TargetError, match="it does not fit"):
        anyio.run(control.load, PHI_CPU)

    assert told == [f"load {PHI_GPU.id}", f"unload {PHI_GPU.id}"]
    assert before is None
    assert ran is not None
    assert (ran.id, ran.loaded) == (PHI_GPU.id, True)


# -- origins


STARTED = ModelFacts("m", cached=True, size_bytes=SIZE_BYTES)


@pytest.mark.parametrize(
    ("location", "facts", "origin"),
    [
        (Location("http://h:1", "", (STARTED,), load_s=0.7), STARTED, Origin(0.7, SIZE_BYTES, "files")),
        (Location("http://h:1", ""), PHI_CPU, Origin(None, PHI_CPU.size_bytes, "server")),
        (Location("http://h:1", ""), PHI_GPU, Origin()),
        (Location("http://h:1", ""), ModelFacts("m", size_bytes=5), Origin()),
        (Location("http://h:1", ""), ModelFacts("m", cached=True), Origin()),
    ],
    ids=["loadbench started it", "a server's word", "a catalogue's", "not on the disk", "without a size"],
)
def test_how_long_a_start_took_and_what_a_model_takes(location: Location, facts: ModelFacts, origin: Origin) -> None:
    assert connect.origin(location, facts) == origin


def test_the_files_of_a_model_of_the_sdk_are_measured(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "model.onnx").write_bytes(b"x" * 30)
    (tmp_path / "v1" / "genai_config.json").write_bytes(b"x" * 12)
    runtime: Any = ServedRuntime([PHI_CPU], folders={PHI_CPU.id: tmp_path})

    assert connect.origin(Location("http://h:1", "", runtime=runtime), PHI_CPU) == Origin(None, 42, "files")
