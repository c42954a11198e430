"""Activities: made under an approved agreement, given scripts, asked where they are, ended.

What one activity is belongs to `activity`; carrying out its commands to `executor`.

Source: contract 3.4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol

from shem.clock import Clock
from shem.devnet import commands as script
from shem.devnet.activity import MACHINE, Activity
from shem.devnet.agreements import Agreement, Agreements
from shem.devnet.background import Background
from shem.devnet.batches import Batch
from shem.devnet.executor import Executor
from shem.devnet.refusals import bad_request, forbidden, not_found, timed_out, unreachable
from shem.devnet.runtime.base import Runtime
from shem.devnet.settings import Timings
from shem.devnet.waiting import Bell
from shem.errors import NodeFailure
from shem.ids import ActivityId, AgreementId, BatchId, NodeId
from shem.lifecycle import ActivityEvent, ActivityState, Actor, AgreementState, Cause
from shem.log import get_logger
from shem.yagna import models as wire

ROOT: Final = "/activity-api/v1"
#: How long a call to a provider may take where the caller does not say, in seconds (contract 3.4).
DEFAULT_TIMEOUT: Final = 5.0

_log = get_logger("devnet")


class ActivityHost(Protocol):
    """A provider, as activities see it."""

    @property
    def reachable(self) -> bool:
        """Whether messages get through to it."""

    @property
    def bell(self) -> Bell:
        """Rung when that changes."""

    async def make_runtime(self, activity: Activity) -> Runtime:
        """A runtime for a new activity, not deployed yet."""

    def activity_requested(self, activity: Activity) -> None:
        """An activity is being made."""

    def activity_began(self, activity: Activity) -> None:
        """An activity is initialized and counts its usage."""

    def activity_ended(self, activity: Activity) -> None:
        """An activity is Terminated and its usage final."""


class Activities:
    """All activities of one node. `hosts` are its providers; the node fills it."""

    def __init__(
        self,
        clock: Clock,
        background: Background,
        agreements: Agreements,
        executor: Executor,
        timings: Timings,
    ) -> None:
        self.hosts: dict[NodeId, ActivityHost] = {}
        self._clock, self._background = clock, background
        self._agreements, self._executor, self._timings = agreements, executor, timings
        self._activities: dict[ActivityId, Activity] = {}

    # --- the requestor's side -------------------------------------------------------------------------

    async def create(
        self, who: NodeId, agreement_id: AgreementId, *, timeout: float = DEFAULT_TIMEOUT
    ) -> ActivityId:
        """Start an activity; returns when it is Initialized.

        Raises `NotFound`, `BadRequest` (400 where the agreement is not approved, 403 where it is somebody
        else's), `RequestTimeout`, `NodeFailure` where the provider cannot be reached or the runtime died.
        """
        call = f"POST {ROOT}/activity"
        agreement = self._agreement(call, who, agreement_id)
        if agreement.state is not AgreementState.APPROVED:
            raise bad_request(
                call, f"Agreement [{agreement_id}] is in state {agreement.state.value}, not Approved"
            )
        host = self.hosts[agreement.provider]
        if not host.reachable:
            raise unreachable(call, f"/net/{agreement.provider}/activity")
        activity = Activity(ActivityId(self._clock.unique_id()), agreement, self._clock)
        self._activities[activity.id] = activity
        host.activity_requested(activity)
        activity.birth = self._background.spawn(self._initialize(activity, host), f"initialize {activity.id}")
        if not await activity.bell.until(lambda: activity.state is not ActivityState.NEW, timeout):
            self.end(activity, "the requestor waited for it in vain")
            raise timed_out(call)
        if not activity.alive:
            raise NodeFailure(
                call, 500, f"Activity {activity.id} was abruptly terminated: {activity.error_message}"
            )
        return activity.id

    async def destroy(
        self, who: NodeId, activity_id: ActivityId, *, timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        """End an activity; returns when it is Terminated, at once where it is already.

        Raises `NotFound`, `BadRequest` (403), `RequestTimeout`, `NodeFailure` where the provider cannot be
        reached.
        """
        call = f"DELETE {ROOT}/activity/{activity_id}"
        activity = self._find(call, who, activity_id)
        self._require_reachable(call, activity)
        if not activity.alive:
            return
        self.end(activity, "destroyed by the requestor")
        if not await activity.bell.until(lambda: not activity.alive, timeout):
            raise timed_out(call)

    async def execute(
        self,
        who: NodeId,
        activity_id: ActivityId,
        commands: Sequence[Any],
        *,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> BatchId:
        """Queue commands as one batch and return at once.

        Raises `BadRequest` for a bad script, `NotFound`, `RequestTimeout` where the provider does not answer,
        `NodeFailure` where the activity has ended.
        """
        call = f"POST {ROOT}/activity/{activity_id}/exec"
        activity = self._find(call, who, activity_id)
        try:
            steps = script.read(commands)
        except script.BadScript as error:
            raise bad_request(call, str(error)) from error
        await self._answer_of(call, activity, timeout)
        if not activity.alive or activity.ending is not None or activity.state is ActivityState.NEW:
            raise unreachable(call, f"/public/exeunit/{activity_id}/Exec")
        batch = Batch(BatchId(self._clock.unique_id()), steps, self._clock)
        activity.batches[batch.id] = batch
        if not batch.finished:
            task = self._background.spawn(self._executor.execute(activity, batch), f"batch {batch.id}")
            activity.tasks[task] = None
            task.add_done_callback(lambda done: activity.tasks.pop(done, None))
        return batch.id

    async def results(
        self, who: NodeId, activity_id: ActivityId, batch_id: BatchId, *, timeout: float = DEFAULT_TIMEOUT
    ) -> list[wire.CommandOutcome]:
        """All results so far, from index 0; waits up to `timeout` for the end of the batch.

        Raises `NotFound`, and `RequestTimeout` where the provider does not answer.
        """
        call = f"GET {ROOT}/activity/{activity_id}/exec/{batch_id}"
        activity = self._find(call, who, activity_id)
        batch = self._batch(call, activity, batch_id)
        until = asyncio.get_running_loop().time() + timeout
        await batch.bell.until(lambda: batch.finished, timeout)
        await self._answer_of(call, activity, until - asyncio.get_running_loop().time())
        return list(batch.outcomes)

    async def result(
        self,
        who: NodeId,
        activity_id: ActivityId,
        batch_id: BatchId,
        index: int,
        *,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> wire.CommandOutcome:
        """The result of one command. Raises `RequestTimeout` where there is none in time."""
        call = f"GET {ROOT}/activity/{activity_id}/exec/{batch_id}"
        activity = self._find(call, who, activity_id)
        batch = self._batch(call, activity, batch_id)
        await batch.bell.until(lambda: batch.finished or len(batch.outcomes) > index, timeout)
        if not 0 <= index < len(batch.outcomes):
            raise timed_out(call)
        await self._answer_of(call, activity, 0)
        return batch.outcomes[index]

    def batch(self, who: NodeId, activity_id: ActivityId, batch_id: BatchId) -> Batch:
        """A batch, to follow its events. Raises `NotFound`."""
        call = f"GET {ROOT}/activity/{activity_id}/exec/{batch_id}"
        return self._batch(call, self._find(call, who, activity_id), batch_id)

    def state(self, who: NodeId, activity_id: ActivityId) -> wire.ActivityStateDoc:
        """Where an activity is; still answered when it has ended. Raises `NotFound`, `NodeFailure`."""
        call = f"GET {ROOT}/activity/{activity_id}/state"
        activity = self._find(call, who, activity_id)
        self._require_reachable(call, activity)
        return activity.document()

    def usage(self, who: NodeId, activity_id: ActivityId) -> wire.ActivityUsage:
        """What an activity has used. Raises `NotFound`, `NodeFailure`."""
        call = f"GET {ROOT}/activity/{activity_id}/usage"
        activity = self._find(call, who, activity_id)
        self._require_reachable(call, activity)
        return wire.ActivityUsage(
            timestamp=int(self._clock.now().timestamp()), current_usage=activity.usage()
        )

    def agreement_of(self, who: NodeId, activity_id: ActivityId) -> AgreementId:
        """The agreement that an activity runs under. Raises `NotFound`."""
        return self._find(f"GET {ROOT}/activity/{activity_id}/agreement", who, activity_id).agreement.id

    def running_commands(self, who: NodeId, activity_id: ActivityId) -> list[dict[str, Any]]:
        """The commands that run now, as they were sent. Raises `NotFound` also where none does."""
        call = f"GET {ROOT}/activity/{activity_id}/command"
        activity = self._find(call, who, activity_id)
        running = [
            batch.steps[batch.running].raw for batch in activity.batches.values() if batch.running is not None
        ]
        if not running:
            raise not_found(call, "no command is running")
        return running

    def ids(self, who: NodeId, agreement_id: AgreementId | None = None) -> list[ActivityId]:
        """A requestor's activities, perhaps of one agreement only."""
        return [
            activity.id
            for activity in self._activities.values()
            if activity.agreement.requestor == who
            and (agreement_id is None or activity.agreement.id == agreement_id)
        ]

    # --- the provider's side --------------------------------------------------------------------------

    def end(self, activity: Activity, reason: str, *, abruptly: bool = False) -> None:
        """End an activity in the background; harmless where it ends or has ended already.

        What ends abruptly is Terminated at once, what ends as asked when its runtime is gone.
        """
        if activity.ending is not None or not activity.alive:
            return
        for timer in activity.timers:
            timer.cancel()
        if abruptly:
            activity.reason = "Activity was abruptly terminated"
            activity.error_message = reason
        for batch in activity.batches.values():
            batch.broken_off(f"activity terminated: {reason}")
        for task in list(activity.tasks):
            task.cancel()
        activity.ending = self._background.spawn(self._end(activity), f"end {activity.id}")
        if abruptly:
            self._terminate(activity, reason)
        activity.bell.ring()

    def hang(self, activity: Activity) -> None:
        """Its reports stop: it becomes Unresponsive, and after a while it is given up."""
        if activity.silent or not activity.alive or activity.ending is not None:
            return
        activity.silent = True
        activity.timers = [
            self._background.later(self._timings.unresponsive, self._lose_contact, activity),
            self._background.later(
                self._timings.abandoned, self._abandon, activity, "no report from the exe-unit"
            ),
        ]

    def resume(self, activity: Activity) -> None:
        """Its reports come again: it is where it was, and what happened meanwhile is told."""
        if not activity.silent or not activity.alive:
            return
        for timer in activity.timers:
            timer.cancel()
        activity.silent = False
        MACHINE.fire(activity, ActivityEvent.REGAIN_CONTACT, Cause(Actor.PROBE))
        activity.bell.ring()

    def find(self, activity_id: ActivityId) -> Activity | None:
        """One activity, whoever made it, or None."""
        return self._activities.get(activity_id)

    def all(self) -> list[Activity]:
        """Every activity there ever was, oldest first."""
        return list(self._activities.values())

    async def aclose(self, timeout: float) -> None:
        """End all activities and wait up to `timeout` seconds until their runtimes are gone."""
        for activity in self._activities.values():
            self.end(activity, "the node stops")
        tasks = [task for one in self._activities.values() for task in (one.birth, one.ending)]
        running = [task for task in tasks if task is not None and not task.done()]
        if running:
            await asyncio.wait(running, timeout=timeout)

    # --- inside ---------------------------------------------------------------------------------------

    async def _initialize(self, activity: Activity, host: ActivityHost) -> None:
        try:
            runtime = await host.make_runtime(activity)
        # Whatever keeps a runtime from being made ends this activity, not the node.
        except Exception as error:
            _log.warning("runtime_not_made", activity=activity.id, error=str(error))
            self.end(activity, f"no runtime could be made: {error}", abruptly=True)
            return
        if activity.ending is not None:
            await self._destroy(activity, runtime)
            return
        activity.begin(runtime)
        MACHINE.fire(activity, ActivityEvent.INITIALIZE, Cause(Actor.PROVIDER))
        host.activity_began(activity)
        runtime.lost.add_done_callback(lambda lost: self._lost(activity, lost))

    def _lost(self, activity: Activity, lost: asyncio.Future[str]) -> None:
        if not lost.cancelled():
            self.end(activity, lost.result(), abruptly=True)

    async def _end(self, activity: Activity) -> None:
        if activity.tasks:
            await asyncio.wait(list(activity.tasks), timeout=self._timings.teardown)
        if activity.has_runtime:
            await self._measure(activity)
        activity.freeze()
        if activity.has_runtime:
            await self._destroy(activity, activity.runtime)
        self._terminate(activity)
        self.hosts[activity.agreement.provider].activity_ended(activity)

    def _terminate(self, activity: Activity, reason: str = "") -> None:
        if MACHINE.fire(activity, ActivityEvent.DESTROY, Cause(Actor.PROVIDER, reason)):
            activity.end_known = self.hosts[activity.agreement.provider].reachable

    async def _measure(self, activity: Activity) -> None:
        """Count what was used up to the end: the last figure told may be a second old."""
        try:
            async with asyncio.timeout(self._timings.teardown):
                await activity.runtime.refresh_usage()
        # A runtime that cannot be asked any more has told its last figure, and the bill goes by that.
        except Exception as error:
            _log.debug("usage_not_refreshed", activity=activity.id, error=repr(error))

    async def _destroy(self, activity: Activity, runtime: Runtime) -> None:
        try:
            async with asyncio.timeout(self._timings.teardown):
                await runtime.destroy()
        # The activity must end, and its bill be made, whatever the runtime does.
        except Exception as error:
            _log.error("runtime_not_destroyed", activity=activity.id, error=repr(error))

    def _lose_contact(self, activity: Activity) -> None:
        MACHINE.fire(activity, ActivityEvent.LOSE_CONTACT, Cause(Actor.PROBE))

    def _abandon(self, activity: Activity, reason: str) -> None:
        self.end(activity, reason, abruptly=True)

    def _agreement(self, call: str, who: NodeId, agreement_id: AgreementId) -> Agreement:
        agreement = self._agreements.get(agreement_id)
        if agreement is None:
            raise not_found(call, f"Agreement [{agreement_id}] not found.")
        if agreement.requestor != who:
            raise forbidden(call, f"Agreement [{agreement_id}] belongs to another identity.")
        return agreement

    def _find(self, call: str, who: NodeId, activity_id: ActivityId) -> Activity:
        activity = self._activities.get(activity_id)
        if activity is None:
            raise not_found(call, f"Activity [{activity_id}] not found.")
        if activity.agreement.requestor != who:
            raise forbidden(call, f"Activity [{activity_id}] belongs to another identity.")
        return activity

    def _batch(self, call: str, activity: Activity, batch_id: BatchId) -> Batch:
        batch = activity.batches.get(batch_id)
        if batch is None:
            raise not_found(call, f"batch_id = {batch_id}")
        return batch

    def _require_reachable(self, call: str, activity: Activity) -> None:
        """Raise `NodeFailure` where only the provider could answer, and cannot be reached."""
        if not activity.end_known and not self.hosts[activity.agreement.provider].reachable:
            raise unreachable(call, f"/net/{activity.agreement.provider}/activity/{activity.id}")

    async def _answer_of(self, call: str, activity: Activity, timeout: float) -> None:
        """Return as soon as provider and exe-unit answer. Raises `RequestTimeout` where they do not."""
        until = asyncio.get_running_loop().time() + timeout
        host = self.hosts[activity.agreement.provider]
        heard = await host.bell.until(lambda: host.reachable, timeout) and await activity.bell.until(
            lambda: not (activity.silent and activity.alive), until - asyncio.get_running_loop().time()
        )
        if not heard:
            raise timed_out(call)
