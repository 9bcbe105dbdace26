"""Recorded traffic: when requests came, how long they and their answers were; the files of public traces."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from loadbench.errors import ScenarioError
from loadbench.prompts.prompt import Prompt, Recipe
from loadbench.scenario.files import is_list
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
        most: Of a longer trace this many requests in a row are taken.

    Raises:
        ScenarioError: One line that names the file, the line, the value, and what to do.
    Source: README of kvcache-ai/Mooncake (FAST25-release/traces), of HPMLL/BurstGPT, and of
        Azure/AzurePublicDataset (AzureLLMInferenceDataset2023.md).
    """
    where = printable(str(path))
    stretch = _Stretch(most, seed)
    names: tuple[str, str, str] | None = None
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
    rows = _in_time(stretch.chosen())
    if not rows:
        raise ScenarioError(f"{where}: no request in it has an answer: give at least one")
    if stretch.seen > most:
        note(f"{where}: {most} of {stretch.seen} requests, a stretch in a row that the seed ({seed}) chose")
    if rows[0][0] is None:
        note(f"{where}: has no times: a request each second, or as --trace-speed says; --prompts takes -c and -r")
    began_s = rows[0][0] or 0.0
    prompts = []
    for number, (at_s, recipe, output) in enumerate(rows):
        after_s = number * EVERY_S if at_s is None else at_s - began_s
        prompts.append(Prompt(f"t{number + 1}", (), max_tokens=output, recipe=recipe, at_s=after_s / speed))
    return prompts


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
        if self._wanted and whole:
            return self.rows
        return self._chosen


def _in_time(placed: list[tuple[Row, str]]) -> list[Row]:
    """In order of time; in their own where none has one."""
    bare = [place for row, place in placed if row[0] is None]
    if 0 < len(bare) < len(placed):
        raise ScenarioError(f"{bare[0]}: has no timestamp, and others have one: give all of them one, or none")
    return sorted((row for row, _ in placed), key=lambda row: row[0] or 0.0)


def of_lengths(row: object, place: str, own: str) -> Row | None:
    """The request that an object of lengths is; None where it has no answer.

    Raises:
        ScenarioError: It is none.
    """
    if not isinstance(row, dict):
        raise ScenarioError(f'{place}: is {shown(row)}: must be as {{"timestamp": 0, "input_length": 512, ...}}')
    when = _named(row, WHEN) or MOONCAKE[0]
    asked = _named(row, ASKED) or MOONCAKE[1]
    answered = _named(row, ANSWERED) or MOONCAKE[2]
    unit_s = 1e-3 if when == MOONCAKE[0] else _unit_s(when)
    at_s = None
    if row.get(when) is not None:
        at_s = _time(row[when], when, place, unit_s)
    tokens = _whole(row.get(asked), asked, place)
    if row.get(answered) == 0:
        return None
    output = _whole(row.get(answered), answered, place)
    blocks = row.get("hash_ids") or []
    if not is_list(blocks, int):
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
    return bool(_named(row, ASKED) and _named(row, ANSWERED))


def _named(names: Iterable[str], known: tuple[str, ...]) -> str:
    """The first of these names that is known, whatever signs and capitals are in it; "" without one."""
    for name in names:
        if re.sub(r"[^a-z0-9]", "", name.lower()) in known:
            return name
    return ""


def _columns(head: Iterable[str], place: str) -> tuple[str, str, str]:
    """The names of the three; "" of a time that is missing."""
    when, asked, answered = _named(head, WHEN), _named(head, ASKED), _named(head, ANSWERED)
    if not asked or not answered:
        found = (when, asked, answered)
        missing = COLUMNS[found.index("")]
        raise ScenarioError(f"{place}: no column {shown(missing)}: must have {', '.join(COLUMNS)}")
    return when, asked, answered


def _of_table(row: Mapping[str, str], names: tuple[str, str, str], place: str, own: str) -> Row | None:
    when, asked, answered = names
    at_s = None
    if when:
        at_s = _time(row.get(when), when, place, _unit_s(when))
    tokens = _number(_read(row.get(asked)), asked, place, least=0)
    output = _number(_read(row.get(answered)), answered, place, least=0)
    if not output:
        return None
    return at_s, Recipe("tokens", ((own, _whole(tokens or 1, asked, place)),)), _whole(output, answered, place)


def _unit_s(name: str) -> float:
    return 1e-3 if name.lower().endswith("ms") else 1.0


def _time(value: object, name: str, place: str, unit_s: float) -> float:
    """In seconds: a number of the unit, or a date with a time of day, in UTC where it says no zone."""
    if isinstance(value, str):
        value = _read(value)
    if isinstance(value, str):
        with suppress(ValueError):
            date = datetime.fromisoformat(value.strip())
            if date.tzinfo is None:
                date = date.replace(tzinfo=UTC)
            return date.timestamp()
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
