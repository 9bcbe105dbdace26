"""The items of an input file, one after another: of a file of any size, one item and a chunk are in memory."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import msgspec

from loadbench.errors import ScenarioError
from loadbench.scenario.files import DEEPEST, LARGEST_BYTES, open_input, parse_json, unreadable
from loadbench.text import at, printable, shown

PROMPTS = (".json", ".jsonl", ".csv", ".tsv", ".txt")
TRACES = (".jsonl", ".csv")  # how the names of files end that hold prompts, or recorded traffic; `.gz` may follow
WHOLE = ("prompts", "data", "rows", "instances", "examples", "questions")
"""Keys of the one object of a .json file under which the list of its items may stand."""
SPEAKER = ("role", "from", "speaker", "author", "sender")  # keys that say whose turn of a conversation it is
NAMES = (
    *("id", "custom_id", "question_id", "prompt_id", "task_id", "conversation_id", "conversation_hash", "message_id"),
    *("recordId", "key", "uid", "uuid", "qid", "_id", "idx"),
)
"""Keys that name an item, the first that it has."""
LONGEST_NAME = 200
_CHUNK = 1 << 20
_NEAR_END = 16  # characters before the end of what was read so far where a fault may be that more is to come


class Item(msgspec.Struct, frozen=True):
    """One item, not parsed yet: of a large file few are looked at."""

    number: int  # from 1
    file: str  # as messages name it
    text: str  # JSON, or the text itself where `kind` is "text"
    line: int | None = None  # where it stands; None in a list
    # json, text, row (of a table), or object: the only one of a .json file, which is no list
    kind: Literal["json", "text", "row", "object"] = "json"
    # Of a row
    columns: Sequence[str] = ()
    cells: Sequence[str] = ()

    @property
    def place(self) -> str:
        """Where it stands, as messages begin."""
        if self.kind == "object":
            return f"{self.file}: it"
        if self.line is None:
            return f"{self.file}: {at((self.number - 1,))}"
        what = "row" if self.kind == "row" else "item"
        return f"{self.file}, line {self.line}: {what}"

    def value(self) -> Any:
        """What it says.

        Raises:
            ScenarioError: It is no JSON, or holds what JSON cannot say.
        """
        if self.kind == "row":
            return dict(zip(self.columns, self.cells, strict=False))
        if self.kind == "text":
            return self.text
        keys: tuple[int, ...] = ()
        if self.line is None and self.kind == "json":
            keys = (self.number - 1,)
        return parse_json(self.text, self.file, self.line, keys=keys, nan=True)


def name_of(value: Mapping[str, object]) -> str | None:
    """What an item calls itself, a whole number too; None where it has no name of one line.

    >>> name_of({"question_id": 81, "category": "writing"})
    '81'
    """
    for key in NAMES:
        name = value.get(key)
        if isinstance(name, int) and not isinstance(name, bool):
            return str(name)
        if isinstance(name, str) and name.strip() and len(name) <= LONGEST_NAME and name.isprintable():
            return name
    return None


def ending(name: str) -> str:
    """How a file's name ends, in small letters and without `.gz`: ".jsonl".

    >>> ending("traces/Burst.CSV.gz")
    '.csv'
    """
    return Path(name.lower().removesuffix(".gz")).suffix


def items(path: Path, *, largest_cell: int = LARGEST_BYTES) -> Iterator[Item]:
    """The items of a file: of a .json file those of its list, else its lines; of a table its rows.

    Lines of JSON in a .json file, and a list in a .jsonl file, are read too.

    Args:
        largest_cell: Of a table, in characters.

    Raises:
        ScenarioError: One line that names the file, the place in it, and what to do.
    """
    with closing(Source(path)) as source:
        kind = ending(str(path))
        if not source.peek():
            raise ScenarioError(f"{source.where}: the file is empty")
        if kind in (".csv", ".tsv"):
            yield from _rows(source, largest_cell)
        elif kind == ".txt" or (kind == ".jsonl" and _is_lines(source)):
            number = 0
            for line, text in source.lines():
                if text := text.strip():
                    number += 1
                    yield Item(number, source.where, text, line, "text" if kind == ".txt" else "json")
        elif source.peek() == "[":
            yield from _list(source)
        else:
            yield from _values(source)


def _rows(source: Source, largest_cell: int) -> Iterator[Item]:
    head = source.head()
    # Spreadsheets of half the world part cells by semicolons.
    delimiter = max(",;\t", key=head.count)
    limit = csv.field_size_limit(largest_cell)
    try:
        rows = csv.reader((line + "\n" for _, line in source.lines()), delimiter=delimiter)
        columns = tuple(name.strip() for name in next(rows))
        number = 0
        for row in rows:
            if row and (row[0] or any(map(str.strip, row))):
                number += 1
                yield Item(number, source.where, "", rows.line_num, "row", columns, row)
    except csv.Error as error:
        raise ScenarioError(f"{source.where}: not valid CSV: {error}") from None
    finally:
        csv.field_size_limit(limit)


def _is_lines(source: Source) -> bool:
    """Whether a .jsonl file is one: some hold a list, or objects over several lines."""
    first = source.peek()
    if first == "{":
        return _first(source.head()) is not None
    if first != "[":
        return True
    # A line may be a list of messages. A list of anything else is that of all items.
    inside = _first(source.ahead().lstrip()[1:])
    if isinstance(inside, dict):
        return any(isinstance(inside.get(key), str) for key in SPEAKER)
    return not isinstance(inside, str | list)


def _first(text: str) -> object:
    """The JSON value that a text begins with; None where it is none, or not all of it is there."""
    try:
        return json.JSONDecoder().raw_decode(text.lstrip())[0]
    except (ValueError, RecursionError):
        return None


def _list(source: Source) -> Iterator[Item]:
    source.take("[")
    number = 0
    while source.peek() != "]" or number:
        number += 1
        yield Item(number, source.where, source.value())
        if source.peek() == "]":
            break
        source.take(",")
    source.take("]")
    if source.peek():
        raise source.fault("extra data")


def _values(source: Source) -> Iterator[Item]:
    """Objects one after another; the list in a single one, where it holds one."""
    line = source.line()
    first = source.value()
    if not source.peek():
        data = parse_json(first, source.where, nan=True)
        if not isinstance(data, dict):
            raise ScenarioError(f"{source.where}: must be a list of prompts, not {shown(data)}")
        for key in WHOLE:
            found = data.get(key)
            if not isinstance(found, list):
                continue
            leading: object = next(iter(found), {})
            # A list of turns, each with its speaker, is one conversation.
            if key == WHOLE[0] or (isinstance(leading, dict) and leading.keys().isdisjoint(SPEAKER)):
                for number, value in enumerate(found, start=1):
                    yield Item(number, source.where, json.dumps(value))
                return
        yield Item(1, source.where, first, kind="object")
        return
    yield Item(1, source.where, first, line)
    number = 1
    while source.peek():
        number, line = number + 1, source.line()
        yield Item(number, source.where, source.value(), line)


class Source:
    """The text of a file in chunks, UTF-8 or with a mark that says otherwise; packed by gzip where its name says so."""

    def __init__(self, path: Path) -> None:
        self.where = printable(str(path))
        self._path = path
        self._opened = self._file = open_input(path)
        if str(path).lower().endswith(".gz"):
            self._file = cast(BinaryIO, gzip.GzipFile(fileobj=self._opened))
        self._decoder: codecs.IncrementalDecoder | None = None
        self._read_bytes = 0
        self._text, self._at = "", 0
        self._line, self._counted = 1, 0  # the line of the place up to which lines were counted
        self._columns = 0  # of the present line before the text
        self._ended = False

    def close(self) -> None:
        self._file.close()
        self._opened.close()

    def lines(self) -> Iterator[tuple[int, str]]:
        """The lines that are left, without their ends, with their numbers.

        Only line feeds end a line: a text may hold U+2028 and others that splitlines cuts at.

        Raises:
            ScenarioError: One is too long.
        """
        number, rest = self.line(), self.ahead()
        self._text, self._at, self._counted = "", 0, 0
        while True:
            *whole, rest = rest.split("\n")
            for line in whole:
                yield number, line
                number += 1
            self._line = number
            self._bound(len(rest))
            if not (more := self._next(max(_CHUNK, len(rest)))):
                break
            rest += more
        yield number, rest

    def head(self) -> str:
        """The next line that is not blank, as far as it was read."""
        return self.ahead().lstrip().partition("\n")[0]

    def ahead(self) -> str:
        """What was read and not taken."""
        return self._text[self._at :]

    def line(self) -> int:
        """The number of the present line."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def peek(self) -> str:
        """The next character that is no blank; empty at the end."""
        while True:
            self._at = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def take(self, sign: str) -> None:
        """Take the next character.

        Raises:
            ScenarioError: It is another one.
        """
        if self.peek() != sign:
            raise self.fault(f"expecting '{sign}' delimiter")
        self._at += 1

    def value(self) -> str:
        """The next JSON value, as it is written.

        Raises:
            ScenarioError: There is none, or it is too large.
        """
        self.peek()
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _NEAR_END
                if not (unfinished and self._fill()):
                    raise self.fault(error.msg.lower(), error.pos) from None
                continue
            except RecursionError:
                raise ScenarioError(f"{self.where}, line {self.line()}: nested deeper than {DEEPEST} levels") from None
            except ValueError:  # Python refuses integers beyond 4300 digits
                raise ScenarioError(
                    f"{self.where}, line {self.line()}: holds a number with thousands of digits"
                ) from None
            if end == len(self._text) and self._fill():
                continue  # the rest of a number may come
            found = self._text[self._at : end]
            self._at = end
            return found

    def fault(self, what: str, position: int | None = None) -> ScenarioError:
        """What is wrong with the JSON, with its line and column."""
        if position is None:
            position = self._at
        line = self.line() + self._text.count("\n", self._at, position)
        column = self._column(position) + 1
        return ScenarioError(f"{self.where}, line {line}, column {column}: not valid JSON: {what}")

    def _column(self, position: int) -> int:
        """How many characters of its line are before a place in the text."""
        begins = self._text.rfind("\n", 0, position)
        if begins < 0:
            return self._columns + position
        return position - begins - 1

    def _bound(self, characters: int) -> None:
        if characters > LARGEST_BYTES:
            raise ScenarioError(f"{self.where}, line {self.line()}: larger than {LARGEST_BYTES >> 20} MiB: split it")

    def _fill(self) -> bool:
        """Read on, as far again as what is not taken: so all of it takes time in proportion to its length."""
        self._bound(len(self._text) - self._at)
        more = self._next(max(_CHUNK, len(self._text) - self._at))
        if not more:
            return False
        self.line()
        self._columns = self._column(self._at)
        self._text, self._at, self._counted = self._text[self._at :] + more, 0, 0
        return True

    def _next(self, most: int) -> str:
        """More text; empty at the end alone."""
        while not self._ended:
            try:
                data = self._file.read(most)
            except (OSError, EOFError, zlib.error) as error:
                raise unreadable(self._path, error) from None
            self._ended = not data
            if self._decoder is None:
                encoding = "utf-8-sig"
                if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    encoding = "utf-16"
                self._decoder = codecs.getincrementaldecoder(encoding)()
            try:
                text = self._decoder.decode(data, final=self._ended)
            except UnicodeDecodeError as error:
                begins = self._read_bytes - (len(error.object) - len(data))  # with what the last chunk left over
                line = self._line + self._text.count("\n", self._counted) + error.object.count(b"\n", 0, error.start)
                place = f"{self.where}, line {line}: not UTF-8 (byte {begins + error.start})"
                raise ScenarioError(f"{place}: save it as UTF-8") from None
            self._read_bytes += len(data)
            if text:
                return text
        return ""


_BLANKS = re.compile(r"\s*")
_DECODER = json.JSONDecoder()
