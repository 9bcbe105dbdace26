"""A headless Chromium for the tests of report.html: where it is, and how pages are opened in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
HOW = (
    "no Chromium found: `make browser`, or install Chrome, or name one by LOADBENCH_BROWSER=/path; "
    "LOADBENCH_NO_BROWSER=1 leaves these tests out"
)


def path() -> str | None:
    """The browser's program."""
    named = os.environ.get("LOADBENCH_BROWSER")
    found = [named] if named else [*map(shutil.which, _NAMES), *(place for place in _PLACES if Path(place).is_file())]
    return next((one for one in found if one), None)


def skip_or_fail() -> None:
    """Skips where somebody said that there is no browser; without that word a missing one is a failure."""
    if os.environ.get("LOADBENCH_NO_BROWSER"):
        pytest.skip("LOADBENCH_NO_BROWSER is set: report.html is not opened in a browser")
    if path() is None:
        pytest.fail(HOW)


@contextmanager
def started() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path(), args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass(slots=True)
class Opened:
    """A page, and what it said, asked for and failed at since it was opened."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def drawn(self) -> int:
        """How many plots are there now, each with lines in it."""
        return int(self.page.locator(".plot[data-state=drawn] .main-svg .trace").count())


@contextmanager
def opened(
    browser: Browser, file: Path, *, dark: bool = False, width: int = 1400, height: int = 900
) -> Iterator[Opened]:
    """The page as from disk, ready to be read."""
    context = browser.new_context(
        color_scheme="dark" if dark else "light", viewport={"width": width, "height": height}, offline=True
    )
    try:
        found = Opened(context.new_page())
        found.page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
        found.page.on("pageerror", lambda error: found.said.append(f"error: {error}"))
        found.page.on("request", lambda request: found.asked.append(request.url))
        found.page.goto(file.as_uri())
        found.page.wait_for_selector("html[data-ready=true]", state="attached")  # the page's policy allows no function
        yield found
    finally:
        context.close()
