"""A run from Python: measured in a child process, or read from its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from loadbench import compare, report, scenario, select, store
from loadbench.api.event import Event
from loadbench.api.finding import Finding, comparison
from loadbench.api.requests import Columns, columns
from loadbench.bounds import Duration
from loadbench.errors import LoadbenchError, UsageError
from loadbench.runner import child
from loadbench.runner.job import Job, Limits, Output, Server

if TYPE_CHECKING:
    import pandas

FORMATS = ("text", "markdown", "csv", "json", "html")
_LOADS = ("concurrency", "request_rate", "shape", "trace")
_LISTS = ("concurrency", "request_rate", "device", "slo", "fail_if")
"""Fields that hold lists, of which a single one may be given by itself."""


class Run:
    """What a run measured. Made by `run` or `read`.

    Attributes:
        folder: Where it is stored.
        exit_code: As `loadbench run` would have ended: 0, 1 (a model completed nothing), 3 (a threshold failed), 130
            (interrupted); None of a run that was read.
        messages: What was said on stderr meanwhile.
    """

    def __init__(self, folder: Path, exit_code: int | None = None, messages: Sequence[str] = ()) -> None:
        self.folder = folder
        self.exit_code = exit_code
        self.messages = tuple(messages)
        self._read = store.read(folder)

    def __repr__(self) -> str:
        n, models = len(self.levels), len(self.models)
        what = f"{n} level{'s' * (n != 1)} of {models} model{'s' * (models != 1)}"
        return f"<Run {self.name}: {what}, {self.status}, in {self.folder}>"

    @property
    def info(self) -> dict[str, Any]:
        """run.json: what was asked of whom, and on which machine."""
        return self._read.info

    @property
    def name(self) -> str:
        return str(self.info.get("name") or self.folder.name)

    @property
    def status(self) -> str:
        """complete, interrupted, or running of one whose process died or has not ended yet."""
        return str(self.info.get("status") or "unknown")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Every figure of the reports as plain values, as summary.json has them: see docs/summary.md."""
        return select.summarise(self._read)

    @property
    def levels(self) -> list[dict[str, Any]]:
        """The levels of the summary, the one that was measured again at the end (`closing`) among them."""
        found: list[dict[str, Any]] = self.summary["levels"]
        return found

    @property
    def models(self) -> list[str]:
        """Ids of the models that have levels."""
        return list(dict.fromkeys(str(data.facts.get("model")) for data in self._read.levels))

    @cached_property
    def requests(self) -> Columns:
        """All requests, warm-up ones too: arrays of one length by name, as docs/api.md lists them."""
        return columns(self._read.levels, streamed=self._streamed)

    @property
    def _streamed(self) -> bool:
        return (self.info.get("scenario") or {}).get("stream") is not False

    def gaps_ms(self, level: str) -> NDArray[np.float64]:
        """The gaps between arrivals of text (ITL) in ms, of the measured requests of a level that completed.

        Raises:
            UsageError: If there is no such level.
            LoadbenchError: If the run was too long to keep each gap.
        """
        from loadbench.metrics import Requests
        from loadbench.metrics.distribution import gap_sizes

        data = next((data for data in self._read.levels if data.facts["id"] == level), None)
        if data is None:
            raise UsageError(f"{level!r}: {self.folder} has the levels {', '.join(one['id'] for one in self.levels)}")
        if not data.gaps_kept:
            raise LoadbenchError(f"{level}: gaps were kept in {self.folder / 'itl.hlog'} alone, there were too many")
        chosen = Requests.of(data.results, streamed=self._streamed).population
        gaps_us = data.results.gaps_us[np.repeat(chosen, gap_sizes(data.results))]
        return gaps_us.astype(np.float64) / 1e3

    def to_dataframe(self, what: Literal["requests", "figures"] = "requests") -> pandas.DataFrame:
        """The requests, or all figures in long form as summary.csv has them.

        Raises:
            LoadbenchError: If pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise LoadbenchError(
                "to_dataframe needs pandas, which is not installed: pip install pandas; without it `requests` has the "
                "same columns as numpy arrays, and summary.csv the figures"
            ) from None
        if what == "requests":
            return pandas.DataFrame(self.requests)
        if what != "figures":
            raise UsageError(f"to_dataframe({what!r}): write requests or figures")
        from loadbench.report import csv

        return pandas.DataFrame(csv.rows(self.summary), columns=list(csv.COLUMNS))

    def report(self, kind: str = "text") -> str:
        """The report: "text", "markdown", "csv", "json", or "html", the page that report.html is."""
        if kind not in FORMATS:
            raise UsageError(f"report({kind!r}): write one of {', '.join(FORMATS)}")
        return report.FORMATS[kind](self.summary)

    def compare(self, base: Run | str | Path, *, margin: float = compare.MARGIN, **terms: Any) -> Finding:
        """This run against a base: faster, slower, the same, or can't tell, level by level.

        Args:
            margin: Ratios within it are the same.
            terms: More of `loadbench.compare.Terms`: share_margin, metrics, meant.
        """
        return comparison(base if isinstance(base, Run) else read(base), self, compare.Terms(margin=margin, **terms))


def read(folder: str | Path) -> Run:
    """A run folder, of this run or another, whole or cut short. It is not changed.

    Raises:
        UsageError: If it is no run folder.
        StoreError: If it cannot be read.
    """
    return Run(Path(folder))


def run(
    scenario_or_file: scenario.Scenario | str | Path | None = None,
    *,
    folder: str | Path | None = None,
    progress: Callable[[Event], object] | None = None,
    simulate: bool = False,
    budget: str | None = None,
    wait: str | None = None,
    answers: bool = True,
    telemetry: bool = True,
    yes: bool = False,
    **fields: Any,
) -> Run:
    """Measure, in a child process, and read what came of it. Blocks until it is done; prints nothing.

    Args:
        scenario_or_file: A Scenario, or the path of a scenario file (TOML or JSON). Unset, and without a load among the
            fields, 1, 2, 4 and 8 streams are measured.
        folder: Where to store it, a new one; unset: results/<UTC time>-<name>.
        progress: Called with each event as it comes: a dict that prints as a line, so that `print` will do.
        simulate: Measure a simulator; its figures are labelled so.
        budget: Shorten the plan to fit a time as "5m".
        wait: Wait so long until the server answers.
        answers: Keep the texts of the answers.
        telemetry: Sample server and machine each second.
        yes: More than 1,000 streams, or requests a second, on another machine are meant; else they are an error.
        fields: Of the scenario, as in its file: endpoint="http://…", models=["phi-4-mini"], concurrency=[1, 4],
            duration="30s", prompts=["Why is the sky blue?"] … They replace those of the scenario. Variables such as
            LOADBENCH_CONCURRENCY do not count here.
    Raises:
        ScenarioError: If the scenario is not valid.
        LoadbenchError: If there is nothing to measure, or no run came about.
        TypeError: If a field does not exist.
        KeyboardInterrupt: As it came, once the run has drained; its folder reads.
    """
    asked = _scenario(scenario_or_file, fields)
    if asked.against is not None:
        raise UsageError("against: only the command loadbench run measures two servers: leave it out here")
    job = Job(
        scenario=asked,
        server=Server(simulate=simulate, wait=_duration("wait", wait)),
        limits=Limits(yes=yes, budget=_duration("budget", budget)),
        output=Output(folder=None if folder is None else Path(folder), answers=answers, telemetry=telemetry),
        command=("loadbench", "run", "(from Python)"),
    )
    seen: dict[str, Any] = {}

    def heard(event: dict[str, Any]) -> None:
        seen.setdefault("folder", event.get("folder"))
        seen["summary"] = event["event"] == "summary"
        if progress is not None:
            progress(Event(event))

    try:
        code, messages = child.run(job, heard)
    except KeyboardInterrupt as stop:
        if seen.get("folder"):
            stop.add_note(f"what was measured until then: loadbench.read({seen['folder']!r})")
        raise
    if not seen.get("summary"):
        raise child.failure(code, messages)
    return Run(Path(seen["folder"]), code, messages)


def _duration(name: str, text: str | None) -> Duration | None:
    try:
        return None if text is None else Duration.parse(text)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None


def _scenario(given: scenario.Scenario | str | Path | None, fields: Mapping[str, Any]) -> scenario.Scenario:
    if given is None:
        asked = scenario.Scenario()
    else:
        asked = given if isinstance(given, scenario.Scenario) else scenario.read(Path(given))
    wanted = {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}
    for name in _LISTS:
        value = wanted.get(name)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            wanted[name] = [value]
        elif isinstance(value, tuple | range):
            wanted[name] = list(value)
    if given is None and not any(wanted.get(name) for name in _LOADS):
        wanted["concurrency"] = [1, 2, 4, 8]
    return scenario.merge(asked, **wanted)
