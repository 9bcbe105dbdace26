"""The child process: one request a line on stdin, in JSON, and its answer in lines of JSON on stdout.

    {"id": 3, "call": "pull", "model": "…"}     {"id": 3, "progress": 12.5} …, then {"id": 3, "result": null}
    {"cancel": 3}                               {"id": 3, "error": "…", "kind": "LoadbenchError"}

Requests are done one by one; a cancel goes past the one that runs. It ends when stdin ends.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from loadbench.errors import LoadbenchError
from loadbench.serve.child import Document
from loadbench.serve.foundry.places import available
from loadbench.serve.foundry.sdk import Hung, Sdk

END_S = 3.0
"""How long a call that still runs gets to end, before the process does without."""

Say = Callable[..., None]


def main(cache: str, catalogue: str | None = None) -> int:
    """Answer requests until stdin ends.

    Args:
        cache: The folder of the models.
        catalogue: Another URL of the public catalogue.
    """
    # The runtime logs to stdout: that becomes stderr, and the answers get a descriptor that nobody else knows.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    writing = threading.Lock()

    def say(**answer: object) -> None:
        with writing:
            answers.write(json.dumps(answer) + "\n")

    try:
        if reason := available():
            raise LoadbenchError(reason)
        sdk = Sdk(Path(cache), catalogue, lambda text: say(note=text))
    except LoadbenchError as error:
        say(id=0, error=str(error), kind=type(error).__name__)
        return error.exit_code
    except (ImportError, OSError) as error:  # a wheel for another system, or a library that it lacks
        say(id=0, error=f"Foundry Local's SDK cannot be loaded: {error}", kind="LoadbenchError")
        return 1
    say(id=0, result=sdk.version)
    if _answer(sdk, say):
        sdk.close()
        return 0
    answers.flush()
    os._exit(0)  # a call that does not end holds the SDK


def _answer(sdk: Sdk, say: Say) -> bool:
    """Do what stdin asks for; whether all of it had ended when stdin did."""
    waiting: queue.SimpleQueue[Document | None] = queue.SimpleQueue()
    cancelled: dict[int, threading.Event] = {}
    worker = threading.Thread(target=_work, args=(sdk, waiting, cancelled, say), daemon=True)
    worker.start()
    for line in sys.stdin:
        request = json.loads(line)
        if "cancel" in request:
            if event := cancelled.get(request["cancel"]):
                event.set()
        else:
            cancelled[request["id"]] = threading.Event()
            waiting.put(request)
    for event in list(cancelled.values()):
        event.set()
    waiting.put(None)
    worker.join(END_S)
    return not worker.is_alive()


def _work(
    sdk: Sdk,
    waiting: queue.SimpleQueue[Document | None],
    cancelled: dict[int, threading.Event],
    say: Say,
) -> None:
    while (request := waiting.get()) is not None:
        number = request.pop("id")
        call = getattr(sdk, request.pop("call"))
        if call == sdk.pull:
            request |= {"progress": lambda percent, number=number: say(id=number, progress=percent)}
            request |= {"cancelled": cancelled[number]}
        try:
            say(id=number, result=call(**request))
        except LoadbenchError as error:
            say(id=number, error=str(error), kind=type(error).__name__)
            if isinstance(error, Hung):
                os._exit(1)
        except Exception as error:  # whatever else the SDK raises: the parent tells it, and the child goes on
            say(id=number, error=f"Foundry Local's SDK failed: {type(error).__name__}: {error}", kind="LoadbenchError")
        finally:
            del cancelled[number]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
