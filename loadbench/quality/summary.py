"""scores.json: what all scores of a run come to, by model; docs/quality.md describes every field."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from loadbench.quality import checks
from loadbench.quality.agreement import Agreement, agreements
from loadbench.quality.answers import (
    Answer,
    Between,
    Repeats,
    Scored,
    between_runs,
    drawn_at_random,
    repeats,
    settings_apart,
)
from loadbench.quality.scores import HIGHEST, LOWEST, Method, Score, latest, means
from loadbench.stats import student, wilson

SCHEMA = 1
FILE = "scores.json"
ROUNDING = 1 / 12
"""Variance of what a whole-number score rounds away: equal scores are not known to be equal qualities."""
METHODS: tuple[Method, ...] = ("hand", "judge")
"""A person's scores come before a judge's."""
_FAILURES = 20  # of a model, listed

Interval = tuple[float, float]
Rated = Mapping[tuple[str, str], float]
"""Scores by rater and row."""


class Mean(msgspec.Struct, frozen=True):
    mean: float
    ci95: Interval | None
    n: int


class MethodScore(msgspec.Struct, frozen=True):
    mean: float
    ci95: Interval | None
    n: int
    rows: int
    by: list[str]
    by_prompt: dict[str, float]


class AspectMean(msgspec.Struct, frozen=True):
    prompt: str
    aspect: str
    method: str
    mean: float
    n: int


class Failure(msgspec.Struct, frozen=True):
    prompt: str
    row: str
    check: str
    why: str


class Passed(msgspec.Struct):
    passed: int = 0
    n: int = 0


class Rules(msgspec.Struct, frozen=True):
    pass_rate: float
    ci95: Interval | None
    n: int
    by_prompt: dict[str, float]
    by_kind: dict[str, Passed]
    failed: list[Failure]
    failed_left_out: int


class ModelScores(msgspec.Struct, frozen=True):
    model: str
    answers: int
    requests: int
    prompts: int
    unanswered: list[str]
    score: Mean | None
    by_method: dict[str, MethodScore | None]
    by_aspect: list[AspectMean]
    checks: Rules | None


class JudgeScores(msgspec.Struct, frozen=True):
    by: str
    endpoints: list[str]
    rows: int
    usable: int
    unusable: dict[str, int]
    suspect_rows: list[str]
    repeated_rows: int
    same_share: float | None
    spread_sd: float | None
    structured: bool | None
    requests: int
    input_tokens: float | None
    output_tokens: float | None
    cost: float | None


class Against(msgspec.Struct, frozen=True):
    run: str
    reason: str | None
    settings_apart: list[str]
    models: list[Between] | None


class Determinism(msgspec.Struct, frozen=True):
    reason: str | None
    within: list[Repeats] | None
    against: Against | None


class Summary(msgspec.Struct, frozen=True):
    schema: int
    run: str
    answers: int
    prompts: int
    method: str | None
    method_reason: str
    models: list[ModelScores]
    agreement: list[Agreement]
    judges: list[JudgeScores]
    determinism: Determinism
    warnings: list[str]


def summarise(
    run: Scored, scores: Sequence[Score], *, unreadable_scores: int = 0, against: Scored | None = None
) -> Summary:
    """Everything that is known about the quality of a run's answers.

    Args:
        scores: All of the folder's.
        unreadable_scores: Lines of scores.jsonl that are none.
        against: Another run, to tell whether the same was answered.
    """
    rows = {answer.row for answer in run.answers}
    current = [score for score in latest(scores) if score.row in rows]
    rated = means(current)
    rules = {name: checks.parse(question) for name, question in run.questions.items()}
    method, reason = _method(run, rated)
    judges = sorted({score.by for score in scores if score.method == "judge"})
    return Summary(
        schema=SCHEMA,
        run=run.path.resolve().name,
        answers=len(run.answers),
        prompts=len({answer.prompt for answer in run.answers}),
        method=method,
        method_reason=reason,
        models=[_model(model, run, current, rated, rules, method) for model in run.models],
        agreement=agreements(rated, run.answers),
        judges=[_judge(name, scores, current) for name in judges],
        determinism=_determinism(run, against),
        warnings=list(_warnings(run, scores, current, unreadable_scores)),
    )


def _method(run: Scored, rated: Rated) -> tuple[Method | None, str]:
    """The one method by which all models are scored."""
    model_of = {answer.row: answer.model for answer in run.answers}
    for method in METHODS:
        if {model_of[row] for rater, row in rated if rater.startswith(f"{method}:")} == set(run.models):
            return method, f"every model has scores by {method}"
    return None, "no method has scores of every model" if rated else "nobody has scored yet"


# -- a model


def _model(
    model: str,
    run: Scored,
    scores: Sequence[Score],
    rated: Rated,
    rules: Mapping[str, Sequence[checks.Check]],
    method: Method | None,
) -> ModelScores:
    answers = [answer for answer in run.answers if answer.model == model]
    answered = {answer.prompt for answer in answers}
    by_method: dict[str, MethodScore | None] = {name: _by_method(name, answers, rated) for name in METHODS}
    chosen = by_method[method] if method else None
    return ModelScores(
        model=model,
        answers=len(answers),
        requests=sum(answer.count for answer in answers),
        prompts=len(answered),
        unanswered=list(dict.fromkeys(answer.prompt for answer in run.answers if answer.prompt not in answered)),
        score=None if chosen is None else Mean(mean=chosen.mean, ci95=chosen.ci95, n=chosen.n),
        by_method=by_method,
        by_aspect=list(_by_aspect(answers, scores)),
        checks=_rules(answers, rules),
    )


def _by_method(method: Method, answers: Sequence[Answer], rated: Rated) -> MethodScore | None:
    rows = {answer.row for answer in answers}
    given: dict[str, list[float]] = {}
    raters = set()
    for (rater, row), value in sorted(rated.items()):
        if row in rows and rater.startswith(f"{method}:"):
            given.setdefault(row, []).append(value)
            raters.add(rater.partition(":")[2])
    if not given:
        return None
    by_prompt = weighted(answers, {row: math.fsum(values) / len(values) for row, values in given.items()})
    mean, ci95 = mean_over_prompts(list(by_prompt.values()))
    return MethodScore(mean=mean, ci95=ci95, n=len(by_prompt), rows=len(given), by=sorted(raters), by_prompt=by_prompt)


def weighted(answers: Iterable[Answer], values: Mapping[str, float]) -> dict[str, float]:
    """By prompt, the mean over its answers that have a value (by row); an answer given often counts as often.

    >>> answers = [Answer("r1", "sea", "m", "wet", 3), Answer("r2", "sea", "m", "dry", 1)]
    >>> weighted(answers, {"r1": 5.0, "r2": 1.0})
    {'sea': 4.0}
    """
    sums: dict[str, tuple[float, int]] = {}
    for answer in answers:
        if answer.row in values:
            total, n = sums.get(answer.prompt, (0.0, 0))
            sums[answer.prompt] = total + values[answer.row] * answer.count, n + answer.count
    return {prompt: total / n for prompt, (total, n) in sums.items()}


def mean_over_prompts(values: Sequence[float]) -> tuple[float, Interval | None]:
    """The mean of the prompts' scores and its 95 % interval by Student's t; None of a single prompt.

    The prompts stand for those that could have been asked: more requests make no interval narrower, more prompts do.

    >>> mean, (low, high) = mean_over_prompts([4.0, 4.0, 5.0, 3.0])
    >>> mean, round(low, 2), high
    (4.0, 2.7, 5.0)
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, None
    variance = max(math.fsum((value - mean) ** 2 for value in values) / (n - 1), ROUNDING)
    half = student(n - 1) * math.sqrt(variance / n)
    return mean, (max(float(LOWEST), mean - half), min(float(HIGHEST), mean + half))


