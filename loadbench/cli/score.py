"""`loadbench score`: how good a run's answers are: by rules, by hand, by a judge model."""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import click
import msgspec
import orjson
from rich.console import Console
from rich.live import Live
from rich.text import Text

from loadbench import quality
from loadbench import server as servers
from loadbench.cli.options import CERTIFICATES, DURATION, FILE, HEADER, MORE, RUN, Command, under
from loadbench.cli.surroundings import data, note
from loadbench.client import Ask, Client, Parameters
from loadbench.errors import StoreError, UsageError
from loadbench.prompts import Prompt
from loadbench.quality import Answer, Score, Scored, Summary, sheet
from loadbench.quality.answers import Determinism
from loadbench.quality.judge import Form, Judge, Messages, Prices, cases, unjudged
from loadbench.quality.scores import Agreement
from loadbench.quality.summary import JudgeScores, MethodScore, ModelScores
from loadbench.runner import connect
from loadbench.runner.job import Server
from loadbench.scenario import Timeouts
from loadbench.scenario.bounds import Duration
from loadbench.store.files import utc_now, write_atomically
from loadbench.store.record import Result
from loadbench.text import harmless, plural

_EPILOG = """\b
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
_LISTED = 5


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command."""

    prompts: Path | None
    against: Path | None
    answers: int | None
    stub: Path | None
    blind: bool
    read_: Path | None
    by: str | None
    judge: str | None
    judge_model: str | None
    judge_repeat: int
    judge_at_once: int
    judge_max_tokens: int
    judge_timeout: Duration
    judge_price_in: float | None
    judge_price_out: float | None
    judge_key_env: str | None
    judge_key_file: str | None
    headers: tuple[tuple[str, str], ...]
    ca_file: str | None
    insecure: bool
    seed: int
    as_json: bool

    def check(self) -> None:
        """Refuse options that do not go together, before anything is read."""
        ways = {"--stub": self.stub, "--read": self.read_, "--judge": self.judge}
        given = [name for name, value in ways.items() if value]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)}: one at a time")
        if self.blind and self.stub is None:
            raise UsageError("--blind is for a sheet: give --stub FILE with it (a sheet that is read knows its own)")
        if self.read_ is not None and self.by is None:
            raise UsageError("--read FILE needs --by NAME: scores say whose they are")
        if self.by is not None and self.read_ is None:
            raise UsageError("--by NAME needs --read FILE")
        if self.by is not None and not self.by.strip():
            raise UsageError("--by is empty: give a name")
        if (self.judge_price_in is None) != (self.judge_price_out is None):
            raise UsageError("give both --judge-price-in and --judge-price-out, or neither: 0 where it is free")


class SheetResult(msgspec.Struct, frozen=True):  # as --json has it
    by: str
    scores: int
    empty: int
    refused: list[str]


class JudgeResult(msgspec.Struct, frozen=True):  # as --json has it
    judge: str
    cases: int
    before: int
    usable: int


