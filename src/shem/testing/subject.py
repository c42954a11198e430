"""The service that a life is about, and what its handlers do wrong.

`Standard` is the service of plans that bring none of their own. A `Watch` makes a subclass of a service
class that behaves alike, notes down each run of each handler, and does wrong what a plan says.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from shem.ids import ActivityId, InstanceId
from shem.payload import Payload, VmPayload
from shem.script import Script
from shem.service.context import WorkContext
from shem.service.handlers import HANDLERS, Handler
from shem.service.service import Service
from shem.testing.life import HandlerRun
from shem.testing.plan import BESIDE_HANDLERS, HandlerFault, HandlerFaultKind

S = TypeVar("S", bound=Service)
_K = HandlerFaultKind

#: What programs take and sleep, in seconds: long enough for something to happen in between.
PROGRAM_SECONDS = 0.5
PAUSE_SECONDS = 5.0


class PlannedError(Exception):
    """What a handler raises because the plan says so: an error of the user's own."""


class Standard(Service):
    """A service with everything that services have: set up, work in rounds, clean up."""

    rounds = 2

    @staticmethod
    async def get_payload() -> Payload:
        """Any image."""
        return VmPayload(image_hash="0" * 56)

    async def start(self) -> Handler:
        """Deploy, boot, and prepare."""
        async for script in super().start():
            yield script
        script = self._ctx.new_script()
        script.run("/bin/prepare")
        script.run("/bin/check")
        yield script

    async def run(self) -> Handler:
        """Work for some rounds."""
        for number in range(self.rounds):
            await asyncio.sleep(PAUSE_SECONDS)
            script = self._ctx.new_script()
            script.run("/bin/work", str(number))
            yield script
        await asyncio.sleep(PAUSE_SECONDS)

    async def shutdown(self) -> Handler:
        """Clean up, and take the runtime down."""
        script = self._ctx.new_script()
        script.run("/bin/finish")
        yield script
        async for script in super().shutdown():
            yield script


@dataclass(slots=True)
class _Run:
    """A run of a handler while it goes on."""

    service: Service
    handler: str
    activity: ActivityId | None
    began: float
    faults: tuple[HandlerFault, ...] = ()
    ended: float | None = None
    outcome: str = "running"
    error: BaseException | None = None

    async def before(self, step: int) -> bool:
        """Do wrong what is due before a script; false where the handler is to end here."""
        for fault in self.faults:
            if fault.step != step:
                continue
            match fault.kind:
                case _K.RAISES:
                    raise PlannedError(f"{self.handler}() raises, as planned")
                case _K.CANCELS:
                    raise asyncio.CancelledError("as planned")
                case _K.RETURNS:
                    return False
                case _K.SLOW:
                    await asyncio.sleep(fault.seconds)
                case _K.WAITS if not self.has(_K.SWALLOWS):
                    # Nobody could end one that also swallows its cancellation.
                    await asyncio.get_running_loop().create_future()
                case _K.SWALLOWS:
                    await _work_on(fault.seconds)
        return True

    def has(self, kind: HandlerFaultKind, step: int | None = None) -> bool:
        return any(one.kind is kind and step in (None, one.step) for one in self.faults)

    async def clean_up(self) -> None:
        """What its `finally` block does."""
        for fault in self.faults:
            if fault.kind is _K.SLOW_CLEANUP:
                await asyncio.sleep(fault.seconds)
        if self.has(_K.CLEANUP_RAISES):
            raise PlannedError(f"the clean-up of {self.handler}() raises, as planned")


