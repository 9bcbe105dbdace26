"""What more load buys: the lines a curve runs between, its knees by their names, the law behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from loadbench import text as units
from loadbench.report import levels
from loadbench.report.document import Cell, Column, Table, interval, table, without_unknown
from loadbench.report.levels import Level, Record, Summary
from loadbench.report.tables import LEVEL, Columns, Read, efficiency, figure, per_model, rate

Curve = Record
KNEES = {
    "power": "power = most tokens/s per time in the system, X/R (Kleinrock)",
    "doubling": "doubling = the load that the first doubling with a gain under 5% leads to",
    "corner": "corner = X_max * R(1): streams that keep the server busy if none waits for another",
    "slo": "SLO = where the first objective is crossed, between two levels on a line over log2 of the load",
}
SEVERAL = 2


def curves(summary: Summary) -> list[Curve]:
    """The models' curves that have several loads."""
    found = []
    for curve in summary.get("scaling") or ():
        loads = {row.get("n") for row in curve.get("levels") or ()}
        if len(loads) >= SEVERAL:
            found.append(curve)
    return found


def of_model(summary: Summary, model: str, loop: str = "closed") -> Curve | None:
    for curve in curves(summary):
        if curve.get("model") == model and curve.get("loop") == loop:
            return curve
    return None


def knees_of(curve: Curve) -> dict[str, Record]:
    """The knees that were found, by the name of their rule."""
    return {name: knee for name, knee in (curve.get("knees") or {}).items() if knee}


def lines(summary: Summary) -> list[Table]:
    """Each level between the two lines that nothing leaves: every stream as fast as one alone, and one by one."""
    points: dict[str, Record] = {}
    for curve in curves(summary):
        if curve["loop"] == "closed":
            points |= {row["id"]: row for row in curve["levels"]}
    rows = [level for level in levels.levels(summary) if level.get("id") in points]
    if not rows:
        return []

    def of_point(name: str) -> Read:
        return lambda level: Cell(units.figure(points[level["id"]].get(name)))

    columns: Columns = [
        LEVEL,
        (Column("in flight", "mean"), figure("in_flight_mean")),
        (Column("tokens", "/s"), rate("output_tokens_per_s")),
        (Column("ideal", "/s"), of_point("ideal_x_per_s")),
        (Column("one by one", "/s"), of_point("serial_x_per_s")),
        (Column("efficiency"), efficiency),
        (Column("speed-up"), rate("speedup")),
        (Column("stretch"), figure("stretch")),
    ]
    notes = [
        "ideal = each stream gets what one of the lowest level gets; one by one = all of them together get that",
        "speed-up, stretch = tokens/s, mean E2E against the lowest level",
    ]
    return without_unknown(per_model("Scaling", rows, columns, notes))


def knees(summary: Summary) -> Table | None:
    """The four knees of each model; None where no curve has one."""
    bent = [curve for curve in curves(summary) if knees_of(curve)]
    unit = "req/s" if all(curve.get("loop") == "open" for curve in bent) else "streams"
    columns = [
        (Column("model", left=True), _model),
        (Column("power", unit), lambda curve: _knee(curve, "power")),
        (Column("doubling", unit), lambda curve: _knee(curve, "doubling")),
        (Column("corner", unit), lambda curve: _knee(curve, "corner")),
        (Column("SLO", unit), lambda curve: _knee(curve, "slo")),
    ]
    tables = without_unknown([table("Knees", columns, bent)])
    if not tables:
        return None
    shown = {column.name.lower() for column in tables[0].columns}
    notes = [text for name, text in KNEES.items() if name in shown]
    crossed = _first_objective(bent)
    if crossed:
        notes.append(f"first objective to be crossed: {crossed}")
    if len(shown) > SEVERAL:
        notes.append("each rule has its own answer: a knee means nothing without its name")
    for curve in bent:
        if curve.get("usl_reason"):
            of = f" of {curve.get('model')}" if len(bent) > 1 else ""
            notes.append(f"no scalability law{of}: it {curve['usl_reason']}")
    return replace(tables[0], notes=tuple(notes))


def law(summary: Summary) -> Table | None:
    fitted = [curve for curve in curves(summary) if curve.get("usl")]
    columns = [
        (Column("model", left=True), _model),
        (Column("lambda", "tokens/s"), lambda curve: _parameter(curve["usl"], "lambda_per_s")),
        (Column("sigma"), lambda curve: _parameter(curve["usl"], "sigma")),
        (Column("kappa"), lambda curve: _parameter(curve["usl"], "kappa")),
        (Column("peak at", "streams"), lambda curve: _peak(curve["usl"])),
        (Column("off by"), lambda curve: Cell(units.share(curve["usl"].get("rms")))),
    ]
    notes = (
        "X(N) = lambda*N / (1 + sigma*(N-1) + kappa*N*(N-1)), N = mean in flight: sigma is what streams wait for, "
        "kappa what they cost each other",
        "nothing is said beyond the levels measured; off by = root mean square of the residuals",
    )
    return table("Universal Scalability Law", columns, fitted, notes) if fitted else None


def levels_of(curve: Curve, summary: Summary) -> list[Level]:
    ids = {row["id"] for row in curve.get("levels") or ()}
    return levels.by_load(level for level in levels.levels(summary) if level.get("id") in ids)


def _model(curve: Curve) -> Cell:
    return Cell(str(curve.get("model")))


def _knee(curve: Curve, name: str) -> Cell:
    knee = knees_of(curve).get(name)
    if knee is None:
        return Cell(units.ABSENT)
    n = float(knee["n"])
    number = units.count(n) if n.is_integer() else units.figure(n)
    relation = knee.get("relation")
    return Cell(number if relation == "=" else f"{relation} {number}")


def _first_objective(bent: Sequence[Curve]) -> str:
    """Which objective is crossed first, of the models that cross one."""
    first = {}
    for curve in bent:
        knee = knees_of(curve).get("slo")
        if knee and knee.get("relation") != ">":
            first[str(curve.get("model"))] = str(knee.get("bound"))
    if len(set(first.values())) == 1:
        return next(iter(first.values()))
    return ", ".join(f"{bound} ({model})" for model, bound in first.items())


def _parameter(usl: Record, name: str) -> Cell:
    low, high = (usl.get("ci95") or {}).get(name) or (None, None)
    return Cell(units.figure(usl.get(name)), interval(low, high))


def _peak(usl: Record) -> Cell:
    """The peak, or that it lies beyond what was measured; so with the ends of its interval."""

    def shown(n: float | None) -> str:
        return f"> {units.figure(usl.get('measured_to'))}" if n is None else units.figure(n)

    low, high = (usl.get("ci95") or {}).get("peak_n") or (None, None)
    # The upper end alone may lie beyond.
    ends = "" if low is None else f"{shown(low)}–{shown(high)}"
    return Cell(shown(usl.get("peak_n")), ends)
