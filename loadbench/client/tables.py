"""What servers write differently, as data: `docs/dialects.md` is made from these tables (`tests/dialect_page.py`).

A server that sends something else gets a row here, not a branch elsewhere. The report names what no table knows.
"""

from __future__ import annotations

from typing import Literal

Text = Literal["answer", "reasoning", "refusal", "speech"]
"""Kinds of text. All of it counts; the answer alone is sent back in the next turn of a conversation."""

# -- text

TEXTS: dict[str, tuple[Text, str]] = {
    "content": ("answer", "OpenAI and nearly all others, as a text or as a list of parts"),
    "text": ("answer", "`/v1/completions`"),
    "response": ("answer", "Ollama's `/api/generate`"),
    "output_text": ("answer", "gateways that took over the name of OpenAI's Responses"),
    "generated_text": ("answer", "Text Generation Inference"),
    "completion": ("answer", "older gateways"),
    "reasoning_content": ("reasoning", "DeepSeek, llama.cpp, SGLang, Foundry Local 2.2"),
    "reasoning": ("reasoning", "vLLM, Groq, Ollama, OpenRouter; StepFun sends both names with the same text"),
    "reasoning_text": ("reasoning", "gateways"),
    "reasoning_details": ("reasoning", "OpenRouter and MiniMax, a list of parts beside `reasoning`"),
    "thinking": ("reasoning", "Ollama's `/api/chat`"),
    "thinking_blocks": ("reasoning", "LiteLLM, a list of parts beside `reasoning_content`"),
    "thinking_content": ("reasoning", "gateways"),
    "thought": ("reasoning", "gateways"),
    "thoughts": ("reasoning", "gateways"),
    "refusal": ("refusal", "OpenAI"),
    "audio": ("speech", "OpenAI: its `transcript`"),
}
"""Field of a delta or message: the kind of its text, and who sends it. What two fields say alike counts once."""

PARTS: dict[str, Text | None] = {
    "text": None,
    "output_text": None,
    "content": None,
    "parts": None,
    "thinking": "reasoning",
    "reasoning": "reasoning",
    "reasoning_text": "reasoning",
    "summary": "reasoning",
    "refusal": "refusal",
    "transcript": "speech",
}
"""Field of a part of content, which may hold parts again: the kind of its text, None where its surroundings say it."""

TOOL_TEXTS = ("name", "arguments", "input")
"""Of the function of a tool call; each is text."""

SILENT = frozenset(
    {
        *("role", "name", "id", "type", "index", "object", "created", "model", "status", "phase", "channel"),
        *("recipient", "tool_call_id", "tool_calls", "function_call", "annotations", "citations", "images"),
        *("signature", "encrypted_content", "logprobs", "token_ids", "usage", "error", "obfuscation"),
        *("reasoning_format", "provider_specific_fields", "extra_content", "finish_reason", "stop_reason"),
    }
)
"""Fields of a delta or message that hold no text of the answer."""

CHOICE_FIELDS = frozenset(
    {
        *("index", "delta", "message", "text", "finish_reason", "logprobs", "stop_reason", "native_finish_reason"),
        *("matched_stop", "token_ids", "prompt_token_ids", "prompt_logprobs", "seed", "hidden_states", "role"),
        *("content_filter_results", "content_filter_offsets", "content_filter_result", "routed_experts"),
    }
)
CHUNK_FIELDS = frozenset(
    {
        *("id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier", "provider"),
        *("obfuscation", "prompt_logprobs", "prompt_token_ids", "kv_transfer_params", "prompt_filter_results"),
        *("prompt_progress", "citations", "search_results", "request_id", "nvext", "metadata"),
    }
)
"""Fields of a choice and of an event in which nothing is looked for."""

BESIDE_CHOICES = ("message", "response", "text", "content", "completion", "output_text", "generated_text")
"""Fields of an event without choices that hold its text, as Ollama's own."""

KEEP_ALIVE = frozenset({"ping", "heartbeat", "keepalive", "keep-alive", "keep_alive"})
"""Types of events that say nothing."""

# -- how an answer ends

