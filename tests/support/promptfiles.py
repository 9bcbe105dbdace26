"""Prompts files that a test writes, and what is said of wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadbench import prompts
from loadbench.errors import ScenarioError


def written(folder: Path, content: Any, name: str = "p.json") -> Path:
    path = folder / name
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fault(path: Path) -> str:
    with pytest.raises(ScenarioError) as caught:
        prompts.read(path)
    message = str(caught.value)
    assert message.isprintable()
    return message.replace(f"{path.parent}/", "")


def user(text: str) -> tuple[dict[str, Any], ...]:
    return ({"role": "user", "content": text},)
