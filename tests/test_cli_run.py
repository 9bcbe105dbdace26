"""`loadbench run`: what is wrong is one line that helps; settings, outputs and the run folder are as promised."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from loadbench.runner import folder as folders
from loadbench.runner import plan
from loadbench.scenario import Scenario
from loadbench.serve import llama, simulator
from loadbench.serve.simulator import Simulator
from loadbench.transport import best_clock
from tests.support.command import BRIEF, KEY, files, invoke, run
from tests.support.gateways import NOT_FOUND, Answered, Asked, chat, gateway, listed

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("place")]

ROOT = Path(__file__).parents[1]


def process(*words: object, **options: Any) -> subprocess.Popen[str]:
    """`loadbench` as a process of its own, its output in pipes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "loadbench", *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        **options,
    )


def lines_of_json(done: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


# -- servers that are not what one hopes for


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    """An address where nothing listens; held, so that nobody else begins to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    """The address of a server that answers, but not in HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.recv(65536)
                peer.sendall(b"-ERR unknown command\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


LISTED = ("good", "bad", "flag", "loadbench", "bench", "file")


def half(asked: Asked) -> Answered:
    """All its models answer but `bad`, which refuses and repeats the key it was sent, as some gateways do."""
    if asked.method == "GET":
        return listed(*LISTED) if asked.path == "/v1/models" else NOT_FOUND
    if asked.body["model"] == "bad":
        message = f"no weights; you sent {asked.headers.get('authorization')}"
        return Answered(404, {"error": {"message": message}})
    return chat("Tick", " tock")


@pytest.fixture(scope="module")
def half_broken() -> Iterator[str]:
    with gateway(half) as server:
        yield server.url.removeprefix("http://")


# -- bad input


@dataclass(frozen=True)
class Wrong:
    """A command line that cannot be run, and what its message must hold.

    Attributes:
        words: After `loadbench run`; {quick}, {refusing}, ... stand for addresses.
        says: What is wrong, which value, what to do.
        files: Input files by name.
        variables: The environment.
    """

    words: str
    says: tuple[str, ...]
    code: int = 2
    files: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


def scenario(text: str, *says: str) -> Wrong:
    return Wrong("s.toml --simulate", ("s.toml", *says), files={"s.toml": text})


WRONG = {
    "a scenario with an unknown key": scenario("conccurrency = [1]", "conccurrency", "did you mean concurrency?"),
    "a scenario with a wrong type": scenario('max_tokens = "many"', 'max_tokens is "many"', "must be a whole number"),
    "a scenario out of range": scenario("concurrency = [1, 0]", "concurrency[1] is 0", "must be at least 1"),
    "a scenario with an unknown unit": scenario('duration = "5 parsecs"', '"5 parsecs"', "use ms, s, m or h"),
    "a scenario that is no TOML": scenario("name = \n", "line 1", "not valid TOML"),
    "an empty scenario": scenario("", "the file is empty"),
    "a scenario with prompts that are not there": Wrong(
        "s.toml --simulate", ("asks.json", "no such file"), files={"s.toml": 'prompts = "asks.json"'}
    ),
    "no such scenario": Wrong(
        "swep.toml", ("swep.toml: no such file", "did you mean sweep.toml?"), files={"sweep.toml": "x"}
    ),
    "a scenario of another kind": Wrong(
        "s.yaml",
        ("s.yaml", "ends in .toml or .json", "write it in TOML"),
        files={"s.yaml": "x"},
    ),
    "a scenario without its ending": Wrong(
        "mine", ("mine: ", "did you mean scenarios/mine.toml?"), files={"scenarios/mine.toml": "x"}
    ),
    "a server in place of a scenario": Wrong("http://h:1/v1", ("http://h:1/v1: ", "a server's address with -e")),
    "prompts in place of a scenario": Wrong("p.txt", ("p.txt: ", "give prompts with --prompts"), files={"p.txt": "x"}),
    "a run in place of a scenario": Wrong(
        "there", ("there: ", "--resume", "`loadbench report`"), files={"there/run.json": "{}"}
    ),
    "a model in place of a scenario": Wrong("phi-4-mini", ("phi-4-mini: ", "a model is named with -m")),
    "no such certificates": Wrong(
        "--ca-file nope", ("--ca-file", "'nope': no such file", "as a PEM file, or", "--insecure")
    ),
    "certificates that are none": Wrong(
        "--ca-file c.pem", ("'c.pem': no PEM certificate in it", "--insecure"), files={"c.pem": "x"}
    ),
    "certificates that are a folder": Wrong("--ca-file .", ("'.': cannot be read", "--insecure")),
    "two scenarios": Wrong("a.toml b.toml", ("unexpected extra argument (b.toml)", "--help")),
    "no such prompts": Wrong("--prompts no.txt", ("no.txt: no such file",)),
    "unreadable prompts": Wrong(
        "--prompts p.json", ("p.json, line 1, column 2", "not valid JSON"), files={"p.json": "[what]"}
    ),
    "no prompts in a file": Wrong(
        "--prompts p.json", ("p.json: no prompts in it", "give at least one"), files={"p.json": "[]"}
    ),
    "an empty prompts file": Wrong("--prompts p.txt", ("p.txt: the file is empty",), files={"p.txt": ""}),
    "a rule that is none": Wrong(
        "--prompts p.json",
        ("prompt a: checks[0]", "did you mean contains?"),
        files={"p.json": '[{"id": "a", "prompt": "One", "checks": [{"contain": "x"}]}]'},
    ),
    "prompts of another kind": Wrong("--prompts p.xls", ("--prompts", "p.xls", ".json, .jsonl, .csv, .tsv or .txt")),
    "a blank prompt": Wrong("--prompt=", ('prompts[0] is ""', "must hold text")),
    "prompts twice": Wrong("--prompt a --prompts p.txt", ("--prompt and --prompts", "keep one")),
    "no streams": Wrong("-c 0", ("-c: concurrency[0] is 0", "must be at least 1")),
    "streams in words": Wrong("-c x", ("-c", "'x'", "write whole numbers as 1,2,4")),
    "no rate": Wrong("-r 0", ("-r: request_rate[0] is 0", "must be more than 0")),
    "both kinds of load": Wrong("-c 1 -r 1", ("-c and -r are both given", "closed loop (-c) or open loop (-r)")),
    "no requests": Wrong("-n 0", ("-n: requests is 0", "must be at least 1")),
    "an unknown unit": Wrong("-d 5x", ("-d", 'unknown unit "x"', "use ms, s, m or h")),
    "no time": Wrong("-d 0s", ("-d: duration is 0s", "must be more than 0")),
    "a wait in words": Wrong("--wait long", ("--wait", '"long" is no duration', "write 500ms, 30s")),
    "too small a budget": Wrong("--simulate --budget 5s", ("--budget 5s", "too short for one level", "at least 8s")),
    "too hot": Wrong("--temperature 3", ("--temperature: temperature is 3", "at most 2")),
    "an unknown bound": Wrong("--slo tftt_p95=1s", ("--slo", "tftt", "did you mean ttft")),
    "a bound without a statistic": Wrong("--slo ttft=1s", ("--slo", "which statistic of ttft", "ttft_p95")),
    "a name that is a path": Wrong("--name ../x", ("--name", '"../x"', "use up to 64 letters")),
    "a body that is no JSON": Wrong("--extra-body {seed:1}", ("--extra-body", "column 2", "not valid JSON")),
    "a body that is a list": Wrong("--extra-body [1]", ('--extra-body "[1]"', "must be a JSON object, as")),
    "a body that is nested deeply": Wrong(f"--extra-body {'[' * 100_000}", ("--extra-body", "nested deeper")),
    "a body with a huge number": Wrong(f"--extra-body [{'9' * 5000}]", ("--extra-body", "thousands of digits")),
    "workers of thousands of digits": Wrong(f"--workers {'9' * 5000}", ("--workers", "a number from 1 to 256")),
    "retries of thousands of digits": Wrong(f"--retries {'9' * 5000}", ("--retries", "write a whole number")),
    "a share that may be 1 percent": Wrong("--max-failed 1", ("--max-failed", "write 1%, or 100%")),
    "an SLO of all": Wrong("--slo failed<1", ("--slo", '"failed<1"', "write 1%, or 100%")),
    "an SLO turned round": Wrong("--slo ttft_p95>300ms", ("--slo", "write ttft_p95 <= 300ms")),
    "a threshold of all": Wrong("--fail-if failed>1", ("--fail-if", "write 1%, or 100%")),
    "a body with our own key": Wrong(
        '--extra-body {"model":"x"}', ("--extra-body", "extra_body.model", "it comes from models")
    ),
    "a header without a value": Wrong("--header X-Tenant", ("--header", "write it as 'Name: value'")),
    "a header with a blank in its name": Wrong("--header X\tY:1", ("--header", "no valid header name")),
    "a key that is not there": Wrong(
        "--simulate --api-key-env NOT_SET", ("--api-key-env NOT_SET", "is not set", "put the key in it")
    ),
    "an option that does not exist": Wrong(
        "--concurency 4", ("--concurency", "'--concurrency'", "`loadbench run --help`")
    ),
    "a value that is not offered": Wrong("--stamps mine", ("--stamps", "'mine'", "'thread', 'kernel', 'user'")),
    "a model without a name": Wrong("--simulate -m ,", ("-m is empty", "name a model, or leave it out")),
    "the simulator and a server": Wrong("--simulate -e {quick}", ("--simulate and -e", "keep one")),
    "an endpoint that is no URL": Wrong("-e ftp://models", ("'ftp://models'", "write it as http://HOST:PORT/v1")),
    "a port without a host": Wrong("-e :5273", ("':5273' has no host", "did you mean http://127.0.0.1:5273/v1?")),
    "an endpoint with a password": Wrong("-e http://me:pw@host", ("password before its '@'", "--api-key-env NAME")),
    "a variable that is no number": Wrong(
        "", ("BENCH_ROUNDS", "'few' is not a valid integer"), variables={"BENCH_ROUNDS": "few"}
    ),
    "a variable out of range": Wrong(
        "", ("LOADBENCH_CONCURRENCY: concurrency[0] is 0",), variables={"LOADBENCH_CONCURRENCY": "0"}
    ),
    "an endpoint in a variable": Wrong(
        "", ("FOUNDRY_LOCAL_ENDPOINT", "'ftp://x'", "write it as"), variables={"FOUNDRY_LOCAL_ENDPOINT": "ftp://x"}
    ),
    "nothing answers": Wrong("-e {refusing}", ("http://{refusing}", "connection refused", "-e URL", "--wait 60s"), 1),
    "not HTTP": Wrong(
        "-e {redis}", ("http://{redis}", "does not speak HTTP", "the port of an OpenAI-compatible server?"), 1
    ),
    "no key": Wrong("-e {locked}", ("{locked}", "401", "the server wants a key", "--api-key-env NAME"), 1),
    "a wrong key": Wrong(
        "-e {locked} --api-key-env MINE",
        ("{locked}", "refuses the key", "check the variable"),
        1,
        variables={"MINE": "no"},
    ),
    "no such model": Wrong("-e {quick} -m simulato", ("has no model 'simulato'", "did you mean simulator?"), 1),
    "no such model, before anything starts": Wrong(
        "--simulate --dry-run -m phi", ("the simulator has no model 'phi'", "it has simulator"), 1
    ),
    "another run's folder": Wrong(
        "--simulate -o there", ("there: holds another run", "--resume there"), files={"there/run.json": "{}"}
    ),
    "a folder in use": Wrong(
        "--simulate -o there", ("there: is not empty", "choose a new folder"), files={"there/x": ""}
    ),
    "a file in place of the folder": Wrong("--simulate -o there", ("there", "is a file", "-o"), files={"there": ""}),
    "a folder below a file": Wrong("--simulate -o there/a/b", ("there/a/b", "is a file", "-o"), files={"there": ""}),
    "a folder with too long a name": Wrong(f"--simulate -o {'x' * 300}", ("xxx", "name too long", "-o"), 1),
    "continuing what is no run": Wrong(
        "--resume there", ("there: is not a run folder", "results/"), 2, files={"there/x": ""}
    ),
    "continuing nothing": Wrong("--resume there", ("there: no such run folder", "results/"), 2),
    "continuing under other loads": Wrong("--resume there -c 2", ("takes its plan from the folder", "leave out -c")),
    "continuing with a scenario": Wrong("--resume there s.toml", ("leave out", "SCENARIO")),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_cannot_be_run_is_one_line_that_helps_and_writes_nothing(
    wrong: Wrong, place: Path, quick: Simulator, locked: Simulator, refusing: str, redis: str
) -> None:
    addresses = {"quick": quick.url, "locked": locked.url, "refusing": refusing, "redis": redis}

    def filled(text: str) -> str:
        for name, address in addresses.items():
            text = text.replace(f"{{{name}}}", address)
        return text

    for name, content in wrong.files.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(content, encoding="utf-8")
    before = set(place.rglob("*"))

    done = run(*filled(wrong.words).split(" ") if wrong.words else (), **wrong.variables)

    assert done.exit_code == wrong.code, done.stderr
    assert done.stdout == ""
    assert re.fullmatch(r"loadbench: [^\n]+\n", done.stderr), done.stderr
    assert [words for words in wrong.says if filled(words).lower() not in done.stderr.lower()] == [], done.stderr
    assert set(place.rglob("*")) == before


def test_a_full_disk_is_one_line_before_anything_is_measured(
    place: Path, quick: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))

    done = run("-e", quick.url, *BRIEF, "--quiet", "-o", "there")

    assert (done.exit_code, done.stdout) == (1, "")
    assert (
        done.stderr
        == "loadbench: there: only 1 MB of disk space left, a run needs 50 MB; choose another folder with -o\n"
    )
    assert files(place) == set()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_folder_that_cannot_be_made_is_one_line(quick: Simulator) -> None:
    done = run("-e", quick.url, *BRIEF, "--quiet", "-o", "/proc/there/run")

    assert (done.exit_code, done.stdout) == (1, "")
    assert re.fullmatch(r"loadbench: /proc/there/run: [^\n]+; choose another folder with -o\n", done.stderr)


def test_no_server_and_no_embedded_model_says_how_to_get_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place))  # no `foundry` command
    monkeypatch.setattr(llama, "available", lambda: "it has no wheel for this machine")

    done = run()

    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    for words in ("no server to measure", "-e", "FOUNDRY_LOCAL_ENDPOINT", "no wheel for this machine", "--simulate"):
        assert words in done.stderr
    assert files(place) == set()


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("--colour", "loadbench"),
        ("rnu", "loadbench"),
        ("run --colour", "loadbench run"),
        ("run -o", "loadbench run"),
        ("report . --format pdf", "loadbench report"),
    ],
)
def test_a_mistake_anywhere_on_the_command_line_is_one_line_that_leads_to_the_help(words: str, command: str) -> None:
    done = invoke(*words.split())

    assert (done.exit_code, done.stdout) == (2, "")
    assert re.fullmatch(rf"loadbench: [^\n]+ \(`{command} --help` lists what there is\)\n", done.stderr)


