"""The activity API as it goes over the wire: both forms of creation, results by polling and as events."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

ROOT = "/activity-api/v1"
DEPLOY, START = {"deploy": {}}, {"start": {}}
EVENTS = {"Accept": "text/event-stream"}


def say(*texts, mode="stream"):
    return {"run": {"entry_point": "say", "args": list(texts), "capture": {"stdout": {mode: {}}}}}


async def read_events(http, path, *, until_closed=False):
    """The events of a stream up to the end of its batch, and whether it was still open then."""
    events = []
    async with http.session.get(http.url + path, headers={**http.key, **EVENTS}) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        async for line in response.content:
            if line.startswith(b"data: "):
                events.append(json.loads(line[6:]))
                kind = events[-1]["kind"]
                failed = kind.get("finished", {}).get("return_code", 0) != 0
                if failed and not until_closed:
                    return events, not response.content.at_eof()
    return events, False


def test_an_activity_is_created_in_both_forms_and_answered_in_kind(serve):
    async def main(http):
        agreement = await http.agreement()
        old = await http("POST", f"{ROOT}/activity", agreement)
        assert (old.status, old.type) == (200, "application/json")
        assert isinstance(old.json, str)
        new = await http("POST", f"{ROOT}/activity?timeout=5", {"agreementId": agreement, "x": None})
        assert set(new.json) == {"activityId"}
        ids = await http.ok("GET", f"{ROOT}/activity?agreementId={agreement}")
        assert ids == [old.json, new.json["activityId"]]
        assert all(len(each) == 32 for each in ids)
        assert await http.ok("GET", f"{ROOT}/activity/{old.json}/agreement") == agreement

    serve(main)


def test_a_life_of_an_activity(serve):
    async def main(http):
        activity = await http.activity()
        path = f"{ROOT}/activity/{activity}"
        assert await http.ok("GET", f"{path}/state") == {
            "state": ["Initialized", None],
            "reason": None,
            "errorMessage": None,
        }
        batch = await http.exec(activity, DEPLOY, START, say("hello", mode="atEnd"))
        results = await http.ok("GET", f"{path}/exec/{batch}?timeout=5")
        assert [result["index"] for result in results] == [0, 1, 2]
        last = results[-1]
        assert last.pop("eventDate")
        assert last == {
            "index": 2,
            "result": "Ok",
            "stdout": "hello",
            "stderr": None,
            "message": None,
            "isBatchFinished": True,
        }
        assert results[0]["isBatchFinished"] is False
        assert (await http.ok("GET", f"{path}/state"))["state"] == ["Ready", None]
        usage = await http.ok("GET", f"{path}/usage")
        assert len(usage["currentUsage"]) == 2
        assert isinstance(usage["timestamp"], int)
        reply = await http("DELETE", f"{path}?timeout=30")
        assert (reply.status, reply.json) == (200, None)
        assert reply.body == b"null"
        for end in ("state", "usage", "agreement", f"exec/{batch}"):
            assert (await http("GET", f"{path}/{end}")).status == 200
        assert (await http("DELETE", path)).status == 200

    serve(main)


def test_a_destroy_after_the_agreements_end_is_200(serve):
    async def main(http):
        activity = await http.activity()
        agreement = await http.ok("GET", f"{ROOT}/activity/{activity}/agreement")
        terminate = http("POST", f"/market-api/v1/agreements/{agreement}/terminate")
        replies = await asyncio.gather(terminate, http("DELETE", f"{ROOT}/activity/{activity}"))
        assert [reply.status for reply in replies] == [200, 200]

    serve(main)


def test_one_result_by_its_index(serve):
    async def main(http):
        activity = await http.activity()
        batch = await http.exec(activity, DEPLOY, START)
        path = f"{ROOT}/activity/{activity}/exec/{batch}"
        (result,) = await http.ok("GET", f"{path}?timeout=5&commandIndex=1")
        assert (result["index"], result["isBatchFinished"]) == (1, True)
        assert (await http("GET", f"{path}?timeout=0&commandIndex=2")).status == 408

    serve(main)


def test_binary_output_comes_as_byte_values(serve):
    async def main(http):
        activity = await http.activity()
        command = {
            "run": {
                "entry_point": "say",
                "args": ["AB"],
                "capture": {"stdout": {"atEnd": {"format": "bin"}}, "stderr": None},
            }
        }
        batch = await http.exec(activity, DEPLOY, START, command)
        results = await http.ok("GET", f"{ROOT}/activity/{activity}/exec/{batch}")
        assert results[-1]["stdout"] == [65, 66]

    serve(main)


@pytest.mark.parametrize(
    "text", ["", "{}", "[{}]", '[{"jump":{}}]', '[{"run":{}}]', "[", "[" * 50_000, "[null]"]
)
def test_a_bad_script_is_400(serve, text):
    async def main(http):
        activity = await http.activity()
        reply = await http("POST", f"{ROOT}/activity/{activity}/exec", {"text": text})
        assert reply.status == 400
        assert reply.json["message"]

    serve(main)


def test_a_script_is_queued_not_waited_for(serve):
    async def main(http):
        activity = await http.activity()
        begun = time.perf_counter()
        batch = await http.exec(activity, DEPLOY, START, {"run": {"entry_point": "sleep", "args": ["30"]}})
        assert time.perf_counter() - begun < 1
        path = f"{ROOT}/activity/{activity}"
        assert await http.ok("GET", f"{path}/exec/{batch}?timeout=0") == []
        await asyncio.sleep(1)
        (running,) = await http.ok("GET", f"{path}/command")
        assert running["run"]["entry_point"] == "sleep"
        poll = asyncio.create_task(http.ok("GET", f"{path}/exec/{batch}?timeout=30"))
        await asyncio.sleep(0.1)
        await http.ok("DELETE", path)
        results = await poll
        assert results[-1]["result"] == "Error"
        assert results[-1]["isBatchFinished"] is True

    serve(main)


def test_events_are_replayed_from_the_first_and_the_stream_ends_after_the_last(serve, monkeypatch):
    monkeypatch.setattr("shem.devnet.routes.activity.LINGER", 0.2)

    async def main(http):
        activity = await http.activity()
        batch = await http.exec(activity, DEPLOY, START, say("one", "two"))
        path = f"{ROOT}/activity/{activity}/exec/{batch}"
        await http.ok("GET", f"{path}?timeout=5")
        begun = time.perf_counter()
        events, _ = await read_events(http, path, until_closed=True)
        assert 0.1 < time.perf_counter() - begun < 2
        assert {event["batch_id"] for event in events} == {batch}
        assert [event["index"] for event in events] == [0, 0, 0, 1, 1, 2, 2, 2, 2]
        assert events[0]["kind"] == {"started": {"command": DEPLOY}}
        assert [event["kind"].get("stdout") for event in events[6:8]] == ["one", "two"]
        assert events[-1]["kind"] == {"finished": {"return_code": 0, "message": None}}
        assert "Z" not in events[0]["timestamp"]
        assert "+" not in events[0]["timestamp"]

    serve(main)


def test_events_come_while_the_batch_runs_and_the_stream_outlives_a_failure_a_little(serve):
    async def main(http):
        activity = await http.activity()
        batch = await http.exec(
            activity, DEPLOY, START, say("early"), {"run": {"entry_point": "fail", "args": ["2"]}}
        )
        events, still_open = await read_events(http, f"{ROOT}/activity/{activity}/exec/{batch}")
        assert events[-1]["kind"]["finished"]["return_code"] == 2
        assert still_open

    serve(main)


def test_an_idle_stream_gives_signs_of_life(serve, monkeypatch):
    monkeypatch.setattr("shem.devnet.routes.activity.PING_INTERVAL", 0.05)

    async def main(http):
        activity = await http.activity()
        batch = await http.exec(activity, DEPLOY, START, {"run": {"entry_point": "sleep", "args": ["30"]}})
        path = f"{http.url}{ROOT}/activity/{activity}/exec/{batch}"
        async with http.session.get(path, headers={**http.key, **EVENTS}) as response:
            pings = 0
            while pings < 3:
                pings += await asyncio.wait_for(response.content.readline(), 10) == b":ping\n"

    serve(main)


def test_the_accept_header_of_streaming_clients_changes_nothing_elsewhere(serve):
    async def main(http):
        activity = await http.activity()
        path = f"{ROOT}/activity/{activity}"
        body = {"text": json.dumps([DEPLOY])}
        batch = await http.ok("POST", f"{path}/exec", body, headers=EVENTS)
        for end in ("state", "usage", "agreement"):
            reply = await http("GET", f"{path}/{end}", headers=EVENTS)
            assert (reply.status, reply.type) == (200, "application/json")
        mixed = {"Accept": "application/json, text/event-stream"}
        assert (await http("GET", f"{path}/exec/{batch}", headers=mixed)).type == "application/json"
        assert (await http("DELETE", path, headers=EVENTS)).type == "application/json"
        for unknown in (f"{path}/exec/none", f"{ROOT}/activity/none/exec/none"):
            assert (await http("GET", unknown, headers=EVENTS)).status == 404

    serve(main)


def test_a_vanished_provider_is_a_500_that_clients_know(serve):
    async def main(http):
        activity = await http.activity()
        http.devnet.node.faults.vanish("devnet-1")
        reply = await http("GET", f"{ROOT}/activity/{activity}/state")
        assert reply.status == 500
        assert "endpoint address not found" in reply.json["message"]

    serve(main)
