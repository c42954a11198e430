"""The market API as it goes over the wire: statuses, forms of ids, and polls that end at once."""

from __future__ import annotations

import asyncio
import time

ROOT = "/market-api/v1"


def test_a_negotiation_has_the_statuses_and_forms_of_the_contract(serve):
    async def main(http):
        spec = http.spec()
        reply = await http("POST", f"{ROOT}/demands", spec)
        assert (reply.status, reply.type) == (201, "application/json")
        demand = reply.json
        first, second = demand.split("-")
        assert (len(first), len(second)) == (32, 64)
        (listed,) = await http.ok("GET", f"{ROOT}/demands")
        assert set(listed) == {"properties", "constraints", "demandId", "requestorId", "timestamp"}

        path = f"{ROOT}/demands/{demand}"
        (event,) = await http.ok("GET", f"{path}/events?timeout=5&maxEvents=10")
        assert event["eventType"] == "ProposalEvent"
        assert event["eventDate"].endswith("Z")
        initial = event["proposal"]
        assert initial["state"] == "Initial"
        assert initial["constraints"]
        assert initial["proposalId"].startswith("R-")

        reply = await http("POST", f"{path}/proposals/{initial['proposalId']}", spec)
        assert reply.status == 200
        mine = await http.ok("GET", f"{path}/proposals/{reply.json}")
        assert (mine["issuerId"], mine["state"]) == ((await http.ok("GET", "/me"))["identity"], "Draft")
        (event,) = await http.ok("GET", f"{path}/events?timeout=5")
        assert event["proposal"]["prevProposalId"] == reply.json
        assert (await http("POST", f"{path}/proposals/{initial['proposalId']}", spec)).status == 410

        draft = event["proposal"]["proposalId"]
        assert (await http("POST", f"{path}/proposals/{draft}/reject")).status == 204
        assert (await http("POST", f"{path}/proposals/{draft}/reject", {"message": "again"})).status == 500
        assert (await http("GET", f"{path}/events?maxEvents=101")).status == 400
        assert (await http("DELETE", path)).status == 204
        assert (await http("GET", f"{path}/events?timeout=5")).status == 404

    serve(main)


def test_a_refusal_comes_with_its_reason(serve):
    async def main(http):
        spec = http.spec(**{"golem.com.payment.chosen-platform": "erc20-none-glm"})
        demand = await http.ok("POST", f"{ROOT}/demands", spec)
        path = f"{ROOT}/demands/{demand}"
        (event,) = await http.ok("GET", f"{path}/events")
        ours = await http.ok("POST", f"{path}/proposals/{event['proposal']['proposalId']}", spec)
        (event,) = await http.ok("GET", f"{path}/events")
        assert event["eventType"] == "ProposalRejectedEvent"
        assert event["proposalId"] == ours
        assert event["reason"]["golem.proposal.rejection.is-final"] is False
        assert event["reason"]["message"]

    serve(main)


def test_nested_properties_are_understood(serve):
    async def main(http):
        flat = http.spec()["properties"]
        nested: dict = {}
        for key, value in flat.items():
            *parents, last = key.split(".")
            place = nested
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        _, draft = await http.draft({"properties": nested, "constraints": "()"})
        assert draft

    serve(main)


def test_withdrawing_a_demand_ends_its_poll_with_404_at_once(serve):
    async def main(http):
        demand = await http.ok("POST", f"{ROOT}/demands", {**http.spec(), "constraints": "(a=b)"})
        poll = asyncio.create_task(http("GET", f"{ROOT}/demands/{demand}/events?timeout=30"))
        await asyncio.sleep(0.3)
        begun = time.perf_counter()
        await http("DELETE", f"{ROOT}/demands/{demand}")
        reply = await poll
        assert (reply.status, reply.type) == (404, "application/json")
        assert time.perf_counter() - begun < 1

    serve(main)


def test_an_agreement_has_the_statuses_and_forms_of_the_contract(serve):
    async def main(http):
        demand, draft = await http.draft(http.spec())
        body = {"proposalId": draft, "validTo": "2999-11-22T05:08:27.392557+00:00"}
        reply = await http("POST", f"{ROOT}/agreements", body)
        assert (reply.status, reply.type) == (200, "application/json")
        agreement = reply.json
        assert len(agreement) == 64
        assert (await http("POST", f"{ROOT}/agreements", body)).status == 409
        path = f"{ROOT}/agreements/{agreement}"
        assert (await http("POST", f"{path}/wait?timeout=0")).status == 400
        assert (await http("POST", f"{path}/terminate")).status == 409
        assert (await http("POST", f"{path}/confirm")).status == 204
        assert (await http("POST", f"{path}/confirm")).status == 410
        assert (await http("POST", f"{path}/wait?timeout=15")).status == 204
        assert (await http("POST", f"{path}/cancel", {"message": "late"})).status == 410
        document = await http.ok("GET", path)
        assert document["state"] == "Approved"
        assert document["demand"]["demandId"] == demand
        assert document["offer"]["providerId"] == http.devnet.node.providers[0].node_id
        assert document["validTo"] == "2999-11-22T05:08:27.392557Z"
        assert document["approvedDate"]
        (entry,) = await http.ok("GET", f"{ROOT}/agreements?state=Approved")
        assert (entry["id"], entry["role"]) == (agreement, "requestor")
        assert await http.ok("GET", f"{ROOT}/agreements?state=Terminated") == []
        assert (await http("GET", f"{path}/terminate/reason")).status == 400
        reply = await http(
            "POST", f"{path}/terminate", {"message": "bye", "golem.requestor.code": "Success", "more": [1]}
        )
        assert (reply.status, reply.body) == (200, b"")
        assert (await http("POST", f"{path}/terminate")).status == 410
        event = await http.ok("GET", f"{path}/terminate/reason")
        assert event["terminator"] == "Requestor"
        assert event["reason"] == {"message": "bye", "golem.requestor.code": "Success"}

    serve(main)


def test_agreement_events_carry_what_the_clients_models_require(serve):
    async def main(http):
        agreement = await http.agreement()
        await http("POST", f"{ROOT}/agreements/{agreement}/terminate")
        approved, terminated = await http.ok(
            "GET", f"{ROOT}/agreementEvents?timeout=5&maxEvents=100&appSessionId=session-1"
        )
        assert approved["eventType"] == "AgreementApprovedEvent"
        assert terminated["eventType"] == "AgreementTerminatedEvent"
        assert isinstance(terminated["signature"], str)
        assert terminated["reason"]["message"]
        assert {approved["agreementId"], terminated["agreementId"]} == {agreement}
        after = approved["eventDate"]
        assert await http.ok("GET", f"{ROOT}/agreementEvents?timeout=0&afterTimestamp={after}") == [
            terminated
        ]
        assert await http.ok("GET", f"{ROOT}/agreementEvents?timeout=0&appSessionId=other") == []

    serve(main)


def test_the_wait_for_a_refused_agreement_is_410(serve):
    async def main(http):
        http.devnet.node.faults.refuse_next_agreements("devnet-1")
        _, draft = await http.draft(http.spec())
        body = {"proposalId": draft, "validTo": "2999-01-01T00:00:00Z"}
        agreement = await http.ok("POST", f"{ROOT}/agreements", body)
        await http.ok("POST", f"{ROOT}/agreements/{agreement}/confirm")
        reply = await http("POST", f"{ROOT}/agreements/{agreement}/wait?timeout=5")
        assert (reply.status, reply.json) == (410, {"message": "Rejected"})

    serve(main)
