"""The checks by name. docs/checks.md has of each from where on it speaks, what that means, and what to do."""

from __future__ import annotations

from loadbench.store.summary import Finding, Severity

# By code, as summary.json has it; a check without a number has its name for a code. In the order of the page.
NAMES = {
    "V1": "short-window",
    "V2": "load-not-held",
    "V3": "client-lag",
    "V4": "failures",
    "V5": "output-length",
    "V6": "token-source",
    "dialect": "unknown-dialect",
    "conversations": "conversations-cut-short",
    "V7": "network",
    "V8": "different-setup",
    "V9": "other-load",
    "V10": "drift",
    "V11": "noise-band",
    "V12": "few-requests",
    "near-saturation": "near-saturation",
    "V13": "burst",
    "V14": "prompt-cache",
    "V15": "device-fallback",
    "client-starved": "client-starved",
    "gathered-events": "gathered-events",
    "first-token-hold": "first-token-hold",
    "paused": "paused",
    "workers": "workers",
    "endpoints": "endpoints",
    "stalls": "stalls",
    "throttled": "throttled",
    "power": "power",
    "offered": "offered",
    "records": "records",
    "samples": "samples",
}


def titled(code: str) -> str:
    """A check's code with its name, as people read it.

    >>> titled("V1"), titled("paused"), titled("V99")
    ('V1 short-window', 'paused', 'V99')
    """
    name = NAMES.get(code, code)
    if name == code:
        return code
    return f"{code} {name}"


def finding(severity: Severity, code: str, text: str) -> Finding:
    return Finding(code=code, name=NAMES.get(code, code), severity=severity, text=text)


def graded(code: str, text: str, *, warn: bool = False, red: bool = False) -> Finding | None:
    """Red, a warning, or nothing."""
    if red:
        return finding("red", code, text)
    if warn:
        return finding("warn", code, text)
    return None


def percent(share: float) -> str:
    """A share in words, two digits below 10 %.

    >>> percent(0.0123), percent(0.5)
    ('1.2 %', '50 %')
    """
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
