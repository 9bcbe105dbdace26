"""The server's processes: found by their port, and added up as a tree."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from loadbench.server import is_loopback
from loadbench.telemetry.gpu import Figures

FORWARDERS = frozenset(
    {"caddy", "com.docker.backend", "docker-proxy", "envoy", "haproxy", "kubectl", "nginx", "pasta", "rootlessport"}
    | {"slirp4netns", "socat", "ssh", "traefik", "wslhost", "wslrelay"}
)
"""Programs that pass connections on: who listens is not who computes."""
_ANY = {"0.0.0.0", "::"}


@dataclass(frozen=True, slots=True)
class Reading:
    """One process at a moment.

    Attributes:
        identity: Equal for the same process alone: its number may be given to another one.
        parent: Its parent's number, where that is cheap to learn.
        cpu_s: What it used itself, user and system.
        reaped_s: What its children used that ended and that it waited for; 0 where systems do not count it.
        ended: It is over and its parent has not noticed yet: only its CPU time still exists.
    """

    identity: object
    parent: int | None
    cpu_s: float
    reaped_s: float
    memory_bytes: int
    threads: int
    ended: bool


def read(pid: int) -> Reading | None:
    """Look at a process; None where there is none.

    Raises:
        psutil.AccessDenied: It is another user's, and this system shows nothing of those.
    """
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times, memory_bytes = process.cpu_times(), process.memory_info().rss
            return Reading(
                identity=process,  # psutil compares by number and start, on a clock that is never set
                parent=process.ppid() if sys.platform == "linux" else None,
                cpu_s=times.user + times.system,
                reaped_s=getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0),
                memory_bytes=memory_bytes,
                threads=process.num_threads(),
                # One that is killed gives its memory back a moment before it is a zombie.
                ended=process.status() == psutil.STATUS_ZOMBIE or not memory_bytes,
            )
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None


def descendants(pids: Iterable[int], proc: Path = Path("/proc")) -> set[int]:
    """Children of these processes, and theirs.

    Most Linux kernels list a process's children; elsewhere all processes are looked at, 20 us each.
    """
    found: set[int] = set()
    if (proc / f"self/task/{os.getpid()}/children").exists():
        todo = list(pids)
        while todo:
            # Children are listed by the thread that started them; a thread may end meanwhile.
            tasks = proc / f"{todo.pop()}/task"
            try:
                threads = os.listdir(tasks)
            except OSError:
                continue
            for thread in threads:
                with contextlib.suppress(OSError):
                    children = (tasks / thread / "children").read_text(encoding="ascii")
                    fresh = {int(word) for word in children.split()} - found
                    found |= fresh
                    todo += fresh
        return found
    for pid in pids:
        if pid not in found:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                found |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
    return found


class ProcessTree:
    """A process with all that it started, as long as it lives.

    A process once seen in the tree stays in it, also when its parent ends and the system gives it another one.

    Args:
        look: Reads a process.
        below: Finds the descendants of processes.
    """

    def __init__(
        self,
        pid: int,
        look: Callable[[int], Reading | None] = read,
        below: Callable[[Iterable[int]], set[int]] = descendants,
    ) -> None:
        self._pid, self._look, self._below = pid, look, below
        self._last: dict[int, Reading] = {}
        self._unclaimed_s: dict[int, float] = defaultdict(float)
        self._cpu_s = 0.0
        self._identity: object = None
        with contextlib.suppress(psutil.AccessDenied):
            root = look(pid)
            self._identity = root and root.identity

    @property
    def pids(self) -> frozenset[int]:
        """The processes of the last sample."""
        return frozenset(self._last)

    def sample(self) -> Figures | None:
        """The "server" of a sample; None once the root has ended, and where processes may not be looked at.

        cpu_s never falls: it keeps what ended children used.
        """
        if self._identity is None:
            return None
        try:
            root = self._look(self._pid)
            if root is None or root.ended or root.identity != self._identity:
                self._identity, self._last = None, {}
                return None
            now = {self._pid: root}
            for pid in self._last.keys() - {self._pid}:
                reading = self._look(pid)
                if reading is not None and reading.identity == self._last[pid].identity:
                    now[pid] = reading
            for pid in self._below(list(now)) - now.keys():
                if (reading := self._look(pid)) is not None:
                    now[pid] = reading
        except psutil.AccessDenied:
            return None
        self._cpu_s += self._used_s(now)
        self._last = now
        processes = memory_bytes = threads = 0
        for reading in now.values():
            if not reading.ended:
                processes += 1
                memory_bytes += reading.memory_bytes
                threads += reading.threads
        cpu_s = round(self._cpu_s, 2)
        return {"processes": processes, "memory_bytes": memory_bytes, "cpu_s": cpu_s, "threads": threads}

    def _used_s(self, now: dict[int, Reading]) -> float:
        """CPU seconds since the last sample.

        Where a parent waits for its child, the child's seconds move to the parent's `reaped_s`, whole: also those
        after our last look at it, and those of children that came and went between two looks. What we had counted
        of such a child already is taken off, in this sample or a later one, since parent and child are not read in
        the same instant.
        """
        before = {pid: old for pid, old in self._last.items() if pid in now and now[pid].identity == old.identity}
        for pid, gone in self._last.items():
            if pid not in before and gone.parent in before:
                self._unclaimed_s[gone.parent] += gone.cpu_s + gone.reaped_s
        used_s = 0.0
        for pid, reading in now.items():
            own_s, reaped_s = reading.cpu_s, reading.reaped_s
            if pid in before:
                own_s -= before[pid].cpu_s
                reaped_s -= before[pid].reaped_s
            counted_s = min(self._unclaimed_s[pid], reaped_s)
            self._unclaimed_s[pid] -= counted_s
            used_s += max(own_s, 0.0) + max(reaped_s - counted_s, 0.0)
        for pid in self._unclaimed_s.keys() - now.keys():
            del self._unclaimed_s[pid]
        return used_s


def find_pid(base_url: str) -> int | None:
    """The process on this machine that answers at a URL.

    Of several that share the port it is the one that started the others. None where the server is elsewhere, where
    the system does not tell (another user's process), where the listener only passes connections on, as for a server
    in a container, and where it is not clear which one answers.
    """
    parts = urlsplit(base_url)
    if not is_loopback(base_url):
        return None
    host = (parts.hostname or "").lower()
    port = parts.port
    if not port:
        port = 443 if parts.scheme == "https" else 80
    own = {"127.0.0.1", "::1"} if host.endswith("localhost") else {host}
    listeners = _listeners()
    # An address of its own wins over "all addresses".
    for addresses in (own, _ANY):
        pids = {pid for address, at, pid in listeners if address in addresses and at == port}
        if None in pids:
            return None
        if pids:
            with contextlib.suppress(psutil.Error):
                return _first(set(map(psutil.Process, pids)), addresses, port)
            return None
    return None


def _first(processes: set[psutil.Process], addresses: set[str], port: int) -> int | None:
    tops = []
    for process in processes:
        if process.name().removesuffix(".exe").lower() in FORWARDERS:
            return None
        if processes.isdisjoint(process.parents()):
            tops.append(process)
    if len(tops) != 1:
        return None
    # Of those that share one socket psutil names any one: its ancestors are asked themselves.
    first = tops[0]
    for ancestor in first.parents():
        if any(address in addresses and at == port for address, at, _ in _listening(ancestor)):
            first = ancestor
    return int(first.pid)


def _listeners() -> list[tuple[str, int, int | None]]:
    try:
        return _listening()
    except psutil.AccessDenied:  # macOS shows them process by process, one's own alone
        found = []
        for process in psutil.process_iter():
            found += _listening(process)
        return found


def _listening(process: psutil.Process | None = None) -> list[tuple[str, int, int | None]]:
    """Those of one process, where it may be looked at; of all processes where none is named."""
    if process is None:
        connections = psutil.net_connections("tcp")
    else:
        try:
            connections = process.net_connections("tcp")
        except psutil.Error:
            return []
    found = []
    for each in connections:
        if each.status == psutil.CONN_LISTEN:
            pid = each.pid if process is None else process.pid
            found.append((each.laddr.ip.removeprefix("::ffff:"), each.laddr.port, pid))
    return found
