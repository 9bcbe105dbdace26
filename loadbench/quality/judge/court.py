"""Case after case to the judge: what fails is tried again within bounds, what is useless is recorded as that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import anyio

from loadbench.errors import TargetError
from loadbench.quality import Score
from loadbench.quality.judge import rubric, verdict
from loadbench.quality.judge.rubric import Case
from loadbench.record import Result

WAITS_S = (1.0, 2.0, 4.0, 8.0)
"""Before each further try of a request that the server was too busy for."""
_BUSY = {"http_429": len(WAITS_S), "http_5xx": 2, "reset": 1, "truncated": 1, "stream_error": 1} | dict.fromkeys(
    ("timeout_connect", "timeout_first_token", "timeout_idle", "timeout_total"), 1
)
"""Further tries by kind of failure."""
_DEAD = {"dns", "connect", "tls", "redirect", "local"}
_REFUSES_FORM = {400, 415, 422, 500, 501}
"""Statuses that servers which know no JSON schema have answered to one; so asked in words, it may answer."""
_OF_ONE_CASE = {400, 413, 415, 422}
"""Statuses that may be about this case alone, as a context that is too short."""
MOST_IN_A_ROW = 5
"""Cases that failed one after the other, after which the judge is given up."""


class Ask(Protocol):
    """Sends a chat to the judge."""

    def __call__(self, messages: Sequence[Mapping[str, Any]], form: Mapping[str, Any] | None) -> Awaitable[Result]: ...


@dataclass(frozen=True, slots=True)
class Prices:
    """Per million tokens, in any currency."""

    input: float
    output: float

    def cost(self, input_tokens: int | None, output_tokens: int | None) -> float | None:
        """Of these tokens; None where they were not told."""
        if input_tokens is None or output_tokens is None:
            return None
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


@dataclass(slots=True)
class _Spent:
    """What the requests of one case took; tokens are None once one was not told."""

    tries: int = 0
    input_tokens: int | None = 0
    output_tokens: int | None = 0

    def add(self, result: Result) -> None:
        self.tries += 1
        if result.error is not None and result.input_tokens is None and result.output_tokens is None:
            return  # a request that was refused or lost: nothing that a server would count
        self.input_tokens = _sum(self.input_tokens, result.input_tokens)
        self.output_tokens = _sum(self.output_tokens, result.output_tokens)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


class Court:
    """A judge and all that is known of how it wants to be asked.

    Args:
        name: The judge model's.
        now: UTC as text, for the records.
        sleep: Waits so many seconds.
    Attributes:
        structured: Whether the server takes a JSON schema; None until it was asked.
    """

    def __init__(
        self,
        name: str,
        endpoint: str,
        ask: Ask,
        *,
        now: Callable[[], str],
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        prices: Prices | None = None,
    ) -> None:
        self.name, self.endpoint = name, endpoint
        self.structured: bool | None = None
        self._ask, self._now, self._sleep, self._prices = ask, now, sleep, prices
        self._unheard = 0

    async def sit(self, cases: Sequence[Case], done: Callable[[Score], None], *, at_once: int = 1) -> None:
        """Judge the cases; `done` gets each one's score as soon as there is one, or why there is none.

        Raises:
            TargetError: The judge cannot be asked at all. What was judged before was given to `done`.
        """
        rest: Iterator[Case] = iter(cases)
        failure: TargetError | None = None

        async def work(scope: anyio.CancelScope) -> None:
            nonlocal failure
            try:
                for case in rest:
                    done(await self.judge(case))
            except TargetError as error:  # as itself, not in a group of errors
                failure = failure or error
                scope.cancel()

        async with anyio.create_task_group() as group:
            for _ in range(at_once):
                group.start_soon(work, group.cancel_scope)
        if failure is not None:
            raise failure

    async def judge(self, case: Case) -> Score:
        """One case: its score, or why there is none.

        Raises:
            TargetError: The judge cannot be asked at all.
        """
        spent = _Spent()
        why: str | None = None
        for reminder in (False, True):
            result = await self._send(case, why if reminder else None, spent)
            if result.error is not None and result.error != "empty":
                self._missed(result)
                return self._score(case, spent, unusable=f"{result.error}: {result.error_message}")
            self._unheard = 0
            try:
                scores = verdict.read(result.text, case.names)
            except ValueError as error:
                why = f"cut off at {result.output_tokens} tokens" if result.finish_reason == "length" else str(error)
                continue
            return self._score(case, spent, scores=scores)
        return self._score(case, spent, unusable=f"unreadable: {why}")

    async def _send(self, case: Case, reminder: str | None, spent: _Spent) -> Result:
        """The reply; in words where the server refuses the form, again where it was busy."""
        chat = rubric.messages(case, reminder)
        failed = 0
        while True:
            form = None if self.structured is False else rubric.response_format(case)
            result = await self._ask(chat, form)
            spent.add(result)
            if form is not None and result.status in _REFUSES_FORM and self.structured is None:
                plain = await self._ask(chat, None)
                spent.add(plain)
                if plain.status == 200:
                    self.structured = False
                    result = plain
            if result.error is None:
                self.structured = self.structured is not False
                return result
            self._give_up_if_dead(result)
            if failed >= _BUSY.get(result.error, 0):
                return result
            await self._sleep(WAITS_S[failed])
            failed += 1

    def _give_up_if_dead(self, result: Result) -> None:
        refused = result.error == "http_4xx" and result.status not in _OF_ONE_CASE
        if result.error in _DEAD or refused:
            raise TargetError(f"the judge {self.name} at {self.endpoint} cannot be asked: {result.error_message}")

    def _missed(self, result: Result) -> None:
        self._unheard += 1
        if self._unheard >= MOST_IN_A_ROW:
            raise TargetError(
                f"the judge {self.name} at {self.endpoint} failed on {self._unheard} answers in a row, last with "
                f"{result.error} ({result.error_message}): see to it, then score again: what it judged is kept"
            )

    def _score(
        self, case: Case, spent: _Spent, *, scores: Mapping[str, int] | None = None, unusable: str | None = None
    ) -> Score:
        answer = case.answer
        prices = self._prices
        return Score(
            row=answer.row,
            prompt=answer.prompt,
            model=answer.model,
            method="judge",
            by=self.name,
            at=self._now(),
            score=None if scores is None else scores[rubric.OVERALL],
            aspects={} if scores is None else rubric.named(case, scores),
            repeat=case.repeat,
            unusable=unusable,
            rubric=case.rubric,
            endpoint=self.endpoint,
            structured=self.structured,
            tries=spent.tries,
            input_tokens=spent.input_tokens,
            output_tokens=spent.output_tokens,
            cost=prices.cost(spent.input_tokens, spent.output_tokens) if prices else None,
            suspect=rubric.suspect(answer.text),
        )


def to_come(cases: Sequence[Case], scores: Sequence[Score], judge: str) -> list[Case]:
    """The cases that this judge has not scored yet by the present rubric: a sitting that was cut short goes on."""
    done = {
        (score.row, score.repeat, score.rubric)
        for score in scores
        if score.method == "judge" and score.by == judge and score.score is not None
    }
    return [case for case in cases if (case.answer.row, case.repeat, case.rubric) not in done]
