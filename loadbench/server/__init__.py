"""Who is measured: an endpoint, the server behind it, its models.

`normalise` reads what a person typed, `find` asks the server, `choose` names the models; `discover` looks for a
Foundry Local service when nobody typed anything. `VENDORS` has what each kind of server supports. All errors are one
line each.
"""

from loadbench.server.access import (
    USER_AGENT,
    Http,
    Secrets,
    is_proxied,
    key_file_warning,
    open_http,
    proxy_of,
    read_key,
    read_key_file,
    request_headers,
)
from loadbench.server.calls import NotReady, scrape
from loadbench.server.choice import Absent, Choice, Chosen, choose
from loadbench.server.endpoint import distinct, is_loopback, normalise, server_root
from loadbench.server.facts import Kind, ModelFacts, Target, free_memory_warning, merged
from loadbench.server.foundry import OPENAI, VARIABLE, VARIABLES, Found, discover, named_by
from loadbench.server.lookup import KINDS, VENDORS, control, find, wait
from loadbench.server.vendor import Control

__all__ = [
    "KINDS",
    "OPENAI",
    "USER_AGENT",
    "VARIABLE",
    "VARIABLES",
    "VENDORS",
    "Absent",
    "Choice",
    "Chosen",
    "Control",
    "Found",
    "Http",
    "Kind",
    "ModelFacts",
    "NotReady",
    "Secrets",
    "Target",
    "choose",
    "control",
    "discover",
    "distinct",
    "find",
    "free_memory_warning",
    "is_loopback",
    "is_proxied",
    "key_file_warning",
    "merged",
    "named_by",
    "normalise",
    "open_http",
    "proxy_of",
    "read_key",
    "read_key_file",
    "request_headers",
    "scrape",
    "server_root",
    "wait",
]
