"""Coverage-guided fuzzing of whatever reads bytes from outside, one target at a time: `make fuzz`.

    python tests/fuzz/targets.py sse -max_total_time=60       # more flags: those of libFuzzer
    python tests/fuzz/targets.py folder crash-0123abcd        # an input that it found, again

Needs atheris (PyPI; Linux and macOS). A finding becomes a case of tests/test_fuzz_*.py, and is mended.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

try:
    import atheris
except ImportError:
    sys.exit("fuzz: atheris is not installed: pip install atheris (Linux and macOS)")

with atheris.instrument_imports(include=["loadbench", "httptools", "json", "tomllib", "hdrh"]):
    from loadbench import prompts, select, store
    from loadbench import scenario as scenarios
    from loadbench.errors import LoadbenchError
    from loadbench.prompts import trace
    from tests.support.damaged_runs import Files, make, put
    from tests.support.fuzzed import GRAMMARS, TOML, decoded, exchanged, recorded
    from tests.support.replay import capture, names

Cut = tuple[list[bytes], bytes]
FOLDER = Path(tempfile.mkdtemp(prefix="loadbench-fuzz-"))
RUN: Files = make(FOLDER / "run")
READ = [name for name in RUN if name.endswith((".jsonl", ".hlog")) or name in ("run.json", "scores.json")]


def cut(data: bytes) -> Cut:
    """The input in two pieces and whole; its first two bytes say where it is cut."""
    at, rest = int.from_bytes(data[:2], "big"), data[2:]
    at = at % (len(rest) + 1)
    return [rest[:at], rest[at:]], rest


def one_line(error: Exception) -> None:
    if not str(error).isprintable():
        raise AssertionError(f"not one printable line: {str(error)!r}")


def sse(data: bytes) -> None:
    pieces, whole = cut(data)
    assert decoded(pieces) == decoded([whole])


def recorder(data: bytes) -> None:
    pieces, whole = cut(data)
    assert recorded(pieces) == recorded([whole])


def framing(data: bytes) -> None:
    pieces, whole = cut(data)
    assert exchanged(pieces) == exchanged([whole])


def scenario(data: bytes) -> None:
    """The first byte says which kind of input it is."""
    kind, rest = data[:1], data[1:]
    readers: list[tuple[str, Callable[[Path], object]]] = [
        ("s.toml", scenarios.read),
        ("s.json", scenarios.read),
        ("p.jsonl", prompts.read),
        ("t.jsonl", trace.read),
        ("t.csv", trace.read),
        ("models.json", scenarios.read_models),
    ]
    choice = (kind or b"\0")[0] % (len(readers) + len(GRAMMARS))
    try:
        if choice < len(readers):
            name, read = readers[choice]
            (FOLDER / name).write_bytes(rest)
            read(FOLDER / name)
        else:
            list(GRAMMARS.values())[choice - len(readers)](rest.decode(errors="replace"))
    except LoadbenchError as error:
        one_line(error)
    except ValueError as error:  # as the grammars of durations and lengths refuse a word
        if choice < len(readers):
            raise
        one_line(error)


def folder(data: bytes) -> None:
    """The first byte says which file of a run it is in place of."""
    name = READ[(data or b"\0")[0] % len(READ)]
    put(FOLDER / "run", {name: data[1:]})
    try:
        select.summarise(store.read(FOLDER / "run"))
    except LoadbenchError as error:
        one_line(error)
    finally:
        put(FOLDER / "run", {name: RUN[name]})


def seeds(target: str) -> list[bytes]:
    """Valid inputs to begin with."""
    responses = [capture(name).response for name in names()]
    bodies = [response.partition(b"\r\n\r\n")[2] for response in responses]
    streams = {"sse": bodies, "recorder": bodies, "framing": responses}
    if target in streams:
        return [b"\0\x40" + one for one in streams[target] if len(one) < 20_000]
    if target == "scenario":
        words = (
            b"ttft_p95=800ms",
            b"500ms",
            b"tokens normal 512 128",
            b"exponential 2s",
            b"ramp 1..8 over 2m",
            b"failed > 10%",
        )
        return [b"\0" + one for one in TOML] + [bytes([6 + kind]) + word for kind, word in enumerate(words)]
    return [bytes([place]) + RUN[name] for place, name in enumerate(READ)]


TARGETS = {"sse": sse, "recorder": recorder, "framing": framing, "scenario": scenario, "folder": folder}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"fuzz: name a target: {', '.join(TARGETS)}")
    target = sys.argv.pop(1)
    corpus = FOLDER / "corpus"
    put(corpus, {f"seed{number}": seed for number, seed in enumerate(seeds(target))})
    if not any(not word.startswith("-") for word in sys.argv[1:]):
        sys.argv.append(str(corpus))
    atheris.Setup(
        [*sys.argv, "-rss_limit_mb=4096", "-timeout=60", "-len_control=0", "-max_len=65536", "-keep_seed=1"],
        TARGETS[target],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
