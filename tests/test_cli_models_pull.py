"""`loadbench models pull`: progress, stalls, further tries, a full disk, Ctrl-C; from a server and by the SDK."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from loadbench.cli import download
from loadbench.cli.download import by_sdk, check_space, persist
from loadbench.errors import LoadbenchError, TargetError
from loadbench.server import ModelFacts, NotReady
from tests.support.catalogues import PHI_CPU, PHI_GPU, Service, serving
from tests.support.command import invoke, models
from tests.support.sdk import FOREVER, FakeRuntime, install
from tests.support.terminals import on_terminal

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("place", "no_foundry")]

NEW = "new:1b"


def layer(completed: int) -> dict[str, Any]:
    return {"status": "pulling", "digest": "a", "total": 1000, "completed": completed}


WHOLE = [{"status": "pulling manifest"}, *map(layer, range(0, 1001, 50)), {"status": "success"}]
BROKEN = [layer(300)]


@pytest.fixture
def ollama() -> Iterator[Service]:
    with serving("ollama", rows={"zephyr:7b": {"size": 4_000_000_000}}) as service:
        yield service


# -- from a server


def test_a_pipe_gets_a_line_each_ten_per_cent(ollama: Service) -> None:
    ollama.pulls = [WHOLE]
    done = models("pull", NEW, "-e", ollama.url)
    said = [line.split(",")[0] for line in done.stderr.splitlines()[1:]]

    assert done.exit_code == 0
    assert said == ["new:1b: pulling manifest", *(f"new:1b: {percent} %" for percent in range(0, 101, 10))]
    assert done.stdout.startswith("new:1b: pulled in ")


def test_what_is_there_already_is_not_fetched(ollama: Service) -> None:
    done = models("pull", "zephyr:7b", "-e", ollama.url)

    assert (done.exit_code, done.stdout) == (0, "zephyr:7b: there already\n")
    assert "POST /api/pull" not in ollama.asked


def test_json_lines_tell_the_progress_and_the_end(ollama: Service) -> None:
    ollama.pulls = [WHOLE]
    done = models("pull", NEW, "-e", ollama.url, "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]

    assert done.stderr == ""
    assert {one["model"] for one in events} == {NEW}
    assert [one["percent"] for one in events if one["event"] == "progress"][-1] == 100.0
    assert (events[-1]["event"], events[-1]["already"]) == ("pulled", False)


def test_a_download_that_breaks_off_is_told_and_tried_again(ollama: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_S", 0.01)
    ollama.pulls = [BROKEN, WHOLE]
    done = models("pull", NEW, "-e", ollama.url)

    assert done.exit_code == 0
    assert "the download broke off before its end; trying again in 0.01 s (2 of 4)" in done.stderr


def test_one_model_that_is_not_there_leaves_the_others(ollama: Service) -> None:
    ollama.pulls = [[{"error": "pull model manifest: file does not exist"}], WHOLE]
    done = models("pull", "none", NEW, "-e", ollama.url)

    assert done.exit_code == 1
    assert "loadbench: none: there is no such model" in done.stderr
    assert NEW in ollama.rows


def test_a_service_that_downloads_nothing_is_refused_where_it_was_named() -> None:
    with serving("foundry1") as service:
        done = models("pull", "phi-4-mini", "-e", service.url)

    assert done.exit_code == 1
    assert "downloads through its SDK alone: leave out -e" in done.stderr


def test_a_person_sees_a_bar_until_it_is_there(ollama: Service) -> None:
    ollama.pulls = [WHOLE]
    code, screen = on_terminal("models", "pull", NEW, "-e", ollama.url)

    assert code == 0
    assert "100%" in screen
    assert screen.rstrip().splitlines()[-1].startswith("new:1b: pulled in ")


def test_ctrl_c_ends_a_download(ollama: Service) -> None:
    ollama.pulls = [[layer(300), {"hold": True}]]
    code, screen = on_terminal("models", "pull", NEW, "-e", ollama.url, until="30%")

    assert code == 130
    assert "interrupted" in screen
    assert NEW not in ollama.rows


# -- further tries


class Shown:
    def __init__(self) -> None:
        self.percents: list[float | None] = []
        self.notes: list[str] = []

    def at(self, percent: float | None, words: str) -> None:
        self.percents.append(percent)

    def note(self, text: str) -> None:
        self.notes.append(text)


Fetch = Callable[[Callable[[float | None, str], None]], Any]


def tried(*fetches: Fetch) -> tuple[Shown, list[float], LoadbenchError | None]:
    """What a person is shown, the pauses, and the error, of a download whose tries are these."""
    shown, pauses, left = Shown(), [], list(fetches)

    async def fetch(moved: Callable[[float | None, str], None]) -> None:
        await left.pop(0)(moved)

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    try:
        anyio.run(lambda: persist(fetch, shown, sleep=sleep))
    except LoadbenchError as error:
        return shown, pauses, error
    return shown, pauses, None


async def breaks(moved: Callable[[float | None, str], None]) -> None:
    moved(40.0, "")
    raise NotReady("connection lost")


async def works(moved: Callable[[float | None, str], None]) -> None:
    moved(100.0, "")


async def refuses(moved: Callable[[float | None, str], None]) -> None:
    moved(40.0, "")
    raise TargetError("no such model")


def test_pauses_between_tries_grow() -> None:
    _, pauses, error = tried(breaks, breaks, breaks, works)

    assert error is None
    assert pauses == [2.0, 4.0, 8.0]


def test_after_four_tries_it_is_given_up() -> None:
    _, _, error = tried(breaks, breaks, breaks, breaks)

    assert str(error) == "connection lost; given up after 4 tries: try later"


def test_what_no_try_can_mend_is_not_tried_again() -> None:
    _, pauses, error = tried(refuses)

    assert (str(error), pauses) == ("no such model", [])


def test_what_is_tried_again_is_told_and_its_progress_goes_on() -> None:
    shown, _, error = tried(breaks, works)

    assert error is None
    assert shown.notes == ["connection lost; trying again in 2 s (2 of 4)"]
    assert shown.percents == [40.0, 100.0]


# -- by the SDK


def test_device_and_provider_choose_the_variant_and_its_megabytes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime([replace(PHI_CPU, cached=False), PHI_GPU], downloads=[[0.0, 50.0, 100.0]])
    install(monkeypatch, runtime)
    done = models("pull", "phi-4-mini", "--device", "gpu", "--ep", "cuda")

    assert done.exit_code == 0
    assert "cuda-gpu:5: 50 % (1.85 GB of 3.70 GB)" in done.stderr
    assert [one.id for one in runtime.facts if one.cached] == [PHI_GPU.id]


def test_a_device_without_a_variant_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRuntime([PHI_CPU]))
    done = models("pull", "phi-4-mini", "--device", "npu")

    assert done.exit_code == 1
    assert "npu" in done.stderr.lower()


def test_a_variant_that_is_cached_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRuntime([PHI_CPU, PHI_GPU]))
    done = models("pull", "phi-4-mini", "--device", "cpu", "--json")

    assert json.loads(done.stdout)["already"] is True


def test_what_the_sdk_cannot_fetch_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRuntime([PHI_GPU], downloads=[[0.0, TargetError("no network")]]))
    done = models("pull", PHI_GPU.id)

    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == f"loadbench: {PHI_GPU.id}: no network"


def test_a_service_that_was_found_leaves_downloads_to_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRuntime([PHI_GPU], downloads=[[100.0]]))
    with serving("foundry2") as service:
        done = models("pull", PHI_GPU.id, FOUNDRY_LOCAL_ENDPOINT=service.url)

    assert done.exit_code == 0


def test_a_cancelled_download_is_told_to_the_sdk_and_waited_for() -> None:
    runtime = FakeRuntime([PHI_GPU], downloads=[[10.0, FOREVER]])

    async def run() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(by_sdk, runtime, PHI_GPU.id, Shown())
            await anyio.to_thread.run_sync(runtime.waiting.wait)
            group.cancel_scope.cancel()

    anyio.run(run)

    assert runtime.cancelled == [PHI_GPU.id]


def test_a_model_larger_than_the_free_disk_is_refused_before_a_byte(tmp_path: Path) -> None:
    with pytest.raises(LoadbenchError, match=r"needs 3\.70 GB, but the disk of .* has 1\.00 GB free.*--cache-dir"):
        check_space(PHI_GPU, tmp_path / "not" / "yet", free=lambda folder: 1_000_000_000)


def test_a_model_whose_size_nobody_told_is_not_refused(tmp_path: Path) -> None:
    check_space(ModelFacts("m"), tmp_path, free=lambda folder: 0)


# -- the views


def test_lines_tell_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 0.0, 30.0, 100.0])
    lines = download.Shown(PHI_GPU, as_json=False, now_s=lambda: next(now))
    for percent in (0.0, 25.0, 50.0):
        lines.at(percent, "")

    assert capsys.readouterr().err.splitlines()[1].endswith("25 % (925 MB of 3.70 GB), about 1:30 left")


def test_json_lines_tell_each_per_cent_once(capsys: pytest.CaptureFixture[str]) -> None:
    view = download.Shown(PHI_GPU, as_json=True)
    for percent in (1.0, 1.4, 1.9, 2.0):
        view.at(percent, "")

    assert len(capsys.readouterr().out.splitlines()) == 2


def test_no_name_at_all_is_a_usage_error() -> None:
    assert invoke("models", "pull").exit_code == 2
