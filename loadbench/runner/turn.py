"""A model's turn in a run: it is loaded, asked a few times before it is measured, and unloaded again."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import anyio

from loadbench.client import Ask, Client
from loadbench.errors import TargetError
from loadbench.prompts import UNKNOWN, Line, Prompt, calibration, distinct, fit, longest_in_tokens, written
from loadbench.runner.watch import SILENT_S, View, Watch, waiting_for
from loadbench.scenario import Scenario
from loadbench.server import Chosen, ModelFacts
from loadbench.store.record import Result

PROBE_TOKENS = 8  # of the answers before the measurement, unless a server has no answer so short
PING_TOKENS = 1
PROBES = 3
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Before a probe that came too early is made again, where the server does not say when it may come."""
LONGEST_PAUSE_S = 60.0
REST_S = 5.0
"""After requests that came too early, before the measurement: what a gateway lets through at once is used up."""
_OF_TOKENS = re.compile(r"token|budget|length|minimum|too (?:small|short|low)", re.IGNORECASE)
"""A refusal that may be of the few tokens that a probe asks for, not of what the run asks for."""
SETTLE_S = 1.0  # from an unload to the look at what memory it gave back: allocators and drivers let go a moment later
MOST_WORDS = 512  # of a calibration request: a line through 512 words is known to about one token in a hundred


