"""The command line: click commands, the only place that prints. Heavy imports happen inside the commands."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

import click

# OpenBLAS starts a thread per core that spins for a while: CPU that a run measures as ours. We multiply no matrices.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from loadbench import __version__
from loadbench.cli.capacity import capacity
from loadbench.cli.compare import compare
from loadbench.cli.doctor import doctor
from loadbench.cli.harmless import harmless, harmless_lines
from loadbench.cli.models import models
from loadbench.cli.options import SettingsCommand
from loadbench.cli.probe import probe
from loadbench.cli.report import report
from loadbench.cli.results import results
from loadbench.cli.run import run
from loadbench.cli.score import score
from loadbench.cli.select import select
from loadbench.cli.serve import serve
from loadbench.cli.surroundings import guarded, terminable
from loadbench.errors import INTERRUPTED, LoadbenchError
from loadbench.machine import lacking

DEBUG = "loadbench.debug"
"""Where a command's --debug is noted for the top command, which is the one that meets the errors."""


class Program(click.Group):
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
            _say(f"loadbench: {error}")
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
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            _say(f"loadbench: a defect of loadbench: {said} (--debug shows where; please report it)")
            ctx.exit(1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order a newcomer meets them


def _trace(error: Exception) -> None:
    """The traceback, of which a terminal obeys nothing: errors repeat what servers and files say."""
    import traceback

    from loadbench.text import starred

    click.echo(harmless_lines(starred("".join(traceback.format_exception(error)))), err=True)


def _say(text: str) -> None:
    """Say in a line what went wrong, without a key that was typed where it does not belong."""
    from loadbench.text import starred

    click.echo(harmless(starred(text)), err=True)


def _refuse(error: click.UsageError, where: str) -> None:
    """Say in one line what is wrong with the words of the command line, or with the variable that stands for one."""
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # since click 8.2
        click.echo(error.format_message(), err=True)
        return
    if isinstance(error, click.BadParameter) and error.param is not None and error.param_hint is None:
        error.param_hint = variable(error.ctx, error.param)
    where = error.ctx.command_path if error.ctx else where
    _say(f"loadbench: {error.format_message()} (`{where} --help` lists what there is)")


def variable(ctx: click.Context | None, param: click.Parameter) -> str | None:
    """The environment variable that gave the value of a parameter; None where none did."""
    if ctx is None or ctx.get_parameter_source(param.name or "") != click.core.ParameterSource.ENVIRONMENT:
        return None
    names = [param.envvar] if isinstance(param.envvar, str) else list(param.envvar or ())
    return next((name for name in names if os.environ.get(name)), None)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  loadbench run                  the server that is found, else a small model
  loadbench run -e http://localhost:8080 -c 1,4,16 -d 30s
  loadbench run scenarios/quickstart.toml
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


def _note_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[DEBUG] = True


def _with_debug(command: click.Command) -> None:
    """Give a command, and all below it, the option --debug: one adds it to the line that failed, at its end."""
    option = click.Option(
        ["--debug"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_note_debug,
        help="Show a traceback where something fails.",
    )
    if isinstance(command, SettingsCommand):
        command.debug = option
    else:
        command.params.append(option)
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        _with_debug(below)


for command in (run, capacity, report, results, compare, score, select, models, probe, serve, doctor):
    main.add_command(command)
_with_debug(main)
