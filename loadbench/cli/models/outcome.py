"""What came of one model: a line for a person or a pipe, a JSON object a line for a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from loadbench import server
from loadbench.cli import reach
from loadbench.cli.harmless import data, harmless
from loadbench.errors import LoadbenchError, TargetError
from loadbench.server import ModelFacts, Target


def chosen(listed: Target, given: Mapping[str, Any]) -> tuple[list[ModelFacts], bool]:
    """The models that the names, devices and execution provider mean, and whether none that was asked for is absent.

    Raises:
        TargetError: One of the names means none, or several.
    """
    provider = given.get("execution_provider")
    choice = server.choose(listed, given["names"], devices=given.get("devices") or (), execution_provider=provider)
    for one in choice.absent:
        failed(one.name, TargetError(one.reason), given)
    return [one.facts or ModelFacts(one.id) for one in choice.chosen], not choice.absent


def say(said: Mapping[str, Any], words: str, given: Mapping[str, Any]) -> None:
    """Tell what was done.

    Args:
        said: For a program.
        words: For people.
        given: The command's options.
    """
    click.echo(data(said) if given["as_json"] else harmless(words))


def failed(model: str, error: LoadbenchError, given: Mapping[str, Any]) -> bool:
    """Tell that it failed, in a line on stderr; False, for "all went well"."""
    if given["as_json"]:
        click.echo(data({"model": model, "error": str(error)}))
    told = str(error)
    reach.note(f"loadbench: {told}" if model in told else f"loadbench: {model}: {told}")
    return False
