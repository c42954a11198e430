"""Activities: creating and destroying them, and knowing whether they live.

An activity is known to be alive by *values*, never by the mere success of a call: the node goes on answering
for an activity that is long gone. Whoever learns something (a script, a probe, the agreement's end) tells
`Activity.observe` or `Activity.lose`, and everybody else hears of it through `lost`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Final, TypeAlias

from shem.bus import Bus
from shem.clock import Clock
from shem.engine.agreement import Agreement
from shem.engine.polling import insist, persist
from shem.errors import ActivityRefused, Gone, NodeError, NotFound
from shem.events import ActivityCreated, ActivityEnded
from shem.ids import ActivityId, NodeId
from shem.lifecycle import ACTIVITY, ActivityEvent, ActivityState, Actor, Cause, Machine, Move
from shem.yagna.api import ActivityApi
from shem.yagna.models import ActivityStateDoc

MACHINE: Final[Machine[ActivityState, ActivityEvent]] = Machine(ACTIVITY)

Heed: TypeAlias = Callable[[Agreement], Awaitable[None]]

#: Seconds for the provider to create an activity, and to destroy one.
CREATE_SECONDS = 60.0
DESTROY_SECONDS = 10.0

#: What leads from state to state when everything goes well.
_STEPS: Final = {
    ActivityState.INITIALIZED: (ActivityState.NEW, ActivityEvent.INITIALIZE),
    ActivityState.DEPLOYED: (ActivityState.INITIALIZED, ActivityEvent.DEPLOY),
    ActivityState.READY: (ActivityState.DEPLOYED, ActivityEvent.START),
}


class Activity:
    """One activity.

    `lost` is resolved, with the cause, when it ends without having been asked to. `last_sign` is when there
    was last a sign of life, by the monotonic clock.

    Args:
        heed: called before the activity is said to be lost; returns when the end of its agreement, if that is
            the reason, has been told.
    """

    def __init__(
        self,
        activity_id: ActivityId,
        agreement: Agreement,
        api: ActivityApi,
        *,
        heed: Heed,
        clock: Clock,
        bus: Bus,
    ) -> None:
        self.id = activity_id
        self.agreement = agreement
        self.state: ActivityState = ACTIVITY.initial
        self.lost: asyncio.Future[Cause] = asyncio.get_running_loop().create_future()
        self.last_sign = clock.monotonic()
        self.on_contact: Callable[[bool, str], None] | None = None
        self._api, self._heed, self._clock, self._bus = api, heed, clock, bus
        self._origin: ActivityState | None = None
        self._usage: tuple[float, ...] = ()

    # --- who it is

    @property
    def subject(self) -> str:
        """Kind and id, for messages."""
        return f"activity {self.id}"

    @property
    def provider_id(self) -> NodeId:
        """Node id of the provider."""
        return self.agreement.provider_id

    @property
    def provider_name(self) -> str:
        """The name it gives itself; not unique."""
        return self.agreement.provider_name

    # --- its machine

    @property
    def was_initialized(self) -> bool:
        """Guard: contact was lost while Initialized."""
        return self._origin is ActivityState.INITIALIZED

    @property
    def was_deployed(self) -> bool:
        """Guard: contact was lost while Deployed."""
        return self._origin is ActivityState.DEPLOYED

    @property
    def was_ready(self) -> bool:
        """Guard: contact was lost while Ready."""
        return self._origin is ActivityState.READY

    def left(self, move: Move[ActivityState, ActivityEvent], cause: Cause) -> None:
        """Exit hook: nothing depends on it."""

    def entered(self, move: Move[ActivityState, ActivityEvent], cause: Cause) -> None:
        """Entry hook: remember where contact was lost, and tell of the end."""
        if move.dest is ActivityState.UNRESPONSIVE:
            self._origin = move.source
        if move.dest is ActivityState.TERMINATED:
            by = "Requestor" if cause.actor is Actor.ENGINE else "Provider"
            self._bus.emit(ActivityEnded(at=self._clock.now(), activity=self.id, by=by, reason=cause.reason))
            if self.lost.done():
                return
            if cause.actor is Actor.PROVIDER:
                self.lost.set_result(cause)
            else:
                self.lost.cancel()

    def fire(self, event: ActivityEvent, cause: Cause) -> bool:
        """Apply an event (see `Machine.fire`)."""
        return MACHINE.fire(self, event, cause)

    # --- what is learnt of it

    @property
    def loss(self) -> Cause | None:
        """Why it is gone; None while it can be talked to."""
        if self.lost.done() and not self.lost.cancelled():
            return self.lost.result()
        if self.state is ActivityState.TERMINATED:
            return Cause(Actor.PROVIDER, "it has been destroyed")
        return None

    def sign_of_life(self) -> None:
        """The provider has just been heard."""
        self.last_sign = self._clock.monotonic()
        if self.fire(ActivityEvent.REGAIN_CONTACT, Cause(Actor.PROBE, "it answers again")):
            self._tell_contact(True, "it answers again")

    def silent(self, reason: str) -> None:
        """The provider has not been heard for longer than allowed."""
        if self.fire(ActivityEvent.LOSE_CONTACT, Cause(Actor.PROBE, reason)):
            self._tell_contact(False, reason)

    def _tell_contact(self, contact: bool, reason: str) -> None:
        if self.on_contact is not None:
            self.on_contact(contact, reason)

    def lose(self, reason: str, error: BaseException | None = None) -> None:
        """It is gone, without having been asked to."""
        self.fire(ActivityEvent.DESTROY, Cause(Actor.PROVIDER, reason, error))

    async def found_gone(self, reason: str, error: BaseException | None = None) -> None:
        """Somebody has found that it is gone: lose it, unless its agreement's end accounts for that first."""
        await self._heed(self.agreement)
        self.lose(reason, error)

    async def examine(self) -> str | None:
        """Ask the node whether it is gone, and return the reason if so; tells nobody. Raises `NodeError`."""
        try:
            doc = await self._api.activity_state(self.id)
        except (NotFound, Gone):
            return "the node does not know the activity any more"
        return self._gone_by(doc)

    async def observe(self) -> ActivityStateDoc:
        """Ask the node where it is, and believe the answer's value. Raises `NodeError`."""
        doc = await self._api.activity_state(self.id)
        if (gone := self._gone_by(doc)) is not None:
            await self.found_gone(gone)
        elif doc.state[0] == ActivityState.UNRESPONSIVE.value:
            self.silent("the node reports the activity as unresponsive")
        else:
            self.sign_of_life()
        return doc

    def _gone_by(self, doc: ActivityStateDoc) -> str | None:
        # What is on its way to its end takes no command any more.
        if ActivityState.TERMINATED.value not in doc.state:
            return None
        said = doc.error_message or doc.reason
        return f"the activity has terminated{f': {said}' if said else ''}"

    def reached(self, state: ActivityState) -> None:
        """A command of a script brought it to a state."""
        source, event = _STEPS[state]
        if self.state is source:
            self.fire(event, Cause(Actor.PROVIDER, "a command succeeded"))

    def taken_down(self) -> None:
        """A command of a script took the runtime down; it can be deployed again."""
        if self.state in (ActivityState.DEPLOYED, ActivityState.READY):
            self.fire(ActivityEvent.TERMINATE, Cause(Actor.PROVIDER, "a command succeeded"))

    # --- what it costs

    async def usage(self) -> Mapping[str, float]:
        """Counters used so far, by name; empty before the provider's first report. Raises `NodeError`."""
        doc = await self._api.activity_usage(self.id)
        if doc.current_usage is not None:
            self._usage = tuple(doc.current_usage)
        return dict(zip(self.agreement.terms.counters, self._usage, strict=False))

    async def cost(self) -> Decimal:
        """What it has cost so far, in GLM: usage times agreed price. Raises `NodeError`."""
        await self.usage()
        return self.agreement.terms.cost(self._usage)

    # --- its end

    async def destroy(self) -> None:
        """End it. Harmless where it has ended. Raises `NodeError` where the node cannot be told."""
        if self.state is ActivityState.TERMINATED and self.lost.cancelled():
            return
        try:
            await persist(
                lambda: self._api.destroy_activity(self.id, timeout=DESTROY_SECONDS),
                clock=self._clock,
                within=DESTROY_SECONDS,
            )
        except (NotFound, Gone):
            # Gone is what it shall be.
            pass
        self.abandon("no longer needed")

    def abandon(self, reason: str) -> None:
        """It is nobody's any more: destroyed, or without an agreement, which makes its provider end it."""
        self.fire(ActivityEvent.DESTROY, Cause(Actor.ENGINE, reason))


async def create_activity(
    agreement: Agreement, api: ActivityApi, *, heed: Heed, clock: Clock, bus: Bus
) -> Activity:
    """Create an activity under an approved agreement. Raises `ActivityRefused`."""
    try:
        # A call whose answer was lost may have made one, which the agreement's end destroys.
        activity_id = await insist(
            lambda: api.create_activity(agreement.id, timeout=CREATE_SECONDS),
            clock=clock,
            within=CREATE_SECONDS,
        )
    except NodeError as error:
        raise ActivityRefused(
            agreement.provider_id, agreement.provider_name, f"no activity: {error}"
        ) from error
    activity = Activity(activity_id, agreement, api, heed=heed, clock=clock, bus=bus)
    activity.fire(ActivityEvent.INITIALIZE, Cause(Actor.PROVIDER, "created"))
    bus.emit(ActivityCreated(at=clock.now(), activity=activity_id, agreement=agreement.id))
    return activity
