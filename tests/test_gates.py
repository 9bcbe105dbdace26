"""Every check (docs/checks.md) on runs made to trip it, and on runs just below each of its thresholds.

From requests and samples on, through `metrics.summarise` (V8, and V5 and V6 between sides, through `compare`);
test_validity.py has the exact borders of the figures themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from loadbench import compare
from loadbench.compare.sides import sides
from loadbench.metrics import summarise
from loadbench.store import Run
from loadbench.store.histogram import Histogram
from loadbench.store.record import Result
from tests.support import simulations
from tests.support.samples import machine, sample, server
from tests.support.streams import MS, failed, in_turn, level_data, run, stream

STAY_MS = 825.0
"""How long a request of `in_turn` is in flight: 200 ms to its first token, 31 gaps of 20 ms, 5 ms to the end."""
CODES = [
    *(f"V{number}" for number in range(1, 16)),
    "client-starved",
    "gathered-events",
    "first-token-hold",
    "near-saturation",
]
USER = {"clock": "user"}
FORCED = {"extra_body": {"ignore_eos": True}, "max_tokens": 32}


def one(results: list[Result], *, scenario: dict[str, Any] | None = None, info: Any = None, **facts: Any) -> Run:
    """A run of one level."""
    return run(level_data(results, **facts), scenario=scenario, **(info or {}))


def good(n: int = 100, results: list[Result] | None = None, **facts: Any) -> Run:
    """82 s of one stream that nothing speaks against."""
    return one(results or in_turn(n), **{"client_cpu_s": 8.0, "client_lag_us": lag(100), "round_trip_ms": 1.0, **facts})


def in_kinds(each: int) -> Run:
    """72 requests, so many quick ones and as many slow ones by turns."""
    return one([stream(i, due=i * 1025.0, ttft=400.0 if (i // each) % 2 else 200.0) for i in range(72)])


def queued(load: float) -> Run:
    """Poisson arrivals at a server that answers one at a time, in exponential times of 1 s on average."""
    random = np.random.default_rng(1)
    [times] = simulations.queue(random, 1, 400, load)
    due_ms = np.cumsum(random.exponential(1000 / load, 400))
    results = [
        stream(i, due=float(at), ttft=1000 * float(t), tokens=5)
        for i, (at, t) in enumerate(zip(due_ms, times, strict=True))
    ]
    return one(results, concurrency=None, request_rate_per_s=load)


def in_line(streams: int) -> Run:
    """A closed loop at such a server: each request waits for those of all other streams."""
    ends = np.cumsum(np.random.default_rng(1).exponential(1000.0, 400 + streams))
    waits = ends[streams:] - ends[:-streams]
    results = [stream(i, due=float(ends[i]), ttft=float(wait), tokens=5) for i, wait in enumerate(waits)]
    return one(results, concurrency=streams)


def lag(p99_us: int) -> dict[str, int]:
    return {"n": 3200, "p50": 20, "p99": p99_us, "p999": p99_us, "max": p99_us}


def every(ms: float) -> Run:
    """One request at a time, each begun so long after the one before."""
    return one([stream(i, due=i * ms) for i in range(100)])


def hanging(n: int) -> Run:
    """Two requests a second in open loop, of which so many begin early and never come to an end within the level."""
    results = [stream(i, due=500.0 * i) for i in range(200)]
    for i in range(n):
        results[i] = structs.replace(results[i], end_ns=200_000 * MS, last_token_ns=199_990 * MS)
    return one(results, concurrency=None, request_rate_per_s=2.0)


def dropping(n: int) -> Run:
    results = [stream(i, due=1000.0 * i) for i in range(100)]
    return one(results, concurrency=None, request_rate_per_s=1.0, offered=100 + n, dropped=n)


def merged(arrivals: int, late: int) -> Run:
    """So many of 6400 arrivals that carried several events, and of 10,000 reads that came 15 ms late."""
    results = in_turn(200)
    lags = Histogram()
    lags.record_many([15_000] * late + [100] * (10_000 - late))
    return one([structs.replace(results[0], merged_arrivals=arrivals), *results[1:]], histograms={"client_lag": lags})


def pairs(**facts: Any) -> Run:
    """Two events at once, each 40 ms."""
    return good(results=in_turn(100, tokens=32, per_event=2, text_events=32, first_events=2), **facts)


def foundry(kind: str, hold_ms: float) -> Run:
    """First tokens so long after the response's header, of a Foundry Local."""
    return one(in_turn(100, ttft=10.0 + hold_ms), info={"target": {"kind": kind, "version": "2.1"}})


