from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shem.clock import SystemClock
from shem.config import NodeAddress
from shem.errors import NodeAnswerError
from shem.ids import AgreementId, AppSessionId, DemandId, InvoiceId, NodeId, ProposalId
from shem.yagna.http import HttpNode, polls
from shem.yagna.http.answers import Answer
from shem.yagna.http.polls import Batch, Feed
from shem.yagna.http.transport import Transport
from shem.yagna.models import (
    AgreementApprovedEvent,
    AgreementCancelledEvent,
    AgreementEvent,
    AgreementRejectedEvent,
    AgreementTerminatedEvent,
    DebitNoteEvent,
    DemandEvent,
    InvoiceEvent,
    Proposal,
    ProposalEvent,
    ProposalRejectedEvent,
    Reason,
)

SESSION = AppSessionId("S")
AGREEMENT_EVENTS = "/market-api/v1/agreementEvents"
DAWN = datetime(2026, 11, 22, 4, tzinfo=UTC)

dates = st.datetimes(timezones=st.just(UTC))
reasons = st.none() | st.builds(Reason, message=st.text(), provider_code=st.none() | st.text())
agreement_events = st.one_of(
    st.builds(AgreementApprovedEvent, agreement_id=st.text(), event_date=dates),
    st.builds(AgreementRejectedEvent, agreement_id=st.text(), event_date=dates, reason=reasons),
    st.builds(AgreementCancelledEvent, agreement_id=st.text(), event_date=dates, reason=reasons),
    st.builds(
        AgreementTerminatedEvent,
        agreement_id=st.text(),
        event_date=dates,
        terminator=st.sampled_from(["Requestor", "Provider"]),
        reason=reasons,
    ),
)
demand_events = st.one_of(
    st.builds(
        ProposalEvent,
        event_date=dates,
        proposal=st.builds(
            Proposal,
            proposal_id=st.text(),
            issuer_id=st.text(),
            state=st.sampled_from(["Initial", "Draft"]),
            timestamp=dates,
            properties=st.dictionaries(st.text(), st.text() | st.booleans() | st.integers(-9, 9), max_size=3),
            constraints=st.text(),
            prev_proposal_id=st.none() | st.text(min_size=1),
        ),
    ),
    st.builds(ProposalRejectedEvent, event_date=dates, proposal_id=st.text(), reason=reasons),
)
#: Elements that are no events: of unknown kind, of a known kind but malformed, and plain nonsense.
strange: st.SearchStrategy[Any] = st.sampled_from(
    [
        {"eventType": "AgreementSuspendedEvent", "eventDate": "2026-11-22T04:08:25Z"},
        {"eventType": "PropertyQueryEvent"},
        {"eventType": "AgreementApprovedEvent", "eventDate": "2026-11-22T04:08:25Z"},
        {"eventType": "AgreementApprovedEvent", "agreementId": "G", "eventDate": "yesterday"},
        {"eventType": "ProposalEvent", "eventDate": "2026-11-22T04:08:25Z", "proposal": {"proposalId": 7}},
        {"eventType": 5},
        {},
        [],
        None,
        "event",
    ]
)


def feed(kind: Any) -> Feed[Any]:
    return Feed(Transport(NodeAddress("http://127.0.0.1:1", "k"), call_timeout=1), kind)


def read(kind: Any, elements: list[Any]) -> Batch[Any]:
    return feed(kind).read(Answer("GET /x", 200, msgspec.json.encode(elements)))


@pytest.mark.parametrize(
    ("kind", "events"),
    [(AgreementEvent, agreement_events), (DemandEvent, demand_events)],
    ids=["agreement", "demand"],
)
def test_events_survive_in_order_whatever_stands_between_them(kind: Any, events: Any) -> None:
    @given(st.lists(st.tuples(st.booleans(), events, strange), max_size=6))
    def check(elements: list[tuple[bool, Any, Any]]) -> None:
        with structlog.testing.capture_logs():
            batch = read(kind, [event if good else odd for good, event, odd in elements])
        assert batch.events == [event for good, event, _ in elements if good]
        assert batch.skipped == any(not good for good, *_ in elements)

    check()


@given(st.lists(st.text(), max_size=4))
def test_payment_events_of_any_kind_are_passed_on(kinds: list[str]) -> None:
    invoices = [InvoiceEvent(invoice_id=InvoiceId("I"), event_date=DAWN, event_type=kind) for kind in kinds]
    assert read(InvoiceEvent, list(invoices)).events == invoices


def test_what_is_no_list_is_refused() -> None:
    with pytest.raises(NodeAnswerError, match="array"):
        feed(DebitNoteEvent).read(Answer("GET /x", 200, b'{"events":[]}'))


