"""report.html in a real browser, from disk: what it draws, what it asks for, that text stays text, how sliders rank."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from loadbench.report import FORMATS, choice, html, levels, matrix, rendered, tables
from loadbench.report.document import Tables
from tests.support.browsers import Opened, opened, skip_or_fail, started
from tests.support.choosing import GB, candidate, choose
from tests.support.pages import LOADS, hostile, large, rich
from tests.support.summaries import GOLDEN, check_golden, summary_of

pytestmark = pytest.mark.system

SCRIPT = "<img src=x onerror=\"document.title='hurt'\"></script><script>document.title='hurt'</script>"


def record(**more: Any) -> dict[str, Any]:
    """A choice between three of which each is the best at something; `good` is bad at nothing."""
    return choose(
        candidate("quick", ttft=60, e2e=300, characters=900, quality=2.0, memory=1 * GB),
        candidate("good", quality=4.6, memory=5 * GB),
        candidate(SCRIPT, ttft=150, e2e=700, quality=2.5, memory=None, disk=0.1 * GB),
        **more,
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    skip_or_fail()
    with started() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages that several tests read, written once; `plain` is one without plotly, which opens sooner."""
    folder = tmp_path_factory.mktemp("pages")
    both = rich("open_loop")
    both["levels"] += rich("interrupted")["levels"]
    runs = [("first", rich("closed_loop")), ("second", rich("scaling"))]
    written = {
        "rich": FORMATS["html"](rich()),
        "hostile": FORMATS["html"](hostile()),
        "open": FORMATS["html"](both),
        "whole": FORMATS["html"](rich("whole_answers")),
        "runs": rendered(matrix.document(runs), "html"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, "plotly", lambda: None)
        written["plain"] = FORMATS["html"]({**rich("closed_loop"), "choice": record()})
    for name, page in written.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tabs(browser: Browser, pages: Path) -> Iterator[Callable[[str], Opened]]:
    """Each page opened once, all its plots drawn, at 1400 px in light colours."""
    kept: dict[str, Opened] = {}
    with ExitStack() as stack:

        def tab(name: str) -> Opened:
            if name not in kept:
                kept[name] = stack.enter_context(opened(browser, pages / f"{name}.html"))
                kept[name].page.evaluate("loadbench.drawAll()")
            return kept[name]

        yield tab


@pytest.fixture
def seen(tabs: Callable[[str], Opened]) -> Opened:
    return tabs("rich")


@pytest.fixture(scope="module")
def dark(browser: Browser, pages: Path) -> Iterator[Opened]:
    """The rich page where the system is dark, wider than paper; its plots as far down as the window goes."""
    with opened(browser, pages / "rich.html", dark=True, width=1800) as found:
        yield found


@pytest.mark.parametrize("name", ["rich", "hostile", "open", "whole", "runs"])
def test_every_plot_is_drawn_without_a_word_in_the_console_or_a_request(
    tabs: Callable[[str], Opened], pages: Path, name: str
) -> None:
    found = tabs(name)

    plots = found.page.locator("[data-plot]").count()
    assert plots > 0
    assert found.page.locator("[data-plot][data-state=drawn] .main-svg").count() >= plots
    assert found.said == []
    assert [url for url in found.asked if not url.startswith(("data:", "blob:"))] == [(pages / f"{name}.html").as_uri()]


def test_the_answer_four_tiles_and_two_plots_are_seen_without_scrolling(seen: Opened) -> None:
    seen.page.set_viewport_size({"width": 1400, "height": 900})
    boxes = seen.page.locator("#answer .tile, #answer .plot").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect().bottom + window.scrollY)"
    )

    assert len(boxes) == 6
    assert max(boxes) < 900
    assert seen.page.locator("#answer .tile span").all_text_contents()[0] == "users within your SLO"


def test_a_link_unfolds_its_section_and_the_percentile_is_switched(browser: Browser, pages: Path) -> None:
    with opened(browser, pages / "rich.html") as found:
        page = found.page
        page.wait_for_selector("#answer .plot[data-state=drawn]")
        folded = page.locator("#latency > details").get_attribute("open")
        page.locator("nav a[href='#latency']").click()
        page.wait_for_selector("#latency > details[open]")
        wait = "document.querySelectorAll('#answer .plot')[1].data[0].y"
        before = page.evaluate(wait)
        page.locator("#answer .updatemenu-button", has_text="p50").click()
        after = page.evaluate(wait)

    assert folded is None
    assert all(median < tail for median, tail in zip(after, before, strict=True))
    assert found.said == []


