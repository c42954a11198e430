"""What comes out of shrinking still fails, is no more than what went in, and holds nothing needless."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shem.testing.plan import Action, ActionKind, Fault, FaultKind, HandlerFault, HandlerFaultKind, Plan
from shem.testing.shrink import shrink, size
from shem.testing.strategies import plans

Fails = Callable[[Plan], bool]


def needs_fault(fault: Fault) -> Fails:
    return lambda plan: any(one.kind is fault.kind and one.which >= fault.which for one in plan.faults)


def needs_action(action: Action) -> Fails:
    return lambda plan: any(one.what is action.what for one in plan.actions)


def needs_much(number: int) -> Fails:
    return lambda plan: len(plan.faults) + len(plan.actions) + len(plan.handlers) >= number


def needs_late(at: float) -> Fails:
    return lambda plan: any(one.at is not None and one.at >= at for one in (*plan.faults, *plan.actions))


def needs_instances(number: int, seed: int = 1) -> Fails:
    return lambda plan: plan.instances >= number and plan.seed % 2 == seed


@st.composite
def failing(draw: st.DrawFn) -> tuple[Plan, Fails]:
    """A plan, and why it fails."""
    plan = draw(plans())
    moments = [one.at for one in (*plan.faults, *plan.actions) if one.at is not None]
    happens = len(plan.faults) + len(plan.actions) + len(plan.handlers)
    reasons: list[st.SearchStrategy[Fails]] = [
        st.integers(0, happens).map(needs_much),
        st.just(needs_instances(plan.instances, plan.seed % 2)),
    ]
    if plan.faults:
        reasons.append(st.sampled_from(plan.faults).map(needs_fault))
    if plan.actions:
        reasons.append(st.sampled_from(plan.actions).map(needs_action))
    if moments:
        reasons.append(st.floats(0, max(moments)).map(needs_late))
    first, second = draw(st.one_of(reasons)), draw(st.one_of(reasons))
    return plan, lambda candidate: first(candidate) and second(candidate)


@settings(max_examples=30)
@given(failing())
def test_the_shrunk_plan_still_fails_and_is_no_longer(one):
    plan, fails = one
    small = shrink(plan, fails)
    assert fails(small)
    assert size(small) <= size(plan)
    assert small.weight <= plan.weight
    assert len(repr(small)) <= len(repr(plan))
    assert Plan.replay(repr(small)) == small


@settings(max_examples=10)
@given(failing())
def test_shrinking_is_the_same_each_time_and_has_an_end(one):
    plan, fails = one
    small = shrink(plan, fails)
    assert small == shrink(plan, fails)
    assert shrink(small, fails, tries=10_000) == shrink(plan, fails, tries=10_000)


@settings(max_examples=30)
@given(plans())
def test_a_plan_that_fails_whatever_it_says_becomes_the_empty_one(plan):
    assert shrink(plan, lambda _plan: True) == Plan()


@settings(max_examples=30)
@given(plans(), st.integers(0, 20))
def test_no_more_plans_are_tried_than_allowed_and_none_twice(plan, tries):
    tried: list[Plan] = []

    def fails(candidate: Plan) -> bool:
        tried.append(candidate)
        return False

    assert shrink(plan, fails, tries) == plan
    assert len(tried) == len(set(tried)) <= tries
    assert plan not in tried


FULL = Plan(
    seed=3,
    providers=4,
    instances=3,
    latencies=(1.0, 0.3),
    faults=(
        Fault(FaultKind.CUT_AFTER, at_call=3, call="execute", times=3),
        Fault(FaultKind.VANISH, at=27.25, which=2, seconds=15.0),
        Fault(FaultKind.KILL, at=31.5, reason="so it is"),
    ),
    actions=(Action(ActionKind.SPAWN, at_step=200), Action(ActionKind.STOP, at=40.75)),
    handlers=(HandlerFault(HandlerFaultKind.RAISES, "run", 2),),
    deviations=((17, 1), (30, 2)),
    respawn=False,
    probe=2,
)


@pytest.mark.parametrize(
    ("fails", "least"),
    [
        (needs_fault(Fault(FaultKind.KILL, at=0.0)), Plan(faults=(Fault(FaultKind.KILL, at=0.0),))),
        (needs_action(Action(ActionKind.STOP, at=0.0)), Plan(actions=(Action(ActionKind.STOP, at=0.0),))),
        (needs_late(27.25), Plan(faults=(Fault(FaultKind.VANISH, at=27.25),))),
        (needs_late(26.0), Plan(faults=(Fault(FaultKind.VANISH, at=27.0),))),
        (needs_instances(3), Plan(seed=1, instances=3)),
        (lambda plan: not plan.respawn, Plan(respawn=False)),
        (
            lambda plan: any(one.at_call == 3 and one.call != "*" for one in plan.faults),
            Plan(faults=(Fault(FaultKind.CUT_AFTER, at_call=3, call="execute"),)),
        ),
        (lambda plan: (17, 1) in plan.deviations, Plan(deviations=((17, 1),))),
    ],
    ids=["kind", "action", "exact time", "rough time", "instances", "flag", "call", "deviation"],
)
def test_only_what_matters_is_left(fails, least):
    small = shrink(FULL, fails)
    assert small.weight == least.weight
    assert size(small) <= size(least), (small, least)


def test_a_moment_in_seconds_is_better_than_a_step_of_the_loop():
    step, time = (
        Plan(actions=(Action(ActionKind.STOP, **when),)) for when in ({"at_step": 1}, {"at": 20.25})
    )
    assert size(time) < size(step)