def test_a_group_without_a_command_shows_its_help() -> None:
    done = invoke("serve")

    assert done.exit_code == 2
    assert done.stderr.startswith("Usage: ")
    assert "simulator" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "--debug run -c 0",
        "run --debug -c 0",
        "report nope --debug",
        "serve --debug llama --slots 0",
        "serve llama --slots 0 --debug",
        "doctor -e ftp://x --debug",
    ],
)
def test_debug_is_understood_after_every_command(words: str) -> None:
    debugged, plain = invoke(*words.split()), invoke(*words.replace("--debug", "").split())

    assert debugged.stderr.startswith("Traceback (most recent call last):\n")
    assert debugged.stderr.endswith(plain.stderr)
    assert debugged.exit_code == plain.exit_code


@pytest.mark.parametrize("command", ["run", "capacity"])
def test_help_is_one_screen_with_examples_first(command: str) -> None:
    text = invoke(command, "--help", COLUMNS="100").output

    assert len(text.splitlines()) <= 48
    assert text.index("Examples:") < text.index("Options:")
    assert "--slo" in text
    assert "--help-all" in text
    assert "--ca-file" not in text


def test_the_help_begins_with_a_server_a_model_loads_and_an_slo() -> None:
    examples = invoke("run", "--help", COLUMNS="80").output.split("Options:")[0].replace("\\\n", "")

    assert re.search(
        r"loadbench run -e http://localhost:11434 -m llama3.2 -c 1,4,16 -d 30s +--slo ttft_p95=800ms", examples
    )