def test_another_slo_is_tried_in_the_page_and_the_run_s_own_gives_the_report_s_shares(
    browser: Browser, pages: Path
) -> None:
    own = {}
    for level in rich()["levels"]:
        for objective in level.get("slo") or ():
            if objective["bound"].startswith("ttft_p95") and not level.get("closing"):
                own.setdefault((level["model"], level["concurrency"]), (objective["bound"], objective["attainment"]))
    with opened(browser, pages / "rich.html") as found:
        page = found.page
        page.locator("nav a[href='#what-if']").click()
        page.wait_for_selector("#what-if > details[open]")
        data = page.evaluate("loadbench.data('what-if')")
        start = data["ranges"]["ttft"]["start"]
        judged = page.evaluate(f"loadbench.judged({{ttft: {start}, e2e: 1e9}}, 0.95)")
        before = page.locator("#whatif-now").text_content()
        page.locator("#whatif-ttft").fill("0")  # less than any request took
        after = page.locator("#whatif-now").text_content()

    assert own
    for row in judged:
        assert row["shares"][0] == own[row["model"], row["load"]][1]
    assert before != after
    assert "not even the lowest load" in after
    assert found.said == []


def test_plots_show_what_was_measured_and_hovering_tells_interval_and_n(seen: Opened) -> None:
    rows = [level for level in rich()["levels"] if level["model"] == "batch-1b" and not level.get("closing")]
    drawn = seen.page.evaluate("document.querySelector('#scaling .plot').data.map((trace) => trace.y)")
    text = seen.page.evaluate("document.querySelector('#latency .plot').data[1].text[0]")

    assert [level["output_tokens_per_s"] for level in rows] in drawn
    assert text == "1 stream<br>TTFT p95 104 ms [96.1 ms to 113 ms]<br>400 requests"


def test_each_plot_has_words_and_a_table_for_those_who_cannot_see_it(seen: Opened) -> None:
    labels = seen.page.locator("[data-plot]").evaluate_all("all => all.map((one) => one.getAttribute('aria-label'))")
    without = seen.page.evaluate(
        "[...document.querySelectorAll('figure')].filter((one) => !one.querySelector('details.same table')).length"
    )

    assert all(len(label) > 20 for label in labels)
    assert without == 0


def test_the_page_has_one_heading_landmarks_and_tables_with_captions_and_scopes(seen: Opened) -> None:
    page = seen.page
    ranks = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map((one) => Number(one.tagName[1]))")

    assert page.locator("html[lang=en]").count() == 1
    assert [page.locator(name).count() for name in ("h1", "header", "main", "nav[aria-label]", "footer")] == [1] * 5
    assert all(after - before <= 1 for before, after in pairwise(ranks)), "no rank is left out"
    assert page.locator("table").count() == page.locator("table > caption").count()
    assert page.locator("th:not([scope])").count() == 0


CONTRAST = """
() => {
  const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number);
    return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(color) && !/rgba\\(.*0\\.\\d+\\)$/.test(color) && !color.startsWith("color(")) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const element of document.querySelectorAll("h1, h2, h3, p, li, th, td, a, summary, button, dt, dd, .ci")) {
    if (!element.offsetParent || !element.textContent.trim()) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${element.tagName} ${element.className} ${ratio.toFixed(2)}`);
  }
  return [...new Set(poor)];
}
"""


def test_text_stands_out_from_its_ground_in_both_themes(seen: Opened, dark: Opened) -> None:
    assert seen.page.evaluate(CONTRAST) == []
    assert dark.page.evaluate(CONTRAST) == []


def test_the_theme_follows_the_system_and_the_button_changes_page_and_plots(dark: Opened) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    ticks = "getComputedStyle(document.querySelector('#answer .xtick text')).fill"
    dark.page.locator("#answer .plot").first.scroll_into_view_if_needed()
    dark.page.wait_for_selector("#answer .plot[data-state=drawn]")
    before = dark.page.evaluate(ground), dark.page.evaluate(ticks)

    dark.page.keyboard.press("Tab")
    dark.page.keyboard.press("Tab")
    assert dark.page.evaluate("document.activeElement.id") == "theme", "reached by the keyboard"
    dark.page.keyboard.press("Enter")
    expect(dark.page.locator("#answer .xtick text").first).not_to_have_css("fill", before[1])

    assert before[0] == "rgb(16, 21, 26)"
    assert dark.page.evaluate(ground) == "rgb(246, 247, 248)"
    assert dark.page.locator("#theme").text_content() == "Dark"
    dark.page.keyboard.press("Enter")  # as before


