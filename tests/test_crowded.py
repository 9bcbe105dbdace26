"""Beside processes that never wait: what is measured is right, or a check of the client's own speaks."""

from __future__ import annotations

import os

import pytest
from bench import loads, machine
from bench.loads import Load

pytestmark = pytest.mark.endurance

CROWDED = Load(streams=8, rounds=6, tokens=50, ttft_ms=40.0, itl_ms=15.0)
RUNS = int(os.environ.get("CROWDED_RUNS", "1"))
"""Of each kind."""
OWN = {"client-starved", "V3"}
"""The checks that say it is the client's own doing."""
OTHERS = {"gathered-events", "V13"}
"""Those that would blame the server or a proxy for it."""
RIGHT = 0.05


@pytest.mark.timeout(300)
@pytest.mark.parametrize("_run", range(RUNS))
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("client", ["loadbench-thread", "loadbench-kernel"])
def test_a_crowded_client_is_right_or_says_that_it_is_not(client: str, times: int, _run: int) -> None:
    if loads.missing(client):
        pytest.skip(f"{client}: {loads.missing(client)}")

    with machine.crowded(times * (os.cpu_count() or 1)):
        found = loads.run(client, CROWDED)

    errors = {name: abs(error) for name in loads.COMPARED if (error := found.error(name)) is not None}
    says = {code: found.doubts[code] for code in found.doubts if code in OWN}
    print(f"{client}, {times} a core:", {name: round(error, 4) for name, error in errors.items()}, found.doubts)
    assert len(errors) == len(loads.COMPARED)
    assert max(errors.values()) <= RIGHT or says, "wrong, and nothing is said"
    assert max(errors.values()) > RIGHT or "red" not in says.values(), "right, and called red"
    assert not OTHERS & found.doubts.keys()