def _by_aspect(answers: Sequence[Answer], scores: Sequence[Score]) -> Iterator[AspectMean]:
    """Each expected aspect's mean, by method: what a model leaves out."""
    rows = {answer.row for answer in answers}
    given: dict[tuple[str, str, str], list[int]] = {}
    for score in scores:
        if score.row in rows:
            for aspect, value in score.aspects.items():
                given.setdefault((score.prompt, aspect, score.method), []).append(value)
    for (prompt, aspect, method), values in sorted(given.items()):
        mean = math.fsum(values) / len(values)
        yield AspectMean(prompt=prompt, aspect=aspect, method=method, mean=mean, n=len(values))


def _rules(answers: Sequence[Answer], rules: Mapping[str, Sequence[checks.Check]]) -> Rules | None:
    """How much of what was declared the answers pass; None where no prompt declares anything."""
    checked = [answer for answer in answers if rules.get(answer.prompt)]
    if not checked:
        return None
    passed: dict[str, float] = {}
    failed: list[Failure] = []
    kinds: dict[str, Passed] = {}
    for answer in checked:
        passed[answer.row] = 1.0
        for check in rules[answer.prompt]:
            tally = kinds.setdefault(check.kind, Passed())
            tally.n += 1
            if (why := check.failure(answer.text)) is None:
                tally.passed += 1
            else:
                passed[answer.row] = 0.0
                failed.append(Failure(prompt=answer.prompt, row=answer.row, check=str(check), why=why))
    by_prompt = weighted(checked, passed)
    hits, n = math.fsum(by_prompt.values()), len(by_prompt)
    return Rules(
        pass_rate=hits / n,
        ci95=wilson(hits, n),
        n=n,
        by_prompt=by_prompt,
        by_kind=dict(sorted(kinds.items())),
        failed=failed[:_FAILURES],
        failed_left_out=max(0, len(failed) - _FAILURES),
    )


