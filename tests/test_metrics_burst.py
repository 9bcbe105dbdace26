"""Gate V13's figure: which answers came in a burst, so that gaps between tokens say nothing."""

from typing import Any

import pytest

from tests.support.streams import MS, stream, summed


def test_a_burst_server_has_neither_itl_nor_tpot() -> None:
    at_once = {"tokens": 8, "per_event": 8, "text_events": 8, "first_events": 8, "merged_arrivals": 1}

    level = summed([stream(0, **at_once), stream(1, **at_once), stream(2)])

    assert level["burst_share"] == pytest.approx(2 / 3, abs=1e-6)
    assert (level["itl_ms"], level["tpot_ms"], level["tpot_micro_ms"]) == (None, None, None)
    assert level["ttft_ms"]["n"] == 3


BURSTS = [
    # changes to a stream of 32 events in as many arrivals, is it a burst
    pytest.param({}, False, id="a steady stream"),
    pytest.param({"first_events": 17, "gaps_us": [20_000] * 15, "merged_arrivals": 1}, True, id="17 of 32 first"),
    pytest.param({"first_events": 16, "gaps_us": [20_000] * 16, "merged_arrivals": 1}, False, id="16 of 32 first"),
    pytest.param({"gaps_us": [600_000]}, True, id="31 of 32 in a later one"),
    pytest.param({"first_events": 20, "gaps_us": [20_000] * 5, "merged_arrivals": 3}, True, id="20 first, then pairs"),
    pytest.param({"first_events": 4, "gaps_us": [80_000] * 7}, False, id="8 arrivals of 4"),
    pytest.param({"first_events": 4, "gaps_us": [80_000] * 6, "merged_arrivals": 1}, False, id="two of them merged"),
    pytest.param({"last_token_ns": 201 * MS, "gaps_us": [32] * 31}, True, id="32 events within 1 ms"),
    pytest.param({"ttft": 60_000.0}, False, id="a long prompt, then a steady stream"),
    pytest.param({"tokens": 3, "per_token": 0.01}, None, id="too few tokens to judge"),
    pytest.param({"tokens": 3, "per_event": 3}, None, id="too few tokens to judge, in one event"),
    # Judged by tokens: a server may send few events.
    pytest.param({"tokens": 100, "per_event": 100}, True, id="100 tokens in one event"),
    pytest.param({"tokens": 4, "per_event": 4}, True, id="4 tokens in one event"),
    pytest.param({"tokens": 4, "per_event": 4, "usage": False}, None, id="one event that may be one token"),
    pytest.param({"tokens": 99, "per_event": 33, "ttft": 2000.0, "per_token": 0.1 / 33}, True, id="3 within 0.2 ms"),
    pytest.param({"tokens": 100, "per_event": 50}, False, id="two events, a second apart"),
]


@pytest.mark.parametrize(("shape", "burst"), BURSTS)
def test_a_burst_is_most_events_at_once(shape: dict[str, Any], burst: bool | None) -> None:
    assert summed([stream(**shape)])["burst_share"] == burst
