"""Whether a model will fit into memory, before it is loaded."""

from __future__ import annotations

from loadbench.server.facts import ModelFacts

_ROOM = 1.2  # for the context and the runtime's own buffers, beside the weights


def free_memory_warning(facts: ModelFacts, available_bytes: int | None) -> str | None:
    """One line where a model is larger than the free memory; None where it fits, is loaded, or nothing is known.

    >>> free_memory_warning(ModelFacts("phi-4", size_bytes=8_000_000_000), 6_100_000_000)
    'phi-4 needs about 9.6 GB of memory (8.0 GB of weights and its context), but 6.1 GB are free: it may swap or fail'
    """
    if facts.size_bytes is None or available_bytes is None or facts.loaded:
        return None
    needed = facts.size_bytes * _ROOM
    if needed <= available_bytes:
        return None
    return (
        f"{facts.id} needs about {needed / 1e9:.1f} GB of memory ({facts.size_bytes / 1e9:.1f} GB of weights and its "
        f"context), but {available_bytes / 1e9:.1f} GB are free: it may swap or fail"
    )
