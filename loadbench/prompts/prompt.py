"""A prompt; the order in which prompts go out; texts that are made up; the prompts for when nobody says what to ask."""

from __future__ import annotations

import hashlib
import math
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast, get_args

from loadbench.errors import UsageError
from loadbench.scenario.loads import Unit

Message = dict[str, Any]
"""As the chat API takes them: `{"role": "user", "content": "..."}`; servers know more keys than loadbench."""
Rule = dict[str, Any]  # what an answer must pass, as the file has it: `{"contains": "Lisbon"}`. Scoring reads it

# -- texts that are made up: words by a key, as many as the requested length takes

# Short and common, so that most tokenisers take each for one token.
_TEXT = (
    "able about above across after again air all almost along also always and animal answer any area around ask back "
    "be bear beautiful because bed before began begin behind best better between big bird black blue boat body book "
    "both box boy bring brought build busy but by call came can car care carry cause center certain change check "
    "children city class clear close cold color come common complete contain could country course cover cross cry cut "
    "dark day decide deep develop did differ direct distance do does dog door down draw drive dry during each early "
    "earth ease east eat end enough even ever every example eye face fact fall family far farm fast father feel feet "
    "few field figure fill final find fine fire first fish five fly follow food foot for force form found four free "
    "friend from front full game gave get girl give go gold gone good got govern great green ground group grow had "
    "half hand happen hard has have he head hear heat help her here high him his hold home horse hot hour house how "
    "hundred idea if in inch interest island it just keep kind king knew know land language large last late laugh lay "
    "lead learn leave left less let letter life light like line list listen little live long look love low machine "
    "made main make man many map mark may mean measure men might mile mind minute miss money moon more morning most "
    "mother mountain move much music must name near need never new next night no north note nothing notice noun now "
    "number numeral object ocean of off often oh old on once one only open or order other our out over own page paper "
    "part pass pattern people perhaps person picture piece place plain plan plane plant play point port pose possible "
    "pound power press problem produce product pull put question quick rain ran reach read ready real record red "
    "remember rest right river road rock room round rule run said same saw say school science sea second see seem self "
    "sentence serve set several shape she ship short should show side simple since sing sit six size sleep slow small "
    "snow so some song soon sound south special spell stand star start state stay step still stood stop story street "
    "strong study such sun sure surface table tail take talk teach tell ten test than that the their them then there "
    "these they thing think this those though thought thousand three through time to together told too took top toward "
    "town travel tree true try turn two under unit until up us use usual very voice vowel wait walk want war warm was "
    "watch water way we week weight well went were west what wheel when where which while white who whole why will "
    "wind with wonder wood word work world would write year yes yet you young your"
)
WORDS = _TEXT.split()


@dataclass(frozen=True, slots=True)
class Line:
    """How a server counts texts of these words: `tokens = fixed + per_word * words`."""

    fixed: float
    per_word: float


UNKNOWN = Line(0.0, 1.0)  # until the server was asked


def fit(words: Sequence[int], tokens: Sequence[int]) -> Line | None:
    """The straight line through what a server counted, by least squares; None where it tells nothing of a word.

    >>> fit([10, 100, 200], [23, 131, 251])
    Line(fixed=11.0, per_word=1.2)
    """
    if len(set(words)) < 2:
        return None
    per_word, fixed = statistics.linear_regression(words, tokens)
    if per_word <= 0:
        return None
    return Line(round(fixed, 6), round(per_word, 6))


