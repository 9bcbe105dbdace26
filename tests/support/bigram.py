"""A chat model of 420 kB for ONNX Runtime GenAI, made in a moment, whose every answer is known beforehand.

Its network is one table of bigrams: any token leads to `word0`, `word3` leads to `word4`, the last word to the end of
the answer. So a reply is always ` word0 word1 …`, cut at `max_tokens`, and takes one token a word. Its tokenizer
knows bytes alone: a prompt counts its UTF-8 bytes and the chat template's marks, see `prompt_tokens`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.onnx_file import BOOL, FLOAT, INT64, graph, model, node, port

WORDS = 64
CONTEXT = 4096
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
START, END = 0, 2
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{% endif %}"
)
_BURN_WIDTH = 256


def reply(tokens: int) -> str:
    """What the model answers within so many tokens."""
    return "".join(f" word{i}" for i in range(min(tokens, WORDS)))


def prompt_tokens(text: str) -> int:
    r"""Prompt tokens of one user message: a token a byte, one for each of the three marks, and the words between."""
    return len(text.encode()) + 3 + len("user\n") + len("\n") + len("assistant\n")


def make(folder: Path, *, context: int = CONTEXT, burn: int = 0) -> Path:
    """Write the model.

    Args:
        folder: Made where it is not there yet.
        context: Tokens of prompt and answer together, beyond which the runtime refuses.
        burn: Multiplications of a vector with a 256 x 256 matrix for each token: work for the processor.
    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _vocabulary()
    _write(folder / "tokenizer.json", _tokenizer(vocabulary))
    _write(folder / "tokenizer_config.json", _tokenizer_settings(context))
    _write(folder / "genai_config.json", _genai_settings(len(vocabulary), context))
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    network = _network(_table(vocabulary), burn)
    (folder / "model.onnx").write_bytes(model(network, opset=18, ir_version=10))
    return folder


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _vocabulary() -> dict[str, int]:
    """The marks, a sign for each byte, the words; `Ġ` is the sign of a space."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    signs = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    tokens = [*MARKS, *(signs[byte] for byte in range(256)), *(f"Ġword{i}" for i in range(WORDS))]
    return {token: i for i, token in enumerate(tokens)}


def _tokenizer(vocabulary: dict[str, int]) -> dict[str, Any]:
    """Byte-pair encoding without a pair, in the format of Hugging Face's tokenizers."""
    of_bytes = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": mark, **plain} for i, mark in enumerate(MARKS)],
        "normalizer": None,
        "pre_tokenizer": {**of_bytes, "add_prefix_space": False},
        "post_processor": None,
        "decoder": {**of_bytes, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [],
        },
    }


def _tokenizer_settings(context: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": MARKS[START],
        "eos_token": MARKS[END],
        "pad_token": MARKS[START],
        "unk_token": None,
        "add_prefix_space": False,
        "model_max_length": context,
        "chat_template": TEMPLATE,
    }


def _genai_settings(vocabulary_size: int, context: int) -> dict[str, Any]:
    past, present = "past_key_values.%d", "present.%d"
    decoder = {
        "filename": "model.onnx",
        "session_options": {
            "log_id": "onnxruntime-genai",
            "provider_options": [],
            "intra_op_num_threads": 1,
            "inter_op_num_threads": 1,
        },
        "head_size": 1,
        "hidden_size": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "num_hidden_layers": 1,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": f"{past}.key",
            "past_value_names": f"{past}.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": f"{present}.key",
            "present_value_names": f"{present}.value",
        },
    }
    return {
        "model": {
            "type": "qwen2",
            "bos_token_id": START,
            "eos_token_id": END,
            "pad_token_id": START,
            "context_length": context,
            "vocab_size": vocabulary_size,
            "decoder": decoder,
        },
        "search": {"do_sample": False, "max_length": context, "top_k": 1, "past_present_share_buffer": False},
    }


def _table(vocabulary: dict[str, int]) -> np.ndarray:
    """For each token the logits of the next: one of them is certain."""
    first = vocabulary["Ġword0"]
    following = np.full(len(vocabulary), first)
    following[first:-1] = np.arange(first + 1, len(vocabulary))
    following[-1] = END
    table = np.zeros((len(vocabulary), len(vocabulary)), np.float32)
    table[np.arange(len(vocabulary)), following] = 60.0
    return table


def _network(table: np.ndarray, burn: int) -> bytes:
    """logits = table[input_ids]; the cache of keys and values grows by zeros, so that the runtime's counting holds."""
    constants = {"table": table, "zero": np.array([0]), "one": np.array([1])}
    nodes = [
        node("Gather", ["table", "input_ids"], ["certain"], axis=0),
        node("Shape", ["input_ids"], ["shape"]),
        node("Gather", ["shape", "zero"], ["batch_size"], axis=0),
        node("Gather", ["shape", "one"], ["length"], axis=0),
        node("Concat", ["batch_size", "one", "length", "one"], ["grown_shape"], axis=0),
        node("ConstantOfShape", ["grown_shape"], ["grown"], value=np.zeros(1, np.float32)),
    ]
    if burn:
        nodes += _burning(constants, burn)
    nodes.append(node("Add", ["certain", "burned"], ["logits"]) if burn else node("Identity", ["certain"], ["logits"]))
    caches = ("key", "value")
    nodes += [node("Concat", [f"past_key_values.0.{it}", "grown"], [f"present.0.{it}"], axis=2) for it in caches]
    return graph(
        "bigram",
        nodes,
        [
            port("input_ids", INT64, ["batch", "new"]),
            port("attention_mask", INT64, ["batch", "total"]),
            *(port(f"past_key_values.0.{it}", FLOAT, ["batch", 1, "past", 1]) for it in caches),
        ],
        [
            port("logits", FLOAT, ["batch", "new", len(table)]),
            *(port(f"present.0.{it}", FLOAT, ["batch", 1, "total", 1]) for it in caches),
        ],
        constants,
    )


def _burning(constants: dict[str, np.ndarray], times: int) -> list[bytes]:
    """Multiply, and add nothing to the logits: `burned` is zero, which no optimiser can know."""
    width = _BURN_WIDTH
    constants |= {
        "times": np.array(times),
        "go_on": np.array(True),
        "square": np.array([width, width]),
        "width": np.array([width]),
        "nothing": np.array(0.0, np.float32),
        "last_axis": np.array([-1]),
    }
    body = graph(
        "multiply",
        [node("MatMul", ["vector", "matrix"], ["next_vector"]), node("Identity", ["going"], ["still_going"])],
        [port("turn", INT64, []), port("going", BOOL, []), port("vector", FLOAT, None)],
        [port("still_going", BOOL, []), port("next_vector", FLOAT, None)],
    )
    return [
        node("ConstantOfShape", ["square"], ["matrix"], value=np.full(1, 1.0 / width, np.float32)),
        node("Concat", ["shape", "width"], ["vectors_shape"], axis=0),
        node("ConstantOfShape", ["vectors_shape"], ["vectors"], value=np.ones(1, np.float32)),
        node("Loop", ["times", "go_on", "vectors"], ["product"], body=body),
        node("ReduceMean", ["product", "last_axis"], ["mean"], keepdims=1),
        node("Mul", ["mean", "nothing"], ["burned"]),
    ]
