"""A job carried out: servers are found or started, the plan is shown, it is measured, and what came of that."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import zip_longest
from math import ceil
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

import anyio
import msgspec
from msgspec import structs

from loadbench import prompts, store
from loadbench import scenario as scenarios
from loadbench import server as targets
from loadbench.client import Endpoint, Parameters, Route
from loadbench.engine import MAX_STREAMS, process
from loadbench.engine.progress import rounded
from loadbench.errors import FAILED, INTERRUPTED, UsageError
from loadbench.prompts import Prompt
from loadbench.quality import Question, checks
from loadbench.runner import capacity, connect, plan
from loadbench.runner import folder as folders
from loadbench.runner.capacity import UNDECIDED, Grid, Search
from loadbench.runner.connect import Location, Reached
from loadbench.runner.job import FIRST_LOOK_S, Job
from loadbench.runner.plan import Fixed, Plan, PlannedLevel, Schedule, confirm_load, most
from loadbench.runner.schedule import Precise, Rounds, until_record, with_aborts
from loadbench.runner.session import Session, in_turns
from loadbench.runner.spread import begin_workers, workers_of
from loadbench.runner.watch import Facts, Sided, View, Watch, Watched, named
from loadbench.scenario import Scenario
from loadbench.scenario.bounds import Duration
from loadbench.server import Choice, Target
from loadbench.server.choice import some
from loadbench.server.vendor import Vendor
from loadbench.store.files import read_info, write_atomically
from loadbench.store.folder import SIDES, RunFolder, check_new, sides
from loadbench.store.summary import Summary
from loadbench.transport import raise_file_limit

_DOZEN = 12  # models that a run takes without a question where the server holds them, or does not say
T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class Person:
    """The one who asked for the run, as far as that one can be asked back; this one cannot, `cli` has another."""

    def lines(self, opening: Opening) -> list[str]:
        """The plan in words, for the view."""
        return []

    def choose(self, question: str, names: Sequence[str]) -> list[str] | None:
        """Which of these are meant: their names, or numbers from 1 on, or `all`; None where nobody answers."""
        return None

    def confirm(self, question: str) -> bool | None:
        """Whether that is meant; None where nobody answers."""
        return None


def measure(job: Job, view: View, person: Person | None = None) -> Outcome:
    """Carry a job out.

    Args:
        view: Shown how it goes; closed at the end.
    Raises:
        LoadbenchError: There is no run: nothing to measure, nothing that is understood, no folder that can be written.
    """
    process.share_the_interpreter()
    with ExitStack() as stack:
        stack.callback(view.close)
        root, jobs = _jobs(job, stack)
        sides = []
        for name, one in jobs:
            path = root / name  # "" adds nothing: a run alone is the folder itself
            sides.append(_side(name, one, path, stack, view))
        sessions = on_loop(_measured, root, sides, view, person or Person())
    runs = []
    for side, session in zip(sides, sessions, strict=False):  # a dry run has no sessions
        runs.append(Ran(side.name, side.path, dict(session.failed), session.folder.info))
    interrupted = any(session.interrupted for session in sessions)
    return Outcome(root, tuple(runs), interrupted=interrupted, is_search=job.search is not None)


def on_loop(work: Callable[[*Arguments], Awaitable[T]], *arguments: *Arguments) -> T:
    """Run async work on the event loop that measures best here."""
    return anyio.run(work, *arguments, backend="asyncio", backend_options={"use_uvloop": process.has_uvloop()})


def _jobs(job: Job, stack: ExitStack) -> tuple[Path, list[tuple[str, Job]]]:
    """Where it all goes, and a job for each target: one without a name, or those of both sides."""
    if job.resume is not None:
        jobs = []
        if job.search is None:
            for folder in sides(job.resume):
                jobs.append((folder.name, folders.continued(structs.replace(job, resume=folder))))
        if not jobs:
            continued = folders.continued(job)
            _check_search(continued)
            jobs.append(("", continued))
        return job.resume, jobs
    _check_search(job)
    scenario = job.scenario
    if scenario.against is not None and job.search is not None:
        raise UsageError("against: only the command loadbench run measures two servers: leave it out here")
    root = job.output.folder or folders.new(scenario.name, stack, claim=not job.limits.dry_run)
    if scenario.against is None:
        return root, [("", job)]
    check_new(root)
    base = structs.replace(scenario, against=None, against_model=None)
    new = scenarios.merge(base, endpoint=scenario.against, models=scenario.against_model)
    named_server = structs.replace(job.server, simulate=False)
    both = (structs.replace(job, scenario=base), structs.replace(job, scenario=new, server=named_server))
    return root, list(zip(SIDES, both, strict=True))


def _check_search(job: Job) -> None:
    if job.search is not None:
        capacity.check(job.scenario, Grid.of(job.search), job.budget_s)


async def _measured(root: Path, sides: Sequence[Side], view: View, person: Person) -> list[Session]:
    """All runs to their ends; none after a dry run."""
    async with AsyncExitStack() as stack:
        prepared = [await _prepared(side, stack, view, person, runs=len(sides)) for side in sides]
        opening = Opening(root, prepared)
        if len(prepared) > 1:
            base, new = prepared[0].models, prepared[1].models
            if not set(base) & set(new) and not len(base) == len(new) == 1:  # one model is compared with one
                raise UsageError(
                    f"no model in common: the base has {', '.join(base)}, the other {', '.join(new)}: name one with "
                    "-m, and the other's with --against-model"
                )
        _make_room(prepared)
        view.opening(opening.facts(), person.lines(opening), opening.plan)
        for one in prepared:
            for warning in one.warnings():
                view.note(": ".join(filter(None, (one.side.name, warning))))
        if opening.job.limits.dry_run:
            return []
        if not opening.job.limits.yes:
            urls: list[str] = []
            streams, rate_per_s = 0, 0.0
            for one in prepared:
                urls += one.urls
                most_streams, most_rate_per_s = most(one.scenario, one.to_come.levels, one.side.questions)
                streams, rate_per_s = max(streams, most_streams), max(rate_per_s, most_rate_per_s)
            grid = prepared[0].grid
            if grid is not None and grid.by == "concurrency":
                streams = max(streams, int(grid.most))
            elif grid is not None:
                rate_per_s = max(rate_per_s, grid.most)
            confirm_load(urls, streams, rate_per_s, person.confirm)
        rounds = Rounds()
        sessions = []
        for one in prepared:
            seen = Sided(view, one.side.name) if one.side.name else view
            sessions.append(await one.session(stack, seen, rounds))
        if len(sessions) > 1:
            for one, session, other in zip(prepared, sessions, reversed(prepared), strict=True):
                session.folder.info["against"] = {"side": one.side.name, "other": other.server.base_url}
        process.hold_collector()
        try:
            await in_turns(sessions, view.note)
        finally:
            view.close()
    return sessions


# -- one target


@dataclass(frozen=True, slots=True)
class Side:
    """One target and what it is to be asked."""

    name: str  # of two targets `base` or `new`; "" of a single one
    job: Job
    location: Location
    path: Path  # the run folder
    questions: list[Prompt]  # the prompts; of a run that is continued those that it began with


def _side(name: str, job: Job, path: Path, stack: ExitStack, view: View) -> Side:
    """Check what can be checked before a server is there, and find or start it; it ends with the stack."""
    if job.resume is None:
        questions = prompts.for_scenario(job.scenario, view.note)
        for one in questions:  # a rule that cannot be read is an error now, not after the run
            checks.parse(Question(one.id, "", checks=one.checks))
        check_new(path)
    else:
        questions = folders.questions(path, job.scenario)
    return Side(name, job, connect.locate(job, stack, view.note, view.fetching), path, questions)


@dataclass(frozen=True)
class Prepared:
    """A target that was reached, and what is to be measured of it."""

    side: Side
    reached: Reached
    server: Target  # without a base URL where it is started for a real run alone
    choice: Choice
    steps: Plan  # all its levels; none of a search
    done: set[str]  # ids of those that are complete
    grid: Grid | None  # the loads of a search
    runs: int  # how many runs share the budget of time
    others: tuple[Reached, ...] = ()  # further endpoints of the service

    @property
    def scenario(self) -> Scenario:
        return self.side.job.scenario

    @property
    def servers(self) -> list[Target]:
        """All that take the requests in turns."""
        return [self.server, *(one.server for one in self.others)]

    @cached_property
    def spread(self) -> int | str | None:
        """How many processes, or which cluster, share the load; None where this process makes it."""
        job = self.side.job
        began = None if job.resume is None else read_info(self.side.path)
        return workers_of(job.sharing, began, local=all(map(targets.is_loopback, filter(None, self.urls))))

    @property
    def models(self) -> list[str]:
        return [one.id for one in self.choice.chosen]

    @property
    def urls(self) -> list[str]:
        """Of all servers that get requests; none that is started for the run."""
        if not self.server.base_url:
            return []
        urls = []
        for server in self.servers:
            urls += [server.base_url, *server.chat_urls(self.models).values()]
        return urls

    @property
    def to_come(self) -> Plan:
        """The levels that are not complete."""
        return replace(self.steps, levels=tuple(one for one in self.steps.levels if one.level.id not in self.done))

    def facts(self) -> dict[str, object]:
        """The opening as programs read it."""
        endpoints = [one.base_url for one in self.servers] if self.others else None
        return {
            "target": self.server.base_url or None,
            "endpoints": endpoints,
            "kind": self.server.kind if self.server.base_url else None,
            "found": self.side.location.how,
            "models": self.models,
            "absent": [asdict(one) for one in self.choice.absent],
            "folder": str(self.side.path),
            "scenario": scenarios.to_builtins(self.scenario),
            "budget_s": self.side.job.budget_s,
        }

    def warnings(self) -> list[str]:
        """What may go wrong, a line each."""
        secure = next((url for url in self.urls if url.startswith("https:")), self.server.base_url or None)
        insecure = self.side.job.server.insecure
        found = connect.warnings(secure, self.scenario.api_key_file, insecure=insecure)
        watched = Watched(self.server)
        for one in self.choice.chosen:
            if one.facts is not None and (warning := watched.memory_warning(one.facts)) is not None:
                found.append(f"Warning: {warning}")
        if self.scenario.output_exact and not self._ignores_eos:
            kind = next(one.kind for one in self.servers if not targets.VENDORS[one.kind].ignore_eos)
            found.append(f"--output-exact: {kind} is not known to honour it: answers end where the model ends them")
        return found

    async def session(self, stack: AsyncExitStack, view: View, rounds: Rounds) -> Session:
        """Its run, in a folder that is made or opened again; what it needs ends with the stack."""
        scenario, server, side, job = self.scenario, self.server, self.side, self.side.job
        parameters = self._parameters()
        key = connect.key(scenario.api_key_env, scenario.api_key_file, side.location.how)
        weights = scenario.weights or [1] * len(self.servers)
        endpoints = []
        for each, weight in zip(self.servers, weights, strict=True):
            endpoints.append(Endpoint(each.chat_url, each.chat_urls(self.models), weight))
        route = Route(
            tuple(endpoints),
            targets.request_headers(scenario.headers, key),
            parameters,
            scenario.timeouts,
            stamps=job.server.stamps,
            ca_pem=connect.authorities(job.server),
            insecure=job.server.insecure,
            proxy=connect.proxy(self.servers),
        )
        client = route.open()
        stack.push_async_callback(client.transport.aclose)
        watched = Watched(server, tuple(self.servers[1:]))
        sampler = stack.enter_context(watched.sampling()) if job.output.telemetry else None
        spread, drive = None, None
        if self.spread is not None:
            workers = await begin_workers(self.spread, route, view.note, stack)
            spread, drive = workers.facts(job.sharing), workers.drive
            if sampler is not None:
                sampler.workers = workers.pids
        # Several endpoints are neither scraped nor made to load models: it would be the first of them alone.
        scrape, control, shares = self.reached.scrape, self.reached.control, None
        if self.others:
            scrape, control, shares = None, None, self._endpoints(weights)
        if job.resume is not None:
            folder = RunFolder.reopen(side.path)
        else:
            clock = client.transport.clock
            info = folders.info(job, server, side.location.how, self.choice, parameters, side.questions, clock)
            info |= {
                "budget_s": job.budget_s,
                "telemetry": watched.facts(sampler),
                "insecure": job.server.insecure,
                "spread": spread,
                "endpoints": shares,
            }
            if self.grid is not None:
                info["capacity"] = capacity.begun(self.models, self.grid, scenario)
            elif scenario.until is not None:
                info["until"] = until_record(scenario)
            folder = RunFolder.create(side.path, info, answers=job.output.answers)
        folders.keep_questions(side.path, side.questions)
        budget_s = job.budget_s
        steps = self.to_come if self.runs == 1 else self.steps  # in turns, what is complete keeps its turn
        if self.grid is not None:
            schedule: Schedule = Search(scenario, folder.info["capacity"], view.step, budget_s)
            budget_s = None  # the search keeps to it
        else:
            schedule = Fixed(steps.levels)
            if until := folder.info.get("until"):
                schedule = Precise(steps.levels, until, view.note, scenario.stream, rounds)
            schedule = with_aborts(schedule, scenario.thresholds, streamed=scenario.stream)
        chosen = self.choice.chosen
        origins = {}
        for one in chosen:
            if one.facts is not None:
                origins[one.id] = connect.origin(side.location, one.facts)
        return Session(
            scenario,
            side.questions,
            server,
            chosen,
            steps,
            folder,
            client,
            view,
            Watch(folder, sampler, scrape, local=watched.local, view=view),
            control=control,
            origins=origins,
            budget_s=budget_s,
            runs=self.runs,
            drive=drive,
            schedule=schedule,
        )

    @property
    def _vendors(self) -> list[Vendor]:
        return [targets.VENDORS[one.kind] for one in self.servers]

    @property
    def _ignores_eos(self) -> bool:
        return all(one.ignore_eos for one in self._vendors)

    def _parameters(self) -> Parameters:
        """What each request carries; llama.cpp's prompt cache is off unless the scenario says otherwise."""
        scenario, body = self.scenario, {}
        if all(one.cache_prompt for one in self._vendors):
            body["cache_prompt"] = False
        if scenario.output_exact and self._ignores_eos:
            body["ignore_eos"] = True
        min_tokens = scenario.output_exact and all(one.min_tokens for one in self._vendors)
        return Parameters(
            scenario.max_tokens, scenario.temperature, body | scenario.extra_body, scenario.stream, min_tokens
        )

    def _endpoints(self, weights: Sequence[int]) -> list[dict[str, object]]:
        """For run.json."""
        found = []
        for one, weight in zip([self.reached, *self.others], weights, strict=True):
            server, round_trip_ms = one.server, rounded(one.round_trip_ns, 3, per=1e6)
            facts: dict[str, object] = {"url": server.base_url, "weight": weight, "kind": server.kind}
            facts |= {"version": server.version, "round_trip_ms": round_trip_ms}
            found.append(facts)
        return found


