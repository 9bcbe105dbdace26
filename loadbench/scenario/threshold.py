"""Thresholds ("ttft_p95 > 800ms", "failed > 10% abort after 10s"): conditions under which a run has failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from loadbench.errors import UsageError
from loadbench.scenario.bound import FIGURES, Bound, Duration
from loadbench.text import shown

AFTER_S = 10.0
"""Measured time before which nothing is aborted, unless `after` says otherwise."""
MOST_CHARACTERS = 300
OF_TIMES = ("ttft", "tpot", "e2e", "client_queue")
OF_COUNTS = ("failed", "success", "dropped")
_THRESHOLD = re.compile(r"\s*(?P<head>[^{<>=]*?)\s*(?:\{(?P<level>[^{}]*)\}\s*)?(?P<tail>[<>=].*)", re.DOTALL)
_ABORT = re.compile(r"(?P<bound>.*?\S)\s+abort(?:\s+after\s+(?P<after>\S.*?))?\s*", re.DOTALL | re.IGNORECASE)
_TURNED = {"<=": ">", "<": ">", ">=": "<", ">": "<"}


class FailIf(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"when": "if"}):
    """A threshold as a table of a scenario file: `{if = "failed > 10%", abort = true, after = "10s"}`."""

    when: Annotated[str, Meta(min_length=1, max_length=10_000, description='The failure, as "failed > 10%".')]
    abort: Annotated[bool, Meta(description="End the run as soon as it surely holds.")] = False
    after: Annotated[Duration | None, Meta(description="Measured time before which nothing is aborted; 10s.")] = None


class Threshold(msgspec.Struct, frozen=True):
    """A condition under which a run has failed. The written condition is the failure, not what should hold.

    Attributes:
        bound: The condition, about one of FIGURES.
        level: To which levels it is restricted: a load ("c8"), a model, or both ("phi-4-mini@c8"); None for all.
        abort: Whether the run ends as soon as it surely holds.
        after_s: Measured time of a level before which it ends nothing.
        text: The condition as written, without `abort`.

    >>> Threshold.parse("failed > 10% abort after 5s").after_s
    5.0
    >>> one = Threshold.parse("ttft_p95{c8} > 800ms")
    >>> one.level, one.bound.value, one.text
    ('c8', 800.0, 'ttft_p95{c8} > 800ms')
    """

    bound: Bound
    level: str | None
    abort: bool
    after_s: float
    text: str

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Read `METRIC[_STATISTIC][{LEVEL}] OP VALUE [abort [after DURATION]]`.

        Raises:
            UsageError: If it is none; one line that says what to write.
        """
        if len(text) > MOST_CHARACTERS:  # its expressions take the cube of that
            raise UsageError(f"{shown(text)} is no threshold: it has more than {MOST_CHARACTERS} characters")
        ending = _ABORT.fullmatch(text)
        condition = (ending["bound"] if ending else text).strip()
        found = _THRESHOLD.fullmatch(condition)
        if not found:
            raise UsageError(
                f"{shown(text)} is no threshold: write what fails as METRIC OP VALUE, as ttft_p95 > 800ms or "
                "failed > 1%"
            )
        bound = Bound.parse(condition if found["level"] is None else f"{found['head']} {found['tail']}", FIGURES)
        if found["tail"].startswith("="):
            turned = f"{found['head']} {_TURNED[bound.op]} {found['tail'][1:].strip()}"
            raise UsageError(f"{shown(text)}: = says what is to hold; a threshold says what fails: write {turned}")
        level = None if found["level"] is None else found["level"].strip()
        if level == "":
            raise UsageError(f"{shown(text)}: name a level in the braces, as {found['head']}{{c8}}, or leave them out")
        after_s = AFTER_S
        if ending and ending["after"]:
            try:
                after_s = float(Duration.parse(ending["after"]))
            except ValueError as error:
                raise UsageError(f"{shown(text)}: {error}") from None
        if ending and (why := _not_early(bound)):
            raise UsageError(f"{shown(text)}: abort cannot be decided early of {why}: leave abort out")
        return cls(bound, level, ending is not None, after_s, condition)

    @classmethod
    def of(cls, written: str | FailIf | Mapping[str, Any]) -> Threshold:
        """Read what a scenario holds, as text or table.

        Raises:
            UsageError: If it is no threshold.
        """
        if isinstance(written, str):
            return cls.parse(written)
        rule = written if isinstance(written, FailIf) else msgspec.convert(written, FailIf, dec_hook=_duration)
        if rule.after is not None and not rule.abort:
            raise UsageError(f"{shown(rule.when)}: after says when to abort: add abort = true, or leave it out")
        text = f"{rule.when} abort" if rule.abort and not _ABORT.fullmatch(rule.when) else rule.when
        found = cls.parse(text)
        return found if rule.after is None else msgspec.structs.replace(found, after_s=float(rule.after))

    def is_about(self, level: str, model: str) -> bool:
        """Whether it judges this level: every repeat of a load is one of that name.

        >>> Threshold.parse("ttft_p95{c8} > 1s").is_about("phi@c8#2", "phi")
        True
        """
        name = re.sub(r"#\w+$", "", level)
        return self.level in (None, model, level, name, name.removeprefix(f"{model}@"))


def _not_early(bound: Bound) -> str | None:
    """Why no count of requests can decide it before the end; None where one can."""
    if bound.metric in OF_COUNTS:
        return None
    if bound.metric not in OF_TIMES:
        return f"{bound.metric}, only of {', '.join(OF_COUNTS)} and of percentiles of {', '.join(OF_TIMES)}"
    if bound.statistic == "mean":
        return "a mean"
    return "a maximum that is to be small" if bound.statistic == "max" and bound.op in ("<", "<=") else None


def _duration(kind: type, value: Any) -> Any:
    return Duration.parse(value)
