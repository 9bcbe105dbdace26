"""loadbench from Python: measure, read, compare, choose. docs/api.md shows it.

import loadbench

run = loadbench.run(endpoint="http://127.0.0.1:8000", models=["phi-4-mini"], concurrency=[1, 4])
run.summary["levels"][0]["ttft_ms"]["p95"]
run.requests["ttft_ms"]              # numpy, a value a request
run.to_dataframe()                   # where pandas is installed
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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

if TYPE_CHECKING:
    import pandas

__all__ = ["Finding", "Run", "catalogue", "choose", "compare_models", "probe", "read", "run"]


class Event(dict[str, Any]):
    """One event of `loadbench run --json`: a dict with its `event`, which prints as a line a person reads.

    >>> print(Event(event="level_ended", level="m@c4", status="complete", reason=None))
    m@c4: complete
    """

    def __str__(self) -> str:
        kind = self.get("event")
        level = self.get("level")
        if kind == "plan":
            models = ", ".join(self.get("models") or ())
            return f"{models} at {self.get('target') or '(not started)'}; results in {self.get('folder')}"
        if kind == "note":
            return str(self.get("text"))
        if kind == "probe":
            what = self.get("error") or f"TTFT {self.get('ttft_ms')} ms, E2E {self.get('e2e_ms')} ms"
            return f"{self.get('model')}: {self.get('purpose')} request: {what}"
        if kind == "level_began":
            return f"{level}: begins"
        if kind == "progress":
            names = {"completed": "completed", "failed": "failed", "in_flight": "in flight"}
            return f"{level}: {', '.join(f'{self[name]} {words}' for name, words in names.items() if self.get(name))}"
        if kind in ("level_ended", "level_skipped"):
            status = self.get("status") or "skipped"
            return f"{level}: {status}" + (f": {self.get('reason')}" if self.get("reason") else "")
        if kind == "summary":
            return "done"
        return f"{kind}: " + ", ".join(f"{name} {value}" for name, value in self.items() if name != "event")


Columns = dict[str, NDArray[Any]]


def columns(levels: Sequence[LevelData], *, streamed: bool) -> Columns:
    """Times in ms, moments in s since their level began, both float64 with NaN where they never were.

    Texts are objects, None where there is none.
    """
    parts = [_of(data, streamed=streamed) for data in levels]
    if not parts:
        return {}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _of(data: LevelData, *, streamed: bool) -> Columns:
    facts, results = data.facts, data.results
    requests = Requests.of(results, streamed=streamed)
    n = len(results)
    load = {name: facts.get(name) for name in ("concurrency", "request_rate_per_s")}
    return {
        "level": _same(facts["id"], n),
        "model": _same(facts.get("model"), n),
        **{name: np.full(n, np.nan if value is None else value, np.float64) for name, value in load.items()},
        "closing": np.full(n, bool(facts.get("closing")), np.bool_),
        "repeat": np.full(n, facts.get("repeat") or 1, np.int64),
        "request": results.request,
        "prompt": _texts(results.prompt),
        "warmup": results.warmup,
        "completed": requests.completed,
        "error": _texts(results.error),
        "error_message": _texts(results.error_message),
        "finish_reason": _texts(results.finish_reason),
        "status": results.status,
        "retry_of": results.retry_of,
        "endpoint": results.endpoint,
        "ttft_ms": requests.ttft / 1e6,
        "ttft_from_due_ms": requests.ttft_from_due / 1e6,
        "tpot_ms": requests.tpot / 1e6,
        "e2e_ms": requests.e2e / 1e6,
        "client_queue_ms": requests.client_queue / 1e6,
        "input_tokens": results.input_tokens,
        "cached_tokens": results.cached_tokens,
        "output_tokens": requests.tokens,
        "characters": results.characters,
        "words": results.words,
        "due_s": results.due / 1e9,
        "sent_s": results.sent / 1e9,
        "first_token_s": results.first_token / 1e9,
        "last_token_s": results.last_token / 1e9,
        "end_s": results.end / 1e9,
    }


def _same(text: object, n: int) -> NDArray[Any]:
    return np.full(n, text, object)


def _texts(values: Sequence[str | None]) -> NDArray[Any]:
    found = np.empty(len(values), object)
    found[:] = values
    return found


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


def comparison(base: Run, new: Run, terms: compare.Terms) -> Finding:
    """A run against a base.

    Raises:
        UsageError: If they have no level in common.
    """
    sides = [
        compare.gather([one._read], one.folder.resolve().name, apart=[other.folder])
        for one, other in ((base, new), (new, base))
    ]
    if not compare.matched(sides[0].sides, sides[1].sides):
        raise UsageError(
            f"{base.folder} and {new.folder}: no level in common was measured; measure the same models and loads"
        )
    if sides[0].name == sides[1].name:
        sides = [replace(side, name=str(one.folder)) for side, one in zip(sides, (base, new), strict=True)]
    record = compare.compare_runs(sides[0], sides[1], terms)
    return Finding(compare.document([record]), report.COMPARISONS)


def compare_models(
    runs: Run | Sequence[Run], base: str | None = None, *, margin: float = compare.MARGIN, **terms: Any
) -> Finding:
    """The models of one run, or of several together, each against one of them.

    Args:
        base: The model that the others are held against; unset: the first.
        margin: Ratios within it are the same.
        terms: More of `loadbench.compare.Terms`.
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
    wanted = compare.Terms(margin=margin, **terms)
    records = [compare.compare_models(group, first, other, wanted) for other in models if other != first]
    return Finding(compare.document(records), report.COMPARISONS)


