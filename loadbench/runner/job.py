"""A job: everything that one run is to do. The command line and `loadbench.run` make one; `runner` carries it out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec

from loadbench import scenario as scenarios
from loadbench.errors import UsageError
from loadbench.scenario import Scenario
from loadbench.scenario.bounds import Duration, decoded, encoded
from loadbench.scenario.settings import Flag

FIRST_LOOK_S = 75.0
"""With a server's start and its first answers, a result is there within 90 s."""


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the server is reached."""

    simulate: Annotated[
        bool, Flag("--simulate", "Measure a simulator; its figures are labelled so.", variable=False)
    ] = False
    wait: Annotated[Duration | None, Flag("--wait", "Wait until the server answers.", "60s")] = None
    ca_file: Annotated[
        str | None, Flag("--ca-file", "Certificate authorities to trust (PEM).", "FILE", "certificates")
    ] = None
    insecure: Annotated[bool, Flag("--insecure", "Accept any certificate.")] = False
    stamps: Annotated[
        Literal["thread", "kernel", "user"] | None,
        Flag("--stamps", "Who reads: thread, kernel or user.  [default: best]", "WHERE", workshop="LOADBENCH_READER"),
    ] = None
    every_model: bool = False  # all models at hand are meant, by that word: no question which
    cache_dir: Annotated[
        Path | None,
        Flag("--cache-dir", "Models of Foundry Local's SDK.  [default: ~/.loadbench/cache/models]", "DIR", "folder"),
    ] = None


class Sharing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who makes the load; with neither, this process alone."""

    workers: Annotated[
        int | Literal["auto"] | None, Flag("--workers", "Processes that share the load, or auto.", "N", "workers")
    ] = None
    cluster: Annotated[
        str | None, Flag("--cluster", "Dask workers that share it: tcp://HOST:PORT, local:N.", "ADDRESS")
    ] = None


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a run may go."""

    yes: Annotated[bool, Flag("-y --yes", "Do not ask before a large load on another machine.")] = False
    dry_run: Annotated[bool, Flag("--dry-run", "Show the plan and stop.", variable=False)] = False
    budget: Annotated[Duration | None, Flag("--budget", "Shorten the plan to fit this time.", "5m")] = None
    # Nothing was said of loads or lengths: FIRST_LOOK_S for each model, whatever the plan would take
    first_look: bool = False


class Output(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept, and where."""

    folder: Annotated[
        Path | None, Flag("-o --output", "The run's folder.  [default: results/...]", "DIR", "path", variable=False)
    ] = None
    answers: Annotated[bool, Flag("--answers/--no-answers", "Keep the answers' texts.  [default: keep]")] = True
    telemetry: Annotated[bool, Flag("--telemetry/--no-telemetry", "Sample the server each second.  [default: do]")] = (
        True
    )


class Search(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The loads of a search for the highest one that meets the SLO."""

    by: Annotated[
        Literal["concurrency", "rate"],
        Flag("--by", "Search for a concurrency or a rate.  [default: concurrency]", "KIND"),
    ] = "concurrency"
    start: Annotated[float, Flag("--from", "First load: streams, or requests/s.", "N")] = 1.0
    most: Annotated[float, Flag("--max", "Highest load.  [default: 1000]", "N")] = 1000.0
    within: Annotated[float, Flag("--within", "How near a load that fails must be.", "5%", "share")] = 0.05


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    # The folder of a run that goes on; the scenario then has only what its run.json does not store
    resume: Annotated[Path | None, Flag("--resume", "Continue this folder's run.", "DIR", "path", variable=False)] = (
        None
    )
    scenario: Scenario = msgspec.field(default_factory=Scenario)
    server: Server = msgspec.field(default_factory=Server)
    sharing: Sharing = msgspec.field(default_factory=Sharing)
    limits: Limits = msgspec.field(default_factory=Limits)
    output: Output = msgspec.field(default_factory=Output)
    search: Search | None = None  # the scenario's load is searched for; None where it is given
    command: tuple[str, ...] = ()  # the command line, for run.json

    @property
    def budget_s(self) -> float | None:
        """How long all of its runs may take together."""
        return None if self.limits.budget is None else float(self.limits.budget)

    def to_json(self) -> bytes:
        """The job for another process on this machine; secrets are in it, as they must be."""
        return msgspec.json.encode(self, enc_hook=encoded)

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """A job as `to_json` wrote it.

        Raises:
            UsageError: It is none.
            ScenarioError: Its scenario is not valid.
        """
        try:
            plain = msgspec.json.decode(text, type=dict[str, object])
            scenario = scenarios.from_json(msgspec.json.encode(plain.pop("scenario")), "options")
            job = msgspec.convert(plain, cls, dec_hook=decoded)
        except (msgspec.ValidationError, msgspec.DecodeError, KeyError) as error:
            raise UsageError(f"this is no job: {error}") from None
        return msgspec.structs.replace(job, scenario=scenario)
