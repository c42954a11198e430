"""Hypothesis strategies for plans. They shrink towards `Plan()`, the life in which nothing goes wrong.

Everything is drawn up front: a plan is a value, so that what fails can be shrunk, told and replayed. ::

    @given(plans())
    def test_my_service_survives(plan):
        life = drive(plan, MyService)
        assert not life.problems, life.story()
"""

from __future__ import annotations

from typing import Final, TypeVar

from hypothesis import strategies as st

from shem.service.handlers import HANDLERS
from shem.service.policy import RestartPolicy
from shem.testing.link import ANY
from shem.testing.plan import (
    BESIDE_HANDLERS,
    CALL_FAULTS,
    COMMAND_FAULTS,
    DEFAULT_POLICY,
    REPEATED,
    Action,
    ActionKind,
    Fault,
    FaultKind,
    HandlerFault,
    HandlerFaultKind,
    Plan,
)

T = TypeVar("T")

#: The calls that a run makes, in the order in which it first makes them.
CALLS: Final = (
    "me",
    "create_allocation",
    "demand_decorations",
    "change_allocation",
    "subscribe",
    "demand_events",
    "counter_proposal",
    "create_agreement",
    "confirm_agreement",
    "wait_for_approval",
    "create_activity",
    "execute",
    "batch_results",
    "activity_state",
    "agreement_events",
    "agreement",
    "destroy_activity",
    "terminate_agreement",
    "cancel_agreement",
    "debit_note_events",
    "debit_note",
    "accept_debit_note",
    "invoice_events",
    "invoice",
    "activity_usage",
    "activities_of",
    "accept_invoice",
    "unsubscribe",
    "allocation",
    "release_allocation",
)

#: Durations that make a difference: below, within and beyond the time budgets of a life.
SECONDS: Final = (0.5, 2.0, 5.0, 8.0, 15.0, 25.0, 40.0, 70.0, 130.0)
_OF_PROVIDERS: Final = (
    FaultKind.VANISH,
    FaultKind.HANG,
    FaultKind.TERMINATE,
    FaultKind.KILL,
    FaultKind.RECOVER,
)
#: Kinds that take no time of their own.
_TIMELESS: Final = frozenset(FaultKind) - {
    FaultKind.VANISH,
    FaultKind.HANG,
    FaultKind.TERMINATE,
    FaultKind.LATE,
    FaultKind.SLOW_CALL,
    FaultKind.SLOW_ANSWER,
    FaultKind.NODE_DOWN,
    FaultKind.NODE_RESTART,
}
_REASONS: Final = ("", "Expired", "NoActivity", "the provider has had enough")


def times() -> st.SearchStrategy[float]:
    """Moments of a life, in quarters of a second: mostly while it is young."""
    return st.one_of(
        st.integers(0, 60).map(lambda quarters: quarters / 4),
        st.integers(0, 60).map(lambda quarters: quarters / 4),
        st.integers(0, 600).map(lambda quarters: quarters / 4),
    )


#: Faults by how much may follow from them, the simplest first.
_KINDS: Final = (
    FaultKind.KILL,
    *(FaultKind.VANISH,) * 4,
    *(FaultKind.HANG,) * 4,
    *(FaultKind.TERMINATE,) * 3,
    FaultKind.KILL,
    FaultKind.RECOVER,
    *(kind for kind in FaultKind if kind not in _OF_PROVIDERS),
)


def faults() -> st.SearchStrategy[Fault]:
    """Faults of providers, node, calls and programs."""
    return st.builds(
        _fault,
        st.sampled_from(_KINDS),
        times(),
        st.one_of(st.none(), st.integers(1, 60)),
        st.one_of(st.none(), st.none(), st.integers(1, 600)),
        st.one_of(st.none(), st.sampled_from(CALLS)),
        st.integers(0, 3),
        st.one_of(st.just(0.0), st.sampled_from(SECONDS)),
        st.integers(1, 4),
        st.sampled_from(_REASONS),
    )


