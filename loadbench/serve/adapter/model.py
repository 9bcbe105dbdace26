"""An adapter: found by `module:Class` or by the name of an entry point, loaded, and called, in whatever form it has."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, cast

from loadbench.errors import LoadbenchError, UsageError
from loadbench.serve.chat import Message

GROUP = "loadbench.adapters"
"""Packages announce their adapters in this entry-point group."""

FAILURES = (Exception, SystemExit)
"""What an adapter's code may raise; a script made into one likes to call sys.exit."""

_OURS = Path(__file__).parent
_ROW_NAMES = {"context": "context_length", "execution_provider": "executionProvider", "licence": "license"}
"""info()'s keys that have another name in the model lists of other servers."""


class Adapter(Protocol):
    """A model that takes the conversation and yields its answer piece by piece. No base class is needed.

    It may have, beside these two:

    - ``unload() -> None``: called once, as the server stops, when no generation runs any more.
    - ``info() -> dict``: called once, after `load`. Known keys: ``id``, ``context`` (tokens, prompt and answer
      together), ``device`` (CPU, GPU, NPU), ``execution_provider``, ``licence``, ``quantization``, ``size_bytes``
      (default: of the files at `weights_path`); whatever else is there is passed on in ``/v1/models``.
    - ``count_tokens(text: str) -> int``: by the model's tokenizer; for usage where `generate` does not tell.
    """

    @property
    def load(self) -> Callable[..., object]:
        """``load(weights_path: str | None, **options)``: make the model ready; called once, before the server listens.

        `weights_path` is as on the command line, None where there was none; options are those of ``--option
        KEY=VALUE``, and one that the signature does not take is refused. What it returns is ignored.
        """
        ...

    @property
    def generate(self) -> Callable[..., str | Iterable[str]]:
        """``generate(messages: list[Message], **params)``: yield the answer as it comes, best one piece a token.

        Every piece is sent at once. Called from many threads, at most `--slots` at a time; one call stays in one
        thread. When the client hangs up or the server stops, the generator is closed: GeneratorExit is raised at its
        ``yield``, and ``finally`` runs. `params` are what the request's body has beside model, messages and streaming:
        ``max_tokens``, ``temperature``, ``stop``, ``seed``, …; nulls left out. Without ``**params``, only those that
        the signature names. Any exception gives the client status 500, or an error event in a stream that has begun.

        A generator may end with ``return {"prompt_tokens": 21, "completion_tokens": 5, "finish_reason": "length"}``,
        each of them optional: only the model knows these exactly. Without, `count_tokens` is asked; without that
        too, no usage is sent, since a number of pieces is not a number of tokens.

        The plain form is one whose first parameter is named ``prompt``: the user's message alone where there is
        only that one, else all turns, each under its role, with ``Assistant:`` at the end. Either form may return a
        ``str``: such a call cannot be interrupted, holds its slot until it returns, and its first token is its last.
        """
        ...


def described(error: BaseException) -> str:
    """Kind, message and place: the deepest line within the adapter's own file, not one of a library beneath it.

    >>> described(ValueError("no such\\n  layer"))
    'ValueError: no such layer'
    """
    message = " ".join(str(error).split())[:300]
    places = []
    for frame, number in traceback.walk_tb(error.__traceback__):
        file, module = frame.f_code.co_filename, frame.f_globals.get("__name__", "").partition(".")[0]
        # Below importlib, which we call to find the adapter, only the adapter's lines are of use.
        if not file.startswith("<frozen ") and Path(file).parent != _OURS and module != "importlib":
            places.append((file, number))
    line = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if not places:
        return line
    own = places[0][0]
    deepest = [number for name, number in places if name == own][-1]
    return f"{line} ({Path(own).name}:{deepest})"


