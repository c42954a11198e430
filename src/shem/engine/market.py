"""Finding providers: one demand per cluster, negotiated in parallel for all its instances.

A `Market` publishes the demand, long-polls its events, answers acceptable offers and keeps the providers'
drafts. `take` hands the best one out; a provider that is slow or fails delays nobody but who took it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shem import props
from shem.bus import Bus
from shem.clock import Clock
from shem.engine.polling import POLL_SECONDS, persist, poll_for_ever
from shem.engine.strategy import Offer, Strategy
from shem.engine.terms import Terms, UnusableTerms
from shem.errors import NodeError, NoOffers, NotFound
from shem.events import DemandPublished, DemandWithdrawn, ProposalRejected
from shem.ids import DemandId, NodeId
from shem.yagna.api import MarketApi
from shem.yagna.models import DemandEvent, DemandSpec, Proposal, ProposalEvent, Reason


@dataclass(frozen=True, slots=True)
class MarketPace:
    """How the market is worked, in seconds."""

    gather: float = 0.5
    """How long after the first draft better ones are waited for."""
    second_choice: float = 5.0
    """How long an instance waits before it takes a provider it would rather avoid."""
    answer: float = 10.0
    """How long a counter-proposal may take to be posted."""
    withdraw: float = 5.0
    """How long the demand's withdrawal may take."""


