"""`loadbench completion`: the script by which a shell completes commands and options; click makes it."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from loadbench.cli.options import Command


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  loadbench completion bash >> ~/.bashrc
  loadbench completion zsh >> ~/.zshrc
  loadbench completion fish > ~/.config/fish/completions/loadbench.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands and options in a shell."""
    made = get_completion_class(shell)
    assert made is not None  # click has these three
    click.echo(made(ctx.find_root().command, {}, "loadbench", "_LOADBENCH_COMPLETE").source())
