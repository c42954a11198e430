"""Plans that once broke an invariant, each pinned with what was wrong."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from shem.lifecycle import Event, State
from shem.testing.drive import LIMITS, drive
from shem.testing.grid import BASE
from shem.testing.invariants.reading import stays
from shem.testing.life import Life
from shem.testing.plan import Action, ActionKind, Fault, FaultKind, HandlerFault, HandlerFaultKind, Plan

#: A provider that is silent for a while again and again, and heard in between.
COMES_AND_GOES = Fault(FaultKind.HANG, at=7.0, seconds=9.0, times=12)
STOPPED_IN_VAIN = HandlerFault(HandlerFaultKind.WAITS, "shutdown")


def time_in(life: Life, *states: State) -> float:
    return sum(until - since for state, since, until in stays(life.instances[0].records) if state in states)


def told(plan: Plan) -> Life:
    life = drive(plan)
    assert not life.problems, life.story()
    return life


def test_a_provider_that_comes_and_goes_cannot_put_off_the_end_of_shutdown() -> None:
    life = told(
        Plan(
            faults=(COMES_AND_GOES,),
            actions=(Action(ActionKind.EXIT, at=6.0),),
            handlers=(STOPPED_IN_VAIN,),
        )
    )
    assert sum(record.dest is State.UNRESPONSIVE for record in life.records) >= 2
    assert time_in(life, State.STOPPING) <= LIMITS.stop + 1e-6
    assert time_in(life, State.UNRESPONSIVE) <= LIMITS.grace + 1e-6


def test_a_provider_that_comes_and_goes_cannot_put_off_the_end_of_start() -> None:
    life = told(
        Plan(
            faults=(Fault(FaultKind.HANG, at=2.0, seconds=4.0, times=40),),
            handlers=(HandlerFault(HandlerFaultKind.WAITS, "start"),),
            respawn=False,
        )
    )
    assert sum(record.dest is State.UNRESPONSIVE for record in life.records) >= 2
    assert life.instances[0].records[-1].event in (Event.START_FAILED, Event.UNRESPONSIVE_TIMEOUT)
    assert time_in(life, State.STARTING) <= LIMITS.start + 1e-6


def test_a_provider_that_comes_and_goes_does_not_end_a_service_that_runs() -> None:
    life = told(Plan(rounds=25, faults=(Fault(FaultKind.HANG, at=4.5, seconds=5.0, times=14),)))
    assert time_in(life, State.UNRESPONSIVE) > LIMITS.grace
    assert life.instances[0].records[-1].event is Event.SERVICE_STOPPED


@pytest.mark.parametrize("second_stop", [9.0, 12.0, 15.0])
def test_a_second_stop_does_not_wait_for_a_provider_that_fell_silent_after_the_first(
    second_stop: float,
) -> None:
    life = told(
        Plan(
            faults=(Fault(FaultKind.HANG, at=6.5),),
            actions=(Action(ActionKind.STOP, at=6.0), Action(ActionKind.STOP_NOW, at=second_stop)),
            handlers=(STOPPED_IN_VAIN,),
        )
    )
    assert life.instances[0].records[-1].monotonic == pytest.approx(second_stop)


def test_the_end_of_an_agreement_is_the_first_cause_even_for_a_stop_in_the_same_moment() -> None:
    ends = set()
    for step in range(160, 240):
        life = told(
            replace(
                BASE,
                faults=(Fault(FaultKind.TERMINATE, at=9.0, reason="it has had enough"),),
                actions=(Action(ActionKind.STOP_NOW, at_step=step),),
            )
        )
        ends.add(life.instances[0].records[-1].event)
    # It was stopped before, in the same moment, and after.
    assert ends == {Event.SERVICE_ERROR, Event.AGREEMENT_TERMINATED}


def test_a_bill_for_an_activity_that_nobody_heard_of_is_paid_or_reported() -> None:
    for number, step in itertools.product(range(15, 22), range(75, 100)):
        told(
            replace(
                BASE,
                faults=(Fault(FaultKind.VANISH, at_call=number),),
                actions=(Action(ActionKind.STOP, at_step=step),),
            )
        )
