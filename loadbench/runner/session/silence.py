"""A server that says nothing while requests wait for it: after a while people are told what is waited for, how long."""

from __future__ import annotations

import time
from collections.abc import Callable

from loadbench.scenario import Scenario

TOLD_AFTER_S = 10.0


def words(scenario: Scenario, *, begun: bool = False) -> str:
    """What is waited for, until when.

    Args:
        begun: Whether the answers in flight have begun, and stand still.
    """
    limits = scenario.timeouts
    if begun:
        return f"no token for {TOLD_AFTER_S:g} s: answers stand still, which each may for {limits.idle} (timeouts.idle)"
    if not scenario.stream:
        most = f"at most {limits.total} from sending (timeouts.total)"
        return f"no byte for {TOLD_AFTER_S:g} s: waiting for a whole answer, {most}"
    most = f"at most {limits.first_token} from sending (timeouts.first_token)"
    advice = "a server that cannot stream may answer with --no-stream"
    return f"no byte for {TOLD_AFTER_S:g} s: waiting for the first token, {most}; {advice}"


class Silence:
    """Looks at a level from time to time; says once of each silence that it lasts.

    Args:
        now_s: A monotonic clock.
    """

    def __init__(self, scenario: Scenario, now_s: Callable[[], float] = time.monotonic) -> None:
        self._scenario = scenario
        self._now_s = now_s
        self._heard: tuple[int, int] | None = None
        self._since_s = now_s()
        self._told = False

    def look(self, *, in_flight: int, ended: int, tokens: int, begun: bool) -> str | None:
        """What to say now, or None.

        Args:
            ended, tokens: So far in this level; where one grows the server is not silent.
            begun: Whether an answer in flight has begun.
        """
        heard = (ended, tokens)
        if heard != self._heard or not in_flight:
            self._heard, self._since_s, self._told = heard, self._now_s(), False
            return None
        if self._told or self._now_s() - self._since_s < TOLD_AFTER_S:
            return None
        self._told = True
        return words(self._scenario, begun=begun)
