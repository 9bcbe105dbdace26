"""A level in the shape of `vllm bench serve --save-result`, for the tools that read such files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from loadbench.metrics.gates import titled
from loadbench.metrics.vllm import figures
from loadbench.report import levels, provenance
from loadbench.store import LevelData
from loadbench.text import in_json

BACKEND = "openai-chat"


def render(data: LevelData, summary: Mapping[str, Any]) -> str:
    """The file of one level: vLLM's own keys with vLLM's meanings, then ours, each beginning with `loadbench_`."""
    level = next(one for one in summary["levels"] if one["id"] == data.facts["id"])
    run = summary.get("run") or {}
    streamed = level.get("streamed") is not False
    found: dict[str, Any] = {
        "date": _date(str(level.get("began") or run.get("start") or "")),
        "endpoint_type": BACKEND,
        "backend": BACKEND,
        "label": provenance.title(summary),
        "model_id": level["model"],
        "tokenizer_id": level["model"],
        **_traffic(level, run.get("scenario") or {}),
        **figures(data, streamed=streamed),
        **_facts(level, run),
    }
    return in_json(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode())


def _traffic(level: Mapping[str, Any], scenario: Mapping[str, Any]) -> dict[str, Any]:
    """How requests were sent. Burstiness 1 is a Poisson process; without an end it is a constant rate."""
    rate = level.get("request_rate_per_s")
    constant = rate is not None and scenario.get("arrivals") == "constant"
    return {
        "request_rate": "inf" if rate is None else rate,
        "burstiness": "inf" if constant else 1.0,
        "max_concurrency": level.get("concurrency"),
    }


def _facts(level: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """What readers look for beside the figures, and what speaks against those."""
    target = run.get("target") or {}
    gpu = (run.get("environment") or {}).get("gpu")
    gpus = [str(name) for name in (gpu if isinstance(gpu, list) else [gpu]) if name]
    device = (level.get("ran") or {}).get("device") or level.get("device")
    doubts = [
        f"{titled(one['code'])} {one['severity']}" for one in level.get("warnings") or () if one["severity"] != "note"
    ]
    found = {
        "gpu": gpus[0] if gpus and device != "CPU" else None,
        "vllm_version": target.get("version") if target.get("kind") == "vllm" else None,
        "loadbench_level": level["id"],
        "loadbench_status": level.get("status"),
        "loadbench_shape": level.get("shape"),
        "loadbench_device": device,
        "loadbench_token_source": level.get("token_source"),
        "loadbench_output_tokens_per_s_steady": level.get("output_tokens_per_s"),
        "loadbench_goodput_per_s": level.get("goodput_per_s"),
        "loadbench_doubts": ", ".join(dict.fromkeys(doubts)) or None,
        "loadbench_simulated": levels.is_simulated({"run": run}) or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _date(began: str) -> str | None:
    """As vLLM writes it: 20260112-090000."""
    found = re.match(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)", began)
    return None if found is None else "{}{}{}-{}{}{}".format(*found.groups())
