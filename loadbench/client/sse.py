"""Server-sent events: bytes in, events out; no I/O.

Source: the event-stream grammar of the WHATWG HTML standard, §9.2.6; read liberally, as a last event counts
without its blank line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_EVENT_BYTES = 16 * 1024 * 1024

Event = tuple[bytes, bytes]
"""Name (b"" where it has none) and data of an event, lines joined by LF; undecoded, so that U+2028 cuts nothing."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """An event passed MAX_EVENT_BYTES; the stream cannot be read on."""


@dataclass(slots=True, eq=False)
class Decoder:
    """One stream's decoder: feed it bytes as they arrive, cut anywhere.

    >>> decoder = Decoder()
    >>> decoder.feed(b"data: one\\n\\ndata: t"), decoder.feed(b"wo\\r\\n\\r\\n: comment\\n\\n")
    ([(b'', b'one')], [(b'', b'two')])
    """

    _partial: bytearray = field(default_factory=bytearray)  # the unfinished line
    _name: bytes = b""
    _data: list[bytes] = field(default_factory=list)
    _data_bytes: int = 0
    _skip_lf: bool = False  # a CR ended the last feed; an LF that follows belongs to it
    _at_start: bool = True

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that these bytes complete, in order.

        Raises:
            EventTooLarge: If an event grows over MAX_EVENT_BYTES.
        """
        if (
            not self._partial
            and not self._data
            and not self._skip_lf
            and not self._name
            and chunk[:6] == b"data: "
            and chunk[-2:] == b"\n\n"
            and chunk.find(b"\n", 0, -2) < 0
            and chunk.find(b"\r") < 0
            and len(chunk) <= MAX_EVENT_BYTES
        ):
            # Nearly every chunk of a real stream is exactly one event: the same answer, five times faster.
            self._at_start = False
            return [(b"", chunk[6:-2])]
        return self._lines(chunk)

    @property
    def open(self) -> bool:
        """Whether an event or a line is unfinished."""
        return bool(self._partial or self._data or self._name or self._skip_lf)

    def _lines(self, chunk: bytes) -> list[Event]:
        if self._skip_lf and chunk:
            self._skip_lf = False
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
        partial = self._partial
        partial += chunk
        if _LINE_END.search(chunk) is None:  # so that a line that comes byte by byte costs its length, not its square
            self._check_size(len(partial))
            return []
        *lines, rest = _LINE_END.split(bytes(partial))
        self._skip_lf = chunk[-1:] == b"\r"
        self._partial = bytearray(rest)
        events: list[Event] = []
        for line in lines:
            self._line(line, events)
        self._check_size(len(rest))
        return events

    def _line(self, line: bytes, events: list[Event]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                events.append((self._name, b"\n".join(self._data)))
            self._name, self._data, self._data_bytes = b"", [], 0
            return
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
            self._check_size(0)
        elif name == b"event":
            self._name = value

    def finish(self) -> list[Event]:
        """The event that the stream's end leaves open, if any: some servers end `[DONE]` without a blank line."""
        events: list[Event] = []
        if self._partial:
            line, self._partial = bytes(self._partial), bytearray()
            self._line(line, events)
        self._line(b"", events)
        return events

    def _check_size(self, partial: int) -> None:
        if self._data_bytes + partial > MAX_EVENT_BYTES:
            raise EventTooLarge(f"an event of more than {MAX_EVENT_BYTES // 1024 // 1024} MiB")
