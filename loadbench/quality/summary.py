"""scores.json: what all scores of a run come to, by model; docs/quality.md describes every field."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from statistics import fmean

import msgspec

from loadbench.quality import checks
from loadbench.quality.answers import Answer, Determinism, Scored, determinism
from loadbench.quality.scores import Agreement, Interval, Method, Rated, Score, agreements, latest, means
from loadbench.stats import student
from loadbench.stats.shares import wilson

SCHEMA = 1
FILE = "scores.json"
ROUNDING = 1 / 12
"""Variance of what a whole-number score rounds away: equal scores are not known to be equal qualities."""
METHODS: tuple[Method, ...] = ("hand", "judge")
"""A person's scores come before a judge's."""
MOST_FAILURES = 20
"""Failed rules that are listed of a model."""


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
    """Everything that the scores say about a run's answers.

    Args:
        scores: All of the folder's.
        unreadable_scores: Lines of scores.jsonl that are none.
        against: Another run, to tell whether the same was answered.
    """
    model_of, prompts = {}, set()
    for answer in run.answers:
        model_of[answer.row] = answer.model
        prompts.add(answer.prompt)
    # A level that was done again has new answers: scores of the old ones are of nothing in this run.
    current = [score for score in latest(scores) if score.row in model_of]
    rated = means(current)
    scored: dict[str, set[str]] = {}  # the models that have scores, by method
    for rater, row in rated:
        scored.setdefault(rater.partition(":")[0], set()).add(model_of[row])
    method: Method | None = None
    reason = "no method has scores of every model" if rated else "nobody has scored yet"
    for name in reversed(METHODS):  # the first of them has the last word
        if scored.get(name, set()) == set(run.models):
            method, reason = name, f"every model has scores by {name}"
    # One rule that is wrong stops it all, with its place: a pass rate without it would be another.
    rules = {name: checks.parse(question) for name, question in run.questions.items()}
    judges = sorted({score.by for score in scores if score.method == "judge"})
    return Summary(
        schema=SCHEMA,
        run=run.path.resolve().name,
        answers=len(run.answers),
        prompts=len(prompts),
        method=method,
        method_reason=reason,
        models=[_model(model, run, current, rated, rules, method) for model in run.models],
        agreement=agreements(rated, run.answers),
        judges=[_judge(name, scores, current) for name in judges],
        determinism=determinism(run, against),
        warnings=list(_warnings(run, scores, current, unreadable_scores)),
    )


# -- a model


def _model(
    model: str,
    run: Scored,
    scores: Sequence[Score],
    rated: Rated,
    rules: Mapping[str, Sequence[checks.Check]],
    method: Method | None,
) -> ModelScores:
    answers, rows, requests = [], set(), 0
    answered: dict[str, bool] = {}  # of all prompts, in the order of the run
    for answer in run.answers:
        answered.setdefault(answer.prompt, False)
        if answer.model == model:
            answered[answer.prompt] = True
            answers.append(answer)
            rows.add(answer.row)
            requests += answer.count
    unanswered = [prompt for prompt, known in answered.items() if not known]
    of_model = {key: score for key, score in rated.items() if key[1] in rows}
    by_method: dict[str, MethodScore | None] = {name: _by_method(name, answers, of_model) for name in METHODS}
    chosen, score = by_method.get(method or ""), None
    if chosen is not None:
        score = Mean(mean=chosen.mean, ci95=chosen.ci95, n=chosen.n)
    return ModelScores(
        model=model,
        answers=len(answers),
        requests=requests,
        prompts=len(answered) - len(unanswered),
        unanswered=unanswered,
        score=score,
        by_method=by_method,
        by_aspect=_by_aspect(rows, scores),
        checks=_rules(answers, rules),
    )


def _by_method(method: Method, answers: Sequence[Answer], rated: Rated) -> MethodScore | None:
    by_row: dict[str, list[float]] = {}
    raters = set()
    for (rater, row), value in sorted(rated.items()):
        if rater.startswith(f"{method}:"):
            by_row.setdefault(row, []).append(value)
            raters.add(rater.partition(":")[2])
    if not by_row:
        return None
    by_prompt = weighted(answers, {row: fmean(values) for row, values in by_row.items()})
    mean, ci95 = mean_over_prompts(list(by_prompt.values()))
    return MethodScore(mean=mean, ci95=ci95, n=len(by_prompt), rows=len(by_row), by=sorted(raters), by_prompt=by_prompt)


def weighted(answers: Iterable[Answer], values: Mapping[str, float]) -> dict[str, float]:
    """By prompt, the mean over its answers that have a value (by row); an answer given often counts as often.

    >>> answers = [Answer("r1", "sea", "m", "wet", 3), Answer("r2", "sea", "m", "dry", 1)]
    >>> weighted(answers, {"r1": 5.0, "r2": 1.0})
    {'sea': 4.0}
    """
    totals: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for answer in answers:
        if answer.row in values:
            totals[answer.prompt] += values[answer.row] * answer.count
            counts[answer.prompt] += answer.count
    return {prompt: totals[prompt] / n for prompt, n in counts.items()}


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
    return mean, (max(1.0, mean - half), min(5.0, mean + half))


def _by_aspect(rows: Collection[str], scores: Sequence[Score]) -> list[AspectMean]:
    """Each expected aspect's mean, by method: what a model leaves out."""
    by_aspect: dict[tuple[str, str, str], list[int]] = {}
    for score in scores:
        if score.row not in rows:
            continue
        for aspect, value in score.aspects.items():
            by_aspect.setdefault((score.prompt, aspect, score.method), []).append(value)
    return [AspectMean(*key, fmean(each), len(each)) for key, each in sorted(by_aspect.items())]


