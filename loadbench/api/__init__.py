"""loadbench from Python: measure, read, compare, choose. docs/api.md shows it.

    import loadbench

    run = loadbench.run(endpoint="http://127.0.0.1:8000", models=["phi-4-mini"], concurrency=[1, 4])
    run.summary["levels"][0]["ttft_ms"]["p95"]
    run.requests["ttft_ms"]              # numpy, a value a request
    run.to_dataframe()                   # where pandas is installed

run.py       a run: measured in a child process, or read from its folder
requests.py  its requests as columns
finding.py   what compares and chooses
servers.py   what is there to measure
"""

from loadbench.api.finding import Finding, choose, compare_models
from loadbench.api.run import Run, read, run
from loadbench.api.servers import catalogue, probe

__all__ = ["Finding", "Run", "catalogue", "choose", "compare_models", "probe", "read", "run"]
