"""What an adapter may look like, how it is found, and what its mistakes are called."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadbench.errors import LoadbenchError, UsageError
from loadbench.serve.adapter.echo import Echo
from loadbench.serve.adapter.model import Model, find, option

HELLO = [{"role": "user", "content": "hello"}]


class Bare:
    """The least there is; what a test needs on top is given as attributes."""

    def __init__(self, generate: Any = None, **others: Any) -> None:
        self.generate = generate or (lambda messages: ["ok"])
        for name, value in others.items():
            setattr(self, name, value)

    def load(self, weights_path: str | None, *, threads: int = 1) -> None:
        self.loaded = (weights_path, threads)


def answered(adapter: Any, messages: Any = HELLO, **params: Any) -> tuple[str, dict[str, int] | None, str]:
    """Text, usage and finish reason of one answer."""
    with Model(adapter, "test").generation(messages, params) as generation:
        while generation.next() is not None:
            pass
        usage = generation.usage()
        return generation.text, usage, generation.finish(usage)


# -- the forms of generate


def roles(messages: Any) -> Iterator[str]:
    yield messages[0]["role"]
    yield " said "
    yield messages[0]["content"]


TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "Bye"},
]


@pytest.mark.parametrize(
    ("generate", "messages", "text"),
    [
        (roles, HELLO, "user said hello"),
        (lambda prompt: f"<{prompt}>", HELLO, "<hello>"),  # the plain form gets the only message as it is
        (
            lambda prompt: prompt,  # … and earlier turns under their roles
            TURNS,
            "System: Be brief.\n\nUser: Hi\n\nAssistant: Hi!\n\nUser: Bye\n\nAssistant:",
        ),
    ],
)
def test_generate_takes_messages_or_a_prompt(generate: Any, messages: Any, text: str) -> None:
    assert answered(Bare(generate), messages)[0] == text


@pytest.mark.parametrize(
    "generate",
    [
        lambda messages: "whole",
        lambda messages: ["who", "le"],
        lambda messages: iter(("who", "le")),
        lambda prompt: (piece for piece in ("who", "", "le")),
    ],
)
def test_text_and_any_iterable_of_text_is_an_answer(generate: Any) -> None:
    assert answered(Bare(generate))[0] == "whole"


def test_a_text_is_one_piece() -> None:
    with Model(Bare(lambda prompt: "one two"), "test").generation(HELLO, {}) as generation:
        pieces = [generation.next(), generation.next()]

    assert pieces == ["one two", None]


def test_generate_gets_the_parameters_that_it_takes() -> None:
    def every(messages: Any, **params: Any) -> str:
        return repr(params)

    def named(messages: Any, max_tokens: int = 1) -> str:
        return str(max_tokens)

    assert answered(Bare(every), max_tokens=5, top_k=1)[0] == "{'max_tokens': 5, 'top_k': 1}"
    assert answered(Bare(named), max_tokens=5, temperature=0.5)[0] == "5"


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, "generate returned NoneType, not text or an iterator of text"),
        (b"text", "generate returned bytes, not text"),
        ({"text": "x"}, "generate returned dict, not text"),
        ([1, 2], "generate yields int, not text"),
    ],
)
def test_what_is_no_text_is_refused(made: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        answered(Bare(lambda messages: made))


def test_an_async_generate_is_refused_before_it_is_loaded() -> None:
    async def generate(messages: Any) -> str:
        return "x"

    with pytest.raises(UsageError, match="is async: make it a plain function"):
        Model(Bare(generate), "test")


def test_what_generate_made_is_closed_although_the_adapter_keeps_it() -> None:
    kept = (piece for piece in "abc")
    with Model(Bare(lambda messages: kept), "test").generation(HELLO, {}) as generation:
        generation.next()

    assert list(kept) == []


def test_a_generator_that_fails_as_it_is_closed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def generate(messages: Any) -> Iterator[str]:
        try:
            yield "a"
        finally:
            raise RuntimeError("late")

    with Model(Bare(generate), "test").generation(HELLO, {}) as generation:
        generation.next()

    assert "the adapter failed as its generator was closed: RuntimeError: late" in caplog.text


# -- usage and the end


def returning(value: Any) -> Any:
    def generate(messages: Any) -> Any:
        yield "a b"
        return value

    return generate


EXACT = {"prompt_tokens": 9, "completion_tokens": 4, "finish_reason": "length"}


@pytest.mark.parametrize(
    ("adapter", "params", "usage", "finish"),
    [
        (Bare(lambda messages: ["a", "b"]), {}, None, "stop"),  # nothing counts
        (
            Bare(returning(EXACT), count_tokens=len),  # the generator's own go before a count
            {},
            {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
            "length",
        ),
        (
            Bare(lambda prompt: "one two three", count_tokens=lambda text: len(text.split())),
            {},
            {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4},
            "stop",
        ),
        (Bare(count_tokens=len), {}, {"completion_tokens": 2}, "stop"),  # the template of a conversation is not known
        (Bare(count_tokens=len), {"max_tokens": 2}, {"completion_tokens": 2}, "length"),
        *((Bare(returning({"completion_tokens": wrong})), {}, None, "stop") for wrong in ("4", True, -1)),
    ],
)
def test_usage_is_what_was_really_counted(
    adapter: Any, params: dict[str, Any], usage: dict[str, int] | None, finish: str
) -> None:
    assert answered(adapter, **params)[1:] == (usage, finish)


# -- what is told of the model


def test_info_is_told_under_the_names_that_model_lists_use() -> None:
    told = {"id": "m", "context": 4096, "licence": "MIT", "execution_provider": "XProvider", "device": None}

    row = Model(Bare(info=lambda: told), "test").row

    known = ("id", "context_length", "license", "executionProvider", "loaded")
    assert [row[name] for name in known] == ["m", 4096, "MIT", "XProvider", True]
    assert "device" not in row


def test_the_size_is_that_of_the_weights_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "w.onnx").write_bytes(b"123")
    (tmp_path / "b.json").write_bytes(b"12")

    assert Model(Bare(), "test", str(tmp_path)).row["size_bytes"] == 5


@pytest.mark.parametrize(
    ("info", "weights", "asked", "expected"),
    [
        ({"id": "told"}, "my-weights", "asked", "asked"),
        ({"id": "told"}, "my-weights", None, "told"),
        ({}, "some/my-weights", None, "my-weights"),
        ({}, None, None, "my_model"),
    ],
)
def test_the_id_is_asked_for_or_told_or_after_weights_or_class(
    info: dict[str, Any], weights: str | None, asked: str | None, expected: str
) -> None:
    assert Model(Bare(info=lambda: info), "x:My_Model", weights, {}, asked).id == expected


def test_weights_and_options_reach_load_and_one_that_it_does_not_take_is_refused() -> None:
    adapter = Bare()
    Model(adapter, "test", "w", {"threads": 3})

    assert adapter.loaded == ("w", 3)
    with pytest.raises(UsageError, match="unexpected keyword argument 'thread'; its options: threads"):
        Model(Bare(), "test", None, {"thread": 3})


@pytest.mark.parametrize("error", [RuntimeError("no such\nlayer"), SystemExit("no such layer")])
def test_a_load_that_raises_is_one_line_with_its_place(error: BaseException) -> None:
    def load(weights_path: str | None) -> None:
        raise error

    with pytest.raises(LoadbenchError, match=r"test cannot load w: \w+: no such layer \(test_adapter_model.py:\d+\)$"):
        Model(Bare(load=load), "test", "w")


def test_an_info_that_is_no_dict_is_one_line() -> None:
    with pytest.raises(LoadbenchError, match="info returned list, not a dict"):
        Model(Bare(info=list), "test")


@pytest.mark.parametrize(
    ("text", "expected"), [("n=2", 2), ("n=true", True), ("n=[1]", [1]), ("n=a=b", "a=b"), ('n="2"', "2"), ("n=", "")]
)
def test_an_option_is_json_or_else_text(text: str, expected: Any) -> None:
    assert option(text) == ("n", expected)


@pytest.mark.parametrize("text", ["n", "=2", "a-b=2"])
def test_an_option_without_a_key_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no KEY=VALUE"):
        option(text)


# -- the example


@pytest.mark.parametrize(
    ("options", "params", "expected"),
    [
        ({}, {}, ("to be", "stop", 2)),
        ({"words": 5}, {}, ("to be to be to", "stop", 5)),
        ({"words": 5}, {"max_tokens": 3}, ("to be to", "length", 3)),
    ],
)
def test_the_echo_repeats_the_users_words(
    options: dict[str, Any], params: dict[str, Any], expected: tuple[str, str, int]
) -> None:
    model = Model(Echo(), "echo", None, options)
    with model.generation([{"role": "user", "content": "to be"}], params) as generation:
        while generation.next() is not None:
            pass
    usage = generation.usage() or {}

    assert (generation.text, generation.finish(usage), usage["completion_tokens"]) == expected


# -- how it is found


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
