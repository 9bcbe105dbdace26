"""What a server is told about its models, over HTTP: load, unload, download, remove.

    control.py    who offers loading: one `Control` for each kind of server
    foundry.py    Foundry Local, by the generation of its service
    ollama.py     Ollama
    lmstudio.py   LM Studio
    transfer.py   downloads with their progress, and removal
    refusal.py    why a server did not do it, in one line

The client comes from `target.open_http`; downloads need it without a transport of one's own, or their progress comes
all at once. Errors are `TargetError`, one line each.
"""

from loadbench.server.models.control import Control, control
from loadbench.server.models.transfer import pull, remove

__all__ = ["Control", "control", "pull", "remove"]