def failing(n: int, of: int = 200) -> Run:
    return one([failed(i, due=i * STAY_MS) if i < n else stream(i, due=i * STAY_MS) for i in range(of)])


def counted(events: int) -> Run:
    """So many of 100 requests whose tokens nobody counted."""
    return one([stream(i, due=i * STAY_MS, usage=i >= events) for i in range(100)])


def busy(share: float) -> Run:
    """Of four cores over 10 s: what the server, this client and others used."""
    samples = [
        sample(at, server=server(0.1 * at), machine=machine(0.2 * at + 4 * share * at), client={"cpu_s": 0.1 * at})
        for at in (0.0, 10.0)
    ]
    info = {"telemetry": {"local": True}, "environment": {"cores": 4}}
    return replace(one(in_turn(100), info=info), samples=samples)


def drifting(by: float) -> Run:
    """TTFT that grows by so much over the level, with 10 % of noise."""
    random, found, at = np.random.default_rng(1), [], 0.0
    for i in range(300):
        ttft = 200 * (1 + by * i / 300) * math.exp(0.1 * random.standard_normal())
        found.append(stream(i, due=at, ttft=ttft, per_token=5.0, tokens=20))
        at = found[-1].end_ns / MS
    return one(found)


def closing(ttft_ms: float) -> Run:
    """The first level, measured again at the end of the run."""
    first, last = in_turn(100), in_turn(100, ttft=ttft_ms)
    return run(level_data(first), level_data(last, id="m@c1#end", closing=True))


def bursts(n: int) -> Run:
    """So many of 100 answers that came at once."""
    at_once: dict[str, Any] = {"tokens": 32, "per_event": 32, "text_events": 32, "first_events": 32}
    return one([stream(i, due=i * STAY_MS, **(at_once if i < n else {})) for i in range(100)])


def cached(tokens: int, distinct: bool = True) -> Run:
    """So many of each prompt's 100 tokens."""
    results = in_turn(100, input_tokens=100, cached_tokens=tokens)
    return one(results, scenario={"distinct_prompts": distinct})


def ran(device: str | None) -> Run:
    turn = {"model": "m", "ran": {"id": "m-1", "device": device, "execution_provider": None}}
    return one(in_turn(100), asked_device="GPU", info={"models": [turn]})


