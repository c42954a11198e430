"""The link between a requestor and its node: a record of the calls, and what goes wrong with them.

Faults of providers are ordered at the node (`node.faults`); these are the faults of the way there.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from shem.errors import (
    BadRequest,
    Gone,
    NodeError,
    NodeFailure,
    NodeUnavailable,
    NotFound,
    RequestTimeout,
    Unauthorized,
)

#: The status that comes with each error of the node.
_STATUS: dict[type[NodeError], int] = {
    BadRequest: 400,
    Unauthorized: 401,
    NotFound: 404,
    RequestTimeout: 408,
    Gone: 410,
    NodeFailure: 500,
}

#: Stands for every call.
ANY = "*"


@dataclass(slots=True)
class _Order:
    """What shall happen to the next `times` calls of a name."""

    name: str
    times: float
    seconds: float = 0.0
    error: type[NodeError] | None = None
    after: bool = False

    def takes(self, name: str, after: bool) -> bool:
        return self.times > 0 and after is self.after and self.name in (name, ANY)


class Link:
    """The link of one world. Calls are named as the methods of `shem.yagna.api.YagnaApi`.

    Orders are carried out in the order in which they were given, each on the next calls of its name; the
    name ``*`` means every call.

    Attributes:
        calls: names of the calls made so far, in order, the failed ones included.
        up: while false, no call gets through, and no answer to those that are under way.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.up = True
        self._orders: list[_Order] = []
        self._at: dict[int, Callable[[], object]] = {}
        self._held_up: dict[asyncio.Event, None] = {}
        self._under_way: dict[_UnderWay, None] = {}

    def fail(self, name: str, error: type[NodeError] = NodeFailure, times: float = 1) -> None:
        """The next `times` calls fail, without an effect."""
        self._orders.append(_Order(name, times, error=error))

    def cut(self, name: str, times: float = 1) -> None:
        """The next `times` calls have their effect, but the connection is cut before the answer."""
        self._orders.append(_Order(name, times, error=NodeUnavailable, after=True))

    def delay(self, name: str, seconds: float, times: float = float("inf"), *, answer: bool = False) -> None:
        """The next `times` calls take `seconds` longer: before their effect, or else before the answer.

        With infinite seconds they hang, until `heal`.
        """
        self._orders.append(_Order(name, times, seconds=seconds, after=answer))

    def heal(self) -> None:
        """Forget all orders; the link is up again, and calls that were held up go on."""
        self._orders.clear()
        self.up = True
        for held_up in self._held_up:
            held_up.set()

    def break_off(self) -> None:
        """All connections break: the calls that are under way fail at once, perhaps after their effect."""
        for call in list(self._under_way):
            call.cut()

    def at_call(self, number: int, action: Callable[[], object]) -> None:
        """Call `action` when the call with this number (the first is 1) is about to be made."""
        self._at[number] = action

    # --- the hooks of `LocalApi`

    async def before_call(self, name: str, _args: tuple[Any, ...]) -> None:
        """A call is about to have its effect."""
        self.calls.append(name)
        if (action := self._at.pop(len(self.calls), None)) is not None:
            action()
        await self._carry_out(name, after=False)

    async def after_call(self, name: str, _args: tuple[Any, ...]) -> None:
        """A call has had its effect."""
        await self._carry_out(name, after=True)

    def during_call(self, name: str) -> AbstractContextManager[None]:
        """A call is under way."""
        return _UnderWay(name, self._under_way)

    async def _carry_out(self, name: str, *, after: bool) -> None:
        for order in tuple(self._orders):
            if not order.takes(name, after):
                continue
            order.times -= 1
            if order.seconds:
                await self._hold_up(order.seconds)
            if order.error is NodeUnavailable:
                raise _unavailable(name, "so ordered by the test", after)
            if order.error is not None:
                raise order.error(name, _STATUS[order.error], "so ordered by the test")
        if not self.up:
            raise _unavailable(name, "the link is down", after)

    async def _hold_up(self, seconds: float) -> None:
        healed = asyncio.Event()
        self._held_up[healed] = None
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if seconds == math.inf else seconds):
                    await healed.wait()
        finally:
            del self._held_up[healed]


class _UnderWay:
    """One call while the node is at work on it. As with `asyncio.timeout`, cutting it cancels its task."""

    __slots__ = ("_calls", "_cancelled_before", "_cut", "_name", "_task")

    def __init__(self, name: str, calls: dict[_UnderWay, None]) -> None:
        self._name, self._calls, self._cut = name, calls, False
        self._task = asyncio.current_task()
        self._cancelled_before = self._task.cancelling() if self._task is not None else 0

    def __enter__(self) -> None:
        self._calls[self] = None

    def cut(self) -> None:
        """Its connection breaks."""
        if self._task is not None and not self._cut:
            self._cut = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._calls[self]
        if not self._cut or self._task is None:
            return
        if self._task.uncancel() <= self._cancelled_before and isinstance(error, asyncio.CancelledError):
            raise NodeUnavailable(self._name, None, "the connection broke") from error


def _unavailable(name: str, message: str, after: bool) -> NodeUnavailable:
    return NodeUnavailable(name, None, message, unsent=not after)