def test_all_help_lists_options_under_headings_the_most_used_first() -> None:
    text = invoke("run", "--help-all", COLUMNS="80").output
    options = text[text.index("\n\nServer:") : text.index("More examples:")]

    assert re.findall(r"^(\S.*):$", options, re.MULTILINE) == [
        *("Server", "Load", "Prompts and answers", "Plan", "Cold starts, memory, energy", "Output", "More")
    ]
    assert [line.split()[0] for line in re.findall(r"^  (-.*)$", options, re.MULTILINE)][:6] == [
        *("-e,", "-m,", "--device", "--ep", "--simulate", "--wait")
    ]
    assert options.rstrip().endswith("--help-all                 Show all options and exit.")


def test_the_texts_of_the_options_stand_in_one_column() -> None:
    text = invoke("run", "--help-all", COLUMNS="80").output

    assert {len(found) for found in re.findall(r"^(  -.*?\S  +)\S", text, re.MULTILINE)} == {29}


# -- settings


SETTINGS = {
    # by its name in a scenario: what may say it, the strongest first; the scenario comes last
    "max_tokens": ("--max-tokens", "LOADBENCH_MAX_TOKENS", "BENCH_MAX_TOKENS", "scenario"),
    "requests": ("-n", "LOADBENCH_REQUESTS", "BENCH_ROUNDS", "scenario"),
    "seed": ("--seed", "LOADBENCH_SEED", "scenario"),
}


