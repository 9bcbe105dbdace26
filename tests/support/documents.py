"""What a document tells its reader to type: commands, options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click

from loadbench.cli import main
from loadbench.serve.simulator.law import Law

DOCS = Path(__file__).parents[2] / "docs"


def page(name: str) -> tuple[str, set[str]]:
    """A page of docs/, and every word that stands between backticks there."""
    text = (DOCS / name).read_text(encoding="utf-8")
    return text, {word for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"\w+", code)}


def fenced(text: str, language: str) -> list[str]:
    """The blocks of a text that are fenced as that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def broken_links(path: Path) -> list[str]:
    """Links of a document, or of a notebook, into this project that lead nowhere."""
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", path.read_text(encoding="utf-8"))
    return [link for link in links if not (path.parent / link).exists()]


def field_names(value: object, is_map: Callable[[Mapping[str, object], str], bool]) -> set[str]:
    """The names of all fields of a record; what a record has by name, as by prompt or metric, has no fields' names."""
    names: set[str] = set()
    for key, below in value.items() if isinstance(value, dict) else ():
        names.add(key)
        if isinstance(below, dict) and is_map(value, key):
            below = list(below.values())
        names |= field_names(below, is_map)
    for item in value if isinstance(value, list | tuple) else ():
        names |= field_names(item, is_map)
    return names


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its name, groups among them."""
    yield path, group
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(main))


def typed(text: str) -> list[str]:
    """The command lines of a text, from fences and indented blocks, without what stands before and after them."""
    text = re.sub(r" +\\\n\s*", " ", text)  # a command that goes on in the next line
    text = re.sub(r"^```text\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)  # output, not commands
    text = re.sub(r"^```.*?^```", lambda fence: fence[0].replace("\n", "\n    "), text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^#? {2,}(?:\$ )?(?:[A-Z_]+=\S+ )?(?:\.venv\\Scripts\\)?(loadbench .*)$", text, re.MULTILINE)
    return [re.split(r"\s{2,}|\s+#\s|\s+[|>]", line)[0].rstrip().replace("\\", "/") for line in found]


def inline(text: str) -> set[str]:
    """What stands between single backticks."""
    return set(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^(```|    ).*$", "", text, flags=re.MULTILINE)))


def parsed(line: str) -> click.Context:
    """The context of a command line; ends the test where a command or an option does not exist."""
    words = shlex.split(line)[1:]
    path: tuple[str, ...] = ()
    while isinstance(COMMANDS[path], click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        path = (*path, name)
        assert path in COMMANDS, f"no command {name!r}: {line}"
    # Click remembers a command's help option as its first context has it, so this one is told what the program says.
    return COMMANDS[path].make_context("loadbench", list(words), help_option_names=["-h", "--help"])


def options_of_all() -> set[str]:
    law = {f"--{name.removesuffix('_ms').replace('_', '-')}" for name in Law.__dataclass_fields__} | {"--fault"}
    known = {
        text
        for command in COMMANDS.values()
        for param in command.params
        for text in (*param.opts, *param.secondary_opts)
    }
    return known | law | {"-h", "--help"}  # fmt: skip
