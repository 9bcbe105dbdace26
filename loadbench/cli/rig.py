"""A target set up to be measured: reached, its levels planned, told of, and its session."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadbench import prompts, scenario, store
from loadbench import server as targets
from loadbench.cli import consent, reach, record, replicas, resume, verdict, workers
from loadbench.cli import place as places
from loadbench.cli.place import Place, Reached
from loadbench.cli.watched import Shown, Watched
from loadbench.client import Parameters
from loadbench.client.route import Route
from loadbench.errors import UsageError
from loadbench.prompts import Prompt
from loadbench.quality import Question, checks
from loadbench.runner import abort, plan, precision
from loadbench.runner.plan import Plan
from loadbench.runner.precision import Rounds
from loadbench.runner.session import Fixed, Schedule, Session, Watch
from loadbench.scenario import Scenario
from loadbench.server import Choice, Target

if TYPE_CHECKING:
    from loadbench.cli.live import View
    from loadbench.cli.measure import Course


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of one target, and where its records go.

    Attributes:
        scenario: With all settings in it.
        given: The command's options, for what is no part of a scenario.
        place: Where the target is.
        path: The run folder.
        prompts: What is asked; those that the run began with, where it is continued.
    """

    scenario: Scenario
    given: dict[str, Any]
    place: Place
    path: Path
    prompts: list[Prompt]


def asked(wanted: Scenario, given: dict[str, Any], path: Path, stack: ExitStack, view: View) -> Asked:
    """Check what can be checked before a server is there, and find or start it; it ends with the stack.

    Args:
        path: The run folder: a new one, or that of `--resume`.
    """
    if given["resume"] is None:
        questions = prompts.for_scenario(wanted, view.note)
        for one in questions:  # a rule that nobody understands is told now, not after the run
            checks.parse(Question(one.id, "", checks=one.checks))
        store.check_new(path)
    else:
        questions = resume.questions(path, wanted)
    return Asked(wanted, given, places.find(wanted, given, stack, view.note), path, questions)