def planned(*words: object, **variables: str) -> dict[str, Any]:
    """The plan of a dry run, as a program reads it; its `scenario` holds all settings."""
    done = run(*words, "--dry-run", "--json", **variables)

    assert (done.exit_code, done.stderr) == (0, "")
    [plan] = lines_of_json(done)
    assert plan["event"] == "plan"
    return plan


@pytest.mark.parametrize(
    ("setting", "strongest"), [(name, i) for name, layers in SETTINGS.items() for i in range(len(layers) + 1)]
)
def test_a_flag_wins_over_the_environment_that_over_the_scenario_and_that_over_the_default(
    place: Path, setting: str, strongest: int
) -> None:
    said = {layer: str(11 + i) for i, layer in enumerate(SETTINGS[setting]) if i >= strongest}
    (place / "s.toml").write_text(f"{setting} = {said['scenario']}\n" if "scenario" in said else "concurrency = [1]\n")
    flags = [word for layer, value in said.items() if layer.startswith("-") for word in (layer, value)]
    variables = {layer: value for layer, value in said.items() if layer.isupper()}

    settings = planned("s.toml", "--simulate", *flags, **variables)["scenario"]

    default = {"max_tokens": 128, "requests": None, "seed": 1}[setting]
    assert settings[setting] == (11 + strongest if said else default)


@pytest.mark.parametrize("strongest", range(5))
def test_models_come_from_the_flag_then_the_environment_then_the_scenario(
    place: Path, half_broken: str, strongest: int
) -> None:
    layers = ("flag", "loadbench", "bench", "file")
    (place / "s.toml").write_text('models = ["file"]\n' if strongest < 4 else "concurrency = [1]\n")
    flags = ["-m", "flag"] if strongest == 0 else []
    variables = {"LOADBENCH_MODEL": "loadbench"} if strongest <= 1 else {}
    variables |= {"BENCH_MODELS": "bench"} if strongest <= 2 else {}

    models = planned("s.toml", "-e", half_broken, *flags, **variables)["models"]

    assert models == ([layers[strongest]] if strongest < 4 else list(LISTED))


@pytest.mark.parametrize("words", [["-m", "bad", "-m", "good"], ["-m", "bad,good"], ["-m", " bad , good "]])
def test_models_are_repeated_or_parted_by_commas(half_broken: str, words: list[str]) -> None:
    assert planned("-e", half_broken, *words)["models"] == ["bad", "good"]


def test_auto_undoes_the_models_of_a_scenario(place: Path, half_broken: str) -> None:
    (place / "s.toml").write_text('models = ["file"]\n')

    assert planned("s.toml", "-e", half_broken, "-m", "auto")["models"] == list(LISTED)


