"""`loadbench probe`: one chat per model, and what else asks a server that a run would measure."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from unicodedata import category

import anyio
import click
from msgspec import structs

from loadbench import server as targets
from loadbench.cli.job import chat_job, server_text, with_key
from loadbench.cli.options import Command, F, add, options, under
from loadbench.cli.surroundings import data, note
from loadbench.client import Ask, Client, Parameters
from loadbench.errors import TargetError
from loadbench.metrics.request import Requests
from loadbench.prompts import Prompt
from loadbench.runner import connect
from loadbench.runner.connect import Location, Reached
from loadbench.runner.job import Job, Server
from loadbench.runner.turn import advised
from loadbench.runner.watch import Watched
from loadbench.scenario import Scenario
from loadbench.server import Chosen
from loadbench.store.record import Result, Results
from loadbench.text import figure, harmless, plural, span
from loadbench.transport import StockTransport, Transport

PROMPT = "Explain in two sentences what a load test of a language model finds out."
SERVER = ("endpoint", "wait", "api_key_env", "api_key_file", "headers", "ca_file", "insecure")
"""The settings that say which server, and how to get in."""
VARIANT = ("device", "execution_provider")
_NARROWER: dict[str, dict[str, object]] = {
    "endpoint": {"help": "With or without /v1.  [default: what is found]"},
    "api_key_env": {"help": "Variable that holds the key.  [default: API_KEY]"},
    "models": {"help": "To ask; repeat it, or a,b.  [default: auto]", "envvar": ["LOADBENCH_MODEL", "BENCH_MODELS"]},
    "device": {"help": "For cpu, gpu or npu.", "metavar": "DEVICE"},
    "execution_provider": {"help": "For a provider, as cuda or webgpu."},
}


def server_options(*server: str, models: tuple[str, ...] = ()) -> Callable[[F], F]:
    """A decorator: settings of `run` that say which server a command asks, and which of its models."""
    return add(options({"Server": server, "Models": models}, (Scenario, Server), _NARROWER))


_question, _output = under("Question", variables=True), under("Output")


@click.command(
    cls=Command,
    short_help="One chat per model: does it answer, and how fast?",
    epilog="""\b
Examples:
  loadbench probe                        the models at hand, one after another
  loadbench probe -m phi-4-mini --device gpu
  loadbench probe -e http://gpu-box:8000/v1 --prompt "Why is the sky blue?"
  loadbench probe --json