def test_a_kind_that_is_not_known_is_no_reason_to_warn() -> None:
    with structlog.testing.capture_logs() as logs:
        read(AgreementEvent, [{"eventType": "AgreementSuspendedEvent"}])
    assert [entry["log_level"] for entry in logs] == ["debug"]


def test_a_malformed_event_is_reported_once_with_the_path_of_the_offender() -> None:
    element = {"eventType": "AgreementApprovedEvent", "eventDate": "2026-11-22T04:08:25Z"}
    stream = feed(AgreementEvent)
    answer = Answer("GET /x", 200, json.dumps([element]).encode())
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            stream.read(answer)
    (entry,) = logs
    assert entry["log_level"] == "warning" and "agreementId" in entry["error"]


def test_the_latest_date_of_what_was_skipped_is_known() -> None:
    elements = [
        {"eventType": "New", "eventDate": "2026-11-22T04:08:26Z"},
        {"eventType": "New", "eventDate": "2026-11-22T04:08:25Z"},
        {"eventType": "New", "eventDate": "2026-11-22T04:08:27"},
        {"eventType": "New"},
    ]
    assert read(AgreementEvent, elements).latest_skipped == datetime(2026, 11, 22, 4, 8, 26, tzinfo=UTC)


def _after(request: Any) -> str:
    (moment,) = parse_qs(str(request.query))["afterTimestamp"]
    return moment


def test_a_poll_goes_on_after_a_skipped_event_until_a_readable_one_comes(against_stub: Any) -> None:
    strange_one = {"eventType": "New", "eventDate": "2026-11-22T04:30:00Z"}
    good = {"eventType": "AgreementApprovedEvent", "agreementId": "G", "eventDate": "2026-11-22T05:00:00Z"}

    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on("GET", AGREEMENT_EVENTS, [strange_one])
        stub.on("GET", AGREEMENT_EVENTS, [good])
        events = await node.agreement_events(after=DAWN, timeout=5, app_session_id=SESSION)
        assert [event.agreement_id for event in events] == [AgreementId("G")]
        assert [_after(request) for request in stub.requests] == [
            "2026-11-22T04:00:00.000000Z",
            "2026-11-22T04:30:00.000000Z",
        ]

    against_stub(scenario)


def test_a_skipped_event_that_cannot_be_passed_does_not_make_the_poll_spin(
    against_stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polls, "SKIP_PAUSE", 0.1)

    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on("GET", AGREEMENT_EVENTS, [{"eventType": "New"}])
        started = time.monotonic()
        assert await node.agreement_events(after=DAWN, timeout=0.35, app_session_id=SESSION) == []
        assert 0.3 < time.monotonic() - started < 1
        assert len(stub.requests) <= 6

    against_stub(scenario)


def test_with_no_time_left_a_poll_asks_once(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on("GET", AGREEMENT_EVENTS, [{"eventType": "New", "eventDate": "2026-11-22T05:00:00Z"}])
        assert await node.agreement_events(after=DAWN, timeout=0, app_session_id=SESSION) == []
        assert len(stub.requests) == 1

    against_stub(scenario)


def test_the_events_of_a_demand_as_the_daemon_writes_them(against_stub: Any) -> None:
    body = """[{"eventType":"ProposalEvent","eventDate":"2026-11-22T04:08:25.390476123Z","proposal":{
        "proposalId":"R-77da","issuerId":"0xp","state":"Draft","timestamp":"2026-11-22T04:08:25.390470Z",
        "properties":{"golem.inf.mem.gib":8.0},"constraints":"(&)","prevProposalId":"R-1"}},
        {"eventType":"ProposalRejectedEvent","eventDate":"2026-11-22T04:08:26Z","proposalId":"R-2",
        "reason":{"message":"full","golem.proposal.rejection.is-final":false,"extra":[1]}}]"""

    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on("GET", "/market-api/v1/demands/D/events", body)
        draft, rejected = await node.demand_events(DemandId("D"), timeout=5)
        assert isinstance(draft, ProposalEvent) and isinstance(rejected, ProposalRejectedEvent)
        assert draft.proposal.prev_proposal_id == ProposalId("R-1")
        assert draft.proposal.issuer_id == NodeId("0xp")
        assert rejected.reason == Reason(message="full", is_final=False)

    against_stub(scenario)


def test_times_with_another_offset_are_sent_in_utc(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on("GET", AGREEMENT_EVENTS, [])
        later = DAWN.astimezone() + timedelta(hours=1)
        await node.agreement_events(after=later, timeout=0, app_session_id=SESSION)
        assert _after(stub.last) == "2026-11-22T05:00:00.000000Z"
        assert "afterTimestamp=2026-11-22T05%3A00%3A00.000000Z" in stub.last.query

    against_stub(scenario)


def test_feeds_are_made_without_a_loop() -> None:
    node = HttpNode(NodeAddress("http://127.0.0.1:1", "k"), clock=SystemClock())
    assert "127.0.0.1" in repr(node)
