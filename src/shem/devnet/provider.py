"""A built-in provider: publishes an offer, negotiates, approves agreements, hosts activities.

Its rules are in `negotiation`; what it does under an approved agreement is in `engagement`.

Source: contract 4.6.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from shem import props
from shem.devnet.activity import Activity
from shem.devnet.agreements import Agreement
from shem.devnet.engagement import Engagement
from shem.devnet.market import Demand, Offer, Proposal
from shem.devnet.negotiation import Refused, negotiate
from shem.devnet.offers import offer_constraints, offer_properties
from shem.devnet.parts import NodeParts
from shem.devnet.runtime.base import Runtime, RuntimeSpec
from shem.devnet.settings import ProviderSettings
from shem.devnet.waiting import Bell
from shem.ids import AgreementId, DemandId, NodeId
from shem.lifecycle import AgreementState
from shem.log import get_logger
from shem.yagna import models as wire

_log = get_logger("devnet")
_PACKAGE: Final = re.compile(r"hash:(?://)?sha3:([0-9a-fA-F]+)(?::|$)")


class Provider:
    """One provider of a node.

    Attributes:
        node_id: its id; `wallet`: the address it is paid at; `name`: its name on the market.
        reachable: whether messages get through between it and the requestors. While they do not, what it
            wants to say waits.
        refusing: how many of the next agreements it will reject.
        bill_factor: by what it multiplies the cost in its bills.
        invoicing: whether it sends invoices.
        hesitation: how many seconds longer than usual it takes to decide about an agreement.
        lingering: how many seconds activities go on after the end of their agreement.
    """

    def __init__(self, parts: NodeParts, settings: ProviderSettings, name: str, node_id: NodeId, wallet: str):
        self.name, self.node_id, self.wallet, self.settings = name, node_id, wallet, settings
        self.reachable = True
        self.refusing = 0
        self.bill_factor = Decimal(1)
        self.invoicing = True
        self.hesitation = 0.0
        self.lingering = 0.0
        self.bell = Bell()
        self._parts = parts
        self._offer: Offer | None = None
        self._engagements: dict[AgreementId, Engagement] = {}
        self._running: dict[AgreementId, Engagement] = {}
        self._postponed: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._sent_away: dict[DemandId, Demand] = {}

    def publish(self) -> None:
        """Put the offer on the market."""
        now = self._parts.clock.now()
        self._offer = self._parts.market.publish(
            self,
            offer_properties(self.settings, self.name, self.wallet),
            offer_constraints(self.settings, now),
        )

    @property
    def owing(self) -> list[AgreementId]:
        """Agreements that have ended and whose invoice is still to come."""
        return [key for key, one in self._engagements.items() if one.owes_invoice]

    # --- negotiation ----------------------------------------------------------------------------------

    def countered(self, proposal: Proposal) -> None:
        """A requestor answered a proposal: reply a little later."""
        self._parts.background.later(
            self._parts.timings.counter_reply, self.when_reachable, self._reply, proposal
        )

    def confirmed(self, agreement: Agreement) -> None:
        """A requestor sent an agreement: decide a little later."""
        self._parts.background.later(
            self._parts.timings.approval + self.hesitation, self.when_reachable, self._decide, agreement
        )

    def ended(self, agreement: Agreement) -> None:
        """An agreement reached a final state."""
        if agreement.id not in self._engagements:
            return
        if self.lingering:
            self._parts.background.later(self.lingering, self.when_reachable, self._close, agreement)
        else:
            self.when_reachable(self._close, agreement)

    def terminate(self, agreement: Agreement, reason: wire.Reason) -> None:
        """End an agreement from this side, as soon as messages get through; harmless where it has ended."""
        self.when_reachable(self._parts.agreements.terminate_by_provider, agreement, reason)

    def _reply(self, proposal: Proposal) -> None:
        answer = negotiate(proposal.offer.properties, proposal.properties, self._parts.clock.now())
        if isinstance(answer, dict) and self._is_full:
            answer = self._send_away(proposal.demand)
        if isinstance(answer, Refused):
            self._parts.market.refuse(proposal, wire.Reason(message=answer.message, is_final=answer.final))
        else:
            self._parts.market.answer(proposal, answer)

    def _decide(self, agreement: Agreement) -> None:
        if self.refusing > 0:
            self.refusing -= 1
            self._parts.agreements.reject(agreement, wire.Reason(message="Rejected by order"))
        elif self._is_full:
            busy = self._send_away(agreement.draft.demand)
            self._parts.agreements.reject(agreement, wire.Reason(message=busy.message))
        elif self._parts.agreements.approve(agreement):
            engagement = Engagement(self._parts, agreement, self)
            self._engagements[agreement.id] = self._running[agreement.id] = engagement
            engagement.begin()

    @property
    def _is_full(self) -> bool:
        return len(self._running) >= self.settings.max_agreements

    def _send_away(self, demand: Demand) -> Refused:
        """Refuse for lack of room, and remember the demand until there is some."""
        self._sent_away[demand.id] = demand
        limit = self.settings.max_agreements
        return Refused(f"No capacity available. Reached limit of agreements: {limit}", final=False)

    def _close(self, agreement: Agreement) -> None:
        self._running.pop(agreement.id).agreement_ended()
        assert self._offer is not None  # agreements are made of its proposals
        waiting, self._sent_away = self._sent_away, {}
        if agreement.state is AgreementState.TERMINATED:
            waiting[agreement.draft.demand.id] = agreement.draft.demand
        for demand in waiting.values():
            self._parts.market.propose(self._offer, demand)

    # --- activities -----------------------------------------------------------------------------------

    async def make_runtime(self, activity: Activity) -> Runtime:
        """A runtime for a new activity, not deployed yet."""
        package = activity.agreement.requestor_draft.properties.get(props.TASK_PACKAGE)
        found = _PACKAGE.match(package) if isinstance(package, str) else None
        return await self._parts.runtimes.create(
            RuntimeSpec(
                activity_id=activity.id,
                image_hash=found[1].lower() if found else None,
                mem_gib=self.settings.mem_gib,
                storage_gib=self.settings.storage_gib,
                threads=self.settings.threads,
            )
        )

    def activity_requested(self, activity: Activity) -> None:
        """An activity is being made."""
        self._engagements[activity.agreement.id].activity_requested(activity)

    def activity_began(self, activity: Activity) -> None:
        """An activity is initialized."""
        self._engagements[activity.agreement.id].activity_began(activity)

    def activity_ended(self, activity: Activity) -> None:
        """An activity is Terminated."""
        self._engagements[activity.agreement.id].activity_ended(activity)

    # --- being cut off --------------------------------------------------------------------------------

    def vanish(self) -> None:
        """Messages get through in neither direction any more."""
        self.reachable = False
        self.bell.ring()
        _log.info("provider_vanished", provider=self.name)

    def recover(self) -> None:
        """Messages get through again: say what had to wait, and propose anew to every demand."""
        if self.reachable:
            return
        self.reachable = True
        self.bell.ring()
        postponed, self._postponed = self._postponed, []
        for callback, args in postponed:
            callback(*args)
        if self._offer is not None:
            for demand in list(self._parts.market.subscribed()):
                self._parts.market.propose(self._offer, demand)
        _log.info("provider_recovered", provider=self.name)

    def when_reachable(self, callback: Callable[..., object], *args: Any) -> None:
        """Call something now, or as soon as messages get through again."""
        if self.reachable:
            callback(*args)
        else:
            self._postponed.append((callback, args))