def choose(
    runs: Run | str | Path | Sequence[Run | str | Path],
    *,
    needs: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    at: str | None = None,
    **terms: Any,
) -> Finding:
    """Which model to ship, of all that the runs measured: `record["winner"]`, and why.

    Args:
        needs: As "ttft_p95 < 1s" or "memory < 4GB": who misses one falls out.
        weights: All that counts, as {"latency": 3, "quality": 2}; unset: the usual.
        at: The load to choose by, as "c4"; unset: the highest that all completed.
        terms: More of `loadbench.select.Terms`: missing, seed, draws.
    Raises:
        UsageError: If nothing was measured, or a need or a weight is not understood.
    """
    policy = select.policy(None if weights is None else dict(weights), where="weights")
    wanted = [select.Need.parse(text) for text in (*policy.needs, *needs)]
    found = [select.read(Path(getattr(one, "folder", one))) for one in _listed(runs)]
    candidates = select.candidates(found)
    if not candidates:
        raise UsageError("no level was measured in these runs, so there is nothing to choose from")
    record = select.choose(candidates, found, select.Terms(policy=policy, needs=wanted, at=at, **terms))
    return Finding(record, report.CHOICES)


def _listed(runs: Any) -> list[Any]:
    found = list(runs) if isinstance(runs, list | tuple) else [runs]
    if not found:
        raise UsageError("no run is given")
    return found


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
        from loadbench.report import exports

        return pandas.DataFrame(exports.rows(self.summary), columns=list(exports.COLUMNS))

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


def catalogue(endpoint: str | None = None, *, cached: bool = False) -> list[dict[str, Any]]:
    """The models of a server, or of the Foundry Local service or SDK that is found: id, alias, device, licence …

    Args:
        cached: Only what is on the disk already.
    Raises:
        LoadbenchError: If there is no server, or it has none.
    """
    words = ["models", "list", "--json", *_endpoint(endpoint), *(["--cached"] if cached else [])]
    found: list[dict[str, Any]] = orjson.loads(child.command(words))
    return found


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
    names = [models] if isinstance(models, str) else list(models or ())
    words = ["probe", "--json", *_endpoint(endpoint), "--max-tokens", str(max_tokens)]
    words += ["--temperature", str(temperature)]
    words += [word for name in names for word in ("-m", name)]
    words += [] if prompt is None else ["--prompt", prompt]
    return [orjson.loads(line) for line in child.command(words).splitlines() if line.strip()]


def _endpoint(endpoint: str | None) -> list[str]:
    return [] if endpoint is None else ["-e", endpoint]
