"""`Instance`: one run of a service on one provider at a time, and the gate through which it moves.

`fire` is the only way an instance moves. It is synchronous, so two events never overlap; the one that comes
second is judged against the state the first one left behind.

What each state guarantees:

* **Pending**: no handler runs. There is no lease, or one is being acquired.
* **Starting, Running, Stopping**: there is a lease, and the handler of that state runs (or is about to, when
  an earlier one still cleans up; or, while Starting, has ended and waits for the startup probe to pass).
* **Unresponsive**: the handler of the state it came from stays where it is, suspended at its next ``yield``;
  its end, if it ends, is held back until the provider recovers.
* **Terminated**: no handler runs, but for `finally` blocks within their budget. Nothing moves it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from shem.bus import Bus
from shem.clock import Clock
from shem.errors import ActivityGone, WaitError
from shem.events import ExpectationChanged, InstanceMoved, Phase, PhaseChanged
from shem.ids import ClusterId, InstanceId
from shem.lifecycle import (
    SERVICE,
    Actor,
    Cause,
    Event,
    Expectation,
    Machine,
    Move,
    Record,
    State,
    Step,
    Story,
    reachable,
)
from shem.service.context import WorkContext
from shem.service.driver import HandlerDriver, Lease
from shem.service.hooks import StateHooks
from shem.service.service import Service

#: The one machine of all instances.
MACHINE: Final[Machine[State, Event]] = Machine(SERVICE)

#: Which handler runs in which state.
HANDLER_OF: Final = {State.STARTING: "start", State.RUNNING: "run", State.STOPPING: "shutdown"}

#: What a handler's good end means in its state.
_SUCCESS: Final = {
    State.STARTING: Event.START_SUCCESSFUL,
    State.RUNNING: Event.SHUTDOWN,
    State.STOPPING: Event.SERVICE_STOPPED,
}


class StartPolicy(Protocol):
    """Decides what a failure before Running was ever reached leads to."""

    def may_retry(self, instance: Instance, error: BaseException | None) -> bool:
        """Whether another provider shall be tried. Must be quick, and free of effects."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """How long the user's code may hold up a life that goes on, in seconds."""

    cleanup: float = 5.0
    """`finally` blocks of a handler that was stopped."""
    hook: float = 30.0
    """One ``on_<state>`` hook."""
    reset: float = 30.0
    """`reset()` before a start is retried."""


