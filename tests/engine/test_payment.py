from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.devnet.settings import ProviderSettings
from shem.engine.payment import ALLOCATION_SLACK, Tolerance
from shem.errors import (
    BadRequest,
    Gone,
    NodeAnswerError,
    NodeFailure,
    NodeUnavailable,
    NotFound,
    PaymentError,
    RequestTimeout,
)
from shem.events import (
    AllocationCreated,
    AllocationReleased,
    DebitNoteAccepted,
    InvoiceAccepted,
    PaymentRefused,
    StepSkipped,
)
from shem.yagna.models import DocumentStatus

DEAR = [ProviderSettings(coeffs=(0.0, 0.01, 0.5))]


def now() -> float:
    return asyncio.get_running_loop().time()


async def rent(lab: Any, seconds: float, market: Any = None) -> Any:
    lease = await lab.lease(market)
    await asyncio.sleep(seconds)
    await lab.give_back(lease)
    return lease


# --- the allocation


def test_the_budget_is_set_aside_once_and_given_back_at_the_end(play_engine: Any) -> None:
    heard: list[Any] = []

    async def story(lab: Any) -> None:
        await rent(lab, 100)
        heard.append(lab.heard)

    play_engine(story, providers=DEAR, budget="7")
    [created], [released] = heard[0](AllocationCreated), heard[0](AllocationReleased)
    assert (created.amount, created.platform) == (Decimal(7), "erc20-holesky-tglm")
    assert released.allocation == created.allocation
    assert float(released.spent) == pytest.approx(0.5 + 1.0, abs=0.01)


