"""`loadbench score`: how good a run's answers are: by rules, by hand, by a judge model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loadbench.cli.options import MORE, HeadedCommand, certificates, duration, header_lines, under

EPILOG = """\b
Examples:
  loadbench score results/<folder>                  rules, determinism, scores
  loadbench score results/<folder> --stub sheet.csv --blind
  loadbench score results/<folder> --read sheet.csv --by anna
  loadbench score results/<folder> --judge http://gpu-box:8000/v1
  loadbench score results/<folder> --against results/<other>

\b
Exit: 0 fine, 1 no use of the judge, 2 arguments, files or refused rows,
130 interrupted: what was judged is kept, and the same command goes on.
"""

_what, _hand, _judge, _more = under("What"), under("By hand"), under("By a judge model"), under(MORE)
_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path)
_PRICE = click.FloatRange(min=0)
_ONE = {"variable": False}


@click.command(cls=HeadedCommand, epilog=EPILOG)
@click.argument("folder", metavar="RUN", type=_FOLDER)
@_what("--prompts", type=_FILE, metavar="FILE", help="Expected aspects and checks from there, by prompt id.", **_ONE)
@_what("--against", type=_FOLDER, metavar="RUN2", help="Count the answers that differ from this run's.", **_ONE)
@_what(
    "--answers", type=click.IntRange(min=1), metavar="N", help="To score, per prompt and model.  [default: all]", **_ONE
)
@_hand("--stub", type=_FILE, metavar="FILE", help="Write a sheet to fill in: .csv or .json.", **_ONE)
@_hand("--blind", is_flag=True, help="Letters in place of the models' names.", **_ONE)
@_hand("--read", "read_", type=_FILE, metavar="FILE", help="Read a sheet that was filled in.", **_ONE)
@_hand("--by", metavar="NAME", help="Who filled it in.", **_ONE)
@_judge("--judge", metavar="URL", help="An OpenAI endpoint, with or without /v1.", **_ONE)
@_judge("--judge-model", metavar="NAME", help="The model there.  [default: its only one]")
@_judge(
    "--judge-repeat",
    type=click.IntRange(1, 100),
    default=1,
    metavar="N",
    help="Judge each answer N times.  [default: 1]",
)
@_judge("--judge-at-once", type=click.IntRange(1, 64), default=1, metavar="N", help="Requests in flight.  [default: 1]")
@_judge("--judge-max-tokens", type=click.IntRange(min=8), default=512, metavar="N", help="Of a reply.  [default: 512]")
@_judge("--judge-timeout", callback=duration, default="120s", metavar="2m", help="Of a request.  [default: 120s]")
@_judge("--judge-price-in", type=_PRICE, metavar="P", help="Per million tokens it reads.")
@_judge("--judge-price-out", type=_PRICE, metavar="P", help="Per million tokens it writes.")
@_judge("--judge-key-env", metavar="NAME", help="Variable that holds the judge's key.")
@_judge("--judge-key-file", metavar="FILE", help="File with it alone in it.")
@_judge(
    *("--header", "headers"),
    multiple=True,
    variable=False,
    callback=lambda ctx, param, value: header_lines(value),
    metavar="'NAME: VALUE'",
    help="More HTTP headers for the judge.",
)
@_judge("--ca-file", callback=certificates, metavar="FILE", help="Certificate authorities to trust (PEM).")
@_judge("--insecure", is_flag=True, help="Accept any certificate.")
@_more(
    "--seed",
    type=click.IntRange(min=0),
    default=1,
    metavar="N",
    help="Of letters, order and choice.  [default: 1]",
    **_ONE,
)
@_more("--json", "as_json", is_flag=True, help="scores.json on stdout, for programs.", **_ONE)
def score(folder: Path, **options: Any) -> None:
    """Score the answers of the run in folder RUN.

    Rules that the prompts declare are checked, answers that differ at temperature 0 are counted, and scores from 1 to 5
    are taken from people (--stub, --read) or from a judge model (--judge). All scores are kept in RUN/scores.jsonl;
    RUN/scores.json sums them up.
    """
    from loadbench.cli import reach, scoring

    code = scoring.score(folder, scoring.Options(**options))
    reach.finish(code == 0, or_else=code)
