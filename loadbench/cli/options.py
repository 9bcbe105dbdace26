"""Options of the commands: made from settings, listed by heading in --help, and how their texts are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from loadbench.text import harmless

if TYPE_CHECKING:
    from msgspec import Struct

    from loadbench.scenario.settings import Setting

DEBUG = "loadbench.debug"
"""Where a command's --debug is noted for the top command, which is the one that meets the errors."""
MORE = "More"
"""The heading of options that name none, --help among them."""
_NAMES_WIDTH = 25  # in columns; what is longer has its text on the next line
FILE = click.Path(path_type=Path, dir_okay=False)
PATH = click.Path(path_type=Path)
LAST = "last"
_ALL = "loadbench.help-all"
"""Where it is noted that help is to list all options."""


class _Run(click.Path):
    """A run folder. The word "last" is the newest one in results/, unless a folder has that name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value) == LAST and not Path(LAST).exists():
            from loadbench.report.listing import newest

            return newest()
        return super().convert(value, param, ctx)


RUN = _Run(path_type=Path)


def or_last(_: click.Context, __: click.Parameter, folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """The newest run where no folder is named."""
    from loadbench.report.listing import newest

    return folders or (newest(),)


F = TypeVar("F", bound=Callable[..., Any])


class Headed(click.Option):
    """An option that help lists under a heading, without the spellings that other tools have taught.

    Attributes:
        often: Whether it is one of those that most people use: of a command that has some, --help lists them alone.
    """

    def __init__(self, *args: Any, heading: str = MORE, also: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.heading = heading
        self.often = False
        self._listed = list(self.opts)
        self.opts += also

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        taken, self.opts = self.opts, self._listed
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = taken


def _note_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[DEBUG] = True


def _print_all(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


_HELP_ALL_OPTION = click.Option(
    ["--help-all"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_all,
    help="Show all options and exit.",
)
_DEBUG_OPTION = click.Option(
    ["--debug"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_note_debug,
    help="Show a traceback where something fails.",
)


class Command(click.Command):
    """A command that returns its exit code, and has --debug.

    Options with headings are listed by them, in the order of their declaration and in columns that run through all.
    Of a command with options that are used often --help is one screen; --help-all has the rest.

    Args:
        examples: What help shows before the options.
        details: What --help-all shows behind them.
    """

    def __init__(self, *args: Any, examples: str = "", details: str = "", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = examples
        self.details = details

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        *own, help_option = super().get_params(ctx)
        if self._has_short_help:
            return [*own, _DEBUG_OPTION, help_option, _HELP_ALL_OPTION]
        return [*own, _DEBUG_OPTION, help_option]

    @property
    def _has_short_help(self) -> bool:
        return any(isinstance(param, Headed) and param.often for param in self.params)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        _write(self.examples, formatter)
        self.format_options(ctx, formatter)
        if _ALL in ctx.meta:
            _write(self.details, formatter)
        _write(self.epilog or "", formatter)

    @property
    def _headed(self) -> bool:
        return any(isinstance(param, Headed) for param in self.params)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not self._headed:
            super().format_options(ctx, formatter)
            return
        by_heading: dict[str, list[tuple[str, str]]] = {}
        is_short = self._has_short_help and _ALL not in ctx.meta
        for param in self.get_params(ctx):
            heading = getattr(param, "heading", MORE)
            if is_short:
                heading = "Options"
                if param is not _HELP_ALL_OPTION and not getattr(param, "often", False):
                    continue
            row = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if row is not None:
                by_heading.setdefault(heading, []).append(row)
        for heading, rows in by_heading.items():
            with formatter.section(heading):
                # click fits the columns of each section to its longest name: padded, all fit the same.
                padded = [(f"{names:<{_NAMES_WIDTH}}", text) for names, text in rows]
                formatter.write_dl(padded, col_max=_NAMES_WIDTH)

    def invoke(self, ctx: click.Context) -> None:
        if self._headed and not ctx.params.get("quiet"):
            line = unknown_variables(os.environ, ctx)
            if line is not None:
                click.echo(line, err=True)
        # Not by a return to click's groups, which would drop it: their results are for chained commands.
        ctx.exit(super().invoke(ctx) or 0)


def _write(text: str, formatter: click.HelpFormatter) -> None:
    if text:
        formatter.write_paragraph()
        formatter.write_text(text)


class Group(click.Group):
    """Commands, with --debug for the group too: one adds it to the line that failed, at its end or anywhere."""

    command_class = Command

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        *own, help_option = super().get_params(ctx)
        return [*own, _DEBUG_OPTION, help_option]


_NO_OPTIONS = (
    *("LOADBENCH_CACHE", "LOADBENCH_CATALOG_URL", "LOADBENCH_BROWSER", "LOADBENCH_NO_BROWSER", "LOADBENCH_KILLS"),
    *("LOADBENCH_UPDATE_GOLDEN", "BENCH_MODELS"),
)
"""Variables that are no option of a command."""


def unknown_variables(environment: Mapping[str, str], ctx: click.Context) -> str | None:
    """A line on variables that look like settings and are none; None where there is no such."""
    from difflib import get_close_matches

    unknown = {name for name in environment if name.startswith(("LOADBENCH_", "BENCH_"))}
    known = {*_NO_OPTIONS, *_variables(ctx.command)}
    if unknown <= known:
        return None  # what follows imports every command there is
    known |= _variables(ctx.find_root().command)
    words = []
    for name in sorted(unknown - known):
        prefix, _, rest = name.upper().partition("_")
        near = get_close_matches(rest, sorted(one.removeprefix(f"{prefix}_") for one in known), n=1, cutoff=0.75)
        if near:
            words.append(f"{name} (did you mean {prefix}_{near[0]}?)")
        elif prefix == "LOADBENCH":  # BENCH_ is a name that others use too
            words.append(name)
    return harmless(f"loadbench: no setting, ignored: {', '.join(words)}") if words else None


def _variables(command: click.Command) -> set[str]:
    """All variables that set an option of a command, or of one below it."""
    names: set[str] = set()
    for param in command.params:
        names.update([param.envvar] if isinstance(param.envvar, str) else param.envvar or ())
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            if below is not None:
                names |= _variables(below)
    return names


def variable(ctx: click.Context | None, param: click.Parameter) -> str | None:
    """The environment variable that gave the value of a parameter; None where none did."""
    if ctx is None or ctx.get_parameter_source(param.name or "") != click.core.ParameterSource.ENVIRONMENT:
        return None
    names = [param.envvar] if isinstance(param.envvar, str) else list(param.envvar or ())
    return next((name for name in names if os.environ.get(name)), None)


def under(heading: str, *, variables: bool = False) -> Callable[..., Callable[[F], F]]:
    """A maker of options under a heading.

    Args:
        variables: Whether the environment may set them: --judge-model by LOADBENCH_JUDGE_MODEL.
    """

    def option(
        *names: str, variable: bool = variables, workshop: str | None = None, **settings: Any
    ) -> Callable[[F], F]:
        """An option; `workshop` is a name of the workshop's that sets it too."""
        long = next(name for name in names if name.startswith("--")).removeprefix("--")
        envvar = [f"LOADBENCH_{long.replace('-', '_').upper()}"] if variable else []
        if workshop is not None:
            envvar.append(workshop)
        return click.option(*names, cls=Headed, heading=heading, envvar=envvar or None, **settings)

    return option


