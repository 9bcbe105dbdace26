"""A judge on loopback that answers as a test says: an OpenAI endpoint with one model, and what it was asked."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.gateways import NOT_FOUND, Answered, Asked, Gateway, gateway, listed

MODEL = "judge-7b"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the judge answers: a text as a chat completion, or a status with an error."""

    text: str = ""
    status: int = 200
    finish_reason: str = "stop"
    usage: bool = True
    wait: threading.Event | None = None


Behaviour = Callable[[dict[str, Any]], Reply | str]


@dataclass(frozen=True, slots=True)
class Judge:
    """Where it is, and the chats that it was asked."""

    gateway: Gateway

    @property
    def url(self) -> str:
        return self.gateway.url

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [one.body for one in self.gateway.chats]

    @property
    def headers(self) -> list[Mapping[str, str]]:
        return [one.headers for one in self.gateway.chats]


def names(body: dict[str, Any]) -> list[str]:
    """The scores that a request asks for, in its order."""
    return re.findall(r'^"(\w+)":', body["messages"][-1]["content"], flags=re.MULTILINE)


def scores(body: dict[str, Any], value: int = 4) -> str:
    """A sound reply: the same score for all."""
    return json.dumps(dict.fromkeys(names(body), value))


@contextmanager
def judge(behaviour: Behaviour = scores) -> Iterator[Judge]:
    """A judge that answers each chat as `behaviour` says."""

    def law(asked: Asked) -> Answered:
        if asked.method == "GET":
            return listed(MODEL, object="model") if asked.path == "/v1/models" else NOT_FOUND
        reply = behaviour(asked.body)
        reply = Reply(reply) if isinstance(reply, str) else reply
        if reply.wait is not None:
            reply.wait.wait(20)
        if reply.status != 200:
            return Answered(reply.status, {"error": {"message": reply.text or "no"}})
        message = {"role": "assistant", "content": reply.text}
        document: dict[str, Any] = {
            "object": "chat.completion",
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
        }
        if reply.usage:
            document["usage"] = {"prompt_tokens": 100, "completion_tokens": 10}
        return Answered(body=document)

    with gateway(law) as there:
        yield Judge(there)
