"""The report of a run on one screen: what it answers, and that it fits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from loadbench.report import brief, html, rendered, text
from loadbench.store.summary import Curve, CurveRow, Distribution, Finding, Level, Objective, Summary, decode
from tests.support.summaries import CASES, summary_of

ROOT = Path(__file__).parents[1]


def times(p95: float, *, n: int = 400) -> Distribution:
    return Distribution(n=n, p50=p95 / 2, p95=p95, ci95={"p50": [1.0, 2.0], "p95": [1.0, 2.0]})


def level(users: int, attained: bool | None = True, *, ttft_p95: float = 400.0, **known: Any) -> Level:
    given: dict[str, Any] = {
        "model": "m",
        "status": "complete",
        "concurrency": users,
        "completed": 400,
        "attempted": 400,
        "failed": 0,
        "output_tokens_per_s": 20.0 * users,
        "ttft_ms": times(ttft_p95),
        "tpot_ms": times(20.0),
        "tokens_per_s_per_user": 100.0,
        "slo": [Objective(bound="ttft_p95=800ms", attained=attained)],
    }
    return Level(**{**given, **known})


UNANSWERED = Objective(bound="ttfat_p95=5s", attained=False)


def page(summary: Any, width: int = 100) -> list[str]:
    return text.render(brief.document(summary), width).splitlines()


def said(levels: Sequence[Level], **known: Any) -> str:
    (line,) = brief.answer(Summary(levels=levels, **known))
    return line.text


POINTS = [CurveRow(id=None, n=n, x_per_s=20.0 * n) for n in (1, 2, 4)]
SLO = "your SLO (p95 TTFT ≤ 800 ms)"


@pytest.mark.parametrize(
    ("levels", "begins"),
    [
        ([level(1), level(2), level(4)], f"Serves 4 concurrent users within {SLO}, the most that was tried."),
        (
            [level(1), level(2), level(4, False, ttft_p95=2300.0)],
            f"Serves 2 concurrent users within {SLO}; 4 is too many (p95 TTFT 2.30 s).",
        ),
        (
            [level(1), level(2, None)],
            f"Serves 1 concurrent user within {SLO}; at 2, too few requests to tell.",
        ),
        ([level(1, None)], f"Too few requests to tell whether it serves 1 concurrent user within {SLO}."),
        ([level(2, False, ttft_p95=900.0)], f"Misses {SLO} at 2 concurrent users already: p95 TTFT 900 ms."),
        # A load beyond one that misses is not served, whatever its own share says.
        (
            [level(1), level(2, False, ttft_p95=900.0), level(4)],
            f"Serves 1 concurrent user within {SLO}; 2 is too many (p95 TTFT 900 ms).",
        ),
        # Each repeat of a load must meet it.
        (
            [level(1), level(2), level(2, False, ttft_p95=850.0, repeat=2)],
            f"Serves 1 concurrent user within {SLO}; 2 is too many (p95 TTFT 850 ms).",
        ),
        # A failed request takes for ever, in the words as in the objective.
        (
            [level(1, False, failed=30, with_failures_ms={"ttft": Distribution(n=400)})],
            f"Misses {SLO} at 1 concurrent user already: 30 of 400 requests failed.",
        ),
        # So does an answer that never got beyond its reasoning.
        (
            [level(1, only_reasoned=30, with_failures_ms={"ttfat": Distribution(n=400)}, slo=[UNANSWERED])],
            "Misses your SLO (p95 TTFAT ≤ 5.00 s) at 1 concurrent user already: 30 of 400 requests only reasoned.",
        ),
        (
            [level(1, slo=None), level(4, slo=None, ttft_p95=1000.0)],
            "One user gets 100 tokens/s after 200 ms; with 4 concurrent users each gets 100, after 500 ms.",
        ),
        (
            [level(1, request_rate_per_s=2, concurrency=None, requests_per_s=1.9)],
            f"Serves 2 requests/s within {SLO}, the most that was tried. At 2 requests/s it completes 1.90/s.",
        ),
        (
            [level(1, completed=0, failed=400, errors={"connect": 400}, slo=None)],
            "None of 400 requests completed (connect 400).",
        ),
        ([level(1, completed=0, attempted=0, slo=None)], "Not measured."),
    ],
)
def test_the_answer_begins_with_the_load_that_is_served(levels: Sequence[Level], begins: str) -> None:
    assert said(levels).startswith(begins)


@pytest.mark.parametrize(
    ("curve", "sentence"),
    [
        (
            Curve(model="m", loop="closed", levels=POINTS),
            "Total speed still grows at 4 concurrent users: 80.0 tokens/s.",
        ),
        (
            Curve(model="m", loop="closed", levels=POINTS, saturated_n=2),
            "Total speed tops out near 80.0 tokens/s, and 2 concurrent users already get 40.0: more users only wait",
        ),
        (
            Curve(model="m", loop="closed", levels=POINTS, serial=True),
            "It answers one request at a time: 4 concurrent users get together what one gets alone.",
        ),
    ],
)
def test_one_point_of_saturation_is_named(curve: Curve, sentence: str) -> None:
    assert sentence in said([level(1), level(2), level(4)], scaling=[curve])


@pytest.mark.parametrize(
    ("completed", "ends"),
    [
        (40, "Low confidence: about 40 requests per level."),
        (200, "Fair confidence: about 200 requests per level."),
        (400, "Good confidence: 400 requests per level or more."),
    ],
)
def test_it_ends_with_how_firm_that_is(completed: int, ends: str) -> None:
    assert said([level(1, completed=completed), level(2)]).endswith(ends)


def test_red_checks_are_named_without_their_codes() -> None:
    red = Finding(code="V9", severity="red", text="other programs kept 90 % of this machine's cores busy")

    assert said([level(1, warnings=[red])]).endswith(
        "No basis for a decision yet: other programs kept the machine busy."
    )


def test_several_models_are_told_apart() -> None:
    lines = brief.answer(Summary(levels=[level(1), level(1, model="other")]))

    assert [line.name for line in lines] == ["m", "other"]


def findings(*codes: str) -> list[Finding]:
    return [Finding(code=code, severity="red" if code == "V4" else "warn", text=f"{code} speaks") for code in codes]


def test_at_most_three_warnings_have_a_line_the_worst_first_and_the_others_are_named() -> None:
    lines = page(Summary(levels=[level(1, warnings=findings("V1", "V2", "V3", "V9", "V4"))]))

    assert [line for line in lines if line.startswith("!")] == [
        "! failures (c1): V4 speaks.",
        "! short-window (c1): V1 speaks.",
        "! load-not-held (c1): V2 speaks.",
        "! and client-lag and other-load: see --full.",
    ]


def test_the_table_has_the_speed_of_one_user_and_whether_the_slo_is_met() -> None:
    lines = page(Summary(levels=[level(1), level(2, False), level(4, None)]))
    rows = [line.split() for line in lines if line.startswith("    ") and line.strip()[0].isdigit()]

    assert [(row[0], row[3], row[-1]) for row in rows] == [
        ("1", "100", "met"),
        ("2", "100", "missed"),
        ("4", "100", "unclear"),
    ]


def test_where_a_model_reasons_the_table_says_when_its_answer_begins() -> None:
    reasoned = level(1, reasoned=400, only_reasoned=30, ttfat_ms=times(3000.0))

    lines = page(Summary(levels=[reasoned]), 80)
    [row] = [line for line in lines if line.split()[:1] == ["1"]]

    assert "TTFAT" in " ".join(lines)
    assert "  30 requests ended with reasoning alone and are in no TTFAT" in lines
    assert row.endswith("met")  # one table still, not a second one with what had no room
    assert "TTFAT" not in " ".join(page(Summary(levels=[level(1, reasoned=0, ttfat_ms=times(3000.0))])))


def test_where_arrivals_carry_several_tokens_tpot_stands_for_their_gaps() -> None:
    spaced = level(1, itl_ms=times(20.0), itl_name="inter-token")
    burst = level(1, itl_ms=times(80.0), itl_name="inter-event")

    assert "ITL p95" in " ".join(page(Summary(levels=[spaced])))
    assert "TPOT p95" in " ".join(page(Summary(levels=[burst])))


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_run_of_four_levels_fits_one_screen(width: int) -> None:
    summary = decode((ROOT / "results/example/summary.json").read_bytes())
    lines = page(summary, width)

    assert len(summary.levels) == 5  # four, and the first again
    assert len(lines) <= (30 if width == 80 else 23)  # two more say where the rest is
    assert max(map(len, lines)) <= width


def test_a_search_answers_by_all_its_probes() -> None:
    search = {
        "model": "m",
        "by": "concurrency",
        "found": 2,
        "meets": 2,
        "misses": 3,
        "slo": ["ttft_p95=800ms"],
        "steps": [{"load": 2, "verdict": "met", "requests": 120}, {"load": 3, "verdict": "not met", "requests": 30}],
    }
    text = " ".join(" ".join(page({"levels": [], "capacity": [search]})).split())

    assert "capacity 2 streams within ttft_p95=800ms" in text
    assert "c3 not met 30" in text


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_run_fits_an_issue_and_a_notebook(case: str) -> None:
    summary = summary_of(case)

    pasted = rendered(brief.pasted(summary), "markdown")
    shown = html.fragment(brief.document(summary))

    assert len(pasted.splitlines()) <= 50
    assert ("- **command**: `loadbench run" in pasted) == ("command" in summary["run"])
    assert [word for word in ("<script", " style=", "http://") if word in shown] == []
    assert ("SIMULATED" in pasted, "SIMULATED" in shown) == ((case == "simulated"),) * 2
