"""The page of a run: the answer, four tiles and two plots before anything else; all the rest of the report unfolds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log10

from loadbench import text as units
from loadbench.report import brief, levels, run, tables
from loadbench.report import document as doc
from loadbench.report.document import Block, Column, Html, Key, Panel, Plot, Section, Text, Trace
from loadbench.report.html import Markup, plots, tag, trace, whatif
from loadbench.report.levels import Record
from loadbench.store.summary import Level, Summary

_PERCENTILES = ("p50", "p90", "p95", "p99")
_SHOWN = "p95"
"""Of these the one that a page opens with."""
_HEIGHT = 250


def document(record: Record | Summary) -> doc.Document:
    """The whole report, with what a reader came for first."""
    summary = levels.read(record)
    whole = run.document(summary, plots=True)
    verdict, *others = whole.sections
    groups = _groups(summary)
    if not groups:
        return whole
    blocks: list[Block] = [Text("", brief.answers(summary)), Html(_tiles(groups))]
    same = _same(groups)
    blocks += [_speed(groups, same), _wait(groups, summary, same)]
    sections = [Section("answer", "In short", blocks)]
    if speeds := frontier(groups):
        sections.append(Section("frontier", "Speed for one, speed for all", speeds))
    sections.append(replace(verdict, title="All levels"))
    tried = whatif.section(summary, [(group.name, group.levels) for group in groups])
    if tried is not None:
        sections.append(tried)
    reds = any(finding.severity == "red" for _, finding in levels.warnings(summary))
    for section in others:
        if section.id == "choice" or (section.id == "validity" and reds):
            sections.append(section)
        else:
            sections.append(replace(section, folded=True))
    return replace(whole, sections=sections)


@dataclass(frozen=True, slots=True)
class Group:
    """A model under one kind of load: its first levels by load, those that completed something."""

    name: str
    levels: Sequence[Level]

    @property
    def served(self) -> Level | None:
        """The highest load within the SLO, as the headline has it; None without an SLO, or where none is."""
        most = brief.served(brief.judged(self.levels))
        return most.levels[0] if most else None

    @property
    def has_slo(self) -> bool:
        return bool(brief.judged(self.levels))

    @property
    def peak(self) -> Level:
        return max(self.levels, key=_rate)

    @property
    def speeds(self) -> list[Level]:
        """The levels on the frontier's plot: those with both speeds."""
        return [one for one in self.levels if one.tokens_per_s_per_user is not None and one.output_tokens_per_s]


def _groups(summary: Summary) -> list[Group]:
    groups = []
    for model, rows in levels.by_model(levels.of(summary)).items():
        own = [level for level in levels.by_load(levels.firsts(rows)) if level.completed]
        own = [level for level in own if level.is_open == own[0].is_open]
        if own:
            groups.append(Group(model, own))
    return groups


# -- tiles


def _tiles(groups: Sequence[Group]) -> Markup:
    """Users within the SLO, and what they get there; of several models the best of each, by name."""
    several = len(groups) > 1
    best = max(groups, key=lambda group: (levels.load(group.served) if group.served else 0.0, _rate(group.peak)))
    at = best.served or best.levels[0]
    unit = "requests/s" if at.is_open else "users"
    if best.served is not None:
        first = _tile(f"{unit} within your SLO", f"{levels.load(best.served):g}", _at_most(best, several))
    elif best.has_slo:
        first = _tile(f"{unit} within your SLO", "none sure", f"lowest tried: {levels.load(best.levels[0]):g}")
    else:
        first = _tile(f"{unit} within your SLO", units.ABSENT, "no SLO given: --slo ttft_p95=800ms")
    fastest = max(groups, key=lambda group: _rate(group.peak))
    speed = _tile(
        "most tokens/s", units.figure(fastest.peak.output_tokens_per_s), _where(fastest, fastest.peak, several)
    )
    user = _tile("tokens/s per user", units.figure(at.tokens_per_s_per_user), _where(best, at, several))
    lead = levels.lead(at)
    wait = _tile(f"{levels.lead_name(at)} p95", units.span(lead.p95), _where(best, at, several))
    return tag("div", first, speed, user, wait, class_="tiles")


def _rate(level: Level) -> float:
    return level.output_tokens_per_s or 0.0


def _tile(name: str, value: str, beneath: str) -> Markup:
    return tag("div", tag("span", name), tag("strong", value), tag("small", beneath), class_="tile")


def _at_most(group: Group, several: bool) -> str:
    tried = levels.load(group.levels[-1])
    if group.served is group.levels[-1]:
        return f"{group.name}, the most that was tried" if several else "the most that was tried"
    return f"{group.name}, of {tried:g} tried" if several else f"of {tried:g} tried"


def _where(group: Group, level: Level, several: bool) -> str:
    where = f"at {levels.load_words(level)}"
    return f"{group.name}, {where}" if several else where