class Market:
    """The demand of one cluster and what comes back for it.

    Args:
        properties, constraints: what the payload, the payment and the run ask for.
        platform: the payment platform named in counter-proposals.
        expires: when agreements made here end.
    """

    def __init__(
        self,
        api: MarketApi,
        *,
        properties: Mapping[str, Any],
        constraints: Sequence[str],
        platform: str,
        expires: datetime,
        strategy: Strategy,
        clock: Clock,
        bus: Bus,
        pace: MarketPace | None = None,
    ) -> None:
        self.demand = DemandSpec(properties=dict(properties), constraints=props.all_of(constraints))
        self.expires = expires
        self._api, self._platform, self._strategy = api, platform, strategy
        self._clock, self._bus, self._pace = clock, bus, pace or MarketPace()
        self._demand_id: DemandId | None = None
        self._drafts: list[Offer] = []
        self._first_draft_at: float | None = None
        self._answered: dict[str, Proposal] = {}
        self._changed = asyncio.Event()
        self._poll: asyncio.Task[None] | None = None
        self._answers: set[asyncio.Task[None]] = set()
        self._seen = 0
        self._last_objection = ""

    # --- life

    async def open(self) -> None:
        """Publish the demand and begin to negotiate. Raises `NodeError` where the node refuses it."""
        await self._publish()
        self._poll = asyncio.get_running_loop().create_task(
            poll_for_ever("demand events", self._poll_once, clock=self._clock, bus=self._bus),
            name=f"market poll {self._demand_id}",
        )

    async def close(self) -> None:
        """Withdraw the demand and stop negotiating. Idempotent, bounded."""
        tasks = [*self._answers, *([self._poll] if self._poll else [])]
        self._poll = None
        self._changed.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._withdraw()

    async def _publish(self) -> None:
        self._demand_id = await persist(
            lambda: self._api.subscribe(self.demand), clock=self._clock, within=self._pace.answer
        )
        self._bus.emit(
            DemandPublished(at=self._clock.now(), demand=self._demand_id, constraints=self.demand.constraints)
        )

    async def _withdraw(self) -> None:
        demand_id, self._demand_id = self._demand_id, None
        if demand_id is None:
            return
        try:
            async with asyncio.timeout(self._pace.withdraw):
                await self._api.unsubscribe(demand_id)
        except (NodeError, TimeoutError):
            # The node drops a demand by itself within the hour, and nobody answers its offers any more.
            pass
        self._bus.emit(DemandWithdrawn(at=self._clock.now(), demand=demand_id))

    # --- negotiating

    async def _poll_once(self) -> None:
        if self._demand_id is None:
            await self._publish()
        assert self._demand_id is not None
        try:
            events = await self._api.demand_events(self._demand_id, timeout=POLL_SECONDS)
        except NotFound:
            # The node drops a demand after an hour, and all of them when it loses its memory.
            self._demand_id = None
            return
        for event in events:
            self._hear(event)

    def _hear(self, event: DemandEvent) -> None:
        if not isinstance(event, ProposalEvent):
            answered = self._answered.pop(event.proposal_id, None)
            if answered is not None:
                reason = event.reason.message if event.reason else "no reason given"
                self._report_rejected(answered, "provider", reason)
            return
        proposal = event.proposal
        if proposal.prev_proposal_id is not None:
            self._answered.pop(proposal.prev_proposal_id, None)
        else:
            self._seen += 1
        offer = self._judge(proposal)
        if offer is not None and proposal.state == "Draft":
            self._add_draft(offer)
        elif offer is not None:
            self._spawn(self._answer(offer), f"answer {proposal.proposal_id}")

    def _judge(self, proposal: Proposal) -> Offer | None:
        try:
            offer = Offer(proposal, Terms.of_offer(proposal.properties))
            objection = self._strategy.objection(offer)
        except UnusableTerms as error:
            offer, objection = None, str(error)
        if objection is None:
            return offer
        self._last_objection = objection
        self._report_rejected(proposal, "requestor", objection)
        self._spawn(self._reject(proposal, objection), f"reject {proposal.proposal_id}")
        return None

    def _spawn(self, coro: Any, name: str) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coro, name=name)
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, offer: Offer) -> None:
        demand_id = self._demand_id
        if demand_id is None:
            return
        proposal = offer.proposal
        try:
            async with asyncio.timeout(self._pace.answer):
                ours = await self._api.counter_proposal(
                    demand_id, proposal.proposal_id, self._counter_to(proposal)
                )
        except (NodeError, TimeoutError) as error:
            self._report_rejected(proposal, "node", str(error) or "no answer in time")
            return
        self._answered[ours] = proposal

    def _counter_to(self, proposal: Proposal) -> DemandSpec:
        properties = dict(self.demand.properties)
        properties[props.CHOSEN_PLATFORM] = self._platform
        theirs = proposal.properties.get(props.DEBIT_NOTE_ACCEPT_TIMEOUT)
        if isinstance(theirs, int | float) and props.DEBIT_NOTE_ACCEPT_TIMEOUT in properties:
            # A demand above the offer is refused (contract 4.6), one below is granted.
            ours = properties[props.DEBIT_NOTE_ACCEPT_TIMEOUT]
            properties[props.DEBIT_NOTE_ACCEPT_TIMEOUT] = min(ours, int(theirs))
        return DemandSpec(properties=properties, constraints=self.demand.constraints)

    async def _reject(self, proposal: Proposal, objection: str) -> None:
        if self._demand_id is None:
            return
        try:
            async with asyncio.timeout(self._pace.answer):
                await self._api.reject_proposal(
                    self._demand_id, proposal.proposal_id, Reason(message=objection)
                )
        except (NodeError, TimeoutError):
            # A courtesy to the provider; its proposal expires by itself.
            pass

    def _report_rejected(self, proposal: Proposal, by: str, reason: str) -> None:
        self._bus.emit(
            ProposalRejected(
                at=self._clock.now(),
                provider=proposal.issuer_id,
                provider_name=str(proposal.properties.get(props.NODE_NAME, "")),
                by=by,
                reason=reason,
            )
        )

    # --- handing out

    def _add_draft(self, draft: Offer) -> None:
        self._drafts.append(draft)
        if self._first_draft_at is None:
            self._first_draft_at = self._clock.monotonic()
        self._changed.set()

    async def take(self, *, avoid: Collection[NodeId] = (), within: float) -> Offer:
        """The best draft there is; it is nobody else's from then on.

        Providers in `avoid` are taken only where no other shows up for a while. Raises `NoOffers` after
        `within` seconds, and when the market is closed meanwhile.
        """
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(within):
                while True:
                    draft, patience = self._choose(avoid, began)
                    if draft is not None:
                        self._drafts.remove(draft)
                        return draft
                    if self._poll is None:
                        raise NoOffers("the demand was withdrawn while offers were awaited")
                    await self._news(patience)
        except TimeoutError as error:
            if isinstance(error, NoOffers):
                raise
            raise NoOffers(self._no_offers(within, avoid)) from None

    def _choose(self, avoid: Collection[NodeId], began: float) -> tuple[Offer | None, float | None]:
        """The best draft now, or after how many seconds the choice may be another even without news."""
        if not self._drafts or self._first_draft_at is None:
            return None, None
        now = self._clock.monotonic()
        if (wait := self._first_draft_at + self._pace.gather - now) > 0:
            return None, wait
        wanted = [draft for draft in self._drafts if draft.provider_id not in avoid]
        if not wanted and (wait := began + self._pace.second_choice - now) > 0:
            return None, wait
        return min(wanted or self._drafts, key=self._strategy.rank), None

    async def _news(self, within: float | None) -> None:
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._changed.wait()

    def _no_offers(self, within: float, avoid: Collection[NodeId]) -> str:
        text = f"no acceptable offer within {within:g} s: {self._seen} offers seen"
        if self._last_objection:
            text += f", the last objection was: {self._last_objection}"
        if avoid:
            text += f"; {len(avoid)} providers are being avoided"
        return f"{text}; constraints: {self.demand.constraints}"
