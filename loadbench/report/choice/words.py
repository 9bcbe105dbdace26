"""A choice in sentences: the recommendation, its reasons, how firm it is, what would change it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from loadbench import text as units
from loadbench.metrics.gates import titled
from loadbench.report import provenance

Record = Mapping[str, Any]
Row = Mapping[str, Any]
MOST_REASONS = 3
_NOTABLE = 0.02
"""As a logarithm: figures nearer than 2 % are alike, and no reason."""


def rows(record: Record) -> list[Row]:
    """The candidates that are ranked, the winner first."""
    return [row for row in record["candidates"] if row["rank"] is not None]


def out(record: Record) -> list[Row]:
    """The candidates that fell out."""
    return [row for row in record["candidates"] if row["rank"] is None]


def reds(record: Record) -> list[Row]:
    """The doubts that forbid a plain recommendation."""
    return [doubt for doubt in record["doubts"] if doubt["severity"] == "red"]


def headline(record: Record) -> str:
    """The recommendation in a sentence, its doubt first where there is a red one."""
    left = rows(record)
    if not left:
        return "No candidate meets the needs" if record["needs"] else "There is no candidate"
    winner = left[0]
    if len(left) == 1:
        alone = "the only candidate" if len(record["candidates"]) == 1 else "the only candidate that is left"
        said = f"{winner['name']} is {alone}: it was held against nobody"
    else:
        scores = f"score {winner['score']:.1f} of 100, before {left[1]['name']} with {left[1]['score']:.1f}"
        word = record["robustness"]["word"]
        tail = {"firm": "", "likely": ", which is likely and not sure", "close": ", but it is a close call"}[word]
        said = f"Choose {winner['name']}: {scores}{tail}"
    red = list(dict.fromkeys(titled(doubt["code"]) for doubt in reds(record)))
    if not red:
        return said
    plainly = said[:1].lower() + said[1:] if said.startswith("Choose") else said
    return f"No plain recommendation ({', '.join(red)} red, see Doubts); by these figures: {plainly}"


def reasons(record: Record) -> list[str]:
    """Why the winner is before the second: the figures that carry most of it, and those that speak against it."""
    left = rows(record)
    if len(left) < 2:
        return []
    winner, second = left[0], left[1]
    found = []
    for figure in record["figures"]:
        name = figure["name"]
        lead = winner["log_ratios"].get(name, 0.0) - second["log_ratios"].get(name, 0.0)
        if figure["share"] and abs(lead) >= _NOTABLE:
            found.append((figure["share"] * lead, _held(figure, winner, second)))
    good = [text for gain, text in sorted(found, key=lambda pair: -pair[0]) if gain > 0][:MOST_REASONS]
    bad = [text for gain, text in sorted(found, key=lambda pair: pair[0]) if gain < 0][:MOST_REASONS]
    said = [f"For it: {'; '.join(good)}"] if good else [f"Nothing that counts tells it from {second['name']}"]
    return [*said, *([f"Against it: {'; '.join(bad)}"] if bad else [])]


def robustness(record: Record) -> str:
    """How often the winner stays; "" where it was held against nobody."""
    told = record["robustness"]
    if told is None or len(rows(record)) < 2:
        return ""
    wins = {kind: units.share(share) for kind, share in told["winner"].items()}
    spread = f"±{100 * told['weights_spread']:.0f} %"
    return (
        f"It stays first in {wins['figures']} of {units.count(told['draws'])} draws from the figures' intervals, in "
        f"{wins['weights']} of those with each weight changed by up to {spread}, in {wins['both']} of both together"
    )


def would_change(record: Record) -> list[str]:
    """What would make another win: the least change of a weight, and of the second's figures."""
    told = record["would_change"]
    found = []
    kept = {one["name"]: one for one in record["figures"]}
    weight = told["weight"]
    if weight:
        label = next(one["label"] for one in record["criteria"] if one["name"] == weight["criterion"])
        way = "more than" if weight["needed"] > weight["share"] else "less than"
        found.append(
            f"{weight['winner']} would win if {label} weighed {way} {units.share(weight['needed'])} "
            f"rather than {units.share(weight['share'])}, the others in proportion"
        )
    elif len(rows(record)) > 1:
        found.append("No change of a single weight makes another win")
    for one in told["unknown"]:
        label = kept[one["figure"]]["label"]
        found.append(f"{one['name']} would win if its {label}, which is not known, were as good: measure it")
    for one in told["figures"][:2]:
        figure = kept[one["figure"]]
        better = f" ({one['factor']:.2g} times better)" if one["factor"] and one["factor"] >= 1.05 else ""
        now, needed = value(figure, one["value"]), value(figure, one["needed"])
        found.append(f"{one['name']} would win if its {figure['label']} were {needed} rather than {now}{better}")
    return found


def front(record: Record) -> str:
    """Who is on the Pareto front, and who is beaten by whom."""
    left = rows(record)
    if len(left) < 2:
        return ""
    labels = {one["name"]: one["label"] for one in record["figures"]}
    on = [row["name"] for row in left if not row["dominated_by"]]
    said = (
        f"Nobody beats {units.listed(on, 'and')} in everything" if len(on) > 1 else f"All others are beaten by {on[0]}"
    )
    for row in left:
        if row["dominated_by"]:
            by = row["dominated_by"][0]
            better = ", ".join(labels.get(name, name) for name in by["better"])
            said += f"; {row['name']} is beaten by {by['by']} (better: {better}; nowhere worse)"
    return said


def fell_out(record: Record) -> list[str]:
    """Why each that fell out did, with its figure and how sure that is."""
    return [f"{row['name']}: {why_out(row)}" for row in out(record)]


