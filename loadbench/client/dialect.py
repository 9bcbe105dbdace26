"""What servers write differently: where the text is, where the count, and how they say what went wrong.

The tables of it are in tables.py; what none of them knows is reported: `Texts.unknown`, `Usage.unknown` and `finish`.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import orjson

from loadbench.client import tables
from loadbench.client.tables import TEXTS, Text
from loadbench.server.calls import without_markup
from loadbench.server.facts import MOST, whole
from loadbench.store.record import ErrorKind

Json = Any
"""What a server sent, of any shape."""
_REASONING_PART = re.compile("think|reason|thought")  # a part's type, as Mistral's and Anthropic's "thinking"
_DEEPEST = 8  # parts within parts
_TEXTLESS = tables.SILENT - {"tool_calls", "function_call"}
_MOST_STATE_WORDS = 3  # "response.failed" and "internal_server_error" are states, a sentence with "error" in it is none
_CACHE_FILLERS = tables.COUNT_FILLERS | tables.COUNT_WORDS["input"] | {"hit", "hits", "read", "content"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_CODED = frozenset({*tables.FLAGS, *tables.CODES, "detail"})
_LONGEST_NAME = 60
_MOST_PLACES = 200  # looked into for a usage, of one event
_MESSAGE_CHARACTERS = 300
_PIECE = 65_536


# -- JSON as it comes


def read_json(payload: bytes) -> Json:
    """A JSON document, with what every Python client reads: NaN, Infinity, halves of a UTF-16 pair.

    Raises:
        ValueError: If it is none.
    """
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as strict:
        try:
            return json.loads(payload.decode("utf-8-sig"))
        except RecursionError:
            raise ValueError("nested too deep") from None
        except ValueError:
            raise ValueError(str(strict)) from None


def paired(text: str, *, final: bool = True) -> str:
    """A text whose UTF-16 pairs may have come in halves, one in each of two events; a half alone becomes U+FFFD.

    Args:
        final: Nothing follows; else a half at the end is left out, as the other one may come.

    >>> paired("Hi " + chr(0xD83D) + chr(0xDE00)), paired("Hi " + chr(0xD83D), final=False)
    ('Hi 😀', 'Hi ')
    """
    return codecs.utf_16_le_decode(text.encode("utf-16-le", "surrogatepass"), "replace", final)[0]


def looks_streamed(start: int, declared: bytes) -> bool:
    """Whether a body that begins with this byte is an event stream: the body says so, where it says so, not its type.

    Args:
        start: Its first byte that is no blank.
        declared: Its content type, in small letters.

    >>> looks_streamed(ord("d"), b"application/json"), looks_streamed(ord("{"), b"text/event-stream")
    (True, False)
    """
    if start in b"{[":
        return False
    return start in b":deir" or not declared.startswith(b"application/json")  # comment, data, event, id, retry


# -- failures


def status_kind(status: int) -> ErrorKind:
    """docs/metrics.md's word for a response that is no 200."""
    if status == 429:
        return "http_429"
    if status >= 500:
        return "http_5xx"
    if status >= 400:
        return "http_4xx"
    return "redirect" if status >= 300 else "protocol"


def status_message(status: int, body: bytes) -> str:
    """An error response in words: its status, and what its body says, JSON or not."""
    try:
        words = error_words(read_json(body))
    except ValueError:
        words = without_markup(body.decode("utf-8", "replace")).strip()
    return f"HTTP {status}: {words}" if words else f"HTTP {status}"


def no_text_message(finish_reason: str | None, output_tokens: int | None) -> str:
    """Why an answer that ended as it should has no text, and what to do about it."""
    if finish_reason not in ("length", "max_tokens"):
        return "a response without any text"
    spent = f"all {output_tokens} tokens" if output_tokens else "all tokens that were allowed"
    return (
        f"{spent} went into hidden reasoning (finish reason {finish_reason}), none into an answer: allow more with "
        """--max-tokens, or less reasoning, as --extra-body '{"reasoning_effort": "low"}'"""
    )


def error_words(document: Json) -> str:
    """The message in an error document, of whatever shape."""
    while True:
        if isinstance(document, list) and len(document) == 1:
            document = document[0]
        elif isinstance(document, dict):
            named = (
                name for name in (*tables.SAYS, *filter(_is_error_name, document)) if _is_meant(document.get(name))
            )
            name = next(named, None)
            if name is None:
                break
            document = document[name]
        else:
            break
    if isinstance(document, str):
        return without_markup(document)
    try:
        return orjson.dumps(document).decode()
    except orjson.JSONEncodeError:  # it reads more levels than it writes
        return "an error of too many levels"


