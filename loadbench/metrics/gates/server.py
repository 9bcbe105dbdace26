"""The gates on the server: whether it was in one state, what ran, and the machine it ran on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import UNSET

from loadbench.figures import in_words
from loadbench.metrics.gates.checks import finding, graded, percent
from loadbench.metrics.models import first_device
from loadbench.store.schema import ScenarioFacts
from loadbench.store.summary import Band, Finding, Level, Ran, Stalls

LEAST_DRIFT, RED_DRIFT = 0.02, 0.2
"""A drift below the first changes no decision, however sure it is; one beyond the second forbids a verdict."""
NOISE_WARN, NOISE_RED = 0.05, 0.15


def drift(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V10: the last third of the steady window does not differ from the first."""
    moved = {}
    for name, row in (level.drift or {}).items():
        if row.significant and _off(row.ratio) > LEAST_DRIFT:
            moved[name] = row.ratio
    text = (
        f"{_changes(moved)} from the first third of the steady window to the last: the server was not in one state; "
        "warm up longer, or cool the machine and end what else runs on it, and measure again"
    )
    return graded("V10", text, warn=bool(moved), red=any(_off(ratio) > RED_DRIFT for ratio in moved.values()))


def saturation(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """Requests do not depend on each other so strongly that no interval of one run can be trusted."""
    strong = [name for name in ("ttft", "e2e", "tpot") if is_saturated(level, name)]
    if not strong:
        return None
    row = (level.dependence or {})[strong[0]]
    names = " and ".join(map(in_words, strong))
    correlation = f", correlation {row.neighbours:.2f}" if row.neighbours is not None else ""
    text = (
        f"requests depend so strongly on their neighbours (by {in_words(strong[0])}{correlation}, the median is worth "
        f"{_plural(row.independent, 'independent request')}) that {names} have no intervals to be trusted: "
        f"{_queue(level)}; lower the load, measure much longer, or repeat the level (--repeat)"
    )
    return finding("warn", "near-saturation", text)


def is_saturated(level: Level, metric: str) -> bool:
    """Whether the requests' times depend so strongly on each other that their intervals are withheld."""
    row = (level.dependence or {}).get(metric)
    return row is not None and row.strong


def _queue(level: Level) -> str:
    if level.is_open:
        return "a queue near saturation remembers longer than the level lasts"
    return "what changes in the server lasts as long as the level"


def noise(bands: Iterable[Band]) -> list[Finding]:
    """V11: the first level, measured again at the end, gives the same; one doubt a model."""
    found = []
    for band in bands:
        ratios = {}
        for name in ("output_tokens_per_s", "ttft_p50", "e2e_p50"):
            ratio = getattr(band, name)
            if ratio is not None and ratio is not UNSET:
                ratios[name] = ratio
        text = (
            f"{band.model}: {_changes(ratios)} when {_level_name(band)} was measured again at the end: "
            "smaller differences between levels are noise; let the machine cool and rest, and measure again"
        )
        most = max(map(_off, ratios.values()), default=0.0)
        doubt = graded("V11", text, warn=most > NOISE_WARN, red=most > NOISE_RED)
        if doubt is not None:
            found.append(doubt)
    return found


def stalls(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """Gaps so long that a reader would think the answer had ended."""
    found = level.stalls or Stalls()
    if not found.n:
        return None
    of = f" of {_plural(found.requests, 'request')}" if found.requests else ""
    threshold_ms = found.threshold_ms or 0.0
    where = ""
    if found.longest_request is not None:
        where = (
            f", in request {found.longest_request} (prompt {found.longest_prompt}) "
            f"{found.at_s or 0:.3g} s after the level began"
        )
    look = "look at what the server did then"
    if (level.client_pause_s or 0.0) * 1000 > threshold_ms:
        look = "this client stood still in that level, so look at when"
    text = (
        f"{_plural(found.n, 'gap')}{of} longer than {_span(threshold_ms)}, the longest "
        f"{_span(found.longest_ms or 0.0)}{where}: no median shows them; {look}"
    )
    return finding("note", "stalls", text)


def _span(ms: float) -> str:
    return f"{ms / 1000:.3g} s" if ms >= 1000 else f"{ms:.4g} ms"


def _plural(n: int | None, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _level_name(band: Band) -> str:
    return str(band.level).rpartition("@")[2] or "the first level"


def _off(ratio: float) -> float:
    """How far a ratio is from 1, the same in both directions: 0.8 and 1.25 are both 25 % off.

    >>> _off(0.8), _off(1.05) > 0.05
    (0.25, False)
    """
    return round(max(ratio, 1 / ratio) - 1, 9) if ratio > 0 else float("inf")


def _changes(ratios: Mapping[str, float]) -> str:
    """ "TTFT rose by 23 %, tokens/s fell by 8.1 %", the largest first."""
    ordered = sorted(ratios.items(), key=lambda item: -_off(item[1]))
    return ", ".join(
        f"{in_words(name)} {'rose' if ratio > 1 else 'fell'} by {percent(abs(ratio - 1))}" for name, ratio in ordered
    )


PAUSE_S, MOST_PAUSE_SHARE = 0.25, 0.1
"""A pause this long is seen by eye; one beyond this share of the window makes every rate wrong by as much."""
_ALSO = {"directml": "dml", "trtrtx": "nvtensorrtrtx", "tensorrtrtx": "nvtensorrtrtx", "vitis": "vitisai"}


def others(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V9: nothing but the server and this client kept the cores busy."""
    share = level.others_cpu_share
    if share is None:
        return None
    text = (
        f"other programs kept {percent(share)} of this machine's cores busy: the server did not have them; "
        "end those programs and measure again"
    )
    return graded("V9", text, warn=share > 0.1, red=share > 0.5)


def fallback(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V15: the device and the execution provider that were asked for are those that ran."""
    ran = level.ran or Ran()
    asked = level.asked_device or level.device
    if asked and ran.device and first_device(asked) != first_device(ran.device):
        return finding("red", "V15", _fell(asked, ran.device, ran))
    wanted, provider = scenario.execution_provider, ran.execution_provider
    if wanted and provider and short_provider(wanted) != short_provider(provider):
        return finding("red", "V15", _fell(wanted, provider, ran))
    return None


def _fell(asked: str, found: str, ran: Ran) -> str:
    model = f" (as {ran.id})" if ran.id else ""
    return (
        f"{found} ran{model}, not {asked} as asked: the figures are those of another device; "
        "see what the server has loaded, and its driver or execution provider"
    )


def short_provider(name: str) -> str:
    """An execution provider's short name, so that long, short and differently cased names compare.

    >>> short_provider("WebGpuExecutionProvider"), short_provider("trtrtx")
    ('webgpu', 'nvtensorrtrtx')
    """
    short = name.strip().lower().removesuffix("executionprovider")
    return _ALSO.get(short, short)


def throttled(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """A CPU or GPU that was too hot, or at its limit of power, ran slower than it can."""
    if not level.throttled:
        return None
    text = "the CPU or GPU was throttled: a cooler machine would be faster; repeat the level, or cool the machine"
    return finding("note", "throttled", text)


def paused(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """This client could run all the time: while it was suspended or starved, nobody took what arrived, nor asked."""
    pause_s, window_s = level.client_pause_s, level.window_s
    if pause_s is None:
        return None
    text = (
        f"this client stood still for {pause_s:.3g} s, {level.client_pause_at_s or 0:.3g} s after the level "
        "began: times and rates of that moment are its own, not the server's; "
        "let nothing suspend it or keep it off the processor, and measure again"
    )
    long = window_s is not None and pause_s > MOST_PAUSE_SHARE * window_s
    return graded("paused", text, warn=pause_s >= PAUSE_S, red=pause_s >= PAUSE_S and long)


def power(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """A machine on battery runs slower; one whose source changed ran at two speeds."""
    match level.power:
        case "changed":
            text = "the machine changed between mains and battery: its speed may have changed with it; measure again"
            return finding("warn", "power", text)
        case "battery":
            return finding("note", "power", "the machine ran on battery: on mains it may be faster")
    return None
