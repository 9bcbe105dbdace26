"""The open-files limit: each stream holds a descriptor."""

from __future__ import annotations

import sys

SPARE_FILES = 64
"""For the run folder, the event loop and the libraries, beside one descriptor a stream."""


def raise_file_limit(streams: int) -> int | None:
    """Raise this process's open-files limit as far as `streams` need and the system grants.

    Returns:
        How many streams there is room for now; None where nothing limits them (Windows).
    """
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = streams + SPARE_FILES
    if soft not in (resource.RLIM_INFINITY,) and soft < wanted:
        granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
        except (ValueError, OSError):  # macOS: less than its hard limit says
            granted = soft
        soft = granted
    return None if soft == resource.RLIM_INFINITY else max(soft - SPARE_FILES, 0)
