"""The judge of `loadbench score`: reached as any server is, asked case after case, shown as it goes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import click

from loadbench import quality, store
from loadbench import server as targets
from loadbench.cli import reach
from loadbench.cli.harmless import harmless
from loadbench.client import Ask, Client, Parameters
from loadbench.errors import UsageError
from loadbench.prompts import Prompt
from loadbench.quality import Answer, Score, Scored
from loadbench.quality.judge import Court, Prices, cases, to_come
from loadbench.record import Result
from loadbench.runner import connect
from loadbench.runner.job import Server
from loadbench.scenario import Timeouts


def judge(run: Scored, answers: Sequence[Answer], given: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Have the answers judged; what came of it, and the exit code.

    Raises:
        LoadbenchError: The judge cannot be asked.
    """
    told = {name for name, question in run.questions.items() if question.text.strip()}
    if unknown := [answer.prompt for answer in answers if answer.prompt not in told]:
        raise UsageError(
            f"{run.path}: the text of prompt {harmless(unknown[0])} is not known, so nobody can judge its answer: "
            "name the prompts' file with --prompts"
        )
    return anyio.run(_judge, run, answers, given)


async def _judge(run: Scored, answers: Sequence[Answer], given: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    async with _court(given) as court:
        all_ = cases(answers, run.questions, given["judge_repeat"])
        scores, _ = quality.read_scores(run.path)
        rest = to_come(all_, scores, court.name)
        done = f", {len(all_) - len(rest)} of them judged before" if len(rest) < len(all_) else ""
        reach.note(f"{len(answers)} answers, {given['judge_repeat']} x each: {len(all_)} cases{done}")
        progress = Progress(len(rest))

        def judged(score: Score) -> None:
            quality.append(run.path, [score])
            progress.judged(score)

        try:
            await court.sit(rest, judged, at_once=given["judge_at_once"])
        finally:
            progress.end()
    told = {"judge": court.name, "cases": len(all_), "before": len(all_) - len(rest), "usable": progress.usable}
    return told, 1 if rest and not progress.usable else 0


@asynccontextmanager
async def _court(given: Mapping[str, Any]) -> AsyncIterator[Court]:
    """The judge, ready to be asked.

    Raises:
        LoadbenchError: Nobody answers there, or it has no such model.
    """
    endpoint, key = given["judge"], _key(given["judge_key_env"], given["judge_key_file"])
    for warning in connect.warnings(endpoint, given["judge_key_file"], insecure=given["insecure"]):
        reach.note(warning)
    access = {"verify": not given["insecure"], "ca_file": given["ca_file"], "headers": given["headers"], "key": key}
    wanted = given["judge_model"]
    async with targets.open_http(endpoint, **access) as http:
        server = await targets.wait(endpoint, http=http, wait_s=0.0, waiting=reach.note, named=wanted is not None)
    if wanted is None:
        listed = [facts.id for facts in server.models]
        if len(listed) != 1:
            raise UsageError(
                f"--judge {server.base_url} has {len(listed)} models: name the one that judges with --judge-model"
            )
        [wanted] = listed
    [model] = targets.choose(server, [wanted]).chosen
    transport = connect.transport(server, Server(ca_file=given["ca_file"], insecure=given["insecure"]))
    headers = targets.request_headers(given["headers"], key)
    limit = given["judge_timeout"]
    timeouts = Timeouts(first_token=limit, idle=limit, total=limit)
    asked = 0

    async def ask(messages: Sequence[Mapping[str, Any]], form: Mapping[str, Any] | None) -> Result:
        nonlocal asked
        asked += 1
        body = {} if form is None else {"response_format": form}
        client = Client(
            transport,
            server.chat_url_of(model.id),
            headers=headers,
            parameters=Parameters(given["judge_max_tokens"], 0.0, body, stream=False),
            timeouts=timeouts,
            now_ns=time.perf_counter_ns,
        )
        results: list[Result] = []
        now_ns = time.perf_counter_ns()
        prompt = Prompt("judge", tuple(dict(message) for message in messages))
        one = Ask("judge", 1, asked, model.id, prompt, warmup=False, due_ns=now_ns)
        await client.chat(one, now_ns, results.append, keep=False)
        return results[0]

    prices = None
    if given["judge_price_in"] is not None:
        prices = Prices(given["judge_price_in"], given["judge_price_out"])
    reach.note(f"judge {model.id} at {server.base_url}")
    try:
        yield Court(model.id, server.base_url, ask, now=store.utc_now, prices=prices)
    finally:
        await transport.aclose()


def _key(name: str | None, file: str | None) -> str | None:
    """The judge's key. API_KEY is not taken: that is the key of the server that was measured.

    Raises:
        UsageError: Both are named; or the variable is not set, or the file holds no key.
    """
    if name is not None and file is not None:
        raise UsageError("--judge-key-env and --judge-key-file are both given: keep one")
    return targets.read_key(name, os.environ) if file is None else connect.key(None, file)


class Progress:
    """How far the judge is: one line that changes to a person, a line each tenth to a pipe."""

    def __init__(self, cases: int) -> None:
        self.usable = self._useless = 0
        self._cases, self._began_s = cases, time.monotonic()
        self._live, self._next = sys.stderr.isatty(), 0
        self._width = 0

    def judged(self, score: Score) -> None:
        """One more case is done."""
        if score.score is None:
            self._useless += 1
            if self._useless <= 3:
                self._clear()
                reach.note(f"{score.prompt}, {score.model}: no score: {score.unusable}")
        else:
            self.usable += 1
        done = self.usable + self._useless
        if self._live:
            self._clear()
            text = self._text(done)
            self._width = len(text)
            click.echo(f"\r{text}", nl=False, err=True)
        elif done >= self._next:
            self._next = done + max(1, self._cases // 10)
            reach.note(self._text(done))

    def end(self) -> None:
        """The last line stays, on a line of its own; what was not judged any more is told."""
        if self._live and self._width:
            click.echo("", err=True)
        done = self.usable + self._useless
        if done < self._cases:
            reach.note(f"{done} of {self._cases} were judged, which is kept: the same command goes on from there")

    def _text(self, done: int) -> str:
        took_s = time.monotonic() - self._began_s
        minutes, seconds = divmod(round(took_s / done * (self._cases - done)), 60)
        useless = f", {self._useless} without a score" if self._useless else ""
        return f"{done} of {self._cases} judged{useless}" + (
            f", about {minutes}:{seconds:02} left" if done < self._cases else ""
        )

    def _clear(self) -> None:
        if self._live and self._width:
            click.echo(f"\r{' ' * self._width}\r", nl=False, err=True)
            self._width = 0
