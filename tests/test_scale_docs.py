"""docs/scale.md: its manifest is one of Dask's operator, its commands and settings exist, its Python is Python."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tests.support.documents import fenced, inline, options_of_all, page, parsed

TEXT, _ = page("scale.md")
PART = TEXT[TEXT.index("## Many cores") :]
MANIFEST: dict[str, Any] = yaml.safe_load(fenced(TEXT, "yaml")[0])
ARGS = {role: MANIFEST["spec"][role]["spec"]["containers"][0]["args"] for role in ("worker", "scheduler")}
DASK = [
    *(shlex.split(line, comments=True) for line in re.findall(r"^(?: {4})?(dask .*)$", TEXT, re.MULTILINE)),
    *ARGS.values(),
]
LINES = re.findall(r"kubectl exec .* -- (loadbench .*)", TEXT)


@pytest.mark.parametrize("line", LINES)
def test_a_command_is_understood(line: str) -> None:
    parsed(line)


@pytest.mark.parametrize("option", sorted(set(re.findall(r"(?<=`)--?[a-z][\w-]*", PART))))
def test_an_option_that_is_named_exists(option: str) -> None:
    assert option in options_of_all() | dasks_options("worker") | dasks_options("scheduler")


@pytest.mark.parametrize("text", sorted(text for text in inline(PART) if text.startswith(("loadbench ", "dask "))))
def test_a_command_within_a_sentence_has_options_that_exist(text: str) -> None:
    program, name, *words = text.split()
    known = options_of_all() if program == "loadbench" else dasks_options(name)

    assert {word for word in words if word.startswith("-")} <= known


def dasks_options(name: str) -> set[str]:
    """Of one of Dask's commands, as they are installed."""
    command = dasks_command(name)
    return {text for param in command.params for text in (*param.opts, *param.secondary_opts)}


def dasks_command(name: str) -> click.Command:
    pytest.importorskip("distributed")
    from distributed.cli import dask_scheduler, dask_ssh, dask_worker

    commands: dict[str, Any] = {"scheduler": dask_scheduler.main, "ssh": dask_ssh.main, "worker": dask_worker.main}
    found: click.Command = commands[name]
    return found


@pytest.mark.parametrize("words", DASK, ids=" ".join)
def test_a_command_of_dask_is_understood(words: list[str]) -> None:
    context = dasks_command(words[1]).make_context("dask", words[2:])

    assert context.params.get("nthreads", 1) == 1  # one worker, one core
    assert not context.params.get("dashboard")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"DASK_DISTRIBUTED__[A-Z_]+", TEXT))))
def test_a_variable_is_a_setting_of_dask(name: str) -> None:
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    keys = name.removeprefix("DASK_").lower().split("__")

    assert keys[-1].replace("_", "-") in {key.replace("_", "-") for key in dask.config.get(".".join(keys[:-1]))}


def test_the_file_for_hosts_turns_the_profiler_off() -> None:
    (text,) = re.findall(r"`(\{?distributed: .*?)`", TEXT)

    assert yaml.safe_load(text) == {"distributed": {"worker": {"profile": {"enabled": False}}}}


@pytest.mark.parametrize("script", fenced(TEXT, "python"), ids=["ssh", "slurm"])
def test_a_script_is_python_and_its_run_is_understood(script: str) -> None:
    tree = ast.parse(script)
    lists = [ast.literal_eval(node) for node in ast.walk(tree) if isinstance(node, ast.List) and _plain(node)]
    load = next(node for node in ast.walk(tree) if isinstance(node, ast.List) and "--cluster" in ast.unparse(node))
    words = [ast.literal_eval(one) if isinstance(one, ast.Constant) else "tcp://host:1" for one in load.elts]

    assert lists
    assert parsed(shlex.join(["loadbench", "run", *words])).params["yes"]


def _plain(node: ast.List) -> bool:
    return all(isinstance(one, ast.Constant) for one in node.elts)


# -- Kubernetes


def test_the_manifest_is_a_cluster_of_the_operator() -> None:
    spec = MANIFEST["spec"]
    scheduler = spec["scheduler"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in scheduler["ports"]}
    service = spec["scheduler"]["service"]

    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("kubernetes.dask.org/v1", "DaskCluster")
    assert spec["worker"]["replicas"] > 1
    assert ports == {"tcp-comm": 8786, "http-dashboard": 8787}
    assert {port["targetPort"]: port["port"] for port in service["ports"]} == ports
    assert service["selector"]["dask.org/cluster-name"] == MANIFEST["metadata"]["name"]
    assert f"service/{MANIFEST['metadata']['name']}-scheduler 8786" in TEXT


def test_a_pod_is_one_worker_on_a_core_of_its_own() -> None:
    (container,) = MANIFEST["spec"]["worker"]["spec"]["containers"]
    variables = {one["name"]: one["value"] for one in container["env"]}

    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert container["resources"]["limits"]["cpu"] == "1"
    assert "$(DASK_WORKER_NAME)" in container["args"]
    assert variables == {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}


def test_both_documents_say_whom_a_cluster_must_be_trusted_by() -> None:
    for document in ("SECURITY.md", "docs/scale.md"):
        text = " ".join((Path(__file__).parents[1] / document).read_text(encoding="utf-8").split())

        assert re.search(r"\*\*Connect only to (?:a cluster|clusters) that you trust as yourself\.\*\*", text)