async def _prepared(side: Side, stack: AsyncExitStack, view: View, person: Person, *, runs: int) -> Prepared:
    """Ask the target what it has, and plan."""
    job, location, scenario = side.job, side.location, side.job.scenario
    found = await stack.enter_async_context(connect.reached(location, job, view.note))
    others = await connect.replicas(location, job, stack, view.note)
    server = found.server
    if job.resume is not None and location.endpoint is not None:
        folders.check_servers(side.path, [server, *(each.server for each in others)])
    choice = which(server, found.choose(scenario), job, person)
    connect.check_replicas(choice, others)
    if location.endpoint is None:
        server = replace(server, base_url="")
    if job.search is not None:
        grid = Grid.of(job.search)
        return Prepared(side, found, server, choice, Plan((), (), ""), set(), grid, runs, others)
    names = [chosen.id for chosen in choice.chosen]
    if job.limits.first_look:
        limits = structs.replace(job.limits, budget=Duration(FIRST_LOOK_S * len(names)))
        job = structs.replace(job, limits=limits)
        side = replace(side, job=job)
    budget_s = job.budget_s
    if budget_s is not None:
        budget_s /= runs
    steps = plan.make(scenario, names, prompts=side.questions, budget_s=budget_s)
    plan.check_thresholds(scenario, names)
    done: set[str] = set()
    if job.resume is not None:
        done = folders.complete(side.path) & {step.level.id for step in steps.levels}
    return Prepared(side, found, server, choice, steps, done, None, runs, others)


