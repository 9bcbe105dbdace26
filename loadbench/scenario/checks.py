"""What no single field of a scenario shows: values that contradict each other, and the small grammars."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadbench.errors import ScenarioError, UsageError
from loadbench.scenario.bounds import Bound, Threshold, check_written
from loadbench.scenario.loads import Length, Pause, Shape
from loadbench.text import at, shown

if TYPE_CHECKING:
    from loadbench.scenario.schema import Scenario

OURS = {
    "model": "it comes from models",
    "messages": "they come from prompts",
    "stream": "set stream outside extra_body (--no-stream)",
    "max_tokens": "set max_tokens outside extra_body",
    "temperature": "set temperature outside extra_body",
}
"""Keys of the request that extra_body must not override, or the run's record would say what was not sent."""


FRAMING = ("content-length", "transfer-encoding", "connection", "host", "expect", "upgrade")
"""Headers that say how a request is sent: a wrong one makes a server wait for what never comes."""

LOADS = ("concurrency", "request_rate", "shape", "trace")
"""What says when requests start; one of them, or none for one stream."""


def check(scenario: Scenario) -> None:
    """All checks, in the order in which a reader would mend what they find.

    Raises:
        ScenarioError: With the place in the scenario, without the file.
    """
    for problem in (_name, _load, _times, _endpoints, _models, _workload, _request, _bounds):
        problem(scenario)


def _name(scenario: Scenario) -> None:
    if not re.fullmatch(r"\w[\w.-]{0,63}", scenario.name):
        raise ScenarioError(f"name is {shown(scenario.name)}: use up to 64 letters, digits, dots, - and _, no spaces")


def _load(scenario: Scenario) -> None:
    given = [name for name in LOADS if getattr(scenario, name) is not None]
    if len(given) > 1:
        raise ScenarioError(f"{given[0]} and {given[1]} are both given: keep one, or make two scenarios")
    for index, text in enumerate(scenario.shapes_written):
        try:
            Shape.parse(text)
        except UsageError as error:
            place = "shape" if isinstance(scenario.shape, str) else at(("shape", index))
            raise ScenarioError(f"{place}: {error}") from None
    if scenario.trace is None and scenario.trace_speed != 1:
        raise ScenarioError(f"trace_speed is {scenario.trace_speed:g}: give a trace to replay, or leave it out")
    if scenario.until is not None:
        loads = next((getattr(scenario, name) for name in given), None)
        if 1 < scenario.repeat < 3:
            raise ScenarioError(f"until takes 3 runs, repeat is {scenario.repeat}: leave repeat out, or raise it")
        if isinstance(loads, list) and len(set(loads)) < len(loads):
            raise ScenarioError(f"until repeats each load: name none twice in {given[0]}")
    if scenario.think_time is not None:
        if given and given != ["concurrency"]:
            raise ScenarioError(f"think_time and {given[0]} are both given: users pause in a closed loop (concurrency)")
        try:
            Pause.parse(scenario.think_time)
        except UsageError as error:
            raise ScenarioError(f"think_time: {error}") from None


def _times(scenario: Scenario) -> None:
    if scenario.duration is not None and not scenario.duration > 0:
        raise ScenarioError(f"duration is {scenario.duration}: must be more than 0")
    for name in ("idle_gap", "keep_warm"):
        value = getattr(scenario, name)
        if value is not None and not value > 0:
            raise ScenarioError(f"{name} is {value}: must be more than 0")
    if scenario.keep_warm is not None and (scenario.idle_gap is None or scenario.keep_warm >= scenario.idle_gap):
        raise ScenarioError(f"keep_warm is {scenario.keep_warm}: give an idle_gap that is longer")


