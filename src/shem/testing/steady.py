"""What the user's code shares with the whole process, held steady while one simulated life lasts.

Chance from `random` follows from the plan's seed, what is printed or logged goes nowhere, and `time.sleep`,
which would hold up the whole loop, takes no time and is noted down. A `Stopwatch` measures in real time what
else holds the loop up, and interrupts what does not come back.
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, SupportsIndex

from shem.clock import Clock
from shem.testing.places import innermost

#: A step of the user's code may take so long in real time, in seconds.
ALLOWED: Final = 0.5
#: So many times as long may the slow steps of one life take together; then they are interrupted.
PATIENCE: Final = 8
#: How often the stopwatch is looked at while a step goes on, in seconds.
_TICK: Final = 0.25


class Interrupted(BaseException):
    """Raised inside the user's code, because it did not come back."""


class Stopwatch:
    """Real time of the steps that the user's code takes between two awaits.

    Args:
        allowed: how long a step may take, in seconds. When the slow steps of one life have taken `PATIENCE`
            times as long together, the one at work is interrupted.

    Attributes:
        slept: what was asked of `time.sleep` in the present step, in seconds.
        place: where the present step was when it had taken too long, or slept, as ``file:line``.
    """

    def __init__(self, clock: Clock, *, allowed: float = ALLOWED) -> None:
        self._clock, self.allowed = clock, allowed
        self.slept, self.place = 0.0, ""
        self._lost = 0.0
        self._began: float | None = None
        self._thread = threading.get_ident()
        self._real_sleep = time.sleep

    def begin(self) -> None:
        """A step begins."""
        self.slept, self.place, self._began = 0.0, "", self._clock.monotonic()

    def end(self) -> float:
        """The step is over; how long it took, `time.sleep` included, if that was too long, and else 0."""
        assert self._began is not None, "a step ends that has begun"
        took = self._clock.monotonic() - self._began
        self._began = None
        if took > self.allowed:
            self._lost += took
        took += self.slept
        return took if took > self.allowed else 0.0

    @contextlib.contextmanager
    def beside(self) -> Iterator[Callable[[], float]]:
        """What a thread would do is no matter of the step that began it; tells, when done, what it slept."""
        slept, began, lost = self.slept, self._began, self._lost
        self.slept = 0.0
        beside = 0.0
        try:
            yield lambda: beside
        finally:
            beside, self.slept, self._lost = self.slept, slept, lost
            if began is not None:
                self._began = self._clock.monotonic()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch over one life. Interrupts nothing outside the main thread, where there are no signals."""
        self._lost, self._began = 0.0, None
        self._thread = threading.get_ident()
        self._real_sleep, time.sleep = time.sleep, self._sleep
        try:
            with self._ticking():
                yield
        finally:
            time.sleep = self._real_sleep

    def _sleep(self, seconds: float | SupportsIndex, /) -> None:
        if self._began is None or threading.get_ident() != self._thread:
            # Somebody else's: another thread, or nothing of the user's.
            self._real_sleep(seconds)
        else:
            self.slept += float(seconds)
            self.place = innermost(sys._getframe(1))

    @contextlib.contextmanager
    def _ticking(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGALRM, self._tick)
        signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _tick(self, _signal: int, frame: FrameType | None) -> None:
        if self._began is None:
            return
        step = self._clock.monotonic() - self._began
        if step > self.allowed:
            self.place = innermost(frame)
        if step > self.allowed and self._lost + step > PATIENCE * self.allowed:
            raise Interrupted(f"it had been at work for {step:.1f} s without coming back")


@contextlib.contextmanager
def steady(seed: int, *, quiet: bool = True) -> Iterator[list[warnings.WarningMessage]]:
    """Chance from `random` follows from `seed`; where `quiet`, what is printed and logged is dropped.

    Gives the list that what Python warns of is collected in.
    """
    chance, logging_off = random.getstate(), logging.root.manager.disable
    random.seed(seed)
    with contextlib.ExitStack() as stack:
        stack.callback(random.setstate, chance)
        if quiet:
            stack.callback(logging.disable, logging_off)
            logging.disable(logging.CRITICAL)
            stack.enter_context(contextlib.redirect_stdout(_Nowhere()))
            stack.enter_context(contextlib.redirect_stderr(_Nowhere()))
        warned = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        yield warned


class _Nowhere(io.TextIOBase):
    """Where prints go that nobody wants to read."""

    def write(self, text: str, /) -> int:
        """Take it, and keep nothing."""
        return len(text)

    def writable(self) -> bool:
        """It is."""
        return True