def test_without_funds_the_run_does_not_begin_and_nothing_is_left(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        raise AssertionError("never reached")

    with pytest.raises(PaymentError, match=r"set no 1E\+40 GLM aside"):
        play_engine(story, budget="1e40")


@pytest.mark.parametrize("kind", [NodeFailure, NodeUnavailable, RequestTimeout, BadRequest])
def test_giving_the_allocation_back_does_not_depend_on_what_is_only_good_to_know(
    play_engine: Any, kind: Any
) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.fail("allocation", kind, times=math.inf)

    play_engine(story)


@pytest.mark.parametrize("kind", [NodeFailure, NodeUnavailable, RequestTimeout])
def test_giving_the_allocation_back_is_repeated(play_engine: Any, kind: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.fail("release_allocation", kind, times=3)

    play_engine(story)


def test_one_that_the_node_has_released_by_itself_needs_no_release(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        await asyncio.sleep(ALLOCATION_SLACK.total_seconds() + 1)
        assert lab.world.node.audit().open_allocations == ()

    play_engine(story)


def test_a_long_run_keeps_its_allocation_until_its_last_invoice_can_be_paid(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market(hours=100)
        await lab.market(hours=10)
        document = await lab.world.api().allocation(lab.engine.payments.allocation_id)
        assert document.timeout == market.expires + ALLOCATION_SLACK
        # The second market needs no more than the first.
        assert lab.world.calls.count("change_allocation") == 1

    play_engine(story)


def test_one_set_aside_while_nobody_wanted_it_any_more_is_given_back() -> None:
    from shem.testing import World, play

    async def story(world: World) -> None:
        world.link.delay("create_allocation", 5.0, answer=True)
        golem = world.golem()
        starting = asyncio.create_task(golem.start())
        await asyncio.sleep(1)
        starting.cancel()
        await asyncio.wait([starting])
        assert starting.cancelled()

    play(story)


# --- what is paid


def test_every_note_and_invoice_is_accepted_once_and_the_amounts_are_equal(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await rent(lab, 1000)
        await asyncio.sleep(2)
        account = lab.engine.payments.account(lease.agreement)
        [invoice] = lab.heard(InvoiceAccepted)
        notes = lab.heard(DebitNoteAccepted)
        assert account.closed.is_set()
        assert account.accepted == invoice.amount == notes[-1].amount == account.notes[lease.activity_id]
        assert float(invoice.amount) == pytest.approx(0.5 + 10.0, abs=0.01)
        assert len(notes) == len({note.debit_note for note in notes}) == 1000 // 120 + 1
        assert [note.amount for note in notes] == sorted(note.amount for note in notes)

    play_engine(story, providers=DEAR, budget="20")


def test_one_agreement_after_another_each_has_its_account(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        for _turn in range(3):
            await rent(lab, 50, market)
        await asyncio.sleep(2)
        accounts = lab.engine.payments.accounts
        assert [account.provider for account in accounts] == ["devnet-1"] * 3
        assert [float(account.accepted) for account in accounts] == pytest.approx([1.0] * 3, abs=0.01)

    play_engine(story, providers=DEAR)


@pytest.mark.parametrize(
    "call", ["invoice", "accept_invoice", "debit_note", "accept_debit_note", "activity_usage"]
)
@pytest.mark.parametrize("kind", [NodeFailure, NodeUnavailable, RequestTimeout])
def test_paying_is_repeated_until_it_succeeds(play_engine: Any, call: str, kind: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.fail(call, kind, times=4)
        await rent(lab, 200)
        await asyncio.sleep(30)
        assert len(lab.heard(InvoiceAccepted)) == 1
        assert lab.heard(PaymentRefused) == []

    play_engine(story, providers=DEAR)


@pytest.mark.parametrize("call", ["accept_invoice", "accept_debit_note"])
def test_an_acceptance_whose_receipt_was_lost_is_repeated_harmlessly(play_engine: Any, call: str) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.cut(call, times=2)
        lease = await rent(lab, 200)
        await asyncio.sleep(10)
        [invoice] = lab.heard(InvoiceAccepted)
        notes = lab.heard(DebitNoteAccepted)
        assert len({note.debit_note for note in notes}) == len(notes) == 2
        assert lab.engine.payments.account(lease.agreement).notes[lease.activity_id] == invoice.amount

    play_engine(story, providers=DEAR)


def test_payments_work_again_after_an_outage_of_the_node(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        await asyncio.sleep(100)
        lab.world.link.up = False
        # The note of the 120th second comes while the node is away.
        await asyncio.sleep(60)
        lab.world.link.heal()
        await asyncio.sleep(60)
        assert len(lab.heard(DebitNoteAccepted)) == 1
        await lab.give_back(lease)
        await asyncio.sleep(2)
        assert len(lab.heard(InvoiceAccepted)) == 1

    play_engine(story, providers=DEAR)


@pytest.mark.parametrize("kind", [NotFound, NodeAnswerError, BadRequest])
def test_a_document_that_cannot_be_read_keeps_no_other_from_being_paid(play_engine: Any, kind: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        first, second = await lab.lease(market), await lab.lease(market)
        lab.world.link.fail("invoice", kind)
        await lab.give_back(first, second)
        await asyncio.sleep(5)
        assert len(lab.heard(InvoiceAccepted)) == 1
        [skipped] = lab.heard(StepSkipped)
        assert "payment of invoice" in skipped.step

    play_engine(story, providers=2, leftovers={"open_invoices", "open_debit_notes"})


def test_a_document_that_the_node_fails_on_for_ever_keeps_no_other_from_being_paid(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        first, second = await lab.lease(market), await lab.lease(market)
        await lab.give_back(first)
        lab.world.link.delay("accept_invoice", math.inf, times=1)
        await asyncio.sleep(5)
        await lab.give_back(second)
        await asyncio.sleep(5)
        assert len(lab.heard(InvoiceAccepted)) == 1

    play_engine(story, providers=2, leftovers={"open_invoices"})


def test_a_slow_node_accepts_the_notes_of_many_agreements_in_time(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        leases = await asyncio.gather(*(lab.lease(market) for _ in range(20)))
        # One after the other they would take 300 s, and providers wait 120 s.
        lab.world.link.delay("accept_debit_note", 15.0)
        await asyncio.sleep(600)
        assert all(not lease.agreement_ended.done() for lease in leases)
        lab.world.link.heal()
        await lab.give_back(*leases)

    play_engine(story, providers=20)


# --- what is not paid


def test_a_wrong_amount_is_refused_by_name(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.node.faults.pad_bills("devnet-1", Decimal("1.5"))
        lease = await rent(lab, 100)
        await asyncio.sleep(2)
        refused = {refusal.document: refusal for refusal in lab.heard(PaymentRefused)}
        assert set(refused) == {"debit note", "invoice"}
        assert "usage times agreed price comes to" in refused["invoice"].reason
        assert refused["invoice"].agreement == lease.agreement.id
        assert lab.heard(InvoiceAccepted) == []
        assert lab.engine.payments.account(lease.agreement).refused
        # The provider is told, as far as the node can do that: there is no refusing of debit notes.
        assert lab.world.node.audit().open_invoices == ()

    play_engine(story, providers=DEAR, leftovers={"open_debit_notes"})


@pytest.mark.parametrize("kind", [NodeFailure, NodeUnavailable, BadRequest])
def test_a_refusal_that_the_node_cannot_pass_on_is_still_reported(play_engine: Any, kind: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.node.faults.pad_bills("devnet-1", Decimal(3))
        lab.world.link.fail("reject_invoice", kind, times=math.inf)
        await rent(lab, 100)
        await asyncio.sleep(2)
        assert "invoice" in [refusal.document for refusal in lab.heard(PaymentRefused)]
        began = now()
        await lab.engine.stop()
        assert now() - began <= 10

    play_engine(story, providers=DEAR, leftovers={"open_invoices", "open_debit_notes"})


def test_a_refused_invoice_does_not_hold_up_the_end(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.node.faults.pad_bills("devnet-1", Decimal(3))
        await rent(lab, 100)
        began = now()
        await lab.engine.stop()
        assert now() - began < 2

    play_engine(story, providers=DEAR, leftovers={"open_invoices", "open_debit_notes"})


def test_what_exceeds_the_budget_is_refused_by_the_node_and_reported(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lease = await lab.lease()
        await lease.agreement_ended
        assert "Not enough funds" in lab.heard(PaymentRefused)[0].reason
        await lab.give_back(lease)

    play_engine(story, providers=DEAR, budget="2", leftovers={"open_invoices", "open_debit_notes"})


def test_an_invoice_that_never_comes_makes_the_end_no_longer_than_allowed_and_is_reported(
    play_engine: Any,
) -> None:
    async def story(lab: Any) -> None:
        lab.world.node.faults.withhold_invoices("devnet-1")
        lease = await rent(lab, 100)
        began = now()
        await lab.engine.stop()
        assert now() - began == pytest.approx(30, abs=1)
        [skipped] = lab.heard(StepSkipped)
        assert skipped.step == f"payment of agreement {lease.agreement.id} with devnet-1"
        assert "no invoice" in skipped.reason

    play_engine(story, providers=DEAR, leftovers={"invoices_to_come"})


def test_documents_of_other_runs_are_left_alone(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        other = lab.world.golem()
        await other.start()
        lease = await rent(lab, 100)
        await asyncio.sleep(5)
        assert other.accounts == []
        await other.stop()
        assert len([one for one in lab.heard(InvoiceAccepted) if one.agreement == lease.agreement.id]) == 1

    play_engine(story)


@given(
    expected=st.decimals(0, 10**6, places=6),
    share=st.decimals(0, 1, places=3),
    amount=st.decimals(0, 1, places=6),
)
def test_the_tolerance_ends_exactly_where_it_says(expected: Decimal, share: Decimal, amount: Decimal) -> None:
    tolerance = Tolerance(share, amount)
    limit = expected * (1 + share) + amount
    assert tolerance.allows(limit, expected)
    assert tolerance.allows(expected, expected)
    assert not tolerance.allows(limit + Decimal("1e-9"), expected)


def test_less_than_expected_is_gladly_accepted() -> None:
    assert Tolerance().allows(Decimal(0), Decimal(5))


@pytest.mark.parametrize("moment", [0.05 * step for step in range(1, 60)])
def test_an_activity_that_was_made_while_nobody_wanted_it_any_more_is_paid_for(
    play_engine: Any, moment: float
) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        lab.world.link.delay("create_activity", 1.0, answer=True)
        acquiring = asyncio.create_task(lab.lease(market))
        await asyncio.sleep(moment)
        acquiring.cancel()
        await asyncio.wait([acquiring])
        if not acquiring.cancelled():
            await lab.give_back(acquiring.result())

    play_engine(story, providers=DEAR, create_seconds=0.5)


def test_an_activity_whose_making_was_not_heard_of_is_paid_for(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.cut("create_activity")
        with pytest.raises(Exception, match="no activity"):
            await lab.lease()
        await asyncio.sleep(5)
        [invoice] = lab.heard(InvoiceAccepted)
        assert invoice.amount == Decimal("0.5")

    play_engine(story, providers=DEAR)


def test_an_allocation_that_is_gone_is_reported_by_each_document(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.fail("accept_invoice", Gone)
        await rent(lab, 10)
        await asyncio.sleep(5)
        [refused] = lab.heard(PaymentRefused)
        assert refused.document == "invoice"
        assert "the node refused" in refused.reason

    play_engine(story, providers=DEAR, leftovers={"open_invoices"})


class Odd:
    """A node that shows some documents otherwise than others would."""

    def __init__(self, api: Any, **changes: Any) -> None:
        self._api, self._changes = api, changes

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._api, name)
        if name not in ("debit_note", "invoice"):
            return call

        async def changed(identifier: str) -> Any:
            document = await call(identifier)
            changes = {key: value for key, value in self._changes.items() if hasattr(document, key)}
            return msgspec.structs.replace(document, **changes)

        return changed


def make_odd(lab: Any, **changes: Any) -> None:
    lab.engine.payments._api = Odd(lab.engine.payments._api, **changes)


def test_a_note_without_its_usage_is_checked_against_what_the_node_knows(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        make_odd(lab, usage_counter_vector=None)
        await rent(lab, 200)
        await asyncio.sleep(5)
        assert len(lab.heard(DebitNoteAccepted)) == 2
        assert lab.heard(PaymentRefused) == []

    play_engine(story, providers=DEAR)


def test_usage_the_node_does_not_know_any_more_is_what_was_accepted_before(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.fail("activity_usage", NotFound, times=math.inf)
        await rent(lab, 200)
        await asyncio.sleep(5)
        assert len(lab.heard(InvoiceAccepted)) == 1

    play_engine(story, providers=DEAR)


@pytest.mark.parametrize("status", [DocumentStatus.CANCELLED, DocumentStatus.REJECTED, DocumentStatus.FAILED])
def test_documents_that_are_not_to_be_paid_are_left_alone(play_engine: Any, status: DocumentStatus) -> None:
    async def story(lab: Any) -> None:
        make_odd(lab, status=status)
        await rent(lab, 200)
        await asyncio.sleep(5)
        assert lab.heard(InvoiceAccepted) == lab.heard(DebitNoteAccepted) == lab.heard(PaymentRefused) == []
        assert "accept_invoice" not in lab.world.calls

    play_engine(story, providers=DEAR, leftovers={"open_invoices", "open_debit_notes"})


def test_documents_that_were_accepted_before_are_not_accepted_again(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        await rent(lab, 10)
        await asyncio.sleep(5)
        accepted = lab.world.calls.count("accept_invoice")
        [invoice] = lab.heard(InvoiceAccepted)
        lab.engine.payments._seen.clear()
        await lab.engine.payments._take_invoice(invoice.invoice)
        assert lab.world.calls.count("accept_invoice") == accepted
        # What was told twice is the test's own doing.
        await asyncio.sleep(0)
        lab.world.events.remove(invoice)

    play_engine(story, providers=DEAR)


def test_an_event_that_is_given_out_twice_is_one_document(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        await rent(lab, 10)
        await asyncio.sleep(5)
        payments = lab.engine.payments
        payments._invoices_after -= timedelta(hours=1)
        payments._notes_after -= timedelta(hours=1)
        assert await payments.poll_invoices()
        assert await payments.poll_debit_notes()
        await asyncio.sleep(5)
        assert (lab.world.calls.count("invoice"), lab.world.calls.count("debit_note")) == (1, 1)

    play_engine(story, providers=DEAR)


def test_without_a_run_there_is_no_allocation(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        await lab.engine.stop()
        with pytest.raises(PaymentError, match="there is no allocation"):
            _ = lab.engine.payments.allocation_id
        await lab.engine.payments.keep_until(lab.world.clock.now() + timedelta(days=100))
        assert "change_allocation" not in lab.world.calls

    play_engine(story)