def find(spec: str) -> Adapter:
    """A new adapter, not loaded yet.

    Args:
        spec: `module:Class`, the module in the working folder or installed, or a name in `GROUP`.
    Raises:
        UsageError: No such module, class or name, or the class lacks a method.
        LoadbenchError: The module or the class's constructor raised.
    """
    if ":" in spec:
        adapter = _attribute(spec)
    else:
        points = entry_points(group=GROUP)
        if spec not in points.names:
            hint = _hint(spec, points.names)
            raise UsageError(f"no adapter is named {spec!r}{hint}; one of your own is written module:Class")
        try:
            adapter = points[spec].load()
        except FAILURES as error:
            where = f"the adapter {spec} ({points[spec].value})"
            raise LoadbenchError(f"{where} cannot be imported: {described(error)}") from error
    try:
        if isinstance(adapter, type):
            adapter = adapter()
    except FAILURES as error:
        raise LoadbenchError(f"{spec} cannot be made: {described(error)}") from error
    lacking = [name for name in ("load", "generate") if not callable(getattr(adapter, name, None))]
    if lacking:
        raise UsageError(f"{spec} is no adapter: it has no {' and no '.join(lacking)} (docs/adapter.md shows one)")
    return cast("Adapter", adapter)


def _attribute(spec: str) -> object:
    module_name, _, name = spec.partition(":")
    words = (*module_name.split("."), *name.split("."))
    if not all(word.isidentifier() for word in words) or module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").strip("./\\").replace("/", ".").replace("\\", ".")
        raise UsageError(f"{spec!r} is no module:Class: write it like {dotted or 'my_model'}:{name or 'MyModel'}")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)  # and left there: load() may import more from the same folder
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise LoadbenchError(f"the module {module_name} cannot be imported: {described(error)}") from error
        files = difflib.get_close_matches(error.name, [path.stem for path in Path(here).glob("*.py")], n=1)
        hint = f"; is it {files[0]}?" if files else ""
        raise UsageError(f"there is no module {error.name!r}, neither in {here} nor installed{hint}") from None
    except FAILURES as error:
        raise LoadbenchError(f"the module {module_name} cannot be imported: {described(error)}") from error
    attribute: object = module
    for word in name.split("."):
        if not hasattr(attribute, word):
            there = [other for other, value in vars(attribute).items() if callable(getattr(value, "generate", None))]
            raise UsageError(f"the module {module_name} has no {name!r}{_hint(word, there)}")
        attribute = getattr(attribute, word)
    return attribute


def _hint(name: str, names: Iterable[str]) -> str:
    """The nearest of the names, else the first few."""
    names = sorted(set(names))
    if close := difflib.get_close_matches(name, names, n=1):
        return f"; is it {close[0]}?"
    return f"; there is {', '.join(names[:8])}" if names else ""


