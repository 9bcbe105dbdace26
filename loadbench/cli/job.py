"""From a command line to a job: a scenario file, flags and environment; or the folder of the run that goes on."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec import Struct

from loadbench import scenario as scenarios
from loadbench.cli.options import variable
from loadbench.errors import ScenarioError, UsageError
from loadbench.runner import connect
from loadbench.runner.job import Job, Limits, Output, Search, Server, Sharing
from loadbench.scenario import Scenario
from loadbench.scenario.files import parse_json
from loadbench.scenario.settings import settings
from loadbench.server import Target
from loadbench.text import shown

_BESIDE_RESUME = {
    *("resume", "as_json", "quiet", "no_progress", "wait", "headers", "extra_body", "insecure", "ca_file", "strict"),
    *("junit", "yes", "workers", "cluster"),
}
LOADS = ("concurrency", "request_rate", "shape", "trace")
"""Settings that say when requests start, of which one is given."""
_LENGTHS = ("requests", "duration", "repeat", "until", "budget", "warmup", "against", "resume", "cold", "idle_gap")
"""Settings that say how long a run is to be: without any of them, and without a load, it is a first look."""
_INSTEAD = (
    *(LOADS, ("requests", "duration"), ("texts", "prompts", "input_length"), ("trace", "input_length")),
    ("api_key_env", "api_key_file"),
)
Values = dict[str, Any]
"""What click read, by the names of settings; None, False or () where nothing was given."""
S = TypeVar("S", bound=Struct)


def job_of(ctx: click.Context, values: Values) -> Job:
    """The job of `loadbench run` and `capacity`."""
    words = values["models"] or [os.environ.get("BENCH_MODELS", "")]
    takes_all = [word.strip().lower() for word in words] == ["all"]
    return Job(
        scenario=_scenario_of(ctx, values) if values["resume"] is None else _beside_resume(ctx, values),
        server=part(Server, values, every_model=takes_all),
        sharing=part(Sharing, values),
        limits=part(Limits, values, first_look=_is_first_look(values)),
        output=part(Output, values),
        search=part(Search, values) if "by" in values else None,
        resume=values["resume"],
        command=tuple(sys.argv),
    )


def chat_job(values: Values, scenario: Scenario | None = None, **more: Any) -> Job:
    """A job that measures nothing: it asks the server of the options, else of a scenario, for some models."""
    fields = {**_fields(values), **more}
    if fields.get("models") is not None:
        fields["models"] = _names(fields["models"])
    scenario = scenarios.merge(scenario or Scenario(), **fields, concurrency=[1])
    return Job(scenario=scenario, server=part(Server, values))


def part(struct: type[S], values: Values, **more: Any) -> S:
    """Those of a struct's settings that are given; the others have their defaults."""
    for one in settings(struct):
        if values.get(one.name) is not None:
            more[one.field] = values[one.name]
    return struct(**more)


def _fields(values: Values) -> dict[str, Any]:
    """The fields of a scenario that options or variables give."""
    fields: dict[str, Any] = {}
    for one in settings(Scenario):
        value = values.get(one.name)
        if isinstance(value, tuple):
            value = list(value) or None
        if value is not None:
            fields[one.field] = value
    if "headers" in fields:
        fields["headers"] = dict(fields["headers"])
    if "extra_body" in fields:
        text = fields["extra_body"]
        fields["extra_body"] = body = parse_json(text, "--extra-body")
        if not isinstance(body, dict):
            raise UsageError(f"--extra-body {shown(text)}: must be a JSON object, as '{{\"ignore_eos\": true}}'")
    return fields


def _names(parts: list[str]) -> list[str] | str | None:
    """Names that several options give, several each; "auto" for all at hand."""
    names = [name.strip() for name in ",".join(parts).split(",") if name.strip()]
    return "auto" if [name.lower() for name in names] in (["auto"], ["all"]) else names or None


def _beside_resume(ctx: click.Context, values: Values) -> Scenario:
    """What a run that goes on takes from its options: secrets, which its folder does not store."""
    for name in values:
        if name not in _BESIDE_RESUME and _from_flag(ctx, name):
            option = next(param for param in ctx.command.params if param.name == name)
            what = option.human_readable_name if isinstance(option, click.Argument) else option.opts[0]
            raise UsageError(f"--resume takes its plan from the folder: leave out {what}")
    fields = _fields({name: values[name] for name in ("headers", "extra_body")})
    return Scenario(**fields)


def _scenario_of(ctx: click.Context, values: Values) -> Scenario:
    """The scenario file, or an empty one, with what flags and environment say."""
    for group in _INSTEAD:  # where a flag gives one of them, variables that give the others do not count
        if any(_from_flag(ctx, name) for name in group):
            values.update({name: None for name in group if name in values and not _from_flag(ctx, name)})
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
    scenario = Scenario() if path is None else scenarios.read(path)
    if path is None and not loads:
        scenario = scenarios.merge(scenario, concurrency=[1, 2, 4, 8])
    if _is_first_look(values):  # dozens of requests a level on a slow machine too, and no prompt cache that answers
        scenario = scenarios.merge(scenario, max_tokens=32, distinct_prompts=True, repeat_first=False)
    fields = _fields(values)
    workshop = os.environ.get("BENCH_MODELS", "")
    if "models" in fields:
        fields["models"] = _names(fields["models"])
        if fields["models"] is None:
            raise UsageError("-m is empty: name a model, or leave it out for those that the server has loaded")
    elif workshop.strip().lower() not in ("", "auto", "all"):
        fields["models"] = [name for name in workshop.split(",") if name.strip()]
    if "against_model" in fields:
        fields["against_model"] = [
            name.strip() for name in ",".join(fields["against_model"]).split(",") if name.strip()
        ]
    if len(values["endpoint"]) == 1:
        fields["endpoint"] = values["endpoint"][0]  # as a scenario has it: one is a text
    try:
        return scenarios.merge(scenario, **fields)
    except ScenarioError as error:
        raise ScenarioError(_blamed(ctx, str(error))) from None


def _is_first_look(values: Values) -> bool:
    """Whether nothing is said of loads and lengths. A search has its own."""
    return "by" not in values and not any(values[name] for name in ("scenario_file", *LOADS, *_LENGTHS))


def _from_flag(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE


def _blamed(ctx: click.Context, message: str) -> str:
    """A message on the merged settings, with the flag or the variable that gave the value named first."""
    match = re.match(r"options: (\w+)", message)
    names = [one.name for one in settings(Scenario) if match is not None and one.field == match[1]]
    for param in ctx.command.params:
        name = param.name or ""
        if name in names:
            source = param.opts[0] if _from_flag(ctx, name) else variable(ctx, param)
            if source is not None:
                return message.replace("options", source, 1)
    return message


def server_text(target: Target, how: str) -> str:
    """As `http://127.0.0.1:5273/v1 (foundry2), FOUNDRY_LOCAL_ENDPOINT`: whom a command asks."""
    return f"{target.base_url} ({' '.join(filter(None, (target.kind, target.version)))}), {how}"


def with_key(how: str, scenario: Scenario) -> str:
    """How a server was found, and which variable or file its key is from."""
    source = connect.key_source(scenario.api_key_env, scenario.api_key_file, how)
    return how if source is None else f"{how}, key from {source}"
