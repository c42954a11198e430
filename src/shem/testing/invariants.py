"""What holds in every life, whatever the plan. Each invariant is a function whose first sentence says it.

They compare what instances say of themselves with what really happened (see `life`). An invariant excuses
only what could not be otherwise: a node that lied, or something that was left over and reported.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from decimal import Decimal
from itertools import pairwise
from typing import Final, TypeAlias

from shem.errors import Blame, HandlerTimeout, PaymentError, ProvisionError, ScriptError, blame_of
from shem.events import BusEvent, InvoiceAccepted, PaymentRefused, ScriptFinished, ScriptSent, StepSkipped
from shem.ids import AgreementId
from shem.lifecycle import Actor, AgreementState, Event, Record, State
from shem.service.instance import HANDLER_OF
from shem.testing.life import ActivityFact, AgreementFact, HandlerRun, InstanceLife, Life
from shem.testing.limits import Limits
from shem.testing.plan import CALL_FAULTS, ActionKind, FaultKind
from shem.testing.sim import EPOCH
from shem.testing.verify import faults_of_events, faults_of_records
from shem.yagna.models import DocumentStatus

Moves: TypeAlias = Sequence[Record[State, Event]]
Invariant: TypeAlias = Callable[[Life, Limits], Iterator[str]]

#: Virtual times are sums of floats.
_TOLERANCE: Final = 1e-6
#: The node keeps the times of its events apart by microseconds.
_TICKS: Final = 1e-3
_STOPS_ALL: Final = (ActionKind.STOP, ActionKind.STOP_NOW, ActionKind.EXIT, ActionKind.CANCEL)
_HURRIES: Final = (ActionKind.STOP_NOW, ActionKind.CANCEL)
_STATE_OF: Final = {handler: state for state, handler in HANDLER_OF.items()}
_BUYING: Final = ("create_agreement", "confirm_agreement", "create_activity")
_PAID: Final = (DocumentStatus.ACCEPTED, DocumentStatus.SETTLED)
#: Fields of `Audit` that hold what the provider sent, or will send, to be paid.
_BILLS: Final = ("open_debit_notes", "open_invoices", "invoices_to_come")
#: What a bill may be above what it should be (see `shem.engine.payment.Tolerance`).
_SHARE, _AMOUNT = Decimal("1.01"), Decimal("1e-6")


def check(life: Life, limits: Limits) -> tuple[str, ...]:
    """Which invariants a life violates, in words: the invariant's name, and what was found."""
    return tuple(
        f"{invariant.__name__}: {found}" for invariant in INVARIANTS for found in invariant(life, limits)
    )


# --- moves ---------------------------------------------------------------------------------------------


def records_are_a_path(life: Life, _limits: Limits) -> Iterator[str]:
    """The records of each instance are a path of the table from Pending, each raised by who may raise it."""
    for instance in life.instances:
        yield from faults_of_records(instance.records)


def everything_ends_terminated(life: Life, _limits: Limits) -> Iterator[str]:
    """When the context of the Golem has been left, every instance is Terminated."""
    for instance in life.instances:
        if instance.state is not State.TERMINATED:
            yield f"it is not: {instance.why}"


def retries_come_before_running(life: Life, _limits: Limits) -> Iterator[str]:
    """No instance goes back to Pending once it was Running, or where `respawn_unstarted_instances` is off."""
    for instance in life.instances:
        ran = False
        for record in instance.records:
            ran = ran or record.dest is State.RUNNING
            if record.dest is State.PENDING and (ran or not life.plan.respawn):
                yield f"instance {instance.id}: {record}"


def stop_beats_restart(life: Life, _limits: Limits) -> Iterator[str]:
    """Once the user has stopped something, no activity is begun for it, and nothing takes its place."""
    for instance in life.instances:
        stopped = _stopped_at(life, instance)
        if stopped is None:
            continue
        for record in instance.records:
            if record.event is Event.RUN_SERVICE and record.monotonic > stopped:
                yield f"instance {instance.id} was stopped at {stopped:g} s, and yet: {record}"
        heirs = [one for one in life.instances if one.replaces == instance.id]
        last = instance.records[-1].monotonic if instance.records else 0.0
        yield from (
            f"instance {heir.id} replaced {instance.id}, which the user had stopped"
            for heir in heirs
            if last >= stopped
        )


