"""What is installed without the clone: the wheel, its scenarios, its hints, and the container's steps."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from loadbench import errors, scenario
from loadbench.transport import reader_built
from tests.support.command import invoke

ROOT = Path(__file__).parents[1]
CONTAINERFILE = (ROOT / "Containerfile").read_text(encoding="utf-8")


def test_a_scenario_that_comes_with_loadbench_is_run_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    done = invoke("run", "stress", "--simulate", "--dry-run", "--json")

    assert json.loads(done.stdout)["scenario"]["name"] == "stress"


def test_a_name_that_no_scenario_has_is_answered_with_those_there_are() -> None:
    done = invoke("run", "stres")

    assert done.exit_code == 2
    assert ", ".join(scenario.shipped()) in done.stderr


def test_the_help_names_the_scenarios_that_come_with_loadbench() -> None:
    assert f"{', '.join(scenario.shipped())}." in invoke("run", "--help-all").stdout


def test_a_hint_of_an_installed_wheel_names_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "loadbench" / "errors.py"))

    hint = errors.how_to_install("llama", "cluster")

    assert re.fullmatch(r'`pip install "distributed>=[\d.]+" "xllamacpp==[\d.]+"`', hint)


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", CONTAINERFILE, re.MULTILINE)


def engine() -> str | None:
    """A container engine that can build here; its command alone is not enough."""
    for name in ("podman", "docker"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True).returncode == 0:
            return name
    return None


@pytest.mark.endurance
@pytest.mark.timeout(900)
def test_the_container_is_built_and_measures(tmp_path: Path) -> None:
    name = engine()
    if name is None:
        pytest.skip("no container engine here; its steps run as a script below")
    image = "loadbench-test"
    subprocess.run([name, "build", "-q", "-f", "Containerfile", "-t", image, "."], cwd=ROOT, check=True)

    words = ["run", "quickstart", "--simulate", "-c", "1", "-n", "4", "--quiet"]
    done = subprocess.run([name, "run", "--rm", image, *words], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.endurance
@pytest.mark.timeout(900)
def test_the_containers_steps_make_a_loadbench_that_measures_and_draws(tmp_path: Path) -> None:
    """As a script in an empty environment: what it copies is all that it has of the clone."""
    source = tmp_path / "src"
    for names in instructions("COPY"):
        *files, _ = names.split()
        source.mkdir(exist_ok=True)
        for file in files:
            copy = shutil.copytree if (ROOT / file).is_dir() else shutil.copy
            copy(ROOT / file, source / file)
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    [install] = [step.partition(" && ")[0] for step in instructions("RUN") if step.startswith("pip install")]
    step = install.replace("pip", f"{programs}/pip", 1).replace("/src$EXTRAS", str(source))
    subprocess.run(step, shell=True, check=True, cwd=tmp_path)
    [entry] = map(json.loads, instructions("ENTRYPOINT"))

    words = ["run", "quickstart", "--simulate", "-c", "1", "-n", "4", "--quiet"]
    environment = {"PATH": os.defpath, "HOME": str(tmp_path), "SYSTEMROOT": os.environ.get("SYSTEMROOT", "")}
    subprocess.run([programs / entry[0], *words], check=True, cwd=tmp_path, env=environment)
    printed = subprocess.run(
        [programs / entry[0], "report", "last"], check=True, cwd=tmp_path, env=environment, capture_output=True
    )

    [page] = (tmp_path / "results").glob("*-quickstart/report.html")
    assert b"quickstart" in printed.stdout
    assert 'id="plotly"' in page.read_text(encoding="utf-8")
    assert sys.prefix not in printed.stdout.decode()


@pytest.mark.endurance
@pytest.mark.timeout(900)
@pytest.mark.skipif(not reader_built(), reason="no C compiler here, or another system than Linux")
@pytest.mark.parametrize("compiler", ["cc", "no-such-compiler"])
def test_a_wheel_has_the_reader_thread_where_there_is_a_compiler(compiler: str, tmp_path: Path) -> None:
    source = tmp_path / "src"
    for name in ("loadbench", "scenarios"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py"):
        shutil.copy(ROOT / name, source / name)
    venv.create(tmp_path / "venv", with_pip=True)
    pip = [tmp_path / "venv" / "bin" / "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, source]

    subprocess.run(pip, check=True, env=os.environ | {"CC": compiler})

    [wheel] = tmp_path.glob("*.whl")
    has_reader = "loadbench/transport/_reader.abi3.so" in zipfile.ZipFile(wheel).namelist()
    assert (has_reader, wheel.name.endswith("-py3-none-any.whl")) == (
        (True, False) if compiler == "cc" else (False, True)
    )
