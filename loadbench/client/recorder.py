"""The sink of one chat completion: marks, gaps, counts and text, written down as bytes arrive."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import orjson

from loadbench.client.dialect import body_said, count, nothing_said, one_line, other_text, parts_text, said, status_kind
from loadbench.result import ErrorKind, Result
from loadbench.sse import MAX_EVENT_BYTES, Decoder, Event, EventTooLarge
from loadbench.target import Secrets
from loadbench.target.failure import retry_after_s
from loadbench.transport import ExchangeError, Headers

if TYPE_CHECKING:
    from loadbench.client import Ask

NO_SECRETS = Secrets()
MAX_ERROR_BYTES = 64 * 1024  # of a body that is no event stream
MAX_STREAM_BYTES = 512 * 1024 * 1024  # of an event stream: about two million tokens


class Recorder:
    """The sink of one chat completion: marks, gaps, counts and text, written down as bytes arrive.

    Times are ns on the transport's clock; the ones of the request's life are None until they happen.
    """

    __slots__ = (
        "_arrival_body",
        "_arrivals",
        "_bodies",
        "_decoder",
        "_head",
        "_is_stream",
        "_merged",
        "_raw",
        "_stream_bytes",
        "_tail",
        "_usage_alone",
        "answer",
        "cached_tokens",
        "choices",
        "connect_ns",
        "done",
        "error",
        "error_message",
        "finish_reason",
        "first_event_ns",
        "first_events",
        "first_token_ns",
        "first_tokens",
        "headers_ns",
        "input_tokens",
        "last_token_ns",
        "merged_arrivals",
        "other_text",
        "output_tokens",
        "retry_after_s",
        "sent_ns",
        "served_as",
        "status",
        "text_events",
    )

    def __init__(self) -> None:
        self.connect_ns: int | None = None
        self.sent_ns: int | None = None
        self.headers_ns: int | None = None
        self.first_event_ns: int | None = None
        self.first_token_ns: int | None = None
        self.last_token_ns: int | None = None
        self.status: int | None = None
        self.retry_after_s: float | None = None
        self.served_as: str | None = None  # the model, as the response names it
        self.error: ErrorKind | None = None
        self.error_message: str | None = None
        self.text_events = 0
        self.first_events = 0
        self.first_tokens: int | None = None
        self.merged_arrivals = 0
        self.input_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.output_tokens: int | None = None
        self.finish_reason: str | None = None
        self.done = False  # [DONE] came
        self.answer: list[str] = []
        self.other_text: list[str] = []  # reasoning, tool calls, further choices
        self.choices = 0
        self._decoder = Decoder()
        self._arrivals: list[int] = []
        self._stream_bytes = 0
        self._bodies = 0  # pieces of the body so far: HTTP chunks, or reads where the body is not chunked
        self._arrival_body = 0  # the first one of the present arrival
        self._merged = False  # the present arrival has text from a second one
        self._usage_alone = 0  # usage events without choices
        self._is_stream = True
        self._raw = bytearray()
        self._head: bytes | None = None  # the last event up to its text, where the text was all that was new in it
        self._tail = b""

    # -- the sink, called by the transport

    def connected(self, duration_ns: int) -> None:
        self.connect_ns = (self.connect_ns or 0) + duration_ns

    def sent(self, at_ns: int) -> None:
        self.sent_ns = at_ns

    def headers(self, at_ns: int, status: int, headers: Headers) -> None:
        self.headers_ns, self.status = at_ns, status
        if status == 429:
            told = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
            self.retry_after_s = retry_after_s(told)
        kind = next((value for name, value in headers if name.lower() == b"content-type"), b"").lower()
        self._is_stream = status == 200 and not kind.startswith(b"application/json")

    def body(self, data: bytes, at_ns: int) -> None:
        if not self._is_stream:
            self._raw += data[: MAX_ERROR_BYTES - len(self._raw)] if self.status != 200 else data
            if len(self._raw) > MAX_EVENT_BYTES:
                raise ExchangeError("protocol", "an answer without a stream, of more than 16 MiB")
            return
        self._bodies += 1
        self._stream_bytes += len(data)
        if self._stream_bytes > MAX_STREAM_BYTES:
            raise ExchangeError("protocol", f"a stream of more than {MAX_STREAM_BYTES >> 20} MiB")
        head = self._head
        if head is not None and data.startswith(head) and data.endswith(self._tail):
            # The same event as before but for a plain text: the same JSON, a third of the time.
            raw = data[len(head) : -len(self._tail)]
            if raw and b'"' not in raw and b"\\" not in raw:
                try:
                    text = raw.decode()
                except UnicodeDecodeError:
                    text = ""
                if text.isprintable() and text:
                    self.answer.append(text)
                    self._text(at_ns)
                    return
        self._read(data, at_ns)

    def _read(self, data: bytes, at_ns: int) -> None:
        try:
            events = self._decoder.feed(data)
        except EventTooLarge as error:
            raise ExchangeError("protocol", str(error)) from None
        texts, others, counted = len(self.answer), len(self.other_text), self.text_events
        for event in events:
            self._event(event, at_ns)
        self._head = None
        grew = len(self.answer) - texts, len(self.other_text) - others, self.text_events - counted
        if len(events) == 1 and grew == (1, 0, 1) and not self._decoder.open:
            literal = b'"' + self.answer[-1].encode() + b'"'
            if data.count(literal) == 1 and b"\\" not in literal and self.answer[-1].isprintable():
                at = data.index(literal)
                self._head, self._tail = data[: at + 1], data[at + len(literal) - 1 :]

    def _event(self, event: Event, at_ns: int) -> None:
        name, payload = event
        if self.first_event_ns is None:
            self.first_event_ns = at_ns
        try:
            chunk = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            if payload.strip() == b"[DONE]":
                self.done = True
            elif payload and self.error is None:
                self.error, self.error_message = "protocol", f"an event that is not UTF-8 JSON: {error}"
            return
        if name == b"error" or not isinstance(chunk, dict) or chunk.get("error") or chunk.get("object") == "error":
            if self.error is None:
                self.error, self.error_message = "stream_error", said(chunk)
            return
        if self.served_as is None and isinstance(served_as := chunk.get("model"), str) and served_as:
            self.served_as = served_as
        usage = chunk.get("usage")
        choices = chunk.get("choices")
        if choices:
            try:
                for choice in choices:
                    self._choice(choice, at_ns)
            except (AttributeError, TypeError):
                if self.error is None:
                    self.error, self.error_message = "protocol", "choices that are no objects of a chat completion"
        elif usage:
            self._usage_alone += 1
        if usage:
            self._usage(usage, at_ns)

    def _choice(self, choice: Any, at_ns: int) -> None:
        index = choice.get("index", 0)
        delta = choice.get("delta")
        if delta is None:
            delta = choice.get("message") or {"content": choice.get("text")}
        reason = choice.get("finish_reason")
        text = delta.get("content")
        other = None
        if len(delta) > 1 or not text or not isinstance(text, str):  # nearly every delta is a text alone
            other = other_text(delta)
            if text and not isinstance(text, str):
                text = parts_text(text)
        if reason and self.finish_reason is None:
            self.finish_reason = str(reason)
        if index and isinstance(index, int) and index >= self.choices:
            self.choices = index + 1
        if not text and not other:
            return
        if text:
            (self.other_text if index else self.answer).append(text)
        if other:
            self.other_text.append(other)
        self._text(at_ns)

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

    def _usage(self, usage: Any, at_ns: int) -> None:
        if not isinstance(usage, dict):
            return
        output, input_ = count(usage.get("completion_tokens")), count(usage.get("prompt_tokens"))
        if output is not None:
            # llama.cpp ends each of several choices with its own usage event; all others count them together.
            several = self._usage_alone > 1 and self.choices > 1
            self.output_tokens = (self.output_tokens or 0) + output if several else output
            if at_ns == self.first_token_ns and not self._usage_alone and self.finish_reason is None and output:
                self.first_tokens = output  # usage that counts along: these are the first arrival's tokens
        if input_ is not None:
            self.input_tokens = input_
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict) and (cached := count(details.get("cached_tokens"))) is not None:
            self.cached_tokens = cached

    # -- the end

    def close(self, error: ExchangeError | None, end_ns: int) -> None:
        """Judge the response: what failed, if anything. Called once, when the exchange is over."""
        if self.status is not None and self.status != 200:
            self.error, self.error_message = status_kind(self.status), body_said(self.status, bytes(self._raw))
        elif error is None and self._is_stream:
            sound = self.error is None
            for event in self._decoder.finish():
                self._event(event, self.last_token_ns or end_ns)
            if sound and self.error == "protocol":
                self.error, self.error_message = "truncated", "the stream ended within an event"
        elif error is None:
            self._event((b"", bytes(self._raw)), end_ns)  # the server did not stream: all text at once
            self.done = True
        if error is not None and (self.error is None or error.kind == "cancelled"):
            self.error, self.error_message = error.kind, str(error)
        if self.error is not None:
            return
        if self.first_event_ns is not None and not self.done and self.finish_reason is None:
            self.error, self.error_message = "truncated", "the stream ended without a finish event or [DONE]"
        elif self.first_token_ns is None:
            self.error, self.error_message = "empty", nothing_said(self.finish_reason, self.output_tokens)

    def gaps_us(self) -> list[int]:
        """Gaps between arrivals in us, rounded so that any stretch of them sums to within 1 us of the truth."""
        if not self._arrivals:
            return []
        first = self._arrivals[0]
        offsets = [(at - first + 500) // 1000 for at in self._arrivals]
        return [b - a for a, b in pairwise(offsets)]

    def result(
        self,
        ask: Ask,
        origin_ns: int,
        end_ns: int,
        *,
        retried: bool,
        endpoint: int = 0,
        secrets: Secrets = NO_SECRETS,
    ) -> Result:
        """The record of it all, its marks counted from `origin_ns`.

        Args:
            secrets: Starred out of what the server said, of the answer too: its length stays that of what came.
        """
        answer = "".join(self.answer)
        text = answer + "".join(self.other_text)

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
            characters=len(text),
            words=len(text.split()),
            finish_reason=self.finish_reason and one_line(secrets.hidden(self.finish_reason)),
            status=self.status,
            retries=int(retried),
            retry_of=ask.retry_of,
            endpoint=endpoint,
            retry_after_s=self.retry_after_s,
            error=self.error,
            error_message=self.error_message and one_line(secrets.hidden(self.error_message)),
            text=secrets.hidden(answer),
        )
