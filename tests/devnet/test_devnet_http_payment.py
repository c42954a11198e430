"""The payment API as it goes over the wire: forms of requests, amounts as strings, events by kind."""

from __future__ import annotations

import asyncio

import pytest

ROOT = "/payment-api/v1"
PLATFORM = "erc20-holesky-tglm"


async def allocate(http, **more):
    body = {"totalAmount": "1", "paymentPlatform": PLATFORM, **more}
    return (await http.ok("POST", f"{ROOT}/allocations", body))["allocationId"]


async def billed(http):
    """Ids of a debit note and of the invoice of an agreement that has ended."""
    activity = await http.activity()
    agreement = await http.ok("GET", f"/activity-api/v1/activity/{activity}/agreement")
    await http.ok("DELETE", f"/activity-api/v1/activity/{activity}")
    await http.ok("POST", f"/market-api/v1/agreements/{agreement}/terminate")
    (note,) = await http.ok("GET", f"{ROOT}/debitNoteEvents")
    (invoice,) = await http.ok("GET", f"{ROOT}/invoiceEvents")
    return note["debitNoteId"], invoice["invoiceId"]


@pytest.mark.parametrize(
    ("body", "platform", "amount"),
    [
        ({"totalAmount": "1", "paymentPlatform": "erc20-polygon-glm"}, "erc20-polygon-glm", "1"),
        ({"totalAmount": 0.1, "paymentPlatform": "ERC20-Hoodi-tGLM"}, "erc20-hoodi-tglm", "0.1"),
        ({"totalAmount": 25, "paymentPlatform": {"network": "amoy"}}, "erc20-amoy-tglm", "25"),
        (
            {"totalAmount": "1e-7", "paymentPlatform": {"network": "polygon"}},
            "erc20-polygon-glm",
            "0.0000001",
        ),
        ({"totalAmount": "1e2"}, PLATFORM, "100"),
        ({"totalAmount": "0.1000000000000000055511151231257827"}, PLATFORM, "0.100000000000000006"),
    ],
)
def test_an_allocation_is_understood_in_every_form(serve, body, platform, amount):
    async def main(http):
        reply = await http("POST", f"{ROOT}/allocations", body)
        assert reply.status == 201
        allocation = reply.json
        assert (allocation["paymentPlatform"], allocation["totalAmount"]) == (platform, amount)
        assert (allocation["spentAmount"], allocation["remainingAmount"]) == ("0", amount)
        assert allocation["address"] == (await http.ok("GET", "/me"))["identity"]
        assert allocation["makeDeposit"] is False

    serve(main)


def test_what_yapapi_sends_is_understood(serve):
    async def main(http):
        body = {
            "allocationId": "",
            "address": "0xa1a1",
            "paymentPlatform": PLATFORM,
            "totalAmount": "1",
            "spentAmount": "",
            "remainingAmount": "",
            "timestamp": "2026-11-22T04:08:25.298216+00:00",
            "timeout": "2999-11-19T04:08:25.298216+00:00",
            "makeDeposit": False,
        }
        allocation = await http.ok("POST", f"{ROOT}/allocations", body)
        assert allocation["address"] == "0xa1a1"
        assert allocation["timeout"] == "2999-11-19T04:08:25.298216Z"

    serve(main)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"totalAmount": 1, "paymentPlatform": "x"}, "/bad-payment-platform"),
        ({"totalAmount": -1}, "/validation-error"),
        ({"totalAmount": 1, "timeout": "2000-01-01T00:00:00Z"}, "/validation-error/timeout-passed"),
    ],
)
def test_a_refused_allocation_is_a_problem_with_a_type(serve, body, kind):
    async def main(http):
        reply = await http("POST", f"{ROOT}/allocations", body)
        assert (reply.status, reply.type) == (400, "application/problem+json")
        assert reply.json["type"] == kind
        assert reply.json["title"]
        assert reply.json["detail"]

    serve(main)


def test_an_allocation_is_changed_listed_and_released(serve):
    async def main(http):
        allocation = await allocate(http)
        path = f"{ROOT}/allocations/{allocation}"
        changed = await http.ok("PUT", path, {"totalAmount": "2.5", "timeout": "2999-01-01T00:00:00Z"})
        assert (changed["totalAmount"], changed["remainingAmount"]) == ("2.5", "2.5")
        await allocate(http)
        listed = await http.ok("GET", f"{ROOT}/allocations")
        assert listed[0] == await http.ok("GET", path) == changed
        assert len(await http.ok("GET", f"{ROOT}/allocations?maxItems=1")) == 1
        after = listed[1]["timestamp"]
        assert await http.ok("GET", f"{ROOT}/allocations?afterTimestamp={after}") == []
        reply = await http("DELETE", path)
        assert (reply.status, reply.body) == (200, b"null")
        for method in ("GET", "DELETE"):
            reply = await http(method, path)
            assert reply.status == 410
            assert "has been already released" in reply.json["message"]

    serve(main)


