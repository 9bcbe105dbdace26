"""Formats for machines: every row and column of the CSV, who gets which file a level, what others read of them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from loadbench.report import FORMATS, exports
from loadbench.report.exports import COLUMNS, rows
from loadbench.store.folder import RunFolder
from loadbench.store.histogram import Histogram, read_log
from loadbench.store.record import Result
from tests.support.command import invoke
from tests.support.streams import failed, stream
from tests.support.summaries import CASES, GOLDEN, summary_of, with_levels

# -- llama-bench


def test_llama_benchs_rows_have_what_a_server_tells_and_blanks_for_the_rest() -> None:
    summary = summary_of("closed_loop")
    level = {"input_tokens": {"mean": 511.6}, "output_tokens": {"mean": 128.0}, "model": "m|x"}
    level |= {"prefill_tokens_per_s": 900.0, "prefill_tokens_per_s_ci95": [880.0, 924.0]}
    level |= {"tokens_per_s_per_user": 40.0, "tokens_per_s_per_user_ci95": [None, 44.0]}
    summary["levels"] = [
        summary["levels"][0] | level | {"concurrency": 1},
        summary["levels"][0] | {"prefill_tokens_per_s": None},
    ]
    summary["run"]["target"] = {"kind": "llama.cpp", "models": [{"id": "m|x", "size_bytes": 3 * 2**30}]}

    head, rule, *lines = FORMATS["llama-bench"](summary).splitlines()

    cells = [[cell.strip() for cell in re.split(r" \| ", line.strip("| "))] for line in lines[:2]]
    assert [name.strip() for name in head.split("|")] == ["", "model", "size", "params", "backend", "test", "t/s", ""]
    assert rule.count("-:") == 4
    assert [(row[1], row[-2], row[-1]) for row in cells] == [
        ("3.00 GiB", "pp512", "900.00 ± 22.00"),
        ("3.00 GiB", "tg128", "40.00"),
    ]


# -- summary.csv

TEXT = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
TABLE = TEXT[TEXT.index("| column | holds |") : TEXT.index("## hgrm")]


def read(summary: dict[str, Any]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(FORMATS["csv"](summary))))


def test_every_column_and_unit_is_described_and_those_of_the_first_version_come_first() -> None:
    described = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]+) \|", TABLE, re.MULTILINE)))
    units = {row["unit"] for case in CASES for row in read(summary_of(case))}
    row = next(line for line in TABLE.splitlines() if line.startswith("| `unit`"))

    assert described == list(COLUMNS)
    assert len(units) > 8
    assert [unit for unit in units if f"`{unit}`" not in row] == []
    assert COLUMNS[:12] == (
        *("run", "model", "level", "concurrency", "request_rate_per_s", "metric", "statistic"),
        *("value", "unit", "n", "ci_low", "ci_high"),
    )


def test_each_row_of_a_level_has_the_levels_keys_and_the_device_that_ran() -> None:
    ran = {"id": "m", "device": "CPU", "execution_provider": "CPUExecutionProvider"}
    keys = {"repeat": 2, "closing": True, "status": "complete", "endpoint": "http://a/v1", "device": "GPU", "ran": ran}
    keys["endpoints"] = [{"url": "http://b/v1", "completed": 1}]
    rows = [row for row in read(with_levels(summary_of("closed_loop"), **keys)) if row["level"]]

    found = {tuple(row[name] for name in ("repeat", "closing", "status", "endpoint", "device")) for row in rows}
    assert found == {("2", "1", "complete", url, "CPU") for url in ("http://a/v1", "http://b/v1")}


ROWS = [
    # case, level or model, metric, statistic: value, unit, n, low and high
    ("tiny", "phi-4-mini@c1", "ttft_ms", "p50", ("11210.0", "ms", "2", "", "")),
    ("scored", "phi-4-mini@c1", "errors", "reset", ("1", "requests", "20", "", "")),
    ("scored", "phi-4-mini@c1", "finish_reasons", "stop", ("19", "requests", "19", "", "")),
    ("scored", "phi-4-mini@c1", "slo", "ttft_p95=800ms", ("0.95", "fraction", "20", "0.7639", "0.9911")),
    ("devices", "gpu:4@c8", "energy_j", "gpu+cpu", ("10900.0", "J", "", "", "")),
    ("devices", "gpu:4@c8", "server_memory_peak_bytes", "value", ("1401000000", "bytes", "", "", "")),
    ("devices", "gpu:4@c8", "throttled", "value", ("1", "flag", "", "", "")),
    ("devices", "gpu:4@c8", "gpu_memory_peak_bytes", "server", ("1260000000", "bytes", "", "", "")),
    ("whole_answers", "qwen3-4b@c2", "energy_j", "declared", ("25200.0", "J", "", "", "")),
    ("devices", "cpu:4", "load_s", "value", ("1.874", "s", "", "", "")),
    ("devices", "cpu:4", "first.ttft_ms", "value", ("702.5", "ms", "", "", "")),
    ("devices", "cpu:4", "first.cold", "value", ("1", "flag", "", "", "")),
    ("devices", "cpu:4", "gpu_memory_peak_bytes", "value", None),
]


@pytest.mark.parametrize(("case", "subject", "metric", "statistic", "row"), ROWS)
def test_a_figure_has_a_row_with_its_unit_n_and_interval_and_a_null_has_none(
    case: str, subject: str, metric: str, statistic: str, row: tuple[str, ...] | None
) -> None:
    slo = [{"bound": "ttft_p95=800ms", "attainment": 0.95, "attained": True, "n": 20, "ci95": [0.7639, 0.9911]}]
    changes = {"attempted": 20, "completed": 19, "errors": {"reset": 1}, "finish_reasons": {"stop": 19}, "slo": slo}
    summary = with_levels(summary_of("tiny"), **changes) if case == "scored" else summary_of(case)
    found = {}
    for each in read(summary):
        assert each["value"] != ""
        if (each["level"] or each["model"]).endswith(subject):
            cells = tuple(each[name] for name in ("value", "unit", "n", "ci_low", "ci_high"))
            found[each["metric"], each["statistic"]] = cells

    assert found.get((metric, statistic)) == row


@pytest.mark.parametrize("case", CASES)
def test_no_figure_has_two_rows_and_pandas_reads_the_values_as_numbers(case: str) -> None:
    keys = [(row["model"], row["level"], row["metric"], row["statistic"]) for row in read(summary_of(case))]
    assert len(keys) == len(set(keys))

    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(io.StringIO(FORMATS["csv"](summary_of(case))))

    assert list(frame.columns) == list(COLUMNS)
    assert all(frame[name].dtype.kind in "fi" for name in ("value", "n", "ci_low", "ci_high", "concurrency"))
    assert frame["value"].notna().all()
    assert len(frame) == len(list(rows(summary_of(case))))


def test_the_pandas_example_of_the_document_runs() -> None:
    pandas = pytest.importorskip("pandas")
    block = re.search(r"((?:^ {4}.*\n)*^ {4}figures = pd.read_csv.*\n(?:^ {4}.*\n)*)", TEXT, re.MULTILINE)
    assert block is not None
    code = "\n".join(line[4:] for line in block[1].splitlines())
    shown: list[Any] = []
    text = FORMATS["csv"](summary_of("closed_loop"))

    source = re.sub(r'read_csv\(".*?"\)', "read_csv(file)", code)
    exec(source, {"file": io.StringIO(text), "print": shown.append})

    assert shown[0].loc[1].notna().all()
    assert isinstance(shown[0], pandas.DataFrame)


# -- a file a level

# 40 requests, one after another: the first token after 200 to 239 ms, 32 tokens 20 ms apart.
REQUESTS = [stream(i, due=1000.0 * i, ttft=200.0 + i) for i in range(40)]


def run_of(path: Path, levels: Sequence[str], requests: Sequence[Result] = REQUESTS, **facts: Any) -> Path:
    """A run folder of closed levels with the same requests in each; levels are ids as m@c1."""
    info = {"name": "first", "scenario": {"name": "first"}, "target": {"kind": "llama.cpp"}}
    run = RunFolder.create(path, info)
    for level in levels:
        model, _, load = level.rpartition("@")
        closing = load.endswith("#end")
        concurrency = int(load.removesuffix("#end").removeprefix("c"))
        run.begin({"id": level, "model": model, "concurrency": concurrency, "closing": closing})
        for result in requests:
            run.add(_in(result, level))
        e2e = Histogram()
        e2e.record(1_000_000)
        run.end({"status": "complete", "duration_s": 41.0, "reason": None, **facts}, {"e2e": e2e})
    run.close("complete")
    return path


def _in(result: Result, level: str) -> Result:
    return replace(result, level=level)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(tmp_path_factory.mktemp("run") / "run", ["org/m@c1", "org/m@c4", "org/m@c1#end"])


def vllm(folder: Path) -> dict[str, Any]:
    done = invoke("report", folder, "--format", "vllm", "--level", "c1")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# Which files


def test_one_histogram_goes_to_stdout(folder: Path) -> None:
    done = invoke("report", folder, "--format", "hgrm", "--metric", "ttft", "--level", "c4")

    assert done.stdout.splitlines()[0] == "       Value     Percentile TotalCount 1/(1-Percentile)"
    assert "Total count    =           40]" in done.stdout


def test_several_histograms_go_into_a_folder_named_by_level_and_metric(folder: Path, tmp_path: Path) -> None:
    done = invoke("report", folder, "--format", "hgrm", "-o", tmp_path / "new" / "hgrm")

    names = {path.name for path in (tmp_path / "new" / "hgrm").iterdir()}
    assert done.exit_code == 0, done.output
    assert {"org-m@c1.ttft.hgrm", "org-m@c4.itl.hgrm", "org-m@c4.e2e.hgrm", "org-m@c1-end.tpot.hgrm"} <= names
    assert len(names) == 12


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "hgrm"], "12 files: name a folder for them with -o, or choose by --level and --metric"),
        (["--format", "hgrm", "--level", "c9"], "--level 'c9'"),
        (["--format", "hgrm", "--metric", "tftt"], "write one of ttft, ttft_from_sent, itl, tpot, e2e, client_lag"),
        (["--format", "hgrm", "--metric", "client_lag"], "nothing of client_lag was measured there"),
        (["--format", "vllm", "--metric", "ttft"], "--metric is for --format hgrm"),
        (["--format", "csv", "--level", "c4"], "--level is for --format hgrm and vllm, not for csv"),
        (["--format", "csv", "-o", "."], "is a folder; name a file with -o"),
        (["--format", "vllm", "-o", "run.json"], "is a file, and there are 2 to write"),
    ],
)
def test_what_cannot_be_written_is_one_line(folder: Path, words: list[str], said: str) -> None:
    words = [str(folder / word) if word in (".", "run.json") else word for word in words]
    done = invoke("report", folder, *words)

    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


@pytest.mark.parametrize(
    ("levels", "files"),
    [
        # names that become the same keep a file each; none leaves the folder
        (["a/b@c1", "a:b@c1", "A-b@c1"], {"a-b@c1.ttft.hgrm", "a-b@c1-2.ttft.hgrm", "a-b@c1-3.ttft.hgrm"}),
        (["../../outside@c1", "..\\windows@c1"], {"outside@c1.ttft.hgrm", "windows@c1.ttft.hgrm"}),
    ],
)
def test_a_file_is_named_by_its_level_and_stays_in_the_folder(
    tmp_path: Path, levels: list[str], files: set[str]
) -> None:
    folder = run_of(tmp_path / "run", levels)
    invoke("report", folder, "--format", "hgrm", "--metric", "ttft", "-o", tmp_path / "out")

    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}
    assert {path.name.lower() for path in (tmp_path / "out").iterdir()} == files


def test_what_no_log_holds_comes_from_the_records(folder: Path) -> None:
    # The level's .hlog has one E2E of a second and nothing of TTFT: as where a process died.
    ttft = invoke("report", folder, "--format", "hgrm", "--metric", "ttft", "--level", "c1").stdout
    e2e = invoke("report", folder, "--format", "hgrm", "--metric", "e2e", "--level", "c1").stdout

    assert "Total count    =           40]" in ttft
    assert "Total count    =            1]" in e2e


def test_the_closing_level_is_no_file_of_vllms_unless_it_is_named(folder: Path, tmp_path: Path) -> None:
    invoke("report", folder, "--format", "vllm", "-o", tmp_path / "all")
    named = invoke("report", folder, "--format", "vllm", "--level", "org/m@c1#end")

    assert {path.name for path in (tmp_path / "all").iterdir()} == {"org-m@c1.vllm.json", "org-m@c4.vllm.json"}
    assert json.loads(named.stdout)["loadbench_level"] == "org/m@c1#end"


# What vLLM's keys hold

# As vllm/benchmarks/serve.py (vllm-project/vllm) writes them without --save-detailed.
VLLM = {
    *("date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate"),
    *("burstiness", "max_concurrency", "duration", "completed", "failed", "total_input_tokens", "total_output_tokens"),
    *("request_throughput", "request_goodput", "output_throughput", "total_token_throughput"),
    *("max_output_tokens_per_s", "max_concurrent_requests"),
    *(f"{s}_{m}_ms" for s in ("mean", "median", "std", "p99") for m in ("ttft", "tpot", "itl", "e2el")),
}


def test_a_file_has_every_key_of_vllms_with_its_meaning(folder: Path) -> None:
    found = vllm(folder)

    ttft = np.arange(200.0, 240.0)
    assert VLLM - found.keys() == set()
    assert found["mean_ttft_ms"] == pytest.approx(ttft.mean())
    assert found["std_ttft_ms"] == pytest.approx(ttft.std())
    assert found["p99_ttft_ms"] == pytest.approx(np.percentile(ttft, 99))
    assert found["mean_tpot_ms"] == pytest.approx(20.0)
    assert found["median_e2el_ms"] == pytest.approx(219.5 + 31 * 20)
    assert found["duration"] == pytest.approx(39 + (239 + 31 * 20 + 5) / 1000)
    assert found["output_throughput"] == pytest.approx(40 * 32 / found["duration"])
    assert found["total_token_throughput"] == pytest.approx(40 * 42 / found["duration"])
    assert (found["max_concurrent_requests"], found["max_output_tokens_per_s"]) == (1, 32.0)
    # A closed loop has an endless rate and its streams; warnings go with the figures.
    assert (found["request_rate"], found["max_concurrency"], found["model_id"]) == ("inf", 1, "org/m")
    assert "V12 few-requests warn" in found["loadbench_doubts"]


def test_warm_up_is_out_failures_are_counted_and_tokens_that_nobody_counted_are_no_0(tmp_path: Path) -> None:
    requests = [stream(0, warmup=True, ttft=9000.0), *REQUESTS[1:], failed(40, due=41_000.0)]
    found = vllm(run_of(tmp_path / "run", ["m@c1"], requests))
    uncounted = [stream(i, due=1000.0 * i, usage=False) for i in range(5)]
    without = vllm(run_of(tmp_path / "uncounted", ["m@c1"], uncounted))

    assert (found["num_prompts"], found["completed"], found["failed"]) == (40, 39, 1)
    assert found["p99_ttft_ms"] < 240
    assert without.keys() & {"total_input_tokens", "total_token_throughput"} == set()
    assert without["total_output_tokens"] == 5 * 32  # of the events


# A reader of such files


def repetitions(path: Path, slower: float = 1.0) -> Path:
    """A folder of five result files, a run each."""
    path.mkdir()
    for number in range(5):
        requests = [
            stream(i, due=1500.0 * i, ttft=slower * (200.0 + (i * 7 + number) % 11), per_token=20.0) for i in range(40)
        ]
        run = run_of(path.parent / f"{path.name}-run{number}", ["m@c4"], requests)
        invoke("report", run, "--format", "vllm", "--level", "c4", "-o", path / f"{number}.json")
    return path


def test_inference_doctor_reads_every_figure(folder: Path, tmp_path: Path) -> None:
    adapters = pytest.importorskip("inference_doctor.adapters")
    invoke("report", folder, "--format", "vllm", "-o", tmp_path / "files")

    loaded = adapters.load_directory(tmp_path / "files")

    assert (loaded.format, len(loaded.records), loaded.ignored) == ("vllm", 2, [])
    result = loaded.records[0].result
    for stats in (result.metrics.ttft_ms, result.metrics.tpot_ms, result.metrics.itl_ms, result.metrics.e2el_ms):
        assert None not in (stats.mean, stats.median, stats.p95, stats.p99)
    metrics = result.metrics
    assert None not in (metrics.output_token_throughput, metrics.total_token_throughput, metrics.request_throughput)
    assert (metrics.requests.successful, metrics.requests.failed, result.failed_requests_reported) == (40, 0, True)
    assert result.environment.model == "org/m"


def test_inference_doctor_finds_the_slower_side(tmp_path: Path) -> None:
    cli = pytest.importorskip("inference_doctor.cli")
    from typer.testing import CliRunner

    base, slow = repetitions(tmp_path / "base"), repetitions(tmp_path / "slow", slower=1.5)
    words = ["compare-runs", "--metric", "ttft_mean_ms", "--baseline", str(base), "--candidate"]
    same = CliRunner().invoke(cli.app, [*words, str(base)])
    worse = CliRunner().invoke(cli.app, [*words, str(slow)])

    assert (same.exit_code, "PASS" in same.output) == (0, True), same.output
    assert (worse.exit_code != 0, "FAIL" in worse.output) == (True, True), worse.output


def test_every_format_is_described() -> None:
    text = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")

    assert [name for name in (*FORMATS, *exports.FORMATS) if f"`{name}`" not in text] == []


# -- hgrm: to the byte what Java's HdrHistogram 2.2.2 prints of the same values. golden/hgrm/ holds what its
# `outputPercentileDistribution(stream, 1000.0)` printed of the values below.


def of(values: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.record_many(values)
    return histogram


def drawn() -> Iterator[int]:
    """300,000 values with a long tail, by a generator that any language repeats."""
    x = 1
    for _ in range(300_000):
        x = x * 48_271 % 2_147_483_647
        y = x % 1000 + 1
        yield y * y * y // (x % 7 + 1)


HISTOGRAMS: dict[str, Callable[[], Histogram]] = {
    "empty": Histogram,
    "one": lambda: of([123_456]),
    "many": lambda: of(list(drawn())),
    "ends": lambda: of([0, 3_600_000_000]),
    "steady": lambda: read_log(GOLDEN / "histogram_java.hlog")["steady"],  # written by Java too
}


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_it_prints_what_java_prints(name: str) -> None:
    rendered = exports.hgrm(HISTOGRAMS[name]())

    assert rendered == (GOLDEN / "hgrm" / f"{name}.hgrm").read_bytes().decode()


def test_each_half_of_the_way_to_100_percent_has_five_ticks_and_the_last_is_100_percent() -> None:
    levels = [level for _, level, _ in exports.ticks(of(list(range(1, 2001))))]
    *_, last = exports.ticks(of([10, 20, 20]))

    assert [sum(low <= level < high for level in levels) for low, high in ((0, 50), (50, 75), (75, 87.5))] == [5, 5, 5]
    assert last == (20, 100.0, 3)