CUT_ON_PAPER = """() => {
  window.dispatchEvent(new Event("beforeprint"));
  const cut = [];
  for (const plot of document.querySelectorAll("[data-plot]")) {
    if (plot.offsetParent === null) continue;
    const place = plot.getBoundingClientRect();
    if (place.width > 186 / 25.4 * 96 + 1) cut.push(`${plot.dataset.plot}: wider than the paper`);
    for (const text of plot.querySelectorAll(".xtick text, .ytick text, .xtitle, .ytitle, .trace path.point")) {
      const box = text.getBoundingClientRect();
      const within = box.left >= place.left - 1 && box.right <= place.right + 1
        && box.top >= place.top - 1 && box.bottom <= place.bottom + 1;
      if (!within) cut.push(`${plot.dataset.plot}: ${text.textContent || text.getAttribute("class")}`);
    }
  }
  const labels = document.querySelectorAll(".xtick text").length;
  window.dispatchEvent(new Event("afterprint"));
  return [labels, cut];
}"""


def test_paper_has_every_plot_whole_in_light_colours_and_the_run_details_unfolded(dark: Opened) -> None:
    page, theme = dark.page, "document.documentElement.dataset.theme ?? 'system'"
    before, unfolded = page.evaluate(theme), page.locator("#verdict details[open] > dl")
    printed = page.pdf()  # draws them all
    if program := shutil.which("pdftotext"):
        text = subprocess.run(
            [program, "-layout", "-", "-"], input=printed, capture_output=True, check=True
        ).stdout.decode()
        names = {f"c{level['concurrency']}" for level in rich()["levels"]}
        titles = ("In short", "All levels", "Latency against load", "Can it be trusted?", "Timeline", "More figures")
        assert {name for name in (*names, *titles) if name not in text} == set()
    labels, cut = page.evaluate(CUT_ON_PAPER)

    assert printed.startswith(b"%PDF")
    assert page.locator("[data-plot][data-state=drawn]").count() == page.locator("[data-plot]").count()
    assert page.evaluate(theme) == before
    assert dark.said == []
    assert labels > 20
    assert cut == []
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert unfolded.count() == 1
    assert page.locator("details.section:not([open])").count() == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.section:not([open])").count() > 3
    assert unfolded.count() == 0


