"""loadbench from Python: measure, read, compare, choose. docs/api.md shows it.

import loadbench

run = loadbench.run(endpoint="http://127.0.0.1:8000", models=["phi-4-mini"], concurrency=[1, 4])
run.summary["levels"][0]["ttft_ms"]["p95"]
run.requests["ttft_ms"]              # numpy, a value a request
run.to_dataframe("levels")           # where pandas is installed
run.plot()                           # where plotly is
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np
import orjson
from numpy.typing import NDArray

from loadbench import compare, report, scenario, select, store
from loadbench.errors import LoadbenchError, UsageError
from loadbench.metrics import Requests
from loadbench.runner import child
from loadbench.runner.job import Job, Limits, Output, Server
from loadbench.scenario.bounds import Duration
from loadbench.store import LevelData
from loadbench.text import plural

if TYPE_CHECKING:
    import pandas

    from loadbench.report.html.plots import Figure

__all__ = ["Finding", "Run", "catalogue", "choose", "compare_models", "probe", "read", "run"]


class Event(dict[str, Any]):
    """One event of `loadbench run --json`: a dict with its `event`, which prints as a line a person reads.

    >>> print(Event(event="level_ended", level="m@c4", status="complete", reason=None))
    m@c4: complete
    """

    def __str__(self) -> str:
        kind, level = self.get("event"), self.get("level")
        match kind:
            case "plan":
                models = ", ".join(self.get("models") or ())
                return f"{models} at {self.get('target') or '(not started)'}; results in {self.get('folder')}"
            case "note":
                return str(self.get("text"))
            case "probe":
                what = self.get("error") or f"TTFT {self.get('ttft_ms')} ms, E2E {self.get('e2e_ms')} ms"
                return f"{self.get('model')}: {self.get('purpose')} request: {what}"
            case "level_began":
                return f"{level}: begins"
            case "progress":
                names = {"completed": "completed", "failed": "failed", "in_flight": "in flight"}
                counts = [f"{self[name]} {words}" for name, words in names.items() if self.get(name)]
                return f"{level}: {', '.join(counts)}"
            case "level_ended" | "level_skipped":
                reason = f": {self.get('reason')}" if self.get("reason") else ""
                return f"{level}: {self.get('status') or 'skipped'}{reason}"
            case "summary":
                return "done"
        return f"{kind}: " + ", ".join(f"{name} {value}" for name, value in self.items() if name != "event")


Columns = dict[str, NDArray[Any]]
T = TypeVar("T", bound="Run | str | Path")


def columns(levels: Sequence[LevelData], *, streamed: bool) -> Columns:
    """Times in ms, moments in s since their level began, both float64 with NaN where they never were.

    Texts are objects, None where there is none.
    """
    parts = [_columns(data, streamed=streamed) for data in levels]
    if not parts:
        return {}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _columns(data: LevelData, *, streamed: bool) -> Columns:
    facts, results = data.facts, data.results
    requests = Requests.of(results, streamed=streamed)
    n = len(results)

    def load(name: str) -> NDArray[np.float64]:
        value = facts.get(name)
        return np.full(n, np.nan if value is None else value, np.float64)

    return {
        "level": np.full(n, facts["id"], object),
        "model": np.full(n, facts.get("model"), object),
        "concurrency": load("concurrency"),
        "request_rate_per_s": load("request_rate_per_s"),
        "closing": np.full(n, bool(facts.get("closing")), np.bool_),
        "repeat": np.full(n, facts.get("repeat") or 1, np.int64),
        "request": results.request,
        "prompt": np.array(results.prompt, object),
        "warmup": results.warmup,
        "completed": requests.completed,
        "error": np.array(results.error, object),
        "error_message": np.array(results.error_message, object),
        "finish_reason": np.array(results.finish_reason, object),
        "status": results.status,
        "retry_of": results.retry_of,
        "endpoint": results.endpoint,
        "ttft_ms": requests.ttft / 1e6,
        "ttft_from_due_ms": requests.ttft_from_due / 1e6,
        "ttfat_ms": (requests.ttft + requests.until_answer) / 1e6,
        "thinking_ms": requests.thinking / 1e6,
        "tpot_ms": requests.tpot / 1e6,
        "e2e_ms": requests.e2e / 1e6,
        "normalised_latency_ms": requests.normalised_latency / 1e6,
        "client_queue_ms": requests.client_queue / 1e6,
        "input_tokens": results.input_tokens,
        "cached_tokens": results.cached_tokens,
        "output_tokens": requests.tokens,
        "reasoning_tokens": results.reasoning_tokens,
        "characters": results.characters,
        "words": results.words,
        "due_s": results.due / 1e9,
        "sent_s": results.sent / 1e9,
        "first_token_s": results.first_token / 1e9,
        "first_answer_s": results.first_answer / 1e9,
        "last_token_s": results.last_token / 1e9,
        "end_s": results.end / 1e9,
    }


@dataclass(frozen=True, slots=True)
class Finding:
    """A comparison or a choice. It prints as its report.

    Attributes:
        record: As `loadbench compare --format json` and `loadbench select --format json` have it: docs/compare.md,
            docs/select.md.
    """

    record: Mapping[str, Any]
    _formats: Mapping[str, Callable[[Mapping[str, Any]], str]]

    def __str__(self) -> str:
        return self.report()

    def __repr__(self) -> str:
        return f"<Finding: {self.report().strip().splitlines()[0].strip()}>"

    def report(self, kind: str = "text") -> str:
        """The report as text: "text", "markdown" or "json"."""
        if kind not in self._formats:
            raise UsageError(f"report({kind!r}): write one of {', '.join(self._formats)}")
        return self._formats[kind](self.record)


def compare_models(
    runs: Run | Sequence[Run],
    base: str | None = None,
    *,
    margin: float = compare.MARGIN,
    share_margin: float = compare.SHARE_MARGIN,
    metrics: Sequence[str] | None = None,
) -> Finding:
    """The models of one run, or of several together, each against one of them.

    Args:
        base: The model that the others are compared with; unset: the first.
        margin: Ratios within it are the same.
        share_margin: Differences of shares within it are the same.
        metrics: As "ttft" or "e2e_p95"; unset: the usual ones.
    Raises:
        UsageError: If there are no two models, or none of that name.
    """
    several = _listed(runs)
    group = compare.gather([one._read for one in several], several[0].name)
    models = group.models
    first = base or (models[0] if models else "")
    if first not in models or len(models) < 2:
        raise UsageError(
            f"base={first!r}: measured are {', '.join(models) or 'none'}; it takes two models, one of them base"
        )
    limits = compare.Terms(margin=margin, share_margin=share_margin, metrics=metrics)
    records = [compare.compare_models(group, first, other, limits) for other in models if other != first]
    return Finding(compare.document(records), report.COMPARISONS)


def choose(
    runs: Run | str | Path | Sequence[Run | str | Path],
    *,
    needs: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    at: str | None = None,
    missing: Literal["out", "allow"] = "out",
    seed: int = 1,
    draws: int = select.DRAWS,
) -> Finding:
    """Which model to ship, of all that the runs measured: `record["winner"]`, and why.

    Args:
        needs: Requirements, as "ttft_p95 < 1s" or "memory < 4GB": a model that misses one is eliminated.
        weights: All that counts, as {"latency": 3, "quality": 2}; unset: the usual.
        at: The load to choose by, as "c4"; unset: the highest that all completed.
        missing: Whether a model without a required figure is eliminated ("out") or stays ("allow").
        seed, draws: Of the simulation that says how firm the rank is.
    Raises:
        UsageError: If nothing was measured, or a need or a weight is not understood.
    """
    policy = select.policy(None if weights is None else dict(weights), where="weights")
    all_needs = [select.Need.parse(text) for text in (*policy.needs, *needs)]
    measured = [select.read(one.folder if isinstance(one, Run) else Path(one)) for one in _listed(runs)]
    candidates = select.candidates(measured)
    if not candidates:
        raise UsageError("no level was measured in these runs, so there is nothing to choose from")
    record = select.choose(candidates, measured, select.Terms(policy, all_needs, at, missing, seed, draws))
    return Finding(record, report.CHOICES)


def _listed(runs: T | Sequence[T]) -> list[T]:
    several = list(runs) if isinstance(runs, list | tuple) else [cast("T", runs)]
    if not several:
        raise UsageError("no run is given")
    return several


FORMATS = tuple(report.FORMATS)
_LOADS = ("concurrency", "request_rate", "shape", "trace")


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
        what = f"{plural(len(self.levels), 'level')} of {plural(len(self.models), 'model')}"
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
        return cast("list[dict[str, Any]]", self.summary["levels"])

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
        from loadbench.metrics.distribution import gap_sizes

        data = next((data for data in self._read.levels if data.facts["id"] == level), None)
        if data is None:
            raise UsageError(f"{level!r}: {self.folder} has the levels {', '.join(one['id'] for one in self.levels)}")
        if not data.gaps_kept:
            raise LoadbenchError(f"{level}: gaps were kept in {self.folder / 'itl.hlog'} alone, there were too many")
        chosen = Requests.of(data.results, streamed=self._streamed).population
        gaps_us = data.results.gaps_us[np.repeat(chosen, gap_sizes(data.results))]
        return gaps_us.astype(np.float64) / 1e3

    def _repr_html_(self) -> str:
        """What a notebook shows: the report on one screen."""
        from loadbench.report import brief, html

        return html.fragment(brief.document(self.summary))

    def plot(self) -> Figure:
        """Tokens/s and TTFT against load, a line a model, with 95% intervals; yours to restyle.

        Raises:
            LoadbenchError: If plotly is not installed, or nothing was measured.
        """
        from loadbench.report.html import plots

        return plots.overview(self.summary)

    def to_dataframe(
        self, what: Literal["requests", "levels", "figures"] = "requests", *, warmup: bool = False
    ) -> pandas.DataFrame:
        """The requests; the levels, a row each and a column a figure; or all figures in long form, as summary.csv.

        Args:
            warmup: With the requests that were sent to warm up.
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
        from loadbench.report import exports

        match what:
            case "requests":
                frame = pandas.DataFrame(self.requests)
                return frame if warmup or frame.empty else frame[~frame["warmup"]].reset_index(drop=True)
            case "levels":
                return pandas.DataFrame(exports.wide(self.summary))
            case "figures":
                return pandas.DataFrame(exports.rows(self.summary), columns=list(exports.COLUMNS))
        raise UsageError(f"to_dataframe({what!r}): write requests, levels or figures")

    def report(self, kind: str = "text") -> str:
        """The report: "text", "markdown", "csv", "llama-bench", "json", or "html", the page that report.html is."""
        if kind not in FORMATS:
            raise UsageError(f"report({kind!r}): write one of {', '.join(FORMATS)}")
        return report.FORMATS[kind](self.summary)

    def compare(
        self,
        base: Run | str | Path,
        *,
        margin: float = compare.MARGIN,
        share_margin: float = compare.SHARE_MARGIN,
        metrics: Sequence[str] | None = None,
        meant: Collection[str] = (),
    ) -> Finding:
        """This run against a base: faster, slower, the same, or can't tell, level by level.

        Args:
            margin: Ratios within it are the same.
            share_margin: Differences of shares within it are the same.
            metrics: As "ttft" or "e2e_p95"; unset: the usual ones.
            meant: What differs on purpose, as "model" or "machine".
        Raises:
            UsageError: If they have no level in common.
        """
        base = base if isinstance(base, Run) else read(base)
        first = compare.gather([base._read], base.folder.resolve().name, apart=[self.folder])
        second = compare.gather([self._read], self.folder.resolve().name, apart=[base.folder])
        if not compare.matched(first.sides, second.sides):
            raise UsageError(
                f"{base.folder} and {self.folder}: no level in common was measured; measure the same models and loads"
            )
        if first.name == second.name:
            first, second = replace(first, name=str(base.folder)), replace(second, name=str(self.folder))
        record = compare.compare_runs(first, second, compare.Terms(margin, share_margin, metrics, meant))
        return Finding(compare.document([record]), report.COMPARISONS)


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
            duration="30s", prompts=["Why is the sky blue?"] … They replace those of the scenario; a list of one may
            be that one. Editors complete them (`__init__.pyi`, made from `Scenario` by `python -m tests.support.stub`).
            Variables such as LOADBENCH_CONCURRENCY do not count here.
    Raises:
        ScenarioError: If the scenario is not valid.
        LoadbenchError: If there is nothing to measure, or no run came about.
        TypeError: If a field does not exist.
        KeyboardInterrupt: As it came, once the run has drained; its folder reads.
    """
    settings = _scenario(scenario_or_file, fields)
    if settings.against is not None:
        raise UsageError("against: only the command loadbench run measures two servers: leave it out here")
    job = Job(
        scenario=settings,
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


def _signature(plain: inspect.Signature) -> inspect.Signature:
    """That of `run` with the scenario's fields by name, which `help` and notebooks show."""
    named = [one for one in plain.parameters.values() if one.kind is not one.VAR_KEYWORD]
    hints = get_type_hints(scenario.Scenario)
    fields = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]) for name in hints]
    return plain.replace(
        parameters=[*named, *(one.replace(default=...) for one in fields if not one.name.startswith("against"))]
    )


