"""The tables of agreements and activities: total, connected, and harmless where two sides race."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from shem.errors import IllegalEvent
from shem.lifecycle import (
    ACTIVITY,
    AGREEMENT,
    ActivityEvent,
    ActivityState,
    Actor,
    AgreementEvent,
    AgreementState,
    Cause,
    Machine,
    Table,
    Verdict,
)

TABLES = pytest.mark.parametrize("table", [AGREEMENT, ACTIVITY], ids=lambda table: table.name)

#: **state**: moves there; ·: ignored; ✗: illegal. Rules of the market API (contract 3.3.5, 3.3.6).
AGREEMENTS = """
           Proposal   Pending    Approved    Rejected  Cancelled  Expired  Terminated
Confirm    Pending    ✗          ✗           ✗         ✗          ✗        ✗
Approve    ✗          Approved   ·           ·         ·          ·        ·
Reject     ✗          Rejected   ✗           ·         ·          ·        ·
Cancel     Cancelled  Cancelled  ·           ·         ·          ·        ·
Expire     Expired    Expired    ·           ·         ·          ·        ·
Terminate  ✗          ✗          Terminated  ·         ·          ·        ·
"""

#: As above; `back` is the state in which contact was lost (contract 3.4.2).
ACTIVITIES = """
               New          Initialized   Deployed      Ready         Unresponsive  Terminated
