"""How an adapter is found, and what is said where it is not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadbench.errors import LoadbenchError, UsageError
from loadbench.serve.adapter.echo import Echo
from loadbench.serve.adapter.model import find


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, and sys.path and sys.modules as before in the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    there = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - there:
        del sys.modules[name]


MINE = """
import my_part
class Mine:
    def load(self, weights_path): pass
    def generate(self, prompt): return my_part.WORD
class Half:
    def load(self, weights_path): pass
class Broken(Mine):
    def __init__(self): raise KeyError("x")
"""


@pytest.fixture
def mine(folder: Path) -> None:
    (folder / "my_model.py").write_text(MINE)
    (folder / "my_part.py").write_text("WORD = 'part'")


@pytest.mark.usefixtures("mine")
def test_a_class_is_found_in_the_working_folder_with_what_it_imports() -> None:
    assert find("my_model:Mine").generate("") == "part"


def test_an_adapter_is_found_by_the_name_of_its_entry_point() -> None:
    assert isinstance(find("echo"), Echo)


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("my_modle:Mine", "there is no module 'my_modle', neither in .* nor installed; is it my_model\\?"),
        ("my_model:Mnie", "the module my_model has no 'Mnie'; is it Mine\\?"),
        ("my_model:Zebra", "has no 'Zebra'; there is Broken, Mine"),
        ("my_model:Half", "my_model:Half is no adapter: it has no generate"),
        ("my_model.py:Mine", "is no module:Class: write it like my_model:Mine"),
        ("./my_model.py:Mine", "write it like my_model:Mine"),
        ("my_model:", "write it like my_model:MyModel"),
        ("ehco", "no adapter is named 'ehco'; is it echo\\?; one of your own is written module:Class"),
        ("zebra", "no adapter is named 'zebra'; there is echo"),
    ],
)
def test_an_adapter_that_is_not_there_is_one_line_with_near_names(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find(spec)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import not_there_at_all", r"ModuleNotFoundError: No module named 'not_there_at_all' \(bad_model.py:1\)"),
        ("\n1 / 0", r"ZeroDivisionError: division by zero \(bad_model.py:2\)"),
        ("def x(:", "SyntaxError: "),
        ("import json\n\njson.loads('x')", r"JSONDecodeError: .* \(bad_model.py:3\)"),  # raised beneath, told here
        ("import sys; sys.exit('no GPU')", r"SystemExit: no GPU \(bad_model.py:1\)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(folder: Path, source: str, message: str) -> None:
    (folder / "bad_model.py").write_text(source)

    with pytest.raises(LoadbenchError, match=f"the module bad_model cannot be imported: {message}") as caught:
        find("bad_model:Mine")

    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("mine")
def test_a_constructor_that_raises_is_one_line() -> None:
    with pytest.raises(LoadbenchError, match=r"my_model:Broken cannot be made: KeyError: 'x' \(my_model.py:9\)"):
        find("my_model:Broken")