def add(made: Sequence[click.Option]) -> Callable[[F], F]:
    """A decorator that gives a command options which are made already, in their order."""

    def decorate(function: F) -> F:
        for option in reversed(made):
            # Where click's own decorators put theirs: the command takes them in reverse.
            function.__dict__.setdefault("__click_params__", []).append(option)
        return function

    return decorate


# -- options of settings


def options(
    layout: Mapping[str, Iterable[str]],
    structs: Iterable[type[Struct]],
    narrower: Mapping[str, Mapping[str, object]] | None = None,
    often: Sequence[str] = (),
) -> list[click.Option]:
    """The options of settings.

    Args:
        layout: Headings, and under each the settings in order.
        structs: What declares them.
        narrower: What click takes instead, for a setting that means something narrower here.
        often: Settings that most people use, for a --help of one screen.
    """
    from loadbench.scenario.settings import settings

    declared = {one.name: one for struct in structs for one in settings(struct)}
    made: list[click.Option] = []
    for heading, names in layout.items():
        for name in names:
            option = _option(declared[name], heading, (narrower or {}).get(name, {}))
            option.often = name in often
            made.append(option)
    return made


def _option(setting: Setting, heading: str, narrower: Mapping[str, object]) -> Headed:
    """The option of a setting. One that nobody gives has no value: then the scenario's counts, or the default."""
    flag = setting.flag
    more: dict[str, object] = {"help": flag.help, "metavar": flag.metavar, "envvar": setting.variables or None}
    match setting.reads:
        case "switch":
            more["default"] = None if "/" in flag.names else False
            more["is_flag"] = "/" not in flag.names or None
        case "choice":
            more["type"] = click.Choice(setting.choices)
        case "list" | "texts" | "headers":
            more["multiple"] = True
            more["type"] = _TYPES[setting.reads]
        case reads:
            more["type"] = _TYPES[reads]
    names = [*flag.names.split(), setting.name]
    return Headed(names, heading=heading, also=flag.also.split(), **{**more, **narrower})


class _Words(click.types.StringParamType):
    """Texts. Where a variable holds them, commas part them, or nothing does; blanks, as click has it, never."""

    def __init__(self, *, commas: bool) -> None:
        self._commas = commas

    def split_envvar_value(self, rv: str) -> list[str]:
        return [part for part in rv.split(",") if part.strip()] if self._commas else [rv]