class Instance:
    """One instance. Moved by `fire` alone; users read it through their `Service` object.

    Attributes:
        starts: how often it has been Starting.
        lease: its activity, from RunService until it is given up.
        context: the present, or last, activity as handlers see it.
        replaces: the terminated instance that it followed in its slot.
        expects: what comes next and when, for people; None once it has moved, until somebody knows.
        start_is_probed: whether a startup probe decides when it is Running.
        start_is_exhausted: whether StartSuccessful is held back for that, now that `start()` is exhausted.
        readiness_is_probed: whether a readiness probe decides when it is ready.
    """

    def __init__(
        self,
        instance_id: InstanceId,
        cluster_id: ClusterId,
        slot: int,
        service: Service,
        *,
        clock: Clock,
        bus: Bus,
        policy: StartPolicy,
        budgets: Budgets | None = None,
    ) -> None:
        self.id, self.cluster_id, self.slot, self.service = instance_id, cluster_id, slot, service
        self.budgets = budgets or Budgets()
        self.state: State = SERVICE.initial
        self.phase: Phase | None = None
        self.lease: Lease | None = None
        self.context: WorkContext | None = None
        self.starts = 0
        self.replaces: InstanceId | None = None
        self.expects: Expectation | None = None
        self.start_is_probed = self.start_is_exhausted = False
        self.readiness_is_probed = False
        self._ready: bool | None = None
        self._clock, self._bus, self._policy = clock, bus, policy
        self._driver = HandlerDriver(self, service, clock=clock, bus=bus, cleanup=self.budgets.cleanup)
        self._hooks = StateHooks(service, timeout=self.budgets.hook)
        self._records: list[Record[State, Event]] = []
        self._origin: State | None = None
        self._failure: BaseException | None = None
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        service._instance = self

    # --- what the table asks

    @property
    def subject(self) -> str:
        """Kind and id, for messages."""
        return f"instance {self.id}"

    @property
    def may_retry(self) -> bool:
        """Guard: policy allows another start on another provider."""
        return self._policy.may_retry(self, self._failure)

    @property
    def activity_available(self) -> bool:
        """Guard: the activity can still be talked to."""
        return self.lease is not None and self.lease.loss is None

    @property
    def was_starting(self) -> bool:
        """Guard: it became Unresponsive while Starting."""
        return self._origin is State.STARTING

    @property
    def was_running(self) -> bool:
        """Guard: it became Unresponsive while Running."""
        return self._origin is State.RUNNING

    @property
    def was_stopping(self) -> bool:
        """Guard: it became Unresponsive while Stopping."""
        return self._origin is State.STOPPING

    # --- the gate

    def fire(self, event: Event, cause: Cause) -> bool:
        """Apply an event, now. True: it moved. False: the event was late but harmless.

        Raises `IllegalEvent` where the table forbids it, which only a bug in shem can bring about.
        """
        self._failure = cause.error
        return MACHINE.fire(self, event, cause)

    @property
    def machine(self) -> Machine[State, Event]:
        """The machine that moves it."""
        return MACHINE

    def can(self, event: Event) -> bool:
        """Whether the table has a move for an event, in the present state."""
        return bool(SERVICE.cell(self.state, event).moves)

    def open_events(self) -> tuple[Event, ...]:
        """Events that can move it, in the present state."""
        return SERVICE.open_events(self.state)

    def left(self, move: Move[State, Event], cause: Cause) -> None:
        """Exit hook of every state: nothing to do, since what ends is decided by where it goes."""

    def entered(self, move: Move[State, Event], cause: Cause) -> None:
        """Entry hook of every state: note the move down, then schedule and cancel."""
        self._note(move, cause)
        if move.dest is State.UNRESPONSIVE:
            self._origin = move.source
            self._driver.suspend()
        elif move.event is Event.PROVIDER_RECOVERED:
            self._driver.resume()
        else:
            self._driver.drop()
            if move.dest in HANDLER_OF:
                assert self.lease is not None, "the table leads here only with an activity"
                self._driver.begin(HANDLER_OF[move.dest], self.lease, self.service._ctx)
        self._wake_waiters()

    def _note(self, move: Move[State, Event], cause: Cause) -> None:
        now = self._clock.now()
        record = Record(
            seq=len(self._records) + 1,
            subject=self.id,
            at=now,
            monotonic=self._clock.monotonic(),
            source=move.source,
            event=move.event,
            dest=move.dest,
            cause=cause,
        )
        self._records.append(record)
        self.phase = self.expects = self._ready = None
        self._bus.emit(
            InstanceMoved(
                at=now,
                cluster=self.cluster_id,
                instance=self.id,
                record=record,
                provider=self._provider_name,
            )
        )
        self._hooks.moved(record)

    # --- the lease

    def run_on(self, lease: Lease, cause: Cause) -> None:
        """An activity is ready: raise RunService with it."""
        self.lease = lease
        self.context = self.service._ctx = WorkContext(lease.activity)
        self.starts += 1
        self.start_is_exhausted = False
        self.fire(Event.RUN_SERVICE, cause)

    def notice_loss(self) -> None:
        """Look whether the activity is gone, and raise the event for that, if so: the first cause of it."""
        if self.lease is None or self.lease.loss is None:
            return
        if (ended := self.lease.agreement_end) is not None:
            self.fire(Event.AGREEMENT_TERMINATED, ended)
        else:
            self.fire(Event.ACTIVITY_LOST, self.lease.loss)

    def give_up_lease(self) -> None:
        """Forget the activity; the context stays readable until there is another."""
        self.lease = None

    # --- handlers

    def handler_ended(self, name: str, error: BaseException | None) -> None:
        """The present handler ended: raise the event that this means."""
        if isinstance(error, ActivityGone) and self.activity_available:
            # The script found out before the watchers did.
            self.fire(Event.ACTIVITY_LOST, Cause(Actor.PROVIDER, "its script found no activity", error))
            return
        before = len(self._records)
        self.notice_loss()
        if len(self._records) > before:
            return
        if error is None and self.state is State.STARTING and self.start_is_probed:
            self.start_is_exhausted = True
            self._wake_waiters()
        elif error is None:
            self.fire(_SUCCESS[self.state], Cause(Actor.HANDLER, f"{name}() is exhausted"))
        elif self.state is State.STARTING:
            self.start_failed(f"{name}() raised", error)
        else:
            self.fire(Event.SERVICE_ERROR, Cause(Actor.HANDLER, f"{name}() raised", error))

    def start_passed(self) -> None:
        """The startup probe has passed: raise the StartSuccessful that was held back for it."""
        if self.state is State.STARTING and self.start_is_exhausted:
            reason = "start() is exhausted, and the startup probe has passed"
            self.fire(Event.START_SUCCESSFUL, Cause(Actor.HANDLER, reason))

    def start_failed(self, reason: str, error: BaseException | None) -> None:
        """Starting came to nothing: raise RetryStart or StartFailed, as policy says."""
        again = self._policy.may_retry(self, error)
        event = Event.RETRY_START if again else Event.START_FAILED
        self.fire(event, Cause(Actor.SUPERVISOR, reason, error))

    async def handlers_finished(self) -> list[str]:
        """Wait for the handlers' clean-up, for at most its budget; names of those that did not make it."""
        return await self._driver.finished()

    async def hooks_finished(self) -> None:
        """Wait for the ``on_<state>`` hooks called so far."""
        await self._hooks.drain()

    def runs_in(self, task: asyncio.Task[object] | None) -> bool:
        """Whether a task is one of its handlers' own."""
        return self._driver.runs_in(task)

    # --- being watched

    @property
    def records(self) -> Sequence[Record[State, Event]]:
        """All moves so far; a path of the table."""
        return tuple(self._records)

    @property
    def error(self) -> BaseException | None:
        """The first error that made it leave the path of success since it was last Pending, if any."""
        first: BaseException | None = None
        for record in self._records:
            if record.dest is State.PENDING:
                first = None
            elif first is None:
                first = record.cause.error
        return first

    @property
    def is_ready(self) -> bool:
        """Whether it is Running and, where there is a readiness probe, that one passes."""
        return self.state is State.RUNNING and (bool(self._ready) or not self.readiness_is_probed)

    def set_ready(self, ready: bool, detail: str = "") -> None:
        """The readiness probe has decided, while Running."""
        self._ready = ready
        self._show(Phase.READY if ready else Phase.NOT_READY, detail)

    def expect(self, expects: Expectation) -> None:
        """Note down what comes next, until it moves or something else is expected."""
        if expects == self.expects:
            return
        self.expects = expects
        self._bus.emit(
            ExpectationChanged(
                at=self._clock.now(), cluster=self.cluster_id, instance=self.id, expects=expects
            )
        )

    def set_phase(self, phase: Phase, detail: str = "") -> None:
        """Note progress inside the state; of a handler only where no readiness is to be shown."""
        if self._ready is None or phase not in (Phase.HANDLER, Phase.SCRIPT):
            self._show(phase, detail)

    def _show(self, phase: Phase, detail: str) -> None:
        if phase is self.phase:
            return
        self.phase = phase
        self._bus.emit(
            PhaseChanged(
                at=self._clock.now(),
                cluster=self.cluster_id,
                instance=self.id,
                phase=phase,
                detail=detail,
            )
        )

    async def wait_for(self, *states: State, timeout: float | None = None) -> State:
        """Wait until it is in one of some states, and return which it reached.

        Raises `WaitError` once none of them can be reached any more, and at once when a handler waits for its
        own instance; `TimeoutError` after `timeout` seconds.
        """
        wanted = frozenset(states)
        if not wanted:
            raise WaitError(f"{self.subject}: wait_for() needs at least one state")
        if self.state in wanted:
            return self.state
        if self.runs_in(asyncio.current_task()):
            raise WaitError(
                f"{self.subject}: its own handler waits for {_names(wanted)}, which would wait for ever"
            )
        reached: list[State] = []

        def look() -> bool:
            if self.state in wanted:
                reached.append(self.state)
            origin = self._origin if self.state is State.UNRESPONSIVE else None
            return bool(reached) or wanted.isdisjoint(reachable(self.state, origin))

        async with asyncio.timeout(timeout):
            await self._until(look)
        if not reached:
            raise WaitError(f"{self.subject} will never be {_names(wanted)}:\n{self.why()}")
        return reached[0]

    async def start_exhausted(self) -> None:
        """Wait until StartSuccessful is held back for the startup probe."""
        await self._until(lambda: self.start_is_exhausted)

    async def moved_since(self, seq: int) -> None:
        """Wait for a move later than the record with number `seq`."""
        await self._until(lambda: len(self._records) > seq)

    async def _until(self, holds: Callable[[], bool]) -> None:
        if holds():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (holds, waiter)
        self._waiters.append(entry)
        try:
            await waiter
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)

    def _wake_waiters(self) -> None:
        waiting = []
        for holds, waiter in self._waiters:
            if waiter.done():
                continue
            if holds():
                waiter.set_result(None)
            else:
                waiting.append((holds, waiter))
        self._waiters = waiting

    def why(self) -> str:
        """What happened to it and who caused it, in a few lines, and what comes next."""
        story = Story(
            subject=f"{type(self.service).__name__} {self.id} (slot {self.slot})",
            state=self.state.value,
            provider=self._provider_name,
            phase=self.phase.value if self.phase else "",
            replaces=self.replaces or "",
            steps=tuple(Step.of(record) for record in self._records),
            expects=self.expects,
        )
        timed = self.expects is not None and self.expects.at is not None
        return story.told(self._clock.now() if timed else None)

    @property
    def _provider_name(self) -> str:
        # While Pending the context is that of a failed start, whose provider has no part in it any more.
        if self.context is None or self.state is State.PENDING:
            return ""
        return self.context.provider_name


def _names(states: frozenset[State]) -> str:
    return " or ".join(state.value for state in State if state in states)
