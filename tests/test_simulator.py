"""The simulator: the ruler must be true."""

from __future__ import annotations

import json
import urllib.request

from loadbench import simulator


def test_a_stream_ends_with_done_and_is_counted() -> None:
    with simulator.start(ttft_ms=2, itl_ms=1) as running:
        body = {
            "model": running.model,
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 5,
            "stream": True,
        }
        request = urllib.request.Request(f"{running.url}/chat/completions", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=5) as response:
            lines = response.read().split(b"\n\n")
        truth = simulator.truth(running.url)

    assert lines[-2] == b"data: [DONE]"
    assert (truth["requests"], truth["completed"], truth["tokens"]) == (1, 1, 5)
