"""What is wrong with an answer's HTTP: heads, framing, codings, statuses."""

from __future__ import annotations

import gzip
import json
import zlib

from loadbench.scenario import Timeouts
from tests.support.asking import seconds
from tests.support.faults import Endless, Fault, begun, fine, headless
from tests.support.replay import HALF_CLOSE, HOLD, RECEIVE, RESET, Step
from tests.support.wire import DONE, HEAD, LAST, WHOLE, answer, chunk, event, plain

NEXT: list[Step] = [RECEIVE, WHOLE, HOLD]
"""A server that is sound again takes the next request on the same connection."""

EVENTS = event("A") + event("B") + event(finish="stop") + DONE

STREAM = b"Content-Type: text/event-stream\r\n"


def fields(count: int) -> bytes:
    return b"".join(b"X-%d: y\r\n" % number for number in range(count))


def headed(more: bytes) -> bytes:
    """A whole answer with further headers."""
    return WHOLE.replace(b"\r\n", b"\r\n" + more, 1)


def coded(coding: bytes, body: bytes) -> bytes:
    return plain("200 OK", body, STREAM + b"Content-Encoding: " + coding + b"\r\n")


HEADS: dict[str, Fault] = {
    "reset after the headers": Fault([RECEIVE, HEAD, RESET], "reset"),
    "a write side closed without an answer": headless([RECEIVE, HALF_CLOSE, HOLD], "reset", "before any byte"),
    "headers byte by byte, in time": fine(
        [RECEIVE, *(step for byte in HEAD for step in (bytes([byte]), 0.0005)), WHOLE[len(HEAD) :], *NEXT]
    ),
    "headers byte by byte, too slowly": headless(
        Endless([RECEIVE, b"HTTP/1.1 200 OK\r\nX: "], [b"x", 0.02]),
        "timeout_first_token",
        timeouts=seconds(first_token=0.2),
    ),
    "a header of 1 MB": headless([RECEIVE, headed(b"X: " + b"x" * 1_000_000 + b"\r\n"), HOLD], "protocol", "256 KiB"),
    "10,000 headers": fine([RECEIVE, headed(fields(10_000)), *NEXT]),
    "100,000 headers": headless([RECEIVE, headed(fields(100_000)), HOLD], "protocol", "256 KiB"),
    "headers without end": headless(Endless([RECEIVE, HEAD[:-2]], [b"X: y\r\n" * 1000]), "protocol", "256 KiB"),
    "trailers without end": begun(
        Endless([RECEIVE, WHOLE[: -len(b"\r\n")]], [b"X: y\r\n" * 1000]),
        "protocol",
        "256 KiB",
        text="AB",
        timeouts=seconds(total=5),
    ),
    "a trailer of 1 MB": begun(
        [RECEIVE, WHOLE[: -len(b"\r\n")] + b"X: " + b"x" * 1_000_000, HOLD],
        "protocol",
        "256 KiB",
        text="AB",
        timeouts=seconds(idle=2),
    ),
    "100 Continue and then nothing": headless(
        [RECEIVE, b"HTTP/1.1 100 Continue\r\n\r\n", HOLD], "timeout_first_token", timeouts=seconds(first_token=0.05)
    ),
    "100 Continue without end": headless(
        Endless([RECEIVE], [b"HTTP/1.1 100 Continue\r\n\r\n" * 1000]),
        "protocol",
        "256 KiB",
        timeouts=seconds(first_token=5),
    ),
    "100, 102 and 103 before the answer": fine(
        [RECEIVE, *(b"HTTP/1.1 %d X\r\nLink: x\r\n\r\n" % status for status in (100, 102, 103)), WHOLE, *NEXT]
    ),
    "101 that nobody asked for": headless(
        [RECEIVE, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", HOLD],
        "protocol",
    ),
    "binary junk instead of HTTP": headless([RECEIVE, bytes(range(255, -1, -1)) * 4, HOLD], "protocol", "not HTTP"),
    "HTTP/2 alone": headless(
        [RECEIVE, bytes.fromhex("000012040000000000000300000064000400100000000600004000"), HOLD], "protocol", "not HTTP"
    ),
    "a NUL in a header": headless([RECEIVE, headed(b"X: a\0b\r\n"), HOLD], "protocol", "not HTTP"),
}

FRAMES: dict[str, Fault] = {
    "a chunk longer than it says": begun(
        [RECEIVE, HEAD + chunk(event("A")) + b"%x\r\n%s: more than that\r\n" % (len(event("B")), event("B")), HOLD],
        "protocol",
        "not HTTP",
        text="AB",
    ),
    "a chunk shorter than it says, then the end": begun(
        [RECEIVE, HEAD + chunk(event("A")) + b"ffff\r\n" + event("B")], "truncated", text="AB"
    ),
    "a chunk shorter than it says, then silence": begun(
        [RECEIVE, HEAD + chunk(event("A")) + b"ffff\r\n" + event("B"), HOLD],
        "timeout_idle",
        text="AB",
        timeouts=seconds(idle=0.05),
    ),
    "a chunk of a length that is no hex": begun(
        [RECEIVE, HEAD + chunk(event("A")) + b"many\r\n", HOLD], "protocol", "not HTTP"
    ),
    "a chunk of negative length": begun([RECEIVE, HEAD + chunk(event("A")) + b"-5\r\n", HOLD], "protocol", "not HTTP"),
    "a chunk of more than 2^64 bytes": begun(
        [RECEIVE, HEAD + chunk(event("A")) + b"f" * 17 + b"\r\n", HOLD], "protocol", "not HTTP"
    ),
    "a chunk of 2^63 bytes, cut": begun([RECEIVE, HEAD + b"7fffffffffffffff\r\n" + event("A")], "truncated"),
    "a chunk size without end": begun(
        Endless([RECEIVE, HEAD + chunk(event("A")) + b"1;x="], [b"x" * 10_000]),
        "protocol",
        "256 KiB",
        timeouts=seconds(total=5),
    ),
    "a cut within a chunk": begun([RECEIVE, HEAD + chunk(event("A")) + chunk(event("B"))[:-9]], "truncated"),
    "a cut before the last chunk": begun(
        [RECEIVE, WHOLE[: -len(LAST)]], "truncated", "before the response was whole", text="AB"
    ),
    "more bytes than Content-Length says": begun(
        [RECEIVE, plain("200 OK", EVENTS, STREAM).replace(b"%d" % len(EVENTS), b"%d" % len(event("A"))), HOLD],
        "truncated",
        "without a finish",
    ),
    "fewer bytes than Content-Length says": fine(
        [RECEIVE, plain("200 OK", EVENTS, STREAM).replace(b"%d" % len(EVENTS), b"%d" % (len(EVENTS) + 9)), HOLD],
        reused=False,
        timeouts=seconds(idle=0.05),
    ),
    **{
        f"a Content-Length of {length.decode()}": headless(
            [RECEIVE, b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n" % length + EVENTS, HOLD], "protocol", "not HTTP"
        )
        for length in (b"-1", b"much", b"9" * 20)
    },
    "two Content-Lengths": headless(
        [RECEIVE, plain("200 OK", EVENTS, STREAM + b"Content-Length: 9\r\n"), HOLD], "protocol", "not HTTP"
    ),
    "chunks and a Content-Length": headless([RECEIVE, headed(b"Content-Length: 9\r\n"), HOLD], "protocol", "not HTTP"),
    "HTTP/1.0 until the end of the connection": fine(
        [RECEIVE, b"HTTP/1.0 200 OK\r\n" + STREAM + b"\r\n" + EVENTS], reused=False
    ),
    "HTTP/1.0 that is kept alive": fine(
        [RECEIVE, plain("200 OK", EVENTS, STREAM + b"Connection: keep-alive\r\n").replace(b"1.1", b"1.0", 1), *NEXT]
    ),
    "HTTP/1.0 cut short": begun(
        [RECEIVE, b"HTTP/1.0 200 OK\r\n" + STREAM + b"\r\n" + event("A")], "truncated", "without a finish"
    ),
    "junk behind the answer": fine([RECEIVE, WHOLE + b"\0junk", HOLD], reused=False),
    "an answer to no request behind the answer": fine([RECEIVE, WHOLE + answer(event("X"), DONE), HOLD], reused=False),
}


def bomb() -> tuple[bytes, bytes]:
    """The beginning of a gzip body, an event, and 1 kB that goes on with a comment of 1 MiB each time it comes."""
    deflate = zlib.compressobj(9, wbits=31)
    begin = deflate.compress(event("A")) + deflate.flush(zlib.Z_FULL_FLUSH)
    return begin, deflate.compress(b":" * 2**20 + b"\n") + deflate.flush(zlib.Z_FULL_FLUSH)


BEGIN, MORE = bomb()

GZIP_HEAD = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")

ZIPPED = gzip.compress(EVENTS)

CODINGS: dict[str, Fault] = {
    "gzip that nobody asked for": fine([RECEIVE, coded(b"gzip", ZIPPED), *NEXT]),
    "deflate that nobody asked for": fine([RECEIVE, coded(b"deflate", zlib.compress(EVENTS)), *NEXT]),
    "gzip in two members": fine(
        [RECEIVE, coded(b"gzip", gzip.compress(event("A")) + gzip.compress(event("B") + DONE)), *NEXT]
    ),
    "gzip that is cut": begun([RECEIVE, coded(b"gzip", ZIPPED[:-30])], "truncated", text=None),
    "gzip and then something else": begun(
        [RECEIVE, GZIP_HEAD + chunk(ZIPPED) + chunk(b"no gzip"), HOLD], "protocol", "broken compression", text="AB"
    ),
    "gzip in name only": Fault([RECEIVE, coded(b"gzip", EVENTS), HOLD], "protocol", "broken compression"),
    "a coding that is unknown here": headless([RECEIVE, coded(b"zstd", b"?"), HOLD], "protocol", "zstd"),
    "a bomb of gzip": begun(
        Endless([RECEIVE, GZIP_HEAD + chunk(BEGIN)], [chunk(MORE * 100)]),
        "protocol",
        "without bound",
        timeouts=seconds(total=10),
    ),
    "a bomb of gzip in small pieces": begun(
        Endless([RECEIVE, GZIP_HEAD + chunk(BEGIN)], [chunk(MORE)]),
        "protocol",
        "without bound",
        timeouts=seconds(total=10),
    ),
}

SAID = {"JSON": b'{"error": {"message": "so it is"}}', "HTML": b"<p>so it is</p>", "nothing": b""}

MORE_HEADERS = {401: b"WWW-Authenticate: Bearer\r\n", 503: b"Retry-After: 1\r\n"}

STATUSES: dict[str, Fault] = {
    **{
        f"{status} with {kind}": Fault(
            [RECEIVE, plain(f"{status} X", body, MORE_HEADERS.get(status, b"")), *NEXT],
            "http_429" if status == 429 else "http_5xx" if status >= 500 else "http_4xx",
            f"HTTP {status}" + ": " * bool(body) + "<p>" * (kind == "HTML") + "so it is" * bool(body),
            status=status,
            reused=True,
        )
        for status in (401, 403, 404, 408, 413, 429, 500, 502, 503)
        for kind, body in SAID.items()
    },
    "429 with Retry-After": Fault(
        [RECEIVE, plain("429 X", b"later", b"Retry-After: 60\r\n"), *NEXT], "http_429", "later", status=429, reused=True
    ),
    "408 and a goodbye": Fault(
        [RECEIVE, plain("408 X", b"", b"Connection: close\r\n"), HOLD], "http_4xx", "HTTP 408", status=408
    ),
    **{
        f"a redirect {status}": Fault(
            [RECEIVE, plain(f"{status} X", b"", b"Location: http://127.0.0.1:1/v1/chat/completions\r\n"), *NEXT],
            "redirect",
            f"HTTP {status}",
            status=status,
            reused=True,
        )
        for status in (301, 302, 303, 307, 308)
    },
    "an error page without end": Fault(
        Endless([RECEIVE, HEAD.replace(b"200 OK", b"500 X")], [chunk(b"x" * 10_000)]),
        "http_5xx",
        "HTTP 500: xxx",
        status=500,
        timeouts=seconds(total=0.3),
    ),
    "an error page that stalls": Fault(
        [RECEIVE, HEAD.replace(b"200 OK", b"503 X") + chunk(b"well"), HOLD],
        "http_5xx",
        "HTTP 503: well",
        status=503,
        timeouts=seconds(first_token=0.05),
    ),
    "an error page and a reset": Fault(
        [RECEIVE, plain("502 X", b"well", b"")[:-2], RESET], "http_5xx", "HTTP 502: we", status=502
    ),
    "an error of a thousand levels": Fault(
        [RECEIVE, plain("500 X", b'{"error":' * 1000 + b"1" + b"}" * 1000), *NEXT],
        "http_5xx",
        "HTTP 500",
        status=500,
        reused=True,
    ),
    "an error that is a deep list": Fault(
        [RECEIVE, plain("500 X", b'{"error":' + b"[" * 500 + b"]" * 500 + b"}"), *NEXT],
        "http_5xx",
        "HTTP 500",
        status=500,
        reused=True,
    ),
    "a page instead of a stream": Fault(
        [RECEIVE, plain("200 OK", b"<html>Log in first</html>", b"Content-Type: text/html\r\n"), *NEXT],
        "empty",
        "without any text",
        reused=True,
    ),
    "binary junk as a body": Fault(
        [RECEIVE, HEAD + chunk(b"\xff\xfe\0" * 1000 + b"\n") + LAST, *NEXT], "empty", reused=True
    ),
}

TABLES = {**HEADS, **FRAMES, **CODINGS, **STATUSES}


# script, kind of failure, part of what the message says, text that was received
FAILURES: dict[str, tuple[list[Step], str, str, str]] = {
    "closed without a word": ([RECEIVE], "reset", "before any byte", ""),
    "closed before the request was read": ([], "reset", "", ""),
    "reset without a word": ([RECEIVE, RESET], "reset", "", ""),
    "reset amid the stream": ([RECEIVE, HEAD + chunk(event("A")), RESET], "reset", "", "A"),
    "closed amid the headers": ([RECEIVE, HEAD[:30]], "truncated", "", ""),
    "closed after the headers": ([RECEIVE, HEAD], "truncated", "", ""),
    "closed amid the stream": ([RECEIVE, HEAD + chunk(event("A"))], "truncated", "", "A"),
    "half closed amid the stream": ([RECEIVE, HEAD + chunk(event("A")), HALF_CLOSE, HOLD], "truncated", "", "A"),
    "closed amid a chunk": ([RECEIVE, HEAD + chunk(event("A")) + chunk(event("B"))[:20]], "truncated", "", "A"),
    "no finish and no [DONE]": ([RECEIVE, answer(event("A"))], "truncated", "without a finish event", "A"),
    "short of its content-length": ([RECEIVE, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"], "truncated", "", ""),
    "an error event": (
        [RECEIVE, answer(event("A"), b'data: {"error": {"message": "out of\\nmemory"}}\n\n', DONE)],
        "stream_error",
        "out of memory",
        "A",
    ),
    "an error event by name": (
        [RECEIVE, answer(b'event: error\ndata: "overloaded"\n\n')],
        "stream_error",
        "overload",
        "",
    ),
    "an error and a cut": (
        [RECEIVE, HEAD + chunk(b'data: {"error": "worker died"}\n\n'), RESET],
        "stream_error",
        "worker died",
        "",
    ),
    "an error object instead of a stream": (
        [RECEIVE, plain("200 OK", b'{"error": {"message": "no"}}', b"Content-Type: application/json\r\n")],
        "stream_error",
        "no",
        "",
    ),
    "only a role and a finish": ([RECEIVE, answer(event(""), event(finish="stop"), DONE)], "empty", "", ""),
    "only [DONE]": ([RECEIVE, answer(DONE)], "empty", "", ""),
    "nothing at all": ([RECEIVE, answer()], "empty", "", ""),
    "events that are no JSON": (
        [RECEIVE, answer(event("A"), b"data: {oops\n\n", DONE)],
        "protocol",
        "not UTF-8 JSON",
        "A",
    ),
    "a choice that is no object": ([RECEIVE, answer(b'data: {"choices": [7]}\n\n', DONE)], "protocol", "no object", ""),
    "not HTTP": ([RECEIVE, b"SSH-2.0-OpenSSH_9.6\r\n"], "protocol", "not HTTP", ""),
    "a chunk without a length": ([RECEIVE, HEAD + b"xyz\r\n"], "protocol", "not HTTP", ""),
    "endless headers": ([RECEIVE, b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000, HOLD], "protocol", "", ""),
    "a switch of protocols": (
        [RECEIVE, b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"],
        "protocol",
        "",
        "",
    ),
    "a compression that is broken": (
        [RECEIVE, plain("200 OK", b"no gzip", b"Content-Encoding: gzip\r\n")],
        "protocol",
        "broken compression",
        "",
    ),
    "a compression unknown here": ([RECEIVE, plain("200 OK", b"?", b"Content-Encoding: br\r\n")], "protocol", "br", ""),
    "a redirect": ([RECEIVE, plain("307 Moved", b"", b"Location: /x\r\n")], "redirect", "HTTP 307", ""),
    "an empty success": ([RECEIVE, b"HTTP/1.1 204 No Content\r\n\r\n"], "protocol", "HTTP 204", ""),
    "bad request": ([RECEIVE, plain("400 Bad Request", b'{"detail": [{"msg": "bad"}]}')], "http_4xx", "bad", ""),
    "too many requests": ([RECEIVE, plain("429 Too Many Requests", b"slow down")], "http_429", "slow down", ""),
    "a gateway's page": (
        [RECEIVE, plain("502 Bad Gateway", b"<h1>502</h1>")],
        "http_5xx",
        "HTTP 502: <h1>502</h1>",
        "",
    ),
    "an error page cut short": ([RECEIVE, plain("500 Oops", b"x" * 90)[:-50]], "http_5xx", "HTTP 500", ""),
}

TIMEOUTS: dict[str, tuple[list[Step], Timeouts, str, str]] = {
    "no answer": ([RECEIVE, HOLD], seconds(first_token=0.05), "timeout_first_token", ""),
    "headers alone": ([RECEIVE, HEAD, HOLD], seconds(first_token=0.05), "timeout_first_token", ""),
    "events without text": (
        [RECEIVE, HEAD + chunk(event("")) + chunk(b": ping\n\n"), HOLD],
        seconds(first_token=0.05),
        "timeout_first_token",
        "",
    ),
    "a stall": ([RECEIVE, HEAD + chunk(event("A")), HOLD], seconds(idle=0.05), "timeout_idle", "A"),
    "no end": ([RECEIVE, HEAD + chunk(event("A")), HOLD], seconds(total=0.05), "timeout_total", "A"),
    "no TLS at all": ([HOLD], seconds(connect=0.05), "timeout_connect", ""),
}


SUCCESSES: dict[str, list[Step]] = {
    "as it should be": [RECEIVE, WHOLE],
    "and half closed": [RECEIVE, WHOLE, HALF_CLOSE, HOLD],
    "and held open": [RECEIVE, WHOLE, HOLD],
    "until the connection closes": [
        RECEIVE,
        b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + event("A") + event("B", "stop"),
    ],
    "with [DONE] and no finish": [RECEIVE, answer(event("A"), event("B"), DONE)],
    "with a finish and no [DONE]": [RECEIVE, answer(event("A"), event("B", "stop"))],
    "with no blank line at the end": [RECEIVE, answer(event("A"), event("B"), DONE.rstrip())],
    "after early hints": [RECEIVE, b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", WHOLE],
    "after 100 Continue": [RECEIVE, b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE],
    "with an error that is null": [RECEIVE, answer(event("A", error=None), event("B", "stop", error=None), DONE)],
    "with events of CRLF": [RECEIVE, answer(*(e.replace(b"\n", b"\r\n") for e in (event("A"), event("B"), DONE)))],
    "compressed although not asked": [
        RECEIVE,
        plain(
            "200 OK",
            gzip.compress(event("A") + event("B") + DONE),
            b"Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n",
        ),
    ],
    "in one JSON": [
        RECEIVE,
        plain(
            "200 OK",
            json.dumps({"choices": [{"message": {"content": "AB"}, "finish_reason": "stop"}]}).encode(),
            b"Content-Type: application/json\r\n",
        ),
    ],
    "in trailers and extensions": [
        RECEIVE,
        HEAD
        + b"".join(b"%x;x=y\r\n%s\r\n" % (len(e), e) for e in (event("A"), event("B"), DONE))
        + b"0\r\nT: x\r\n\r\n",
    ],
}
