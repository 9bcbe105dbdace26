import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from click.testing import CliRunner

from loadbench.cli.serve import serve
from loadbench.serve.simulator.law import FAULTS

pytestmark = pytest.mark.system

SERVE = [sys.executable, "-c", "from loadbench.cli.serve import serve; serve(prog_name='loadbench serve')"]


def run_until_ctrl_c(*options: str, lines: int) -> tuple[int, list[str], str]:
    """Exit code, stdout's first lines, stderr, of a server that gets a Ctrl-C once it said that it is ready."""
    with subprocess.Popen(
        [*SERVE, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        said = [process.stdout.readline().rstrip("\n") for _ in range(lines)]
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=10)
    assert rest == ""
    return process.returncode, said, errors


@pytest.mark.parametrize("server", ["llama --slots=1 --context=256", "simulator --itl 1ms"])
def test_a_server_says_how_to_measure_it_and_stops_on_ctrl_c(server: str) -> None:
    code, said, errors = run_until_ctrl_c(*server.split(), lines=2)
    url = said[0].split()[0]

    assert url.startswith("http://127.0.0.1:")
    assert f"loadbench run -e {url} " in said[1]
    assert (code, errors) == (0, "")


@pytest.mark.parametrize("server", ["llama --slots=1 --context=256 --alias=it", "simulator --model it"])
def test_json_is_one_line_with_the_url_and_the_model(server: str) -> None:
    code, said, errors = run_until_ctrl_c(*server.split(), "--json", lines=1)
    facts = json.loads(said[0])

    assert facts["model"] == "it"
    assert facts["url"].endswith("/v1")
    assert facts["pid"] > 0
    assert (code, errors) == (0, "")


def test_the_law_reaches_the_simulator() -> None:
    with subprocess.Popen(
        [*SERVE, "simulator", "--json", "--ttft", "70ms", "--fault", "429=0.5", "--slots", "3"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        url = json.loads(process.stdout.readline())["url"]
        with urllib.request.urlopen(url.replace("/v1", "/truth")) as answer:
            law = json.load(answer)["law"]
        process.terminate()

    assert (law["ttft_ms"], law["faults"], law["slots"]) == (70.0, {"429": 0.5}, 3)


@pytest.mark.parametrize("server", ["llama --slots=1 --context=256", "simulator"])
def test_other_addresses_than_loopback_give_a_warning(server: str) -> None:
    _, _, errors = run_until_ctrl_c(*server.split(), "--host=0.0.0.0", lines=2)

    assert errors.startswith("Warning: 0.0.0.0 can be reached from other machines, which must send the key")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("simulator --ttft 5", "'5' is no duration: write it like 50ms"),
        ("simulator --fault fire=0.1", "no fault is named 'fire'"),
        ("simulator --slots 0", "slots is 0: it must be 1 or more"),
        ("simulator --fault cut=x", "'cut=x' is no fault: write NAME=RATE"),
        ("simulator --length a..b", "'a..b' is no length: write 64 or 16..256"),
        ("simulator --colour red", "No such option"),
        ("simulator --port 70000", "70000 is not in the range"),
        ("llama --colour red", "No such option"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(options: str, message: str) -> None:
    result = CliRunner().invoke(serve, options.split())

    assert message in result.output
    assert result.exit_code == 2


@pytest.mark.parametrize("server", ["llama", "simulator"])
def test_help_teaches_by_examples(server: str) -> None:
    text = CliRunner().invoke(serve, [server, "--help"]).output

    assert "Examples:" in text
    assert f"  loadbench serve {server} --port 8080 " in text


def test_help_of_the_simulator_lists_its_law() -> None:
    assert "--itl-per-stream TIME" in CliRunner().invoke(serve, ["simulator", "--help"]).output


def test_help_of_the_simulator_gives_each_fault_a_line() -> None:
    lines = CliRunner().invoke(serve, ["simulator", "--help"]).output.splitlines()

    assert [name for name in ("400 to 599", *FAULTS) if not any(re.match(rf" +{name}: ", line) for line in lines)] == []


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    ours = "'loadbench.serve.llama', 'loadbench.serve.simulator'"
    heavy = f"{{'httpx', 'numpy', 'rich', 'xllamacpp', 'asyncio', 'anyio', {ours}}}"
    code = f"import sys, loadbench.cli.serve; print(sorted({heavy} & set(sys.modules)))"

    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