def stop_buys_nothing(life: Life, _limits: Limits) -> Iterator[str]:
    """Once the user has stopped everything, no agreement is made or sent, and no activity is asked for."""
    stops = [one.at for one in life.happened if getattr(one.what, "what", None) in _STOPS_ALL]
    stopped = min([*stops, *([life.left_at] if life.left_at is not None else [])], default=float("inf"))
    for call in life.calls:
        if call.name in _BUYING and call.at > stopped + _TOLERANCE:
            yield f"{call.name} was called at {call.at:g} s, and everything had been stopped at {stopped:g} s"


def halts_go_through_stopping(life: Life, _limits: Limits) -> Iterator[str]:
    """Whoever is halted while the activity is there goes to Stopping; whoever has lost it, never."""
    patience = 1.0 + 10 * max(life.plan.latencies, default=0.0)
    for instance in life.instances:
        for place, record in enumerate(instance.records):
            halted = record.dest is State.STOPPING
            match record.event:
                case Event.SHUTDOWN | Event.SERVICE_ERROR if record.source in (State.STARTING, State.RUNNING):
                    wrong = not halted
                case Event.ACTIVITY_LOST:
                    wrong = halted
                case Event.AGREEMENT_TERMINATED if record.source is State.RUNNING and _reliable(life):
                    activity = _fact(life, instance, place)
                    ended = activity.ended_at if activity is not None else None
                    since = record.monotonic - (ended if ended is not None else float("inf"))
                    wrong = since > patience if halted else since < -patience
                case _:
                    wrong = False
            if wrong:
                yield f"instance {instance.id}: {record}"


def nothing_outlives_its_rent(life: Life, limits: Limits) -> Iterator[str]:
    """Where a service is rented for a time, its instances are stopped early enough before its end."""
    if life.plan.expires is None:
        return
    latest = life.plan.expires - limits.stop
    for instance in life.instances:
        for state, since, until in _stays(instance.records):
            if state in (State.STARTING, State.RUNNING) and until > latest + _TOLERANCE:
                yield f"instance {instance.id} was {state.value} from {since:g} s to {until:g} s"


def stops_take_effect_at_once(life: Life, _limits: Limits) -> Iterator[str]:
    """In the moment of the user's stop the instance moves, unless it is on its way out already."""
    for instance in life.instances:
        stopped = _stopped_at(life, instance)
        if stopped is None:
            continue
        states = _states_at(instance.records, stopped)
        if not states & {State.STOPPING, State.TERMINATED}:
            names = ", ".join(state.value for state in states)
            yield f"instance {instance.id} was stopped at {stopped:g} s and remained {names}"


def user_errors_stay_where_they_are(life: Life, _limits: Limits) -> Iterator[str]:
    """What is the fault of the user's code is not tried again elsewhere, unless the policy says so."""
    if life.plan.policy.user_errors:
        return
    for instance in life.instances:
        for record in instance.records:
            if record.dest is State.PENDING and _is_users(record.cause.error):
                yield f"instance {instance.id}: {record}"
        if _is_users(instance.error) and any(one.replaces == instance.id for one in life.instances):
            yield f"instance {instance.id} was replaced after {instance.error!r}"


def policy_is_kept(life: Life, _limits: Limits) -> Iterator[str]:
    """A slot is filled again only as the policy says, and no more often than it allows."""
    policy = life.plan.policy
    replaced = Counter(one.slot for one in life.instances if one.replaces is not None)
    for slot, count in replaced.items():
        if policy.on == "never":
            yield f"slot {slot} was filled again, though the policy is never"
        elif life.seconds <= policy.per and count > policy.attempts:
            yield f"slot {slot} was filled again {count} times within {policy.per:g} s"


# --- handlers ------------------------------------------------------------------------------------------


def handlers_run_once(life: Life, _limits: Limits) -> Iterator[str]:
    """`start` runs once per activity, `run` and `shutdown` at most once per instance."""
    starts = Counter((run.instance, run.activity) for run in life.handlers if run.handler == "start")
    others = Counter(
        (run.instance, run.handler) for run in life.handlers if run.handler in ("run", "shutdown")
    )
    yield from (f"start() of {one} ran {n} times on {on}" for (one, on), n in starts.items() if n > 1)
    yield from (f"{name}() of {one} ran {n} times" for (one, name), n in others.items() if n > 1)


