"""What the errors of Foundry Local's SDK become: one line that says what to do."""

from __future__ import annotations

import pytest

from loadbench.errors import LoadbenchError, TargetError
from loadbench.serve.foundry.sdk import Busy, not_cached, on_load, on_serve, on_unload, plain, unknown, unreachable

PLACE = "model_load_manager.cc:88 std::string fl::Load(const std::map<int, std::string (*)(int)>&, int) "


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("net.cc:5 int f(int) no route", "no route"),
        (PLACE + "it broke (really)", "it broke (really)"),  # brackets in the signature, and in the message
        ("C:\\a\\model.cpp:7 void f() it broke", "it broke"),
        ("it broke:\n  in two\n  lines", "it broke: in two lines"),
        ("it broke", "it broke"),  # no place
        ("model.cc:5 it broke", "it broke"),  # no signature
        ("see model.cc:5 void f() there", "see model.cc:5 void f() there"),  # not at its beginning
        ("", ""),
    ],
)
def test_a_message_loses_its_place_in_the_source(message: str, expected: str) -> None:
    assert plain(message) == expected


@pytest.mark.parametrize(
    "told",
    [
        "std::bad_alloc",
        "bad allocation",
        "CUDA out of memory",
        "Failed to allocate memory for requested buffer of size 1",
        "Cannot allocate memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
    ],
)
def test_a_model_too_large_for_the_memory_is_told_as_such(told: str) -> None:
    error = on_load("big:1", PLACE + told)

    assert str(error).startswith("big:1 does not fit into memory: unload other models, or take a smaller model")
    assert str(error).endswith(f"({told})")


def test_a_provider_that_is_not_here_concerns_this_model_alone() -> None:
    error = on_load("phi-cuda-gpu:1", PLACE + "model requires CUDAExecutionProvider which is not registered")

    assert isinstance(error, TargetError)
    assert str(error).startswith("phi-cuda-gpu:1 needs CUDAExecutionProvider, which is not on this machine: install ")


def test_any_other_reason_not_to_load_is_passed_on() -> None:
    error = on_load("tiny:1", PLACE + "Protobuf parsing failed.")

    assert (type(error), str(error)) == (LoadbenchError, "tiny:1 cannot be loaded: Protobuf parsing failed.")


def test_a_model_that_answers_is_busy() -> None:
    error = on_unload("tiny:1", PLACE + "cannot unload: 2 session(s) still using it")

    assert isinstance(error, Busy)
    assert str(error) == "tiny:1 still answers 2 request(s): unload it when they have ended"


def test_any_other_reason_not_to_unload_is_passed_on() -> None:
    assert str(on_unload("tiny:1", "no")) == "tiny:1 cannot be unloaded: no"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("Failed to bind to 127.0.0.1:80", "port 80 of 127.0.0.1 is taken by another program: give another --port"),
        ("no threads", "Foundry Local's web service cannot start on port 80: no threads"),
    ],
)
def test_a_service_that_does_not_start_names_its_port(told: str, expected: str) -> None:
    assert str(on_serve(80, told)) == expected


def test_what_is_not_downloaded_says_how_to_get_it() -> None:
    assert str(not_cached("tiny:1")) == "tiny:1 is not downloaded yet: loadbench models pull tiny:1"


@pytest.mark.parametrize(
    ("catalogue", "where"), [(None, "catalogue cannot"), ("http://x", "catalogue at http://x cannot")]
)
def test_a_catalogue_out_of_reach_names_its_url_where_it_is_not_the_sdks_own(catalogue: str | None, where: str) -> None:
    assert str(unreachable(catalogue)).startswith(f"Foundry Local's {where} be reached, and none was read before: ")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("QWEN-cpu:1", "did you mean qwen-cpu:1?"),
        ("phi-4-cpu:2", "did you mean Phi-4-cpu:1 or phi-4-gpu:1?"),
        ("zzz", "see loadbench models list"),
    ],
)
def test_an_unknown_model_is_told_with_near_ones(name: str, hint: str) -> None:
    known = ["Phi-4-cpu:1", "phi-4-gpu:1", "qwen-cpu:1"]

    assert str(unknown(name, known)) == f"Foundry Local knows no model {name!r}; {hint}"
