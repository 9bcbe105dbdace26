"""plotly's JavaScript, which the page carries within itself; None without the extra `html`."""

from __future__ import annotations

import functools
from importlib.resources import files

HOW = 'pip install "loadbench[html]"'
"""How to get the plots."""


@functools.cache
def plotly_js() -> str | None:
    """The bundle as it stands in the installed plotly (4.8 MB); None where plotly is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return None
    bundle: str = get_plotlyjs()
    # Nothing in it may end the script element that it stands in.
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def asset(name: str) -> str:
    """A file of the folder assets."""
    return (files("loadbench.report.html") / "assets" / name).read_text(encoding="utf-8")
