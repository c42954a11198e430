"""No invariant is empty talk: each is broken here by hand, in a life that is good otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import pytest

from shem.devnet.audit import Audit
from shem.engine.activity import Activity
from shem.events import ActivityEnded, ScriptSent
from shem.ids import ActivityId, InstanceId
from shem.lifecycle import Actor, Cause, Event, State
from shem.service.policy import RestartPolicy
from shem.testing.drive import LIMITS, drive
from shem.testing.invariants import INVARIANTS, check
from shem.testing.life import Call, Happening, InstanceLife, Life, Stop
from shem.testing.plan import Action, ActionKind, Fault, FaultKind, HandlerFault, HandlerFaultKind, Plan
from shem.testing.sim import EPOCH
from shem.testing.subject import PlannedError
from shem.yagna.models import DocumentStatus

STOP = Action(ActionKind.STOP, at=0.0)
RETRIED = Plan(faults=(Fault(FaultKind.COMMAND_FAILS, at_call=1),))
SILENT = Plan(faults=(Fault(FaultKind.HANG, at=6.0, seconds=9.0),))
KILLED = Plan(faults=(Fault(FaultKind.KILL, at=6.0),))
TERMINATED = Plan(faults=(Fault(FaultKind.TERMINATE, at=6.0, reason="it has had enough"),))
REPLACED = replace(KILLED, policy=RestartPolicy(on="failure"))
FOR_EVER = HandlerFault(HandlerFaultKind.WAITS, "run")

good = cache(drive)


def with_instance(life: Life, **changes: Any) -> Life:
    return replace(life, instances=(replace(life.instances[0], **changes), *life.instances[1:]))


def with_record(life: Life, which: Event, **changes: Any) -> Life:
    """The first record of an event, changed."""
    records = list(life.instances[0].records)
    place = next(place for place, record in enumerate(records) if record.event is which)
    records[place] = replace(records[place], **changes)
    return with_instance(life, records=tuple(records))


def with_run(life: Life, handler: str, **changes: Any) -> Life:
    """The first run of a handler, changed."""
    runs = list(life.handlers)
    place = next(place for place, run in enumerate(runs) if run.handler == handler)
    runs[place] = replace(runs[place], **changes)
    return replace(life, handlers=tuple(runs))


def with_happening(life: Life, at: float, what: Action | Fault = STOP) -> Life:
    return replace(life, happened=(*life.happened, Happening(at, what)))


def with_script_at(life: Life, at: float) -> Life:
    event = ScriptSent(
        at=EPOCH + timedelta(seconds=at),
        cluster=next(event.cluster for event in life.events if isinstance(event, ScriptSent)),
        instance=life.instances[0].id,
        activity=ActivityId("a"),
        commands=("run x",),
    )
    return with_instance(replace(life, events=(*life.events, event)), scripts=99)


def unresponsive_since(life: Life) -> float:
    return next(record.monotonic for record in life.records if record.dest is State.UNRESPONSIVE)


def heir(life: Life) -> InstanceLife:
    first = life.instances[0]
    return replace(first, id=InstanceId("heir"), replaces=first.id, activities=(), records=())


def without_event(life: Life, kind: type) -> Life:
    return replace(life, events=tuple(event for event in life.events if not isinstance(event, kind)))


#: Name of the invariant, and how to break it.
BROKEN: list[tuple[str, Callable[[], Life]]] = [
    (
        "records_are_a_path",
        lambda: with_instance(good(Plan()), records=good(Plan()).instances[0].records[1:]),
    ),
    ("records_are_a_path", lambda: with_record(good(Plan()), Event.START_SUCCESSFUL, dest=State.STOPPING)),
    (
        "records_are_a_path",
        lambda: with_record(good(Plan()), Event.START_SUCCESSFUL, cause=Cause(Actor.USER, "wished for")),
    ),
    ("everything_ends_terminated", lambda: with_instance(good(Plan()), state=State.RUNNING)),
    (
        "retries_come_before_running",
        lambda: replace(good(RETRIED), plan=replace(RETRIED, respawn=False)),
    ),
    ("retries_come_before_running", lambda: with_record(good(Plan()), Event.SHUTDOWN, dest=State.PENDING)),
    ("stop_beats_restart", lambda: with_happening(good(Plan()), at=0.5)),
    (
        "stop_beats_restart",
        lambda: with_happening(good(REPLACED), at=3.0, what=STOP),
    ),
    ("stops_take_effect_at_once", lambda: with_happening(good(Plan()), at=10.0)),
    ("stop_buys_nothing", lambda: with_happening(good(Plan()), at=0.5)),
    ("stop_buys_nothing", lambda: replace(good(Plan()), calls=(Call(99.0, "create_agreement"),))),
    ("halts_go_through_stopping", lambda: with_record(good(Plan()), Event.SHUTDOWN, dest=State.TERMINATED)),
    (
        "halts_go_through_stopping",
        lambda: with_record(good(KILLED), Event.ACTIVITY_LOST, dest=State.STOPPING),
    ),
    (
        "halts_go_through_stopping",
        lambda: with_record(
            good(TERMINATED), Event.AGREEMENT_TERMINATED, dest=State.STOPPING, monotonic=16.0
        ),
    ),
    (
        "halts_go_through_stopping",
        lambda: replace(
            good(TERMINATED),
            activities=tuple(replace(one, ended_at=30.0) for one in good(TERMINATED).activities),
        ),
    ),
    ("nothing_outlives_its_rent", lambda: replace(good(Plan()), plan=Plan(expires=20.0))),
    (
        "user_errors_stay_where_they_are",
        lambda: with_record(
            good(RETRIED),
            Event.RETRY_START,
            cause=Cause(Actor.SUPERVISOR, "start() raised", PlannedError("by the user")),
        ),
    ),
    (
        "user_errors_stay_where_they_are",
        lambda: with_instance(good(REPLACED), error=PlannedError("by the user")),
    ),
    ("policy_is_kept", lambda: replace(good(REPLACED), plan=KILLED)),
    (
        "policy_is_kept",
        lambda: replace(
            good(REPLACED),
            plan=replace(REPLACED, policy=RestartPolicy(on="failure", attempts=1)),
            instances=(*good(REPLACED).instances, heir(good(REPLACED))),
        ),
    ),
    (
        "handlers_run_once",
        lambda: replace(good(Plan()), handlers=(*good(Plan()).handlers, good(Plan()).handlers[0])),
    ),
    (
        "handlers_run_once",
        lambda: replace(good(Plan()), handlers=(*good(Plan()).handlers, good(Plan()).handlers[1])),
    ),
    ("ends_are_heard", lambda: with_record(good(Plan()), Event.SHUTDOWN, monotonic=60.0)),
    ("scripts_are_sent_once", lambda: with_instance(good(Plan()), scripts=1)),
    ("handlers_begin_in_their_state", lambda: with_run(good(Plan()), "run", began=1.0)),
    ("handlers_never_overlap", lambda: with_run(good(Plan()), "start", ended=15.0)),
    ("handlers_never_overlap", lambda: with_run(good(Plan()), "run", ended=None)),
    ("shutdown_belongs_to_stopping", lambda: with_record(good(Plan()), Event.SHUTDOWN, dest=State.RUNNING)),
    (
        "shutdown_belongs_to_stopping",
        lambda: with_record(
            replace(good(Plan()), handlers=good(Plan()).handlers[:2]), Event.SERVICE_STOPPED, monotonic=60.0
        ),
    ),
    (
        "unresponsive_suspends",
        lambda: with_script_at(good(SILENT), unresponsive_since(good(SILENT)) + 1.0),
    ),
    (
        "unresponsive_suspends",
        lambda: with_run(good(SILENT), "run", began=unresponsive_since(good(SILENT)) + 1.0),
    ),
    ("leases_end_once", lambda: without_event(good(Plan()), ActivityEnded)),
    ("leases_end_once", lambda: replace(good(Plan()), done=good(Plan()).done * 2)),
    (
        "everything_is_given_back",
        lambda: replace(good(Plan()), audit=Audit(live_activities=(good(Plan()).activities[0].id,))),
    ),
    (
        "everything_is_given_back",
        lambda: replace(good(Plan()), audit=Audit(open_agreements=(good(Plan()).agreements[0].id,))),
    ),
    ("everything_is_given_back", lambda: replace(good(Plan()), audit=Audit(open_demands=("d",)))),  # type: ignore[arg-type]  # any name does
    ("everything_is_given_back", lambda: replace(good(Plan()), audit=Audit(open_allocations=("a",)))),  # type: ignore[arg-type]  # any name does
    (
        "bills_are_paid_as_owed",
        lambda: replace(
            good(Plan()),
            invoices=(replace(good(Plan()).invoices[0], status=DocumentStatus.RECEIVED),),
        ),
    ),
    (
        "bills_are_paid_as_owed",
        lambda: replace(good(Plan()), invoices=(replace(good(Plan()).invoices[0], owed=Decimal("0.00001")),)),
    ),
    (
        "bills_are_paid_as_owed",
        lambda: replace(good(Plan()), events=good(Plan()).events * 2),
    ),
    ("exit_is_bounded", lambda: replace(good(Plan()), ended_at=None)),
    ("exit_is_bounded", lambda: replace(good(Plan()), ended_at=(good(Plan()).left_at or 0) + 1000.0)),
    ("stops_are_bounded", lambda: replace(good(Plan()), stops=(Stop("the cluster", 6.0, None),))),
    ("stops_are_bounded", lambda: replace(good(Plan()), stops=(Stop("the cluster", 6.0, 600.0),))),
    (
        "causes_are_true",
        lambda: replace(good(Plan(actions=(Action(ActionKind.STOP, at=9.0),))), happened=(), left_at=None),
    ),
    ("causes_are_true", lambda: with_run(good(Plan()), "run", outcome="raised")),
    ("causes_are_true", lambda: with_run(good(Plan()), "start", ended=None)),
    ("causes_are_true", lambda: replace(good(Plan()), handlers=())),
    (
        "causes_are_true",
        lambda: replace(
            good(TERMINATED), agreements=(replace(good(TERMINATED).agreements[0], terminator="Requestor"),)
        ),
    ),
    (
        "causes_are_true",
        lambda: replace(
            good(TERMINATED), agreements=(replace(good(TERMINATED).agreements[0], reason="another one"),)
        ),
    ),
    (
        "causes_are_true",
        lambda: replace(
            good(KILLED), activities=(replace(good(KILLED).activities[0], ended_at=None, said=""),)
        ),
    ),
    (
        "causes_are_true",
        lambda: replace(
            good(KILLED),
            agreements=(replace(good(KILLED).agreements[0], terminator="Provider", terminated_at=5.0),),
            activities=(replace(good(KILLED).activities[0], said=""),),
        ),
    ),
    ("causes_are_true", lambda: replace(good(SILENT), happened=())),
    (
        "causes_are_true",
        lambda: with_record(
            good(Plan()), Event.SERVICE_STOPPED, event=Event.SERVICE_ERROR, cause=Cause(Actor.CLOCK, "late")
        ),
    ),
    ("why_names_the_cause", lambda: with_instance(good(Plan()), why="it just ended")),
    ("nothing_is_noticed", lambda: replace(good(Plan()), noticed=("a task was left behind",))),
]


def broken_by(life: Life) -> set[str]:
    return {problem.partition(":")[0] for problem in check(life, LIMITS)}


@pytest.mark.parametrize(("name", "doctored"), BROKEN)
def test_an_invariant_that_is_broken_says_so(name: str, doctored: Callable[[], Life]) -> None:
    assert name in broken_by(doctored())


@pytest.mark.parametrize("plan", [Plan(), RETRIED, SILENT, KILLED, TERMINATED, REPLACED])
def test_the_lives_that_were_doctored_are_good_ones(plan: Plan) -> None:
    assert not good(plan).problems, good(plan).story()


def test_every_invariant_was_broken() -> None:
    assert {invariant.__name__ for invariant in INVARIANTS} == {name for name, _ in BROKEN}


def test_every_invariant_says_what_it_is() -> None:
    for invariant in INVARIANTS:
        first = (invariant.__doc__ or "").partition("\n")[0]
        assert first.endswith("."), invariant


def test_a_state_that_is_no_longer_true_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Activity, "_gone_by", lambda *_args: None)
    life = drive(replace(KILLED, handlers=(FOR_EVER,)))
    assert any("was gone since" in found for found in life.noticed), life.story()


def test_a_silence_that_nobody_hears_of_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Activity, "silent", lambda *_args: None)
    plan = Plan(faults=(Fault(FaultKind.VANISH, at=6.0),), handlers=(FOR_EVER,))
    life = drive(plan)
    assert any("was silent since" in found for found in life.noticed), life.story()


def test_a_recovery_that_nobody_hears_of_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Activity, "_tell_contact", lambda self, contact, reason: _half(self, contact, reason))
    life = drive(replace(SILENT, handlers=(FOR_EVER,)), limits=replace(LIMITS, grace=60.0))
    assert any("was heard since" in found for found in life.noticed), life.story()


def _half(activity: Activity, contact: bool, reason: str) -> None:
    if not contact and activity.on_contact is not None:
        activity.on_contact(contact, reason)