@pytest.mark.parametrize(
    ("words", "variables", "settings"),
    [
        ("", {"BENCH_PROMPT": "What is a cat, and why?"}, {"prompts": ["What is a cat, and why?"]}),
        ("", {"BENCH_STREAM": "0"}, {"stream": False}),
        ("", {"BENCH_STREAM": "1"}, {"stream": True}),
        ("", {"RETRY_ON_FAIL": "1", "RETRY_BACKOFF": "1.5"}, {"retries": 1, "retry_backoff": "1500ms"}),
        ("", {"RETRY_ON_FAIL": "true"}, {"retries": 1}),
        ("", {"RETRY_ON_FAIL": "no"}, {"retries": 0}),
        ("", {"RETRY_ON_FAIL": ""}, {"retries": 0}),
        ("", {"BENCH_TEMPERATURE": "0.5", "BENCH_ROUNDS": "7"}, {"temperature": 0.5, "requests": 7}),
        ("", {"LOADBENCH_SLO": "failed < 1%,ttft_p95=1s"}, {"slo": ["failed < 1%", "ttft_p95=1s"]}),
        # A flag drops what a variable says of the setting that it replaces.
        ("-r 2", {"LOADBENCH_CONCURRENCY": "3"}, {"request_rate": [2.0], "concurrency": None}),
        ("-d 9s", {"BENCH_ROUNDS": "3"}, {"duration": "9s", "requests": None}),
        ("--prompt Hi", {"LOADBENCH_PROMPTS": "gone.txt"}, {"prompts": ["Hi"]}),
    ],
)
def test_variables_say_what_no_flag_says(words: str, variables: dict[str, str], settings: dict[str, Any]) -> None:
    found = planned("--simulate", *words.split(), **variables)["scenario"]

    assert {name: found[name] for name in settings} == settings


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("--url", "-e"), ("--base-url", "-e"), ("--users 2", "-c 2"), ("--rate 2", "-r 2"), ("--qps 2", "-r 2")],
)
def test_spellings_of_other_tools_are_understood_and_not_listed(quick: Simulator, theirs: str, ours: str) -> None:
    plans = []
    for words in (theirs, ours):
        to = (
            [*words.split(), quick.url] if words in ("-e", "--url", "--base-url") else [*words.split(), "-e", quick.url]
        )
        plans.append(json.loads(run(*to, "--dry-run", "--json", "-o", "there").stdout))

    assert plans[0] == plans[1]
    assert theirs.split()[0] not in re.split(r"[\s,]+", invoke("run", "--help-all").stdout)


def test_without_a_load_it_measures_1_2_4_and_8_streams() -> None:
    assert planned("--simulate", "-d", "5s")["levels"] == [
        f"simulator@{load}" for load in ("c1", "c2", "c4", "c8", "c1#end")
    ]


@pytest.mark.parametrize(
    ("words", "is_first_look"),
    [((), True), (("--max-tokens", "8"), True), (("-n", "30"), False), (("-c", "1"), False), (("--cold",), False)],
)
def test_without_a_word_on_loads_and_lengths_it_takes_little_time(words: tuple[str, ...], is_first_look: bool) -> None:
    plan = planned("--simulate", *words)

    assert plan["budget_s"] == (75 if is_first_look else None)
    assert (plan["longest_s"] < 100) == is_first_look
    if is_first_look:
        assert plan["scenario"]["max_tokens"] == (8 if words else 32)


# -- dry run


def test_a_dry_run_writes_nothing_and_starts_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setenv("PATH", str(place))  # no `foundry` command
    monkeypatch.setattr(simulator, "start", started)
    monkeypatch.setattr(llama, "start", started)
    monkeypatch.setattr(llama, "available", lambda: None)

    for words in (["--simulate"], []):  # [] is the embedded model
        done = run(*words, "--dry-run")

        assert (done.exit_code, done.stdout) == (0, "")
        assert "nothing was measured, nothing was written" in done.stderr
    assert files(place) == set()


def test_a_dry_run_asks_a_server_for_its_models_alone(place: Path, quick: Simulator) -> None:
    simulator.reset(quick.url)

    done = run("-e", quick.url, "--dry-run")

    assert done.exit_code == 0
    assert simulator.truth(quick.url)["requests"] == 0
    assert files(place) == set()


def test_a_dry_run_says_whom_and_what_it_would_measure_and_how_long_that_may_take(quick: Simulator) -> None:
    said = run("-e", quick.url, "-c", "1,4", "-d", "30s", "--dry-run", "-o", "there").stderr

    assert f"target    {quick.url} (simulator " in said
    assert "models    simulator\n" in said
    assert "levels    c1, c4 (streams at once); 30 s each\n" in said
    assert "again     c1 at the end, for the noise band (--no-repeat-first leaves it out)\n" in said
    assert "results in there\n" in said
    assert re.search(r"^time      about \d+ (to \d+ )?min$", said, re.MULTILINE)


def test_a_guessed_time_says_from_what_and_no_line_of_the_opening_wraps(quick: Simulator) -> None:
    said = run("-e", quick.url, "-c", "1,4", "-n", "40", "--dry-run", "-o", "there").stderr
    [guess] = re.findall(
        r"^time      about \d+ to \d+ min \(guessed from (\d+ tokens/s) a stream\)$", said, re.MULTILINE
    )

    assert guess in plan.make(Scenario(), ["m"]).assumption  # the number that the plan reckons with
    assert [line for line in said.splitlines() if len(line) > 80] == []


def test_a_budget_says_what_it_cut(quick: Simulator) -> None:
    said = run("-e", quick.url, "-c", "1,2,4,8,16", "-d", "60s", "--budget", "30s", "--dry-run").stderr

    assert "budget    left out: simulator@c8, simulator@c16, simulator@c1#end\n" in said
    assert "each level ends after " in said


# -- what a run prints


def test_json_is_json_lines_alone_and_the_summary_comes_last(place: Path, quick: Simulator) -> None:
    done = run("-e", quick.url, *BRIEF, "--json", "-o", "there")

    assert (done.exit_code, done.stderr) == (0, "")
    events = lines_of_json(done)
    assert [event["event"] for event in events if event["event"] != "progress"] == [
        *("plan", "probe", "probe", "estimate", "level_began", "level_ended", "summary")
    ]
    assert events[-1]["summary"] == json.loads((place / "there" / "summary.json").read_bytes())


