"""Servers with models to list, load, pull and remove, scripted: Ollama, and Foundry Local's generations 1 and 2.

Foundry Local's SDK too, where its web service is one of these.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

from loadbench.errors import LoadbenchError
from loadbench.server import ModelFacts
from tests.support.command import invoked
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

    class Bound(_Handler):
        told = service

    with ThreadingHTTPServer(("127.0.0.1", 0), Bound) as server:
        service.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield service
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one write: two would wait 40 ms for each other
    told: Service

    def do_GET(self) -> None:
        self._note("GET")
        if moved := re.fullmatch("/models/(load|unload)/(.+)", self.path):
            self._move(unquote(moved[2]), moved[1])
            return
        routes = {"ollama": self._ollama, "foundry1": self._foundry, "foundry2": self._foundry}
        rows = {"data": [{"id": name, **row} for name, row in self.told.rows.items()]}
        found = rows if self.path == "/v1/models" else routes.get(self.told.kind, lambda: None)()
        self._json(404 if found is None else 200, {} if found is None else found)

    def do_POST(self) -> None:
        self._note("POST")
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/chat/completions":
            self.told.chats.append(asked)
            self.told.headers.append({name.lower(): value for name, value in self.headers.items()})
            self._chat(asked["model"])
        elif self.path == "/api/pull":
            lines = self.told.pulls.pop(0)
            if any(line.get("status") == "success" for line in lines):
                self.told.rows[asked["model"]] = {}
            self._pull(lines)
        elif self.path == "/api/generate":
            self._move(asked["model"], "load" if asked["keep_alive"] else "unload")
        else:
            self._json(404, {})

    def _pull(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """The lines, in HTTP chunks; one with `hold` keeps the rest back until the client leaves."""
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in lines:
            if "hold" in line:
                self.wfile.flush()
                self.close_connection = True
                self.rfile.read(1)
                return
            data = json.dumps(line).encode() + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def do_DELETE(self) -> None:
        self._note("DELETE")
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
        there = self.told.rows.pop(name, None)
        self._json(404 if there is None else 200, {"error": "model not found"} if there is None else {})

    def _ollama(self) -> Any:
        rows = [{"model": name, **row} for name, row in self.told.rows.items()]
        in_memory = [
            {"model": name, "size": 9, "size_vram": 9 * (name in self.told.on_gpu)} for name in self.told.loaded
        ]
        return {
            "/api/version": {"version": "0.9"},
            "/api/tags": {"models": rows},
            "/api/ps": {"models": in_memory},
        }.get(self.path)

    def _foundry(self) -> Any:
        folder = "modelDirPath" if self.told.kind == "foundry1" else "modelCachePath"
        status = {folder: "/models", **({"pid": os.getpid()} if self.told.kind == "foundry2" else {})}
        return {"/status": status, "/models/loaded": sorted(self.told.loaded)}.get(self.path)

    def _move(self, name: str, verb: str) -> None:
        if self.told.kind == "foundry2":
            known = self.told.aliases.get(name)
            if known is None:
                self._json(404, {"error": "Model not found"})
                return
            name = known
        refused = self.told.refuses.get(name) if verb == "load" else "busy" if name in self.told.keeps else None
        if refused is not None:
            self._json(500, {"error": refused})
            return
        if verb == "load":
            self.told.loaded.add(name)
        else:
            self.told.loaded.discard(name)
        self._json(200, {"status": verb + "ed"})

    def _chat(self, name: str) -> None:
        if name in self.told.broken or (self.told.kind.startswith("foundry") and name not in self.told.loaded):
            self._json(400, {"error": {"message": "Model not loaded"}})
            return
        deltas = [{"reasoning_content": text} for text in self.told.reasoning]
        deltas += [{"content": text} for text in self.told.text]
        events: list[Mapping[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        events += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
        events += [{"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": len(deltas)}}]
        lines = [*map(json.dumps, events), "[DONE]"]
        self._send(200, "text/event-stream", "".join(f"data: {line}\n\n" for line in lines).encode())

    def _note(self, method: str) -> None:
        self.told.asked.append(f"{method} {self.path}")
        self.told.keys.add(self.headers.get("Authorization"))

    def _json(self, status: int, document: Any) -> None:
        self._send(status, "application/json", json.dumps(document).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


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
