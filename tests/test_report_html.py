"""report.html in a real browser, from disk: what it draws, what it asks for, and that text stays text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from loadbench.errors import how_to_install
from loadbench.report import FORMATS, levels, rendered, tables
from loadbench.report import html as html_page
from loadbench.report.document import Tables
from loadbench.report.html import matrix
from tests.support.browsers import Opened, opened, skip_or_fail, started
from tests.support.pages import LOADS, hostile, large, rich
from tests.support.summaries import GOLDEN, summary_of

pytestmark = pytest.mark.system

DRAW_ALL = "loadbench.drawAll()"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    skip_or_fail()
    with started() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages that several tests read, written once."""
    folder = tmp_path_factory.mktemp("pages")
    runs = [("first", rich("closed_loop")), ("second", rich("scaling"))]
    written = {
        "rich": FORMATS["html"](rich()),
        "hostile": FORMATS["html"](hostile()),
        "open": FORMATS["html"](rich("open_loop")),
        "whole": FORMATS["html"](rich("whole_answers")),
        "interrupted": FORMATS["html"](rich("interrupted")),
        "runs": rendered(matrix.document(runs), "html"),
    }
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
                kept[name].page.evaluate(DRAW_ALL)
            return kept[name]

        yield tab


@pytest.fixture
def seen(tabs: Callable[[str], Opened]) -> Opened:
    return tabs("rich")


@pytest.fixture(scope="module")
def dark(browser: Browser, pages: Path) -> Iterator[Opened]:
    """The rich page where the system is dark; its plots as far down as the window goes."""
    with opened(browser, pages / "rich.html", dark=True) as found:
        yield found


@pytest.mark.parametrize("name", ["rich", "hostile", "open", "whole", "interrupted", "runs"])
def test_every_plot_is_drawn_without_a_word_in_the_console_or_a_request(
    tabs: Callable[[str], Opened], pages: Path, name: str
) -> None:
    found = tabs(name)

    plots = found.page.locator("[data-plot]").count()
    assert plots > 0
    assert found.page.locator("[data-plot][data-state=drawn] .main-svg").count() >= plots
    assert found.said == []
    assert [url for url in found.asked if not url.startswith(("data:", "blob:"))] == [(pages / f"{name}.html").as_uri()]


def test_plots_show_what_was_measured(seen: Opened) -> None:
    levels = [level for level in rich()["levels"] if level["model"] == "batch-1b" and not level.get("closing")]
    rates = [level["output_tokens_per_s"] for level in levels]

    drawn = seen.page.evaluate("document.querySelector('#scaling .plot').data.map((trace) => trace.y)")

    assert rates in drawn


def test_hovering_tells_the_figure_its_interval_and_its_n(seen: Opened) -> None:
    said = seen.page.evaluate("document.querySelector('#latency .plot').data[1].text[0]")

    assert said == "1 stream<br>TTFT p95 104 ms [96.1 ms to 113 ms]<br>400 requests"


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


def test_it_prints_in_light_colours_with_its_plots_even_from_a_dark_screen(dark: Opened) -> None:
    printed = dark.page.pdf()
    whole = dark.page.locator("[data-plot]").count()

    assert printed.startswith(b"%PDF")
    assert dark.page.locator("[data-plot][data-state=drawn]").count() == whole
    assert dark.page.evaluate("document.documentElement.dataset.theme ?? 'system'") == "system", "as before"
    assert dark.said == []


def test_how_it_was_got_unfolds_on_paper_alone(seen: Opened) -> None:
    unfolded = seen.page.locator("#verdict details[open] > dl")
    dispatch = "name => window.dispatchEvent(new Event(name))"

    seen.page.evaluate(dispatch, "beforeprint")
    assert unfolded.count() == 1
    seen.page.evaluate(dispatch, "afterprint")

    assert unfolded.count() == 0


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


def test_every_plot_on_paper_is_whole_with_its_levels_and_labels(pages: Path, browser: Browser) -> None:
    with opened(browser, pages / "rich.html", width=1800) as wide:
        wide.page.pdf()  # draws them all
        labels, cut = wide.page.evaluate(CUT_ON_PAPER)

    assert labels > 20
    assert cut == []


