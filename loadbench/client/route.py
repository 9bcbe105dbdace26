"""How a client gets to its target, as plain values: another process makes a client just like it from them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from loadbench.client import Client, Endpoint, Parameters
from loadbench.scenario import Timeouts
from loadbench.transport import Clock, ExchangeError, StockTransport, Transport, tls_context


@dataclass(frozen=True, slots=True)
class Route:
    """Where a client's requests go, and what each of them carries.

    Attributes:
        endpoints: In turns.
        headers: The key among them: a route is shown nowhere and kept nowhere.
        stamps: Where arrivals are stamped; None where it is best.
        ca_pem: Certificate authorities to trust, the text of a PEM file; None trusts the system's.
        insecure: Whether any certificate is accepted.
        proxy: What all goes through; then stock httpx speaks.
    """

    endpoints: tuple[Endpoint, ...]
    headers: Mapping[str, str]
    parameters: Parameters
    timeouts: Timeouts
    stamps: Clock | None = None
    ca_pem: str | None = None
    insecure: bool = False
    proxy: str | None = None

    def __repr__(self) -> str:
        return f"Route({', '.join(one.chat_url for one in self.endpoints)})"  # no key where a traceback shows it

    def open(self) -> Client:
        """A client on this route; its `transport` is to be closed."""
        secure = any(one.chat_url.startswith("https:") for one in self.endpoints)
        tls = tls_context(ca_pem=self.ca_pem, insecure=self.insecure) if secure else None
        return Client(
            Transport(clock=self.stamps, tls=tls) if self.proxy is None else StockTransport(self.proxy, tls=tls),
            *self.endpoints,
            headers=self.headers,
            parameters=self.parameters,
            timeouts=self.timeouts,
            now_ns=time.perf_counter_ns,
        )

    async def reach(self) -> str | None:
        """Connect to each endpoint once: None, or which one cannot be reached and why."""
        client = self.open()
        try:
            for endpoint, one in enumerate(self.endpoints):
                try:
                    await client.reach(endpoint)
                except ExchangeError as error:
                    return f"{one.chat_url}: {error.kind}: {error}"
        finally:
            await client.transport.aclose()
        return None
