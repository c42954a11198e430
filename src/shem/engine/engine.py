"""`Engine`: the machinery of one run, put together.

It owns the run's session, allocation and four background tasks: the polls for agreement events, debit notes
and invoices, and the liveness watch. Each outlives whatever the node answers; an end of one for any other
reason than `stop` is a bug and is logged as such.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from shem import props
from shem.bus import Bus
from shem.clock import Clock
from shem.config import PaymentSettings
from shem.engine.activity import CREATE_SECONDS, DESTROY_SECONDS, Activity, create_activity
from shem.engine.agreement import Agreement, Agreements, SigningPace
from shem.engine.cleanup import Leftovers, see_through
from shem.engine.lease import ActivityLease
from shem.engine.liveness import Liveness, LivenessPace
from shem.engine.market import Market, MarketPace
from shem.engine.payment import RELEASE_SECONDS, Payments, Tolerance
from shem.engine.polling import poll_for_ever
from shem.engine.strategy import LeastExpensive, Strategy
from shem.errors import NodeError
from shem.events import Phase, StepSkipped
from shem.ids import AppSessionId, NodeId
from shem.lifecycle import ActivityState
from shem.log import get_logger
from shem.payload import ImageRegistry, Payload
from shem.yagna.api import YagnaApi
from shem.yagna.models import DemandDecorations, Reason

#: How long an agreement may wait for its approval before it expires.
AGREEMENT_VALID_FOR = timedelta(hours=1)
#: Longest time, in seconds, a provider waits for a debit note to be accepted: what the demand asks for.
ACCEPT_NOTES_WITHIN = 120
#: Seconds between debit notes, and within which a payable one is to be paid: what the demand asks for.
#: Providers refuse runs of more than 10 hours that do not say (contract 4.6).
NOTES_EVERY = 120
PAY_WITHIN = 12 * 3600
#: How far before the first request events are asked for, since the node's clock may be behind ours.
CLOCK_SKEW = timedelta(minutes=5)

_log = get_logger("engine")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How a run is conducted. Times in seconds."""

    payment: PaymentSettings
    subnet: str = "public"
    strategy: Strategy = field(default_factory=LeastExpensive)
    market: MarketPace = field(default_factory=MarketPace)
    signing: SigningPace = field(default_factory=SigningPace)
    liveness: LivenessPace = field(default_factory=LivenessPace)
    tolerance: Tolerance = field(default_factory=Tolerance)
    offers_within: float = 300.0
    """How long an instance waits for an acceptable offer before that try counts as failed."""
    invoices_within: float = 30.0
    """How long `stop` waits for the last invoices."""


