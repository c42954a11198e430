"""Finding providers: one demand per cluster, negotiated in parallel for all its instances.

A `Market` publishes the demand, long-polls its events, answers acceptable offers and keeps the providers'
drafts. `take` hands the best one out; a provider that is slow or fails delays nobody but who took it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from shem import props
from shem.bus import Bus
from shem.clock import Clock
from shem.engine.cleanup import Leftovers, make
from shem.engine.polling import POLL_SECONDS, persist, poll_for_ever
from shem.engine.strategy import Offer, Strategy
from shem.engine.terms import Terms, UnusableTerms
from shem.errors import NodeError, NoOffers, NotFound
from shem.events import DemandPublished, DemandWithdrawn, ProposalRejected
from shem.ids import DemandId, NodeId
from shem.log import get_logger
from shem.yagna.api import MarketApi
from shem.yagna.models import DemandEvent, DemandSpec, Proposal, ProposalEvent, Reason

_log = get_logger("market")


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
    renew: float = 60.0
    """How old a demand is at least before it is renewed."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An acceptable offer, and what the strategy makes of it."""

    offer: Offer
    rank: Decimal

    @property
    def provider_id(self) -> NodeId:
        return self.offer.provider_id


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
        leftovers: Leftovers,
        clock: Clock,
        bus: Bus,
        pace: MarketPace | None = None,
    ) -> None:
        self.demand = DemandSpec(properties=dict(properties), constraints=props.all_of(constraints))
        self.expires = expires
        self._api, self._platform, self._strategy = api, platform, strategy
        self._leftovers = leftovers
        self._clock, self._bus, self._pace = clock, bus, pace or MarketPace()
        self._demand_id: DemandId | None = None
        self._published_at = 0.0
        self._drafts: list[_Candidate] = []
        self._taken: Counter[NodeId] = Counter()
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

    async def renew(self) -> None:
        """Withdraw the demand, unless it is young; the poll publishes it anew.

        That brings new offers, also of providers whose earlier ones came to nothing.
        """
        if self._clock.monotonic() - self._published_at >= self._pace.renew:
            await self._withdraw()

    async def _publish(self) -> None:
        self._demand_id = await persist(self._subscribe, clock=self._clock, within=self._pace.answer)
        self._published_at = self._clock.monotonic()
        self._bus.emit(
            DemandPublished(at=self._clock.now(), demand=self._demand_id, constraints=self.demand.constraints)
        )

    async def _subscribe(self) -> DemandId:
        return await make(
            "publish the demand",
            lambda: self._api.subscribe(self.demand),
            self._unsubscribe,
            within=self._pace.answer,
            clock=self._clock,
            bus=self._bus,
        )

    async def _withdraw(self) -> None:
        demand_id, self._demand_id = self._demand_id, None
        if demand_id is None:
            return
        try:
            async with asyncio.timeout(self._pace.withdraw):
                await self._unsubscribe(demand_id)
        except (NodeError, TimeoutError):
            # Nobody answers its offers any more, so that is not worth a report.
            self._leftovers.add(f"withdraw demand {demand_id}", lambda: self._unsubscribe(demand_id))
        self._bus.emit(DemandWithdrawn(at=self._clock.now(), demand=demand_id))

    async def _unsubscribe(self, demand_id: DemandId) -> None:
        with contextlib.suppress(NotFound):
            await self._api.unsubscribe(demand_id)

    # --- negotiating

    async def _poll_once(self) -> bool:
        if self._demand_id is None:
            await self._publish()
        assert self._demand_id is not None
        try:
            events = await self._api.demand_events(self._demand_id, timeout=POLL_SECONDS)
        except NotFound:
            # The node drops a demand after an hour, and all of them when it loses its memory. What was
            # negotiated goes with it: a new demand brings new offers of the same providers.
            self._demand_id = None
            self._drafts.clear()
            self._answered.clear()
            return False
        for event in events:
            self._hear(event)
        return bool(events)

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
        candidate = self._judge(proposal)
        if candidate is None:
            return
        if proposal.state == "Draft":
            self._add_draft(candidate)
        else:
            self._spawn(self._answer(proposal), f"answer {proposal.proposal_id}")

    def _judge(self, proposal: Proposal) -> _Candidate | None:
        try:
            offer = Offer(proposal, Terms.of_offer(proposal.properties))
            objection = self._strategy.objection(offer)
            if objection is None:
                return _Candidate(offer, self._strategy.rank(offer))
        except UnusableTerms as error:
            objection = str(error)
        except Exception as error:  # a strategy may be the user's: what it cannot judge is not taken
            _log.error("strategy_failed", provider=proposal.issuer_id, error=repr(error))
            objection = f"the strategy raised {error!r}"
        self._last_objection = objection
        self._report_rejected(proposal, "requestor", objection)
        self._spawn(self._reject(proposal, objection), f"reject {proposal.proposal_id}")
        return None

    def _spawn(self, coro: Any, name: str) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coro, name=name)
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, proposal: Proposal) -> None:
        demand_id = self._demand_id
        if demand_id is None:
            return
        counter = self._counter_to(proposal)
        try:
            async with asyncio.timeout(self._pace.answer):
                # Where a lost answer hides a success, the second call is refused, but the draft comes.
                ours = await persist(
                    lambda: self._api.counter_proposal(demand_id, proposal.proposal_id, counter),
                    clock=self._clock,
                    within=self._pace.answer,
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

    def _add_draft(self, draft: _Candidate) -> None:
        self._drafts.append(draft)
        if self._first_draft_at is None:
            self._first_draft_at = self._clock.monotonic()
        self._changed.set()

    async def take(self, *, avoid: Collection[NodeId] = (), within: float) -> Offer:
        """The best draft there is; it is nobody else's from then on.

        Among equals, providers that were taken less often come first. Providers in `avoid` are taken only
        where no other shows up for a while. Raises `NoOffers` after `within` seconds, and when the market is
        closed meanwhile.
        """
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(within):
                while True:
                    draft, patience = self._choose(avoid, began)
                    if draft is not None:
                        self._drafts.remove(draft)
                        self._taken[draft.provider_id] += 1
                        return draft.offer
                    if self._poll is None:
                        raise NoOffers("the demand was withdrawn while offers were awaited")
                    await self._news(patience)
        except TimeoutError as error:
            if isinstance(error, NoOffers):
                raise
            raise NoOffers(self._no_offers(within, avoid)) from None

    def _choose(self, avoid: Collection[NodeId], began: float) -> tuple[_Candidate | None, float | None]:
        """The best draft now, or after how many seconds the choice may be another even without news."""
        if not self._drafts or self._first_draft_at is None:
            return None, None
        now = self._clock.monotonic()
        if (wait := self._first_draft_at + self._pace.gather - now) > 0:
            return None, wait
        wanted = [draft for draft in self._drafts if draft.provider_id not in avoid]
        if not wanted and (wait := began + self._pace.second_choice - now) > 0:
            return None, wait
        best = min(wanted or self._drafts, key=lambda draft: (draft.rank, self._taken[draft.provider_id]))
        return best, None

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
