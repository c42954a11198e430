"""The values of the node's REST contract, validated on the way in.

One struct per JSON object that shem sends or reads, with the contract's names in snake case. Unknown keys are
ignored, missing required ones and wrong types are refused by `msgspec` with the path of the offender. Times
are aware and in UTC, money is `Decimal` in GLM (a decimal string on the wire), property maps are flat.

Source: yagna's market, payment and activity REST API as of 0.17.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, TypeAlias

import msgspec

from shem.ids import (
    ActivityId,
    AgreementId,
    AllocationId,
    DebitNoteId,
    DemandId,
    InvoiceId,
    NodeId,
    ProposalId,
)

#: A time with its zone; the node's are in UTC, and one without a zone could not be compared with ours.
Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]
#: Flat map from dotted property names to JSON values.
Properties: TypeAlias = dict[str, Any]


class Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all wire values: immutable, camel case on the wire, defaults left out."""


# --- identity ---------------------------------------------------------------------------------------------


class Identity(Wire, frozen=True):
    """Who the app key belongs to (`GET /me`)."""

    identity: NodeId
    name: str = ""
    role: str = ""


#: The release name by which a devnet can be told from a real node.
DEVNET_NAME = "shem devnet"


class Release(Wire, frozen=True):
    """A release of the node's software."""

    version: str
    name: str = ""


class NodeVersion(Wire, frozen=True):
    """What the node runs (`GET /version/get`)."""

    current: Release


# --- market -----------------------------------------------------------------------------------------------


class DemandSpec(Wire, frozen=True, omit_defaults=False):
    """What is asked for: properties of the demand and constraints on offers."""

    properties: Properties
    constraints: str


