"""plotly's JavaScript, which the page carries within itself; None without the extra `html`."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files

from loadbench.errors import how_to_install

HOW = how_to_install("html")
"""How to get the plots."""


_LEVEL = 6
"""Of compression: the next levels take twice as long for one per cent."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """plotly's JavaScript: compressed, as base64, and the SHA-256 of what comes out, which the page's policy allows."""

    packed: str
    digest: str


@functools.cache
def plotly() -> Bundle | None:
    """The bundle of the installed plotly: 4.8 MB, 1.9 MB as it stands in a page; None where plotly is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return None
    script = get_plotlyjs().encode()
    return Bundle(base64.b64encode(gzip.compress(script, _LEVEL, mtime=0)).decode(), digest(script))


def digest(script: bytes) -> str:
    """SHA-256 in base64, as a Content-Security-Policy names a script."""
    return base64.b64encode(hashlib.sha256(script).digest()).decode()


def asset(name: str) -> str:
    """A file of the folder assets."""
    return (files("loadbench.report.html") / "assets" / name).read_text(encoding="utf-8")
