"""The run folder (DESIGN.md §4): what a run writes as it goes, and what every report is computed from.

`requests.jsonl` is the truth, appended as requests end. `run.json` says what was run and which levels are whole; it is
replaced by rename, so that whoever reads it sees a whole one. A level is either complete or done again.
"""

from loadbench.store.files import (
    SCHEMA,
    Check,
    cannot_write,
    hlog_works,
    log_tag,
    read_bounded,
    read_info,
    read_lines,
    utc_now,
    write_atomically,
)
from loadbench.store.folder import SIDES, RunFolder, check_new, sides
from loadbench.store.reading import LevelData, Run, read

__all__ = [
    "SCHEMA",
    "SIDES",
    "Check",
    "LevelData",
    "Run",
    "RunFolder",
    "cannot_write",
    "check_new",
    "hlog_works",
    "log_tag",
    "read",
    "read_bounded",
    "read_info",
    "read_lines",
    "sides",
    "utc_now",
    "write_atomically",
]