class Reason(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why something was rejected or ended. The codes' names hold dots, so they are spelt out."""

    message: str = ""
    requestor_code: str | None = msgspec.field(default=None, name="golem.requestor.code")
    provider_code: str | None = msgspec.field(default=None, name="golem.provider.code")
    is_final: bool | None = msgspec.field(default=None, name="golem.proposal.rejection.is-final")


class Proposal(Wire, frozen=True):
    """An offer in negotiation. `state`: Initial, Draft, Rejected, Accepted, Expired (contract 3.3.4)."""

    proposal_id: ProposalId
    issuer_id: NodeId
    state: str
    timestamp: Moment
    properties: Properties
    constraints: str = ""
    prev_proposal_id: ProposalId | None = None


class ProposalEvent(Wire, frozen=True, tag_field="eventType", tag="ProposalEvent"):
    """A provider's offer, or its answer to our counter-proposal."""

    event_date: Moment
    proposal: Proposal


class ProposalRejectedEvent(Wire, frozen=True, tag_field="eventType", tag="ProposalRejectedEvent"):
    """A provider refused our counter-proposal."""

    event_date: Moment
    proposal_id: ProposalId
    reason: Reason | None = None


DemandEvent: TypeAlias = ProposalEvent | ProposalRejectedEvent


class AgreementDemand(Wire, frozen=True):
    """The requestor's side of an agreement: its last draft."""

    properties: Properties
    constraints: str
    demand_id: DemandId
    requestor_id: NodeId
    timestamp: Moment


class AgreementOffer(Wire, frozen=True):
    """The provider's side of an agreement: the draft it was made from."""

    properties: Properties
    constraints: str
    offer_id: str
    provider_id: NodeId
    timestamp: Moment


class AgreementDoc(Wire, frozen=True):
    """An agreement as the node keeps it (contract 3.3.5)."""

    agreement_id: AgreementId
    demand: AgreementDemand
    offer: AgreementOffer
    valid_to: Moment
    state: str
    timestamp: Moment
    approved_date: Moment | None = None
    app_session_id: str | None = None


class AgreementEntry(Wire, frozen=True):
    """An agreement in a list."""

    id: AgreementId
    timestamp: Moment
    approved_date: Moment | None = None
    role: str = "requestor"


class AgreementApprovedEvent(Wire, frozen=True, tag_field="eventType", tag="AgreementApprovedEvent"):
    """The provider approved."""

    agreement_id: AgreementId
    event_date: Moment


class AgreementRejectedEvent(Wire, frozen=True, tag_field="eventType", tag="AgreementRejectedEvent"):
    """The provider rejected."""

    agreement_id: AgreementId
    event_date: Moment
    reason: Reason | None = None


class AgreementCancelledEvent(Wire, frozen=True, tag_field="eventType", tag="AgreementCancelledEvent"):
    """The requestor cancelled before the approval."""

    agreement_id: AgreementId
    event_date: Moment
    reason: Reason | None = None


class AgreementTerminatedEvent(Wire, frozen=True, tag_field="eventType", tag="AgreementTerminatedEvent"):
    """Either side ended an approved agreement. `terminator`: Requestor or Provider."""

    agreement_id: AgreementId
    event_date: Moment
    terminator: str
    reason: Reason | None = None
    signature: str = ""


AgreementEvent: TypeAlias = (
    AgreementApprovedEvent | AgreementRejectedEvent | AgreementCancelledEvent | AgreementTerminatedEvent
)


# --- activity ---------------------------------------------------------------------------------------------


class ActivityStateDoc(Wire, frozen=True):
    """`state` is the current state's name and, while a transition runs, the next one's (contract 3.4.2)."""

    state: tuple[str, str | None]
    reason: str | None = None
    error_message: str | None = None


class ActivityUsage(Wire, frozen=True):
    """Usage counters in the order of the offer's ``golem.com.usage.vector``; `timestamp` in Unix seconds."""

    timestamp: int
    current_usage: list[float] | None = None


class CommandOutcome(Wire, frozen=True):
    """Result of one command of a batch (contract 3.4.3). `result`: Ok or Error.

    `stdout` and `stderr` are text, a list of byte values, or None when nothing was captured.
    """

    index: int
    event_date: Moment
    result: str
    is_batch_finished: bool = False
    stdout: str | list[int] | None = None
    stderr: str | list[int] | None = None
    message: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the command ended well."""
        return self.result == "Ok"


# --- payment ----------------------------------------------------------------------------------------------


class NewAllocation(Wire, frozen=True, omit_defaults=False):
    """Request to set an amount of GLM aside for payments. Released by the node at `timeout`."""

    address: str
    payment_platform: str
    total_amount: Decimal
    timeout: Moment | None = None
    make_deposit: bool = False


class AllocationChange(Wire, frozen=True):
    """Request to change an allocation; what is left out stays as it is."""

    total_amount: Decimal | None = None
    timeout: Moment | None = None


class Allocation(Wire, frozen=True, omit_defaults=False):
    """An amount of GLM set aside for payments."""

    allocation_id: AllocationId
    address: str
    payment_platform: str
    total_amount: Decimal
    spent_amount: Decimal
    remaining_amount: Decimal
    timestamp: Moment
    timeout: Moment | None = None
    make_deposit: bool = False


class Decoration(msgspec.Struct, frozen=True):
    """A property that payment adds to a demand."""

    key: str
    value: str


class DemandDecorations(Wire, frozen=True, omit_defaults=False):
    """What payment adds to a demand: properties and single constraints."""

    properties: list[Decoration]
    constraints: list[str]


class DocumentStatus(Enum):
    """Status of an invoice or a debit note (contract 3.2.5)."""

    ISSUED = "ISSUED"
    RECEIVED = "RECEIVED"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    FAILED = "FAILED"
    SETTLED = "SETTLED"
    CANCELLED = "CANCELLED"


class Invoice(Wire, frozen=True, omit_defaults=False):
    """The bill of one whole agreement."""

    invoice_id: InvoiceId
    issuer_id: NodeId
    recipient_id: NodeId
    payee_addr: str
    payer_addr: str
    payment_platform: str
    timestamp: Moment
    agreement_id: AgreementId
    amount: Decimal
    payment_due_date: Moment
    status: DocumentStatus
    activity_ids: list[ActivityId] = []


class DebitNote(Wire, frozen=True, omit_defaults=False):
    """What one activity has cost so far; `total_amount_due` is cumulative."""

    debit_note_id: DebitNoteId
    issuer_id: NodeId
    recipient_id: NodeId
    payee_addr: str
    payer_addr: str
    payment_platform: str
    timestamp: Moment
    agreement_id: AgreementId
    activity_id: ActivityId
    total_amount_due: Decimal
    status: DocumentStatus
    usage_counter_vector: list[float] | None = None
    previous_debit_note_id: DebitNoteId | None = None
    payment_due_date: Moment | None = None


class Acceptance(Wire, frozen=True, omit_defaults=False):
    """Acceptance of an invoice or debit note; the amount must be exactly the document's."""

    total_amount_accepted: Decimal
    allocation_id: AllocationId


class Rejection(Wire, frozen=True, omit_defaults=False):
    """Refusal of an invoice (contract 3.2.5).

    `rejection_reason`: UNSOLICITED_SERVICE, BAD_SERVICE or INCORRECT_AMOUNT.
    """

    rejection_reason: str
    total_amount_accepted: Decimal
    message: str


class InvoiceEvent(Wire, frozen=True, omit_defaults=False):
    """Something happened to an invoice, such as ``InvoiceReceivedEvent``."""

    invoice_id: InvoiceId
    event_date: Moment
    event_type: str


class DebitNoteEvent(Wire, frozen=True, omit_defaults=False):
    """Something happened to a debit note, such as ``DebitNoteReceivedEvent``."""

    debit_note_id: DebitNoteId
    event_date: Moment
    event_type: str