@dataclass(frozen=True)
class Rig:
    """A target that was reached.

    Attributes:
        server: Without a base URL where it is started for a real run alone.
        steps: All its levels.
        done: Ids of those that are complete.
        runs: How many runs share the budget of time.
        others: Further endpoints of the service.
    """

    asked: Asked
    reached: Reached
    server: Target
    choice: Choice
    steps: Plan
    done: set[str]
    course: Course | None
    runs: int
    others: tuple[Reached, ...] = ()

    @property
    def servers(self) -> list[Target]:
        """All that take the requests in turns."""
        return [self.server, *(one.server for one in self.others)]

    @cached_property
    def spread(self) -> int | str | None:
        """How many processes, or which cluster, share the load; None where this process makes it."""
        began = None if self.asked.given["resume"] is None else store.read_info(self.asked.path)
        return workers.wanted(self.asked.given, began, local=all(targets.is_loopback(url) for url in self.urls if url))

    @property
    def models(self) -> list[str]:
        return [one.id for one in self.choice.chosen]

    @property
    def urls(self) -> list[str]:
        """Of all servers that get requests; none that is started for the run."""
        urls = [url for one in self.servers for url in (one.base_url, *one.chat_urls(self.models).values())]
        return urls if self.server.base_url else []

    @property
    def to_come(self) -> Plan:
        """The levels that are not complete."""
        return replace(self.steps, levels=tuple(one for one in self.steps.levels if one.level.id not in self.done))

    @property
    def budget_s(self) -> float | None:
        """Of all runs that share it."""
        return _budget_s(self.asked.given)

    def facts(self) -> dict[str, Any]:
        """What a program reads of it before the run begins."""
        return {
            "target": self.server.base_url or None,
            "endpoints": [one.base_url for one in self.servers] if self.others else None,
            "kind": self.server.kind if self.server.base_url else None,
            "found": self.asked.place.how,
            "models": self.models,
            "absent": [asdict(one) for one in self.choice.absent],
            "folder": str(self.asked.path),
            "scenario": scenario.to_builtins(self.asked.scenario),
            "budget_s": self.budget_s,
        }

    def warnings(self) -> list[str]:
        """What may go wrong, a line each."""
        asked = self.asked
        secure = next((url for url in self.urls if url.startswith("https:")), self.server.base_url or None)
        found = reach.warnings(secure, asked.given, asked.scenario.api_key_file)
        found += [f"Warning: {warning}" for warning in Watched(self.server).memory_warnings(self.choice)]
        if self.asked.scenario.output_exact and not _exact(self.servers):
            kind = next(one.kind for one in self.servers if not targets.VENDORS[one.kind].ignore_eos)
            found.append(f"--output-exact: {kind} is not known to honour it: answers end where the model ends them")
        return found

    async def session(self, stack: AsyncExitStack, view: View, rounds: Rounds | None = None) -> Session:
        """Its run, in a folder that is made or opened again; what it needs ends with the stack.

        Args:
            rounds: Of all runs that take turns with it.
        """
        wanted, given, server, place = self.asked.scenario, self.asked.given, self.server, self.asked.place
        parameters = Parameters(
            *(wanted.max_tokens, wanted.temperature, _extra_body(wanted, self.servers)),
            *(wanted.stream, _min_tokens(wanted, self.servers)),
        )
        route = Route(
            tuple(replicas.client_endpoints(self.servers, self.models, wanted.weights)),
            targets.request_headers(wanted.headers, reach.key(wanted.api_key_env, wanted.api_key_file)),
            parameters,
            wanted.timeouts,
            stamps=given.get("stamps"),
            ca_pem=reach.authorities(given),
            insecure=given["insecure"],
            proxy=reach.proxy(self.servers),
        )
        client = route.open()
        stack.push_async_callback(client.transport.aclose)
        watched = Watched(server, tuple(one.server for one in self.others))
        sampler = stack.enter_context(watched.sampling(given["telemetry"]))
        shared = None if self.spread is None else await workers.begin(self.spread, route, view.note, stack)
        if shared is not None and sampler is not None:
            sampler.workers = shared.pids
        if given["resume"] is not None:
            folder = store.RunFolder.reopen(self.asked.path)
        else:
            info = record.info(
                wanted, server, place.how, self.choice, parameters, self.asked.prompts, client.transport.clock
            )
            info |= {"budget_s": self.budget_s, "telemetry": watched.facts(sampler), "insecure": given["insecure"]}
            info["spread"] = None if shared is None else shared.facts(given)
            info["endpoints"] = replicas.facts([self.reached, *self.others], wanted.weights)
            info |= self.course.info(self.models) if self.course else {}
            info |= {"until": precision.begun(wanted)} if wanted.until is not None and self.course is None else {}
            folder = store.RunFolder.create(self.asked.path, info, answers=given["answers"])
        resume.keep_questions(self.asked.path, self.asked.prompts)
        chosen = self.choice.chosen
        steps = self.to_come if self.runs == 1 else self.steps  # in turns, what is complete keeps its turn
        return Session(
            wanted,
            self.asked.prompts,
            server,
            chosen,
            steps,
            folder,
            client,
            view,
            Watch(Shown(folder, view), sampler, None if self.others else self.reached.scrape, local=watched.local),
            control=None if self.others else self.reached.control,
            origins={one.id: places.origin(place, one.facts) for one in chosen if one.facts is not None},
            budget_s=None if self.course else self.budget_s,
            runs=self.runs,
            drive=None if shared is None else shared.drive,
            schedule=self.course.schedule(folder.info, view)
            if self.course
            else _levels(wanted, steps, folder, view, rounds),
        )