run.__signature__ = _signature(inspect.signature(run))  # type: ignore[attr-defined]


def _scenario(base: scenario.Scenario | str | Path | None, fields: Mapping[str, Any]) -> scenario.Scenario:
    """The scenario with fields in place of its own, of which lists may be given as one value, a tuple or a range."""
    values = {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}
    for name, hint in get_type_hints(scenario.Scenario).items():
        value = values.get(name)
        kinds = get_args(hint) if get_origin(hint) is not list else (hint,)
        if not any(get_origin(kind) is list for kind in kinds):
            continue
        if isinstance(value, tuple | range):
            values[name] = list(value)
        elif isinstance(value, str | int | float) and not isinstance(value, bool) and str not in kinds:
            values[name] = [value]
    if base is None:
        base = scenario.Scenario()
        if not any(values.get(name) for name in _LOADS):
            values["concurrency"] = [1, 2, 4, 8]
    elif not isinstance(base, scenario.Scenario):
        base = scenario.read(Path(base))
    return scenario.merge(base, **values)


def catalogue(endpoint: str | None = None, *, cached: bool = False) -> list[dict[str, Any]]:
    """The models of a server, or of the Foundry Local service or SDK that is found: id, alias, device, licence …

    Args:
        cached: Only what is on the disk already.
    Raises:
        LoadbenchError: If there is no server, or it has none.
    """
    words = ["models", "list", "--json"]
    if endpoint is not None:
        words += ["-e", endpoint]
    if cached:
        words.append("--cached")
    return cast("list[dict[str, Any]]", orjson.loads(child.command(words)))


def probe(
    models: str | Sequence[str] | None = None,
    *,
    prompt: str | None = None,
    endpoint: str | None = None,
    max_tokens: int = 64,
    temperature: float = 0.0,
) -> list[dict[str, Any]]:
    """One chat per model: its `answer`, `ttft_ms`, `tokens_per_s`, `e2e_ms`, or its `error`.

    Args:
        models: Unset: those at hand.
    Raises:
        LoadbenchError: If no model was asked at all.
    """
    words = ["probe", "--json", "--max-tokens", str(max_tokens), "--temperature", str(temperature)]
    if endpoint is not None:
        words += ["-e", endpoint]
    for name in [models] if isinstance(models, str) else models or ():
        words += ["-m", name]
    if prompt is not None:
        words += ["--prompt", prompt]
    return [orjson.loads(line) for line in child.command(words).splitlines() if line.strip()]
