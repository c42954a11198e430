"""The supervisor of one cluster: its slots, its expiry, and the orderly end of all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from shem.bus import Bus
from shem.clock import Clock
from shem.engine.engine import Engine
from shem.engine.lease import ActivityLease
from shem.engine.market import Market
from shem.ids import ClusterId
from shem.lifecycle import Actor, Cause
from shem.log import get_logger
from shem.service.instance import Instance
from shem.service.policy import PenaltyBox
from shem.service.slot import Slot, Supervision
from shem.yagna.models import Reason

_log = get_logger("supervisor")

#: Makes the instance of a slot; the second argument is the one that it replaces.
MakeInstance = Callable[[Slot, Instance | None], Instance]

#: Seconds beyond `stop_timeout` that an expiry leaves for giving leases back.
DRAIN_MARGIN = 5.0


class Supervisor:
    """Keeps the slots of one cluster.

    Attributes:
        stopping: whether nothing is to be started any more.
        in_a_hurry: whether nobody waits for `shutdown()` any more.
        drains_at: when everything is stopped, before the agreements expire.
        instances: every instance there ever was, in the order of their making.
    """

    def __init__(
        self,
        cluster_id: ClusterId,
        make: MakeInstance,
        engine: Engine,
        market: Market,
        *,
        settings: Supervision,
        clock: Clock,
        bus: Bus,
        on_idle: Callable[[], None],
    ) -> None:
        self._cluster_id, self._make = cluster_id, make
        self._engine, self._market, self._settings = engine, market, settings
        self._clock, self._bus, self._on_idle = clock, bus, on_idle
        self.stopping = False
        self.in_a_hurry = False
        self.instances: list[Instance] = []
        self._box = PenaltyBox(settings.restart.penalty, clock)
        self._slots: list[Slot] = []
        self._keeping: set[asyncio.Task[None]] = set()
        self._releases: set[asyncio.Task[bool]] = set()
        left = (market.expires - clock.now()).total_seconds()
        # A run that is shorter than its own drain would otherwise stop before it began.
        drain = min(settings.stop_timeout + DRAIN_MARGIN, left / 4)
        self.drains_at: datetime = market.expires - timedelta(seconds=drain)
        self._drain_timer = asyncio.get_running_loop().call_later(left - drain, self._drain)

    # --- slots

    def add_slot(self) -> Instance:
        """Keep one more slot from now on; returns its first instance."""
        slot = Slot(
            len(self._slots),
            self._cluster_id,
            self,
            self._engine,
            self._market,
            settings=self._settings,
            box=self._box,
            clock=self._clock,
            bus=self._bus,
        )
        self._slots.append(slot)
        task = asyncio.get_running_loop().create_task(
            slot.keep(), name=f"slot {slot.number} of {self._cluster_id}"
        )
        self._keeping.add(task)
        task.add_done_callback(self._slot_ended)
        return slot.instance

    def _slot_ended(self, task: asyncio.Task[None]) -> None:
        self._keeping.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("slot_ended_by_a_bug", task=task.get_name(), error=repr(error))
        if not self._keeping:
            self._on_idle()

    @property
    def idle(self) -> bool:
        """Whether no slot is kept any more."""
        return not self._keeping

    @property
    def slots(self) -> Sequence[Slot]:
        """All slots there ever were."""
        return tuple(self._slots)

    # --- what slots ask for (see `SlotMaster`)

    def make(self, slot: Slot, replaces: Instance | None) -> Instance:
        """A new instance for a slot."""
        instance = self._make(slot, replaces)
        self.instances.append(instance)
        return instance

    def release(self, slot: Slot, lease: ActivityLease, reason: Reason) -> asyncio.Task[bool]:
        """Begin to give a lease back; true where all of it was done."""
        task = asyncio.get_running_loop().create_task(
            self._release(slot, lease, reason), name=f"release {lease.activity_id}"
        )
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)
        return task

    async def _release(self, slot: Slot, lease: ActivityLease, reason: Reason) -> bool:
        # The engine has told the bus what it could not do.
        done = await self._engine.release(lease, reason)
        if not done:
            slot.skipped.append(f"release of {lease.activity.subject}: not done in time")
        return done

    # --- stopping

    def stop(self, instance: Instance, cause: Cause) -> Slot | None:
        """Stop one instance; its slot, which stays empty. None where another one has taken its place."""
        slot = self._slots[instance.slot]
        if slot.instance is not instance:
            return None
        slot.stop(cause)
        return slot

    def stop_all(self, cause: Cause) -> None:
        """Stop every instance, and fill no slot any more."""
        self.stopping = True
        self._drain_timer.cancel()
        for slot in self._slots:
            slot.stop(cause)
        if self.idle:
            self._on_idle()

    def hurry(self) -> None:
        """Do not wait for any `shutdown()` any more."""
        self.in_a_hurry = True
        for slot in self._slots:
            slot.hurry()

    async def finished(self) -> Sequence[str]:
        """Wait for the end of all slots, and say what had to be skipped on the way."""
        while pending := [*self._keeping, *self._releases]:
            await asyncio.wait(pending)
        return [step for slot in self._slots for step in slot.skipped]

    def _drain(self) -> None:
        self.stop_all(Cause(Actor.CLOCK, f"its agreements end at {self._market.expires:%H:%M:%S} UTC"))
