"""From a table to a running machine: the one place that touches the `transitions` library.

One synchronous `transitions.Machine` serves every thing of a kind; things are never registered with it, they
only lend it their `state`. A move holds no `await`, so two events can never overlap, and costs no memory per
thing. (`AsyncMachine` of 0.9.3 swallows cancellation and lets a later event cancel an earlier one's task;
it must not be used.)
"""

from __future__ import annotations

import enum
from typing import Any, Generic, Protocol, TypeVar, cast

import transitions

from shem.errors import IllegalEvent
from shem.lifecycle.record import Cause
from shem.lifecycle.table import Move, Table, Verdict

S = TypeVar("S", bound=enum.Enum)
E = TypeVar("E", bound=enum.Enum)


class Stateful(Protocol[S, E]):
    """Something that a machine moves. It also has a bool attribute for each guard its table names.

    Both hooks run inside the move: they may schedule, cancel and note down, but never wait, never raise and
    never raise an event.
    """

    state: S

    @property
    def subject(self) -> str:
        """Kind and id, for messages."""

    def left(self, move: Move[S, E], cause: Cause) -> None:
        """The source state is being left; `state` still reads it."""

    def entered(self, move: Move[S, E], cause: Cause) -> None:
        """The destination has been entered; `state` reads it."""


class Machine(Generic[S, E]):
    """The gate of one table: all moves of all things of a kind go through `fire`."""

    def __init__(self, table: Table[S, E]) -> None:
        self.table = table
        self._machine = transitions.Machine(
            model=None,
            states=[
                transitions.State(s, on_enter=[_entered], on_exit=[_left], final=s in table.final)
                for s in table.states
            ],
            initial=table.initial,
            auto_transitions=False,
            send_event=True,
            queued=False,
            after_state_change=None,
        )
        for move in table.moves:
            self._machine.add_transition(
                move.event.value,
                move.source,
                move.dest,
                conditions=list(move.when),
                unless=list(move.unless),
                before=_Remember(move),
            )
        self._triggers = {
            event: self._machine.events[event.value].trigger
            for event in table.events
            if event.value in self._machine.events
        }

    @property
    def library_machine(self) -> transitions.Machine:
        """The underlying `transitions.Machine`, to look at; moving things with it is undefined."""
        return self._machine

    def fire(self, thing: Stateful[S, E], event: E, cause: Cause) -> bool:
        """Apply an event to a thing, now.

        Returns True where it moved and False where the event was late but harmless. Raises `IllegalEvent`
        where the table forbids the event, or forbids this actor to raise it.
        """
        cell = self.table.cell(thing.state, event)
        if cause.actor not in self.table.raised_by[event]:
            raise self._illegal(thing, event, cause, "not this actor's event")
        if not cell.moves:
            if cell.otherwise is Verdict.IGNORE:
                return False
            raise self._illegal(thing, event, cause, cause.reason)
        moved = bool(self._triggers[event](cast(Any, thing), cause=cause))
        if not moved and cell.otherwise is Verdict.ILLEGAL:
            raise self._illegal(thing, event, cause, "no guard holds")
        return moved

    def _illegal(self, thing: Stateful[S, E], event: E, cause: Cause, why: str) -> IllegalEvent:
        return IllegalEvent(thing.subject, thing.state.value, event.value, cause.actor.value, why)


class _Remember:
    """A `before` callback that puts the table's own move into the event data, for the hooks."""

    def __init__(self, move: Move[Any, Any]) -> None:
        self._move = move

    def __call__(self, data: transitions.EventData) -> None:
        data.kwargs["move"] = self._move


def _left(data: transitions.EventData) -> None:
    thing = cast(Stateful[Any, Any], data.model)
    thing.left(data.kwargs["move"], data.kwargs["cause"])


def _entered(data: transitions.EventData) -> None:
    thing = cast(Stateful[Any, Any], data.model)
    thing.entered(data.kwargs["move"], data.kwargs["cause"])
