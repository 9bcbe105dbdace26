"""The child process: `python -m loadbench.serve.simulator`; people want `loadbench serve simulator`."""

import dataclasses
import sys

from loadbench.serve import child, simulator


def serve(settings: child.Document, announce: child.Announce) -> None:
    """Serve by these settings."""
    law = simulator.Law.from_builtins(settings.pop("law"))
    simulator.serve(lambda server: announce(dataclasses.asdict(server)), law, **settings)


if __name__ == "__main__":
    sys.exit(child.main(serve))
