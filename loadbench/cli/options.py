"""Options of the commands: made from settings, their headings in --help, and how their values are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from loadbench.scenario.settings import Setting

MORE = "More"
"""The heading of options that name none, --help among them."""
_NAMES_WIDTH = 25  # in columns; what is longer has its text on the next line


class Headed(click.Option):
    """An option that --help lists under a heading."""

    def __init__(self, *args: Any, heading: str = MORE, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.heading = heading


class HeadedCommand(click.Command):
    """Lists its options by heading, in the order of their declaration, in columns that run through all headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        by_heading: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            row = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if row is not None:
                by_heading.setdefault(getattr(param, "heading", MORE), []).append(row)
        for heading, rows in by_heading.items():
            with formatter.section(heading):
                # click fits the columns of each section to its longest name: padded, all fit the same.
                padded = [(f"{names:<{_NAMES_WIDTH}}", text) for names, text in rows]
                formatter.write_dl(padded, col_max=_NAMES_WIDTH)

    def invoke(self, ctx: click.Context) -> Any:
        line = unknown_variables(os.environ, ctx.find_root().command)
        if line and not ctx.params.get("quiet"):
            click.echo(line, err=True)
        return super().invoke(ctx)


class SettingsCommand(HeadedCommand):
    """A command whose options are made when they are first looked at: `loadbench --help` needs no structs."""

    def __init__(self, *args: Any, options: Callable[[], list[click.Option]], **settings: Any) -> None:
        self._make = options
        self._made = False
        self._params: list[click.Parameter] = []
        self.debug: click.Option | None = None
        super().__init__(*args, **settings)

    @property
    def params(self) -> list[click.Parameter]:
        if not self._made:
            self._made = True
            self._params += [*self._make(), *([self.debug] if self.debug is not None else [])]
        return self._params

    @params.setter
    def params(self, declared: list[click.Parameter]) -> None:
        self._params = declared


_NO_OPTIONS = (
    *("LOADBENCH_CACHE", "LOADBENCH_CATALOG_URL", "LOADBENCH_BROWSER", "LOADBENCH_NO_BROWSER", "LOADBENCH_KILLS"),
    *("LOADBENCH_UPDATE_GOLDEN", "BENCH_MODELS"),
)
"""Variables that stand for no option of a command."""


def unknown_variables(environment: Mapping[str, str], program: click.Command) -> str | None:
    """A line on variables that look like settings and are none; None where there is no such.

    Args:
        program: Whose options' variables are known, those of its commands included.
    """
    from difflib import get_close_matches

    from loadbench.cli.harmless import harmless

    looks_like = [name for name in environment if name.startswith(("LOADBENCH_", "BENCH_"))]
    if not looks_like:
        return None
    known, commands = {*_NO_OPTIONS}, [program]
    while commands:
        command = commands.pop()
        commands += command.commands.values() if isinstance(command, click.Group) else ()
        for param in command.params:
            known |= {param.envvar} if isinstance(param.envvar, str) else {*(param.envvar or ())}
    told = []
    for name in sorted({*looks_like} - known):
        prefix, _, rest = name.upper().partition("_")
        near = get_close_matches(rest, sorted(one.removeprefix(f"{prefix}_") for one in known), n=1, cutoff=0.75)
        if near:
            told.append(f"{name} (did you mean {prefix}_{near[0]}?)")
        elif prefix == "LOADBENCH":  # BENCH_ is a name that others use too
            told.append(name)
    return harmless(f"loadbench: no setting, ignored: {', '.join(told)}") if told else None


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def under(heading: str) -> Callable[..., Decorator]:
    """A maker of options under a heading."""

    def option(*names: str, variable: bool = True, workshop: str | None = None, **settings: Any) -> Decorator:
        """An option.

        Args:
            variable: Whether the environment may set it: --max-tokens by LOADBENCH_MAX_TOKENS.
            workshop: A name of the workshop's that does too.
        """
        long = next(name for name in names if name.startswith("--")).split("/")[0].removeprefix("--")
        variables = [f"LOADBENCH_{long.replace('-', '_').upper()}"] if variable else []
        variables += [workshop] if workshop else []
        return click.option(*names, cls=Headed, heading=heading, envvar=variables or None, **settings)

    return option


class _Words(click.types.StringParamType):
    """Texts. Where a variable holds them, commas part them, or nothing does; blanks, as click has it, never."""

    def __init__(self, *, commas: bool) -> None:
        self._commas = commas

    def split_envvar_value(self, rv: str) -> list[str]:
        return [part for part in rv.split(",") if part.strip()] if self._commas else [rv]


LIST, TEXT = _Words(commas=True), _Words(commas=False)


