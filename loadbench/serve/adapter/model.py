"""A loaded adapter, and one call of its generate, whatever of the documented forms it has."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from loadbench.errors import LoadbenchError, UsageError
from loadbench.serve.adapter.ask import Ask
from loadbench.serve.adapter.failure import FAILURES, told
from loadbench.serve.adapter.protocol import Message

_ROW_NAMES = {"context": "context_length", "execution_provider": "executionProvider", "licence": "license"}
"""info()'s keys that have another name in the model lists of other servers."""


def option(text: str) -> tuple[str, Any]:
    """`KEY=VALUE` of the command line: the value is read as JSON, and is plain text where it is none.

    Raises:
        UsageError: No key.

    >>> option("threads=2"), option("device=cpu"), option('name="2"')
    (('threads', 2), ('device', 'cpu'), ('name', '2'))
    """
    key, sign, value = text.partition("=")
    if not sign or not key.isidentifier():
        raise UsageError(f"--option {text!r} is no KEY=VALUE, with a key that is a name: write it like threads=2")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def as_prompt(messages: list[Message]) -> str:
    """The conversation as one text: a single message as it is, else every turn under its role.

    >>> as_prompt([{"role": "user", "content": "Hi"}])
    'Hi'
    >>> as_prompt([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    'System: Be brief.\\n\\nUser: Hi\\n\\nAssistant:'
    """
    if len(messages) == 1:
        return messages[0]["content"]
    turns = [f"{message['role'].capitalize()}: {message['content']}" for message in messages]
    return "\n\n".join([*turns, "Assistant:"])


class Generation:
    """One call of generate: `next` until it gives None, then `finish` and `usage`.

    Args:
        made: What generate returned.
        max_tokens: As asked.
        count: The adapter's count_tokens.
        prompt: What the adapter was given, where that was one text.
    """

    def __init__(
        self, made: Any, max_tokens: int | None, count: Callable[[str], Any] | None, prompt: str | None
    ) -> None:
        if isinstance(made, str):
            made = [made]
        if isinstance(made, bytes | Mapping) or not isinstance(made, Iterable):
            raise TypeError(f"generate returned {type(made).__name__}, not text or an iterator of text")
        self._pieces: Iterator[Any] = iter(made)
        self._max_tokens, self._count, self._prompt = max_tokens, count, prompt
        self._told: Mapping[str, Any] = {}
        self._texts: list[str] = []

    def next(self) -> str | None:
        """The next piece, which may be empty; None at the end."""
        try:
            piece = next(self._pieces)
        except StopIteration as end:
            self._told = end.value if isinstance(end.value, Mapping) else {}
            return None
        if not isinstance(piece, str):
            raise TypeError(f"generate yields {type(piece).__name__}, not text")
        self._texts.append(piece)
        return piece

    @property
    def text(self) -> str:
        """All so far."""
        return "".join(self._texts)

    def usage(self) -> dict[str, int] | None:
        """Token counts: those that the generator returned, else by count_tokens; None where nobody counted.

        What a chat template adds to a conversation is the adapter's alone to know, so only a plain prompt is counted
        here.
        """
        completion, prompt = self._number("completion_tokens"), self._number("prompt_tokens")
        if self._count and completion is None:
            completion = int(self._count(self.text))
        if self._count and prompt is None and self._prompt is not None:
            prompt = int(self._count(self._prompt))
        counts = {"prompt_tokens": prompt, "completion_tokens": completion}
        if prompt is not None and completion is not None:
            counts["total_tokens"] = prompt + completion
        return {name: number for name, number in counts.items() if number is not None} or None

    def finish(self, usage: Mapping[str, int] | None) -> str:
        """Why it ended: as the generator returned, else "length" where the counted tokens reach the limit."""
        said = self._told.get("finish_reason")
        if isinstance(said, str):
            return said
        tokens = (usage or {}).get("completion_tokens")
        return "length" if tokens is not None and self._max_tokens and tokens >= self._max_tokens else "stop"

    def close(self) -> None:
        """End it, wherever it is: GeneratorExit reaches a generator."""
        close = getattr(self._pieces, "close", None)
        if close is None:
            return
        try:
            close()
        except FAILURES as error:
            logging.getLogger(__name__).warning("the adapter failed as its generator was closed: %s", told(error))

    def _number(self, name: str) -> int | None:
        value = self._told.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


