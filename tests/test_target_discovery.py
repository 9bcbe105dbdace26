"""A Foundry Local service is found without an endpoint: by variable, by its file, by its command."""

import json
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadbench.errors import UsageError
from loadbench.server import Found, discover

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.name == "nt", reason="the fake command is a shell script")]


@pytest.fixture
def service() -> Iterator[str]:
    """The URL of a port that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def dead() -> str:
    """The URL of a service that was killed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def daemon(home: Path, content: str) -> None:
    (home / ".foundry").mkdir()
    (home / ".foundry" / "daemon.json").write_text(content, encoding="utf-8")


def command(folder: Path, script: str) -> dict[str, str]:
    """An environment with a `foundry` command that does what the script says."""
    path = folder / "foundry"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"PATH": str(folder)}


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert discover({"PATH": str(tmp_path)}, tmp_path) is None


def test_the_variable_wins_and_is_not_tried(tmp_path: Path, service: str, dead: str) -> None:
    daemon(tmp_path, json.dumps({"web_urls": [service]}))

    assert discover({"FOUNDRY_LOCAL_ENDPOINT": f" {dead}/v1/ "}, tmp_path) == Found(
        f"{dead}/v1", "FOUNDRY_LOCAL_ENDPOINT"
    )


def test_a_variable_that_is_no_url_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^FOUNDRY_LOCAL_ENDPOINT: endpoint '8080'"):
        discover({"FOUNDRY_LOCAL_ENDPOINT": "8080"}, tmp_path)


def test_the_file_of_the_service_names_its_port(tmp_path: Path, service: str) -> None:
    daemon(tmp_path, json.dumps({"pid": 7, "web_urls": [service], "daemon_version": "0.10.3"}))

    assert discover({"FOUNDRY_LOCAL_ENDPOINT": ""}, tmp_path) == Found(f"{service}/v1", "~/.foundry/daemon.json")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"web_urls": null}', '{"web_urls": [7, "ftp://x"]}', "\ufeff{}"])
def test_a_broken_file_finds_nothing(tmp_path: Path, content: str) -> None:
    daemon(tmp_path, content)

    assert discover({"PATH": ""}, tmp_path) is None


def test_the_file_of_a_killed_service_gives_way_to_the_command(tmp_path: Path, service: str, dead: str) -> None:
    daemon(tmp_path, json.dumps({"web_urls": [dead]}))
    said = json.dumps({"running": True, "webUrls": [service]})

    found = discover(command(tmp_path, f"[ \"$*\" = 'server status --output json' ] && echo '{said}'"), tmp_path)

    assert found == Found(f"{service}/v1", "`foundry server status`")


def test_an_older_command_tells_the_address_in_a_sentence(tmp_path: Path, service: str) -> None:
    says = f"[ \"$1\" = service ] && echo '🟢 Model management service is running on {service}/openai/status'"

    assert discover(command(tmp_path, says), tmp_path) == Found(f"{service}/v1", "`foundry service status`")


def test_a_command_that_hangs_or_is_something_else_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadbench.server.foundry._ASK_S", 0.05)

    assert discover(command(tmp_path, f"exec {sys.executable} -c 'import time; time.sleep(30)'"), tmp_path) is None
    assert discover(command(tmp_path, "echo usage; exit 2"), tmp_path) is None