def _rules(answers: Sequence[Answer], rules: Mapping[str, Sequence[checks.Check]]) -> Rules | None:
    """How many of the declared rules the answers pass; None where no prompt declares any."""
    checked = [answer for answer in answers if rules.get(answer.prompt)]
    if not checked:
        return None
    passed: dict[str, float] = {}
    failed: list[Failure] = []
    kinds: dict[str, Passed] = {}
    for answer in checked:
        passed[answer.row] = 1.0  # an answer passes whole or not at all
        for check in rules[answer.prompt]:
            tally = kinds.setdefault(check.kind, Passed())
            tally.n += 1
            why = check.failure(answer.text)
            if why is None:
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
        failed=failed[:MOST_FAILURES],
        failed_left_out=max(0, len(failed) - MOST_FAILURES),
    )


# -- a judge


def _judge(name: str, scores: Sequence[Score], current: Sequence[Score]) -> JudgeScores:
    """What a judge gave, how much it contradicts itself, and what it cost: every request counts for the cost."""
    rater = f"judge:{name}"
    asked, endpoints, requests = [], set(), 0
    for one in scores:
        if one.rater == rater:
            asked.append(one)
            endpoints.add(one.endpoint)
            requests += one.tries or 0
    by_row: dict[str, list[int]] = {}
    unusable: Counter[str] = Counter()
    suspects: set[str] = set()
    structured = None
    for one in current:
        if one.rater != rater:
            continue
        if one.score is not None:
            by_row.setdefault(one.row, []).append(one.score)
        if one.unusable is not None:
            unusable[one.unusable.partition(":")[0]] += 1
        if one.suspect:
            suspects.add(one.row)
        structured = structured is not False and bool(one.structured)
    # Answers that it scored repeatedly say how much it contradicts itself: the spread is pooled over them.
    repeated = same = freedom = 0
    squares = []
    for values in by_row.values():
        if len(values) > 1:
            mean = fmean(values)
            repeated += 1
            same += min(values) == max(values)
            freedom += len(values) - 1
            squares += [(value - mean) ** 2 for value in values]
    return JudgeScores(
        by=name,
        endpoints=sorted(filter(None, endpoints)),
        rows=len(by_row),
        usable=sum(map(len, by_row.values())),
        unusable=dict(sorted(unusable.items())),
        suspect_rows=sorted(suspects),
        repeated_rows=repeated,
        same_share=same / repeated if repeated else None,
        spread_sd=math.sqrt(math.fsum(squares) / freedom) if freedom else None,
        structured=structured,
        requests=requests,
        input_tokens=_total(asked, "input_tokens"),
        output_tokens=_total(asked, "output_tokens"),
        cost=_total(asked, "cost"),
    )


def _total(scores: Sequence[Score], field: str) -> float | None:
    """The sum over all scores; None where any part of it was not measured."""
    total: float | None = None
    for score in scores:
        value = getattr(score, field)
        if value is None:
            return None
        total = (total or 0) + value
    return total


# -- the run


def _warnings(run: Scored, scores: Sequence[Score], current: Sequence[Score], unreadable: int) -> Iterator[str]:
    if run.unreadable_lines:
        yield f"answers.jsonl: {run.unreadable_lines} lines cannot be read"
    yield from run.damage
    if unreadable:
        yield f"scores.jsonl: {unreadable} lines cannot be read"
    lost = {score.row for score in scores}.difference(answer.row for answer in run.answers)
    if lost:
        yield f"{len(lost)} scored answers are not among this run's answers any more: a level was done again"
    judges: set[str] = set()
    for method in METHODS:
        prompts: dict[str, set[str]] = {}
        raters: dict[str, set[str]] = {}
        for score in current:
            if score.score is not None and score.method == method:
                prompts.setdefault(score.model, set()).add(score.prompt)
                raters.setdefault(score.model, set()).add(score.by)
                if method == "judge":
                    judges.add(score.by)
        if len(set(map(frozenset, prompts.values()))) > 1:
            yield f"by {method}, the models were scored on different prompts: their means do not compare"
        if len(set(map(frozenset, raters.values()))) > 1:
            yield f"by {method}, the models were not scored by the same: one may be milder than another"
    for own in sorted(judges & set(run.models)):
        yield f"{own} judged answers of its own: judges prefer what they would have said"
    suspect = {score.row for score in current if score.suspect}
    if suspect:
        yield f"{len(suspect)} answers seem to speak to whoever grades them: look at them (judges: suspect_rows)"
