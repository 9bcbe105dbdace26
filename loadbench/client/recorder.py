"""The sink of one chat completion: marks, gaps, counts and text, written down as bytes arrive."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import orjson

from loadbench.client import dialect, tables
from loadbench.client.dialect import Json, no_text_message, one_line, read_json, status_kind, status_message, word_count
from loadbench.client.sse import MAX_EVENT_BYTES, Decoder, Event, EventTooLarge
from loadbench.server import Secrets
from loadbench.server.calls import retry_after_s
from loadbench.store.record import ErrorKind, Result
from loadbench.transport import Ending, ExchangeError, Headers

if TYPE_CHECKING:
    from loadbench.client import Ask

NO_SECRETS = Secrets()
MAX_ERROR_BYTES = 64 * 1024  # of a body that is no event stream
MAX_STREAM_BYTES = 512 * 1024 * 1024  # of an event stream: about two million tokens
MAX_TEXT = 8 * 1024 * 1024  # characters of one answer, all its text together: those tokens too
MOST_UNKNOWN = 4  # things of a response that no table knows, named in its record
_BLANK = b" \t\r\n\xef\xbb\xbf"  # before a body, a byte-order mark among it
_LONGEST_UNKNOWN = 60
_PLAIN_DELTA = {"role", "content"}  # nearly every one
_TIMEOUTS = ("timeout_idle", "timeout_total")


@dataclass(slots=True, eq=False)
class Recorder:
    """The sink of one chat completion: marks, gaps, counts and text, written down as bytes arrive.

    Times are ns on the transport's clock; the ones of the request's life are None until they happen.
    """

    several: bool = False  # whether the request is for more than one choice
    retries: int = 0
    connect_ns: int | None = None
    sent_ns: int | None = None
    headers_ns: int | None = None
    first_event_ns: int | None = None
    first_token_ns: int | None = None
    first_answer_ns: int | None = None  # of text that is not reasoning
    last_token_ns: int | None = None
    status: int | None = None
    retry_after_s: float | None = None
    served_as: str | None = None  # the model, as the response names it
    error: ErrorKind | None = None
    error_message: str | None = None
    text_events: int = 0
    first_events: int = 0
    first_tokens: int | None = None
    merged_arrivals: int = 0
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    reasoning_characters: int = 0
    finish_reason: str | None = None
    done: bool = False  # [DONE] came
    ending: Ending | None = None
    answer: list[str] = field(default_factory=list)  # of the first choice
    choices: int = 0
    # Of choices with another index: parts of the answer, unless they are several.
    _further: list[str] = field(default_factory=list)
    _other_text: list[str] = field(default_factory=list)  # reasoning, tool calls
    _index: int = 0  # of the last choice that had text
    _decoder: Decoder = field(default_factory=Decoder)
    _arrivals: list[int] = field(default_factory=list)
    _stream_bytes: int = 0
    # Bytes of the stream from which on its text may be too long.
    _look_bytes: int = field(default_factory=lambda: min(MAX_TEXT, MAX_STREAM_BYTES))
    _bodies: int = 0  # pieces of the body so far: HTTP chunks, or reads where the body is not chunked
    _arrival_body: int = 0  # the first one of the present arrival
    _merged: bool = False  # the present arrival has text from a second one
    _usage_alone: int = 0  # usage events without choices
    _usage_named: bool = False  # the counts are from a field that is called usage
    _has_final_usage: bool = False  # usage came with or after the last finish reason
    _finish: dialect.Finish = "none"
    _finishes: int = 0  # finish reasons so far
    _finish_events: int = 0  # text events when the last one came
    _over_ns: int | None = None
    _is_stream: bool = False  # known once the body began
    _declared: bytes | None = b""  # the content type; None once the body began
    _raw: bytearray = field(default_factory=bytearray)  # of a body that is no event stream
    _raw_ns: int = 0  # when the last of it came
    _is_line: bool = True  # it may still be one JSON document a line
    _documents: int = 0  # read of it
    _has_halves: bool = False  # there may be halves of UTF-16 pairs in the text
    _unknown: dict[str, None] = field(default_factory=dict)
    _head: bytes | None = None  # the last event up to its text, where the text was all that was new in it
    _tail: bytes = b""

    # -- the sink, called by the transport

    def connected(self, duration_ns: int) -> None:
        self.connect_ns = (self.connect_ns or 0) + duration_ns

    def sent(self, at_ns: int) -> None:
        self.sent_ns = at_ns

    def headers(self, at_ns: int, status: int, headers: Headers) -> None:
        self.headers_ns, self.status = at_ns, status
        self._declared = next((value for name, value in headers if name.lower() == b"content-type"), b"").lower()
        if status == 429:
            self.retry_after_s = retry_after_s(
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers
            )

    def body(self, data: bytes, at_ns: int) -> None:
        if not self._is_stream:
            start = data.lstrip(_BLANK)
            if self.status == 200 and self._declared is not None and start:
                # What it begins with decides whether it is an event stream, not what it is called.
                self._is_stream, self._declared = dialect.looks_streamed(start[0], self._declared), None
            if not self._is_stream:
                self._read_raw(data, at_ns)
                return
        self._bodies += 1
        self._stream_bytes += len(data)
        if self._stream_bytes > self._look_bytes:
            self._bound()
        head = self._head
        if head is not None and data.startswith(head) and data.endswith(self._tail):
            # The same event as before but for its text: the same JSON, a third of the time.
            texts = _strings([data[len(head) : -len(self._tail)]])
            if texts is not None and texts[0]:
                self.answer += texts
                self._text(at_ns)
                return
        self._read(data, at_ns)

    def bodies(self, pieces: list[bytes], times_ns: list[int]) -> None:
        """As `body` for each of these, which came to be read together."""
        done = 0
        while done < len(pieces):
            # Nearly all events of an answer are the one before but for its text: together they cost a fifth.
            raws: list[bytes] = []
            if self._head is not None:
                head, tail, before, behind = self._head, self._tail, len(self._head), -len(self._tail)
                for data in pieces[done:]:
                    if not data.startswith(head) or not data.endswith(tail):
                        break
                    raws.append(data[before:behind])
            until = done + max(len(raws), 1)
            if len(raws) < 2 or not self._texts(raws, pieces[done:until], times_ns[done:until]):
                for data, at_ns in zip(pieces[done:until], times_ns[done:until], strict=True):
                    self.body(data, at_ns)
            done = until

    def _texts(self, raws: list[bytes], pieces: list[bytes], times_ns: list[int]) -> bool:
        """Take in these texts, as they are written in JSON; False, and nothing done, if they are none."""
        texts = _strings(raws)
        if texts is None or "" in texts:
            return False
        self._stream_bytes += sum(map(len, pieces))
        if self._stream_bytes > self._look_bytes:
            self._bound()
        self.answer += texts
        if times_ns[0] == self.last_token_ns or len(set(times_ns)) < len(times_ns):  # merged arrivals
            for at_ns in times_ns:
                self._bodies += 1
                self._text(at_ns)
            return True
        self._bodies += len(pieces)
        self.text_events += len(texts)
        self._arrivals += times_ns
        self.last_token_ns = times_ns[-1]
        self._merged = False
        self._arrival_body = self._bodies
        return True

    def _bound(self) -> None:
        """Refuse a stream or a text without end; the next look is when the text may have grown over its bound."""
        if self._stream_bytes > MAX_STREAM_BYTES:
            raise ExchangeError("protocol", f"a stream of more than {MAX_STREAM_BYTES >> 20} MiB")
        left = MAX_TEXT - sum(map(len, self.answer)) - sum(map(len, self._other_text)) - sum(map(len, self._further))
        if left < 0:
            raise ExchangeError("protocol", f"an answer of more than {MAX_TEXT >> 20} million characters")
        self._look_bytes = min(self._stream_bytes + left, MAX_STREAM_BYTES)

    def _read_raw(self, data: bytes, at_ns: int) -> None:
        """More of a body that is no event stream: an error's, one JSON document, or one a line."""
        if self.status != 200:
            self._raw += data[: MAX_ERROR_BYTES - len(self._raw)]
            return
        self._raw += data
        self._raw_ns = at_ns
        self._stream_bytes += len(data)
        if self._stream_bytes > self._look_bytes:
            self._bound()
        if len(self._raw) > MAX_EVENT_BYTES:
            raise ExchangeError("protocol", "an answer without a stream, of more than 16 MiB")
        if not self._is_line or b"\n" not in data:
            return
        *lines, rest = bytes(self._raw).split(b"\n")
        for line in filter(None, map(bytes.strip, lines)):
            if not self._documents:
                try:
                    read_json(line)
                except ValueError:  # one document on several lines
                    self._is_line = False
                    return
            self._documents += 1
            self._event((b"", line), at_ns)
        self._raw = bytearray(rest)
        self._look_for_end(at_ns)

    def _read(self, data: bytes, at_ns: int) -> None:
        try:
            events = self._decoder.feed(data)
        except EventTooLarge as error:
            raise ExchangeError("protocol", str(error)) from None
        texts, others, counted = len(self.answer), len(self._other_text) + len(self._further), self.text_events
        for event in events:
            self._event(event, at_ns)
        self._head = None
        if self.finish_reason is not None or self.done:
            self._look_for_end(at_ns)
            return
        others = len(self._other_text) + len(self._further) - others
        grew = len(self.answer) - texts, others, self.text_events - counted
        if len(events) == 1 and grew == (1, 0, 1) and not self._decoder.open:
            text = self.answer[-1]
            if text.isprintable():
                literal = b'"' + text.encode() + b'"'
                if data.count(literal) == 1 and b"\\" not in literal:
                    at = data.index(literal)
                    self._head, self._tail = data[: at + 1], data[at + len(literal) - 1 :]

    def _event(self, event: Event, at_ns: int) -> None:
        name, payload = event
        if self.first_event_ns is None:
            self.first_event_ns = at_ns
        if payload.strip() == b"[DONE]":
            self.done = True
            return
        try:
            chunk = orjson.loads(payload)
        except orjson.JSONDecodeError:
            try:
                chunk = read_json(payload)
                self._has_halves = True
            except ValueError as error:
                if payload and dialect.has_failed(name.decode("utf-8", "replace")):
                    self._fail("stream_error", payload.decode("utf-8", "replace"))
                elif payload:
                    self._fail("protocol", f"an event that is not UTF-8 JSON: {error}")
                return
        if not isinstance(chunk, list) or not chunk:
            self._chunk(name, chunk, at_ns)
        else:
            for each in chunk:
                self._chunk(name, each, at_ns)

    def _chunk(self, name: bytes, chunk: Json, at_ns: int) -> None:
        """One event's document, in which everything but the text may be missing."""
        is_plain = isinstance(chunk, dict) and chunk.keys() <= tables.CHUNK_FIELDS
        choices = chunk.get("choices") if is_plain and not name else None
        if not choices or chunk.get("object") == "error":
            words = dialect.failure(name, chunk)
            if words is not None:
                self._fail("stream_error", words)
                return
            choices = chunk.get("choices")
        if self.served_as is None and isinstance(served_as := chunk.get("model"), str) and served_as:
            self.served_as = served_as
        if not choices and "choices" not in chunk and (one := dialect.beside_choices(chunk)) is not None:
            choices = [one]
        usage = chunk.get("usage")
        if choices:
            try:
                for choice in choices:
                    is_plain = self._choice(choice, at_ns, len(choices)) and is_plain
            except (AttributeError, TypeError):
                self._fail("protocol", "choices that are no objects of a chat completion")
        elif usage:
            self._usage_alone += 1
        counted = self._usage(chunk, at_ns) if usage or not is_plain else False
        if not choices and not counted and "choices" not in chunk and chunk:
            kind = name.decode("utf-8", "replace") or chunk.get("type") or chunk.get("event") or chunk.get("object")
            if str(kind).lower() not in tables.KEEP_ALIVE:
                self._tell(f"event {kind}" if kind else f"event of {', '.join(sorted(map(str, chunk))[:3])}")

    def _choice(self, choice: Json, at_ns: int, siblings: int) -> bool:
        """One choice of an event; whether there is nothing unusual in it."""
        index = choice.get("index", 0)
        delta = choice.get("delta")
        reason = choice.get("finish_reason")
        is_plain: bool = choice.keys() <= tables.CHOICE_FIELDS
        if not is_plain:
            words = dialect.failure(b"", {"error": choice.get("error")})
            if words is not None:
                self._fail("stream_error", words)
            reason = reason or next((choice[name] for name in tables.FINISH_FIELDS if choice.get(name)), None)
        means = dialect.finish(str(reason)) if reason else "none"
        if index and isinstance(index, int) and index >= self.choices:
            self.choices = index + 1
        other, reasoning = "", 0
        text = delta.get("content") if delta else None
        if not delta and choice.keys().isdisjoint(("message", "text")):
            text = ""
        elif not isinstance(text, str) or (len(delta) > 1 and not delta.keys() <= _PLAIN_DELTA):
            ended = means != "none" or self.finish_reason is not None
            text, other, reasoning = self._message_texts(choice, delta, ended=ended)
        elif means != "none" and self.text_events > 1:
            text = _new(text, self.answer, whole=True)
        if (text or other) and not self.done:  # what follows [DONE] is no text of the answer
            if index != self._index or siblings > 1:
                # Text of another choice. An index that counts up, in an event each, is still one answer's.
                number = index if isinstance(index, int) else 0
                if number < self._index or siblings > 1 or self._finishes:
                    self.several = True
                self._index = number
            if text:
                (self._further if index else self.answer).append(text)
            if other:
                self._other_text.append(other)
                self.reasoning_characters += reasoning
            if self.first_answer_ns is None and (text or len(other) > reasoning):
                self.first_answer_ns = at_ns
            self._text(at_ns)
        if means != "none":
            self._finished(means, str(reason))
        return is_plain

    def _message_texts(self, choice: Json, delta: Json, *, ended: bool) -> tuple[str, str, int]:
        """The answer's text, the other text and how much of that is reasoning: of a choice's delta, else what is new in
        its message or text.
        """
        found = dialect.message_texts({} if delta is None else delta)
        for name in found.unknown:
            self._tell(f"text in delta.{name}")
        if found.answer or found.other:
            return found.answer, found.other, found.reasoning
        message = choice.get("message")
        if message is None:
            message = {"text": choice.get("text")}
        found = dialect.message_texts(message)
        for name in found.unknown:
            self._tell(f"text in message.{name}")
        if not self.text_events:
            return found.answer, found.other, found.reasoning
        # A last message may repeat the whole answer; before it has ended, only the very same text is no news.
        if not ended and self.text_events == 1:
            return found.answer, found.other, found.reasoning
        answer = _new(found.answer, [*self.answer, *self._further], whole=not ended)
        other = _new(found.other, self._other_text, whole=not ended)
        return answer, other, min(found.reasoning, len(other))

    def _finished(self, means: dialect.Finish, reason: str) -> None:
        if self.finish_reason is None:
            self.finish_reason = reason
        if means == "failed":
            self._fail("stream_error", f"the answer ended with finish_reason {reason}")
        elif means == "unknown":
            self._tell(f"finish_reason {reason}")
        self._finish, self._finish_events = means, self.text_events
        self._finishes += 1
        self._has_final_usage = False

    def _fail(self, kind: ErrorKind, message: str) -> None:
        if self.error is None:
            self.error, self.error_message = kind, message

    def _tell(self, what: str) -> None:
        if len(self._unknown) < MOST_UNKNOWN:
            self._unknown[one_line(what.replace(";", ","))[:_LONGEST_UNKNOWN]] = None

    def _text(self, at_ns: int) -> None:
        """Text came: an arrival of its own, or one more event of the present arrival."""
        self.text_events += 1
        if at_ns != self.last_token_ns:
            self._arrivals.append(at_ns)
            self.last_token_ns = at_ns
            self._merged = False
            self._arrival_body = self._bodies
            if self.first_token_ns is None:
                self.first_token_ns = at_ns
                self.first_events = 1
        else:
            # Several events in one piece of the body are the server's own write; from two pieces, the kernel's merger.
            if self._bodies != self._arrival_body and not self._merged:
                self._merged = True
                self.merged_arrivals += 1
            if len(self._arrivals) == 1:
                self.first_events += 1

    def _usage(self, chunk: Json, at_ns: int) -> bool:
        found = dialect.usage(chunk)
        if found is None:
            return False
        if found.unknown is not None:
            self._tell(found.unknown)
        if self._usage_named and not found.is_named:
            return True
        self._usage_named = found.is_named
        output = found.output
        if output is not None and (output or not self.output_tokens):
            # llama.cpp ends each of several choices with its own usage event; all others count them together.
            several = self._usage_alone > 1 and self.choices > 1 and self.several
            self.output_tokens = (self.output_tokens or 0) + output if several else output
            self._has_final_usage = self.finish_reason is not None or self.done
            if at_ns == self.first_token_ns and not self._usage_alone and self.finish_reason is None and output:
                self.first_tokens = output  # usage that counts along: these are the first arrival's tokens
        if found.input is not None:
            self.input_tokens = found.input
        if found.cached is not None:
            self.cached_tokens = found.cached
        if found.reasoning is not None:
            self.reasoning_tokens = found.reasoning
        return True

    # -- the end

    def _look_for_end(self, at_ns: int) -> None:
        """Whether the answer is over though the body may not be: at [DONE], or at its finish reason and usage."""
        ending: Ending | None = None
        finished = self._finishes >= (self.choices if self.several else 1)
        if self.done:
            ending = "end" if self.finish_reason is not None and self._has_final_usage else "usage"
        elif finished and self._finish_events == self.text_events:
            if self._has_final_usage:
                ending = "end"
            elif self._finish != "goes on":
                ending = "usage"
        if ending != self.ending:
            self.ending, self._over_ns = ending, None if ending is None else at_ns

    def close(self, error: ExchangeError | None, now_ns: int) -> int:
        """Judge the response: what failed, if anything. Called once, when the exchange is over.

        Returns:
            When the request ended: at the end of the answer, where that is known, else now.
        """
        if error is not None and error.kind in _TIMEOUTS and self.ending is not None:
            error = None  # all that is missing is the end of the connection
        if self.status is not None and self.status != 200:
            self.error, self.error_message = status_kind(self.status), status_message(self.status, bytes(self._raw))
        elif error is None and self._is_stream:
            sound = self.error is None
            for event in self._decoder.finish():
                self._event(event, self.last_token_ns or now_ns)
            if sound and self.error == "protocol":
                self.error, self.error_message = "truncated", "the stream ended within an event"
        elif error is None and (self._raw.strip(_BLANK) or not self._documents):
            # The server did not stream: all text at once, unless lines of JSON came before.
            raw, self._raw = bytes(self._raw), bytearray()
            self._event((b"", raw), self._raw_ns or now_ns)
            if self._documents and self.error == "protocol":
                self.error, self.error_message = "truncated", "the answer ended within a line of JSON"
            self._documents += 1
        self.done = self.done or self._documents == 1
        if error is None and self._stream_bytes > MAX_TEXT:  # no character took less than a byte
            try:
                self._bound()
            except ExchangeError as too_long:
                error = too_long
        if error is not None and (self.error is None or error.kind == "cancelled"):
            self.error, self.error_message = error.kind, str(error)
        if self.error is None and self.first_event_ns is not None and not self.done and self.finish_reason is None:
            self._fail("truncated", f"the stream ended without a finish event or [DONE]{self._hint()}")
        elif self.error is None and self.first_token_ns is None:
            if self.finish_reason in ("length", "max_tokens") and not self._unknown:
                self._fail("empty", no_text_message(self.finish_reason, self.output_tokens))
            else:
                self._fail("empty", f"a response without any text{self._hint()}")
        if self.error is not None:
            return now_ns
        if self._over_ns is not None:
            return self._over_ns
        # An answer that was not streamed ended as its last byte arrived, not when this process came to read it.
        return now_ns if self._is_stream else self._raw_ns or now_ns

    def _hint(self) -> str:
        if self.reasoning_tokens and self.first_token_ns is None:
            return f": {self.reasoning_tokens} tokens went into hidden reasoning; allow more with --max-tokens"
        return f"; it has {', '.join(self._unknown)}, which loadbench does not know" if self._unknown else ""

    def texts(self, *, final: bool) -> tuple[str, str]:
        """The text beside the answer, and the answer.

        Args:
            final: Nothing more comes.
        """
        answer, other = "".join(self.answer), "".join(self._other_text)
        if self.several:
            other = "".join(self._further) + other
        else:
            answer += "".join(self._further)
        if self._has_halves:
            return dialect.paired(other, final=final), dialect.paired(answer, final=final)
        return other, answer

    def gaps_us(self) -> list[int]:
        """Gaps between arrivals in us, rounded so that any stretch of them sums to within 1 us of the truth."""
        if len(self._arrivals) < 2:
            return []
        first = self._arrivals[0]
        offsets = [(at - first + 500) // 1000 for at in self._arrivals]
        return [b - a for a, b in pairwise(offsets)]

    def result(
        self, ask: Ask, origin_ns: int, end_ns: int, *, endpoint: int = 0, secrets: Secrets = NO_SECRETS
    ) -> Result:
        """The record of it all, its marks counted from `origin_ns`.

        Args:
            secrets: Starred out of what the server said, of the answer too: its length stays that of what came.
        """
        other, answer = self.texts(final=True)
        text = answer + other

        def since(at_ns: int | None) -> int | None:
            return None if at_ns is None else at_ns - origin_ns

        return Result(
            level=ask.level,
            attempt=ask.attempt,
            request=ask.request,
            prompt=ask.prompt.id,
            warmup=ask.warmup,
            due_ns=ask.due_ns - origin_ns,
            sent_ns=since(self.sent_ns),
            connect_ns=self.connect_ns or 0,
            headers_ns=since(self.headers_ns),
            first_event_ns=since(self.first_event_ns),
            first_token_ns=since(self.first_token_ns),
            first_answer_ns=since(self.first_answer_ns),
            last_token_ns=since(self.last_token_ns),
            end_ns=end_ns - origin_ns,
            gaps_us=self.gaps_us(),
            first_events=self.first_events,
            text_events=self.text_events,
            merged_arrivals=self.merged_arrivals,
            first_tokens=self.first_tokens,
            input_tokens=self.input_tokens,
            cached_tokens=self.cached_tokens,
            # Some servers send a usage of zeros: that is no count.
            output_tokens=None if self.output_tokens == 0 and self.text_events else self.output_tokens,
            reasoning_tokens=self.reasoning_tokens,
            reasoning_characters=self.reasoning_characters,
            characters=len(text),
            words=word_count(text),
            finish_reason=self.finish_reason and one_line(secrets.hidden(self.finish_reason)),
            status=self.status,
            retries=self.retries,
            retry_of=ask.retry_of,
            endpoint=endpoint,
            unknown=secrets.hidden("; ".join(self._unknown)) or None,
            retry_after_s=self.retry_after_s,
            error=self.error,
            error_message=self.error_message and one_line(secrets.hidden(self.error_message)),
            text=secrets.hidden(answer),
        )


def _strings(raws: list[bytes]) -> list[str] | None:
    """What stands between the quotes of JSON strings, read; None if any of these is not the inside of one string."""
    whole = b'["' + b'","'.join(raws) + b'"]'
    if b'\\","' in whole or raws[-1].endswith(b"\\"):  # a backslash at an end could make one string of two
        return None
    try:
        texts: list[str] = orjson.loads(whole)
    except orjson.JSONDecodeError:
        return None
    return texts if len(texts) == len(raws) else None  # a quote in one makes more of it


def _new(text: str, before: list[str], *, whole: bool) -> str:
    """What of a text did not come before; where it is `whole`, all of it, unless it repeats what came."""
    if not text:
        return ""
    if len(text) < len(before):  # no piece is empty: a look at all of them at each event would cost their square
        return text
    came = "".join(before)
    if came and text.strip() == came.strip():
        return ""
    return text if whole or not came or not text.startswith(came) else text[len(came) :]
