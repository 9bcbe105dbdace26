"""Whether Foundry Local's SDK is here, and what lies in its cache folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadbench.errors import how_to_install
from loadbench.serve.foundry.places import REGISTERED, available, cache_folder, half_downloads, has_models


@pytest.mark.parametrize("version", ["2.1", "2.1.0", "2.2.1", "2.10.0", "3.0.0rc1", "10.0"])
def test_a_new_enough_sdk_is_available(version: str) -> None:
    assert available(lambda _: version) is None


@pytest.mark.parametrize("version", ["0.5.1", "1.2.4", "2.0.9", "2.0.0rc2"])
def test_an_old_sdk_says_what_is_needed(version: str) -> None:
    assert available(lambda _: version) == (
        f"Foundry Local's SDK {version} is too old, 2.1 or newer is needed: {how_to_install('foundry')}"
    )


def test_no_sdk_says_what_to_install() -> None:
    assert available(lambda _: None) == f"Foundry Local's SDK is not installed: {how_to_install('foundry')}"


def test_an_sdk_without_its_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadbench.serve.foundry.places._installed", lambda _: "2.2.1")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    assert str(available()).startswith("Foundry Local's SDK 2.2.1 is installed without its package foundry_local_sdk: ")


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({}, "/home/ada/.loadbench/cache/models"),
        ({"LOADBENCH_CACHE_DIR": ""}, "/home/ada/.loadbench/cache/models"),
        ({"LOADBENCH_CACHE_DIR": "/data/models"}, "/data/models"),
    ],
)
def test_the_cache_folder_is_the_sdks_own_unless_another_is_named(environ: dict[str, str], folder: str) -> None:
    assert cache_folder(environ, Path("/home/ada")).as_posix() == folder


def test_a_home_in_the_variable_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))

    assert cache_folder({"LOADBENCH_CACHE_DIR": "~/models"}, Path("/home/ada")) == tmp_path / "models"


def lay(folder: Path, *names: str) -> None:
    """Empty files."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()


WHOLE = ("genai_config.json", "inference_model.json")


@pytest.mark.parametrize(
    ("place", "names", "expected"),
    [
        ("Microsoft/phi-1", WHOLE, True),
        ("Microsoft/phi-1/v2", WHOLE, True),  # several variants in one download
        ("Microsoft/phi-1", (*WHOLE, "download.tmp"), False),  # not whole
        ("Microsoft/phi-1", WHOLE[:1], False),
        ("Microsoft/phi-1", WHOLE[1:], False),
        ("Microsoft/phi-1", (), False),
    ],
)
def test_a_download_counts_once_it_is_whole(tmp_path: Path, place: str, names: tuple[str, ...], expected: bool) -> None:
    lay(tmp_path / place, *names)

    assert has_models(tmp_path) is expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (json.dumps({"models": [{"id": "tiny:1"}]}), True),
        (json.dumps({"models": []}), False),  # all were removed
        (json.dumps({"models": "none"}), False),
        (json.dumps([]), False),
        ("not JSON", False),
    ],
)
def test_a_registered_model_counts(tmp_path: Path, written: str, expected: bool) -> None:
    (tmp_path / REGISTERED).write_text(written)

    assert has_models(tmp_path) is expected


def test_a_folder_that_is_not_there_has_no_models(tmp_path: Path) -> None:
    assert has_models(tmp_path / "none") is False


def test_only_this_models_unfinished_downloads_are_half(tmp_path: Path) -> None:
    lay(tmp_path / "Microsoft" / "phi-1", "download.tmp")
    lay(tmp_path / "Microsoft" / "phi-2", "download.tmp")
    lay(tmp_path / "Other" / "phi-1", *WHOLE)

    assert half_downloads(tmp_path, "phi:1") == [tmp_path / "Microsoft" / "phi-1"]
