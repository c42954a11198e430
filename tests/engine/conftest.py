"""An engine of its own on a simulated world, without services and supervision."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeVar

import pytest

from shem.bus import Bus
from shem.config import PaymentSettings
from shem.engine.engine import Engine, EngineSettings
from shem.engine.lease import ActivityLease
from shem.engine.market import Market
from shem.events import BusEvent
from shem.payload import Payload, VmPayload
from shem.testing import World, play
from shem.yagna.models import Reason

E = TypeVar("E", bound=BusEvent)
T = TypeVar("T")

PAYLOAD = VmPayload(image_hash="a" * 56)
DONE = Reason(message="done", requestor_code="Success")


@dataclass
class Lab:
    """What a story about the engine holds."""

    world: World
    engine: Engine
    bus: Bus
    markets: list[Market] = field(default_factory=list)

    async def market(self, *, hours: float = 1.0, payload: Payload = PAYLOAD) -> Market:
        expires = self.world.clock.now() + timedelta(hours=hours)
        market = await self.engine.open_market(payload, expires)
        self.markets.append(market)
        return market

    async def lease(self, market: Market | None = None, *avoid: Any) -> ActivityLease:
        return await self.engine.acquire(
            market or await self.market(), avoid=frozenset(avoid), progress=lambda _phase: None
        )

    async def give_back(self, *leases: ActivityLease) -> None:
        for lease in leases:
            await self.engine.release(lease, DONE)

    def reason(self, message: str) -> Reason:
        return Reason(message=message, requestor_code="Success")

    def heard(self, kind: type[E]) -> list[E]:
        """Events of one kind so far. (The listener that gathers them has had its turn by the next await.)"""
        return [event for event in self.world.events if isinstance(event, kind)]


class Play:
    """Plays stories about an engine."""

    def __call__(
        self,
        story: Callable[[Lab], Awaitable[T]],
        *,
        leftovers: Collection[str] = (),
        budget: str = "10",
        settings: dict[str, Any] | None = None,
        **world: Any,
    ) -> T:
        async def whole(stage: World) -> T:
            bus = Bus()
            bus.listen(stage.events.append)
            made = replace(EngineSettings(PaymentSettings(Decimal(budget))), **(settings or {}))
            engine = Engine(stage.api(), made, clock=stage.clock, bus=bus)
            lab = Lab(stage, engine, bus)
            try:
                await engine.start()
                return await story(lab)
            finally:
                for market in lab.markets:
                    await market.close()
                await engine.stop()
                await bus.close()

        return play(whole, leftovers=leftovers, **world)


# It holds nothing, so one serves all tests, also those that hypothesis runs many times.
@pytest.fixture(scope="session")
def play_engine() -> Play:
    return Play()
