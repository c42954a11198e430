"""One slot of a cluster: it sees its instance through, from Pending to Terminated, and fills itself again.

It is *level-triggered*: its one task looks at the state the instance is in, does what that state asks for,
and waits for the next move or deadline. It never relies on having seen a particular change, so it can miss
none.

=============  ========================================================================================
state          what the slot does
=============  ========================================================================================
Pending        gives back the lease of a failed start, acquires one, raises RunService; or StartFailed
Starting       waits; after `start_timeout`: RetryStart or StartFailed
Running        waits
Stopping       waits; after `stop_timeout`: ServiceError
Unresponsive   waits; after the grace: UnresponsiveTimeout
Terminated     gives the lease back, then fills the slot again or gives it up
=============  ========================================================================================

A silence of the provider interrupts a state that has a budget, it does not begin it anew: a provider that
comes and goes cannot put off the end of `start()` or `shutdown()`, nor can its silences together be longer
than the grace.

Beside it, while Starting and Running, a `Prober` asks the service's own probes. In each state the slot notes
down on the instance what comes next and when (`Instance.expects`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from shem.bus import Bus
from shem.clock import Clock
from shem.engine.engine import Engine
from shem.engine.lease import ActivityLease
from shem.engine.market import Market
from shem.errors import (
    ActivityRefused,
    AgreementRefused,
    HandlerTimeout,
    NodeUnavailable,
    NoOffers,
    ProviderSilent,
    ProvisionError,
    blame_of,
)
from shem.events import Phase, SlotEnded, StepSkipped
from shem.ids import ClusterId, NodeId
from shem.lifecycle import Actor, Cause, Event, State
from shem.log import get_logger
from shem.service import outlook
from shem.service.driver import cut_short
from shem.service.instance import Instance
from shem.service.policy import Attempts, PenaltyBox, RestartPolicy
from shem.service.probe import Probe, Reach
from shem.service.probing import Prober
from shem.yagna.models import Reason

_log = get_logger("supervisor")

#: Events that mean a failure, whoever raised them.
_FAILURES = frozenset(
    {
        Event.START_FAILED,
        Event.SERVICE_ERROR,
        Event.AGREEMENT_TERMINATED,
        Event.ACTIVITY_LOST,
        Event.UNRESPONSIVE_TIMEOUT,
    }
)


@dataclass(frozen=True, slots=True)
class Supervision:
    """How the instances of a cluster are looked after. Times in seconds."""

    respawn_unstarted: bool = True
    """Whether a failed start is tried again on another provider."""
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    probes: tuple[Probe, ...] = ()
    reach: Reach | None = None
    """How probes reach the service over the network."""
    start_timeout: float = 600.0
    """Budget of one `start()`, deploying and the startup probe included."""
    stop_timeout: float = 60.0
    """Budget of `shutdown()`."""
    unresponsive_grace: float = 120.0
    """How long a silent provider is waited for."""


class SlotMaster(Protocol):
    """What a slot needs of the supervisor that keeps it."""

    @property
    def in_a_hurry(self) -> bool:
        """Whether nobody waits for `shutdown()` any more."""

    @property
    def drains_at(self) -> datetime:
        """When everything is stopped, before the agreements expire."""

    def make(self, slot: Slot, replaces: Instance | None) -> Instance:
        """A new instance for a slot."""

    def release(self, slot: Slot, lease: ActivityLease, reason: Reason) -> asyncio.Task[bool]:
        """Begin to give a lease back; the supervisor owns the task. True where all of it was done."""


class Slot:
    """One slot.

    Attributes:
        instance: the one it holds now, or held last.
        skipped: steps of an orderly end that were given up, and why.
    """

    def __init__(
        self,
        number: int,
        cluster_id: ClusterId,
        master: SlotMaster,
        engine: Engine,
        market: Market,
        *,
        settings: Supervision,
        box: PenaltyBox,
        clock: Clock,
        bus: Bus,
    ) -> None:
        self.number, self._cluster_id, self._master = number, cluster_id, master
        self._engine, self._market, self._settings = engine, market, settings
        self._box, self._clock, self._bus = box, clock, bus
        self._attempts = Attempts(settings.restart, clock)
        self._searches = 0
        self._stopping = asyncio.Event()
        self._over = asyncio.Event()
        self.skipped: list[str] = []
        self.instance = master.make(self, None)
        self.instance.expect(outlook.beginning())
        self._prober = self._prober_of(self.instance)

    async def keep(self) -> None:
        """Keep the slot filled, for as long as policy says and nobody stops it."""
        try:
            reason = await self._keep()
        except Exception as error:  # a bug; whatever it is, no instance may stay in a state that is not true
            self._end(f"by a bug in shem: {error!r}")
            raise
        self._end(reason)

    async def _keep(self) -> str:
        while True:
            try:
                await self._see_through(self.instance)
            except Exception as error:  # as above
                self._abandon(self.instance, error)
                raise
            finally:
                await self._hand_back(self.instance)
            why_not = self._no_replacement(self.instance)
            if why_not is not None:
                return why_not
            self._attempts.failed()
            pause = self._attempts.pause()
            self.instance.expect(outlook.replacement(self._in(pause)))
            if await self._stopped_within(pause):
                return ""
            last, self.instance = self.instance, self._master.make(self, self.instance)
            self._prober = self._prober_of(self.instance)
            last.expect(outlook.replaced(self.instance.id))

    def _prober_of(self, instance: Instance) -> Prober:
        return Prober(instance, self._settings.probes, reach=self._settings.reach, clock=self._clock)

    def _in(self, seconds: float) -> datetime:
        return self._clock.now() + timedelta(seconds=seconds)

    def _end(self, reason: str) -> None:
        self._over.set()
        self.instance.expect(outlook.empty(reason or self._plain_reason()))
        self._bus.emit(
            SlotEnded(at=self._clock.now(), cluster=self._cluster_id, slot=self.number, reason=reason)
        )

    def _abandon(self, instance: Instance, error: Exception) -> None:
        """Nobody looks after an instance any more, and its activity is given back: end it."""
        reason = f"given back, because a bug in shem ended its supervision: {error!r}"
        instance.fire(Event.ACTIVITY_LOST, Cause(Actor.PROVIDER, reason, error))
        if instance.state is State.PENDING:
            instance.fire(Event.START_FAILED, Cause(Actor.SUPERVISOR, reason, error))

    # --- its end

    @property
    def ended(self) -> bool:
        """Whether no other instance will follow, and everything has been given back."""
        return self._over.is_set()

    async def wait_ended(self) -> None:
        """Wait for that."""
        await self._over.wait()

    def stop(self, cause: Cause) -> None:
        """Stop the instance, in whatever state it is; no other follows."""
        self._stopping.set()
        self.instance.notice_loss()
        self.instance.fire(Event.SHUTDOWN, cause)

    def hurry(self) -> None:
        """Do not wait for `shutdown()` any more."""
        if self.instance.state is State.STOPPING:
            self._cut_short(self.instance)
        elif self.instance.state is State.UNRESPONSIVE:
            # It was stopped before, and then its provider fell silent.
            self.instance.fire(Event.SHUTDOWN, Cause(Actor.USER, "nobody waits for shutdown() any more"))

    def skip(self, step: str, reason: str) -> None:
        """A step of an orderly end is given up."""
        self.skipped.append(f"{step}: {reason}")
        self._bus.emit(StepSkipped(at=self._clock.now(), step=step, reason=reason))

    # --- policy

    def _no_replacement(self, instance: Instance) -> str | None:
        """Why the slot is not filled again, None where it is; empty where nobody would expect it to be."""
        policy = self._settings.restart
        last = instance.records[-1]
        if self._stopping.is_set() or policy.on == "never":
            return ""
        failed = instance.error is not None or any(r.event in _FAILURES for r in instance.records)
        if not any(record.dest is State.RUNNING for record in instance.records):
            return f"it could not be started: {last.cause}"
        if not failed and policy.on == "failure":
            return ""
        if failed and not policy.worth_retrying(instance.error):
            return f"{blame_of(instance.error).value} errors are not tried again: {instance.error}"
        if not self._attempts.left:
            times = "once" if policy.attempts == 1 else f"{policy.attempts} times"
            return f"it was tried again {times} within {policy.per:g} s: {_cause_of_failure(instance)}"
        return None

    def _plain_reason(self) -> str:
        """Why the slot is not filled again where nobody would expect it to be."""
        records = self.instance.records
        by = next((r.cause.actor for r in records if r.event is Event.SHUTDOWN), None)
        if by in (Actor.USER, Actor.CLOCK):
            return "it was stopped" if by is Actor.USER else "its agreement was about to expire"
        failed = self.instance.error is not None or any(record.event in _FAILURES for record in records)
        if failed and not any(record.dest is State.RUNNING for record in records):
            return "it could not be started"
        if failed and self._settings.restart.on == "never":
            return "restart is 'never'"
        due = failed or self._settings.restart.on == "always"
        return "it was stopped" if due and self._stopping.is_set() else "it has finished"

    def may_retry(self, instance: Instance, error: BaseException | None) -> bool:
        """Whether a start that failed shall be tried on another provider (see `StartPolicy`)."""
        return (
            self._settings.respawn_unstarted
            and not self._stopping.is_set()
            and self._settings.restart.worth_retrying(error)
            and self._attempts.left
        )

    # --- one instance

    async def _see_through(self, instance: Instance) -> None:
        while True:
            seq = len(instance.records)
            match instance.state:
                case State.PENDING:
                    await self._provision(instance, seq)
                case State.STARTING:
                    await self._watch_starting(instance, seq)
                case State.RUNNING:
                    instance.expect(outlook.drain(self._master.drains_at))
                    async with self._prober.at_work():
                        await self._moved(instance, seq, None)
                case State.STOPPING:
                    hurry = self._master.in_a_hurry
                    budget = 0.0 if hurry else self._left(self._settings.stop_timeout, instance)
                    instance.expect(outlook.shutdown(self._in(budget)))
                    if not await self._moved(instance, seq, budget):
                        self._cut_short(instance)
                case State.UNRESPONSIVE:
                    grace = left = self._settings.unresponsive_grace
                    if not instance.was_running:
                        left = self._left(grace, instance)
                    instance.expect(outlook.silence(self._in(left)))
                    if not await self._moved(instance, seq, left):
                        silent = ProviderSilent(f"the provider was silent for {grace:g} s more")
                        instance.fire(
                            Event.UNRESPONSIVE_TIMEOUT, Cause(Actor.CLOCK, "the grace period is over", silent)
                        )
                case State.TERMINATED:
                    return

    def _left(self, budget: float, instance: Instance) -> float:
        """What is left of a budget of the present state, in seconds."""
        spent, until = 0.0, self._clock.monotonic()
        for record in reversed(instance.records):
            if record.dest is instance.state:
                spent += until - record.monotonic
            if record.event not in (Event.PROVIDER_UNRESPONSIVE, Event.PROVIDER_RECOVERED):
                break
            until = record.monotonic
        return max(0.0, budget - spent)

    async def _moved(self, instance: Instance, seq: int, within: float | None) -> bool:
        """Wait for a move after record `seq`; False where there was none within the time."""
        try:
            async with asyncio.timeout(within):
                await instance.moved_since(seq)
        except TimeoutError:
            return len(instance.records) > seq
        return True

    async def _watch_starting(self, instance: Instance, seq: int) -> None:
        limit = self._settings.start_timeout
        left = self._left(limit, instance)
        instance.expect(outlook.start(self._in(left), probed=instance.start_is_probed))
        async with self._prober.at_work():
            if not await self._moved(instance, seq, left):
                probing = instance.start_is_exhausted
                what = "the startup probe had not passed" if probing else "start() had not ended"
                late = HandlerTimeout(f"{what} within {limit:g} s")
                instance.start_failed("start() overran its budget", late)

    # --- Pending

    async def _provision(self, instance: Instance, seq: int) -> None:
        """Get an instance out of Pending: with a lease, or by giving up, unless a stop does it."""
        if instance.lease is not None and not await self._prepare_retry(instance, seq):
            return
        acquiring = asyncio.get_running_loop().create_task(
            self._engine.acquire(
                self._market, avoid=self._avoid(), progress=lambda phase: self._acquiring(instance, phase)
            ),
            name=f"acquire for {instance.id}",
        )
        await self._race(acquiring, instance, seq)
        # What it has got on its way it gives back itself; that takes a bounded time.
        await asyncio.wait([acquiring])
        if acquiring.cancelled():
            return
        error = acquiring.exception()
        if error is None and instance.state is State.PENDING:
            self._run_on(instance, acquiring.result())
        elif error is None:
            # It came when nobody wanted it any more.
            unwanted = Reason(message="No longer needed", requestor_code="Cancelled")
            self._master.release(self, acquiring.result(), unwanted)
        elif instance.state is State.PENDING:
            await self._provision_failed(instance, seq, error)

    def _acquiring(self, instance: Instance, phase: Phase) -> None:
        if instance.state is State.PENDING:
            instance.set_phase(phase)
            instance.expect(outlook.acquiring(phase, self._in(self._engine.seconds_for(phase))))

    async def _race(self, work: asyncio.Task[Any], instance: Instance, seq: int) -> None:
        """Wait until the work is done or the instance has moved, and then cancel the other."""
        moving = asyncio.get_running_loop().create_task(
            instance.moved_since(seq), name=f"stop of {instance.id}"
        )
        try:
            await asyncio.wait({work, moving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            moving.cancel()
            await asyncio.wait([moving])

    def _run_on(self, instance: Instance, lease: ActivityLease) -> None:
        self._searches = 0
        lease.on_contact(lambda contact, reason: self._contact(instance, lease, contact, reason))
        instance.run_on(lease, Cause(Actor.ENGINE, f"activity on {lease.provider_name or lease.provider_id}"))
        # After RunService, so that a loss known by now is told to an instance that can take it.
        lease.agreement_ended.add_done_callback(
            lambda ended: self._told(instance, lease, Event.AGREEMENT_TERMINATED, ended)
        )
        lease.activity_lost.add_done_callback(
            lambda lost: self._told(instance, lease, Event.ACTIVITY_LOST, lost)
        )

    def _told(
        self, instance: Instance, lease: ActivityLease, event: Event, cause: asyncio.Future[Cause]
    ) -> None:
        """The engine has learnt that a lease came to its end."""
        if cause.cancelled() or instance.lease is not lease:
            return
        self._penalise(lease.provider_id)
        instance.fire(event, cause.result())

    def _contact(self, instance: Instance, lease: ActivityLease, contact: bool, reason: str) -> None:
        if instance.lease is lease:
            event = Event.PROVIDER_RECOVERED if contact else Event.PROVIDER_UNRESPONSIVE
            instance.fire(event, Cause(Actor.PROBE, reason))

    async def _prepare_retry(self, instance: Instance, seq: int) -> bool:
        """A start has failed: clean up and wait a little. False where the instance moved meanwhile."""
        instance.expect(outlook.cleaning_up())
        await self._handlers_finished(instance)
        lease = instance.lease
        assert isinstance(lease, ActivityLease)
        instance.give_up_lease()
        cause = instance.records[-1].cause
        self._penalise(lease.provider_id)
        self._master.release(
            self, lease, Reason(message=f"Start failed: {cause}"[:500], requestor_code="Cancelled")
        )
        self._attempts.failed()
        pause = self._attempts.pause()
        instance.set_phase(Phase.WAITING, f"{pause:.1f} s before the next provider is tried")
        await self._reset(instance, seq)
        if instance.state is State.PENDING:
            instance.expect(outlook.next_start(self._in(pause)))
        return not await self._moved(instance, seq, pause)

    async def _reset(self, instance: Instance, seq: int) -> None:
        """Let the service forget the failed start; one that cannot is not started again."""
        budget = instance.budgets.reset

        async def reset() -> None:
            async with asyncio.timeout(budget):
                await instance.service.reset()

        resetting = asyncio.get_running_loop().create_task(reset(), name=f"{instance.id} reset()")
        await self._race(resetting, instance, seq)
        _done, late = await asyncio.wait([resetting], timeout=instance.budgets.cleanup)
        if late:
            self.skip(f"reset() of {instance.id}", "it does not end")
            await cut_short(late)
            return
        if resetting.cancelled() or (error := resetting.exception()) is None:
            return
        if instance.state is State.PENDING:
            instance.fire(Event.START_FAILED, Cause(Actor.SUPERVISOR, "reset() raised", error))

    async def _provision_failed(self, instance: Instance, seq: int, error: BaseException) -> None:
        if not isinstance(error, ProvisionError):
            _log.error("acquiring_failed_by_a_bug", instance=instance.id, error=repr(error))
            instance.fire(Event.START_FAILED, Cause(Actor.SUPERVISOR, "no activity could be had", error))
            return
        if isinstance(error, AgreementRefused | ActivityRefused) and not isinstance(
            error.__cause__, NodeUnavailable
        ):
            self._penalise(NodeId(error.provider_id))
        if self._gives_up_search(error):
            instance.fire(Event.START_FAILED, Cause(Actor.SUPERVISOR, "no activity could be had", error))
            return
        pause = self._attempts.pause()
        instance.set_phase(Phase.WAITING, f"{pause:.1f} s, after: {error}")
        if isinstance(error, NoOffers):
            await self._market.renew()
        if instance.state is State.PENDING:
            instance.expect(outlook.next_search(self._in(pause), error))
        await self._moved(instance, seq, pause)

    def _gives_up_search(self, error: ProvisionError) -> bool:
        """Whether an activity is looked for in vain. A refused agreement does not count: it costs nothing."""
        again = self._settings.respawn_unstarted and not self._stopping.is_set()
        if isinstance(error, NoOffers):
            # Each search takes so long that a limit per period of time would never be reached.
            self._searches += 1
            return not again or self._searches >= self._settings.restart.attempts
        if isinstance(error, ActivityRefused):
            again = again and self._attempts.left
            self._attempts.failed()
            return not again
        return False

    def _avoid(self) -> frozenset[NodeId]:
        return self._box.inside() if self._settings.restart.where == "other" else frozenset()

    def _penalise(self, provider: NodeId) -> None:
        self._box.put(provider)

    # --- the end of an instance

    async def _hand_back(self, instance: Instance) -> None:
        """Give back what an instance holds, and wait until nothing of it is at work any more."""
        await self._handlers_finished(instance)
        await self._prober.close()
        lease, released = instance.lease, True
        if isinstance(lease, ActivityLease):
            instance.give_up_lease()
            instance.set_phase(Phase.RELEASING)
            instance.expect(outlook.releasing())
            releasing = self._master.release(self, lease, _reason_of(instance))
            await asyncio.wait([releasing])
            released = not releasing.cancelled() and releasing.result()
        if released:
            instance.set_phase(Phase.RELEASED)
        await instance.hooks_finished()

    async def _handlers_finished(self, instance: Instance) -> None:
        for name in await instance.handlers_finished():
            self.skip(f"clean-up of {name}", "it took too long")

    def _cut_short(self, instance: Instance) -> None:
        """Wait for `shutdown()` no longer."""
        reason = "nobody waits for it" if self._master.in_a_hurry else "it overran its budget"
        self.skip(f"shutdown() of {instance.id}", reason)
        late = HandlerTimeout(f"shutdown() did not end: {reason}")
        instance.fire(Event.SERVICE_ERROR, Cause(Actor.CLOCK, "shutdown() was cut short", late))

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True


def _cause_of_failure(instance: Instance) -> Cause:
    """What first went wrong since it was last Pending; what followed from it is not the cause."""
    causes: list[Cause] = []
    for record in instance.records:
        if record.dest is State.PENDING:
            causes.clear()
        elif record.event in _FAILURES or record.cause.error is not None:
            causes.append(record.cause)
    return causes[0] if causes else instance.records[-1].cause


def _reason_of(instance: Instance) -> Reason:
    """What the provider is told about the end."""
    error = instance.error
    if error is None:
        return Reason(message="The service has finished", requestor_code="Success")
    return Reason(
        message=f"The service has ended: {instance.records[-1].cause}"[:500], requestor_code="Cancelled"
    )
