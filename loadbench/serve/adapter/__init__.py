"""A model of one's own behind the OpenAI API: an object with `load` and `generate`, served in a child process.

    with adapter.start("my_model:MyModel", "weights/", options={"threads": 2}) as server:
        run_against(server.url)

`python -m loadbench.serve.adapter SPEC [WEIGHTS]` is it: it prints one JSON line {"url", "pid", "model", "adapter",
"slots", "queue"} on stdout when the model is loaded, or {"error", "exit_code"}, and stops on SIGTERM, SIGINT, or the
end of a piped stdin. docs/adapter.md shows how to write one.

    protocol.py   what an adapter is
    lookup.py     its class, by module:Class or by the name of an entry point
    model.py      a loaded adapter, and one call of its generate
    ask.py        a request read; answer.py the JSON of an answer
    slots.py      how many calls run and how many wait
    server.py     the HTTP server; child.py the same in a child process
    echo.py       the example
"""

from loadbench.serve.adapter.child import AdapterServer, serve, start
from loadbench.serve.adapter.lookup import GROUP
from loadbench.serve.adapter.model import option
from loadbench.serve.adapter.protocol import Adapter, Message, PromptAdapter

__all__ = ["GROUP", "Adapter", "AdapterServer", "Message", "PromptAdapter", "option", "serve", "start"]
