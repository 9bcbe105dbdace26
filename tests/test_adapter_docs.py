"""docs/adapter.md: its code runs, on a stand-in for onnxruntime_genai, and what it says of commands is so."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from loadbench.serve.adapter.model import GROUP, Model, find

DOCUMENT = (Path(__file__).parents[1] / "docs" / "adapter.md").read_text(encoding="utf-8")
EOS = 2


class Config:
    def __init__(self, folder: str) -> None:
        self.providers = ["as written"]

    def clear_providers(self) -> None:
        self.providers.clear()

    def append_provider(self, name: str) -> None:
        self.providers.append(name)


class Tokenizer:
    """A character a token; decoding gives words."""

    eos_token_ids = (EOS,)

    def __init__(self, model: Any) -> None:
        pass

    def apply_chat_template(self, messages: str, *, add_generation_prompt: bool = False) -> str:
        return "".join(f"<{message['role']}>{message['content']}" for message in json.loads(messages))

    def encode(self, text: str) -> list[int]:
        return [ord(sign) for sign in text]

    def create_stream(self) -> Any:
        return SimpleNamespace(decode=lambda token: "" if token == EOS else f" {token}")


class GeneratorParams:
    def __init__(self, model: Any) -> None:
        self.options: dict[str, Any] = {}

    def set_search_options(self, **options: Any) -> None:
        self.options |= options


class Generator:
    """Counts 100, 101, 102 and ends, or ends at max_length, as the real one does (0.18)."""

    def __init__(self, model: Any, params: GeneratorParams) -> None:
        self.limit, self.tokens = params.options["max_length"], list[int]()
        model.seen = params.options

    def append_tokens(self, tokens: list[int]) -> None:
        self.tokens += tokens
        self.left = [100, 101, 102, EOS]

    def generate_next_token(self) -> None:
        self.tokens.append(self.left.pop(0))

    def get_next_tokens(self) -> list[int]:
        return self.tokens[-1:]

    def is_done(self) -> bool:
        return self.tokens[-1] == EOS or len(self.tokens) >= self.limit


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The document's adapter, as a user would save it."""
    genai = ModuleType("onnxruntime_genai")
    for part in (Config, Tokenizer, GeneratorParams, Generator):
        setattr(genai, part.__name__, part)
    vars(genai)["Model"] = lambda config: SimpleNamespace(config=config, device_type="CPU")
    monkeypatch.setitem(sys.modules, "onnxruntime_genai", genai)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    (tmp_path / "onnx_model.py").write_text(code, encoding="utf-8")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "genai_config.json").write_text('{"model": {"context_length": 64}}')
    monkeypatch.delitem(sys.modules, "onnx_model", raising=False)
    yield find("onnx_model:OnnxModel")
    del sys.modules["onnx_model"]


def answered(model: Model, text: str = "hi", **params: Any) -> tuple[str, Any, str]:
    with model.generation([{"role": "user", "content": text}], params) as generation:
        while generation.next() is not None:
            pass
        usage = generation.usage()
        return generation.text, usage, generation.finish(usage)


@pytest.mark.parametrize(
    ("params", "text", "tokens", "finish"),
    [
        ({}, " 100 101 102", 4, "stop"),
        ({"max_tokens": 2, "temperature": 0}, " 100 101", 2, "length"),
        ({"max_tokens": 4, "stop": ["x"]}, " 100 101 102", 4, "stop"),
    ],
)
def test_the_tutorials_adapter_answers_with_exact_counts(
    adapter: Any, params: dict[str, Any], text: str, tokens: int, finish: str
) -> None:
    said = answered(Model(adapter, "onnx_model:OnnxModel", "weights"), **params)

    usage = {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens}
    assert said == (text, usage, finish)


def test_the_tutorials_adapter_samples_only_at_a_temperature(adapter: Any) -> None:
    model = Model(adapter, "onnx_model:OnnxModel", "weights")
    answered(model, temperature=0, max_tokens=2)
    greedy = adapter.model.seen
    answered(model, temperature=0.5)

    assert greedy == {"max_length": 10, "do_sample": False}
    assert adapter.model.seen == {"max_length": 64, "do_sample": True, "temperature": 0.5, "top_p": 1.0}


def test_the_tutorials_adapter_refuses_a_prompt_that_fills_the_context(adapter: Any) -> None:
    with pytest.raises(ValueError, match="leave no room in a context of 64"):
        answered(Model(adapter, "onnx_model:OnnxModel", "weights"), "x" * 70)


@pytest.mark.parametrize(
    ("options", "providers"), [({}, ["as written"]), ({"provider": "cpu"}, []), ({"provider": "cuda"}, ["cuda"])]
)
def test_the_tutorials_adapter_takes_a_provider(adapter: Any, options: dict[str, str], providers: list[str]) -> None:
    Model(adapter, "onnx_model:OnnxModel", "weights", options)

    assert adapter.model.config.providers == providers


def test_the_tutorials_adapter_tells_of_itself_and_unloads(adapter: Any) -> None:
    model = Model(adapter, "onnx_model:OnnxModel", "weights")
    model.unload()

    assert (model.id, model.row["context_length"], model.row["device"]) == ("weights", 64, "CPU")
    assert not hasattr(adapter, "model")


def test_the_tutorial_names_the_entry_point_group() -> None:
    assert f'[project.entry-points."{GROUP}"]' in DOCUMENT
