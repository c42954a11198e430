"""The work generator pattern: handlers are async generators that yield scripts.

`HandlerStream` wraps such a generator so that delegation works in both directions. In ::

    async def start(self):
        async for script in super().start():
            yield script

the inner generator learns the results of its own scripts, and when one fails, the error is thrown into the
inner generator first; only what it does not handle reaches the outer one, at its ``yield``. Plain generators
would hand the inner one None, and never tell it of a failure.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Any, TypeAlias

from shem.errors import ServiceDefinitionError
from shem.script import Script, ScriptResults

#: The handlers of a service, in the order of its life.
HANDLERS = ("start", "run", "shutdown")

#: What a handler is: it yields scripts, and each ``yield`` gives an awaitable of the script's results.
Handler: TypeAlias = AsyncGenerator[Script, ScriptResults]


class HandlerStream(AsyncGenerator[Any, Any]):
    """A handler at work: an async generator that remembers what it yielded last."""

    def __init__(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._generator = generator
        self._last: Script | None = None
        self._ahead: list[Any] = []

    async def asend(self, value: Any) -> Any:
        """Resume it; without a value it gets the results of its last script."""
        if self._ahead:
            return self._passing(self._ahead.pop())
        if value is None and self._last is not None:
            value = self._last.results
        return self._passing(await self._generator.asend(value))

    async def athrow(
        self,
        typ: Any,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> Any:
        """Raise an error at its ``yield``."""
        error = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        return self._passing(await self._generator.athrow(error))

    async def aclose(self) -> None:
        """End it, running the ``finally`` blocks of whom it delegates to, and then its own."""
        inner = self._delegate()
        self._ahead.clear()
        self._last = None
        try:
            if inner is not None:
                await inner.aclose()
        finally:
            await self._generator.aclose()

    def _delegate(self) -> HandlerStream | None:
        """The one whose script it passed on last; Python itself would leave it to the garbage collector."""
        inner = None
        for stream in self._last.yielded_by if self._last is not None else ():
            if stream is self:
                break
            inner = stream
        return inner if isinstance(inner, HandlerStream) else None

    async def absorb(self, error: Exception) -> Exception | None:
        """Offer it the failure of its last script, ahead of the handler that delegates to it.

        Returns None where it dealt with it (what it yields next is kept for its next turn), else the error
        that is to be thrown further out.
        """
        try:
            self._ahead.append(await self._generator.athrow(error))
        except StopAsyncIteration:
            # It dealt with the failure by ending, which it tells whoever asks it for more.
            return None
        except Exception as raised:  # whatever it raises instead is the outer handler's to deal with
            return raised
        return None

    def _passing(self, item: Any) -> Any:
        if isinstance(item, Script):
            self._last = item
            item.yielded_by.append(self)
        return item


async def throw(handler: HandlerStream, script: Script, error: Exception) -> Any:
    """Tell a handler, and those it delegates to, that a script failed; returns what it yields next.

    Raises `StopAsyncIteration` where it ends, and whatever it does not handle.
    """
    pending: Exception = error
    for inner in script.yielded_by:
        if inner is handler or not isinstance(inner, HandlerStream):
            break
        raised = await inner.absorb(pending)
        if raised is None:
            return await handler.asend(script.results)
        pending = raised
    return await handler.athrow(pending)


def streaming(function: Callable[..., Any]) -> Callable[..., Any]:
    """A handler function whose generators are `HandlerStream`s; anything else is returned as it is."""
    if not inspect.isasyncgenfunction(function):
        return function

    @functools.wraps(function)
    def handler(*args: Any, **kwargs: Any) -> HandlerStream:
        return HandlerStream(function(*args, **kwargs))

    return handler


def open_handler(service: object, name: str) -> HandlerStream:
    """Begin a service's handler. Raises `ServiceDefinitionError` where it is no async generator."""
    found = getattr(service, name)()
    if isinstance(found, HandlerStream):
        return found
    if isinstance(found, AsyncGenerator):
        return HandlerStream(found)
    if inspect.iscoroutine(found):
        found.close()
    raise _malformed(type(service), name, f"it returned {type(found).__name__}")


def check_handlers(service_class: type) -> None:
    """Refuse a class with a handler that is no async generator function, before anything is rented.

    A decorated handler passes if its decorator uses `functools.wraps`. Raises `ServiceDefinitionError`.
    """
    for name in HANDLERS:
        found = getattr(service_class, name, None)
        if not callable(found):
            raise _malformed(service_class, name, f"it is {found!r}")
        function = inspect.unwrap(found)
        if inspect.iscoroutinefunction(function):
            raise _malformed(service_class, name, "it is a coroutine function: it never yields")
        if not inspect.isasyncgenfunction(function):
            raise _malformed(service_class, name, "it is a plain function")


def check_yielded(service: object, name: str, item: object) -> Script:
    """What a handler yielded, if it is a script. Raises `ServiceDefinitionError` if not."""
    if isinstance(item, Script):
        return item
    raise ServiceDefinitionError(
        f"{type(service).__name__}.{name}() yielded {_kind(item)}, but a handler must yield a Script: "
        f"make one with `script = self._ctx.new_script()`, add commands, and `yield script`"
    )


def _malformed(service_class: type, name: str, found: str) -> ServiceDefinitionError:
    return ServiceDefinitionError(
        f"{service_class.__name__}.{name}() must be an async generator, but {found}; "
        f"write `async def {name}(self): … yield script`, with at least one `yield` in its body"
    )


def _kind(item: object) -> str:
    return "None" if item is None else f"a {type(item).__name__} ({item!r:.80})"
