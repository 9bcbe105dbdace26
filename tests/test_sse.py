"""sse.py: any cut of the bytes gives the same events; the grammar's corners; the size limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.client import sse
from loadbench.client.sse import Decoder, EventTooLarge


def decode(*chunks: bytes) -> list[tuple[bytes, bytes]]:
    decoder = Decoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)] + decoder.finish()


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        (b"data: one\n\n", [b"one"]),
        (b"data:one\n\n", [b"one"]),  # no space after the colon
        (b"data:  one\n\n", [b" one"]),  # one space is the separator, a second is text
        (b"data: one\r\n\r\ndata: two\r\n\r\n", [b"one", b"two"]),  # CRLF
        (b"data: one\r\rdata: two\r\r", [b"one", b"two"]),  # CR alone
        (b"data: one\ndata: more\n\n", [b"one\nmore"]),  # several data lines
        (b": keep-alive\n\ndata: one\n\n", [b"one"]),  # comments, with and without a blank line
        (b":\ndata: one\n\n", [b"one"]),
        (b"\n\n\ndata: one\n\n\n\n", [b"one"]),  # blank lines are no events
        (b"\xef\xbb\xbfdata: one\n\n", [b"one"]),  # BOM at the start
        (b"id: 7\nretry: 10\ndata: one\nunknown: x\n\n", [b"one"]),  # other fields are ignored
        (b"data\n\n", [b""]),  # a field without colon has empty value
        ("data: a\u2028b\u0085c\n\n".encode(), ["a\u2028b\u0085c".encode()]),  # Unicode line ends are text
        (b"data: one\n\ndata: [DONE]", [b"one", b"[DONE]"]),  # no blank line at the end
        (b"event: error\n\ndata: one\n\n", [b"one"]),  # a name without data is no event and does not stick
        (b"", []),
    ],
)
def test_reads_the_grammar(stream: bytes, data: list[bytes]) -> None:
    assert [payload for _, payload in decode(stream)] == data


def test_gives_the_name_of_an_event() -> None:
    assert decode(b"event: error\ndata: {}\n\ndata: x\n\n") == [(b"error", b"{}"), (b"", b"x")]


LINES = st.lists(
    st.sampled_from([b"data: x", b"data:", b'data: {"a": 1}', b": c", b"", b"event: e", b"data: \xe2\x80\xa8", b"x"]),
    max_size=12,
)


@given(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.data())
def test_any_cut_of_the_bytes_gives_the_same_events(lines: list[bytes], end: bytes, data: st.DataObject) -> None:
    stream = end.join(lines)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[i:j] for i, j in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert decode(*chunks) == decode(*(bytes([b]) for b in stream)) == decode(b": \n", stream)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_exception(stream: bytes) -> None:
    assert decode(stream) == decode(*(bytes([b]) for b in stream))


def test_an_event_of_16_mib_is_read_and_a_larger_one_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    whole = b"data: " + b"x" * 990 + b"\n\n"

    assert decode(whole[:500], whole[500:]) == [(b"", b"x" * 990)]
    for chunks in ([b"data: ", b"x" * 1000], [b"data: " + b"x" * 600 + b"\n"] * 2, [b"data: " + b"x" * 1000 + b"\n\n"]):
        with pytest.raises(EventTooLarge):
            decode(*chunks)
