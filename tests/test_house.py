"""The rules of the house, held: import order, one home per library, who prints, what is locked, what the docs name."""

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.support import house

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

EVERYWHERE = {"msgspec", "numpy", "orjson"}
"""Our own records, arrays and JSON: nothing that would be swapped for another library in one place."""

HOMES = {
    "anyio": {"engine", "runner", "quality", "cli"},
    "click": {"cli"},
    "dask": {"runner"},
    "distributed": {"runner"},
    "foundry_local_sdk": {"serve/foundry_sdk"},
    "hdrh": {"store"},
    "httptools": {"transport", "serve/simulator"},  # both ends of one wire
    "httpx": {"client", "transport", "server"},
    "pandas": {"api"},
    "plotly": {"report"},
    "psutil": {"telemetry", "cli"},
    "pynvml": {"telemetry", "cli"},
    "rich": {"cli", "report"},
    "uvloop": {"engine", "cli"},
    "xllamacpp": {"serve/llama"},
}
"""Rooms of loadbench that may import a library; in cli, psutil and pynvml are the doctor's."""

SPEAKERS = {"cli", "report", "__main__"}
CHILDREN = {"serve/llama", "runner/child"}
"""Child processes: the one fetches its model for `make setup` too, the other speaks as `loadbench run` does."""


@functools.cache
def sources() -> list[tuple[str, str, list[ast.AST]]]:
    """Every file of the package: its room, its path to show, the nodes of its syntax tree that a rule may be about."""
    package, found = ROOT / "loadbench", []
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        room = inside.parts[0].removesuffix(".py")
        if room == "serve":
            room = "/".join(inside.with_suffix("").parts[:2])
        if inside.as_posix() == "runner/child.py":
            room = "runner/child"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = [
            node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom | ast.Call | ast.Attribute)
        ]
        found.append((room, str(path.relative_to(ROOT)), nodes))
    return found


def imported(nodes: list[ast.AST]) -> Iterator[tuple[str, int]]:
    """Top-level names of the absolute imports anywhere in a file, inside functions too, with their lines."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno


def dependencies() -> set[str]:
    """All libraries that pyproject.toml asks for, in every extra, by their normalised names."""
    project = PYPROJECT["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[^\w.-]", requirement, maxsplit=1)[0] for each in lists for requirement in each}
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names} - {"loadbench"}


def test_each_library_is_imported_in_its_home_alone() -> None:
    strangers = [
        f"{path}:{line} imports {name}" + ("" if name in HOMES else ", which has no home in HOMES yet")
        for room, path, nodes in sources()
        for name, line in imported(nodes)
        if name not in {*sys.stdlib_module_names, *EVERYWHERE, "loadbench", "__future__"}
        and room not in HOMES.get(name, set())
    ]

    assert strangers == []


def test_only_the_command_line_and_the_reports_print_or_have_the_standard_streams() -> None:
    found = []
    for room, path, nodes in sources():
        for node in nodes if room not in SPEAKERS else ():
            prints = isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print"
            streams = isinstance(node, ast.Attribute) and node.attr in {"stdout", "stderr"}
            if prints or (streams and room not in CHILDREN and getattr(node.value, "id", None) == "sys"):
                found.append(f"{path}:{node.lineno}")

    assert found == []


UNSAFE = {"dill", "cloudpickle", "joblib", "marshal", "pickle", "shelve", "yaml"}
"""Their readers run what a file says; in loadbench nothing needs them."""


def test_nothing_that_is_read_is_run() -> None:
    found = [f"{path}:{line} imports {name}" for _, path, nodes in sources() for name, line in imported(nodes)]
    calls = [
        f"{path}:{node.lineno} calls {name}"
        for _, path, nodes in sources()
        for node in nodes
        if isinstance(node, ast.Call) and (name := getattr(node.func, "id", None)) in {"eval", "exec", "compile"}
    ]

    assert [one for one in found if one.rpartition(" ")[2] in UNSAFE] + calls == []


def test_no_test_imports_another() -> None:
    """What two of them share lives in tests/support/, so that a file of tests can be changed or split on its own."""
    imports = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"\s*(from|import) (tests\.)?test_", line)
    ]

    assert imports == []


def test_every_dependency_is_locked() -> None:
    lock = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([a-z0-9-]+)==", lock, flags=re.MULTILINE))

    assert dependencies() - locked == set(), "run: make lock"


def test_the_lock_file_names_no_index_and_no_folder_of_a_machine() -> None:
    lock = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")

    assert re.findall(r"\S*://\S*|--(?:extra-)?index\S*|--find-links\S*|(?<=[ @])/\S+", lock) == []


def test_make_without_a_target_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY:(.*)$", makefile, flags=re.MULTILINE)[1].split())  # type: ignore[index]

    listed = set(re.findall(r"^([a-z-]+):.*## \S", makefile, flags=re.MULTILINE))

    assert phony - listed == {"model", "endpoint"}, "steps of other targets, not for people"
    assert listed <= phony


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/install.md"])
def test_every_make_target_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)

    named = re.findall(r"(?:^|`)make ([a-z][a-z-]*)", text, flags=re.MULTILINE)

    assert named, "the document shows how to start"
    assert set(named) <= set(targets)


def test_every_document_that_the_code_cites_is_here() -> None:
    files = [*(ROOT / "loadbench").rglob("*.py"), *(ROOT / "tests").glob("*.py")]
    cited = {
        (found, path.name)
        for path in files
        for found in re.findall(r"\bdocs/\w+\.md|\b[A-Z]{4,}\.md", path.read_text())
    }

    assert len(cited) > 20
    assert {found for found in cited if not (ROOT / found[0]).is_file()} == set()


@pytest.mark.system
def test_help_needs_no_heavy_library() -> None:
    script = (
        "import sys, loadbench.cli; print(*{'numpy', 'httpx', 'msgspec', 'orjson', 'rich', 'anyio'} & {*sys.modules})"
    )

    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.split() == []


MOST = {
    "lines": 52_000,
    "files": 172,
    "names": 22,
    "untyped": 135,
    "comprehensions": 35,
    "conditionals": 25.4,
    "test_lines": 51_900,
}
"""What the house may come to. It only gets smaller: a feature that is added pays by what it lets go."""
LEAST_COMMENTS = 40


def test_the_house_does_not_grow(record_property: Callable[[str, object], None]) -> None:
    """DECISIONS.md 74 has how far they came."""
    found = asdict(house.measure())
    for name, figure in found.items():
        record_property(name, figure)

    assert {name: found[name] for name, most in MOST.items() if found[name] > most} == {}, house.table(found)
    assert found["comments"] >= LEAST_COMMENTS, house.table(found)
