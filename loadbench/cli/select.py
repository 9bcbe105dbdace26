"""`loadbench select`: which of the measured models to ship, and why."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.options import MORE, HeadedCommand, under

if TYPE_CHECKING:
    from loadbench.select import Measured, Policy, Record

EPILOG = """\b
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
that counts, as latency = 3, and may hold needs and licences too.
Needs: any bound of a run, and memory, disk, quality, rules, energy, cost,
characters_per_s, licence=a,b, device=cpu,gpu.

\b
Exit: 0 chosen, doubts or not; 2 arguments or files; 3 nobody meets the needs.
"""
NOBODY = 3

_what, _out = under("What counts"), under(MORE)
_FILE = click.Path(path_type=Path, dir_okay=False)
_OWN = {"variable": False}


@click.command(cls=HeadedCommand, epilog=EPILOG)
@click.argument("folders", metavar="RUN …", nargs=-1, required=True, type=click.Path(path_type=Path))
@_what("--need", "needs", multiple=True, metavar="BOUND", help="Who misses it falls out. May be repeated.", **_OWN)
@_what(
    "--missing",
    type=click.Choice(["out", "allow"]),
    default="out",
    help="Who is not known to meet a need: falls out, or stays with a doubt.  [default: out]",
    **_OWN,
)
@_what("--weights", type=_FILE, metavar="FILE", help="All that counts, TOML or JSON.  [default: the usual]", **_OWN)
@_what("--weight", multiple=True, metavar="NAME=PARTS", help="One weight, as latency=3. May be repeated.", **_OWN)
@_what("--at", metavar="LOAD", help="As c4 or r0.5.  [default: the highest load that all completed]", **_OWN)
@_out(
    *("--format", "kind"),
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    help="What to print; markdown is a decision record.  [default: text]",
    **_OWN,
)
@_out("-o", "--output", type=_FILE, metavar="FILE", help="Write there, not to stdout.", **_OWN)
@_out("--write-models", type=_FILE, metavar="FILE", help="Write models.json, or add the figures to it.", **_OWN)
@_out("--seed", type=click.IntRange(min=0), default=1, metavar="N", help="Of the draws.  [default: 1]", **_OWN)
def select(folders: tuple[Path, ...], **given: Any) -> None:
    """Choose a model from the runs in the folders RUN.

    Every model on every device is a candidate. Who misses a hard need falls out; the others are ranked by weighted
    criteria. How firm the rank is, what would change it and what speaks against it is told with it.
    """
    from loadbench import report as reports
    from loadbench import select as selecting
    from loadbench.errors import UsageError

    policy = _policy(given)
    terms = selecting.Terms(
        policy=policy,
        needs=[selecting.Need.parse(text) for text in (*policy.needs, *given["needs"])],
        at=given["at"],
        missing=given["missing"],
        seed=given["seed"],
    )
    found = [selecting.read(folder) for folder in dict.fromkeys(folder.resolve() for folder in folders)]
    candidates = selecting.candidates(found)
    if not candidates:
        names = ", ".join(str(folder) for folder in folders)
        raise UsageError(f"{names}: no level was measured there, so there is nothing to choose from")
    record = selecting.choose(candidates, found, terms)
    kind, output = given["kind"], given["output"]
    if output is not None:
        from loadbench.cli.report import write

        write(output, reports.CHOICES[kind](record))
    elif kind == "text":
        _show(record)
    else:
        # Bytes, so that neither the terminal's encoding nor Windows line ends change the file.
        click.echo(reports.CHOICES[kind](record).encode(), nl=False)
    if given["write_models"] is not None:
        _write_models(given["write_models"], record, found)
    if record["winner"] is None:
        raise click.exceptions.Exit(NOBODY)


def _policy(given: dict[str, Any]) -> Policy:
    from loadbench import select as selecting
    from loadbench.errors import UsageError
    from loadbench.scenario.files import parse_json, parse_toml, read_text
    from loadbench.text import printable

    path: Path | None = given["weights"]
    if path is None:
        return selecting.policy(None, given["weight"])
    where = printable(str(path))
    if path.suffix.lower() not in (".toml", ".json"):
        raise UsageError(f"{where}: a file of weights ends in .toml or .json")
    text = read_text(path)
    data = parse_toml(text, where) if path.suffix.lower() == ".toml" else parse_json(text, where)
    return selecting.policy(data, given["weight"], where)


def _show(record: Record) -> None:
    from loadbench.report import choice, text

    text.show(choice.document(record), text.console(sys.stdout))


def _write_models(path: Path, record: Record, found: list[Measured]) -> None:
    """models.json, old or new at every moment; what is ours in it is replaced, all else stays."""
    import orjson

    from loadbench import select as selecting
    from loadbench.cli.report import write
    from loadbench.scenario.reading import read_models

    known = read_models(path) if path.exists() else {}
    facts: dict[str, Any] = {}
    for one in found:
        facts |= (one.run.info.get("scenario") or {}).get("model_facts") or {}
    updated = selecting.updated(known, record, facts)
    write(path, orjson.dumps(updated, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode())
    click.echo(f"wrote {path}: {len(record['candidates'])} measured of {len(updated)} models", err=True)
