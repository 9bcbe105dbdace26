"""scores.json: what all scores of a run come to, by model; docs/quality.md describes every field."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from loadbench.quality import agreement, checks, determinism
from loadbench.quality.answers import Answer, Question, Scored
from loadbench.quality.scores import HIGHEST, LOWEST, Score, latest, means
from loadbench.stats import student, wilson

SCHEMA = 1
FILE = "scores.json"
ROUNDING = 1 / 12
"""Variance of what a whole-number score rounds away: equal scores are not known to be equal qualities."""
METHODS = ("hand", "judge")
_FAILURES = 20  # of a model, listed

Rated = Mapping[tuple[str, str], float]
"""Scores by rater and row."""


def summarise(
    run: Scored, scores: Sequence[Score], *, unreadable_scores: int = 0, against: Scored | None = None
) -> dict[str, Any]:
    """Everything that is known about the quality of a run's answers.

    Args:
        scores: All of the folder's.
        unreadable_scores: Lines of scores.jsonl that are none.
        against: Another run, to tell whether the same was answered.
    """
    known = {answer.row for answer in run.answers}
    kept = [score for score in latest(scores) if score.row in known]
    rated = means(kept)
    rules = {name: checks.parse(question) for name, question in run.questions.items()}
    method, why = _method(run, rated)
    return {
        "schema": SCHEMA,
        "run": run.path.resolve().name,
        "answers": len(run.answers),
        "prompts": len({answer.prompt for answer in run.answers}),
        "method": method,
        "method_reason": why,
        "models": [_model(model, run, kept, rated, rules, method) for model in run.models],
        "agreement": [asdict(one) for one in agreement.agreements(rated, run.answers)],
        "judges": _judges(scores, kept),
        "determinism": _determinism(run, against),
        "warnings": list(_warnings(run, scores, kept, known, unreadable_scores)),
    }


def _method(run: Scored, rated: Rated) -> tuple[str | None, str]:
    """The one method by which all models are scored: a person's scores before a judge's."""
    models = set(run.models)
    of_row = {answer.row: answer.model for answer in run.answers}
    for method in METHODS:
        scored = {of_row[row] for rater, row in rated if rater.startswith(f"{method}:")}
        if scored == models:
            return method, f"every model has scores by {method}"
    return None, "no method has scores of every model" if rated else "nobody has scored yet"


def _model(
    model: str,
    run: Scored,
    kept: Sequence[Score],
    rated: Rated,
    rules: Mapping[str, Sequence[checks.Check]],
    method: str | None,
) -> dict[str, Any]:
    answers = [answer for answer in run.answers if answer.model == model]
    asked = list(dict.fromkeys(answer.prompt for answer in run.answers))
    answered = {answer.prompt for answer in answers}
    by_method = {name: _by_method(name, answers, rated) for name in METHODS}
    chosen = by_method[method] if method else None
    return {
        "model": model,
        "answers": len(answers),
        "requests": sum(answer.count for answer in answers),
        "prompts": len(answered),
        "unanswered": [prompt for prompt in asked if prompt not in answered],
        "score": None if chosen is None else {name: chosen[name] for name in ("mean", "ci95", "n")},
        "by_method": by_method,
        "by_aspect": list(_by_aspect(answers, run.questions, kept)),
        "checks": _checked(answers, rules),
    }


def _by_method(method: str, answers: Sequence[Answer], rated: Rated) -> dict[str, Any] | None:
    raters = sorted({rater for rater, _ in rated if rater.startswith(f"{method}:")})
    values: dict[str, float] = {}
    for answer in answers:
        given = [rated[rater, answer.row] for rater in raters if (rater, answer.row) in rated]
        if given:
            values[answer.row] = math.fsum(given) / len(given)
    if not values:
        return None
    by_prompt = weighted(answers, values)
    own = [rater for rater in raters if any((rater, row) in rated for row in values)]
    mean, ci95 = mean_over_prompts(list(by_prompt.values()))
    return {
        "mean": mean,
        "ci95": ci95,
        "n": len(by_prompt),
        "rows": len(values),
        "by": [rater.partition(":")[2] for rater in own],
        "by_prompt": by_prompt,
    }


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


def mean_over_prompts(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
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


def _by_aspect(
    answers: Sequence[Answer], questions: Mapping[str, Question], kept: Sequence[Score]
) -> Iterable[dict[str, Any]]:
    """Each expected aspect's mean, by method: what a model leaves out."""
    rows = {answer.row for answer in answers}
    given: dict[tuple[str, str, str], list[int]] = {}
    for score in kept:
        if score.row in rows:
            for aspect, value in score.aspects.items():
                given.setdefault((score.prompt, aspect, score.method), []).append(value)
    for (prompt, aspect, method), values in sorted(given.items()):
        mean = math.fsum(values) / len(values)
        yield {"prompt": prompt, "aspect": aspect, "method": method, "mean": mean, "n": len(values)}


