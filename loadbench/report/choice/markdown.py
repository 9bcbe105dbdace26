"""A choice as a decision record in GitHub Markdown: context, decision, alternatives, consequences, evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from loadbench import text as units
from loadbench.report import provenance
from loadbench.report.choice import tables, words
from loadbench.report.choice.words import Record
from loadbench.report.markdown import section
from loadbench.text import markdown_code, markdown_prose


def render(record: Record) -> str:
    """The whole record, to be signed by whoever decides: its status is "proposed"."""
    return "\n\n".join(part for part in _parts(record) if part) + "\n"


def _parts(record: Record) -> Iterable[str]:
    left = words.rows(record)
    winner = markdown_code(left[0]["name"]) if left else "none meets the needs"
    simulated = any(row["simulated"] for row in record["candidates"])
    yield f"## Which model to ship: {winner}{' (SIMULATED)' if simulated else ''}"
    if simulated:
        every = all(row["simulated"] for row in record["candidates"])
        rest = provenance.SIMULATED.removeprefix("SIMULATED") if every else " in part: see the doubts"
        yield f"> [!WARNING]\n> **SIMULATED**{rest}."
    yield f"- **status**: proposed by loadbench from measurements\n- **measured**: {_when(record)}"
    yield "### Context"
    yield _list(_context(record))
    yield "### Decision"
    yield f"**{_text(words.headline(record))}.**"
    yield _list(line for line in (*words.reasons(record), words.robustness(record)) if line)
    yield "### Alternatives"
    yield _list(_alternatives(record))
    yield "### Consequences"
    yield _list(_consequences(record))
    if record["doubts"]:
        yield "### Doubts"
        yield "\n".join(f"- **{_text(one['severity'])}**: {_text(one['text'])}" for one in record["doubts"])
    yield "### Evidence"
    yield _list(_evidence(record))
    for table in tables.all_of(record):
        heads = tuple(replace(column, name=_text(column.name)) for column in table.columns)
        heading, *blocks = section([replace(table, columns=heads)])
        yield from (heading.replace("### ", "#### ", 1), *blocks)


def _when(record: Record) -> str:
    starts = sorted(str(run["start"])[:10] for run in record["runs"] if run["start"])
    return _text(" to ".join(dict.fromkeys((starts[0], starts[-1]))) if starts else "at an unknown time")


def _context(record: Record) -> Iterable[str]:
    n = len(record["candidates"])
    why = "as asked" if record["load"]["asked"] else "the highest load that all completed"
    yield f"{units.plural(n, 'candidate')}: {words.names(record['candidates'])}"
    yield f"Load: {record['load']['words']}, {why}"
    machines = dict.fromkeys(str(run["machine"]) for run in record["runs"] if run["machine"])
    if machines:
        yield f"Measured from: {', '.join(machines)}"
    if record["needs"]:
        missing = "not known is not met" if record["missing"] == "out" else "what is not known is let pass"
        yield f"A candidate must meet: {', '.join(record['needs'])} ({missing})"
    else:
        yield "No hard needs were given"
    chosen = "the usual ones, which nobody here chose" if record["usual_weights"] else "as given"
    yield f"Weights, {chosen}: {words.weights(record) or 'none'}"


def _alternatives(record: Record) -> Iterable[str]:
    front = words.front(record)
    if front:
        yield front
    for row in words.rows(record)[1:]:
        yield f"{row['name']}: score {row['score']:.1f}, first in {units.share(row['wins']['both'])} of the draws"
    for line in words.fell_out(record):
        yield f"Fell out, {line}"
    if len(record["candidates"]) == 1:
        yield "None was measured"


def _consequences(record: Record) -> Iterable[str]:
    left = words.rows(record)
    if not left:
        yield "Nothing can be shipped within the needs: measure other models, or loosen a need"
        return
    winner = left[0]
    kept = {one["name"]: one for one in record["figures"]}
    told = [
        f"{kept[name]['label']} {words.value(kept[name], figure['value'])}"
        f"{words.interval(kept[name], figure['low'], figure['high'])}"
        for name, figure in winner["figures"].items()
        if name in kept and name != "licence"
    ]
    yield f"{winner['name']} gives: {', '.join(told)}"
    if winner["licence"]:
        yield f"Its licence, as it is listed: {winner['licence']}"
    yield from words.would_change(record)


def _evidence(record: Record) -> Iterable[str]:
    for run in record["runs"]:
        began = run["start"] or "at an unknown time"
        yield f"Run folder {run['folder']}, {run['server'] or 'unknown server'}, begun {began}"
    yield "Score: weighted geometric mean over criteria of each figure against the best; see docs/select.md"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_text(line)}" for line in lines)


def _text(text: str) -> str:
    return markdown_prose(text, 4000)