_what, _hand, _judge, _more = under("What"), under("By hand"), under("By a judge model", variables=True), under(MORE)
_COUNT, _PRICE = click.IntRange(min=1), click.FloatRange(min=0)
_REPEATS, _REPLY_TOKENS = click.IntRange(1, 100), click.IntRange(min=8)


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("folder", metavar="RUN", type=RUN)
@_what("--prompts", type=FILE, metavar="FILE", help="Expected aspects and checks from there, by prompt id.")
@_what("--against", type=RUN, metavar="RUN2", help="Count the answers that differ from this run's.")
@_what("--answers", type=_COUNT, metavar="N", help="To score, per prompt and model.  [default: all]")
@_hand("--stub", type=FILE, metavar="FILE", help="Write a sheet to fill in: .csv or .json.")
@_hand("--blind", is_flag=True, help="Letters in place of the models' names.")
@_hand("--read", "read_", type=FILE, metavar="FILE", help="Read a sheet that was filled in.")
@_hand("--by", metavar="NAME", help="Who filled it in.")
@_judge("--judge", variable=False, metavar="URL", help="An OpenAI endpoint, with or without /v1.")
@_judge("--judge-model", metavar="NAME", help="The model there.  [default: its only one]")
@_judge("--judge-repeat", type=_REPEATS, default=1, metavar="N", help="Judge each answer N times.  [default: 1]")
@_judge("--judge-at-once", type=click.IntRange(1, 64), default=1, metavar="N", help="Requests in flight.  [default: 1]")
@_judge("--judge-max-tokens", type=_REPLY_TOKENS, default=512, metavar="N", help="Of a reply.  [default: 512]")
@_judge("--judge-timeout", type=DURATION, default="120s", metavar="2m", help="Of a request.  [default: 120s]")
@_judge("--judge-price-in", type=_PRICE, metavar="P", help="Per million tokens it reads.")
@_judge("--judge-price-out", type=_PRICE, metavar="P", help="Per million tokens it writes.")
@_judge("--judge-key-env", metavar="NAME", help="Variable that holds the judge's key.")
@_judge("--judge-key-file", metavar="FILE", help="File with it alone in it.")
@_judge(
    *("--header", "headers"),
    variable=False,
    multiple=True,
    type=HEADER,
    metavar="'NAME: VALUE'",
    help="More HTTP headers for the judge.",
)
@_judge("--ca-file", type=CERTIFICATES, metavar="FILE", help="Certificate authorities to trust (PEM).")
@_judge("--insecure", is_flag=True, help="Accept any certificate.")
@_more("--seed", type=click.IntRange(min=0), default=1, metavar="N", help="Of letters, order and choice.  [default: 1]")
@_more("--json", "as_json", is_flag=True, help="scores.json on stdout, for programs.")
def score(folder: Path, **values: Any) -> int:
    """Score the answers of the run in folder RUN.

    Rules that the prompts declare are checked, answers that differ at temperature 0 are counted, and scores from 1 to 5
    are taken from people (--stub, --read) or from a judge model (--judge). All scores are kept in RUN/scores.jsonl;
    RUN/scores.json sums them up.
    """
    options = Options(**values)
    options.check()
    run = quality.read(folder, options.prompts)
    against = None if options.against is None else quality.read(options.against)
    if options.stub is not None:
        _write_sheet(run, options.stub, options)
        return 0
    code = 0
    more: dict[str, SheetResult | JudgeResult] = {}
    if options.read_ is not None:
        more["read"] = read = _read_sheet(run, options.read_, options.by or "")
        code = 2 if read.refused else 0
    try:
        if options.judge is not None:
            more["judged"] = judged = anyio.run(_judge_all, run, _to_score(run, options), options.judge, options)
            code = 1 if judged.cases > judged.before and not judged.usable else 0
    finally:  # what was judged until Ctrl-C, or until the judge went away, counts
        scores, unreadable = quality.read_scores(folder)
        summary = quality.summarise(run, scores, unreadable_scores=unreadable, against=against)
        document = msgspec.to_builtins(summary)
        form = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
        try:
            write_atomically(folder / quality.FILE, orjson.dumps(document, option=form) + b"\n")
        except StoreError as error:  # a mounted archive can still be looked at
            note(f"warning: {error}")
    if options.as_json:
        click.echo(data({**document, **msgspec.to_builtins(more)}, indent=True, sort=True))
    else:
        for line in _lines(summary):
            click.echo(harmless(line))
    return code


def _to_score(run: Scored, options: Options) -> list[Answer]:
    """The answers to score: all, or the most frequent of each prompt and model; the seed decides between equals."""
    if options.answers is None:
        return list(run.answers)
    chance = random.Random(options.seed)
    ranked = sorted(run.answers, key=lambda answer: (-answer.count, chance.random()))
    taken: dict[tuple[str, str], int] = {}
    rows = set()
    for answer in ranked:
        key = answer.prompt, answer.model
        taken[key] = taken.get(key, 0) + 1
        if taken[key] <= options.answers:
            rows.add(answer.row)
    return [answer for answer in run.answers if answer.row in rows]


# -- by hand


