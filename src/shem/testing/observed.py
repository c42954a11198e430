"""Watching how a user's own handlers behave: what they raise, when they let go, what they leave.

`Observer.over` makes a subclass of a service that behaves alike. Handlers are driven through it step by step,
so that their own time, virtual and real, is told apart from that of the scripts they sent.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
import warnings
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Final, TypeVar

from shem.errors import ShemError
from shem.lifecycle import State
from shem.script import Script
from shem.script.commands import Download
from shem.service.handlers import HANDLERS, HandlerStream
from shem.service.service import Service
from shem.testing.places import Origin, caller, is_users_file, place_in, place_of
from shem.testing.scratch import Scratch
from shem.testing.steady import Interrupted, Stopwatch

S = TypeVar("S", bound=Service)

#: What else of the user's is called, besides handlers.
BESIDE: Final = ("reset", *(f"on_{state.value}" for state in State))

#: Stands for the handler where it is none.
OWN_TASK: Final = "a task of its own"
#: How an error begins that tells of something no simulation can do.
UNSIMULATED: Final = "this cannot be simulated"
#: So many steps without time moving are a circle.
MOST_STEPS: Final = 5_000

_FORGOTTEN: Final = re.compile(r"coroutine '(.+)' was never awaited")
#: What shem keeps in a service object.
_OURS: Final = frozenset({"_ctx", "_instance"})


@dataclass(slots=True, eq=False)
class Run:
    """One run of one handler, hook, or `reset()`.

    Attributes:
        handler, service: which, and whose; None for a task that the user's code began.
        number: which run of it by this object it is, from 1.
        commands: the commands of the scripts that it yielded, in order, without the names of who ran them.
        scripts: these scripts.
        place: where it was last, as ``file:line``.
        own: its own virtual time, in seconds: not that of its scripts.
        waited, waited_at: the longest time that it waited for something in, and where that was.
        cancels, cancelled_at: how often it was cancelled, and when it was last, in virtual seconds.
        let_go_at: when it was first cancelled or closed, in virtual seconds.
        exhausted: it came to its end of its own accord.
        ended_at: when it ended; None where it never did.
        went_on: it yielded something after it had been cancelled, or closed.
        wrong: what it yielded that is no script.
        error, origin: what it raised that is none of shem's, and where that came from; `in_cleanup` where it
            was when it was closed.
        blocked, blocked_at: its longest step in real time, in seconds, and where that was; 0 where none was
            too long.
        spun: it was interrupted because it turned in a circle without waiting.
        left_behind: attributes of the object that an earlier start has set or changed.
    """

    handler: str
    service: Service | None
    number: int = 1
    commands: list[str] = field(default_factory=list)
    scripts: list[Script] = field(default_factory=list)
    place: str = ""
    own: float = 0.0
    waited: float = 0.0
    waited_at: str = ""
    cancels: int = 0
    cancelled_at: float | None = None
    let_go_at: float | None = None
    exhausted: bool = False
    ended_at: float | None = None
    went_on: bool = False
    wrong: str = ""
    error: BaseException | None = None
    origin: Origin | None = None
    in_cleanup: bool = False
    blocked: float = 0.0
    blocked_at: str = ""
    spun: bool = False
    left_behind: tuple[str, ...] = ()

    def was_cancelled(self) -> None:
        """It was cancelled, and goes on. A timeout inside it has taken its cancellation back by now."""
        if _is_cancelled():
            self.cancels, self.cancelled_at = self.cancels + 1, _now()
            self.let_go_at = self.cancelled_at if self.let_go_at is None else self.let_go_at

    @property
    def whose(self) -> str:
        """Id of the instance, if it is one's."""
        return self.service.id if self.service is not None else ""


@dataclass(slots=True)
class Begun:
    """A task that the user's code began: where, the name of its function, and how it goes."""

    task: asyncio.Task[Any]
    place: str
    name: str
    run: Run


