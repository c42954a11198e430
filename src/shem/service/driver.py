"""Drives the handlers of one instance: sends what they yield, resumes them, stops them.

Handlers run in tasks beside the state machine and never inside a move. Each is tagged with the *life* it was
started in; what an older life reports is void. Two handlers never overlap: a new one waits, for at most the
clean-up budget, for all earlier ones. While *suspended* (the provider is unresponsive) a handler goes no
further than its next ``yield``, and its end is held back until `resume`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
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

    async def execute(self, script: Script, progress: Callable[[Phase], None]) -> None:
        """Run a script to its end. Its handles are resolved in any case; raises its error, if any."""


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
        if self._unfinished:
            await asyncio.wait(self._unfinished, timeout=self._cleanup)
        return sorted(task.get_name() for task in self._unfinished)

    # --- inside the handler's task

    async def _drive(self, name: str, run: _Run, earlier: frozenset[asyncio.Task[None]]) -> None:
        if earlier:
            await asyncio.wait(earlier, timeout=self._cleanup)
        self._set_phase(Phase.HANDLER, run.life)
        handler = open_handler(self._service, name)
        background: list[asyncio.Task[None]] = []
        try:
            await self._turns(name, handler, run, background)
            for script in background:
                await script
        finally:
            for script in background:
                script.cancel()
            await handler.aclose()
            # Retrieves their errors, so that none is reported as forgotten; the first one was raised above.
            await asyncio.gather(*background, return_exceptions=True)

    async def _turns(
        self,
        name: str,
        handler: HandlerStream,
        run: _Run,
        background: list[asyncio.Task[None]],
    ) -> None:
        turn: Awaitable[object] = anext(handler)
        while True:
            try:
                item = await turn
            except StopAsyncIteration:
                return
            await self._may_go_on()
            if run.life != self._life:
                # A handler that swallowed its cancellation: the instance has moved on without it.
                return
            script = check_yielded(self._service, name, item)
            script.mark_sent()
            error: ScriptError | None = None
            if script.wait_for_results:
                try:
                    await self._execute(script, run)
                except ScriptError as failure:
                    error = failure
            else:
                background.append(
                    asyncio.get_running_loop().create_task(
                        self._execute(script, run), name=f"{self._reports.id} script of {name}()"
                    )
                )
            await self._may_go_on()
            turn = handler.asend(script.results) if error is None else throw(handler, script, error)

    async def _may_go_on(self) -> None:
        if self._suspended is not None:
            await self._suspended.wait()

    async def _execute(self, script: Script, run: _Run) -> None:
        prelude = run.context.prelude(script)
        if prelude is not None:
            prelude.mark_sent()
            try:
                await self._send(prelude, run)
            except ScriptError as error:
                script.fail(error)
                raise
        await self._send(script, run)

    async def _send(self, script: Script, run: _Run) -> None:
        run.context.note_sent(script)
        commands = tuple(str(command) for command in script.commands)
        self._bus.emit(ScriptSent(**self._about(run), commands=commands))
        began, said = self._clock.monotonic(), ""
        self._set_phase(Phase.SCRIPT, run.life)
        try:
            await run.lease.execute(script, lambda phase: self._set_phase(phase, run.life))
        except asyncio.CancelledError:
            interrupted = ScriptInterrupted(
                f"{script!r} was under way when instance {self._reports.id} was stopped; its results are lost"
            )
            script.fail(interrupted)
            said = str(interrupted)
            raise
        except Exception as error:
            # Whatever it is (an `on_download` of the user may raise anything), no handle stays open.
            script.fail(error)
            said = str(error) or repr(error)
            raise
        finally:
            self._set_phase(Phase.HANDLER, run.life)
            seconds = self._clock.monotonic() - began
            self._bus.emit(ScriptFinished(**self._about(run), seconds=seconds, error=said))

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
