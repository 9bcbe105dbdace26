"""`loadbench compare`: two folders in, a verdict out; what cannot be compared is one line or no verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result

from loadbench import store
from loadbench.compare import NAMES
from tests.support.command import invoke
from tests.support.compared import folder

pytestmark = pytest.mark.system


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of a server as it was (a, c), 20 % slower (slower), of another setting (other) and one that fails."""
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "a")
    folder(tmp_path / "c", seed=3)
    folder(tmp_path / "slower", 1.2, seed=2)
    folder(tmp_path / "other", seed=4, info={"parameters": {"max_tokens": 32}})
    folder(tmp_path / "failing", seed=5, failing=0.3)
    return tmp_path


def compare(*words: object) -> Result:
    return invoke("compare", *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("a slower", ["● slower is slower than a."]),
        ("a c --metric ttft --metric e2e", ["● c is the same as a within 10%."]),
        # What cannot be told leaves the others the same, and is named.
        ("a c --metric ttft --metric ttft_p99", ["● c is the same as a within 10%; open: TTFT p99."]),
        ("a eight --metric ttft --margin 12%", ["the same as"]),
        ("a eight --metric ttft --margin 4%", ["is slower than"]),
        # Surely slower, but within the margin.
        ("a four --metric ttft --metric tpot", ["● four is the same as a within 10%. slightly slower: TTFT +"]),
        ("old/run new/run", ["● new/run is slower than old/run."]),
        ("a other", ["● no verdict on other against a.", "max_tokens differs, 16 against 32", "( ) = no verdict"]),
        (
            "a failing",
            [
                "no verdict on TTFT, TTFT p95, TPOT, E2E, tokens/s (red: V4 failures of NEW)",
                "! V4 failures red (c1): NEW:",
            ],
        ),
    ],
)
def test_a_verdict_is_no_failure_and_says_what_it_rests_on(runs: Path, words: str, said: list[str]) -> None:
    folder(runs / "eight", 1.08, seed=6)
    folder(runs / "four", 1.04, seed=6)
    folder(runs / "old" / "run")
    folder(runs / "new" / "run", 1.2, seed=2)
    done = compare(*words.split())
    printed = " ".join(done.stdout.split())

    assert done.exit_code == 0, done.output
    assert [one for one in said if one not in printed] == []


def test_runs_of_one_folder_share_the_earlier_ones_and_each_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(1, 5):
        folder(tmp_path / str(day), seed=day, info={"start": f"2026-01-0{day}T00:00:00+00:00"})
    seen: list[str] = []
    read = store.read
    monkeypatch.setattr(store, "read", lambda path: seen.append(path.name) or read(path))

    done = compare(tmp_path / "3", tmp_path / "4", "--metric", "ttft")

    assert (done.exit_code, sorted(seen)) == (0, ["1", "2", "3", "4"])


@pytest.mark.parametrize("words", ["--base a c slower", "a c slower"])
def test_every_new_folder_is_compared_with_the_base(runs: Path, words: str) -> None:
    done = compare(*words.split(), "--metric", "ttft", "--format", "json")

    found = json.loads(done.stdout)["comparisons"]
    assert [(one["base"]["name"], one["new"]["name"], one["word"]) for one in found] == [
        ("a", "c", "same"),
        ("a", "slower", "slower"),
    ]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["slower", "--fail-on", "slower"], 3),
        (["slower", "--fail-on", "faster"], 0),
        (["c", "--fail-on", "slower"], 0),
        (["c", "--fail-on", "can't-tell"], 0),  # without a failure nobody waits for a word on shares
        (["c", "--metric", "ttft", "--metric", "ttft_p99", "--fail-on", "can't-tell"], 3),  # 100 requests have no p99
        (["c", "--metric", "ttft", "--metric", "ttft_p99", "--fail-on", "slower,can't tell"], 3),
        (["c", "--metric", "ttft", "--fail-on", "same"], 3),
        (["c", "--strict"], 0),
        (["c", "--metric", "ttft", "--metric", "ttft_p99", "--strict"], 3),
        (["c", "--metric", "ttft", "--strict"], 0),
        (["failing", "--metric", "failed", "--fail-on", "slower"], 3),  # worse is slower, of shares
        (["other"], 0),
        (["other", "--fail-on", "slower"], 3),  # what cannot be judged does not pass
        (["other", "--strict"], 3),
        (["other", "--metric", "ttft", "--expect", "max_tokens", "--strict"], 0),
    ],
)
def test_the_exit_code_is_that_of_the_verdict_where_one_asks_for_it(runs: Path, words: list[str], code: int) -> None:
    done = compare("a", *words)

    assert done.exit_code == code, done.output


