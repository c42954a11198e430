"""Types of the ids that travel through shem. All are opaque strings; only their makers know their form."""

from __future__ import annotations

from typing import NewType

#: One run of a service on one provider at a time. Made by shem; never used again once Terminated.
InstanceId = NewType("InstanceId", str)
#: A group of slots of one Service class. Made by shem.
ClusterId = NewType("ClusterId", str)
#: One run of a requestor program, told to the node so that it finds its agreements again.
AppSessionId = NewType("AppSessionId", str)

#: The ids below are made by the node (forms: contract of the market API, 3.3.1).
NodeId = NewType("NodeId", str)
DemandId = NewType("DemandId", str)
ProposalId = NewType("ProposalId", str)
AgreementId = NewType("AgreementId", str)
ActivityId = NewType("ActivityId", str)
BatchId = NewType("BatchId", str)
AllocationId = NewType("AllocationId", str)
InvoiceId = NewType("InvoiceId", str)
DebitNoteId = NewType("DebitNoteId", str)


def short(identifier: str, length: int = 8) -> str:
    """The first characters of an id, for people: ``R-77da…`` and ``77da…`` alike lose their prefix."""
    return identifier.removeprefix("R-").removeprefix("0x")[:length]
