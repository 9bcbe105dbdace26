"""What `loadbench score` shows: scores by model, failed rules, agreement, judges, determinism, doubts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
import orjson

from loadbench.cli.harmless import data, harmless

_LISTED = 5


def as_json(document: Mapping[str, Any]) -> None:
    """The summary for a program."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
    click.echo(data(document, options))


def show(summary: Mapping[str, Any]) -> None:
    """The summary for a person."""
    for line in lines(summary):
        click.echo(harmless(line))


def lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """The summary in words."""
    yield f"{summary['run']}: {count(summary['answers'], 'different answer')} to {count(summary['prompts'], 'prompt')}"
    yield ""
    yield from _aligned([("model", "by hand", "by judge", "rules passed", "prompts"), *_models(summary["models"])])
    yield "  scores from 1 to 5, mean over prompts [95 % interval] (prompts); rules: share of prompts"
    if not any(any(model["by_method"].values()) for model in summary["models"]):
        yield "  nobody has scored yet: --stub FILE makes a sheet to fill in, --judge URL asks a judge model"
    for heading, part in (
        ("Weakest aspects", _aspects(summary)),
        ("Failed rules", _failed(summary)),
        ("Agreement", map(_agreement, summary["agreement"])),
        ("Judges", map(_judge, summary["judges"])),
        ("The same at temperature 0", _determinism(summary["determinism"])),
        ("Doubts", iter(summary["warnings"])),
    ):
        found = list(part)
        if found:
            yield ""
            yield heading
            yield from (f"- {line}" for line in found)


def count(n: int, noun: str) -> str:
    """As `1 prompt`, `2 prompts`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _models(models: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for model in models:
        rules = model["checks"]
        passed = "-"
        if rules is not None:
            low, high = rules["ci95"]
            passed = f"{rules['pass_rate']:.0%} [{low:.0%}–{high:.0%}] ({rules['n']})"
        by = model["by_method"]
        missing = f", {len(model['unanswered'])} without an answer" if model["unanswered"] else ""
        yield model["model"], _mean(by["hand"]), _mean(by["judge"]), passed, f"{model['prompts']}{missing}"


def _mean(scored: Mapping[str, Any] | None) -> str:
    if scored is None:
        return "-"
    bounds = scored["ci95"]
    interval = "" if bounds is None else f" [{bounds[0]:.1f}–{bounds[1]:.1f}]"
    return f"{scored['mean']:.2f}{interval} ({scored['n']})"


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _aspects(summary: Mapping[str, Any]) -> Iterator[str]:
    for model in summary["models"]:
        weak = sorted((one for one in model["by_aspect"] if one["mean"] < 3), key=lambda one: float(one["mean"]))
        for one in weak[:_LISTED]:
            yield f"{model['model']}, {one['prompt']}: {one['aspect']}: {one['mean']:.1f} by {one['method']}"


def _failed(summary: Mapping[str, Any]) -> Iterator[str]:
    for model in summary["models"]:
        rules = model["checks"] or {"failed": [], "failed_left_out": 0}
        for one in rules["failed"][:_LISTED]:
            yield f"{model['model']}, {one['prompt']}: {one['why']}"
        more = max(0, len(rules["failed"]) - _LISTED) + rules["failed_left_out"]
        if more:
            yield f"{model['model']}: {more} more, in scores.json"


def _agreement(one: Mapping[str, Any]) -> str:
    a, b = (_rater(one[side]) for side in ("a", "b"))
    kappa = "kappa is not defined: both gave one and the same score throughout"
    if one["kappa"] is not None:
        bounds = one["ci95"]
        interval = "no interval below 10 prompts" if bounds is None else f"[{bounds[0]:.2f}–{bounds[1]:.2f}]"
        kappa = f"weighted kappa {one['kappa']:.2f}, {interval}"
    milder = b if one["difference"] > 0 else a
    apart = f", {milder} milder by {abs(one['difference']):.2f}" if round(one["difference"], 2) else ""
    return f"{a} and {b}: {kappa}, {count(one['n'], 'answer')}, {one['same']:.0%} scored the same{apart}"


def _rater(name: str) -> str:
    method, _, who = name.partition(":")
    return f"judge {who}" if method == "judge" else who


def _judge(one: Mapping[str, Any]) -> str:
    useless = sum(one["unusable"].values())
    parts = [
        f"{count(one['rows'], 'answer')} judged, {count(one['usable'], 'reply').replace('replys', 'replies')} of use"
    ]
    if useless:
        parts.append(f"{useless} of none ({', '.join(f'{why} {n}' for why, n in one['unusable'].items())})")
    if one["same_share"] is not None:
        parts.append(f"repeats agree on {one['same_share']:.0%}, spread {one['spread_sd']:.2f}")
    if one["input_tokens"] is not None and one["output_tokens"] is not None:
        parts.append(f"{one['input_tokens']:,} + {one['output_tokens']:,} tokens")
    if one["cost"] is not None:
        parts.append(f"cost {one['cost']:.4g}")
    if one["structured"] is False:
        parts.append("asked for JSON in words")
    return f"{one['by']}: {', '.join(parts)}"


def _determinism(told: Mapping[str, Any]) -> Iterator[str]:
    if told["reason"] is not None:
        yield f"not compared: {told['reason']}"
    for one in told["within"] or ():
        differing = f"{one['prompts_differing']} of {count(one['prompts'], 'prompt')} got different answers"
        share = f"{one['answers_differing']} of {count(one['answers'], 'answer')} were not the usual one"
        yield f"{one['model']}: {differing}; {share}"
        for prompt, texts, character in one["examples"]:
            yield f"{one['model']}, {prompt}: {texts} different answers, two part at character {character}"
    against = told["against"]
    if against is None:
        return
    if against["reason"] is not None:
        yield f"{against['run']}: not compared: {against['reason']}"
    for setting in against["settings_apart"]:
        yield f"{against['run']}: asked with another setting: {setting}"
    for one in against["models"] or ():
        differing = f"{one['prompts_differing']} of {count(one['prompts'], 'prompt')} answered differently"
        changed = f", {one['prompts_changed']} left out as their words changed" if one["prompts_changed"] else ""
        apart = f"{one['prompts_apart']} with nothing in common"
        yield f"{one['model']}, against {against['run']}: {differing}, {apart}{changed}"
