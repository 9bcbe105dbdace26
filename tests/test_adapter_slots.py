"""A bounded, fair queue."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from loadbench.serve.adapter.server import Full, Gone, Slots


def here() -> bool:
    return False


@contextlib.contextmanager
def waiting(slots: Slots, names: str, order: list[str]) -> Iterator[None]:
    """Threads that wait, one after the other, and note their names when they get a slot."""

    def wait(name: str) -> None:
        with slots.slot(here):
            order.append(name)

    threads = [threading.Thread(target=wait, args=(name,)) for name in names]
    for number, thread in enumerate(threads, slots.taken()[1] + 1):
        thread.start()
        while slots.taken()[1] < number:
            time.sleep(0.001)
    yield
    for thread in threads:
        thread.join(5)


def test_as_many_as_there_are_slots_hold_one_at_once() -> None:
    slots = Slots(2, 0)
    with slots.slot(here), slots.slot(here):
        assert slots.taken() == (2, 0)
        with pytest.raises(Full), slots.slot(here):
            pass

    assert slots.taken() == (0, 0)


def test_those_who_wait_get_their_turn_in_order() -> None:
    slots, order = Slots(1, 3), list[str]()
    held = slots.slot(here)
    held.__enter__()
    with waiting(slots, "abc", order):
        held.__exit__(None, None, None)

    assert order == ["a", "b", "c"]


def test_a_full_queue_refuses_at_once() -> None:
    slots = Slots(1, 1)
    held = slots.slot(here)
    held.__enter__()
    with waiting(slots, "a", []):
        with pytest.raises(Full), slots.slot(here):
            pass
        held.__exit__(None, None, None)

    assert slots.taken() == (0, 0)


def test_one_who_leaves_while_waiting_leaves_its_place() -> None:
    slots = Slots(1, 1, check_s=0.001)
    with slots.slot(here):
        with pytest.raises(Gone), slots.slot(lambda: True):
            pass

        assert slots.taken() == (1, 0)


def test_one_who_left_just_before_its_turn_gives_the_slot_on() -> None:
    slots, left = Slots(1, 1), threading.Event()
    held = slots.slot(here)
    held.__enter__()

    def wait() -> None:
        with contextlib.suppress(Gone), slots.slot(left.is_set):
            raise AssertionError("it got a slot")

    thread = threading.Thread(target=wait)
    thread.start()
    while slots.taken()[1] == 0:
        time.sleep(0.001)
    left.set()
    held.__exit__(None, None, None)
    thread.join(5)

    assert slots.taken() == (0, 0)


def test_a_slot_is_free_after_a_failure() -> None:
    slots = Slots(1, 0)
    with contextlib.suppress(KeyError), slots.slot(here):
        raise KeyError

    assert slots.drained(0)


def test_it_is_told_whether_all_slots_are_free_in_time() -> None:
    slots = Slots(1, 0)
    with slots.slot(here):
        assert not slots.drained(0.001)
