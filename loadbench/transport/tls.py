"""TLS towards a server."""

from __future__ import annotations

import ssl


def tls_context(*, ca_file: str | None = None, insecure: bool = False) -> ssl.SSLContext:
    """A client's TLS context: certificates verified unless told otherwise, HTTP/1.1 only."""
    context = ssl.create_default_context(cafile=ca_file)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