def ends_are_heard(life: Life, limits: Limits) -> Iterator[str]:
    """When a handler has come to its end, its instance leaves the state that the handler was for."""
    finished: dict[str, list[float]] = defaultdict(list)
    for event in life.events:
        if isinstance(event, ScriptFinished):
            finished[event.instance].append(_seconds(event))
    records = {instance.id: instance.records for instance in life.instances}
    for run in life.handlers:
        if run.handler not in _STATE_OF or run.outcome not in ("exhausted", "raised") or run.ended is None:
            continue
        moves = records[run.instance]
        left = _left_at(moves, run)
        until = float("inf") if left is None else left
        # Scripts that run beside the handler are waited for; while it is suspended, its end is held back.
        ended = max([run.ended, *(at for at in finished[run.instance] if at < until)])
        held_back = sum(
            max(0.0, min(to, until) - max(since, ended))
            for state, since, to in _stays(moves)
            if state is State.UNRESPONSIVE
        )
        if until - ended - held_back > limits.cleanup + _TICKS:
            yield f"{run.handler}() of {run.instance} ended at {run.ended:g} s, and nothing came of that"


def scripts_are_sent_once(life: Life, _limits: Limits) -> Iterator[str]:
    """No script is sent twice."""
    sent = Counter(
        event.instance
        for event in life.events
        # What the older form of scripts leaves out is sent as a script of its own.
        if isinstance(event, ScriptSent) and event.commands != ("deploy", "start")
    )
    for instance in life.instances:
        if sent[instance.id] > instance.scripts:
            yield f"instance {instance.id} sent {sent[instance.id]} scripts, but had only {instance.scripts}"


def handlers_begin_in_their_state(life: Life, _limits: Limits) -> Iterator[str]:
    """A handler begins only while its instance is in the state that the handler is for."""
    records = {instance.id: instance.records for instance in life.instances}
    for run in life.handlers:
        state = _STATE_OF.get(run.handler)
        if state is not None and state not in _states_at(records[run.instance], run.began):
            yield f"{run.handler}() of {run.instance} began at {run.began:g} s, and it was not {state.value}"


def handlers_never_overlap(life: Life, limits: Limits) -> Iterator[str]:
    """No handler begins while another of the same instance runs, unless that one overran its clean-up."""
    records = {instance.id: instance.records for instance in life.instances}
    for runs in _by_instance(life.handlers).values():
        for place, later in enumerate(runs):
            for earlier in runs[:place]:
                ended = earlier.ended is not None and earlier.ended <= later.began
                if ended or later.handler.startswith("on_") or earlier.handler.startswith("on_"):
                    continue
                left = _left_at(records[later.instance], earlier)
                if left is None or later.began < left + limits.cleanup - _TOLERANCE:
                    yield (
                        f"{later.handler}() of {later.instance} began at {later.began:g} s, while "
                        f"{earlier.handler}() was not done"
                    )


def shutdown_belongs_to_stopping(life: Life, limits: Limits) -> Iterator[str]:
    """`shutdown` runs exactly where Stopping was entered, and stayed in long enough to begin it."""
    shutdowns = {run.instance for run in life.handlers if run.handler == "shutdown"}
    for instance in life.instances:
        stays = [stay for stay in _stays(instance.records) if stay[0] is State.STOPPING]
        if instance.id in shutdowns and not stays:
            yield f"shutdown() of {instance.id} ran, and it was never stopping"
        longest = max((until - since for _state, since, until in stays), default=0.0)
        if instance.id not in shutdowns and longest > limits.cleanup + _TOLERANCE:
            yield f"instance {instance.id} was stopping for {longest:g} s, and shutdown() never began"


