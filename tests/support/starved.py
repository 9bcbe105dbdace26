"""A level in a process that runs out of something: test_faults_machine.py starts it, and reads what became of it.

python -m tests.support.starved files PATH URL     no more than 24 files beside those open already
python -m tests.support.starved ports PATH         in a network of its own: 16 local ports, and a server of its own
python -m tests.support.starved oneself PATH       the same: one local port, which it connects to; nobody listens there
"""

from __future__ import annotations

import fcntl
import json
import resource
import socket
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support.replay import serve


def load(path: str, url: str, requests: int, concurrency: int, first_token: float = 20) -> Any:
    """A level to its end. Imported late: how sockets are read is found out in the network that they are in."""
    from tests.support.asking import seconds
    from tests.support.faults import Load

    level = Load(url, seconds(first_token=first_token), requests=requests, concurrency=concurrency)
    level.run(path)
    return level


def told(level: Any) -> dict[str, Any]:
    """Its records, written and read; how they ended, and one message."""
    from tests.support.faults import kept

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        kept(Path(folder) / "run", level.results, level.progress)
    message = next((result.error_message for result in level.results if result.error), None)
    return {"kinds": {str(kind): n for kind, n in level.kinds().items()}, "message": message}


def files(path: str, url: str) -> dict[str, Any]:
    from tests.support.faults import nothing_left_open

    load(path, url, 2, 1)  # imports what a level needs: modules are files too
    with socket.socket() as probe:
        free = probe.fileno()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 24, hard))
    with nothing_left_open():
        level = load(path, url, 64, 32)
    return told(level)


def loopback_up() -> None:
    """A new network has a loopback that is down: SIOCSIFFLAGS, IFF_UP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 1))


def local_ports(first: int, last: int) -> None:
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"{first} {last}")


def ports(path: str) -> dict[str, Any]:
    from tests.support.faults import SLOW, nothing_left_open

    with nothing_left_open(), serve(SLOW) as server:
        local_ports(50000, 50015)
        level = load(path, server.url, 64, 32)
    return told(level)


def oneself(path: str) -> dict[str, Any]:
    from tests.support import faults  # noqa: F401 - which tries sockets of its own

    local_ports(50001, 50001)
    return told(load(path, "http://127.0.0.1:50001", 5, 1, first_token=1))


if __name__ == "__main__":
    if sys.argv[1] != "files":
        loopback_up()
    print(json.dumps({"files": files, "ports": ports, "oneself": oneself}[sys.argv[1]](*sys.argv[2:])))