async def reached(one: Asked, stack: AsyncExitStack, view: View, course: Course | None = None, *, runs: int = 1) -> Rig:
    """Ask the target what it has, and plan.

    Args:
        course: Measured in place of a plan's levels.
        runs: How many runs share the budget of time.
    """
    wanted, given = one.scenario, one.given
    found = await stack.enter_async_context(places.reached(one.place, wanted, given, view.note))
    others = await replicas.reached(one.place, wanted, given, stack, view.note)
    server = found.server
    if given["resume"] is not None and one.place.endpoint is not None:
        resume.check_servers(one.path, [server, *(each.server for each in others)])
    choice = consent.which(server, found.choose(wanted), wanted, given)
    replicas.check(choice, others)
    names = [chosen.id for chosen in choice.chosen]
    if one.place.endpoint is None:
        server = replace(server, base_url="")
    budget_s = _budget_s(given)
    share_s = None if budget_s is None else budget_s / runs
    steps = Plan((), (), "") if course else plan.make(wanted, names, prompts=one.prompts, budget_s=share_s)
    if course is None:
        verdict.check(wanted, names)
    done = resume.complete(one.path if given["resume"] else None) & {step.level.id for step in steps.levels}
    return Rig(one, found, server, choice, steps, done, course, runs, tuple(others))


def make_room(steps: Sequence[Plan], course: Course | None, spread: int | str | None = None) -> None:
    """Raise the open-files limit to what the streams need; a cluster's workers do so themselves.

    Args:
        spread: How many processes share them.
    Raises:
        UsageError: This system does not let a process open so many.
    """
    from loadbench.transport.limits import raise_file_limit

    if isinstance(spread, str):
        return
    of = spread or 1
    levels = [one for plan_ in steps for one in plan_.levels]
    streams = [one.level.concurrency or one.limits.max_streams for one in levels]
    room = raise_file_limit(ceil(max(streams + ([course.streams] if course else [])) / of))
    worst = course.needed if course else max((one.level.concurrency or 0 for one in levels), default=0)
    if room is not None and room < ceil(worst / of):
        raise UsageError(
            f"{'--max' if course else '-c'} {worst}: this system lets a process open {room} streams; raise its limit "
            "(ulimit -Hn) or ask for fewer"
        )


def confirm(rigs: Sequence[Rig], course: Course | None) -> None:
    """Ask whether a large load on another machine is meant, once for all that is to come.

    Raises:
        UsageError: It is not, or nobody says so.
    """
    mosts = [consent.most(one.asked.scenario, one.to_come.levels, one.asked.prompts) for one in rigs]
    if course is not None:
        mosts.append((course.needed, course.per_s))
    streams, rates = zip(*mosts, strict=True)
    consent.ask((url for one in rigs for url in one.urls), max(streams), max(rates), rigs[0].asked.given)


def _budget_s(given: dict[str, Any]) -> float | None:
    return None if given["budget"] is None else float(given["budget"])


def _extra_body(wanted: Scenario, servers: Sequence[Target]) -> dict[str, Any]:
    """The scenario's extra keys; llama.cpp is told not to answer from its prompt cache unless they say otherwise."""
    cold = {"cache_prompt": False} if all(targets.VENDORS[one.kind].cache_prompt for one in servers) else {}
    whole = {"ignore_eos": True} if wanted.output_exact and _exact(servers) else {}
    return {**cold, **whole, **wanted.extra_body}


def _exact(servers: Sequence[Target]) -> bool:
    return all(targets.VENDORS[one.kind].ignore_eos for one in servers)


def _min_tokens(wanted: Scenario, servers: Sequence[Target]) -> bool:
    return wanted.output_exact and all(targets.VENDORS[one.kind].min_tokens for one in servers)


def _levels(wanted: Scenario, steps: Plan, folder: store.RunFolder, view: View, rounds: Rounds | None) -> Schedule:
    """The levels of the plan: all, or until the figures are known well enough, or until a threshold ends the run."""
    known = folder.info.get("until")
    found: Schedule = Fixed(steps.levels)
    if known:
        found = precision.Precise(steps.levels, known, view.note, wanted.stream, rounds or Rounds())
    return abort.watched(found, wanted.thresholds, streamed=wanted.stream)