class Engine:
    """Everything below the service model, for one run on one node."""

    def __init__(
        self,
        api: YagnaApi,
        settings: EngineSettings,
        *,
        clock: Clock,
        bus: Bus,
        registry: ImageRegistry | None = None,
    ) -> None:
        self._api, self._settings = api, settings
        self._clock, self._bus, self._registry = clock, bus, registry
        self.session = AppSessionId(clock.unique_id())
        since = clock.now() - CLOCK_SKEW
        self._leftovers = Leftovers(clock)
        self.agreements = Agreements(
            api,
            self.session,
            clock=clock,
            bus=bus,
            since=since,
            leftovers=self._leftovers,
            pace=settings.signing,
        )
        self.payments = Payments(
            api,
            settings.payment,
            self.session,
            clock=clock,
            bus=bus,
            since=since,
            tolerance=settings.tolerance,
        )
        self._liveness = Liveness(api, lambda: self._activities, clock=clock, pace=settings.liveness)
        self._activities: list[Activity] = []
        self._decorations: DemandDecorations | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    # --- life

    async def start(self) -> None:
        """Log in, set the budget aside, begin to listen.

        Raises `NodeError` or `PaymentError`; then nothing is left behind.
        """
        me = await self._api.me()
        self._decorations = await self.payments.open(me.identity)
        self._run("agreement events", lambda: self.agreements.poll(self._look_at_activities))
        self._run("debit notes", self.payments.poll_debit_notes)
        self._run("invoices", self.payments.poll_invoices)
        self._own(self._liveness.watch(), "liveness")

    def _run(self, name: str, poll: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        self._own(poll_for_ever(name, poll, clock=self._clock, bus=self._bus), f"poll {name}")

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if self._stopping or task.cancelled():
            return
        _log.error("engine_task_ended", task=task.get_name(), error=repr(task.exception()))

    async def stop(self) -> None:
        """Wait for the last invoices, stop listening, give the allocation back.

        Idempotent and bounded; what had to be given up is reported as `StepSkipped`.
        """
        try:
            if not self._stopping and self._tasks:
                within = self._settings.invoices_within
                await asyncio.gather(self._leftovers.close(within), self._settle(within))
        finally:
            self._stopping = True
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._see_through(
                "release the allocation", self.payments.close(), within=RELEASE_SECONDS + 5
            )

    async def _settle(self, within: float) -> None:
        for account in await self.payments.settle(within):
            step = f"payment of agreement {account.agreement} with {account.provider}"
            reason = f"no invoice was to be had within {within:g} s"
            if account.unsure:
                reason = (
                    "no invoice came; perhaps the activity, whose making was cut short, never came to life"
                )
            self._bus.emit(StepSkipped(at=self._clock.now(), step=step, reason=reason))

    async def _see_through(self, step: str, work: Coroutine[Any, Any, Any], *, within: float) -> bool:
        return await see_through(step, work, within=within, clock=self._clock, bus=self._bus)

    # --- markets

    async def open_market(self, payload: Payload, expires: datetime) -> Market:
        """Publish what a cluster asks for. Raises `NodeError`, or `ConfigError` for an unknown image."""
        assert self._decorations is not None, "the engine has been started"
        properties, constraints = await payload.demand(self._registry)
        await self.payments.keep_until(expires)
        asked = {
            props.EXPIRATION: int(expires.timestamp() * 1000),
            props.MULTI_ACTIVITY: True,
            props.SUBNET: self._settings.subnet,
            props.DEBIT_NOTE_ACCEPT_TIMEOUT: ACCEPT_NOTES_WITHIN,
            props.DEBIT_NOTE_INTERVAL: NOTES_EVERY,
            props.PAYMENT_TIMEOUT: PAY_WITHIN,
            **{decoration.key: decoration.value for decoration in self._decorations.properties},
            **properties,
        }
        required = [
            props.compare(props.SUBNET, "=", self._settings.subnet),
            props.compare(props.PRICING_MODEL, "=", "linear"),
            *self._decorations.constraints,
            *constraints,
        ]
        market = Market(
            self._api,
            properties=asked,
            constraints=required,
            platform=self.payments.platform,
            expires=expires,
            strategy=self._settings.strategy,
            leftovers=self._leftovers,
            clock=self._clock,
            bus=self._bus,
            pace=self._settings.market,
        )
        await market.open()
        return market

    # --- leases

    async def acquire(
        self, market: Market, *, avoid: Collection[NodeId], progress: Callable[[Phase], None]
    ) -> ActivityLease:
        """An activity for one instance: an offer, its agreement, its activity.

        Raises `ProvisionError`; then, and when cancelled, nothing is left that costs money.
        """
        progress(Phase.NEGOTIATING)
        draft = await market.take(avoid=avoid, within=self._settings.offers_within)
        progress(Phase.AGREEMENT)
        agreement = await self.agreements.sign(draft, valid_for=AGREEMENT_VALID_FOR)
        progress(Phase.ACTIVITY)
        account = self.payments.account(agreement)
        try:
            activity = await create_activity(
                agreement, self._api, heed=self.agreements.heed, clock=self._clock, bus=self._bus
            )
        except BaseException:
            await self._end_agreement(agreement, Reason(message="No activity", requestor_code="Cancelled"))
            # If the call made one all the same, an invoice will come.
            await self._see_through(
                f"look what {agreement.subject} owes", self.payments.look_for_activities(account), within=5.0
            )
            raise
        account.learn(activity.id)
        self._activities.append(activity)
        return ActivityLease(activity, self._api, clock=self._clock)

    def seconds_for(self, phase: Phase) -> float:
        """How long `acquire` mostly takes at most for what it does in one of its phases."""
        return {
            Phase.NEGOTIATING: self._settings.offers_within,
            Phase.AGREEMENT: self._settings.signing.approval,
            Phase.ACTIVITY: CREATE_SECONDS,
        }[phase]

    async def release(self, lease: ActivityLease, reason: Reason) -> bool:
        """Give a lease back: destroy the activity, end the agreement. Bounded; True where both succeeded."""
        lease.on_contact(None)
        activity = lease.activity
        # First, so that nobody finds it gone while it is being destroyed.
        if activity in self._activities:
            self._activities.remove(activity)
        destroyed = activity.state is ActivityState.TERMINATED or await self._give_back(
            f"destroy {activity.subject}", activity.destroy, within=DESTROY_SECONDS + 5
        )
        ended = await self._end_agreement(lease.agreement, reason)
        if ended and not destroyed:
            activity.abandon("its agreement has ended, but its provider did not answer")
        return ended and destroyed

    async def _end_agreement(self, agreement: Agreement, reason: Reason) -> bool:
        return await self._give_back(
            f"end {agreement.subject}",
            lambda: self.agreements.end(agreement, reason),
            within=self._settings.signing.end + 5,
        )

    async def _give_back(
        self, step: str, work: Callable[[], Coroutine[Any, Any, None]], within: float
    ) -> bool:
        done = False
        try:
            done = await self._see_through(step, work(), within=within)
        finally:
            if not done:
                self._leftovers.add(step, work)
        return done

    async def _look_at_activities(self, agreement: Agreement) -> Callable[[], None]:
        """An agreement was ended by its provider: learn what that did to its activities.

        What is found is told by the function returned, so that the agreement's end is heard of before its
        consequences.
        """
        activities = [a for a in self._activities if a.agreement is agreement]
        losses = await asyncio.gather(*(self._examine(activity) for activity in activities))

        def tell() -> None:
            for activity, loss in zip(activities, losses, strict=True):
                if loss is not None:
                    activity.lose(loss)

        return tell

    async def _examine(self, activity: Activity) -> str | None:
        try:
            async with asyncio.timeout(self._settings.liveness.answer):
                return await activity.examine()
        except (NodeError, TimeoutError) as error:
            # Not knowing counts as gone: a handler that is started on it would only fail.
            return f"it does not answer any more, and its agreement has ended: {error}"
