"""Agreements: signing them, ending them, and hearing when the other side ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from shem.bus import Bus
from shem.clock import Clock
from shem.engine.cleanup import Leftovers, make, see_through
from shem.engine.polling import POLL_SECONDS, persist
from shem.engine.strategy import Offer
from shem.engine.terms import Terms
from shem.errors import AgreementRefused, Gone, NodeError, NodeUnavailable
from shem.events import AgreementEnded, AgreementFailed, AgreementSigned
from shem.ids import AgreementId, AppSessionId, NodeId
from shem.lifecycle import AGREEMENT, Actor, AgreementEvent, AgreementState, Cause, Machine, Move
from shem.yagna.api import MarketApi
from shem.yagna.models import AgreementTerminatedEvent, Reason

#: Finds out what an agreement's end did to its activities, and returns a function that tells of it.
Look: TypeAlias = Callable[["Agreement"], Awaitable[Callable[[], None]]]

MACHINE: Final[Machine[AgreementState, AgreementEvent]] = Machine(AGREEMENT)


@dataclass(frozen=True, slots=True)
class SigningPace:
    """How long things may take, in seconds.

    `approval`: the provider's decision. `end`: ending an agreement when it is not wanted any more. `news`:
    how long the event of an agreement's end is waited for once its end is known.
    """

    approval: float = 60.0
    end: float = 10.0
    news: float = 3.0


class Agreement:
    """One agreement with a provider.

    `ended` is resolved, with the cause, when the provider ends it.
    """

    def __init__(self, agreement_id: AgreementId, offer: Offer) -> None:
        self.id = agreement_id
        self.provider_id: NodeId = offer.provider_id
        self.provider_name = offer.provider_name
        self.terms: Terms = offer.terms
        self.state: AgreementState = AGREEMENT.initial
        self.ended: asyncio.Future[Cause] = asyncio.get_running_loop().create_future()

    @property
    def subject(self) -> str:
        """Kind and id, for messages."""
        return f"agreement {self.id}"

    def left(self, move: Move[AgreementState, AgreementEvent], cause: Cause) -> None:
        """Exit hook: nothing depends on it."""

    def entered(self, move: Move[AgreementState, AgreementEvent], cause: Cause) -> None:
        """Entry hook: tell whoever waits for the end."""
        if self.state in AGREEMENT.final and not self.ended.done():
            if cause.actor is Actor.PROVIDER:
                self.ended.set_result(cause)
            else:
                self.ended.cancel()

    def fire(self, event: AgreementEvent, cause: Cause) -> bool:
        """Apply an event (see `Machine.fire`)."""
        return MACHINE.fire(self, event, cause)


class Agreements:
    """All agreements of one run, with the one poll that hears of their ends."""

    def __init__(
        self,
        api: MarketApi,
        session: AppSessionId,
        *,
        clock: Clock,
        bus: Bus,
        since: datetime,
        leftovers: Leftovers,
        pace: SigningPace | None = None,
    ) -> None:
        self._api, self._session, self._leftovers = api, session, leftovers
        self._clock, self._bus, self._pace = clock, bus, pace or SigningPace()
        self._after = since
        self._live: dict[AgreementId, Agreement] = {}

    @property
    def live(self) -> tuple[Agreement, ...]:
        """Agreements that were approved and have not ended."""
        return tuple(self._live.values())

    # --- signing

    async def sign(self, draft: Offer, *, valid_for: timedelta) -> Agreement:
        """Make an agreement of a provider's draft and wait for the approval.

        Raises `AgreementRefused`; then, and when cancelled, no agreement is left behind.
        """
        try:
            agreement = await self._make(draft, valid_for)
        except NodeError as error:
            raise self._refused(draft, f"it could not be made: {error}") from error
        try:
            await self._confirm(agreement)
        except BaseException as error:
            await self._withdraw(agreement)
            if isinstance(error, NodeError | TimeoutError):
                raise self._refused(draft, _words(error)) from error
            raise
        self._live[agreement.id] = agreement
        self._bus.emit(
            AgreementSigned(
                at=self._clock.now(),
                agreement=agreement.id,
                provider=agreement.provider_id,
                provider_name=agreement.provider_name,
            )
        )
        return agreement

    async def _make(self, draft: Offer, valid_for: timedelta) -> Agreement:
        valid_to = self._clock.now() + valid_for
        # Where a lost answer hides a success the second call is refused; nobody knows that agreement then,
        # but it costs nothing, since it was never sent to the provider.
        agreement_id = await persist(
            lambda: self._create(draft, valid_to),
            clock=self._clock,
            within=self._pace.approval,
            on=(NodeUnavailable,),
        )
        return Agreement(agreement_id, draft)

    async def _create(self, draft: Offer, valid_to: datetime) -> AgreementId:
        return await make(
            f"make an agreement with {draft.provider_id}",
            lambda: self._api.create_agreement(draft.proposal.proposal_id, valid_to),
            lambda agreement_id: self._take_back(Agreement(agreement_id, draft)),
            within=self._pace.end,
            clock=self._clock,
            bus=self._bus,
        )

    async def _confirm(self, agreement: Agreement) -> None:
        async with asyncio.timeout(self._pace.approval):
            await persist(
                lambda: self._send(agreement),
                clock=self._clock,
                within=self._pace.approval,
                on=(NodeUnavailable,),
            )
            agreement.fire(AgreementEvent.CONFIRM, Cause(Actor.ENGINE, "sent to the provider"))
            await persist(lambda: self._approval(agreement), clock=self._clock, within=self._pace.approval)
        agreement.fire(AgreementEvent.APPROVE, Cause(Actor.PROVIDER, "approved"))

    async def _send(self, agreement: Agreement) -> None:
        try:
            await self._api.confirm_agreement(agreement.id, self._session)
        except Gone:
            # Sent before, and the answer was lost; or it has ended. Waiting for the approval will tell.
            return

    async def _approval(self, agreement: Agreement) -> None:
        try:
            await self._api.wait_for_approval(agreement.id, timeout=POLL_SECONDS)
        except Gone as error:
            agreement.fire(AgreementEvent.REJECT, Cause(Actor.PROVIDER, error.message))
            raise

    async def _withdraw(self, agreement: Agreement) -> None:
        """See to it that an agreement nobody wants costs nothing, even if it was approved meanwhile."""
        if agreement.state in AGREEMENT.final:
            return
        step = f"take back {agreement.subject}"
        try:
            await see_through(
                step,
                self._take_back(agreement),
                within=self._pace.end,
                clock=self._clock,
                bus=self._bus,
            )
        finally:
            if agreement.state not in AGREEMENT.final:
                self._leftovers.add(step, lambda: self._take_back(agreement))

    async def _take_back(self, agreement: Agreement) -> None:
        reason = Reason(message="No longer needed", requestor_code="Cancelled")
        try:
            await persist(
                lambda: self._api.cancel_agreement(agreement.id, reason),
                clock=self._clock,
                within=self._pace.end,
            )
        except NodeError:
            await persist(
                lambda: self._terminate(agreement.id, reason), clock=self._clock, within=self._pace.end
            )
        agreement.fire(AgreementEvent.CANCEL, Cause(Actor.ENGINE, reason.message))

    def _refused(self, draft: Offer, why: str) -> AgreementRefused:
        self._bus.emit(
            AgreementFailed(
                at=self._clock.now(),
                provider=draft.provider_id,
                provider_name=draft.provider_name,
                reason=why,
            )
        )
        return AgreementRefused(draft.provider_id, draft.provider_name, f"no agreement: {why}")

    # --- ending

    async def end(self, agreement: Agreement, reason: Reason) -> None:
        """End an agreement from our side. Harmless where it has ended.

        Raises `NodeError` where the node cannot be told.
        """
        self._live.pop(agreement.id, None)
        if agreement.state is not AgreementState.APPROVED:
            return
        await persist(lambda: self._terminate(agreement.id, reason), clock=self._clock, within=self._pace.end)
        self._ended(agreement, AgreementEvent.TERMINATE, Cause(Actor.ENGINE, reason.message), "Requestor")

    async def _terminate(self, agreement_id: AgreementId, reason: Reason) -> None:
        try:
            await self._api.terminate_agreement(agreement_id, reason)
        except Gone:
            # It has ended already, which is all that is wanted.
            return

    # --- hearing

    async def poll(self, look: Look) -> bool:
        """Hear the next events of this session's agreements; whether there were any.

        `look` is called for each agreement that the provider ended; what it returns is called once the end
        has been told.
        """
        events = await self._api.agreement_events(
            after=self._after, timeout=POLL_SECONDS, app_session_id=self._session
        )
        ended: dict[AgreementId, AgreementTerminatedEvent] = {}
        for event in events:
            self._after = max(self._after, event.event_date)
            if isinstance(event, AgreementTerminatedEvent) and event.terminator == "Provider":
                ended[event.agreement_id] = event
        await asyncio.gather(
            *(
                self._hear_end(self._live[key], event, look)
                for key, event in ended.items()
                if key in self._live
            )
        )
        return bool(events)

    async def heed(self, agreement: Agreement) -> None:
        """An activity is found gone: give the end of its agreement, where that is the reason, the first word.

        Returns once that has been told, or will not be.
        """
        if agreement.id not in self._live:
            return
        try:
            async with asyncio.timeout(self._pace.news):
                if (await self._api.agreement(agreement.id)).state == AgreementState.TERMINATED.value:
                    # Its event is on the way, and says who ended it and why.
                    await asyncio.wait([agreement.ended])
        except (NodeError, TimeoutError):
            return

    async def _hear_end(
        self,
        agreement: Agreement,
        event: AgreementTerminatedEvent,
        look: Look,
    ) -> None:
        tell_consequences = await look(agreement)
        self._live.pop(agreement.id, None)
        cause = Cause(Actor.PROVIDER, f"the provider ended the agreement: {_reason(event.reason)}")
        self._ended(agreement, AgreementEvent.TERMINATE, cause, "Provider")
        tell_consequences()

    def _ended(self, agreement: Agreement, event: AgreementEvent, cause: Cause, by: str) -> None:
        if not agreement.fire(event, cause):
            return
        self._bus.emit(
            AgreementEnded(
                at=self._clock.now(),
                agreement=agreement.id,
                provider=agreement.provider_id,
                by=by,
                reason=cause.reason,
            )
        )


def _reason(reason: Reason | None) -> str:
    if reason is None:
        return "no reason given"
    said = [reason.provider_code, reason.message]
    return ": ".join(part for part in said if part) or "no reason given"


def _words(error: BaseException) -> str:
    if isinstance(error, Gone):
        return f"the provider's answer was {error.message or 'no'}"
    if isinstance(error, TimeoutError):
        return "the provider did not answer in time"
    return str(error)