@dataclass(frozen=True, slots=True)
class Recipe:
    """A text in pieces, each of a length; what has the same key begins with the same words.

    >>> Recipe.parse("words s*3 | p1*2").text(UNKNOWN)[0] == f"{_words('s', 3)} {_words('p1', 2)}"
    True
    """

    unit: Unit  # what the lengths count. Tokens are those of the whole request as the server counts them
    pieces: tuple[tuple[str, int], ...]  # key and length of each
    shared: int = 0  # how many of the first pieces other prompts have too

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """Read what `str` gives.

        Raises:
            ValueError: If it is nothing of the kind.
        """
        unit, *words = text.split()
        shared = words.index("|") if "|" in words else 0
        pieces = []
        for word in words:
            if word != "|":
                key, _, length = word.rpartition("*")
                pieces.append((key, int(length)))
                if not key or int(length) < 1:
                    raise ValueError("no recipe")
        if not pieces or unit not in get_args(Unit):
            raise ValueError("no recipe")
        return cls(cast(Unit, unit), tuple(pieces), shared)

    def __str__(self) -> str:
        words = [f"{key}*{length}" for key, length in self.pieces]
        if self.shared:
            words.insert(self.shared, "|")
        return " ".join([self.unit, *words])

    @property
    def length(self) -> int:
        """Of all pieces, in its unit."""
        return sum(length for _, length in self.pieces)

    def text(self, line: Line) -> tuple[str, int]:
        """The text, and how many of its first characters are shared.

        Args:
            line: How the server counts; of use for tokens alone.
        """
        if self.unit == "characters":
            texts = [_characters(key, length) for key, length in self.pieces]
            return "".join(texts), sum(map(len, texts[: self.shared]))
        parts, before, target = [], 0, 0
        for number, (key, length) in enumerate(self.pieces, start=1):
            target += length
            words = target
            if self.unit == "tokens":
                tokens = float(target)
                if number == len(self.pieces):  # what the server adds to each text, so that the others line up
                    tokens -= line.fixed
                words = round(tokens / line.per_word)
            words = max(words, before, 1)
            parts.append(_words(key, words - before))
            before = words
        shared = " ".join(filter(None, parts[: self.shared]))
        rest = " ".join(filter(None, parts[self.shared :]))
        if shared and rest:
            return f"{shared} {rest}", len(shared) + 1
        return shared or rest, len(shared)


@lru_cache(maxsize=4096)
def _words(key: str, count: int) -> str:
    """So many words; more of one key begin with fewer of it."""
    return " ".join(random.Random(key).choices(WORDS, k=count))


@lru_cache(maxsize=4096)
def _characters(key: str, count: int) -> str:
    """So many characters, whole words but for the last; none at the end is a blank."""
    text = _words(key, math.ceil(count / 2) + 1)[:count]  # no word and its blank are shorter than two
    if text.endswith(" "):
        return text[:-1] + "e"
    return text


# -- prompts


@dataclass(frozen=True, slots=True)
class Prompt:
    """One conversation to send."""

    id: str  # unique within the set
    messages: tuple[Message, ...]  # as the chat API takes them: `{"role": "user", "content": "..."}`
    group: str | None = None  # what it stands for, as "meeting notes"; None where nobody said
    expected: tuple[str, ...] = ()  # aspects that a good answer names; scoring reads them
    max_tokens: int | None = None  # most tokens of this answer; None leaves it to the scenario
    turns: tuple[str, ...] = ()  # what the user says next, a text an answer
    # How the user's message is to be made up; None where `messages` is all there is. See `written`
    recipe: Recipe | None = None
    shared_characters: int = 0  # the beginning of the last message that other prompts have too
    at_s: float | None = None  # when it is due in a replay, in seconds since the level began
    checks: tuple[Rule, ...] = ()  # rules that an answer must pass, as the file has them; scoring reads them

    @property
    def characters(self) -> int:
        """Length of all texts of all messages, in characters."""
        return sum(sum(map(len, texts_of(message))) for message in self.messages)


def texts_of(message: Message) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):  # parts, as vision models take them
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def with_system(prompt: Prompt, system: str | None) -> Prompt:
    """The prompt with a system message first, unless it has one."""
    if system is None or any(message["role"] in ("system", "developer") for message in prompt.messages[:1]):
        return prompt
    return replace(prompt, messages=({"role": "system", "content": system}, *prompt.messages))


