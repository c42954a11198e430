"""`Machine.fire`, the one gate: what each state makes of each event of each actor."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.errors import IllegalEvent, LifecycleError
from shem.lifecycle import ACTIVITY, AGREEMENT, SERVICE, Actor, Cause, Event, Guard, Machine, State, Verdict

MACHINES = [Machine(SERVICE), Machine(AGREEMENT), Machine(ACTIVITY)]
GUARDS = {
    Guard.MAY_RETRY: True,
    Guard.ACTIVITY_AVAILABLE: True,
    Guard.WAS_STARTING: False,
    Guard.WAS_RUNNING: True,
    Guard.WAS_STOPPING: False,
    "was_initialized": False,
    "was_deployed": False,
    "was_ready": True,
}


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.table.name)
def test_every_triple_of_state_event_and_actor_moves_is_ignored_or_is_refused(
    thing: type[Any], machine: Machine[Any, Any]
) -> None:
    table = machine.table
    for state, event, actor in itertools.product(table.states, table.events, Actor):
        one, cause = thing(state, GUARDS), Cause(actor, "because")
        cell = table.cell(state, event)
        try:
            moved = machine.fire(one, event, cause)
        except IllegalEvent as error:
            assert actor not in table.raised_by[event] or cell.verdict is Verdict.ILLEGAL
            assert (error.subject, error.state, error.event, error.actor) == (
                "thing 1",
                state.value,
                event.value,
                actor.value,
            )
            assert all(repr(part) in str(error) for part in (state.value, event.value))
            assert "thing 1" in str(error) and actor.value in str(error)
            assert one.state is state and one.seen == []
        else:
            assert actor in table.raised_by[event]
            assert moved == (one.seen != [])
            if moved:
                (_, source, move, _), (_, dest, same, _) = one.seen
                assert move is same and move in cell.moves
                assert (source, dest, one.state) == (move.source, move.dest, move.dest)
                assert {seen[3] for seen in one.seen} == {cause}
            else:
                assert one.state is state and cell.otherwise is Verdict.IGNORE


def test_an_event_of_an_actor_that_may_not_raise_it_is_refused_even_where_it_would_be_ignored(
    thing: type[Any],
) -> None:
    one = thing(State.TERMINATED, GUARDS)
    assert not MACHINES[0].fire(one, Event.SHUTDOWN, Cause(Actor.USER))
    with pytest.raises(IllegalEvent, match="raised by provider \\(not this actor's event\\)"):
        MACHINES[0].fire(one, Event.SHUTDOWN, Cause(Actor.PROVIDER))


def test_the_reason_of_an_illegal_event_shows() -> None:
    assert "(ready twice)" in str(
        IllegalEvent("instance 1", "running", "StartSuccessful", "handler", "ready twice")
    )


words = st.text(max_size=20)


@given(words, words, words, words, words)
def test_an_illegal_event_survives_pickling(
    subject: str, state: str, event: str, actor: str, reason: str
) -> None:
    error = IllegalEvent(subject, state, event, actor, reason)
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, LifecycleError)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@given(st.lists(st.tuples(st.sampled_from(Event), st.sampled_from(Actor)), max_size=40), st.data())
def test_whatever_is_fired_the_moves_seen_are_a_path_of_the_table(
    thing: type[Any], fired: list[tuple[Event, Actor]], data: st.DataObject
) -> None:
    one = thing(SERVICE.initial)
    for event, actor in fired:
        one.guards = {name: data.draw(st.booleans(), label=name) for name in GUARDS}
        try:
            MACHINES[0].fire(one, event, Cause(actor))
        except IllegalEvent:
            continue
    here = SERVICE.initial
    for _kind, _state, move, _cause in one.seen[::2]:
        assert move in SERVICE.moves and move.source is here
        here = move.dest
    assert one.state is here
    assert all(seen[2].source not in SERVICE.final for seen in one.seen)


def test_the_machine_keeps_nothing_of_what_it_moves(thing: type[Any]) -> None:
    machine: Machine[State, Event] = Machine(SERVICE)
    for _ in range(3):
        machine.fire(thing(State.PENDING, GUARDS), Event.RUN_SERVICE, Cause(Actor.ENGINE))
    assert machine.library_machine.models == []


def test_the_library_machine_has_exactly_the_table_s_moves() -> None:
    for machine in MACHINES:
        drawn = {
            (event.name, transition.source, transition.dest)
            for event in machine.library_machine.events.values()
            for transitions in event.transitions.values()
            for transition in transitions
        }
        assert drawn == {(m.event.value, m.source.name, m.dest.name) for m in machine.table.moves}