def unresponsive_suspends(life: Life, _limits: Limits) -> Iterator[str]:
    """While an instance is Unresponsive, none of its handlers begins and none of its scripts is sent."""
    sent: dict[str, list[float]] = defaultdict(list)
    for event in life.events:
        if isinstance(event, ScriptSent):
            sent[event.instance].append(_seconds(event))
    for instance in life.instances:
        for state, since, until in _stays(instance.records):
            if state is not State.UNRESPONSIVE:
                continue
            yield from (
                f"instance {instance.id} sent a script at {at:g} s, though it was unresponsive"
                for at in sent[instance.id]
                if since + _TICKS < at < until - _TICKS
            )
            yield from (
                f"{run.handler}() of {instance.id} began at {run.began:g} s, though it was unresponsive"
                for run in life.handlers
                if run.instance == instance.id
                and run.handler in _STATE_OF
                and since + _TICKS < run.began < until - _TICKS
            )


# --- what is rented ------------------------------------------------------------------------------------


def leases_end_once(life: Life, _limits: Limits) -> Iterator[str]:
    """Every agreement and activity that began has ended, and is ended by the requestor at most once."""
    skipped = _skipped(life)
    yield from (
        found for found in faults_of_events(life.events) if not any(word in skipped for word in found.split())
    )
    if not _reliable(life):
        # Where an answer may be lost, asking again is right.
        return
    for name in ("destroy_activity", "terminate_agreement"):
        counts = Counter(call.about for call in life.done if call.name == name)
        yield from (f"{name} had an effect {n} times on {one}" for one, n in counts.items() if n > 1)


def everything_is_given_back(life: Life, _limits: Limits) -> Iterator[str]:
    """What is left over on the node in the end was reported as skipped, or the node lied about it."""
    skipped = _skipped(life)
    lied_about = {call.about for call in life.lies} | {call.name for call in life.lies}
    agreement_of: dict[str, str] = dict(life.bills) | {one.id: one.agreement for one in life.activities}
    refused = {event.agreement for event in life.events if isinstance(event, PaymentRefused)}
    for field in fields(life.audit):
        for left in getattr(life.audit, field.name):
            about = {left, agreement_of.get(left, left)}
            if field.name in _BILLS and about & refused:
                continue
            if about & lied_about or any(one in skipped for one in about):
                continue
            if _excused(life, field.name, left):
                continue
            yield f"{field.name.replace('_', ' ')}: {left}"


def bills_are_paid_as_owed(life: Life, _limits: Limits) -> Iterator[str]:
    """An invoice is accepted, once, exactly if it is right; what is not accepted is reported."""
    accepted = Counter(event.invoice for event in life.events if isinstance(event, InvoiceAccepted))
    amounts = {event.invoice: event.amount for event in life.events if isinstance(event, InvoiceAccepted)}
    refused = {event.agreement for event in life.events if isinstance(event, PaymentRefused)}
    skipped = _skipped(life)
    for invoice in life.invoices:
        right = invoice.amount <= invoice.owed * _SHARE + _AMOUNT
        paid = invoice.status in _PAID
        if accepted[invoice.id] > 1:
            yield f"invoice {invoice.id} was accepted {accepted[invoice.id]} times"
        if paid and not right:
            yield f"invoice {invoice.id} of {invoice.amount} was paid, though {invoice.owed} was owed"
        if invoice.id in amounts and (not paid or amounts[invoice.id] != invoice.amount):
            yield f"invoice {invoice.id} is said to be accepted, but it is {invoice.status.value}"
        reported = invoice.agreement in refused or invoice.agreement in skipped or invoice.id in skipped
        if not paid and not reported and not _lied(life, invoice.id, invoice.agreement):
            yield f"invoice {invoice.id} of {invoice.amount} was not paid, and nobody was told"


# --- the end of it -------------------------------------------------------------------------------------


def exit_is_bounded(life: Life, limits: Limits) -> Iterator[str]:
    """Leaving the context of the Golem takes no longer than its time budgets add up to."""
    if life.left_at is None:
        return
    if life.ended_at is None:
        yield f"the context was left at {life.left_at:g} s, and that never ended"
    elif life.ended_at - life.left_at > limits.exit + _TOLERANCE:
        yield f"leaving the context took {life.ended_at - life.left_at:g} s, more than {limits.exit:g} s"


def nothing_is_noticed(life: Life, _limits: Limits) -> Iterator[str]:
    """No state is untrue for longer than finding out takes; no bug, task, or exception goes unhandled."""
    yield from life.noticed


# --- causes --------------------------------------------------------------------------------------------