def _endpoints(scenario: Scenario) -> None:
    urls, weights = scenario.endpoints, scenario.weights
    for index, url in enumerate(urls):
        if "," in url and "://" in url.partition(",")[2]:
            raise ScenarioError(f"endpoint {shown(url)} holds several: name each by itself, with an -e of its own")
        if url in urls[:index]:
            raise ScenarioError(
                f"{at(('endpoint', index))} is {shown(url)} again: name each endpoint once; weights say who gets more"
            )
    if weights is not None and len(weights) != len(urls):
        raise ScenarioError(f"weights has {len(weights)} for {len(urls)} endpoints: give each endpoint (-e) one")
    if len(urls) < 2:
        return
    if scenario.against is not None:
        raise ScenarioError(
            f"against and {len(urls)} endpoints are both given: two single servers take turns; keep one"
        )
    if scenario.cold:
        raise ScenarioError(
            "cold and several endpoints are both given: of replicas no model is loaded; keep one of both"
        )


def _models(scenario: Scenario) -> None:
    if not scenario.models:
        raise ScenarioError('models is "": write "auto", a list of names, or the path of a models.json')
    if scenario.against_model is not None and scenario.against is None:
        raise ScenarioError("against_model names a model of against: give both")
    if isinstance(scenario.models, list):
        for index, model in enumerate(scenario.models):
            if model in scenario.models[:index]:
                raise ScenarioError(f"{at(('models', index))} is {shown(model)} again: name each model once")
    for index, text in enumerate(scenario.prompts if isinstance(scenario.prompts, list) else ()):
        if not text.strip():
            raise ScenarioError(f"{at(('prompts', index))} is {shown(text)}: a prompt must hold text")


def _workload(scenario: Scenario) -> None:
    for name in ("prompts", "input_length"):
        if scenario.trace is not None and getattr(scenario, name) is not None:
            raise ScenarioError(f"{name} and trace are both given: a trace says how long its prompts are; keep one")
    if scenario.trace is not None and scenario.output_length is not None:
        raise ScenarioError("output_length and trace are both given: a trace says how long its answers are; keep one")
    if scenario.prompts is not None and scenario.input_length is not None:
        raise ScenarioError("prompts and input_length are both given: keep the prompts, or have some made up")
    if scenario.shared_prefix and scenario.input_length is None:
        raise ScenarioError("shared_prefix is for prompts that are made up: give their input_length")
    for name, unit in (("input_length", None), ("output_length", "tokens")):
        text = getattr(scenario, name)
        try:
            if text is not None:
                Length.parse(text, unit="tokens" if unit else None)
        except UsageError as error:
            raise ScenarioError(f"{name}: {error}") from None


def _request(scenario: Scenario) -> None:
    for key, value in scenario.extra_body.items():
        if value is None and (key != "stream" or not scenario.stream):
            continue  # taken out of the request
        if key in OURS:
            raise ScenarioError(f"extra_body.{key}: not here, {OURS[key]}")
        if key in scenario.__struct_fields__ and key != "seed":  # written below [extra_body], TOML counts it to it
            raise ScenarioError(f"extra_body.{key}: move it above [extra_body]")
    for name, value in scenario.headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise ScenarioError(f"{at(('headers', name))}: no valid header name")
        if name.lower() in FRAMING:
            raise ScenarioError(f"{at(('headers', name))}: loadbench writes this header itself; remove it")
        if not (value.isascii() and value.isprintable()):
            raise ScenarioError(f"{at(('headers', name))}: a header's value must be printable ASCII on one line")
    if scenario.api_key_env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", scenario.api_key_env):
        # The value is not shown: it may be the key itself.
        raise ScenarioError("api_key_env: must be the name of an environment variable, never the key itself")
    if scenario.api_key_env is not None and scenario.api_key_file is not None:
        raise ScenarioError("api_key_env and api_key_file are both given: keep one")


def _bounds(scenario: Scenario) -> None:
    for index, text in enumerate(scenario.slo):
        try:
            check_written(Bound.parse(text))
        except UsageError as error:
            raise ScenarioError(f"{at(('slo', index))}: {error}") from None
    for index, written in enumerate(scenario.fail_if):
        try:
            check_written(Threshold.of(written).bound, holds=False)
        except UsageError as error:
            raise ScenarioError(f"{at(('fail_if', index))}: {error}") from None
