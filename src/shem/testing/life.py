"""What became of a plan: a whole simulated life, as values.

It holds what the instances say of themselves, and beside it what really happened: on the node, in the
handlers, on the way between. `invariants` compares the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from shem.devnet.audit import Audit
from shem.events import BusEvent
from shem.ids import ActivityId, AgreementId, InstanceId, InvoiceId
from shem.lifecycle import SERVICE, Event, Move, Record, State
from shem.testing.plan import Action, Fault, Plan
from shem.yagna.models import DocumentStatus

#: The arrows of the table. No two of them have source, event and destination in common.
ARROWS: Final[dict[tuple[State, Event, State], Move[State, Event]]] = {
    (move.source, move.event, move.dest): move for move in SERVICE.moves
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the node: when (virtual seconds), which, and the id that it is about, if about one."""

    at: float
    name: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something of the plan came about: when (virtual seconds), what, and to which instance, if to one."""

    at: float
    what: Fault | Action
    about: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop that the user waited for: of what, from when, until when (None where it did not end)."""

    what: str
    at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class HandlerRun:
    """One run of one handler, or of `reset()`.

    Attributes:
        instance, handler, activity: whose, which, and on what.
        began, ended: in virtual seconds; `ended` is None where it never did.
        outcome: exhausted, raised, cancelled or closed.
        error: what it raised.
    """

    instance: InstanceId
    handler: str
    activity: ActivityId | None
    began: float
    ended: float | None
    outcome: str
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class InstanceLife:
    """One instance at the end.

    Attributes:
        made_at: when it was made, in virtual seconds.
        why: its story, as `why()` tells it.
        replaces: the instance that it took the place of.
        activities: the activities that it was given, in order.
        scripts: how many different scripts its handlers have yielded.
    """

    id: InstanceId
    slot: int
    made_at: float
    state: State
    records: tuple[Record[State, Event], ...]
    why: str
    error: BaseException | None = None
    replaces: InstanceId | None = None
    activities: tuple[ActivityId, ...] = ()
    scripts: int = 0


@dataclass(frozen=True, slots=True)
class AgreementFact:
    """An agreement, as the node knows it.

    `terminator` and `reason` are those of its termination, at `terminated_at`; None where there was none.
    """

    id: AgreementId
    state: str
    terminator: str | None = None
    reason: str = ""
    terminated_at: float | None = None


@dataclass(frozen=True, slots=True)
class ActivityFact:
    """An activity, as the node knows it.

    `said` is what the node says about an end that nobody asked for. `ended_at` is None while it lives.
    """

    id: ActivityId
    agreement: AgreementId
    ended_at: float | None = None
    said: str = ""


@dataclass(frozen=True, slots=True)
class InvoiceFact:
    """An invoice, as the node knows it. `owed` is what the usage comes to at the agreed price, in GLM."""

    id: InvoiceId
    agreement: AgreementId
    amount: Decimal
    owed: Decimal
    status: DocumentStatus


@dataclass(frozen=True, slots=True)
class Life:
    """A whole life, from the first call to the node to the last clean-up.

    Attributes:
        instances: every instance there was, in the order of their making.
        calls: every call of the node that was made; `done`, those that had an effect; `lies`, those that were
            answered as if the thing did not exist.
        handlers: every run of a handler.
        happened: what came about of the plan, in order.
        events: everything that was told on the bus.
        refused: what kept the program from running the service, if anything did.
        left_at, ended_at: when the program left the context of the `Golem`, and when that was done.
        stops: every other stop that the user waited for.
        audit, agreements, activities, invoices: what the node knows in the end.
        bills: of every debit note and invoice, the agreement.
        noticed: what was seen to be wrong while it went on: states that were not true, bugs that were logged,
            tasks that were left behind.
        problems: which invariants it violates; empty for a good life.
        seconds: how long it took, in virtual time.
        steps, choices: callbacks that the loop ran, and how often several tasks could run; the latter counts
            only where the plan has deviations, or it was asked for.
    """

    plan: Plan
    instances: tuple[InstanceLife, ...]
    calls: tuple[Call, ...]
    done: tuple[Call, ...]
    lies: tuple[Call, ...]
    handlers: tuple[HandlerRun, ...]
    happened: tuple[Happening, ...]
    events: tuple[BusEvent, ...]
    refused: BaseException | None
    left_at: float | None
    ended_at: float | None
    stops: tuple[Stop, ...]
    audit: Audit
    agreements: tuple[AgreementFact, ...]
    activities: tuple[ActivityFact, ...]
    invoices: tuple[InvoiceFact, ...]
    bills: tuple[tuple[str, AgreementId], ...]
    noticed: tuple[str, ...]
    seconds: float
    steps: int
    choices: int
    problems: tuple[str, ...] = ()

    @property
    def records(self) -> Iterator[Record[State, Event]]:
        """All moves of all instances."""
        for instance in self.instances:
            yield from instance.records

    @property
    def moves(self) -> Counter[Move[State, Event]]:
        """How often each arrow of the table was taken, guarded ones told apart."""
        return Counter(
            arrow
            for record in self.records
            if (arrow := ARROWS.get((record.source, record.event, record.dest))) is not None
        )

    def trace(self) -> str:
        """Everything that happened, in order, as text: the same for the same plan, in every process."""
        lines = [f"{call.at:.6f} call {call.name} {call.about}" for call in self.calls]
        lines += [f"{call.at:.6f} done {call.name} {call.about}" for call in self.done]
        lines += [f"{record.monotonic:.6f} {record.subject} {record}" for record in self.records]
        lines += [f"{run.began:.6f} {run}" for run in self.handlers]
        lines += [f"{event.at:%H:%M:%S.%f} {event}" for event in self.events]
        lines += [f"{one.at:.6f} {one.what!r}" for one in self.happened]
        lines += [f"{self.seconds:.6f} end after {self.steps} steps", str(self.audit), *self.problems]
        return "\n".join(lines)

    def story(self) -> str:
        """What was planned, what became of each instance, and what is wrong with it, for a person to read."""
        lines = ["planned:", *(f"  {line}" for line in self.plan.describe())]
        lines += [
            f"  happened at {one.at:.2f} s: {str(one.what).partition(': ')[2] or one.what}"
            for one in self.happened
        ]
        lines.append("became:")
        lines += [f"  {line}" for instance in self.instances for line in instance.why.splitlines()]
        if self.refused is not None:
            lines.append(f"  the program ended with {self.refused!r}")
        if self.problems:
            lines += ["but:", *(f"  {problem}" for problem in self.problems)]
        lines += ["to replay:", f"  {self.plan!r}"]
        return "\n".join(lines)
