"""From a command line to a job: a scenario file, flags and environment; or the folder of the run that goes on."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from loadbench.cli.options import header_lines

if TYPE_CHECKING:
    from msgspec import Struct

    from loadbench.runner.job import Job
    from loadbench.scenario import Scenario

_BESIDE_RESUME = {
    *("resume", "as_json", "quiet", "no_progress", "wait", "headers", "extra_body", "insecure", "ca_file", "strict"),
    *("junit", "yes", "workers", "cluster"),
}
LOADS = ("concurrency", "request_rate", "shape", "trace")
"""Settings that say when requests start, of which one is given."""
_INSTEAD = (
    *(LOADS, ("requests", "duration"), ("texts", "prompts", "input_length"), ("trace", "input_length")),
    ("api_key_env", "api_key_file"),
)
Values = dict[str, Any]
"""What click read, by the names of settings; None, False or () where nothing was given."""
S = TypeVar("S", bound="Struct")


def job_of(ctx: click.Context, values: Values) -> Job:
    """The job that a command's options ask for.

    Raises:
        UsageError, ScenarioError: They contradict each other, or are not valid.
    """
    from loadbench.runner.job import Job, Limits, Output, Search, Server, Sharing

    resumes = values["resume"] is not None
    scenario = _beside_resume(ctx, values) if resumes else scenario_of(ctx, values)
    server = part(Server, values, every_model=_takes_all(values))
    return Job(
        scenario=scenario,
        server=server,
        sharing=part(Sharing, values),
        limits=part(Limits, values),
        output=part(Output, values),
        search=part(Search, values) if "by" in values else None,
        resume=values["resume"],
        command=tuple(sys.argv),
    )


def part(struct: type[S], values: Values, **more: Any) -> S:
    """Those of a job's settings that are given; the others have their defaults."""
    from loadbench.scenario.settings import settings

    for one in settings(struct):
        if values.get(one.name) is not None:
            more[one.field] = values[one.name]
    return struct(**more)


def _takes_all(values: Values) -> bool:
    """Whether all models at hand are meant, by that word."""
    words = values["models"] or [os.environ.get("BENCH_MODELS", "")]
    return [word.strip().lower() for word in words] == ["all"]


def _beside_resume(ctx: click.Context, values: Values) -> Scenario:
    """What a run that goes on may be told again: secrets, which its folder does not store."""
    from loadbench.errors import UsageError
    from loadbench.scenario import Scenario

    for name in values:
        if name not in _BESIDE_RESUME and _from_flag(ctx, name):
            option = next(param for param in ctx.command.params if param.name == name)
            what = option.human_readable_name if isinstance(option, click.Argument) else option.opts[0]
            raise UsageError(f"--resume takes its plan from the folder: leave out {what}")
    return Scenario(headers=header_lines(values["headers"]) or {}, extra_body=_extra_body(values["extra_body"]) or {})


def scenario_of(ctx: click.Context, values: Values) -> Scenario:
    """The scenario file, or an empty one, with what flags and environment say."""
    from loadbench import scenario as scenarios
    from loadbench.errors import ScenarioError, UsageError
    from loadbench.scenario.settings import settings

    _flags_first(ctx, values)
    if values["simulate"] and values["endpoint"] and _from_flag(ctx, "endpoint"):
        raise UsageError("--simulate and -e are both given: keep one")
    if values.get("concurrency") is not None and values.get("request_rate") is not None:
        raise UsageError("-c and -r are both given: a run is closed loop (-c) or open loop (-r)")
    if values["texts"] and values["prompts"]:
        raise UsageError("--prompt and --prompts are both given: keep one")
    loads = [name for name in LOADS if values.get(name)]
    if len(loads) > 1:
        one, other = (next(param.opts[0] for param in ctx.command.params if param.name == name) for name in loads[:2])
        raise UsageError(f"{one} and {other} are both given: keep one")
    path: Path | None = values["scenario_file"]
    scenario = scenarios.Scenario() if path is None else scenarios.read(path)
    if path is None and not loads:
        scenario = scenarios.merge(scenario, concurrency=[1, 2, 4, 8])
    fields: dict[str, Any] = {}
    for each in settings(scenarios.Scenario):
        value = values.get(each.name)
        if each.reads in ("list", "texts"):
            value = list(value or ()) or None
        if value is not None:
            fields[each.field] = value
    if values["models"]:
        fields["models"] = _models(values["models"])
    elif names := _workshop_models():
        fields["models"] = names
    if values.get("against_model"):
        fields["against_model"] = _names(values["against_model"])
    if len(values["endpoint"]) == 1:
        fields["endpoint"] = values["endpoint"][0]  # as a scenario has it: one is a text
    fields["extra_body"] = _extra_body(values["extra_body"])
    fields["headers"] = header_lines(values["headers"])
    try:
        return scenarios.merge(scenario, **fields)
    except ScenarioError as error:
        raise ScenarioError(_blamed(ctx, str(error))) from None


def _names(parts: tuple[str, ...]) -> list[str]:
    """Names that several options give, several each."""
    return [name.strip() for name in ",".join(parts).split(",") if name.strip()]


def _models(parts: tuple[str, ...]) -> list[str] | str:
    from loadbench.errors import UsageError

    names = _names(parts)
    if not names:
        raise UsageError("-m is empty: name a model, or leave it out for those that the server has loaded")
    return "auto" if [name.lower() for name in names] in (["auto"], ["all"]) else names


def _workshop_models() -> list[str]:
    text = os.environ.get("BENCH_MODELS", "")
    return [] if text.strip().lower() in ("", "auto", "all") else [name for name in text.split(",") if name.strip()]


def _flags_first(ctx: click.Context, values: Values) -> None:
    """Drop what a variable says where a flag says another of those that replace each other."""
    for names in _INSTEAD:
        if any(_from_flag(ctx, name) for name in names):
            values.update({name: None for name in names if name in values and not _from_flag(ctx, name)})


def _from_flag(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE


def _blamed(ctx: click.Context, message: str) -> str:
    """A message on the merged settings, with the flag or the variable that gave the value named first."""
    from loadbench.cli import variable
    from loadbench.scenario import Scenario
    from loadbench.scenario.settings import settings

    field = re.match(r"options: (\w+)", message)
    names = [one.name for one in settings(Scenario) if field is not None and one.field == field[1]]
    for param in ctx.command.params:
        name = param.name or ""
        if name in names:
            if _from_flag(ctx, name):
                return message.replace("options", param.opts[0], 1)
            if (found := variable(ctx, param)) is not None:
                return message.replace("options", found, 1)
    return message


def _extra_body(text: str | None) -> dict[str, Any] | None:
    from loadbench.errors import UsageError
    from loadbench.scenario.files import parse_json
    from loadbench.text import shown

    if text is None:
        return None
    body = parse_json(text, "--extra-body")
    if not isinstance(body, dict):
        raise UsageError(f"--extra-body {shown(text)}: must be a JSON object, as '{{\"ignore_eos\": true}}'")
    return body
