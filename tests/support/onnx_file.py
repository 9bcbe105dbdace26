"""The parts of an ONNX file, as bytes: so few are needed that the `onnx` package, with its own builds, is not.

Field numbers and types are those of onnx/onnx.proto (onnx/onnx, Apache-2.0); the encoding is Protocol Buffers'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

FLOAT, INT64, BOOL = 1, 7, 9
_TYPES = {"float32": FLOAT, "int64": INT64, "bool": BOOL}
_INT, _TENSOR, _GRAPH = 2, 4, 5

Value = int | str | bytes


def model(graph: bytes, *, opset: int, ir_version: int) -> bytes:
    """A whole file."""
    return _message((1, ir_version), (7, graph), (8, _message((1, ""), (2, opset))))


def graph(
    name: str,
    nodes: Iterable[bytes],
    inputs: Iterable[bytes],
    outputs: Iterable[bytes],
    constants: Mapping[str, np.ndarray] | None = None,
) -> bytes:
    """Nodes in the order in which they are computed."""
    tensors = ((5, tensor(array, name)) for name, array in (constants or {}).items())
    return _message(
        *((1, node) for node in nodes),
        (2, name),
        *tensors,
        *((11, each) for each in inputs),
        *((12, o) for o in outputs),
    )


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int | np.ndarray | bytes) -> bytes:
    """One operation; attributes are integers, tensors, and graphs as bytes."""
    told = []
    for name, value in attributes.items():
        if isinstance(value, int):
            told.append(_message((1, name), (3, value), (20, _INT)))
        elif isinstance(value, bytes):
            told.append(_message((1, name), (6, value), (20, _GRAPH)))
        else:
            told.append(_message((1, name), (5, tensor(value)), (20, _TENSOR)))
    return _message(*((1, it) for it in inputs), *((2, it) for it in outputs), (4, kind), *((5, it) for it in told))


def tensor(array: np.ndarray, name: str = "") -> bytes:
    """A constant."""
    return _message(
        *((1, length) for length in array.shape), (2, _TYPES[array.dtype.name]), (8, name), (9, array.tobytes())
    )


def port(name: str, kind: int, shape: Sequence[int | str] | None) -> bytes:
    """An input or output of a graph; lengths may have names, and no shape is any."""
    dimensions = [_message((1, it) if isinstance(it, int) else (2, it)) for it in shape or ()]
    shaped = [] if shape is None else [(2, _message(*((1, it) for it in dimensions)))]
    return _message((1, name), (2, _message((1, _message((1, kind), *shaped)))))


def _message(*fields: tuple[int, Value]) -> bytes:
    return b"".join(_field(number, value) for number, value in fields)


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*written, value))
