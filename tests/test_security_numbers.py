"""Numbers, names and lists of a server that no run folder could hold: a run goes on, and its folder is read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from loadbench import store
from loadbench.server.facts import MOST, MOST_MODELS, model_facts, model_rows, whole
from tests.support.command import invoked
from tests.support.gateways import Answered, Asked, gateway
from tests.support.wire import event

HUGE = 2**53 + 1
CHAT = "/v1/chat/completions"


@contextlib.contextmanager
def served(answers: Mapping[str, bytes], server: str = "uvicorn") -> Iterator[str]:
    """A server with these answers by path."""

    def law(asked: Asked) -> Answered:
        body = answers.get(asked.path)
        kind = "text/event-stream" if asked.path == CHAT else "application/json"
        return Answered(404 if body is None else 200, body or b"", {"Content-Type": kind, "Server": server})

    with gateway(law) as there:
        yield there.url


def answer(**usage: Any) -> bytes:
    words = b"".join(event(word) for word in ("one ", "two ", "three"))
    return words + event("", "stop", usage=usage) + b"data: [DONE]\n\n"


def measured(url: str, folder: Path, *options: object) -> dict[str, Any]:
    """The only level of a run of four requests, of the summary that `report` reads from its folder anew."""
    ran = invoked("run", "-e", url, *options, "-o", folder, "-c", 1, "-n", 4, "--warmup", 0)
    assert ran.exit_code == 0, ran.output
    read = invoked("report", folder)
    assert read.exit_code == 0, read.output
    level: dict[str, Any] = json.loads((folder / "summary.json").read_bytes())["levels"][0]
    return level


EXTREME: dict[str, Any] = {
    "one more than a float holds": HUGE,
    "the largest of 64 bits": 2**64 - 1,
    "of thirty digits": int(1e30),
    "a float": 1e300,
    "less than none": -1,
}


@pytest.mark.parametrize("case", EXTREME)
def test_extreme_counts_of_a_server_are_not_told_and_its_folder_is_read(case: str, place: Path) -> None:
    n = EXTREME[case]
    model = {"id": "m", "max_model_len": n, "size": n, "meta": {"n_ctx": n, "size": n}}
    props = {"total_slots": n, "default_generation_settings": {"n_ctx": n}, "build_info": "b1"}
    answers = {
        "/v1/models": json.dumps({"data": [model]}).encode(),
        "/props": json.dumps(props).encode(),
        "/metrics": b"llamacpp:tokens_predicted_total 1e308\nllamacpp:tokens_predicted_total 1e308\n"
        b"llamacpp:requests_processing 1\n",
        CHAT: answer(prompt_tokens=n, completion_tokens=n, prompt_tokens_details={"cached_tokens": n}),
    }
    with served(answers, "llama.cpp") as url:
        level = measured(url, place / "run")

    run = store.read(place / "run")
    target = run.info["target"]
    assert (level["completed"], run.unreadable_lines, run.unreadable_samples) == (4, 0, 0)
    assert (target["slots"], target["models"][0]["context"], target["models"][0]["size_bytes"]) == (None, None, None)
    assert [sample["metrics"] for sample in run.samples[:1]] == [{"llamacpp:requests_processing": 1.0}]


def test_the_largest_counts_that_are_told_come_through_to_the_report(place: Path) -> None:
    model = {"id": "m", "max_model_len": MOST, "size": MOST}
    answers = {
        "/v1/models": json.dumps({"data": [model]}).encode(),
        CHAT: answer(prompt_tokens=MOST, completion_tokens=MOST),
    }
    with served(answers) as url:
        level = measured(url, place / "run")

    assert level["output_tokens"]["mean"] == MOST
    for form in ("text", "markdown", "csv", "json", "html", "hgrm", "vllm"):
        assert invoked("report", place / "run", "--format", form, "-o", place / f"as.{form}").exit_code == 0, form


LISTS: dict[str, Callable[[], bytes]] = {
    "of 22 MB": lambda: json.dumps({"data": [{"id": f"m{i}", "about": "x" * 5_000} for i in range(4_400)]}).encode(),
    "of 100,000 models": lambda: json.dumps({"data": [{"id": f"m{i}"} for i in range(100_000)]}).encode(),
    "nested a thousand deep": lambda: b'{"data": ' + b"[" * 1_000 + b"]" * 1_000 + b"}",
    "nested 5,000 deep": lambda: b"[" * 5_000 + b"]" * 5_000,
}


@pytest.mark.parametrize("case", LISTS)
def test_a_list_that_is_too_much_is_one_line_and_with_a_name_the_run_goes_on(case: str, place: Path) -> None:
    with served({"/v1/models": LISTS[case](), CHAT: answer()}) as url:
        automatic = invoked("run", "-e", url, "-m", "auto", "-o", place / "none", "--dry-run")
        level = measured(url, place / "run", "-m", "m1")

    assert automatic.exit_code == 1
    assert "name one with -m MODEL" in automatic.stderr
    assert len(automatic.stderr.splitlines()) == 1
    assert level["completed"] == 4


@pytest.mark.parametrize("depth", [60, 500, 1_000, 100_000])
def test_a_figure_that_is_nested_deep_is_left_out(depth: int, place: Path) -> None:
    deep = b'{"default_generation_settings": {"n_ctx": 4096}, "x": ' + b"[" * depth + b"]" * depth + b"}"
    with served({"/v1/models": b'{"data": [{"id": "m"}]}', "/props": deep, CHAT: answer()}, "llama.cpp") as url:
        measured(url, place / "run")

    assert store.read(place / "run").info["target"]["models"][0]["context"] is None


def test_a_name_of_ten_million_characters_is_none(place: Path) -> None:
    names = {"data": [{"id": "x" * 10_000_000}]}
    with served({"/v1/models": json.dumps(names).encode(), CHAT: answer()}) as url:
        ran = invoked("run", "-e", url, "--dry-run", "-o", place / "run")

    assert ran.exit_code == 1
    assert len(ran.stderr) < 1_000


@pytest.mark.parametrize("charset", ["zlib", "hex", "idna", "punycode", "undefined", "utf-7", "rot13", "no-such"])
def test_a_charset_that_is_no_coding_of_text_is_not_used(charset: str, place: Path) -> None:
    with gateway(lambda _: Answered(500, b"no\xff!", {"Content-Type": f"text/plain; charset={charset}"})) as there:
        ran = invoked("run", "-e", there.url, "--dry-run", "-o", place / "run")

    assert ran.exit_code == 1
    assert "answered 500 (no\ufffd!)" in ran.stderr


@pytest.mark.parametrize(
    ("told", "count"),
    [
        *((0, 0), (MOST, MOST), (MOST + 1, None), (12.0, 12), (1e30, None), (float("inf"), None), (float("nan"), None)),
        *((True, None), ("7", None), (None, None), (-1, None), (7.5, None)),
    ],
)
def test_a_whole_number_is_one_that_a_run_folder_holds(told: Any, count: int | None) -> None:
    assert whole(told) == count


def test_words_of_a_row_are_bounded_in_number_and_length() -> None:
    many = [f"w{i}" for i in range(1_000)]
    facts = model_facts({"id": "m", "aliases": many, "capabilities": ["x" * 1_000, *many], "quantization": "q" * 1_000})

    assert facts is not None
    assert (len(facts.aliases), len(facts.capabilities), facts.quantization) == (50, 50, None)


def test_a_further_list_of_too_many_rows_is_none() -> None:
    assert model_rows([{"id": "m"}] * (MOST_MODELS + 1)) is None
