"""What a run tells while it goes on."""

from __future__ import annotations

from typing import Any


class Event(dict[str, Any]):
    """One event of `loadbench run --json`: a dict with its `event`, which prints as a line a person reads.

    >>> print(Event(event="level_ended", level="m@c4", status="complete", reason=None))
    m@c4: complete
    """

    def __str__(self) -> str:
        kind = self.get("event")
        level = self.get("level")
        if kind == "plan":
            models = ", ".join(self.get("models") or ())
            return f"{models} at {self.get('target') or '(not started)'}; results in {self.get('folder')}"
        if kind == "note":
            return str(self.get("text"))
        if kind == "probe":
            what = self.get("error") or f"TTFT {self.get('ttft_ms')} ms, E2E {self.get('e2e_ms')} ms"
            return f"{self.get('model')}: {self.get('purpose')} request: {what}"
        if kind == "level_began":
            return f"{level}: begins"
        if kind == "progress":
            names = {"completed": "completed", "failed": "failed", "in_flight": "in flight"}
            return f"{level}: {', '.join(f'{self[name]} {words}' for name, words in names.items() if self.get(name))}"
        if kind in ("level_ended", "level_skipped"):
            status = self.get("status") or "skipped"
            return f"{level}: {status}" + (f": {self.get('reason')}" if self.get("reason") else "")
        if kind == "summary":
            return "done"
        return f"{kind}: " + ", ".join(f"{name} {value}" for name, value in self.items() if name != "event")
