"""The child's side of the protocol, in this process, with an SDK that is none."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from loadbench.errors import TargetError
from loadbench.serve.foundry import __main__ as child
from loadbench.serve.foundry.sdk import Hung


class Sdk:
    """Does what its calls are named after."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def path(self, model: str) -> str:
        return f"/models/{model}"

    def load(self, model: str) -> None:
        raise TargetError(f"{model} is not downloaded yet")

    def unload(self, model: str) -> None:
        raise RuntimeError("what nobody foresaw")

    def remove(self, model: str) -> None:
        assert self.let_go.wait(10)

    def pull(self, model: str, progress: Callable[[float], None], cancelled: threading.Event) -> None:
        if model == "hung":
            raise Hung("it hangs")
        progress(50.0)
        assert cancelled.wait(10)
        raise TargetError("cancelled")


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> Sdk:
    monkeypatch.setattr(child, "END_S", 0.1)
    return Sdk()


def answered(sdk: Sdk, patch: pytest.MonkeyPatch, *requests: dict[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    """What it says to these requests until its stdin ends, and whether all of it had ended."""
    said: list[dict[str, Any]] = []
    patch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(request) + "\n" for request in requests)))
    whole = child._answer(sdk, lambda **words: said.append(words))
    return said, whole


def test_requests_are_answered_one_by_one_by_their_numbers(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [{"id": i, "call": "path", "model": f"m{i}"} for i in (1, 2)]

    assert answered(sdk, monkeypatch, *asked) == (
        [{"id": 1, "result": "/models/m1"}, {"id": 2, "result": "/models/m2"}],
        True,
    )


def test_an_error_tells_its_kind_and_the_child_goes_on(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    said, _ = answered(
        sdk, monkeypatch, {"id": 1, "call": "load", "model": "m"}, {"id": 2, "call": "path", "model": "m"}
    )

    assert said[0] == {"id": 1, "error": "m is not downloaded yet", "kind": "TargetError"}
    assert said[1]["result"] == "/models/m"


def test_what_nobody_foresaw_is_told_as_the_sdks_failure(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    [said], _ = answered(sdk, monkeypatch, {"id": 1, "call": "unload", "model": "m"})

    assert said["error"] == "Foundry Local's SDK failed: RuntimeError: what nobody foresaw"
    assert said["kind"] == "LoadbenchError"


def test_a_cancel_goes_past_the_request_that_runs(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    said, whole = answered(sdk, monkeypatch, {"id": 1, "call": "pull", "model": "m"}, {"cancel": 1}, {"cancel": 7})

    assert said == [{"id": 1, "progress": 50.0}, {"id": 1, "error": "cancelled", "kind": "TargetError"}]
    assert whole


def test_the_end_of_stdin_cancels_a_download(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    said, whole = answered(sdk, monkeypatch, {"id": 1, "call": "pull", "model": "m"})

    assert (said[-1]["error"], whole) == ("cancelled", True)


def test_a_call_that_does_not_end_does_not_hold_the_end_off(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    said, whole = answered(sdk, monkeypatch, {"id": 1, "call": "remove", "model": "m"})
    sdk.let_go.set()

    assert (said, whole) == ([], False)


def test_a_download_that_hangs_is_told_and_ends_the_process(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(child.os, "_exit", codes.append)
    [said], _ = answered(sdk, monkeypatch, {"id": 1, "call": "pull", "model": "hung"})

    assert (said["error"], said["kind"], codes) == ("it hangs", "Hung", [1])