def test_quiet_prints_the_folder_alone(place: Path, quick: Simulator) -> None:
    done = run("-e", quick.url, *BRIEF, "--quiet", "-o", "there")

    assert (done.exit_code, done.output) == (0, "there\n")
    assert (place / "there" / "summary.json").exists()


def test_quiet_still_says_which_model_failed(half_broken: str) -> None:
    done = run("-e", half_broken, *BRIEF, "-m", "bad", "--quiet", "-o", "there")

    assert (done.exit_code, done.stdout) == (1, "there\n")
    assert re.fullmatch(r"loadbench: bad: http_4xx: [^\n]*no weights[^\n]*\n", done.stderr)


def test_a_pipe_gets_plain_lines_without_control_characters(quick: Simulator) -> None:
    done = run("-e", quick.url, *BRIEF)

    assert done.exit_code == 0
    assert "[1/1] simulator@c1  " in done.stderr
    assert [line for line in done.output.split("\n") if not line.isprintable()] == []


def test_the_report_goes_to_stdout_and_the_way_there_to_stderr(quick: Simulator) -> None:
    done = run("-e", quick.url, *BRIEF, "-o", "there")

    assert done.stdout.startswith("loadbench  run  ")
    assert re.search(
        rf"report    {Path('there', 'report.html')}\nagain     (\S*/)?loadbench report there --full\n$", done.stdout
    )
    assert done.stderr.startswith(f"target    {quick.url} (simulator ")


# -- the run folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, quick: Simulator) -> Path:
    """A run of two levels, in an empty folder that was there before."""
    path = tmp_path_factory.mktemp("run")
    words = ["-e", quick.url, "-c", "1,2", "-n", "6", "--max-tokens", "4", "--slo", "failed<1%", "--quiet", "-o", path]
    words.append("--no-repeat-first")

    assert run(*words).exit_code == 0
    return path


def test_the_output_folder_is_used_as_it_is(folder: Path) -> None:
    assert files(folder) == {
        *("run.json", "prompts.json", "requests.jsonl", "answers.jsonl", "summary.json", "summary.csv", "report.md"),
        "report.html",
        *(f"{name}.hlog" for name in ("ttft", "itl", "tpot", "e2e", "client_lag", "client_wait")),
        "telemetry.jsonl",
    }


def test_without_a_name_the_folder_is_called_after_the_time_and_the_scenario(place: Path, quick: Simulator) -> None:
    run("-e", quick.url, *BRIEF, "--quiet", "--name", "first")

    [made] = (place / "results").iterdir()
    assert re.fullmatch(r"\d{8}T\d{6}Z-first", made.name)


DISTRIBUTION = {"n", "mean", "p50", "p90", "p95", "p99", "p999", "max", "ci95"}
DOCUMENTED = {
    *("id", "model", "endpoint", "device", "repeat", "status", "reason", "concurrency", "request_rate_per_s"),
    *("offered", "dropped", "attempted", "completed", "failed", "cancelled", "errors", "duration_s", "window_s"),
    *("ttft_ms", "itl_ms", "tpot_ms", "e2e_ms", "client_queue_ms", "client_lag_ms", "output_tokens"),
    *("output_tokens_per_s", "characters_per_s", "requests_per_s", "tokens_per_event", "token_source"),
    *("goodput_per_s", "warnings"),
}
"""Of a level in summary.json: programs rely on them."""
ADDED = {
    *("attempt", "began", "burst_share", "cached_share", "characters", "client_cpu_share", "clock", "connect_ms"),
    *("efficiency", "ended_per_s", "finish_reasons", "in_flight_mean", "input_lengths", "input_tokens"),
    *("input_tokens_per_s", "itl_name", "merged_share", "prompts", "prompts_left_out", "requests_planned"),
    *("residence_ms", "retries", "round_trip_ms", "simulated", "slo", "speedup", "stretch", "tpot_k_estimated"),
    *("residence_growth", "tpot_micro_ms", "ttfe_ms", "ttft_from_due_ms", "warmup_requests", "whole_run", "words"),
    *(
        "alias",
        "asked_device",
        "client_wait_ms",
        "execution_provider",
        "failure_share",
        "ran",
        "recovered",
        "retried",
        "streamed",
    ),
    *("cost_per_1000_tokens", "cpu_mhz_mean", "cpu_s_per_1000_tokens", "energy_j", "energy_source"),
    *("gpu_memory_peak_bytes", "gpu_memory_source", "gpu_utilisation_mean", "j_per_1000_tokens", "others_cpu_share"),
    *("output_tokens_spent", "power", "server_cpu_s", "server_cpu_share", "server_memory_peak_bytes"),
    *("server_metrics", "server_output_tokens_per_s", "server_threads_peak", "temperature_c_max", "throttled"),
    *("characters_per_s_ci95", "input_tokens_per_s_ci95", "output_tokens_per_s_ci95", "requests_per_s_ci95"),
    *("aborted", "closing", "drift", "shape", "stalls", "think_time_s", "timeline", "wh_per_1000_tokens"),
    *("course", "endpoints", "spectra", "client_pause_s", "client_pause_at_s", "workers"),
    *("client_wait_share", "late_share", "held_share", "first_together_share", "events_per_arrival"),
    *("tokens_per_arrival", "server_kind", "share_ci95", "with_failures_ms", "dependence", "efficiency_ci95"),
    *("speedup_ci95", "goodput_per_s_ci95", "tpot_micro_ms_ci95", "undercounted", "unknown"),
    *("tokens_per_s_per_user", "tokens_per_s_per_user_ci95", "prefill_tokens_per_s", "prefill_tokens_per_s_ci95"),
    *("ttfat_ms", "thinking_ms", "thinking_share", "thinking_share_source", "reasoned", "only_reasoned"),
    *("normalised_latency_ms", "cost_per_million_tokens"),
}
"""What the reports print beside; a field that is new goes here, one that is gone breaks someone's program."""


