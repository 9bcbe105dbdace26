"""What an editor must know of loadbench.run; never run: `mypy --strict` reads it with the package.

An ignore that is not needed is an error there, so each wrong call below is one that mypy refuses.
"""

from pathlib import Path

import pandas
import plotly.graph_objects

import loadbench


def right() -> None:
    run: loadbench.Run = loadbench.run(
        endpoint="http://127.0.0.1:8000",
        models="phi-4-mini",
        concurrency=(1, 4),
        duration="30s",
        prompts=Path("asked.jsonl"),
        slo="ttft_p95=800ms",
        timeouts={"total": "60s"},
        folder=Path("results/first"),
        progress=print,
    )
    frame: pandas.DataFrame = run.to_dataframe("levels")
    figure: plotly.graph_objects.Figure = run.plot()
    finding: loadbench.Finding = run.compare("results/base", metrics=["ttft"])
    print(frame, figure, finding, loadbench.choose([run], needs=["ttft_p95 < 2s"], missing="allow"))


def wrong() -> None:
    run = loadbench.run(concurency=4)  # type: ignore[call-arg]
    loadbench.run(concurrency="four")  # type: ignore[arg-type]
    loadbench.run(arrivals="uniform")  # type: ignore[arg-type]
    run.to_dataframe("level")  # type: ignore[arg-type]
    run.compare("results/base", margins=0.1)  # type: ignore[call-arg]