CASES: list[tuple[str, str, Run, str | None]] = [
    # V1: a window of (n - 1) * 0.825 s, and as a share of the level
    ("V1", "20.6 s", good(26), None),
    ("V1", "19.8 s", good(25), "warn"),
    ("V1", "5.8 s", good(8), "warn"),
    ("V1", "4.95 s", good(7), "red"),
    ("V1", "never held", good(full_ns=None), "red"),
    ("V1", "41 % of the level", good(duration_s=81.675 / 0.41), None),
    ("V1", "39 % of the level", good(duration_s=81.675 / 0.39), "warn"),
    # V2: in flight on average, as a share of the level
    ("V2", "95.9 %", every(860.0), None),
    ("V2", "94.3 %", every(875.0), "warn"),
    ("V2", "80.9 %", every(1020.0), "warn"),
    ("V2", "79.3 %", every(1040.0), "red"),
    # V2: requests that were due and not sent, in open loop
    ("V2", "none dropped", dropping(0), None),
    ("V2", "1 dropped", dropping(1), "warn"),
    ("V2", "19 % dropped", dropping(23), "warn"),
    ("V2", "21 % dropped", dropping(26), "red"),
    # V2: Little's law. 1.65 in flight by X*R, more by count: each that hangs is one more
    ("V2", "X*R fits N", hanging(0), None),
    ("V2", "X*R off by a third", hanging(1), "red"),
    # V3: arrivals of 6400 that were merged, and reads later than half of a gap of 20 ms; processor time of 82.5 s
    ("V3", "a lag of half a gap, nothing merged", good(client_lag_us=lag(10_100)), None),
    ("V3", "all merged by the server", merged(6400, late=0), None),
    ("V3", "all merged, 0.5 % of reads late", merged(6400, late=50), None),
    ("V3", "all merged, 0.51 % of reads late", merged(6400, late=51), "warn"),
    ("V3", "all merged, 5 % of reads late", merged(6400, late=500), "warn"),
    ("V3", "all merged, 5.1 % of reads late", merged(6400, late=510), "red"),
    ("V3", "1 % merged, all reads late", merged(64, late=10_000), None),
    ("V3", "1.02 % merged, all reads late", merged(65, late=10_000), "warn"),
    ("V3", "10.02 % merged, all reads late", merged(641, late=10_000), "red"),
    ("V3", "79 % of a core", good(client_cpu_s=65.2), None),
    ("V3", "81 % of a core", good(client_cpu_s=66.9), "warn"),
    # V4: of 200
    ("V4", "no failure", failing(0), None),
    ("V4", "1 failure", failing(1), "warn"),
    ("V4", "1 %", failing(2), "warn"),
    ("V4", "1.5 %", failing(3), "red"),
    # V5: of 32 forced tokens 95 % are 30.4
    ("V5", "97 % of the length", one(in_turn(100, tokens=31), scenario=FORCED), None),
    ("V5", "94 % of the length", one(in_turn(100, tokens=30), scenario=FORCED), "warn"),
    ("V5", "not forced", one(in_turn(100, tokens=20), scenario={"max_tokens": 32}), None),
    # V6
    ("V6", "counted", counted(0), None),
    ("V6", "estimated", counted(100), "warn"),
    ("V6", "one of both", counted(1), "red"),
    # V7: of 200 ms
    ("V7", "30 % of TTFT", good(round_trip_ms=60.0), None),
    ("V7", "30.5 % of TTFT", good(round_trip_ms=61.0), "warn"),
    # V9: of four cores
    ("V9", "9.9 %", busy(0.099), None),
    ("V9", "10.1 %", busy(0.101), "warn"),
    ("V9", "49.9 %", busy(0.499), "warn"),
    ("V9", "50.1 %", busy(0.501), "red"),
    # V10: from the first third to the last
    ("V10", "no drift", drifting(0.0), None),
    ("V10", "11 %", drifting(0.2), "warn"),
    ("V10", "34 %", drifting(0.7), "red"),
    # V11: TTFT of 200 ms at the beginning
    ("V11", "no closing level", good(), None),
    ("V11", "5 %", closing(210.0), None),
    ("V11", "5.5 %", closing(211.0), "warn"),
    ("V11", "14.5 %", closing(229.0), "warn"),
    ("V11", "15.5 %", closing(231.0), "red"),
    ("V11", "as much faster", closing(200 / 1.155), "red"),
    # V12
    ("V12", "72 requests", good(72), None),
    ("V12", "71 requests", good(71), "warn"),
    ("V12", "72 requests of two kinds, three of each in turn", in_kinds(3), "warn"),
    ("V12", "two kinds whose intervals are withheld", in_kinds(36), None),
    # requests that hardly differ from their neighbours
    ("near-saturation", "two kinds, three of each in turn", in_kinds(3), None),
    ("near-saturation", "36 of each", in_kinds(36), "warn"),
    ("near-saturation", "a queue at half load", queued(0.5), None),
    ("near-saturation", "a queue at 90 % load", queued(0.9), "warn"),
    ("near-saturation", "as many streams as wait, one served at a time", in_line(8), None),
    # V13
    ("V13", "half", bursts(50), None),
    ("V13", "51 %", bursts(51), "red"),
    # V14
    ("V14", "5 % of distinct prompts", cached(5), None),
    ("V14", "6 % of distinct prompts", cached(6), "warn"),
    ("V14", "6 % of fixed prompts", cached(6, distinct=False), "note"),
    # V15
    ("V15", "as asked", ran("GPU"), None),
    ("V15", "fell back", ran("CPU"), "red"),
    ("V15", "nobody knows", ran(None), None),
    # this client's own wait for a core
    ("client-starved", "5 % of the level", good(client_wait_share=0.05), None),
    ("client-starved", "half of it, and nothing was merged", good(client_wait_share=0.5), "warn"),
    ("client-starved", "half of it, and events share arrivals", pairs(client_wait_share=0.5), "red"),
    ("client-starved", "half of it, by this client's clock", good(client_wait_share=0.5, info=USER), "red"),
    ("client-starved", "nobody counts it", good(client_wait_share=None), None),
    # events that the server or a proxy sends several at once
    ("gathered-events", "one at a time", good(), None),
    ("gathered-events", "pairs", pairs(), "warn"),
    ("gathered-events", "pairs that the client's wait explains", pairs(client_wait_share=0.5), None),
    # Foundry Local 2.x
    ("first-token-hold", "40 ms", foundry("foundry2", 41.0), "note"),
    ("first-token-hold", "a slower model", foundry("foundry2", 80.0), None),
    ("first-token-hold", "another server", foundry("vllm", 41.0), None),
]


