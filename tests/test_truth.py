"""What `loadbench run` recorded against what the simulator did: the same requests, seen from both ends.

The law is what the simulator means to do, /truth what it did; on a busy machine they differ, so times are held to the
truth. Counts are exact. The probes before a run are in the truth and not among its records; run.json has them.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loadbench.runner.turn import PROBE_TOKENS
from loadbench.serve import simulator
from tests.support.forks import Forks

pytestmark = [pytest.mark.system, pytest.mark.alone]

NOISE_US = 200
"""How far two stamps of one clock, taken by two processes at two ends of a socket, may lie apart."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A run and the truth about it; `rows` are all its records, those of the warm-up too."""

    truth: dict[str, Any]
    rows: list[dict[str, Any]]
    level: dict[str, Any]
    probes: list[dict[str, Any]]

    def with_probes(self, column: str) -> int:
        """The sum of a column, what the probes say of themselves counted in; the simulator sends a token an event."""
        of_probe = "output_tokens" if column == "text_events" else column
        return sum(row[column] for row in self.rows) + sum(probe[of_probe] for probe in self.probes)

    @property
    def probe_requests(self) -> int:
        return sum(probe["requests"] for probe in self.probes)


def measure(loadbench: Forks, folder: Path, law: simulator.Law, *words: object) -> Measured:
    """Run the command in a process of its own, one level, against a simulator of its own."""
    with simulator.start(law) as server:
        done = loadbench.run("run", "-e", server.url, "-o", folder / "run", "--quiet", *words)
        truth = simulator.truth(server.url)
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (folder / "run/requests.jsonl").read_text(encoding="utf-8").splitlines()]
    (level,) = json.loads((folder / "run/summary.json").read_text(encoding="utf-8"))["levels"]
    probes = json.loads((folder / "run/run.json").read_text(encoding="utf-8"))["probes"]
    return Measured(truth, rows, level, probes)


# -- a run without faults: 8 streams, answers of 2 to 8 tokens, 3 of them reasoning, times that vary by a tenth


STREAMS, REQUESTS = 8, 96
REASONING, ITL_MS = 3, 10


