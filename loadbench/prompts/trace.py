"""Recorded traffic: when requests came, how long they and their answers were; the files of public traces."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from loadbench.errors import ScenarioError
from loadbench.prompts.prompt import Prompt, Recipe
from loadbench.scenario.items import items
from loadbench.text import printable, shown

BLOCK_TOKENS = 512  # of a hash id in Mooncake's traces
MOST_TOKENS = 1_000_000
MOST = 50_000  # requests of a trace that are replayed, unless more are asked for
COLUMNS = ("Timestamp", "Request tokens", "Response tokens")  # of BurstGPT's files; further ones are of no use here
MOONCAKE = ("timestamp", "input_length", "output_length")
WHEN = ("timestamp", "arrivaltimestamp", "arrivaltime", "arrivedat", "starttime", "time", "timestampms", "timems")
ASKED = (
    *("requesttokens", "contexttokens", "inputlength", "inputtokens", "prompttokens", "promptsize", "promptlength"),
    *("numprefilltokens", "prefilltokens", "inputlen", "promptlen", "isl"),
)
ANSWERED = (
    *("responsetokens", "generatedtokens", "outputlength", "outputtokens", "completiontokens", "tokensize"),
    *("responselength", "numdecodetokens", "decodetokens", "outputlen", "responselen", "osl"),
)
"""What BurstGPT, Azure, Mooncake, Splitwise, Vidur and others call the three, without signs and in small letters."""
EVERY_S = 1.0  # from request to request of a trace without times
_LARGEST_CELL = 1 << 17
Note = Callable[[str], object]
Row = tuple[float | None, Recipe, int]


def read(
    path: Path, speed: float = 1.0, *, most: int = MOST, seed: int = 1, note: Note = lambda _: None
) -> list[Prompt]:
    """A prompt for each request of a trace, in order of time; the first is due at 0.

    .jsonl: Mooncake's, `{"timestamp": ms, "input_length": tokens, "output_length": tokens, "hash_ids": [...]}` a line,
    where each hash id stands for a block of 512 input tokens, so that requests that begin with the same ids share a
    prefix. .csv: BurstGPT's (Timestamp in s, Request tokens, Response tokens), Azure's (TIMESTAMP as a date,
    ContextTokens, GeneratedTokens), and others that name the three in other words. A request without response tokens
    failed when it was recorded and is left out. Without times, one is due each second.

    Args:
        most: Of a longer trace so many requests in a row are taken.

    Raises:
        ScenarioError: One line that names the file, the line, the value, and what to do.
    Source: README of kvcache-ai/Mooncake (FAST25-release/traces), of HPMLL/BurstGPT, and of
        Azure/AzurePublicDataset (AzureLLMInferenceDataset2023.md).
    """
    where = printable(str(path))
    stretch = _Stretch(most, seed)
    names: tuple[str | None, str, str] | None = None
    for item in items(path, largest_cell=_LARGEST_CELL):
        if item.kind == "row" and names is None:
            names = _columns(item.columns, f"{where}, line 1")
        if not stretch.wants():
            continue
        place = item.place.removesuffix(": item").removesuffix(": row")
        value = item.value()
        if names is not None:
            row = _of_table(value, names, place, f"t{item.line}")
        else:
            row = of_lengths(value, place, f"t{item.number}")
        if row is not None:
            stretch.rows.append((row, place))
    rows = _in_time([row for row, _ in stretch.chosen()], [place for _, place in stretch.chosen()])
    if not rows:
        raise ScenarioError(f"{where}: no request in it has an answer: give at least one")
    if stretch.seen > most:
        note(f"{where}: {most} of {stretch.seen} requests, a stretch in a row that the seed ({seed}) chose")
    if rows[0][0] is None:
        note(f"{where}: has no times: a request each second, or as --trace-speed says; --prompts takes -c and -r")
    began_s = rows[0][0] or 0.0
    return [
        Prompt(
            f"t{number}",
            (),
            max_tokens=output,
            recipe=recipe,
            at_s=((number - 1) * EVERY_S if at_s is None else at_s - began_s) / speed,
        )
        for number, (at_s, recipe, output) in enumerate(rows, start=1)
    ]


class _Stretch:
    """So many requests in a row of a trace, whose bursts stay as they were: one block of it, drawn in one pass."""

    def __init__(self, most: int, seed: int) -> None:
        self.seen = 0
        self.rows: list[tuple[Row, str]] = []
        self._most = most
        self._chance = random.Random(f"{seed}/stretch")
        self._wanted = False
        self._chosen = self.rows

    def wants(self) -> bool:
        """Whether the next request may be taken: the rows of other blocks need not be parsed."""
        block, within = divmod(self.seen, self._most)
        if within == 0:
            self._chosen = self.chosen()
            self._wanted = self._chance.random() * (block + 1) < 1
            self.rows = []
        self.seen += 1
        return self._wanted

    def chosen(self) -> list[tuple[Row, str]]:
        """Of the blocks so far, each as likely as any other; the last, which is shorter, only where it is the first."""
        whole = self.seen % self._most == 0 or self.seen < self._most
        return self.rows if self._wanted and whole else self._chosen


def _in_time(rows: list[Row], places: Iterable[str]) -> list[Row]:
    """In order of time; in their own where none has one."""
    timed = [row for row in rows if row[0] is not None]
    if timed and len(timed) < len(rows):
        bare = next(place for row, place in zip(rows, places, strict=True) if row[0] is None)
        raise ScenarioError(f"{bare}: has no timestamp, and others have one: give all of them one, or none")
    return sorted(rows, key=lambda row: row[0] or 0.0)


def of_lengths(row: object, place: str, own: str) -> Row | None:
    """The request that an object of lengths is; None where it has no answer.

    Raises:
        ScenarioError: It is none.
    """
    if not isinstance(row, dict):
        raise ScenarioError(f'{place}: is {shown(row)}: must be as {{"timestamp": 0, "input_length": 512, ...}}')
    when, asked, answered = (
        _named(row, names) or name for names, name in zip((WHEN, ASKED, ANSWERED), MOONCAKE, strict=True)
    )
    unit_s = 1e-3 if when == MOONCAKE[0] else _unit_s(when)
    at_s = None if row.get(when) is None else _time(row[when], when, place, unit_s)
    tokens = _whole(row.get(asked), asked, place)
    if row.get(answered) == 0:
        return None
    output = _whole(row.get(answered), answered, place)
    blocks = row.get("hash_ids") or []
    if not isinstance(blocks, list) or not all(isinstance(one, int) for one in blocks):
        raise ScenarioError(f"{place}: hash_ids is {shown(blocks)}: must be a list of whole numbers")
    # Full blocks by their ids, the last as long as is left; what no id covers is the request's own.
    pieces, left = [], tokens
    for block in blocks:
        if left:
            pieces.append((f"h{block}", min(BLOCK_TOKENS, left)))
            left -= pieces[-1][1]
    if left:
        pieces.append((own, left))
    return at_s, Recipe("tokens", tuple(pieces)), output


def has_lengths(row: Mapping[str, object]) -> bool:
    """Whether an object says how long a request and its answer were."""
    return _named(row, ASKED) is not None and _named(row, ANSWERED) is not None


def _named(names: Iterable[str], known: tuple[str, ...]) -> str | None:
    """The first of these names that is known, whatever signs and capitals are in it."""
    return next((name for name in names if re.sub(r"[^a-z0-9]", "", name.lower()) in known), None)


def _columns(head: Iterable[str], place: str) -> tuple[str | None, str, str]:
    found = [_named(head, names) for names in (WHEN, ASKED, ANSWERED)]
    when, asked, answered = found
    if asked is None or answered is None:
        missing = COLUMNS[found.index(None)]
        raise ScenarioError(f"{place}: no column {shown(missing)}: must have {', '.join(COLUMNS)}")
    return when, asked, answered


def _of_table(row: Mapping[str, str], names: tuple[str | None, str, str], place: str, own: str) -> Row | None:
    when, asked, answered = names
    at_s = None if when is None else _time(row.get(when), when, place, _unit_s(when))
    tokens, output = (_number(_read(row.get(name)), name, place, least=0) for name in (asked, answered))
    if not output:
        return None
    return at_s, Recipe("tokens", ((own, _whole(tokens or 1, asked, place)),)), _whole(output, answered, place)


def _unit_s(name: str) -> float:
    return 1e-3 if name.lower().endswith("ms") else 1.0


def _time(value: object, name: str, place: str, unit_s: float) -> float:
    """In seconds: a number of the unit, or a date with a time of day, in UTC where it says no zone."""
    value = _read(value) if isinstance(value, str) else value
    if isinstance(value, str):
        try:
            date = datetime.fromisoformat(value.strip())
        except ValueError:
            pass
        else:
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    return _number(value, name, place, least=0) * unit_s


def _read(text: str | None) -> float | str | None:
    try:
        return float(text or "")
    except ValueError:
        return text


def _number(value: object, name: str, place: str, *, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= least):
        raise ScenarioError(f"{place}: {name} is {shown(value)}: must be a number, at least {least:g}")
    return float(value)


def _whole(value: object, name: str, place: str) -> int:
    number = _number(value, name, place, least=1)
    if number > MOST_TOKENS or not number.is_integer():
        raise ScenarioError(f"{place}: {name} is {shown(value)}: must be a whole number, 1 to {MOST_TOKENS}")
    return int(number)