def spoken(found: Mapping[str, Any], code: str) -> list[tuple[str, str]]:
    """What the gate says of the first level, or of the whole run."""
    findings = [*found["levels"][0]["warnings"], *found["warnings"]]
    return [(one["severity"], one["text"]) for one in findings if one["code"] == code]


@pytest.mark.parametrize(
    ("code", "made", "expected"),
    [pytest.param(code, made, expected, id=f"{code} {name}") for code, name, made, expected in CASES],
)
def test_a_gate_speaks_of_a_run_made_to_trip_it_and_not_of_one_below(
    code: str, made: Run, expected: str | None
) -> None:
    found = spoken(summarise(made), code)

    assert [severity for severity, _ in found] == ([expected] if expected else [])
    assert [text for _, text in found if ":" not in text and ";" not in text] == [], "a figure, a reason and a remedy"


def test_a_server_that_writes_two_tokens_at_a_time_has_no_red_gate_and_a_good_run_none() -> None:
    """HAProxy merges so by default, as do Foundry Local 2.2.1 and 1.2.4."""
    [level] = summarise(pairs(client_wait_share=0.02))["levels"]
    found = summarise(good())

    assert [(said["code"], said["severity"]) for said in level["warnings"]] == [("gathered-events", "warn")]
    assert (found["levels"][0]["warnings"], found["warnings"]) == ([], [])


def test_an_open_loop_whose_server_cannot_keep_up_is_a_backlog() -> None:
    # Two a second to a server of one a second, then to one that keeps up.
    slow = [stream(i, due=500.0 * i, ttft=200.0 + 500.0 * i, per_token=25.0) for i in range(100)]
    quick = [stream(i, due=500.0 * i) for i in range(100)]
    opened = {"concurrency": None, "request_rate_per_s": 2.0}

    assert [severity for severity, _ in spoken(summarise(one(slow, **opened)), "V2")] == ["red"]
    assert spoken(summarise(one(quick, **opened)), "V2") == []


# -- between sides


def info(temperature: float = 0.0, version: str | None = "1", sha256: str | None = "a", cores: int = 8) -> Any:
    """run.json of a run."""
    return {
        "parameters": {"temperature": temperature},
        "target": {"kind": "llama.cpp", "version": version, "base_url": "http://localhost/v1"},
        "prompts": {"sha256": sha256},
        "environment": {"cores": cores},
    }


V8 = [
    ("the same", info(), None),
    ("another temperature", info(temperature=0.7), "red"),
    ("another version", info(version="2"), "red"),
    ("other prompts", info(sha256="b"), "red"),
    ("another machine", info(cores=4), "red"),
    ("a version that nobody knows", info(version=None), "warn"),
]


@pytest.mark.parametrize(("new", "expected"), [pytest.param(*each[1:], id=each[0]) for each in V8])
def test_v8_speaks_of_what_differs_between_sides(new: dict[str, Any], expected: str | None) -> None:
    found = compare.differences(info(), new)

    assert [(one.code, one.severity) for one in found] == ([("V8", expected)] if expected else [])


BETWEEN = [
    ("V5", "lengths 19 % apart", in_turn(40, tokens=38), None),
    ("V5", "lengths 22 % apart", in_turn(40, tokens=39), "red"),
    ("V5", "other finish reasons", in_turn(40, finish_reason="stop"), "warn"),
    ("V6", "counts of two kinds", in_turn(40, usage=False), "red"),
]


@pytest.mark.parametrize(("code", "new", "expected"), [pytest.param(c, n, e, id=f"{c} {t}") for c, t, n, e in BETWEEN])
def test_v5_and_v6_speak_of_what_sides_cannot_be_compared_by(
    code: str, new: list[Result], expected: str | None
) -> None:
    [(base, other)] = compare.matched(sides([one(in_turn(40))]), sides([one(new)]))

    found = [difference.severity for difference in compare.between(base, other) if difference.code == code]

    assert found == ([expected] if expected else [])


def test_every_gate_has_a_run_that_trips_it_and_one_that_does_not() -> None:
    said = {(code, expected is not None) for code, _, _, expected in CASES}
    said |= {("V8", expected is not None) for _, _, expected in V8}

    assert said == {(code, trips) for code in CODES for trips in (False, True)}
