"""Drives the handlers of one instance: sends what they yield, resumes them, stops them.

Handlers run in tasks beside the state machine and never inside a move. Each is tagged with the *life* it was
started in; what an older life reports is void. Two handlers never overlap: a new one waits for the clean-up
of all earlier ones, and what is not done with it in time is cancelled again. While *suspended* (the provider
is unresponsive) no handler begins, none goes further than its next ``yield``, and its end is held back until
`resume`. Whatever becomes of a handler, the handles of each script it yielded are resolved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypedDict

from shem.bus import Bus
from shem.clock import Clock
from shem.errors import LifecycleError, ScriptError, ScriptInterrupted
from shem.events import Phase, ScriptFinished, ScriptSent
from shem.ids import ActivityId, ClusterId, InstanceId
from shem.lifecycle import Cause
from shem.log import get_logger
from shem.script import Script
from shem.service.context import ActivityView, WorkContext
from shem.service.handlers import HandlerStream, check_yielded, open_handler, throw
from shem.service.service import Service

_log = get_logger("handlers")

#: Seconds that something has to end in after it has been cancelled for taking too long.
LAST_WORDS = 1.0


class Lease(Protocol):
    """What an instance needs of the activity it was given."""

    @property
    def activity_id(self) -> ActivityId:
        """Id of the activity."""

    @property
    def activity(self) -> ActivityView:
        """The activity, as a context shows it."""

    @property
    def loss(self) -> Cause | None:
        """Why the activity is gone, as far as is known; None while it can be talked to."""

    @property
    def agreement_end(self) -> Cause | None:
        """Why its agreement was ended by the other side, as far as is known; None while it stands."""

    async def execute(self, script: Script, progress: Callable[[Phase], None]) -> None:
        """Run a script to its end. Its handles are resolved in any case; raises its error, if any."""


async def cut_short(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks that have used up their time, and wait a moment for their end; some will not end."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=LAST_WORDS)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of one handler: what it runs on, and the life it belongs to."""

    lease: Lease
    context: WorkContext
    life: int


class Reports(Protocol):
    """Where the driver reports to: the instance."""

    @property
    def id(self) -> InstanceId:
        """Id of the instance."""

    @property
    def cluster_id(self) -> ClusterId:
        """Id of its cluster."""

    def set_phase(self, phase: Phase, detail: str = "") -> None:
        """Progress of the present handler."""

    def handler_ended(self, name: str, error: BaseException | None) -> None:
        """The present handler ended, well or with an error. Never called from within a move."""