def _fault(
    kind: FaultKind,
    at: float,
    number: int | None,
    step: int | None,
    call: str | None,
    which: int,
    seconds: float,
    repeated: int,
    reason: str,
) -> Fault:
    """A fault of what was drawn, without what has no meaning for its kind."""
    if kind in COMMAND_FAULTS:
        return Fault(kind, at_call=(number or 1) % 10 + 1)
    if call is not None and number is not None:
        number = number % 6 + 1
    return Fault(
        kind,
        at=at if number is None and step is None else None,
        at_call=number,
        at_step=step if number is None else None,
        call=ANY if call is None or (number is None and kind not in CALL_FAULTS) else call,
        which=0 if kind in CALL_FAULTS else which,
        seconds=seconds if kind not in _TIMELESS else 0.0,
        times=repeated if kind in CALL_FAULTS | REPEATED or kind is FaultKind.REFUSE else 1,
        reason=reason if kind is FaultKind.TERMINATE else "",
    )


def actions() -> st.SearchStrategy[Action]:
    """What a user does."""
    what = st.sampled_from(ActionKind)
    return st.one_of(
        st.builds(Action, what, at=times(), which=st.integers(0, 3)),
        st.builds(Action, what, at_call=st.integers(1, 60)),
        st.builds(Action, what, at_step=st.integers(1, 600)),
    )


def handler_faults() -> st.SearchStrategy[HandlerFault]:
    """What handlers do wrong."""
    seconds = st.sampled_from(SECONDS)
    in_handlers = st.builds(
        HandlerFault,
        st.sampled_from(HandlerFaultKind),
        st.sampled_from(HANDLERS),
        st.integers(0, 3),
        seconds,
        st.integers(1, 3),
    )
    beside = st.builds(
        HandlerFault,
        st.sampled_from(
            (
                HandlerFaultKind.RAISES,
                HandlerFaultKind.SLOW,
                HandlerFaultKind.WAITS,
                HandlerFaultKind.SWALLOWS,
                HandlerFaultKind.CANCELS,
            )
        ),
        st.sampled_from(BESIDE_HANDLERS),
        st.just(0),
        seconds,
        st.integers(1, 3),
    )
    return st.one_of(in_handlers, in_handlers, beside)


def policies() -> st.SearchStrategy[RestartPolicy]:
    """Restart policies; mostly the default one."""
    return st.one_of(
        st.just(DEFAULT_POLICY),
        st.builds(
            RestartPolicy,
            on=st.sampled_from(("never", "failure", "always")),
            attempts=st.integers(1, 3),
            backoff=st.sampled_from((0.0, 1.0, 5.0)),
            where=st.sampled_from(("other", "any")),
            user_errors=st.booleans(),
        ),
    )


def deviations() -> st.SearchStrategy[tuple[tuple[int, int], ...]]:
    """A few choices between tasks that do not go first come, first served."""
    return st.dictionaries(st.integers(1, 250), st.integers(1, 3), max_size=3).map(
        lambda chosen: tuple(sorted(chosen.items()))
    )


def latencies() -> st.SearchStrategy[tuple[float, ...]]:
    """How long calls take in turn, in seconds."""
    some = st.sampled_from((0.0, 0.05, 0.3, 1.0))
    return st.one_of(st.just((0.05,)), st.lists(some, min_size=1, max_size=3).map(tuple))


def _seldom(some: st.SearchStrategy[tuple[T, ...]]) -> st.SearchStrategy[tuple[T, ...]]:
    # What ends a life early keeps everything else from happening.
    none: st.SearchStrategy[tuple[T, ...]] = st.just(())
    return st.one_of(none, none, some)


def plans(max_faults: int = 3, max_actions: int = 2, max_handlers: int = 2) -> st.SearchStrategy[Plan]:
    """Whole lives."""
    return st.builds(
        Plan,
        seed=st.integers(0, 3),
        providers=st.sampled_from((3, 3, 3, 3, 2, 2, 1, 4, 0)),
        instances=st.sampled_from((1, 1, 2, 3)),
        rounds=st.sampled_from((2, 2, 2, 0, 1, 8)),
        latencies=latencies(),
        faults=st.lists(faults(), max_size=max_faults).map(tuple),
        actions=_seldom(st.lists(actions(), min_size=1, max_size=max_actions).map(tuple)),
        handlers=_seldom(st.lists(handler_faults(), min_size=1, max_size=max_handlers).map(tuple)),
        deviations=deviations(),
        policy=policies(),
        respawn=st.sampled_from((True, False)),
        probe=st.sampled_from((None, None, None, 0, 2)),
        expires=st.sampled_from((*(None,) * 19, 300.0)),
    )
