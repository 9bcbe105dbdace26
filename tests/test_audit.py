"""`make audit`: a known vulnerability fails, and where nobody knows of any that is said."""

from __future__ import annotations

from typing import Any

import pytest

from tests import audit
from tests.support.replay import RECEIVE, nobody, serve
from tests.support.wire import plain

pytestmark = pytest.mark.system

FINE = {"name": "httpx", "version": "1.0", "vulns": []}
SKIPPED = {"name": "foundry", "skip_reason": "Dependency not found on PyPI"}
FLAW = {"id": "GHSA-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([FINE], 0, "audit: no known vulnerability in 1 packages"),
        ([FINE, SKIPPED], 0, "audit: no known vulnerability in 1 packages; 1 could not be looked up"),
        ([SKIPPED], 0, "audit: left out: the index has no advisories"),  # a mirror that has files alone
        ([{**FINE, "vulns": [FLAW]}], 1, "audit: httpx 1.0: GHSA-1, mended in 1.1"),
        ([{**FINE, "vulns": [{**FLAW, "fix_versions": []}]}], 1, "audit: httpx 1.0: GHSA-1, not mended yet"),
    ],
)
def test_what_is_found_decides(packages: list[dict[str, Any]], code: int, said: str) -> None:
    found, lines = audit.verdict({"dependencies": packages, "fixes": []})

    assert (found, lines[0]) == (code, said)


@pytest.mark.parametrize(
    ("status", "body", "has"),
    [
        ("200 OK", b'{"info": {}, "vulnerabilities": []}', True),
        ("200 OK", b'{"info": {}}', False),
        ("200 OK", b"<html>", False),
        ("404 Not Found", b"", False),
    ],
)
def test_an_index_has_advisories_or_has_none(status: str, body: bytes, has: bool) -> None:
    with serve([RECEIVE, plain(status, body)]) as index:
        assert audit.has_advisories(index.url) is has


def test_without_an_index_or_the_tool_it_is_left_out_says_so_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with nobody() as url:
        monkeypatch.setattr(audit.has_advisories, "__defaults__", (url, 1.0))
        assert audit.main([]) == 0
    assert capsys.readouterr().out == "audit: left out: the index has no advisories\n"
    monkeypatch.setattr(audit, "has_advisories", lambda: True)

    assert audit.main(["--uv", "/no/such/uv"]) == 0
    assert capsys.readouterr().err.startswith("audit: left out: pip-audit does not run here: ")
