"""Foundry Local through its own SDK (2.1 or newer, extra `foundry`), in a child process.

    with foundry.start() as runtime:
        root = runtime.serve(port=5273)
        runtime.load("qwen2.5-0.5b-instruct-generic-cpu:4")

`python -m loadbench.foundry` is that child: it reads one request a line on stdin, in JSON, and answers in lines of it.
The SDK is a process-wide runtime that writes to the standard streams and serves models from its own threads, so the
load generator never imports it.

    places.py      whether the SDK is here, and where its models are kept
    child.py       the parent's side: the child process, and what it can be asked
    sdk.py         the child's side: the SDK
    download.py    a download that is watched, tried again, and cancelled without a half model left
    failure.py     what the SDK's errors mean, in one line each
"""

from loadbench.foundry.child import Runtime, start
from loadbench.foundry.places import available, cache_folder, has_models

__all__ = ["Runtime", "available", "cache_folder", "has_models", "start"]
