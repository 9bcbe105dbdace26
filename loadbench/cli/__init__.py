"""The command line: click commands, the only place that prints. A command's module is imported when it is used.

What cannot be done is a LoadbenchError from wherever it is found; the top command makes a line and an exit code of it.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

# OpenBLAS starts a thread per core that spins for a while: CPU that a run measures as ours. We multiply no matrices.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from loadbench import __version__
from loadbench.cli.options import DEBUG, Group, variable
from loadbench.cli.surroundings import guarded, note, terminable
from loadbench.errors import INTERRUPTED, LoadbenchError
from loadbench.machine import lacking
from loadbench.text import harmless_lines, starred

COMMANDS = {
    "run": "Measure models at several loads.",
    "capacity": "Find the highest concurrency or rate that meets an SLO.",
    "report": "Print the report of the run in folder RUN.",
    "results": "The runs in results/, newest first.",
    "compare": "Compare runs: faster, slower, same, can't tell.",
    "score": "Score the answers of the run in folder RUN.",
    "select": "Choose a model from the runs in the folders RUN.",
    "models": "Models: list, pull, load, unload, remove, register, verify.",
    "probe": "One chat per model: does it answer, and how fast?",
    "serve": "Serve a model over HTTP where there is no server yet.",
    "doctor": "What works here, and what this client can measure.",
    "completion": "The script that completes commands in a shell.",
}
"""What --help says of each, in the order a newcomer meets them. Each is in the module of its name."""
_ELSEWHERE = {"capacity": "run", "results": "report"}


class Program(Group):
    """The top command: turns our errors and click's into one line on stderr and an exit code."""

    def main(self, *args: Any, **words: Any) -> Any:
        """Run it. What stdout does not take is one line at the end and exit code 1: nothing else is lost by that."""
        with guarded() as out, terminable():
            try:
                return super().main(*args, **words)
            except SystemExit as end:
                with suppress(BrokenPipeError):
                    sys.stdout.flush()
                if out is None or out.error is None or isinstance(out.error, BrokenPipeError):
                    raise
                why = out.error.strerror or out.error
                click.echo(f"loadbench: stdout cannot be written: {why}: what was printed is not whole", err=True)
                sys.exit(end.code or 1)
            except KeyboardInterrupt:  # between two steps of click's
                click.echo("loadbench: interrupted", err=True)
                sys.exit(INTERRUPTED)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            _refuse(error, "loadbench")
            raise click.exceptions.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            click.echo("loadbench: interrupted", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LoadbenchError as error:
            if ctx.meta.get(DEBUG):
                _trace(error)
            note(starred(f"loadbench: {error}"))
            ctx.exit(error.exit_code)
        except click.UsageError as error:
            _refuse(error, f"{ctx.command_path} {ctx.invoked_subcommand or ''}".rstrip())
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("loadbench: interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # of the last, whose reader went away, click makes exit code 1 without a word
        except Exception as error:
            if ctx.meta.get(DEBUG):
                _trace(error)
            if (lack := lacking(error)) is not None:
                click.echo(f"loadbench: {lack}", err=True)
                ctx.exit(1)
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            note(starred(f"loadbench: a defect of loadbench: {text} (--debug shows where; please report it)"))
            ctx.exit(1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        # numpy, anyio and rich take half a second together: `loadbench --help` and `serve simulator` need none of them.
        module = import_module(f"loadbench.cli.{_ELSEWHERE.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does, which would import all of them for it."""
        room = formatter.width - 6 - max(map(len, COMMANDS))
        with formatter.section("Commands"):
            short = {name: click.Command(name, help=text).get_short_help_str(room) for name, text in COMMANDS.items()}
            formatter.write_dl(list(short.items()))


def _trace(error: Exception) -> None:
    """The traceback, of which a terminal obeys nothing: errors repeat what servers and files say."""
    import traceback

    click.echo(harmless_lines(starred("".join(traceback.format_exception(error)))), err=True)


def _refuse(error: click.UsageError, where: str) -> None:
    """Say in one line what is wrong with the words of the command line, or with the variable that gave one."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return
    if isinstance(error, click.BadParameter) and error.param is not None and error.param_hint is None:
        error.param_hint = variable(error.ctx, error.param)
    where = error.ctx.command_path if error.ctx else where
    # A key that was typed where it does not belong is not repeated.
    note(starred(f"loadbench: {error.format_message()} (`{where} --help` lists what there is)"))


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  loadbench run                  the server that is found, else a small model
  loadbench run -e http://localhost:8080 -c 1,4,16 -d 30s
  loadbench run quickstart       a scenario that comes with loadbench
  loadbench report results/<folder> --format markdown
  loadbench doctor
""",
)
@click.version_option(__version__, prog_name="loadbench")
def main() -> None:
    """Load-test the language models on your own machines.

    How fast is a model and how sure is that, where does it saturate, which one to ship: loadbench opens concurrent
    streams to an OpenAI-compatible server, stamps every token as it arrives, and reports latency and throughput by
    load.
    """