def failure(name: bytes, document: Json) -> str | None:
    """What went wrong, in the server's words; None where the event names no error.

    Args:
        name: Of the event, b"" where it has none.
        document: Its data.
    """
    if not isinstance(document, dict) or (name and has_failed(name.decode("utf-8", "replace"))):
        return error_words(document)
    if _names_error(document):
        return error_words(document)
    if document.get("choices"):
        return None
    inner = [value for value in document.values() if isinstance(value, dict)]
    for each in (document, *inner):
        if _codes_error(each) or (each is not document and _names_error(each)):
            return error_words(each)
    return None


def has_failed(state: str) -> bool:
    """Whether an event's name or a state has a word of failure in it.

    >>> has_failed("response.failed"), has_failed("InternalError"), has_failed("stop")
    (True, True, False)
    """
    words = _words(state) if len(state) < _LONGEST_NAME else ()
    return len(words) <= _MOST_STATE_WORDS and not tables.FAILURE_WORDS.isdisjoint(words)


def _names_error(document: Mapping[str, Json]) -> bool:
    """Whether a field or a state of it says that it is about an error, whatever else there is."""
    for name, value in document.items():
        if _is_error_name(name) and _is_meant(value):
            return True
    for name in document.keys() & tables.STATES:
        if isinstance(state := document[name], str) and has_failed(state):
            return True
    return False


@lru_cache(maxsize=1024)
def _is_error_name(name: str) -> bool:
    return len(name) < _LONGEST_NAME and not tables.ERROR_NAMES.isdisjoint(_words(name))


def _codes_error(document: Mapping[str, Json]) -> bool:
    """Whether an event without choices has a flag or a code of failure, or the detail that FastAPI gives alone."""
    if document.keys().isdisjoint(_CODED):
        return False
    if any(document.get(name) is False for name in tables.FLAGS):
        return True
    words = any(isinstance(document.get(name), str) and _is_meant(document[name]) for name in tables.SAYS)
    for name in tables.CODES:
        code = document.get(name)
        if isinstance(code, str) and code.isdecimal():
            code = int(code[:9])
        if isinstance(code, int | float) and not isinstance(code, bool):
            if code >= 400 or (words and code != 0 and not 200 <= code < 300 and name != "status"):
                return True
        elif name == "code" and isinstance(code, str) and words and _is_meant(code):
            return True
    return _is_meant(document.get("detail")) and document.keys().isdisjoint(
        {*tables.STATES, *tables.CODES, *tables.FLAGS}
    )


def _is_meant(value: Json) -> bool:
    """Whether a field of an error says anything: not null, false, 0, "ok", nor an object of nothing else."""
    if isinstance(value, str):
        return value.strip().lower() not in tables.FINE
    if isinstance(value, dict):
        return any(
            each and (not isinstance(each, str) or each.strip().lower() not in tables.FINE) for each in value.values()
        )
    return bool(value)


def one_line(text: str) -> str:
    """A message without line ends and control characters, cut to a readable length."""
    if len(text) <= _MESSAGE_CHARACTERS and text.isprintable() and " " not in text:
        return text  # a model's name, a finish reason: each record has them
    beginning = text[: 100 * _MESSAGE_CHARACTERS]  # an error may be an event of 16 MiB
    return " ".join("".join(c if c.isprintable() else " " for c in beginning).split())[:_MESSAGE_CHARACTERS]


def word_count(text: str) -> int:
    """How many words a text has, without a list of them all: that would take twenty times its memory.

    >>> word_count(" so many  words "), word_count("ab " * 30_000)
    (3, 30000)
    """
    if len(text) <= _PIECE:
        return len(text.split())
    words = 0
    for start in range(0, len(text), _PIECE):
        piece = text[start : start + _PIECE]
        words += len(piece.split())
        # A word that goes on from the piece before was counted there.
        words -= start > 0 and not text[start - 1].isspace() and not piece[0].isspace()
    return words


# -- how an answer ends

Finish = Literal["none", "ends", "goes on", "failed", "unknown"]


@lru_cache(maxsize=1024)
def finish(reason: str) -> Finish:
    """What a finish reason means.

    >>> finish("FinishReason.MAX_TOKENS"), finish("abort"), finish("tool_calls"), finish("zzz")
    ('ends', 'failed', 'goes on', 'unknown')
    """
    word = reason[:_LONGEST_NAME].rpartition(".")[2].strip().lower().removeprefix("finish_reason_")
    if word in tables.NO_REASONS:
        return "none"
    if word in tables.GOES_ON:
        return "goes on"
    if word in tables.FINISHES:
        return "ends"
    return "unknown" if tables.FAILURE_WORDS.isdisjoint(_words(word)) else "failed"