def test_who_read_the_sockets_and_before_whom_is_in_the_run(folder: Path) -> None:
    info = json.loads((folder / "run.json").read_bytes())

    places = {"real-time", "short slice", "ordinary"} if info["clock"] == "thread" else {None}
    assert info["clock"] == best_clock()
    assert info["reader_place"] in places


def test_the_summary_has_the_documented_fields_and_those_added_since(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_bytes())

    assert set(summary) == {
        *("schema", "run", "levels", "scaling", "capacity_concurrency", "capacity_rate_per_s", "verdict", "warnings"),
        *("models", "absent", "capacity", "noise", "repeats", "stall_threshold", "models_compared"),
        *("thresholds", "choice"),
    }
    assert summary["schema"] == 1
    for level in summary["levels"]:
        assert set(level) == DOCUMENTED | ADDED
        measured = [name for name in DOCUMENTED if name.endswith("_ms") and level[name] is not None]
        assert {"ttft_ms", "e2e_ms"} <= set(measured)  # tokens that all arrive at once have no gaps
        assert all(set(level[name]) - {"ci95_in_doubt"} == DISTRIBUTION for name in measured)
        assert {tuple(sorted(warning)) for warning in level["warnings"]} == {("code", "name", "severity", "text")}


def test_docs_summary_md_names_every_field_of_a_level() -> None:
    named = set(re.findall(r"`([a-z0-9_]+)`", (ROOT / "docs/summary.md").read_text(encoding="utf-8")))

    assert named >= DOCUMENTED | ADDED


def test_the_summarys_keys_are_sorted(folder: Path) -> None:
    def unsorted(value: Any) -> list[Any]:
        if isinstance(value, list):
            return [found for one in value for found in unsorted(one)]
        if not isinstance(value, dict):
            return []
        return [list(value)] * (list(value) != sorted(value)) + unsorted(list(value.values()))

    assert unsorted(json.loads((folder / "summary.json").read_bytes())) == []


def test_the_report_command_writes_the_same_files_again_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    for name in ("summary.json", "summary.csv", "report.md", "report.html"):
        (copy / name).unlink()

    done = invoke("report", copy)

    assert done.exit_code == 0
    for name in ("summary.json", "summary.csv", "report.md", "report.html"):
        assert (copy / name).read_bytes() == (folder / name).read_bytes(), name


