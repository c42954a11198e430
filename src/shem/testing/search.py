"""Searching through plans: drive many, in several processes, and sum up what became of them."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from multiprocessing import get_context
from typing import Final, TypeVar

from shem.lifecycle import SERVICE, Event, Move, State
from shem.testing.drive import drive
from shem.testing.life import Life
from shem.testing.plan import Plan

T = TypeVar("T")

#: Plans that a process is given at a time.
CHUNK: Final = 50
#: Failing plans that are kept; the lightest ones.
KEPT: Final = 20
#: Lives after which what they have left in memory is cleared away.
_SWEEP_AFTER: Final = 25


@dataclass(frozen=True, slots=True)
class Failure:
    """A plan whose life violates an invariant, and how."""

    plan: Plan
    problems: tuple[str, ...]

    @property
    def weight(self) -> tuple[int, int]:
        """By which failures are ordered: the less there is to a plan, the more it tells."""
        return self.plan.weight, len(repr(self.plan))


@dataclass(slots=True)
class Summary:
    """What became of many plans.

    Attributes:
        plans: how many lives there were; `violations`: how many of them broke an invariant.
        arrows: how often each arrow of the table was taken.
        failures: the lightest plans that failed.
    """

    plans: int = 0
    violations: int = 0
    arrows: Counter[Move[State, Event]] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, life: Life) -> None:
        """Count one life."""
        self.plans += 1
        self.arrows.update(life.moves)
        if life.problems:
            self.violations += 1
            self._keep([Failure(life.plan, life.problems)])

    def merge(self, other: Summary) -> None:
        """Count the lives of another summary."""
        self.plans += other.plans
        self.violations += other.violations
        self.arrows.update(other.arrows)
        self._keep(other.failures)

    def _keep(self, failures: Iterable[Failure]) -> None:
        self.failures = sorted([*self.failures, *failures], key=lambda one: one.weight)[:KEPT]

    @property
    def moves(self) -> int:
        """How many moves there were."""
        return sum(self.arrows.values())

    @property
    def missing(self) -> tuple[Move[State, Event], ...]:
        """Arrows of the table that were never taken."""
        return tuple(move for move in SERVICE.moves if not self.arrows[move])

    def __str__(self) -> str:
        taken, all_arrows = len(SERVICE.moves) - len(self.missing), len(SERVICE.moves)
        share = 100 * taken // all_arrows
        return (
            f"plans {self.plans}, moves {self.moves}, violations {self.violations}, "
            f"table coverage {taken}/{all_arrows} ({share} %)"
        )

    def story(self) -> str:
        """The lightest failing plan as a story, with its replay line; empty where none failed."""
        return drive(self.failures[0].plan).story() if self.failures else ""


def search(plans: Iterable[Plan], processes: int = 1) -> Summary:
    """Drive all plans, and sum up. With several processes, the summary is the same as with one."""
    summary = Summary()
    if processes <= 1:
        summary.merge(_drive_all(plans))
        return summary
    with pool(processes) as executor:
        for part in executor.map(_drive_all, chunks(plans, CHUNK)):
            summary.merge(part)
    return summary


def pool(processes: int) -> ProcessPoolExecutor:
    """Processes for driving plans: begun anew, so that nothing of this one is in them."""
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_settle)


def _settle() -> None:
    """What a process holds before it begins is never garbage: look through it no more."""
    gc.collect()
    gc.freeze()


def _drive_all(plans: Iterable[Plan]) -> Summary:
    summary = Summary()
    with sweeping() as sweep:
        for plan in plans:
            summary.add(drive(plan))
            sweep()
    return summary


@contextmanager
def sweeping() -> Iterator[Callable[[], None]]:
    """Clear away what lives leave in memory once in a while, instead of looking for it all the time.

    Gives a function to be called after each life.
    """
    collecting, lives = gc.isenabled(), count(1)

    def sweep() -> None:
        if next(lives) % _SWEEP_AFTER == 0:
            gc.collect()

    gc.disable()
    try:
        yield sweep
    finally:
        if collecting:
            gc.enable()


def chunks(items: Iterable[T], size: int) -> Iterator[Sequence[T]]:
    """The items in order, so many at a time."""
    iterator = iter(items)
    while chunk := tuple(islice(iterator, size)):
        yield chunk
