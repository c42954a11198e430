"""The form in which every state machine of shem is written down: a total table.

For each pair of state and event a `Cell` says what happens: the moves to try in order, and what holds when
none of them applies. A table is checked when it is made: every pair is classed, no move can be shadowed by an
earlier one, every event has somebody who may raise it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Generic, TypeVar

S = TypeVar("S", bound=enum.Enum)
E = TypeVar("E", bound=enum.Enum)


class Actor(enum.Enum):
    """Who raises events."""

    USER = "user"
    """The program that uses shem, or the person at its command line."""
    HANDLER = "handler"
    """A `start`, `run` or `shutdown` of a user's service, by ending or by raising."""
    ENGINE = "engine"
    """shem's machinery of demands, agreements and activities."""
    SUPERVISOR = "supervisor"
    """shem's part that keeps slots filled and decides about retries."""
    PROVIDER = "provider"
    """The other side of the agreement."""
    PROBE = "probe"
    """Whatever looks for signs of life."""
    CLOCK = "clock"
    """A deadline that passed."""
    BUDGET = "budget"
    """The limit on what may be spent."""


class Verdict(enum.Enum):
    """What the table says of a pair of state and event."""

    MOVE = "move"
    """It moves, perhaps under a guard."""
    IGNORE = "ignore"
    """Late but harmless: nothing happens, and the caller is told so."""
    ILLEGAL = "illegal"
    """Only a bug in shem can raise it here: a typed exception."""


@dataclass(frozen=True, slots=True)
class Move(Generic[S, E]):
    """One arrow: `event` takes `source` to `dest`, provided every guard in `when` and none in `unless` holds.

    Guards are names of bool properties or methods of the thing that moves.
    """

    source: S
    event: E
    dest: S
    when: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()

    @property
    def guarded(self) -> bool:
        """Whether the move depends on anything but the pair."""
        return bool(self.when or self.unless)

    @property
    def condition(self) -> str:
        """The guards in words, such as ``was_starting and may_retry``; empty where there are none."""
        return " and ".join((*self.when, *(f"not {name}" for name in self.unless)))

    def shadows(self, later: Move[S, E]) -> bool:
        """Whether it is taken wherever `later` could be."""
        return set(self.when) <= set(later.when) and set(self.unless) <= set(later.unless)


@dataclass(frozen=True, slots=True)
class Cell(Generic[S, E]):
    """What happens for one pair: the first move whose guards hold, else `otherwise`."""

    moves: tuple[Move[S, E], ...]
    otherwise: Verdict

    @property
    def verdict(self) -> Verdict:
        """MOVE where any move is possible, else what always holds."""
        return Verdict.MOVE if self.moves else self.otherwise


class Table(Generic[S, E]):
    """A state machine as data.

    Args:
        name: what moves, in one word; it shows in messages and file names.
        initial: where everything starts.
        final: states without a way out.
        raised_by: for every event, who may raise it.
        moves: all moves; several of one pair are tried in the order given.
        ignored: pairs that are harmless when no move applies. All others are illegal.

    Raises `ValueError` where the table contradicts itself.
    """

    def __init__(
        self,
        name: str,
        *,
        initial: S,
        final: frozenset[S],
        raised_by: Mapping[E, frozenset[Actor]],
        moves: tuple[Move[S, E], ...],
        ignored: frozenset[tuple[S, E]],
    ) -> None:
        self.name, self.initial, self.final = name, initial, final
        self.states: tuple[S, ...] = tuple(type(initial))
        self.events: tuple[E, ...] = tuple(raised_by)
        self.raised_by = dict(raised_by)
        self.moves = moves
        self._cells = {
            (state, event): self._cell(state, event, ignored)
            for state in self.states
            for event in self.events
        }
        self._check(ignored)

    def _cell(self, state: S, event: E, ignored: frozenset[tuple[S, E]]) -> Cell[S, E]:
        moves = tuple(m for m in self.moves if m.source is state and m.event is event)
        otherwise = Verdict.IGNORE if (state, event) in ignored else Verdict.ILLEGAL
        return Cell(moves, otherwise)

    def _check(self, ignored: frozenset[tuple[S, E]]) -> None:
        for event in type(self.events[0]) if self.events else ():
            if not self.raised_by.get(event):
                raise ValueError(f"{self.name}: nobody may raise {event.value}")
        for foreign in {(move.source, move.event) for move in self.moves} | ignored:
            if foreign not in self._cells:
                raise ValueError(f"{self.name}: {foreign} is no pair of its states and events")
        for move in self.moves:
            if move.dest not in self.states:
                raise ValueError(f"{self.name}: {move.dest} is none of its states")
            if not set(move.when).isdisjoint(move.unless):
                raise ValueError(f"{self.name}: {move} can never be taken")
        for (state, event), cell in self._cells.items():
            pair = f"{self.name}: {event.value} in {state.value}"
            if any(earlier.shadows(later) for earlier, later in combinations(cell.moves, 2)):
                raise ValueError(f"{pair}: a move shadows one after it")
            if cell.moves and not cell.moves[-1].guarded and cell.otherwise is Verdict.IGNORE:
                raise ValueError(f"{pair}: both always moves and is ignored")
            if cell.moves and state in self.final:
                raise ValueError(f"{pair}: moves out of a final state")

    def cell(self, state: S, event: E) -> Cell[S, E]:
        """What happens for a pair. Total: every pair has a cell."""
        return self._cells[state, event]

    def verdict(self, state: S, event: E) -> Verdict:
        """Whether a pair moves, is ignored, or is illegal."""
        return self._cells[state, event].verdict

    def cells(self) -> Iterator[tuple[S, E, Cell[S, E]]]:
        """All cells, by event and then by state, as the table is printed."""
        for event in self.events:
            for state in self.states:
                yield state, event, self._cells[state, event]

    def open_events(self, state: S) -> tuple[E, ...]:
        """Events that can move something out of, or around, this state."""
        return tuple(event for event in self.events if self._cells[state, event].moves)