def _write_sheet(run: Scored, path: Path, options: Options) -> None:
    kind = path.suffix.lower()
    if kind not in sheet.KINDS:
        raise UsageError(f"--stub {path}: a sheet ends in .csv or .json")
    if path.exists():
        raise UsageError(f"--stub {path}: is there already, and may hold somebody's scores: choose another name")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--stub {path}: no folder {path.parent}; make it first")
    rows = sheet.lines(_to_score(run, options), run.questions, blind=options.blind, seed=options.seed)
    key = run.path / KEY if options.blind else None
    if key is not None:
        write_atomically(key, sheet.key(rows, options.seed))
    write_atomically(path.absolute(), sheet.render(rows, kind))
    long = sum(len(row.answer.text) > sheet.LARGEST_CELL for row in rows)
    if kind == ".csv" and long:
        note(f"{long} answers are longer than a spreadsheet's cell: fill in a .json sheet in place of this one")
    if options.as_json:
        click.echo(orjson.dumps({"sheet": str(path), "answers": len(rows), "key": key and str(key)}).decode())
        return
    hidden = "" if key is None else f"; which letter is which model is in {key}"
    click.echo(f"{path}: {len(rows)} answers to score from 1 (useless or wrong) to 5 (excellent){hidden}")
    click.echo(f"Then: loadbench score {run.path} --read {path} --by NAME")