def which(server: Target, choice: Choice, job: Job, person: Person) -> Choice:
    """What to measure of what is at hand: several models that are not loaded take a word, as each takes its time.

    Raises:
        UsageError: Nobody can be asked which, or the answer names none.
    """
    idle: Counter[str | None] = Counter()
    for one in choice.chosen:
        if one.facts is not None and one.facts.loaded is False:
            idle[one.device] += 1
    few = max(idle.values(), default=0) < 2 and len(choice.chosen) <= _DOZEN
    if job.scenario.models != "auto" or few or job.server.every_model:
        return choice
    ids = list(dict.fromkeys(one.id for one in choice.chosen))
    many = f"{server.base_url} has {len(ids)} models"
    if idle.total() == len(choice.chosen):
        many += ", none of them loaded"
    words = person.choose(many, ids)
    if words is None:
        raise UsageError(f"{many}: choose with -m, as -m {shlex.quote(ids[0])}, or take all with -m all ({some(ids)})")
    if words == ["all"]:
        return choice
    numbered = {str(number): id_ for number, id_ in enumerate(ids, 1)}
    picked = {numbered.get(word, word) for word in words}
    if unknown := picked - set(ids):
        raise UsageError(f"{', '.join(sorted(unknown))}: no such model there: choose with -m")
    return replace(choice, chosen=tuple(one for one in choice.chosen if one.id in picked))


