"""One request in, one Result out: the chat completion's dialects, read as they arrive.

A failed request is a Result with an `error`, never an exception. First token = first text, whatever dialect; usage is
taken wherever it comes.

    recorder.py    reads one response as it arrives
    dialect.py     what servers write differently
    tables.py      where they do, as data
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
import orjson

from loadbench.client.dialect import count, one_line
from loadbench.client.recorder import Recorder
from loadbench.prompts import Prompt
from loadbench.scenario import Timeouts
from loadbench.server import USER_AGENT, Secrets
from loadbench.store.record import Result
from loadbench.transport import Address, Clock, ExchangeError, Post, StockTransport, Transport, tls_context

__all__ = ["Ask", "Client", "Endpoint", "Parameters", "Route", "cycle"]


class Ask(msgspec.Struct, frozen=True):
    """A request to make: who it is, what it asks, when it was due (ns on the client's clock), and whose retry it is.

    Attributes:
        conversation: Counts what goes to the endpoints by turns. The turns of a conversation have one number, so that
            its server's prompt cache can know it; a retry has a number of its own, as it is to meet another endpoint.
        endpoint: Goes to this one, whatever its number.
    """

    level: str
    attempt: int
    request: int
    model: str
    prompt: Prompt
    warmup: bool
    due_ns: int
    retry_of: int | None = None
    conversation: int = 0
    endpoint: int | None = None


@dataclass(frozen=True, slots=True)
class Parameters:
    """What every request of a run sends beside model and messages.

    Attributes:
        min_tokens: Whether each asks for no less than its `max_tokens` either.
    """

    max_tokens: int
    temperature: float
    extra_body: Mapping[str, Any]
    stream: bool = True
    min_tokens: bool = False

    @property
    def several(self) -> bool:
        """Whether each asks for more than one choice."""
        return (count(self.extra_body.get("n")) or 1) > 1

    def body(self, model: str, prompt: Prompt) -> bytes:
        """The JSON body of a chat completion; `extra_body` has the last word, and what is None in it is not sent."""
        streamed = {"stream": True, "stream_options": {"include_usage": True}}
        most = prompt.max_tokens or self.max_tokens
        body = {
            "model": model,
            "messages": list(prompt.messages),
            "max_tokens": most,
            **({"min_tokens": most} if self.min_tokens else {}),
            "temperature": self.temperature,
            **(streamed if self.stream else {"stream": False}),
            **self.extra_body,
        }
        return orjson.dumps({key: value for key, value in body.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go.

    Attributes:
        chat_url: The full address of `/chat/completions`.
        own_urls: The same of the models that have one of their own, by id.
        weight: Against the weights of the others.
    """

    chat_url: str
    own_urls: Mapping[str, str] = field(default_factory=dict)
    weight: int = 1


def cycle(weights: Sequence[int]) -> tuple[int, ...]:
    """Places of the endpoints, each as often as its weight, spread evenly: smooth weighted round robin, as of nginx.

    Conversation n goes to ``cycle[n % len(cycle)]``, whatever becomes of it: no state, the same in each run. Clients
    that share a level count their own conversations, each from another number on: did they go by the numbers of the
    level's requests, of 2 clients and 2 endpoints each would meet one endpoint alone, and in a closed loop endpoints
    would get the requests that their speed allows, not those of their weights.

    >>> cycle([1, 1]), cycle([3, 1]), cycle([2, 4, 2])
    ((0, 1), (0, 0, 1, 0), (1, 0, 2, 1))
    """
    parts = [weight // math.gcd(*weights) for weight in weights]
    credit = [0] * len(parts)
    found = []
    for _ in range(sum(parts)):
        credit = [had + part for had, part in zip(credit, parts, strict=True)]
        chosen = credit.index(max(credit))
        credit[chosen] -= sum(parts)
        found.append(chosen)
    return tuple(found)


class Client:
    """Sends chat completions to one target, or in turns to the endpoints of one.

    Args:
        transport: The measured path, or its stock stand-in where a proxy is needed.
        endpoints: Where to; as text, the full address of `/chat/completions`.
        headers: Sent with every request; the key among them.
        parameters: What every body carries.
        now_ns: The monotonic clock of all marks; the transport's own.
    """

    def __init__(
        self,
        transport: Transport | StockTransport,
        *endpoints: str | Endpoint,
        headers: Mapping[str, str],
        parameters: Parameters,
        timeouts: Timeouts,
        now_ns: Callable[[], int],
    ) -> None:
        self.transport = transport
        several = [Endpoint(one) if isinstance(one, str) else one for one in endpoints]
        self._urls = [httpx.URL(one.chat_url) for one in several]
        self._own_urls = [{model: httpx.URL(url) for model, url in one.own_urls.items()} for one in several]
        self._cycle = cycle([one.weight for one in several])
        self._served: dict[str, str] = {}
        self._headers = {
            "accept": "text/event-stream, application/json",
            "accept-encoding": "identity",
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            **headers,
        }
        self._parameters, self._timeouts, self._now_ns = parameters, timeouts, now_ns
        self._several = parameters.several
        self._secrets = Secrets.of(headers)
        self._addresses: dict[tuple[str, int], Address] = {}
        self._built: dict[tuple[str, str, int], Post] = {}
        self._in_flight: dict[int, Recorder] = {}
        self._last: Recorder | None = None

    async def warm(self, connections: int) -> None:
        """Open connections before they are needed, to each endpoint in proportion to its turns."""
        needed = Counter(self.endpoint_of(number) for number in range(connections))
        for endpoint, own in needed.items():
            await self.transport.warm(self._urls[endpoint], own, self._timeouts)

    async def reach(self, endpoint: int = 0) -> None:
        """Open a connection, alone: what that takes is the network's.

        Raises:
            ExchangeError: None can be opened.
        """
        await self.transport.reach(self._urls[endpoint], self._timeouts)

    def _post(self, model: str, prompt: Prompt, endpoint: int, *, keep: bool) -> Post:
        """The request for a prompt, built once where it is kept."""
        post = self._built.get((model, prompt.id, endpoint)) if keep else None
        if post is None:
            address = self._addresses.get((model, endpoint))
            if address is None:
                url = self._own_urls[endpoint].get(model, self._urls[endpoint])
                address = self._addresses[model, endpoint] = Address.of(url, self._headers)
            post = Post(address, self._parameters.body(model, prompt))
            if keep:
                self._built[model, prompt.id, endpoint] = post
        return post

    async def chat(self, ask: Ask, origin_ns: int, done: Callable[[Result], None], *, keep: bool = True) -> None:
        """Make the request; `done` gets its Result exactly once, whatever happened, a cancellation included.

        Args:
            origin_ns: The beginning of the level: the Result's marks count from it.
            keep: Whether the prompt will be asked again, so that the built request is worth its memory.
        """
        recorder = self._last = Recorder(several=self._several)
        endpoint = self.endpoint_of(ask.conversation) if ask.endpoint is None else ask.endpoint
        post = self._post(ask.model, ask.prompt, endpoint, keep=keep)
        failure: ExchangeError | None = None
        self._in_flight[id(recorder)] = recorder
        try:
            await self.transport.send(post, recorder, self._timeouts)
        except ExchangeError as error:
            failure = error
        except BaseException:
            failure = ExchangeError("cancelled", "cancelled by the user or by the end of the run")
            raise
        finally:
            del self._in_flight[id(recorder)]
            end_ns = recorder.close(failure, self._now_ns())
            failure = None  # its traceback holds this frame: a circle that only the collector of garbage would find
            if recorder.served_as is not None:
                self._served[ask.model] = one_line(self._secrets.hidden(recorder.served_as))
            done(recorder.result(ask, origin_ns, end_ns, endpoint=endpoint, secrets=self._secrets))

    def endpoint_of(self, conversation: int) -> int:
        """Which endpoint's turn it is."""
        return self._cycle[conversation % len(self._cycle)]

    def text_events_in_flight(self) -> int:
        """Text events of the requests that have not ended yet."""
        return sum(recorder.text_events for recorder in self._in_flight.values())

    def last_texts(self) -> tuple[str, str]:
        """Reasoning and answer so far of the request that began last, ended or not; a Result has no reasoning."""
        self.transport.look()
        last = self._last
        if last is None:
            return "", ""
        # A key that an answer repeats comes in pieces: while more may come, what may be a part of one waits.
        flies = id(last) in self._in_flight
        clean = self._secrets.settled if flies else self._secrets.hidden
        other, answer = last.texts(final=not flies)
        return clean(other), clean(answer)

    def served_as(self, model: str) -> str | None:
        """The name that the last response carried for a model; None where none had one."""
        return self._served.get(model)

    def round_trip_ns(self) -> int | None:
        """Of the network to the target, in ns; None where nobody measured it."""
        return self.transport.round_trip_ns

    def take_lags_ns(self) -> list[int]:
        """Processed minus arrived in ns, of each read since the last call; none without kernel stamps."""
        lags = self.transport.lags_ns[:]
        del self.transport.lags_ns[: len(lags)]
        return lags


@dataclass(frozen=True, slots=True)
class Route:
    """Where a client's requests go, and what each of them carries: another process makes a client like it from this.

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