# -- the two plots of the answer


def _speed(groups: Sequence[Group], same: Sequence[doc.Table]) -> Plot:
    lines = {group.name: list(map(trace.tokens, group.levels)) for group in groups}
    layout = {"xaxis": _loads(groups), "yaxis": trace.rate_axis("tokens/s"), "updatemenus": [_scale()]}
    return _overlaid("Throughput", lines, layout, same)


def _wait(groups: Sequence[Group], summary: Summary, same: Sequence[doc.Table]) -> Plot:
    """The first time of the run against load, with a switch for its percentile, and the SLO across."""
    kind = plots.kinds(summary)[0]
    by_statistic = {}
    for statistic in _PERCENTILES:
        by_statistic[statistic] = {
            group.name: [kind.point(level, statistic) for level in group.levels] for group in groups
        }
    buttons = []
    for statistic, lines in by_statistic.items():
        change: dict[str, list[object]] = {"y": [], "text": [], "error_y": [], "marker.symbol": [], "marker.line": []}
        for one in _traces(lines):
            for name, values in change.items():
                outer, _, inner = name.partition(".")
                values.append(one[outer][inner] if inner else one.get(outer))
        buttons.append({"label": statistic, "method": "restyle", "args": [change]})
    layout: Trace = {"xaxis": _loads(groups), "yaxis": trace.rate_axis(f"{kind.name}, ms")}
    shapes, notes = plots.slo_lines(kind, [level for group in groups for level in group.levels])
    percentile = {**_MENU, "x": 1, "buttons": buttons, "active": _PERCENTILES.index(_SHOWN)}
    layout |= {"shapes": shapes, "annotations": notes, "updatemenus": [percentile, _scale(notes)]}
    return _overlaid(kind.name, by_statistic[_SHOWN], layout, same)


_MENU: Trace = {
    "type": "buttons",
    "direction": "right",
    "xanchor": "right",
    "y": 1.0,
    "yanchor": "bottom",
    "pad": {"t": 0, "b": 4},
    "showactive": True,
    "bgcolor": "@surface",
    "bordercolor": "@rule",
    "font": {"size": 10, "color": "@muted"},
}


def _scale(notes: Sequence[Trace] = ()) -> Trace:
    """A switch for the axis of values; plotly wants the places of notes as logarithms on a logarithmic one."""
    buttons = []
    for kind in ("linear", "log"):
        change: dict[str, object] = {"yaxis.type": kind, "yaxis.autorange": True}
        for i, note in enumerate(notes):
            change[f"annotations[{i}].y"] = log10(note["y"]) if kind == "log" else note["y"]
        buttons.append({"label": kind, "method": "relayout", "args": [change]})
    return {**_MENU, "x": 0.45, "buttons": buttons}


def _loads(groups: Sequence[Group]) -> Trace:
    return trace.load_axis([level for group in groups for level in group.levels])


def _same(groups: Sequence[Group]) -> list[doc.Table]:
    """The figures of these plots, a table a model."""
    times = doc.Times.of(levels.lead(level) for group in groups for level in group.levels)
    columns: doc.Columns[Level] = [
        tables.LEVEL,
        (Column("tokens/s"), lambda level: doc.figure(level.output_tokens_per_s, level.output_tokens_per_s_ci95)),
        (
            Column("per user", "tokens/s"),
            lambda level: doc.figure(level.tokens_per_s_per_user, level.tokens_per_s_per_user_ci95),
        ),
        *tables.times_of(levels.lead_name(groups[0].levels[0]), times, levels.lead, _PERCENTILES),
        (Column("goodput", "/s"), lambda level: doc.figure(level.goodput_per_s)),
    ]
    made = []
    for group in groups:
        made.append(doc.table("Speed and waiting by load", columns, group.levels, model=group.name))
    return doc.without_unknown(made)


Lines = dict[str, list[trace.Point | None]]


def _style(place: int) -> tuple[str, str]:
    """Colour and symbol of a model: one each up to six, grey for the others."""
    if place < trace.COLORS:
        return f"@{place}", trace.SYMBOLS[place]
    return "@muted", trace.SYMBOLS[-1]


def _traces(lines: Lines) -> list[Trace]:
    return [trace.line(points, *_style(place)) for place, points in enumerate(lines.values())]


def _legend(names: Sequence[str]) -> list[Key]:
    """None where there is one model alone."""
    if len(names) < 2:
        return []
    keys = [Key(name, trace.SIGNS[place], f"@{place}") for place, name in enumerate(names[: trace.COLORS])]
    if len(names) > trace.COLORS:
        keys.append(Key(f"{len(names) - trace.COLORS} more", "line", "@muted"))
    return keys


