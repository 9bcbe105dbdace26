"""What an adapter is: two methods, and four more that it may have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypedDict


class Message(TypedDict):
    """A turn of the conversation: who speaks, and the text."""

    role: str
    content: str


class Adapter(Protocol):
    """A model that takes the conversation and yields its answer piece by piece. No base class is needed.

    It may have, beside these two:

    - ``unload() -> None``: called once, as the server stops, when no generation runs any more.
    - ``info() -> dict``: called once, after `load`. Known keys: ``id``, ``context`` (tokens, prompt and answer
      together), ``device`` (CPU, GPU, NPU), ``execution_provider``, ``licence``, ``quantization``, ``size_bytes``
      (default: of the files at `weights_path`); whatever else is there is passed on in ``/v1/models``.
    - ``count_tokens(text: str) -> int``: by the model's tokenizer; for usage where `generate` does not tell.
    """

    def load(self, weights_path: str | None, *args: Any, **options: Any) -> object:
        """Make the model ready; called once, before the server listens. What it returns is ignored.

        Args:
            weights_path: As given on the command line; None where none was.
            options: Of ``--option KEY=VALUE``. One that the signature does not take is refused.
        """
        ...

    def generate(self, messages: list[Message], *args: Any, **params: Any) -> Iterable[str]:
        """Yield the answer as it comes, best one piece a token; every piece is sent at once.

        Called from many threads, at most `--slots` at a time; one call stays in one thread. When the client hangs up
        or the server stops, the generator is closed: GeneratorExit is raised at its ``yield``, and ``finally`` runs.

        A generator may end with ``return {"prompt_tokens": 21, "completion_tokens": 5, "finish_reason": "length"}``,
        each of them optional: only the model knows these exactly. Without, `count_tokens` is asked; without that
        too, no usage is sent, since a number of pieces is not a number of tokens.

        Args:
            messages: At least one.
            params: What the request's body has beside model, messages and streaming: ``max_tokens``, ``temperature``,
                ``stop``, ``seed``, …; nulls left out. Without ``**params``, only those that the signature names.
        Raises:
            Exception: Any: the client gets status 500, or an error event in a stream that has begun.
        """
        ...


class PromptAdapter(Protocol):
    """The plain form: text in, whole text out. It is told by the name of generate's first parameter, ``prompt``.

    The prompt is the user's message alone where there is only that one; else all turns, each under its role, with
    ``Assistant:`` at the end. An iterator may be returned here as well, as a ``str`` may be above. A call that returns
    a ``str`` cannot be interrupted: it holds its slot until it returns, and its first token is its last.
    """

    def load(self, weights_path: str | None, *args: Any, **options: Any) -> object:
        """As above."""
        ...

    def generate(self, prompt: str, *args: Any, **params: Any) -> str | Iterable[str]:
        """The answer as a whole."""
        ...
