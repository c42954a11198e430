"""The market: demands, offers, and the proposals that go back and forth between them.

A pair of demand and offer matches when each one's constraints hold for the other's properties. What a
provider answers is the provider's business (`negotiation`); agreements are made of proposals in `agreements`.

Source: contract 3.3.1 to 3.3.4, 4.3.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from shem.clock import Clock
from shem.devnet.background import Background, Timer
from shem.devnet.constraints import ConstraintError, matches, parse
from shem.devnet.eventlog import EventTimes
from shem.devnet.properties import flatten
from shem.devnet.refusals import bad_request, not_found, unreachable
from shem.devnet.settings import Timings
from shem.devnet.waiting import Bell
from shem.errors import Gone, NodeFailure, Unauthorized
from shem.ids import AgreementId, DemandId, NodeId, ProposalId
from shem.yagna import models as wire

ROOT = "/market-api/v1"
#: Most events that one poll may ask for (contract 3.3.3).
MAX_EVENTS = 100


class OfferOwner(Protocol):
    """A provider, as the market sees it."""

    @property
    def node_id(self) -> NodeId:
        """Its id on the network."""

    @property
    def reachable(self) -> bool:
        """Whether messages get through to it."""

    def countered(self, proposal: Proposal) -> None:
        """A requestor answered one of its proposals; it is to answer later."""


class ProposalState(enum.Enum):
    """State of a proposal; the values are the node's words."""

    INITIAL = "Initial"
    DRAFT = "Draft"
    REJECTED = "Rejected"
    ACCEPTED = "Accepted"
    EXPIRED = "Expired"


@dataclass(slots=True, eq=False)
class Offer:
    """What a provider has published."""

    id: str
    owner: OfferOwner
    properties: dict[str, Any]
    constraints: str
    timestamp: datetime


@dataclass(slots=True, eq=False)
class Demand:
    """What a requestor has published, its negotiations, and the events that it has not fetched yet."""

    id: DemandId
    owner: NodeId
    properties: dict[str, Any]
    constraints: str
    timestamp: datetime
    subscribed: bool = True
    expired: bool = False
    proposals: list[Proposal] = field(default_factory=list)
    events: deque[wire.DemandEvent] = field(default_factory=deque)
    bell: Bell = field(default_factory=Bell)
    lifetime: Timer | None = None


@dataclass(slots=True, eq=False)
class Proposal:
    """One step of a negotiation, made by either side.

    Attributes:
        previous: the proposal that it answers, None for an initial one.
        answered: whether a counter-proposal was made to it.
        agreement_id: the agreement that was made of it.
    """

    id: ProposalId
    demand: Demand
    offer: Offer
    issuer: NodeId
    state: ProposalState
    properties: dict[str, Any]
    constraints: str
    timestamp: datetime
    previous: Proposal | None = None
    answered: bool = False
    agreement_id: AgreementId | None = None

    @property
    def by_provider(self) -> bool:
        """Whether the provider made it."""
        return self.issuer == self.offer.owner.node_id

    def document(self) -> wire.Proposal:
        """The proposal as the requestor sees it."""
        return wire.Proposal(
            proposal_id=self.id,
            issuer_id=self.issuer,
            state=self.state.value,
            timestamp=self.timestamp,
            properties=dict(self.properties),
            constraints=self.constraints,
            prev_proposal_id=self.previous.id if self.previous is not None else None,
        )


