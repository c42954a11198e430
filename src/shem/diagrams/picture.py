"""A table as something to draw: nodes, and one arrow per pair of states with all moves between them.

Pure values, of words only. What is live (how many things are in a state, which path one of them took) is laid
over the table here, so that every writer shows it in its own way.
"""

from __future__ import annotations

import enum
import itertools
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from shem.diagrams.meaning import meaning_of
from shem.diagrams.style import KIND_OF, Kind, Plan, Tone, plan_of, title_of, tone_of
from shem.errors import ConfigError
from shem.lifecycle.record import Record
from shem.lifecycle.table import Actor, Move, Table

S = TypeVar("S", bound=enum.Enum)
E = TypeVar("E", bound=enum.Enum)

_COLUMNS = 38

#: The guard shown for a move that is taken when no guarded move of its pair applies.
ELSE = "else"


def display(state: enum.Enum) -> str:
    """A state's name as people read it: its value, with a capital."""
    word = str(state.value)
    return word[:1].upper() + word[1:]


@dataclass(frozen=True, slots=True)
class Step:
    """One move, in words.

    Attributes:
        guard: what must hold, `ELSE`, or empty where the move is always taken.
        actors: who may raise the event, in the order of `Actor`.
        taken: whether the path that is laid over the table contains this move.
    """

    event: str
    guard: str
    actors: tuple[str, ...]
    kind: Kind
    meaning: str
    taken: bool = False

    @property
    def text(self) -> str:
        """Event and who may raise it, in one line."""
        return f"{self.event} ({', '.join(self.actors)})"


@dataclass(frozen=True, slots=True)
class Arrow:
    """All moves from one state to another; those without a guard first, moves of one guard together."""

    source: str
    dest: str
    steps: tuple[Step, ...]

    @property
    def kind(self) -> Kind | None:
        """The kind that all its events share, if any."""
        kinds = {step.kind for step in self.steps}
        return kinds.pop() if len(kinds) == 1 else None

    @property
    def taken(self) -> bool:
        """Whether the path goes along here."""
        return any(step.taken for step in self.steps)

    def by_guard(self) -> list[tuple[str, list[Step]]]:
        """The steps in groups that share a guard."""
        groups: dict[str, list[Step]] = {}
        for step in self.steps:
            groups.setdefault(step.guard, []).append(step)
        return list(groups.items())


@dataclass(frozen=True, slots=True)
class Node:
    """One state.

    Attributes:
        key: its value, unique in the table; `name` is what people read, `ident` is safe as an identifier.
        notes: what else to say of it.
        count: how many things are in it, where that is known.
        seconds: time the path spent in it, where that is known.
        visited, current: whether the path touched it, and whether it ended there.
    """

    key: str
    name: str
    tone: Tone
    initial: bool
    final: bool
    notes: tuple[str, ...] = ()
    count: int | None = None
    seconds: float | None = None
    visited: bool = False
    current: bool = False

    @property
    def ident(self) -> str:
        """The name with everything but letters, digits and underscores replaced."""
        return re.sub(r"\W", "_", self.name)

    @property
    def facts(self) -> tuple[str, ...]:
        """Notes and time spent, each of any length."""
        return self.notes if self.seconds is None else (*self.notes, duration(self.seconds))

    @property
    def lines(self) -> tuple[str, ...]:
        """The facts as short lines to show under the name; long ones are cut off."""
        return tuple(
            line
            for fact in self.facts
            for line in textwrap.wrap(fact, _COLUMNS, max_lines=2, placeholder=" …")
        )


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything a writer needs. `steps_taken` is 0 where no path is laid over the table."""

    table: str
    title: str
    nodes: tuple[Node, ...]
    arrows: tuple[Arrow, ...]
    plan: Plan
    steps_taken: int = 0

    def on_spine(self, arrow: Arrow) -> bool:
        """Whether an arrow is part of the ordinary course, from one spine state to the next."""
        return (arrow.source, arrow.dest) in itertools.pairwise(self.plan.spine)

    def skips(self, arrow: Arrow) -> bool:
        """Whether an arrow joins two spine states that do not stand next to each other."""
        spine = self.plan.spine
        if arrow.source not in spine or arrow.dest not in spine:
            return False
        return abs(spine.index(arrow.source) - spine.index(arrow.dest)) != 1


def duration(seconds: float) -> str:
    """A length of time for people: ``0.4 s``, ``12 s``, ``3 min``, ``2.5 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def actors_of(table: Table[Any, E], event: E) -> tuple[Actor, ...]:
    """Who may raise an event, in the order of `Actor`."""
    return tuple(actor for actor in Actor if actor in table.raised_by[event])


