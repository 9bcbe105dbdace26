"""Discover a Foundry Local service when no endpoint was given.

Its port changes with every start. In order: `FOUNDRY_LOCAL_ENDPOINT`, the file that its service leaves in the home
folder, and what the `foundry` command says, where that is installed.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loadbench.errors import UsageError
from loadbench.machine import program
from loadbench.scenario.files import read_bytes
from loadbench.server.calls import read_json
from loadbench.server.endpoint import normalise
from loadbench.server.rows import field

VARIABLE = "FOUNDRY_LOCAL_ENDPOINT"
_ASK_S = 3.0
_CONNECT_S = 0.3
_URL = re.compile(r"https?://[^\s/\"'<>]+")


@dataclass(frozen=True, slots=True)
class Found:
    """An endpoint nobody had to give, and how it was found, to be told in the first line of a run."""

    endpoint: str
    how: str


def discover(environ: Mapping[str, str], home: Path | None) -> Found | None:
    """The endpoint of the environment, or of a Foundry Local service that runs on this machine.

    Blocks: some microseconds, and at worst the seconds that the `foundry` command takes, where it is installed.

    Args:
        home: The user's home folder; None where there is none.
    Raises:
        UsageError: The variable holds no URL; it names the variable.
    """
    given = environ.get(VARIABLE, "").strip()
    if given:
        try:
            return Found(normalise(given), VARIABLE)
        except UsageError as error:
            raise UsageError(f"{VARIABLE}: {error}") from error
    left = None if home is None else _read(home / ".foundry" / "daemon.json")
    return _first(_web_urls(left), "~/.foundry/daemon.json") or _from_command(environ)


def _from_command(environ: Mapping[str, str]) -> Found | None:
    foundry = program("foundry", environ)
    if foundry is None:
        return None
    said = _ask([foundry, "server", "status", "--output", "json"], environ)
    found = _first(_web_urls(_json(said)), "`foundry server status`")
    if found is None:
        # Older commands know no `server`: "... is running on http://127.0.0.1:52009/openai/status".
        said = _ask([foundry, "service", "status"], environ)
        found = _first(_URL.findall(said), "`foundry service status`")
    return found


def _first(urls: list[str], how: str) -> Found | None:
    """The first that takes a connection: the file outlives a service that was killed."""
    for url in urls:
        try:
            endpoint = normalise(url)
        except UsageError:
            continue
        parts = urlsplit(endpoint)
        try:
            socket.create_connection((parts.hostname, parts.port or 80), timeout=_CONNECT_S).close()
        except OSError:
            continue
        return Found(endpoint, how)
    return None


def _web_urls(document: Any) -> list[str]:
    urls = field(document, "web_urls", "webUrls")
    return [url for url in urls if isinstance(url, str)] if isinstance(urls, list) else []


def _read(path: Path) -> Any:
    try:
        return _json(read_bytes(path).decode("utf-8-sig"))
    except (OSError, UnicodeError):
        return None


def _json(said: str) -> Any:
    return read_json(said)


def _ask(command: list[str], environ: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            command, env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, timeout=_ASK_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")
