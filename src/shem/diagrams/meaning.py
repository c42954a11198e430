"""What each event means, in words a reader of a diagram needs."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from shem.lifecycle.activity import ActivityEvent
from shem.lifecycle.agreement import AgreementEvent
from shem.lifecycle.service import Event

#: One sentence, without a full stop, per event of the three tables.
MEANINGS: Final[Mapping[enum.Enum, str]] = MappingProxyType(
    {
        Event.RUN_SERVICE: "an activity is ready for this instance",
        Event.START_SUCCESSFUL: "`start()` is exhausted",
        Event.RETRY_START: "start failed, and policy allows another provider",
        Event.START_FAILED: "start failed for good, or provisioning is impossible",
        Event.SHUTDOWN: "end it gracefully",
        Event.SERVICE_ERROR: (
            "`run()` or `shutdown()` raised, `shutdown()` overran its budget, or the service's own liveness"
            " probe failed"
        ),
        Event.SERVICE_STOPPED: "`shutdown()` is exhausted",
        Event.AGREEMENT_TERMINATED: "the agreement ended from the other side",
        Event.ACTIVITY_LOST: "the activity is gone, abruptly",
        Event.PROVIDER_UNRESPONSIVE: "no sign of life for longer than allowed",
        Event.PROVIDER_RECOVERED: "signs of life again",
        Event.UNRESPONSIVE_TIMEOUT: "unresponsive for longer than the grace period",
        AgreementEvent.CONFIRM: "the requestor sends the agreement to the provider",
        AgreementEvent.APPROVE: "the provider signs",
        AgreementEvent.REJECT: "the provider declines",
        AgreementEvent.CANCEL: "the requestor withdraws it before the provider has answered",
        AgreementEvent.EXPIRE: "its validity ran out before the provider had answered",
        AgreementEvent.TERMINATE: "one side ends a signed agreement",
        ActivityEvent.INITIALIZE: "the provider's exe-unit is up",
        ActivityEvent.DEPLOY: "a `deploy` command has succeeded",
        ActivityEvent.START: "a `start` command has succeeded",
        ActivityEvent.TERMINATE: "a `terminate` command has undone the deployment",
        ActivityEvent.LOSE_CONTACT: "the exe-unit no longer reports",
        ActivityEvent.REGAIN_CONTACT: "the exe-unit reports again",
        ActivityEvent.DESTROY: "the activity is destroyed, by its owner or by the provider",
    }
)


def meaning_of(event: enum.Enum) -> str:
    """The sentence for an event; empty for events of other tables."""
    return MEANINGS.get(event, "")