class Control(Protocol):
    """What loads and unloads models; `server.control` and Foundry's runtime give one."""

    async def load(self, model: ModelFacts) -> None: ...
    async def unload(self, model: ModelFacts) -> None: ...
    async def running(self, model: ModelFacts) -> ModelFacts | None: ...


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of a model beside what its server says."""

    load_s: float | None = None  # how long the server took to start with its model in it, where this run started it
    disk_bytes: int | None = None  # of the model's files
    disk_source: str | None = None  # `files` were measured, or the `server` says so


@dataclass(slots=True)
class Turn:
    """One model from its load to its unload."""

    chosen: Chosen  # the model, and for which device
    scenario: Scenario
    # The first one is asked, behind a prefix of its own each time, so that no prompt cache answers
    prompts: Sequence[Prompt]
    client: Client
    control: Control | None  # None where the server offers no loading
    watch: Watch
    view: View
    sleep: Callable[[float], Awaitable[bool]]  # waits, in seconds; False where the user ended the run meanwhile
    probes: list[dict[str, object]]  # the list in run.json that takes each probe
    origin: Origin
    salt: int  # makes the prefixes differ from those of other runs
    pause: Callable[[float], Awaitable[None]] = anyio.sleep  # waits, in seconds
    record: dict[str, Any] = field(default_factory=dict)  # what run.json says of this model; filled as it goes
    limited: bool = False  # the server refused already to be asked so often
    _unloads: bool = False  # this run loaded what was not loaded before
    _asked: int = 0
    _whole: bool = False  # probes ask as the run itself does: with few tokens there is no answer

    def __post_init__(self) -> None:
        facts = self.chosen.facts or ModelFacts(self.chosen.id)
        was_loaded, load_source = facts.loaded, None
        if self.origin.load_s is not None:
            was_loaded, load_source = None, "start of the server"
        self.record.update(
            model=self.chosen.id,
            name=self.chosen.name,
            alias=next(iter(facts.aliases), None),
            asked_device=self.chosen.device,
            asked_execution_provider=self.chosen.execution_provider,
            ran=None,
            served_as=None,
            was_loaded=was_loaded,
            load_s=self.origin.load_s,
            load_source=load_source,
            load_error=None,
            memory_before_load_bytes=None,
            memory_after_load_bytes=None,
            memory_after_unload_bytes=None,
            disk_bytes=self.origin.disk_bytes,
            disk_source=self.origin.disk_source,
        )

    def note(self, text: str) -> None:
        self.view.note(f"{self.chosen.id}: {text}")

    async def begin(self) -> str | None:
        """Load the model if that is for this run to do, and ask it a few times; why it failed, if it did."""
        error = await self._load() or await self._probe("first")
        for endpoint in range(1, len(self.scenario.endpoints)):
            error = error or await self._probe("replica", endpoint=endpoint)
        if error is not None:
            return error
        await self._find_what_ran()
        if await self.sleep(0):
            await self._probe("warm")
            await self._idle()
        if self.limited:
            self.note(f"a rest of {REST_S:g} s, as the server limits how often it is asked")
            await self.sleep(REST_S)
        return None

    async def end(self) -> None:
        """Unload the model if this run loaded it, and see how much memory that gives back."""
        if not self._unloads or self.control is None or self.chosen.facts is None:
            return
        try:
            await self.control.unload(self.chosen.facts)
        except TargetError as error:
            self.note(f"not unloaded: {error}")
            return
        if await self.sleep(SETTLE_S):
            await self._see_memory("after_unload")

    async def _load(self) -> str | None:
        facts, control = self.chosen.facts, self.control
        loaded = facts.loaded if facts else None
        if self.scenario.cold and control is None:
            self.note("--cold has no effect, this server offers no unloading")
        if control is None or facts is None or not (loaded is False or (self.scenario.cold and loaded)):
            await self._see_memory("after_load")
            return None
        try:
            if loaded:
                await control.unload(facts)
                await self.sleep(SETTLE_S)
            await self._see_memory("before_load")
            self.note("loading")
            began_s = time.monotonic()
            await control.load(facts)
        except TargetError as error:
            self.record["load_error"] = str(error)
            return str(error)
        self._unloads = not loaded
        self.record["load_s"] = round(time.monotonic() - began_s, 3)
        self.record["load_source"] = "loaded by this run"
        await self._see_memory("after_load")
        self.note(f"loaded in {self.record['load_s']:.3g} s")
        return None

    async def _see_memory(self, phase: str) -> None:
        self.record[f"memory_{phase}_bytes"] = await self.watch.sample(phase, model=self.chosen.id)

    async def _find_what_ran(self) -> None:
        """What the server really runs, which need not be what the run asked for."""
        self.record["served_as"] = self.client.served_as(self.chosen.id)
        ran = self.chosen.facts
        if self.control is not None and ran is not None:
            try:
                ran = await self.control.running(ran) or ran
            except TargetError as error:
                self.note(f"what runs is not told: {error}")
        if ran is not None:
            provider = ran.execution_provider
            self.record["ran"] = {"id": ran.id, "device": ran.device, "execution_provider": provider}

    async def _idle(self) -> None:
        """A request after the gap, and with `keep_warm` one more after a gap with pings in it."""
        gap_s, every_s = self.scenario.idle_gap, self.scenario.keep_warm
        if gap_s is None:
            return
        self.note(f"idle for {gap_s}")
        if not await self._rest(float(gap_s), None):
            return
        await self._probe("idle", after_s=float(gap_s))
        if every_s is not None:
            self.note(f"idle for {gap_s}, with a ping every {every_s}")
            if await self._rest(float(gap_s), float(every_s)):
                await self._probe("kept_warm", after_s=float(gap_s), every_s=float(every_s))

    async def _rest(self, gap_s: float, every_s: float | None) -> bool:
        """Let the gap pass; whether it did."""
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: self.watch.each_second("idle", model=self.chosen.id))
            end_s = time.monotonic() + gap_s
            whole = True
            while whole and every_s is not None and time.monotonic() + every_s < end_s:
                whole = await self.sleep(every_s)
                if whole:
                    await self._ask(PING_TOKENS)
            whole = whole and await self.sleep(max(0.0, end_s - time.monotonic()))
            group.cancel_scope.cancel()
        return whole

    async def _probe(
        self, purpose: str, *, after_s: float | None = None, every_s: float | None = None, endpoint: int = 0
    ) -> str | None:
        """One short request, an endpoint's first again after a failure that may pass; what failed, if it did.

        Whatever is asked again is asked as the run asks: a server that has no answer in a few tokens can be measured.
        """
        results: list[Result] = []
        begins = purpose in ("first", "replica")
        for _ in range(PROBES if begins else 1):
            results += await self._in_time(endpoint)
            error, message = results[-1].error, results[-1].error_message or ""
            if error is None or (error == "http_4xx" and (self._whole or not _OF_TOKENS.search(message))):
                break
            if not await self.sleep(0):
                break
            self._whole = self._whole or begins
        last = results[-1]
        facts = self.chosen.facts
        # A server that loads at the first request by itself is as cold.
        cold = self.record["load_source"] is not None or bool(facts and facts.loaded is False)
        ttft_ms = None
        if self.scenario.stream and last.sent_ns is not None and last.first_token_ns is not None:
            ttft_ms = round((last.first_token_ns - last.sent_ns) / 1e6, 3)
        probe = {
            "model": self.chosen.id,
            "purpose": purpose,
            "endpoint": endpoint,
            "cold": purpose == "first" and cold,
            "after_s": after_s,
            "every_s": every_s,
            "requests": len(results),
            "error": last.error,
            "error_message": last.error_message and advised(last.error_message, self.scenario),
            "ttft_ms": ttft_ms,
            "e2e_ms": None if last.error else round(last.end_ns / 1e6, 3),
            "input_tokens": last.input_tokens,
            "output_tokens": last.output_tokens,
            "characters": last.characters,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self.probes.append(probe)
        self.view.probed(probe)
        if last.error is None:
            return None
        problem = f"{last.error}: {probe['error_message']}"
        if len(self.scenario.endpoints) > 1:
            problem = f"{self.scenario.endpoints[endpoint]}: {problem}"
        return problem

    async def _in_time(self, endpoint: int) -> list[Result]:
        """One request, again where the server says that it came too early."""
        most_tokens = None if self._whole else PROBE_TOKENS
        results = [await self._ask(most_tokens, endpoint)]
        for pause_s in PAUSES_S:
            refused = results[-1]
            if refused.error != "http_429":
                break
            wait_s = pause_s if refused.retry_after_s is None else refused.retry_after_s
            self.limited = True
            if wait_s > LONGEST_PAUSE_S:
                break
            self.note(f"the server is asked too often: waiting {wait_s:g} s")
            if not await self.sleep(wait_s):
                break
            results.append(await self._ask(most_tokens, endpoint))
        return results

    async def _ask(self, max_tokens: int | None, endpoint: int = 0) -> Result:
        """One request.

        Args:
            max_tokens: None asks for as many as the run does.
        """
        prompt = distinct(self.prompts[0], self.salt * 1_000_003 + self._asked)
        prompt = replace(prompt, id="probe", max_tokens=max_tokens or prompt.max_tokens)
        failure: Exception | None = None
        results: list[Result] = []
        async with anyio.create_task_group() as group:
            group.start_soon(self._note_silence)
            try:
                results.append(await self._chat("probe", self._asked, prompt, endpoint))
            except Exception as error:  # as it is, not in a group
                failure = error
            group.cancel_scope.cancel()
        self._asked += 1
        if failure is not None:
            raise failure
        return results[0]

    async def _note_silence(self) -> None:
        """Say of an answer that is long in coming that it is waited for."""
        await self.pause(SILENT_S)
        if not self.client.text_events_in_flight():
            self.note(waiting_for(self.scenario))

    async def _chat(self, level: str, number: int, prompt: Prompt, endpoint: int = 0) -> Result:
        model, now_ns, results = self.chosen.id, time.perf_counter_ns(), list[Result]()
        ask = Ask(f"{model}@{level}", 1, number, model, prompt, warmup=True, due_ns=now_ns, endpoint=endpoint)
        await self.client.chat(ask, now_ns, results.append, keep=False)
        return results[0]

    async def calibrate(self, prompts: Sequence[Prompt], *, salt: int | None) -> Line:
        """Ask for one token each behind several lengths of words; the line through what the server counted.

        Where the server counts nothing a word counts as a token, and a note says so.

        Args:
            prompts: Those that must have this many tokens.
            salt: Where each request is to have a prefix of its own: it is counted too.
        """
        top = min(max(longest_in_tokens(prompts) or 0, 16), MOST_WORDS)
        words, tokens = [], []
        error: str | None = None
        for number, count in enumerate((top // 8, top // 2, top, top)):
            if not await self.sleep(0):
                break
            prompt = written(calibration(count, number, prompts))
            if salt is not None:
                prompt = distinct(prompt, salt + number)
            result = await self._chat("calibration", number, prompt)
            error = error or result.error
            if result.error is None and result.input_tokens is not None:
                words.append(count)
                tokens.append(result.input_tokens)
        line = fit(words, tokens)
        if line is None:
            self.record["calibration"] = None
            why = "its server counts no input tokens"
            if error:
                why = f"the requests that were to tell failed ({error})"
            self.note(f"prompts have as many words as they should have tokens: {why}")
            return UNKNOWN
        found = {"fixed_tokens": line.fixed, "tokens_per_word": line.per_word, "requests": len(words)}
        self.record["calibration"] = found
        return line


_SENT = ("max_tokens", "temperature", "stream_options", "min_tokens", "cache_prompt", "ignore_eos")
"""Keys that any request may carry."""
_UNWANTED = re.compile(
    r"not (?:be )?(?:support|permit|allow|recogni|known|valid)|unsupported|unrecogni|unknown|unexpected"
    r"|extra (?:input|field)|invalid (?:param|arg|field|key)|instead|deprecated|removed",
    re.IGNORECASE,
)
_INSTEAD = {"max_tokens": ("max_completion_tokens", "max_output_tokens", "max_new_tokens")}


def advised(message: str, scenario: Scenario) -> str:
    """A refusal's words with what to do, where they blame a key that was sent."""
    if message.startswith(("HTTP 401", "HTTP 403")):
        return f"{message}: does the server want a key, or refuse this one? --api-key-env NAME names its variable"
    keys = dict.fromkeys([*_SENT, *scenario.extra_body])
    named = [key for key in keys if re.search(rf"(?<![\w]){re.escape(key)}(?![\w])", message)]
    blamed = next((key for key in named if scenario.extra_body.get(key, ...) is not None), None)
    if blamed is None or not message.startswith("HTTP 4") or not _UNWANTED.search(message):
        return message
    body: dict[str, int | None] = {blamed: None}
    for key in _INSTEAD.get(blamed, ()):
        if key in message:
            body[key] = scenario.max_tokens
            break
    return f"{message}: null takes a key out of the request: --extra-body '{json.dumps(body)}'"