def causes_are_true(life: Life, limits: Limits) -> Iterator[str]:
    """Each record names who raised the event and why, and that is what really happened."""
    for instance in life.instances:
        for place, record in enumerate(instance.records):
            judge = _JUDGES.get((record.event, record.cause.actor))
            objection = judge(life, limits, instance, place) if judge is not None else ""
            if objection:
                yield f"instance {instance.id}: {record}; but {objection}"


def why_names_the_cause(life: Life, _limits: Limits) -> Iterator[str]:
    """`why()` ends with the cause of the last move."""
    for instance in life.instances:
        cause = " ".join(str(instance.records[-1].cause).split()) if instance.records else ""
        if cause not in " ".join(instance.why.split()):
            yield f"instance {instance.id}: {cause} is not in {instance.why}"


Judge: TypeAlias = Callable[[Life, Limits, InstanceLife, int], str]


def _by_user(life: Life, _limits: Limits, instance: InstanceLife, place: int) -> str:
    stopped = _stopped_at(life, instance)
    if stopped is None or stopped > instance.records[place].monotonic:
        return "the user had stopped nothing"
    return ""


def _by_handler(handler: str, *outcomes: str) -> Judge:
    def judge(life: Life, _limits: Limits, instance: InstanceLife, place: int) -> str:
        at, activity = instance.records[place].monotonic, _activity_at(instance, place)
        for run in life.handlers:
            if run.instance == instance.id and run.handler == handler and run.activity == activity:
                if run.ended is None or run.ended > at:
                    return f"{handler}() was still running"
                return "" if run.outcome in outcomes else f"{handler}() ended as {run.outcome}"
        return f"{handler}() had not run"

    return judge


def _service_error(life: Life, limits: Limits, instance: InstanceLife, place: int) -> str:
    handler = HANDLER_OF[instance.records[place].source]
    objection = _by_handler(handler, "raised", "cancelled", "closed")(life, limits, instance, place)
    return objection or _activity_had_ended(life, instance, place)


def _activity_had_ended(life: Life, instance: InstanceLife, place: int) -> str:
    """Objects where a script failed only because the activity had ended before, and that is not the cause."""
    record, activity = instance.records[place], _fact(life, instance, place)
    if not isinstance(record.cause.error, ScriptError) or activity is None or not _reliable(life):
        return ""
    if activity.said and activity.ended_at is not None and activity.ended_at < record.monotonic - _TOLERANCE:
        return f"the first cause was that its activity ended at {activity.ended_at:g} s: {activity.said}"
    return ""


def _stop_overran(life: Life, limits: Limits, instance: InstanceLife, place: int) -> str:
    record = instance.records[place]
    hurried = [one.at for one in life.happened if getattr(one.what, "what", None) in _HURRIES]
    if any(at <= record.monotonic for at in hurried):
        return ""
    if _stayed(instance.records, place) < limits.stop - _TOLERANCE:
        return f"its {limits.stop:g} s were not over, and nobody was in a hurry"
    return ""


def _probe_failed(life: Life, _limits: Limits, _instance: InstanceLife, _place: int) -> str:
    return "" if life.plan.probe is not None else "there is no probe"


def _start_failed(life: Life, limits: Limits, instance: InstanceLife, place: int) -> str:
    record = instance.records[place]
    if record.source is State.PENDING:
        known = isinstance(record.cause.error, ProvisionError)
        return "" if known or record.cause.reason == "reset() raised" else "nothing was tried in vain"
    if isinstance(record.cause.error, HandlerTimeout):
        early = _stayed(instance.records, place) < limits.start - _TOLERANCE
        return f"its {limits.start:g} s were not over" if early else ""
    objection = _by_handler("start", "raised", "cancelled", "closed")(life, limits, instance, place)
    return objection or _activity_had_ended(life, instance, place)


def _agreement_ended(life: Life, _limits: Limits, instance: InstanceLife, place: int) -> str:
    record, agreement = instance.records[place], _agreement_at(life, instance, place)
    if agreement is None or agreement.terminator != "Provider":
        return "the provider has not ended the agreement"
    if agreement.terminated_at is None or agreement.terminated_at > record.monotonic + _TICKS:
        return f"the agreement was ended only at {agreement.terminated_at}"
    if agreement.reason not in record.cause.reason:
        return f"the provider said {agreement.reason!r}"
    return ""