def order(prompts: Sequence[Prompt], seed: int, repeat: int = 1) -> Iterator[Prompt]:
    """Endless: every prompt once per cycle, each cycle in another order that seed and repeat decide.

    Args:
        repeat: From 1. No repeat of one seed has the orders of another seed.
    Raises:
        UsageError: If there are no prompts.
    """
    if not prompts:
        raise UsageError("no prompts: give at least one")
    chance = random.Random(seed)
    if repeat > 1:
        chance = random.Random(f"{seed}/{repeat}")
    return _order(list(prompts), chance)


def _order(prompts: list[Prompt], chance: random.Random) -> Iterator[Prompt]:
    while True:
        chance.shuffle(prompts)
        yield from tuple(prompts)


def distinct(prompt: Prompt, number: int) -> Prompt:
    """The prompt behind a prefix of its own, so that no prompt cache answers; the id stays.

    The prefix stands at the very start (before a system message too), has the same length for every number, and
    differs from its first characters on, as caches match beginnings. Where prompts are to share their beginning, it
    stands right after that.

    Args:
        number: Never the same twice on one server, so it is not to start from 0 in each run.
    """
    mark = f"[{hashlib.blake2b(str(number).encode(), digest_size=8).hexdigest()}] "
    if shared := prompt.shared_characters:
        *before, last = prompt.messages
        content = last["content"]
        return replace(prompt, messages=(*before, {**last, "content": content[:shared] + mark + content[shared:]}))
    first, *rest = prompt.messages
    content = first.get("content")
    if isinstance(content, list):
        content = [{"type": "text", "text": mark}, *content]
    else:
        content = mark + (content or "")
    return replace(prompt, messages=({**first, "content": content}, *rest))


def answered(prompt: Prompt, answer: str, turn: int) -> Prompt:
    """The conversation with its answer and the user's next turn.

    Args:
        turn: Number of the turn that is asked now, from 2; the id tells it.
    """
    exchange = ({"role": "assistant", "content": answer}, {"role": "user", "content": prompt.turns[0]})
    first = prompt.id
    if turn > 2:  # it has the number of the turn before
        first = first.rpartition("/")[0]
    return replace(prompt, id=f"{first}/{turn}", messages=(*prompt.messages, *exchange), turns=prompt.turns[1:])


# -- for when nobody says what to ask


_ASKED = {
    "capital": "What is the capital of Portugal, and on which river does it lie?",
    "haiku": "Write a haiku about a train that leaves a station at dawn.",
    "translate": "Translate into French: The library opens at nine and closes at six, except on Sundays.",
    "list": "List five vegetables that grow well in a shady garden, with one line of advice for each.",
    "explain": "Explain to a ten-year-old why the sky is blue and why sunsets are red.",
    "code": "Write a Python function that returns the second largest number of a list, and say how it treats "
    "duplicates.",
    "email": "Write a short, polite email that asks a supplier to confirm the delivery date of order 4711, which "
    "was due last Friday, and that offers two time slots for a call this week.",
    "compare": "Compare a bicycle and a bus for a commute of six kilometres in a hilly town. Consider cost, time, "
    "weather and health, and end with a recommendation.",
    "sort": "A warehouse holds 120 boxes. 45 are shipped on Monday, 30 arrive on Tuesday, and a third of the rest "
    "is shipped on Wednesday. How many boxes are left? Show each step.",
    "classify": 'Is the mood of this review positive, negative or mixed? Say why in one sentence. "The battery '
    'lasts for days and the screen is bright, but the speaker crackles and the support team never answered."',
    "recipe": "I have rice, two eggs, an onion, frozen peas and soy sauce. Suggest a dinner for two people, with "
    "the steps in order and the time each one takes.",
    "summary": "Summarise in two sentences: Rivers carry sediment from the mountains to the sea. Where the current "
    "slows, at a river mouth, the sediment settles and builds a delta. A delta grows as long as the river brings "
    "more than waves and tides take away. Dams upstream hold the sediment back, so many deltas now shrink, and the "
    "towns built on them sink while the sea rises.",
}

DEFAULT = tuple(Prompt(id_, ({"role": "user", "content": text},), group="built-in") for id_, text in _ASKED.items())
"""Twelve short prompts of 10 to 80 words, for when nobody says what to ask."""
