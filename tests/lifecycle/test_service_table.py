"""The table of instances: every pair against the design's own words, and what follows from it as a graph."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from shem.errors import IllegalEvent
from shem.lifecycle import SERVICE, Actor, Cause, Event, Guard, Machine, Move, State, Verdict, reachable

MACHINE = Machine(SERVICE)

#: **bold**: moves there; ·: ignored, because late but harmless; ✗: illegal, a bug.
EXPECTED = """
| | Pending | Starting | Running | Stopping | Unresponsive | Terminated |
|---|---|---|---|---|---|---|
| RunService | **Starting** | ✗ | ✗ | ✗ | ✗ | ✗ |
| StartSuccessful | ✗ | **Running** | ✗ | ✗ | ✗ | ✗ |
| RetryStart | ✗ | **Pending** | ✗ | ✗ | ✗ | ✗ |
| StartFailed | **Terminated** | **Terminated** | ✗ | ✗ | ✗ | ✗ |
| Shutdown | **Terminated** | **Stopping** | **Stopping** | · | **Terminated** | · |
| ServiceError | · | · | **Stopping** | **Terminated** | · | · |
| ServiceStopped | ✗ | ✗ | ✗ | **Terminated** | ✗ | ✗ |
| AgreementTerminated | · | **Pending** [may_retry] else **Terminated** | **Stopping** [activity_available] else **Terminated** | · [activity_available] else **Terminated** | **Pending** [was_starting and may_retry] else **Terminated** | · |
| ActivityLost | · | **Pending** [may_retry] else **Terminated** | **Terminated** | **Terminated** | **Pending** [was_starting and may_retry] else **Terminated** | · |
| ProviderUnresponsive | · | **Unresponsive** | **Unresponsive** | **Unresponsive** | · | · |
| ProviderRecovered | · | · | · | · | **the state it came from** | · |
| UnresponsiveTimeout | · | · | · | · | **Pending** [was_starting and may_retry] else **Terminated** | · |
"""  # noqa: E501

EXPECTED_ACTORS = {
    "RunService": {"engine"},
    "StartSuccessful": {"handler"},
    "RetryStart": {"supervisor"},
    "StartFailed": {"supervisor"},
    "Shutdown": {"user", "handler", "clock", "budget"},
    "ServiceError": {"handler", "clock", "probe"},
    "ServiceStopped": {"handler"},
    "AgreementTerminated": {"provider"},
    "ActivityLost": {"provider"},
    "ProviderUnresponsive": {"probe"},
    "ProviderRecovered": {"probe"},
    "UnresponsiveTimeout": {"clock"},
}

ORIGINS = {
    State.STARTING: Guard.WAS_STARTING,
    State.RUNNING: Guard.WAS_RUNNING,
    State.STOPPING: Guard.WAS_STOPPING,
}


def expected_cells() -> dict[tuple[State, Event], str]:
    head, _rule, *rows = [
        [cell.strip().replace("**", "") for cell in line.strip("|").split("|")]
        for line in EXPECTED.strip().splitlines()
    ]
    states = [State(name.lower()) for name in head[1:]]
    return {(state, Event(row[0])): cell for row in rows for state, cell in zip(states, row[1:], strict=True)}


CELLS = expected_cells()


def outcome_of(cell: str, guards: dict[str, bool], origin: State | None) -> State | Verdict:
    """What a cell of the expected table says, given what holds."""
    if cell == "the state it came from":
        return origin if origin is not None else Verdict.ILLEGAL
    if found := re.fullmatch(r"(?P<then>\S+) \[(?P<when>.+)\] else (?P<otherwise>\S+)", cell):
        holds = all(guards[name] for name in found["when"].split(" and "))
        cell = found["then"] if holds else found["otherwise"]
    if cell == "·":
        return Verdict.IGNORE
    if cell == "✗":
        return Verdict.ILLEGAL
    return State(cell.lower())


def all_guards() -> Iterator[tuple[dict[str, bool], State | None]]:
    """Every combination of what the guards can say; `origin` is where Unresponsive was entered from."""
    for may_retry, available, origin in itertools.product((True, False), (True, False), (None, *ORIGINS)):
        guards = {Guard.MAY_RETRY: may_retry, Guard.ACTIVITY_AVAILABLE: available}
        guards |= {guard: origin is state for state, guard in ORIGINS.items()}
        yield guards, origin


def actor_for(event: Event) -> Actor:
    return min(SERVICE.raised_by[event], key=lambda actor: actor.value)


def outcome(thing: Any, event: Event, actor: Actor | None = None) -> State | Verdict:
    """What really happens."""
    try:
        moved = MACHINE.fire(thing, event, Cause(actor or actor_for(event)))
    except IllegalEvent:
        return Verdict.ILLEGAL
    return thing.state if moved else Verdict.IGNORE


# --- pair by pair


@pytest.mark.parametrize(("state", "event"), CELLS, ids=lambda value: value.value)
def test_each_pair_does_what_the_design_says_whatever_the_guards_say(
    thing: type[Any], state: State, event: Event
) -> None:
    for guards, origin in all_guards():
        one = thing(state, guards)
        assert outcome(one, event) == outcome_of(CELLS[state, event], guards, origin), (guards, origin)
        assert (one.state is state) == (one.seen == []), "nothing but a move changes the state"


def test_there_are_six_states_twelve_events_and_seventy_two_pairs() -> None:
    assert [state.value for state in State] == [
        "pending",
        "starting",
        "running",
        "stopping",
        "terminated",
        "unresponsive",
    ]
    assert {event.value for event in Event} == set(EXPECTED_ACTORS)
    assert len(CELLS) == 72
    assert {(state, event) for event, state in itertools.product(Event, State)} == set(CELLS)
    assert [(state, event) for state, event, _cell in SERVICE.cells()] == [
        (state, event) for event in Event for state in State
    ]


def test_25_pairs_move_23_are_ignored_and_24_are_illegal() -> None:
    verdicts = Counter(SERVICE.verdict(state, event) for state in State for event in Event)
    assert verdicts == {Verdict.MOVE: 25, Verdict.IGNORE: 23, Verdict.ILLEGAL: 24}


def test_only_the_design_s_actors_raise_each_event() -> None:
    assert {
        event.value: {actor.value for actor in actors} for event, actors in SERVICE.raised_by.items()
    } == EXPECTED_ACTORS


def test_exactly_one_thing_happens_for_each_pair_and_combination_of_guards(thing: type[Any]) -> None:
    for (state, event), (guards, _origin) in itertools.product(CELLS, all_guards()):
        first, second = thing(state, guards), thing(state, guards)
        assert outcome(first, event) == outcome(second, event)
        assert len(first.seen) in (0, 2), "a move leaves one state and enters one"


def test_open_events_are_those_with_a_move() -> None:
    for state in State:
        assert set(SERVICE.open_events(state)) == {
            event for event in Event if SERVICE.verdict(state, event) is Verdict.MOVE
        }
    assert SERVICE.open_events(State.TERMINATED) == ()


# --- as a graph


@dataclass(frozen=True)
class Abstract:
    """An instance as far as the table can tell one from another, and what it has been through."""

    state: State = State.PENDING
    origin: State | None = None
    may_retry: bool = True
    activity_available: bool = True
    been: frozenset[State] = frozenset({State.PENDING})

    def guards(self) -> dict[str, bool]:
        return {
            Guard.MAY_RETRY: self.may_retry,
            Guard.ACTIVITY_AVAILABLE: self.activity_available,
            **{guard: self.origin is state for state, guard in ORIGINS.items()},
        }


@dataclass(frozen=True)
class Step:
    here: Abstract
    event: Event
    actor: Actor
    result: State | Verdict
    move: Move[State, Event] | None
    there: Abstract


@pytest.fixture(scope="module")
def steps(thing: type[Any]) -> list[Step]:
    """Every step from every reachable abstract instance, found by breadth-first search on the real machine.

    Policy and the activity's availability may change between any two steps.
    """
    found: list[Step] = []
    seen = {Abstract()}
    ahead = [Abstract()]
    while ahead:
        here = ahead.pop(0)
        for may_retry, available in itertools.product((True, False), (True, False)):
            weather = replace(here, may_retry=may_retry, activity_available=available)
            if weather not in seen:
                seen.add(weather)
                ahead.append(weather)
        for event in Event:
            for actor in SERVICE.raised_by[event]:
                one = thing(here.state, here.guards())
                result = outcome(one, event, actor)
                there, move = here, None
                if one.seen:
                    move = one.seen[0][2]
                    origin = here.state if one.state is State.UNRESPONSIVE else here.origin
                    there = replace(here, state=one.state, origin=origin, been=here.been | {one.state})
                found.append(Step(here, event, actor, result, move, there))
                if there not in seen:
                    seen.add(there)
                    ahead.append(there)
    return found


def test_every_state_can_be_reached(steps: list[Step]) -> None:
    assert {step.there.state for step in steps} == set(State)


def test_terminated_can_be_reached_from_everywhere(steps: list[Step]) -> None:
    everywhere = {step.here for step in steps}
    can_end = {one for one in everywhere if one.state is State.TERMINATED}
    while more := {step.here for step in steps if step.there in can_end} - can_end:
        can_end |= more
    assert everywhere == can_end


def test_no_move_is_dead(steps: list[Step]) -> None:
    assert {step.move for step in steps} - {None} == set(SERVICE.moves)


@pytest.mark.parametrize("actor", [Actor.USER, Actor.PROVIDER, Actor.PROBE, Actor.CLOCK, Actor.BUDGET])
def test_whoever_acts_on_their_own_can_never_raise_an_illegal_event(steps: list[Step], actor: Actor) -> None:
    theirs = [step for step in steps if step.actor is actor]
    assert {step.here.state for step in theirs} == set(State)
    assert [step for step in theirs if step.result is Verdict.ILLEGAL] == []


def test_only_terminated_is_final_and_nothing_leaves_it(steps: list[Step]) -> None:
    left = {step.here.state for step in steps if step.move is not None}
    assert set(State) - left == {State.TERMINATED} == SERVICE.final


def test_the_way_back_to_pending_is_open_only_before_running_was_ever_reached(steps: list[Step]) -> None:
    back = [step for step in steps if step.move is not None and step.there.state is State.PENDING]
    assert back != []
    assert [step for step in back if {State.RUNNING, State.STOPPING} & step.here.been] == []


def test_running_and_stopping_are_each_entered_once_but_for_recoveries(steps: list[Step]) -> None:
    for once in (State.RUNNING, State.STOPPING):
        again = [
            step
            for step in steps
            if step.move is not None
            and step.there.state is once
            and once in step.here.been
            and step.event is not Event.PROVIDER_RECOVERED
        ]
        assert again == []


def test_a_recovery_leads_to_where_it_came_from_and_nowhere_else(steps: list[Step]) -> None:
    recoveries = [step for step in steps if step.event is Event.PROVIDER_RECOVERED and step.move]
    assert {step.there.state for step in recoveries} == set(ORIGINS)
    assert all(step.there.state is step.here.origin for step in recoveries)


def test_a_silent_provider_is_never_asked_to_run_shutdown(steps: list[Step]) -> None:
    from_silence = {step.there.state for step in steps if step.here.state is State.UNRESPONSIVE and step.move}
    assert from_silence == {State.PENDING, State.TERMINATED, *ORIGINS}
    assert all(
        step.event is Event.PROVIDER_RECOVERED
        for step in steps
        if step.here.state is State.UNRESPONSIVE and step.there.state is State.STOPPING
    )


def test_without_a_retry_or_a_recovery_every_life_is_at_most_five_moves_long(steps: list[Step]) -> None:
    circular = (Event.PROVIDER_RECOVERED, Event.RETRY_START)
    longest = {Abstract(may_retry=False): 0}
    ahead = list(longest)
    while ahead:
        here = ahead.pop()
        for step in steps:
            if step.here == here and step.move and step.event not in circular:
                length = longest[here] + 1
                assert length <= 5, "a circle"
                if length > longest.get(step.there, -1):
                    longest[step.there] = length
                    ahead.append(step.there)
    assert max(longest.values()) == 5


# --- what can still be reached


def test_reachable_states_are_those_that_the_search_finds(steps: list[Step]) -> None:
    successors: dict[tuple[State, State | None], set[tuple[State, State | None]]] = {}

    def place(one: Abstract) -> tuple[State, State | None]:
        return one.state, one.origin if one.state is State.UNRESPONSIVE else None

    for step in steps:
        entered = {place(step.there)} if step.move else set()
        successors.setdefault(place(step.here), set()).update(entered)
    for start in successors:
        entered = set(successors[start])
        while more := set().union(*(successors[one] for one in entered)) - entered:
            entered |= more
        assert reachable(*start) == {state for state, _origin in entered}, start


def test_nothing_can_be_reached_from_terminated() -> None:
    assert reachable(State.TERMINATED) == frozenset()


def test_a_stopping_instance_will_never_run_again() -> None:
    assert reachable(State.STOPPING) == {State.UNRESPONSIVE, State.STOPPING, State.TERMINATED}
    assert State.RUNNING in reachable(State.UNRESPONSIVE, State.RUNNING)
    assert State.RUNNING not in reachable(State.UNRESPONSIVE, State.STOPPING)
