"""What is there to measure, and whether it answers: `loadbench models list` and `loadbench probe` from Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from loadbench.runner import child


def catalogue(endpoint: str | None = None, *, cached: bool = False) -> list[dict[str, Any]]:
    """The models of a server, or of the Foundry Local service or SDK that is found: id, alias, device, licence …

    Args:
        cached: Only what is on the disk already.
    Raises:
        LoadbenchError: If there is no server, or it has none.
    """
    words = ["models", "list", "--json", *_endpoint(endpoint), *(["--cached"] if cached else [])]
    found: list[dict[str, Any]] = orjson.loads(child.command(words))
    return found


def probe(
    models: str | Sequence[str] | None = None,
    *,
    prompt: str | None = None,
    endpoint: str | None = None,
    max_tokens: int = 64,
    temperature: float = 0.0,
) -> list[dict[str, Any]]:
    """One chat per model: its `answer`, `ttft_ms`, `tokens_per_s`, `e2e_ms`, or its `error`.

    Args:
        models: Unset: those at hand.
    Raises:
        LoadbenchError: If no model was asked at all.
    """
    names = [models] if isinstance(models, str) else list(models or ())
    words = ["probe", "--json", *_endpoint(endpoint), "--max-tokens", str(max_tokens)]
    words += ["--temperature", str(temperature)]
    words += [word for name in names for word in ("-m", name)]
    words += [] if prompt is None else ["--prompt", prompt]
    return [orjson.loads(line) for line in child.command(words).splitlines() if line.strip()]


def _endpoint(endpoint: str | None) -> list[str]:
    return [] if endpoint is None else ["-e", endpoint]
