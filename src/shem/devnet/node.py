"""A whole node in one process: market, providers, activities, payments, files; without a REST API.

Everything waits by the running loop and takes time and ids from the clock, so that a node can live in virtual
time. The REST API over it is in `server`; requestors in the same process use `local`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from shem.clock import Clock, SystemClock
from shem.devnet.activities import Activities
from shem.devnet.agreements import Agreements
from shem.devnet.allocations import Allocations
from shem.devnet.audit import Audit
from shem.devnet.background import Background
from shem.devnet.documents import Documents
from shem.devnet.eventlog import EventTimes
from shem.devnet.executor import Executor
from shem.devnet.faults import Faults
from shem.devnet.gsb import Gsb
from shem.devnet.market import Market
from shem.devnet.parts import NodeParts
from shem.devnet.provider import Provider
from shem.devnet.runtime.base import RuntimeFactory
from shem.devnet.settings import ProviderSettings, Timings
from shem.devnet.transfer import Fetcher, NoFetcher
from shem.errors import ConfigError
from shem.ids import DemandId, NodeId
from shem.yagna import models as wire

#: How long each step of closing a node may take, in seconds.
CLOSE_TIMEOUT = 15.0


class Node:
    """One node with its built-in providers. Open it with ``async with``, or `start` and `aclose`.

    Args:
        runtimes: what providers run commands in. Whoever made the factory closes it.
        providers: settings of each provider, or how many with the defaults.
        fetcher: reads and writes http(s) URLs for the `transfer` command; without one such transfers fail.

    Attributes:
        identity: the node's own identity, under which a requestor acts unless it has another.
        closed: whether it is closed, or being closed; calls are then refused.

    Raises `ConfigError` where two providers have the same name.
    """

    def __init__(
        self,
        runtimes: RuntimeFactory,
        *,
        providers: int | Sequence[ProviderSettings] = 1,
        timings: Timings | None = None,
        clock: Clock | None = None,
        fetcher: Fetcher | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.timings = timings or Timings()
        self._background = Background()
        times = EventTimes(self.clock)
        self.gsb = Gsb()
        self.market = Market(self.clock, times, self._background, self.timings)
        self.agreements = Agreements(self.clock, times, self._background, self.market)
        self.activities = Activities(
            self.clock,
            self._background,
            self.agreements,
            Executor(self.gsb, fetcher or NoFetcher()),
            self.timings,
        )
        self.allocations = Allocations(self.clock, self._background)
        self.documents = Documents(
            self.clock, times, self._background, self.agreements, self.allocations, self.timings
        )
        parts = NodeParts(
            self.clock,
            self.timings,
            self._background,
            self.market,
            self.agreements,
            self.activities,
            self.documents,
            runtimes,
        )
        self.identity = wire.Identity(identity=self._new_node_id(), name="devnet", role="manager")
        self.providers = self._make_providers(parts, providers)
        self.faults = Faults(self.provider, self.agreements, self.activities)
        self._started = False
        self.closed = False

    async def start(self) -> None:
        """Publish the providers' offers. Calling it twice is harmless."""
        if self._started:
            return
        self._started = True
        for provider in self.providers:
            provider.publish()

    async def aclose(self) -> None:
        """End everything the node runs. Ordered, bounded, and harmless when called twice."""
        if self.closed:
            return
        self.closed = True
        for demand in list(self.market.subscribed()):
            self.market.unsubscribe(demand.owner, DemandId(demand.id))
        self.agreements.close()
        self.documents.close()
        await self.activities.aclose(CLOSE_TIMEOUT)
        await self.gsb.aclose()
        await self._background.aclose(CLOSE_TIMEOUT)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def provider(self, name: str) -> Provider:
        """A provider by its name or node id. Raises `LookupError`."""
        for provider in self.providers:
            if name in (provider.name, provider.node_id):
                return provider
        known = ", ".join(provider.name for provider in self.providers)
        raise LookupError(f"no provider {name!r} on this node; there are {known or 'none'}")

    def audit(self) -> Audit:
        """What is left over right now."""
        return Audit(
            live_activities=tuple(one.id for one in self.activities.all() if one.alive),
            open_agreements=tuple(one.id for one in self.agreements.all() if not one.ended),
            open_debit_notes=tuple(self.documents.open_notes()),
            open_invoices=tuple(self.documents.open_invoices()),
            invoices_to_come=tuple(key for provider in self.providers for key in provider.owing),
            open_allocations=tuple(one.allocation_id for one in self.allocations.open()),
            open_demands=tuple(one.id for one in self.market.subscribed()),
        )

    def _make_providers(
        self, parts: NodeParts, wanted: int | Sequence[ProviderSettings]
    ) -> tuple[Provider, ...]:
        settings = [ProviderSettings()] * wanted if isinstance(wanted, int) else list(wanted)
        names = [one.name or f"devnet-{place}" for place, one in enumerate(settings, 1)]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"{names.count(name)} providers are named {name!r}; give each its own name")
        providers = []
        for name, one in zip(names, settings, strict=True):
            provider = Provider(parts, one, name, self._new_node_id(), self._new_node_id())
            self.agreements.parties[provider.node_id] = provider
            self.activities.hosts[provider.node_id] = provider
            providers.append(provider)
        return tuple(providers)

    def _new_node_id(self) -> NodeId:
        return NodeId(f"0x{self.clock.unique_id()}{self.clock.unique_id()[:8]}")
