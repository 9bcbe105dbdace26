"""A server that answers one request at a time is called so, and no other is (METRICS.md §4)."""

import pytest

from tests.support.curves import ONE_MS, batch, level, queue, serial, shared


def test_streams_that_get_what_one_gets_and_wait_for_each_other_are_served_one_by_one() -> None:
    assert serial(queue(1), queue(2), queue(4, 51.0), queue(8, 49.0)) is True


def test_two_levels_are_enough_to_tell() -> None:
    assert serial(queue(1), queue(4)) is True


def test_a_batch_server_is_not_called_serial() -> None:
    assert serial(batch(1), batch(2), batch(4)) is False


def test_a_batch_server_that_is_full_from_the_second_level_on_is_not_called_serial() -> None:
    full = level(8, 190.0, 200 + 4 * ONE_MS, 8 * ONE_MS * 50 / 190)

    assert serial(level(1, 50.0, 200.0, ONE_MS), level(4, 188.0, 210.0, ONE_MS * 4 * 50 / 188), full) is False


def test_a_server_that_shares_itself_among_the_streams_is_no_queue() -> None:
    assert serial(shared(1), shared(2), shared(4)) is False


def test_whole_answers_have_no_first_token_so_that_the_answer_tells() -> None:
    assert serial(level(1, 50.0, None, ONE_MS), level(4, 50.0, None, 4 * ONE_MS)) is True


def test_without_the_level_of_one_stream_nothing_is_told() -> None:
    assert serial(queue(2), queue(4)) is None


def test_users_who_pause_tell_nothing() -> None:
    assert serial(queue(1, think_time_s=1.0), queue(4, think_time_s=1.0)) is None


def test_a_single_level_tells_nothing() -> None:
    assert serial(queue(1)) is None


def test_what_was_in_flight_counts_not_what_was_wanted() -> None:
    # 8 streams that mostly wait in the client: 4 at the server on average.
    assert serial(queue(1), queue(8) | {"ttft_ms": {"mean": 200 + 3 * ONE_MS}, "in_flight_mean": 4.0}) is True


@pytest.mark.parametrize(
    ("x", "interval", "said"),
    [
        (54.9, None, True),
        (55.1, None, False),
        (56.0, [55.0, 57.0], False),
        (56.0, [48.0, 64.0], None),  # it may be none
        (39.0, None, False),  # slower than one stream is something else
    ],
)
def test_a_gain_of_10_percent_or_one_that_may_be_none_is_not_called_serial(
    x: float, interval: list[float] | None, said: bool | None
) -> None:
    one = queue(1, output_tokens_per_s_ci95=[49.0, 51.0])

    assert serial(one, queue(4, x, output_tokens_per_s_ci95=interval)) is said