class HandlerDriver:
    """The handlers of one instance.

    Args:
        cleanup: seconds that the `finally` blocks of a stopped handler may take before the next one starts.
    """

    def __init__(self, reports: Reports, service: Service, *, clock: Clock, bus: Bus, cleanup: float) -> None:
        self._reports, self._service = reports, service
        self._clock, self._bus, self._cleanup = clock, bus, cleanup
        self._life = 0
        self._task: asyncio.Task[None] | None = None
        self._unfinished: set[asyncio.Task[None]] = set()
        self._suspended: asyncio.Event | None = None
        self._held_back: Callable[[], None] | None = None

    # --- called from within moves: schedule and cancel only

    def begin(self, name: str, lease: Lease, context: WorkContext) -> None:
        """Start a handler. The one before must have been dropped."""
        life, earlier = self._life, frozenset(self._unfinished)
        task = asyncio.get_running_loop().create_task(
            self._drive(name, _Run(lease, context, life), earlier), name=f"{self._reports.id} {name}()"
        )
        self._task = task
        self._unfinished.add(task)
        task.add_done_callback(lambda done: self._ended(done, name, life))

    def drop(self) -> None:
        """End the present handler: cancel it, and void whatever it still reports."""
        self._life += 1
        self._suspended = self._held_back = None
        if self._task is not None and not self._task.done():
            self._task.cancel()
        self._task = None

    def suspend(self) -> None:
        """Let the present handler go no further than its next ``yield``."""
        self._suspended = asyncio.Event()

    def resume(self) -> None:
        """Let it go on where it was."""
        suspended, self._suspended = self._suspended, None
        held_back, self._held_back = self._held_back, None
        if suspended is not None:
            suspended.set()
        if held_back is not None:
            # Soon, not now: this is called from within a move, and the report leads to another one.
            asyncio.get_running_loop().call_soon(held_back)

    # --- for whoever waits

    def runs_in(self, task: asyncio.Task[object] | None) -> bool:
        """Whether a task is one of the handlers' own."""
        return task in self._unfinished

    async def finished(self) -> list[str]:
        """Wait for clean-ups, for at most their budget; names of the handlers that did not make it."""
        return sorted(task.get_name() for task in await self._clean_up(frozenset(self._unfinished)))

    async def _clean_up(self, tasks: Collection[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
        """Give stopped handlers time to clean up, and cut short those that take too long; returns these."""
        if not tasks:
            return set()
        _done, late = await asyncio.wait(tasks, timeout=self._cleanup)
        await cut_short([task for task in late if task is not self._task])
        return late

    # --- inside the handler's task

    async def _drive(self, name: str, run: _Run, earlier: frozenset[asyncio.Task[None]]) -> None:
        await self._clean_up(earlier)
        await self._may_go_on()
        self._set_phase(Phase.HANDLER, run.life)
        handler = open_handler(self._service, name)
        beside = _ScriptsBeside()
        try:
            await self._turns(name, handler, run, beside)
            if run.life == self._life:
                await beside.finish()
        finally:
            beside.cancel()
            try:
                await self._close(name, handler, run)
            finally:
                await beside.ended()

    async def _turns(self, name: str, handler: HandlerStream, run: _Run, beside: _ScriptsBeside) -> None:
        turn: Awaitable[object] = anext(handler)
        while True:
            try:
                item = await turn
            except StopAsyncIteration:
                return
            if run.life != self._life:
                # A handler that swallowed its cancellation: the instance has moved on without it.
                if isinstance(item, Script):
                    item.fail(self._interrupted(item))
                return
            script = check_yielded(self._service, name, item)
            error: Exception | None = None
            try:
                script.mark_sent()
                if script.wait_for_results:
                    await self._perform(script, run)
                else:
                    performing = asyncio.get_running_loop().create_task(
                        self._perform(script, run), name=f"{self._reports.id} script of {name}()"
                    )
                    beside.add(script, performing, self._interrupted(script))
            except (
                Exception
            ) as failure:  # whatever it is: the handler that yielded the script hears of it first
                error = failure
            await self._may_go_on()
            turn = handler.asend(script.results) if error is None else throw(handler, script, error)

    async def _may_go_on(self) -> None:
        # Looked at again after each wait: it may have been suspended anew in the same moment.
        while self._suspended is not None:
            await self._suspended.wait()

    async def _close(self, name: str, handler: HandlerStream, run: _Run) -> None:
        """Run what is left of a handler, its `finally` blocks; what they raise is only logged.

        One that ends of its own accord has the clean-up budget; that of a stopped one is kept by those who
        wait for it (see `_clean_up`).
        """
        watch = asyncio.timeout(self._cleanup if run.life == self._life else None)
        try:
            async with watch:
                await handler.aclose()
        except Exception as error:  # its own end, or why it was stopped, matters more than a failed clean-up
            said = f"cut short after {self._cleanup:g} s" if watch.expired() else repr(error)
            _log.warning(
                "cleanup_failed",
                handler=f"{type(self._service).__name__}.{name}()",
                instance=self._reports.id,
                error=said,
            )

    async def _perform(self, script: Script, run: _Run) -> None:
        """Run a script, and before it what it relies on. Resolves its handles in any case."""
        try:
            await self._may_go_on()
            prelude = run.context.prelude(script)
            if prelude is not None:
                prelude.mark_sent()
                await self._send(prelude, run)
            await self._send(script, run)
        except asyncio.CancelledError:
            script.fail(self._interrupted(script))
            raise
        except Exception as error:
            # Whatever it is (an `on_download` of the user may raise anything), no handle stays open.
            script.fail(error)
            raise

    async def _send(self, script: Script, run: _Run) -> None:
        run.context.note_sent(script)
        commands = tuple(str(command) for command in script.commands)
        self._bus.emit(ScriptSent(**self._about(run), commands=commands))
        began, said = self._clock.monotonic(), ""
        self._set_phase(Phase.SCRIPT, run.life)
        try:
            await run.lease.execute(script, lambda phase: self._set_phase(phase, run.life))
        except asyncio.CancelledError:
            said = "interrupted"
            raise
        except Exception as error:
            said = str(error) or repr(error)
            raise
        finally:
            self._set_phase(Phase.HANDLER, run.life)
            seconds = self._clock.monotonic() - began
            self._bus.emit(ScriptFinished(**self._about(run), seconds=seconds, error=said))

    def _interrupted(self, script: Script) -> ScriptInterrupted:
        return ScriptInterrupted(
            f"{script!r} was under way when instance {self._reports.id} was stopped; its results are lost"
        )

    def _about(self, run: _Run) -> _About:
        return {
            "at": self._clock.now(),
            "cluster": self._reports.cluster_id,
            "instance": self._reports.id,
            "activity": run.lease.activity_id,
        }

    def _set_phase(self, phase: Phase, life: int) -> None:
        if life == self._life:
            self._reports.set_phase(phase)

    # --- outside any task, when one is done

    def _ended(self, task: asyncio.Task[None], name: str, life: int) -> None:
        self._unfinished.discard(task)
        error = None if task.cancelled() else task.exception()
        if life == self._life and task.cancelled():
            error = LifecycleError(f"the task of {task.get_name()} was cancelled by somebody else than shem")
        if life != self._life and error is not None and not isinstance(error, ScriptError):
            _log.warning("late_handler_error", handler=task.get_name(), error=repr(error))
        self._report(name, error, life)

    def _report(self, name: str, error: BaseException | None, life: int) -> None:
        if life != self._life:
            return
        if self._suspended is not None:
            self._held_back = lambda: self._report(name, error, life)
            return
        self._reports.handler_ended(name, error)


class _About(TypedDict):
    at: datetime
    cluster: ClusterId
    instance: InstanceId
    activity: ActivityId


class _ScriptsBeside:
    """Scripts that run beside the handler which sent them (``wait_for_results=False``).

    Their failures are told to those who await their results. One that nobody has been told of makes the
    handler fail in the end, so that none goes unnoticed.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._failed: tuple[Script, BaseException] | None = None

    def add(self, script: Script, performing: asyncio.Task[None], interrupted: ScriptInterrupted) -> None:
        """Look after one; it fails with `interrupted` where it is cancelled before its first step."""
        self._running.add(performing)

        def ended(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            if task.cancelled():
                script.fail(interrupted)
            elif (error := task.exception()) is not None and (
                self._failed is None or self._failed[0].failure_heard
            ):
                self._failed = script, error

        performing.add_done_callback(ended)

    async def finish(self) -> None:
        """Wait for all of them. Raises a failure that nobody has heard of."""
        await self.ended()
        if self._failed is not None and not self._failed[0].failure_heard:
            raise self._failed[1]

    def cancel(self) -> None:
        """Stop those that still run."""
        for performing in self._running:
            performing.cancel()

    async def ended(self) -> None:
        """Wait until none of them runs."""
        if self._running:
            await asyncio.wait(self._running)
