"""What a whole comparison comes to, in a word, and which verdicts make it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from loadbench.compare.figures import keys
from loadbench.compare.verdict import BAD, WITHIN, Verdict

Row = dict[str, Any]
"""Where a verdict stands, and its word: {"base_model", "new_model", "load" (None over levels), "metric", "word"}."""
Overall = Literal["faster", "slower", "better", "worse", "mixed", "same", "can't tell", "no verdict"]
GOOD = ("faster", "better")


def row(verdict: Verdict, base_model: str, new_model: str, load: str | None) -> Row:
    return {
        "base_model": base_model,
        "new_model": new_model,
        "load": load,
        "metric": verdict.metric,
        "word": verdict.word,
    }


def overall(levels: Sequence[Row], means: Sequence[Row]) -> dict[str, Any]:
    """The word, the verdicts it is made from, and the levels that stand out from them.

    A metric's verdict is that of its mean over the levels, where there is one, else those of its levels. What nobody
    can tell takes nothing away from the others, and is named beside the word; levels that stand out count: a mean
    hides that one got better and one worse.

    Returns:
        {"word", "decisive": rows, "open": those of them that nobody can tell, "exceptions": rows of levels that are
        better or worse though their mean is not}.

    >>> at = {"base_model": "m", "new_model": "m", "load": "c1"}
    >>> overall([at | {"metric": "ttft", "word": "slower"}, at | {"metric": "e2e", "word": "same"}], [])["word"]
    'slower'
    """
    over = {_of(mean): mean["word"] for mean in means}
    decisive = [*means, *(one for one in levels if _of(one) not in over or one["word"] == "no verdict")]
    exceptions = [
        one for one in levels if one["word"] in (*BAD, *GOOD) and over.get(_of(one), one["word"]) != one["word"]
    ]
    # Without a single failure it takes thousands of requests to hold a share within a point: nothing to settle.
    unsettled = [one for one in decisive if one["metric"] not in keys("share") and one["word"] == "can't tell"]
    counted = [one for one in decisive if one["metric"] not in keys("share") or one["word"] != "can't tell"]
    words = [one["word"] for one in (*counted, *exceptions)]
    return {"word": _word(words), "decisive": decisive, "open": unsettled, "exceptions": exceptions}


def _of(one: Row) -> tuple[str, str, str]:
    return one["base_model"], one["new_model"], one["metric"]


def _word(words: Sequence[str]) -> Overall:
    """One word for several: what is worse beyond the margin is never outweighed by what is the same.

    >>> _word(["same", "slower", "worse"]), _word(["faster", "slower"]), _word(["same", "can't tell"]), _word([])
    ('slower', 'mixed', 'same', 'no verdict')
    >>> _word(["can't tell"]), _word(["same", "slightly slower"])
    ("can't tell", 'same')
    """
    said = {word for word in words if word != "no verdict"}
    if not said:
        return "no verdict"
    bad, good = said & set(BAD), said & set(GOOD)
    if bad and good:
        return "mixed"
    if bad:
        return "slower" if "slower" in bad else "worse"
    if good:
        return "faster" if "faster" in good else "better"
    return "same" if said & set(WITHIN) else "can't tell"
