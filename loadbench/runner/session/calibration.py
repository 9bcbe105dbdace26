"""How a model's server counts words that are made up: it is asked a few times, and its usage tells."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from loadbench.client import Ask
from loadbench.prompts import UNKNOWN, Line, Prompt, calibration, distinct, fit, longest_in_tokens, written
from loadbench.record import Result
from loadbench.runner.session.turn import Chats

MOST_WORDS = 512
"""Of a calibration request: a line through 512 words is known to about one token in a hundred."""


async def calibrate(
    client: Chats,
    model: str,
    prompts: Sequence[Prompt],
    record: dict[str, Any],
    note: Callable[[str], None],
    sleep: Callable[[float], Awaitable[bool]],
    *,
    salt: int | None = None,
) -> Line:
    """Ask for one token each behind so many words; the line through what the server counted.

    Args:
        prompts: Those that are to have so many tokens.
        record: What run.json says of the model: `calibration` is added to it.
        note: Tells a person where the server counts nothing; then a word stands for a token.
        sleep: False where the user ended the run meanwhile.
        salt: Where each request is to have a prefix of its own: it is counted too.
    """
    top = min(max(longest_in_tokens(prompts) or 0, 16), MOST_WORDS)
    words, tokens = [], []
    error: str | None = None
    for number, count in enumerate((top // 8, top // 2, top, top)):
        if not await sleep(0):
            break
        prompt = written(calibration(count, number, prompts))
        result = await _ask(client, model, prompt if salt is None else distinct(prompt, salt + number), number)
        error = error or result.error
        if result.error is None and result.input_tokens is not None:
            words.append(count)
            tokens.append(result.input_tokens)
    line = fit(words, tokens)
    if line is None:
        record["calibration"] = None
        why = f"the requests that were to tell failed ({error})" if error else "its server counts no input tokens"
        note(f"{model}: prompts have as many words as they should have tokens: {why}")
        return UNKNOWN
    record["calibration"] = {"fixed_tokens": line.fixed, "tokens_per_word": line.per_word, "requests": len(words)}
    return line


async def _ask(client: Chats, model: str, prompt: Prompt, number: int) -> Result:
    results: list[Result] = []
    now_ns = time.perf_counter_ns()
    ask = Ask(f"{model}@calibration", 1, number, model, prompt, warmup=True, due_ns=now_ns)
    await client.chat(ask, now_ns, results.append, keep=False)
    return results[0]
