"""Servers with models to list, load, pull and remove, scripted: Ollama, and Foundry Local's generations 1 and 2.

Foundry Local's SDK too, where its web service is one of these.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

from loadbench.errors import LoadbenchError
from loadbench.server import ModelFacts
from tests.support.command import invoked
from tests.support.gateways import Answered, Asked, gateway
from tests.support.sdk import FakeRuntime

Kind = Literal["ollama", "foundry1", "foundry2", "openai"]
TEXT = ("Tick", " tock", ".")


@dataclass(slots=True)
class Service:
    """A server, what it has, and what it was asked.

    Attributes:
        rows: Of `/v1/models`, by id; `size` and `license` are Ollama's, told by its own routes.
        loaded: Ids in memory.
        on_gpu: Those of them that Ollama has on its GPU.
        aliases: What Foundry Local 2.x loads for a name; it knows no others.
        refuses: Ids it does not load, with its words.
        keeps: Ids it does not unload.
        broken: Ids whose chats fail.
        pulls: The lines of each download, one after the other; a list without "success" breaks off.
        asked: Method and path of each request.
        keys: Theirs.
        chats: The body of each chat, and of `headers` those it came with.
        text, reasoning: The pieces of each answer, and of what comes before it.
    """

    kind: Kind
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    loaded: set[str] = field(default_factory=set)
    on_gpu: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)
    refuses: dict[str, str] = field(default_factory=dict)
    keeps: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    pulls: list[list[dict[str, Any]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    chats: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    text: Sequence[str] = TEXT
    reasoning: Sequence[str] = ()
    url: str = ""


@contextmanager
def serving(kind: Kind, **state: Any) -> Iterator[Service]:
    """The server in a thread, for the length of the context."""
    service = Service(kind, **state)
    with gateway(lambda asked: _answered(service, asked)) as there:
        service.url = there.url
        yield service


def _answered(told: Service, asked: Asked) -> Answered:
    told.asked.append(f"{asked.method} {asked.path}")
    told.keys.add(asked.headers.get("authorization"))
    if moved := re.fullmatch("/models/(load|unload)/(.+)", asked.path):
        return _moved(told, unquote(moved[2]), moved[1])
    if asked.method == "DELETE":
        there = told.rows.pop(asked.body["model"], None)
        return Answered(body={}) if there is not None else Answered(404, {"error": "model not found"})
    match asked.path:
        case "/v1/chat/completions":
            told.chats.append(asked.body)
            told.headers.append(asked.headers)
            return _chat(told, asked.body["model"])
        case "/api/pull":
            lines = told.pulls.pop(0)
            if any(line.get("status") == "success" for line in lines):
                told.rows[asked.body["model"]] = {}
            return Answered(lines=lines)
        case "/api/generate":
            return _moved(told, asked.body["model"], "load" if asked.body["keep_alive"] else "unload")
        case "/v1/models":
            return Answered(body={"data": [{"id": name, **row} for name, row in told.rows.items()]})
    found: dict[str, Any] = {}
    if told.kind == "ollama":
        in_memory = [{"model": name, "size": 9, "size_vram": 9 * (name in told.on_gpu)} for name in told.loaded]
        found["/api/version"] = {"version": "0.9"}
        found["/api/tags"] = {"models": [{"model": name, **row} for name, row in told.rows.items()]}
        found["/api/ps"] = {"models": in_memory}
    elif told.kind == "foundry1":
        found = {"/status": {"modelDirPath": "/models"}, "/models/loaded": sorted(told.loaded)}
    elif told.kind == "foundry2":
        status = {"modelCachePath": "/models", "pid": os.getpid()}
        found = {"/status": status, "/models/loaded": sorted(told.loaded)}
    return Answered(body=found[asked.path]) if asked.path in found else Answered(404, {})


def _moved(told: Service, name: str, verb: str) -> Answered:
    if told.kind == "foundry2":
        if name not in told.aliases:
            return Answered(404, {"error": "Model not found"})
        name = told.aliases[name]
    refused = told.refuses.get(name)
    if verb == "unload":
        refused = "busy" if name in told.keeps else None
    if refused is not None:
        return Answered(500, {"error": refused})
    if verb == "load":
        told.loaded.add(name)
    else:
        told.loaded.discard(name)
    return Answered(body={"status": verb + "ed"})


def _chat(told: Service, name: str) -> Answered:
    if name in told.broken or (told.kind.startswith("foundry") and name not in told.loaded):
        return Answered(400, {"error": {"message": "Model not loaded"}})
    deltas = [{"reasoning_content": text} for text in told.reasoning]
    deltas += [{"content": text} for text in told.text]
    events: list[Mapping[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    events.append({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": len(deltas)}})
    return Answered(events=events)


@dataclass(slots=True)
class ServedRuntime(FakeRuntime):
    """Foundry Local's runtime whose web service is a scripted one.

    Attributes:
        service: Holds what is loaded, and refuses what is not to be loaded.
        folders: Of the models, by id.
        told: What the runtime was told to do, in order.
    """

    service: Service = field(default_factory=lambda: Service("foundry2"))
    folders: dict[str, Path] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def models(self) -> list[ModelFacts]:
        return [replace(facts, loaded=facts.id in self.service.loaded) for facts in self.facts]

    def serve(self, port: int = 0) -> str:
        self.told.append("serve")
        return self.service.url

    def load(self, id: str) -> None:
        self.told.append(f"load {id}")
        if id in self.service.refuses:
            raise LoadbenchError(self.service.refuses[id])
        self.service.loaded.add(id)

    def unload(self, id: str) -> None:
        self.told.append(f"unload {id}")
        self.service.loaded.discard(id)

    def path(self, id: str) -> Path | None:
        return self.folders.get(id)


PHI_CPU = ModelFacts(
    "Phi-4-mini-instruct-generic-cpu:5",
    aliases=("phi-4-mini",),
    loaded=False,
    cached=True,
    size_bytes=4_800_000_000,
    context=131_072,
    device="CPU",
    execution_provider="CPUExecutionProvider",
    licence="MIT",
)

PHI_GPU = ModelFacts(
    "Phi-4-mini-instruct-cuda-gpu:5",
    aliases=("phi-4-mini",),
    loaded=False,
    cached=False,
    size_bytes=3_700_000_000,
    device="GPU",
    execution_provider="CUDAExecutionProvider",
    licence="MIT",
)


class Case(NamedTuple):
    """A command on a server's models, and what comes of it.

    Attributes:
        words: After the command, and before the address of the server.
        out: All of stdout, as a regular expression.
        err: A part of stderr, as one; where the exit code is 1 or 2, one line of it begins with `loadbench: `.
        server: What it is like; and `after` it all.
        never: A request that is not made.
    """

    words: str
    code: int = 0
    out: str | None = None
    err: str = ""
    server: Mapping[str, Any] = {}
    after: Mapping[str, Any] = {}
    never: str = "none"


def holds(case: Case, service: Service, command: str) -> None:
    """What a case promises of a server."""
    for name, value in case.server.items():
        setattr(service, name, value)

    done = invoked(command, *case.words.split(), "-e", service.url)

    assert done.exit_code == case.code, done.output
    assert case.out is None or re.fullmatch(case.out, done.stdout), done.stdout
    assert re.search(case.err, done.stderr, re.MULTILINE), done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("loadbench: ")]
    assert len(errors) == (case.code in (1, 2)), errors
    assert {name: getattr(service, name) for name in case.after} == case.after
    assert [one for one in service.asked if one == case.never] == []
    assert "\x1b" not in done.output