class Model:
    """A loaded adapter.

    Args:
        adapter: What lookup.find gave.
        spec: How it was found; for messages, and for an id.
        weights: For its load.
        options: For its load.
        model_id: Instead of the one that its info tells.
    Raises:
        UsageError: It does not take these options, or its generate is async.
        LoadbenchError: Its code raised.
    """

    def __init__(
        self,
        adapter: Any,
        spec: str,
        weights: str | None = None,
        options: Mapping[str, Any] | None = None,
        model_id: str | None = None,
    ) -> None:
        self._adapter, options = adapter, options or {}
        generate = adapter.generate
        if inspect.iscoroutinefunction(generate) or inspect.isasyncgenfunction(generate):
            raise UsageError(f"generate of {spec} is async: make it a plain function or generator; a thread runs it")
        self._takes_prompt, self._names = _parameters(generate)
        self._count: Callable[[str], Any] | None = getattr(adapter, "count_tokens", None)
        load = adapter.load
        try:
            inspect.signature(load).bind(weights, **options)
        except TypeError as error:
            takes = ", ".join(list(inspect.signature(load).parameters)[1:]) or "none"
            raise UsageError(f"load of {spec} does not take what is given: {error}; its options: {takes}") from None
        except ValueError:  # a builtin has no signature
            pass
        try:
            load(weights, **options)
            info = adapter.info() if hasattr(adapter, "info") else {}
            self.row = _row(info, weights, model_id or _name(spec, weights), model_id)
        except FAILURES as error:
            raise LoadbenchError(f"{spec} cannot load {weights or 'its model'}: {told(error)}") from error
        self.id: str = self.row["id"]

    @contextlib.contextmanager
    def generation(self, ask: Ask) -> Iterator[Generation]:
        """Call generate, and close what it returned in the end."""
        prompt = as_prompt(ask.messages) if self._takes_prompt else None
        params = {name: given for name, given in ask.params.items() if self._names is None or name in self._names}
        made = self._adapter.generate(ask.messages if prompt is None else prompt, **params)
        generation = Generation(made, ask.max_tokens, self._count, prompt)
        try:
            yield generation
        finally:
            generation.close()

    def unload(self) -> None:
        """Give the model back, where the adapter can; a failure is logged, as there is nothing left to lose."""
        try:
            if hasattr(self._adapter, "unload"):
                self._adapter.unload()
        except FAILURES as error:
            logging.getLogger(__name__).warning("the adapter's unload failed: %s", told(error))


def _parameters(generate: Any) -> tuple[bool, frozenset[str] | None]:
    """Whether it takes a plain prompt, and the names of what it takes beside; None where it takes any."""
    try:
        first, *others = inspect.signature(generate).parameters.values()
    except ValueError:  # no signature, or none with a parameter: the call itself will tell
        return False, None
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in others)
    return first.name == "prompt", None if any_name else frozenset(parameter.name for parameter in others)


def _row(info: Any, weights: str | None, name: str, model_id: str | None) -> dict[str, Any]:
    """The model's row in /v1/models."""
    if not isinstance(info, Mapping):
        raise TypeError(f"info returned {type(info).__name__}, not a dict")
    row = {_ROW_NAMES.get(key, str(key)): value for key, value in info.items() if value is not None}
    told_id = row.pop("id", None)
    row = {"object": "model", "created": int(time.time()), "owned_by": "adapter", "loaded": True} | row
    size_bytes = _size_bytes(weights)
    if size_bytes is not None:
        row.setdefault("size_bytes", size_bytes)
    known: dict[str, Any] = json.loads(json.dumps({"id": model_id or told_id or name, **row}, default=str))
    known["id"] = str(known["id"])
    return known


def _name(spec: str, weights: str | None) -> str:
    """An id for a model that has none: after its weights, else after its adapter."""
    if weights:
        path = Path(weights)
        return (path.stem if path.is_file() else path.name) or path.resolve().name
    return spec.rpartition(":")[2].lower()


def _size_bytes(weights: str | None) -> int | None:
    """Of a file, or of all files in a folder; None where there is neither."""
    path = Path(weights) if weights else None
    if path is None or not path.exists():
        return None
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
