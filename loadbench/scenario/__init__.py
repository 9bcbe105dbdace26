"""What to ask and how hard: read and check a scenario file; levels, shapes of load, lengths of texts.

    scenario = read(Path("scenarios/quickstart.toml"))
    scenario = merge(scenario, concurrency=[1, 2])
    levels = scenario.levels(["phi-4-mini"])

`shape` and `length` hold the grammars of loads and workloads, `schema` the records, `checks` what no single field
shows, `files` input files as text and plain data, `reading` the way from a file to a Scenario and back.
"""

from loadbench.scenario.loads import Length, Level, Pause, Shape
from loadbench.scenario.reading import from_json, merge, read, read_models, shipped, to_builtins
from loadbench.scenario.schema import LEAST_REPEATS, Scenario, Timeouts, json_schema

__all__ = [
    "LEAST_REPEATS",
    "Length",
    "Level",
    "Pause",
    "Scenario",
    "Shape",
    "Timeouts",
    "from_json",
    "json_schema",
    "merge",
    "read",
    "read_models",
    "shipped",
    "to_builtins",
]