def make_picture(
    table: Table[S, E],
    *,
    title: str | None = None,
    counts: Mapping[S, int] | None = None,
    path: Sequence[Record[S, E]] = (),
    now: float | None = None,
    notes: Mapping[S, Sequence[str]] | None = None,
) -> Picture:
    """Turn a table into a picture; the arguments are those of `shem.diagrams.render`.

    Raises `ConfigError` where `counts`, `notes` or `path` speak of other states or moves than the table's.
    """
    for what, named in (("counts", counts or {}), ("notes", notes or {})):
        for state in named:
            if state not in table.states:
                raise ConfigError(f"{what} name {state!r}, which is no state of the {table.name} table")
    taken = {(record.source, record.event, record.dest) for record in path}
    known = {(move.source, move.event, move.dest) for move in table.moves}
    for source, event, dest in taken - known:
        raise ConfigError(
            f"the path holds {source} → {dest} by {event}, which is no move of the {table.name} table"
        )
    seconds = _time_in_states(path, now)
    plan = plan_of(table.name, tuple(str(state.value) for state in table.states), str(table.initial.value))
    visited = {state for record in path for state in (record.source, record.dest)}
    nodes = tuple(
        Node(
            key=str(state.value),
            name=display(state),
            tone=tone_of(table.name, str(state.value), final=state in table.final),
            initial=state is table.initial,
            final=state in table.final,
            notes=tuple((notes or {}).get(state, ())),
            count=None if counts is None else counts.get(state, 0),
            seconds=seconds.get(state),
            visited=state in visited,
            current=bool(path) and state is path[-1].dest,
        )
        for state in table.states
    )
    return Picture(
        table=table.name,
        title=title_of(table.name) if title is None else title,
        nodes=nodes,
        arrows=_arrows(table, plan, taken),
        plan=plan,
        steps_taken=len(path),
    )


def _time_in_states(path: Sequence[Record[S, E]], now: float | None) -> dict[S, float]:
    seconds: dict[S, float] = {}
    ends = [record.monotonic for record in path[1:]]
    if now is not None:
        ends.append(now)
    for record, end in zip(path, ends, strict=False):
        seconds[record.dest] = seconds.get(record.dest, 0.0) + end - record.monotonic
    return seconds


def _arrows(table: Table[S, E], plan: Plan, taken: set[tuple[S, E, S]]) -> tuple[Arrow, ...]:
    pairs: dict[tuple[S, S], list[Step]] = {}
    for move in table.moves:
        actors = actors_of(table, move.event)
        step = Step(
            event=str(move.event.value),
            guard=guard_of(table, move),
            actors=tuple(actor.value for actor in actors),
            kind=KIND_OF[actors[0]],
            meaning=meaning_of(move.event),
            taken=(move.source, move.event, move.dest) in taken,
        )
        pairs.setdefault((move.source, move.dest), []).append(step)
    arrows = [
        Arrow(str(source.value), str(dest.value), tuple(_sorted_by_guard(steps)))
        for (source, dest), steps in pairs.items()
    ]
    # The ordinary course and what is near it first: it reads best, and layouts that heed the order of arrows
    # (mermaid's, Graphviz's) come out with fewer crossings.
    place = {key: number for number, key in enumerate((*plan.spine, *plan.left, *plan.right))}

    def order(arrow: Arrow) -> tuple[int, int]:
        source, dest = place[arrow.source], place[arrow.dest]
        return abs(source - dest), source

    return tuple(sorted(arrows, key=order))


def _sorted_by_guard(steps: list[Step]) -> list[Step]:
    guards = list(dict.fromkeys(step.guard for step in steps))
    guards.sort(key=lambda guard: (guard != "", guard == ELSE))
    return sorted(steps, key=lambda step: guards.index(step.guard))


def guard_of(table: Table[S, E], move: Move[S, E]) -> str:
    """The guard to show with a move: its condition, or `ELSE` where guarded moves of its pair come first."""
    if move.guarded:
        return move.condition
    return ELSE if len(table.cell(move.source, move.event).moves) > 1 else ""
