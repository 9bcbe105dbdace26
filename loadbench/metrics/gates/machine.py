"""The gates that look at the machine: other load on it, what ran, heat, and where its power comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadbench.metrics.gates.doubt import Doubt, Level, Scenario, graded, percent, said

PAUSE_S, MOST_PAUSE_SHARE = 0.25, 0.1
"""A pause this long is seen by eye; one beyond this share of the window makes every rate wrong by as much."""
_ALSO = {"directml": "dml", "trtrtx": "nvtensorrtrtx", "tensorrtrtx": "nvtensorrtrtx", "vitis": "vitisai"}


def others(level: Level, scenario: Scenario) -> Doubt | None:
    """V9: nothing but the server and this client kept the cores busy."""
    share = level.get("others_cpu_share")
    if share is None:
        return None
    text = (
        f"other programs kept {percent(share)} of this machine's cores busy: the server did not have them; "
        "end those programs and measure again"
    )
    return graded("V9", text, warn=share > 0.1, red=share > 0.5)


def fallback(level: Level, scenario: Scenario) -> Doubt | None:
    """V15: the device and the execution provider that were asked for are those that ran."""
    ran = level.get("ran") or {}
    asked, device = level.get("asked_device") or level.get("device"), ran.get("device")
    # Of a model that is split over two devices, as GPU+CPU, the first counts.
    if asked and device and _first(asked) != _first(device):
        return said("red", "V15", _fell(str(asked), str(device), ran))
    wanted, provider = scenario.get("execution_provider"), ran.get("execution_provider")
    if wanted and provider and short_provider(wanted) != short_provider(provider):
        return said("red", "V15", _fell(str(wanted), str(provider), ran))
    return None


def _fell(asked: str, ran: str, what: Mapping[str, Any]) -> str:
    model = f" (as {what['id']})" if what.get("id") else ""
    return (
        f"{ran} ran{model}, not {asked} as asked: the figures are those of another device; "
        "see what the server has loaded, and its driver or execution provider"
    )


def _first(device: str) -> str:
    return device.strip().upper().partition("+")[0]


def short_provider(name: str) -> str:
    """An execution provider's short name, so that long, short and differently cased names compare.

    >>> short_provider("WebGpuExecutionProvider"), short_provider("trtrtx")
    ('webgpu', 'nvtensorrtrtx')
    """
    short = name.strip().lower().removesuffix("executionprovider")
    return _ALSO.get(short, short)


def throttled(level: Level, scenario: Scenario) -> Doubt | None:
    """A CPU or GPU that was too hot, or at its limit of power, ran slower than it can."""
    if not level.get("throttled"):
        return None
    text = "the CPU or GPU was throttled: a cooler machine would be faster; repeat the level, or cool the machine"
    return said("note", "throttled", text)


def paused(level: Level, scenario: Scenario) -> Doubt | None:
    """This client could run all the time: while it was suspended or starved, nobody took what arrived, nor asked."""
    pause_s, window_s = level.get("client_pause_s"), level.get("window_s")
    if pause_s is None:
        return None
    text = (
        f"this client stood still for {pause_s:.3g} s, {level.get('client_pause_at_s') or 0:.3g} s after the level "
        "began: times and rates of that moment are its own, not the server's; "
        "let nothing suspend it or keep it off the processor, and measure again"
    )
    long = window_s is not None and pause_s > MOST_PAUSE_SHARE * window_s
    return graded("paused", text, warn=pause_s >= PAUSE_S, red=pause_s >= PAUSE_S and long)


def power(level: Level, scenario: Scenario) -> Doubt | None:
    """A machine on battery runs slower; one whose source changed ran at two speeds."""
    match level.get("power"):
        case "changed":
            text = "the machine changed between mains and battery: its speed may have changed with it; measure again"
            return said("warn", "power", text)
        case "battery":
            return said("note", "power", "the machine ran on battery: on mains it may be faster")
    return None
