"""A small run folder as a run writes it, and whatever is read of such a folder, in one call."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import orjson

from loadbench import compare, quality, report, select, store
from loadbench.errors import LoadbenchError
from loadbench.report import exports
from loadbench.store.files import read_info
from loadbench.store.folder import RunFolder
from loadbench.store.histogram import Histogram
from loadbench.store.record import Result

EXAMPLE = Path(__file__).parents[2] / "results" / "example"
LEVELS, REQUESTS, SAMPLES = 2, 10, 5
LINES = ("requests.jsonl", "telemetry.jsonl", "answers.jsonl", "scores.jsonl")


class Files(dict[str, bytes]):
    """The files of a folder by name; shown by their names alone."""

    def __repr__(self) -> str:
        return f"Files({', '.join(self)})"


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLE / name).read_bytes().splitlines()]


def make(path: Path) -> Files:
    """Two levels of the example, with the first requests of each, in a folder of its own: its files by name."""
    info = read_info(EXAMPLE)
    given = {name: value for name, value in info.items() if name not in ("levels", "models", "probes", "status")}
    given |= {"target_found": "as given", "target": {**info["target"], "base_url": "http://127.0.0.1:1/v1"}}
    rules = [
        "failed > 10%",
        "dropped > 1%",
        "success < 90%",
        "ttft_p95{c1} > 9s",
        {"if": "e2e_p50 > 9s", "abort": True},
    ]
    given["scenario"] = {**info["scenario"], "fail_if": rules}
    folder = RunFolder.create(path, given)
    folder.info |= {"models": info["models"], "probes": info["probes"]}
    records, samples = lines("requests.jsonl"), lines("telemetry.jsonl")
    for level in info["levels"][:LEVELS]:
        folder.begin({name: level[name] for name in level if name not in ("attempt", "status", "began")})
        histograms = {name: Histogram() for name in store.files.HISTOGRAMS}
        for record in [one for one in records if one["level"] == level["id"]][:REQUESTS]:
            folder.add(Result(**record, text=f"An answer, {record['request'] % 3}."))
            histograms["itl"].record_many(record["gaps_us"])
            histograms["client_lag"].record(record["request"])
        for sample in [one for one in samples if one["level"] == level["id"]][:SAMPLES]:
            folder.add_sample(sample)
        offered = REQUESTS - level["warmup_requests"]
        folder.end({**level, "attempt": 1, "offered": offered}, histograms)
    folder.close("complete")
    (path / "prompts.json").write_bytes((EXAMPLE / "prompts.json").read_bytes())
    quality.append(path, scores(path))
    scored = quality.summarise(quality.read(path), quality.read_scores(path)[0])
    (path / "scores.json").write_bytes(msgspec.json.encode(scored))
    (path / "summary.json").write_bytes(orjson.dumps(select.summarise(store.read(path))))
    return Files((file.name, file.read_bytes()) for file in sorted(path.iterdir()))


def scores(path: Path) -> list[quality.Score]:
    return [
        quality.Score(one.row, one.prompt, one.model, "hand", "ann", "2026-11-22T10:15:00Z", 1 + number % 5)
        for number, one in enumerate(quality.read(path).answers)
    ]


def put(path: Path, files: dict[str, bytes]) -> None:
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name).write_bytes(content)


def read_all(path: Path, whole: Path, *, page: bool = False) -> dict[str, Any]:
    """Everything that is read of a folder: its summary, after all reports, exports, comparisons, choices and scores.

    Args:
        path: The folder.
        whole: Another one, of the same run, to compare with.
        page: report.html too, which takes a second.

    Raises:
        LoadbenchError: The folder is refused.
    """
    run = store.read(path)
    summary = select.summarise(run)
    for name, render in report.FORMATS.items():
        if name != "html" or page:
            assert render(summary)
    for kind in exports.FORMATS:
        with suppress(LoadbenchError):  # nothing was measured there
            exports.files(kind, run, summary)
    for read in (_compared, _chosen, _scored):
        with suppress(LoadbenchError):
            read(path, whole)
    return summary


def _compared(path: Path, whole: Path) -> None:
    base, new = (compare.gather([store.read(folder)], folder.name) for folder in (whole, path))
    document = compare.document([compare.compare_runs(base, new)])
    for render in report.COMPARISONS.values():
        render(document)


def _chosen(path: Path, whole: Path) -> None:
    found = [select.read(folder) for folder in (whole, path)]
    record = select.choose(select.candidates(found), found)
    for render in report.CHOICES.values():
        render(record)


def _scored(path: Path, whole: Path) -> None:
    given, unreadable = quality.read_scores(path)
    msgspec.json.encode(
        quality.summarise(quality.read(path), given, unreadable_scores=unreadable, against=quality.read(whole))
    )
