"""A lease: the provider, agreement and activity that one instance was given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shem.clock import Clock
from shem.engine.activity import Activity
from shem.engine.agreement import Agreement
from shem.engine.batch import Batch, NodeApi
from shem.events import Phase
from shem.ids import ActivityId, NodeId
from shem.lifecycle import Cause
from shem.script import Script


class ActivityLease:
    """What an instance runs on.

    `activity_lost` and `agreement_ended` are resolved, with the cause, when the provider's side ends them.
    """

    def __init__(self, activity: Activity, api: NodeApi, *, clock: Clock) -> None:
        self.activity = activity
        self._api, self._clock = api, clock

    @property
    def agreement(self) -> Agreement:
        """The agreement it stands on."""
        return self.activity.agreement

    @property
    def activity_id(self) -> ActivityId:
        """Id of the activity."""
        return self.activity.id

    @property
    def provider_id(self) -> NodeId:
        """Node id of the provider."""
        return self.activity.provider_id

    @property
    def provider_name(self) -> str:
        """The name it gives itself; not unique."""
        return self.activity.provider_name

    @property
    def loss(self) -> Cause | None:
        """Why the activity is gone; None while it can be talked to."""
        return self.activity.loss

    @property
    def agreement_end(self) -> Cause | None:
        """Why the provider ended the agreement; None while it stands, or where it ended otherwise."""
        ended = self.agreement.ended
        return ended.result() if ended.done() and not ended.cancelled() else None

    @property
    def activity_lost(self) -> asyncio.Future[Cause]:
        """Resolved when the activity ends unasked."""
        return self.activity.lost

    @property
    def agreement_ended(self) -> asyncio.Future[Cause]:
        """Resolved when the provider ends the agreement."""
        return self.agreement.ended

    def on_contact(self, listener: Callable[[bool, str], None] | None) -> None:
        """Call `listener(contact, reason)` when the provider falls silent, and when it is heard again."""
        self.activity.on_contact = listener

    async def execute(self, script: Script, progress: Callable[[Phase], None]) -> None:
        """Run a script to its end (see `Batch.run`)."""
        await Batch(script, self.activity, self._api, clock=self._clock).run(progress)