def option(text: str) -> tuple[str, object]:
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
        count: The adapter's count_tokens.
        prompt: Of the plain form.
    """

    def __init__(
        self, made: object, max_tokens: int | None, count: Callable[[str], int] | None, prompt: str | None
    ) -> None:
        if isinstance(made, str):
            made = [made]
        if isinstance(made, bytes | Mapping) or not isinstance(made, Iterable):
            raise TypeError(f"generate returned {type(made).__name__}, not text or an iterator of text")
        self._pieces: Iterator[object] = iter(made)
        self._max_tokens, self._count, self._prompt = max_tokens, count, prompt
        self._returned: Mapping[str, object] = {}
        self._texts: list[str] = []

    def next(self) -> str | None:
        """The next piece, which may be empty; None at the end."""
        try:
            piece = next(self._pieces)
        except StopIteration as end:
            if isinstance(end.value, Mapping):
                self._returned = end.value
            return None
        if not isinstance(piece, str):
            raise TypeError(f"generate yields {type(piece).__name__}, not text")
        self._texts.append(piece)
        return piece

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def usage(self) -> dict[str, int] | None:
        """Token counts: those that the generator returned, else by count_tokens; None where there are none.

        What a chat template adds to a conversation is the adapter's alone to know, so only a plain prompt is counted
        here.
        """
        counts: dict[str, int] = {}
        for name, text in (("prompt_tokens", self._prompt), ("completion_tokens", self.text)):
            value = self._returned.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                counts[name] = value
            elif self._count is not None and text is not None:
                counts[name] = int(self._count(text))
        if len(counts) == 2:
            counts["total_tokens"] = sum(counts.values())
        return counts or None

    def finish(self, usage: Mapping[str, int] | None) -> str:
        """Why it ended: as the generator returned, else "length" where the counted tokens reach the limit."""
        reason = self._returned.get("finish_reason")
        if isinstance(reason, str):
            return reason
        tokens = (usage or {}).get("completion_tokens")
        if tokens is not None and self._max_tokens and tokens >= self._max_tokens:
            return "length"
        return "stop"

    def close(self) -> None:
        """End it, wherever it is: GeneratorExit reaches a generator."""
        close = getattr(self._pieces, "close", None)
        if close is None:
            return
        try:
            close()
        except FAILURES as error:
            logging.getLogger(__name__).warning("the adapter failed as its generator was closed: %s", described(error))


class Model:
    """A loaded adapter.

    Args:
        spec: How it was found; for messages, and for an id.
        weights, options: For its load.
        model_id: Instead of the one in its info.
    Raises:
        UsageError: It does not take these options, or its generate is async.
        LoadbenchError: Its code raised.
    """

    def __init__(
        self,
        adapter: Adapter,
        spec: str,
        weights: str | None = None,
        options: Mapping[str, object] | None = None,
        model_id: str | None = None,
    ) -> None:
        self._adapter, options = adapter, options or {}
        generate = adapter.generate
        if inspect.iscoroutinefunction(generate) or inspect.isasyncgenfunction(generate):
            raise UsageError(f"generate of {spec} is async: make it a plain function or generator; a thread runs it")
        self._takes_prompt, self._names = _parameters(generate)
        self._count: Callable[[str], int] | None = getattr(adapter, "count_tokens", None)
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
            info: object = getattr(adapter, "info", dict)()
            self.row = _row(info, weights, model_id or _name(spec, weights), model_id)
        except FAILURES as error:
            raise LoadbenchError(f"{spec} cannot load {weights or 'its model'}: {described(error)}") from error
        self.id = str(self.row["id"])

    @contextlib.contextmanager
    def generation(self, messages: list[Message], params: Mapping[str, object]) -> Iterator[Generation]:
        """Call generate with these parameters, `max_tokens` among them, and close what it returned in the end."""
        prompt = as_prompt(messages) if self._takes_prompt else None
        taken = {name: value for name, value in params.items() if self._names is None or name in self._names}
        made = self._adapter.generate(messages if prompt is None else prompt, **taken)
        limit = params.get("max_tokens")
        generation = Generation(made, limit if isinstance(limit, int) else None, self._count, prompt)
        try:
            yield generation
        finally:
            generation.close()

    def unload(self) -> None:
        """Give the model back, where the adapter can; a failure is logged, as there is nothing left to lose."""
        try:
            getattr(self._adapter, "unload", lambda: None)()
        except FAILURES as error:
            logging.getLogger(__name__).warning("the adapter's unload failed: %s", described(error))


def _parameters(generate: Callable[..., object]) -> tuple[bool, frozenset[str] | None]:
    """Whether it takes a plain prompt, and the names of what it takes beside; None where it takes any."""
    try:
        first, *others = inspect.signature(generate).parameters.values()
    except ValueError:  # no signature, or none with a parameter: the call itself will tell
        return False, None
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in others)
    return first.name == "prompt", None if any_name else frozenset(parameter.name for parameter in others)


def _row(info: object, weights: str | None, name: str, model_id: str | None) -> dict[str, object]:
    if not isinstance(info, Mapping):
        raise TypeError(f"info returned {type(info).__name__}, not a dict")
    row: dict[str, object] = {"object": "model", "created": int(time.time()), "owned_by": "adapter", "loaded": True}
    path = Path(weights) if weights else None
    if path is not None and path.exists():
        files = [path] if path.is_file() else path.rglob("*")
        row["size_bytes"] = sum(file.stat().st_size for file in files if file.is_file())
    for key, value in info.items():
        if value is not None:
            row[_ROW_NAMES.get(key, str(key))] = value
    row["id"] = str(model_id or row.get("id") or name)
    plain: dict[str, object] = json.loads(json.dumps(row, default=str))
    return plain


def _name(spec: str, weights: str | None) -> str:
    """An id for a model that has none: after its weights, else after its adapter."""
    if weights:
        path = Path(weights)
        return (path.stem if path.is_file() else path.name) or path.resolve().name
    return spec.rpartition(":")[2].lower()
