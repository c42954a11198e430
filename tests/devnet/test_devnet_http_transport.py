"""What holds for all routes: who may call, how errors look, what bodies and queries are understood."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import time

import aiohttp
import pytest

MARKET, ACTIVITY, PAYMENT, GSB = "/market-api/v1", "/activity-api/v1", "/payment-api/v1", "/gsb-api/v1"

#: Every route with a body: method and path, with ids that exist nowhere.
WITH_BODY = [
    ("POST", f"{MARKET}/demands"),
    ("POST", f"{MARKET}/demands/D/proposals/P"),
    ("POST", f"{MARKET}/demands/D/proposals/P/reject"),
    ("POST", f"{MARKET}/agreements"),
    ("POST", f"{MARKET}/agreements/G/cancel"),
    ("POST", f"{MARKET}/agreements/G/terminate"),
    ("POST", f"{ACTIVITY}/activity"),
    ("POST", f"{ACTIVITY}/activity/A/exec"),
    ("POST", f"{PAYMENT}/allocations"),
    ("PUT", f"{PAYMENT}/allocations/L"),
    ("POST", f"{PAYMENT}/debitNotes/N/accept"),
    ("POST", f"{PAYMENT}/invoices/I/accept"),
    ("POST", f"{PAYMENT}/invoices/I/reject"),
    ("POST", f"{GSB}/services"),
]
#: Bodies that are malformed for each of them.
MALFORMED = [
    b"{",
    b"[1,2",
    b"\xff\xfe\x00",
    b'{"properties": }',
    b"7",
    b"[]",
    b'{"totalAmount": "x", "validTo": 7, "text": [], "listen": 3, "message": []}',
    b"[" * 100_000,
    b'{"totalAmount": 1e999999999, "properties": 1, "proposalId": "x", "message": 1}',
    b'{"totalAmount": 1, "timeout": "0001-01-01T00:00:00+14:00", "properties": {}, "proposalId": []}',
    b'{"totalAmountAccepted": "1e99999999999999999999", "agreementId": null, "message": {}, "listen": {}}',
]
#: Every route that is only looked at.
TO_READ = [
    "/me",
    f"{MARKET}/demands",
    f"{MARKET}/demands/D/events",
    f"{MARKET}/demands/D/proposals/P",
    f"{MARKET}/agreements",
    f"{MARKET}/agreements/G",
    f"{MARKET}/agreements/G/terminate/reason",
    f"{MARKET}/agreementEvents",
    f"{ACTIVITY}/activity",
    f"{ACTIVITY}/activity/A/exec/B",
    f"{ACTIVITY}/activity/A/state",
    f"{ACTIVITY}/activity/A/usage",
    f"{ACTIVITY}/activity/A/agreement",
    f"{ACTIVITY}/activity/A/command",
    f"{PAYMENT}/allocations",
    f"{PAYMENT}/allocations/L",
    f"{PAYMENT}/demandDecorations",
    f"{PAYMENT}/requestorAccounts",
    f"{PAYMENT}/providerAccounts",
    f"{PAYMENT}/debitNoteEvents",
    f"{PAYMENT}/invoiceEvents",
    f"{PAYMENT}/debitNotes",
    f"{PAYMENT}/debitNotes/N",
    f"{PAYMENT}/invoices",
    f"{PAYMENT}/invoices/I",
    f"{GSB}/services/S",
]
EVENT_POLLS = [f"{MARKET}/agreementEvents", f"{PAYMENT}/debitNoteEvents", f"{PAYMENT}/invoiceEvents"]


def test_every_route_but_the_version_needs_the_app_key(serve):
    async def main(http):
        routes = [*WITH_BODY, *(("GET", path) for path in TO_READ), ("GET", "/none"), ("DELETE", "/none")]
        for method, path in routes:
            for headers, said in (
                ({"Authorization": ""}, "Missing application key"),
                ({"Authorization": "Bearer "}, "Missing application key"),
                ({"Authorization": "Bearer wrong"}, "Invalid application key"),
                ({"Authorization": "Bearer " + http.key["Authorization"][7:-1]}, "Invalid application key"),
            ):
                reply = await http(method, path, headers=headers)
                assert (reply.status, reply.type) == (401, "text/plain"), (method, path)
                assert reply.body.decode() == said
        version = await http("GET", "/version/get", headers={"Authorization": ""})
        assert version.json["current"]["version"] == "0.17.6"

    serve(main)


def test_the_key_may_come_in_the_query(serve):
    async def main(http):
        key, nobody = http.devnet.address.app_key, {"Authorization": ""}
        assert (await http("GET", f"/me?authToken={key}", headers=nobody)).status == 200
        assert (await http("GET", "/me?authToken=%C3%A9", headers=nobody)).status == 401
        assert (await http("GET", "/me?authToken=", headers=nobody)).status == 401

    serve(main)


def test_me_is_the_nodes_identity(serve):
    async def main(http):
        me = await http.ok("GET", "/me")
        assert me == {"identity": http.devnet.node.identity.identity, "name": "devnet", "role": "manager"}
        assert me["identity"].startswith("0x")

    serve(main, app_key="my own key")


def test_malformed_bodies_are_400_and_never_a_failure_of_the_node(serve):
    async def main(http):
        for method, path in WITH_BODY:
            for raw in MALFORMED:
                reply = await http(method, path, raw=raw)
                # 404: what is well-formed for this route, but meets an id that exists nowhere.
                assert reply.status in (400, 404), (path, raw[:40], reply)
                assert reply.type in ("application/json", "application/problem+json"), (path, raw[:40])
                assert reply.json

    serve(main)


def test_bodies_that_are_well_formed_but_meet_nothing_are_refused_with_a_message(serve):
    async def main(http):
        bodies = {
            f"{MARKET}/demands/D/proposals/P": ({"properties": {}, "constraints": "()"}, 404),
            f"{MARKET}/demands/D/proposals/P/reject": ({"message": "m"}, 404),
            f"{MARKET}/agreements": ({"proposalId": "P", "validTo": "2999-01-01T00:00:00Z"}, 400),
            f"{MARKET}/agreements/G/terminate": (None, 404),
            f"{MARKET}/agreements/G/cancel": (None, 404),
            f"{MARKET}/agreements/G/confirm": (None, 404),
            f"{MARKET}/agreements/G/wait": (None, 404),
            f"{ACTIVITY}/activity": ("G", 404),
            f"{ACTIVITY}/activity/A/exec": ({"text": "[]"}, 404),
            f"{PAYMENT}/debitNotes/N/accept": ({"totalAmountAccepted": "1", "allocationId": "L"}, 404),
            f"{PAYMENT}/debitNotes/N/reject": ({}, 501),
            f"{PAYMENT}/invoices/I/accept": ({"totalAmountAccepted": 1, "allocationId": "L"}, 404),
            f"{PAYMENT}/invoices/I/reject": ({"rejectionReason": "BAD_SERVICE"}, 404),
        }
        for path, (body, status) in bodies.items():
            reply = await http("POST", path, body)
            assert (reply.status, reply.type) == (status, "application/json"), (path, reply)
            assert isinstance(reply.json["message"], str)
        for path in (f"{MARKET}/demands/D", f"{ACTIVITY}/activity/A", f"{PAYMENT}/allocations/L"):
            assert (await http("DELETE", path)).status == 404
        assert (await http("DELETE", f"{GSB}/services/S")).status == 404

    serve(main)


def test_unknown_routes_and_methods_are_refused_in_the_same_form(serve):
    async def main(http):
        for method, path, status in (
            ("GET", "/none", 404),
            ("GET", f"{MARKET}/none", 404),
            ("PATCH", "/me", 405),
            ("GET", "/me/", 404),
        ):
            reply = await http(method, path)
            assert (reply.status, reply.type) == (status, "application/json")
            assert reply.json["message"]

    serve(main)


@pytest.mark.parametrize("value", ["x", "-1", "nan", "NaN", "5s", "1,5"])
def test_a_senseless_time_limit_is_400_on_every_poll(serve, value):
    async def main(http):
        for path in EVENT_POLLS:
            reply = await http("GET", f"{path}?timeout={value}")
            assert reply.status == 400
            assert value in reply.json["message"]

    serve(main)


def test_event_polls_are_never_answered_by_a_failure(serve):
    async def main(http):
        for path in EVENT_POLLS:
            for query in (
                "maxEvents=0",
                "maxEvents=x",
                "maxEvents=%D9%A3",
                "maxEvents=" + "9" * 5000,
                "afterTimestamp=x",
                "afterTimestamp=0001-01-01T00:00:00%2B14:00",
                "afterTimestamp=2026-02-30T00:00:00Z",
            ):
                assert (await http("GET", f"{path}?timeout=0&{query}")).status == 400, query
            for query in (
                "",
                "&appSessionId=",
                "&appSessionId=a%00b",
                "&maxEvents=100000",
                "&afterTimestamp=",
            ):
                assert await http.ok("GET", f"{path}?timeout=0{query}") == []

    serve(main)


@pytest.mark.parametrize(
    "timestamp",
    [
        "2026-11-22T04:08:25.298216+00:00",
        "2026-11-22T04:08:25.298216%2B00:00",
        "2026-11-22T04:08:25Z",
        "2026-11-22T04:08:25.123456789Z",
        "2026-11-22T06:08:25+02:00",
        "2026-11-22T04:08:25",
    ],
)
def test_times_are_understood_in_every_form_that_clients_send(serve, timestamp):
    async def main(http):
        await http.ok("POST", f"{PAYMENT}/allocations", {"totalAmount": "1"})
        for path in EVENT_POLLS:
            assert await http.ok("GET", f"{path}?timeout=0&afterTimestamp={timestamp}") == []
        assert await http.ok("GET", f"{PAYMENT}/allocations?afterTimestamp=2000-01-01T00:00:00+00:00") != []

    serve(main)


def test_a_compressed_body_is_understood_and_a_broken_one_refused(serve):
    async def main(http):
        raw = gzip.compress(json.dumps(http.spec()).encode())
        zipped = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        reply = await http("POST", f"{MARKET}/demands", raw=raw, headers=zipped)
        assert reply.status == 201
        for broken in (b"not gzip at all", raw[:20]):
            reply = await http("POST", f"{MARKET}/demands", raw=broken, headers=zipped)
            assert reply.status == 400

    serve(main)


def test_a_body_of_many_megabytes_is_taken(serve):
    async def main(http):
        spec = http.spec(**{"acme.blob": "x" * 20_000_000})
        raw = io.BytesIO(json.dumps(spec).encode())
        demand = await http.ok("POST", f"{MARKET}/demands", raw=raw)
        (stored,) = await http.ok("GET", f"{MARKET}/demands")
        assert stored["demandId"] == demand
        assert len(stored["properties"]["acme.blob"]) == 20_000_000

    serve(main)


def test_unknown_keys_are_tolerated_everywhere(serve):
    async def main(http):
        spec = {**http.spec(), "unknown": {"deep": [1]}, "demandId": ""}
        assert (await http("POST", f"{MARKET}/demands?maxItems=10", spec)).status == 201
        body = {"totalAmount": 1, "allocationId": "", "spentAmount": "", "remainingAmount": "", "new": None}
        assert (await http("POST", f"{PAYMENT}/allocations?maxItems=10", body)).status == 201

    serve(main)


def test_a_client_that_goes_away_takes_no_events_with_it(serve):
    async def main(http):
        demand = await http.ok("POST", f"{MARKET}/demands", http.spec())
        path = f"{MARKET}/demands/{demand}/events?timeout=20"
        await http.ok("GET", path)
        with pytest.raises(asyncio.TimeoutError):
            await http("GET", path, timeout=aiohttp.ClientTimeout(total=0.3))
        await asyncio.sleep(0.3)
        provider = http.devnet.node.providers[0]
        provider.vanish()
        provider.recover()
        (event,) = await http.ok("GET", path)
        assert event["proposal"]["issuerId"] == provider.node_id

    serve(main)


def test_many_long_polls_do_not_keep_a_command_waiting(serve):
    async def main(http):
        polls = [asyncio.create_task(http("GET", f"{path}?timeout=60")) for path in EVENT_POLLS * 20]
        await asyncio.sleep(0.5)
        begun = time.perf_counter()
        await http.ok("GET", "/me")
        assert time.perf_counter() - begun < 2
        await http.devnet.stop()
        replies = await asyncio.gather(*polls, return_exceptions=True)
        assert {getattr(reply, "status", None) for reply in replies} == {200}
        assert time.perf_counter() - begun < 10

    async def with_connections(http):
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            http.session = session
            await main(http)

    serve(with_connections)
