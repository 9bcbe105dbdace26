"""A server's own /metrics: Prometheus text, read into one number per name."""

from __future__ import annotations

import asyncio
import math
import re

import httpx

from loadbench.errors import TargetError
from loadbench.server.calls import call, read_json

SCRAPE_S = 2.0
MAX_BYTES = 2_000_000
MAX_NAMES = 200
MAX_LINE = 2_000
"""Characters of a line that is read."""
MAX_NAME = 300
"""Characters of a name with its labels: `MAX_NAMES` of them are kept each second."""
MOST = 1e18
"""The largest figure that a run folder holds, either side of 0."""
_SAMPLE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*$")
_LABEL = re.compile(r'(?<!\w)([A-Za-z_]\w*)="((?:[^"\\]|\\.)*+)"')
_SUMMED = ("engine", "model", "model_name")
_SHARES = ("_perc", "_ratio")
_SKIPPED = ("_bucket", "_created", "_info")
_OTHERS = ("python_", "http_")  # the interpreter's and the web framework's, dozens of them


async def scrape(http: httpx.AsyncClient, root: str) -> dict[str, float] | None:
    """The server's own figures by name, as of now; None where it has no metrics or does not answer in time.

    Args:
        root: The server's root, from `server_root`.
    """
    try:
        response = await call(http, "GET", root + "/metrics", within_s=SCRAPE_S)
    except TargetError:
        return None
    if response.status_code != 200 or len(response.content) > MAX_BYTES:
        return None
    # In a thread: 2 MB of them take the time of many tokens.
    return await asyncio.to_thread(read_metrics, response.text) or None


def read_metrics(text: str) -> dict[str, float]:
    """Counters, gauges, and sums and counts of histograms, at most `MAX_NAMES`.

    Series that differ by engine or model alone are added up; of those that are shares, the mean is taken. Other labels
    stay in the name. What is no number now (NaN), or none that a run folder holds, is left out.

    >>> read_metrics('a{engine="0",model_name="m"} 2\\na{engine="1",model_name="m"} 3\\nb{why="stop",engine="0"} 4e1')
    {'a': 5.0, 'b{why="stop"}': 40.0}
    """
    if text.startswith('"'):  # some builds of llama.cpp send the text as a JSON string (ggml-org/llama.cpp#17384)
        inner = read_json(text)
        text = inner if isinstance(inner, str) else ""
    series: dict[str, list[float]] = {}
    for line in text.splitlines():
        if line.startswith("#") or len(line) > MAX_LINE:
            continue
        sample = _SAMPLE.match(line)
        if sample is None or sample[1].endswith(_SKIPPED) or sample[1].startswith(_OTHERS):
            continue
        name, labels = sample[1], [label for label in _LABEL.findall(sample[2] or "") if label[0] not in _SUMMED]
        if labels:
            name += "{" + ",".join(f'{label}="{value}"' for label, value in labels) + "}"
        try:
            value = float(sample[3])
        except ValueError:
            continue
        is_new = name not in series
        if not abs(value) <= MOST or len(name) > MAX_NAME or (is_new and len(series) >= MAX_NAMES):  # NaN is not <=
            continue
        series.setdefault(name, []).append(value)
    figures = {}
    for name, values in series.items():
        total = math.fsum(values)
        figures[name] = total / len(values) if name.partition("{")[0].endswith(_SHARES) else total
    return {name: value for name, value in figures.items() if abs(value) <= MOST}