def option(setting: Setting, heading: str, *, help: str | None = None, metavar: str | None = None) -> Headed:
    """The option of a setting. One that nobody gives has no value: then the scenario's counts, or the default.

    Args:
        help, metavar: In place of the setting's own, for a command where it means something narrower. A variable of the
            workshop's, which means the setting itself, does not count there.
    """
    flag = setting.flag
    variables = setting.variables[:1] if help else setting.variables
    more: dict[str, Any] = {}
    match setting.reads:
        case "switch":
            more["default"] = None if "/" in flag.names else False
            more["is_flag"] = "/" not in flag.names or None
        case "choice":
            more["type"] = click.Choice(setting.choices)
        case "path":
            more["type"] = click.Path(path_type=Path)
        case "list" | "texts":
            more["multiple"] = True
            more["type"] = LIST if setting.reads == "list" else TEXT
        case "number" | "whole number":
            more["type"] = float if setting.reads == "number" else int
        case "text":
            pass
        case reads:
            more["callback"] = _CALLBACKS[reads]
    return Headed(
        [*flag.names.split(), setting.name],
        heading=heading,
        envvar=variables or None,
        help=help or flag.help,
        metavar=metavar or flag.metavar,
        **more,
    )


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """A callback for 500ms, 30s, 5m."""
    from loadbench.scenario.bounds import Duration

    if value is None:
        return None
    try:
        return Duration.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def whole(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """A callback for 1,2,4."""
    return None if value is None else _numbers(int, value, ctx, param)


def decimal(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """A callback for 0.5,1."""
    return None if value is None else _numbers(float, value, ctx, param)


def _numbers(kind: type[int] | type[float], value: str, ctx: click.Context, param: click.Parameter) -> list[float]:
    try:
        return [kind(part) for part in value.split(",")]
    except ValueError:
        what = "whole numbers as 1,2,4" if kind is int else "numbers as 0.5,1"
        raise click.BadParameter(f"{value[:60]!r}: write {what}", ctx, param) from None


def devices(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    """A callback for cpu,gpu."""
    if value is None:
        return None
    names = [name.strip().lower() for name in value.split(",") if name.strip()]
    for name in names or [value]:
        if name not in ("cpu", "gpu", "npu"):
            raise click.BadParameter(f"{name!r}: write cpu, gpu or npu, several as cpu,gpu", ctx, param)
    return list(dict.fromkeys(names))


def share(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A callback for 20% or 0.2."""
    from loadbench.scenario.bounds import share

    if value is None:
        return None
    try:
        return share(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def count(text: str) -> int | None:
    """A whole number of at most 18 digits; None of any other text: Python refuses thousands of them, JSON more than 19.

    >>> count("12"), count("-1"), count("9" * 19), count("٣")
    (12, None, None, None)
    """
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


_SWITCH = {"true": 1, "yes": 1, "on": 1, "false": 0, "no": 0, "off": 0}


def tries(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A callback for a number of retries; the workshop's RETRY_ON_FAIL says true for one."""
    text = (value or "").strip().lower()
    if not text:
        return None
    number = _SWITCH[text] if text in _SWITCH else count(text)
    if number is None:
        raise click.BadParameter(f"{text[:60]!r}: write a whole number, 0 for none", ctx, param)
    return number


MOST_WORKERS = 256
"""Processes of one machine: more of them than cores gain nothing."""


def workers(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """A callback for 2 or auto."""
    if value is None or value == "auto":
        return value
    found = count(value)
    if found is None or not 1 <= found <= MOST_WORKERS:
        raise click.BadParameter(f"{value[:60]!r}: give a number from 1 to {MOST_WORKERS}, or auto", ctx, param)
    return found


def certificates(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A callback for a file of certificate authorities, read once here: before anything is started."""
    import ssl

    from loadbench.scenario.files import open_file

    if value is None:
        return None
    try:
        open_file(Path(value)).close()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=value)
    except FileNotFoundError:
        why = "no such file"
    except ssl.SSLError:
        why = "no PEM certificate in it"
    except (OSError, ValueError) as error:
        why = f"cannot be read ({str(getattr(error, 'strerror', None) or error).lower()})"
    else:
        return value
    advice = "give the authority's certificate as a PEM file, or accept any certificate with --insecure"
    raise click.BadParameter(f"{value!r}: {why}: {advice}", ctx, param)


_CALLBACKS: dict[str, Callable[[click.Context, click.Parameter, Any], Any]] = {
    "numbers": decimal,
    "whole numbers": whole,
    "duration": duration,
    "share": share,
    "tries": tries,
    "devices": devices,
    "certificates": certificates,
    "workers": workers,
}


def scenario_file(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """A callback for a scenario file: whether its ending is that of one, and what may have been meant where not."""
    from loadbench.errors import UsageError
    from loadbench.text import printable

    if value is None:
        return None
    path = Path(value)
    if path.suffix.lower() in (".toml", ".json"):
        return path
    near = [place for place in (Path(f"{value}.toml"), Path("scenarios", f"{value}.toml")) if place.is_file()]
    if near:
        advice = f"did you mean {printable(str(near[0]))}?"
    elif "://" in value:
        advice = "give a server's address with -e"
    elif path.suffix.lower() in (".jsonl", ".txt"):
        advice = "give prompts with --prompts"
    elif (path / "run.json").is_file():
        advice = "go on with a run's folder by --resume, or print it with `loadbench report`"
    elif path.is_file():
        advice = "write it in TOML, as those in scenarios/ are"
    else:
        advice = "give its whole name; a model is named with -m"
    raise UsageError(f"{printable(value)}: a scenario file ends in .toml or .json: {advice}")


def file_of_end(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """A callback for a file that is written at the end: its folder must be there before anything is measured."""
    if value is not None and not value.parent.is_dir():
        raise click.BadParameter(f"{str(value)!r}: no folder {value.parent}; make it first", ctx, param)
    return value


def header_lines(given: tuple[str, ...]) -> dict[str, str] | None:
    """What --header gave, each as 'Name: value', by name; None where nothing."""
    from loadbench.errors import UsageError

    headers = {}
    for header in given:
        name, colon, value = header.partition(":")
        if not colon or not name.strip().isascii() or not name.strip():
            # Not shown: a key that was pasted without its header's name would be.
            raise UsageError("--header: write it as 'Name: value'")
        headers[name.strip()] = value.strip()
    return headers or None
