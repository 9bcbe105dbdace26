"""The requests of a run as columns: one numpy array a figure, one row a request, all levels under one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench.metrics import Requests
from loadbench.store import LevelData

Columns = dict[str, NDArray[Any]]


def columns(levels: Sequence[LevelData], *, streamed: bool) -> Columns:
    """Times in ms, moments in s since their level began, both float64 with NaN where they never were.

    Texts are objects, None where there is none.
    """
    parts = [_of(data, streamed=streamed) for data in levels]
    if not parts:
        return {}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _of(data: LevelData, *, streamed: bool) -> Columns:
    facts, results = data.facts, data.results
    requests = Requests.of(results, streamed=streamed)
    n = len(results)
    load = {name: facts.get(name) for name in ("concurrency", "request_rate_per_s")}
    return {
        "level": _same(facts["id"], n),
        "model": _same(facts.get("model"), n),
        **{name: np.full(n, np.nan if value is None else value, np.float64) for name, value in load.items()},
        "closing": np.full(n, bool(facts.get("closing")), np.bool_),
        "repeat": np.full(n, facts.get("repeat") or 1, np.int64),
        "request": results.request,
        "prompt": _texts(results.prompt),
        "warmup": results.warmup,
        "completed": requests.completed,
        "error": _texts(results.error),
        "error_message": _texts(results.error_message),
        "finish_reason": _texts(results.finish_reason),
        "status": results.status,
        "retry_of": results.retry_of,
        "endpoint": results.endpoint,
        "ttft_ms": requests.ttft / 1e6,
        "ttft_from_due_ms": requests.ttft_from_due / 1e6,
        "tpot_ms": requests.tpot / 1e6,
        "e2e_ms": requests.e2e / 1e6,
        "client_queue_ms": requests.client_queue / 1e6,
        "input_tokens": results.input_tokens,
        "cached_tokens": results.cached_tokens,
        "output_tokens": requests.tokens,
        "characters": results.characters,
        "words": results.words,
        "due_s": results.due / 1e9,
        "sent_s": results.sent / 1e9,
        "first_token_s": results.first_token / 1e9,
        "last_token_s": results.last_token / 1e9,
        "end_s": results.end / 1e9,
    }


def _same(text: object, n: int) -> NDArray[Any]:
    return np.full(n, text, object)


def _texts(values: Sequence[str | None]) -> NDArray[Any]:
    found = np.empty(len(values), object)
    found[:] = values
    return found