def why_out(row: Row) -> str:
    bad = [need for need in row["needs"] if need["outcome"] != "met"]
    if not bad:
        return str(row["out"])
    return "; ".join(_missed(need) for need in bad)


def all_of(record: Record) -> dict[str, Any]:
    """All sentences, for programs that show them."""
    return {
        "headline": headline(record),
        "reasons": reasons(record),
        "robustness": robustness(record),
        "would_change": would_change(record),
        "front": front(record),
        "fell_out": fell_out(record),
    }


def weights(record: Record) -> str:
    """What counted, the heaviest first: "latency 38%, quality 38%"."""
    known = sorted((one for one in record["criteria"] if one["share"]), key=lambda one: -float(one["share"]))
    return ", ".join(f"{one['label']} {units.percent(one['share'])}" for one in known)


def value(figure: Mapping[str, Any], number: float | str | None) -> str:
    """A figure with its unit.

    >>> value({"unit": "bytes"}, 4.1e9), value({"unit": "ms"}, 1204.0), value({"unit": "share"}, 0.9)
    ('4.10 GB', '1.20 s', '90%')
    """
    if number is None or isinstance(number, str):
        return number or units.ABSENT
    if math.isinf(number):
        return "no end, as requests failed"
    return units.with_unit(float(number), figure["unit"])  # the label says per what


def interval(figure: Mapping[str, Any], low: float | None, high: float | None) -> str:
    """ "[1.2 s to 1.4 s]" behind a figure, "" where it has none."""
    if low is None or high is None or math.isinf(high):
        return ""
    return f" [{value(figure, low)} to {value(figure, high)}]"


def _held(figure: Mapping[str, Any], winner: Row, second: Row) -> str:
    name = figure["name"]
    told = [row["figures"].get(name) for row in (winner, second)]
    mine, theirs = ("not known" if one is None else _shown(figure, one) for one in told)
    lead = winner["log_ratios"][name] - second["log_ratios"][name]
    times = math.exp(abs(lead))
    by = "" if None in told or figure["unit"] in ("points", "share", "") or times < 1.05 else f" ({times:.2g} times)"
    return f"{figure['label']} {mine} against {theirs}{by}"


def _shown(figure: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    return str(told["source"]) if figure["name"] == "licence" else value(figure, told["value"])


def _missed(need: Mapping[str, Any]) -> str:
    if need["outcome"] == "unknown":
        return f"{need['need']}: not known"
    told = f"{need['need']}: {value(need, need['value'])}{interval(need, need['low'], need['high'])}"
    if need["sure"] is True:
        return told
    return f"{told}, not sure: " + (
        "its interval holds the bound" if need["sure"] is False else "too few requests for an interval"
    )


def names(some: Sequence[Row]) -> str:
    return units.listed([str(row["name"]) for row in some], "and")


def title(record: Record) -> str:
    left = rows(record)
    return str(left[0]["name"]) if left else "none meets the needs"


def simulated(record: Record) -> str:
    """The warning where figures come from the simulator, "" where none do."""
    found = [row["simulated"] for row in record["candidates"]]
    if all(found) and found:
        return provenance.SIMULATED
    return "SIMULATED in part: see Doubts for which figures are no model's" if any(found) else ""


def facts(record: Record) -> list[tuple[str, str]]:
    """On what terms the choice was made, and from which runs."""
    starts = sorted(str(run["start"])[:10] for run in record["runs"] if run["start"])
    when = " to ".join(dict.fromkeys((starts[0], starts[-1]))) if starts else "at an unknown time"
    why = "as asked" if record["load"]["asked"] else "the highest load that all completed"
    machines = dict.fromkeys(str(run["machine"]) for run in record["runs"] if run["machine"])
    missing = "not known is not met" if record["missing"] == "out" else "what is not known is let pass"
    chosen = "the usual ones, which nobody here chose" if record["usual_weights"] else "as given"
    found = [
        ("status", "proposed by loadbench from measurements"),
        ("candidates", names(record["candidates"])),
        ("load", f"{record['load']['words']}, {why}"),
        ("measured", when),
        ("from", ", ".join(machines)),
        ("must meet", f"{', '.join(record['needs'])} ({missing})" if record["needs"] else "no hard needs were given"),
        ("weights", f"{chosen}: {weights(record) or 'none'}"),
    ]
    for run in record["runs"]:
        began = run["start"] or "at an unknown time"
        found.append(("run", f"{run['folder']}, {run['server'] or 'unknown server'}, begun {began}"))
    return [(name, text) for name, text in found if text]


def alternatives(record: Record) -> list[str]:
    """Who else was there, and who fell out."""
    found = [front(record)] if front(record) else []
    for row in rows(record)[1:]:
        first = units.share(row["wins"]["both"])
        found.append(f"{row['name']}: score {row['score']:.1f}, first in {first} of the draws")
    found += [f"Fell out, {line}" for line in fell_out(record)]
    if len(record["candidates"]) == 1:
        found.append("None was measured")
    return found


def consequences(record: Record) -> list[str]:
    """What the winner gives, and what would make another win."""
    left = rows(record)
    if not left:
        return ["Nothing can be shipped within the needs: measure other models, or loosen a need"]
    winner = left[0]
    kept = {one["name"]: one for one in record["figures"]}
    told = [
        f"{kept[name]['label']} {value(kept[name], figure['value'])}"
        f"{interval(kept[name], figure['low'], figure['high'])}"
        for name, figure in winner["figures"].items()
        if name in kept and name != "licence"
    ]
    found = [f"{winner['name']} gives: {', '.join(told)}"]
    if winner["licence"]:
        found.append(f"Its licence, as it is listed: {winner['licence']}")
    return found + would_change(record)