def test_the_summary_for_spreadsheets_names_every_level(folder: Path) -> None:
    with (folder / "summary.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))

    named = list(dict.fromkeys(row["level"] for row in rows))

    assert named == ["simulator@c1", "simulator@c2", ""]  # figures of a model have no level


# -- secrets


@pytest.mark.parametrize(
    "form",
    [
        ["--api-key-env", "TEAM_KEY"],
        ["--header", f"Authorization: Bearer {KEY}"],
        [f"--header=authorization:Bearer {KEY}"],
    ],
    ids=["a variable", "a header", "a header in one word"],
)
def test_the_key_is_sent_and_found_nowhere_afterwards(
    place: Path, locked: Simulator, form: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["-e", locked.url, *BRIEF, *form]
    monkeypatch.setattr(sys, "argv", ["loadbench", "run", *words])  # what run.json tells of the command
    done = run(*words, TEAM_KEY=KEY)

    assert done.exit_code == 0  # without the key it is refused
    assert KEY not in done.output
    assert [name for name in files(place) if KEY.encode() in (place / name).read_bytes()] == []
    [info] = place.rglob("run.json")
    assert json.loads(info.read_bytes())["command"][-1].endswith(("TEAM_KEY", "uthorization: (not stored)"))


def test_a_server_that_repeats_the_key_does_not_get_it_into_the_results(place: Path, half_broken: str) -> None:
    done = run("-e", half_broken, *BRIEF, "--api-key-env", "TEAM_KEY", "--json", TEAM_KEY=KEY)

    assert done.exit_code == 1
    assert "no weights" in done.output
    assert KEY not in done.output
    assert [name for name in files(place) if KEY.encode() in (place / name).read_bytes()] == []


def test_other_headers_are_part_of_the_record(place: Path, quick: Simulator) -> None:
    run("-e", quick.url, *BRIEF, "--header", "X-Tenant: blue", "--quiet", "-o", "there")

    stored = json.loads((place / "there" / "run.json").read_bytes())["scenario"]["headers"]
    assert stored == {"X-Tenant": "blue"}


def test_continuing_asks_for_a_header_that_was_not_stored(place: Path, locked: Simulator) -> None:
    header = f"Authorization: Bearer {KEY}"
    run("-e", locked.url, *BRIEF, "--header", header, "--quiet", "-o", "there")

    without, again = run("--resume", "there"), run("--resume", "there", "--header", header, "--quiet")

    assert without.exit_code == 2
    assert (
        without.stderr
        == "loadbench: there: sent a header Authorization, whose value is not stored: give it with --header\n"
    )
    assert again.exit_code == 0


# -- what goes wrong on the way


def test_a_model_that_fails_is_exit_code_1_and_the_others_are_measured(place: Path, half_broken: str) -> None:
    done = run("-e", half_broken, "-c", "1,2", "-n", "3", "-m", "bad,good", "--no-repeat-first", "-o", "there")

    assert done.exit_code == 1
    assert "loadbench: bad: http_4xx: " in done.stderr
    levels = json.loads((place / "there" / "summary.json").read_bytes())["levels"]
    assert {level["id"]: (level["status"], level["completed"]) for level in levels} == {
        "bad@c1": ("skipped", 0),
        "bad@c2": ("skipped", 0),
        "good@c1": ("complete", 3),
        "good@c2": ("complete", 3),
    }


def test_wait_measures_a_server_that_starts_late(place: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    with process("run", "-e", f"127.0.0.1:{port}", *BRIEF, "--wait", "60s", "-o", "there") as waiting:
        assert waiting.stderr is not None
        first = waiting.stderr.readline()  # nothing answers yet
        with simulator.start(ttft_ms=1, itl_ms=0.2, port=port):
            rest = waiting.communicate(timeout=30)

    assert first.startswith("waiting up to 60 s: nothing answers at ")
    assert "connection refused" in first
    assert "--wait" not in first
    assert waiting.returncode == 0, rest
    assert (place / "there" / "report.md").exists()


def test_waiting_in_vain_is_one_line(refusing: str) -> None:
    done = run("-e", refusing, "--wait", "50ms", "--quiet")

    assert done.exit_code == 1
    assert re.fullmatch(r"loadbench: waited 0.05 s in vain: nothing answers at [^\n]+\n", done.stderr)
    assert "--wait" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="its signals are others")
def test_ctrl_c_before_the_measurement_is_exit_code_130_and_writes_nothing(place: Path, refusing: str) -> None:
    with process("run", "-e", refusing, "--wait", "60s") as waiting:
        assert waiting.stderr is not None
        waiting.stderr.readline()  # it waits
        waiting.send_signal(signal.SIGINT)
        said = waiting.communicate(timeout=30)

    assert waiting.returncode == 130
    assert said == ("", "loadbench: interrupted\n")
    assert files(place) == set()


@pytest.mark.skipif(sys.platform == "win32", reason="its signals are others")
def test_a_terminals_ctrl_c_lets_requests_to_the_simulator_end_and_says_how_to_go_on(place: Path) -> None:
    words = ["--simulate", "-c", "2", "-d", "60s", "--max-tokens", "30", "-o", "a b", "--json"]
    with process("run", *words, start_new_session=True) as running:
        assert running.stdout is not None
        until(running.stdout, lambda event: event["event"] == "progress" and event["completed"])
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the whole group
        rest, said = running.communicate(timeout=30)

    assert running.returncode == 130
    assert said.endswith("interrupted; go on with: loadbench run --resume 'a b'\n")
    [level] = json.loads(rest.splitlines()[-1])["summary"]["levels"]
    assert (level["status"], level["failed"], level["cancelled"]) == ("interrupted", 0, 0)


def until(lines: Any, true: Callable[[dict[str, Any]], object]) -> None:
    """Read JSON lines up to the first of which it is true."""
    for line in lines:
        if true(json.loads(line)):
            return
    raise AssertionError("it never came true")


def test_a_reader_that_goes_away_is_no_traceback(folder: Path) -> None:
    with process("report", folder, bufsize=0) as reporting:
        assert reporting.stdout is not None
        reporting.stdout.close()
        assert reporting.stderr is not None
        said = reporting.stderr.read()

    assert "Traceback" not in said


def test_runs_that_begin_in_one_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("loadbench.runner.folder.time.strftime", lambda *_: "20261122T101500Z")
    with ExitStack() as stack:
        taken = [folders.new("a", stack, claim=True) for _ in range(3)]
        (taken[1] / "run.json").touch()
        dry = folders.new("a", stack, claim=False)

    assert [path.name for path in (*taken, dry)] == [f"20261122T101500Z-a{n}" for n in ("", "-2", "-3", "-4")]
    assert list(Path("results").iterdir()) == [taken[1]]


# -- variables that look like settings


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("LOADBENCH_CONCURENCY", "LOADBENCH_CONCURENCY (did you mean LOADBENCH_CONCURRENCY?)"),
        ("LOADBENCH_MAXTOKENS", "LOADBENCH_MAXTOKENS (did you mean LOADBENCH_MAX_TOKENS?)"),
        ("BENCH_ROUND", "BENCH_ROUND (did you mean BENCH_ROUNDS?)"),
        ("BENCH_MODEL", "BENCH_MODEL (did you mean BENCH_MODELS?)"),
        ("LOADBENCH_MOD\x1b[31mEL", "LOADBENCH_MOD[31mEL"),
        ("LOADBENCH_WEATHER", "LOADBENCH_WEATHER"),
        *((name, None) for name in ("LOADBENCH_CONCURRENCY", "BENCH_ROUNDS", "LOADBENCH_CACHE", "BENCH_OF_MINE")),
    ],
)
def test_a_variable_that_is_no_setting_is_named_in_one_line(name: str, says: str | None, place: Path) -> None:
    done, quiet = (run("--simulate", "--dry-run", *more, **{name: "12"}) for more in ((), ("--quiet",)))

    assert done.exit_code == 0
    assert done.stderr.startswith(f"loadbench: no setting, ignored: {says}\n") == (says is not None)
    assert done.stderr.count("no setting") == (says is not None)
    assert "no setting" not in quiet.stderr
