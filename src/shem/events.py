"""Everything observable that happens in shem, as frozen values.

Listeners of the bus get these; the log prints them. An event tells what has happened, in the past tense, and
can change nothing. (The twelve events that move an instance are another thing: `shem.lifecycle.Event`.)
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from shem.ids import (
    ActivityId,
    AgreementId,
    AllocationId,
    ClusterId,
    DebitNoteId,
    DemandId,
    InstanceId,
    InvoiceId,
    NodeId,
)
from shem.lifecycle import Event, Expectation, Record, State


class Phase(enum.Enum):
    """Progress inside a state. Never a state of its own: nothing may depend on it but a person's patience."""

    NEGOTIATING = "negotiating"
    """Pending: waiting for acceptable offers."""
    AGREEMENT = "agreement"
    """Pending: waiting for a provider's approval."""
    ACTIVITY = "activity"
    """Pending: the provider makes the activity."""
    WAITING = "waiting"
    """Pending: backing off before the next try."""
    DEPLOYING = "deploying"
    """Starting: the image is fetched and unpacked."""
    BOOTING = "booting"
    """Starting: the runtime is started."""
    HANDLER = "handler"
    """Starting, Running, Stopping: the handler is at work."""
    SCRIPT = "script"
    """Starting, Running, Stopping: a script of the handler runs on the provider."""
    PROBING = "probing"
    """Starting: `start()` is exhausted, and the startup probe has not passed yet."""
    READY = "ready"
    """Running, where there is a readiness probe: it passes. Shown instead of what the handler does."""
    NOT_READY = "not ready"
    """Running, where there is a readiness probe: it does not pass, or not yet."""
    RELEASING = "releasing"
    """Terminated: activity and agreement are being ended."""
    RELEASED = "released"
    """Terminated: activity and agreement have been ended, and nothing is held any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BusEvent:
    """Base of all. `at` is wall time in UTC."""

    at: datetime

    def fields(self) -> dict[str, Any]:
        """What the log says of it: plain values by name, `at` and empty ones left out."""
        plain: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "at" or value is None or value == "":
                continue
            plain[field.name] = value.value if isinstance(value, enum.Enum) else value
        return plain


# --- instances and clusters


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEvent(BusEvent):
    """Base of what happens in one cluster."""

    cluster: ClusterId


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceEvent(ClusterEvent):
    """Base of what happens to one instance."""

    instance: InstanceId


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceCreated(InstanceEvent):
    """A slot got an instance, now Pending. `replaces` is the terminated one it follows."""

    slot: int
    service: str
    replaces: InstanceId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceMoved(InstanceEvent):
    """An instance moved. `provider` is the name of the one it is, or was, on; not unique."""

    record: Record[State, Event]
    provider: str = ""

    def fields(self) -> dict[str, Any]:
        """The record's parts, one by one."""
        record = self.record
        plain = {
            "instance": self.instance,
            "source": record.source.value,
            "event": record.event.value,
            "dest": record.dest.value,
            "cause": str(record.cause),
            "seq": record.seq,
        }
        return {**plain, "provider": self.provider} if self.provider else plain


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseChanged(InstanceEvent):
    """Progress inside a state."""

    phase: Phase
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectationChanged(InstanceEvent):
    """What comes next for an instance, and when, until it moves or something else is expected."""

    expects: Expectation

    def fields(self) -> dict[str, Any]:
        """Its words, and the moment, as ``until``, where there is one."""
        plain = {"cluster": self.cluster, "instance": self.instance, "expects": self.expects.text}
        at = self.expects.at
        return plain if at is None else {**plain, "until": at.isoformat()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptSent(InstanceEvent):
    """A script went to the provider."""

    activity: ActivityId
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptFinished(InstanceEvent):
    """A script came to its end; `error` says why it was not a good one."""

    activity: ActivityId
    seconds: float
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStarted(ClusterEvent):
    """A cluster began to fill its slots."""

    service: str
    slots: int
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStopped(ClusterEvent):
    """All instances of a cluster are terminated and no more will come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotEnded(ClusterEvent):
    """A slot stays empty from now on; `reason` tells why, where a failure is the cause."""

    slot: int
    reason: str


# --- market


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandPublished(BusEvent):
    """A demand is on the market."""

    demand: DemandId
    constraints: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandWithdrawn(BusEvent):
    """A demand is off the market."""

    demand: DemandId


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRejected(BusEvent):
    """A proposal came to nothing, by the provider's decision or ours."""

    provider: NodeId
    provider_name: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementSigned(BusEvent):
    """A provider approved an agreement: from now on it can cost money."""

    agreement: AgreementId
    provider: NodeId
    provider_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementFailed(BusEvent):
    """An agreement did not come about."""

    provider: NodeId
    provider_name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementEnded(BusEvent):
    """An approved agreement ended. `by`: Requestor or Provider."""

    agreement: AgreementId
    provider: NodeId
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityCreated(BusEvent):
    """A provider made an activity."""

    activity: ActivityId
    agreement: AgreementId


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityEnded(BusEvent):
    """An activity ended. `by`: Requestor or Provider."""

    activity: ActivityId
    by: str
    reason: str = ""


# --- payment


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationCreated(BusEvent):
    """An amount (GLM) was set aside."""

    allocation: AllocationId
    amount: Decimal
    platform: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationReleased(BusEvent):
    """What was left of an allocation went back."""

    allocation: AllocationId
    spent: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DebitNoteAccepted(BusEvent):
    """A debit note was accepted; `amount` (GLM) is what the activity has cost so far."""

    debit_note: DebitNoteId
    activity: ActivityId
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceAccepted(BusEvent):
    """An invoice was accepted: `amount` (GLM) will be paid."""

    invoice: InvoiceId
    agreement: AgreementId
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRefused(BusEvent):
    """A debit note or invoice was not accepted."""

    document: str
    agreement: AgreementId
    amount: Decimal
    reason: str


# --- node and run


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChosen(BusEvent):
    """The run begins on this node. `kind`: ``devnet``, or ``yagna`` with its version."""

    kind: str
    url: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLost(BusEvent):
    """The node does not answer one of the engine's polls; it is asked again until it does."""

    poll: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBack(BusEvent):
    """The node answers that poll again."""

    poll: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSkipped(BusEvent):
    """A step of an orderly end was given up after its time budget."""

    step: str
    reason: str
