"""Run folders with answers and nothing measured, for tests of what is scored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Given = tuple[str, str, str]
"""Model, prompt, text."""

CAPITAL = {"id": "capital", "messages": [{"role": "user", "content": "Capital of Portugal?"}], "expected": ["Lisbon"]}
SUM = {
    "id": "sum",
    "messages": [{"role": "user", "content": "Two and two?"}],
    "expected": ["four", "says why"],
}
PROMPTS = (CAPITAL, SUM)
ANSWERS: tuple[Given, ...] = (
    ("phi", "capital", "Lisbon."),
    ("qwen", "capital", "It is Madrid."),
    ("phi", "sum", "2 + 2 = 4"),
    ("qwen", "sum", "Four, as two pairs are four."),
)


def folder(
    path: Path,
    answers: Iterable[Given] = ANSWERS,
    prompts: Sequence[Mapping[str, Any]] | None = PROMPTS,
    **scenario: Any,
) -> Path:
    """A run folder of one complete level; without answers.jsonl where there are no answers."""
    path.mkdir(parents=True)
    level = {"id": "all@c1", "attempt": 1, "status": "complete", "model": "phi"}
    info = {"schema": 1, "scenario": {"temperature": 0.0, "max_tokens": 64, **scenario}, "levels": [level]}
    (path / "run.json").write_text(json.dumps(info), encoding="utf-8")
    if prompts is not None:
        (path / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
    lines = [line(number, *one) for number, one in enumerate(answers)]
    if lines:
        (path / "answers.jsonl").write_text("".join(lines), encoding="utf-8")
    return path


def line(request: int, model: str, prompt: str, text: str, *, level: str = "all@c1", attempt: int = 1) -> str:
    """A line of answers.jsonl."""
    record = {"level": level, "attempt": attempt, "request": request, "prompt": prompt, "model": model, "text": text}
    return json.dumps(record) + "\n"
