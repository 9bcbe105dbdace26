"""The command line: click commands, the only place that prints. Heavy imports happen inside the commands."""

from __future__ import annotations

import os
from typing import Any

import click

# OpenBLAS starts a thread per core that spins for a while: CPU that a run measures as ours. We multiply no matrices.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from loadbench import __version__
from loadbench.cli.doctor import doctor
from loadbench.cli.report import report
from loadbench.cli.run import run
from loadbench.cli.serve import serve
from loadbench.errors import LoadbenchError


class Program(click.Group):
    """The top command: turns our errors into one line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LoadbenchError as error:
            if ctx.params["debug"]:
                raise
            click.echo(f"loadbench: {error}", err=True)
            ctx.exit(error.exit_code)
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "loadbench"
            click.echo(f"loadbench: {error.format_message()} (`{where} --help` lists what there is)", err=True)
            ctx.exit(error.exit_code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order a newcomer meets them


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  loadbench run                                  the server that is found, else the embedded model
  loadbench run -e http://localhost:8080 -c 1,4,16 -d 30s
  loadbench run scenarios/quickstart.toml
  loadbench report results/<folder> --format markdown
  loadbench doctor
""",
)
@click.version_option(__version__, prog_name="loadbench")
@click.option("--debug", is_flag=True, help="Show a traceback where something fails.")
def main(debug: bool) -> None:
    """Load-test the language models on your own machines.

    How fast is a model and how sure is that, where does it saturate, which one to ship: loadbench opens concurrent
    streams to an OpenAI-compatible server, stamps every token as it arrives, and reports latency and throughput by
    load.
    """


for command in (run, report, serve, doctor):
    main.add_command(command)