# -- a judge


def _judge(name: str, scores: Sequence[Score], current: Sequence[Score]) -> JudgeScores:
    """What a judge gave, how much it contradicts itself, and what it cost: every request counts for the cost."""
    asked = [one for one in scores if one.method == "judge" and one.by == name]
    counted = [one for one in current if one.method == "judge" and one.by == name]
    by_row: dict[str, list[int]] = {}
    unusable: dict[str, int] = {}
    for one in counted:
        if one.score is not None:
            by_row.setdefault(one.row, []).append(one.score)
        if one.unusable is not None:
            reason = one.unusable.partition(":")[0]
            unusable[reason] = unusable.get(reason, 0) + 1
    again = [values for values in by_row.values() if len(values) > 1]
    return JudgeScores(
        by=name,
        endpoints=sorted({one.endpoint for one in asked if one.endpoint}),
        rows=len(by_row),
        usable=sum(one.score is not None for one in counted),
        unusable=dict(sorted(unusable.items())),
        suspect_rows=sorted({one.row for one in counted if one.suspect}),
        repeated_rows=len(again),
        same_share=sum(min(values) == max(values) for values in again) / len(again) if again else None,
        spread_sd=_spread(again),
        structured=all(one.structured for one in counted) if counted else None,
        requests=sum(one.tries or 0 for one in asked),
        input_tokens=_total([one.input_tokens for one in asked]),
        output_tokens=_total([one.output_tokens for one in asked]),
        cost=_total([one.cost for one in asked]),
    )


def _spread(again: Sequence[Sequence[int]]) -> float | None:
    """The standard deviation of a judge's scores of one answer, pooled over the answers that it scored repeatedly."""
    freedom = 0
    squares = []
    for values in again:
        mean = sum(values) / len(values)
        freedom += len(values) - 1
        squares += [(value - mean) ** 2 for value in values]
    return math.sqrt(math.fsum(squares) / freedom) if freedom else None


def _total(values: Sequence[float | None]) -> float | None:
    """The sum; None where any part of it is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


# -- the run


def _determinism(run: Scored, against: Scored | None) -> Determinism:
    reason = drawn_at_random(run.info)
    compared = None
    if against is not None:
        reason_apart = reason or drawn_at_random(against.info)
        compared = Against(
            run=against.path.resolve().name,
            reason=reason_apart,
            settings_apart=settings_apart(run.info, against.info),
            models=None if reason_apart else between_runs(run, against),
        )
    return Determinism(reason=reason, within=repeats(run) if reason is None else None, against=compared)


def _warnings(run: Scored, scores: Sequence[Score], current: Sequence[Score], unreadable: int) -> Iterator[str]:
    if run.unreadable_lines:
        yield f"answers.jsonl: {run.unreadable_lines} lines cannot be read"
    yield from run.damage
    if unreadable:
        yield f"scores.jsonl: {unreadable} lines cannot be read"
    if lost := len({score.row for score in scores} - {answer.row for answer in run.answers}):
        yield f"{lost} scored answers are not among this run's answers any more: a level was done again"
    for method in METHODS:
        of_method = [score for score in current if score.score is not None and score.method == method]
        if _differ((score.model, score.prompt) for score in of_method):
            yield f"by {method}, the models were scored on different prompts: their means do not compare"
        if _differ((score.model, score.by) for score in of_method):
            yield f"by {method}, the models were not scored by the same: one may be milder than another"
    judges = {score.by for score in current if score.method == "judge" and score.score is not None}
    for own in sorted(judges & set(run.models)):
        yield f"{own} judged answers of its own: judges prefer what they would have said"
    if suspect := len({score.row for score in current if score.suspect}):
        yield f"{suspect} answers seem to speak to whoever grades them: look at them (judges: suspect_rows)"


def _differ(pairs: Iterable[tuple[str, str]]) -> bool:
    """Whether the models (first of each pair) have different sets of the other."""
    sets: dict[str, set[str]] = {}
    for model, other in pairs:
        sets.setdefault(model, set()).add(other)
    return len(set(map(frozenset, sets.values()))) > 1
