"""Foundry Local through its own SDK (2.1 or newer, extra `foundry`), in a child process.

    with foundry.start() as runtime:
        root = runtime.serve(port=5273)
        runtime.load("qwen2.5-0.5b-instruct-generic-cpu:4")

`python -m loadbench.serve.foundry` is it: it reads one request a line on stdin, in JSON, and answers in lines of it.
The SDK is a process-wide runtime that writes to the standard streams and serves models from its own threads, so the
load generator never imports it.

    places.py      whether the SDK is here, and where its models are kept
    runtime.py     the parent's side: what the runtime can be asked
    sdk.py         the child's side: the SDK
"""

from loadbench.serve.foundry.places import available, cache_folder, has_models
from loadbench.serve.foundry.runtime import Runtime, start

__all__ = ["Runtime", "available", "cache_folder", "has_models", "start"]
