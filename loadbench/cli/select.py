"""`loadbench select`: which of the measured models to ship, and why."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import orjson

from loadbench import report
from loadbench import select as selecting
from loadbench.cli.options import FILE, MORE, RUN, Command, or_last, under
from loadbench.cli.surroundings import note, put, write
from loadbench.errors import FAILED, UsageError
from loadbench.report import choice, text
from loadbench.scenario.files import parse_json, parse_toml, read_text
from loadbench.scenario.reading import read_models
from loadbench.text import printable

_EPILOG = """\b
Examples:
  loadbench select results/models
  loadbench select results/cpu results/gpu --at c4
  loadbench select results/models --need "ttft_p95 < 1s" --need "memory < 4GB"
  loadbench select results/models --need license=mit,apache-2.0
  loadbench select results/models --weight latency=5 --weight disk=0
  loadbench select results/models --weights policy.toml --format markdown
  loadbench select results/models --write-models models.json

\b
Criteria: latency (TTFT p95, E2E mean), throughput (characters/s), quality,
memory, disk, cost (or energy), tokens (tokens/s), licence. Weights are parts:
the usual ones are 3, 2, 3, 1, 0.5, 0.5, 0, 0. A file (TOML or JSON) lists all
that counts, as latency = 3, and may hold requirements (needs) and licences too.
Requirements: any bound of a run, and memory, disk, quality, rules, energy,
cost, characters_per_s, licence=a,b, device=cpu,gpu.

\b
Exit: 0 chosen, with warnings or without; 2 arguments or files; 3 no model meets
the requirements.
"""
_what, _out = under("What counts"), under(MORE)
_MISSING_HELP = "A model without a required figure: eliminate it, or allow it with a warning.  [default: out]"


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("folders", metavar="[RUN …]", nargs=-1, type=RUN, callback=or_last)
@_what(
    "--need",
    "needs",
    multiple=True,
    metavar="BOUND",
    help="A requirement; models that miss it are eliminated. Repeatable.",
)
@_what("--missing", type=click.Choice(["out", "allow"]), default="out", help=_MISSING_HELP)
@_what("--weights", type=FILE, metavar="FILE", help="All that counts, TOML or JSON.  [default: the usual]")
@_what("--weight", multiple=True, metavar="NAME=PARTS", help="One weight, as latency=3. May be repeated.")
@_what("--at", metavar="LOAD", help="As c4 or r0.5.  [default: the highest load that all completed]")
@_out(
    *("--format", "kind"),
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    help="What to print; markdown is a decision record.  [default: text]",
)
@_out("--explain", is_flag=True, help="Print all figures, what would change the choice, and its terms.")
@_out("-o", "--output", type=FILE, metavar="FILE", help="Write there, not to stdout.")
@_out("--write-models", type=FILE, metavar="FILE", help="Write models.json, or add the figures to it.")
@_out("--seed", type=click.IntRange(min=0), default=1, metavar="N", help="Of the draws.  [default: 1]")
def select(
    folders: tuple[Path, ...],
    needs: tuple[str, ...],
    missing: Any,
    weights: Path | None,
    weight: tuple[str, ...],
    at: str | None,
    kind: str,
    explain: bool,
    output: Path | None,
    write_models: Path | None,
    seed: int,
) -> int:
    """Choose a model from the runs in the folders RUN, or from the newest one ("last").

    Every model on every device is a candidate. Models that miss a requirement are eliminated; the others are ranked by
    weighted criteria. The result says how firm the rank is, and what would change it.
    """
    if explain and kind != "text":
        raise UsageError(f"--explain is for --format text; {kind} always has every figure: leave it out")
    policy = _policy(weights, weight)
    terms = selecting.Terms(
        policy=policy,
        needs=[selecting.Need.parse(need) for need in (*policy.needs, *needs)],
        at=at,
        missing=missing,
        seed=seed,
    )
    runs = [selecting.read(folder) for folder in dict.fromkeys(folder.resolve() for folder in folders)]
    candidates = selecting.candidates(runs)
    if not candidates:
        names = ", ".join(str(folder) for folder in folders)
        raise UsageError(f"{names}: no level was measured there, so there is nothing to choose from")
    record = selecting.choose(candidates, runs, terms)
    if kind == "text" and output is None:
        text.show(choice.document(record, short=not explain), text.console(sys.stdout))
    else:
        put(report.CHOICES[kind](record), output)
    if write_models is not None:
        # The file is old or new at every moment; what is ours in it is replaced, all else stays.
        facts: dict[str, Any] = {}
        for one in runs:
            facts |= (one.run.info.get("scenario") or {}).get("model_facts") or {}
        updated = selecting.updated(read_models(write_models) if write_models.exists() else {}, record, facts)
        option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        write(write_models, orjson.dumps(updated, option=option).decode())
        note(f"wrote {write_models}: {len(record['candidates'])} measured of {len(updated)} models")
    return FAILED if record["winner"] is None else 0


def _policy(path: Path | None, weight: tuple[str, ...]) -> selecting.Policy:
    """What counts: of a file of weights, else the usual, with single weights of the command line."""
    if path is None:
        return selecting.policy(None, weight)
    where = printable(str(path))
    if path.suffix.lower() not in (".toml", ".json"):
        raise UsageError(f"{where}: a file of weights ends in .toml or .json")
    content = read_text(path)
    data = parse_toml(content, where) if path.suffix.lower() == ".toml" else parse_json(content, where)
    return selecting.policy(data, weight, where)
