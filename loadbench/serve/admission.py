"""Who may ask a server of ours: whoever carries its key, or else this machine's own programs."""

from __future__ import annotations

import hmac

from loadbench.machine import is_local_name


def is_local_address(address: str) -> bool:
    """Whether a server that listens there is reached from this machine alone.

    >>> is_local_address("::1"), is_local_address("0.0.0.0")
    (True, False)
    """
    return is_local_name(f"[{address}]" if ":" in address else address)


class Admission:
    """The check of each request's head.

    Without a key a server on loopback is for programs of this machine. A page in somebody's browser is none: it cannot
    hide where it is from (Origin), nor that name of its own which was turned to this address (Host; DNS rebinding).

    Args:
        host: Where the server listens.
        key: What requests must carry as a bearer token, if anything.
    """

    def __init__(self, host: str, key: str | None) -> None:
        self._bearer = None if key is None else f"Bearer {key}".encode()
        self._local = is_local_address(host)

    def refusal(self, host: str, origin: str | None, authorization: bytes) -> tuple[int, str, str] | None:
        """Status, message and code for a request that is not answered; None for one that is."""
        if self._bearer is not None:
            if hmac.compare_digest(authorization, self._bearer):
                return None
            return 401, "This server wants an API key.", "invalid_api_key"
        if not self._local:
            return None
        if host and not is_local_name(host):
            return 403, "This server is for this machine alone, by the name localhost or its address.", "host"
        if origin is not None and not is_local_name(origin.partition("://")[2]):
            return 403, "This server is not for web pages of other hosts.", "origin"
        return None