Initialize     Initialized  ✗             ✗             ✗             ✗             ✗
Deploy         ✗            Deployed      ✗             ✗             ✗             ✗
Start          ✗            ✗             Ready         ✗             ✗             ✗
Terminate      ✗            ✗             Initialized   Initialized   ✗             ✗
LoseContact    ·            Unresponsive  Unresponsive  Unresponsive  ·             ·
RegainContact  ·            ·             ·             ·             back          ·
Destroy        Terminated   Terminated    Terminated    Terminated    Terminated    ·
"""

LIVE = (ActivityState.INITIALIZED, ActivityState.DEPLOYED, ActivityState.READY)


def cells(text: str, states: Any, events: Any) -> dict[tuple[Any, Any], str]:
    head, *rows = [line.split() for line in text.strip().splitlines()]
    return {
        (states(name), events(row[0])): cell for row in rows for name, cell in zip(head, row[1:], strict=True)
    }


def name_of(value: Any) -> str:
    return value if isinstance(value, str) else " ".join(part.value for part in value)


def guards_for(origin: ActivityState | None) -> dict[str, bool]:
    return {f"was_{state.value.lower()}": state is origin for state in LIVE}


def outcome(thing: Any, machine: Machine[Any, Any], event: Any) -> str:
    actor = min(machine.table.raised_by[event], key=lambda actor: actor.value)
    try:
        return thing.state.value if machine.fire(thing, event, Cause(actor)) else "·"
    except IllegalEvent:
        return "✗"


@pytest.mark.parametrize(
    ("pair", "expected"), cells(AGREEMENTS, AgreementState, AgreementEvent).items(), ids=name_of
)
def test_each_pair_of_an_agreement_does_what_the_market_api_says(
    thing: type[Any], pair: tuple[Any, Any], expected: str
) -> None:
    state, event = pair
    assert outcome(thing(state), Machine(AGREEMENT), event) == expected


@pytest.mark.parametrize(
    ("pair", "expected"), cells(ACTIVITIES, ActivityState, ActivityEvent).items(), ids=name_of
)
def test_each_pair_of_an_activity_does_what_the_activity_api_says(
    thing: type[Any], pair: tuple[Any, Any], expected: str
) -> None:
    state, event = pair
    for origin in LIVE:
        wanted = origin.value if expected == "back" else expected
        assert outcome(thing(state, guards_for(origin)), Machine(ACTIVITY), event) == wanted


@TABLES
def test_every_pair_is_classed(table: Table[Any, Any]) -> None:
    assert [(state, event) for state, event, _cell in table.cells()] == [
        (state, event) for event in table.events for state in table.states
    ]
    assert set(table.events) == set(type(table.events[0]))
    assert set(table.states) == set(type(table.initial))


@TABLES
def test_every_state_is_reached_and_an_end_is_reached_from_all(table: Table[Any, Any]) -> None:
    reached, ended = {table.initial}, set(table.final)
    for _round in table.states:
        reached |= {move.dest for move in table.moves if move.source in reached}
        ended |= {move.source for move in table.moves if move.dest in ended}
    assert reached == ended == set(table.states)
    assert {move.source for move in table.moves} == set(table.states) - table.final


@TABLES
def test_once_it_has_ended_whatever_comes_late_from_the_other_side_is_harmless(
    table: Table[Any, Any],
) -> None:
    outside = {Actor.PROVIDER, Actor.CLOCK, Actor.PROBE}
    for state, event in itertools.product(table.final, table.events):
        if table.raised_by[event] <= outside and event is not ActivityEvent.INITIALIZE:
            assert table.verdict(state, event) is Verdict.IGNORE, (state, event)


@pytest.mark.parametrize(
    "event", [AgreementEvent.EXPIRE, AgreementEvent.CANCEL], ids=lambda event: event.value
)
def test_the_clock_and_a_withdrawal_may_come_at_any_time_in_an_agreement_s_life(
    event: AgreementEvent,
) -> None:
    assert Verdict.ILLEGAL not in {AGREEMENT.verdict(state, event) for state in AgreementState}


@pytest.mark.parametrize(
    "event",
    [ActivityEvent.LOSE_CONTACT, ActivityEvent.REGAIN_CONTACT, ActivityEvent.DESTROY],
    ids=lambda event: event.value,
)
def test_a_watch_and_either_side_s_destroy_may_come_at_any_time_in_an_activity_s_life(
    event: ActivityEvent,
) -> None:
    assert Verdict.ILLEGAL not in {ACTIVITY.verdict(state, event) for state in ActivityState}


@pytest.mark.parametrize(
    ("first", "second"),
    list(
        itertools.permutations(
            [AgreementEvent.APPROVE, AgreementEvent.CANCEL, AgreementEvent.EXPIRE, AgreementEvent.REJECT], 2
        )
    ),
    ids=lambda event: event.value,
)
def test_of_two_racing_decisions_on_a_pending_agreement_the_first_counts(
    thing: type[Any], first: AgreementEvent, second: AgreementEvent
) -> None:
    machine, agreement = Machine(AGREEMENT), thing(AgreementState.PENDING)
    decided = outcome(agreement, machine, first)
    if {first, second} == {AgreementEvent.APPROVE, AgreementEvent.REJECT} and first is AgreementEvent.APPROVE:
        # Both are the provider's: taking an approval back is no race but a lie.
        assert outcome(agreement, machine, second) == "✗"
    else:
        assert outcome(agreement, machine, second) == "·"
    assert agreement.state.value == decided


def test_both_sides_may_terminate_an_agreement_or_destroy_an_activity_at_once(thing: type[Any]) -> None:
    for table, state, event in (
        (AGREEMENT, AgreementState.APPROVED, AgreementEvent.TERMINATE),
        (ACTIVITY, ActivityState.READY, ActivityEvent.DESTROY),
    ):
        machine: Machine[Any, Any] = Machine(table)
        one = thing(state)
        assert machine.fire(one, event, Cause(Actor.PROVIDER))
        assert not machine.fire(one, event, Cause(Actor.ENGINE))


def test_contact_regained_without_having_been_lost_anywhere_is_a_bug(thing: type[Any]) -> None:
    with pytest.raises(IllegalEvent, match="no guard holds"):
        Machine(ACTIVITY).fire(
            thing(ActivityState.UNRESPONSIVE, guards_for(None)),
            ActivityEvent.REGAIN_CONTACT,
            Cause(Actor.PROBE),
        )
