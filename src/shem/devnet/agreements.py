"""Agreements: made of proposals, confirmed by requestors, approved or rejected by providers, ended by either.

States are moved by the table of `shem.lifecycle` only. What a provider does under an agreement belongs to
`provider` and `engagement`.

Source: contract 3.3.5 to 3.3.7.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Protocol

from shem.clock import Clock
from shem.devnet.background import Background, Timer
from shem.devnet.eventlog import EventLog, EventTimes
from shem.devnet.market import ROOT, Market, Proposal, ProposalState
from shem.devnet.refusals import bad_request, not_found, timed_out, unreachable
from shem.devnet.waiting import Bell
from shem.errors import Gone
from shem.ids import AgreementId, DemandId, NodeId, ProposalId
from shem.lifecycle import AGREEMENT, Actor, AgreementEvent, AgreementState, Cause, Machine, Move
from shem.yagna import models as wire

_MACHINE: Final = Machine(AGREEMENT)
_NEVER = (AgreementState.REJECTED, AgreementState.CANCELLED, AgreementState.EXPIRED)


class AgreementParty(Protocol):
    """A provider, as agreements see it."""

    @property
    def reachable(self) -> bool:
        """Whether messages get through to it."""

    def confirmed(self, agreement: Agreement) -> None:
        """A requestor sent it an agreement; it is to approve or reject it later."""

    def ended(self, agreement: Agreement) -> None:
        """An agreement with it reached a final state."""


class Agreement:
    """One agreement between a requestor and a provider."""

    def __init__(
        self, identifier: AgreementId, draft: Proposal, valid_to: datetime, timestamp: datetime
    ) -> None:
        assert draft.previous is not None  # the market gives out negotiated drafts only
        self.id = identifier
        self.state: AgreementState = AGREEMENT.initial
        self.draft, self.requestor_draft = draft, draft.previous
        self.valid_to, self.timestamp = valid_to, timestamp
        self.approved_at: datetime | None = None
        self.session: str | None = None
        self.reason: wire.Reason | None = None
        self.termination: wire.AgreementTerminatedEvent | None = None
        self.bell = Bell()
        self.expiry: Timer | None = None

    @property
    def subject(self) -> str:
        """Kind and id, for messages."""
        return f"agreement {self.id}"

    @property
    def requestor(self) -> NodeId:
        """Who rents."""
        return self.draft.demand.owner

    @property
    def provider(self) -> NodeId:
        """Who is rented from."""
        return self.draft.issuer

    @property
    def ended(self) -> bool:
        """Whether it is in a final state."""
        return self.state in AGREEMENT.final

    def left(self, _move: Move[AgreementState, AgreementEvent], _cause: Cause) -> None:
        """Hook of the machine: nothing to do."""

    def entered(self, move: Move[AgreementState, AgreementEvent], _cause: Cause) -> None:
        """Hook of the machine: only an agreement that waits for an approval can expire."""
        self.bell.ring()
        if move.dest not in (AgreementState.PROPOSAL, AgreementState.PENDING) and self.expiry is not None:
            self.expiry.cancel()

    def document(self) -> wire.AgreementDoc:
        """The agreement as the REST API shows it."""
        draft, theirs = self.draft, self.requestor_draft
        return wire.AgreementDoc(
            agreement_id=self.id,
            demand=wire.AgreementDemand(
                properties=dict(theirs.properties),
                constraints=theirs.constraints,
                demand_id=DemandId(draft.demand.id),
                requestor_id=self.requestor,
                timestamp=draft.demand.timestamp,
            ),
            offer=wire.AgreementOffer(
                properties=dict(draft.properties),
                constraints=draft.constraints,
                offer_id=draft.offer.id,
                provider_id=self.provider,
                timestamp=draft.offer.timestamp,
            ),
            valid_to=self.valid_to,
            state=self.state.value,
            timestamp=self.timestamp,
            approved_date=self.approved_at,
            app_session_id=self.session,
        )


class Agreements:
    """All agreements of one node. `parties` are its providers; the node fills it."""

    def __init__(self, clock: Clock, times: EventTimes, background: Background, market: Market) -> None:
        self.parties: dict[NodeId, AgreementParty] = {}
        self._clock, self._times = clock, times
        self._background, self._market = background, market
        self._agreements: dict[AgreementId, Agreement] = {}
        self._log: EventLog[wire.AgreementEvent] = EventLog()

    # --- the requestor's side -------------------------------------------------------------------------

    def create(self, who: NodeId, proposal_id: ProposalId, valid_to: datetime) -> AgreementId:
        """Make an agreement of a provider's draft; it expires at `valid_to` unless approved.

        Raises `BadRequest` where the proposal does not allow it (see `Market.draft_for_agreement`) or
        `valid_to` has passed.
        """
        call = f"POST {ROOT}/agreements"
        now = self._clock.now()
        if valid_to <= now:
            raise bad_request(call, f"Agreement's validTo {valid_to.isoformat()} is not in the future.")
        draft = self._market.draft_for_agreement(call, who, proposal_id)
        agreement = Agreement(
            AgreementId(self._clock.unique_id() + self._clock.unique_id()), draft, valid_to, now
        )
        draft.agreement_id = agreement.id
        draft.state = ProposalState.ACCEPTED
        self._agreements[agreement.id] = agreement
        agreement.expiry = self._background.later((valid_to - now).total_seconds(), self._expire, agreement)
        return agreement.id

    def agreement(self, who: NodeId, agreement_id: AgreementId) -> wire.AgreementDoc:
        """One agreement with both sides' properties. Raises `NotFound`."""
        return self.find(f"GET {ROOT}/agreements/{agreement_id}", who, agreement_id).document()

    def entries(
        self,
        who: NodeId,
        *,
        state: str | None = None,
        before: datetime | None = None,
        after: datetime | None = None,
        session: str | None = None,
    ) -> list[wire.AgreementEntry]:
        """Agreements of a requestor, by state, time of making and session."""
        return [
            wire.AgreementEntry(id=one.id, timestamp=one.timestamp, approved_date=one.approved_at)
            for one in self._agreements.values()
            if one.requestor == who
            and (state is None or one.state.value == state)
            and (before is None or one.timestamp < before)
            and (after is None or one.timestamp > after)
            and (session is None or one.session == session)
        ]

    def confirm(self, who: NodeId, agreement_id: AgreementId, session: str | None) -> None:
        """Send an agreement to its provider.

        Raises `Gone` in any state but Proposal, `NodeFailure` where the provider cannot be reached.
        """
        call = f"POST {ROOT}/agreements/{agreement_id}/confirm"
        agreement = self.find(call, who, agreement_id)
        if agreement.state is not AgreementState.PROPOSAL:
            raise _wrong_state(call, agreement)
        party = self.parties[agreement.provider]
        if not party.reachable:
            raise unreachable(call, f"/net/{agreement.provider}/market/protocol")
        agreement.session = session
        _MACHINE.fire(agreement, AgreementEvent.CONFIRM, Cause(Actor.ENGINE))
        party.confirmed(agreement)

    async def wait(self, who: NodeId, agreement_id: AgreementId, *, timeout: float) -> None:
        """Return once approved.

        Raises `RequestTimeout` when there is no decision yet, `Gone` when it is rejected, cancelled or
        expired, `BadRequest` where it is not confirmed or was terminated.
        """
        call = f"POST {ROOT}/agreements/{agreement_id}/wait"
        agreement = self.find(call, who, agreement_id)
        await agreement.bell.until(lambda: agreement.state is not AgreementState.PENDING, timeout)
        if agreement.state is AgreementState.APPROVED:
            return
        if agreement.state is AgreementState.PENDING:
            raise timed_out(call, "Timeout while waiting for Agreement approval.")
        if agreement.state in _NEVER:
            raise Gone(call, 410, agreement.state.value)
        raise bad_request(call, f"Agreement [{agreement_id}] is in state {agreement.state.value}.")

    def cancel(self, who: NodeId, agreement_id: AgreementId, reason: wire.Reason) -> None:
        """Take an agreement back before it is approved. Raises `Gone` where it is too late."""
        call = f"POST {ROOT}/agreements/{agreement_id}/cancel"
        agreement = self.find(call, who, agreement_id)
        if not _MACHINE.fire(agreement, AgreementEvent.CANCEL, Cause(Actor.ENGINE, reason.message)):
            raise _wrong_state(call, agreement)
        self._close(agreement, reason)
        self._log.append(
            wire.AgreementCancelledEvent(
                agreement_id=agreement.id, event_date=self._times.next(), reason=agreement.reason
            )
        )

    def terminate(self, who: NodeId, agreement_id: AgreementId, reason: wire.Reason) -> None:
        """End an approved agreement.

        Raises `BadRequest` (409) where it was not even confirmed, `Gone` in any other state.
        """
        call = f"POST {ROOT}/agreements/{agreement_id}/terminate"
        agreement = self.find(call, who, agreement_id)
        if agreement.state is AgreementState.PROPOSAL:
            raise bad_request(call, f"Agreement [{agreement_id}] is in state Proposal.", status=409)
        if agreement.state is not AgreementState.APPROVED:
            raise _wrong_state(call, agreement)
        self._terminate(agreement, Actor.ENGINE, "Requestor", reason)

    def termination(self, who: NodeId, agreement_id: AgreementId) -> wire.AgreementTerminatedEvent:
        """How an agreement was terminated. Raises `BadRequest` where it was not."""
        call = f"GET {ROOT}/agreements/{agreement_id}/terminate/reason"
        agreement = self.find(call, who, agreement_id)
        event = agreement.termination
        if event is None:
            raise bad_request(call, f"Agreement [{agreement_id}] is in state {agreement.state.value}.")
        return event

    async def events(
        self,
        who: NodeId,
        *,
        after: datetime | None,
        timeout: float,
        session: str | None = None,
        max_events: int | None = None,
    ) -> list[wire.AgreementEvent]:
        """Events of a requestor's agreements strictly later than `after`, perhaps of one session only."""

        def wanted(event: wire.AgreementEvent) -> bool:
            agreement = self._agreements[event.agreement_id]
            return agreement.requestor == who and (session is None or agreement.session == session)

        return await self._log.after(after, wanted, timeout=timeout, max_events=max_events)

    # --- the provider's side --------------------------------------------------------------------------

    def approve(self, agreement: Agreement) -> bool:
        """The provider approves; False where the requestor or the clock was faster."""
        if not _MACHINE.fire(agreement, AgreementEvent.APPROVE, Cause(Actor.PROVIDER)):
            return False
        agreement.approved_at = self._clock.now()
        self._log.append(
            wire.AgreementApprovedEvent(agreement_id=agreement.id, event_date=self._times.next())
        )
        return True

    def reject(self, agreement: Agreement, reason: wire.Reason) -> bool:
        """The provider rejects; False where the requestor or the clock was faster."""
        if not _MACHINE.fire(agreement, AgreementEvent.REJECT, Cause(Actor.PROVIDER, reason.message)):
            return False
        self._close(agreement, reason)
        self._log.append(
            wire.AgreementRejectedEvent(
                agreement_id=agreement.id, event_date=self._times.next(), reason=agreement.reason
            )
        )
        return True

    def terminate_by_provider(self, agreement: Agreement, reason: wire.Reason) -> bool:
        """The provider ends an approved agreement; False where it has ended already."""
        if agreement.state is not AgreementState.APPROVED:
            return False
        self._terminate(agreement, Actor.PROVIDER, "Provider", reason)
        return True

    # --- both sides -----------------------------------------------------------------------------------

    def find(self, call: str, who: NodeId, agreement_id: AgreementId) -> Agreement:
        """One agreement of a requestor. Raises `NotFound`."""
        agreement = self._agreements.get(agreement_id)
        if agreement is None or agreement.requestor != who:
            raise not_found(call, f"Agreement [{agreement_id}] not found.")
        return agreement

    def get(self, agreement_id: AgreementId) -> Agreement | None:
        """One agreement, whoever made it, or None."""
        return self._agreements.get(agreement_id)

    def close(self) -> None:
        """End the polls that wait for events."""
        self._log.close()

    def all(self) -> list[Agreement]:
        """Every agreement there ever was, oldest first."""
        return list(self._agreements.values())

    def _terminate(self, agreement: Agreement, actor: Actor, terminator: str, reason: wire.Reason) -> None:
        _MACHINE.fire(agreement, AgreementEvent.TERMINATE, Cause(actor, reason.message))
        self._close(agreement, reason)
        agreement.termination = wire.AgreementTerminatedEvent(
            agreement_id=agreement.id,
            event_date=self._times.next(),
            terminator=terminator,
            reason=agreement.reason,
            signature="NoSignature",
        )
        self._log.append(agreement.termination)

    def _expire(self, agreement: Agreement) -> None:
        if _MACHINE.fire(agreement, AgreementEvent.EXPIRE, Cause(Actor.CLOCK)):
            self._close(agreement, wire.Reason(message="Agreement expired before it was approved"))

    def _close(self, agreement: Agreement, reason: wire.Reason) -> None:
        agreement.reason = with_message(reason)
        self.parties[agreement.provider].ended(agreement)


def with_message(reason: wire.Reason) -> wire.Reason:
    """A reason that says something: clients read its message unguarded (contract 3.3.7)."""
    if reason.message:
        return reason
    return wire.Reason(
        message="no reason given",
        requestor_code=reason.requestor_code,
        provider_code=reason.provider_code,
        is_final=reason.is_final,
    )


def _wrong_state(call: str, agreement: Agreement) -> Gone:
    return Gone(call, 410, f"Agreement [{agreement.id}] is in state {agreement.state.value}.")
