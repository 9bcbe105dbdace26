"""Recorded traffic: when requests came, how long they and their answers were; the files of two public traces."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loadbench.errors import ScenarioError
from loadbench.prompts.prompt import Prompt
from loadbench.prompts.recipe import Recipe
from loadbench.scenario.files import parse_json, printable, read_text, shown

BLOCK_TOKENS = 512
"""Of a hash id in Mooncake's traces."""
MOST_TOKENS = 1_000_000
COLUMNS = ("Timestamp", "Request tokens", "Response tokens")
"""Of BurstGPT's files; further ones are of no use here."""


def read(path: Path, speed: float = 1.0) -> list[Prompt]:
    """A prompt for each request of a trace, in order of time; the first is due at 0.

    .jsonl: Mooncake's, `{"timestamp": ms, "input_length": tokens, "output_length": tokens, "hash_ids": [...]}` a line,
    where each hash id stands for a block of 512 input tokens, so that requests that begin with the same ids share a
    prefix. .csv: BurstGPT's, with the columns Timestamp (s), Request tokens and Response tokens; a request without
    response tokens failed when it was recorded and is left out.

    Args:
        path: The file.
        speed: 2 for half the time between them.

    Raises:
        ScenarioError: One line that names the file, the line, the value, and what to do.
    Source: README of kvcache-ai/Mooncake (FAST25-release/traces) and of HPMLL/BurstGPT.
    """
    where = printable(str(path))
    text = read_text(path)
    rows = sorted(_burstgpt(text, where) if path.suffix.lower() == ".csv" else _mooncake(text, where), key=_first)
    if not rows:
        raise ScenarioError(f"{where}: no request in it has an answer: give at least one")
    began_s = rows[0][0]
    return [
        Prompt(f"t{number}", (), max_tokens=output, recipe=recipe, at_s=(at_s - began_s) / speed)
        for number, (at_s, recipe, output) in enumerate(rows, start=1)
    ]


Row = tuple[float, Recipe, int]


def _first(row: Row) -> float:
    return row[0]


def _mooncake(text: str, where: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row, place = parse_json(line, where, number), f"{where}, line {number}"
        if not isinstance(row, dict):
            raise ScenarioError(f'{place}: is {shown(row)}: must be as {{"timestamp": 0, "input_length": 512, ...}}')
        at_ms = _number(row.get("timestamp"), "timestamp", place, least=0)
        tokens = _whole(row.get("input_length"), "input_length", place)
        output = _whole(row.get("output_length"), "output_length", place)
        blocks = row.get("hash_ids") or []
        if not isinstance(blocks, list) or not all(isinstance(one, int) for one in blocks):
            raise ScenarioError(f"{place}: hash_ids is {shown(blocks)}: must be a list of whole numbers")
        yield at_ms / 1000, _in_blocks(blocks, tokens, f"t{number}"), output


def _in_blocks(blocks: list[int], tokens: int, own: str) -> Recipe:
    """Full blocks by their ids, the last as long as is left; what no id covers is the request's own."""
    pieces, left = [], tokens
    for block in blocks:
        if not left:
            break
        pieces.append((f"h{block}", min(BLOCK_TOKENS, left)))
        left -= pieces[-1][1]
    return Recipe("tokens", (*pieces, *[(own, left)] * (left > 0)))


def _burstgpt(text: str, where: str) -> Iterator[Row]:
    try:
        yield from _rows(csv.DictReader(text.splitlines()), where)
    except csv.Error as error:
        raise ScenarioError(f"{where}: not valid CSV: {error}") from None


def _rows(rows: csv.DictReader[str], where: str) -> Iterator[Row]:
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise ScenarioError(f"{where}, line 1: no column {shown(missing[0])}: must have {', '.join(COLUMNS)}")
    for row in rows:
        place = f"{where}, line {rows.line_num}"
        at_s, asked, answered = (_number(_read(row[name]), name, place, least=0) for name in COLUMNS)
        if answered:
            recipe = Recipe("tokens", ((f"t{rows.line_num}", _whole(asked or 1, COLUMNS[1], place)),))
            yield at_s, recipe, _whole(answered, COLUMNS[2], place)


def _read(text: str | None) -> float | str | None:
    try:
        return float(text or "")
    except ValueError:
        return text


def _number(value: Any, name: str, place: str, *, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= least):
        raise ScenarioError(f"{place}: {name} is {shown(value)}: must be a number, at least {least:g}")
    return float(value)


def _whole(value: Any, name: str, place: str) -> int:
    number = _number(value, name, place, least=1)
    if number > MOST_TOKENS or not number.is_integer():
        raise ScenarioError(f"{place}: {name} is {shown(value)}: must be a whole number, 1 to {MOST_TOKENS}")
    return int(number)
