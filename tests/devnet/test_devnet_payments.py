"""Money: allocations, what activities cost, debit notes, invoices and their settlement."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.devnet.documents import REQUESTOR_KINDS
from shem.devnet.money import LIMIT, SMALLEST, rounded
from shem.devnet.offers import cost
from shem.devnet.settings import ProviderSettings, Timings
from shem.errors import BadRequest, ConfigError, Gone, NotFound
from shem.ids import AllocationId, AppSessionId
from shem.yagna import models as wire

DONE = wire.Reason(message="done")
PLATFORM = "erc20-holesky-tglm"
ACCEPT, INTERVAL, PAYMENT = (
    "golem.com.payment.debit-notes.accept-timeout?",
    "golem.com.scheme.payu.debit-note.interval-sec?",
    "golem.com.scheme.payu.payment-timeout-sec?",
)


async def accept_note(w, note, allocation_id, amount=None):
    acceptance = wire.Acceptance(
        total_amount_accepted=note.total_amount_due if amount is None else amount, allocation_id=allocation_id
    )
    await w.api.accept_debit_note(note.debit_note_id, acceptance, timeout=5)


async def accept_invoice(w, invoice, allocation_id, amount=None):
    acceptance = wire.Acceptance(
        total_amount_accepted=invoice.amount if amount is None else amount, allocation_id=allocation_id
    )
    await w.api.accept_invoice(invoice.invoice_id, acceptance, timeout=5)


async def worked(w, seconds=10.0, spec=None):
    """An agreement under which an activity ran for a while, both ended."""
    agreement_id, activity_id = await w.activity(spec)
    await asyncio.sleep(seconds)
    await w.api.destroy_activity(activity_id, timeout=5)
    await w.api.terminate_agreement(agreement_id, DONE)
    return agreement_id, activity_id


# --- prices ---------------------------------------------------------------------------------------------

prices = st.floats(0, 10, allow_nan=False)
usages = st.floats(0, 1e7, allow_nan=False)


@given(prices, prices, prices, usages, usages)
def test_the_cost_is_linear_rounded_to_18_places_and_never_sinks_with_usage(cpu, duration, start, used, time):
    total = cost([cpu, duration, start], [used, time])
    exact = Decimal(repr(cpu)) * Decimal(repr(used)) + Decimal(repr(duration)) * Decimal(repr(time))
    assert abs(total - exact - Decimal(repr(start))) <= Decimal("1e-17")
    assert -total.as_tuple().exponent <= 18
    assert cost([cpu, duration, start], [used * 2, time]) >= total


@given(st.decimals(0, LIMIT - 1, allow_nan=False))
def test_amounts_are_kept_to_18_places_and_written_without_an_exponent(amount):
    kept = rounded(amount)
    assert abs(kept - amount) <= SMALLEST / 2
    assert -18 <= kept.as_tuple().exponent <= 0
    assert rounded(kept) == kept


def test_the_start_fee_is_the_last_coefficient():
    assert cost([0.0, 0.0, 0.25], [5.0, 5.0]) == Decimal("0.25")
    assert str(cost([0.0, 0.00005, 0.0], [0.0, 2.0])) == "0.0001"


def test_a_price_list_that_does_not_fit_its_counters_is_refused():
    with pytest.raises(ConfigError, match="coefficients"):
        ProviderSettings(coeffs=(1.0, 2.0))


# --- allocations ----------------------------------------------------------------------------------------


def test_an_allocation_can_be_made_looked_at_changed_and_released(in_world):
    async def main(w):
        allocation_id = await w.allocation(5)
        made = await w.api.allocation(allocation_id)
        assert (made.total_amount, made.spent_amount, made.remaining_amount) == (5, 0, 5)
        assert (made.payment_platform, made.address) == (PLATFORM, "0xpayer")
        later = w.clock.now() + timedelta(hours=1)
        await w.api.change_allocation(
            allocation_id, wire.AllocationChange(total_amount=Decimal(7), timeout=later)
        )
        changed = await w.api.allocation(allocation_id)
        assert (changed.total_amount, changed.remaining_amount, changed.timeout) == (7, 7, later)
        await w.api.release_allocation(allocation_id)
        for call in (w.api.allocation, w.api.release_allocation):
            with pytest.raises(Gone, match="already released"):
                await call(allocation_id)

    in_world(main)


def test_an_allocation_releases_itself_at_its_time_out(in_world):
    async def main(w):
        wanted = wire.NewAllocation(
            address="",
            payment_platform="ERC20-Polygon-GLM",
            total_amount=Decimal(1),
            timeout=w.clock.now() + timedelta(seconds=30),
        )
        made = await w.api.create_allocation(wanted)
        assert made.payment_platform == "erc20-polygon-glm"
        assert made.address == (await w.api.me()).identity
        await w.api.change_allocation(
            made.allocation_id, wire.AllocationChange(timeout=w.clock.now() + timedelta(seconds=60))
        )
        await asyncio.sleep(40)
        await w.api.allocation(made.allocation_id)
        await asyncio.sleep(21)
        with pytest.raises(Gone):
            await w.api.allocation(made.allocation_id)

    in_world(main)


@pytest.mark.parametrize(
    "wrong",
    [
        {"payment_platform": "paypal"},
        {"payment_platform": "zksync-mainnet-glm"},
        {"total_amount": Decimal(-1)},
        {"total_amount": Decimal("NaN")},
        {"total_amount": Decimal("sNaN")},
        {"total_amount": Decimal("Infinity")},
        {"total_amount": Decimal("1e10")},
        {"total_amount": Decimal("1e999999")},
        {"timeout": -1.0},
    ],
)
def test_a_senseless_allocation_is_refused(in_world, wrong):
    async def main(w):
        if "timeout" in wrong:
            wrong["timeout"] = w.clock.now()
        fields = {"address": "0x", "payment_platform": PLATFORM, "total_amount": Decimal(1), **wrong}
        with pytest.raises(BadRequest) as caught:
            await w.api.create_allocation(wire.NewAllocation(**fields))
        assert caught.value.status == 400

    in_world(main)


def test_an_allocation_is_its_owners_alone(in_world):
    async def main(w):
        allocation_id = await w.allocation()
        with pytest.raises(NotFound):
            await w.other().allocation(allocation_id)
        with pytest.raises(NotFound):
            await w.other().demand_decorations([allocation_id])

    in_world(main)


def test_decorations_name_the_platforms_and_are_simple_constraints(in_world):
    async def main(w):
        one = await w.allocation()
        decorations = await w.api.demand_decorations([one])
        key = f"golem.com.payment.platform.{PLATFORM}.address"
        assert {d.key: d.value for d in decorations.properties} == {
            key: "0xpayer",
            "golem.com.payment.protocol.version": "3",
        }
        assert decorations.constraints == [f"({key}=*)", "(golem.com.payment.protocol.version>1)"]
        other = await w.api.create_allocation(
            wire.NewAllocation(address="0x2", payment_platform="erc20-hoodi-tglm", total_amount=Decimal(1))
        )
        both = await w.api.demand_decorations([one, other.allocation_id])
        assert len(both.properties) == 3
        spec = w.demand_spec(constraints=f"(&{''.join(both.constraints)})")
        assert len(await w.proposals(await w.api.subscribe(spec))) == 1
        with pytest.raises(NotFound):
            await w.api.demand_decorations([one, AllocationId("none")])

    in_world(main)


# --- debit notes ----------------------------------------------------------------------------------------


def test_debit_notes_come_at_the_negotiated_interval_and_at_the_end_and_are_cumulative(in_world, program):
    async def main(w):
        _, activity_id = await w.activity(w.demand_spec(**{INTERVAL: 30}))
        await asyncio.sleep(95)
        await w.api.destroy_activity(activity_id, timeout=5)
        notes = await w.notes()
        assert [note.usage_counter_vector[1] for note in notes] == [30, 60, 90, 95]
        assert [note.total_amount_due for note in notes] == [
            Decimal("0.0015"),
            Decimal("0.003"),
            Decimal("0.0045"),
            Decimal("0.00475"),
        ]
        previous = [note.previous_debit_note_id for note in notes]
        assert previous == [None, *(note.debit_note_id for note in notes[:-1])]
        assert {note.activity_id for note in notes} == {activity_id}
        assert {note.payee_addr for note in notes} == {w.provider.wallet}
        assert {note.payer_addr for note in notes} == {"0xpayer"}
        assert {note.payment_platform for note in notes} == {PLATFORM}
        await asyncio.sleep(60)
        assert len(await w.notes()) == 4

    in_world(main)


def test_without_a_negotiated_interval_the_nodes_own_holds(in_world):
    async def main(w):
        await w.activity()
        await asyncio.sleep(100)
        assert len(await w.notes()) == 2

    in_world(main, timings=Timings(debit_note_interval=40))


def test_a_note_is_payable_once_per_payment_time_out(in_world):
    async def main(w):
        await w.activity(w.demand_spec(**{INTERVAL: 10, PAYMENT: 25}))
        await asyncio.sleep(61)
        notes = await w.notes()
        assert [note.payment_due_date is not None for note in notes] == [
            False,
            False,
            True,
            False,
            False,
            True,
        ]
        assert notes[2].payment_due_date == notes[2].timestamp + timedelta(seconds=25)

    in_world(main)


def test_a_note_that_is_not_accepted_in_time_ends_the_agreement(in_world):
    async def main(w):
        allocation_id = await w.allocation()
        agreement_id, _ = await w.activity(w.demand_spec(**{INTERVAL: 30, ACCEPT: 20}))
        await asyncio.sleep(35)
        (first,) = await w.notes()
        await accept_note(w, first, allocation_id)
        await asyncio.sleep(30)
        assert (await w.api.agreement(agreement_id)).state == "Approved"
        await asyncio.sleep(20)
        event = (await w.agreement_events())[-1]
        assert (event.terminator, event.reason.provider_code) == ("Provider", "DebitNotesDeadline")

    in_world(main)


def test_the_bill_goes_on_where_no_accept_time_out_was_negotiated(in_world):
    async def main(w):
        agreement_id, _ = await w.activity(w.demand_spec(**{INTERVAL: 30, ACCEPT: None}))
        await asyncio.sleep(700)
        assert (await w.api.agreement(agreement_id)).state == "Approved"

    in_world(main)


def test_accepting_charges_what_was_not_accepted_before(in_world):
    async def main(w):
        allocation_id = await w.allocation()
        await worked(w, 95, w.demand_spec(**{INTERVAL: 30}))
        notes = await w.notes()
        for note in (notes[1], notes[0], notes[3]):
            await accept_note(w, note, allocation_id)
        assert (await w.api.allocation(allocation_id)).spent_amount == notes[3].total_amount_due
        await accept_note(w, notes[3], allocation_id)
        assert (await w.api.allocation(allocation_id)).spent_amount == notes[3].total_amount_due
        assert (await w.api.debit_note(notes[0].debit_note_id)).status is wire.DocumentStatus.ACCEPTED

    in_world(main)


def test_accepting_needs_exactly_the_amount_and_enough_funds(in_world):
    async def main(w):
        rich, poor, released = await w.allocation(), await w.allocation("0.00001"), await w.allocation()
        await w.api.release_allocation(released)
        await worked(w, 10)
        (note,) = await w.notes()
        with pytest.raises(BadRequest, match="Invalid amount accepted"):
            await accept_note(w, note, rich, note.total_amount_due * 2)
        with pytest.raises(BadRequest, match=r"Not enough funds. Allocated: 0.00001 Needed: 0.0005"):
            await accept_note(w, note, poor)
        with pytest.raises(BadRequest, match="not found"):
            await accept_note(w, note, AllocationId("none"))
        with pytest.raises(Gone):
            await accept_note(w, note, released)
        assert (await w.api.debit_note(note.debit_note_id)).status is wire.DocumentStatus.RECEIVED

    in_world(main)


# --- invoices -------------------------------------------------------------------------------------------


def test_one_invoice_comes_after_the_agreement_and_sums_its_activities_up(in_world):
    async def main(w):
        agreement_id, first = await w.activity()
        second = await w.api.create_activity(agreement_id, timeout=5)
        await asyncio.sleep(50)
        await w.api.destroy_activity(first, timeout=5)
        await asyncio.sleep(20)
        assert await w.invoices() == []
        await w.api.terminate_agreement(agreement_id, DONE)
        before = w.clock.monotonic()
        (invoice,) = await w.invoices(timeout=10)
        # The second activity is destroyed by the provider, then comes the bill.
        assert w.clock.monotonic() - before == pytest.approx(0.125 + 0.2)
        last = {note.activity_id: note.total_amount_due for note in await w.notes()}
        assert set(last) == set(invoice.activity_ids) == {first, second}
        assert invoice.amount == sum(last.values())
        assert invoice.status is wire.DocumentStatus.RECEIVED
        await asyncio.sleep(1000)
        assert len(await w.invoices()) == 1

    in_world(main)


def test_an_agreement_that_cost_nothing_gets_an_invoice_too(in_world):
    async def main(w):
        await worked(w, 10)
        (invoice,) = await w.invoices(timeout=10)
        assert invoice.amount == 0
        allocation_id = await w.allocation()
        await accept_invoice(w, invoice, allocation_id)

    in_world(main, providers=[ProviderSettings(coeffs=(0, 0, 0))])


def test_an_agreement_without_an_activity_gets_none(in_world):
    async def main(w):
        agreement_id = await w.agreement()
        await w.api.terminate_agreement(agreement_id, DONE)
        await asyncio.sleep(60)
        assert await w.invoices() == []
        assert w.node.audit().invoices_to_come == ()

    in_world(main)


@pytest.mark.parametrize(("terms", "due"), [({PAYMENT: 60}, 60), ({}, 86_400)])
def test_an_invoice_is_due_after_the_payment_time_out_or_a_day(in_world, terms, due):
    async def main(w):
        await worked(w, 10, w.demand_spec(**terms))
        (invoice,) = await w.invoices(timeout=10)
        assert invoice.payment_due_date - invoice.timestamp == timedelta(seconds=due)

    in_world(main)


def test_an_accepted_invoice_charges_the_rest_and_is_settled_with_its_notes(in_world):
    async def main(w):
        allocation_id = await w.allocation()
        await worked(w, 95, w.demand_spec(**{INTERVAL: 30}))
        (invoice,) = await w.invoices(timeout=10)
        notes = await w.notes()
        await accept_note(w, notes[0], allocation_id)
        for _ in range(2):
            await accept_invoice(w, invoice, allocation_id)
            assert (await w.api.invoice(invoice.invoice_id)).status is wire.DocumentStatus.ACCEPTED
        assert (await w.api.allocation(allocation_id)).spent_amount == invoice.amount
        # The invoice covers them all: accepting one more changes nothing.
        await accept_note(w, notes[1], allocation_id)
        assert (await w.api.allocation(allocation_id)).spent_amount == invoice.amount
        await asyncio.sleep(1.5)
        assert (await w.api.invoice(invoice.invoice_id)).status is wire.DocumentStatus.SETTLED
        assert {note.status for note in await w.notes()} == {wire.DocumentStatus.SETTLED}
        assert w.node.documents.settling() == []

    in_world(main)


def test_an_invoice_is_accepted_for_exactly_its_amount(in_world):
    async def main(w):
        allocation_id = await w.allocation()
        await worked(w, 10)
        (invoice,) = await w.invoices(timeout=10)
        with pytest.raises(BadRequest, match="Invalid amount accepted"):
            await accept_invoice(w, invoice, allocation_id, Decimal(0))
        for senseless in ("NaN", "sNaN", "Infinity", "-1", "1e999999", "1e-999999"):
            with pytest.raises(BadRequest, match="Invalid amount accepted"):
                await accept_invoice(w, invoice, allocation_id, Decimal(senseless))
        # The same number written otherwise is the same amount.
        await accept_invoice(w, invoice, allocation_id, Decimal(f"{invoice.amount}000"))

    in_world(main)


def test_a_rejected_invoice_cannot_be_accepted_any_more(in_world):
    async def main(w):
        allocation_id = await w.allocation()
        await worked(w, 10)
        (invoice,) = await w.invoices(timeout=10)
        me = (await w.api.me()).identity
        w.node.documents.reject_invoice(me, invoice.invoice_id)
        with pytest.raises(BadRequest, match="REJECTED"):
            await accept_invoice(w, invoice, allocation_id)
        assert w.node.audit().open_invoices == ()

    in_world(main)


def test_requestors_are_told_of_received_documents_only_unless_they_ask(in_world):
    async def main(w):
        allocation_id = await w.allocation()
        await worked(w, 10)
        (invoice,) = await w.invoices(timeout=10)
        await accept_invoice(w, invoice, allocation_id)
        await asyncio.sleep(2)
        me = (await w.api.me()).identity

        async def kinds(wanted):
            events = await w.node.documents.invoice_events(me, after=None, timeout=0, kinds=wanted)
            return [event.event_type for event in events]

        assert await kinds(REQUESTOR_KINDS) == ["InvoiceReceivedEvent"]
        assert await kinds({"ACCEPTED", "SETTLED"}) == ["InvoiceAcceptedEvent", "InvoiceSettledEvent"]
        assert await w.node.documents.invoice_events(me, after=None, timeout=0, session="other") == []
        assert len(await w.node.documents.note_events(me, after=None, timeout=0, session="session-1")) == 1

    in_world(main)


def test_documents_are_their_recipients_alone(in_world):
    async def main(w):
        await worked(w, 10)
        (invoice,), (note,) = await w.invoices(timeout=10), await w.notes()
        with pytest.raises(NotFound):
            await w.other().invoice(invoice.invoice_id)
        with pytest.raises(NotFound):
            await w.other().debit_note(note.debit_note_id)
        early = w.began - timedelta(1)
        session = AppSessionId("session-1")
        assert await w.other().invoice_events(after=early, timeout=0, app_session_id=session) == []

    in_world(main)


def test_a_vanished_provider_bills_when_it_is_back(in_world):
    async def main(w):
        agreement_id, activity_id = await w.activity()
        await asyncio.sleep(10)
        w.node.faults.vanish(w.provider.name)
        await w.api.terminate_agreement(agreement_id, DONE)
        await asyncio.sleep(50)
        assert await w.notes() == await w.invoices() == []
        assert w.node.audit().invoices_to_come == (agreement_id,)
        w.node.faults.recover(w.provider.name)
        (invoice,) = await w.invoices(timeout=10)
        assert invoice.activity_ids == [activity_id]
        assert w.node.audit().invoices_to_come == ()

    in_world(main)


@given(
    st.lists(st.tuples(st.sampled_from(["wait", "note", "activity", "end"]), st.integers(0, 3)), max_size=12)
)
def test_whatever_is_accepted_in_whatever_order_the_invoice_makes_it_exactly_the_bill(in_world, steps):
    async def main(w):
        allocation_id = await w.allocation(1000)
        agreement_id, first = await w.activity(w.demand_spec(ahead=1700, **{INTERVAL: 20}))
        activities = [first]
        for step, number in steps:
            match step:
                case "wait":
                    await asyncio.sleep(7 * number)
                case "activity":
                    activities.append(await w.api.create_activity(agreement_id, timeout=5))
                case "end":
                    await w.api.destroy_activity(activities[number % len(activities)], timeout=5)
                case "note":
                    notes = await w.notes()
                    if notes:
                        await accept_note(w, notes[-1 - number % len(notes)], allocation_id)
        await w.api.terminate_agreement(agreement_id, DONE)
        (invoice,) = await w.invoices(timeout=10)
        highest = {}
        for note in await w.notes():
            highest[note.activity_id] = max(note.total_amount_due, highest.get(note.activity_id, 0))
        assert invoice.amount == sum(highest.values())
        await accept_invoice(w, invoice, allocation_id)
        allocation = await w.api.allocation(allocation_id)
        assert allocation.spent_amount == invoice.amount
        assert allocation.spent_amount + allocation.remaining_amount == allocation.total_amount

    in_world(main, timings=Timings(no_activity=1e6))