async def _work_on(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (left := until - loop.time()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            # That is the fault: what cancels it has to cope.
            continue


@dataclass(slots=True)
class Watch:
    """Watches the handlers of all instances of one life.

    Attributes:
        faults: what they do wrong.
        scripts: what the handlers of each service object yielded, in order, by the object's `id()`.
        activities: the activities that each was given, in order.
    """

    faults: Sequence[HandlerFault] = ()
    scripts: dict[int, dict[Script, None]] = field(default_factory=lambda: defaultdict(dict))
    activities: dict[int, list[ActivityId]] = field(default_factory=lambda: defaultdict(list))
    _runs: list[_Run] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)

    def over(self, service_class: type[S], **attributes: Any) -> type[S]:
        """A class like `service_class` whose handlers are watched."""
        members: dict[str, Any] = {name: _watched(self, service_class, name) for name in HANDLERS}
        planned = {fault.handler for fault in self.faults}
        members["reset"] = _beside(self, service_class, "reset")
        members["_ctx"] = property(_context_of, self._give_context)
        members |= {
            name: _beside(self, service_class, name)
            for name in BESIDE_HANDLERS
            if name in planned and name != "reset"
        }
        names = {
            "__module__": service_class.__module__,
            "__qualname__": service_class.__qualname__,
            "__doc__": service_class.__doc__,
        }
        watched: type[S] = type(service_class.__name__, (service_class,), {**members, **names, **attributes})
        return watched

    def begin(self, service: Service, handler: str) -> _Run:
        """A run of a handler begins."""
        self._counts[handler] += 1
        faults = tuple(
            one for one in self.faults if one.handler == handler and one.times >= self._counts[handler]
        )
        activities = self.activities[id(service)]
        run = _Run(service, handler, activities[-1] if activities else None, _time(), faults)
        self._runs.append(run)
        return run

    def _give_context(self, service: Service, context: WorkContext) -> None:
        self.activities[id(service)].append(context.id)
        service.__dict__["_ctx"] = context

    def runs(self) -> tuple[HandlerRun, ...]:
        """Every run there was."""
        return tuple(
            HandlerRun(
                instance=InstanceId(run.service.id),
                handler=run.handler,
                activity=run.activity,
                began=run.began,
                ended=run.ended,
                outcome=run.outcome,
                error=run.error,
            )
            for run in self._runs
        )


def _watched(watch: Watch, service_class: type[Service], name: str) -> Any:
    original = getattr(service_class, name)

    async def handler(self: Service) -> AsyncIterator[Any]:
        run, step = watch.begin(self, name), 0
        try:
            if not await run.before(0):
                return
            async for script in original(self):
                if run.has(_K.YIELDS_NONE, step):
                    yield None
                if isinstance(script, Script):
                    watch.scripts[id(self)][script] = None
                yield script
                if run.has(_K.YIELDS_TWICE, step):
                    yield script
                step += 1
                if not await run.before(step):
                    return
            run.outcome = "exhausted"
        except GeneratorExit:
            run.outcome = "closed"
            if run.has(_K.IGNORES_CLOSE):
                # It hangs at this yield for ever: nobody can make it go on.
                run.ended = _time()
                yield self._ctx.new_script()
            raise
        except asyncio.CancelledError:
            run.outcome = "cancelled"
            raise
        except BaseException as error:
            run.outcome, run.error = "raised", error
            raise
        finally:
            if run.ended is None:
                try:
                    await run.clean_up()
                except PlannedError as error:
                    run.outcome, run.error = "raised", error
                    raise
                finally:
                    run.ended = _time()
                    if run.outcome == "running":
                        run.outcome = "exhausted"

    handler.__name__, handler.__qualname__ = name, f"{service_class.__qualname__}.{name}"
    return handler


def _beside(watch: Watch, service_class: type[Service], name: str) -> Any:
    original = getattr(service_class, name, None)

    async def function(self: Service, *args: Any) -> None:
        run = watch.begin(self, name)
        try:
            await run.before(0)
            if original is not None:
                await original(self, *args)
            run.outcome = "exhausted"
        except asyncio.CancelledError:
            run.outcome = "cancelled"
            raise
        except BaseException as error:
            run.outcome, run.error = "raised", error
            raise
        finally:
            run.ended = _time()

    return function


def _context_of(service: Service) -> WorkContext | None:
    return service.__dict__.get("_ctx")


def _time() -> float:
    return asyncio.get_running_loop().time()