class Parsed(click.ParamType[Any]):
    """What a function makes of a text; its ValueError says what is wrong in words that click would replace."""

    def __init__(self, parse: Callable[[str], object]) -> None:
        self._parse = parse
        self.name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def duration(text: str) -> object:
    """500ms, 30s, 5m."""
    from loadbench.scenario.bounds import Duration

    return Duration.parse(text)


def share(text: str) -> float:
    """20% or 0.2."""
    from loadbench.scenario import bounds

    return bounds.share(text)


def _numbers(kind: type[int] | type[float], words: str, text: str) -> list[float]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{text[:60]!r}: write {words}") from None


def _devices(text: str) -> list[str]:
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names or [text]:
        if name not in ("cpu", "gpu", "npu"):
            raise ValueError(f"{name!r}: write cpu, gpu or npu, several as cpu,gpu")
    return list(dict.fromkeys(names))


def _count(text: str) -> int | None:
    """A whole number of at most 18 digits; None of any other text: Python refuses thousands of them, JSON more than 19.

    >>> _count("12"), _count("-1"), _count("9" * 19), _count("٣")
    (12, None, None, None)
    """
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


_SWITCH = {"true": 1, "yes": 1, "on": 1, "false": 0, "no": 0, "off": 0}


def _tries(text: str) -> int | None:
    """A number of retries; the workshop's RETRY_ON_FAIL says true for one."""
    text = text.strip().lower()
    if not text:
        return None
    number = _SWITCH[text] if text in _SWITCH else _count(text)
    if number is None:
        raise ValueError(f"{text[:60]!r}: write a whole number, 0 for none")
    return number


MOST_WORKERS = 256
"""Processes of one machine: more of them than cores gain nothing."""


def _workers(text: str) -> int | str:
    if text == "auto":
        return text
    number = _count(text)
    if number is None or not 1 <= number <= MOST_WORKERS:
        raise ValueError(f"{text[:60]!r}: give a number from 1 to {MOST_WORKERS}, or auto")
    return number


def _certificates(text: str) -> str:
    """A file of certificate authorities, read once here: before anything is started."""
    import ssl

    from loadbench.scenario.files import open_file

    try:
        open_file(Path(text)).close()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=text)
    except FileNotFoundError:
        why = "no such file"
    except ssl.SSLError:
        why = "no PEM certificate in it"
    except (OSError, ValueError) as error:
        why = f"cannot be read ({str(getattr(error, 'strerror', None) or error).lower()})"
    else:
        return text
    advice = "give the authority's certificate as a PEM file, or accept any certificate with --insecure"
    raise ValueError(f"{text!r}: {why}: {advice}")


def _header(text: str) -> tuple[str, str]:
    from loadbench.errors import UsageError

    name, colon, value = text.partition(":")
    if not colon or not name.strip().isascii() or not name.strip():
        # Not shown: a key that was pasted without its header's name would be.
        raise UsageError("--header: write it as 'Name: value'")
    return name.strip(), value.strip()


class _FileOfEnd(click.Path):
    """A file that is written at the end: its folder must be there before anything is measured."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not path.parent.is_dir():
            self.fail(f"{str(path)!r}: no folder {path.parent}; make it first", param, ctx)
        return path


CERTIFICATES, DEVICES, DURATION, HEADER = Parsed(_certificates), Parsed(_devices), Parsed(duration), Parsed(_header)
FILE_OF_END = _FileOfEnd(path_type=Path, dir_okay=False)
_TYPES: dict[str, click.ParamType[Any]] = {
    "text": click.STRING,
    "number": click.FLOAT,
    "whole number": click.INT,
    "path": PATH,
    "folder": click.Path(path_type=Path, file_okay=False),
    "file of end": FILE_OF_END,
    "list": _Words(commas=True),
    "texts": _Words(commas=False),
    "headers": HEADER,
    "numbers": Parsed(partial(_numbers, float, "numbers as 0.5,1")),
    "whole numbers": Parsed(partial(_numbers, int, "whole numbers as 1,2,4")),
    "duration": DURATION,
    "share": Parsed(share),
    "tries": Parsed(_tries),
    "devices": DEVICES,
    "certificates": CERTIFICATES,
    "workers": Parsed(_workers),
}
"""How the text behind a flag is read, by the names in scenario/settings.py."""


def scenario_file(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """A callback for a scenario: a file of that ending, else the name of one that comes with loadbench."""
    from loadbench.errors import UsageError
    from loadbench.scenario import shipped
    from loadbench.text import printable

    if value is None:
        return None
    path = Path(value)
    if path.suffix.lower() in (".toml", ".json"):
        return path
    ready = shipped()
    if value in ready and not path.exists():
        return ready[value]
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
        advice = "write it in TOML"
    else:
        advice = f"give its whole name, or one of {', '.join(ready)}; a model is named with -m"
    raise UsageError(f"{printable(value)}: a scenario file ends in .toml or .json: {advice}")
