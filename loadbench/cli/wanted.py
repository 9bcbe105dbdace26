"""The scenario that a command line wants: file, flags and environment, or the folder of the run that goes on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.options import header_lines

if TYPE_CHECKING:
    from loadbench.scenario import Scenario

_BESIDE_RESUME = {
    *("resume", "json", "as_json", "quiet", "no_progress", "wait_for", "headers", "extra_body", "insecure", "ca_file"),
    *("strict", "junit", "yes", "workers", "cluster"),
}


LOADS = ("concurrency", "request_rate", "shape", "trace")
"""Options that say when requests start, of which one is given."""
WORKLOAD = (
    *("trace", "trace_speed", "think_time", "turns", "input_length", "output_length", "shared_prefix"),
    "output_exact",
)


def resumed(ctx: click.Context, given: dict[str, Any]) -> Scenario:
    """The scenario of the run that is continued, its models and budget as they were; options against it are refused."""
    from loadbench import scenario as scenarios
    from loadbench.errors import UsageError
    from loadbench.store import read_info
    from loadbench.text import NOT_STORED, not_stored

    source = click.core.ParameterSource
    for name in given:
        if name not in _BESIDE_RESUME and ctx.get_parameter_source(name) == source.COMMANDLINE:
            option = next(param for param in ctx.command.params if param.name == name)
            what = option.human_readable_name if isinstance(option, click.Argument) else option.opts[0]
            raise UsageError(f"--resume takes its plan from the folder: leave out {what}")
    info = read_info(given["resume"])
    if (wrote := "run" if info.get("capacity") is None else "capacity") != ctx.command.name:
        raise UsageError(f"{given['resume']}: continue it with loadbench {wrote} --resume, which began it")
    if not isinstance(info.get("scenario"), dict):
        raise UsageError(f"{given['resume']}: its run.json holds no scenario to continue")
    scenario = scenarios.from_json(info["scenario"], str(given["resume"] / "run.json"))
    headers = header_lines(given["headers"])
    again = {name.lower() for name in headers or ()}
    for name, value in scenario.headers.items():
        if value == NOT_STORED and name.lower() not in again:
            raise UsageError(
                f"{given['resume']}: sent a header {name}, whose value is not stored: give it with --header"
            )
    body, lacking = _extra_body(given["extra_body"]) or {}, not_stored(scenario.extra_body)
    if lacking != [name for name in lacking if name in body]:
        raise UsageError(
            f"{given['resume']}: sent {', '.join(lacking)} in extra_body, whose value is not stored: give it with "
            "--extra-body"
        )
    if set(body) - set(lacking):
        raise UsageError("--resume takes its plan from the folder: leave out --extra-body, but for what is not stored")
    for name in [name for name in scenario.headers if name.lower() in again]:
        del scenario.headers[name]
    budget_s = info.get("budget_s")
    given["budget"] = budget_s if isinstance(budget_s, int | float) else None
    models = None
    if scenario.models == "auto" and isinstance(facts := info.get("target"), dict):
        models = [one["id"] for one in facts.get("models") or () if isinstance(one, dict) and "id" in one]
    return scenarios.merge(scenario, headers=headers, extra_body=body or None, models=models or None)


def scenario_of(ctx: click.Context, given: dict[str, Any]) -> Scenario:
    """The scenario file, or an empty one, with what flags and environment say."""
    from loadbench import scenario as scenarios
    from loadbench.errors import ScenarioError, UsageError

    _flags_first(ctx, given)
    if given["simulate"] and given["endpoint"] and _from_flag(ctx, "endpoint"):
        raise UsageError("--simulate and -e are both given: keep one")
    if given["concurrency"] is not None and given["request_rate"] is not None:
        raise UsageError("-c and -r are both given: a run is closed loop (-c) or open loop (-r)")
    if given["texts"] and given["prompts_file"]:
        raise UsageError("--prompt and --prompts are both given: keep one")
    loads = [name for name in LOADS if given.get(name)]
    if len(loads) > 1:
        one, other = (next(param.opts[0] for param in ctx.command.params if param.name == name) for name in loads[:2])
        raise UsageError(f"{one} and {other} are both given: keep one")
    path: Path | None = given["scenario_file"]
    scenario = scenarios.Scenario() if path is None else scenarios.read(path)
    if path is None and not loads:
        scenario = scenarios.merge(scenario, concurrency=[1, 2, 4, 8])
    overrides = {
        name: given[name]
        for name in (
            *("weights", "concurrency", "request_rate", "arrivals", "requests", "duration", "warmup", "max_tokens"),
            *("temperature", "system", "distinct_prompts", "repeat", "until", "repeat_first", "seed", "max_streams"),
            *("api_key_env", "api_key_file", "name"),
            *("execution_provider", "stream", "retries", "retry_backoff", "max_failed", "cold", "idle_gap"),
            *("keep_warm", "price_per_kwh", "declared_watts"),
        )
    }
    overrides |= {name: given.get(name) for name in WORKLOAD}
    models, others = (
        [name.strip() for part in parts or () for name in part.split(",") if name.strip()]
        for parts in (given["models"], given.get("against_model"))
    )
    if given["models"] and not models:
        raise UsageError("-m is empty: name a model, or leave it out for those that the server has loaded")
    models = models or _workshop_models()
    try:
        return scenarios.merge(
            scenario,
            **overrides,
            models="auto" if [name.lower() for name in models] in (["auto"], ["all"]) else models or None,
            endpoint=_endpoint(given["endpoint"]),
            against=given.get("against"),
            against_model=others or None,
            device=given["devices"],
            prompts=list(given["texts"] or ()) or given["prompts_file"],
            shape=list(given.get("shape") or ()) or None,
            slo=list(given["slo"]) or None,
            fail_if=list(given.get("fail_if") or ()) or None,
            extra_body=_extra_body(given["extra_body"]),
            headers=header_lines(given["headers"]),
        )
    except ScenarioError as error:
        raise ScenarioError(_blamed(ctx, str(error))) from None


def _endpoint(given: tuple[str, ...]) -> str | list[str] | None:
    """As a scenario has it: one is a text."""
    return given[0] if len(given) == 1 else list(given) or None


_INSTEAD = (
    *(LOADS, ("requests", "duration"), ("texts", "prompts_file", "input_length"), ("trace", "input_length")),
    ("api_key_env", "api_key_file"),
)


def _flags_first(ctx: click.Context, given: dict[str, Any]) -> None:
    """Drop what a variable says where a flag says another of those that replace each other."""
    for names in _INSTEAD:
        if any(_from_flag(ctx, name) for name in names):
            given.update({name: None for name in names if name in given and not _from_flag(ctx, name)})


def _from_flag(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE


_FIELDS = {"texts": "prompts", "prompts_file": "prompts", "devices": "device"}


def _blamed(ctx: click.Context, message: str) -> str:
    """A message on the merged options, with the flag or the variable that gave the value named first."""
    from loadbench.cli import variable

    field = re.match(r"options: (\w+)", message)
    for param in ctx.command.params:
        name = param.name or ""
        if field is not None and _FIELDS.get(name, name) == field[1]:
            if _from_flag(ctx, name):
                return message.replace("options", param.opts[0], 1)
            if (found := variable(ctx, param)) is not None:
                return message.replace("options", found, 1)
    return message


def _workshop_models() -> list[str]:
    import os

    text = os.environ.get("BENCH_MODELS", "")
    return [] if text.strip().lower() in ("", "auto", "all") else [name for name in text.split(",") if name.strip()]


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