def _activity_lost(life: Life, _limits: Limits, instance: InstanceLife, place: int) -> str:
    record = instance.records[place]
    activity, agreement = _fact(life, instance, place), _agreement_at(life, instance, place)
    if activity is None or agreement is None:
        return "there was no activity"
    if _lied(life, activity.id, agreement.id):
        return ""
    ended = agreement.terminated_at
    if agreement.terminator == "Provider" and ended is not None and ended <= record.monotonic + _TICKS:
        outlived = any(
            getattr(one.what, "kind", None) is FaultKind.TERMINATE and one.what.seconds
            for one in life.happened
        )
        # Where the activity outlives its agreement, its own end is a cause of its own.
        if activity.said or outlived or not _reliable(life):
            return ""
        return f"the first cause was that the provider ended the agreement: {agreement.reason}"
    if activity.ended_at is None or activity.ended_at > record.monotonic or not activity.said:
        return "the node knows nothing of that"
    return ""


def _unresponsive(life: Life, limits: Limits, _instance: InstanceLife, _place: int) -> str:
    silencing = (FaultKind.VANISH, FaultKind.HANG)
    if not _reliable(life) or any(getattr(one.what, "kind", None) in silencing for one in life.happened):
        return ""
    if max(life.plan.latencies, default=0.0) >= limits.liveness.answer:
        # The node takes longer for an answer than is waited for.
        return ""
    return "nothing was silent"


def _expiry(life: Life, limits: Limits, instance: InstanceLife, place: int) -> str:
    if life.plan.expires is None:
        return "nothing expires"
    early = instance.records[place].monotonic < life.plan.expires - 4 * limits.stop
    return "the end was far away" if early else ""


def _grace_is_over(_life: Life, limits: Limits, instance: InstanceLife, place: int) -> str:
    early = _stayed(instance.records, place) < limits.grace - _TOLERANCE
    return f"its {limits.grace:g} s were not over" if early else ""


_JUDGES: Final[dict[tuple[Event, Actor], Judge]] = {
    (Event.SHUTDOWN, Actor.USER): _by_user,
    (Event.SHUTDOWN, Actor.HANDLER): _by_handler("run", "exhausted"),
    (Event.SHUTDOWN, Actor.CLOCK): _expiry,
    (Event.START_SUCCESSFUL, Actor.HANDLER): _by_handler("start", "exhausted"),
    (Event.SERVICE_STOPPED, Actor.HANDLER): _by_handler("shutdown", "exhausted"),
    (Event.SERVICE_ERROR, Actor.HANDLER): _service_error,
    (Event.SERVICE_ERROR, Actor.CLOCK): _stop_overran,
    (Event.SERVICE_ERROR, Actor.PROBE): _probe_failed,
    (Event.RETRY_START, Actor.SUPERVISOR): _start_failed,
    (Event.START_FAILED, Actor.SUPERVISOR): _start_failed,
    (Event.AGREEMENT_TERMINATED, Actor.PROVIDER): _agreement_ended,
    (Event.ACTIVITY_LOST, Actor.PROVIDER): _activity_lost,
    (Event.PROVIDER_UNRESPONSIVE, Actor.PROBE): _unresponsive,
    (Event.UNRESPONSIVE_TIMEOUT, Actor.CLOCK): _grace_is_over,
}

#: All of them, in the order in which they are reported.
INVARIANTS: Final[tuple[Invariant, ...]] = (
    records_are_a_path,
    everything_ends_terminated,
    retries_come_before_running,
    stop_beats_restart,
    stops_take_effect_at_once,
    stop_buys_nothing,
    halts_go_through_stopping,
    nothing_outlives_its_rent,
    user_errors_stay_where_they_are,
    policy_is_kept,
    handlers_run_once,
    ends_are_heard,
    scripts_are_sent_once,
    handlers_begin_in_their_state,
    handlers_never_overlap,
    shutdown_belongs_to_stopping,
    unresponsive_suspends,
    leases_end_once,
    everything_is_given_back,
    bills_are_paid_as_owed,
    exit_is_bounded,
    causes_are_true,
    why_names_the_cause,
    nothing_is_noticed,
)


