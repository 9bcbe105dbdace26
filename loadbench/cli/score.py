"""`loadbench score`: how good a run's answers are: by rules, by hand, by a judge model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.options import MORE, HeadedCommand, certificates, duration, header_lines, under

if TYPE_CHECKING:
    from loadbench.quality import Answer, Scored

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
KEY = "blind-key.json"

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
def score(folder: Path, **given: Any) -> None:
    """Score the answers of the run in folder RUN.

    Rules that the prompts declare are checked, answers that differ at temperature 0 are counted, and scores from 1 to 5
    are taken from people (--stub, --read) or from a judge model (--judge). All scores are kept in RUN/scores.jsonl;
    RUN/scores.json sums them up.
    """
    from loadbench import quality
    from loadbench.cli import judging, reach, scored

    _check(given)
    run = quality.read(folder, given["prompts"])
    against = None if given["against"] is None else quality.read(given["against"])
    if given["stub"] is not None:
        _write_sheet(run, given)
        return
    ok = 0
    told: dict[str, Any] = {}
    if given["read_"] is not None:
        told["read"], ok = _read_sheet(run, given)
    try:
        if given["judge"] is not None:
            told["judged"], ok = judging.judge(run, to_score(run, given), given)
    finally:  # what was judged until Ctrl-C, or until the judge went away, counts
        scores, unreadable = quality.read_scores(folder)
        summary = quality.summarise(run, scores, unreadable_scores=unreadable, against=against)
        _write(folder, summary)
    if given["as_json"]:
        scored.as_json({**summary, **told})
    else:
        scored.show(summary)
    reach.finish(not ok, or_else=ok)


def _check(given: dict[str, Any]) -> None:
    """Refuse options that do not go together, before anything is read."""
    from loadbench.errors import UsageError

    ways = [name for name, option in (("--stub", "stub"), ("--read", "read_"), ("--judge", "judge")) if given[option]]
    if len(ways) > 1:
        raise UsageError(f"{' and '.join(ways)}: one at a time")
    if given["blind"] and given["stub"] is None:
        raise UsageError("--blind is for a sheet: give --stub FILE with it (a sheet that is read knows its own)")
    if (given["read_"] is None) != (given["by"] is None):
        raise UsageError(
            "--read FILE needs --by NAME: scores say whose they are"
            if given["read_"]
            else "--by NAME needs --read FILE"
        )
    if given["by"] is not None and not given["by"].strip():
        raise UsageError("--by is empty: give a name")
    if (given["judge_price_in"] is None) != (given["judge_price_out"] is None):
        raise UsageError("give both --judge-price-in and --judge-price-out, or neither: 0 where it is free")


def to_score(run: Scored, given: dict[str, Any]) -> list[Answer]:
    """The answers to score: all, or the most frequent of each prompt and model; the seed decides between equals."""
    import random

    most = given["answers"]
    if most is None:
        return list(run.answers)
    chance = random.Random(given["seed"])
    ranked = sorted(run.answers, key=lambda answer: (-answer.count, chance.random()))
    taken: dict[tuple[str, str], int] = {}
    kept = set()
    for answer in ranked:
        key = answer.prompt, answer.model
        taken[key] = taken.get(key, 0) + 1
        if taken[key] <= most:
            kept.add(answer.row)
    return [answer for answer in run.answers if answer.row in kept]


def _write_sheet(run: Scored, given: dict[str, Any]) -> None:
    import orjson

    from loadbench.cli import reach
    from loadbench.errors import UsageError
    from loadbench.quality import sheet
    from loadbench.store import write_atomically

    path: Path = given["stub"]
    kind = path.suffix.lower()
    if kind not in sheet.KINDS:
        raise UsageError(f"--stub {path}: a sheet ends in .csv or .json")
    if path.exists():
        raise UsageError(f"--stub {path}: is there already, and may hold somebody's scores: choose another name")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--stub {path}: no folder {path.parent}; make it first")
    rows = sheet.lines(to_score(run, given), run.questions, blind=given["blind"], seed=given["seed"])
    if given["blind"]:
        write_atomically(run.path / KEY, sheet.key(rows, given["seed"]))
    write_atomically(path.absolute(), sheet.render(rows, kind))
    if kind == ".csv" and (long := sum(len(row.answer.text) > sheet.LARGEST_CELL for row in rows)):
        reach.note(f"{long} answers are longer than a spreadsheet's cell: fill in a .json sheet in place of this one")
    if given["as_json"]:
        said = {"sheet": str(path), "answers": len(rows), "key": str(run.path / KEY) if given["blind"] else None}
        click.echo(orjson.dumps(said).decode())
        return
    hidden = f"; which letter is which model is in {run.path / KEY}" if given["blind"] else ""
    click.echo(f"{path}: {len(rows)} answers to score from 1 (useless or wrong) to 5 (excellent){hidden}")
    click.echo(f"Then: loadbench score {run.path} --read {path} --by NAME")


def _read_sheet(run: Scored, given: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Take the scores of a sheet over; what was read, and the exit code."""
    from loadbench import quality, store
    from loadbench.cli import reach
    from loadbench.quality import sheet

    filled = sheet.read(given["read_"], run.answers, run.questions)
    at, by = store.utc_now(), " ".join(given["by"].split())
    quality.append(
        run.path,
        [
            quality.Score(
                row=mark.answer.row,
                prompt=mark.answer.prompt,
                model=mark.answer.model,
                method="hand",
                by=by,
                at=at,
                score=mark.score,
                aspects=dict(mark.aspects),
                note=mark.note,
            )
            for mark in filled.marks
        ],
    )
    for line in filled.refused:
        reach.note(f"loadbench: {given['read_']}: {line}")
    counts = f"{len(filled.marks)} scores by {by} taken over, {filled.empty} rows without one"
    reach.note(counts + (f", {len(filled.refused)} refused: mend these and read it again" if filled.refused else ""))
    told = {"by": by, "scores": len(filled.marks), "empty": filled.empty, "refused": filled.refused}
    return told, 2 if filled.refused else 0


def _write(folder: Path, summary: dict[str, Any]) -> None:
    import orjson

    from loadbench.cli import reach
    from loadbench.errors import StoreError
    from loadbench.quality import FILE
    from loadbench.store import write_atomically

    content = orjson.dumps(summary, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
    try:
        write_atomically(folder / FILE, content)
    except StoreError as error:  # a mounted archive can still be looked at
        reach.note(f"warning: {error}")