def _checked(answers: Sequence[Answer], rules: Mapping[str, Sequence[checks.Check]]) -> dict[str, Any] | None:
    """How much of what was declared the answers pass; None where no prompt declares anything."""
    checked = [answer for answer in answers if rules.get(answer.prompt)]
    if not checked:
        return None
    passed: dict[str, float] = {}
    failed: list[dict[str, Any]] = []
    kinds: dict[str, list[int]] = {}
    for answer in checked:
        failures = {id(check): why for check, why in checks.failures(rules[answer.prompt], answer.text)}
        passed[answer.row] = float(not failures)
        for check in rules[answer.prompt]:
            tally = kinds.setdefault(check.kind, [0, 0])
            tally[0] += id(check) not in failures
            tally[1] += 1
            if id(check) in failures:
                failed.append(
                    {"prompt": answer.prompt, "row": answer.row, "check": str(check), "why": failures[id(check)]}
                )
    by_prompt = weighted(checked, passed)
    hits, n = math.fsum(by_prompt.values()), len(by_prompt)
    return {
        "pass_rate": hits / n,
        "ci95": wilson(hits, n),
        "n": n,
        "by_prompt": by_prompt,
        "by_kind": {kind: {"passed": good, "n": all_} for kind, (good, all_) in sorted(kinds.items())},
        "failed": failed[:_FAILURES],
        "failed_left_out": max(0, len(failed) - _FAILURES),
    }


def _judges(scores: Sequence[Score], kept: Sequence[Score]) -> list[dict[str, Any]]:
    """What each judge gave, how much it contradicts itself, and what it cost."""
    return [
        _judge(
            name,
            [one for one in scores if one.method == "judge" and one.by == name],
            [one for one in kept if one.method == "judge" and one.by == name],
        )
        for name in sorted({one.by for one in scores if one.method == "judge"})
    ]


def _judge(name: str, asked: Sequence[Score], kept: Sequence[Score]) -> dict[str, Any]:
    repeats: dict[str, list[int]] = {}
    for one in kept:
        if one.score is not None:
            repeats.setdefault(one.row, []).append(one.score)
    again = [values for values in repeats.values() if len(values) > 1]
    useless: dict[str, int] = {}
    for one in kept:
        if one.unusable is not None:
            why = one.unusable.partition(":")[0]
            useless[why] = useless.get(why, 0) + 1
    return {
        "by": name,
        "endpoints": sorted({one.endpoint for one in asked if one.endpoint}),
        "rows": len(repeats),
        "usable": sum(one.score is not None for one in kept),
        "unusable": dict(sorted(useless.items())),
        "suspect_rows": sorted({one.row for one in kept if one.suspect}),
        "repeated_rows": len(again),
        "same_share": sum(min(values) == max(values) for values in again) / len(again) if again else None,
        "spread_sd": _spread(again),
        "structured": all(one.structured for one in kept) if kept else None,
        "requests": sum(one.tries or 0 for one in asked),
        "input_tokens": _total([one.input_tokens for one in asked]),
        "output_tokens": _total([one.output_tokens for one in asked]),
        "cost": _total([one.cost for one in asked]),
    }


def _spread(again: Sequence[Sequence[int]]) -> float | None:
    """The standard deviation of a judge's scores of one answer, pooled over the answers that it scored repeatedly."""
    freedom = sum(len(values) - 1 for values in again)
    if not freedom:
        return None
    means_ = [(values, sum(values) / len(values)) for values in again]
    return math.sqrt(math.fsum((value - mean) ** 2 for values, mean in means_ for value in values) / freedom)


def _total(values: Sequence[float | None]) -> float | None:
    """The sum; None where any part of it is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _determinism(run: Scored, against: Scored | None) -> dict[str, Any]:
    reason = determinism.drawn_at_random(run.info)
    told: dict[str, Any] = {"reason": reason, "within": None, "against": None}
    if reason is None:
        told["within"] = [asdict(one) for one in determinism.within(run.answers)]
    if against is not None:
        why = reason or determinism.drawn_at_random(against.info)
        told["against"] = {
            "run": against.path.resolve().name,
            "reason": why,
            "settings_apart": determinism.settings_apart(run.info, against.info),
            "models": None if why else [asdict(one) for one in determinism.between(run, against)],
        }
    return told


def _warnings(
    run: Scored, scores: Sequence[Score], kept: Sequence[Score], known: set[str], unreadable: int
) -> Iterable[str]:
    if run.unreadable_lines:
        yield f"answers.jsonl: {run.unreadable_lines} lines cannot be read"
    yield from run.damage
    if unreadable:
        yield f"scores.jsonl: {unreadable} lines cannot be read"
    if lost := len({score.row for score in scores} - known):
        yield f"{lost} scored answers are not among this run's answers any more: a level was done again"
    for method in METHODS:
        of_method = [score for score in kept if score.score is not None and score.method == method]
        if _differ((score.model, score.prompt) for score in of_method):
            yield f"by {method}, the models were scored on different prompts: their means do not compare"
        if _differ((score.model, score.by) for score in of_method):
            yield f"by {method}, the models were not scored by the same: one may be milder than another"
    judges = {score.by for score in kept if score.method == "judge" and score.score is not None}
    for own in sorted(judges & set(run.models)):
        yield f"{own} judged answers of its own: judges prefer what they would have said"
    if suspect := len({score.row for score in kept if score.suspect}):
        yield f"{suspect} answers seem to speak to whoever grades them: look at them (judges: suspect_rows)"


def _differ(pairs: Iterable[tuple[str, str]]) -> bool:
    """Whether the models (first of each pair) have different sets of the other."""
    sets: dict[str, set[str]] = {}
    for model, other in pairs:
        sets.setdefault(model, set()).add(other)
    return len(set(map(frozenset, sets.values()))) > 1