def test_decorations_take_both_forms_of_a_list(serve):
    async def main(http):
        one, two = await allocate(http), await allocate(http, paymentPlatform="erc20-hoodi-tglm")
        path = f"{ROOT}/demandDecorations"
        commas = await http.ok("GET", f"{path}?allocationIds={one},{two}")
        repeated = await http.ok("GET", f"{path}?allocationIds={one}&allocationIds={two}")
        encoded = await http.ok("GET", f"{path}?allocationIds={one}%2C{two}")
        assert commas == repeated == encoded
        assert len(commas["properties"]) == 3
        single = await http.ok("GET", f"{path}?allocationIds={one}")
        assert {item["value"] for item in single["properties"]} >= {"3"}
        assert all(c.startswith("(") and "\n" not in c for c in single["constraints"])
        assert (await http("GET", f"{path}?allocationIds={one},none")).status == 404

    serve(main)


def test_accounts_name_the_platforms(serve):
    async def main(http):
        (account, *_) = await http.ok("GET", f"{ROOT}/requestorAccounts")
        assert account == {
            "platform": PLATFORM,
            "address": (await http.ok("GET", "/me"))["identity"],
            "driver": "erc20",
            "network": "holesky",
            "token": "tGLM",
            "send": True,
            "receive": False,
        }
        (account, *_) = await http.ok("GET", f"{ROOT}/providerAccounts")
        assert (account["send"], account["receive"]) == (False, True)

    serve(main)


def test_bills_are_told_looked_at_accepted_and_settled(serve):
    async def main(http):
        allocation = await allocate(http)
        note_id, invoice_id = await billed(http)
        note = await http.ok("GET", f"{ROOT}/debitNotes/{note_id}")
        assert (note["status"], note["payerAddr"]) == ("RECEIVED", (await http.ok("GET", "/me"))["identity"])
        assert isinstance(note["totalAmountDue"], str)
        assert len(note["usageCounterVector"]) == 2
        accept = {"totalAmountAccepted": note["totalAmountDue"], "allocationId": allocation}
        for _ in range(2):
            reply = await http("POST", f"{ROOT}/debitNotes/{note_id}/accept?timeout=5", accept)
            assert (reply.status, reply.body) == (200, b"null")

        invoice = await http.ok("GET", f"{ROOT}/invoices/{invoice_id}")
        assert (invoice["status"], invoice["amount"]) == ("RECEIVED", note["totalAmountDue"])
        assert invoice["activityIds"] == [note["activityId"]]
        assert invoice["paymentDueDate"]
        accept = {"totalAmountAccepted": invoice["amount"], "allocationId": allocation, "x": 1}
        reply = await http(
            "POST", f"{ROOT}/invoices/{invoice_id}/accept", {**accept, "totalAmountAccepted": "9"}
        )
        assert reply.status == 400
        assert "Invalid amount accepted" in reply.json["message"]
        assert (await http("POST", f"{ROOT}/invoices/{invoice_id}/accept", accept)).status == 200
        assert (await http.ok("GET", f"{ROOT}/invoices/{invoice_id}"))["status"] == "ACCEPTED"
        await asyncio.sleep(0.2)
        assert (await http.ok("GET", f"{ROOT}/invoices"))[0]["status"] == "SETTLED"
        assert (await http.ok("GET", f"{ROOT}/debitNotes"))[0]["status"] == "SETTLED"

        spent = (await http.ok("GET", f"{ROOT}/allocations/{allocation}"))["spentAmount"]
        assert spent == invoice["amount"]

    serve(main)


def test_events_are_chosen_by_kind_session_and_time_and_not_consumed(serve):
    async def main(http):
        allocation = await allocate(http)
        _, invoice_id = await billed(http)
        path = f"{ROOT}/invoiceEvents"
        (event,) = await http.ok("GET", f"{path}?timeout=5&appSessionId=session-1")
        assert event["eventType"] == "InvoiceReceivedEvent"
        assert event == (await http.ok("GET", path))[0]
        assert await http.ok("GET", f"{path}?timeout=0&appSessionId=other") == []
        after = event["eventDate"].replace("Z", "+00:00")
        assert await http.ok("GET", f"{path}?timeout=0&afterTimestamp={after}") == []
        invoice = await http.ok("GET", f"{ROOT}/invoices/{invoice_id}")
        accept = {"totalAmountAccepted": invoice["amount"], "allocationId": allocation}
        await http.ok("POST", f"{ROOT}/invoices/{invoice_id}/accept", accept)
        assert len(await http.ok("GET", path)) == 1
        asked = {"X-Requestor-Events": "received, Accepted"}
        kinds = [each["eventType"] for each in await http.ok("GET", path, headers=asked)]
        assert kinds == ["InvoiceReceivedEvent", "InvoiceAcceptedEvent"]
        assert len(await http.ok("GET", f"{path}?maxEvents=1", headers=asked)) == 1

    serve(main)


def test_a_rejected_invoice_stays_so(serve):
    async def main(http):
        allocation = await allocate(http)
        _, invoice_id = await billed(http)
        path = f"{ROOT}/invoices/{invoice_id}"
        reason = {"rejectionReason": "BAD_SERVICE", "totalAmountAccepted": "0", "message": "no"}
        assert (await http("POST", f"{path}/reject", reason)).status == 200
        invoice = await http.ok("GET", path)
        assert invoice["status"] == "REJECTED"
        accept = {"totalAmountAccepted": invoice["amount"], "allocationId": allocation}
        assert (await http("POST", f"{path}/accept", accept)).status == 400

    serve(main)
