"""The story of one instance, for a person: what happened, who caused it, what comes next and when.

A `Story` holds plain words, so that it can be told of a live instance as well as of the lines of a log.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from shem.lifecycle.record import Record, in_words


@dataclass(frozen=True, slots=True)
class Expectation:
    """What comes next for something, and when, as far as is known.

    Attributes:
        text: in words; where `at` is given it ends so that a time can follow, as in ``start() must end by``.
        at: the moment it speaks of, in UTC.
    """

    text: str
    at: datetime | None = None

    def told(self, *, day: date | None = None, now: datetime | None = None) -> str:
        """In words. The date is left out on `day`; with `now` it is said how far ahead the moment is."""
        if self.at is None:
            return self.text
        ahead = (self.at - now).total_seconds() if now is not None else 0.0
        left = f" (in {span(ahead)})" if ahead > 0 else ""
        return f"{self.text} {time_of(self.at, day)} UTC{left}"

    def __str__(self) -> str:
        return self.told()


@dataclass(frozen=True, slots=True)
class Step:
    """One move, told in words."""

    at: datetime
    text: str

    @classmethod
    def of(cls, record: Record[Any, Any]) -> Step:
        """The step that a record tells of."""
        return cls(record.at, str(record))

    @classmethod
    def told(cls, at: datetime, seq: object, source: str, event: str, dest: str, cause: str) -> Step:
        """The step that was told, somewhere, with these words."""
        return cls(at, in_words(seq, source, event, dest, cause))


@dataclass(frozen=True, slots=True)
class Story:
    """What is told of one instance. Empty words are left out.

    Attributes:
        subject: kind and id, such as ``Hello 514ec7104029 (slot 0)``.
        replaces: id of the instance that it followed in its slot.
        state, provider, phase: where it is, on whose machine, and how far.
        steps: its moves, in order.
    """

    subject: str
    state: str
    provider: str = ""
    phase: str = ""
    replaces: str = ""
    steps: tuple[Step, ...] = ()
    expects: Expectation | None = None

    def told(self, now: datetime | None = None) -> str:
        """A headline, a line for each move, and one for what comes next. Times are in UTC.

        Dates are written out where not everything happened on one day.
        """
        days = {step.at.date() for step in self.steps}
        day = days.pop() if len(days) == 1 else None
        if not self.steps and now is not None:
            day = now.date()
        on = f" on {self.provider}" if self.provider else ""
        phase = f" ({self.phase})" if self.phase else ""
        follows = f", which replaced {self.replaces}," if self.replaces else ""
        lines = [f"{self.subject}{follows} is {self.state}{on}{phase}"]
        lines += [f"  {time_of(step.at, day)}  {_one_line(step.text)}" for step in self.steps]
        if self.expects is not None:
            lines.append(f"  next: {self.expects.told(day=day, now=now)}")
        return "\n".join(lines)


def _one_line(text: str) -> str:
    # What a command wrote may have many lines; a step of the story has one.
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def time_of(moment: datetime, day: date | None) -> str:
    """Hours, minutes and seconds; with the date unless it is that of `day`."""
    return f"{moment:%H:%M:%S}" if moment.date() == day else f"{moment:%Y-%m-%d %H:%M:%S}"


def span(seconds: float) -> str:
    """A length of time in the two units that matter: ``0.4 s``, ``12 s``, ``9 min 5 s``, ``2 h 58 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    large = next(place for place, (size, _) in enumerate(units) if whole >= size)
    (size, unit), (smaller, lesser) = units[large], units[large + 1]
    rest = whole % size // smaller
    return f"{whole // size} {unit}" + (f" {rest} {lesser}" if rest else "")