@pytest.fixture(scope="module")
def sound(loadbench: Forks, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    length = 2, PROBE_TOKENS
    law = simulator.Law(ttft_ms=50, itl_ms=ITL_MS, jitter=0.1, length=length, reasoning_tokens=REASONING, seed=11)
    words = ("-c", STREAMS, "-n", REQUESTS, "--max-tokens", PROBE_TOKENS)
    return measure(loadbench, tmp_path_factory.mktemp("sound"), law, *words)


def test_every_request_that_was_made_is_recorded(sound: Measured) -> None:
    made = STREAMS + REQUESTS + sound.probe_requests

    assert (sound.truth["requests"], sound.truth["completed"], sound.truth["faults"]) == (made, made, {})
    assert len(sound.rows) == STREAMS + REQUESTS
    assert {row["error"] for row in sound.rows} == {None}
    assert sound.level["completed"] == REQUESTS
    assert sound.truth["most_active"] <= STREAMS


@pytest.mark.parametrize(
    ("fact", "column"),
    [
        ("tokens", "output_tokens"),
        ("events", "text_events"),
        ("characters", "characters"),
        ("prompt_tokens", "input_tokens"),
    ],
)
def test_the_sums_are_those_of_the_truth(sound: Measured, fact: str, column: str) -> None:
    assert len({row[column] for row in sound.rows}) > 3  # a constant would be right by accident
    assert sound.with_probes(column) == sound.truth[fact]


def test_the_summary_adds_up_the_measured_requests_alone(sound: Measured) -> None:
    measured = [row for row in sound.rows if not row["warmup"]]

    assert sound.level["output_tokens"]["total"] == sum(row["output_tokens"] for row in measured)
    assert sound.level["input_tokens"]["total"] == sum(row["input_tokens"] for row in measured)
    assert sound.level["characters"] == sum(row["characters"] for row in measured)


SPANS = {"ttft_us": "first_token_ns", "ttfat_us": "first_answer_ns", "e2e_us": "last_token_ns"}


@pytest.mark.parametrize("span", SPANS)
def test_no_request_was_faster_than_in_truth_and_the_median_is_the_truths(sound: Measured, span: str) -> None:
    marked = [row for row in sound.rows if row[SPANS[span]] is not None]
    spans_us = [(row[SPANS[span]] - row["sent_ns"]) / 1000 for row in marked]

    assert min(spans_us) >= sound.truth[span]["min"] - NOISE_US
    assert statistics.median(spans_us) == pytest.approx(sound.truth[span]["p50"], rel=0.03, abs=1000)


def test_the_gaps_between_tokens_are_the_truths(sound: Measured) -> None:
    gaps_us = [gap for row in sound.rows for gap in row["gaps_us"]]
    # Events that share a stamp are one arrival; the server knows the gap between them, which is next to nothing.
    within = sum(row["text_events"] - 1 - len(row["gaps_us"]) for row in sound.rows)
    of_the_probes = sum(probe["output_tokens"] - 1 for probe in sound.probes)

    assert len(gaps_us) + within + of_the_probes == sound.truth["gap_us"]["n"]
    assert statistics.median([*gaps_us, *[0] * within]) == pytest.approx(sound.truth["gap_us"]["p50"], rel=0.03)


def test_what_a_model_that_reasons_shows_is_what_was_planted(sound: Measured) -> None:
    tokens = [row["output_tokens"] for row in sound.rows if not row["warmup"]]
    reasoning = [min(n, REASONING) for n in tokens]
    only = tokens.count(2) + tokens.count(3)
    level = sound.level

    assert 0 < only == level["only_reasoned"] == REQUESTS - level["ttfat_ms"]["n"]
    assert level["reasoned"] == REQUESTS
    assert level["thinking_share_source"] == "usage"
    assert level["thinking_share"] == pytest.approx(sum(reasoning) / sum(tokens), abs=1e-6)
    assert level["thinking_ms"]["p50"] == pytest.approx(REASONING * ITL_MS, rel=0.1)


def test_the_speed_of_prefill_and_of_one_user_is_what_was_planted(sound: Measured) -> None:
    level, measured = sound.level, [row for row in sound.rows if not row["warmup"]]
    # TTFT is the truth's, as is said above, and nothing but prefill and the network.
    network_ns = level["round_trip_ms"] * 1e6
    speeds = [row["input_tokens"] / (row["first_token_ns"] - row["sent_ns"] - network_ns) * 1e9 for row in measured]

    assert level["prefill_tokens_per_s"] == pytest.approx(statistics.median_low(speeds), rel=1e-3)
    assert level["tokens_per_s_per_user"] == pytest.approx(1e6 / sound.truth["gap_us"]["p50"], rel=0.05)
    assert level["normalised_latency_ms"]["n"] == REQUESTS


# -- a run in which most requests meet a fault


KINDS = {
    "429": "http_429",
    "500": "http_5xx",
    "503": "http_5xx",
    "404": "http_4xx",
    "cut": "truncated",
    "no_end": "truncated",
    "reset": "reset",
    "drop": "reset",
    "error_event": "stream_error",
    "empty": "empty",
    "garbage": "protocol",
}
"""What the client must call each fault."""


@pytest.fixture(scope="module")
def faulty(loadbench: Forks, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    # This seed spares the probes and strikes with every fault.
    law = simulator.Law(ttft_ms=5, itl_ms=3, faults=dict.fromkeys(KINDS, 0.07), seed=22)
    words = ("-c", 4, "-n", 120, "--max-tokens", PROBE_TOKENS, "--prompt", "Name a fruit.")
    return measure(loadbench, tmp_path_factory.mktemp("faulty"), law, *words)


def test_every_fault_struck_and_is_recorded_by_its_kind(faulty: Measured) -> None:
    struck: Counter[str] = Counter()
    for fault, times in faulty.truth["faults"].items():
        struck[KINDS[fault]] += times
    # A connection that is dropped although it worked before is tried again once, without a word.
    struck["reset"] -= sum(row["retries"] for row in faulty.rows)

    assert faulty.truth["faults"].keys() == KINDS.keys()
    assert Counter(row["error"] for row in faulty.rows if row["error"]) == struck


def test_every_request_that_met_no_fault_completed(faulty: Measured) -> None:
    retries = sum(row["retries"] for row in faulty.rows)
    # A stream with an event of garbage is sent to its end, so that the server counts it as completed.
    sent_in_full = sum(row["error"] in (None, "protocol") for row in faulty.rows)

    assert faulty.truth["requests"] == len(faulty.rows) + retries + faulty.probe_requests
    assert faulty.truth["completed"] == sent_in_full + faulty.probe_requests
    assert faulty.with_probes("text_events") == faulty.truth["events"], "of answers that broke off too"
    assert faulty.with_probes("characters") == faulty.truth["characters"]


def test_the_summary_counts_the_failures_of_the_measured_requests(faulty: Measured) -> None:
    measured = [row for row in faulty.rows if not row["warmup"]]
    kinds = Counter(row["error"] for row in measured if row["error"])

    assert faulty.level["errors"] == dict(kinds)
    assert faulty.level["failed"] == kinds.total()
    assert faulty.level["completed"] + faulty.level["failed"] == faulty.level["attempted"] == len(measured)


# -- docs/metrics.md: the same stream, which tools read so differently


THREE_STREAMS = [
    pytest.param({}, "usage", 32, 1.0, 200, id="A: one token per event, late usage"),
    pytest.param({"tokens_per_event": 4}, "usage", 32, 4.0, 260, id="B: four tokens per event"),
    pytest.param({"usage": "off", "length": (20, 20)}, "events", 20, None, 200, id="C: no usage, 20 of 32 tokens"),
]


@pytest.mark.parametrize(("shape", "source", "tokens", "tokens_per_event", "ttft_ms"), THREE_STREAMS)
def test_one_stream_reads_the_same_however_it_is_sent(
    loadbench: Forks,
    tmp_path: Path,
    shape: dict[str, Any],
    source: str,
    tokens: int,
    tokens_per_event: float | None,
    ttft_ms: float,
) -> None:
    law = simulator.Law(ttft_ms=200, itl_ms=20, **shape)

    found = measure(loadbench, tmp_path, law, "-c", 1, "-n", 1, "--warmup", 0, "--max-tokens", 32)

    late_ms = found.truth["late_us"]["max"] / 1000  # a busy machine is no error of the client
    assert (found.level["token_source"], found.level["output_tokens"]["mean"]) == (source, tokens)
    assert found.level["tokens_per_event"] == tokens_per_event
    assert found.level["ttft_ms"]["p50"] == pytest.approx(ttft_ms, rel=0.03, abs=late_ms + 5)
    assert found.level["tpot_ms"]["p50"] == pytest.approx(
        20, rel=0.03, abs=0.5 + late_ms / (tokens - (tokens_per_event or 1))
    )