@pytest.mark.parametrize(("runs_a_side", "says"), [(1, "one run a side"), (2, "2 runs a side"), (3, "")])
def test_a_build_that_fails_by_fewer_than_three_pairs_is_told_so(runs: Path, runs_a_side: int, says: str) -> None:
    for side, slower in (("before", 1.0), ("after", 1.2)):
        for i in range(runs_a_side):
            folder(runs / side / str(i), slower, seed=i)

    done = compare("before", "after", "--metric", "ttft", "--fail-on", "slower")

    assert done.exit_code == 3, done.output
    assert (f"--fail-on rests on {says}" in done.stderr) is bool(says)


def test_a_folder_of_folders_is_one_side_of_so_many_runs(runs: Path) -> None:
    for i in range(3):
        folder(runs / "before" / str(i), seed=i)
        folder(runs / "after" / str(i), 1.2, seed=10 + i)

    done = compare("before", "after", "--format", "json")

    (record,) = json.loads(done.stdout)["comparisons"]
    assert (record["levels"][0]["runs_base"], record["levels"][0]["runs_new"]) == (3, 3)
    assert record["word"] == "slower"


def test_the_models_of_one_run_are_compared_with_its_first(runs: Path) -> None:
    folder(runs / "models", {"m@c1": 1.0, "q@c1": 1.2, "p@c1": 0.7})

    first = json.loads(compare("models", "--format", "json").stdout)["comparisons"]
    named = json.loads(compare("models", "--base-model", "q", "--format", "json").stdout)["comparisons"]

    assert [(one["base"]["name"], one["new"]["name"], one["word"]) for one in first] == [
        ("m", "q", "slower"),
        ("m", "p", "faster"),
    ]
    assert [(one["base"]["name"], one["new"]["name"]) for one in named] == [("q", "m"), ("q", "p")]


def test_the_report_of_a_run_holds_its_models_against_each_other(runs: Path) -> None:
    folder(runs / "models", {"m@c1": 1.0, "q@c1": 1.2})

    done = invoke("report", "models", "--full")

    (record,) = json.loads((runs / "models" / "summary.json").read_bytes())["models_compared"]
    assert (record["new"]["name"], record["word"]) == ("q", "slower")
    assert "q is slower than m: slower: TTFT +20%" in " ".join(done.stdout.split())
    assert "### Models against each other" in (runs / "models" / "report.md").read_text(encoding="utf-8")


def test_bounds_are_judged_by_their_attainment(runs: Path) -> None:
    done = compare("a", "slower", "--slo", "ttft_p95=230ms", "--format", "json")

    verdicts = json.loads(done.stdout)["comparisons"][0]["levels"][0]["verdicts"]
    assert {one["metric"]: one["word"] for one in verdicts}["attainment"] == "worse"


@pytest.mark.parametrize(("kind", "begins"), [("markdown", b"## loadbench: slower against a"), ("json", b"{")])
def test_a_file_takes_the_place_of_stdout(runs: Path, kind: str, begins: bytes) -> None:
    done = compare("a", "slower", "--format", kind, "-o", "out")

    assert done.output == ""
    assert (runs / "out").read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a", "nowhere"], "nowhere: no such run folder"),
        (["a"], "a: has one model, m: give a second run folder"),
        (["a", "a"], "a: is BASE and NEW at once"),
        (["a", "c", "--metric", "speed"], "no verdict on 'speed': write a metric"),
        (["a", "c", "--expect", "weather"], f"write one of {', '.join(NAMES)}"),
        (["a", "c", "--slo", "speed>1"], "unknown metric"),
        (["a", "c", "--margin", "0"], "a margin of 0"),
        (["a", "c", "--margin", "wide"], "write a share as 20% or 0.2"),
        (["a", "c", "--fail-on", "sluggish"], "'sluggish': write slower, worse"),
        (["a", "c", "--base-model", "m"], "--base-model is for the models of one run"),
        (["models", "--base-model", "z"], "has no such model, it has m, q"),
        (["a", "two"], "no level in common: BASE a has m at c1; NEW two has m at c2"),
        (["a", "empty"], "empty: is no run folder, and holds none"),
        (["a", "cut"], "cut: no level of it ran to its end"),
    ],
)
def test_what_cannot_be_compared_is_one_line(runs: Path, words: list[str], says: str) -> None:
    folder(runs / "models", {"m@c1": 1.0, "q@c1": 1.0})
    folder(runs / "two", {"m@c2": 1.0})
    folder(runs / "cut", status="interrupted")
    (runs / "empty").mkdir()

    done = compare(*words)

    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
