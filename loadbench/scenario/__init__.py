"""What to ask and how hard: read and check a scenario file; the grammar of durations and bounds.

    scenario = read(Path("scenarios/quickstart.toml"))
    scenario = merge(scenario, concurrency=[1, 2])
    levels = scenario.levels(["phi-4-mini"])

`bound` holds Duration and Bound, `threshold` what fails a run, `shape` and `length` the grammars of loads and
workloads, `schema` the records, `checks` what no single field shows, `files` input files as text and plain data,
`reading` the way from a file to a Scenario and back.
"""

from loadbench.scenario.bound import Bound, Duration, read_op
from loadbench.scenario.length import Length, Pause
from loadbench.scenario.level import Level
from loadbench.scenario.reading import from_json, merge, read, read_models, to_builtins
from loadbench.scenario.schema import LEAST_REPEATS, Scenario, Timeouts, json_schema
from loadbench.scenario.shape import Shape
from loadbench.scenario.threshold import FailIf, Threshold

__all__ = [
    "LEAST_REPEATS",
    "Bound",
    "Duration",
    "FailIf",
    "Length",
    "Level",
    "Pause",
    "Scenario",
    "Shape",
    "Threshold",
    "Timeouts",
    "from_json",
    "json_schema",
    "merge",
    "read",
    "read_models",
    "read_op",
    "to_builtins",
]
