"""Whatever a server does to a level: every request is counted and written, the level ends in time, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support import faulty_answers, faulty_streams
from tests.support.asking import seconds
from tests.support.faults import GRACE_S, PATHS, Endless, Load, kept, nothing_left_open
from tests.support.faulty_answers import FAILURES, SUCCESSES, TIMEOUTS
from tests.support.replay import HOLD, RECEIVE, Step, black_hole, nobody, serve
from tests.support.wire import WHOLE

IMPATIENT = seconds(connect=0.3, first_token=0.3, idle=0.3, total=0.6)


def all_scripts() -> list[Iterable[Step]]:
    """What every row of every table does, once; without those that send MBs, for which the others would wait."""
    tables = faulty_answers.TABLES | faulty_streams.TABLES
    earlier = [*SUCCESSES.values(), *(row[0] for row in FAILURES.values()), *(row[0] for row in TIMEOUTS.values())]
    return [script for script in (*(fault.script for fault in tables.values()), *earlier) if not is_large(script)]


def is_large(script: Iterable[Step]) -> bool:
    steps = script.then if isinstance(script, Endless) else script
    return sum(len(step) for step in steps if isinstance(step, bytes)) > (1000 if steps is not script else 1_000_000)


def at_random(seed: int) -> list[Iterable[Step]]:
    """All of them in an order of chance, behind two sound connections; later ones are sound too."""
    scripts = all_scripts()
    random.Random(seed).shuffle(scripts)
    sound: list[Step] = [RECEIVE, WHOLE, HOLD]
    return [sound, sound, *scripts, sound]


@pytest.mark.parametrize("path", PATHS)
def test_a_closed_loop_over_all_faults_counts_every_request_and_ends_in_time(path: str, tmp_path: Path) -> None:
    with nothing_left_open(), serve(*at_random(len(path))) as server:
        load = Load(server.url, IMPATIENT, requests=300, concurrency=32)
        took_s = load.run(path)
    kept(tmp_path / "run", load.results, load.progress)

    assert took_s < 302 / 32 * 2 * 0.9 + GRACE_S
    assert load.progress.issued == 300
    assert {None, "reset", "truncated", "protocol", "timeout_first_token", "http_5xx"} <= set(load.kinds())


def test_an_open_loop_over_all_faults_counts_what_it_dropped(tmp_path: Path) -> None:
    with nothing_left_open(), serve(*at_random(7)) as server:
        load = Load(server.url, IMPATIENT, requests=300, request_rate_per_s=200, max_streams=8)
        load.run("user stamps")
    kept(tmp_path / "run", load.results, load.progress)

    assert load.progress.dropped > 0
    assert load.progress.issued + load.progress.dropped == 300


def test_retries_over_all_faults_are_counted_as_requests_of_their_own(tmp_path: Path) -> None:
    with nothing_left_open(), serve(*at_random(8)) as server:
        load = Load(server.url, IMPATIENT, requests=150, concurrency=32, retries=1)
        load.run("user stamps")
    kept(tmp_path / "run", load.results, load.progress)

    assert load.progress.retried == sum(result.retry_of is not None for result in load.results) > 0
    assert load.progress.issued == 150 + load.progress.retried


@pytest.mark.parametrize("path", PATHS)
def test_a_level_that_is_cancelled_amid_all_faults_has_a_record_of_each_request(path: str, tmp_path: Path) -> None:
    def cancel(load: Load) -> None:
        if len(load.results) == 60:
            asyncio.get_running_loop().call_soon(running[0].cancel)

    running: list[asyncio.Task[None]] = []
    with nothing_left_open(), serve(*at_random(9)) as server:
        load = Load(server.url, IMPATIENT, requests=300, concurrency=16, on_result=cancel)

        async def run() -> None:
            running.append(asyncio.ensure_future(load.play(PATHS[path][0])))
            with contextlib.suppress(asyncio.CancelledError):
                await running[0]

        with asyncio.Runner(loop_factory=PATHS[path][1]) as runner:
            runner.run(run())
    kept(tmp_path / "run", load.results, load.progress)

    assert load.progress.cancelled > 0
    assert 60 < load.progress.issued < 300


# -- servers that are not there


def test_a_level_against_a_closed_port_ends_after_fifty_failures(tmp_path: Path) -> None:
    with nothing_left_open(), nobody() as url:
        load = Load(url, IMPATIENT, requests=1000, concurrency=4)
        took_s = load.run("user stamps")
    kept(tmp_path / "run", load.results, load.progress)

    assert set(load.kinds()) == {"connect"}
    assert load.progress.issued < 60
    assert took_s < GRACE_S


def test_a_level_against_a_full_listen_queue_ends_within_its_time_outs(tmp_path: Path) -> None:
    with nothing_left_open(), black_hole() as url:
        load = Load(url, seconds(connect=0.05), requests=20, concurrency=10)
        took_s = load.run("user stamps")
    kept(tmp_path / "run", load.results, load.progress)

    assert set(load.kinds()) == {"timeout_connect"}
    assert took_s < 22 * 0.05 + GRACE_S


class Mortal:
    """A server on the client's own loop that can be killed, and started again on its port."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
                writer.write(WHOLE)
        writer.close()

    def kill(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@pytest.mark.parametrize("path", PATHS)
def test_a_server_that_is_killed_and_started_again_costs_the_requests_between(path: str, tmp_path: Path) -> None:
    server, tasks = Mortal(), set()

    def act(load: Load) -> None:
        kinds = load.kinds()
        if len(load.results) == 20:
            server.kill()
        elif kinds["connect"] == 5 and not tasks:
            tasks.add(asyncio.ensure_future(server.start()))

    async def run() -> Load:
        await server.start()
        load = Load(f"http://127.0.0.1:{server.port}", seconds(), 60, request_rate_per_s=100, on_result=act)
        try:
            await load.play(PATHS[path][0])
        finally:
            server.kill()
            await asyncio.sleep(0.01)
        return load

    with nothing_left_open(), asyncio.Runner(loop_factory=PATHS[path][1]) as runner:
        load = runner.run(run())
    kept(tmp_path / "run", load.results, load.progress)

    assert load.kinds()["connect"] >= 5
    assert set(load.kinds()) <= {None, "connect", "reset", "truncated"}
    assert [result.error for result in load.results[-5:]] == [None] * 5