@pytest.mark.parametrize("name", ["hostile", "runs"])
def test_the_page_never_scrolls_sideways(tabs: Callable[[str], Opened], name: str) -> None:
    page = tabs(name).page
    widths = {}
    for width in (360, 768, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        widths[width] = page.evaluate("document.documentElement.scrollWidth")

    assert widths == {360: 360, 768: 768, 1400: 1400}


def test_hostile_names_errors_and_prompts_stay_text(tabs: Callable[[str], Opened]) -> None:
    page = tabs("hostile").page
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")

    assert page.evaluate("window.hurt") is None
    assert page.locator("img:not(.plot img), main b b, [onerror]").count() == 0
    assert page.locator("script").count() == 4, "the data, the page's own, plotly's, and that of what-if"
    assert '<img src=x onerror="window.hurt=1"></script>' in (page.locator("#verdict").text_content() or "")
    assert "<b>bold</b>" in (page.locator("#failures").text_content() or "")


def test_a_script_that_somebody_brought_in_would_not_run(browser: Browser, pages: Path, tmp_path: Path) -> None:
    page = (pages / "plain.html").read_text(encoding="utf-8")
    harmed = tmp_path / "harmed.html"
    harmed.write_text(page.replace("<main", "<script>window.hurt=1</script><main"), encoding="utf-8")

    with opened(browser, harmed) as found:
        assert found.page.evaluate("window.hurt") is None
        assert any("Content Security Policy" in line for line in found.said)


@pytest.mark.endurance
def test_thirty_models_at_twelve_loads_are_drawn_and_stay_below_10_mb(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "large.html"
    file.write_text(FORMATS["html"](large(30)), encoding="utf-8")
    with opened(browser, file) as found:
        found.page.locator("#scaling .plot").first.scroll_into_view_if_needed()
        found.page.wait_for_selector("#answer .plot[data-state=drawn]")

        assert found.page.locator("#verdict tbody tr").count() == 30 * len(LOADS)
        assert found.said == []
    assert file.stat().st_size < 10_000_000


def test_a_matrix_names_model_device_host_and_run_with_n_and_interval_in_each_cell(
    tabs: Callable[[str], Opened],
) -> None:
    table = tabs("runs").page.locator("table.matrix").nth(2)
    cells: list[Any] = table.locator("tbody tr").first.locator("td[class^=shade]").all_inner_texts()

    assert table.locator("caption").text_content() == "Median TTFT, ms"
    assert cells[0].split("\n") == ["210", "[202–218]", "n 60"]


def test_the_shades_of_a_matrix_rank_the_models_at_each_load(tabs: Callable[[str], Opened]) -> None:
    table = tabs("runs").page.locator("table.matrix").first
    for load in ("c1", "c8"):
        place = table.locator("thead th").all_text_contents().index(load)
        shades = {}
        for row in table.locator("tbody tr").all():
            cell = row.locator("th, td").nth(place)
            shades[float(str(cell.evaluate("one => one.firstChild.textContent")).replace(",", ""))] = str(
                cell.get_attribute("class")
            )

        assert shades[max(shades)] == "shade4"
        assert shades[min(shades)] == "shade0"


def test_a_table_reads_as_its_golden_file() -> None:
    block = Tables(tables.headline(levels.read(summary_of("tiny"))))

    check_golden(GOLDEN / "tiny.html", html.render_block(block).replace("><", ">\n<") + "\n")


# -- the choice, and the page without plotly


@pytest.fixture
def page(browser: Browser, pages: Path) -> Iterator[Any]:
    """The page without plotly, opened; it must complain of nothing and ask for nothing."""
    with opened(browser, pages / "plain.html") as found:
        yield found.page

        assert found.said == []
        assert found.asked == [(pages / "plain.html").as_uri()]


def names(page: Any) -> list[str]:
    return [str(name) for name in page.locator("#choice-rank tbody th").all_inner_texts()]


def move(page: Any, **parts: float) -> None:
    for name, value in parts.items():
        page.locator(f"#choice-{name}").fill(str(value))


def test_without_plotly_the_page_has_its_tables_and_says_how_to_get_the_plots(page: Any, pages: Path) -> None:
    assert "pip install plotly" in (page.locator(".hint").text_content() or "")
    assert page.locator("[data-plot]").count() == 0
    assert page.locator("#latency table").count() > 0
    assert (pages / "plain.html").stat().st_size < 300_000


def test_without_a_script_the_rank_is_there_and_names_stay_text() -> None:
    section = choice.section(record())

    assert section is not None
    words = "".join(map(html.render_block, section.blocks))
    assert "Choose quick: score" in words
    assert '<form id="choice-weights" class="weights" hidden>' in words
    assert words.count("<tr data-row=") == 3
    assert "<img" not in words
    assert choice.section(choose(candidate("only"))) is None
    assert "choice-rank" not in FORMATS["html"](summary_of("closed_loop"))


def test_the_page_opens_with_the_rank_of_the_report_and_follows_the_weights(page: Any) -> None:
    scores = [float(one) for one in page.locator("#choice-rank tbody td:nth-child(3)").all_inner_texts()]
    assert names(page) == [row["name"] for row in record()["candidates"]]
    assert scores == [round(row["score"], 1) for row in record()["candidates"]]

    move(page, latency=0, quality=10)
    assert names(page)[0] == "good"
    assert page.locator("#choice-now").inner_text().startswith("good leads with ")
    assert page.locator("#choice-now").get_attribute("aria-live") == "polite"

    page.get_by_role("button", name="The weights of the report").click()
    page.locator("#choice-now", has_text="quick leads").wait_for()
    assert page.locator("#choice-latency").input_value() == "3"

    slider = page.get_by_role("slider", name="latency")
    slider.focus()
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext").startswith("10 parts, ")
    assert slider.evaluate("slider => slider.value") == "10"


@pytest.mark.parametrize(
    "parts",
    [
        {"latency": 1, "throughput": 2, "quality": 3.5, "memory": 4, "disk": 0, "tokens": 0},
        {"latency": 0, "throughput": 0, "quality": 0, "memory": 1, "disk": 10, "tokens": 2.5},
    ],
)
def test_the_browser_computes_as_the_report_does(page: Any, parts: dict[str, float]) -> None:
    ranked = page.evaluate("parts => loadbench.rank(parts)", parts)

    ours = record(weights=parts)["candidates"]
    assert [one["name"] for one in ranked] == [row["name"] for row in ours]
    assert all(math.isclose(one["score"], row["score"], rel_tol=1e-9) for one, row in zip(ranked, ours, strict=True))


def test_a_hostile_name_runs_nothing_and_where_nothing_counts_no_score_is_shown(page: Any) -> None:
    move(page, disk=10, latency=0, throughput=0, quality=0, memory=0)
    assert SCRIPT in page.locator("#choice-now").inner_text()
    assert "hurt" not in page.title()
    assert page.locator("#choice img, #choice script").count() == 0

    move(page, disk=0)
    assert page.locator("#choice-now").inner_text() == "Every weight is 0: nothing counts."
    assert set(page.locator("#choice-rank tbody td:nth-child(3)").all_inner_texts()) == {"-"}
