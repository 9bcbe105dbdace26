"""A licence's short name, from its text."""

from __future__ import annotations

import re
from collections.abc import Callable

_HEAD = 4000  # characters: a name stands at the start; the texts run to 15,000
_SIGNS: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"apache license,?\s+version 2\.0|apache-2\.0", lambda _: "Apache-2.0"),
    (r"\bmit license\b|permission is hereby granted, free of charge", lambda _: "MIT"),
    (r"\bllama\s+(\d(?:\.\d)?)\s+community license", lambda found: f"Llama {found[1]} Community"),
    (r"gemma terms of use", lambda _: "Gemma"),
    (r"qwen research license", lambda _: "Qwen Research"),
    (r"(?:tongyi qianwen|qwen) license", lambda _: "Qwen"),
    (r"deepseek license", lambda _: "DeepSeek"),
    (r"mistral ai (\w+(?:-\w+)?) licen[cs]e", lambda found: f"Mistral {found[1].title()}"),
    (r"redistribution and use in source and binary forms", lambda _: "BSD"),
    (r"gnu affero general public license", lambda _: "AGPL"),
    (r"gnu general public license", lambda _: "GPL"),
    (r"attribution-noncommercial 4\.0|cc-by-nc-4\.0", lambda _: "CC-BY-NC-4.0"),
    (r"attribution 4\.0|cc-by-4\.0", lambda _: "CC-BY-4.0"),
)


def licence_name(text: str | None) -> str | None:
    """The licence that a text names first; its first line where it is none of the known; None without a text.

    >>> licence_name("                 Apache License\\n           Version 2.0, January 2004")
    'Apache-2.0'
    >>> licence_name("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\\nLlama 3.2 Version Release Date")
    'Llama 3.2 Community'
    """
    head = " ".join((text or "")[:_HEAD].split())
    found = [(match.start(), name(match)) for sign, name in _SIGNS if (match := re.search(sign, head, re.IGNORECASE))]
    if found:
        return min(found)[1]
    first = next((line.strip() for line in (text or "").splitlines() if line.strip()), None)
    return first if first is None or len(first) <= 40 else first[:37] + "..."
