"""Stock httpx behind the measured path's face, for proxies."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Literal

import httpx

from loadbench.scenario import Timeouts
from loadbench.transport.connection import Clock, ExchangeError, Sink
from loadbench.transport.tls import tls_context


class StockTransport(httpx.AsyncBaseTransport):
    """Stock httpx behind the same face, for proxies: user-space stamps, and the client's lag in every one of them."""

    def __init__(self, proxy: str, *, tls: ssl.SSLContext | None = None) -> None:
        self.clock: Clock = "user"
        self.lags_ns: list[int] = []
        self.round_trip_ns: int | None = None  # the proxy's would be no measure of the server's
        self.retries = 0
        self._now_ns = time.perf_counter_ns
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._stock = httpx.AsyncHTTPTransport(proxy=httpx.Proxy(proxy), limits=limits, verify=tls or tls_context())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        sink: Sink = request.extensions["sink"]
        timeouts: Timeouts = request.extensions["timeouts"]
        request.extensions["timeout"] = {
            "connect": timeouts.connect,
            "read": timeouts.idle,
            "write": timeouts.idle,
            "pool": None,
        }
        try:
            async with asyncio.timeout(timeouts.total):
                sink.sent(self._now_ns())
                response = await self._stock.handle_async_request(request)
                try:
                    sink.headers(self._now_ns(), response.status_code, response.headers.raw)
                    assert isinstance(response.stream, httpx.AsyncByteStream)
                    async for data in response.stream:
                        sink.body(data, self._now_ns())
                finally:
                    await response.aclose()
        except TimeoutError:
            raise ExchangeError("timeout_total", f"total: over {timeouts.total:g} s") from None
        except httpx.ConnectTimeout as error:
            raise ExchangeError("timeout_connect", str(error)) from error
        except httpx.ReadTimeout as error:
            kind: Literal["timeout_first_token", "timeout_idle"]
            kind = "timeout_first_token" if sink.first_token_ns is None else "timeout_idle"
            raise ExchangeError(kind, str(error)) from error
        except (httpx.ConnectError, httpx.ProxyError) as error:
            raise ExchangeError("connect", str(error)) from error
        except httpx.RemoteProtocolError as error:
            raise ExchangeError("truncated" if sink.first_token_ns else "protocol", str(error)) from error
        except httpx.NetworkError as error:
            raise ExchangeError("reset", str(error)) from error
        return httpx.Response(response.status_code, request=request)

    async def warm(self, url: httpx.URL, connections: int, timeouts: Timeouts) -> None:
        """Nothing: stock httpx opens connections as requests need them."""

    async def aclose(self) -> None:
        await self._stock.aclose()