class Market:
    """All demands, offers and proposals of one node."""

    def __init__(self, clock: Clock, times: EventTimes, background: Background, timings: Timings) -> None:
        self._clock, self._times = clock, times
        self._background, self._timings = background, timings
        self._demands: dict[DemandId, Demand] = {}
        self._offers: dict[str, Offer] = {}
        self._proposals: dict[ProposalId, Proposal] = {}

    # --- the requestor's side -------------------------------------------------------------------------

    def subscribe(self, who: NodeId, spec: wire.DemandSpec) -> DemandId:
        """Publish a demand. Raises `BadRequest` where its constraints are none."""
        call = f"POST {ROOT}/demands"
        constraints = _checked(call, spec.constraints)
        demand = Demand(
            DemandId(self._subscription_id()), who, flatten(spec.properties), constraints, self._clock.now()
        )
        self._demands[demand.id] = demand
        demand.lifetime = self._background.later(self._timings.demand_lifetime, self._expire, demand)
        self._background.later(self._timings.match, self._match, demand)
        return demand.id

    def unsubscribe(self, who: NodeId, demand_id: DemandId) -> None:
        """Withdraw a demand and end its pending polls. Raises `NotFound`."""
        demand = self._demand(f"DELETE {ROOT}/demands/{demand_id}", who, demand_id)
        self._close(demand)

    def demands(self, who: NodeId) -> list[wire.AgreementDemand]:
        """The demands that are published."""
        return [
            wire.AgreementDemand(
                properties=dict(demand.properties),
                constraints=demand.constraints,
                demand_id=demand.id,
                requestor_id=demand.owner,
                timestamp=demand.timestamp,
            )
            for demand in self.subscribed()
            if demand.owner == who
        ]

    async def demand_events(
        self, who: NodeId, demand_id: DemandId, *, timeout: float, max_events: int = 20
    ) -> list[wire.DemandEvent]:
        """Next events of a demand, each given out once; waits up to `timeout` for the first.

        Raises `NotFound` as soon as the demand is gone, `BadRequest` for a `max_events` outside 1 to 100.
        """
        call = f"GET {ROOT}/demands/{demand_id}/events"
        if not 1 <= max_events <= MAX_EVENTS:
            raise bad_request(
                call, f"Invalid maxEvents '{max_events}', should be between 1 and {MAX_EVENTS}."
            )
        demand = self._demand(call, who, demand_id)
        await demand.bell.until(lambda: bool(demand.events) or not demand.subscribed, timeout)
        self._demand(call, who, demand_id)
        return [demand.events.popleft() for _ in range(min(max_events, len(demand.events)))]

    def proposal(self, who: NodeId, demand_id: DemandId, proposal_id: ProposalId) -> wire.Proposal:
        """One proposal of a demand. Raises `NotFound`."""
        call = f"GET {ROOT}/demands/{demand_id}/proposals/{proposal_id}"
        return self._proposal(call, self._demand(call, who, demand_id), proposal_id).document()

    def counter(
        self, who: NodeId, demand_id: DemandId, proposal_id: ProposalId, spec: wire.DemandSpec
    ) -> ProposalId:
        """Answer a provider's proposal; its reply comes as an event.

        Raises `BadRequest` for an own or rejected proposal and where the two do not match, `Gone` where it
        was answered already or the demand expired, `NodeFailure` where the provider cannot be reached.
        """
        call = f"POST {ROOT}/demands/{demand_id}/proposals/{proposal_id}"
        constraints = _checked(call, spec.constraints)
        gone = self._demands.get(demand_id)
        if gone is not None and gone.expired:
            raise Gone(call, 410, f"Subscription [{demand_id}] expired.")
        demand = self._demand(call, who, demand_id)
        answered = self._proposal(call, demand, proposal_id)
        if not answered.by_provider:
            raise bad_request(call, f"Proposal [{proposal_id}] is your own, it cannot be countered.")
        if answered.answered:
            raise Gone(call, 410, f"Proposal [{proposal_id}] was already countered.")
        if answered.state not in (ProposalState.INITIAL, ProposalState.DRAFT):
            raise bad_request(call, f"Proposal [{proposal_id}] is {answered.state.value}.")
        properties = flatten(spec.properties)
        self._check_match(call, answered, properties, constraints)
        if not answered.offer.owner.reachable:
            raise unreachable(call, f"/net/{answered.issuer}/market/protocol")
        answered.answered = True
        proposal = self._new_proposal(
            demand, answered.offer, who, ProposalState.DRAFT, properties, constraints, answered
        )
        answered.offer.owner.countered(proposal)
        return proposal.id

    def reject(self, who: NodeId, demand_id: DemandId, proposal_id: ProposalId) -> None:
        """Refuse a provider's proposal.

        Raises `BadRequest` for an own one and `NodeFailure` where it is unknown or was answered, as the
        contract has it (3.3).
        """
        call = f"POST {ROOT}/demands/{demand_id}/proposals/{proposal_id}/reject"
        demand = self._demand(call, who, demand_id)
        proposal = self._proposals.get(proposal_id)
        if proposal is None or proposal.demand is not demand:
            raise NodeFailure(call, 500, f"Proposal [{proposal_id}] not found.")
        if not proposal.by_provider:
            raise bad_request(call, f"Proposal [{proposal_id}] is your own, it cannot be rejected.")
        if proposal.answered or proposal.state not in (ProposalState.INITIAL, ProposalState.DRAFT):
            raise NodeFailure(
                call, 500, f"Proposal [{proposal_id}] is {proposal.state.value} or was countered."
            )
        proposal.state = ProposalState.REJECTED

    def draft_for_agreement(self, call: str, who: NodeId, proposal_id: ProposalId) -> Proposal:
        """The provider's draft that an agreement is to be made of.

        Raises `BadRequest` where it is none: 400 for an unknown, initial, own, rejected or countered
        proposal, 409 where there is an agreement already.
        """
        proposal = self._proposals.get(proposal_id)
        if proposal is None or proposal.demand.owner != who:
            raise bad_request(call, f"Proposal [{proposal_id}] not found.")
        if proposal.agreement_id is not None:
            raise bad_request(
                call,
                f"Agreement [{proposal.agreement_id}] was already made of proposal [{proposal_id}].",
                status=409,
            )
        if not proposal.by_provider:
            raise bad_request(call, f"Proposal [{proposal_id}] is your own.")
        if proposal.previous is None:
            raise bad_request(call, f"Proposal [{proposal_id}] was not negotiated: it is initial.")
        if proposal.answered:
            raise bad_request(call, f"Proposal [{proposal_id}] was already countered.")
        if proposal.state is not ProposalState.DRAFT:
            raise bad_request(call, f"Proposal [{proposal_id}] is {proposal.state.value}.")
        return proposal

    # --- the provider's side --------------------------------------------------------------------------

    def publish(self, owner: OfferOwner, properties: dict[str, Any], constraints: str) -> Offer:
        """Publish an offer and propose it to all demands that it matches."""
        offer = Offer(self._subscription_id(), owner, properties, constraints, self._clock.now())
        self._offers[offer.id] = offer
        for demand in list(self.subscribed()):
            self.propose(offer, demand)
        return offer

    def propose(self, offer: Offer, demand: Demand) -> None:
        """Give a demand a fresh initial proposal, if it is still published and the two match."""
        if not demand.subscribed or not (
            matches(demand.constraints, offer.properties) and matches(offer.constraints, demand.properties)
        ):
            return
        proposal = self._new_proposal(
            demand,
            offer,
            offer.owner.node_id,
            ProposalState.INITIAL,
            offer.properties,
            offer.constraints,
            None,
        )
        self._tell(demand, wire.ProposalEvent(event_date=self._times.next(), proposal=proposal.document()))

    def answer(self, proposal: Proposal, properties: dict[str, Any]) -> Proposal | None:
        """The provider's draft in answer to a requestor's; None where the demand is gone."""
        if not proposal.demand.subscribed:
            return None
        proposal.answered = True
        reply = self._new_proposal(
            proposal.demand,
            proposal.offer,
            proposal.offer.owner.node_id,
            ProposalState.DRAFT,
            properties,
            proposal.offer.constraints,
            proposal,
        )
        event = wire.ProposalEvent(event_date=self._times.next(), proposal=reply.document())
        self._tell(proposal.demand, event)
        return reply

    def refuse(self, proposal: Proposal, reason: wire.Reason) -> None:
        """The provider refuses a requestor's draft."""
        proposal.state = ProposalState.REJECTED
        self._tell(
            proposal.demand,
            wire.ProposalRejectedEvent(event_date=self._times.next(), proposal_id=proposal.id, reason=reason),
        )

    def subscribed(self) -> Iterator[Demand]:
        """All demands that are published."""
        return (demand for demand in self._demands.values() if demand.subscribed)

    # --- inside ---------------------------------------------------------------------------------------

    def _subscription_id(self) -> str:
        return f"{self._clock.unique_id()}-{self._clock.unique_id()}{self._clock.unique_id()}"

    def _demand(self, call: str, who: NodeId, demand_id: DemandId) -> Demand:
        demand = self._demands.get(demand_id)
        if demand is None or not demand.subscribed:
            raise not_found(call, f"Subscription [{demand_id}] was not found.")
        if demand.owner != who:
            raise Unauthorized(call, 401, f"Subscription [{demand_id}] belongs to another identity.")
        return demand

    def _proposal(self, call: str, demand: Demand, proposal_id: ProposalId) -> Proposal:
        proposal = self._proposals.get(proposal_id)
        if proposal is None or proposal.demand is not demand:
            raise not_found(call, f"Proposal [{proposal_id}] not found for subscription [{demand.id}].")
        return proposal

    def _new_proposal(
        self,
        demand: Demand,
        offer: Offer,
        issuer: NodeId,
        state: ProposalState,
        properties: dict[str, Any],
        constraints: str,
        previous: Proposal | None,
    ) -> Proposal:
        proposal = Proposal(
            ProposalId(f"R-{self._clock.unique_id()}{self._clock.unique_id()}"),
            demand,
            offer,
            issuer,
            state,
            properties,
            constraints,
            self._clock.now(),
            previous,
        )
        self._proposals[proposal.id] = proposal
        demand.proposals.append(proposal)
        return proposal

    def _check_match(
        self, call: str, answered: Proposal, properties: dict[str, Any], constraints: str
    ) -> None:
        offer_fails = [] if matches(constraints, answered.properties) else [constraints]
        demand_fails = [] if matches(answered.constraints, properties) else [answered.constraints]
        if offer_fails or demand_fails:
            raise bad_request(
                call,
                f"Proposal properties doesn't match previous Proposal [{answered.id}]. "
                f"Mismatched constraints - Offer: {offer_fails}, Demand: {demand_fails}",
            )

    def _match(self, demand: Demand) -> None:
        for offer in list(self._offers.values()):
            self.propose(offer, demand)

    def _tell(self, demand: Demand, event: wire.DemandEvent) -> None:
        if demand.subscribed:
            demand.events.append(event)
            demand.bell.ring()

    def _expire(self, demand: Demand) -> None:
        demand.expired = True
        for proposal in demand.proposals:
            if proposal.state in (ProposalState.INITIAL, ProposalState.DRAFT):
                proposal.state = ProposalState.EXPIRED
        self._close(demand)

    def _close(self, demand: Demand) -> None:
        demand.subscribed = False
        demand.events.clear()
        if demand.lifetime is not None:
            demand.lifetime.cancel()
        demand.bell.ring()


def _checked(call: str, constraints: str) -> str:
    """Constraints that parse, never empty. Raises `BadRequest`."""
    text = constraints if constraints.strip() else "()"
    try:
        parse(text)
    except ConstraintError as error:
        raise bad_request(call, f"Constraints cannot be parsed: {error}") from error
    return text
