"""Who is measured: an endpoint, the server behind it, its models.

`normalise` reads what a person typed, `find` asks the server, `choose` names the models; `discover` looks for a
Foundry Local service when nobody typed anything. All errors are one line each.
"""

from loadbench.server.access import (
    USER_AGENT,
    is_proxied,
    key_file_warning,
    open_http,
    proxy_of,
    read_key,
    read_key_file,
    request_headers,
)
from loadbench.server.choice import choose
from loadbench.server.device import device_of_id, short_provider
from loadbench.server.discovery import VARIABLE, Found, discover
from loadbench.server.endpoint import distinct, is_loopback, normalise, server_root
from loadbench.server.facts import (
    KINDS,
    Absent,
    Choice,
    Chosen,
    Kind,
    ModelFacts,
    Target,
    cache_prompt_supported,
    continuous_usage_supported,
    ignore_eos_supported,
    min_tokens_supported,
)
from loadbench.server.failure import NotReady
from loadbench.server.lookup import find, wait
from loadbench.server.memory import free_memory_warning
from loadbench.server.rows import merged
from loadbench.server.scrape import scrape
from loadbench.server.secrets import Secrets

__all__ = [
    "KINDS",
    "USER_AGENT",
    "VARIABLE",
    "Absent",
    "Choice",
    "Chosen",
    "Found",
    "Kind",
    "ModelFacts",
    "NotReady",
    "Secrets",
    "Target",
    "cache_prompt_supported",
    "choose",
    "continuous_usage_supported",
    "device_of_id",
    "discover",
    "distinct",
    "find",
    "free_memory_warning",
    "ignore_eos_supported",
    "is_loopback",
    "is_proxied",
    "key_file_warning",
    "merged",
    "min_tokens_supported",
    "normalise",
    "open_http",
    "proxy_of",
    "read_key",
    "read_key_file",
    "request_headers",
    "scrape",
    "server_root",
    "short_provider",
    "wait",
]