def _read_sheet(run: Scored, path: Path, by: str) -> SheetResult:
    """Take over the scores of a sheet."""
    filled = sheet.read(path, run.answers, run.questions)
    at, by = utc_now(), " ".join(by.split())
    scores = [
        Score(
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
    ]
    quality.append(run.path, scores)
    for line in filled.refused:
        note(f"loadbench: {path}: {line}")
    refused = f", {len(filled.refused)} refused: mend these and read it again" if filled.refused else ""
    note(f"{len(scores)} scores by {by} taken over, {filled.empty} rows without one{refused}")
    return SheetResult(by=by, scores=len(scores), empty=filled.empty, refused=filled.refused)


# -- by a judge


async def _judge_all(run: Scored, answers: Sequence[Answer], endpoint: str, options: Options) -> JudgeResult:
    """Have the answers judged."""
    for answer in answers:
        question = run.questions.get(answer.prompt)
        if question is None or not question.text.strip():
            raise UsageError(
                f"{run.path}: the text of prompt {harmless(answer.prompt)} is not known, so nobody can judge its "
                "answer: name the prompts' file with --prompts"
            )
    async with _connect(endpoint, options) as judge:
        all_cases = cases(answers, run.questions, options.judge_repeat)
        scores, _ = quality.read_scores(run.path)
        rest = unjudged(all_cases, scores, judge.name)
        before = len(all_cases) - len(rest)
        done = f", {before} of them judged before" if before else ""
        note(f"{len(answers)} answers, {options.judge_repeat} x each: {len(all_cases)} cases{done}")
        progress = Progress(len(rest))

        def judged(score: Score) -> None:
            quality.append(run.path, [score])
            progress.judged(score)

        try:
            await judge.judge_all(rest, judged, at_once=options.judge_at_once)
        finally:
            progress.end()
    return JudgeResult(judge=judge.name, cases=len(all_cases), before=before, usable=progress.usable)


@asynccontextmanager
async def _connect(endpoint: str, options: Options) -> AsyncIterator[Judge]:
    """The judge, ready to be asked."""
    name, file = options.judge_key_env, options.judge_key_file
    if name is not None and file is not None:
        raise UsageError("--judge-key-env and --judge-key-file are both given: keep one")
    # API_KEY is not taken: that is the key of the server that was measured.
    key = servers.read_key(name, os.environ) if file is None else connect.key(None, file)
    for warning in connect.warnings(endpoint, file, insecure=options.insecure):
        note(warning)
    headers, model_name = dict(options.headers), options.judge_model
    async with servers.open_http(
        endpoint, verify=not options.insecure, ca_file=options.ca_file, headers=headers, key=key
    ) as http:
        server = await servers.wait(endpoint, http=http, wait_s=0.0, waiting=note, named=model_name is not None)
    if model_name is None:
        if len(server.models) != 1:
            raise UsageError(
                f"--judge {server.base_url} has {len(server.models)} models: name the one that judges with "
                "--judge-model"
            )
        model_name = server.models[0].id
    [model] = servers.choose(server, [model_name]).chosen
    transport = connect.transport(server, Server(ca_file=options.ca_file, insecure=options.insecure))
    headers = servers.request_headers(headers, key)
    limit = options.judge_timeout
    numbers = itertools.count(1)

    async def ask(messages: Messages, form: Form | None) -> Result:
        body = {} if form is None else {"response_format": form}
        client = Client(
            transport,
            server.chat_url_of(model.id),
            headers=headers,
            parameters=Parameters(options.judge_max_tokens, 0.0, body, stream=False),
            timeouts=Timeouts(first_token=limit, idle=limit, total=limit),
            now_ns=time.perf_counter_ns,
        )
        results: list[Result] = []
        now_ns = time.perf_counter_ns()
        one = Ask("judge", 1, next(numbers), model.id, Prompt("judge", tuple(messages)), warmup=False, due_ns=now_ns)
        await client.chat(one, now_ns, results.append, keep=False)
        return results[0]

    prices = None
    if options.judge_price_in is not None and options.judge_price_out is not None:
        prices = Prices(options.judge_price_in, options.judge_price_out)
    note(f"judge {model.id} at {server.base_url}")
    try:
        yield Judge(model.id, server.base_url, ask, now=utc_now, prices=prices)
    finally:
        await transport.aclose()


class Progress:
    """How far the judge is: one line that changes on a terminal, a line each tenth to a pipe."""

    def __init__(self, cases: int) -> None:
        self.usable = self._unusable = self._next = 0
        self._cases, self._began_s = cases, time.monotonic()
        console = Console(stderr=True)
        interactive = sys.stderr.isatty() and not console.is_dumb_terminal
        self._live = Live(console=console, auto_refresh=False) if interactive and cases else None
        if self._live is not None:
            self._live.start()

    def judged(self, score: Score) -> None:
        if score.score is not None:
            self.usable += 1
        else:
            self._unusable += 1
            if self._unusable <= 3:
                self._note(f"{score.prompt}, {score.model}: no score: {score.unusable}")
        done = self.usable + self._unusable
        if self._live is not None:
            self._live.update(Text(self._text(done)), refresh=True)
        elif done >= self._next:
            self._next = done + max(1, self._cases // 10)
            note(self._text(done))

    def end(self) -> None:
        """The last line stays; then how many were not judged any more."""
        if self._live is not None:
            self._live.stop()
        done = self.usable + self._unusable
        if done < self._cases:
            note(f"{done} of {self._cases} were judged, which is kept: the same command goes on from there")

    def _note(self, text: str) -> None:
        if self._live is None:
            note(text)
        else:
            self._live.console.print(Text(harmless(text)), soft_wrap=True)

    def _text(self, done: int) -> str:
        text = f"{done} of {self._cases} judged"
        if self._unusable:
            text += f", {self._unusable} without a score"
        if done < self._cases:
            left_s = (time.monotonic() - self._began_s) / done * (self._cases - done)
            minutes, seconds = divmod(round(left_s), 60)
            text += f", about {minutes}:{seconds:02} left"
        return text


# -- the summary in words


def _lines(summary: Summary) -> Iterator[str]:
    yield f"{summary.run}: {plural(summary.answers, 'different answer')} to {plural(summary.prompts, 'prompt')}"
    yield ""
    rows = [("model", "by hand", "by judge", "rules passed", "prompts"), *map(_row, summary.models)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield "  scores from 1 to 5, mean over prompts [95 % interval] (prompts); rules: share of prompts"
    if not any(any(model.by_method.values()) for model in summary.models):
        yield "  nobody has scored yet: --stub FILE makes a sheet to fill in, --judge URL asks a judge model"
    parts: dict[str, list[str]] = {
        "Weakest aspects": list(_aspects(summary.models)),
        "Failed rules": list(_failed(summary.models)),
        "Agreement": [_agreement(one) for one in summary.agreement],
        "Judges": [_judge_line(one) for one in summary.judges],
        "The same at temperature 0": list(_determinism(summary.determinism)),
        "Doubts": summary.warnings,
    }
    for heading, lines in parts.items():
        if lines:
            yield ""
            yield heading
            yield from (f"- {line}" for line in lines)


def _row(model: ModelScores) -> tuple[str, ...]:
    passed = "-"
    if (rules := model.checks) is not None:
        interval = "" if rules.ci95 is None else f" [{rules.ci95[0]:.0%}–{rules.ci95[1]:.0%}]"
        passed = f"{rules.pass_rate:.0%}{interval} ({rules.n})"
    missing = f", {len(model.unanswered)} without an answer" if model.unanswered else ""
    by_hand, by_judge = _mean(model.by_method["hand"]), _mean(model.by_method["judge"])
    return model.model, by_hand, by_judge, passed, f"{model.prompts}{missing}"


def _mean(scored: MethodScore | None) -> str:
    if scored is None:
        return "-"
    interval = "" if scored.ci95 is None else f" [{scored.ci95[0]:.1f}–{scored.ci95[1]:.1f}]"
    return f"{scored.mean:.2f}{interval} ({scored.n})"


def _aspects(models: Sequence[ModelScores]) -> Iterator[str]:
    for model in models:
        weak = [one for one in model.by_aspect if one.mean < 3]
        for one in sorted(weak, key=lambda one: one.mean)[:_LISTED]:
            yield f"{model.model}, {one.prompt}: {one.aspect}: {one.mean:.1f} by {one.method}"


def _failed(models: Sequence[ModelScores]) -> Iterator[str]:
    for model in models:
        if model.checks is None:
            continue
        for one in model.checks.failed[:_LISTED]:
            yield f"{model.model}, {one.prompt}: {one.why}"
        more = max(0, len(model.checks.failed) - _LISTED) + model.checks.failed_left_out
        if more:
            yield f"{model.model}: {more} more, in scores.json"


def _agreement(one: Agreement) -> str:
    # Scores are by "hand:anna" or "judge:MODEL".
    a, b = (name.removeprefix("hand:").replace("judge:", "judge ", 1) for name in (one.a, one.b))
    kappa = "kappa is not defined: both gave one and the same score throughout"
    if one.kappa is not None:
        interval = "no interval below 10 prompts"
        if one.ci95 is not None:
            interval = f"[{one.ci95[0]:.2f}–{one.ci95[1]:.2f}]"
        kappa = f"weighted kappa {one.kappa:.2f}, {interval}"
    milder = b if one.difference > 0 else a
    apart = f", {milder} milder by {abs(one.difference):.2f}" if round(one.difference, 2) else ""
    return f"{a} and {b}: {kappa}, {plural(one.n, 'answer')}, {one.same:.0%} scored the same{apart}"


def _judge_line(one: JudgeScores) -> str:
    replies = "1 reply" if one.usable == 1 else f"{one.usable:,} replies"
    parts = [f"{plural(one.rows, 'answer')} judged, {replies} of use"]
    if one.unusable:
        reasons = ", ".join(f"{reason} {n}" for reason, n in one.unusable.items())
        parts.append(f"{sum(one.unusable.values())} of none ({reasons})")
    if one.same_share is not None:
        parts.append(f"repeats agree on {one.same_share:.0%}, spread {one.spread_sd:.2f}")
    if one.input_tokens is not None and one.output_tokens is not None:
        parts.append(f"{one.input_tokens:,} + {one.output_tokens:,} tokens")
    if one.cost is not None:
        parts.append(f"cost {one.cost:.4g}")
    if one.structured is False:
        parts.append("asked for JSON in words")
    return f"{one.by}: {', '.join(parts)}"


def _determinism(compared: Determinism) -> Iterator[str]:
    if compared.reason is not None:
        yield f"not compared: {compared.reason}"
    for one in compared.within or ():
        differing = f"{one.prompts_differing} of {plural(one.prompts, 'prompt')} got different answers"
        share = f"{one.answers_differing} of {plural(one.answers, 'answer')} were not the usual one"
        yield f"{one.model}: {differing}; {share}"
        for prompt, texts, character in one.examples:
            yield f"{one.model}, {prompt}: {texts} different answers, two part at character {character}"
    against = compared.against
    if against is None:
        return
    if against.reason is not None:
        yield f"{against.run}: not compared: {against.reason}"
    for setting in against.settings_apart:
        yield f"{against.run}: asked with another setting: {setting}"
    for two in against.models or ():
        differing = f"{two.prompts_differing} of {plural(two.prompts, 'prompt')} answered differently"
        changed = f", {two.prompts_changed} left out as their words changed" if two.prompts_changed else ""
        apart = f"{two.prompts_apart} with nothing in common"
        yield f"{two.model}, against {against.run}: {differing}, {apart}{changed}"
