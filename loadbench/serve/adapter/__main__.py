"""The child process: `python -m loadbench.serve.adapter`; people want `loadbench serve adapter`."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading

from loadbench.serve import child
from loadbench.serve.adapter import AdapterServer, Settings
from loadbench.serve.adapter.model import Model, find
from loadbench.serve.adapter.server import Server, Slots

DRAIN_S = 1.0


def serve(document: child.Document, announce: child.Announce) -> None:
    """Load and serve until a signal, or the caller's end."""
    settings = Settings(**document)
    child.check_ranges(
        slots=(settings.slots, 1, 1024),
        queue=(settings.queue, 0, 65_536),
        port=(settings.port, 0, 65_535),
    )
    # Before the model, which may take minutes, so that a taken port shows at once.
    server = Server(settings.host, settings.port, settings.api_key)
    model = Model(find(settings.spec), settings.spec, settings.weights, settings.options, settings.model)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    server.listen(model, Slots(settings.slots, settings.queue))
    facts = AdapterServer(
        url=child.base_url(settings.host, server.server_port),
        pid=os.getpid(),
        model=model.id,
        adapter=settings.spec,
        slots=settings.slots,
        queue=settings.queue,
    )
    announce(dataclasses.asdict(facts))
    child.wait_until(stopped, with_caller=True)
    if not server.stop(DRAIN_S):
        os._exit(0)  # a model that still computes must not be unloaded under its own feet
    model.unload()


if __name__ == "__main__":
    sys.exit(child.main(serve))
