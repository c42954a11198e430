"""Each call of the protocol: the request it makes of its arguments, and the value it makes of the answer."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

import pytest

from shem.errors import ConfigError, NodeAnswerError, NodeFailure
from shem.ids import (
    ActivityId,
    AgreementId,
    AllocationId,
    AppSessionId,
    BatchId,
    DebitNoteId,
    DemandId,
    InvoiceId,
    ProposalId,
)
from shem.yagna.api import YagnaApi
from shem.yagna.http import HttpNode
from shem.yagna.models import (
    Acceptance,
    ActivityStateDoc,
    ActivityUsage,
    AllocationChange,
    DemandDecorations,
    DemandSpec,
    DocumentStatus,
    NewAllocation,
    Reason,
    Rejection,
)

D, P, G, A, B = DemandId("D"), ProposalId("R-1"), AgreementId("G"), ActivityId("A"), BatchId("B")
L, V, N, S = AllocationId("L"), InvoiceId("I"), DebitNoteId("N"), AppSessionId("S")
MARKET, ACTIVITY, PAYMENT = "/market-api/v1", "/activity-api/v1", "/payment-api/v1"
NOON = datetime(2026, 11, 22, 14, tzinfo=timezone(timedelta(hours=2)))
NOON_TEXT = "2026-11-22T12:00:00.000000Z"
DEMAND = DemandSpec(properties={"golem.inf.mem.gib": 0.5}, constraints="(&)")
REASON = Reason(message="done", requestor_code="Success")
REASON_JSON = {"message": "done", "golem.requestor.code": "Success"}
ACCEPTANCE = Acceptance(total_amount_accepted=Decimal("0.000123"), allocation_id=L)
ACCEPTANCE_JSON = {"totalAmountAccepted": "0.000123", "allocationId": "L"}
REJECTION = Rejection(rejection_reason="INCORRECT_AMOUNT", total_amount_accepted=Decimal(0), message="no")
REJECTION_JSON = {"rejectionReason": "INCORRECT_AMOUNT", "totalAmountAccepted": "0", "message": "no"}
NODE_ID = "0x" + "5a" * 20
ALLOCATION_JSON = {
    "allocationId": "L",
    "address": NODE_ID,
    "paymentPlatform": "erc20-holesky-tglm",
    "totalAmount": "1",
    "spentAmount": "0",
    "remainingAmount": 1,
    "timestamp": "2026-11-22T04:08:25.299433Z",
    "timeout": None,
    "makeDeposit": False,
    "createdTs": "2026-11-22T04:08:25.299433Z",
}
DOCUMENT_JSON = {
    "issuerId": NODE_ID,
    "recipientId": NODE_ID,
    "payeeAddr": NODE_ID,
    "payerAddr": NODE_ID,
    "paymentPlatform": "erc20-holesky-tglm",
    "timestamp": "2026-11-22T04:08:27.728701Z",
    "agreementId": "G",
    "status": "RECEIVED",
}
SIDE = {"properties": {}, "constraints": "()", "timestamp": "2026-11-22T04:08:27Z"}
AGREEMENT_JSON = {
    "agreementId": "G",
    "demand": {**SIDE, "demandId": "D", "requestorId": NODE_ID},
    "offer": {**SIDE, "offerId": "O", "providerId": NODE_ID},
    "validTo": "2026-11-22T05:08:27.392557Z",
    "state": "Approved",
    "timestamp": "2026-11-22T04:08:27Z",
    "proposedSignature": "NoSignature",
}

Call = Callable[[HttpNode], Awaitable[Any]]
#: What is called, the request expected (method, path, query, body), what the node answers, what comes back.
CALLS: dict[str, tuple[Call, tuple[str, str, dict[str, str], Any], Any, Callable[[Any], bool]]] = {
    "version": (
        lambda node: node.version(),
        ("GET", "/version/get", {}, None),
        {"current": {"version": "0.17.6", "name": "Sample", "seen": True}, "pending": None},
        lambda doc: (doc.current.version, doc.current.name) == ("0.17.6", "Sample"),
    ),
    "me": (
        lambda node: node.me(),
        ("GET", "/me", {}, None),
        {"identity": NODE_ID, "name": "n", "role": "manager"},
        lambda me: me.identity == NODE_ID,
    ),
    "subscribe": (
        lambda node: node.subscribe(DEMAND),
        ("POST", f"{MARKET}/demands", {}, {"properties": {"golem.inf.mem.gib": 0.5}, "constraints": "(&)"}),
        "D-1",
        lambda value: value == "D-1",
    ),
    "unsubscribe": (
        lambda node: node.unsubscribe(D),
        ("DELETE", f"{MARKET}/demands/D", {}, None),
        None,
        lambda value: value is None,
    ),
    "demand_events": (
        lambda node: node.demand_events(D, timeout=5, max_events=10),
        ("GET", f"{MARKET}/demands/D/events", {"timeout": "5", "maxEvents": "10"}, None),
        [{"eventType": "ProposalRejectedEvent", "eventDate": "2026-11-22T04:08:25Z", "proposalId": "R-1"}],
        lambda events: [event.proposal_id for event in events] == ["R-1"],
    ),
    "counter_proposal": (
        lambda node: node.counter_proposal(D, P, DEMAND),
        (
            "POST",
            f"{MARKET}/demands/D/proposals/R-1",
            {},
            {"properties": {"golem.inf.mem.gib": 0.5}, "constraints": "(&)"},
        ),
        "R-2",
        lambda value: value == "R-2",
    ),
    "reject_proposal": (
        lambda node: node.reject_proposal(D, P, REASON),
        ("POST", f"{MARKET}/demands/D/proposals/R-1/reject", {}, REASON_JSON),
        None,
        lambda value: value is None,
    ),
    "create_agreement": (
        lambda node: node.create_agreement(P, NOON),
        ("POST", f"{MARKET}/agreements", {}, {"proposalId": "R-1", "validTo": NOON_TEXT}),
        "G",
        lambda value: value == "G",
    ),
    "agreement": (
        lambda node: node.agreement(G),
        ("GET", f"{MARKET}/agreements/G", {}, None),
        AGREEMENT_JSON,
        lambda doc: (doc.state, doc.demand.demand_id, doc.offer.offer_id) == ("Approved", "D", "O"),
    ),
    "confirm_agreement": (
        lambda node: node.confirm_agreement(G, S),
        ("POST", f"{MARKET}/agreements/G/confirm", {"appSessionId": "S"}, None),
        None,
        lambda value: value is None,
    ),
    "wait_for_approval": (
        lambda node: node.wait_for_approval(G, timeout=15),
        ("POST", f"{MARKET}/agreements/G/wait", {"timeout": "15"}, None),
        None,
        lambda value: value is None,
    ),
    "cancel_agreement": (
        lambda node: node.cancel_agreement(G, REASON),
        ("POST", f"{MARKET}/agreements/G/cancel", {}, REASON_JSON),
        None,
        lambda value: value is None,
    ),
    "terminate_agreement": (
        lambda node: node.terminate_agreement(G, REASON),
        ("POST", f"{MARKET}/agreements/G/terminate", {}, REASON_JSON),
        None,
        lambda value: value is None,
    ),
    "agreement_events": (
        lambda node: node.agreement_events(after=NOON, timeout=5, app_session_id=S),
        (
            "GET",
            f"{MARKET}/agreementEvents",
            {"timeout": "5", "maxEvents": "100", "appSessionId": "S", "afterTimestamp": NOON_TEXT},
            None,
        ),
        [{"eventType": "AgreementApprovedEvent", "eventDate": "2026-11-22T13:00:00Z", "agreementId": "G"}],
        lambda events: [event.agreement_id for event in events] == ["G"],
    ),
    "create_activity": (
        lambda node: node.create_activity(G, timeout=30),
        ("POST", f"{ACTIVITY}/activity", {"timeout": "30"}, {"agreementId": "G"}),
        {"activityId": "A"},
        lambda value: value == "A",
    ),
    "destroy_activity": (
        lambda node: node.destroy_activity(A, timeout=30),
        ("DELETE", f"{ACTIVITY}/activity/A", {"timeout": "30"}, None),
        None,
        lambda value: value is None,
    ),
    "execute": (
        lambda node: node.execute(A, [{"deploy": {}}, {"start": {"args": ["ü"]}}]),
        (
            "POST",
            f"{ACTIVITY}/activity/A/exec",
            {},
            {"text": '[{"deploy":{}},{"start":{"args":["ü"]}}]'},
        ),
        "B",
        lambda value: value == "B",
    ),
    "batch_results": (
        lambda node: node.batch_results(A, B, timeout=5),
        ("GET", f"{ACTIVITY}/activity/A/exec/B", {"timeout": "5"}, None),
        [{"index": 0, "eventDate": "2026-11-22T04:08:27.508351Z", "result": "Ok", "stdout": [104, 105]}],
        lambda results: [(r.index, r.ok, r.stdout) for r in results] == [(0, True, [104, 105])],
    ),
    "activity_state": (
        lambda node: node.activity_state(A),
        ("GET", f"{ACTIVITY}/activity/A/state", {}, None),
        {"state": ["Ready", None], "reason": None, "errorMessage": None},
        lambda doc: doc == ActivityStateDoc(state=("Ready", None)),
    ),
    "activities_of": (
        lambda node: node.activities_of(G),
        ("GET", f"{ACTIVITY}/activity", {"agreementId": G}, None),
        ["A", "B"],
        lambda ids: ids == ["A", "B"],
    ),
    "activity_usage": (
        lambda node: node.activity_usage(A),
        ("GET", f"{ACTIVITY}/activity/A/usage", {}, None),
        {"currentUsage": [0.13, 2.51], "timestamp": 1795321107},
        lambda doc: doc == ActivityUsage(timestamp=1795321107, current_usage=[0.13, 2.51]),
    ),
    "create_allocation": (
        lambda node: node.create_allocation(
            NewAllocation(
                address=NODE_ID, payment_platform="erc20-holesky-tglm", total_amount=Decimal(1), timeout=NOON
            )
        ),
        (
            "POST",
            f"{PAYMENT}/allocations",
            {},
            {
                "address": NODE_ID,
                "paymentPlatform": "erc20-holesky-tglm",
                "totalAmount": "1",
                "timeout": NOON_TEXT,
                "makeDeposit": False,
            },
        ),
        ALLOCATION_JSON,
        lambda doc: (doc.allocation_id, doc.remaining_amount) == ("L", Decimal(1)),
    ),
    "allocation": (
        lambda node: node.allocation(L),
        ("GET", f"{PAYMENT}/allocations/L", {}, None),
        ALLOCATION_JSON,
        lambda doc: doc.allocation_id == "L",
    ),
    "change_allocation": (
        lambda node: node.change_allocation(L, AllocationChange(total_amount=Decimal("2.50"))),
        ("PUT", f"{PAYMENT}/allocations/L", {}, {"totalAmount": "2.50"}),
        ALLOCATION_JSON,
        lambda doc: doc.allocation_id == "L",
    ),
    "release_allocation": (
        lambda node: node.release_allocation(L),
        ("DELETE", f"{PAYMENT}/allocations/L", {}, None),
        None,
        lambda value: value is None,
    ),
    "demand_decorations": (
        lambda node: node.demand_decorations([L, AllocationId("L2")]),
        ("GET", f"{PAYMENT}/demandDecorations", {"allocationIds": "L,L2"}, None),
        {"properties": [{"key": "k", "value": "v"}], "constraints": ["(k=*)"]},
        lambda doc: isinstance(doc, DemandDecorations) and doc.constraints == ["(k=*)"],
    ),
    "invoice_events": (
        lambda node: node.invoice_events(after=NOON, timeout=0, app_session_id=S, max_events=7),
        (
            "GET",
            f"{PAYMENT}/invoiceEvents",
            {"timeout": "0", "maxEvents": "7", "appSessionId": "S", "afterTimestamp": NOON_TEXT},
            None,
        ),
        [{"invoiceId": "I", "eventDate": "2026-11-22T13:00:00Z", "eventType": "InvoiceReceivedEvent"}],
        lambda events: [event.invoice_id for event in events] == ["I"],
    ),
    "debit_note_events": (
        lambda node: node.debit_note_events(after=NOON, timeout=0.5, app_session_id=S),
        (
            "GET",
            f"{PAYMENT}/debitNoteEvents",
            {"timeout": "0.5", "maxEvents": "100", "appSessionId": "S", "afterTimestamp": NOON_TEXT},
            None,
        ),
        [{"debitNoteId": "N", "eventDate": "2026-11-22T13:00:00Z", "eventType": "DebitNoteReceivedEvent"}],
        lambda events: [event.debit_note_id for event in events] == ["N"],
    ),
    "invoice": (
        lambda node: node.invoice(V),
        ("GET", f"{PAYMENT}/invoices/I", {}, None),
        {
            **DOCUMENT_JSON,
            "invoiceId": "I",
            "activityIds": ["A"],
            "amount": "0.000123",
            "paymentDueDate": "2026-11-23T04:08:27.728701Z",
        },
        lambda doc: (doc.amount, doc.status) == (Decimal("0.000123"), DocumentStatus.RECEIVED),
    ),
    "debit_note": (
        lambda node: node.debit_note(N),
        ("GET", f"{PAYMENT}/debitNotes/N", {}, None),
        {**DOCUMENT_JSON, "debitNoteId": "N", "activityId": "A", "totalAmountDue": "0.000123"},
        lambda doc: (doc.total_amount_due, doc.payment_due_date) == (Decimal("0.000123"), None),
    ),
    "accept_invoice": (
        lambda node: node.accept_invoice(V, ACCEPTANCE, timeout=5),
        ("POST", f"{PAYMENT}/invoices/I/accept", {"timeout": "5"}, ACCEPTANCE_JSON),
        None,
        lambda value: value is None,
    ),
    "reject_invoice": (
        lambda node: node.reject_invoice(V, REJECTION, timeout=5),
        ("POST", f"{PAYMENT}/invoices/I/reject", {"timeout": "5"}, REJECTION_JSON),
        None,
        lambda value: value is None,
    ),
    "accept_debit_note": (
        lambda node: node.accept_debit_note(N, ACCEPTANCE, timeout=5),
        ("POST", f"{PAYMENT}/debitNotes/N/accept", {"timeout": "5"}, ACCEPTANCE_JSON),
        None,
        lambda value: value is None,
    ),
}


def test_the_table_covers_every_call_of_the_protocol() -> None:
    calls = {name for name, _ in inspect.getmembers(YagnaApi, inspect.isfunction) if not name.startswith("_")}
    elsewhere = {"publish", "receive", "close"}
    assert calls == set(CALLS) | elsewhere


def test_a_node_has_every_call_of_the_protocol_with_the_same_parameters() -> None:
    for name, declared in inspect.getmembers(YagnaApi, inspect.isfunction):
        if not name.startswith("_"):
            offered = getattr(HttpNode, name)
            assert list(inspect.signature(offered).parameters) == list(inspect.signature(declared).parameters)


@pytest.mark.parametrize("name", CALLS)
def test_each_call_sends_and_reads_what_the_contract_says(name: str, against_stub: Any) -> None:
    call, (method, path, query, body), answer, expected = CALLS[name]

    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on(method, path, answer)
        value = await call(node)
        assert expected(value), value
        request = stub.last
        assert (request.method, request.path) == (method, path)
        assert {key: values[0] for key, values in parse_qs(request.query).items()} == query
        if body is None:
            assert request.body == b""
        else:
            assert request.headers["Content-Type"] == "application/json"
            assert request.json == body

    against_stub(scenario)


@pytest.mark.parametrize("name", [name for name, (_, _, answer, _) in CALLS.items() if answer is None])
@pytest.mark.parametrize(
    ("status", "body"), [(200, ""), (204, ""), (200, "null"), (201, '"odd"'), (202, "odd")]
)
def test_calls_without_a_result_take_any_success(
    name: str, status: int, body: str, against_stub: Any
) -> None:
    call, (method, path, *_), *_ = CALLS[name]

    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on(method, path, body, status=status)
        assert await call(node) is None

    against_stub(scenario)


@pytest.mark.parametrize("name", [*CALLS])
def test_every_call_passes_the_refusal_on(name: str, against_stub: Any) -> None:
    call, (method, path, *_), *_ = CALLS[name]

    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on(method, path, {"message": "GSB error: endpoint address not found"}, status=500)
        with pytest.raises(NodeFailure, match="endpoint address not found") as caught:
            await call(node)
        assert caught.value.call == f"{method} {path}"

    against_stub(scenario)


@pytest.mark.parametrize("name", [name for name, (_, _, answer, _) in CALLS.items() if answer is not None])
def test_nonsense_is_an_answer_error_where_a_value_is_expected(name: str, against_stub: Any) -> None:
    call, (method, path, *_), *_ = CALLS[name]

    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on(method, path, "<html>it works!</html>", content_type="text/html")
        with pytest.raises(NodeAnswerError):
            await call(node)

    against_stub(scenario)


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
@pytest.mark.parametrize("body", ['"A-1"', "A-1", '{"activityId":"A-1"}'])
def test_an_activity_id_is_taken_in_every_form(body: str, content_type: str, against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on("POST", f"{ACTIVITY}/activity", body, content_type=content_type)
        assert await node.create_activity(G, timeout=5) == "A-1"
        assert "timeout=5" in stub.last.query

    against_stub(scenario)


def test_an_empty_batch_has_no_results(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        for body in ("[]", "null", ""):
            stub.on("GET", f"{ACTIVITY}/activity/A/exec/B", body)
        for _ in range(3):
            assert await node.batch_results(A, B, timeout=0) == []

    against_stub(scenario)


def test_the_amount_accepted_is_the_amount_of_the_document(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        _, (method, path, *_), document, _ = CALLS["invoice"]
        stub.on("POST", f"{PAYMENT}/invoices/I/accept", "null")
        amounts = ("0.000000000000000001", "0.10", "12", "0")
        for amount in amounts:
            stub.on(method, path, {**document, "amount": amount})
        for amount in amounts:
            invoice = await node.invoice(V)
            accepted = Acceptance(total_amount_accepted=invoice.amount, allocation_id=L)
            await node.accept_invoice(V, accepted, timeout=1)
            assert stub.last.json["totalAmountAccepted"] == amount

    against_stub(scenario)


def test_arguments_without_a_form_on_the_wire_are_refused_before_anything_is_sent(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        with pytest.raises(ConfigError):
            await node.subscribe(DemandSpec(properties={"x": object()}, constraints=""))
        with pytest.raises(ConfigError):
            await node.execute(A, [{"run": {"args": [float("nan")]}}])
        naive = datetime(2026, 1, 1)
        with pytest.raises(ConfigError):
            await node.invoice_events(after=naive, timeout=0, app_session_id=S)
        assert stub.requests == []

    against_stub(scenario)


def test_ids_cannot_reach_another_route(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on("GET", f"{ACTIVITY}/activity/..%2F..%2Fme%3Fx/state", {"state": ["Ready", None]})
        await node.activity_state(ActivityId("../../me?x"))
        assert stub.last.query == ""

    against_stub(scenario)