# -- text


@dataclass(slots=True)
class Texts:
    """The text of one delta or message.

    Attributes:
        answer: Its content.
        other: Reasoning, a refusal, tool calls.
        unknown: Fields that hold text and are in no table; their text is in neither.
        reasoning: Characters of `other` that are reasoning.
    """

    answer: str = ""
    other: str = ""
    unknown: tuple[str, ...] = ()
    reasoning: int = 0


def message_texts(message: Json) -> Texts:
    """The text of a delta or message, each text once in however many fields it stands.

    Raises:
        AttributeError, TypeError: If it is no object of a chat completion.
    """
    names = [name for name, value in message.items() if value and name not in _TEXTLESS]
    if not names:
        return Texts()
    if len(names) == 1 and names[0] in TEXTS and isinstance(value := message[names[0]], str):
        kind = TEXTS[names[0]][0]  # nearly every one
        return Texts(value) if kind == "answer" else Texts("", value, (), len(value) if kind == "reasoning" else 0)
    found: dict[str, Text] = {}
    for name, (kind, _) in TEXTS.items():
        value = message.get(name)
        if not value:
            continue
        pieces = list(_pieces(value, kind))
        if name == "content" and not pieces and not isinstance(value, list):
            raise TypeError(value)
        for of in {piece for piece, _ in pieces}:
            found.setdefault("".join(text for piece, text in pieces if piece == of), of)
    calls = message.get("tool_calls") or ([message] if message.get("function_call") else [])
    arguments: list[str] = []
    for call in calls:
        function = call.get("function") or call.get("function_call") or call.get("custom") or {}
        arguments += [text for key in tables.TOOL_TEXTS if isinstance(text := function.get(key), str)]
    strange = [name for name in names if name not in TEXTS and name not in tables.SILENT]
    return Texts(
        "".join(text for text, kind in found.items() if kind == "answer"),
        "".join([*(text for text, kind in found.items() if kind != "answer"), *arguments]),
        tuple(sorted(name for name in strange if any(text.strip() for _, text in _pieces(message[name], "answer")))),
        sum(len(text) for text, kind in found.items() if kind == "reasoning"),
    )


def _pieces(value: Json, kind: Text, depth: int = 0) -> Iterator[tuple[Text, str]]:
    """The texts of a field's value, of the parts in it too, each with its kind."""
    if isinstance(value, str):
        if value:
            yield kind, value
    elif depth == _DEEPEST:
        return
    elif isinstance(value, list):
        for each in value:
            yield from _pieces(each, kind, depth + 1)
    elif isinstance(value, dict):
        if value.get("thought") is True or _REASONING_PART.search(str(value.get("type"))[:_LONGEST_NAME]):
            kind = "reasoning"
        for name, of in tables.PARTS.items():
            if name in value:
                yield from _pieces(value[name], of or kind, depth + 1)


def beside_choices(chunk: Mapping[str, Json]) -> dict[str, Json] | None:
    """An event without choices as one choice; None where it holds no text of an answer."""
    if "type" in chunk:  # another API's events, which repeat themselves: counted, they would count twice
        return None
    for name in tables.BESIDE_CHOICES:
        value = chunk.get(name)
        is_message = isinstance(value, dict) and ("role" in value or not value.keys().isdisjoint(TEXTS))
        if is_message or (isinstance(value, str) and name != "message"):
            ending = {key: chunk[key] for key in tables.FINISH_FIELDS if chunk.get(key)}
            return {"message": value, **ending} if isinstance(value, dict) else {"text": value, **ending}
    candidates = chunk.get("candidates")  # Gemini's
    if isinstance(candidates, list) and candidates and isinstance(candidates[0], dict):
        one = candidates[0]
        ending = {key: one[key] for key in tables.FINISH_FIELDS if one.get(key)}
        return {"message": {"content": one.get("content")}, **ending}
    return None


# -- token counts


@dataclass(slots=True)
class Usage:
    """Token counts of one event; None where it does not say.

    Attributes:
        output: Reasoning included, whether the server includes it or not.
        reasoning: How many of the output's are reasoning.
        is_named: From a field that is called usage, which others do not replace.
        unknown: What no table knows of it, in words.
    """

    output: int | None = None
    input: int | None = None
    cached: int | None = None
    reasoning: int | None = None
    is_named: bool = True
    unknown: str | None = None


def count(value: Json) -> int | None:
    """A number of tokens, also as 20.0 and "20"; None for anything else.

    >>> count(20), count(20.0), count("20"), count(True), count(-1), count(20.5), count(float("inf"))
    (20, 20, 20, None, None, None, None)
    """
    if isinstance(value, str):
        if len(value) > 20 or not re.fullmatch(r"\d+(\.0+)?", value, re.ASCII):
            return None
        value = float(value) if "." in value else int(value)
    return whole(value)


