"""What more load buys: the lines a curve runs between, its knees by their names, the law behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadbench import text as units
from loadbench.report import levels
from loadbench.report.levels import Summary
from loadbench.report.tables import Cell, Column, Table, figure, known, level_name, per_model

Curve = Mapping[str, Any]
KNEES = {
    "power": "power = most tokens/s per time in the system, X/R (Kleinrock)",
    "doubling": "doubling = the load that the first doubling with a gain under 5% leads to",
    "corner": "corner = X_max * R(1): streams that keep the server busy if none waits for another",
    "slo": "SLO = where the first objective is crossed, between two levels on a line over log2 of the load",
}
SEVERAL = 2


def curves(summary: Summary) -> list[Curve]:
    """The models' curves that have several loads."""
    found = summary.get("scaling") or ()
    return [curve for curve in found if len({row.get("n") for row in curve.get("levels") or ()}) >= SEVERAL]


def lines(summary: Summary) -> list[Table]:
    """Each level between the two lines that nothing leaves: every stream as fast as one alone, and one by one."""
    rows = {row["id"]: row for curve in curves(summary) if curve["loop"] == "closed" for row in curve["levels"]}
    shown = [level for level in levels.levels(summary) if level.get("id") in rows]
    if not shown:
        return []

    def of_row(name: str) -> Any:
        return lambda level: Cell(units.figure((rows.get(level.get("id")) or {}).get(name)))

    def rate(level: levels.Level) -> Cell:
        low, high = level.get("output_tokens_per_s_ci95") or (None, None)
        interval = "" if low is None else f"{units.figure(low)}–{units.figure(high)}"
        return Cell(units.figure(level.get("output_tokens_per_s")), interval)

    def speedup(level: levels.Level) -> Cell:
        low, high = level.get("speedup_ci95") or (None, None)
        interval = "" if low is None else f"{units.figure(low)}–{units.figure(high)}"
        return Cell(units.figure(level.get("speedup")), interval)

    columns = [
        (Column("level", left=True), level_name),
        (Column("in flight", "mean"), figure("in_flight_mean")),
        (Column("tokens", "/s"), rate),
        (Column("ideal", "/s"), of_row("ideal_x_per_s")),
        (Column("one by one", "/s"), of_row("serial_x_per_s")),
        (Column("efficiency"), lambda level: Cell(units.percent(level.get("efficiency")))),
        (Column("speed-up"), speedup),
        (Column("stretch"), figure("stretch")),
    ]
    notes = ["ideal = each stream gets what one of the lowest level gets; one by one = all of them together get that"]
    notes.append("speed-up, stretch = tokens/s, mean E2E against the lowest level")
    return known(per_model("Scaling", {**summary, "levels": shown}, columns, notes))


def knees(summary: Summary) -> Table | None:
    """The four knees of each model; None where no curve has one."""
    told = [curve for curve in curves(summary) if any((curve.get("knees") or {}).values())]
    rows = tuple((Cell(_name(curve)), *(_knee(curve, name) for name in KNEES)) for curve in told)
    columns = (
        Column("model", left=True),
        *(Column("SLO" if name == "slo" else name, _unit(told)) for name in KNEES),
    )
    found = known([Table("Knees", columns, rows)])
    if not found:
        return None
    [table] = found
    shown = {column.name.lower() for column in table.columns}
    notes = [text for name, text in KNEES.items() if name in shown]
    notes += [f"first objective to be crossed: {bounds}" for bounds in [_bounds(told)] if bounds]
    if len(shown) > SEVERAL:
        notes.append("each rule has its own answer: a knee means nothing without its name")
    for curve in told:
        if curve.get("usl_reason"):
            of = f" of {_name(curve)}" if len(told) > 1 else ""
            notes.append(f"no scalability law{of}: it {curve['usl_reason']}")
    return Table(table.title, table.columns, table.rows, tuple(notes))


def law(summary: Summary) -> Table | None:
    """The Universal Scalability Law of each model; None where none was fitted."""
    told = [curve for curve in curves(summary) if curve.get("usl")]
    rows = tuple(
        (
            Cell(_name(curve)),
            _parameter(curve["usl"], "lambda_per_s"),
            _parameter(curve["usl"], "sigma"),
            _parameter(curve["usl"], "kappa"),
            _peak(curve["usl"]),
            Cell(units.share(curve["usl"].get("rms"))),
        )
        for curve in told
    )
    columns = (
        Column("model", left=True),
        Column("lambda", "tokens/s"),
        Column("sigma"),
        Column("kappa"),
        Column("peak at", "streams"),
        Column("off by"),
    )
    notes = (
        "X(N) = lambda*N / (1 + sigma*(N-1) + kappa*N*(N-1)), N = mean in flight: sigma is what streams wait for, "
        "kappa what they cost each other",
        "nothing is said beyond the levels measured; off by = root mean square of the residuals",
    )
    return Table("Universal Scalability Law", columns, rows, notes) if rows else None


def of_model(summary: Summary, model: str) -> Curve | None:
    """A model's closed-loop curve with several loads."""
    return next((c for c in curves(summary) if c.get("model") == model and c.get("loop") == "closed"), None)


def _name(curve: Curve) -> str:
    return str(curve.get("model"))


def _unit(told: Sequence[Curve]) -> str:
    return "req/s" if all(curve.get("loop") == "open" for curve in told) else "streams"


def _knee(curve: Curve, name: str) -> Cell:
    knee = (curve.get("knees") or {}).get(name)
    if not knee:
        return Cell(units.ABSENT)
    n = float(knee["n"])
    number = units.count(n) if n.is_integer() else units.figure(n)
    relation = knee.get("relation")
    return Cell(number if relation == "=" else f"{relation} {number}")


def _bounds(told: Sequence[Curve]) -> str:
    """Which objective is crossed first, of the models that cross one."""
    knees = {_name(curve): (curve.get("knees") or {}).get("slo") or {} for curve in told}
    first = {model: knee.get("bound") for model, knee in knees.items() if knee and knee.get("relation") != ">"}
    bounds = set(first.values())
    return str(bounds.pop()) if len(bounds) == 1 else ", ".join(f"{bound} ({model})" for model, bound in first.items())


def _parameter(usl: Mapping[str, Any], name: str) -> Cell:
    low, high = (usl.get("ci95") or {}).get(name) or (None, None)
    interval = "" if low is None or high is None else f"{units.figure(low)}–{units.figure(high)}"
    return Cell(units.figure(usl.get(name)), interval)


def _peak(usl: Mapping[str, Any]) -> Cell:
    """The peak, or that it lies beyond what was measured; so with the ends of its interval."""
    beyond = f"> {units.figure(usl.get('measured_to'))}"

    def shown(n: float | None) -> str:
        return beyond if n is None else units.figure(n)

    low, high = (usl.get("ci95") or {}).get("peak_n") or (None, None)
    interval = "" if low is None else f"{shown(low)}–{shown(high)}"
    return Cell(shown(usl.get("peak_n")), interval)