\b
Exit: 0 all answered, 1 one did not, or there is none, 2 arguments,
130 interrupted.
""",
)
@server_options(*SERVER, "cache_dir", models=("models", *VARIANT))
@_question("--prompt", metavar="TEXT", default=PROMPT, help="Ask this.", workshop="BENCH_PROMPT")
@_question(
    "--max-tokens",
    type=click.IntRange(1),
    default=64,
    metavar="N",
    show_default=True,
    help="Most tokens of an answer.",
    workshop="BENCH_MAX_TOKENS",
)
@_question(
    "--temperature",
    type=float,
    default=0.0,
    metavar="T",
    help="0 for answers that repeat.",
    workshop="BENCH_TEMPERATURE",
)
@_output("--json", "as_json", is_flag=True, help="One JSON object a line, one per model.")
def probe(prompt: str, as_json: bool, **values: object) -> int:
    """Ask each model one question and show its answer as it comes.

    Below the answer stand the time to first token (TTFT), the tokens and their speed after the first one, and the time
    of the whole answer (E2E), got as in a run. One request says that a model works, not how fast it is: for that,
    measure it with `loadbench run`. A model that is not loaded is loaded first, where the server allows it, and
    unloaded again.
    """

    async def ask_all(stage: Stage) -> bool:
        if not as_json:
            note(stage.whom)
        choice = stage.reached.choose(stage.scenario)
        for absent in choice.absent:
            error = {"error": "absent", "error_message": absent.reason}
            _say({"model": absent.name, "device": absent.device, **error}, as_json)
        ok = not choice.absent
        for model in choice.chosen:
            answer = await _one(stage, model, prompt, as_json)
            ok = ok and answer["error"] is None
        return ok

    return 0 if on_stage(chat_job(values), ask_all) else 1


async def _one(stage: Stage, model: Chosen, prompt: str, as_json: bool) -> dict[str, Any]:
    """Ask one model; what came of it, as --json has it."""
    facts = model.facts
    answer: dict[str, Any] = {
        "model": model.id,
        "name": model.name,
        "device": facts.device if facts else None,
        "execution_provider": facts.execution_provider if facts else None,
        "load_s": None,
        "reasoning": "",
        "answer": "",
    }
    if not as_json:
        click.secho(harmless(model.id), bold=True)
    try:
        async with stage.loaded(model) as load_s:
            result, reasoning = await stage.ask(model, prompt, None if as_json else _show)
    except TargetError as error:
        answer |= {"error": "load", "error_message": str(error)}
    else:
        load_s = None if load_s is None else round(load_s, 3)
        answer |= {"load_s": load_s, "reasoning": reasoning, "answer": result.text, **figures(result)}
        if not as_json and (reasoning or result.text):
            click.echo()
    _say(answer, as_json)
    return answer


_KEPT = "\n\t\u200c\u200d"  # line ends; and what joins and parts letters in Persian, and emoji
_SPACES = {"Zs": " ", "Zl": "\n", "Zp": "\n"}


def _show(text: str) -> None:
    """A piece of an answer: with its line ends and spaces of all kinds, without what could move the cursor."""
    signs = (sign if sign.isprintable() or sign in _KEPT else _SPACES.get(category(sign), "") for sign in text)
    click.echo("".join(signs), nl=False)


def _say(answer: dict[str, Any], as_json: bool) -> None:
    """What came of one model: a JSON line, or a line of figures."""
    if as_json:
        click.echo(data(answer))
    elif answer["error"] is not None:
        model, error, message = answer["model"], answer["error"], answer["error_message"]
        what = "" if error in ("absent", "load") else f"{error}: "
        note(f"loadbench: {message}" if model in message else f"loadbench: {model}: {what}{message}")
    else:
        click.echo(f"{line(answer)}\n")


def line(answer: dict[str, Any]) -> str:
    """The figures of one chat in words."""
    tokens = plural(answer["output_tokens"], "token") + (" (estimated)" if answer["token_source"] == "events" else "")
    words = [f"TTFT {span(answer['ttft_ms'])}", tokens]
    if answer["tokens_per_s"] is not None:
        words.append(f"{figure(answer['tokens_per_s'])} tokens/s after the first")
    return ", ".join([*words, f"E2E {span(answer['e2e_ms'])}"])


# -- one chat, on a server that a run would measure

_SHOW_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Stage:
    """A server that can be asked, over the path of measured requests; `whom` says which and how it was found."""

    reached: Reached
    whom: str
    transport: Transport | StockTransport
    scenario: Scenario
    headers: dict[str, str]

    @asynccontextmanager
    async def loaded(self, model: Chosen) -> AsyncIterator[float | None]:
        """The model in memory: how long its load took, in s; None where nothing was loaded. Left as it was found."""
        facts, control = model.facts, self.reached.control
        if facts is None or control is None or facts.loaded is not False:
            yield None
            return
        if (warning := Watched(self.reached.server).memory_warning(facts)) is not None:
            note(f"Warning: {warning}")
        note(f"{facts.id}: loading")
        began_s = time.monotonic()
        await control.load(facts)
        load_s = time.monotonic() - began_s
        note(f"{facts.id}: loaded in {load_s:.3g} s")
        try:
            yield load_s
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    await control.unload(facts)
                except TargetError as error:
                    note(f"{facts.id}: not unloaded: {error}")

    async def ask(
        self, model: Chosen, text: str, shown: Callable[[str], None] | None = None, *, max_tokens: int | None = None
    ) -> tuple[Result, str]:
        """One request, made as those of a run are: what came of it, and the reasoning before its answer.

        Args:
            shown: Called with each new piece of reasoning and answer, as it comes.
            max_tokens: Unset, those of the scenario.
        """
        cold = {"cache_prompt": False} if targets.VENDORS[self.reached.server.kind].cache_prompt else {}
        client = Client(
            self.transport,
            self.reached.server.chat_url_of(model.id),
            headers=self.headers,
            parameters=Parameters(
                self.scenario.max_tokens, self.scenario.temperature, {**cold, **self.scenario.extra_body}
            ),
            timeouts=self.scenario.timeouts,
            now_ns=time.perf_counter_ns,
        )
        results: list[Result] = []
        now_ns = time.perf_counter_ns()
        prompt = Prompt("probe", ({"role": "user", "content": text},), max_tokens=max_tokens)
        ask = Ask(f"{model.id}@probe", 1, 0, model.id, prompt, warmup=False, due_ns=now_ns)
        seen = ("", "")

        def show_new() -> None:
            nonlocal seen
            now = client.last_texts()
            if shown is not None and (piece := new_text(seen, now)):
                shown(piece)
            seen = now

        async def show() -> None:
            while shown is not None:
                await anyio.sleep(_SHOW_EVERY_S)
                show_new()

        async with anyio.create_task_group() as group:
            group.start_soon(show)
            await client.chat(ask, now_ns, results.append, keep=False)
            group.cancel_scope.cancel()
        show_new()
        result = results[0]
        if result.error_message is not None:
            result = structs.replace(result, error_message=advised(result.error_message, self.scenario))
        return result, client.last_texts()[0]


def on_stage(job: Job, ask: Callable[[Stage], Awaitable[bool]]) -> bool:
    """Ask the server that `loadbench run` would measure; what is started for it ends with this."""

    async def asked(location: Location) -> bool:
        scenario = job.scenario
        key = connect.key(scenario.api_key_env, scenario.api_key_file, location.how)
        async with connect.reached(location, job, note) as reached:
            server = reached.server
            for warning in connect.warnings(server.base_url, scenario.api_key_file, insecure=job.server.insecure):
                note(warning)
            transport = connect.transport(server, job.server)
            whom = server_text(server, with_key(location.how, scenario))
            headers = targets.request_headers(scenario.headers, key)
            try:
                return await ask(Stage(reached, whom, transport, scenario, headers))
            finally:
                await transport.aclose()

    with ExitStack() as stack:
        return anyio.run(asked, connect.locate(job, stack, note))


def figures(result: Result) -> dict[str, Any]:
    """What one request measured, by docs/metrics.md's formulas: times in ms, None where undefined."""
    request = Requests.of(Results.from_results([result]))

    def defined(column: Any, factor: float = 1.0) -> float | None:
        value = float(column[0])
        return None if value != value else round(value * factor, 3)

    tpot_ns = defined(request.tpot)
    return {
        "ttft_ms": defined(request.ttft, 1e-6),
        "e2e_ms": defined(request.e2e, 1e-6),
        "input_tokens": result.input_tokens,
        "output_tokens": int(request.tokens[0]),
        "token_source": "usage" if request.counted[0] else "events",
        "tokens_per_s": None if not tpot_ns else round(1e9 / tpot_ns, 2),
        "finish_reason": result.finish_reason,
        "error": result.error,
        "error_message": result.error_message,
    }


def new_text(seen: tuple[str, str], now: tuple[str, str]) -> str:
    """What is new of reasoning and answer, each of which only grows; the answer begins on a line of its own.

    >>> new_text(("", ""), ("Hm", "")), new_text(("Hm", ""), ("Hm so", "42")), new_text(("Hm", "42"), ("Hm", "421"))
    ('Hm', ' so\\n42', '1')
    """
    reasoning, answer = (after[len(before) :] for before, after in zip(seen, now, strict=True))
    starts = bool(answer and now[0] and not seen[1])
    return reasoning + "\n" * (starts and not now[0].endswith("\n")) + answer