class Observer:
    """Watches one life of a service.

    Attributes:
        runs: every run of everything of the user's, in order.
        tasks: every task that the user's code began.
        forgotten: coroutines that the user's code made and never awaited: their names, and where.
    """

    def __init__(self, watch: Stopwatch, scratch: Scratch) -> None:
        self.runs: list[Run] = []
        self.tasks: list[Begun] = []
        self.forgotten: list[tuple[str, str]] = []
        self._watch, self._scratch = watch, scratch
        self._counts: Counter[tuple[int, str]] = Counter()
        self._first: dict[int, dict[str, Any]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def over(self, service_class: type[S]) -> type[S]:
        """A class like `service_class` that is watched."""
        members: dict[str, Any] = {name: self._handler(service_class, name) for name in HANDLERS}
        members |= {
            name: self._function(service_class, name) for name in BESIDE if hasattr(service_class, name)
        }
        names = {
            "__module__": service_class.__module__,
            "__qualname__": service_class.__qualname__,
            "__doc__": service_class.__doc__,
        }
        watched: type[S] = type(service_class.__name__, (service_class,), {**members, **names})
        return watched

    def note_warnings(self, warned: Iterable[warnings.WarningMessage]) -> None:
        """Python tells of coroutines that are never awaited, in the moment in which they are thrown away."""
        for warning in warned:
            if (told := _FORGOTTEN.search(str(warning.message))) and is_users_file(warning.filename):
                self.forgotten.append((told[1], f"{warning.filename}:{warning.lineno}"))

    # --- what is called

    def _handler(self, service_class: type[Service], name: str) -> Callable[[Service], Any]:
        original = getattr(service_class, name)

        def handler(service: Service) -> Any:
            found = original(service)
            if isinstance(found, HandlerStream):
                # Under the stream and not around it: what a stream absorbs never comes out of it.
                found._generator = _Seen(found._generator, self, self._begin(service, name))
            elif isinstance(found, AsyncGenerator):
                found = _Seen(found, self, self._begin(service, name))
            return found

        return handler

    def _function(self, service_class: type[Service], name: str) -> Callable[..., Any]:
        original = getattr(service_class, name)

        async def function(service: Service, *args: Any) -> None:
            run = self._begin(service, name)
            try:
                await self.follow(run, _call(original, service, *args), inside=inspect.unwrap(original))
            finally:
                run.ended_at = _now()

        return function

    def _begin(self, service: Service, name: str) -> Run:
        self._attend()
        key = id(service), name
        self._counts[key] += 1
        run = Run(name, service, self._counts[key])
        if name == "start":
            state = _state_of(service)
            first = self._first.setdefault(id(service), state)
            run.left_behind = tuple(
                sorted(one for one in state.keys() | first.keys() if not _alike(state, first, one))
            )
        self.runs.append(run)
        return run

    def _attend(self) -> None:
        """Follow the tasks that the user's code begins on this loop, and run its threads in place."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        self._loop, make = loop, loop.get_task_factory()
        assert make is not None, "a simulated loop has one"

        def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Future[Any]:
            place = caller(sys._getframe(1))
            if not place:
                return make(loop, coro, **options)
            run = Run(OWN_TASK, None, place=place)
            task = make(loop, self._followed(run, coro), **options)
            # One that is cancelled before its first step has never been awaited, and need not be.
            task.add_done_callback(lambda _task: coro.close())
            if isinstance(task, asyncio.Task):
                self.tasks.append(Begun(task, place, getattr(coro, "__qualname__", "?"), run))
            return task

        loop.set_task_factory(factory)
        loop.run_in_executor = self._in_place  # type: ignore[method-assign,assignment]  # of this one loop

    async def _followed(self, run: Run, coro: Any) -> Any:
        try:
            return await self.follow(run, coro, inside=coro)
        finally:
            run.ended_at = _now()

    def _in_place(self, _executor: object, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """A thread, as far as one can be simulated: done at once, but for what it sleeps."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._watch.beside() as took:
            try:
                finish, result = future.set_result, function(*args)
            except Interrupted:
                finish, result = future.set_exception, RuntimeError(f"{UNSIMULATED}: a thread that goes on")
            except Exception as error:  # as in a thread, whatever it is goes to whoever waits for the result
                finish, result = future.set_exception, error
        loop.call_later(took(), _unless_cancelled, future, finish, result)
        return future

    # --- step by step

    async def follow(self, run: Run, turn: Awaitable[Any], *, inside: object) -> Any:
        """Await what the user's code does, and note down how it goes. `inside` tells where it is."""
        began = _now()
        try:
            return await _Steps(self, run, turn, inside)
        except (asyncio.CancelledError, GeneratorExit, StopAsyncIteration, ShemError) as end:
            run.exhausted = isinstance(end, StopAsyncIteration)
            if isinstance(end, asyncio.CancelledError) and not _is_cancelled():
                run.error, run.place = end, place_of(end) or run.place
            raise
        except BaseException as error:
            if not isinstance(error, Interrupted):
                run.error, run.origin = error, Origin.of(error)
            run.place = place_of(error) or run.place
            raise
        finally:
            run.own += _now() - began

    def step(self, run: Run, advance: Callable[[], Any], inside: object) -> Any:
        """One step between two awaits."""
        self._watch.begin()
        try:
            return advance()
        finally:
            took = self._watch.end()
            if took > run.blocked:
                run.blocked, run.blocked_at = took, self._watch.place or place_in(inside) or run.place

    def yielded(self, run: Run, item: object, inside: object) -> None:
        """The handler yielded something."""
        run.place = place_in(inside) or run.place
        if run.cancels and _is_cancelled():
            run.went_on = True
        if not isinstance(item, Script):
            run.wrong = "None" if item is None else f"a {type(item).__name__}"
            return
        run.scripts.append(item)
        run.commands += (_anonymous(str(command), run.service) for command in item.commands)
        for command in item.commands:
            if isinstance(command, Download) and command.to is not None:
                self._scratch.keep(command.to)


class _Seen(AsyncGenerator[Any, Any]):
    """A handler's generator, each turn of which is followed."""

    def __init__(self, generator: AsyncGenerator[Any, Any], observer: Observer, run: Run) -> None:
        self._generator, self._observer, self._run = generator, observer, run

    async def asend(self, value: Any) -> Any:
        """See `AsyncGenerator.asend`."""
        return await self._turn(self._generator.asend(value))

    async def athrow(
        self, typ: Any, val: BaseException | object = None, tb: TracebackType | None = None
    ) -> Any:
        """See `AsyncGenerator.athrow`."""
        return await self._turn(self._generator.athrow(typ))

    async def _turn(self, turn: Awaitable[Any]) -> Any:
        try:
            item = await self._observer.follow(self._run, turn, inside=self._generator)
        except BaseException:
            self._run.ended_at = _now()
            raise
        self._observer.yielded(self._run, item, self._generator)
        return item

    async def aclose(self) -> None:
        """See `AsyncGenerator.aclose`."""
        run = self._run
        if run.ended_at is None:
            run.in_cleanup = True
            run.let_go_at = _now() if run.let_go_at is None else run.let_go_at
            run.place = place_in(self._generator) or run.place
        try:
            await self._observer.follow(run, self._generator.aclose(), inside=self._generator)
        except RuntimeError as error:
            if "ignored GeneratorExit" in str(error):
                run.error, run.went_on = None, True
            raise
        finally:
            run.ended_at = _now() if run.ended_at is None else run.ended_at


class _Steps:
    """An awaitable that drives another one, one step at a time."""

    __slots__ = ("_inside", "_observer", "_run", "_turn")

    def __init__(self, observer: Observer, run: Run, turn: Awaitable[Any], inside: object) -> None:
        self._observer, self._run, self._turn, self._inside = observer, run, turn, inside

    def __await__(self) -> Generator[Any, None, Any]:
        observer, run, inside = self._observer, self._run, self._inside
        steps: Any = self._turn.__await__()
        advance: Callable[[], Any] = partial(steps.send, None)
        number, moment, cancelled = 0, _now(), False
        while True:
            try:
                waiting_for = observer.step(run, advance, inside)
            except StopIteration as stop:
                if cancelled:
                    run.was_cancelled()
                return stop.value
            if cancelled:
                run.was_cancelled()
            number, moment = (number + 1, moment) if moment == _now() else (0, _now())
            if number > MOST_STEPS + 1:
                # It was told to end, and would not: it shall never go on.
                yield from asyncio.get_running_loop().create_future()
            try:
                yield waiting_for
                advance, cancelled = partial(steps.send, None), False
                if number == MOST_STEPS:
                    run.spun, run.place = True, place_in(inside) or run.place
                    advance = partial(steps.throw, Interrupted("it turns in a circle without waiting"))
            except BaseException as error:
                advance, cancelled = partial(steps.throw, error), isinstance(error, asyncio.CancelledError)
            if _now() - moment > run.waited:
                run.waited, run.waited_at = _now() - moment, place_in(inside)


def _anonymous(text: str, service: Service | None) -> str:
    """A command without the names that differ from one start to the next."""
    if service is None:
        return text
    names = {
        str(service._ctx.id): "<activity>",
        str(service.provider_id): "<provider>",
        str(service.provider_name): "<provider>",
        str(service.id): "<instance>",
    }
    for name, stand_in in names.items():
        text = text.replace(name, stand_in)
    return text


def _unless_cancelled(future: asyncio.Future[Any], finish: Callable[[Any], None], result: Any) -> None:
    if not future.done():
        finish(result)


async def _call(function: Callable[..., Any], *args: Any) -> None:
    result = function(*args)
    if inspect.isawaitable(result):
        await result


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_cancelled() -> bool:
    """Whether somebody wants the present task to end, and not only something inside it, such as a timeout."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


# --- what is left in the object


def _state_of(service: Service) -> dict[str, Any]:
    """What is in the object, containers copied."""
    return {
        name: value.copy() if isinstance(value, list | dict | set) else value
        for name, value in vars(service).items()
        if name not in _OURS
    }


def _alike(one: dict[str, Any], other: dict[str, Any], name: str) -> bool:
    missing = object()
    left, right = one.get(name, missing), other.get(name, missing)
    if left is right:
        return True
    try:
        return bool(left == right)
    except Exception:  # the comparison is the user's own, and may raise anything
        return False
