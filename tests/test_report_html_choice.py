"""The choice in report.html: what it says without a script, and in a real browser the sliders that rank again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from loadbench.report import FORMATS, choice
from loadbench.report import html as html_page
from loadbench.report.document import Section
from tests.support.browsers import opened, skip_or_fail, started
from tests.support.choosing import GB, candidate, choose
from tests.support.summaries import summary_of

pytestmark = pytest.mark.system

HOSTILE = "<img src=x onerror=\"document.title='hurt'\"></script><script>document.title='hurt'</script>"
NAMES = ("quick", "good", HOSTILE)


def record(**more: Any) -> dict[str, Any]:
    """Three of which each is the best at something; `good` is bad at nothing."""
    return choose(
        candidate("quick", ttft=60, e2e=300, characters=900, quality=2.0, memory=1 * GB),
        candidate("good", quality=4.6, memory=5 * GB),
        candidate(HOSTILE, ttft=150, e2e=700, quality=2.5, memory=None, disk=0.1 * GB),
        **more,
    )


def text_of(section: Section) -> str:
    return "".join(map(html_page.render_block, section.blocks))


def test_one_candidate_is_no_choice() -> None:
    assert choice.section(choose(candidate("only"))) is None


def test_without_a_script_the_rank_of_the_report_is_there() -> None:
    found = choice.section(record())

    assert found is not None
    words = text_of(found)
    assert "Choose quick: score" in words
    assert '<form id="choice-weights" class="weights" hidden>' in words
    assert words.count("<tr data-row=") == 3


def test_names_of_others_stay_text() -> None:
    found = choice.section(record())

    assert found is not None
    assert "<img" not in text_of(found)


def test_a_report_without_a_choice_has_no_such_section() -> None:
    assert "choice-rank" not in FORMATS["html"](summary_of("closed_loop"))


# -- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    skip_or_fail()
    with started() as found:
        yield found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report made without plotly: it opens faster, and the sliders need none."""
    path = tmp_path_factory.mktemp("choice") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html_page, "plotly", lambda: None)
        path.write_text(FORMATS["html"]({**summary_of("closed_loop"), "choice": record()}), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Any]:
    """The report, opened; it must complain of nothing and ask for nothing."""
    with opened(browser, file) as found:
        yield found.page

        assert found.said == []
        assert found.asked == [file.as_uri()]


def names(page: Any) -> list[str]:
    return [str(name) for name in page.locator("#choice-rank tbody th").all_inner_texts()]


def move(page: Any, **parts: float) -> None:
    for name, value in parts.items():
        page.locator(f"#choice-{name}").fill(str(value))


def test_the_page_opens_with_the_rank_of_the_report(page: Any) -> None:
    scores = [float(one) for one in page.locator("#choice-rank tbody td:nth-child(3)").all_inner_texts()]

    assert names(page) == [row["name"] for row in record()["candidates"]]
    assert scores == [round(row["score"], 1) for row in record()["candidates"]]


def test_moving_a_weight_ranks_again_and_says_so(page: Any) -> None:
    move(page, latency=0, quality=10)

    assert names(page)[0] == "good"
    assert page.locator("#choice-now").inner_text().startswith("good leads with ")
    assert page.locator("#choice-now").get_attribute("aria-live") == "polite"


@pytest.mark.parametrize(
    "parts",
    [
        {"latency": 1, "throughput": 2, "quality": 3.5, "memory": 4, "disk": 0, "tokens": 0},
        {"latency": 0, "throughput": 0, "quality": 0, "memory": 1, "disk": 10, "tokens": 2.5},
    ],
)
def test_the_browser_reckons_as_the_report_does(page: Any, parts: dict[str, float]) -> None:
    ranked = page.evaluate("parts => loadbench.rank(parts)", parts)

    ours = record(weights=parts)["candidates"]
    assert [one["name"] for one in ranked] == [row["name"] for row in ours]
    assert all(math.isclose(one["score"], row["score"], rel_tol=1e-9) for one, row in zip(ranked, ours, strict=True))


def test_the_keyboard_moves_a_weight_and_a_reader_hears_its_share(page: Any) -> None:
    slider = page.get_by_role("slider", name="latency")
    slider.focus()
    page.keyboard.press("End")

    assert slider.get_attribute("aria-valuetext").startswith("10 parts, ")
    assert slider.evaluate("slider => slider.value") == "10"


def test_the_weights_of_the_report_come_back(page: Any) -> None:
    move(page, latency=0, quality=10)
    page.get_by_role("button", name="The weights of the report").click()
    page.locator("#choice-now", has_text="quick leads").wait_for()

    assert page.locator("#choice-latency").input_value() == "3"


def test_where_nothing_counts_no_score_is_shown(page: Any) -> None:
    move(page, **dict.fromkeys(("latency", "throughput", "quality", "memory", "disk"), 0))

    assert page.locator("#choice-now").inner_text() == "Every weight is 0: nothing counts."
    assert set(page.locator("#choice-rank tbody td:nth-child(3)").all_inner_texts()) == {"-"}


def test_a_hostile_name_runs_nothing_and_is_shown_as_it_is(page: Any) -> None:
    move(page, disk=10, latency=0, throughput=0, quality=0, memory=0)

    assert HOSTILE in page.locator("#choice-now").inner_text()
    assert "hurt" not in page.title()
    assert page.locator("#choice img, #choice script").count() == 0