# -- all targets together


@dataclass(frozen=True)
class Opening:
    """What a run is about to do: where all of it goes, and its target, or both."""

    folder: Path
    prepared: Sequence[Prepared]

    @property
    def job(self) -> Job:
        """What both sides have in common."""
        return self.prepared[0].side.job

    @cached_property
    def plan(self) -> Plan:
        """The plan as it is shown: of two sides their levels in turns, under the names of their sides."""
        first, *more = [one.to_come for one in self.prepared]
        if not more:
            return first
        levels: list[PlannedLevel] = []
        for number, pair in enumerate(zip_longest(first.levels, more[0].levels)):
            ones = []
            for name, one in zip(SIDES, pair, strict=True):
                if one is not None:
                    ones.append(replace(one, level=named(one.level, name)))
            if number % 2:  # each side goes first every other time
                ones.reverse()
            levels += ones
        return Plan(tuple(levels), first.cuts, first.assumption or more[0].assumption, first.idle_s + more[0].idle_s)

    def facts(self) -> Mapping[str, object]:
        """As programs read it."""
        if len(self.prepared) == 1:
            return self.prepared[0].facts()
        return {"sides": {one.side.name: one.facts() for one in self.prepared}, "folder": str(self.folder)}


def _make_room(prepared: Sequence[Prepared]) -> None:
    """Raise the open-files limit to what the streams need; a cluster's workers do so themselves.

    Raises:
        UsageError: This system does not let a process open so many.
    """
    spread, grid = prepared[0].spread, prepared[0].grid
    if isinstance(spread, str):
        return
    of = spread or 1
    option, wanted, most_streams = "-c", 0, 0
    for one in prepared:
        for step in one.steps.levels:
            wanted = max(wanted, step.level.concurrency or 0)
            most_streams = max(most_streams, step.level.concurrency or step.limits.max_streams)
    if grid is not None:
        option = "--max"
        if grid.by == "concurrency":
            wanted = int(grid.most)
        most_streams = wanted or prepared[0].scenario.max_streams or MAX_STREAMS
    room = raise_file_limit(ceil(most_streams / of))
    # At a rate it is fewer streams, not a refusal: nobody asked for a number of them.
    if room is not None and room < ceil(wanted / of):
        raise UsageError(
            f"{option} {wanted}: this system lets a process open {room} streams; raise its limit (ulimit -Hn) or ask "
            "for fewer"
        )


