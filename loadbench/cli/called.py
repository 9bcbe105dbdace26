"""The child process of `loadbench.run`: `python -m loadbench.cli.called` reads what is wanted from its standard input.

One line of JSON, {"scenario": …, "words": […]}: a scenario in full and options of `loadbench run`. JSON lines go to
stdout, errors to stderr, the exit code is that of `loadbench run`. When its standard input ends, which is when the
caller wants no more or has died, the run ends as by Ctrl-C: it drains, and its folder reads.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

import click

from loadbench.cli import Program
from loadbench.cli.run import run


@click.command()
@click.pass_context
def called(ctx: click.Context) -> None:
    """Run what standard input says."""
    import orjson

    from loadbench import scenario
    from loadbench.cli import measure

    asked = orjson.loads(sys.stdin.readline())
    sys.argv = ["loadbench", "run", "(from Python)", *asked["words"]]  # what run.json shows as the command
    given = run.make_context("run", [*asked["words"], "--json"], parent=ctx).params
    threading.Thread(target=_end_with_caller, daemon=True).start()
    ctx.exit(measure.measure(scenario.from_json(asked["scenario"], "options"), given))


def _end_with_caller() -> None:
    while os.read(0, 4096):
        pass
    if sys.platform == "win32":
        import _thread

        _thread.interrupt_main()
    else:
        os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    Program("loadbench", commands={"called": called}).main(["called"], prog_name="loadbench")
