"""What each figure means, in short words: printed with the figures, because tools disagree."""

from __future__ import annotations

from loadbench import figures

_OF_THE_REPORT = {
    "knees": (
        "knees, law",
        "X is tokens/s, R the mean E2E. Each rule for where a curve bends is printed under its name, for they differ. "
        "The Universal Scalability Law is fitted to ln X by least squares over the mean in flight, on 6 loads or more; "
        "intervals by refitting curves with the noise that the residuals allow.",
    ),
    "noise": (
        "noise band",
        "each model's first level, measured again at the end of the run: what changed between the two is noise.",
    ),
    "percentile": (
        "percentile",
        "nearest rank, ceil(p * n): a value that was measured, never an interpolation, never beyond the maximum. "
        "[lo–hi] is its 95% interval, from the order of the values; * marks one that has too few requests for an "
        "interval. Requests of one run resemble their neighbours, and gaps those of their request: intervals count "
        "them as fewer (blocks of neighbours, whole requests). Of what changes from run to run they know nothing: "
        "repeat.",
    ),
    "carries": (
        "carries",
        "the highest load at which every repeat met every bound, as did every lower load that was measured; "
        "1 user = 1 stream of requests without pauses.",
    ),
    "cold": (
        "cold, warm",
        "one short request right after a load that was seen; the next one. Both have prompts of their own, so that no "
        "prompt cache answers.",
    ),
    "absent": ("-", "not measured, or undefined. Never 0."),
}
"""What the report prints beside figures."""
_ORDER = (
    *("ttft", "itl", "tpot", "e2e", "output_tokens_per_s", "requests_per_s", "efficiency", "knees", "noise", "stalls"),
    *("percentile", "attainment", "goodput", "failed", "carries", "cpu_s_per_1000_tokens", "others_cpu_share", "cold"),
)
"""As a reader meets them; a figure that is not in here comes near the end."""


def definitions() -> list[tuple[str, str]]:
    """Heading and meaning of all that a report prints, in the order of reading."""
    known = {**figures.definitions(), **_OF_THE_REPORT}
    rest = [name for name in known if name not in _ORDER and name != "absent"]
    return [known[name] for name in (*_ORDER, *rest, "absent")]
