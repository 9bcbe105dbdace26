"""Content codings: none is asked for, gzip and deflate are read all the same, within bounds."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from loadbench.transport.exchange import ExchangeError, Headers

MAX_INFLATED_BYTES = 64 * 1024 * 1024  # of one response


def inflater(headers: Headers) -> Callable[[bytes], bytes] | None:
    """What undoes the response's content coding, piece by piece; None where there is none to undo.

    Raises:
        ExchangeError: Of kind protocol, from here for a coding that nobody asked for, from the call for broken data.
    """
    coding = next((value.lower() for name, value in headers if name.lower() == b"content-encoding"), b"identity")
    if coding in (b"identity", b""):
        return None
    if coding not in (b"gzip", b"x-gzip", b"deflate"):
        raise ExchangeError("protocol", f"content-encoding {coding.decode('latin-1')} was not asked for")
    stream = zlib.decompressobj(wbits=47)  # gzip or zlib, as its header says
    left = MAX_INFLATED_BYTES

    def inflate(data: bytes) -> bytes:
        nonlocal stream, left
        plain = b""
        while data:
            if stream.eof:  # gzip may come in several members
                stream = zlib.decompressobj(wbits=47)
            try:
                more = stream.decompress(data, left + 1)
            except zlib.error as error:
                raise ExchangeError("protocol", f"broken compression: {error}") from None
            left -= len(more)
            if left < 0:
                raise ExchangeError("protocol", "a compressed body that grows without bound")
            plain += more
            data = stream.unused_data
        return plain

    return inflate
