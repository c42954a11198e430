"""What becomes of the commands of a script.

Everything here *always* resolves: with a result, or with an error that says why there is none. Unlike a bare
future, a handle that nobody looks at leaves no noise behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from shem.script.commands import Command

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A command that ended well.

    Attributes:
        index: its place in the script, from 0.
        stdout, stderr: what it wrote, None where nothing was captured.
        message: what the runtime said, mostly None.
        value: what a download into memory brought: bytes, or the parsed JSON.
    """

    index: int
    command: Command
    stdout: str | None = None
    stderr: str | None = None
    message: str | None = None
    value: Any = None

    @property
    def success(self) -> bool:
        """Always true: a failed command raises `CommandFailed` instead."""
        return True


class Handle(Generic[T]):
    """An awaitable that is resolved once, from outside, and may be awaited any number of times."""

    __slots__ = ("_error", "_heard", "_value", "_waiters")

    def __init__(self) -> None:
        self._value: T | None = None
        self._error: BaseException | None = None
        self._heard = False
        self._waiters: list[asyncio.Future[None]] | None = []

    @property
    def done(self) -> bool:
        """Whether it is resolved."""
        return self._waiters is None

    @property
    def error(self) -> BaseException | None:
        """The error it was resolved with, if any."""
        return self._error

    @property
    def heard(self) -> bool:
        """Whether its error has been raised to somebody who asked for the result."""
        return self._heard

    def resolve(self, value: T) -> None:
        """Resolve with a value. The first resolution counts; later ones change nothing."""
        if self._waiters is not None:
            self._value = value
            self._wake()

    def fail(self, error: BaseException) -> None:
        """Resolve with an error. The first resolution counts; later ones change nothing."""
        if self._waiters is not None:
            self._error = error
            self._wake()

    def result(self) -> T:
        """The value; raises the error, or `RuntimeError` where nothing is decided yet."""
        if self._waiters is not None:
            raise RuntimeError("not resolved yet: await it")
        if self._error is not None:
            self._heard = True
            raise self._error
        return self._value  # type: ignore[return-value]  # set by resolve(), for which None is a T

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def __await__(self) -> Generator[Any, None, T]:
        if self._waiters is not None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                yield from waiter
            finally:
                if self._waiters is not None:
                    self._waiters.remove(waiter)
        return self.result()


class CommandHandle(Handle[CommandResult]):
    """Result of one command, to be awaited."""

    __slots__ = ("command",)

    def __init__(self, command: Command) -> None:
        super().__init__()
        self.command = command


class ScriptResults(Handle[list[CommandResult]]):
    """Results of all commands of a script, to be awaited."""

    __slots__ = ()
