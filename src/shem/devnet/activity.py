"""One activity: where it is, what it runs in, what it has used.

How activities are made and ended belongs to `activities`, what commands do to `executor`.

Source: contract 3.4.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shem import props
from shem.clock import Clock
from shem.devnet.agreements import Agreement
from shem.devnet.background import Timer
from shem.devnet.batches import Batch
from shem.devnet.runtime.base import CommandError, Runtime
from shem.devnet.waiting import Bell
from shem.ids import ActivityId, BatchId
from shem.lifecycle import ACTIVITY, ActivityEvent, ActivityState, Actor, Cause, Machine, Move
from shem.yagna import models as wire

MACHINE: Final = Machine(ACTIVITY)

_EXPECTED: Final = {
    ActivityState.INITIALIZED: "deploy() command is expected now",
    ActivityState.DEPLOYED: "start() command is expected now",
    ActivityState.READY: "run(), transfer() or terminate() command is expected now",
}


class Activity:
    """One exe-unit on a provider, moved by the table of `shem.lifecycle` only.

    Attributes:
        birth: the task that makes its runtime.
        ending: the task that ends it, once somebody wants it ended.
        end_known: whether its requestor knows that it has ended, and so is told without asking the provider.
        ended_at: when it ended, in seconds of the clock.
        silent: whether its reports do not get through, so that nothing it does is noticed.
        reason, error_message: why it ended, where it did not end as asked.
    """

    def __init__(self, identifier: ActivityId, agreement: Agreement, clock: Clock) -> None:
        self.id, self.agreement = identifier, agreement
        self.state: ActivityState = ACTIVITY.initial
        self.next_state: ActivityState | None = None
        self.batches: dict[BatchId, Batch] = {}
        self.tasks: dict[asyncio.Task[None], None] = {}
        self.birth: asyncio.Task[None] | None = None
        self.ending: asyncio.Task[None] | None = None
        self.end_known = False
        self.ended_at: float | None = None
        self.silent = False
        self.timers: list[Timer] = []
        self.reason: str | None = None
        self.error_message: str | None = None
        self.bell = Bell()
        self._runtime: Runtime | None = None
        self._clock = clock
        self._began: float | None = None
        self._working = 0
        self._silenced_in: ActivityState | None = None
        self._final_usage: list[float] | None = None
        self._counters: list[str] = list(agreement.draft.properties.get(props.USAGE_VECTOR, ()))

    @property
    def subject(self) -> str:
        """Kind and id, for messages."""
        return f"activity {self.id}"

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.state is not ActivityState.TERMINATED

    @property
    def runtime(self) -> Runtime:
        """What it runs in. Raises `CommandError` before there is one."""
        if self._runtime is None:
            raise CommandError("Local service error: State error: the activity has no runtime yet")
        return self._runtime

    @property
    def has_runtime(self) -> bool:
        """Whether there is, or was, a runtime."""
        return self._runtime is not None

    # --- moved by the machine -------------------------------------------------------------------------

    @property
    def was_initialized(self) -> bool:
        """Guard: where it was when contact was lost."""
        return self._silenced_in is ActivityState.INITIALIZED

    @property
    def was_deployed(self) -> bool:
        """Guard: where it was when contact was lost."""
        return self._silenced_in is ActivityState.DEPLOYED

    @property
    def was_ready(self) -> bool:
        """Guard: where it was when contact was lost."""
        return self._silenced_in is ActivityState.READY

    def left(self, move: Move[ActivityState, ActivityEvent], _cause: Cause) -> None:
        """Hook of the machine: remember where contact was lost."""
        if move.event is ActivityEvent.LOSE_CONTACT:
            self._silenced_in = move.source

    def entered(self, _move: Move[ActivityState, ActivityEvent], _cause: Cause) -> None:
        """Hook of the machine: wake those who wait for a change."""
        if not self.alive:
            self.ended_at = self._clock.monotonic()
        self.bell.ring()

    # --- commands -------------------------------------------------------------------------------------

    @contextmanager
    def moving(self, event: ActivityEvent) -> Iterator[None]:
        """Around a command that leads to another state; moves there unless the body raises.

        Raises `CommandError` where the command does not fit the state, or another one is moving it already.
        """
        cell = ACTIVITY.cell(self.state, event)
        if not cell.moves or self.next_state is not None:
            raise self._unfitting()
        self.next_state = cell.moves[0].dest
        try:
            yield
        finally:
            self.next_state = None
        MACHINE.fire(self, event, Cause(Actor.PROVIDER))

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around a command that leaves it where it is. Raises `CommandError` unless it is Ready."""
        if self.state is not ActivityState.READY or self.next_state is not None:
            raise self._unfitting()
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1

    async def heard(self) -> None:
        """Return as soon as what happens in the activity is noticed outside."""
        await self.bell.until(lambda: not self.silent)

    def _unfitting(self) -> CommandError:
        what = self.state.value.lower()
        if self.next_state is not None:
            return CommandError(
                f"Local service error: State error: Activity is {what}, on its way to {self.next_state.value}"
            )
        expected = _EXPECTED.get(self.state, "no command is possible now")
        return CommandError(f"Local service error: State error: Activity is {what} - {expected}")

    # --- what it is and has used ----------------------------------------------------------------------

    def begin(self, runtime: Runtime) -> None:
        """The runtime is there: usage is counted from now on."""
        self._runtime = runtime
        self._began = self._clock.monotonic()

    def freeze(self) -> None:
        """The usage counted so far is final."""
        if self._final_usage is None:
            self._final_usage = self.usage()

    def usage(self) -> list[float]:
        """What it has used, in the order of the offer's usage vector."""
        if self._final_usage is not None:
            return list(self._final_usage)
        if self._runtime is None or self._began is None:
            return [0.0 for _ in self._counters]
        used = {
            props.CPU_SEC: self._runtime.cpu_seconds(),
            props.DURATION_SEC: self._clock.monotonic() - self._began,
        }
        return [float(used.get(counter, 0.0)) for counter in self._counters]

    def document(self) -> wire.ActivityStateDoc:
        """The state as the REST API shows it."""
        following = self.next_state if self.state is not ActivityState.UNRESPONSIVE else None
        if self.alive and self.ending is not None:
            following = ActivityState.TERMINATED
        elif following is None and self._working and self.state is ActivityState.READY:
            following = ActivityState.READY
        return wire.ActivityStateDoc(
            state=(self.state.value, following.value if self.alive and following else None),
            reason=self.reason,
            error_message=self.error_message,
        )
