"""What a move leaves behind: who caused it and why, and the record that is kept of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from shem.lifecycle.table import Actor

S = TypeVar("S", bound=enum.Enum)
E = TypeVar("E", bound=enum.Enum)


@dataclass(frozen=True, slots=True)
class Cause:
    """Who raised an event, why, and with which error, if any."""

    actor: Actor
    reason: str = ""
    error: BaseException | None = field(default=None, compare=False)

    def __str__(self) -> str:
        text = f"{self.actor.value}: {self.reason}" if self.reason else self.actor.value
        if self.error is None:
            return text
        said = str(self.error)
        if said and said in text:
            return text
        return f"{text} ({type(self.error).__name__}: {said})" if said else f"{text} ({self.error!r})"


@dataclass(frozen=True, slots=True)
class Record(Generic[S, E]):
    """One move of one thing, kept for ever.

    Attributes:
        seq: 1, 2, 3 … per subject, without gaps.
        at: wall time in UTC; `monotonic`: seconds, to measure with.
    """

    seq: int
    subject: str
    at: datetime
    monotonic: float
    source: S
    event: E
    dest: S
    cause: Cause

    def __str__(self) -> str:
        return in_words(self.seq, self.source.value, self.event.value, self.dest.value, str(self.cause))


def in_words(seq: object, source: str, event: str, dest: str, cause: str) -> str:
    """A move in one line: the one form in which people read it."""
    return f"{seq}. {source} → {dest} by {event} — {cause}"