def usage(chunk: Mapping[str, Json]) -> Usage | None:
    """The token counts of an event, from the place that tells most; None where it has none."""
    plain = chunk.get("usage")
    if isinstance(plain, dict):
        output: Json = plain.get("completion_tokens")
        input_: Json = plain.get("prompt_tokens")
        are_counts = len(plain) == 3 and "total_tokens" in plain and type(output) is int and type(input_) is int
        if are_counts and 0 < output <= MOST and 0 <= input_ <= MOST:
            return Usage(output, input_)  # nearly every one, in each event of a stream that counts along
        if (found := _counted("usage", plain)) is not None and found.output:
            return found
    best: Usage | None = None
    for path, fields in _places(chunk):
        found = _counted(path, fields)
        if found is None:
            continue
        if found.output:
            return found
        if best is None or (found.output is not None and best.output is None):
            best = found
    return best


def _places(chunk: Mapping[str, Json]) -> Iterator[tuple[str, Mapping[str, Json]]]:
    """All objects of an event that may hold counts, by their path: the known ones first, then the outer ones."""
    found: list[tuple[str, Mapping[str, Json]]] = [("", chunk)]
    for path, fields in found:
        if len(found) > _MOST_PLACES or path.count(".") >= _DEEPEST:
            break
        for name, value in fields.items():
            below = value[:_DEEPEST] if isinstance(value, list) else (value,)
            if len(name) < _LONGEST_NAME and name != "logprobs" and not name.endswith("_details"):
                found += [(f"{path}.{name}" if path else name, one) for one in below if isinstance(one, dict)]
    order = list(tables.USAGE_PLACES)
    return iter(sorted(found, key=lambda one: order.index(one[0]) if one[0] in tables.USAGE_PLACES else len(order)))


def _counted(path: str, fields: Mapping[str, Json]) -> Usage | None:
    last = path.rpartition(".")[2]
    is_usage = not {"usage", "token", "tokens"}.isdisjoint(_words(last))
    named: dict[str, int] = {}
    for name, value in fields.items():
        if len(name) >= _LONGEST_NAME:
            continue
        if isinstance(value, dict):
            if name.endswith(("details", "Details")):
                for inner, n in value.items():
                    role = _role(inner, True) if len(inner) < _LONGEST_NAME else None
                    if role in ("reasoning", "cached"):
                        _note(named, role, count(n))
        else:
            _note(named, _role(name, is_usage), count(value))
    output, input_, total = named.get("output"), named.get("input"), named.get("total")
    reasoning, cached = named.get("reasoning"), named.get("cached")
    if "evaluated" in named:
        input_ = named["evaluated"] + (cached or 0)
    if output is None and input_ is None:
        if last != "usage" or not fields or total is not None:
            return None
        return Usage(unknown=f"usage of {', '.join(sorted(map(str, fields))[:3])}")
    if output is None and total is not None and total > (input_ or 0):
        output = total - (input_ or 0)
    elif output is not None and reasoning:
        # xAI's and Gemini's output leaves the reasoning out; where it is more than all of the output it does so too.
        left_out = total is not None and total == (input_ or 0) + output + reasoning
        if left_out or reasoning > output:
            output += reasoning
    if input_ is None and total is not None and output is not None and total >= output:
        input_ = total - output
    unknown = None if path in tables.USAGE_PLACES else f"usage in {path}"
    return Usage(output, input_, cached, reasoning, is_named=is_usage, unknown=unknown)


def _note(named: dict[str, int], role: str | None, n: int | None) -> None:
    if role is not None and n is not None and not named.get(role):
        named[role] = n


@lru_cache(maxsize=1024)
def _role(name: str, is_usage: bool) -> str | None:
    """Which count a name means: output, input, reasoning, cached, total. Within a usage, names need not say tokens."""
    if name in tables.COUNTS:
        return tables.COUNTS[name]
    words = frozenset(_words(name))
    if not is_usage and words.isdisjoint({"token", "tokens"}):
        return None
    if words & tables.COUNT_WORDS["cached"]:
        return "cached" if words - tables.COUNT_WORDS["cached"] <= _CACHE_FILLERS else None
    for role, of in tables.COUNT_WORDS.items():
        if words & of and words - of <= tables.COUNT_FILLERS:
            return role
    return "total" if "total" in words and words <= tables.COUNT_FILLERS else None


@lru_cache(maxsize=1024)
def _words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORD.findall(name))