# --- reading a life ------------------------------------------------------------------------------------


def _seconds(event: BusEvent) -> float:
    return (event.at - EPOCH).total_seconds()


def _is_users(error: BaseException | None) -> bool:
    return error is not None and blame_of(error) is Blame.USER


def _by_instance(runs: Sequence[HandlerRun]) -> dict[str, list[HandlerRun]]:
    found: dict[str, list[HandlerRun]] = defaultdict(list)
    for run in runs:
        found[run.instance].append(run)
    return found


def _stopped_at(life: Life, instance: InstanceLife) -> float | None:
    """When the user first stopped an instance, alone or with all others, while there was one to stop."""
    times = [
        one.at
        for one in life.happened
        if getattr(one.what, "what", None) in _STOPS_ALL or one.about == instance.id
    ]
    if life.left_at is not None:
        times.append(life.left_at)
    return min((at for at in times if at >= instance.made_at - _TICKS), default=None)


def _stays(records: Moves) -> Iterator[tuple[State, float, float]]:
    """Each state that was entered by a move, from when, until when."""
    for before, after in pairwise(records):
        yield before.dest, before.monotonic, after.monotonic
    if records:
        yield records[-1].dest, records[-1].monotonic, float("inf")


def _stayed(records: Moves, place: int) -> float:
    """How long the instance was in the state that a record led out of."""
    return records[place].monotonic - (records[place - 1].monotonic if place else 0.0)


def _states_at(records: Moves, at: float) -> set[State]:
    """The states that an instance had in a moment; several where it moved in it."""
    states = {State.PENDING} if not records or at <= records[0].monotonic + _TOLERANCE else set()
    for state, since, until in _stays(records):
        if since - _TOLERANCE <= at <= until + _TOLERANCE:
            states.add(state)
    return states


def _left_at(records: Moves, run: HandlerRun) -> float | None:
    """When the instance left the state that a handler was for, for good."""
    suspensions = (Event.PROVIDER_UNRESPONSIVE, Event.PROVIDER_RECOVERED)
    for record in records:
        if record.monotonic >= run.began and record.event not in suspensions:
            if record.dest is not _STATE_OF.get(run.handler):
                return record.monotonic
    return None


def _activity_at(instance: InstanceLife, place: int) -> str | None:
    """The activity that the instance had when it made a move."""
    starts = sum(record.event is Event.RUN_SERVICE for record in instance.records[: place + 1])
    return instance.activities[starts - 1] if 0 < starts <= len(instance.activities) else None


def _fact(life: Life, instance: InstanceLife, place: int) -> ActivityFact | None:
    activity = _activity_at(instance, place)
    return next((one for one in life.activities if one.id == activity), None)


def _agreement_at(life: Life, instance: InstanceLife, place: int) -> AgreementFact | None:
    activity = _fact(life, instance, place)
    return next((one for one in life.agreements if activity and one.id == activity.agreement), None)


def _skipped(life: Life) -> str:
    """Everything that was reported as skipped, in one text."""
    return "\n".join(event.step for event in life.events if isinstance(event, StepSkipped))


def _lied(life: Life, *about: str) -> bool:
    return any(call.about in about for call in life.lies)


def _reliable(life: Life) -> bool:
    """Whether the plan leaves calls alone, so that nothing is learnt late, twice, or never."""
    outages = (FaultKind.NODE_DOWN, FaultKind.NODE_RESTART)
    return not any(one.kind in CALL_FAULTS or one.kind in outages for one in life.plan.faults)


def _excused(life: Life, field: str, left: str) -> bool:
    """Whether something could not but be left over, at nobody's cost, or was reported in other words."""
    match field:
        case "open_demands":
            # Its withdrawal is a courtesy: the node drops it by itself, and nobody answers its offers any more.
            return not _reliable(life)
        case "open_agreements":
            # The answer to its making was lost. It was never sent to the provider, and expires by itself.
            states = {one.id: one.state for one in life.agreements}
            return not _reliable(life) and states.get(AgreementId(left)) == AgreementState.PROPOSAL.value
        case "open_allocations":
            # The answer to its making was lost, and the program was told so.
            lost = isinstance(life.refused, PaymentError)
            return lost or "release the allocation" in _skipped(life)
    return False
