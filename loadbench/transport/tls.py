"""TLS towards a server."""

from __future__ import annotations

import ssl

from loadbench.errors import UsageError


def tls_context(*, ca_file: str | None = None, ca_pem: str | None = None, insecure: bool = False) -> ssl.SSLContext:
    """A client's TLS context: certificates verified unless told otherwise, HTTP/1.1 only.

    Args:
        ca_pem: What would be in the CA file, as text.
    Raises:
        UsageError: If the CA file holds no certificates.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file, cadata=ca_pem)
    except (OSError, ssl.SSLError) as error:
        why = "no certificates in it" if isinstance(error, ssl.SSLError) else error.strerror
        if ca_file is None and ca_pem is None:  # all else that a context opens: Python writes session keys there
            told = f"SSLKEYLOGFILE: {why}; give a file that can be written, or unset the variable"
            raise UsageError(told) from None
        raise UsageError(f"--ca-file {ca_file}: {why}; give a PEM file of certificate authorities") from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
