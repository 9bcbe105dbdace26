"""Damage: valid input, changed as disks, editors, hostile servers and strangers change it."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

JUNK = (
    *(
        b"",
        b"\0",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b" ",
        b'"',
        b"{",
        b"[",
    ),
    *(b":", b",", b"-1", b"1e400", b"9" * 40, b"NaN", b"null", b"[" * 2000, b'{"a":' * 300, b"../" * 9, b"=1+1", b"%"),
    *(b"data: ", b"event: error\n", b"data: [DONE]\n\n", b"data: {}\n\n", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 99999999999999999999\r\n", b"ffffffffffffffff\r\n"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, -0.5, 1e308, -1e308, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**70),
    *("", "x", "0", "-1", "nan", "é\u202e", "\0\x1b[31m", "../../etc/passwd", "=1+1", "<script>alert(1)</script>"),
    *("5s", "1e400s", "ttft_p95<1ms", "a\nb", "x" * 5000, [], {}, [None], [[]], {"a": 1}, ["x", 1], [1, 2, 3]),
)
Path = tuple[str | int, ...]


def examples(n: int) -> settings:
    """A sixth of `n`, the same each time; FUZZ_EXAMPLES=5000 in the environment has more, and others each time."""
    wanted = os.environ.get("FUZZ_EXAMPLES")
    return settings(
        max_examples=int(wanted or max(n // 6, 5)),
        derandomize=wanted is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.reuse, Phase.generate],  # damage comes from a seed: none is simpler than another
    )


SEEDS = st.integers(0, 2**63 - 1)


def damaged(*originals: bytes) -> st.SearchStrategy[bytes]:
    """One of some inputs, damaged."""
    return SEEDS.map(lambda seed: damage(Random(seed), *originals))


def edited(original: Any, keys: Sequence[str] = ("new",)) -> st.SearchStrategy[Any]:
    """Plain data with some values that were edited."""
    return SEEDS.map(lambda seed: edit(Random(seed), original, keys))


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The data, cut anywhere."""
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=12)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def damage(random: Random, *originals: bytes) -> bytes:
    """One of some inputs, cut, edited, spliced, doubled or with flipped bits, in one to four places."""
    data = random.choice(originals)
    for _ in range(random.randint(1, 4)):
        a = random.randint(0, len(data))
        b = min(len(data), a + random.choice([0, 1, 2, 8, 60, 400, 1 << 20]))
        match random.choice(["cut", "drop", "junk", "junk", "double", "flip", "splice"]):
            case "cut":
                data = data[:a]
            case "drop":
                data = data[:a] + data[b:]
            case "junk":
                data = data[:a] + random.choice(JUNK) + data[b:]
            case "double":
                data = data[:b] + data[a:]
            case "flip" if a < len(data):
                data = data[:a] + bytes([data[a] ^ 1 << random.randrange(8)]) + data[a + 1 :]
            case "splice":
                other = random.choice(originals)
                data = data[:a] + other[random.randint(0, len(other)) :]
    return data


def edit(random: Random, original: Any, keys: Sequence[str] = ("new",)) -> Any:
    """Plain data with a few values replaced, taken out, doubled, nested, or with keys that are unknown."""
    value = json.loads(json.dumps(original))
    for _ in range(random.randint(1, 3)):
        places = list(_places(value))
        if not places:
            break
        place = random.choice(places)
        inside, last = _inside(value, place[:-1]), place[-1]
        match random.choice(["value", "value", "value", "remove", "double", "nest", "number", "key"]):
            case "value":
                inside[last] = copy.deepcopy(random.choice(VALUES))
            case "remove":
                del inside[last]
            case "double" if isinstance(inside, list):
                inside.append(copy.deepcopy(inside[last]))
            case "nest":
                in_list = random.random() < 0.5
                for _ in range(random.choice([1, 40, 90])):
                    inside[last] = [inside[last]] if in_list else {"a": inside[last]}
                break  # walked over and copied again, it would pass Python's own limit
            case "number":
                number = random.choice([random.randint(-10, 100), random.getrandbits(62), random.uniform(-1e6, 1e15)])
                inside[last] = number
            case "key" if isinstance(inside, dict):
                inside[random.choice(keys)] = copy.deepcopy(random.choice(VALUES))
    return value


def _places(value: Any, at: Path = ()) -> list[Path]:
    if isinstance(value, dict):
        inner = [place for key, item in value.items() for place in _places(item, (*at, key))]
    elif isinstance(value, list):
        inner = [place for index, item in enumerate(value) for place in _places(item, (*at, index))]
    else:
        inner = []
    return ([at] if at else []) + inner


def _inside(value: Any, place: Path) -> Any:
    for key in place:
        value = value[key]
    return value