def _overlaid(title: str, lines: Lines, layout: Trace, same: Sequence[doc.Table]) -> Plot:
    """Lines of all models in one plot."""
    label = f"Line plot, {title} against load, of {', '.join(list(lines)[: trace.COLORS])}."
    panel = Panel("", label, _traces(lines), {**layout, "margin": {"t": 34}}, _HEIGHT)
    return Plot(title, "", [panel], _legend(list(lines)), same)


# -- the frontier, and goodput


def frontier(groups: Sequence[Group]) -> list[Plot]:
    """What one user gets against what all get; and goodput against load, where there is an SLO."""
    found: list[Plot] = []
    same = _same(groups)
    if sum(len(group.speeds) for group in groups) > 1:
        found.append(_frontier_plot(groups, same))
    goodputs = {group.name: [_goodput(level) for level in group.levels] for group in groups}
    if any(point for own in goodputs.values() for point in own):
        layout = {"xaxis": _loads(groups), "yaxis": trace.rate_axis("requests/s within the SLO")}
        plot = _overlaid("Goodput", goodputs, layout, same)
        found.append(replace(plot, note="Requests per second that met every bound of the SLO."))
    return found


def _frontier_plot(groups: Sequence[Group], same: Sequence[doc.Table]) -> Plot:
    points = []
    for group in groups:
        points += [(level.tokens_per_s_per_user or 0.0, _rate(level)) for level in group.speeds]
    traces = []
    for place, group in enumerate(groups):
        color, symbol = _style(place)
        marks, users = [], []
        for level in group.speeds:
            x, y = level.tokens_per_s_per_user or 0.0, _rate(level)
            beaten = any(a >= x and b >= y and (a, b) != (x, y) for a, b in points)
            ends = trace.both_ends(level.output_tokens_per_s_ci95)
            marks.append(trace.Point(x, y, _hover(group, level), ends, beaten))
            users.append(x)
        line = trace.line(marks, color, symbol)
        # Hollow is what another point beats in both; the load beside each.
        line["mode"] = "lines+markers+text"
        line["hovertext"] = line.pop("text")
        line["text"] = [f"{levels.load(level):g}" for level in group.speeds]
        line["textposition"] = "top right"
        line["textfont"] = {"size": 11, "color": "@muted"}
        spread = [trace.both_ends(level.tokens_per_s_per_user_ci95) for level in group.speeds]
        if any(spread):
            line["error_x"] = trace.error_bars(users, spread, color)
        traces.append(line)
    layout: Trace = {
        "xaxis": trace.rate_axis("tokens/s for each user"),
        "yaxis": trace.rate_axis("tokens/s for all together"),
    }
    if menu := _per_cost(groups):
        layout |= {"updatemenus": [menu], "margin": {"t": 34}}
    note = (
        "Up and to the right is better. The figure at a point is its load; a hollow point is beaten in both by another."
    )
    label = f"Scatter plot of total tokens/s against tokens/s per user, of {', '.join(group.name for group in groups)}."
    legend = _legend([group.name for group in groups])
    return Plot("The frontier", note, [Panel("", label, traces, layout)], legend, same)


def _per_cost(groups: Sequence[Group]) -> Trace | None:
    """A switch from speed to speed per watt, or tokens per unit of currency; None where neither is known."""
    readings: dict[str, Callable[[Level], float | None]] = {
        "tokens/s for all together": lambda level: level.output_tokens_per_s,
        # As many as tokens per joule.
        "tokens/s per watt": lambda level: 1000 / level.j_per_1000_tokens if level.j_per_1000_tokens else None,
        "tokens per unit of currency": lambda level: (
            1e6 / level.cost_per_million_tokens if level.cost_per_million_tokens else None
        ),
    }
    buttons: list[Trace] = []
    for title, read in readings.items():
        values = [list(map(read, group.speeds)) for group in groups]
        if not any(map(any, values)):
            continue
        is_speed = not buttons
        change = {"y": values, "error_y.visible": [is_speed] * len(values)}
        args = [change, {"yaxis.title.text": title, "yaxis.autorange": True}]
        label = ("all", "per watt", "per currency")[list(readings).index(title)]
        buttons.append({"label": label, "method": "update", "args": args})
    return {**_MENU, "x": 1, "buttons": buttons} if len(buttons) > 1 else None


def _hover(group: Group, level: Level) -> str:
    user, together = units.figure(level.tokens_per_s_per_user), units.figure(level.output_tokens_per_s)
    return trace.hover(
        group.name, levels.load_words(level), f"{user} tokens/s for each user", f"{together} tokens/s together"
    )


def _goodput(level: Level) -> trace.Point | None:
    if level.goodput_per_s is None:
        return None
    text = trace.hover(levels.load_words(level), f"{units.figure(level.goodput_per_s)} requests/s within the SLO")
    ends = trace.both_ends(level.goodput_per_s_ci95)
    return trace.Point(levels.load(level), level.goodput_per_s, text, ends)