def test_the_theme_follows_the_system_and_the_button_changes_page_and_plots(dark: Opened) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    ticks = "getComputedStyle(document.querySelector('#scaling .xtick text')).fill"
    dark.page.wait_for_selector("#scaling .plot[data-state=drawn]")
    before = dark.page.evaluate(ground), dark.page.evaluate(ticks)

    dark.page.keyboard.press("Tab")
    dark.page.keyboard.press("Tab")
    assert dark.page.evaluate("document.activeElement.id") == "theme", "reached by the keyboard"
    dark.page.keyboard.press("Enter")
    expect(dark.page.locator("#scaling .xtick text").first).not_to_have_css("fill", before[1])

    assert before[0] == "rgb(16, 21, 26)"
    assert dark.page.evaluate(ground) == "rgb(246, 247, 248)"
    assert dark.page.locator("#theme").text_content() == "Dark"


@pytest.mark.parametrize("name", ["rich", "hostile", "runs"])
def test_the_page_never_scrolls_sideways(tabs: Callable[[str], Opened], name: str) -> None:
    page = tabs(name).page
    widths = {}
    for width in (360, 768):
        page.set_viewport_size({"width": width, "height": 900})
        widths[width] = page.evaluate("document.documentElement.scrollWidth")
    page.set_viewport_size({"width": 1400, "height": 900})

    assert widths == {360: 360, 768: 768}
    assert page.evaluate("document.documentElement.scrollWidth") == 1400


def test_hostile_names_errors_and_prompts_stay_text(tabs: Callable[[str], Opened]) -> None:
    page = tabs("hostile").page
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")

    assert page.evaluate("window.hurt") is None
    assert page.locator("img:not(.plot img), main b b, [onerror]").count() == 0
    assert page.locator("script").count() == 3, "the data, the page's own and plotly's"
    assert '<img src=x onerror="window.hurt=1"></script>' in (page.locator("#verdict").text_content() or "")
    assert "<b>bold</b>" in (page.locator("#failures").text_content() or "")


def test_a_script_that_somebody_brought_in_would_not_run(browser: Browser, pages: Path, tmp_path: Path) -> None:
    page = (pages / "rich.html").read_text(encoding="utf-8")
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
        found.page.wait_for_selector("#scaling .plot[data-state=drawn]")

        assert found.page.locator("#verdict tbody tr").count() == 30 * len(LOADS)
        assert found.said == []
    assert file.stat().st_size < 10_000_000


def test_without_plotly_the_page_has_its_tables_and_says_how_to_get_the_plots(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html_page, "plotly", lambda: None)
    file = tmp_path / "plain.html"
    file.write_text(FORMATS["html"](rich()), encoding="utf-8")

    with opened(browser, file) as found:
        assert how_to_install("html").replace("`", "") in (found.page.locator(".hint").text_content() or "")
        assert found.page.locator("[data-plot]").count() == 0
        assert found.page.locator("#latency table").count() > 0
        assert found.said == []
    assert file.stat().st_size < 300_000


def test_a_matrix_names_model_device_host_and_run_with_n_and_interval_in_each_cell(
    tabs: Callable[[str], Opened],
) -> None:
    table = tabs("runs").page.locator("table.matrix").nth(2)
    cells: list[Any] = table.locator("tbody tr").first.locator("td[class^=shade]").all_inner_texts()

    assert table.locator("caption").text_content() == "Median TTFT, ms"
    assert cells[0].split("\n") == ["210", "[202–218]", "n 60"]


def test_a_table_reads_as_its_golden_file() -> None:
    golden = GOLDEN / "tiny.html"
    fragment = (
        html_page.render_block(Tables(tables.headline(levels.read(summary_of("tiny"))))).replace("><", ">\n<") + "\n"
    )
    if os.environ.get("LOADBENCH_UPDATE_GOLDEN"):
        golden.write_bytes(fragment.encode())

    assert fragment == golden.read_bytes().decode()