FINISHES: dict[str, str] = {
    "stop": "OpenAI and nearly all others",
    "length": "OpenAI and nearly all others",
    "content_filter": "OpenAI; Azure",
    "tool_calls": "OpenAI",
    "function_call": "OpenAI, before tool calls",
    "max_tokens": "Gemini, Anthropic",
    "end_turn": "Anthropic",
    "stop_sequence": "Anthropic",
    "tool_use": "Anthropic",
    "pause_turn": "Anthropic",
    "model_context_window_exceeded": "Anthropic",
    "refusal": "Anthropic",
    "safety": "Gemini",
    "recitation": "Gemini",
    "language": "Gemini",
    "blocklist": "Gemini",
    "prohibited_content": "Gemini",
    "spii": "Gemini",
    "sensitive": "Zhipu",
    "complete": "Cohere",
    "completed": "gateways",
    "eos": "Together, Replicate",
    "eos_token": "Text Generation Inference",
    "end_of_text": "gateways",
    "stop_token": "gateways",
    "max_length": "older servers",
    "max_output_tokens": "OpenAI's Responses",
    "model_length": "Mistral",
    "finish": "gateways",
    "finished": "gateways",
    "done": "gateways",
    "end": "gateways",
    "repetition": "servers that stop a loop",
    "load": "Ollama, for an empty prompt",
    "unload": "Ollama",
}
"""Reasons that end an answer as it should; any case, and what stands before a dot is passed over."""

GOES_ON = frozenset({"tool_calls", "function_call", "tool_use", "pause_turn"})
"""Reasons after which a server that runs the tool itself may go on in the same stream."""

NO_REASONS = frozenset({"null", "none", "", "unspecified", "finish_reason_unspecified", "not_finished"})
"""Words for no reason at all."""

FINISH_FIELDS = ("finish_reason", "finishReason", "done_reason", "stop_reason")

FAILURE_WORDS = frozenset(
    {
        *("error", "errors", "errored", "exception", "fail", "failed", "failure", "fault", "abort", "aborted"),
        *("cancel", "cancelled", "canceled", "timeout", "overloaded", "overload", "interrupted", "killed", "crash"),
        *("crashed", "unavailable", "insufficient", "disconnected", "malformed", "panic", "terminated", "preempted"),
    }
)
"""A finish reason, an event's name, type, status or object with one of these words means that the answer failed."""

ERROR_NAMES = frozenset({"error", "errors", "err", "exception", "exceptions", "fault", "failure"})
"""A field with one of these words in its name, and something in it, means so too."""

# -- failures in words

SAYS = (
    *("error", "errors", "message", "detail", "msg", "error_message", "errorMessage", "error_msg", "status_msg"),
    *("exception", "description", "error_description", "reason", "title", "fault", "faultstring", "details", "info"),
)
"""Fields that hold the words of an error, the best first."""

STATES = ("type", "status", "object", "event", "state", "level", "event_type")
"""Fields whose value may be one of the FAILURE_WORDS."""

CODES = (
    *("code", "status", "status_code", "statusCode", "http_status", "ret", "retcode", "ret_code", "errno", "err_code"),
)
"""Fields that hold a number or name of what went wrong, where an event without choices has words beside it."""

FLAGS = ("success", "ok", "succeeded", "successful")
"""Fields that are false where something went wrong."""

FINE = frozenset({"", "0", "200", "201", "ok", "success", "succeeded", "none", "null", "false"})
"""What stands where nothing went wrong."""

# -- token counts

USAGE_PLACES: dict[str, str] = {
    "usage": "OpenAI and nearly all others; also after `[DONE]`",
    "choices.usage": "Moonshot, in the last choice",
    "choices.delta.usage": "gateways",
    "choices.message.usage": "gateways",
    "x_groq.usage": "Groq",
    "usageMetadata": "Gemini",
    "usage_metadata": "LangChain's gateways",
    "message.usage": "Anthropic's first event",
    "response.usage": "OpenAI's Responses",
    "amazon-bedrock-invocationMetrics": "Bedrock",
    "timings": "llama.cpp, where it sends no usage",
    "": "Ollama's own, in the event itself",
}
"""Where counts are looked for, a path of fields; any other place is searched too, and told."""

COUNTS: dict[str, str] = {
    "eval_count": "output",
    "prompt_eval_count": "input",
    "predicted_n": "output",
    "prompt_n": "evaluated",
    "cache_n": "cached",
    "tokens_predicted": "output",
    "tokens_evaluated": "input",
}
"""Names of counts that COUNT_WORDS do not explain: Ollama's, and llama.cpp's, whose `prompt_n` has no cached ones."""

COUNT_WORDS: dict[str, frozenset[str]] = {
    "output": frozenset(
        {
            *("completion", "completions", "output", "outputs", "generated", "generation", "gen", "candidates"),
            *("candidate", "predicted", "response", "answer", "decode", "decoded", "out", "sampled"),
        }
    ),
    "input": frozenset({"prompt", "prompts", "input", "inputs", "in", "prefill", "query", "request"}),
    "reasoning": frozenset({"reasoning", "thinking", "thoughts", "thought"}),
    "cached": frozenset({"cached", "cache"}),
}
"""A name with one of these words, and beside it nothing but COUNT_FILLERS, is that count: `promptTokenCount`."""

COUNT_FILLERS = frozenset(
    {"token", "tokens", "count", "counts", "num", "number", "n", "total", "of", "usage", "billed"}
)
