"""Stock httpx behind the measured path's face, for proxies."""

from __future__ import annotations

import asyncio
import ssl
import time

import httpx

from loadbench.scenario import Timeouts
from loadbench.transport.connection import tls_context
from loadbench.transport.exchange import RETRY_NS, Clock, Ending, ExchangeError, Patience, Post, Sink, inflater


class StockTransport:
    """Stock httpx behind the same face, for proxies: user-space stamps, and the client's lag in every one of them."""

    def __init__(self, proxy: str, *, tls: ssl.SSLContext | None = None) -> None:
        self.clock: Clock = "user"
        self.lags_ns: list[int] = []
        self.round_trip_ns: int | None = None  # the proxy's would be no measure of the server's
        self.retries = 0
        self._patience = Patience()
        self._now_ns = time.perf_counter_ns
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._stock = httpx.AsyncHTTPTransport(proxy=httpx.Proxy(proxy), limits=limits, verify=tls or tls_context())

    def look(self) -> None:
        """Nothing: httpx reads by itself."""

    async def send(self, post: Post, sink: Sink, timeouts: Timeouts) -> None:
        """As `Transport.send`."""
        request = httpx.Request("POST", post.address.url, headers=post.address.headers, content=post.content)
        began_ns = self._now_ns()
        try:
            return await self._exchange(request, sink, timeouts)
        except ExchangeError as error:
            # As in Transport: a kept connection that the other side had closed is not the request's failure.
            late = self._now_ns() - began_ns > RETRY_NS
            if late or error.kind not in ("reset", "protocol") or request.extensions.get("heard"):
                raise
        self.retries += 1
        sink.retries += 1
        await self._exchange(request, sink, timeouts)

    async def _exchange(self, request: httpx.Request, sink: Sink, timeouts: Timeouts) -> None:
        loop = asyncio.get_running_loop()
        began, set_up = loop.time(), self._now_ns()

        async def trace(name: str, info: object) -> None:
            # httpcore's own events: the time to reach the proxy is not the server's.
            if name.endswith(".send_request_headers.started"):
                sink.connected(self._now_ns() - set_up)
                sink.sent(self._now_ns())

        origin = request.url.scheme, request.url.host, request.url.port or 0
        ending: Ending | None = None
        changed = 0.0
        limits: dict[str, float | None] = {"connect": timeouts.connect, "read": None, "write": None, "pool": None}
        request.extensions |= {"trace": trace, "timeout": limits}
        try:
            async with asyncio.timeout_at(began + min(timeouts.total, timeouts.first_token)) as deadline:
                response = await self._stock.handle_async_request(request)
                try:
                    request.extensions["heard"] = True
                    sink.headers(self._now_ns(), response.status_code, response.headers.raw)
                    inflate = inflater(response.headers.raw)
                    assert isinstance(response.stream, httpx.AsyncByteStream)
                    async for data in response.stream:
                        sink.body(data if inflate is None else inflate(data), self._now_ns())
                        if sink.first_token_ns is not None:
                            deadline.reschedule(min(began + timeouts.total, loop.time() + timeouts.idle))
                        if sink.ending != ending:
                            ending, changed = sink.ending, loop.time()
                        if ending is not None:  # what may follow has its grace, not more
                            deadline.reschedule(changed + self._patience.seconds(origin, ending))
                    self._patience.learn(origin, None)
                finally:
                    await response.aclose()
        except TimeoutError:
            if ending is not None:
                self._patience.learn(origin, ending)
                return
            if loop.time() - began >= timeouts.total:
                raise ExchangeError("timeout_total", f"total: over {timeouts.total:g} s") from None
            if sink.first_token_ns is None:
                raise ExchangeError("timeout_first_token", f"first token: over {timeouts.first_token:g} s") from None
            raise ExchangeError("timeout_idle", f"idle: over {timeouts.idle:g} s") from None
        except httpx.ConnectTimeout as error:
            raise ExchangeError("timeout_connect", str(error)) from error
        except (httpx.ConnectError, httpx.ProxyError) as error:
            raise ExchangeError("connect", str(error)) from error
        except httpx.RemoteProtocolError as error:
            raise ExchangeError("truncated" if sink.first_token_ns else "protocol", str(error)) from error
        except httpx.NetworkError as error:
            raise ExchangeError("reset", str(error)) from error

    async def reach(self, url: httpx.URL, timeouts: Timeouts) -> None:
        """Nothing: whether the proxy reaches it, requests will tell."""

    async def warm(self, url: httpx.URL, connections: int, timeouts: Timeouts) -> None:
        """Nothing: stock httpx opens connections as requests need them."""

    async def aclose(self) -> None:
        await self._stock.aclose()