# -- what became of it


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run left."""

    name: str  # `base` or `new`; "" of a run alone
    folder: Path
    failed: Mapping[str, str]  # models that completed nothing, and why
    info: Facts  # run.json


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job came to."""

    folder: Path  # where all of it is
    runs: tuple[Ran, ...]  # one, or those of both sides; none after a dry run
    interrupted: bool  # whether the user ended it
    is_search: bool

    @property
    def goes_on_with(self) -> str:
        """The command that goes on with it."""
        command = "capacity" if self.is_search else "run"
        return f"loadbench {command} --resume {shlex.quote(str(self.folder))}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The exit code of the command, and the reasons for it, a line of stderr each."""

    code: int
    reasons: tuple[str, ...] = ()


def reported(folder: Path) -> dict[str, Any]:
    """Write the reports, from the folder alone, as `loadbench report` would; the summary."""
    # Here and below: what reads a run takes as long to import as what measures, and is needed once there is a run.
    from loadbench import report, select

    summary = select.summarise(store.read(folder))
    report.write(summary, folder)
    return summary


def verdict(outcome: Outcome, summary: Facts, *, strict: bool = False) -> Verdict:
    """How a run alone ends."""
    from loadbench.report import objectives

    ran = outcome.runs[0]
    if outcome.interrupted:
        return Verdict(INTERRUPTED, tuple(failures(ran)))
    if ran.failed:
        return Verdict(1, tuple(failures(ran)))
    if outcome.is_search:  # which tries again by itself
        for record in ran.info["capacity"]:
            low, high = record["bracket"]
            if record["found"] is None and low is None and (high is not None or record["reason"] == UNDECIDED):
                return Verdict(FAILED)  # some model does not surely meet the SLO even at the lowest load
        return Verdict(0)
    lost = incomplete([summary], outcome)
    if lost:
        return Verdict(1, tuple(lost))
    missed = objectives.reasons(summary, strict=strict)
    if missed:
        return Verdict(FAILED, tuple(missed))
    return Verdict(0)


