"""The child process: `python -m loadbench.serve NAME`, one of our servers; people want `loadbench serve NAME`."""

import importlib
import sys

from loadbench import serve

if __name__ == "__main__":
    sys.exit(serve.main(importlib.import_module(f"loadbench.serve.{sys.argv[1]}").serve_child))
