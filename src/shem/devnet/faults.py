"""Faults on order: what can go wrong on a provider's side, made to happen.

Providers are named by node id or name. An unknown name or id is a `LookupError`.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from shem.devnet.activities import Activities
from shem.devnet.activity import Activity
from shem.devnet.agreements import Agreements
from shem.devnet.provider import Provider
from shem.ids import ActivityId, AgreementId
from shem.lifecycle import AgreementState
from shem.yagna import models as wire


class Faults:
    """The faults of one node's providers."""

    def __init__(
        self, provider: Callable[[str], Provider], agreements: Agreements, activities: Activities
    ) -> None:
        self._provider, self._agreements, self._activities = provider, agreements, activities

    def vanish(self, provider: str) -> None:
        """A provider is cut off: calls to it fail, commands hang, and it says nothing."""
        self._provider(provider).vanish()

    def recover(self, provider: str) -> None:
        """A provider that vanished is connected again, and says what had to wait."""
        self._provider(provider).recover()

    def refuse_next_agreements(self, provider: str, count: int = 1) -> None:
        """A provider rejects the next `count` agreements."""
        self._provider(provider).refusing = count

    def pad_bills(self, provider: str, factor: Decimal) -> None:
        """A provider multiplies the cost by `factor` in the bills that it writes from now on."""
        self._provider(provider).bill_factor = factor

    def withhold_invoices(self, provider: str) -> None:
        """A provider sends no invoices from now on."""
        self._provider(provider).invoicing = False

    def hesitate(self, provider: str, seconds: float) -> None:
        """A provider takes so many seconds longer to decide about agreements, from now on."""
        self._provider(provider).hesitation = seconds

    def linger(self, provider: str, seconds: float) -> None:
        """Activities go on for so many seconds after the end of their agreement, from now on."""
        self._provider(provider).lingering = seconds

    def terminate_agreement(
        self, agreement_id: AgreementId, message: str = "Terminated by order", code: str = "Shutdown"
    ) -> bool:
        """The provider ends an agreement, or will when it is connected again.

        `code` is its ``golem.provider.code``. Returns whether the agreement was ended by this now.
        """
        agreement = self._agreements.get(agreement_id)
        if agreement is None:
            raise LookupError(f"no agreement {agreement_id}")
        was_approved = agreement.state is AgreementState.APPROVED
        self._provider(agreement.provider).terminate(
            agreement, wire.Reason(message=message, provider_code=code)
        )
        return was_approved and agreement.ended

    def kill_activity(self, activity_id: ActivityId, reason: str = "killed by order") -> None:
        """An activity dies abruptly; harmless where it has ended."""
        self._activities.end(self._activity(activity_id), reason, abruptly=True)

    def hang_activity(self, activity_id: ActivityId) -> None:
        """An activity goes silent: its commands hang, it becomes Unresponsive, and is given up in the end."""
        self._activities.hang(self._activity(activity_id))

    def resume_activity(self, activity_id: ActivityId) -> None:
        """An activity that was silent is heard again."""
        self._activities.resume(self._activity(activity_id))

    def _activity(self, activity_id: ActivityId) -> Activity:
        activity = self._activities.find(activity_id)
        if activity is None:
            raise LookupError(f"no activity {activity_id}")
        return activity
