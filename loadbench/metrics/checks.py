"""The checks by name: what each looks at, from where on it speaks, what that means, and what to do.

One table: reports take the names from here, and docs/checks.md is written from it. What a check finds is a `Finding`.
"""

from __future__ import annotations

from dataclasses import dataclass

from loadbench.store.summary import Finding, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check: what is wrong with the figures where it speaks, and what to do.

    Attributes:
        code: As in summary.json: "V1", or the name where it has no number.
        name: What people call it; "" where that is its code.
        warn, red, note: From where on it speaks, by severity; "" where it never does.
    """

    code: str
    name: str = ""
    warn: str = ""
    red: str = ""
    note: str = ""
    means: str
    remedy: str


CHECKS = (
    Check(
        code="V1",
        name="short-window",
        warn="steady window under 20 s, or under 40 % of the run",
        red="under 5 s, or no steady window",
        means="rates are accidental: little flowed, or mostly ramp and drain; no verdict on rates, but on all else",
        remedy="a duration of 30s or more, or more requests",
    ),
    Check(
        code="V2",
        name="load-not-held",
        warn="fewer than 95 % of the level in flight; a request dropped; a backlog; Little's law off by 5 %",
        red="fewer than 80 % in flight, 20 % dropped or left behind; off by 15 %",
        means="the load was not what the level says, or the server cannot keep up with the rate",
        remedy="longer answers, a lower rate, a higher max_streams; look for refused connections",
    ),
    Check(
        code="V3",
        name="client-lag",
        warn="over 1 % of arrivals merged by this client's own lateness; over 80 % of a core used by it",
        red="over 10 % of arrivals merged by it",
        means="the client was late to read, and what arrived meanwhile became one arrival with the newest time. Lag "
        "alone is no fault: the kernel stamps what arrives. What the server or a proxy merged is `gathered-events`",
        remedy="fewer streams, more workers, a faster client",
    ),
    Check(
        code="V4",
        name="failures",
        warn="a request failed",
        red="over 1 % failed",
        means="percentiles are of the requests that completed alone",
        remedy="read error_message in requests.jsonl",
    ),
    Check(
        code="V5",
        name="output-length",
        warn="under 95 % of a forced length; between sides: other lengths or finish reasons",
        red="between sides: lengths over 20 % apart",
        means="the server stops early; between sides: times compare the lengths too",
        remedy="check ignore_eos and the context's length; force the same length on both sides",
    ),
    Check(
        code="V6",
        name="token-source",
        warn="tokens are estimated, or the server counts over 1.5 tokens per event",
        red="two sources in one level or comparison",
        means="tokens per second and TPOT mean another count than elsewhere",
        remedy="compare characters per second",
    ),
    Check(
        code="dialect",
        name="unknown-dialect",
        note="a field with text, a finish reason or an event that no table of the client knows",
        means="figures may lack what it holds (see dialects.md)",
        remedy="report it with the server's name and version",
    ),
    Check(
        code="conversations",
        name="conversations-cut-short",
        note="a conversation ended before its last turn, as an answer had no text",
        means="later turns were not asked: fewer long prompts than the file has",
        remedy="a higher --max-tokens, another prompt, another model",
    ),
    Check(
        code="V7",
        name="network",
        warn="round trip over 30 % of TTFT p50",
        means="the network is measured with the server",
        remedy="run the client nearer to the server",
    ),
    Check(
        code="V8",
        name="different-setup",
        warn="something about a side is not known",
        red="model, device, server version, prompts, parameters or machine differ between sides",
        means="a difference may come from what differs",
        remedy="measure both sides alike; `--expect` names what is compared on purpose",
    ),
    Check(
        code="V9",
        name="other-load",
        warn="other programs used over 10 % of the cores",
        red="over 50 %",
        means="the server did not have the machine",
        remedy="end those programs and measure again",
    ),
    Check(
        code="V10",
        name="drift",
        warn="the last third of the window differs from the first, surely and by over 2 %",
        red="by over 20 %",
        means="the server was not in one state",
        remedy="warm up longer, cool the machine, end what else runs on it",
    ),
    Check(
        code="V11",
        name="noise-band",
        warn="the first level, measured again at the end, is over 5 % off",
        red="over 15 % off",
        means="smaller differences between levels are noise",
        remedy="let the machine cool and rest, and measure again",
    ),
    Check(
        code="V12",
        name="few-requests",
        warn="too few requests for the interval of p50 or p95",
        means="those percentiles are marked, and no verdict uses them",
        remedy="more requests",
    ),
    Check(
        code="near-saturation",
        warn="in open loop, times of neighbouring requests correlate by over 0.85; in any loop, their median is worth "
        "under 20 independent requests (of fewer than 200, under a tenth)",
        means="requests depend on each other for longer than the level can tell, as in a queue near saturation: an "
        "interval would be too narrow, so there is none of these times",
        remedy="a lower load, a much longer level, or `--repeat`, since runs do not depend on each other",
    ),
    Check(
        code="V13",
        name="burst",
        red="over half of the answers came at once",
        means="there are no gaps between tokens: TPOT and ITL are not given",
        remedy="look for a proxy that buffers, a server that does not stream, and at `cpu-contention`",
    ),
    Check(
        code="V14",
        name="prompt-cache",
        warn="over 5 % of input tokens from a cache, though prompts were distinct",
        note="over 5 % of input tokens from a cache",
        means="TTFT is that of warm prompts",
        remedy="distinct_prompts; switch the server's prompt cache off",
    ),
    Check(
        code="V15",
        name="device-fallback",
        red="another device or execution provider ran than was asked for",
        means="the figures are those of another device",
        remedy="see what the server has loaded, and its driver or execution provider",
    ),
    Check(
        code="cpu-contention",
        warn="this client's threads waited for a core over 5 % of the level's time",
        red="over 10 %, and over 1.1 events per arrival, or several in the first one of over 25 % of requests, or "
        "times are taken by this client instead of the kernel",
        means="what arrived while the client waited carries the newest time: TTFT and gaps may be the client's own. "
        "Not known where the system does not count it (`/proc/self/task/*/schedstat` of Linux)",
        remedy="a core of its own for the client (taskset, chrt), fewer threads for the server, another machine",
    ),
    Check(
        code="gathered-events",
        warn="over 1.1 events per arrival that this client's lateness does not explain",
        means="the server or a proxy between sends several tokens at once: ITL is the time between such arrivals "
        "(inter-event), and the first token may wait for its group",
        remedy="switch buffering off (nginx: `proxy_buffering off` or the header `X-Accel-Buffering: no`; HAProxy: "
        "`option http-no-delay`; no gzip of event streams), or measure without the proxy",
    ),
    Check(
        code="first-token-hold",
        note="Foundry Local 2.x, and over half of the first tokens came about 40 ms after the response's header",
        means="the server's first packet waits until the client's system acknowledges the header (Nagle's algorithm "
        "and delayed acknowledgements): TTFT does not fall below some 40 ms, for every client",
        remedy="read TTFT as what users of that server see; compare models by TPOT too",
    ),
    Check(
        code="paused",
        warn="this client stood still for 0.25 s or longer",
        red="for over 10 % of the window",
        means="times and rates of that moment are the client's own",
        remedy="let nothing suspend the client",
    ),
    Check(
        code="workers",
        warn="a worker waits for a core, is late, busy, slower or fails more than the others",
        red="a worker was lost",
        means="figures are in part the worker's own; of a lost one a part of the load is missing",
        remedy="give it less to do, or leave it out; measure the level again",
    ),
    Check(
        code="endpoints",
        warn="one endpoint is slower or fails more than another, or they are of several kinds",
        means="figures of all together are those of none",
        remedy="look at what that server does",
    ),
    Check(
        code="stalls",
        note="gaps over 10 times the median, and over 10 ms",
        means="no median shows them",
        remedy="look at what the server did then",
    ),
    Check(
        code="throttled",
        note="the CPU or GPU was throttled",
        means="a cooler machine would be faster",
        remedy="cool the machine, repeat the level",
    ),
    Check(
        code="power",
        warn="the machine changed between mains and battery",
        note="it ran on battery",
        means="its speed may have changed with it",
        remedy="measure on mains",
    ),
    Check(
        code="offered",
        warn="the run died before it could say how many requests were dropped",
        red="requests offered and requests recorded do not add up",
        means="records are missing",
        remedy="use --resume, or measure the level again",
    ),
    Check(
        code="records",
        warn="lines of requests.jsonl cannot be read",
        red="the level's records are not those that were written",
        means="figures are not those of what was measured",
        remedy="take the folder from a copy, or measure again",
    ),
    Check(
        code="samples",
        note="lines of telemetry.jsonl cannot be read",
        means="peaks may be missing",
        remedy="measure again where they matter",
    ),
)
NAMES = {check.code: check.name or check.code for check in CHECKS}


def titled(code: str) -> str:
    """A check's code with its name, as people read it.

    >>> titled("V1"), titled("paused"), titled("V99")
    ('V1 short-window', 'paused', 'V99')
    """
    name = NAMES.get(code, code)
    return code if name == code else f"{code} {name}"


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
