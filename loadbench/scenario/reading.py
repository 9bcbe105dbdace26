"""From a file to a Scenario and back: every fault becomes one line that names the file, the place, the value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from loadbench.errors import ScenarioError
from loadbench.scenario.bounds import decoded, encoded
from loadbench.scenario.files import Table, check, expanded, is_list, parse_json, parse_toml, read_text
from loadbench.scenario.items import PROMPTS, TRACES, ending
from loadbench.scenario.schema import LOADS, Scenario, Timeouts
from loadbench.text import STARS, at, nearest, printable, shown, stored_body, stored_header

_INSTEAD = (set(LOADS), {"requests", "duration"}, {"prompts", "input_length"}, {"api_key_env", "api_key_file"})
"""Fields of which the command line's one replaces the file's other."""
_BESIDE = {
    "endpoint": ("weights",),
    "concurrency": ("trace_speed",),
    "request_rate": ("think_time", "trace_speed"),
    "shape": ("think_time", "trace_speed"),
    "trace": ("think_time", "prompts", "input_length", "output_length", "shared_prefix"),
    "prompts": ("shared_prefix",),
}
"""What of the file has no place beside a field of the command line."""
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "null",
}
_TYPES = {"int": int, "float": float, "str": str, "bool": bool, "array": list, "object": dict, "null": type(None)}


def shipped() -> dict[str, Path]:
    """The scenario files that come with loadbench, by their names: those of the wheel, or of the clone it runs from.

    >>> "quickstart" in shipped()
    True
    """
    inside = Path(__file__).with_name("shipped")
    folder = inside if inside.is_dir() else Path(__file__).parents[2] / "scenarios"
    return {path.stem: path for path in sorted(folder.rglob("*.toml"))}


def read(path: Path) -> Scenario:
    """Read and check a scenario file, TOML or JSON by its ending; paths in it are relative to its folder.

    Raises:
        ScenarioError: One line that names the file, the place in it, the value, and what to do.
    """
    path = Path(path)
    where = printable(str(path))
    if path.suffix.lower() not in (".toml", ".json"):
        raise ScenarioError(f"{where}: a scenario file ends in .toml or .json")
    text = read_text(path)
    if path.suffix.lower() == ".toml":
        data = parse_toml(text, where)
    else:
        data = parse_json(text, where)
    if isinstance(data, dict):
        data.setdefault("name", re.sub(r"[^\w.-]+", "-", path.stem).strip("-.")[:64] or "run")
    return _scenario(data, where, path.parent)


def from_json(data: bytes | str | Table, where: str = "scenario") -> Scenario:
    """A Scenario from JSON or plain data, as `to_builtins` gives it.

    Raises:
        ScenarioError: As `read`; `where` stands for the file's name.
    """
    if isinstance(data, bytes):
        try:
            data = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ScenarioError(f"{where}: not UTF-8 (byte {error.start})") from None
    if isinstance(data, str):
        data = parse_json(data, where)
    else:
        check(data, where)
    return _scenario(data, where, Path())


def merge(scenario: Scenario, **overrides: object) -> Scenario:
    """The scenario with what the command line or the environment says; None means "not given".

    A load replaces the other kind of load, a stop rule the other stop rule, prompts those that are made up, unless both
    are given; headers, extra_body and timeouts are added to. Paths are relative to the working directory.

    Raises:
        ScenarioError: If the result is not valid.
        TypeError: If there is no such field.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    if unknown := given.keys() - set(Scenario.__struct_fields__):
        raise TypeError(f"no such field of a Scenario: {', '.join(sorted(unknown))}")
    data, plain = _plain(scenario), _plain(Scenario())
    for fields in _INSTEAD:
        if fields & given.keys():
            data |= dict.fromkeys(fields, None)
    for field in given.keys() & _BESIDE.keys():
        for name in _BESIDE[field]:
            data[name] = plain[name]
    new = _plain(given)
    for key in ("headers", "extra_body", "timeouts"):  # tables are added to, not replaced
        if isinstance(new.get(key), dict):
            new[key] = data[key] | new[key]
    data |= new
    if isinstance(data["models"], list):
        data["model_facts"] = {name: facts for name, facts in data["model_facts"].items() if name in data["models"]}
    check(data, "options")
    return _scenario(data, "options", Path())


def to_builtins(scenario: Scenario, instead: str = STARS) -> Table:
    """The scenario in full as plain JSON data, for run.json; reads back with `from_json`.

    Args:
        instead: What stands in place of what may be a secret, in headers and in `extra_body`: results are shared.
    """
    data = dict(_plain(scenario))
    data["headers"] = {name: stored_header(name, value, instead) for name, value in data["headers"].items()}
    data["extra_body"] = stored_body(data["extra_body"], instead)
    return data


def read_models(path: Path) -> dict[str, Table]:
    """A models.json: `{name: {"capabilities": [...], "size_mb": n, ...}}`, or a list of names; by name what it says.

    Raises:
        ScenarioError: If it is neither.
    """
    where = printable(str(path))
    data = parse_json(read_text(path), where)
    if isinstance(data, list):
        for index, name in enumerate(data):
            if not isinstance(name, str) or not name.strip():
                raise ScenarioError(f"{where}: [{index}] is {shown(name)}: must be the name of a model")
            if name in data[:index]:
                raise ScenarioError(f"{where}: [{index}] is {shown(name)} again: name each model once")
        data = {name: {} for name in data}
    if not isinstance(data, dict) or not data:
        raise ScenarioError(f'{where}: must be a table of models, as {{"phi-4-mini": {{"size_mb": 3600}}}}')
    for name, facts in data.items():
        if not name.strip() or not isinstance(facts, dict):
            raise ScenarioError(f'{where}: {at((name,))} is {shown(facts)}: must be a table, as {{"size_mb": 3600}}')
        capabilities = facts.get("capabilities", [])
        if not is_list(capabilities, str):
            raise ScenarioError(
                f"{where}: {at((name, 'capabilities'))} is {shown(capabilities)}: must be a list of texts"
            )
        size = facts.get("size_mb")
        if isinstance(size, bool) or not isinstance(size, int | float | None) or (size is not None and size < 0):
            raise ScenarioError(f"{where}: {at((name, 'size_mb'))} is {shown(size)}: must be a number, at least 0")
    return data