def compared(outcome: Outcome, summaries: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The comparison of both sides, written beside their folders; None where there is nothing to compare."""
    from loadbench import compare, report

    known = {}
    for one, summary in zip(outcome.runs, summaries, strict=True):
        known[one.folder] = msgspec.convert(summary, Summary)
    base, new = (compare.gather([store.read(folder)], folder.name, summaries=known) for folder in known)
    if not compare.matched(base.sides, new.sides):
        return None
    document = compare.document([compare.compare_runs(base, new, compare.Terms(meant=compare.MEANT))])
    for kind, end in (("markdown", "md"), ("json", "json")):
        write_atomically(outcome.folder / f"compare.{end}", report.COMPARISONS[kind](document).encode())
    return document


def failures(ran: Ran) -> list[str]:
    """Which models completed nothing, and why."""
    return [f"{ran.name} {model}: {reason}".lstrip() for model, reason in ran.failed.items()]


def incomplete(summaries: Sequence[Facts], outcome: Outcome) -> list[str]:
    """Which levels lost a part of their load on the way, and how they are measured again; empty where none did."""
    found = []
    for summary in summaries:
        for level in summary["levels"]:
            if level.get("status") == "incomplete":
                found.append(f"{level['id']}: {level['reason']}")
    if found:
        found.append(f"measure them again with: loadbench run --resume {shlex.quote(str(outcome.folder))}")
    return found
