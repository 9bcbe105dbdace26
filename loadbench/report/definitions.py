"""What each figure means, in our own short words: printed with the figures, because tools disagree."""

DEFINITIONS = (
    (
        "TTFT",
        "time to first token: first event with text - sent. Role-only and comment events do not count. "
        "In open loop it counts from when the request was due, so that waiting inside the client shows.",
    ),
    (
        "ITL",
        "inter-token latency: each gap between two arrivals of text; what arrives together is one arrival, "
        "never a gap of 0. Called inter-event time (IET) where an arrival does not carry about one token.",
    ),
    (
        "TPOT",
        "time per output token of one request: (last token - first token) / (n - k), with n output tokens, "
        "k of them in the first arrival; undefined when n <= k. Blind to queueing: never read it without TTFT.",
    ),
    ("E2E", "the whole request: last token - due."),
    (
        "tokens/s, chars/s",
        "output tokens and characters that arrived inside the steady window, divided by its length. Closed loop: "
        "from when the level's streams are all in flight to when the last request is sent; open loop: from the "
        "first to the last due time. Models tokenise differently: compare models by characters.",
    ),
    (
        "done/s",
        "requests completed per second of the steady window. Open loop: those whose last token lies inside; closed "
        "loop: a request over an edge counts by the share of its time from sent to last token that lies inside, else "
        "streams in step would count one round too many.",
    ),
    (
        "efficiency",
        "E(N) = (X(N) / N) / (X(N0) / N0): throughput X per stream against the lowest level N0; 100% is perfect "
        "scaling. Only of levels that ran to their end.",
    ),
    (
        "knees, law",
        "X is tokens/s, R the mean E2E. Each rule for where a curve bends is printed under its name, for they differ. "
        "The Universal Scalability Law is fitted to ln X by least squares over the mean in flight, on 6 loads or more; "
        "intervals by refitting curves with the noise that the residuals allow.",
    ),
    (
        "noise band",
        "each model's first level, measured again at the end of the run: what changed between the two is noise.",
    ),
    (
        "stalls",
        "gaps longer than 10 times the level's median gap, and than 10 ms.",
    ),
    (
        "percentile",
        "nearest rank, ceil(p * n): a value that was measured, never an interpolation, never beyond the maximum. "
        "[lo–hi] is its 95% interval, from the order of the values; * marks one that has too few requests for an "
        "interval. Requests of one run resemble their neighbours, and gaps those of their request: intervals count "
        "them as fewer (blocks of neighbours, whole requests). Of what changes from run to run they know nothing: "
        "repeat.",
    ),
    (
        "attained by",
        "requests that met the bound / requests offered: those that failed or were dropped did not meet it.",
    ),
    ("goodput", "requests per second that met every bound, counted like done/s."),
    ("failed", "requests by kind of error; they enter no latency. attempted = completed + failed + cancelled."),
    (
        "carries",
        "the highest load at which every repeat met every bound, as did every lower load that was measured; "
        "1 user = 1 stream of requests without pauses.",
    ),
    (
        "CPU s, J, Wh /1k tokens",
        "what the server's processes, or the whole GPU and CPU, used from right before the level to right after it, "
        "per 1,000 output tokens of all its requests, warm-up and failed ones too. Joules are measured by the "
        "devices' own counters, or declared: the table says which.",
    ),
    (
        "others",
        "CPU time of the machine that neither the server nor this client used, as a share of all cores.",
    ),
    (
        "cold, warm",
        "one short request right after a load that was seen; the next one. Both have prompts of their own, so that no "
        "prompt cache answers.",
    ),
    ("-", "not measured, or undefined. Never 0."),
)