def _plain(value: object) -> Any:
    return msgspec.to_builtins(value, enc_hook=encoded)


def _scenario(data: object, where: str, folder: Path) -> Scenario:
    if not isinstance(data, dict):
        raise ScenarioError(f"{where}: must be a table of settings, not {shown(data)}")
    _known(data, Scenario, (), where)
    if isinstance(data.get("timeouts"), dict):
        _known(data["timeouts"], Timeouts, ("timeouts",), where)
    try:
        data = data | _files(data, folder)
        if isinstance(data.get("extra_body"), str):  # as JSON: TOML has no null, which takes a key out
            data["extra_body"] = parse_json(data["extra_body"], "extra_body")
        return msgspec.convert(data, Scenario, dec_hook=decoded)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"{where}: {_line(str(error), data)}") from None
    except ScenarioError as error:
        raise ScenarioError(f"{where}: {error}") from None


def _known(data: Table, kind: type[msgspec.Struct], keys: tuple[str, ...], where: str) -> None:
    for key in data:
        if key not in kind.__struct_fields__:
            hint = nearest(key, kind.__struct_fields__)
            # Written below a table's heading, TOML counts it to the table.
            if keys and key in Scenario.__struct_fields__:
                hint = f": move it above [{keys[0]}]"
            raise ScenarioError(f"{where}: unknown key {at((*keys, key))}{hint}")


def _files(data: Table, folder: Path) -> Table:
    """Models read from their file, the paths of prompts, trace and key made good from here."""
    found: Table = {}
    models, prompts = data.get("models"), data.get("prompts")
    if isinstance(models, str) and models.lower().endswith(".json"):
        try:
            facts = read_models(folder / models)
        except ScenarioError as error:
            raise ScenarioError(f"models: {error}") from None
        found |= {"models": list(facts), "model_facts": facts}
    elif isinstance(models, str) and models != "auto" and models:
        found["models"] = [models]
    if isinstance(data.get("trace"), str) and data["trace"]:
        if ending(data["trace"]) not in TRACES:
            raise ScenarioError(f"trace is {shown(data['trace'])}: must be the path of a .jsonl or .csv file")
        found["trace"] = str(folder / data["trace"])
    if isinstance(data.get("api_key_file"), str) and data["api_key_file"]:
        found["api_key_file"] = str(folder / expanded(data["api_key_file"], "api_key_file"))
    if isinstance(prompts, str):
        if ending(prompts) not in PROMPTS:
            kinds = f"must be the path of a {', '.join(PROMPTS[:-1])} or {PROMPTS[-1]} file, or a list of texts"
            raise ScenarioError(f"prompts is {shown(prompts)}: {kinds}; write [{shown(prompts)}]")
        found["prompts"] = str(folder / prompts)
    return found


def _line(message: str, data: Table) -> str:
    """msgspec's message with the value, and in words: "concurrency[2] is 0: must be at least 1"."""
    what, path = message, ""
    if found := re.fullmatch(r"(?s)(.*?) - at `\$(.*)`", message):
        what, path = found[1], found[2]
    keys: list[str | int] = []
    value: Any = data
    for name, index in re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", path):
        key: str | int = name
        if index == "...":  # what msgspec writes for a key: the first whose value has the type it complains of
            got = re.search(r"got `(\w+)`$", what)
            kind = _TYPES.get(got[1] if got else "str")
            key = next(key for key, one in value.items() if type(one) is kind)
        elif index:
            key = int(index)
        keys.append(key)
        value = value[key]
    must = _must(what, value)
    if must is None:  # a message of our own (Duration.parse) has the value in it
        return f"{at(keys)}: {printable(what)}"
    return f"{at(keys)} is {shown(value)}: {must}"


def _must(what: str, value: object) -> str | None:
    if found := re.fullmatch(r"Expected `(array|str)` of length ([<>]=) (\d+)", what):
        if found[2] == "<=":
            unit = {"array": "items", "str": "characters"}[found[1]]
            return f"must hold at most {found[3]} {unit}"
        if found[3] == "1":
            return "must not be empty"
        return f"must hold at least {found[3]}"
    if found := re.fullmatch(r"Expected `\w+` ([<>]=?) ([-+.\de]+)", what):
        words = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
        return f"must be {words[found[1]]} {float(found[2]):.16g}"
    if found := re.fullmatch(r"Expected `([\w| ]+)`, got `\w+`", what):
        kinds = [_KINDS.get(kind, kind) for kind in found[1].split(" | ") if kind != "null"]
        if kinds == ["a list"] and not isinstance(value, dict):
            return f"must be a list; write [{shown(value)}]"
        return f"must be {' or '.join(kinds)}"
    if what.startswith("Invalid enum value"):
        return 'must be "poisson" or "constant"'
    return None
